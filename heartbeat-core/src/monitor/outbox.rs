//! The frames that we owe the peer, and what each ping is for.
//!
//! This module decides which frame leaves next, and what becomes of a ping
//! when evidence overtakes it. It doesn't decide when to ping, or when to show
//! life.

use crate::{frame::Nonce, packed::PackedInstant, time::Instant};

/// The frames that wait to be handed out, and the ping that was handed out and
/// hasn't left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outbox {
    gate: Gate,
    /// For the peer's latest ping only.
    pong: Option<Nonce>,
    ping: Ping,
    alive: Alive,
    /// When the latest `Alive` left; `MAX` if none has.
    last_alive: PackedInstant,
}

/// Which frames may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    /// Our Hello comes first.
    HelloDue,
    Open,
    /// A foreign protocol, which has no Hello, allows no ping now: one that is due waits.
    PingsHeld,
}

/// The progress of the one `Alive` between us and the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alive {
    None,
    /// To be handed out.
    Due,
    /// Handed out, and hasn't left.
    InFlight,
}

/// The progress of the one ping between us and the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ping {
    /// No ping is on its way: the last one has left.
    None,
    /// To be handed out.
    Due(Purpose),
    /// Handed out, and hasn't left.
    InFlight(Purpose),
}

/// What a ping is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It belongs to a round. It isn't sent if evidence comes before it is handed out.
    Round,
    /// The application probes: a round depends on the ping, even if evidence comes before it
    /// leaves.
    Probe,
    /// It shows that we live, or measures without judging. No round depends on it.
    Keepalive,
    /// It leaves because nothing else of ours did. If a ping is needed for another purpose
    /// before it has left, it takes that purpose.
    Speech,
}

impl Outbox {
    pub(super) const fn new(hello_due: bool) -> Self {
        Self {
            gate: if hello_due {
                Gate::HelloDue
            } else {
                Gate::Open
            },
            pong: None,
            ping: Ping::None,
            alive: Alive::None,
            last_alive: PackedInstant::from_instant(Instant::MAX),
        }
    }

    /// Whether no ping is on its way.
    pub(super) const fn has_no_ping(&self) -> bool {
        matches!(self.ping, Ping::None)
    }

    /// Whether no ping is on its way, except one that only shows that we live.
    pub(super) const fn has_no_question(&self) -> bool {
        matches!(
            self.ping,
            Ping::None | Ping::Due(Purpose::Speech) | Ping::InFlight(Purpose::Speech)
        )
    }

    /// Whether the protocol allows no ping now.
    #[inline]
    pub(super) const fn is_held(&self) -> bool {
        matches!(self.gate, Gate::PingsHeld)
    }

    /// Whether a ping is due that the protocol doesn't allow now.
    pub(super) const fn is_held_back(&self) -> bool {
        self.is_held() && matches!(self.ping, Ping::Due(_))
    }

    /// Whether there is a frame to hand out.
    pub(super) const fn has_frame(&self) -> bool {
        matches!(self.gate, Gate::HelloDue)
            || self.pong.is_some()
            || matches!(self.ping, Ping::Due(_)) && !self.is_held()
            || matches!(self.alive, Alive::Due)
    }

    /// Whether no `Alive` is on its way.
    pub(super) const fn has_no_alive(&self) -> bool {
        matches!(self.alive, Alive::None)
    }

    /// When the latest `Alive` left.
    pub(super) fn last_alive(&self) -> Option<Instant> {
        Some(self.last_alive.instant()).filter(|&left| left < Instant::MAX)
    }

    // ---- what is owed --------------------------------------------------

    /// Wants a Hello, unless one is to be handed out.
    pub(super) const fn want_hello(&mut self) {
        self.gate = Gate::HelloDue;
    }

    /// Owes the answer to a ping. It replaces an answer that is still owed.
    pub(super) const fn owe_pong(&mut self, nonce: Nonce) {
        self.pong = Some(nonce);
    }

    /// Wants a ping, unless one is on its way.
    pub(super) const fn want(&mut self, purpose: Purpose) {
        self.ping = match self.ping {
            Ping::None | Ping::Due(Purpose::Speech) => Ping::Due(purpose),
            Ping::InFlight(Purpose::Speech) => Ping::InFlight(purpose),
            other => other,
        };
    }

    /// Forbids or allows pings. Returns whether they were forbidden before.
    pub(super) const fn hold(&mut self, held: bool) -> bool {
        let was_held = self.is_held();
        self.gate = match self.gate {
            Gate::HelloDue => Gate::HelloDue,
            Gate::Open | Gate::PingsHeld if held => Gate::PingsHeld,
            Gate::Open | Gate::PingsHeld => Gate::Open,
        };
        was_held
    }

