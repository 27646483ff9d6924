//! The receiving half: what has arrived, and when that is acknowledged.

use core::ops::Range;
use std::vec::Vec;

use super::super::network::NEVER;

/// `TCP_DELACK_MIN`: how long an acknowledgement waits for data to travel with.
const DELAYED_ACKNOWLEDGEMENT: u64 = 40_000;

/// What one end says of what it has received.
#[derive(Clone, Debug, Default)]
pub(in crate::testkit) struct Acknowledgement {
    /// All before this one.
    pub(in crate::testkit) next: u64,
    /// These too (SACK).
    pub(in crate::testkit) beyond: Vec<u64>,
}

/// The receiving half of one direction.
#[derive(Clone, Debug)]
pub(in crate::testkit) struct Receiver {
    next: u64,
    beyond: Vec<u64>,
    /// When an acknowledgement leaves by itself.
    pub(in crate::testkit) acknowledges_at: u64,
    received_at: u64,
}

impl Receiver {
    pub(in crate::testkit) const fn new() -> Self {
        Self {
            next: 0,
            beyond: Vec::new(),
            acknowledges_at: NEVER,
            received_at: 0,
        }
    }

    /// How many segments have arrived in order.
    pub(in crate::testkit) const fn delivered(&self) -> u64 {
        self.next
    }

    /// A packet arrived, perhaps not for the first time. After a silence of more
    /// than `long` it is acknowledged at once, as is what isn't in order, and what
    /// `is_large`.
    pub(in crate::testkit) fn receive(
        &mut self,
        numbers: Range<u64>,
        is_large: bool,
        long: u64,
        now: u64,
    ) {
        let silence = now.saturating_sub(self.received_at);
        self.received_at = now;
        let in_order = numbers.contains(&self.next) && self.beyond.is_empty();
        let wait = match in_order && !is_large && silence <= long {
            true => DELAYED_ACKNOWLEDGEMENT,
            false => 0,
        };
        self.acknowledges_at = self.acknowledges_at.min(now.saturating_add(wait));
        for number in numbers {
            if number >= self.next && !self.beyond.contains(&number) {
                self.beyond.push(number);
            }
        }
        while let Some(index) = self.beyond.iter().position(|&later| later == self.next) {
            self.beyond.swap_remove(index);
            self.next += 1;
        }
    }

    /// Goes with whatever is sent.
    pub(in crate::testkit) fn acknowledge(&mut self) -> Acknowledgement {
        self.acknowledges_at = NEVER;
        Acknowledgement {
            next: self.next,
            beyond: self.beyond.clone(),
        }
    }
}
