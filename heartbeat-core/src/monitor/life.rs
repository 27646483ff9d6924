//! What the peer counts as, and what is waited for.
//!
//! This module decides the deadline of each state, and what a round has used
//! up of its probe budget. It doesn't decide when a state is entered, nor what
//! is sent in it.

use crate::{event::Cause, random::Random, status::State, time::Instant};

use super::timing::{Draw, Timing};

/// The states, each with the facts that matter only in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// The peer was heard lately.
    Idle(Idle),
    /// It is being asked.
    Round(Round),
    /// We don't read; nothing is judged.
    Paused(Paused),
    /// We said goodbye, or are about to.
    Leaving(Leaving),
    /// Ended with a goodbye.
    Closed,
    /// Ended in any other way.
    Dead {
        /// Beats missed at the end.
        missed: u8,
    },
}

/// See [`Life::Idle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Idle {
    /// Microseconds of silence until a ping is due.
    ping_after: u64,
    /// The random part of it.
    draw: Draw,
    /// Whether a probe waits until the peer accepts another ping.
    probe_waits: bool,
}

/// See [`Life::Round`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Round {
    /// When the probe budget is spent.
    verdict_at: Instant,
    /// The next miss, or the verdict. Invariant: not after `verdict_at`.
    step_at: Instant,
    /// From then on the beat is suspicious, if round trips say so; `MAX` if
    /// not.
    suspect_at: Instant,
    /// Whether this beat's lateness was reported.
    suspect_reported: bool,
    /// Beats missed. Invariant: fewer than N.
    missed: u8,
    /// Stalls of our own forgiven. Invariant: at most N.
    forgiven: u8,
    /// Whether a ping of this round left.
    asked: bool,
}

/// What comes of a step of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It isn't time.
    None,
    /// The beat is late; so many were missed before it.
    Late { missed: u8 },
    /// A beat was missed, of which this was reported; ask again.
    Missed { report: Option<u8> },
    /// The ping waits to be written still.
    Waits,
    /// The probe budget is spent.
    Verdict(Cause),
}

/// See [`Life::Paused`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Paused {
    /// When the next keepalive ping is due; never while one is on its way.
    pub(super) keepalive_at: Instant,
    /// Whether the application asked for a probe, and nothing has left since.
    pub(super) probe: bool,
}

/// See [`Life::Leaving`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leaving {
    until: Instant,
    goodbye: Goodbye,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goodbye {
    Due,
    /// Handed out, and hasn't left.
    InFlight,
}

impl Life {
    /// Idle, with a fresh interval.
    pub(super) fn idle(timing: &Timing, draw: Draw, random: Random) -> Self {
        Self::Idle(Idle {
            ping_after: timing.ping_after(draw, random),
            draw,
            probe_waits: false,
        })
    }

    /// When this state wants to be woken; `MAX` for never. The peer accepts
    /// another ping at `next_accepted`.
    #[inline]
    pub(super) fn deadline(
        &self,
        timing: &Timing,
        last_heard: Instant,
        next_accepted: impl FnOnce() -> Instant,
    ) -> Instant {
        match self {
            Self::Idle(idle) if idle.probe_waits => {
                idle.interval_end(timing, last_heard).min(next_accepted())
            }
            Self::Idle(idle) => idle.interval_end(timing, last_heard),
            Self::Round(round) => round.deadline(),
            Self::Paused(paused) => paused.keepalive_at,
            Self::Leaving(leaving) => leaving.until,
            Self::Closed | Self::Dead { .. } => Instant::MAX,
        }
    }

    /// Whether the peer is judged, or will be when we read again.
    #[inline]
    pub(super) const fn is_watching(&self) -> bool {
        matches!(self, Self::Idle(_) | Self::Round(_) | Self::Paused(_))
    }

    pub(super) const fn has_ended(&self) -> bool {
        matches!(self, Self::Closed | Self::Dead { .. })
    }

    /// Beats missed in a row.
    pub(super) const fn missed(&self) -> u8 {
        match self {
            Self::Round(round) => round.missed,
            Self::Dead { missed } => *missed,
            Self::Idle(_) | Self::Paused(_) | Self::Leaving(_) | Self::Closed => 0,
        }
    }

    pub(super) const fn state(&self, is_suspect: bool) -> State {
        match self {
            Self::Idle(_) | Self::Round(_) if is_suspect => State::Suspect,
            Self::Idle(_) | Self::Round(_) => State::Alive,
            Self::Paused(_) => State::Paused,
            Self::Leaving(_) => State::Closing,
            Self::Closed => State::Closed,
            Self::Dead { .. } => State::Dead,
        }
    }
}

impl Idle {
    /// When the interval is over.
    #[inline]
    pub(super) fn interval_end(&self, timing: &Timing, last_heard: Instant) -> Instant {
        timing.interval_end(self.ping_after, self.draw, last_heard)
    }

    /// Timings changed: the same random part of another interval.
    pub(super) fn draw_again(&mut self, timing: &Timing, random: Random) {
        self.ping_after = timing.ping_after(self.draw, random);
    }

