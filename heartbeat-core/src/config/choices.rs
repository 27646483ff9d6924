//! The knobs that aren't numbers: what counts as life, and which side pings first.

/// What counts as a sign of life from the peer.
///
/// A ping never does: it says that the peer hears nothing, and proves nothing about
/// whether it hears us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[expect(
    clippy::exhaustive_enums,
    reason = "acknowledgements, bytes, frames and answers are all that a peer's host can send"
)]
pub enum Evidence {
    /// As [`AnyBytes`](Self::AnyBytes), and also a fresh acknowledgement from the peer's
    /// kernel, which proves that its host and the network work. It proves nothing about the
    /// application: a process that is stopped or hangs is never detected while its kernel
    /// acknowledges. For servers with slow readers that send nothing. The adapter has to ask
    /// the kernel ([`Monitor::handle_acknowledged`](crate::Monitor::handle_acknowledged)).
    Acknowledgement,
    /// Any frame but a ping, and any byte of a message, also in the middle of it. Right for
    /// nearly all programs: a peer that sends is alive, even if its pongs are late.
    #[default]
    AnyBytes,
    /// Any whole frame but a ping. A peer that trickles one byte a minute into an endless
    /// frame is detected. A message above 64 KiB travels in parts, and each part is a frame,
    /// so 64 KiB must arrive within the detection time.
    Frame,
    /// Only a pong that answers one of our pings. So bytes that waited in a buffer while
    /// this machine was suspended prove nothing. We ping once an interval, whatever else
    /// arrives, and a peer that stops reading for longer than the detection time is dead.
    Echo,
}

/// Which side usually pings first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[expect(
    clippy::exhaustive_enums,
    reason = "we ask as soon as anybody, or as late as the bound allows"
)]
pub enum Role {
    /// We ping after an interval of silence, which jitter shortens.
    #[default]
    Both,
    /// We ping first only after the whole, unshortened interval, so a peer with the same
    /// timings usually pings first; our ping then leaves in the same write as the pong. For
    /// servers with many connections.
    ///
    /// Bounds and the number of our pings are those of [`Both`](Self::Both).
    Passive,
}

/// The choices of a configuration, in one byte.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Choices(u8);

impl Choices {
    const ADAPTIVE: u8 = 1;
    const BEAT_EVENTS: u8 = 2;
    const PASSIVE: u8 = 4;
    const EVIDENCE: u8 = 8;

    pub(super) fn new(adaptive: bool, beat_events: bool, evidence: Evidence, role: Role) -> Self {
        let bit = |is_set, bit| if is_set { bit } else { 0 };
        Self(
            bit(adaptive, Self::ADAPTIVE)
                | bit(beat_events, Self::BEAT_EVENTS)
                | bit(role == Role::Passive, Self::PASSIVE)
                | (evidence as u8 * Self::EVIDENCE),
        )
    }

    pub(super) const fn adaptive(self) -> bool {
        self.0 & Self::ADAPTIVE != 0
    }

    pub(super) const fn beat_events(self) -> bool {
        self.0 & Self::BEAT_EVENTS != 0
    }

    pub(super) const fn role(self) -> Role {
        match self.0 & Self::PASSIVE {
            0 => Role::Both,
            _ => Role::Passive,
        }
    }

    #[inline]
    pub(super) const fn evidence(self) -> Evidence {
        match self.0 / Self::EVIDENCE {
            0 => Evidence::Acknowledgement,
            1 => Evidence::AnyBytes,
            2 => Evidence::Frame,
            _ => Evidence::Echo,
        }
    }
}

impl core::fmt::Debug for Choices {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Choices")
            .field("adaptive", &self.adaptive())
            .field("beat_events", &self.beat_events())
            .field("evidence", &self.evidence())
            .field("role", &self.role())
            .finish()
    }
}
