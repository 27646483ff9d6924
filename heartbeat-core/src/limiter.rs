//! The limit on the peer's pings.
//!
//! This module decides when pings are a flood. It delays nothing: our Hello announces the
//! rate that we accept, and a peer that keeps to it can't trip this limit, however long
//! the network or our own slowness holds its pings back.
//!
//! A compliant peer sends *groups* of pings: a group begins at least
//! `min_interval` after the last ping, and has at most 2·N pings (N, the peer's
//! `max_missed`, and one more for each stall that the peer forgives itself). So
//! by the time T after the connection began it has sent at most
//!
//! ```text
//! 2·N · (T / min_interval + 1)
//! ```
//!
//! pings, and one `min_interval` more is allowed for clocks that differ. All of
//! that may arrive at once, so credit never expires. N is the most that the peer
//! ever announced: when it announced less, its Hello may have been held back as long as
//! its pings, so the start of the lower rate is unknown. A high limit costs little,
//! because at most one pong is pending.

use core::num::NonZeroU8;

use crate::{
    packed::{Packed, PackedInstant},
    time::Instant,
};

/// Counts pings against those that a compliant peer could have sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limiter {
    /// When the connection began; or later, and fewer `pings` in proportion.
    began_at: PackedInstant,
    pings: Packed<4>,
    announced: Announced,
}

/// The peer's `max_missed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Announced {
    /// Not announced yet: the highest limit applies.
    Nothing,
    /// The largest value so far: what was allowed stays allowed.
    Most(u8),
}

impl Limiter {
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            began_at: PackedInstant::from_instant(now),
            pings: Packed::new(0),
            announced: Announced::Nothing,
        }
    }

    /// The peer announced its `max_missed`.
    pub(crate) fn announce(&mut self, max_missed: NonZeroU8) {
        let former = match self.announced {
            Announced::Nothing => 0,
            Announced::Most(most) => most,
        };
        self.announced = Announced::Most(max_missed.get().max(former));
    }

    /// Counts one ping. `false` is a flood.
    pub(crate) fn admit(&mut self, min_interval: u64, now: Instant) -> bool {
        if self.pings == Packed::new(u64::MAX) {
            self.halve(now);
        }
        let pings = self.pings.get() + 1;
        self.pings = Packed::new(pings);
        let max_missed = match self.announced {
            Announced::Nothing => u8::MAX,
            Announced::Most(most) => most,
        };
        let elapsed = now.micros_since(self.began_at.instant());
        let intervals = elapsed.saturating_add(2 * min_interval);
        let room = intervals.saturating_mul(2 * u64::from(max_missed));
        pings.saturating_mul(min_interval) <= room
    }

    /// Forgets half of the pings, and half of the time with them: the rate stays.
    const fn halve(&mut self, now: Instant) {
        self.pings = Packed::new(self.pings.get() / 2);
        let began_at = self.began_at.instant();
        let later = began_at.plus(now.micros_since(began_at) / 2);
        self.began_at = PackedInstant::from_instant(later);
    }
}

#[cfg(feature = "testkit")]
impl Limiter {
    pub(crate) fn describe(&self, facts: &mut crate::testkit::Facts) {
        // Only a flood tells how many pings there were, and since when.
        let Self {
            pings: _,
            began_at: _,
            announced,
        } = *self;
        match announced {
            Announced::Nothing => facts.number(0),
            Announced::Most(most) => facts.number(most),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer whose N is 1, that may send 2 pings each microsecond.
    fn after(pings: u32, began_at: u64) -> Limiter {
        Limiter {
            began_at: Packed::new(began_at),
            pings: Packed::new(pings.into()),
            announced: Announced::Most(1),
        }
    }

    #[test]
    fn a_count_that_is_full_is_halved_and_its_time_with_it() {
        let now = Instant::from_micros(u64::from(u32::MAX));
        let mut limiter = after(u32::MAX, 0);
        assert!(limiter.admit(1, now));
        assert_eq!(limiter.pings.get(), u64::from(u32::MAX / 2) + 1);
        assert_eq!(limiter.began_at.get(), u64::from(u32::MAX / 2));
    }

    #[test]
    fn what_was_compliant_or_a_flood_remains_so() {
        // As many as may have been sent by then, less one, and one more than that.
        for (over, accepted) in [(0, true), (5, false)] {
            let elapsed = u64::from(u32::MAX / 2) - 1 - over;
            let mut limiter = after(u32::MAX, 0);
            let now = Instant::from_micros(elapsed);
            assert_eq!(limiter.admit(1, now), accepted, "{over}");
        }
    }
}
