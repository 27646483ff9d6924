//! Round trips: the last, the smoothed, and the lateness at which an answer is suspicious.
//!
//! This module derives the retransmission timeout of RFC 6298 from samples. It doesn't
//! decide which pong is a sample (the monitor matches nonces, so Karn's ambiguity doesn't
//! arise) nor what happens when the time is over.

use core::time::Duration;

/// The state of RFC 6298, in microseconds. A round trip beyond 71 minutes
/// counts as 71 minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RoundTrip {
    smoothed: u32,
    variation: u32,
    /// `UNMEASURED` until the first sample.
    last: u32,
}

const UNMEASURED: u32 = u32::MAX;

impl RoundTrip {
    pub(crate) const fn new() -> Self {
        Self {
            smoothed: 0,
            variation: 0,
            last: UNMEASURED,
        }
    }

    /// Takes one sample: RFC 6298, rules 2.2 and 2.3.
    pub(crate) fn sample(&mut self, micros: u64) {
        let rtt = u32::try_from(micros)
            .unwrap_or(u32::MAX)
            .min(UNMEASURED - 1);
        if self.last == UNMEASURED {
            self.smoothed = rtt;
            self.variation = rtt / 2;
        } else {
            // beta = 1/4, alpha = 1/8; the order of the two lines matters.
            self.variation = weighted(self.variation, self.smoothed.abs_diff(rtt), 4);
            self.smoothed = weighted(self.smoothed, rtt, 8);
        }
        self.last = rtt;
    }

    /// Rule 2.3's `SRTT + 4 * RTTVAR` in microseconds, once there is a
    /// sample.
    pub(crate) fn timeout(&self) -> Option<u64> {
        self.measured(u64::from(self.smoothed) + 4 * u64::from(self.variation))
    }

    pub(crate) fn smoothed(&self) -> Option<Duration> {
        self.measured(Duration::from_micros(self.smoothed.into()))
    }

    pub(crate) fn last(&self) -> Option<Duration> {
        self.measured(Duration::from_micros(self.last.into()))
    }

    fn measured<T>(&self, value: T) -> Option<T> {
        (self.last != UNMEASURED).then_some(value)
    }
}

#[cfg(feature = "testkit")]
impl RoundTrip {
    pub(crate) fn describe(&self, facts: &mut crate::testkit::Facts) {
        let Self {
            smoothed,
            variation,
            last,
        } = *self;
        facts.number(smoothed);
        facts.number(variation);
        facts.number(last);
    }
}

/// `old` moved towards `new` by one part in `parts`, rounded to nearest.
fn weighted(old: u32, new: u32, parts: u64) -> u32 {
    let sum = u64::from(old) * (parts - 1) + u64::from(new) + parts / 2;
    u32::try_from(sum / parts).unwrap_or(u32::MAX)
}
