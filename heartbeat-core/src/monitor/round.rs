//! One round of pings and its probe budget.
//!
//! This module decides the result of each step of a round: a late beat, a missed one, or
//! the verdict. It sends nothing, and doesn't decide when a round begins or ends.

use crate::{event::Cause, time::Instant};

use super::timing::Timing;

/// See [`Life::Round`](super::life::Life::Round).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(Rust, packed)] // see `life`
pub(super) struct Round {
    /// When the probe budget is spent.
    verdict_at: Instant,
    /// The next miss, or the verdict. Invariant: not after `verdict_at`.
    step_at: Instant,
    /// When the beat becomes suspicious by the measured round trips; `MAX` if they don't count.
    suspect_at: Instant,
    beat: Beat,
    /// Beats missed. Invariant: fewer than N.
    missed: u8,
    /// Stalls of our own forgiven. Invariant: at most N.
    forgiven: u8,
    /// Whether a ping of this round left.
    asked: bool,
    /// Whether the ping on its way is the first since a stall of ours. Such a ping gets a whole
    /// timeout.
    fresh: bool,
}

/// The beat that a round awaits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beat {
    Awaited,
    /// We were late ourselves when it became suspicious. It got more time, once.
    Excused,
    /// Its lateness was reported.
    Late,
}

/// The result of a step of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing is due.
    None,
    /// The beat is late; `missed` beats were missed before it.
    Late { missed: u8 },
    /// A beat was missed: ping again, and report the misses unless the beat's lateness was
    /// reported before.
    Missed { report: Option<u8> },
    /// The ping hasn't been written yet.
    Waits,
    /// The probe budget is spent.
    Verdict(Cause),
}

impl Round {
    /// A round whose probe budget is counted from `base`, at `now`.
    pub(super) fn new(timing: &Timing, base: Instant, now: Instant) -> Self {
        let verdict_at = base.plus(timing.probe_budget());
        Self {
            verdict_at,
            step_at: base.max(now).plus(timing.timeout()).min(verdict_at),
            suspect_at: Instant::MAX,
            beat: Beat::Awaited,
            missed: 0,
            forgiven: 0,
            asked: false,
            fresh: false,
        }
    }

    /// A round that begins with a stall of ours, which is forgiven.
    pub(super) fn after_stall(timing: &Timing, base: Instant, now: Instant) -> Self {
        let round = Self::new(timing, base, now);
        Self {
            // At least a timeout, however long ago the interval ended.
            verdict_at: round.verdict_at.max(now.plus(timing.timeout())),
            forgiven: 1,
            fresh: true,
            ..round
        }
    }

    /// A ping that left before the round began is its first.
    pub(super) const fn count_earlier_ping(&mut self) {
        self.asked = true;
    }

    /// Makes the verdict no earlier than that of `former`, which may still have owed the peer a
    /// fresh ping. Returns whether one is still owed.
    pub(super) fn last_as_long_as(&mut self, former: &Self, timing: &Timing, now: Instant) -> bool {
        self.fresh |= former.fresh;
        self.verdict_at = self.verdict_at.max(former.verdict_at);
        let step_at = self.step_at.max(now.plus(timing.timeout()));
        self.step_at = step_at.min(self.verdict_at);
        self.fresh
    }

    #[inline]
    pub(super) const fn deadline(&self) -> Instant {
        if self.suspect_at.is_before(self.step_at) {
            self.suspect_at
        } else {
            self.step_at
        }
    }

    /// Beats missed.
    pub(super) const fn missed(&self) -> u8 {
        self.missed
    }

    /// Whether a fresh ping hasn't left yet.
    pub(super) const fn is_fresh(&self) -> bool {
        self.fresh
    }

    pub(super) const fn was_asked(&self) -> bool {
        self.asked
    }

