//! Reads bytes and decodes frames.
//!
//! This module decides how much is read at once, into which buffer, and when a frame's body is
//! copied. `gate` checks the peer's length before memory is reserved. `assembly` decides the
//! buffer of a message in several frames.

use std::{
    io, mem,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use heartbeat_core::{Control, Goodbye, PART, ProtocolError, Tag};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::{HEADER, assembly::Assembly, frame_size, gate::Gate, read_announced};
use crate::{
    Detail,
    pool::{self, CHUNK},
    transport::Frame,
};

/// Frames of a read of at most this size are copied, so that a small message that is kept
/// for long doesn't pin a whole chunk.
const COPIED: usize = HEADER + 1024;

/// Room for a read that is probably small, in bytes.
const SMALL: usize = 2 * COPIED;

/// A chunk with less room than this counts as full.
const ROOM: usize = 2048;

/// A frame of at least this size isn't begun in a chunk without enough room, because its
/// bytes would have to be moved.
const MOVED: usize = 4 * 1024;

/// The receiving half of [`Wire`](super::Wire).
#[derive(Debug)]
pub(super) struct Reader {
    /// Bytes that were read and not taken out.
    buffer: BytesMut,
    memory: Memory,
    /// A message whose parts haven't all arrived.
    assembly: Option<Box<Assembly>>,
    gate: Gate,
    /// The length of the last message.
    weight: usize,
}

/// The kind of buffer, after the last read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    /// Exactly the bytes of a small read: a message that came alone keeps it.
    Exact,
    /// A chunk with few bytes. Messages are copied out of it.
    Little,
    /// A chunk with many bytes, which its messages share. More bytes will probably follow.
    Much,
}

impl Reader {
    pub(super) fn new(max_frame: u32) -> Self {
        Self {
            buffer: BytesMut::new(),
            memory: Memory::Exact,
            assembly: None,
            gate: Gate::new(max_frame),
            weight: 0,
        }
    }

    /// The bytes of the last message.
    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    /// Bytes that aren't decoded yet, and those of a whole message.
    #[inline]
    pub(super) fn len(&self) -> usize {
        let whole = self.assembly.as_ref().and_then(|message| message.whole());
        self.buffer.len() + whole.unwrap_or(0)
    }

    /// Whether the first part of a message has begun, and the last one isn't whole.
    pub(super) fn is_in_message(&self) -> bool {
        self.assembly.is_some()
    }

    /// The number of bytes of an incomplete message that have arrived, headers not counted.
    pub(super) fn incomplete(&self) -> usize {
        match (&self.assembly, self.header()) {
            (Some(message), _) => message.arrived(),
            (None, Some((length, Some(tag)))) if tag == Tag::Data.to_byte() => {
                let arrived = self.buffer.len().min(frame_size(length));
                arrived.saturating_sub(HEADER)
            }
            _ => 0,
        }
    }

    // ---- bytes in ------------------------------------------------------------

