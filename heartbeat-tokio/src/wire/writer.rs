//! Frames in, bytes out.
//!
//! This module decides the order of what is written: control frames have a
//! lane of their own and go out at the next frame boundary, ahead of whatever
//! the application queued. Small payloads are copied behind each other, large
//! ones are written from where they are.

use std::{
    collections::VecDeque,
    future::Future,
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use heartbeat_core::{Control, Tag};
use tokio::{io::AsyncWrite, task::yield_now};

use super::HEADER;
use crate::{SendError, pool, transport::Scope};

/// A payload of at least so many bytes isn't copied.
const UNCOPIED: usize = 4 * 1024;

/// After so many bytes that the stream took at once, everybody else has a turn.
///
/// Who goes on until a socket is full fills the window of the peer's kernel,
/// and the connection then lives on window probes.
const BURST: usize = 96 * 1024;

/// As many pieces as one system call takes.
const PIECES: usize = 64;

/// The sending half of [`Wire`](super::Wire).
#[derive(Debug)]
pub(super) struct Writer {
    /// The largest body of a data frame.
    max_frame: u32,
    control: Lane,
    /// Data frames in order; each piece begins in the middle of a frame or
    /// with a whole header.
    pieces: VecDeque<Bytes>,
    /// The frames behind the pieces.
    tail: BytesMut,
    /// Bytes in `pieces` and `tail`.
    queued: usize,
    /// Bytes of the frame in front that was begun; zero between frames.
    begun: usize,
    /// A goodbye is queued behind the data.
    goodbye: bool,
    /// Bytes written since the stream was last full, or somebody else had a
    /// turn.
    burst: usize,
}

impl Writer {
    pub(super) fn new(max_frame: u32) -> Self {
        Self {
            max_frame,
            control: Lane::default(),
            pieces: VecDeque::new(),
            tail: BytesMut::new(),
            queued: 0,
            begun: 0,
            goodbye: false,
            burst: 0,
        }
    }

    /// Something was read: the peer goes on, too.
    pub(super) fn end_burst(&mut self) {
        self.burst = 0;
    }

    /// Bytes that weren't written yet.
    pub(super) fn len(&self) -> usize {
        self.control.len() + self.queued
    }

    pub(super) fn control_unwritten(&self) -> bool {
        self.control.len() > 0 || (self.goodbye && self.queued > 0)
    }

    /// Queues a data frame.
    pub(super) fn push(&mut self, payload: Bytes) -> Result<(), SendError> {
        let length = payload.len();
        let Some(body) = u32::try_from(length)
            .ok()
            .filter(|&body| body <= self.max_frame)
        else {
            let max = self.max_frame as usize;
            return Err(SendError::TooLong { length, max });
        };
        let copied = length < UNCOPIED;
        self.reserve(if copied { HEADER + length } else { HEADER });
        let [a, b, c, d] = (body + 1).to_be_bytes();
        self.tail
            .extend_from_slice(&[a, b, c, d, Tag::Data.to_byte()]);
        if copied {
            self.tail.extend_from_slice(&payload);
        } else {
            self.pieces.push_back(self.tail.split().freeze());
            self.pieces.push_back(payload);
        }
        self.queued += HEADER + length;
        Ok(())
    }

    /// Queues a control frame.
    pub(super) fn push_control(&mut self, control: Control) {
        let mut buffer = [0; Control::MAX_ENCODED];
        let Ok(frame) = control.encode(&mut buffer) else {
            return; // the buffer is long enough for every control frame
        };
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        if control == Control::Goodbye {
            self.reserve(4 + frame.len());
            self.tail.put_u32(length);
            self.tail.put_slice(frame);
            self.queued += 4 + frame.len();
            self.goodbye = true;
        } else {
            self.control.push(&length.to_be_bytes());
            self.control.push(frame);
        }
    }

    fn reserve(&mut self, bytes: usize) {
        if self.tail.capacity() - self.tail.len() < bytes {
            if !self.tail.is_empty() {
                self.pieces.push_back(self.tail.split().freeze());
            }
            self.tail = pool::take();
        }
    }

    /// Writes what is in scope, and flushes the stream when all of it is
    /// written. Says too how many bytes the stream took.
    pub(super) fn poll_write(
        &mut self,
        mut stream: Pin<&mut impl AsyncWrite>,
        cx: &mut Context<'_>,
        scope: Scope,
    ) -> (usize, Poll<io::Result<()>>) {
        let mut taken = 0;
        let result = loop {
            if self.in_scope(scope) == 0 {
                break stream.poll_flush(cx);
            }
            if self.burst >= BURST {
                self.burst = 0;
                // Wakes this task when all others had a turn.
                let _ = pin!(yield_now()).poll(cx);
                break Poll::Pending;
            }
            match self.poll_write_once(stream.as_mut(), cx, scope) {
                Poll::Ready(Ok(written)) => {
                    taken += written;
                    self.burst += written;
                }
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.burst = 0;
                    break Poll::Pending;
                }
            }
        };
        (taken, result)
    }

    /// Bytes to be written.
    fn in_scope(&self, scope: Scope) -> usize {
        match scope {
            Scope::All => self.len(),
            Scope::Control if self.goodbye => self.len(),
            Scope::Control if self.control.len() > 0 => self.begun + self.control.len(),
            Scope::Control => 0,
        }
    }

    /// One system call.
    fn poll_write_once(
        &mut self,
        stream: Pin<&mut impl AsyncWrite>,
        cx: &mut Context<'_>,
        scope: Scope,
    ) -> Poll<io::Result<usize>> {
        let room = BURST.saturating_sub(self.burst);
        if self.control.len() == 0 && self.pieces.is_empty() {
            // What there is most often: small frames behind each other.
            let some = self.tail.get(..room).unwrap_or(&self.tail);
            let written = ready!(stream.poll_write(cx, some))?;
            self.advance_data(written);
            return not_zero(written);
        }
        let pieces = self.pieces.iter().map(|piece| &**piece);
        let data = pieces
            .chain([&*self.tail])
            .filter(|piece| !piece.is_empty());
        let mut slices = Slices::with_room(room);
        // The rest of a frame that was begun, the control frames, and then
        // the other frames.
        let mut begun = self.begun;
        let mut control = Some(self.control.as_slice()).filter(|lane| !lane.is_empty());
        let beyond = scope == Scope::All || self.goodbye;
        for piece in data {
            let (first, rest) = piece.split_at(begun.min(piece.len()));
            begun -= first.len();
            if !first.is_empty() {
                slices.push(first);
            }
            if begun > 0 {
                continue;
            }
            if let Some(lane) = control.take() {
                slices.push(lane);
            }
            if !beyond || slices.room == 0 {
                break;
            }
            if !rest.is_empty() {
                slices.push(rest);
            }
        }
        if let Some(lane) = control {
            slices.push(lane);
        }

        let written = ready!(match slices.as_slice() {
            [slice] => stream.poll_write(cx, slice),
            [slice, ..] if !stream.is_write_vectored() => stream.poll_write(cx, slice),
            slices => stream.poll_write_vectored(cx, slices),
        })?;
        self.advance(written);
        not_zero(written)
    }

    /// So many bytes were written, in the order of `poll_write_once`.
    fn advance(&mut self, written: usize) {
        let mut left = written;
        if self.control.len() > 0 {
            let begun = left.min(self.begun);
            self.advance_data(begun);
            left -= begun;
            let control = left.min(self.control.len());
            if self.begun == 0 {
                self.control.advance(control);
                left -= control;
            }
        }
        self.advance_data(left);
    }

    fn advance_data(&mut self, bytes: usize) {
        let mut left = bytes.min(self.queued);
        if left == self.queued {
            return self.all_written();
        }
        self.queued -= left;
        while left > 0 {
            if self.begun == 0 {
                self.begun = self.front_frame();
            }
            let front = match self.pieces.front_mut() {
                Some(piece) if piece.is_empty() => {
                    self.pieces.pop_front();
                    continue;
                }
                Some(piece) => {
                    let step = left.min(self.begun).min(piece.len());
                    piece.advance(step);
                    step
                }
                None => {
                    let step = left.min(self.begun).min(self.tail.len());
                    self.tail.advance(step);
                    step
                }
            };
            self.begun -= front;
            left -= front;
        }
        while self.pieces.front().is_some_and(Bytes::is_empty) {
            self.pieces.pop_front();
        }
    }

    /// The length of the frame that begins at the front, header included.
    fn front_frame(&self) -> usize {
        let pieces = self.pieces.iter().map(|piece| &**piece);
        let mut pieces = pieces.chain([&*self.tail]);
        let front = pieces.find(|piece| !piece.is_empty()).unwrap_or_default();
        match front.first_chunk::<4>() {
            Some(length) => u32::from_be_bytes(*length) as usize + 4,
            None => self.queued,
        }
    }

    /// Nothing is queued any more: gives the memory back.
    fn all_written(&mut self) {
        self.queued = 0;
        self.begun = 0;
        if self.pieces.capacity() > PIECES {
            self.pieces = VecDeque::new();
        } else {
            self.pieces.clear();
        }
        pool::give_back(&mut self.tail);
    }

    /// What wasn't written, in the order in which it would have been.
    pub(super) fn into_bytes(mut self) -> Bytes {
        let mut all = BytesMut::with_capacity(self.len());
        let data: Vec<Bytes> = self
            .pieces
            .drain(..)
            .chain([self.tail.split().freeze()])
            .collect();
        let mut begun = self.begun;
        let mut control = Some(self.control.as_slice());
        for piece in data {
            let (first, rest) = piece.split_at(begun.min(piece.len()));
            begun -= first.len();
            all.put_slice(first);
            if begun == 0 {
                all.put_slice(control.take().unwrap_or_default());
            }
            all.put_slice(rest);
        }
        all.freeze()
    }
}

