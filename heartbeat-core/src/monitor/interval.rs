//! What changes when an interval does, ours by our own choice or by the peer's Hello.
//!
//! This module decides what becomes of the interval that runs. How long intervals are
//! is decided by `timing`.

use core::time::Duration;

use crate::{config::ConfigError, time::Instant};

use super::{Monitor, life::Life};

impl Monitor {
    /// Another [`interval`](crate::ConfigBuilder::interval) from `now` on. All other
    /// knobs stay, so the detection time changes by as much.
    ///
    /// The peer is told with another Hello, and we ask at `now` at the earliest. A
    /// round under way goes on as it began. A peer that has paused reading sends its
    /// signs of life as often as the last Hello that it read asks for: if it may have
    /// paused, don't shorten the detection time below that Hello's.
    ///
    /// A `min_interval` that is longer is shortened to it, for good: the peer may have
    /// asked as often already.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if a [`Config`](crate::Config) can't have it, or if the peer
    /// would be [refused](crate::Config::refusal) with it. Nothing has changed then.
    pub fn set_interval(&mut self, interval: Duration, now: Instant) -> Result<(), ConfigError> {
        let config = self.timing.with_interval(interval)?;
        let at = self.observe(now);
        self.forgive(at);
        let end = self.interval_end();
        if self.has_ended() || !self.timing.replace_config(config) {
            return Ok(());
        }
        if self.has_alive() {
            self.outbox.want_hello();
        }
        self.follow_timings(end, at.now);
        Ok(())
    }

    /// The timings have changed; by the former ones the interval would have ended at
    /// `end`.
    pub(super) fn follow_timings(&mut self, end: Instant, now: Instant) {
        match &mut self.life {
            Life::Idle(idle) => {
                idle.draw_again(&self.timing, self.random);
                // What wasn't due by them is due now at the earliest.
                self.begin_round_if_over(end.min(now), now);
                self.serve(now);
            }
            Life::Paused(_) => self.plan_sign(now),
            _ => {}
        }
        self.speak(now);
    }
}
