//! Bytes in, frames out.
//!
//! This module decides how much is read at once, where to, and when a frame's
//! body is copied. A peer's word about a length is checked before anything is
//! reserved for it. What a message of several frames is put together in is for
//! `assembly` to decide.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use heartbeat_core::{Control, Goodbye, PART, ProtocolError, Tag};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::{HEADER, VARINT, assembly::Assembly, frame_size, read_announced};
use crate::{
    Detail,
    pool::{self, CHUNK},
    transport::Frame,
};

/// Frames out of a read of at most so many bytes are copied, so that a small
/// message, kept for long, doesn't keep a whole chunk.
const COPIED: usize = HEADER + 1024;

/// Where probably little is to be read, so much room is made for it, in bytes.
const SMALL: usize = 2 * COPIED;

/// With less room than this a chunk is as good as full.
const ROOM: usize = 2048;

/// A frame of at least so many bytes isn't begun where it doesn't fit: what was
/// read of it would have to be moved.
const MOVED: usize = 4 * 1024;

/// The longest control frame, tag included.
const MAX_CONTROL: u32 = 256;
const _: () = assert!(MAX_CONTROL as usize == Control::MAX_ACCEPTED);

/// The most bytes of a message in one frame.
const MAX_PART: u32 = 65_536;
const _: () = assert!(MAX_PART as usize == PART);

/// The receiving half of [`Wire`](super::Wire).
#[derive(Debug)]
pub(super) struct Reader {
    buffer: BytesMut,
    /// The body of a message that came alone, in one small read. Nothing is in
    /// the buffer then.
    lone: Option<Bytes>,
    /// A message of which not all parts have arrived.
    assembly: Option<Box<Assembly>>,
    /// The largest message.
    max_frame: u32,
    /// The last read was small, into a chunk.
    copy: bool,
    /// The last read was so large that the next one goes into a chunk.
    bulk: bool,
    /// The buffer is no chunk: it holds just what a small read gave.
    small: bool,
    peer: Peer,
    /// The length of the last message.
    weight: usize,
}

/// What may come of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    /// Its Hello, and nothing else.
    Stranger,
    /// Everything.
    Speaks,
    /// Control frames only: it said that no message follows.
    Finished,
}

impl Reader {
    pub(super) fn new(max_frame: u32) -> Self {
        Self {
            buffer: BytesMut::new(),
            lone: None,
            assembly: None,
            max_frame,
            copy: false,
            bulk: false,
            small: false,
            peer: Peer::Stranger,
            weight: 0,
        }
    }

    /// The bytes of the last message.
    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    /// Bytes that no frame was made of yet, and those of a message that is whole.
    #[inline]
    pub(super) fn len(&self) -> usize {
        let lone = self.lone.as_ref().map(|body| HEADER + body.len());
        let whole = self.assembly.as_ref().and_then(|message| message.whole());
        self.buffer.len() + lone.or(whole).unwrap_or(0)
    }

    /// Whether a message has begun to arrive that isn't whole.
    pub(super) fn is_in_message(&self) -> bool {
        let is_message = |tag| tag == Tag::Data.to_byte() || tag == Tag::Part.to_byte();
        let tag = self.header().and_then(|(_, tag)| tag);
        self.assembly.is_some() || tag.is_some_and(is_message)
    }

    /// How many bytes have arrived of a message that isn't whole, headers not
    /// counted.
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

    /// Reads once.
    #[inline]
    pub(super) fn poll_fill(
        &mut self,
        stream: Pin<&mut impl AsyncRead>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.len() > 0 {
            return self.poll_fill_bulk(stream, cx);
        }
        match &mut self.assembly {
            Some(message) if message.is_in_part() => {
                pool::give_back(&mut self.buffer);
                self.copy = false;
                self.small = true;
                message.poll_fill(stream, cx, &mut self.buffer)
            }
            _ if self.bulk => self.poll_fill_bulk(stream, cx),
            _ => {
                // Nothing may come for long.
                pool::give_back(&mut self.buffer);
                self.poll_fill_small(stream, cx)
            }
        }
    }

    fn poll_fill_bulk(
        &mut self,
        stream: Pin<&mut impl AsyncRead>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.unite();
        let room = self.make_room();
        let before = self.buffer.len();
        let result = poll_read_buf(stream, cx, &mut (&mut self.buffer).limit(room));
        if self.buffer.is_empty() {
            pool::give_back(&mut self.buffer);
        }
        let read = ready!(result)?;
        self.bulk = before + read > COPIED;
        self.copy = !self.bulk;
        Poll::Ready(Ok(read))
    }

