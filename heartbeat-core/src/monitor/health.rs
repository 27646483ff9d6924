//! The lateness of our own driver.
//!
//! This module decides how long an answer may take before it is suspicious, given our own
//! recent lateness: a program that is starved of the processor pings late and sees
//! answers late. It is the local health of Lifeguard (Dadgar, Phillips and Currey,
//! *Lifeguard: local health awareness for more accurate failure detection*, 2018). It
//! moves no verdict.

use crate::packed::PackedMicros;

/// How late the driver was lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Health {
    /// Microseconds.
    late: PackedMicros,
}

impl Health {
    pub(super) const fn new() -> Self {
        Self {
            late: PackedMicros::new(0),
        }
    }

    /// An input came this number of microseconds after the deadline.
    pub(super) fn was_late(&mut self, micros: u64) {
        self.late = PackedMicros::new(self.late.get().max(micros));
    }

    /// A deadline was served `late` microseconds after it. Earlier values fade: by half
    /// in 22 deadlines.
    pub(super) fn served(&mut self, late: u64) {
        let before = self.late.get();
        self.late = PackedMicros::new(before - before.div_ceil(32));
        self.was_late(late.min(before));
    }

    /// The longest time of an answer, in microseconds.
    pub(super) const fn longest_answer(self) -> u64 {
        patience(self.late.get())
    }
}

/// The longest time of an answer if we are this late, both in microseconds. The peer may be as
/// late as we are, and next time both may be later.
pub(super) const fn patience(late: u64) -> u64 {
    late.saturating_mul(8)
}

#[cfg(feature = "testkit")]
impl Health {
    pub(super) fn describe(self, facts: &mut crate::testkit::Facts) {
        let Self { late } = self;
        facts.large(late.get());
    }
}
