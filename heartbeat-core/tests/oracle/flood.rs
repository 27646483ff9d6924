//! The flood rule: how many pings of the peer are accepted.
//!
//! With m our own `min_interval` and N′ what the peer's last Hello announced
//! (255 before the first), the pings so far may number at most
//! 4·N′max + 2·∫N′/m dt. Credit never expires.

use heartbeat_core::Hello;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Flood {
    /// Without Hellos there is no limit.
    limited: bool,
    min_interval: u128,
    pings: u128,
    largest: Option<u128>,
    misses: u128,
    /// ∫N′ dt.
    area: u128,
    since: u64,
}

impl Flood {
    pub(crate) fn new(limited: bool, min_interval: u64, now: u64) -> Self {
        Self {
            limited,
            min_interval: min_interval.into(),
            pings: 0,
            largest: None,
            misses: 255,
            area: 0,
            since: now,
        }
    }

    fn pass(&mut self, now: u64) {
        self.area += self.misses * u128::from(now - self.since);
        self.since = now;
    }

    pub(crate) fn hello(&mut self, hello: &Hello, now: u64) {
        self.pass(now);
        self.misses = hello.max_missed.into();
        self.largest = Some(self.largest.unwrap_or(0).max(self.misses));
    }

    /// One more ping. True: it is one too many.
    pub(crate) fn ping(&mut self, now: u64) -> bool {
        self.pass(now);
        self.pings += 1;
        let at_once = 4 * self.largest.unwrap_or(255);
        self.limited && self.pings * self.min_interval > at_once * self.min_interval + 2 * self.area
    }

    /// How many more pings are accepted now.
    pub(crate) fn room(&self, now: u64) -> u128 {
        let mut later = *self;
        later.pass(now);
        let at_once = 4 * self.largest.unwrap_or(255);
        (at_once + 2 * later.area / self.min_interval).saturating_sub(self.pings)
    }
}
