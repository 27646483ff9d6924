//! Which interval to try next.
//!
//! This module decides that from what is known, by each of the methods. It keeps
//! nothing. Times are microseconds.

use core::time::Duration;

use crate::time::micros;

/// How an [`IntervalSearch`](crate::IntervalSearch) goes about it.
///
/// The first three are those of *Using Adaptive Heartbeat Rate on Long-Lived TCP
/// Connections* (IEEE/ACM Transactions on Networking, 2018,
/// DOI 10.1109/TNET.2017.2774275). `docs/timings.md` has the bounds of each, and
/// compares them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive] // there may be others
pub enum SearchMethod {
    /// The middle between what was answered and what was lost, the largest interval
    /// to begin with. Loses a connection for each halving, and begins with the
    /// longest waits.
    Binary,
    /// Twice what was answered, until one is lost. Loses one connection, and finds
    /// more than half of the longest interval.
    Exponential,
    /// Exponential until one is lost, and binary from there on. Each wait is at most
    /// twice the longest interval.
    #[default]
    Composite,
    /// So much longer than what was answered, until one is lost: what messengers
    /// do. Loses one connection, and takes the longest.
    Step(Duration),
}

/// What is known of a network.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// Answered, or the smallest of the range.
    pub(super) answered: u64,
    /// Lost since then. Invariant: more than `answered`, unless both are the smallest.
    pub(super) lost: Option<u64>,
    /// The largest of the range. Invariant: not less than `answered`.
    pub(super) largest: u64,
    /// What lies no farther apart than this isn't told apart.
    pub(super) resolution: u64,
}

impl SearchMethod {
    /// The interval to try next; none if nothing is to be found any more.
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
            (Self::Exponential, Some(lost)) => Some(twice).filter(|&twice| twice < lost),
            (Self::Composite, Some(_)) => known.middle().map(|middle| middle.min(twice)),
            (Self::Binary, _) => known.middle(),
            (Self::Step(step), lost) => {
                let next = answered.saturating_add(micros(step).max(1));
                match lost {
                    None => Some(next.min(largest)),
                    Some(lost) => Some(next).filter(|&next| next < lost),
                }
            }
        }
    }
}

impl Known {
    /// The middle, unless both ends are as good as the same.
    fn middle(&self) -> Option<u64> {
        let end = self.lost.unwrap_or(self.largest);
        let width = end.saturating_sub(self.answered);
        (width > self.resolution.max(1)).then(|| self.answered + width / 2)
    }
}
