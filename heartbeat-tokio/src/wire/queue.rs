//! Messages that wait to be written.
//!
//! This module decides how they lie in memory: small payloads are copied into one buffer,
//! large ones are queued by reference, and those above 64 KiB are cut into parts. It
//! knows the frame boundaries and the begun frame. It doesn't decide when bytes are
//! written, nor which frames go in between.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use heartbeat_core::PART;

use super::{HEADER, VARINT, frame_size, header, put_part_header};
use crate::pool;

/// Payloads of this size or more are queued by reference.
pub(super) const UNCOPIED: usize = 4 * 1024;

/// The most bytes of copied payloads that wait before a write. More would save few system
/// calls, and wouldn't fit into the processor's L1 cache.
const COPIES: usize = 48 * 1024;

/// The most bytes that wait before a write.
const AHEAD: usize = 192 * 1024;

/// Data frames and parts, in order.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// A single small message of which nothing was written. If it leaves at once, it needs no
    /// buffer.
    lone: Option<Bytes>,
    /// Each begins in the middle of a frame or with a whole header. None is empty.
    pieces: VecDeque<Bytes>,
    /// The frames behind the pieces.
    tail: BytesMut,
    /// Bytes in `lone`, `pieces` and `tail`, headers included.
    queued: usize,
    /// The unwritten bytes of the begun frame in front; zero between frames. Never more than are
    /// queued.
    begun: usize,
}

