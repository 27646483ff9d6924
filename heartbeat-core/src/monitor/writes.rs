//! Since when writes are blocked.
//!
//! This module decides when blocked writes alone end a connection with `write_stall`. Only
//! the driver knows whether writes are blocked, and only written bytes end that time.

use crate::{config::Config, packed::PackedInstant, time::Instant};

/// The writes, as reported by the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writes {
    /// No write is known to be blocked, or there is no limit.
    Moving,
    /// A write could take nothing, and none has taken anything since.
    Blocked {
        until: PackedInstant,
        /// Stalls of our own that moved `until`.
        excused: u8,
    },
}

impl Writes {
    /// Whether there is a limit.
    #[inline]
    pub(super) const fn are_limited(&self) -> bool {
        matches!(self, Self::Blocked { .. })
    }

    /// When the limit is reached.
    #[inline]
    pub(super) const fn limit_at(&self) -> Instant {
        match self {
            Self::Moving => Instant::MAX,
            Self::Blocked { until, .. } => until.instant(),
        }
    }

    /// A write could take nothing.
    pub(super) fn block(&mut self, config: &Config, now: Instant) {
        if *self == Self::Moving {
            self.restart(config, now);
        }
    }

    /// A write took some bytes, though not all.
    pub(super) fn progress(&mut self, config: &Config, now: Instant) {
        if *self != Self::Moving {
            self.restart(config, now);
        }
    }

    /// Everything was written, or judging has ended.
    #[inline]
    pub(super) const fn clear(&mut self) {
        *self = Self::Moving;
    }

    fn restart(&mut self, config: &Config, now: Instant) {
        if let Some(limit) = config.write_stall() {
            *self = Self::Blocked {
                until: PackedInstant::from_instant(now + limit),
                excused: 0,
            };
        }
    }

    /// We slept: the writes get until `at`. This happens at most `most` times.
    pub(super) fn excuse(&mut self, at: Instant, most: u8) {
        match self {
            Self::Blocked { until, excused } if *excused < most => {
                *until = PackedInstant::from_instant(until.instant().max(at));
                *excused += 1;
            }
            Self::Blocked { .. } | Self::Moving => {}
        }
    }
}

#[cfg(feature = "testkit")]
impl Writes {
    pub(super) fn describe(&self, facts: &mut crate::testkit::Facts) {
        match *self {
            Self::Moving => facts.number(0),
            Self::Blocked { until, excused } => {
                facts.number(1);
                facts.instant(until.instant());
                facts.number(excused);
            }
        }
    }
}
