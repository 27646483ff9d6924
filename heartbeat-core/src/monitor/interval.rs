//! The effects of a changed interval, by our own choice or by the peer's Hello.
//!
//! This module decides what happens to the current interval. `timing` decides how long
//! intervals are.

use core::time::Duration;

use crate::{config::ConfigError, time::Instant};

use super::{Monitor, life::Life};

impl Monitor {
    /// Sets another [`interval`](crate::ConfigBuilder::interval) from `now` on. All other
    /// knobs stay, so the detection time changes by the same amount.
    ///
    /// The peer is told with another Hello. The next ping leaves at `now` at the earliest,
    /// and a round under way continues unchanged. A peer that has paused reading sends
    /// Alive as often as the last Hello that it read asks for. If the peer may have paused,
    /// don't shorten the detection time below that Hello's.
    ///
    /// A longer `min_interval` is lowered to `interval` and never raised again, because the
    /// peer's pings at the lower one may be on their way.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if the interval is invalid, or if with it the peer would be
    /// [refused](crate::Config::refusal) or would refuse us, as far as its Hello tells.
    /// Nothing has changed then.
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
