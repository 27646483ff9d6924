//! What a [`Heartbeat`](crate::Heartbeat) tells its application.
//!
//! This module decides nothing: these are the events of the core, plus the
//! application's own messages.

use std::{fmt, time::Duration};

use heartbeat_core::{CloseReason, Death, Event, Hello};

/// Something that happened on a connection.
///
/// Each stream of events ends with exactly one terminal event,
/// [`Closed`](PeerEvent::Closed) or [`Dead`](PeerEvent::Dead). Every message
/// that arrived before the end comes before it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive] // later versions may observe more
pub enum PeerEvent<M> {
    /// The peer's first frame arrived; it speaks this protocol.
    Connected {
        /// What the peer announced about itself.
        peer: Hello,
    },
    /// One application frame.
    Message(M),
    /// A pong came back. Not reported if
    /// [`beat_events`](heartbeat_core::ConfigBuilder::beat_events) is off.
    ///
    /// Don't wait for it: a peer that sends anything isn't pinged, and of two
    /// sides with equal timings the one that pings first is evidence for the
    /// other. [`probe`](crate::Heartbeat::probe) brings one about.
    Beat {
        /// From the moment the ping had left until its pong arrived.
        rtt: Duration,
    },
    /// A beat is late. The peer may come back; nothing has been given up.
    Suspect {
        /// Beats missed in a row so far.
        missed: u32,
        /// Since the last evidence of life.
        silent_for: Duration,
    },
    /// Evidence of life came after [`Suspect`](PeerEvent::Suspect).
    Recovered {
        /// How long the silence was.
        silent_for: Duration,
    },
    /// *We* were asleep, or the runtime was blocked; the peer isn't blamed
    /// for it.
    LocalStall {
        /// How long after the deadline we woke up.
        late: Duration,
    },
    /// The connection ended with a goodbye. Terminal.
    Closed {
        /// Who said it.
        reason: CloseReason,
    },
    /// The connection ended in any other way. Terminal.
    Dead(Death),
}

impl<M> PeerEvent<M> {
    /// Whether this is the last event.
    #[must_use]
    pub const fn is_terminal(&self) -> bool {
        matches!(self, Self::Closed { .. } | Self::Dead(_))
    }
}

impl<M> PeerEvent<M> {
    /// The core's event in this crate's words; `None` for an event of a later
    /// core that this crate doesn't know.
    pub(crate) fn from_core(event: Event) -> Option<Self> {
        Some(match event {
            Event::Connected { peer } => Self::Connected { peer },
            Event::Beat { rtt } => Self::Beat { rtt },
            Event::Suspect { missed, silent_for } => Self::Suspect { missed, silent_for },
            Event::Recovered { silent_for } => Self::Recovered { silent_for },
            Event::LocalStall { late } => Self::LocalStall { late },
            Event::Closed { reason } => Self::Closed { reason },
            Event::Dead(death) => Self::Dead(death),
            _ => return None,
        })
    }

    /// The core's word for it; `None` for a message.
    fn to_core(&self) -> Option<Event> {
        Some(match *self {
            Self::Connected { peer } => Event::Connected { peer },
            Self::Message(_) => return None,
            Self::Beat { rtt } => Event::Beat { rtt },
            Self::Suspect { missed, silent_for } => Event::Suspect { missed, silent_for },
            Self::Recovered { silent_for } => Event::Recovered { silent_for },
            Self::LocalStall { late } => Event::LocalStall { late },
            Self::Closed { reason } => Event::Closed { reason },
            Self::Dead(death) => Event::Dead(death),
        })
    }
}

impl<M> fmt::Display for PeerEvent<M> {
    /// One line for a log. Says of a message only that it is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_core() {
            Some(event) => event.fmt(f),
            None => f.write_str("message"),
        }
    }
}
