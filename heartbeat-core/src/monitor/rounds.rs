//! Connects the parts: evidence, rounds, and local stalls.

use crate::{config::Evidence, time::Instant};

use super::{
    Monitor, Protocol,
    life::Life,
    outbox::Purpose,
    round::{Round, Step},
    timing::Draw,
};

/// When an input came, on a clock that never runs backwards.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) now: Instant,
    /// The deadline that came next.
    pub(super) deadline: Instant,
    /// How many microseconds after the deadline, if that is a local stall.
    pub(super) late: Option<u64>,
}

impl Monitor {
    /// Records the time of an input.
    #[inline(always)]
    pub(super) fn observe(&mut self, now: Instant) -> Moment {
        let now = self.clock.max(now);
        self.clock = now;
        let deadline = self.deadline();
        let late = if now <= deadline {
            None
        } else {
            self.slept_through(deadline, now)
        };
        Moment {
            now,
            deadline,
            late,
        }
    }

    /// How late it is at `now`, if that is more than is tolerated. A smaller lateness gives
    /// pongs more time for a while.
    #[cold]
    fn slept_through(&mut self, deadline: Instant, now: Instant) -> Option<u64> {
        let late = now.micros_since(deadline);
        self.health.was_late(late.min(self.timing.timeout()));
        debug_assert!(!self.has_ended(), "an end has no deadline");
        let slept = late > self.timing.tolerated_lateness();
        if slept {
            self.ledger.forget_times();
        }
        slept.then_some(late)
    }

    // ---- evidence ------------------------------------------------------

    /// Evidence of this grade arrived at `now`.
    #[inline(always)]
    pub(super) fn hear(&mut self, grade: Evidence, now: Instant) {
        let latest = self.clock.max(now);
        let is_expected = self.quiet_until().is_some_and(|end| latest <= end);
        if is_expected && self.timing.accepts(grade) && !self.notices.is_suspect() {
            // It ends nothing but a silence: the ordinary case.
            self.clock = latest;
            self.last_heard = latest;
        } else {
            self.hear_in_any_state(grade, now);
        }
    }

    /// The same, whatever it ends.
    #[inline(never)] // see `deadline_in_any_state`
    fn hear_in_any_state(&mut self, grade: Evidence, now: Instant) {
        let at = self.observe(now);
        if self.handle_evidence(grade, at) {
            self.speak(at.now);
        }
    }

    /// Returns whether a due ping may have been cancelled or a stall reported: then speech may
    /// be due.
    pub(super) fn handle_evidence(&mut self, grade: Evidence, at: Moment) -> bool {
        if !self.timing.accepts(grade) {
            self.forgive(at);
            return false;
        }
        let ends_round = self.heard(at.now);
        let told = at
            .late
            .is_some_and(|late| self.ask_after_stall(late, at.now));
        ends_round || told
    }

    /// Evidence of `then` came. Returns whether it ended a round.
    pub(super) fn heard(&mut self, then: Instant) -> bool {
        let ends_round = matches!(self.life, Life::Round(_));
        if ends_round {
            self.enter_idle();
        } else if self.has_ended() {
            return false;
        }
        self.notices.heard(then.micros_since(self.last_heard));
        self.last_heard = self.last_heard.max(then);
        debug_assert!(self.last_heard <= self.clock);
        ends_round
    }

    /// The next interval begins.
    pub(super) fn enter_idle(&mut self) {
        // After a stall of ours evidence may have lain in a buffer.
        let is_fresh = matches!(&self.life, Life::Round(round) if round.is_fresh());
        self.outbox
            .end_round(is_fresh && self.next_accepted().is_due(self.clock));
        let draw = Draw::After(self.ledger.sent());
        self.life = Life::idle(&self.timing, draw, self.random);
        debug_assert!(!self.outbox.asks_in_a_round());
    }

    // ---- what is due ---------------------------------------------------

    /// Does what is due at `now` in this state.
    pub(super) fn serve(&mut self, now: Instant) {
        match self.life {
            Life::Idle(_) => {
                if self.interval_end().is_due(now) {
                    self.begin_overdue_round(self.interval_base(), now);
                } else if self.is_probe_due(now) {
                    self.begin_round(now, Purpose::Probe, now);
                }
            }
            Life::Round(ref mut round) => {
                let step = round.step(&self.timing, self.outbox.has_no_question(), now);
                self.take_step(step, now);
            }
            Life::Paused(ref mut paused) if paused.is_sign_due(now) => {
                // Its timeout starts when it has left.
                paused.plan(Instant::MAX);
                self.want_sign();
            }
            Life::Paused(_) | Life::HalfClosed | Life::Closed { .. } | Life::Dead { .. } => {}
        }
    }

