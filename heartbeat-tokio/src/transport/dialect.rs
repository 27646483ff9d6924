//! The properties of an application's own protocol.
//!
//! This module decides their consequences: which errors end the connection and which are a
//! violation of the protocol, what the protocol allows at the moment, and which frames may
//! come before the peer's Hello and after its last message.

use std::{error::Error, io, time::Duration};

use heartbeat_core::{Dialogue, End, ProtocolError, Tag};

use super::{Broken, Frame};

/// The properties of a protocol, for
/// [`Heartbeat::with_codec`](crate::Heartbeat::with_codec) and
/// [`Heartbeat::with_frames`](crate::Heartbeat::with_frames).
///
/// The defaults are for a protocol with a ping and a pong and nothing else. Everything else is
/// optional:
///
/// | without | consequence |
/// |---|---|
/// | a Hello, and an Alive | our pings show that we live while we don't read, and the peer's pings count as signs of life. Neither side learns the other's timings: there is no [`Connected`](crate::PeerEvent::Connected), and the peer isn't held to a [`min_interval`](heartbeat_core::ConfigBuilder::min_interval) that it can't know |
/// | a Goodbye | a peer that leaves looks like one that was killed: [`Cause::Eof`](crate::Cause::Eof). Our own `close` sends what is queued and ends our direction of the stream |
/// | a Hello, which comes with the answer to a Goodbye | `close` is Ok when everything was written, and the peer has ended the stream, and not reset it, within [`linger`](heartbeat_core::ConfigBuilder::linger). That proves its library, or its kernel; it doesn't prove that its application received everything |
/// | a Hello, which comes with a Fin, and [`HALF_CLOSE`](Self::HALF_CLOSE) | [`finish`](crate::Heartbeat::finish) is [`SendError::Unfinishable`](crate::SendError::Unfinishable) |
/// | nonces | a pong answers the oldest ping that is unanswered |
///
/// ```
/// use heartbeat_tokio::Dialect;
///
/// /// Lines of text, and the lines `PING` and `PONG`.
/// struct Lines;
///
/// impl Dialect for Lines {
///     type Message = String;
/// }
/// ```
pub trait Dialect {
    /// The application's messages.
    type Message;

    /// Whether the protocol has [`Frame::Hello`], [`Frame::Alive`] and [`Frame::Fin`].
    ///
    /// The peer's first frame must be a Hello then, complete within the detection
    /// time: before it no bytes are a sign of life, [`Frame::Other`] is passed over,
    /// and any other frame is
    /// [`HelloExpected`](heartbeat_core::ProtocolError::HelloExpected).
    const HELLO: bool = false;

    /// Whether the protocol has [`Frame::Goodbye`].
    const GOODBYE: bool = false;

    /// Whether a side that ends its direction of the stream goes on receiving, as
    /// with `nc -N` or SMTP. [`finish`](crate::Heartbeat::finish) does that then, and
    /// the end of the peer's direction is
    /// [`Finished`](crate::PeerEvent::Finished), and not its death. From either on no
    /// ping can be answered: the peer is judged by its kernel only, and by
    /// [`write_stall`](heartbeat_core::ConfigBuilder::write_stall), and its state is
    /// [`HalfClosed`](crate::State::HalfClosed).
    ///
    /// For [`with_codec`](crate::Heartbeat::with_codec) only, and for protocols
    /// without a [`HELLO`](Self::HELLO), which have a Fin.
    const HALF_CLOSE: bool = false;

    /// Whether a ping may be sent in the present state of the protocol. Default: always.
    ///
    /// While it may not, no ping leaves. The peer is judged as usual while an earlier ping is
    /// unanswered. After that no round begins, and only the peer's kernel can show its death.
    /// When a ping may leave again, a due one leaves at once. This is called after each queued
    /// message and each received frame.
    fn may_ping(&self) -> bool {
        true
    }

    /// Whether the answer to a ping can be expected in the present state: not while the
    /// peer works on a request and serves nothing behind it. Default: always.
    ///
    /// While it can't, the peer is judged by its kernel only, and its state is
    /// [`Occupied`](crate::State::Occupied): a hang isn't detected then, the end of its process
    /// or host is. Afterwards it is judged afresh.
    fn answers(&self) -> bool {
        true
    }

    /// The time between the peer's own beats, in a protocol whose beats aren't answered; `None`
    /// before it is negotiated. Default: none, because beats have answers. Where the peer
    /// agreed to send none, [`answers`](Self::answers) is false.
    ///
    /// The interval, and so the detection time, becomes at least as long, up to
    /// [`max_stretch`](heartbeat_core::ConfigBuilder::max_stretch). Our own beats are the
    /// pings of [`speak_within`](heartbeat_core::ConfigBuilder::speak_within). A beat that
    /// arrives is [`Frame::Other`].
    fn beats_every(&self) -> Option<Duration> {
        None
    }

    /// About how many bytes a message keeps in memory besides itself: what
    /// its strings and vectors hold. For backpressure; asked only by
    /// [`with_frames`](crate::Heartbeat::with_frames), where it is otherwise unknown.
    fn weight(message: &Self::Message) -> usize {
        let _ = message;
        0
    }

