//! What the tests share: short names for times, and a little driver for
//! monitors in virtual time.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file is a crate of its own and uses a part of this"
)]

use core::time::Duration;

pub const MICRO: Duration = us(1);
pub const YEAR: Duration = us(YEAR_MICROS);
pub const YEAR_MICROS: u64 = 365 * 24 * 60 * 60 * 1_000_000;

pub const fn us(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}
