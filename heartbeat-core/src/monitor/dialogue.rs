//! The effects of a foreign protocol's state.
//!
//! This module decides what changes when a ping may leave or an answer can be expected
//! again, or no longer. The driver knows the protocol's state.

use core::time::Duration;

use super::{
    Monitor, Protocol,
    life::{Idle, Life},
    timing::Draw,
};
use crate::{config::Evidence, time::Instant};

/// What a protocol [without a Hello](Monitor::without_hello) allows, in its present
/// state. The default is a protocol in which a ping may be sent and is answered at any
/// time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_structs,
    reason = "whether we may ask, whether there is an answer, and whether the peer speaks by itself"
)]
pub struct Dialogue {
    /// Whether a ping may be sent now. While it may not, no ping leaves, and no round begins
    /// unless a ping is unanswered; when it may again, what is due leaves at once.
    pub may_ping: bool,
    /// Whether an answer can be expected now. While it can't, the peer isn't judged and
    /// its state is [`Occupied`](crate::State::Occupied).
    pub answers: bool,
    /// The time between the peer's own beats, if beats aren't answered. It makes the
    /// interval at least as long, and so the detection time, up to
    /// [`max_stretch`](crate::ConfigBuilder::max_stretch).
    pub beats_every: Option<Duration>,
}

impl Default for Dialogue {
    fn default() -> Self {
        Self {
            may_ping: true,
            answers: true,
            beats_every: None,
        }
    }
}

impl Monitor {
    /// The protocol's state has changed, and with it what it allows. For protocols
    /// [without a Hello](Self::without_hello). Repeated calls are fine.
    ///
    /// While no ping may leave, the peer is judged by the answer to a ping that has left, if
    /// one is unanswered. A round ends when no answer can be expected any more. When one can
    /// be expected again, the peer is judged afresh, as if it had just been heard.
    pub fn handle_dialogue(&mut self, dialogue: Dialogue, now: Instant) {
        let at = self.observe(now);
        self.forgive(at);
        let is_judged = !self.has_ended() && self.life != Life::HalfClosed;
        if self.has_alive() || !is_judged {
            return;
        }
        let end = self.interval_end();
        let has_other_beats = self.timing.expect_beats(dialogue.beats_every);
        let answered = self.answers();
        if let Protocol::Foreign { answers } = &mut self.protocol {
            *answers = dialogue.answers;
        }
        let was_held = self.outbox.hold(!dialogue.may_ping);
        let is_news = (answered, was_held) != (self.answers(), self.outbox.is_held());
        if !is_news && !has_other_beats {
            return;
        }
        if answered != self.answers() {
            self.ledger.forget_times();
        }
        match self.life {
            Life::Idle(_) | Life::Round(_) if answered && !self.answers() => self.stop_judging(),
            Life::Round(round) if !round.was_asked() && self.outbox.is_held_back() => {
                match self.awaits_answer() {
                    true => self.enter_round(round),
                    false => self.stop_judging(),
                }
            }
            Life::Idle(idle) if !answered && self.answers() => {
                self.last_heard = at.now;
                self.wait_in_idle(idle.probe_waits());
            }
            _ => {}
        }
        if let Life::Idle(idle) = &mut self.life {
            if has_other_beats {
                idle.draw_again(&self.timing, self.random);
            }
            // A ping that couldn't leave before leaves now.
            self.begin_round_if_over(end.min(at.now), at.now);
            self.serve(at.now);
        }
        self.speak(at.now);
    }

    /// What the protocol allows, as of the latest
    /// [`handle_dialogue`](Self::handle_dialogue).
    #[must_use]
    pub fn dialogue(&self) -> Dialogue {
        Dialogue {
            may_ping: !self.outbox.is_held(),
            answers: self.answers(),
            beats_every: self.timing.beats_every(),
        }
    }

    /// The peer isn't judged: no answer to a ping can come, or none may leave. A probe
    /// waits.
    fn stop_judging(&mut self) {
        let waits = matches!(&self.life, Life::Idle(idle) if idle.probe_waits());
        let was_on_its_way = self.outbox.pause();
        self.wait_in_idle(waits || was_on_its_way);
    }

    fn wait_in_idle(&mut self, probe_waits: bool) {
        let mut idle = Idle::new(&self.timing, Draw::After(self.ledger.sent()), self.random);
        if probe_waits {
            idle.let_probe_wait();
        }
        self.life = Life::Idle(idle);
    }

    /// Whether a ping may leave, and its answer can be expected.
    #[inline]
    pub(super) const fn can_ask(&self) -> bool {
        match self.protocol {
            Protocol::Ours(_) => true,
            Protocol::Foreign { answers } => answers && !self.outbox.is_held(),
        }
    }

    /// Whether silence counts: a ping may leave, or one is unanswered.
    #[inline]
    pub(super) fn can_judge(&self) -> bool {
        match self.protocol {
            Protocol::Ours(_) => true,
            Protocol::Foreign { answers } => {
                answers && (!self.outbox.is_held() || self.awaits_answer())
            }
        }
    }

    /// Whether a ping is unanswered. An acknowledgement of the peer's kernel may be the
    /// answer, and no other follows while no ping leaves.
    fn awaits_answer(&self) -> bool {
        let kernel_answers = self.timing.config().evidence() == Evidence::Acknowledgement;
        !self.ledger.is_settled() && !kernel_answers
    }

    /// Whether the answer to a ping can be expected.
    pub(super) const fn answers(&self) -> bool {
        !matches!(self.protocol, Protocol::Foreign { answers: false })
    }
}
