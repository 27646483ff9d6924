//! What the future of a monitor depends on.
//!
//! This module decides how a fact is written down so that two monitors that
//! behave alike are equal: instants as ages, pings by how many pings ago they
//! were. Which facts there are, each part of the monitor says for itself.

use core::time::Duration;
use std::vec::Vec;

use crate::{
    config::Config,
    event::Cause,
    time::{Instant, micros},
};

/// A monitor at one moment, without what time it is and how many pings it sent.
///
/// Two monitors with equal snapshots answer equal inputs alike, except for
///
/// - randomness: nonces, and the intervals that jitter draws;
/// - totals that nothing depends on: `pings` and `pongs` of a status, and
///   round trips where `adaptive` is off;
/// - credit with the flood limiter, which only a flood tells;
/// - how long ago something was, beyond the longest age that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Snapshot {
    config: Config,
    facts: Vec<i64>,
    /// Of a death that wasn't taken yet.
    cause: Option<Cause>,
}

/// Takes facts down, in an order that is the same for equal ones: before each
/// fact that isn't always there stands one that says whether it is.
#[derive(Debug)]
pub(crate) struct Facts {
    now: Instant,
    oldest: u64,
    snapshot: Snapshot,
}

impl Facts {
    /// At `now`. What is longer ago than `oldest` counts as that old.
    pub(crate) fn new(config: Config, now: Instant, oldest: Duration) -> Self {
        Self {
            now,
            oldest: micros(oldest),
            snapshot: Snapshot {
                config,
                facts: Vec::with_capacity(48),
                cause: None,
            },
        }
    }

    pub(crate) fn into_snapshot(self) -> Snapshot {
        self.snapshot
    }

    /// A number that means the same at any time; also which variant it is.
    pub(crate) fn number(&mut self, number: impl Into<i64>) {
        self.snapshot.facts.push(number.into());
    }

    /// Microseconds, or any other number of that size.
    pub(crate) fn large(&mut self, number: u64) {
        self.number(i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// The microseconds of something that is over.
    pub(crate) fn span(&mut self, micros: u64) {
        self.large(micros.min(self.oldest));
    }

    pub(crate) const fn cause(&mut self, cause: Cause) {
        self.snapshot.cause = Some(cause);
    }

    /// By its age, which is negative if it is to come.
    pub(crate) fn instant(&mut self, instant: Instant) {
        let age = if instant == Instant::MAX {
            i64::MIN
        } else if instant > self.now {
            -i64::try_from(instant.micros_since(self.now)).unwrap_or(i64::MAX)
        } else {
            let age = self.now.micros_since(instant).min(self.oldest);
            i64::try_from(age).unwrap_or(i64::MAX)
        };
        self.number(age);
    }

    /// By how many pings before `latest` it was, `most` at most.
    pub(crate) fn ping(&mut self, index: u32, latest: u32, most: u32) {
        self.number(latest.wrapping_sub(index).min(most));
    }
}
