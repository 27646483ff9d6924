//! For how long a connection carried nothing.
//!
//! This module decides what counts as an idle time that was survived, and what as
//! one that may have ended the connection. What follows from it is decided by the
//! search.

use core::time::Duration;

use crate::time::Instant;

/// Measures the idle times of one connection, from when bytes left and arrived.
///
/// A middlebox forgets a connection on which nothing passes, in either direction.
/// So a ping tells about the time since anything last passed, which may be shorter
/// than the interval. An idle time ends when something of ours leaves, and is
/// survived when something arrives after that. Idle times that an arrival ends
/// aren't counted: bytes may have waited for us to read them.
///
/// Report what arrived before what left, as a driver does that reads first: after
/// a stall of our own no idle time is known then.
///
/// ```
/// use core::time::Duration;
/// use heartbeat_core::{IdleGauge, Instant};
///
/// let at = Instant::from_micros;
/// let mut gauge = IdleGauge::new(at(0));
/// gauge.handle_sent(at(60_000_000)); // a ping
/// assert_eq!(gauge.take_survived(), None);
/// gauge.handle_received(at(60_080_000)); // its answer
/// assert_eq!(gauge.take_survived(), Some(Duration::from_secs(60)));
///
/// gauge.handle_sent(at(180_080_000)); // another, which nobody answers
/// assert_eq!(gauge.unanswered(at(190_000_000)), Duration::from_secs(120));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleGauge {
    /// When something last passed.
    passed_at: Instant,
    /// The longest idle time that something of ours ended, since the last arrival.
    unanswered: Duration,
    /// The longest that was survived, since somebody asked.
    survived: Duration,
}

impl IdleGauge {
    /// For a connection that was made at `now`.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self {
            passed_at: now,
            unanswered: Duration::ZERO,
            survived: Duration::ZERO,
        }
    }

    /// Some of our bytes left at `now`.
    pub fn handle_sent(&mut self, now: Instant) {
        self.unanswered = self.unanswered.max(self.idle_for(now));
        self.passed_at = self.passed_at.max(now);
    }

    /// Some of the peer's bytes arrived at `now`.
    pub fn handle_received(&mut self, now: Instant) {
        self.survived = self.survived.max(self.unanswered);
        self.unanswered = Duration::ZERO;
        self.passed_at = self.passed_at.max(now);
    }

    /// The longest idle time that the connection survived since this was last
    /// asked; none if there was none.
    pub fn take_survived(&mut self) -> Option<Duration> {
        let survived = core::mem::take(&mut self.survived);
        (survived > Duration::ZERO).then_some(survived)
    }

    /// The longest idle time since the last arrival, the one that lasts at `now`
    /// included: what a connection that is dead now may have died of.
    #[must_use]
    pub fn unanswered(&self, now: Instant) -> Duration {
        self.unanswered.max(self.idle_for(now))
    }

    fn idle_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.passed_at)
    }
}
