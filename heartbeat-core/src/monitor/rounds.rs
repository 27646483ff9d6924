//! How the parts work together: evidence, rounds, stalls of our own, and ends.

use crate::{
    config::Evidence,
    event::{Cause, CloseReason},
    time::{Instant, micros},
};

use super::{
    Monitor,
    life::{Life, Round, Step},
    outbox::Purpose,
    timing::Draw,
};

/// When an input came, on a clock that never runs backwards.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) now: Instant,
    /// How many microseconds after the deadline, if we must have slept.
    pub(super) late: Option<u64>,
}

impl Monitor {
    /// Takes the time of an input.
    #[inline]
    pub(super) fn observe(&mut self, now: Instant) -> Moment {
        let now = self.clock.max(now);
        self.clock = now;
        let late = now.micros_since(self.deadline());
        let slept = late > self.timing.tolerated_lateness() && self.life.is_watching();
        Moment {
            now,
            late: slept.then_some(late),
        }
    }

    // ---- evidence ------------------------------------------------------

    #[inline]
    pub(super) fn handle_evidence(&mut self, grade: Evidence, at: Moment) {
        if self.timing.accepts(grade) {
            self.heard(at.now);
            self.ask_after_stall(at);
        } else {
            self.forgive(at);
        }
    }

    /// Evidence of `then` came.
    #[inline]
    pub(super) fn heard(&mut self, then: Instant) {
        match self.life {
            Life::Idle(_) | Life::Paused(_) => {}
            Life::Round(_) => self.enter_idle(),
            Life::Leaving(_) | Life::Closed | Life::Dead { .. } => return,
        }
        self.notices.heard(then.micros_since(self.last_heard));
        self.last_heard = self.last_heard.max(then);
        debug_assert!(self.last_heard <= self.clock);
    }

    /// The next interval begins.
    pub(super) fn enter_idle(&mut self) {
        let draw = match self.ledger.last_left() {
            None => Draw::First,
            Some(_) => Draw::After(self.ledger.sent()),
        };
        self.life = Life::idle(&self.timing, draw, self.random);
        self.outbox.end_round(self.next_accepted() <= self.clock);
        debug_assert!(!self.outbox.asks_in_a_round());
    }

    // ---- what is due ---------------------------------------------------

    /// Does what is due at `now` in this state.
    pub(super) fn serve(&mut self, now: Instant) {
        match self.life {
            Life::Idle(idle) => {
                let end = idle.interval_end(&self.timing, self.last_heard);
                if end.is_due(now) {
                    self.begin_round(end, Purpose::Round, now);
                } else if idle.probe_waits() && self.next_accepted() <= now {
                    self.begin_round(now, Purpose::Probe, now);
                }
            }
            Life::Round(ref mut round) => {
                let step = round.step(&self.timing, self.outbox.has_no_ping(), now);
                self.take_step(step, now);
            }
            Life::Paused(ref mut paused) if paused.keepalive_at.is_due(now) => {
                // Until it has left there is nothing to wait for.
                paused.keepalive_at = Instant::MAX;
                self.outbox.want(Purpose::Keepalive);
            }
            Life::Leaving(leaving) if leaving.is_over(now) => self.close_with(CloseReason::Local),
            Life::Paused(_) | Life::Leaving(_) | Life::Closed | Life::Dead { .. } => {}
        }
    }

    /// Begins a round counted from `base` if the interval is over.
    pub(super) fn begin_round_if_over(&mut self, base: Instant, now: Instant) {
        match &self.life {
            Life::Idle(idle) if idle.interval_end(&self.timing, self.last_heard).is_due(now) => {
                self.begin_round(base, Purpose::Round, now);
            }
            _ => {}
        }
    }

    /// Begins a round at `now` whose probe budget is counted from `base`; not
    /// from earlier than the promised accuracy allows, unless the application
    /// asked for it.
    pub(super) fn begin_round(&mut self, base: Instant, purpose: Purpose, now: Instant) {
        let base = match purpose {
            Purpose::Probe => base,
            _ => base.max(self.timing.earliest_base(self.last_heard)),
        };
        let mut round = Round::new(&self.timing, base, now);
        match purpose {
            Purpose::Round if self.was_asked_lately(now) => round.count_earlier_ping(),
            Purpose::Round => self.outbox.want(purpose),
            Purpose::Fresh => {
                round.count_stall();
                self.outbox.want_for(purpose);
            }
            Purpose::Probe | Purpose::Keepalive => self.outbox.want_for(purpose),
        }
        round.assert_invariants(&self.timing);
        self.life = Life::Round(round);
    }

    /// Whether a ping left since the last evidence, so lately that another one
    /// would come too soon.
    fn was_asked_lately(&self, now: Instant) -> bool {
        self.ledger
            .last_left()
            .is_some_and(|left| self.last_heard < left && now < left.plus(self.timing.spacing()))
    }

    fn take_step(&mut self, step: Step, now: Instant) {
        let silence = now.micros_since(self.last_heard);
        match step {
            Step::None | Step::Waits => {}
            Step::Late { missed } => self.notices.suspect(missed, silence),
            Step::Missed { report } => {
                if let Some(missed) = report {
                    self.notices.suspect(missed, silence);
                }
                self.outbox.want(Purpose::Round);
            }
            Step::Verdict(cause) => self.die(cause, now),
        }
    }

