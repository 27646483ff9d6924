//! The state of the peer, and its deadline.
//!
//! This module decides the deadline of each state. It doesn't decide when a state
//! is entered, nor what is sent in it.

use crate::{
    frame::GoodbyeCode, packed::PackedInstant, random::Random, status::State, time::Instant,
};

use super::{
    round::Round,
    timing::{Draw, Silence, Timing},
};

/// The states, each with the facts that matter only in it. These are packed: a monitor
/// keeps one of them, and its size counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// The peer was heard lately.
    Idle(Idle),
    /// A round of pings is under way.
    Round(Round),
    /// We don't read; nothing is judged.
    Paused(Paused),
    /// A direction of the stream has ended, in a protocol in which no ping or no
    /// answer can follow: nothing is asked or judged any more.
    HalfClosed,
    /// Ended in order.
    Closed {
        /// The answer that we still owe to the peer's goodbye.
        answer: Option<GoodbyeCode>,
        /// If we left, until when the peer had to confirm it; otherwise `MAX`.
        until: PackedInstant,
    },
    /// Ended in any other way.
    Dead {
        /// Beats missed at the end.
        missed: u8,
        /// The goodbye that we still owe to the peer.
        goodbye: Option<GoodbyeCode>,
    },
}

/// See [`Life::Idle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(Rust, packed)]
pub(super) struct Idle {
    silence: Silence,
    /// The random part of it.
    draw: Draw,
    /// Whether a probe waits until the peer accepts another ping.
    probe_waits: bool,
}

/// See [`Life::Paused`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(Rust, packed)]
pub(super) struct Paused {
    /// When the next sign of life is due; never while one is on its way.
    sign_at: Instant,
    /// Whether the application asked for a probe.
    probe_waits: bool,
}

impl Life {
    /// Idle, with a fresh interval.
    pub(super) fn idle(timing: &Timing, draw: Draw, random: Random) -> Self {
        Self::Idle(Idle::new(timing, draw, random))
    }

    /// The deadline of this state; `MAX` for never. The peer accepts another ping at
    /// `next_accepted`, if it is judged at all.
    pub(super) fn deadline(
        &self,
        last_heard: Instant,
        is_judged: impl FnOnce() -> bool,
        next_accepted: impl FnOnce() -> Instant,
    ) -> Instant {
        match self {
            Self::Idle(_) if !is_judged() => Instant::MAX,
            Self::Idle(idle) if idle.probe_waits => {
                idle.interval_end(last_heard).min(next_accepted())
            }
            Self::Idle(idle) => idle.interval_end(last_heard),
            Self::Round(round) => round.deadline(),
            Self::Paused(paused) => paused.sign_at,
            Self::HalfClosed | Self::Closed { .. } | Self::Dead { .. } => Instant::MAX,
        }
    }

    /// Whether there is a frame that tells the peer how it ended.
    pub(super) const fn has_last_word(&self) -> bool {
        match self {
            Self::Closed { answer: code, .. } | Self::Dead { goodbye: code, .. } => code.is_some(),
            Self::Idle(_) | Self::Round(_) | Self::Paused(_) | Self::HalfClosed => false,
        }
    }

    /// Takes the frame that tells the peer how the connection ended.
    pub(super) const fn take_last_word(&mut self) -> Option<GoodbyeCode> {
        match self {
            Self::Closed { answer: code, .. } | Self::Dead { goodbye: code, .. } => code.take(),
            Self::Idle(_) | Self::Round(_) | Self::Paused(_) | Self::HalfClosed => None,
        }
    }

    #[inline]
    pub(super) const fn has_ended(&self) -> bool {
        matches!(self, Self::Closed { .. } | Self::Dead { .. })
    }

    /// Beats missed in a row.
    pub(super) const fn missed(&self) -> u8 {
        match self {
            Self::Round(round) => round.missed(),
            Self::Dead { missed, .. } => *missed,
            Self::Idle(_) | Self::Paused(_) | Self::HalfClosed | Self::Closed { .. } => 0,
        }
    }

    pub(super) const fn state(&self, is_suspect: bool, is_leaving: bool, answers: bool) -> State {
        match self {
            Self::Closed { .. } => State::Closed,
            Self::Dead { .. } => State::Dead,
            _ if is_leaving => State::Closing,
            Self::Idle(_) if !answers => State::Occupied,
            Self::Idle(_) | Self::Round(_) if is_suspect => State::Suspect,
            Self::Idle(_) | Self::Round(_) => State::Alive,
            Self::Paused(_) => State::Paused,
            Self::HalfClosed => State::HalfClosed,
        }
    }
}

impl Idle {
    pub(super) fn new(timing: &Timing, draw: Draw, random: Random) -> Self {
        Self {
            silence: timing.draw(draw, random),
            draw,
            probe_waits: false,
        }
    }

    /// When the interval is over.
    #[inline]
    pub(super) const fn interval_end(&self, last_heard: Instant) -> Instant {
        self.silence.end(last_heard)
    }

    /// Timings changed: the same random part of another interval.
    pub(super) fn draw_again(&mut self, timing: &Timing, random: Random) {
        self.silence = timing.draw(self.draw, random);
    }

    /// A ping left. The first interval may be too short to keep a distance from
    /// it, so it becomes a later one. Says whether it was the first.
    pub(super) fn replace_first(&mut self, draw: Draw, timing: &Timing, random: Random) -> bool {
        let is_first = self.is_first();
        if is_first {
            self.draw = draw;
            self.draw_again(timing, random);
        }
        is_first
    }

    /// Whether no ping has left since the start, so that it may be of any length.
    pub(super) fn is_first(&self) -> bool {
        matches!(self.draw, Draw::First)
    }

    pub(super) const fn probe_waits(&self) -> bool {
        self.probe_waits
    }

    /// A probe waits until the peer accepts another ping.
    pub(super) const fn let_probe_wait(&mut self) {
        self.probe_waits = true;
    }
}

impl Paused {
    /// A pause, before its first sign of life is planned.
    pub(super) const fn new(probe_waits: bool) -> Self {
        Self {
            sign_at: Instant::MAX,
            probe_waits,
        }
    }

    pub(super) const fn probe_waits(&self) -> bool {
        self.probe_waits
    }

    /// A probe waits until we read again: before that, the answer wouldn't be read.
    pub(super) const fn let_probe_wait(&mut self) {
        self.probe_waits = true;
    }

    /// The next sign of life is due at `sign_at`.
    pub(super) const fn plan(&mut self, sign_at: Instant) {
        self.sign_at = sign_at;
    }

    pub(super) const fn is_sign_due(&self, now: Instant) -> bool {
        self.sign_at.is_due(now)
    }
}

#[cfg(feature = "testkit")]
impl Life {
    pub(super) fn describe(&self, facts: &mut crate::testkit::Facts) {
        match *self {
            Self::Idle(Idle {
                silence,
                draw,
                probe_waits,
            }) => {
                facts.number(0);
                silence.describe(facts);
                facts.number(draw == Draw::First);
                facts.number(probe_waits);
            }
            Self::Round(round) => round.describe(facts),
            Self::Paused(Paused {
                sign_at,
                probe_waits,
            }) => {
                facts.number(2);
                facts.instant(sign_at);
                facts.number(probe_waits);
            }
            Self::HalfClosed => facts.number(5),
            Self::Closed { answer, .. } => {
                facts.number(3);
                facts.number(answer.map_or(-1, |code| code.0.into()));
            }
            Self::Dead { missed, goodbye } => {
                facts.number(4);
                facts.number(missed);
                facts.number(goodbye.map_or(-1, |code| code.0.into()));
            }
        }
    }
}
