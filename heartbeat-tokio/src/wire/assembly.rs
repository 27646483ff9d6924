//! Assembles a message from its parts.
//!
//! This module decides how much memory a message takes while it arrives: at most twice the
//! bytes that have arrived plus 64 KiB, unless a larger buffer exists already. Bytes are read
//! into their final place. Parts are checked here too; the reader handles frames between
//! parts.

use std::{
    io, mem,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use heartbeat_core::{PART, ProtocolError, Tag};
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

use super::{HEADER, VARINT, put_part_header};
use crate::pool;

/// A buffer that will grow begins with at least half of this size.
const BEGINNING: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Assembly {
    /// The bytes so far. Invariant: never more than `length`.
    buffer: BytesMut,
    /// The length that the first part announced.
    length: usize,
    part: Part,
    /// A part is whole and wasn't reported yet.
    untold: bool,
    /// Several parts can probably be read at once: the last read gave more than one, or filled its
    /// room.
    plenty: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// `missing` of its bytes are still to come.
    Begun { missing: usize },
    /// Between two parts.
    None,
}

/// The number of bytes that are read behind a part: the header of the next frame.
const NEXT: usize = HEADER + VARINT as usize;

/// The number of further parts that are read at once if available. They are then moved over
/// the headers between them. Fewer reads cost the kernel fewer acknowledgements.
const FURTHER: usize = 7;

/// Bytes after which the next read waits for another turn.
const AT_ONCE: usize = 192 * 1024;

impl Assembly {
    /// A message of `length` bytes. Its first part has `missing` bytes, of which
    /// `arrived` are there.
    pub(super) fn begin(length: u32, missing: usize, arrived: usize) -> Box<Self> {
        let length = length as usize;
        // Headers lie between the parts until they are moved.
        let room = length + HEADER * FURTHER + NEXT;
        Box::new(Self {
            buffer: pool::take_large(room, beginning(room + pool::PAGE, arrived)),
            length,
            part: Part::Begun { missing },
            untold: false,
            plenty: false,
        })
    }

    /// Another part of `bytes` bytes begins.
    pub(super) fn begin_part(&mut self, bytes: usize) -> Result<(), ProtocolError> {
        debug_assert_eq!(self.part, Part::None);
        if bytes == 0 || bytes > self.length - self.buffer.len() {
            return Err(ProtocolError::BrokenParts);
        }
        self.part = Part::Begun { missing: bytes };
        Ok(())
    }

    /// Takes the bytes that belong to the part that was begun.
    pub(super) fn take_from(&mut self, read: &mut BytesMut) {
        if let Part::Begun { missing } = self.part {
            let bytes = missing.min(read.len());
            self.buffer
                .extend_from_slice(read.get(..bytes).unwrap_or_default());
            read.advance(bytes);
            self.took(bytes, missing);
        }
    }

    /// Whether bytes of a part come next.
    pub(super) fn is_in_part(&self) -> bool {
        matches!(self.part, Part::Begun { .. })
    }

    /// Reads the available bytes of the message, and little more than a header behind it. Bytes
    /// behind the message, or in place of a part's header, go to the usual buffer.
    pub(super) fn poll_fill(
        &mut self,
        mut stream: Pin<&mut impl AsyncRead>,
        cx: &mut Context<'_>,
        behind: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let mut read = 0;
        while let Part::Begun { missing } = self.part {
            let before = self.buffer.len();
            if before == self.buffer.capacity() {
                // To twice as much.
                self.buffer.reserve(1);
            }
            // If the peer's parts are as long as ours.
            let most = if self.plenty { FURTHER * PART } else { 0 };
            let further = (self.length - before - missing).min(most);
            let headers = HEADER * further.div_ceil(PART) + NEXT;
            let wanted = missing + further + headers;
            let room = wanted.min(self.buffer.capacity() - before);
            let mut buffer = (&mut self.buffer).limit(room);
            let some = match poll_read_buf(stream.as_mut(), cx, &mut buffer)? {
                Poll::Pending if read > 0 => break,
                Poll::Pending => return Poll::Pending,
                Poll::Ready(0) => return Poll::Ready(Ok(0)),
                Poll::Ready(some) => some,
            };
            read += some;
            let of_part = some.min(missing);
            self.took(of_part, missing);
            let (end, rest) = self.join_parts(before + of_part);
            behind.extend_from_slice(self.buffer.get(rest..).unwrap_or_default());
            self.buffer.truncate(end);
            self.plenty = match some == room {
                true => self.plenty || some > PART / 2,
                false => some > PART,
            };
            if some < room || !behind.is_empty() || read > AT_ONCE {
                break;
            }
        }
        Poll::Ready(Ok(read))
    }

    /// Moves the bytes of further parts to the end of the message, which is at `end` so far.
    /// Returns the new end, and the start of the remaining bytes.
    fn join_parts(&mut self, mut end: usize) -> (usize, usize) {
        let mut rest = end;
        while self.part == Part::None {
            let Some(&[a, b, c, d, tag]) = self.buffer.get(rest..).and_then(<[u8]>::first_chunk)
            else {
                break;
            };
            let bytes = (u32::from_be_bytes([a, b, c, d]) as usize).saturating_sub(1);
            let is_next = (1..=PART.min(self.length - end)).contains(&bytes);
            if tag != Tag::Part.to_byte() || !is_next {
                break; // the reader checks it
            }
            let from = rest + HEADER;
            let there = bytes.min(self.buffer.len() - from);
            self.buffer.copy_within(from..from + there, end);
            self.took(there, bytes);
            end += there;
            rest = from + there;
        }
        (end, rest)
    }

    fn took(&mut self, bytes: usize, missing: usize) {
        self.part = match missing - bytes {
            0 => Part::None,
            missing => Part::Begun { missing },
        };
        self.untold |= self.part == Part::None;
    }

    /// Whether a part has ended that wasn't reported before.
    pub(super) fn end_part(&mut self) -> bool {
        mem::take(&mut self.untold)
    }

    /// The number of bytes of the message that have arrived.
    pub(super) fn arrived(&self) -> usize {
        self.buffer.len()
    }

    /// The bytes of the message, if it is whole.
    pub(super) fn whole(&self) -> Option<usize> {
        (self.buffer.len() == self.length).then_some(self.length)
    }

    /// The message, which is whole.
    pub(super) fn into_message(mut self) -> Bytes {
        let size = self.buffer.capacity();
        let message = self.buffer.split().freeze();
        pool::give_back_large(&mut self.buffer, size);
        message
    }

    /// The received bytes as equivalent parts. If a part was begun, the last of these is
    /// incomplete too.
    pub(super) fn to_parts(&self) -> BytesMut {
        let missing = match self.part {
            Part::Begun { missing } => missing,
            Part::None => 0,
        };
        let arrived = self.buffer.len();
        // The last part takes as much as it has room for; the others take the rest.
        let last = arrived.min(PART - missing);
        let (before, last) = self.buffer.split_at(arrived - last);
        let mut announced = Some(self.length);
        let mut parts = BytesMut::with_capacity(arrived + arrived / 1024 + 64);
        for part in before.chunks(PART) {
            put_part_header(&mut parts, part.len(), announced.take());
            parts.extend_from_slice(part);
        }
        put_part_header(&mut parts, last.len() + missing, announced);
        parts.extend_from_slice(last);
        parts
    }
}

/// The initial size of a buffer that grows to `length` by doubling, after `arrived` bytes.
fn beginning(length: usize, arrived: usize) -> usize {
    let least = arrived.max(BEGINNING / 2);
    let mut capacity = length;
    while capacity.div_ceil(2) >= least {
        capacity = capacity.div_ceil(2);
    }
    capacity
}