    /// A ping left at `now`. It is suspicious without an answer after
    /// `expected` microseconds, if that is known.
    pub(super) fn ping_left(&mut self, timing: &Timing, expected: Option<u64>, now: Instant) {
        let step_at = now.plus(timing.timeout());
        if core::mem::take(&mut self.fresh) {
            self.verdict_at = self.verdict_at.max(step_at);
        }
        self.step_at = self.step_at.max(step_at).min(self.verdict_at);
        self.await_beat(expected.map_or(Instant::MAX, |micros| now.plus(micros)));
        self.asked = true;
    }

    /// What is due at `now`; `has_no_ping` if none is on its way.
    pub(super) fn step(&mut self, timing: &Timing, has_no_ping: bool, now: Instant) -> Step {
        if self.verdict_at.is_due(now) {
            let cause = if self.asked {
                Cause::Silent
            } else {
                Cause::WriteStalled
            };
            return Step::Verdict(cause);
        }
        if !self.step_at.is_due(now) {
            if !self.deadline().is_due(now) {
                return Step::None;
            }
            return self.suspect(timing, now);
        }
        self.step_at = now.plus(timing.timeout()).min(self.verdict_at);
        if !has_no_ping {
            return Step::Waits;
        }
        // The ping was on the wire for a whole timeout.
        self.missed = self.missed.saturating_add(1);
        debug_assert!(
            self.missed < timing.max_missed(),
            "the last miss is the verdict"
        );
        let report = (self.beat != Beat::Late).then_some(self.missed);
        self.await_beat(Instant::MAX);
        Step::Missed { report }
    }

    /// The beat is suspicious at `now`. If we are late ourselves, the peer may be too.
    fn suspect(&mut self, timing: &Timing, now: Instant) -> Step {
        let extra = timing.extra_time(now.micros_since(self.suspect_at));
        match (self.beat, extra) {
            (Beat::Awaited, Some(extra)) => {
                self.suspect_at = self.suspect_at.plus(extra);
                self.beat = Beat::Excused;
                Step::None
            }
            _ => {
                self.suspect_at = Instant::MAX;
                self.beat = Beat::Late;
                Step::Late {
                    missed: self.missed,
                }
            }
        }
    }

    /// Forgives a stall of ours at `now`, unless N were forgiven. The time of the stall isn't
    /// counted, neither for the verdict nor for the next step, and at least a whole timeout
    /// remains.
    pub(super) fn forgive(&mut self, timing: &Timing, now: Instant) -> bool {
        if self.forgiven >= timing.max_missed() {
            return false;
        }
        let late = now.micros_since(self.deadline());
        let least = now.plus(timing.timeout());
        self.forgiven += 1;
        self.fresh = true;
        self.verdict_at = self.verdict_at.plus(late).max(least);
        self.step_at = self.step_at.plus(late).max(least);
        self.await_beat(Instant::MAX);
        true
    }

    /// The next beat begins; it is suspicious from `suspect_at` on.
    const fn await_beat(&mut self, suspect_at: Instant) {
        self.suspect_at = suspect_at;
        self.beat = Beat::Awaited;
    }

    /// Checks the invariants that the type doesn't express.
    pub(super) fn assert_invariants(&self, timing: &Timing) {
        debug_assert!({ self.step_at } <= { self.verdict_at });
        debug_assert!(self.missed < timing.max_missed());
        debug_assert!(self.forgiven <= timing.max_missed());
    }
}

#[cfg(feature = "testkit")]
impl Round {
    pub(super) fn describe(self, facts: &mut crate::testkit::Facts) {
        let Self {
            verdict_at,
            step_at,
            suspect_at,
            beat,
            missed,
            forgiven,
            fresh,
            asked,
        } = self;
        facts.number(1);
        facts.instant(verdict_at);
        facts.instant(step_at);
        facts.instant(suspect_at);
        facts.number(beat as u8);
        facts.number(missed);
        facts.number(forgiven);
        facts.number(fresh);
        facts.number(asked);
    }
}
