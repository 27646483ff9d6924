//! Bytes over a heartbeat, for protocols that need a plain stream.
//!
//! This module decides how bytes become messages, and which ends of the connection are an
//! end of file and which are errors. The layers below judge liveness.

use std::{
    fmt,
    io::{self, ErrorKind},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use futures_core::Stream;
use futures_sink::Sink;
use heartbeat_core::GoodbyeCode;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    CloseError, CloseReason, Driver, Heartbeat, PeerEvent, Receiver, SendError, Sender,
    transport::Transport,
};

/// The most bytes that one write takes: the longest message that fits into one frame.
const AT_ONCE: usize = 64 * 1024;

/// A stream of bytes over a [`Heartbeat`], served by a task of its own.
///
/// [`Heartbeat::into_io`] returns it. It is [`AsyncRead`], [`AsyncBufRead`] and
/// [`AsyncWrite`]. Both ends need one. A protocol over it gains the bound of the heartbeat
/// without a change.
///
/// | the connection | the bytes |
/// |---|---|
/// | the peer has [finished](PeerEvent::Finished), or left with [`LEAVING`](GoodbyeCode::LEAVING) | reads give 0, behind all that it sent |
/// | it left so before it took all that was written | flushes and [`shutdown`](tokio::io::AsyncWriteExt::shutdown) are [`ConnectionAborted`](ErrorKind::ConnectionAborted), once what was queued is given up |
/// | the peer left with another code | reads, and flushes of what was written, are [`ConnectionAborted`](ErrorKind::ConnectionAborted) |
/// | the verdict: the peer is [dead](PeerEvent::Dead) | reads and writes are an error whose kind is the cause's, such as [`TimedOut`](ErrorKind::TimedOut) for a silent peer; its [`source`](std::error::Error::source) is the [`Death`](crate::Death) |
/// | [`shutdown`](tokio::io::AsyncWriteExt::shutdown) | everything is written, and then [`finish`](Sender::finish)ed. Reads go on |
/// | dropped | a goodbye behind everything that was written; what the peer sends is discarded |
///
/// So the death of a killed peer is an [`UnexpectedEof`](ErrorKind::UnexpectedEof), whereas
/// a TCP stream just ends.
///
/// A write takes up to 64 KiB, or the peer's largest message, and waits as with any
/// [`Sender`] while too much is queued. Reads and writes don't wait for each other. Beats
/// go on while the application does neither.
///
/// To split it, use [`tokio::io::split`].
///
/// ```
/// # async fn example(mut peer: heartbeat_tokio::Io) -> std::io::Result<()> {
/// use std::error::Error;
///
/// use heartbeat_tokio::Death;
/// use tokio::io::AsyncReadExt;
///
/// let mut answer = Vec::new();
/// if let Err(error) = peer.read_to_end(&mut answer).await {
///     let death = error.source().and_then(|source| source.downcast_ref::<Death>());
///     println!("{:?} behind {} bytes: {death:?}", error.kind(), answer.len());
/// }
/// # Ok(()) }
/// ```
pub struct Io {
    sender: Sender<Bytes>,
    receiver: Receiver<Bytes>,
    /// The unread rest of the last message.
    rest: Bytes,
    /// The end, once no more messages follow.
    end: Option<Result<(), SendError>>,
    /// The longest message that the peer accepts, as far as we know.
    at_once: usize,
}

impl<S, C> Heartbeat<S, C>
where
    S: Send + 'static,
    C: Transport<S, Message = Bytes> + Send + 'static,
{
    /// A stream of bytes over the connection, served as by [`spawn`](Self::spawn).
    ///
    /// The protocol needs a [`finish`](Self::finish) for one direction, as that of
    /// [`new`](Heartbeat::new) has. Without it, `shutdown` is
    /// [`Unsupported`](ErrorKind::Unsupported).
    ///
    /// ```
    /// use heartbeat_tokio::{Config, Heartbeat};
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (ours, theirs) = tokio::io::duplex(1024);
    /// let mut peer = Heartbeat::new(ours, Config::default()).into_io();
    /// tokio::spawn(async move {
    ///     let mut echo = Heartbeat::new(theirs, Config::default()).into_io();
    ///     let (mut reader, mut writer) = tokio::io::split(&mut echo);
    ///     tokio::io::copy(&mut reader, &mut writer).await?;
    ///     writer.shutdown().await
    /// });
    ///
    /// peer.write_all(b"hello").await?;
    /// peer.shutdown().await?;
    /// let mut answer = String::new();
    /// peer.read_to_string(&mut answer).await?;
    /// assert_eq!(answer, "hello");
    /// # Ok(()) }
    /// ```
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime, as [`tokio::spawn`] does.
    pub fn into_io(self) -> Io {
        let Driver {
            sender, receiver, ..
        } = self.spawn();
        Io {
            sender,
            receiver,
            rest: Bytes::new(),
            end: None,
            at_once: AT_ONCE,
        }
    }
}

