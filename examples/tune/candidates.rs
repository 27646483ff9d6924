//! Which configurations are tried, and which of them is recommended.
//!
//! Every candidate within the budget uses all of it, unless the network keeps no such
//! interval: a verdict that comes sooner than it has to can only be wrong more often. They differ in how much of it is
//! the interval, and in how many misses share the rest.

use std::time::Duration;

use heartbeat_tokio::{Config, ConfigError};

use crate::{
    simulate::Outcome,
    wishes::{LARGEST_SHARE, USUAL_SHARE, Wishes},
};

/// Of the budget, what N·W takes of it.
const SHARES: [f64; 4] = [0.5, USUAL_SHARE, 0.75, LARGEST_SHARE];

/// Three first: of two that are equally good, the first is taken.
const MISSES: [u32; 4] = [3, 2, 5, 1];

/// Detection times beside the one that is asked for, to see what more or less
/// patience would be worth.
const OTHER_BUDGETS: [f64; 8] = [0.25, 0.35, 0.5, 0.7, 0.85, 1.4, 2.0, 3.0];

/// A configuration to be tried.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    pub config: Config,
    /// Whether it grants all wishes, as far as that can be calculated.
    pub is_possible: bool,
}

/// What is worth a try; the given one, if there is one, first.
pub fn around(wishes: &Wishes, given: Option<Config>) -> Result<Vec<Candidate>, ConfigError> {
    let mut candidates = Vec::new();
    if let Some(config) = given {
        candidates.push(Candidate {
            config,
            is_possible: true,
        });
    }
    let usual = Config::detect_within(wishes.budget)?;
    // As little as has to be: this leaves the longest interval.
    let least = wishes.needed(&usual).as_secs_f64() / wishes.budget.as_secs_f64();
    let mut shares: Vec<_> = SHARES.into_iter().filter(|share| *share > least).collect();
    shares.insert(0, least.clamp(0.3, LARGEST_SHARE));
    for share in shares {
        for misses in MISSES {
            let config = split(wishes, wishes.budget, share, misses)?;
            let timeout_lasts = config.timeout() >= wishes.path.longest_round_trip();
            let waits = config.timeout() * config.max_missed();
            candidates.push(Candidate {
                config,
                is_possible: timeout_lasts && waits >= wishes.needed(&config),
            });
        }
    }
    for factor in OTHER_BUDGETS {
        // Beyond what timings can be there is nothing to see.
        if let Ok(config) = split(wishes, wishes.budget.mul_f64(factor), USUAL_SHARE, 3) {
            candidates.push(Candidate {
                config,
                is_possible: false,
            });
        }
    }
    Ok(candidates)
}

/// The cheapest of those which nothing that was tried is better than, as far as
/// chance lets one tell.
pub fn recommended(candidates: &[Candidate], outcomes: &[Outcome]) -> Option<usize> {
    let possible = || (0..candidates.len()).filter(|index| candidates[*index].is_possible);
    let rates: Vec<_> = outcomes
        .iter()
        .map(|outcome| outcome.alarms.rate())
        .collect();
    let best = possible()
        .map(|index| rates[index].high)
        .min_by(f64::total_cmp)?;
    let mut good: Vec<_> = possible()
        .filter(|index| rates[*index].low <= best)
        .collect();
    // Stable: three misses stay in front of others whose interval differs by
    // no more than what was rounded.
    let coarse = |config: &Config| {
        (config.interval().as_secs_f64() * 200.0 / config.detection_time().as_secs_f64()) as u32
    };
    good.sort_by_key(|index| std::cmp::Reverse(coarse(&candidates[*index].config)));
    good.first().copied()
}

/// N·W takes this share of the budget, rounded to times that can be read, and the
/// interval what is left of it, as far as the network keeps a connection for it.
fn split(
    wishes: &Wishes,
    budget: Duration,
    share: f64,
    misses: u32,
) -> Result<Config, ConfigError> {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let unit = match micros(budget) {
        1_000_000.. => 1_000,
        10_000.. => 10,
        _ => 1,
    };
    let timeout = micros(budget.mul_f64(share) / misses).div_ceil(unit).max(1) * unit;
    let timeout = Duration::from_micros(timeout);
    let interval = budget.saturating_sub(timeout * misses);
    Config::builder()
        .interval(interval.min(wishes.longest_interval.unwrap_or(interval)))
        .timeout(timeout)
        .max_missed(misses)
        .build()
}