    /// Reads once.
    #[inline]
    pub(super) fn poll_fill<S: AsyncRead + Unpin + 'static>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if !self.buffer.is_empty() {
            return self.poll_fill_chunk(Pin::new(stream), cx);
        }
        match &mut self.assembly {
            Some(message) if message.is_in_part() => {
                pool::give_back(&mut self.buffer);
                self.memory = Memory::Exact;
                message.poll_fill(stream, cx, &mut self.buffer)
            }
            None if self.memory == Memory::Much => self.poll_fill_chunk(Pin::new(stream), cx),
            _ => {
                // The connection may be idle for long.
                pool::give_back(&mut self.buffer);
                self.poll_fill_small(Pin::new(stream), cx)
            }
        }
    }

    /// Reads behind the bytes in the buffer.
    fn poll_fill_chunk(
        &mut self,
        stream: Pin<&mut impl AsyncRead>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let room = self.make_room();
        let result = poll_read_buf(stream, cx, &mut (&mut self.buffer).limit(room));
        if self.buffer.is_empty() {
            pool::give_back(&mut self.buffer);
        }
        let read = ready!(result)?;
        self.memory = match self.buffer.len() > COPIED {
            true => Memory::Much,
            false => Memory::Little,
        };
        Poll::Ready(Ok(read))
    }

    /// Reads a probably small number of bytes without a chunk from the pool.
    #[inline]
    fn poll_fill_small(
        &mut self,
        stream: Pin<&mut impl AsyncRead>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut memory = [const { MaybeUninit::uninit() }; SMALL];
        let mut memory = ReadBuf::uninit(&mut memory);
        ready!(stream.poll_read(cx, &mut memory))?;
        let read = memory.filled();
        if read.len() <= COPIED {
            self.buffer = BytesMut::from(read);
            self.memory = Memory::Exact;
        } else {
            self.buffer = pool::take_part();
            self.buffer.extend_from_slice(read);
            self.memory = Memory::Much;
        }
        Poll::Ready(Ok(read.len()))
    }

    /// Makes room, and returns for how many bytes.
    fn make_room(&mut self) -> usize {
        let in_message = self.assembly.is_some();
        let missing = match self.header() {
            // A frame that is too long is refused when it is taken
            // out, which isn't always before the next read.
            Some((length, tag)) if self.gate.check(length, tag, in_message).is_ok() => {
                frame_size(length).saturating_sub(self.buffer.len())
            }
            _ => 0,
        };
        let room = match self.room(missing) {
            0 => {
                self.move_on(missing);
                self.room(missing)
            }
            room => room,
        };
        match in_message {
            // What is read here of its parts is copied once more.
            true => room.min(SMALL),
            false => room,
        }
    }

    /// How much to read into the buffer; zero if another buffer is better. The begun frame lacks
    /// `missing` bytes.
    fn room(&self, missing: usize) -> usize {
        let room = self.buffer.capacity() - self.buffer.len();
        let Some(behind) = room.checked_sub(missing) else {
            return 0;
        };
        // The next frame is probably as long as the last.
        let next = HEADER + self.weight.min(PART);
        let begins = self.buffer.is_empty() || missing > 0;
        if next >= MOVED && begins {
            missing + behind - behind % next
        } else if room >= ROOM || missing > 0 {
            room
        } else {
            0
        }
    }

    /// Continues in another buffer, which has room.
    fn move_on(&mut self, missing: usize) {
        let length = self.buffer.len();
        let wanted = if missing > 0 { missing } else { ROOM };
        let a_chunk_will_do = length + wanted <= CHUNK;
        let is_chunk = self.memory != Memory::Exact;
        if a_chunk_will_do && is_chunk && pool::reclaim(&mut self.buffer, CHUNK - length) {
            // No message holds the chunk any more: use it again.
        } else if self.buffer.capacity() == 0 {
            self.buffer = match HEADER + self.weight < MOVED {
                true => pool::take_part(),
                false => pool::take(),
            };
        } else if a_chunk_will_do {
            let mut chunk = pool::take();
            chunk.extend_from_slice(&self.buffer);
            pool::give_back(&mut self.buffer);
            self.buffer = chunk;
        } else {
            // Several whole frames that aren't taken out.
            self.buffer.reserve(CHUNK);
        }
        if !is_chunk {
            self.memory = Memory::Little;
        }
    }

    // ---- frames out ----------------------------------------------------------

    /// The length and, if it is there, the tag of the first frame.
    fn header(&self) -> Option<(u32, Option<u8>)> {
        let (length, rest) = self.buffer.split_first_chunk::<4>()?;
        Some((u32::from_be_bytes(*length), rest.first().copied()))
    }

    /// Takes a message out, if a whole one is at the front.
    #[inline(always)] // so that the message is moved once
    pub(super) fn next_message(&mut self) -> Option<Bytes> {
        let &[a, b, c, d, tag] = self.buffer.first_chunk()?;
        let length = u32::from_be_bytes([a, b, c, d]);
        let end = frame_size(length);
        let body = length.wrapping_sub(1); // an empty frame is no message
        let is_whole = tag == Tag::Data.to_byte()
            && self.gate.admits_data(body)
            && self.assembly.is_none()
            && end <= self.buffer.len();
        is_whole.then(|| self.take_body(end))
    }

    /// Takes out the whole data frame at the front.
    #[inline]
    fn take_body(&mut self, end: usize) -> Bytes {
        self.weight = end - HEADER;
        let mut frame = match self.memory {
            Memory::Little => {
                let body = self.buffer.get(HEADER..end).map(Bytes::copy_from_slice);
                self.buffer.advance(end);
                return body.unwrap_or_default();
            }
            // An empty message shares nothing.
            Memory::Exact if end == self.buffer.len() => mem::take(&mut self.buffer),
            _ => self.buffer.split_to(end),
        }
        .freeze();
        frame.advance(HEADER);
        frame
    }

    /// Takes one frame out of the bytes that were read.
    pub(super) fn next_frame(&mut self) -> Result<Option<Frame<Bytes>>, ProtocolError> {
        if let Some(message) = self.next_message() {
            return Ok(Some(Frame::Data(message)));
        }
        if let Some(frame) = self.take_part() {
            return Ok(Some(frame));
        }
        let Some((length, tag)) = self.header() else {
            return Ok(None);
        };
        match self.gate.check(length, tag, self.assembly.is_some())? {
            Some(Tag::Part) => {
                self.begin_part(length)?;
                Ok(self.take_part())
            }
            Some(_) if self.buffer.len() >= frame_size(length) => {
                self.take_control(frame_size(length)).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Takes out the whole control frame at the front.
    fn take_control(&mut self, end: usize) -> Result<Frame<Bytes>, ProtocolError> {
        let frame = self.buffer.get(4..end).unwrap_or_default();
        let control = Control::decode(frame)?;
        self.gate.note(&control);
        let frame = match control {
            Control::Goodbye(code) => Frame::Goodbye {
                code,
                detail: Detail::from(Goodbye::decode(frame)?.detail),
            },
            control => control.into(),
        };
        self.buffer.advance(end);
        Ok(frame)
    }

    /// Takes the bytes of a part that was begun. `Some` if the part is whole now.
    fn take_part(&mut self) -> Option<Frame<Bytes>> {
        let message = self.assembly.as_mut()?;
        message.take_from(&mut self.buffer);
        if !message.end_part() {
            return None;
        }
        if self.buffer.is_empty() {
            // The next part, or another long message, is read into its final place.
            self.memory = Memory::Exact;
        }
        let Some(bytes) = message.whole() else {
            return Some(Frame::Other);
        };
        self.weight = bytes;
        let message = self.assembly.take()?;
        Some(Frame::Data(message.into_message()))
    }

    /// Takes the header of a part, if all of it has arrived.
    fn begin_part(&mut self, length: u32) -> Result<(), ProtocolError> {
        if let Some(message) = &mut self.assembly {
            message.begin_part(length as usize - 1)?;
            self.buffer.advance(HEADER);
            return Ok(());
        }
        let part = self.buffer.get(HEADER..).unwrap_or_default();
        let Some((announced, digits)) = read_announced(part, length - 1)? else {
            return Ok(());
        };
        let bytes = self.gate.check_first_part(length, announced, digits)?;
        self.buffer.advance(HEADER + digits as usize);
        let arrived = self.buffer.len();
        self.assembly = Some(Assembly::begin(announced, bytes, arrived));
        Ok(())
    }

    /// All bytes that weren't decoded.
    pub(super) fn into_bytes(mut self) -> Bytes {
        let read = mem::take(&mut self.buffer);
        match &self.assembly {
            None => read,
            Some(message) => {
                let mut parts = message.to_parts();
                parts.extend_from_slice(&read);
                parts
            }
        }
        .freeze()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        pool::give_back(&mut self.buffer);
    }
}
