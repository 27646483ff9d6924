//! Bytes in, frames out.
//!
//! This module decides how much is read at once, where to, and when a frame's
//! body is copied. A peer's word about a length is checked before anything is
//! reserved for it, and memory beyond one chunk is reserved only for a frame
//! of which a good part has arrived.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use heartbeat_core::{Control, ProtocolError, Tag};
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

use super::HEADER;
use crate::{
    pool::{self, CHUNK},
    transport::Frame,
};

/// Frames out of a read of at most so many bytes are copied, so that a small
/// message, kept for long, doesn't keep a whole chunk.
const COPIED: usize = 1024;

/// With less room than this a chunk is as good as full.
const ROOM: usize = 2048;

/// So much of a frame larger than a chunk must have arrived before memory is
/// reserved for all of it.
const EARNEST: usize = 16 * 1024;

/// The receiving half of [`Wire`](super::Wire).
#[derive(Debug)]
pub(super) struct Reader {
    buffer: BytesMut,
    /// The largest body of a data frame.
    max_frame: u32,
    /// The last read was small.
    copy: bool,
    /// The first frame was seen.
    greeted: bool,
    /// The length of the last data frame's body.
    weight: usize,
}

impl Reader {
    pub(super) fn new(max_frame: u32) -> Self {
        Self {
            buffer: BytesMut::new(),
            max_frame,
            copy: false,
            greeted: false,
            weight: 0,
        }
    }

    /// The bytes of the last message.
    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    /// Bytes that no frame was made of yet.
    pub(super) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Reads once.
    pub(super) fn poll_fill(
        &mut self,
        stream: Pin<&mut impl AsyncRead>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.make_room();
        let result = poll_read_buf(stream, cx, &mut self.buffer);
        if self.buffer.is_empty() {
            pool::give_back(&mut self.buffer);
        }
        let read = ready!(result)?;
        self.copy = read <= COPIED;
        Poll::Ready(Ok(read))
    }

    fn make_room(&mut self) {
        let room = self.buffer.capacity() - self.buffer.len();
        let missing = match self.header() {
            Some((length, _)) => (length as usize + 4).saturating_sub(self.buffer.len()),
            None => 0,
        };
        // A frame that was begun and fits needs no more than its rest.
        if room >= ROOM || (missing > 0 && room >= missing) {
            return;
        }
        let whole = self.buffer.len() + missing;
        if whole > CHUNK && self.buffer.len() >= EARNEST {
            // One exact allocation, which leaves when the frame does.
            let mut exact = BytesMut::with_capacity(whole);
            exact.extend_from_slice(&self.buffer);
            pool::give_back(&mut self.buffer);
            self.buffer = exact;
        } else if self.buffer.len() < CHUNK {
            let mut chunk = pool::take();
            chunk.extend_from_slice(&self.buffer);
            pool::give_back(&mut self.buffer);
            self.buffer = chunk;
        } else {
            // Several whole frames that nobody takes out.
            self.buffer.reserve(CHUNK);
        }
    }

    /// The length and, if it is there, the tag of the first frame.
    fn header(&self) -> Option<(u32, Option<u8>)> {
        let (length, rest) = self.buffer.split_first_chunk::<4>()?;
        Some((u32::from_be_bytes(*length), rest.first().copied()))
    }

    /// Takes one frame out of what was read.
    pub(super) fn next_frame(&mut self) -> Result<Option<Frame<Bytes>>, ProtocolError> {
        let Some((length, tag)) = self.header() else {
            return Ok(None);
        };
        let tag = self.check(length, tag)?;
        let end = length as usize + 4;
        let Some(tag) = tag.filter(|_| self.buffer.len() >= end) else {
            return Ok(None);
        };
        self.greeted = true;
        if tag == Tag::Data {
            let body = end - HEADER;
            self.weight = body;
            self.buffer.advance(HEADER);
            return Ok(Some(Frame::Data(if self.copy {
                let copied = self.buffer.get(..body).map(Bytes::copy_from_slice);
                self.buffer.advance(body);
                copied.unwrap_or_default()
            } else {
                self.buffer.split_to(body).freeze()
            })));
        }
        let frame = self.buffer.get(4..end).unwrap_or_default();
        let control = Control::decode(frame)?;
        self.buffer.advance(end);
        Ok(Some(control.into()))
    }

    /// Judges a header, as soon as its parts are there.
    fn check(&self, length: u32, tag: Option<u8>) -> Result<Option<Tag>, ProtocolError> {
        let max_control = u32::try_from(Control::MAX_ACCEPTED).unwrap_or(u32::MAX);
        let max_data = self.max_frame.saturating_add(1);
        let at_most = |max| match length {
            0 => Err(ProtocolError::EmptyFrame),
            length if length > max => Err(ProtocolError::FrameTooLong { length, max }),
            _ => Ok(()),
        };
        at_most(if self.greeted {
            max_data.max(max_control)
        } else {
            max_control
        })?;
        let Some(byte) = tag else { return Ok(None) };
        if !self.greeted && byte != Tag::Hello.to_byte() {
            return Err(ProtocolError::HelloExpected { tag: byte });
        }
        let tag = Tag::from_byte(byte)?;
        at_most(if tag == Tag::Data {
            max_data
        } else {
            max_control
        })?;
        Ok(Some(tag))
    }

    /// Whatever no frame was made of.
    pub(super) fn into_bytes(mut self) -> Bytes {
        std::mem::take(&mut self.buffer).freeze()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        pool::give_back(&mut self.buffer);
    }
}
