//! The flood rule of docs/protocol.md: how many pings of the peer are accepted.
//!
//! With m our own `min_interval`, N the largest `max_missed` that the peer
//! announced (255 before the first Hello) and T the time so far, the pings may
//! number at most 2·N·(T/m + 2).

use heartbeat_core::Hello;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Flood {
    /// Without Hellos there is no limit.
    limited: bool,
    min_interval: u128,
    began: u64,
    pings: u128,
    largest: Option<u128>,
}

impl Flood {
    pub(crate) fn new(limited: bool, min_interval: u64, began: u64) -> Self {
        Self {
            limited,
            min_interval: min_interval.into(),
            began,
            pings: 0,
            largest: None,
        }
    }

    pub(crate) fn hello(&mut self, hello: &Hello) {
        let misses = u128::from(hello.max_missed);
        self.largest = self.largest.max(Some(misses));
    }

    /// Our `min_interval` is another one.
    pub(crate) fn accept(&mut self, min_interval: u64) {
        self.min_interval = min_interval.into();
    }

    /// One more ping. True: it is one too many.
    pub(crate) fn ping(&mut self, now: u64) -> bool {
        self.pings += 1;
        self.limited && self.pings > self.most(now)
    }

    fn most(&self, now: u64) -> u128 {
        let misses = self.largest.unwrap_or(255);
        let time = u128::from(now - self.began) + 2 * self.min_interval;
        2 * misses * time / self.min_interval
    }

    /// How many more pings are accepted now.
    pub(crate) fn room(&self, now: u64) -> u128 {
        self.most(now).saturating_sub(self.pings)
    }
}
