//! The errors of sending, closing and probing.
//!
//! This module only defines types. Events report what happens to a *connection*; these
//! errors only answer a call.

use std::{
    error::Error,
    fmt,
    io::{self, ErrorKind},
    sync::Arc,
    time::Duration,
};

use crate::{CloseReason, Death, PeerEvent};

/// A message wasn't accepted, or couldn't be flushed.
///
/// ```
/// use futures::SinkExt;
/// use heartbeat_tokio::{Config, Heartbeat, SendError};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (stream, _theirs) = tokio::io::duplex(1024);
/// let config = Config::builder().max_frame(10).build()?;
/// let mut peer = Heartbeat::new(stream, config);
/// match peer.feed("more than ten bytes".into()).await {
///     Err(SendError::TooLong { max, .. }) => assert_eq!(max, 10), // and it goes on
///     other => unreachable!("{other:?}"),
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive] // other transports may refuse for other reasons
pub enum SendError {
    /// The message exceeds what the peer announced as its
    /// [`max_frame`](heartbeat_core::ConfigBuilder::max_frame); before its Hello,
    /// our own. Nothing of it was queued, and the connection goes on.
    #[error("a message of {length} bytes, at most {max} are allowed")]
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The codec can't encode the message. Nothing of it was queued, and the
    /// connection goes on; unless the codec panicked, which is the connection's end.
    #[error("the message can't be encoded: {0}")]
    Unencodable(#[source] EncodeError),
    /// No message may follow [`finish`](crate::Heartbeat::finish) or
    /// [`close`](crate::Heartbeat::close). Nothing of it was queued. Messages that were queued
    /// before still leave.
    #[error("we have said that no message follows")]
    Finished,
    /// The protocol can't end one direction only; see [`Dialect`](crate::Dialect). Nothing was
    /// sent, and the connection goes on.
    #[error("the protocol has no way to finish one direction")]
    Unfinishable,
    /// The connection has ended in order. The message, and those queued before it, may not have
    /// arrived.
    #[error("the connection is closed: {0}")]
    Closed(CloseReason),
    /// The peer is dead. The message, and those queued before it, may not have arrived.
    #[error("the peer is dead: {0}")]
    Dead(#[source] Death),
    /// From `SinkExt::close`: the peer may lack some of our messages.
    #[error(transparent)]
    NotClosed(#[from] CloseError),
}

/// The error keeps this one: [`io::Error::get_ref`] gives it back.
impl From<SendError> for io::Error {
    fn from(error: SendError) -> Self {
        let kind = match &error {
            SendError::TooLong { .. } | SendError::Unencodable(_) => ErrorKind::InvalidInput,
            SendError::Unfinishable => ErrorKind::Unsupported,
            SendError::Finished | SendError::Closed(_) => ErrorKind::BrokenPipe,
            SendError::Dead(death) | SendError::NotClosed(CloseError::Dead { death, .. }) => {
                ErrorKind::from(&death.cause)
            }
            SendError::NotClosed(CloseError::Unconfirmed { .. }) => ErrorKind::TimedOut,
        };
        Self::new(kind, error)
    }
}

/// [`try_send`](crate::Sender::try_send) didn't queue a message.
///
/// ```
/// use heartbeat_tokio::{Sender, TrySendError};
///
/// /// Drops a price that can't leave at once.
/// fn tell(sender: &Sender<String>, price: String) -> bool {
///     match sender.try_send(price) {
///         Ok(()) => true,
///         Err(TrySendError::Full(_)) => false,
///         Err(TrySendError::Failed(error)) => {
///             eprintln!("{error}");
///             false
///         }
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(
    clippy::exhaustive_enums,
    reason = "there is room or not, and everything else is a `SendError`"
)]
pub enum TrySendError<M> {
    /// There is no room at the moment. Contains the message.
    #[error("too much is queued")]
    Full(M),
    /// This message can't be sent, or no message can.
    #[error(transparent)]
    Failed(#[from] SendError),
}

/// [`close`](crate::Heartbeat::close) can't confirm that the peer received everything
/// that was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive] // later versions may tell more apart
pub enum CloseError {
    /// The connection ended before our goodbye was confirmed. It is unknown how much the peer
    /// received.
    #[error("the peer is dead: {death}; {unwritten} bytes were never written")]
    Dead {
        /// How it ended.
        #[source]
        death: Death,
        /// The queued bytes that the stream never took, framing included. They certainly haven't
        /// arrived.
        unwritten: usize,
    },
    /// The peer lives, or left too, and didn't confirm that it received everything.
    #[error(
        "the peer didn't confirm that it took everything in; {unwritten} bytes were never written"
    )]
    Unconfirmed {
        /// As above.
        unwritten: usize,
    },
}

/// The codec's own error for a message that it can't encode.
#[derive(Clone, Debug)]
pub struct EncodeError(Arc<dyn Error + Send + Sync>);

impl EncodeError {
    pub(crate) fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(Arc::from(error.into()))
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for EncodeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

/// Two are equal if they are the same allocation.
impl PartialEq for EncodeError {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for EncodeError {}

/// Why a [`probe`](crate::Sender::probe) gave no round trip.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive] // later versions may tell more apart
pub enum ProbeError {
    /// The peer isn't dead, because other bytes came from it, but it answered no ping. Or
    /// we aren't reading because our inbox is full.
    #[error("no answer within {waited:?}")]
    Unanswered {
        /// The time that was waited: the detection time.
        waited: Duration,
    },
    /// The connection has ended in order.
    #[error("the connection is closed: {0}")]
    Closed(CloseReason),
    /// The verdict: the peer is dead.
    #[error("the peer is dead: {0}")]
    Dead(#[source] Death),
}

/// How a connection ended.
#[derive(Clone, Debug)]
pub(crate) enum Ended {
    Closed(CloseReason),
    Dead(Death),
}

impl<M> From<Ended> for PeerEvent<M> {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Closed(reason) => Self::Closed { reason },
            Ended::Dead(death) => Self::Dead(death),
        }
    }
}

impl From<Ended> for SendError {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Closed(reason) => Self::Closed(reason),
            Ended::Dead(death) => Self::Dead(death),
        }
    }
}

impl From<Ended> for ProbeError {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Closed(reason) => Self::Closed(reason),
            Ended::Dead(death) => Self::Dead(death),
        }
    }
}

impl From<Ended> for Result<CloseReason, Death> {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Closed(reason) => Ok(reason),
            Ended::Dead(death) => Err(death),
        }
    }
}