    /// When the current interval is over; never in a state other than `Idle`.
    pub(super) fn interval_end(&self) -> Instant {
        match &self.life {
            Life::Idle(idle) if self.can_judge() => idle.interval_end(self.last_heard),
            _ => Instant::MAX,
        }
    }

    /// The start of the budget of a round that begins with the end of the interval: no earlier
    /// than the promised accuracy allows.
    fn interval_base(&self) -> Instant {
        let end = self.interval_end();
        match &self.life {
            Life::Idle(idle) if idle.is_first() => end.max(self.earliest_base()),
            _ => {
                debug_assert!(end >= self.earliest_base(), "only the first is so short");
                end
            }
        }
    }

    /// The earliest start of the budget of a round that begins now; in `Idle`.
    fn earliest_base(&self) -> Instant {
        match &self.life {
            Life::Idle(_) => self.timing.earliest_base(self.last_heard),
            _ => Instant::ORIGIN,
        }
    }

    /// Begins a round if the interval is over. It is counted from `base`, but
    /// from no earlier than the promised accuracy allows.
    pub(super) fn begin_round_if_over(&mut self, base: Instant, now: Instant) {
        if self.interval_end().is_due(now) {
            self.begin_overdue_round(base.max(self.earliest_base()), now);
        }
    }

    /// The interval is over. See `begin_round_if_over`.
    fn begin_overdue_round(&mut self, base: Instant, now: Instant) {
        debug_assert!(self.interval_end().is_due(now));
        debug_assert!(base >= self.earliest_base());
        if self.is_probe_due(now) {
            // A probe makes the round no later.
            self.begin_round(base.min(now), Purpose::Probe, now);
        } else {
            self.begin_round(base, Purpose::Round, now);
        }
    }

    /// The peer pings, in `Idle`: if our own ping was due soon, it leaves in the same write as
    /// the pong. So a beat proves both directions to both sides.
    pub(super) fn ask_along(&mut self, now: Instant) {
        let waits = !self.outbox.has_no_ping()
            || !self.ledger.is_settled() && self.left_within(self.timing.timeout(), now);
        let is_due_soon = !waits && !self.left_within(self.timing.spacing(), now);
        if !self.has_alive() || !is_due_soon || !matches!(self.life, Life::Idle(_)) {
            return;
        }
        // The peer's ping doesn't make an overdue round later.
        if self.is_probe_due(now) {
            let base = self.interval_base().min(now);
            self.begin_round(base, Purpose::Probe, now);
        } else {
            let base = self.interval_end().min(now).max(self.earliest_base());
            self.begin_round(base, Purpose::Round, now);
        }
    }

    /// Whether the latest ping left less than this number of microseconds ago.
    fn left_within(&self, micros: u64, now: Instant) -> bool {
        let left = self.ledger.last_left();
        left.is_some_and(|left| now.micros_since(left) < micros)
    }

    /// Begins a round at `now` whose probe budget is counted from `base`.
    pub(super) fn begin_round(&mut self, base: Instant, purpose: Purpose, now: Instant) {
        let mut round = Round::new(&self.timing, base, now);
        match purpose {
            _ if self.was_asked_before_held() => {}
            Purpose::Probe => self.outbox.want_for_probe(),
            _ if self.was_asked_lately(now) => round.count_earlier_ping(),
            _ => self.outbox.want(purpose),
        }
        self.enter_round(round);
    }

    /// Begins a round after a stall of ours, counted from `base` like any other.
    /// A probe that waits is served by its ping.
    pub(super) fn begin_round_after_stall(&mut self, base: Instant, now: Instant) {
        match &self.life {
            Life::Idle(idle) if idle.probe_waits() => self.outbox.want_for_probe(),
            _ => self.outbox.want(Purpose::Round),
        }
        let base = base.max(self.earliest_base());
        self.enter_round(Round::after_stall(&self.timing, base, now));
    }

    pub(super) fn enter_round(&mut self, mut round: Round) {
        if self.was_asked_before_held() {
            round.count_earlier_ping();
        }
        round.assert_invariants(&self.timing);
        self.life = Life::Round(round);
    }

    /// Whether a ping left since the last evidence, so lately that another one
    /// would come too soon.
    fn was_asked_lately(&self, now: Instant) -> bool {
        let left = self.ledger.last_left();
        left.is_some_and(|left| self.last_heard < left)
            && self.left_within(self.timing.spacing(), now)
    }

