//! Taking a connection apart.
//!
//! This module decides what `into_parts` returns. It touches no field of another module.

use std::{collections::VecDeque, io, sync::Arc};

use bytes::Bytes;
use heartbeat_core::End;
use tokio_util::codec::{Encoder, Framed, FramedParts};

use super::{Heartbeat, Status};
use crate::{
    CloseError, CloseReason, PeerEvent,
    error::Ended,
    inbox::Inbox,
    transport::{Buffered, Frame, Transport},
};

/// The parts of a [`Heartbeat`], from [`into_parts`](Heartbeat::into_parts).
///
/// ```
/// use futures::StreamExt;
/// use heartbeat_tokio::{Config, Heartbeat, Parts, PeerEvent};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (ours, theirs) = tokio::io::duplex(1024);
/// # let other = Heartbeat::new(theirs, Config::default()).spawn();
/// # other.sender.send("one".into()).await?;
/// # other.sender.send("two".into()).await?;
/// # other.sender.flush().await?;
/// let mut peer = Heartbeat::new(ours, Config::default());
/// while !matches!(peer.next().await, Some(PeerEvent::Message(_)) | None) {}
///
/// let Parts { stream, read, .. } = peer.into_parts();
/// assert!(stream.is_some());
/// assert_eq!(read, b"\0\0\0\x04\0two"[..]); // not decoded yet: length, tag, message
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[non_exhaustive] // later versions may hold more
pub struct Parts<S, M, C = ()> {
    /// The stream itself; `None` if it was closed, as [`Heartbeat::get_ref`] says.
    pub stream: Option<S>,
    /// Events that weren't handed out yet, in their order.
    pub events: VecDeque<PeerEvent<M>>,
    /// Bytes that were read after those events.
    pub read: Bytes,
    /// Bytes that weren't written yet.
    pub write: Bytes,
    /// Messages to send after those bytes. Empty except [with
    /// frames](Heartbeat::with_frames).
    pub unsent: VecDeque<M>,
    /// The codec, [with a codec](Heartbeat::with_codec); `None` after it has panicked.
    pub codec: C,
}

impl<S, M, C> Parts<S, M, Option<C>>
where
    C: Encoder<Frame<M>>,
{
    /// Makes a `Framed` of stream, codec and both buffers: the reverse of
    /// [`from_framed`](Heartbeat::from_framed). Handle the events first: the `Framed` continues
    /// behind them.
    ///
    /// `None` without a stream, and after the codec has panicked.
    pub fn into_framed(self) -> (VecDeque<PeerEvent<M>>, Option<Framed<S, C>>) {
        let framed = self.stream.zip(self.codec).map(|(stream, codec)| {
            let mut parts = FramedParts::new(stream, codec);
            parts.read_buf = self.read.into();
            parts.write_buf = self.write.into();
            Framed::from_parts(parts)
        });
        (self.events, framed)
    }
}

/// The remains of a connection that is over.
#[derive(Debug)]
pub(crate) struct Remains<M> {
    pub(crate) inbox: Inbox<M>,
    pub(crate) ended: Ended,
    pub(crate) close_result: Result<CloseReason, CloseError>,
    pub(crate) unwritten: usize,
    pub(crate) io_error: Option<Arc<io::Error>>,
    pub(crate) status: Status,
}

impl<S, C: Transport<S>> Heartbeat<S, C> {
    /// Takes it apart. Nothing that was buffered is lost.
    #[must_use]
    pub fn into_parts(mut self) -> Parts<S, C::Message, C::Codec> {
        if let Some(stream) = &self.stream {
            self.net.calm(stream);
        }
        let Buffered {
            received,
            unsent,
            read,
            write,
            codec,
        } = self.transport.into_buffered();
        let received = received.into_iter().map(PeerEvent::Message);
        let waiting = self.inbox.take().into_events();
        let terminal = self.ending.tell().map(PeerEvent::from);
        Parts {
            stream: self.stream,
            events: waiting.chain(received).chain(terminal).collect(),
            read,
            write,
            unsent,
            codec,
        }
    }

    /// Takes out the remaining events; the rest is dropped. If the connection hasn't
    /// ended, it ends now, because nothing serves it.
    pub(crate) fn take_remains(&mut self) -> Remains<C::Message> {
        if !self.has_ended() {
            self.end(End::Io);
        }
        let mut inbox = self.inbox.take();
        while let Some(event) = self.next_event() {
            inbox.push(event, 0, None);
        }
        // Bytes read after the terminal event are dropped.
        while !self.has_finished() {
            let Some(Frame::Data(message)) = self.next_frame() else {
                break;
            };
            inbox.push(PeerEvent::Message(message), self.transport.weight(), None);
        }
        if let Some(ended) = self.ending.tell() {
            inbox.push(ended.into(), 0, None);
        }
        debug_assert!(self.has_ended(), "the monitor has said how");
        let unknown = Ended::Closed(CloseReason::Unconfirmed);
        Remains {
            inbox,
            ended: self.ended().cloned().unwrap_or(unknown),
            close_result: self.close_result(),
            unwritten: self.unwritten(),
            io_error: self.shared_io_error(),
            status: self.status(),
        }
    }

    /// The error behind the end.
    pub(crate) fn shared_io_error(&self) -> Option<Arc<io::Error>> {
        self.ending.io_error().cloned()
    }
}