    /// How many bytes of a message count towards the peer's
    /// [`max_frame`](heartbeat_core::ConfigBuilder::max_frame). A longer message is
    /// refused with [`SendError::TooLong`](crate::SendError::TooLong). Default: none, so
    /// that none is refused.
    ///
    /// Asked only by [`with_frames`](crate::Heartbeat::with_frames), and where there is a
    /// [`HELLO`](Self::HELLO), which announces that limit.
    fn length(message: &Self::Message) -> usize {
        let _ = message;
        0
    }

    /// Maps an error of the codec, or of the stream and sink, to an end of the connection.
    ///
    /// With `None`, the default, the [`io::Error`] among the error's sources decides. Without one
    /// the cause is [`Cause::Protocol`](crate::Cause::Protocol), as described at
    /// [`with_codec`](crate::Heartbeat::with_codec) and
    /// [`with_frames`](crate::Heartbeat::with_frames). Override this for a library that has an
    /// error of its own for a connection that was cut off.
    /// [`io_error`](crate::Heartbeat::io_error) keeps the error in any case.
    ///
    /// ```
    /// use heartbeat_tokio::{Dialect, End};
    /// use std::error::Error;
    ///
    /// /// A library's own error for a stream that ended.
    /// #[derive(Debug, thiserror::Error)]
    /// #[error("hung up")]
    /// struct HungUp;
    ///
    /// struct Lines;
    ///
    /// impl Dialect for Lines {
    ///     type Message = String;
    ///
    ///     fn end_of(error: &(dyn Error + 'static)) -> Option<End> {
    ///         error.is::<HungUp>().then_some(End::Eof)
    ///     }
    /// }
    ///
    /// assert_eq!(Lines::end_of(&HungUp), Some(End::Eof));
    /// ```
    fn end_of(error: &(dyn Error + 'static)) -> Option<End> {
        let _ = error;
        None
    }
}

/// The meaning of an error of the application's codec, or of its stream and sink.
#[derive(Debug)]
pub enum Failure {
    /// The connection ended like this.
    Io(io::Error),
    /// The peer broke the protocol.
    Protocol(Broken),
}

impl Failure {
    /// From the dialect, or else from `otherwise`.
    pub(crate) fn of<D: Dialect>(
        error: Box<dyn Error + Send + Sync>,
        otherwise: impl FnOnce(Box<dyn Error + Send + Sync>) -> Self,
    ) -> Self {
        match D::end_of(&*error) {
            None => otherwise(error),
            Some(End::Protocol(rule)) => Self::Protocol(Broken::of_rule(rule, error)),
            Some(end) => Self::Io(io::Error::new(kind_of(end), error)),
        }
    }

    /// The same for writing.
    pub(crate) fn into_io(self) -> io::Error {
        match self {
            Self::Io(error) => error,
            Self::Protocol(Broken { error, words }) => {
                words.unwrap_or_else(|| io::Error::other(error))
            }
        }
    }
}

impl<E: Into<Broken>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Protocol(error.into())
    }
}

/// The kind that [`end_of`](crate::safety_net::end_of) maps to this end.
fn kind_of(end: End) -> io::ErrorKind {
    match end {
        End::Eof => io::ErrorKind::UnexpectedEof,
        End::Reset => io::ErrorKind::ConnectionReset,
        End::TimedOut => io::ErrorKind::TimedOut,
        End::Unreachable => io::ErrorKind::HostUnreachable,
        _ => io::ErrorKind::Other,
    }
}

/// The rules of the application's protocol at the moment.
pub(crate) fn dialogue_of(dialect: &impl Dialect) -> Dialogue {
    Dialogue {
        may_ping: dialect.may_ping(),
        answers: dialect.answers(),
        beats_every: dialect.beats_every(),
    }
}

/// Refuses frames before the peer's Hello, and messages after its Fin. Most foreign protocols
/// have no Hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doorman {
    /// The Hello is expected.
    Waits,
    Open,
    /// The peer said that no message follows.
    ForControl,
}

impl Doorman {
    pub(crate) const fn new(expects_hello: bool) -> Self {
        if expects_hello {
            Self::Waits
        } else {
            Self::Open
        }
    }

    pub(crate) fn is_open(self) -> bool {
        self != Self::Waits
    }

    /// Whether this frame counts; [`Frame::Other`] is passed over before the Hello.
    pub(crate) fn admits<M>(&mut self, frame: &Frame<M>) -> Result<bool, ProtocolError> {
        let tag = match frame {
            Frame::Hello(_) if *self == Self::Waits => {
                *self = Self::Open;
                return Ok(true);
            }
            Frame::Other => return Ok(self.is_open()),
            Frame::Hello(_) => Tag::Hello,
            Frame::Data(_) => Tag::Data,
            Frame::Ping(_) => Tag::Ping,
            Frame::Pong(_) => Tag::Pong,
            Frame::Goodbye { .. } => Tag::Goodbye,
            Frame::Alive => Tag::Alive,
            Frame::Fin => Tag::Fin,
        };
        match (*self, tag) {
            (Self::Waits, tag) => Err(ProtocolError::HelloExpected { tag: tag.to_byte() }),
            (Self::ForControl, Tag::Data) => Err(ProtocolError::AfterFin),
            (_, Tag::Goodbye | Tag::Fin) => {
                *self = Self::ForControl;
                Ok(true)
            }
            _ => Ok(true),
        }
    }
}