impl Io {
    /// The connection's sender, to probe, to watch, and to close with a reason.
    ///
    /// A clone keeps the connection alive after this is dropped; a [weak](Sender::downgrade) one
    /// doesn't. Its messages go between the bytes that are written here.
    #[must_use]
    pub fn sender(&self) -> &Sender<Bytes> {
        &self.sender
    }

    /// The result of a flush. If the peer left in order, a flush succeeds unless queued bytes
    /// were discarded.
    fn written(&self, flushed: Result<(), SendError>) -> io::Result<()> {
        let Err(SendError::Closed(reason)) = flushed else {
            return flushed.map_err(lost);
        };
        end_of_bytes(reason).map_err(lost)?;
        match self.sender.unwritten() {
            0 => Ok(()),
            unwritten => Err(lost(CloseError::Unconfirmed { unwritten }.into())),
        }
    }
}

/// The meaning of an end of the connection for its bytes.
fn end_of_bytes(reason: CloseReason) -> Result<(), SendError> {
    match reason {
        CloseReason::Peer {
            code: GoodbyeCode::LEAVING,
            ..
        }
        | CloseReason::Local
        | CloseReason::Finished => Ok(()),
        reason => Err(SendError::Closed(reason)),
    }
}

/// An error of a read or a flush: bytes were lost. A late write loses none.
fn lost(error: SendError) -> io::Error {
    match error {
        SendError::Closed(_) | SendError::NotClosed(_) => {
            io::Error::new(ErrorKind::ConnectionAborted, error)
        }
        error => error.into(),
    }
}

impl AsyncBufRead for Io {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        while this.rest.is_empty() && this.end.is_none() {
            match ready!(Pin::new(&mut this.receiver).poll_next(cx)) {
                Some(PeerEvent::Message(bytes)) => this.rest = bytes,
                Some(PeerEvent::Finished) | None => this.end = Some(Ok(())),
                Some(PeerEvent::Closed { reason }) => this.end = Some(end_of_bytes(reason)),
                Some(PeerEvent::Dead(death)) => this.end = Some(Err(SendError::Dead(death))),
                Some(_) => {}
            }
        }
        Poll::Ready(match &this.end {
            Some(Err(error)) => Err(lost(error.clone())),
            _ => Ok(&this.rest),
        })
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        let rest = &mut self.get_mut().rest;
        rest.advance(amount.min(rest.len()));
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let bytes = ready!(self.as_mut().poll_fill_buf(cx))?;
        let fitting = bytes.get(..buffer.remaining()).unwrap_or(bytes);
        buffer.put_slice(fitting);
        let read = fitting.len();
        self.consume(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        loop {
            ready!(Pin::new(&mut this.sender).poll_ready(cx))?;
            let message = bytes.get(..this.at_once).unwrap_or(bytes);
            let sent = Pin::new(&mut this.sender).start_send(Bytes::copy_from_slice(message));
            match sent {
                Ok(()) => return Poll::Ready(Ok(message.len())),
                Err(SendError::TooLong { max, .. }) if (1..message.len()).contains(&max) => {
                    this.at_once = max;
                }
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = ready!(Pin::new(&mut this.sender).poll_flush(cx));
        Poll::Ready(this.written(flushed))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let finished = ready!(this.sender.poll_finish(cx));
        Poll::Ready(this.written(finished))
    }
}

impl fmt::Debug for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.sender.status();
        f.debug_struct("Io").field("status", &status).finish()
    }
}
