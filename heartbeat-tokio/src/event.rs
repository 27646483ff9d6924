//! The events of a [`Heartbeat`](crate::Heartbeat).
//!
//! This module only defines types: the events of the core, with the application's messages
//! and the text of goodbyes.

use std::{fmt, ops::Deref, sync::Arc, time::Duration};

use heartbeat_core::{Event, Goodbye, GoodbyeCode, Hello};

/// The cause of an end that wasn't orderly.
pub type Cause = heartbeat_core::Cause<Detail>;

/// How a connection ended in order.
pub type CloseReason = heartbeat_core::CloseReason<Detail>;

/// The verdict: why the peer is dead, and what was known about it.
pub type Death = heartbeat_core::Death<Detail>;

/// The text of a goodbye: at most [`Goodbye::MAX_DETAIL`] bytes, and often empty.
///
/// It is for people. A received text is the peer's, unchanged and untrusted: a program
/// shouldn't act on it, and a log should escape it, as its `Debug` does.
///
/// ```
/// let detail = heartbeat_tokio::Detail::from("back at noon");
/// assert_eq!(detail, "back at noon");
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Detail(Option<Arc<String>>);

impl Detail {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_deref().map(String::as_str).unwrap_or_default()
    }
}

impl From<&str> for Detail {
    /// Keeps the beginning of a text that is too long.
    fn from(text: &str) -> Self {
        let text = Goodbye::new(GoodbyeCode::LEAVING, text).detail;
        Self((!text.is_empty()).then(|| Arc::new(text.to_owned())))
    }
}

impl Deref for Detail {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Detail {
    fn as_ref(&self) -> &str {
        self
    }
}

impl PartialEq<str> for Detail {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Detail {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl fmt::Debug for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

/// Something that happened on a connection.
///
/// Each stream of events ends with exactly one terminal event,
/// [`Closed`](PeerEvent::Closed) or [`Dead`](PeerEvent::Dead). Every message
/// that arrived before the end comes before it.
///
/// ```
/// use heartbeat_tokio::{Cause, PeerEvent};
///
/// /// What a client tells its user.
/// fn line<M>(event: &PeerEvent<M>) -> Option<String> {
///     match event {
///         PeerEvent::Suspect { silent_for, .. } => Some(format!("no answer for {silent_for:?}")),
///         PeerEvent::Recovered { .. } => Some("it is back".into()),
///         PeerEvent::Closed { reason } => Some(format!("it has left: {reason}")),
///         PeerEvent::Dead(death) if death.cause == Cause::Refused => Some("wrong version?".into()),
///         PeerEvent::Dead(death) => Some(death.to_string()),
///         _ => None,
///     }
/// }
///
/// let event = PeerEvent::<()>::Dead(heartbeat_tokio::Death::new(Cause::Eof));
/// assert!(event.is_terminal());
/// assert_eq!(line(&event).as_deref(), Some("closed without goodbye, silent for 0ns"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive] // later versions may observe more
pub enum PeerEvent<M> {
    /// The peer's Hello arrived. Comes again when a later Hello announces other timings.
    Connected {
        /// What the peer announced about itself.
        peer: Hello,
    },
    /// One application frame.
    Message(M),
    /// A pong came back. Not reported if
    /// [`beat_events`](heartbeat_core::ConfigBuilder::beat_events) is off.
    ///
    /// Don't rely on it: a peer that sends messages isn't pinged.
    /// [`probe`](crate::Heartbeat::probe) causes one.
    Beat {
        /// From the moment when the ping had left until its pong arrived.
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
    /// Our own process was late: it slept, or the runtime was blocked. The peer isn't
    /// blamed.
    LocalStall {
        /// How long after the deadline we woke up.
        late: Duration,
    },
    /// The peer sends no more messages: it has [finished](crate::Heartbeat::finish).
    /// It still reads and answers. All its messages came before this.
    Finished,
    /// The connection ended in order: with a goodbye, or because both sides had
    /// finished. Terminal.
    Closed {
        /// How.
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
    /// Converts the core's event. `None` for a terminal one, which [`Ended`](crate::error::Ended)
    /// becomes, and for one of a later core that this crate doesn't know.
    pub(crate) fn from_core(event: Event) -> Option<Self> {
        Some(match event {
            Event::Connected { peer } => Self::Connected { peer },
            Event::Beat { rtt } => Self::Beat { rtt },
            Event::Suspect { missed, silent_for } => Self::Suspect { missed, silent_for },
            Event::Recovered { silent_for } => Self::Recovered { silent_for },
            Event::LocalStall { late } => Self::LocalStall { late },
            Event::Finished => Self::Finished,
            _ => return None,
        })
    }
}

impl<M> fmt::Display for PeerEvent<M> {
    /// One line for a log. The content of a message isn't shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Message(_) => f.write_str("message"),
            Self::Closed { ref reason } => write!(f, "closed: {reason}"),
            Self::Dead(ref death) => write!(f, "dead: {death}"),
            Self::Connected { peer } => Event::Connected { peer }.fmt(f),
            Self::Beat { rtt } => Event::Beat { rtt }.fmt(f),
            Self::Suspect { missed, silent_for } => Event::Suspect { missed, silent_for }.fmt(f),
            Self::Recovered { silent_for } => Event::Recovered { silent_for }.fmt(f),
            Self::LocalStall { late } => Event::LocalStall { late }.fmt(f),
            Self::Finished => Event::Finished.fmt(f),
        }
    }
}
