//! What can be asked for, what a number on the command line means, and which
//! wishes contradict each other.
//!
//! A peer that lives may be silent for a while: for a round trip, for as long
//! as TCP takes to repeat what was lost, and for about twice as long as an
//! outage, because TCP repeats at growing intervals. A ping and its repetitions
//! have N·W to be answered, so N·W has to be longer than each of these; and
//! a timeout W longer than a round trip. What is left of the detection time is
//! the interval. docs/timings.md has the reasons.

use std::{fmt, path::PathBuf, time::Duration};

use clap::Args;
use heartbeat_core::testkit::Link;
use heartbeat_examples::arguments::duration;
use heartbeat_tokio::{Config, SafetyNet};

use crate::measure;

/// The shortest time after which TCP repeats something, above the round trip.
const FIRST_REPETITION: Duration = Duration::from_millis(200);

/// Of the detection time, what N·W takes of it at most. The shorter the interval
/// that is left, the more pings.
pub const LARGEST_SHARE: f64 = 0.8;

/// The same in `Config::detect_within`.
pub const USUAL_SHARE: f64 = 9.0 / 14.0;

/// What is known of a network, or how to find it out.
#[derive(Args, Clone, Debug)]
pub struct PathOptions {
    /// The shortest round trip
    #[arg(long, value_name = "TIME", value_parser = duration,
          required_unless_present_any = ["measured", "measure"])]
    rtt: Option<Duration>,
    /// By how much longer a packet takes at most, in each direction [default: 0s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    jitter: Option<Duration>,
    /// The part of packets that is lost, in each direction: 2% or 0.02 [default: 0%]
    #[arg(long, value_name = "PART", value_parser = part)]
    loss: Option<f64>,
    /// The longest outage to survive
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "0s")]
    outage: Duration,
    /// How often there is one, on average
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "1h")]
    outage_every: Duration,
    /// Both hosts run Linux 6.15 or later, where the safety net keeps
    /// retransmissions from getting too rare while a peer is suspect
    #[arg(long)]
    linux_6_15: bool,
    /// Take round trip, jitter and loss from the round trips in this file, one a
    /// line
    #[arg(long, value_name = "FILE", conflicts_with = "measure")]
    measured: Option<PathBuf>,
    /// Measure them on a connection to a peer that runs this crate
    #[arg(long, value_name = "HOST:PORT")]
    measure: Option<String>,
    /// How many round trips to measure
    #[arg(long, value_name = "COUNT", default_value_t = 20, requires = "measure",
          value_parser = clap::value_parser!(u32).range(2..))]
    samples: u32,
}

/// A network between two hosts.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    pub rtt: Duration,
    pub jitter: Duration,
    pub loss: f64,
    pub outage: Duration,
    pub outage_every: Duration,
    pub linux_6_15: bool,
    /// From how many round trips the first three were found.
    pub samples: Option<usize>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wishes {
    pub path: Path,
    pub budget: Duration,
    pub connections: u64,
    /// The longest interval that the network keeps a connection for, if it is known.
    pub longest_interval: Option<Duration>,
}

impl PathOptions {
    /// Measures what isn't given.
    pub fn known(self) -> Result<Path, String> {
        let round_trips = match (&self.measured, &self.measure) {
            (Some(path), _) => Some(measure::read(path)?),
            (None, Some(peer)) => Some(measure::ask(peer, self.samples)?),
            (None, None) => None,
        };
        let found = round_trips.as_deref().map(measure::Found::in_round_trips);
        Ok(Path {
            rtt: self
                .rtt
                .or(found.map(|found| found.rtt))
                .unwrap_or_default(),
            jitter: (self.jitter.or(found.map(|found| found.jitter))).unwrap_or_default(),
            loss: self
                .loss
                .or(found.map(|found| found.loss))
                .unwrap_or_default(),
            outage: self.outage,
            outage_every: self.outage_every,
            linux_6_15: self.linux_6_15,
            samples: round_trips.map(|round_trips| round_trips.len()),
        })
    }
}

impl Path {
    /// The testkit's, between two hosts with this configuration.
    pub fn link(&self, config: &Config) -> Link {
        let link = Link::new()
            .rtt(self.rtt)
            .jitter(self.jitter)
            .loss(self.loss)
            .outage(self.outage)
            .outage_every(self.outage_every);
        match self.longest_backoff(config) {
            Some(longest) => link.retransmit_within(longest),
            None => link,
        }
    }

    /// Without anything lost.
    pub fn longest_round_trip(&self) -> Duration {
        self.rtt + 2 * self.jitter
    }

    fn longest_backoff(&self, config: &Config) -> Option<Duration> {
        let limit = SafetyNet::retransmit_timeout_while_suspect(config);
        self.linux_6_15.then_some(limit)
    }

    /// How long a peer that lives may leave a ping and its repetitions without
    /// an answer, because of one thing alone.
    fn silence(&self, because: Reason, config: &Config) -> Duration {
        let round_trip = self.longest_round_trip();
        let first = FIRST_REPETITION + round_trip;
        match because {
            Reason::RoundTrip => round_trip,
            Reason::Loss if self.loss == 0.0 => Duration::ZERO,
            Reason::Loss => first + round_trip,
            Reason::Outage if self.outage.is_zero() => Duration::ZERO,
            Reason::Outage => {
                let longest = self.longest_backoff(config).unwrap_or(Duration::MAX);
                self.outage + self.outage.min(longest).max(first) + round_trip
            }
        }
    }
}

/// Why a peer that lives may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    RoundTrip,
    Loss,
    Outage,
}

