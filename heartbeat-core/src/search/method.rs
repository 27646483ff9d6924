//! Which interval to try next.
//!
//! This module decides that from what is known, by each of the methods. It keeps
//! nothing. Times are microseconds.

use core::time::Duration;

use crate::time::micros;

/// The order in which an [`IntervalSearch`](crate::IntervalSearch) tries intervals.
///
/// The first three are those of *Using Adaptive Heartbeat Rate on Long-Lived TCP
/// Connections* (IEEE/ACM Transactions on Networking, 2018,
/// DOI 10.1109/TNET.2017.2774275). [`docs/timings.md`] has the bounds of each, and
/// compares them.
///
#[doc = concat!("[`docs/timings.md`]: ", env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/timings.md")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive] // there may be others
pub enum SearchMethod {
    /// The middle between the longest answered and the shortest lost interval, or the
    /// largest of the range. Begins with the longest waits, and may lose a connection at
    /// each step.
    Binary,
    /// Doubles the answered interval until one is lost. Loses one connection, and finds
    /// more than half of the timeout.
    Exponential,
    /// Exponential until one is lost, then binary. No wait is longer than twice the
    /// timeout.
    #[default]
    Composite,
    /// Adds a fixed step until one is lost, as messengers do. Loses one connection, and
    /// takes the longest.
    Step(Duration),
}

/// The facts about a network.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// The longest answered interval, or the smallest of the range.
    pub(super) answered: u64,
    /// The shortest lost since. Invariant: more than `answered`, unless both are the smallest.
    pub(super) lost: Option<u64>,
    /// The largest of the range. Invariant: not less than `answered`.
    pub(super) largest: u64,
    /// Intervals that differ by no more than this aren't told apart.
    pub(super) resolution: u64,
}

impl SearchMethod {
    /// The interval to try next; `None` when the search is done.
    pub(super) fn next(self, known: Known) -> Option<u64> {
        let Known {
            answered,
            lost,
            largest,
            ..
        } = known;
        if answered >= largest {
            return None;
        }
        let twice = answered.saturating_mul(2);
        match (self, lost) {
            (Self::Exponential | Self::Composite, None) => Some(twice.min(largest)),
            (Self::Exponential, Some(lost)) => Some(twice).filter(|&twice| is_below(twice, lost)),
            (Self::Composite, Some(_)) => known.middle().map(|middle| middle.min(twice)),
            (Self::Binary, _) => known.middle(),
            (Self::Step(step), lost) => {
                let next = answered.saturating_add(micros(step).max(1));
                match lost {
                    None => Some(next.min(largest)),
                    Some(lost) => Some(next).filter(|&next| is_below(next, lost)),
                }
            }
        }
    }
}

/// Whether this interval wasn't lost already. A connection is idle for somewhat longer than
/// the interval that it tries.
const fn is_below(interval: u64, lost: u64) -> bool {
    interval < lost - lost / 100
}

impl Known {
    /// The middle, unless the ends differ by no more than the resolution.
    fn middle(&self) -> Option<u64> {
        let end = self.lost.unwrap_or(self.largest);
        let width = end.saturating_sub(self.answered);
        (width > self.resolution.max(1)).then(|| self.answered + width / 2)
    }
}
