//! How often the peer may ping.
//!
//! This module decides when pings have become a flood. It doesn't slow anyone
//! down: what we accept is announced in our Hello, and a peer that keeps to it
//! can't trip this limit, whatever the network does to its pings.
//!
//! It is a token bucket. A compliant peer starts a round of pings at most once
//! in `min_interval`, and a round is at most 2·N pings: N (the peer's
//! `max_missed`), and one more for each stall that the peer forgives itself.
//! The network may hold them back, but not for longer than our detection time,
//! because the peer would be dead to us by then, nor for longer than TCP goes on
//! trying. Hence
//!
//! ```text
//! refill    2·N tokens per min_interval
//! capacity  2·N · (detection time / min_interval + 2)
//! ```
//!
//! and as many more as could come while we didn't read, which is no fault of
//! the peer's.

use crate::time::Instant;

/// Longer than TCP retransmits before it gives a connection up: 924.6 s with
/// Linux' 15 retries (RFC 1122, section 4.2.3.5, asks for 100 s at least).
const TCP_GIVES_UP: u64 = 1_200_000_000;

/// For how many microseconds the network can hold pings back, with these
/// detection times, as configured and as negotiated. A peer that asks for slow
/// pings makes the second as long as it likes, and mustn't so buy itself a
/// bucket without a bottom.
pub(crate) fn longest_gap(configured: u64, negotiated: u64) -> u64 {
    negotiated.min(configured.max(TCP_GIVES_UP))
}

/// What a bucket is filled by; all the same between two calls except when the
/// peer's Hello arrives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    /// Our announced `min_interval`, microseconds.
    pub(crate) min_interval: u64,
    /// For so long the network can hold pings back, microseconds.
    pub(crate) longest_gap: u64,
    /// The peer's `max_missed`.
    pub(crate) max_missed: u8,
}

impl Allowance {
    /// Tokens that flow back in each microsecond.
    fn rate(self) -> u64 {
        2 * u64::from(self.max_missed)
    }

    fn capacity(self) -> i64 {
        let window = self.min_interval.saturating_mul(2);
        signed(
            window
                .saturating_add(self.longest_gap)
                .saturating_mul(self.rate()),
        )
    }
}

/// The bucket. One ping costs `min_interval` tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limiter {
    /// Below zero there is credit, which doesn't expire.
    spent: i64,
    refilled_at: Instant,
}

impl Limiter {
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            spent: 0,
            refilled_at: now,
        }
    }

    /// Pays for one ping. `false` is a flood.
    pub(crate) fn admit(&mut self, allowance: Allowance, now: Instant) -> bool {
        let elapsed = now.micros_since(self.refilled_at);
        self.refilled_at = self.refilled_at.max(now);
        if self.spent > 0 {
            let refill = signed(elapsed.saturating_mul(allowance.rate()));
            self.spent = self.spent.saturating_sub(refill).max(0);
        }
        self.spent = self.spent.saturating_add(signed(allowance.min_interval));
        self.spent <= allowance.capacity()
    }

    /// We didn't read for so many microseconds: what the peer sent meanwhile
    /// will come all at once.
    pub(crate) fn excuse(&mut self, allowance: Allowance, micros: u64) {
        let credit = signed(micros.saturating_mul(allowance.rate()));
        self.spent = self.spent.saturating_sub(credit);
    }
}

fn signed(tokens: u64) -> i64 {
    i64::try_from(tokens).unwrap_or(i64::MAX)
}
