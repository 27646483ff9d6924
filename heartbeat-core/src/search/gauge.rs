//! The idle times of a connection.
//!
//! This module decides which idle times a connection survived, and which one may have
//! ended it. The search decides what follows.

use core::time::Duration;

use crate::time::Instant;

/// Measures the idle times of one connection, from when bytes left and arrived.
///
/// A middlebox counts the time since the last packet in either direction, which may be
/// shorter than the interval. An idle time ends when our bytes leave, and is survived when
/// bytes arrive afterwards. An idle time that an arrival ends isn't counted, because the
/// bytes may have waited for us to read them.
///
/// Report arrivals before departures, as a driver that reads first does. Then a stall of
/// our own yields no idle time.
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
/// gauge.handle_sent(at(180_080_000)); // another, without an answer
/// assert_eq!(gauge.unanswered(at(190_000_000)), Duration::from_secs(120));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleGauge {
    /// When bytes last passed.
    passed_at: Instant,
    /// The longest idle time that our bytes ended since the last arrival.
    unanswered: Duration,
    /// The longest survived since `take_survived`.
    survived: Duration,
}

impl IdleGauge {
    /// Measures a connection that was made at `now`.
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

    /// The longest idle time survived since the last call; `None` if there was none.
    pub fn take_survived(&mut self) -> Option<Duration> {
        let survived = core::mem::take(&mut self.survived);
        (survived > Duration::ZERO).then_some(survived)
    }

    /// The longest idle time since the last arrival, the present one included. A connection
    /// that is dead at `now` may have died of it.
    #[must_use]
    pub fn unanswered(&self, now: Instant) -> Duration {
        self.unanswered.max(self.idle_for(now))
    }

    fn idle_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.passed_at)
    }
}
