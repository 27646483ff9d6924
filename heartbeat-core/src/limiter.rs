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
    announced: Announced,
}

/// The peer's `max_missed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Announced {
    /// Nothing yet, which gives it the most.
    Nothing,
    /// Its last word, and the most that it ever said: what was allowed stays
    /// allowed.
    Last { last: u8, most: u8 },
}

impl Limiter {
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            credit: 0,
            settled_at: now,
            announced: Announced::Nothing,
        }
    }

    /// The peer announced its `max_missed`.
    pub(crate) fn announce(&mut self, max_missed: NonZeroU8, now: Instant) {
        self.settle(now);
        let last = max_missed.get();
        let most = match self.announced {
            Announced::Nothing => last,
            Announced::Last { most, .. } => most.max(last),
        };
        self.announced = Announced::Last { last, most };
    }

    /// Pays for one ping. `false` is a flood.
    pub(crate) fn admit(&mut self, min_interval: u64, now: Instant) -> bool {
        self.settle(now);
        self.credit = self.credit.saturating_sub(signed(min_interval));
        let at_once = rate(self.most()).saturating_mul(min_interval.saturating_mul(2));
        self.credit >= -signed(at_once)
    }

    fn last(&self) -> u8 {
        match self.announced {
            Announced::Nothing => u8::MAX,
            Announced::Last { last, .. } => last,
        }
    }

    fn most(&self) -> u8 {
        match self.announced {
            Announced::Nothing => u8::MAX,
            Announced::Last { most, .. } => most,
        }
    }

    fn settle(&mut self, now: Instant) {
        let elapsed = now.micros_since(self.settled_at);
        let tokens = elapsed.saturating_mul(rate(self.last()));
        self.credit = self.credit.saturating_add(signed(tokens));
        self.settled_at = self.settled_at.max(now);
    }
}

#[cfg(feature = "testkit")]
impl Limiter {
    pub(crate) fn describe(&self, facts: &mut crate::testkit::Facts) {
        // Only a flood tells how much credit there is.
        let Self {
            credit: _,
            settled_at: _,
            announced,
        } = *self;
        match announced {
            Announced::Nothing => facts.number(0),
            Announced::Last { last, most } => {
                facts.number(last);
                facts.number(most);
            }
        }
    }
}

/// Tokens that flow in each microsecond.
fn rate(max_missed: u8) -> u64 {
    2 * u64::from(max_missed)
}

fn signed(tokens: u64) -> i64 {
    i64::try_from(tokens).unwrap_or(i64::MAX)
}