/// What one system call is given.
struct Slices<'a> {
    slices: [IoSlice<'a>; PIECES],
    count: usize,
    /// Bytes that may be added.
    room: usize,
}

impl<'a> Slices<'a> {
    fn with_room(room: usize) -> Self {
        Self {
            slices: [IoSlice::new(&[]); PIECES],
            count: 0,
            room,
        }
    }

    /// Adds what there is room for.
    fn push(&mut self, slice: &'a [u8]) {
        let some = slice.get(..self.room).unwrap_or(slice);
        if let Some(slot) = self.slices.get_mut(self.count).filter(|_| self.room > 0) {
            *slot = IoSlice::new(some);
            self.count += 1;
            self.room -= some.len();
        }
    }

    fn as_slice(&self) -> &[IoSlice<'a>] {
        self.slices.get(..self.count).unwrap_or_default()
    }
}

/// A stream that takes no bytes and isn't pending never will.
fn not_zero(written: usize) -> Poll<io::Result<usize>> {
    Poll::Ready(match written {
        0 => Err(io::ErrorKind::WriteZero.into()),
        written => Ok(written),
    })
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.all_written();
    }
}

/// The control frames of one round of outputs; they fit by construction: the
/// monitor is asked for more only when these have left.
#[derive(Debug)]
struct Lane {
    bytes: [u8; Self::SIZE],
    start: u8,
    end: u8,
}

impl Default for Lane {
    fn default() -> Self {
        Self {
            bytes: [0; Self::SIZE],
            start: 0,
            end: 0,
        }
    }
}

impl Lane {
    /// A Hello, a pong and a ping, each with its length.
    const SIZE: usize = 4 + Control::MAX_ENCODED + 2 * 13;

    fn len(&self) -> usize {
        usize::from(self.end - self.start)
    }

    fn as_slice(&self) -> &[u8] {
        self.bytes
            .get(self.start.into()..self.end.into())
            .unwrap_or_default()
    }

    fn push(&mut self, part: &[u8]) {
        let end = usize::from(self.end) + part.len();
        if let Some(free) = self.bytes.get_mut(self.end.into()..end) {
            free.copy_from_slice(part);
            self.end = u8::try_from(end).unwrap_or(u8::MAX);
        }
    }

    fn advance(&mut self, written: usize) {
        self.start += u8::try_from(written).unwrap_or(u8::MAX);
        if self.start >= self.end {
            self.start = 0;
            self.end = 0;
        }
    }
}