    /// Wants an `Alive`, unless one is on its way.
    pub(super) const fn want_alive(&mut self) {
        if self.has_no_alive() {
            self.alive = Alive::Due;
        }
    }

    /// Wants a ping for a probe; one that is on its way becomes that.
    pub(super) const fn want_for_probe(&mut self) {
        self.ping = match self.ping {
            Ping::None | Ping::Due(_) => Ping::Due(Purpose::Probe),
            Ping::InFlight(_) => Ping::InFlight(Purpose::Probe),
        };
    }

    // ---- what becomes of it --------------------------------------------

    /// Evidence ended the ping's round. If the ping is to leave all the same, it only shows
    /// that we live.
    pub(super) const fn end_round(&mut self, asks_on: bool) {
        self.ping = match self.ping {
            Ping::Due(Purpose::Round) if asks_on => Ping::Due(Purpose::Keepalive),
            Ping::Due(Purpose::Round) => Ping::None,
            Ping::InFlight(Purpose::Round) => Ping::InFlight(Purpose::Keepalive),
            other => other,
        };
    }

    /// The latest ping was answered. Returns whether it was in flight: then it must have left.
    pub(super) const fn answer_in_flight(&mut self) -> bool {
        self.ping_left().is_some()
    }

    /// Nothing is judged any more. Returns whether a probe was on its way.
    pub(super) fn pause(&mut self) -> bool {
        let probe =
            Ping::Due(Purpose::Probe) == self.ping || Ping::InFlight(Purpose::Probe) == self.ping;
        self.ping = match self.ping {
            Ping::None | Ping::Due(_) => Ping::None,
            Ping::InFlight(_) => Ping::InFlight(Purpose::Keepalive),
        };
        probe
    }

    // ---- what leaves ---------------------------------------------------

    pub(super) const fn take_hello(&mut self) -> bool {
        let due = matches!(self.gate, Gate::HelloDue);
        if due {
            self.gate = Gate::Open;
        }
        due
    }

    pub(super) const fn take_pong(&mut self) -> Option<Nonce> {
        self.pong.take()
    }

    /// Hands the `Alive` out. It is in flight until
    /// [`alive_left`](Self::alive_left).
    pub(super) const fn take_alive(&mut self) -> bool {
        let due = matches!(self.alive, Alive::Due);
        if due {
            self.alive = Alive::InFlight;
        }
        due
    }

    /// Hands the ping out. It is in flight until
    /// [`ping_left`](Self::ping_left).
    pub(super) const fn take_ping(&mut self) -> bool {
        let Ping::Due(purpose) = self.ping else {
            return false;
        };
        debug_assert!(!self.is_held());
        self.ping = Ping::InFlight(purpose);
        true
    }

    /// Everything that was handed out has left. Returns the purpose of the ping among it.
    pub(super) const fn ping_left(&mut self) -> Option<Purpose> {
        let Ping::InFlight(purpose) = self.ping else {
            return None;
        };
        self.ping = Ping::None;
        Some(purpose)
    }

    /// Everything that was handed out left at `now`. Returns whether an `Alive` was among it.
    pub(super) fn alive_left(&mut self, now: Instant) -> bool {
        let left = matches!(self.alive, Alive::InFlight);
        if left {
            self.alive = Alive::None;
            let left = now.min(Instant::from_micros(u64::MAX - 1));
            self.last_alive = PackedInstant::from_instant(left);
        }
        left
    }

    /// Whether the ping on its way, if there is one, fits into a round.
    pub(super) const fn asks_in_a_round(&self) -> bool {
        matches!(
            self.ping,
            Ping::Due(Purpose::Round) | Ping::InFlight(Purpose::Round)
        )
    }
}

#[cfg(feature = "testkit")]
impl Outbox {
    pub(super) fn describe(&self, facts: &mut crate::testkit::Facts) {
        let Self {
            gate,
            pong,
            ping,
            alive,
            last_alive,
        } = *self;
        facts.number(match alive {
            Alive::None => 0,
            Alive::Due => 1,
            Alive::InFlight => 2,
        });
        facts.instant(last_alive.instant());
        facts.number(match gate {
            Gate::HelloDue => 0,
            Gate::Open => 1,
            Gate::PingsHeld => 2,
        });
        facts.number(pong.is_some());
        if let Some(Nonce(bytes)) = pong {
            facts.number(i64::from_be_bytes(bytes));
        }
        let (is_in_flight, purpose) = match ping {
            Ping::None => return facts.number(0),
            Ping::Due(purpose) => (false, purpose),
            Ping::InFlight(purpose) => (true, purpose),
        };
        facts.number(match purpose {
            Purpose::Round => 1,
            Purpose::Probe => 2,
            Purpose::Keepalive => 3,
            Purpose::Speech => 4,
        });
        facts.number(is_in_flight);
    }
}
