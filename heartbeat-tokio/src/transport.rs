//! The interface between a [`Heartbeat`](crate::Heartbeat) and the transport of its
//! frames.
//!
//! This module defines the interface between judging a peer and moving frames. Its public
//! parts are [`Frame`] and [`Dialect`], for protocols of your own. Otherwise the constructor
//! chooses the transport.

mod dialect;
mod limit;

use std::{
    collections::VecDeque,
    error::Error,
    io, iter,
    task::{Context, Poll},
};

use bytes::Bytes;
use heartbeat_core::{Control, Dialogue, GoodbyeCode, Hello, Nonce, ProtocolError};

pub use self::dialect::Dialect;
pub(crate) use self::{
    dialect::{Doorman, Failure, dialogue_of},
    limit::Limit,
};
use crate::{Detail, SendError};

/// One frame of a protocol that carries a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a codec has to deal with all of them"
)]
pub enum Frame<M> {
    /// A message of the application.
    Data(M),
    /// The peer's timings and limits; for a [`Dialect`] that has a
    /// [`HELLO`](Dialect::HELLO).
    Hello(Hello),
    /// Asks for a pong. Where pings carry something of the peer's, the nonce
    /// travels there; `None` in a protocol whose pings carry nothing.
    Ping(Option<Nonce>),
    /// Answers a ping, with its nonce. `None` if the protocol doesn't say
    /// which ping: then they answer in order.
    Pong(Option<Nonce>),
    /// The sender leaves on purpose, or gave the receiver up; for a [`Dialect`] that has a
    /// [`GOODBYE`](Dialect::GOODBYE). If the protocol's goodbye carries nothing, the code is 0
    /// and the detail empty.
    Goodbye {
        /// Why.
        code: GoodbyeCode,
        /// The same in words.
        detail: Detail,
    },
    /// The sender lives, and asks nothing; for a [`Dialect`] that has a
    /// [`HELLO`](Dialect::HELLO).
    Alive,
    /// The sender sends no more data; for a [`Dialect`] that has a [`HELLO`](Dialect::HELLO).
    Fin,
    /// Any other frame that the application needn't see. It only counts as a sign of life, and is
    /// never sent.
    Other,
}

impl<M> Frame<M> {
    #[cfg(feature = "postcard")]
    pub(crate) fn try_map<T, E>(self, map: impl FnOnce(M) -> Result<T, E>) -> Result<Frame<T>, E> {
        Ok(match self {
            Self::Data(message) => Frame::Data(map(message)?),
            Self::Hello(hello) => Frame::Hello(hello),
            Self::Ping(nonce) => Frame::Ping(nonce),
            Self::Pong(nonce) => Frame::Pong(nonce),
            Self::Goodbye { code, detail } => Frame::Goodbye { code, detail },
            Self::Alive => Frame::Alive,
            Self::Fin => Frame::Fin,
            Self::Other => Frame::Other,
        })
    }
}

impl<M> From<Control> for Frame<M> {
    fn from(control: Control) -> Self {
        match control {
            Control::Hello(hello) => Self::Hello(hello),
            Control::Ping(nonce) => Self::Ping(Some(nonce)),
            Control::Pong(nonce) => Self::Pong(Some(nonce)),
            Control::Goodbye(code) => Self::Goodbye {
                code,
                detail: Detail::default(),
            },
            Control::Alive => Self::Alive,
            Control::Fin => Self::Fin,
            // A control frame of a later core, unknown to every codec.
            _ => Self::Other,
        }
    }
}

/// The frames that a write has to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Control frames, and the rest of a data frame that was begun.
    Control,
    /// Everything.
    All,
}

/// The contents of a transport that is taken apart.
#[derive(Debug)]
pub struct Buffered<M, C = ()> {
    /// Messages that were received and not handed out.
    pub received: VecDeque<M>,
    /// Messages that weren't sent.
    pub unsent: VecDeque<M>,
    /// Bytes that were read and not handed out.
    pub read: Bytes,
    /// Bytes that weren't written.
    pub write: Bytes,
    /// The codec, if there is one.
    pub codec: C,
}

impl<M> Default for Buffered<M> {
    fn default() -> Self {
        Self {
            received: VecDeque::new(),
            unsent: VecDeque::new(),
            read: Bytes::new(),
            write: Bytes::new(),
            codec: (),
        }
    }
}

/// The error of bytes that can't be decoded.
#[derive(Debug)]
pub struct Broken {
    /// The reported error.
    pub error: ProtocolError,
    /// The application's codec's own error.
    pub words: Option<io::Error>,
}

impl Broken {
    /// From the application's codec. A [`ProtocolError`] among the error's sources is reported.
    pub(crate) fn by_codec(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let error = error.into();
        let rule = reason(&*error).copied();
        Self::of_rule(rule.unwrap_or(ProtocolError::Undecodable), error)
    }

    fn of_rule(rule: ProtocolError, words: Box<dyn Error + Send + Sync>) -> Self {
        Self {
            error: rule,
            words: Some(io::Error::new(io::ErrorKind::InvalidData, words)),
        }
    }
}

impl From<ProtocolError> for Broken {
    fn from(error: ProtocolError) -> Self {
        Self { error, words: None }
    }
}

/// The first `E` among an error, what it wraps, and its sources.
pub(crate) fn reason<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    let mut chain = iter::successors(Some(error), |&error| {
        // The source of an `io::Error` is that of the error in it.
        let wrapped = error.downcast_ref().and_then(io::Error::get_ref);
        match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        }
    });
    chain.find_map(|error| error.downcast_ref())
}