    /// Reads what is probably little, so that a chunk needn't be lent and given
    /// back for it.
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
        match self.whole_message(read) {
            Some(end) if end == read.len() && end <= COPIED => {
                self.lone = read.get(HEADER..).map(Bytes::copy_from_slice);
            }
            _ => self.keep(read),
        }
        Poll::Ready(Ok(read.len()))
    }

    /// Puts what was read into an empty buffer.
    fn keep(&mut self, read: &[u8]) {
        self.bulk = read.len() > COPIED;
        self.copy = false;
        self.small = !self.bulk;
        self.buffer = match self.small {
            true => BytesMut::from(read),
            false => pool::take_part(),
        };
        if self.bulk {
            self.buffer.extend_from_slice(read);
        }
    }

    /// Makes room, and says for how many bytes.
    fn make_room(&mut self) -> usize {
        let missing = match self.header() {
            // A frame that is too long is refused as soon as somebody takes it
            // out, which isn't always before the next read.
            Some((length, tag)) if self.check(length, tag).is_ok() => {
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
        match self.assembly {
            // What is read here of its parts is copied once more.
            Some(_) => room.min(SMALL),
            None => room,
        }
    }

    /// How much to read into the buffer: none if another one would do better.
    /// So many bytes are `missing` of the frame that was begun.
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

    /// Goes on in another buffer, in which there is room.
    fn move_on(&mut self, missing: usize) {
        let length = self.buffer.len();
        let wanted = if missing > 0 { missing } else { ROOM };
        let a_chunk_will_do = length + wanted <= CHUNK;
        if self.buffer.capacity() == 0 {
            self.buffer = match HEADER + self.weight < MOVED {
                true => pool::take_part(),
                false => pool::take(),
            };
        } else if a_chunk_will_do && !self.small && self.buffer.try_reclaim(CHUNK - length) {
            // Nobody holds what was taken out: the same chunk again.
        } else if a_chunk_will_do {
            let mut chunk = pool::take();
            chunk.extend_from_slice(&self.buffer);
            pool::give_back(&mut self.buffer);
            self.buffer = chunk;
        } else {
            // Several whole frames that nobody takes out.
            self.buffer.reserve(CHUNK);
        }
        self.small = false;
    }

    /// The length and, if it is there, the tag of the first frame.
    fn header(&self) -> Option<(u32, Option<u8>)> {
        let (length, rest) = self.buffer.split_first_chunk::<4>()?;
        Some((u32::from_be_bytes(*length), rest.first().copied()))
    }

    /// Takes a message out, if a whole one is at the front.
    #[inline(always)] // so that the message is moved once
    pub(super) fn next_message(&mut self) -> Option<Bytes> {
        match self.whole_message(&self.buffer) {
            Some(end) => Some(self.take_body(end)),
            None => self.take_lone(),
        }
    }

    /// Where the frame ends that `bytes` begin with, if it is a message and
    /// all of it is there.
    #[inline(always)]
    fn whole_message(&self, bytes: &[u8]) -> Option<usize> {
        let &[a, b, c, d, tag] = bytes.first_chunk()?;
        let length = u32::from_be_bytes([a, b, c, d]);
        let end = frame_size(length);
        let body = length.wrapping_sub(1); // of no bytes: not a message
        let whole = tag == Tag::Data.to_byte()
            && self.peer == Peer::Speaks
            && self.assembly.is_none()
            && body <= self.max_data()
            && end <= bytes.len();
        whole.then_some(end)
    }

    #[inline]
    fn take_lone(&mut self) -> Option<Bytes> {
        let body = self.lone.take()?;
        self.weight = body.len();
        Some(body)
    }

    /// Takes the whole data frame at the front out.
    #[inline]
    fn take_body(&mut self, end: usize) -> Bytes {
        self.weight = end - HEADER;
        if self.copy {
            let body = self.buffer.get(HEADER..end).map(Bytes::copy_from_slice);
            self.buffer.advance(end);
            return body.unwrap_or_default();
        }
        let mut frame = match self.small && end == self.buffer.len() {
            // All that there was; nothing is to be shared.
            true => std::mem::take(&mut self.buffer),
            false => self.buffer.split_to(end),
        }
        .freeze();
        frame.advance(HEADER);
        frame
    }

    /// Takes one frame out of what was read.
    pub(super) fn next_frame(&mut self) -> Result<Option<Frame<Bytes>>, ProtocolError> {
        if let Some(body) = self.take_lone() {
            return Ok(Some(Frame::Data(body)));
        }
        if let Some(frame) = self.take_part() {
            return Ok(Some(frame));
        }
        let Some((length, tag)) = self.header() else {
            return Ok(None);
        };
        let Some(tag) = self.check(length, tag)? else {
            return Ok(None);
        };
        if tag == Tag::Part {
            self.begin_part(length)?;
            return Ok(self.take_part());
        }
        let end = frame_size(length);
        if self.buffer.len() < end {
            return Ok(None);
        }
        if tag == Tag::Data {
            return Ok(Some(Frame::Data(self.take_body(end))));
        }
        let frame = self.buffer.get(4..end).unwrap_or_default();
        let control = Control::decode(frame)?;
        let frame = match control {
            Control::Goodbye(code) => Frame::Goodbye {
                code,
                detail: Detail::from(Goodbye::decode(frame)?.detail),
            },
            control => control.into(),
        };
        self.peer = match control {
            Control::Goodbye(_) | Control::Fin => Peer::Finished,
            Control::Hello(_) if self.peer == Peer::Stranger => Peer::Speaks,
            _ => self.peer,
        };
        self.buffer.advance(end);
        Ok(Some(frame))
    }

    /// Takes what there is of a part that was begun: something, if that is all of it.
    fn take_part(&mut self) -> Option<Frame<Bytes>> {
        let message = self.assembly.as_mut()?;
        message.take_from(&mut self.buffer);
        if !message.end_part() {
            return None;
        }
        // The next part, or another message of this kind, is read to where it belongs.
        self.bulk = false;
        let Some(bytes) = message.whole().filter(|_| message.is_told()) else {
            return Some(Frame::Other);
        };
        self.weight = bytes;
        let message = self.assembly.take()?;
        Some(Frame::Data(message.into_message()))
    }

    /// Takes the header of a part, if all of it is there.
    fn begin_part(&mut self, length: u32) -> Result<(), ProtocolError> {
        let bytes = length - 1;
        if let Some(message) = &mut self.assembly {
            message.begin_part(bytes as usize)?;
            self.buffer.advance(HEADER);
            return Ok(());
        }
        let part = self.buffer.get(HEADER..).unwrap_or_default();
        let Some((announced, digits)) = read_announced(part, bytes)? else {
            return Ok(());
        };
        let of_message = bytes - digits;
        let too_long = |length, max| Err(ProtocolError::FrameTooLong { length, max });
        if announced <= MAX_PART {
            return Err(ProtocolError::BrokenParts);
        } else if announced > self.max_frame {
            return too_long(announced, self.max_frame);
        } else if of_message == 0 {
            return Err(ProtocolError::BrokenParts);
        } else if of_message > MAX_PART {
            return too_long(length, 1 + digits + MAX_PART);
        }
        let header = HEADER + digits as usize;
        let arrived = self.buffer.len() - header;
        self.assembly = Some(Assembly::begin(announced, of_message as usize, arrived));
        self.buffer.advance(header);
        Ok(())
    }

    /// Judges a header, as soon as its parts are there.
    fn check(&self, length: u32, tag: Option<u8>) -> Result<Option<Tag>, ProtocolError> {
        let max_data = 1 + self.max_data();
        let max_first_part = 1 + VARINT + MAX_PART;
        let at_most = |max| match length {
            0 => Err(ProtocolError::EmptyFrame),
            length if length > max => Err(ProtocolError::FrameTooLong { length, max }),
            _ => Ok(()),
        };
        at_most(if self.peer == Peer::Stranger {
            MAX_CONTROL
        } else if self.max_frame > MAX_PART {
            max_first_part
        } else {
            max_data.max(MAX_CONTROL)
        })?;
        let Some(byte) = tag else { return Ok(None) };
        if self.peer == Peer::Stranger && byte != Tag::Hello.to_byte() {
            return Err(ProtocolError::HelloExpected { tag: byte });
        }
        let tag = Tag::from_byte(byte)?;
        at_most(match (tag, &self.assembly) {
            (Tag::Data, _) => max_data,
            (Tag::Part, None) => max_first_part,
            (Tag::Part, Some(_)) => 1 + MAX_PART,
            _ => MAX_CONTROL,
        })?;
        match (tag, &self.assembly) {
            (Tag::Data | Tag::Part, _) if self.peer == Peer::Finished => {
                Err(ProtocolError::AfterFin)
            }
            (Tag::Data, Some(_)) => Err(ProtocolError::BrokenParts),
            _ => Ok(Some(tag)),
        }
    }

    /// The largest body of a data frame.
    #[inline]
    fn max_data(&self) -> u32 {
        self.max_frame.min(MAX_PART)
    }

    /// What came alone isn't any more.
    fn unite(&mut self) {
        if let Some(body) = self.lone.take() {
            let header = super::header(body.len());
            self.keep(&[&header, &*body].concat());
        }
    }

    /// Whatever no frame was made of.
    pub(super) fn into_bytes(mut self) -> Bytes {
        self.unite();
        let read = std::mem::take(&mut self.buffer);
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
