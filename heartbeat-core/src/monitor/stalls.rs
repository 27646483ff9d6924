//! Local stalls.
//!
//! This module decides how a stall of ours changes the judgement of the peer. `rounds`
//! detects stalls.

use super::{Monitor, life::Life, outbox::Purpose, rounds::Moment};
use crate::time::Instant;

impl Monitor {
    pub(super) fn tell_stall(&mut self, late: u64, now: Instant) {
        self.notices.stalled(late);
        let chance = now.plus(self.timing.timeout());
        self.writes.excuse(chance, self.timing.max_missed());
        self.leaving.slept(now);
    }

    /// Evidence came that may have waited in a buffer while we slept: the peer is pinged at
    /// once, though no round depends on it. Returns whether the stall was reported.
    #[cold]
    pub(super) fn ask_after_stall(&mut self, late: u64, now: Instant) -> bool {
        if !matches!(self.life, Life::Idle(_)) {
            return false;
        }
        let is_probe_due = self.is_probe_due(now);
        self.tell_stall(late, now);
        if is_probe_due {
            self.begin_round(now, Purpose::Probe, now);
        } else if self.interval_end().is_due(now) {
            // The evidence is older than the stall.
            let base = self.interval_end().plus(late).min(now);
            self.begin_round_after_stall(base, now);
        } else {
            self.keepalive_if_accepted(now);
        }
        true
    }

    /// Forgives the peer a silence during our own stall. Returns whether it did: then nothing
    /// is due any more. Otherwise all deadlines remain until `handle_timeout`.
    #[inline]
    pub(super) fn forgive(&mut self, at: Moment) -> bool {
        at.late
            .is_some_and(|late| self.forgive_lateness(late, at.now))
    }

    #[cold]
    fn forgive_lateness(&mut self, late: u64, now: Instant) -> bool {
        match self.life {
            Life::Round(mut round) => {
                if !round.forgive(&self.timing, now) {
                    return false;
                }
                round.assert_invariants(&self.timing);
                self.life = Life::Round(round);
                self.outbox.want(Purpose::Round);
            }
            Life::Idle(_) if self.can_judge() => {
                // Otherwise we are late for something else, and the peer has missed nothing.
                if self.interval_end().is_due(now) || self.is_probe_due(now) {
                    self.begin_round_after_stall(now, now);
                }
            }
            _ => return false,
        }
        self.tell_stall(late, now);
        true
    }
}
