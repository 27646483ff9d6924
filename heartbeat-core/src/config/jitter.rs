//! How jitter shortens an interval.
//!
//! This module decides how jitter is divided: three quarters are random, an eighth is for
//! a grid, and the rest for arrivals that are reported too early.

use core::time::Duration;

use super::{Config, MILLION};

impl Config {
    #[expect(clippy::cast_possible_truncation, reason = "up to a million")]
    pub(super) const fn jitter_millionths(&self) -> u32 {
        self.jitter.get() as u32
    }

    /// Whether intervals are shortened at all.
    pub(crate) const fn is_jittered(&self) -> bool {
        self.jitter.get() > 0
    }

    /// How much earlier than it happened an arrival may be reported without
    /// breaking a promise: a sixteenth of `jitter · interval`, zero without
    /// jitter. So a busy connection needn't ask the clock at each read.
    #[must_use]
    pub const fn arrival_slack(&self) -> Duration {
        Duration::from_micros(eighth(self.interval.get(), self.jitter_millionths()) / 2)
    }

    /// `interval` shortened by the fraction `random / 2^32` of three quarters
    /// of the jitter. The rest is for the grid and for arrivals that are
    /// reported too early.
    pub(crate) const fn shortened(&self, interval: u64, random: u32) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "never more than `interval`"
        )]
        let part = ((self.part(interval) as u128 * random as u128) >> 32) as u64;
        at_least_one(interval - (part - part / 4))
    }

    /// I·(1 − J) in microseconds: no interval is shortened below it.
    pub(crate) const fn shortest(&self, interval: u64) -> u64 {
        at_least_one(interval - self.part(interval))
    }

    /// The jitter's part of `interval`, rounded down.
    const fn part(&self, interval: u64) -> u64 {
        let (millions, rest) = (interval / MILLION as u64, interval % MILLION as u64);
        // 64 bits are enough: an interval has 48, and jitter 20.
        millions * self.jitter.get() + rest * self.jitter.get() / MILLION as u64
    }

    /// The logarithm of the grid to which the end of an interval is rounded
    /// down: up to an eighth of the jitter, and shared by all monitors with such
    /// an interval, so that a driver of many wakes up once for several.
    pub(crate) const fn grid(&self) -> u8 {
        self.grid
    }
}

/// An eighth of jitter (in millionths) times interval.
const fn eighth(interval: u64, jitter: u32) -> u64 {
    // 42 bits and 20.
    interval / 8 * jitter as u64 / MILLION as u64
}

/// The logarithm of the widest grid that fits into an eighth of the jitter.
pub(super) fn grid(interval: u64, jitter: u32) -> u8 {
    let bits = eighth(interval, jitter).checked_ilog2();
    bits.and_then(|bits| u8::try_from(bits).ok()).unwrap_or(0)
}

const fn at_least_one(micros: u64) -> u64 {
    if micros == 0 { 1 } else { micros }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::MAX_DURATION, time::micros};

    fn jittered(jitter: f64) -> Config {
        Config::builder().jitter(jitter).build().unwrap()
    }

    #[test]
    fn an_interval_is_shortened_by_a_part_of_the_jitter() {
        let second = 1_000_000;
        let quarter = jittered(0.25);
        assert_eq!(quarter.shortened(second, 0), second);
        assert_eq!(quarter.shortened(second, 1 << 31), 906_250);
        assert_eq!(quarter.shortened(second, 1 << 30), 953_125);
        assert_eq!(quarter.shortened(second, u32::MAX), 812_500);
        assert_eq!(quarter.shortest(second), 750_000);
        assert_eq!(jittered(0.0).shortest(second), second);
    }

    #[test]
    fn an_interval_is_never_shortened_to_nothing() {
        for interval in [1, 2, 1_000_000, micros(MAX_DURATION)] {
            assert!(jittered(1.0).shortest(interval) > 0);
        }
    }
}
