//! The longest interval that a network keeps a connection for.
//!
//! This module decides what is known after each outcome, and when a lost interval is
//! retried. `method` decides which interval is tried next, and `gauge` measures idle
//! times. The caller decides which connection tries it.

use core::{ops::RangeInclusive, time::Duration};

use crate::{
    config::{ConfigError, MILLION, Rule, checked},
    time::micros,
};

mod gauge;
mod method;
#[cfg(feature = "serde")]
mod saved;

pub use gauge::IdleGauge;
use method::Known;
pub use method::SearchMethod;

/// Answers before a lost interval is retried for the first time.
const FIRST_REST: u32 = 16;

/// The most answers between two retries.
const LONGEST_REST: u32 = 1024;

/// Learns the longest interval for which a network keeps an idle connection.
///
/// A NAT, a firewall or a proxy drops an idle connection silently. Its timeout lies
/// between half a minute and hours. Each beat wakes a phone's radio, so the best interval
/// is a little below the timeout.
///
/// # How to use it
///
/// Use [`safe`](Self::safe) as the interval of the connection that matters. Leave a second
/// connection idle for [`next`](Self::next), ping on it, and report the outcome with
/// [`learn`](Self::learn). The connection that matters can do that itself; each
/// [`Lost`](SearchOutcome::Lost) then costs it. When `next` is `None` the search has
/// settled. It resumes by itself later, or when the network changes.
///
/// ```
/// use core::time::Duration;
/// use heartbeat_core::{IntervalSearch, SearchOutcome};
///
/// let minute = Duration::from_secs(60);
/// let mut search = IntervalSearch::new(minute / 2..=120 * minute)?;
/// assert_eq!(search.safe(), minute / 2);
///
/// // A network that forgets connections after 17 minutes.
/// let (mut attempts, mut lost) = (0, 0);
/// while let Some(idle) = search.next() {
///     attempts += 1;
///     search.learn(match idle < 17 * minute {
///         true => SearchOutcome::Answered { idle },
///         false => {
///             lost += 1;
///             SearchOutcome::Lost { idle }
///         }
///     });
/// }
/// assert!(search.safe() > 15 * minute && search.safe() < 17 * minute);
/// assert_eq!((attempts, lost), (11, 5));
/// # Ok::<(), heartbeat_core::ConfigError>(())
/// ```
///
/// # What it promises
///
/// * `safe` and `next` are within the range, whatever is reported.
/// * A lost interval isn't called safe again before an equal or longer one was answered.
///   Only the smallest interval of the range is always allowed.
/// * After a loss at the safe interval or below, `safe` is the smallest interval at once.
///   A shorter timeout costs one connection. The search then restarts below the lost
///   interval.
/// * [`Unrelated`](SearchOutcome::Unrelated) changes nothing.
/// * It reads no clock. Each report is taken as the latest.
///
/// A settled search retries the lost interval after 16 answers that followed an idle time
/// of at least half of the longest answered one. Each further loss doubles that number, up
/// to 1024. So a longer timeout is found, and a loss by coincidence is forgotten.
///
/// With the feature `serde` it can be stored. Stored values are checked when read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "saved::Saved", into = "saved::Saved")
)]
pub struct IntervalSearch {
    settings: Settings,
    /// Microseconds. Invariant: within the range.
    answered: u64,
    /// Microseconds. Invariant: within the range, and more than `answered` unless
    /// both are the smallest.
    lost: Option<u64>,
    phase: Phase,
    /// Answers before the lost interval is retried.
    rest: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Settings {
    method: SearchMethod,
    /// Microseconds. Invariant: `smallest` is at least 1, and at most `largest`.
    smallest: u64,
    largest: u64,
    /// Millionths.
    margin: u32,
    resolution: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Searching,
    /// No longer interval is tried until `answers` more have arrived.
    Resting {
        answers: u32,
    },
    /// The lost interval is retried.
    Rechecking,
}

/// What became of an idle connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive] // there may be more to tell
pub enum SearchOutcome {
    /// The ping after the idle time was answered.
    Answered {
        /// How long nothing passed in either direction.
        idle: Duration,
    },
    /// The ping after the idle time was lost, although the network works.
    Lost {
        /// How long nothing passed in either direction.
        idle: Duration,
    },
    /// The connection was lost for another reason, such as an outage or a restart of the
    /// peer.
    Unrelated,
    /// The network is another, unknown one.
    NetworkChanged,
}

impl IntervalSearch {
    /// Searches this range. The smallest interval is used while nothing is known. It
    /// should be short enough for every network, such as 30 s.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if the smallest isn't from 1 µs to 365 days, or is more than
    /// the largest.
    pub fn new(range: RangeInclusive<Duration>) -> Result<Self, ConfigError> {
        let smallest = checked("smallest", *range.start())?;
        let largest = checked("largest", *range.end())?;
        if smallest > largest {
            let rule = Rule::UpToLargest(*range.end());
            return Err(ConfigError::new("smallest", *range.start(), rule));
        }
        Ok(Self::begin(Settings {
            method: SearchMethod::default(),
            smallest,
            largest,
            margin: MILLION / 20,
            resolution: MILLION / 20,
        }))
    }

    /// Sets the method. The default is [`SearchMethod::Composite`].
    #[must_use]
    pub fn method(mut self, method: SearchMethod) -> Self {
        self.settings.method = method;
        self
    }

