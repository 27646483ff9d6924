//! The longest interval that a network keeps a connection for.
//!
//! This module decides what is known after each outcome, and when something longer
//! is tried again. Which interval to try is decided by `method`, and how idle a
//! connection was is measured by `gauge`. Who tries it, and on which connection, is
//! the caller's choice.

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

/// After so many answers what was lost is tried again, for the first time.
const FIRST_REST: u32 = 16;

/// And at the latest after so many.
const LONGEST_REST: u32 = 1024;

/// Learns the longest interval for which a network keeps an idle connection.
///
/// A NAT, a firewall or a proxy forgets a connection on which nothing has passed for
/// some time, between half a minute and hours, and tells nobody. Each beat wakes a
/// phone's radio. So the best interval is a little below that time, which differs
/// from network to network.
///
/// # How to use it
///
/// Keep the connection that matters at [`safe`](Self::safe). Leave another one idle
/// for [`next`](Self::next), ask on it, and tell what became of it with
/// [`learn`](Self::learn). Or do that with the connection that matters, which is then
/// lost at each [`Lost`](SearchOutcome::Lost). When `next` is `None` the search has
/// settled; it goes on by itself later, or when the network has changed.
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
/// * An interval that was lost isn't called safe again before one as long was
///   answered. Only the smallest of the range is always allowed.
/// * After a loss at the safe interval or below, the smallest one is safe at once. So
///   a network whose time gets shorter costs one connection. After that the search
///   begins anew below what was lost.
/// * What is reported as lost for [another reason](SearchOutcome::Unrelated) changes
///   nothing.
/// * It knows no clock, and each report is taken as the latest.
///
/// Settled, it tries again what was lost: after 16 answers to connections that were idle
/// for half of the safe interval or longer, and after twice as many
/// each time that it is lost again, up to 1024. So a time that gets longer is found,
/// and an outage that was taken for a lost connection is forgotten.
///
/// With the feature `serde` it can be stored. What comes back is checked.
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
    /// After how many answers what was lost is tried again.
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
    /// Nothing longer is tried until so many answers have come.
    Resting {
        answers: u32,
    },
    /// What was lost is tried again.
    Rechecking,
}

/// What became of an idle connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive] // there may be more to tell
pub enum SearchOutcome {
    /// It carried nothing for so long, and was answered after that.
    Answered {
        /// For how long nothing passed.
        idle: Duration,
    },
    /// It carried nothing for so long, and was gone after that, though the network
    /// is there.
    Lost {
        /// For how long nothing passed.
        idle: Duration,
    },
    /// It was lost for another reason, such as an outage or a restart of the peer.
    Unrelated,
    /// The network is another one, of which nothing is known.
    NetworkChanged,
}

impl IntervalSearch {
    /// Searches in this range. The smallest is used as long as nothing is known: it
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

    /// Searches in this way. The default is [`SearchMethod::Composite`].
    #[must_use]
    pub fn method(mut self, method: SearchMethod) -> Self {
        self.settings.method = method;
        self
    }

    /// How much shorter than what was answered the safe interval is, as a part of it.
    /// Default 0.05; what isn't from 0 to 1 counts as the nearer of them.
    ///
    /// It is for a ping that is late or travels long, and for networks whose time
    /// varies. More costs beats, less costs connections.
    #[must_use]
    pub fn margin(mut self, part: f64) -> Self {
        self.settings.margin = millionths(part);
        self
    }

    /// How near to what was lost the search ends, as a part of it. Default 0.05; what
    /// isn't from 0 to 1 counts as the nearer of them. Each halving costs one more
    /// attempt, and on average half a connection.
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

    /// The interval for a connection that isn't to be lost: what was answered, less
    /// the margin, or the smallest of the range.
    #[must_use]
    pub fn safe(&self) -> Duration {
        let less = part_of(self.answered, self.settings.margin);
        Duration::from_micros((self.answered - less).max(self.settings.smallest))
    }

    /// How long to leave a connection idle next; `None` while nothing is to be tried.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        match self.phase {
            Phase::Searching => self.candidate(),
            Phase::Resting { .. } => None,
            Phase::Rechecking => self.lost,
        }
        .map(Duration::from_micros)
    }

    /// The shortest that was lost and not answered since, if any was.
    #[must_use]
    pub fn lost(&self) -> Option<Duration> {
        self.lost.map(Duration::from_micros)
    }

    /// Takes in what became of a connection. Its idle time may be any.
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
            // Busy connections rest for less, which says nothing.
            _ if idle < self.answered / 2 => {}
            Phase::Resting { answers: 0 | 1 } if self.lost.is_some() => {
                self.phase = Phase::Rechecking;
            }
            Phase::Resting { ref mut answers } => *answers = answers.saturating_sub(1),
            Phase::Searching | Phase::Rechecking => {}
        }
    }

    fn lose(&mut self, idle: u64) {
        if idle > self.settings.largest {
            return;
        }
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
            self.phase = Phase::Searching;
        }
    }

    /// What was known isn't so any more.
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

/// So many millionths of a number of 45 bits.
const fn part_of(micros: u64, millionths: u32) -> u64 {
    let part = micros as u128 * millionths as u128 / MILLION as u128;
    #[expect(clippy::cast_possible_truncation, reason = "at most `micros`")]
    let part = part as u64;
    part
}