/// A protocol and its message type, independent of the stream: the second parameter of
/// [`Heartbeat`](crate::Heartbeat).
///
/// The constructors choose one. The trait is sealed. Name it in a structure that holds any
/// `Heartbeat<S, C>`; a protocol of your own is a [`Dialect`].
pub trait Protocol: sealed::Sealed {
    /// The application's messages.
    type Message;

    /// The type of the codec in [`Parts`](crate::Parts): `Option<C>` with
    /// [`with_codec`](crate::Heartbeat::with_codec), and otherwise `()`.
    type Codec;

    /// Whether our Hello reaches the peer.
    const HELLO: bool;

    /// Whether the end of a side's direction means that the side has finished and still
    /// receives.
    const HALF_CLOSE: bool;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::wire::Wire {}
    impl<C> Sealed for crate::codec::Codec<C> {}
    impl<T: crate::Dialect> Sealed for crate::frames::Frames<T> {}
    #[cfg(feature = "postcard")]
    impl<T> Sealed for crate::Postcard<T> {}
}

/// The name by which users know a transport.
pub(crate) mod named {
    /// A [`Protocol`](crate::Protocol) over a stream `S`, which makes a
    /// [`Heartbeat`](crate::Heartbeat) pollable.
    ///
    /// For code that is generic over the transport. The trait is sealed.
    ///
    /// ```
    /// use heartbeat_tokio::{Heartbeat, PeerEvent, Transport};
    /// use futures::StreamExt;
    ///
    /// /// Works over TCP and TLS, with bytes, typed messages or a protocol of your own.
    /// async fn first_message<S, C: Transport<S>>(peer: &mut Heartbeat<S, C>) -> Option<C::Message> {
    ///     while let Some(event) = peer.next().await {
    ///         if let PeerEvent::Message(message) = event {
    ///             return Some(message);
    ///         }
    ///     }
    ///     None
    /// }
    /// ```
    pub trait Transport<S>: super::Transport<S> {}

    impl<S, C: super::Transport<S>> Transport<S> for C {}
}

/// Carries frames over a stream `S`.
pub trait Transport<S>: Protocol {
    /// Whether the stream is of no more use once the connection has ended, so that it is
    /// closed then.
    const CLOSES: bool = false;

    /// Reads once. Zero bytes are the end of the stream.
    fn poll_read(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<usize>>;

    /// A fast path of [`next_frame`](Self::next_frame) for a message, if a whole one obviously
    /// comes next. Moving a small message through a frame and a result costs half of a feed.
    #[inline]
    fn next_message(&mut self) -> Option<Self::Message> {
        None
    }

    /// Takes one frame out of the bytes that were read.
    fn next_frame(&mut self) -> Result<Option<Frame<Self::Message>>, Failure>;

    /// About how many bytes the last frame's message keeps in memory besides
    /// itself.
    fn weight(&self) -> usize;

    /// Bytes read and not taken out.
    fn unread(&self) -> usize;

    /// Whether there may be received bytes from which no frame was taken out, here or in the
    /// stream below.
    fn may_hold_more(&self) -> bool {
        self.unread() > 0
    }

    /// Whether an incomplete message has begun to arrive, or may have. Callers ask for
    /// [`unread`](Self::unread) bytes too, so those needn't be told of here.
    fn is_in_message(&self) -> bool {
        false
    }

    /// The bytes of a message that have arrived in an incomplete frame, headers not counted; or
    /// any bytes, if their kind is unknown. Zero before the peer's Hello, if the protocol has one.
    fn incomplete(&self) -> usize {
        0
    }

    /// Queues a message, or nothing of it.
    fn push(&mut self, message: Self::Message) -> Result<(), SendError>;

    /// Queues a control frame ahead of messages that weren't begun. Not for a goodbye; for a Fin
    /// only when no messages wait, and not for a frame that the protocol doesn't have, except with
    /// a codec: there it counts as written when the frames before it are.
    fn push_control(&mut self, control: Control);

    /// Queues a goodbye, once every waiting message was begun.
    fn push_goodbye(&mut self, code: GoodbyeCode, detail: Detail);

    /// Whether messages are queued and not completely written.
    fn has_messages(&self) -> bool;

    /// Bytes queued and not written.
    fn unwritten(&self) -> usize;

    /// Whether a message may be queued. If not, a sender has to wait until more was written, or
    /// until other tasks had a turn; [`Self::poll_write`] has then arranged its next call.
    fn has_room(&self) -> bool {
        self.unwritten() < 8 * 1024
    }

    /// Whether [`Self::poll_write`] stopped to give other tasks a turn, and not because the
    /// stream took no more.
    fn is_resting(&self) -> bool {
        false
    }

    /// Discards the messages that weren't begun.
    fn give_up(&mut self);

    /// Whether a control frame is queued and not written.
    fn control_unwritten(&self) -> bool;

    /// Writes, and flushes the stream once everything in scope was written. Also returns the
    /// number of bytes that the stream took, or of frames; zero if there was no progress.
    fn poll_write(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        scope: Scope,
    ) -> (usize, Poll<io::Result<()>>);

    /// Ends our direction of the stream.
    fn poll_shutdown(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// The rules of the protocol's present state.
    fn dialogue(&self, stream: &S) -> Dialogue {
        let _ = stream;
        Dialogue::default()
    }

    /// Takes the buffers out, and the codec.
    fn into_buffered(self) -> Buffered<Self::Message, Self::Codec>;
}