    /// Whether no ping may leave while one is unanswered: that one serves all.
    fn was_asked_before_held(&self) -> bool {
        self.outbox.is_held() && self.ledger.awaits_answer()
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
        let expected = self.ledger.rtt().timeout().and_then(|measured| {
            let expected = measured.max(self.health.longest_answer());
            self.timing.suspect_after(expected)
        });
        match self.life {
            Life::Idle(_) if purpose == Purpose::Probe => {
                // Evidence came before the probe left. It still leaves, or its caller would wait
                // forever.
                let base = self.interval_base().min(now);
                let mut round = Round::new(&self.timing, base, now);
                round.ping_left(&self.timing, expected, now);
                self.life = Life::Round(round);
            }
            Life::Round(_) if purpose == Purpose::Speech => {}
            Life::Round(ref mut round) => {
                round.ping_left(&self.timing, expected, now);
                round.assert_invariants(&self.timing);
            }
            _ => {
                let end = self.interval_end();
                if self.keepalive_left(now) {
                    self.begin_round_if_over(end.min(now), now);
                }
            }
        }
    }

    /// A ping on which no round depends left at `now` or earlier. Returns whether the current
    /// interval was drawn again.
    pub(super) fn keepalive_left(&mut self, now: Instant) -> bool {
        if !self.has_alive() {
            self.sign_left(now);
        }
        let draw = Draw::After(self.ledger.sent());
        match &mut self.life {
            Life::Idle(idle) => idle.replace_first(draw, &self.timing, self.random),
            _ => false,
        }
    }

    // ---- signs of life -------------------------------------------------

    /// Whether the protocol has a frame that shows life and asks nothing. Otherwise pings do.
    pub(super) const fn has_alive(&self) -> bool {
        matches!(self.protocol, Protocol::Ours(_))
    }

    pub(super) fn want_sign(&mut self) {
        if self.has_alive() {
            self.outbox.want_alive();
        } else {
            self.outbox.want(Purpose::Keepalive);
        }
    }

    /// When the next sign of life is due while we read nothing or too slowly;
    /// never while one is on its way.
    pub(super) fn next_sign(&self) -> Instant {
        let (is_on_its_way, last) = if self.has_alive() {
            (!self.outbox.has_no_alive(), self.outbox.last_alive())
        } else {
            (!self.outbox.has_no_ping(), self.ledger.last_left())
        };
        match last {
            _ if is_on_its_way => Instant::MAX,
            Some(left) => left.plus(self.timing.sign_interval()),
            None => Instant::ORIGIN,
        }
    }

    /// When the next sign of life is due while received bytes wait to be decoded.
    pub(super) fn next_backlog_sign(&self) -> Instant {
        match &self.life {
            Life::Idle(idle) if self.has_alive() || !idle.probe_waits() => self.next_sign(),
            // In a foreign protocol a ping is the sign of life.
            Life::Round(_) if self.has_alive() => self.next_sign(),
            _ => Instant::MAX,
        }
    }

    /// Plans the next sign of life of a pause.
    pub(super) fn plan_sign(&mut self, now: Instant) {
        let next = self.next_sign().max(now);
        if let Life::Paused(paused) = &mut self.life {
            paused.plan(next);
        }
        self.serve(now);
    }

    /// One left at `now`.
    pub(super) fn sign_left(&mut self, now: Instant) {
        if let Life::Paused(paused) = &mut self.life {
            paused.plan(now.plus(self.timing.sign_interval()));
        }
    }

    // ---- probes --------------------------------------------------------

    /// When the peer accepts another ping.
    pub(super) fn next_accepted(&self) -> Instant {
        let left = self.ledger.last_left();
        left.map_or(Instant::ORIGIN, |left| left.plus(self.timing.min_gap()))
    }

    /// Whether a probe waits in `Idle` and can go on: the peer accepts its ping, or a ping on
    /// its way serves it, or an unanswered one does where no other may leave.
    pub(super) fn is_probe_due(&self, now: Instant) -> bool {
        match &self.life {
            Life::Idle(idle) if idle.probe_waits() && self.can_judge() => {
                !self.can_ask() || !self.outbox.has_no_ping() || self.next_accepted().is_due(now)
            }
            _ => false,
        }
    }

    /// The application probes, in `Idle`.
    pub(super) fn probe_idle(&mut self, now: Instant) {
        if let Life::Idle(idle) = &mut self.life {
            idle.let_probe_wait();
        }
        self.serve(now);
    }

    pub(super) fn keepalive_if_accepted(&mut self, now: Instant) {
        if self.can_ask() && self.next_accepted().is_due(now) {
            self.outbox.want(Purpose::Keepalive);
        }
    }
}
