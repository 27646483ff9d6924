//! What each method costs, on networks whose timeout is known: the table of
//! docs/timings.md.

use std::{iter, time::Duration};

use heartbeat_tokio::{
    ConfigError,
    heartbeat_core::{IntervalSearch, SearchMethod, SearchOutcome},
};

use crate::simulated;

const SMALLEST: Duration = Duration::from_secs(15);
const LARGEST: Duration = Duration::from_secs(4 * 60 * 60);
const STEP: Duration = Duration::from_secs(60);

/// How near to what was lost a search ends: what `IntervalSearch` has by itself.
const RESOLUTION: f64 = 0.05;

/// How long a lost connection takes to be known: N·W of `Config::mobile()`.
const UNTIL_LOST: f64 = 30.0;

/// Seconds.
const TIMEOUTS: [f64; 5] = [30.0, 120.0, 600.0, 1_800.0, 7_200.0];

const METHODS: [(&str, SearchMethod); 4] = [
    ("binary", SearchMethod::Binary),
    ("exponential", SearchMethod::Exponential),
    ("composite", SearchMethod::Composite),
    ("step of 1 min", SearchMethod::Step(STEP)),
];

/// What one search took, or at most takes.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    attempts: f64,
    lost: f64,
    /// Seconds until there is nothing left to try.
    time: f64,
    /// Until the answered interval is within this fraction of the timeout, if it ever is.
    within_10: Option<f64>,
    within_5: Option<f64>,
    /// What it found, as a part of the timeout.
    found: f64,
    /// Of the connection that isn't to be lost, meanwhile.
    beats: f64,
}

/// Each timeout is the mean over this many networks, which differ by up to a tenth.
pub fn print(seeds: u32) -> Result<(), ConfigError> {
    println!(
        "| timeout | method | attempts | lost | hours | within 10 % | within 5 % | found | beats |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for timeout in TIMEOUTS {
        for (name, method) in METHODS {
            let mut random = fastrand::Rng::with_seed(1);
            let costs: Vec<_> = (0..seeds)
                .map(|_| {
                    let actual = timeout * (0.9 + 0.2 * random.f64());
                    let cost = search(method, actual)?;
                    let most = bound(method, actual);
                    assert!(cost.attempts <= most.attempts, "{name}, {actual}: {cost:?}");
                    assert!(cost.lost <= most.lost, "{name}, {actual}: {cost:?}");
                    assert!(cost.time <= most.time, "{name}, {actual}: {cost:?}");
                    Ok((cost, most))
                })
                .collect::<Result<_, ConfigError>>()?;
            row(timeout, name, &costs);
        }
    }
    Ok(())
}

/// Prints the means of what was seen, and of the bounds.
fn row(timeout: f64, name: &str, costs: &[(Cost, Cost)]) {
    let count = costs.len() as f64;
    let mean = |of: fn(&Cost) -> f64| costs.iter().map(|(cost, _)| of(cost)).sum::<f64>() / count;
    let most = |of: fn(&Cost) -> f64| costs.iter().map(|(_, most)| of(most)).sum::<f64>() / count;
    let hours = |seconds: f64| format!("{:.2}", seconds / 3_600.0);
    // Where some never get so near, there is no mean.
    let until = |of: fn(&Cost) -> Option<f64>| {
        let times: Vec<f64> = costs.iter().filter_map(|(cost, _)| of(cost)).collect();
        match times.len() * 100 / costs.len() {
            0 => "never".into(),
            100 => hours(times.iter().sum::<f64>() / times.len() as f64),
            percent => format!("{percent} % of them"),
        }
    };
    let timeout = match timeout {
        ..60.0 => format!("{timeout} s"),
        60.0..3_600.0 => format!("{} min", timeout / 60.0),
        _ => format!("{} h", timeout / 3_600.0),
    };
    println!(
        "| {timeout} | {name} | {:.1} ({:.1}) | {:.1} ({:.1}) | {} ({}) | {} | {} | {:.0} % | {:.0} |",
        mean(|cost| cost.attempts),
        most(|cost| cost.attempts),
        mean(|cost| cost.lost),
        most(|cost| cost.lost),
        hours(mean(|cost| cost.time)),
        hours(most(|cost| cost.time)),
        until(|cost| cost.within_10),
        until(|cost| cost.within_5),
        100.0 * mean(|cost| cost.found),
        mean(|cost| cost.beats),
    );
}

/// One search on a network with this timeout.
fn search(method: SearchMethod, timeout: f64) -> Result<Cost, ConfigError> {
    let search = IntervalSearch::new(SMALLEST..=LARGEST)?.method(method);
    let mut cost = Cost::default();
    let mut known = SMALLEST.as_secs_f64();
    simulated::run(search, Duration::from_secs_f64(timeout), |attempt| {
        let now = attempt.ended_at.as_secs_f64();
        cost.beats += (now - cost.time) / known;
        cost.time = now;
        cost.attempts += 1.0;
        match attempt.outcome {
            SearchOutcome::Answered { idle } => known = idle.as_secs_f64(),
            _ => cost.lost += 1.0,
        }
        let is_within = |part: f64| (known >= (1.0 - part) * timeout).then_some(now);
        cost.within_10 = cost.within_10.or(is_within(0.1));
        cost.within_5 = cost.within_5.or(is_within(0.05));
    });
    cost.found = known / timeout;
    Ok(cost)
}

/// What it costs at most: docs/timings.md derives it.
fn bound(method: SearchMethod, timeout: f64) -> Cost {
    let smallest = SMALLEST.as_secs_f64();
    let largest = LARGEST.as_secs_f64();
    let doublings = (timeout / smallest).log2().floor() + 1.0;
    let (attempts, lost, waiting) = match method {
        SearchMethod::Binary => {
            let width = largest - smallest;
            let halvings = (width / (RESOLUTION * timeout)).log2().ceil();
            let middles = iter::successors(Some(width / 2.0), |width| Some(width / 2.0));
            let waits = middles.take(halvings as usize).map(|width| timeout + width);
            (halvings, halvings, waits.sum())
        }
        SearchMethod::Exponential => (doublings, 1.0, 4.0 * timeout),
        SearchMethod::Composite => {
            let halvings = (1.0 / RESOLUTION).log2().ceil();
            let waiting = (4.0 + 1.5 * halvings) * timeout;
            (doublings + halvings, 1.0 + halvings, waiting)
        }
        _ => {
            let step = STEP.as_secs_f64();
            let steps = ((timeout - smallest) / step).floor() + 1.0;
            (
                steps,
                1.0,
                steps * smallest + step * steps * (steps + 1.0) / 2.0,
            )
        }
    };
    Cost {
        attempts,
        lost,
        time: waiting + lost * UNTIL_LOST,
        ..Cost::default()
    }
}
