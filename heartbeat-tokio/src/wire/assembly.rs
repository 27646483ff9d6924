//! Assembles a message from its parts.
//!
//! This module decides how much memory a message takes while it arrives: at
//! most twice what has arrived and 64 KiB, unless a buffer of that size is
//! there already. Bytes are read into their final place: from a socket several parts at
//! once, with the headers between them beside it. Parts are checked here too; the reader
//! handles frames between parts.

use std::{
    array,
    io::{self, IoSliceMut},
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use heartbeat_core::{PART, ProtocolError, Tag};
use tokio::io::{AsyncRead, ReadBuf};

use super::{HEADER, VARINT, put_part_header};
use crate::{net::itself, pool};

/// A buffer that will grow begins with at least half of this size.
const BEGINNING: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Assembly {
    /// What arrived, and behind it memory that is initialised.
    memory: BytesMut,
    /// The bytes that arrived. Invariant: no more than `length`, nor than `memory` has.
    arrived: usize,
    /// What the first part announced.
    length: usize,
    part: Part,
    /// A part is whole and wasn't reported yet.
    untold: bool,
    /// The peer's parts are as long as ours, as far as they came.
    is_regular: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// `missing` of its bytes are still to come.
    Begun { missing: usize },
    /// Between two parts.
    None,
}

/// The bytes read behind the last part: the header of another message.
const NEXT: usize = HEADER + VARINT as usize;

/// The number of further parts that are read at once if available.
const FURTHER: usize = 7;

/// A part that may follow in the same read.
#[derive(Clone, Copy, Default)]
struct Further {
    /// What was read in the place of its header.
    header: [u8; NEXT],
    /// Its bytes. None for the last place, which is behind all parts that are read along.
    bytes: usize,
}

impl Further {
    /// The bytes that are read in the place of its header.
    fn header_size(&self) -> usize {
        match self.bytes {
            0 => NEXT,
            _ => HEADER,
        }
    }

    /// Whether these bytes are its whole header.
    fn is_begun_by(&self, header: &[u8]) -> bool {
        let length = u32::try_from(1 + self.bytes).unwrap_or(u32::MAX);
        let [a, b, c, d] = length.to_be_bytes();
        self.bytes > 0 && header == [a, b, c, d, Tag::Part.to_byte()]
    }
}

impl Assembly {
    /// A message of `length` bytes. Its first part has `missing` bytes, of which
    /// `arrived` are there.
    pub(super) fn begin(length: u32, missing: usize, arrived: usize) -> Box<Self> {
        let length = length as usize;
        Box::new(Self {
            memory: pool::take_large(
                length,
                beginning(length.saturating_add(pool::PAGE), arrived),
            ),
            arrived: 0,
            length,
            part: Part::Begun { missing },
            untold: false,
            is_regular: missing == PART,
        })
    }

    /// Another part of `bytes` bytes begins.
    pub(super) fn begin_part(&mut self, bytes: usize) -> Result<(), ProtocolError> {
        debug_assert_eq!(self.part, Part::None);
        if bytes == 0 || bytes > self.length - self.arrived {
            return Err(ProtocolError::BrokenParts);
        }
        self.part = Part::Begun { missing: bytes };
        Ok(())
    }

    /// Takes the bytes that belong to the part that was begun.
    pub(super) fn take_from(&mut self, read: &mut BytesMut) {
        if let Part::Begun { missing } = self.part {
            let bytes = missing.min(read.len());
            self.grow_to(self.arrived + bytes);
            let place = self.memory.get_mut(self.arrived..self.arrived + bytes);
            if let (Some(place), Some(bytes)) = (place, read.get(..bytes)) {
                place.copy_from_slice(bytes);
            }
            read.advance(bytes);
            self.took(bytes);
        }
    }

    /// Makes the memory at least that large, to twice as much and no more than the message.
    fn grow_to(&mut self, bytes: usize) {
        if bytes > self.memory.len() {
            let doubled = (2 * self.memory.len()).min(self.length);
            self.memory.resize(bytes.max(doubled), 0);
        }
    }

    /// Whether bytes of a part come next.
    pub(super) fn is_in_part(&self) -> bool {
        matches!(self.part, Part::Begun { .. })
    }

    /// Reads once: the rest of the part, and from a socket further parts that are there.
    /// Bytes behind the message, or in place of a part's header, go to the usual buffer.
    pub(super) fn poll_fill<S: AsyncRead + Unpin + 'static>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        behind: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let Part::Begun { missing } = self.part else {
            debug_assert!(false, "the reader reads between parts");
            return Poll::Pending;
        };
        self.grow_to(self.arrived + 1);
        let part = missing.min(self.memory.len() - self.arrived);
        let mut further = [Further::default(); FURTHER + 1];
        let count = match part == missing {
            true => self.expect_further(missing, &mut further),
            false => 0,
        };
        let further = further.get_mut(..count).unwrap_or_default();
        let free = self.memory.get_mut(self.arrived..).unwrap_or_default();
        let read = ready!(poll_read_parts(stream, cx, free, part, further))?;
        self.took(read.min(part));
        if read > part {
            self.join(further, read - part, behind);
        }
        Poll::Ready(Ok(read))
    }

    /// What may follow the part that lacks `missing` bytes, as far as there is room for
    /// it. Says how many of these are to be read: the last is a header only.
    fn expect_further(&self, missing: usize, further: &mut [Further; FURTHER + 1]) -> usize {
        let mut end = self.arrived + missing;
        let mut count = 1;
        for next in further.iter_mut().take(FURTHER) {
            let bytes = PART.min(self.length - end);
            if bytes == 0 || !self.is_regular || end + bytes > self.memory.len() {
                break;
            }
            next.bytes = bytes;
            end += bytes;
            count += 1;
        }
        count
    }

    /// Counts the `read` bytes behind the first part. As soon as something else comes than
    /// was expected, that and all behind it isn't the message's.
    fn join(&mut self, further: &[Further], mut read: usize, behind: &mut BytesMut) {
        let mut at = self.arrived;
        for next in further {
            let header = next.header.get(..next.header_size().min(read));
            let header = header.unwrap_or_default();
            read -= header.len();
            let bytes = next.bytes.min(read);
            read -= bytes;
            let is_expected = self.part == Part::None && behind.is_empty();
            if is_expected && next.is_begun_by(header) {
                let missing = next.bytes;
                self.part = Part::Begun { missing };
                self.took(bytes);
            } else {
                self.is_regular &= header.len() < HEADER || next.bytes == 0;
                behind.extend_from_slice(header);
                let bytes = self.memory.get(at..at + bytes);
                behind.extend_from_slice(bytes.unwrap_or_default());
            }
            at += next.bytes;
        }
        debug_assert_eq!(read, 0, "all of it is somewhere");
    }

    /// These bytes of the part that was begun are in their place.
    fn took(&mut self, bytes: usize) {
        let Part::Begun { missing } = self.part else {
            return;
        };
        self.arrived += bytes;
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
        self.arrived
    }

    /// The bytes of the message, if it is whole.
    pub(super) fn whole(&self) -> Option<usize> {
        (self.arrived == self.length).then_some(self.length)
    }

    /// The message, which is whole.
    pub(super) fn into_message(self) -> Bytes {
        let memory = self.memory.freeze();
        let message = memory.slice(..self.length);
        pool::give_back_large(memory);
        message
    }

    /// The received bytes as equivalent parts. If a part was begun, the last of these is
    /// incomplete too.
    pub(super) fn to_parts(&self) -> BytesMut {
        let missing = match self.part {
            Part::Begun { missing } => missing,
            Part::None => 0,
        };
        let (arrived, _) = self.memory.split_at(self.arrived);
        // As much as the last part has room for; the others have what is before.
        let last = arrived.len().min(PART - missing);
        let (before, last) = arrived.split_at(arrived.len() - last);
        let mut announced = Some(self.length);
        let mut parts = BytesMut::with_capacity(arrived.len() + arrived.len() / 1024 + 64);
        for part in before.chunks(PART) {
            put_part_header(&mut parts, part.len(), announced.take());
            parts.extend_from_slice(part);
        }
        put_part_header(&mut parts, last.len() + missing, announced);
        parts.extend_from_slice(last);
        parts
    }
}

