//! How often the peer may ping.
//!
//! This module decides when pings have become a flood. It doesn't slow anyone
//! down: what we accept is announced in our Hello, and a peer that keeps to it
//! can't trip this limit, whatever the network or our own slowness does to its
//! pings, and for however long they are held back.
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
//! that may arrive at once, so credit never expires. It costs nothing to be so
//! patient: at most one pong is pending, whatever arrives.

use core::num::NonZeroU8;

use crate::time::Instant;

/// A token bucket without a bottom. One ping costs `min_interval` tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limiter {
    /// Tokens that flowed in, less those that pings took out.
    credit: i64,
    settled_at: Instant,
    /// What the peer announced last; nothing yet gives it the most.
    max_missed: Option<NonZeroU8>,
    /// The most that it ever announced: what was allowed stays allowed.
    largest: Option<NonZeroU8>,
}

impl Limiter {
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            credit: 0,
            settled_at: now,
            max_missed: None,
            largest: None,
        }
    }

    /// The peer announced its `max_missed`.
    pub(crate) fn announce(&mut self, max_missed: Option<NonZeroU8>, now: Instant) {
        self.settle(now);
        self.max_missed = max_missed;
        self.largest = self.largest.max(max_missed);
    }

    /// Pays for one ping. `false` is a flood.
    pub(crate) fn admit(&mut self, min_interval: u64, now: Instant) -> bool {
        self.settle(now);
        self.credit = self.credit.saturating_sub(signed(min_interval));
        let at_once = rate(self.largest).saturating_mul(min_interval.saturating_mul(2));
        self.credit >= -signed(at_once)
    }

    fn settle(&mut self, now: Instant) {
        let elapsed = now.micros_since(self.settled_at);
        let tokens = elapsed.saturating_mul(rate(self.max_missed));
        self.credit = self.credit.saturating_add(signed(tokens));
        self.settled_at = self.settled_at.max(now);
    }
}

/// Tokens that flow in each microsecond.
fn rate(max_missed: Option<NonZeroU8>) -> u64 {
    2 * u64::from(max_missed.unwrap_or(NonZeroU8::MAX).get())
}

fn signed(tokens: u64) -> i64 {
    i64::try_from(tokens).unwrap_or(i64::MAX)
}