impl Queue {
    /// Bytes that weren't written yet.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.queued
    }

    /// The part of them that belongs to a begun frame.
    #[inline]
    pub(super) fn begun(&self) -> usize {
        self.begun
    }

    /// Whether more may be queued before something is written.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.tail.len() < COPIES && self.queued < AHEAD
    }

    // ---- in ------------------------------------------------------------------

    /// Adds a message of at most [`PART`] bytes.
    #[inline]
    pub(super) fn push(&mut self, payload: Bytes) {
        let length = payload.len();
        if self.lone.is_some() || length >= UNCOPIED {
            self.push_second_or_large(payload);
        } else if self.queued == 0 {
            self.lone = Some(payload);
        } else {
            self.push_copied(&payload);
        }
        self.queued += HEADER + length;
    }

    fn push_second_or_large(&mut self, payload: Bytes) {
        self.unite();
        if payload.len() < UNCOPIED {
            return self.push_copied(&payload);
        }
        self.reserve(HEADER);
        self.tail.extend_from_slice(&header(payload.len()));
        self.push_behind_tail(payload);
    }

    #[inline(always)] // where it is called once for each message
    fn push_copied(&mut self, payload: &[u8]) {
        self.reserve(HEADER + payload.len());
        self.tail.extend_from_slice(&header(payload.len()));
        self.tail.extend_from_slice(payload);
    }

    /// Adds a longer message in parts. Each is a frame of its own, so control frames go
    /// between them.
    pub(super) fn push_parts(&mut self, mut message: Bytes) {
        self.unite();
        self.pieces.reserve(2 * message.len().div_ceil(PART));
        let mut announced = Some(message.len());
        while !message.is_empty() {
            let part = message.split_to(message.len().min(PART));
            self.reserve(HEADER + VARINT as usize);
            let before = self.tail.len();
            put_part_header(&mut self.tail, part.len(), announced.take());
            self.queued += self.tail.len() - before + part.len();
            self.push_behind_tail(part);
        }
    }

    /// The tail becomes a piece, and the payload another one.
    fn push_behind_tail(&mut self, payload: Bytes) {
        let before = self.tail.split().freeze();
        self.pieces.extend([before, payload]);
    }

    /// Spills the inline message: it is no longer the only one.
    #[inline]
    pub(super) fn unite(&mut self) {
        if let Some(payload) = self.lone.take() {
            self.push_copied(&payload);
        }
    }

    #[inline]
    fn reserve(&mut self, bytes: usize) {
        if self.tail.capacity() - self.tail.len() < bytes {
            self.begin_another_tail();
        }
    }

    fn begin_another_tail(&mut self) {
        let mut another = pool::take();
        if self.pieces.is_empty() && self.tail.len() < COPIES {
            // The stream takes little at a time. Copying the rest costs less than a
            // buffer that can't be used again.
            another.extend_from_slice(&self.tail);
            pool::give_back(&mut self.tail);
        } else if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
        self.tail = another;
    }

    // ---- out -----------------------------------------------------------------

    /// The inline message.
    #[inline]
    pub(super) fn lone(&self) -> Option<&Bytes> {
        self.lone.as_ref()
    }

    /// The first `bytes` queued bytes. No message may be inline.
    pub(super) fn chunks_before(&self, bytes: usize) -> impl Iterator<Item = &[u8]> {
        self.chunks().scan(bytes, |left, chunk| {
            let some = chunk.get(..*left).unwrap_or(chunk);
            *left -= some.len();
            (!some.is_empty()).then_some(some)
        })
    }

    /// The chunks behind the first `bytes` bytes. No message may be inline.
    pub(super) fn chunks_behind(&self, bytes: usize) -> impl Iterator<Item = &[u8]> {
        let mut before = bytes;
        self.chunks().filter_map(move |chunk| {
            let (front, rest) = chunk.split_at(before.min(chunk.len()));
            before -= front.len();
            (!rest.is_empty()).then_some(rest)
        })
    }

    fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        debug_assert!(self.lone.is_none(), "it has no header yet");
        let tail = Some(&*self.tail).filter(|tail| !tail.is_empty());
        self.pieces.iter().map(|piece| &**piece).chain(tail)
    }

    /// Removes the `written` bytes at the front.
    #[inline]
    pub(super) fn advance(&mut self, written: usize) {
        debug_assert!(written <= self.queued, "more was written than there is");
        match written < self.queued {
            true => self.advance_within(written),
            false => self.clear(),
        }
    }

    fn advance_within(&mut self, mut left: usize) {
        self.unite();
        self.queued -= left;
        while left > 0 {
            if self.begun == 0 {
                self.begun = self.next_frame();
            }
            let step = left.min(self.begun);
            let step = match self.pieces.front_mut() {
                Some(piece) => {
                    let step = step.min(piece.len());
                    piece.advance(step);
                    if piece.is_empty() {
                        self.pieces.pop_front();
                    }
                    step
                }
                None => {
                    self.tail.advance(step);
                    step
                }
            };
            self.begun -= step;
            left -= step;
        }
        debug_assert!(self.begun <= self.queued, "a frame is queued as a whole");
    }

    /// The length of the frame that begins at the front, header included.
    fn next_frame(&self) -> usize {
        let front = self.chunks().next().and_then(<[u8]>::first_chunk::<4>);
        debug_assert!(front.is_some(), "a piece begins with a whole header");
        front.map_or(self.queued, |length| {
            frame_size(u32::from_be_bytes(*length))
        })
    }

    /// Keeps only the rest of a frame that was begun.
    pub(super) fn give_up(&mut self) {
        if self.begun == 0 {
            return self.clear(); // an inline message wasn't begun
        }
        let mut front = BytesMut::with_capacity(self.begun);
        for chunk in self.chunks_before(self.begun) {
            front.extend_from_slice(chunk);
        }
        debug_assert_eq!(front.len(), self.begun, "what was begun is queued");
        self.clear();
        self.begun = front.len();
        self.queued = front.len();
        self.tail = front;
    }

    /// Nothing is queued any more: frees the memory.
    fn clear(&mut self) {
        self.lone = None;
        self.queued = 0;
        self.begun = 0;
        // They share the tail's memory.
        if self.pieces.capacity() > 0 {
            self.pieces = VecDeque::new();
        }
        pool::give_back(&mut self.tail);
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.clear();
    }
}
