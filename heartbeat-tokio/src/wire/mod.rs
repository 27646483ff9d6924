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
//! A message of more than 64 KiB travels in several frames, its parts. This module
//! doesn't decide what a control frame means, nor when to read or write.

mod assembly;
mod burst;
mod gate;
mod lane;
mod queue;
mod reader;
mod writer;

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{BufMut, Bytes, BytesMut};
use heartbeat_core::{Config, Control, GoodbyeCode, ProtocolError, Tag};
use tokio::io::{AsyncRead, AsyncWrite};

use self::{reader::Reader, writer::Writer};
use crate::{
    Detail, SendError,
    transport::{Buffered, Failure, Frame, Limit, Protocol, Scope, Transport},
};

/// The bytes in front of each frame's body: length and tag.
const HEADER: usize = 5;

/// The longest varint of 32 bits.
const VARINT: u32 = 5;

/// The header of a message of `length` bytes.
#[inline]
fn header(length: usize) -> [u8; HEADER] {
    // A message is checked before it is queued.
    let body = u32::try_from(length).unwrap_or(u32::MAX - 1);
    let [a, b, c, d] = (body + 1).to_be_bytes();
    [a, b, c, d, Tag::Data.to_byte()]
}

/// Puts the header of a part of `bytes` bytes. A message's first part says how long the
/// message is.
fn put_part_header(to: &mut BytesMut, bytes: usize, announced: Option<usize>) {
    let announced = announced.unwrap_or_default();
    let digits = (usize::BITS - announced.leading_zeros()).div_ceil(7);
    let length = 1 + digits as usize + bytes;
    to.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    to.put_u8(Tag::Part.to_byte());
    for digit in 0..digits {
        let low = u8::try_from(announced >> (7 * digit) & 0x7f).unwrap_or_default();
        to.put_u8(if digit + 1 < digits { low | 0x80 } else { low });
    }
}

/// The length of a message at the start of its first part, which has `bytes` bytes, and
/// the size of that length. `None` if not all of it has arrived.
fn read_announced(part: &[u8], bytes: u32) -> Result<Option<(u32, u32)>, ProtocolError> {
    let mut announced = 0_u64;
    let longest = bytes.min(VARINT);
    for (digit, &byte) in (0..longest).zip(part) {
        announced |= u64::from(byte & 0x7f) << (7 * digit);
        if byte < 0x80 {
            let announced = u32::try_from(announced).map_err(|_| MALFORMED)?;
            return Ok(Some((announced, digit + 1)));
        }
    }
    match part.len() < longest as usize {
        true => Ok(None),
        false => Err(MALFORMED),
    }
}

const MALFORMED: ProtocolError = ProtocolError::Malformed {
    tag: Tag::Part.to_byte(),
};

/// The bytes of a frame, those of its `length` included. The longest saturate where
/// addresses have 32 bits: such a frame is never whole.
#[inline]
fn frame_size(length: u32) -> usize {
    (length as usize).saturating_add(4)
}

/// The default transport of a [`Heartbeat`](crate::Heartbeat): messages are
/// [`Bytes`], framed as [`docs/protocol.md`] says.
///
#[doc = concat!("[`docs/protocol.md`]: ", env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/protocol.md")]
///
/// Received payloads aren't copied: they share the buffer that they were read into. The
/// exception is a small one that arrived alone, which would pin a large buffer. Buffers come
/// from a pool, and go back to it as soon as a connection is idle.
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
            writer: Writer::new(Limit::new(config)),
        }
    }
}

impl Protocol for Wire {
    type Message = Bytes;
    type Codec = ();
    const HELLO: bool = true;
    const HALF_CLOSE: bool = false;
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Transport<S> for Wire {
    #[inline]
    fn poll_read(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let read = self.reader.poll_fill(stream, cx);
        if read.is_ready() {
            self.writer.end_burst();
        }
        read
    }

    #[inline]
    fn next_message(&mut self) -> Option<Bytes> {
        self.reader.next_message()
    }

    fn next_frame(&mut self) -> Result<Option<Frame<Bytes>>, Failure> {
        let frame = self.reader.next_frame()?;
        if let Some(Frame::Hello(hello)) = &frame {
            self.writer.greet(hello.max_frame);
        }
        Ok(frame)
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

    fn incomplete(&self) -> usize {
        self.reader.incomplete()
    }

    fn push_goodbye(&mut self, code: GoodbyeCode, detail: Detail) {
        self.writer.push_goodbye(code, &detail);
    }

    fn give_up(&mut self) {
        self.writer.give_up();
    }

    fn has_messages(&self) -> bool {
        self.writer.has_messages()
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "how a test fails")]
mod tests;