/// Reads into the first `part` bytes of `free`. A socket goes on with `further` parts behind
/// them, with each header beside its place, in the same call.
fn poll_read_parts<S: AsyncRead + Unpin + 'static>(
    stream: &mut S,
    cx: &mut Context<'_>,
    free: &mut [u8],
    part: usize,
    further: &mut [Further],
) -> Poll<io::Result<usize>> {
    let (first, mut free) = free.split_at_mut(part);
    let Some(socket) = itself(stream) else {
        let mut first = ReadBuf::new(first);
        ready!(Pin::new(stream).poll_read(cx, &mut first))?;
        return Poll::Ready(Ok(first.filled().len()));
    };
    let mut slices: [_; 2 * FURTHER + 3] = array::from_fn(|_| IoSliceMut::new(&mut []));
    let mut places = slices.iter_mut();
    let mut add = |bytes| places.next().map(|place| *place = IoSliceMut::new(bytes));
    add(first);
    for next in further {
        let (bytes, rest) = mem::take(&mut free).split_at_mut(next.bytes);
        let size = next.header_size();
        add(next.header.get_mut(..size).unwrap_or_default());
        add(bytes);
        free = rest;
    }
    loop {
        ready!(socket.poll_read_ready(cx))?;
        match socket.try_read_vectored(&mut slices) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return Poll::Ready(read),
        }
    }
}

/// The size with which a buffer begins that grows to `length` by doubling, if this
/// many have `arrived`.
fn beginning(length: usize, arrived: usize) -> usize {
    let least = arrived.max(BEGINNING / 2);
    let mut capacity = length;
    while capacity.div_ceil(2) >= least {
        capacity = capacity.div_ceil(2);
    }
    capacity
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "how a test fails, and its bytes"
)]
mod tests;
