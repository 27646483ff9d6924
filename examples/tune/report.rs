//! What was found: a configuration file whose comments say why, and the same
//! for other programs.

use std::{error::Error, fmt, time::Duration};

use heartbeat_tokio::Config;
use serde::Serialize;

use crate::{
    candidates::Candidate,
    costs::{CPU, Costs},
    simulate::Outcome,
    statistics::{Rate, Spread},
    trial::Trial,
    wishes::Wishes,
};

/// All of it. Times are seconds.
#[derive(Debug, Serialize)]
pub struct Report {
    network: Network,
    detect_within: f64,
    connections: u64,
    config: toml::Table,
    toml: String,
    bound: f64,
    detection: Spread,
    false_alarms: FalseAlarms,
    costs: Costs,
    /// What a real network did, if it was asked.
    pub trial: Option<Trial>,
    candidates: Vec<Tried>,
    chosen: usize,
    #[serde(skip)]
    wishes: Wishes,
    #[serde(skip)]
    chosen_config: Config,
}

#[derive(Debug, Serialize)]
struct Network {
    rtt: f64,
    jitter: f64,
    loss: f64,
    outage: f64,
    outage_every: f64,
    samples: Option<usize>,
}

/// Of connections whose peers live.
#[derive(Debug, Serialize)]
pub struct FalseAlarms {
    pub count: u64,
    pub simulated_days: f64,
    pub of_one: Rate,
    of_all: Rate,
    suspicions_a_day: f64,
}

/// A candidate, and what came of it.
#[derive(Debug, Serialize)]
pub struct Tried {
    pub interval: f64,
    pub timeout: f64,
    pub max_missed: u32,
    pub bound: f64,
    pub is_possible: bool,
    pub detection: Spread,
    pub false_alarms: FalseAlarms,
}

impl Report {
    /// Of the candidate that was `chosen`, more is known than of the others.
    pub fn new(
        wishes: &Wishes,
        candidates: &[Candidate],
        outcomes: &[Outcome],
        chosen: usize,
        known: &Outcome,
    ) -> Result<Self, Box<dyn Error>> {
        let config = candidates[chosen].config;
        let table = short(&config)?;
        let toml = toml::to_string(&table)?;
        // What is pasted must be what was judged.
        if toml::from_str::<Config>(&toml)? != config {
            return Err(format!("this configuration can't be written down: {config:?}").into());
        }
        let tried = candidates.iter().zip(outcomes).enumerate();
        let tried = tried.map(|(index, (candidate, outcome))| match index == chosen {
            true => Tried::new(wishes, candidate, known),
            false => Tried::new(wishes, candidate, outcome),
        });
        let path = wishes.path;
        Ok(Self {
            network: Network {
                rtt: path.rtt.as_secs_f64(),
                jitter: path.jitter.as_secs_f64(),
                loss: path.loss,
                outage: path.outage.as_secs_f64(),
                outage_every: path.outage_every.as_secs_f64(),
                samples: path.samples,
            },
            detect_within: wishes.budget.as_secs_f64(),
            connections: wishes.connections,
            config: table,
            toml,
            bound: exact(config.detection_time()),
            detection: Spread::of(&known.detections),
            false_alarms: FalseAlarms::new(wishes, known),
            costs: Costs::of(known.alarms.beats(), wishes.connections),
            trial: None,
            candidates: tried.collect(),
            chosen,
            wishes: *wishes,
            chosen_config: config,
        })
    }

    /// All that were tried, and which of them is meant.
    pub fn candidates(&self) -> (&[Tried], usize) {
        (&self.candidates, self.chosen)
    }

    /// If there are false alarms: how long it takes to have certainly fewer.
    fn more_patience(&self) -> Option<&Tried> {
        let alarms = self.false_alarms.of_one.low;
        let calmer = self
            .candidates
            .iter()
            .filter(|tried| tried.bound > self.bound && tried.false_alarms.of_one.high < alarms);
        calmer.min_by(|one, other| one.bound.total_cmp(&other.bound))
    }
}

impl FalseAlarms {
    fn new(wishes: &Wishes, outcome: &Outcome) -> Self {
        let alarms = &outcome.alarms;
        Self {
            count: alarms.count,
            simulated_days: alarms.days(),
            of_one: alarms.rate(),
            of_all: alarms.rate().times(wishes.connections),
            suspicions_a_day: alarms.suspicions as f64 / alarms.days(),
        }
    }
}

impl Tried {
    fn new(wishes: &Wishes, candidate: &Candidate, outcome: &Outcome) -> Self {
        let config = &candidate.config;
        Self {
            interval: exact(config.interval()),
            timeout: exact(config.timeout()),
            max_missed: config.max_missed(),
            bound: exact(config.detection_time()),
            is_possible: candidate.is_possible,
            detection: Spread::of(&outcome.detections),
            false_alarms: FalseAlarms::new(wishes, outcome),
        }
    }
}