    /// A ping left. An interval before the first ping becomes one like any other:
    /// it was short to spread the first pings of many connections, and the next
    /// one isn't to follow at once. Says whether it was such an interval.
    pub(super) fn end_first(&mut self, timing: &Timing, pings: u32, random: Random) -> bool {
        if self.draw != Draw::First {
            return false;
        }
        self.draw = Draw::After(pings);
        self.draw_again(timing, random);
        true
    }

    pub(super) const fn probe_waits(&self) -> bool {
        self.probe_waits
    }

    /// A probe waits until the peer accepts another ping.
    pub(super) const fn let_probe_wait(&mut self) {
        self.probe_waits = true;
    }
}

impl Round {
    /// A round whose probe budget is counted from `base`, at `now`.
    pub(super) fn new(timing: &Timing, base: Instant, now: Instant) -> Self {
        let verdict_at = base.plus(timing.probe_budget());
        Self {
            verdict_at,
            step_at: base.max(now).plus(timing.timeout()).min(verdict_at),
            suspect_at: Instant::MAX,
            suspect_reported: false,
            missed: 0,
            forgiven: 0,
            asked: false,
        }
    }

    /// A ping that left before the round began is its first.
    pub(super) const fn count_earlier_ping(&mut self) {
        self.asked = true;
    }

    /// It begins with a stall of ours, which is forgiven.
    pub(super) const fn count_stall(&mut self) {
        self.forgiven = 1;
    }

    #[inline]
    const fn deadline(&self) -> Instant {
        if self.suspect_at.is_before(self.step_at) {
            self.suspect_at
        } else {
            self.step_at
        }
    }

    pub(super) const fn was_asked(&self) -> bool {
        self.asked
    }

    /// A ping left at `now`. It is suspicious without an answer after
    /// `expected` microseconds, if that is known.
    pub(super) fn ping_left(
        &mut self,
        timing: &Timing,
        is_fresh: bool,
        expected: Option<u64>,
        now: Instant,
    ) {
        let step_at = now.plus(timing.timeout());
        if is_fresh {
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
            self.suspect_at = Instant::MAX;
            self.suspect_reported = true;
            return Step::Late {
                missed: self.missed,
            };
        }
        self.step_at = now.plus(timing.timeout()).min(self.verdict_at);
        if !has_no_ping {
            return Step::Waits;
        }
        // It was on the wire for a whole timeout.
        self.missed = self.missed.saturating_add(1);
        debug_assert!(
            self.missed < timing.max_missed(),
            "the last miss is the verdict"
        );
        let report = (!self.suspect_reported).then_some(self.missed);
        self.await_beat(Instant::MAX);
        Step::Missed { report }
    }

    /// Forgives a stall of ours by which a call at `now` was late, unless N
    /// were forgiven. What was slept through isn't counted, neither for the
    /// verdict nor for the next step, and a whole timeout is left at least.
    pub(super) fn forgive(&mut self, timing: &Timing, late: u64, now: Instant) -> bool {
        if self.forgiven >= timing.max_missed() {
            return false;
        }
        let least = now.plus(timing.timeout());
        self.forgiven += 1;
        self.verdict_at = self.verdict_at.plus(late).max(least);
        self.step_at = self.step_at.plus(late).max(least);
        self.await_beat(Instant::MAX);
        true
    }

    /// Another beat is waited for, suspicious from `suspect_at` on.
    const fn await_beat(&mut self, suspect_at: Instant) {
        self.suspect_at = suspect_at;
        self.suspect_reported = false;
    }

    /// Holds what the type doesn't say.
    pub(super) fn assert_invariants(&self, timing: &Timing) {
        debug_assert!(self.step_at <= self.verdict_at);
        debug_assert!(self.missed < timing.max_missed());
        debug_assert!(self.forgiven <= timing.max_missed());
    }
}

impl Leaving {
    /// The goodbye has until `budget` microseconds after `now`.
    pub(super) fn new(budget: u64, now: Instant) -> Self {
        Self {
            until: bounded(now, budget),
            goodbye: Goodbye::Due,
        }
    }

    /// A write took some bytes.
    pub(super) fn extend(&mut self, budget: u64, now: Instant) {
        self.until = self.until.max(bounded(now, budget));
    }

    pub(super) const fn is_goodbye_due(&self) -> bool {
        matches!(self.goodbye, Goodbye::Due)
    }

    /// Hands the goodbye out, once.
    pub(super) const fn take_goodbye(&mut self) -> bool {
        let due = self.is_goodbye_due();
        self.goodbye = Goodbye::InFlight;
        due
    }

    pub(super) const fn is_over(&self, now: Instant) -> bool {
        self.until.is_due(now)
    }
}

/// Even where time ends, leaving does.
fn bounded(now: Instant, budget: u64) -> Instant {
    now.plus(budget).min(Instant::from_micros(u64::MAX - 1))
}