    /// By which part the safe interval is shorter than the longest answered one. Default
    /// 0.05. Values outside 0 to 1 are clamped.
    ///
    /// It covers late pings, round trips and timeouts that vary. A larger margin costs
    /// beats, a smaller one costs connections.
    #[must_use]
    pub fn margin(mut self, part: f64) -> Self {
        self.settings.margin = millionths(part);
        self
    }

    /// The search settles when the answered and the lost interval differ by this part of
    /// the lost one. Default 0.05. Values outside 0 to 1 are clamped. Each halving costs
    /// one more attempt, and half a connection on average.
    #[must_use]
    pub fn resolution(mut self, part: f64) -> Self {
        self.settings.resolution = millionths(part);
        self
    }

    /// The range.
    #[must_use]
    pub const fn range(&self) -> RangeInclusive<Duration> {
        let Settings {
            smallest, largest, ..
        } = self.settings;
        Duration::from_micros(smallest)..=Duration::from_micros(largest)
    }

    /// Whether range, method, margin and resolution are those of the other one.
    #[must_use]
    pub fn has_settings_of(&self, other: &Self) -> bool {
        self.settings == other.settings
    }

    /// The interval for the connection that matters: the longest answered one less the
    /// margin, and at least the smallest of the range.
    #[must_use]
    pub fn safe(&self) -> Duration {
        let less = part_of(self.answered, self.settings.margin);
        Duration::from_micros((self.answered - less).max(self.settings.smallest))
    }

    /// The idle time to try next; `None` while the search rests.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        match self.phase {
            Phase::Searching => self.candidate(),
            Phase::Resting { .. } => None,
            Phase::Rechecking => self.lost,
        }
        .map(Duration::from_micros)
    }

    /// The shortest interval that was lost and not answered since.
    #[must_use]
    pub fn lost(&self) -> Option<Duration> {
        self.lost.map(Duration::from_micros)
    }

    /// Takes the outcome of one idle time. Any duration is accepted.
    pub fn learn(&mut self, outcome: SearchOutcome) {
        match outcome {
            SearchOutcome::Answered { idle } => self.answered(micros(idle)),
            SearchOutcome::Lost { idle } => self.lose(micros(idle)),
            SearchOutcome::Unrelated => {}
            SearchOutcome::NetworkChanged => *self = Self::begin(self.settings),
        }
        if self.phase == Phase::Searching && self.candidate().is_none() {
            self.phase = Phase::Resting { answers: self.rest };
        }
        self.assert_invariants();
    }

    fn begin(settings: Settings) -> Self {
        Self {
            settings,
            answered: settings.smallest,
            lost: None,
            phase: Phase::Searching,
            rest: FIRST_REST,
        }
    }

    fn answered(&mut self, idle: u64) {
        let idle = idle.min(self.settings.largest);
        self.answered = self.answered.max(idle);
        match self.phase {
            _ if self.lost.is_some_and(|lost| lost <= idle) => {
                self.lost = None;
                self.search_again();
            }
            // A busy connection proves nothing about the safe interval.
            _ if idle < self.answered / 2 => {}
            Phase::Resting { answers: 0 | 1 } if self.lost.is_some() => {
                self.phase = Phase::Rechecking;
            }
            Phase::Resting { ref mut answers } => *answers = answers.saturating_sub(1),
            Phase::Searching | Phase::Rechecking => {}
        }
    }

    fn lose(&mut self, idle: u64) {
        let largest = self.settings.largest;
        // A connection is idle for somewhat longer than the interval that it tries.
        if idle > largest.saturating_add(part_of(largest, MILLION / 20)) {
            return;
        }
        let idle = idle.min(largest);
        if idle <= self.answered {
            self.answered = self.settings.smallest;
            self.lost = Some(idle.max(self.settings.smallest));
            return self.search_again();
        }
        if self.lost.is_none_or(|lost| idle < lost) {
            self.lost = Some(idle);
        }
        if self.phase == Phase::Rechecking {
            self.rest = (self.rest * 2).min(LONGEST_REST);
        }
        self.phase = Phase::Searching;
    }

    /// The network has changed.
    fn search_again(&mut self) {
        self.rest = FIRST_REST;
        self.phase = Phase::Searching;
    }

    fn candidate(&self) -> Option<u64> {
        let Settings {
            method,
            largest,
            resolution,
            ..
        } = self.settings;
        method.next(Known {
            answered: self.answered,
            lost: self.lost,
            largest,
            resolution: part_of(self.lost.unwrap_or(largest), resolution),
        })
    }

    fn assert_invariants(&self) {
        let Settings {
            smallest, largest, ..
        } = self.settings;
        debug_assert!((smallest..=largest).contains(&self.answered));
        debug_assert!(self.lost.is_none_or(|lost| lost <= largest
            && (lost > self.answered || (lost == smallest && self.answered == smallest))));
    }
}

fn millionths(part: f64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to a million; NaN becomes 0"
    )]
    let millionths = (part.clamp(0.0, 1.0) * f64::from(MILLION)) as u32;
    millionths
}

/// `millionths` of `micros`.
const fn part_of(micros: u64, millionths: u32) -> u64 {
    let part = micros as u128 * millionths as u128 / MILLION as u128;
    #[expect(clippy::cast_possible_truncation, reason = "at most `micros`")]
    let part = part as u64;
    part
}