    /// The ping that was handed out left at `now`.
    pub(super) fn ping_left(&mut self, purpose: Purpose, now: Instant) {
        let is_first = !matches!(&self.life, Life::Round(round) if round.was_asked());
        self.ledger.left(is_first, now);
        let config = self.timing.config();
        let expected = match self.ledger.rtt().timeout() {
            Some(timeout) if config.adaptive() => {
                Some(timeout.max(micros(config.adaptive_floor())))
            }
            _ => None,
        };
        let keepalive_at = now.plus(self.timing.keepalive_interval());
        match &mut self.life {
            Life::Idle(_) if purpose == Purpose::Probe => {
                // Evidence came before the probe left. It was asked for all
                // the same, and whoever waits for it mustn't wait for ever.
                let mut round = Round::new(&self.timing, now, now);
                round.ping_left(&self.timing, false, expected, now);
                self.life = Life::Round(round);
            }
            Life::Round(round) => {
                round.ping_left(&self.timing, purpose == Purpose::Fresh, expected, now);
                round.assert_invariants(&self.timing);
            }
            Life::Paused(paused) => {
                paused.keepalive_at = keepalive_at;
                paused.probe = false;
            }
            Life::Idle(idle) => {
                let end = idle.interval_end(&self.timing, self.last_heard);
                if idle.end_first(&self.timing, self.ledger.sent(), self.random) {
                    self.begin_round_if_over(end.min(now), now);
                }
            }
            Life::Leaving(_) | Life::Closed | Life::Dead { .. } => {}
        }
    }

    // ---- probes and keepalive pings ------------------------------------

    /// From when on the peer accepts another ping.
    pub(super) fn next_accepted(&self) -> Instant {
        let left = self.ledger.last_left();
        left.map_or(Instant::ORIGIN, |left| left.plus(self.timing.min_gap()))
    }

    /// The application asks, in `Idle`.
    pub(super) fn probe_idle(&mut self, now: Instant) {
        let next_accepted = self.next_accepted();
        let Life::Idle(idle) = &mut self.life else {
            return;
        };
        let end = idle.interval_end(&self.timing, self.last_heard);
        if end.is_due(now) {
            // A round is due anyway, and no later for having been asked for.
            let base = end.max(self.timing.earliest_base(self.last_heard)).min(now);
            self.begin_round(base, Purpose::Probe, now);
        } else if self.outbox.has_no_ping() && next_accepted > now {
            idle.let_probe_wait();
        } else {
            // A ping that is on its way serves the probe.
            self.begin_round(now, Purpose::Probe, now);
        }
    }

    /// When the next keepalive ping is due in a pause: never while one is on
    /// its way.
    pub(super) fn keepalive_at(&self, now: Instant) -> Instant {
        if !self.outbox.has_no_ping() {
            return Instant::MAX;
        }
        let regular = self
            .ledger
            .last_left()
            .map_or(now, |left| left.plus(self.timing.keepalive_interval()));
        match self.life {
            Life::Paused(paused) if paused.probe => regular.min(self.next_accepted()).max(now),
            _ => regular.max(now),
        }
    }

    /// The keepalive ping of a pause is due as soon as the peer accepts one.
    pub(super) fn hasten_keepalive(&mut self, now: Instant) {
        let keepalive_at = self.keepalive_at(now);
        if let Life::Paused(paused) = &mut self.life {
            paused.keepalive_at = keepalive_at;
        }
        self.serve(now);
    }

    pub(super) fn keepalive_if_accepted(&mut self, now: Instant) {
        if self.next_accepted() <= now {
            self.outbox.want(Purpose::Keepalive);
        }
    }

    // ---- our own stalls ------------------------------------------------

    pub(super) fn tell_stall(&mut self, late: u64, now: Instant) {
        self.notices.stalled(late);
        self.ledger.forget_times();
        let chance = now.plus(self.timing.timeout());
        self.writes.excuse(chance, self.timing.max_missed());
    }

    /// Evidence came, and may have lain in a buffer while we slept: the peer is
    /// asked at once, though it isn't judged by that.
    pub(super) fn ask_after_stall(&mut self, at: Moment) {
        let (Some(late), Life::Idle(idle)) = (at.late, &self.life) else {
            return;
        };
        let probe_is_due = idle.probe_waits() && self.next_accepted() <= at.now;
        self.tell_stall(late, at.now);
        if probe_is_due {
            self.begin_round(at.now, Purpose::Probe, at.now);
        } else {
            self.keepalive_if_accepted(at.now);
        }
    }

    /// Forgives the peer a silence that we slept through. `true` if it did:
    /// then nothing is due any more. If not, what is due remains so until
    /// `handle_timeout`.
    pub(super) fn forgive(&mut self, at: Moment) -> bool {
        let Some(late) = at.late else { return false };
        match &mut self.life {
            Life::Idle(_) => self.begin_round(at.now, Purpose::Fresh, at.now),
            Life::Round(round) => {
                if !round.forgive(&self.timing, late, at.now) {
                    return false;
                }
                round.assert_invariants(&self.timing);
                self.outbox.want_for(Purpose::Fresh);
            }
            _ => return false,
        }
        self.tell_stall(late, at.now);
        true
    }

    // ---- ends ----------------------------------------------------------

    pub(super) fn die(&mut self, cause: Cause, now: Instant) {
        if self.life.has_ended() {
            return;
        }
        let missed = match cause {
            // The whole budget is spent, however it was.
            Cause::Silent => self.timing.max_missed(),
            _ => self.life.missed(),
        };
        let silence = now.micros_since(self.last_heard);
        self.notices.dead(cause, silence, missed);
        self.life = Life::Dead { missed };
        self.writes.clear();
    }

    pub(super) fn close_with(&mut self, reason: CloseReason) {
        self.notices.closed(reason);
        self.life = Life::Closed;
        self.writes.clear();
    }
}