impl Reason {
    const ALL: [Self; 3] = [Self::RoundTrip, Self::Loss, Self::Outage];
}

impl Wishes {
    /// Refuses what no network is like.
    pub fn new(path: Path, budget: Duration, connections: u64) -> Result<Self, String> {
        let day = Duration::from_secs(86_400);
        let times = [
            ("--rtt", path.rtt),
            ("--jitter", path.jitter),
            ("--outage", path.outage),
            ("--outage-every", path.outage_every),
        ];
        for (name, time) in times {
            if time > day {
                return Err(format!("{name} {time:?}: must be at most a day"));
            }
        }
        if !path.outage.is_zero() && path.outage_every <= path.outage {
            return Err(format!(
                "an outage of {:?} every {:?} contradict each other: there is nothing in between",
                path.outage, path.outage_every
            ));
        }
        Config::detect_within(budget).map_err(|error| {
            format!(
                "--detect-within: {}: must be {}",
                error.value(),
                error.rule()
            )
        })?;
        Ok(Self {
            path,
            budget,
            connections,
            longest_interval: None,
        })
    }

    /// How long N·W has to be, for what is as long as it gets.
    pub fn needed(&self, config: &Config) -> Duration {
        let silences = Reason::ALL.map(|reason| self.path.silence(reason, config));
        silences.into_iter().max().unwrap_or_default()
    }

    /// Each pair of wishes that can't both be granted.
    pub fn contradictions(&self) -> Vec<Contradiction> {
        let reasons = Reason::ALL
            .into_iter()
            .filter(|reason| !self.fits(*reason, LARGEST_SHARE));
        reasons
            .map(|reason| Contradiction {
                wishes: *self,
                reason,
            })
            .collect()
    }

    fn fits(&self, reason: Reason, share: f64) -> bool {
        let Ok(config) = Config::detect_within(self.budget) else {
            return false;
        };
        self.path.silence(reason, &config) <= self.budget.mul_f64(share)
    }
}

/// Two wishes, one of which has to give way.
#[derive(Clone, Copy, Debug)]
pub struct Contradiction {
    wishes: Wishes,
    reason: Reason,
}

impl Contradiction {
    /// The shortest detection time of two digits that leaves room.
    fn later(&self) -> Option<Duration> {
        let fits = |budget: &Duration| {
            let wishes = Wishes {
                budget: *budget,
                ..self.wishes
            };
            wishes.fits(self.reason, USUAL_SHARE)
        };
        two_digits()
            .filter(|budget| *budget > self.wishes.budget)
            .find(fits)
    }

    /// The longest outage of two digits that fits.
    fn shorter_outage(&self) -> Option<Duration> {
        let fits = |outage: &Duration| {
            let path = Path {
                outage: *outage,
                ..self.wishes.path
            };
            Wishes {
                path,
                ..self.wishes
            }
            .fits(Reason::Outage, USUAL_SHARE)
        };
        two_digits().take_while(fits).last()
    }
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Wishes { path, budget, .. } = self.wishes;
        match self.reason {
            Reason::RoundTrip => write!(f, "a round trip of up to {:?}", path.longest_round_trip()),
            Reason::Loss => write!(f, "a loss of {} %", path.loss * 100.0),
            Reason::Outage => write!(f, "an outage of {:?}", path.outage),
        }?;
        write!(
            f,
            " and a detection within {budget:?} contradict each other: "
        )?;
        let shorter = match self.reason {
            Reason::Outage => self.shorter_outage(),
            _ => None,
        };
        match (self.later(), shorter) {
            (Some(later), Some(shorter)) => {
                write!(
                    f,
                    "either --detect-within {later:?} or --outage {shorter:?}"
                )?;
            }
            (Some(later), None) => write!(f, "--detect-within {later:?} would do")?,
            (None, _) => f.write_str("no detection time would do")?,
        }
        let silent = match Config::detect_within(budget) {
            Ok(config) => path.silence(self.reason, &config),
            Err(_) => return Ok(()),
        };
        let why = match self.reason {
            Reason::RoundTrip => "a ping takes as long to be answered",
            Reason::Loss => "TCP takes as long to repeat what was lost",
            Reason::Outage => "TCP takes as long again to come back after an outage",
        };
        write!(
            f,
            "\n  ({why}: a peer that lives may be silent for {silent:?}, and pings can wait for {:?} of {budget:?})",
            budget.mul_f64(LARGEST_SHARE),
        )
    }
}

/// 1 ms, 1.1 ms ... 9.9 ms, 10 ms, 11 ms ... up to a year.
fn two_digits() -> impl Iterator<Item = Duration> {
    let decades = (0..9).map(|power| Duration::from_micros(100) * 10_u32.pow(power));
    let year = Duration::from_secs(365 * 86_400);
    let times = decades.flat_map(|unit| (10..100).map(move |digits| unit * digits));
    times.take_while(move |time| *time <= year)
}

/// "2%" or "0.02".
fn part(text: &str) -> Result<f64, String> {
    let (number, whole) = match text.strip_suffix('%') {
        Some(percent) => (percent.trim_end(), 100.0),
        None => (text, 1.0),
    };
    let part = number.parse::<f64>().map_err(|error| error.to_string())? / whole;
    match (0.0..=0.5).contains(&part) {
        true => Ok(part),
        false => Err("must be from 0% to 50%".into()),
    }
}

/// More than nothing.
pub fn days(text: &str) -> Result<f64, String> {
    let days = text.parse::<f64>().map_err(|error| error.to_string())?;
    match days > 0.0 && days <= 1e6 {
        true => Ok(days),
        false => Err("must be above 0, and at most a million".into()),
    }
}
