//! This project's own framing of a byte stream.
//!
//! This module decides how frames lie on the wire and in which order they are
//! written. `docs/protocol.md` specifies it:
//!
//! ```text
//! +----+----+----+----+-----+------------------------+
//! | length, big-endian| tag | body: length - 1 bytes |
//! +----+----+----+----+-----+------------------------+
//! ```
//!
//! It doesn't decide what a control frame means, nor when to read or write.

mod reader;
mod writer;

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use heartbeat_core::{Config, Control, GoodbyeCode, Tag};
use tokio::io::{AsyncRead, AsyncWrite};

use self::{reader::Reader, writer::Writer};
use crate::{
    Detail, SendError,
    transport::{Broken, Buffered, Frame, Protocol, Scope, Transport},
};

/// The bytes in front of each frame's body: length and tag.
const HEADER: usize = 5;

/// What stands before a message of so many bytes.
#[inline]
fn header(length: usize) -> [u8; HEADER] {
    // A message is checked before it is queued.
    let body = u32::try_from(length).unwrap_or(u32::MAX - 1);
    let [a, b, c, d] = (body + 1).to_be_bytes();
    [a, b, c, d, Tag::Data.to_byte()]
}

/// The bytes of a frame, those of its `length` included. The longest saturate where
/// addresses have 32 bits: such a frame is never whole.
#[inline]
fn frame_size(length: u32) -> usize {
    (length as usize).saturating_add(4)
}

/// The default transport of a [`Heartbeat`](crate::Heartbeat): messages are
/// [`Bytes`], framed as `docs/protocol.md` says.
///
/// Payloads aren't copied when they arrive: they share the buffer that they
/// were read into (except small ones that arrived alone, which would pin a
/// large buffer). Buffers are lent from a pool and given back as soon as a
/// connection is idle.
#[derive(Debug)]
pub struct Wire {
    reader: Reader,
    writer: Writer,
}

impl Wire {
    pub(crate) fn new(config: &Config) -> Self {
        // `Config` leaves room for the tag.
        let max_frame = u32::try_from(config.max_frame()).unwrap_or(u32::MAX - 1);
        Self {
            reader: Reader::new(max_frame),
            writer: Writer::new(max_frame),
        }
    }
}

impl Protocol for Wire {
    type Message = Bytes;
    const HELLO: bool = true;
}

impl<S: AsyncRead + AsyncWrite + Unpin> Transport<S> for Wire {
    #[inline]
    fn poll_read(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let read = self.reader.poll_fill(Pin::new(stream), cx);
        if read.is_ready() {
            self.writer.end_burst();
        }
        read
    }

    #[inline]
    fn next_message(&mut self) -> Option<Bytes> {
        self.reader.next_message()
    }

    fn next_frame(&mut self) -> Result<Option<Frame<Bytes>>, Broken> {
        Ok(self.reader.next_frame()?)
    }

    fn weight(&self) -> usize {
        self.reader.weight()
    }

    fn unread(&self) -> usize {
        self.reader.len()
    }

    #[inline]
    fn push(&mut self, message: Bytes) -> Result<(), SendError> {
        self.writer.push(message)
    }

    fn push_control(&mut self, control: Control) {
        self.writer.push_control(control);
    }

    #[inline]
    fn unwritten(&self) -> usize {
        self.writer.len()
    }

    #[inline]
    fn has_room(&self) -> bool {
        self.writer.has_room()
    }

    fn is_in_message(&self) -> bool {
        self.reader.is_in_message()
    }

    fn give_up(&mut self, code: GoodbyeCode, detail: Detail) {
        self.writer.give_up(code, &detail);
    }

    fn is_resting(&self) -> bool {
        self.writer.is_resting()
    }

    fn control_unwritten(&self) -> bool {
        self.writer.control_unwritten()
    }

    fn poll_write(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        scope: Scope,
    ) -> (usize, Poll<io::Result<()>>) {
        self.writer.poll_write(Pin::new(stream), cx, scope)
    }

    fn poll_shutdown(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(stream).poll_shutdown(cx)
    }

    fn into_buffered(self) -> Buffered<Bytes> {
        Buffered {
            read: self.reader.into_bytes(),
            write: self.writer.into_bytes(),
            ..Buffered::default()
        }
    }
}