/// The knobs that were chosen. Those with their defaults are left out, also
/// where a default follows from another knob.
fn short(config: &Config) -> Result<toml::Table, Box<dyn Error>> {
    let chosen = |config: &Config| {
        let timings = Config::builder()
            .interval(config.interval())
            .timeout(config.timeout())
            .max_missed(config.max_missed());
        timings.build()
    };
    let all = toml::Table::try_from(config)?;
    let usual = toml::Table::try_from(chosen(config)?)?;
    let is_said = |key: &str, value: &toml::Value| {
        matches!(key, "interval" | "timeout" | "max_missed") || usual.get(key) != Some(value)
    };
    Ok(all
        .into_iter()
        .filter(|(key, value)| is_said(key, value))
        .collect())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Wishes {
            path,
            budget,
            connections,
            longest_interval,
        } = self.wishes;
        write!(
            f,
            "# For a round trip of {:?} to {:?}, {} % loss",
            path.rtt,
            path.longest_round_trip(),
            rounded(path.loss * 100.0),
        )?;
        match path.outage.is_zero() {
            true => writeln!(f, " and no outages."),
            false => writeln!(
                f,
                "\n# and outages of {:?}, one in {:?} on average.",
                path.outage, path.outage_every
            ),
        }?;
        if let Some(samples) = path.samples {
            writeln!(f, "# (Measured: {samples} round trips.)")?;
        }
        if let Some(longest) = longest_interval {
            writeln!(f, "# (Learned: an interval of {longest:?} is safe there.)")?;
        }
        writeln!(f, "\n{}", self.toml)?;

        writeln!(
            f,
            "# A death is detected within {:?}: promised.",
            self.chosen_config.detection_time()
        )?;
        if self.chosen_config.detection_time() != budget {
            writeln!(f, "# ({budget:?} was asked for.)")?;
        }
        let Spread {
            deaths,
            p50,
            p90,
            p99,
            max,
        } = self.detection;
        writeln!(
            f,
            "# Of {deaths} simulated deaths, half within {}, 90 % within {}, 99 % within {},\n\
             # all within {}. (What was on its way at that moment counts as life.)",
            seconds(p50),
            seconds(p90),
            seconds(p99),
            seconds(max),
        )?;

        let FalseAlarms {
            count,
            simulated_days,
            of_one,
            of_all,
            suspicions_a_day,
        } = &self.false_alarms;
        writeln!(
            f,
            "#\n# False alarms: {count} in {} simulated days of one connection. With a confidence of 95 %\n\
             # {} a day for one connection,\n# {} a day for {connections}.",
            rounded(*simulated_days),
            Limits(of_one),
            Limits(of_all),
        )?;
        writeln!(
            f,
            "# Real kernels were seen to raise up to {REAL} times as many: expect up to {}.",
            rounded(of_one.high * REAL),
        )?;
        writeln!(
            f,
            "# Harmless suspicions: {} a day for one connection.",
            rounded(*suspicions_a_day)
        )?;
        if let Some(tried) = self.more_patience() {
            writeln!(
                f,
                "# More patience would help: with --detect-within {:?} there would be\n\
                 # {} a day for one connection.",
                Duration::from_secs_f64(tried.bound),
                Limits(&tried.false_alarms.of_one),
            )?;
        }

        let Costs {
            beats,
            packets,
            bytes,
            cpu_seconds,
        } = self.costs;
        writeln!(
            f,
            "#\n# While all {connections} connections are idle, a second: {} beats, {} packets in both\n\
             # directions, {} bytes with their headers (IPv4 and TCP with timestamps),\n\
             # and at most {} s of one core ({} µs for each beat, see docs/timings.md).",
            rounded(beats),
            rounded(packets),
            rounded(bytes),
            rounded(cpu_seconds),
            CPU * 1e6,
        )?;
        match &self.trial {
            Some(trial) => write!(f, "{trial}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spread {
            deaths,
            p50,
            p90,
            p99,
            max,
        } = self.detection;
        writeln!(
            f,
            "#\n# On a network of namespaces, {} connections for {}: {} false alarms,\n\
             # {} a day for one connection.\n\
             # Of {deaths} verdicts, half within {}, 90 % within {}, 99 % within {}, all within {}.",
            self.connections,
            seconds(self.seconds),
            self.count,
            Limits(&self.of_one),
            seconds(p50),
            seconds(p90),
            seconds(p99),
            seconds(max),
        )
    }
}

/// "0.1 to 0.3 (0.2 counted)", or "at most 0.3".
struct Limits<'a>(&'a Rate);

/// The largest factor by which real kernels exceeded the predicted false alarms
/// (docs/timings.md has the table).
const REAL: f64 = 1.7;

impl fmt::Display for Limits<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rate { a_day, low, high } = *self.0;
        match low > 0.0 {
            true => write!(
                f,
                "{} ({} to {})",
                rounded(a_day),
                rounded(low),
                rounded(high)
            ),
            false => write!(f, "at most {}", rounded(high)),
        }
    }
}

/// As it is written with six digits.
fn exact(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e6
}

fn seconds(seconds: f64) -> String {
    format!("{} s", rounded(seconds))
}

/// To three digits that mean something.
fn rounded(number: f64) -> String {
    if number == 0.0 {
        return "0".into();
    }
    let digits = 2 - number.abs().log10().floor() as i32;
    match usize::try_from(digits) {
        Ok(digits) => {
            let text = format!("{number:.digits$}");
            match text.contains('.') {
                true => text.trim_end_matches('0').trim_end_matches('.').into(),
                false => text,
            }
        }
        Err(_) => {
            let unit = 10_f64.powi(-digits);
            format!("{:.0}", (number / unit).round() * unit)
        }
    }
}
