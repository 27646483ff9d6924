//! Frames in, bytes out.
//!
//! This module decides the order of what is written: control frames have a
//! lane of their own and go out at the next frame boundary, ahead of whatever
//! the application queued. Small payloads are copied behind each other, large
//! ones are written from where they are, those above 64 KiB in parts.

use std::{
    collections::VecDeque,
    future::Future,
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use heartbeat_core::{Control, Goodbye, GoodbyeCode, PART};
use tokio::{
    io::{AsyncWrite, ReadBuf},
    task::yield_now,
};

use super::{HEADER, VARINT, frame_size, header, put_part_header};
use crate::{SendError, pool, transport::Scope};

/// A payload of at least so many bytes isn't copied.
const UNCOPIED: usize = 4 * 1024;

/// So many bytes of copied payloads wait until they are written: with more,
/// system calls are hardly fewer, and the processor's nearest cache is left.
const COPIES: usize = 48 * 1024;

/// So many bytes wait until they are written.
const AHEAD: usize = 192 * 1024;

/// A frame that leaves alone is copied together if it is no longer than this or
/// four times this: one slice is cheaper to write than two.
const LITTLE: usize = 260;

/// After so many bytes that the stream took at once, everybody else has a turn.
///
/// Who goes on until a socket is full fills the window of the peer's kernel,
/// and the connection then lives on window probes.
const BURST: u32 = 192 * 1024;

/// A message that is longer than a burst is written in longer ones, but no
/// longer than this: a megabyte at once is too much again.
const LONGEST_BURST: u32 = 640 * 1024;

/// As many pieces as one system call takes.
const PIECES: usize = 64;

/// Fewer pieces than this are few: four large messages and their headers.
const FEW: usize = 9;

/// The sending half of [`Wire`](super::Wire).
#[derive(Debug)]
pub(super) struct Writer {
    /// The largest message that the peer accepts.
    limit: Limit,
    control: Lane,
    /// The only message that is queued, as long as it is small and nothing of
    /// it was written: if it leaves alone and at once, it needs no buffer.
    lone: Option<Bytes>,
    /// Data frames in order; each piece begins in the middle of a frame or
    /// with a whole header.
    pieces: VecDeque<Bytes>,
    /// The frames behind the pieces.
    tail: BytesMut,
    /// Bytes in `lone`, `pieces` and `tail`, headers included.
    queued: usize,
    /// Bytes of the frame in front that was begun; zero between frames.
    begun: usize,
    /// Bytes written since the stream was last full, or somebody else had a
    /// turn.
    burst: u32,
    /// As many may be.
    longest_burst: u32,
    /// Somebody else is to have a turn.
    resting: bool,
}

/// The largest message.
#[derive(Clone, Copy, Debug)]
enum Limit {
    /// As we are configured, which has to do until the peer's Hello arrives.
    Ours(u32),
    /// As the peer announced it.
    Peers(u32),
}

impl Writer {
    pub(super) fn new(max_frame: u32) -> Self {
        Self {
            limit: Limit::Ours(max_frame),
            control: Lane::default(),
            lone: None,
            pieces: VecDeque::new(),
            tail: BytesMut::new(),
            queued: 0,
            begun: 0,
            burst: 0,
            longest_burst: BURST,
            resting: false,
        }
    }

    /// The peer announced its largest message.
    pub(super) fn greet(&mut self, max_frame: u32) {
        self.limit = Limit::Peers(match self.limit {
            Limit::Ours(_) => max_frame,
            // What it took back may have been counted on.
            Limit::Peers(former) => max_frame.max(former),
        });
    }

    /// Whether more may be queued before something is written.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.tail.len() < COPIES && self.queued < AHEAD && !self.resting
    }

    /// Whether the last write stopped after a long burst.
    pub(super) fn is_resting(&self) -> bool {
        self.resting
    }

    /// Something was read: the peer goes on, too.
    pub(super) fn end_burst(&mut self) {
        self.burst = 0;
    }

    /// Bytes that weren't written yet.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.control.len() + self.queued
    }

    pub(super) fn control_unwritten(&self) -> bool {
        !self.control.is_empty()
    }

    /// Queues a data frame.
    #[inline]
    pub(super) fn push(&mut self, payload: Bytes) -> Result<(), SendError> {
        let length = payload.len();
        if self.lone.is_some() || length >= UNCOPIED {
            return self.push_second_or_large(payload);
        }
        self.check(length)?;
        if self.queued == 0 {
            self.lone = Some(payload);
        } else {
            self.push_copied(&payload);
        }
        self.queued += HEADER + length;
        Ok(())
    }

    fn push_second_or_large(&mut self, payload: Bytes) -> Result<(), SendError> {
        let length = payload.len();
        self.check(length)?;
        self.unite();
        if length > PART {
            self.push_parts(payload);
            return Ok(());
        }
        if length >= UNCOPIED {
            self.push_uncopied(payload);
        } else {
            self.push_copied(&payload);
        }
        self.queued += HEADER + length;
        Ok(())
    }

    #[inline]
    fn check(&self, length: usize) -> Result<(), SendError> {
        let (Limit::Ours(max) | Limit::Peers(max)) = self.limit;
        let max = max as usize;
        match length <= max {
            true => Ok(()),
            false => Err(SendError::TooLong { length, max }),
        }
    }

    #[inline(always)] // where it is called once for each message
    fn push_copied(&mut self, payload: &[u8]) {
        self.reserve(HEADER + payload.len());
        self.tail.extend_from_slice(&header(payload.len()));
        self.tail.extend_from_slice(payload);
    }

    fn push_uncopied(&mut self, payload: Bytes) {
        self.reserve(HEADER);
        self.tail.extend_from_slice(&header(payload.len()));
        let header = self.tail.split().freeze();
        self.push_piece(header);
        self.push_piece(payload);
    }

    /// Each part is a frame of its own, so control frames go between them.
    fn push_parts(&mut self, mut rest: Bytes) {
        let mut announced = Some(rest.len());
        while !rest.is_empty() {
            let part = rest.split_to(rest.len().min(PART));
            self.reserve(HEADER + VARINT as usize);
            let before = self.tail.len();
            put_part_header(&mut self.tail, part.len(), announced.take());
            self.queued += self.tail.len() - before + part.len();
            let header = self.tail.split().freeze();
            self.push_piece(header);
            self.push_piece(part);
        }
        self.longest_burst = longest_burst(self.queued).max(self.longest_burst);
    }

    fn push_piece(&mut self, piece: Bytes) {
        if self.pieces.capacity() == 0 {
            self.pieces = pool::take_list();
        }
        self.pieces.push_back(piece);
    }

    /// What was alone isn't any more.
    #[inline]
    fn unite(&mut self) {
        if let Some(payload) = self.lone.take() {
            self.push_copied(&payload);
        }
    }

    /// Whether messages are queued, or the rest of one is.
    pub(super) fn has_messages(&self) -> bool {
        self.queued > 0
    }

    /// Queues a control frame.
    pub(super) fn push_control(&mut self, control: Control) {
        let mut buffer = [0; Control::MAX_ENCODED];
        // The buffer is long enough for every control frame.
        if let Ok(frame) = control.encode(&mut buffer) {
            self.control.push(frame);
        }
    }

    /// Queues a goodbye: no message may follow it, and none may wait.
    pub(super) fn push_goodbye(&mut self, code: GoodbyeCode, detail: &str) {
        debug_assert_eq!(self.queued, self.begun, "a goodbye goes behind messages");
        let mut buffer = [0; Goodbye::MAX_ENCODED];
        // The buffer is long enough for every goodbye.
        if let Ok(frame) = Goodbye::new(code, detail).encode(&mut buffer) {
            self.control.push(frame);
        }
    }

    /// Keeps of the messages only the rest of a frame that was begun.
    pub(super) fn give_up(&mut self) {
        let begun = self.begun_bytes();
        self.all_written();
        self.begun = begun.len();
        self.queued = begun.len();
        self.tail = begun;
    }

    /// The rest of the message's frame that was begun.
    fn begun_bytes(&self) -> BytesMut {
        let pieces = self.pieces.iter().map(|piece| &**piece);
        let mut bytes = BytesMut::new();
        let mut left = self.begun;
        for piece in pieces.chain([&*self.tail]) {
            let begun = piece.get(..left).unwrap_or(piece);
            bytes.extend_from_slice(begun);
            left -= begun.len();
        }
        bytes
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
            // The stream takes little at a time. A copy of what is left costs
            // less than a buffer that can't be used again.
            another.extend_from_slice(&self.tail);
            pool::give_back(&mut self.tail);
        } else if !self.tail.is_empty() {
            let full = self.tail.split().freeze();
            self.push_piece(full);
        }
        self.tail = another;
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
        self.resting = false;
        let result = loop {
            if self.in_scope(scope) == 0 {
                break stream.poll_flush(cx);
            }
            if self.burst >= self.longest_burst {
                self.end_long_burst();
                self.resting = true;
                // Wakes this task when all others had a turn.
                let _ = pin!(yield_now()).poll(cx);
                break Poll::Pending;
            }
            match self.poll_write_once(stream.as_mut(), cx, scope) {
                Poll::Ready(Ok(written)) => {
                    taken += written;
                    let written = u32::try_from(written).unwrap_or(u32::MAX);
                    self.burst = self.burst.saturating_add(written);
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

    /// Somebody else has a turn, and then there may be another burst.
    fn end_long_burst(&mut self) {
        self.burst = 0;
        self.longest_burst = longest_burst(self.queued);
    }

    /// Bytes to be written.
    fn in_scope(&self, scope: Scope) -> usize {
        match scope {
            Scope::All => self.len(),
            Scope::Control if !self.control.is_empty() => self.begun + self.control.len(),
            Scope::Control => 0,
        }
    }

    /// One system call.
    #[inline]
    fn poll_write_once(
        &mut self,
        stream: Pin<&mut impl AsyncWrite>,
        cx: &mut Context<'_>,
        scope: Scope,
    ) -> Poll<io::Result<usize>> {
        match &self.lone {
            Some(payload) if self.control.is_empty() => {
                let header = header(payload.len());
                let written = if HEADER + payload.len() <= LITTLE {
                    poll_write_copy::<LITTLE>(stream, cx, &header, payload)
                } else if HEADER + payload.len() <= 4 * LITTLE {
                    poll_write_copy::<{ 4 * LITTLE }>(stream, cx, &header, payload)
                } else if stream.is_write_vectored() {
                    stream.poll_write_vectored(cx, &[&header, &**payload].map(IoSlice::new))
                } else {
                    return self.poll_write_queue(stream, cx, scope);
                };
                self.advance_lone(written?)
            }
            _ => self.poll_write_queue(stream, cx, scope),
        }
    }

    /// What the stream did with a message that was alone.
    #[inline]
    fn advance_lone(&mut self, written: Poll<usize>) -> Poll<io::Result<usize>> {
        if written == Poll::Ready(self.queued) {
            self.lone = None;
            self.queued = 0;
        } else {
            self.unite();
            self.advance_data(match written {
                Poll::Ready(written) => written,
                Poll::Pending => 0,
            });
        }
        written.map(not_zero)
    }

    fn poll_write_queue(
        &mut self,
        stream: Pin<&mut impl AsyncWrite>,
        cx: &mut Context<'_>,
        scope: Scope,
    ) -> Poll<io::Result<usize>> {
        self.unite();
        let room = self.longest_burst.saturating_sub(self.burst) as usize;
        if self.control.is_empty() && self.pieces.is_empty() {
            // What there is most often: small frames behind each other.
            let some = self.tail.get(..room).unwrap_or(&self.tail);
            let written = ready!(stream.poll_write(cx, some))?;
            self.advance_data(written);
            return Poll::Ready(not_zero(written));
        }
        // Few pieces don't need a long list, which takes its time to fill.
        match self.pieces.len() {
            0..FEW => self.poll_write_pieces::<{ FEW + 2 }>(stream, cx, scope, room),
            _ => self.poll_write_pieces::<PIECES>(stream, cx, scope, room),
        }
    }

    /// One system call with up to `N` slices.
    fn poll_write_pieces<const N: usize>(
        &mut self,
        stream: Pin<&mut impl AsyncWrite>,
        cx: &mut Context<'_>,
        scope: Scope,
        room: usize,
    ) -> Poll<io::Result<usize>> {
        let pieces = self.pieces.iter().map(|piece| &**piece);
        let data = pieces
            .chain([&*self.tail])
            .filter(|piece| !piece.is_empty());
        let mut slices = Slices::<N>::with_room(room);
        // The rest of a frame that was begun, the control frames, and then
        // the other frames.
        let mut begun = self.begun;
        let mut control = Some(self.control.as_slice()).filter(|lane| !lane.is_empty());
        let beyond = scope == Scope::All;
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
        Poll::Ready(not_zero(written))
    }

    /// So many bytes were written, in the order of `poll_write_once`.
    fn advance(&mut self, written: usize) {
        let mut left = written;
        if !self.control.is_empty() {
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
            Some(length) => frame_size(u32::from_be_bytes(*length)),
            None => self.queued,
        }
    }

    /// Nothing is queued any more: gives the memory back.
    fn all_written(&mut self) {
        self.lone = None;
        self.queued = 0;
        self.begun = 0;
        // Its pieces share the tail's memory.
        pool::give_back_list(&mut self.pieces);
        pool::give_back(&mut self.tail);
    }

    /// What wasn't written, in the order in which it would have been.
    pub(super) fn into_bytes(mut self) -> Bytes {
        self.unite();
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
struct Slices<'a, const N: usize> {
    slices: [IoSlice<'a>; N],
    count: usize,
    /// Bytes that may be added.
    room: usize,
}

impl<'a, const N: usize> Slices<'a, N> {
    fn with_room(room: usize) -> Self {
        Self {
            slices: [IoSlice::new(&[]); N],
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

/// How long a burst may be with so many bytes queued: longer with a long message
/// among them, as not much else is queued behind each other.
fn longest_burst(queued: usize) -> u32 {
    u32::try_from(queued).map_or(LONGEST_BURST, |queued| queued.clamp(BURST, LONGEST_BURST))
}

/// Writes header and payload, of `N` bytes at most, behind each other.
#[inline]
fn poll_write_copy<const N: usize>(
    stream: Pin<&mut impl AsyncWrite>,
    cx: &mut Context<'_>,
    header: &[u8; HEADER],
    payload: &[u8],
) -> Poll<io::Result<usize>> {
    let mut memory = [const { MaybeUninit::uninit() }; N];
    let mut memory = ReadBuf::uninit(&mut memory);
    memory.put_slice(header);
    memory.put_slice(payload);
    stream.poll_write(cx, memory.filled())
}

/// A stream that takes no bytes and isn't pending never will.
fn not_zero(written: usize) -> io::Result<usize> {
    match written {
        0 => Err(io::ErrorKind::WriteZero.into()),
        written => Ok(written),
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.all_written();
    }
}

/// The control frames of one round of outputs; they fit by construction: the
/// monitor is asked for more only when these have left. Without any it takes no
/// more room than a pointer.
#[derive(Debug, Default)]
struct Lane(Option<Box<Unwritten>>);

/// At least one byte that wasn't written yet.
#[derive(Debug)]
struct Unwritten {
    bytes: [u8; Self::SIZE],
    start: u8,
    end: u8,
}

impl Unwritten {
    /// A Hello, a pong, a ping, an Alive, a goodbye and its answer, each with its
    /// length.
    const SIZE: usize = 4 + Control::MAX_ENCODED + 2 * 13 + 5 + 4 + Goodbye::MAX_ENCODED + 7;
}

impl Lane {
    #[inline]
    fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    #[inline]
    fn len(&self) -> usize {
        match &self.0 {
            None => 0,
            Some(lane) => usize::from(lane.end - lane.start),
        }
    }

    fn as_slice(&self) -> &[u8] {
        let lane = self.0.as_ref();
        lane.and_then(|lane| lane.bytes.get(lane.start.into()..lane.end.into()))
            .unwrap_or_default()
    }

    /// Adds a control frame, and its length in front.
    fn push(&mut self, frame: &[u8]) {
        let lane = self.0.get_or_insert_with(|| {
            Box::new(Unwritten {
                bytes: [0; Unwritten::SIZE],
                start: 0,
                end: 0,
            })
        });
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        for part in [&length.to_be_bytes(), frame] {
            let end = usize::from(lane.end) + part.len();
            if let Some(free) = lane.bytes.get_mut(lane.end.into()..end) {
                free.copy_from_slice(part);
                lane.end = u8::try_from(end).unwrap_or(u8::MAX);
            }
        }
    }

    fn advance(&mut self, written: usize) {
        if written >= self.len() {
            self.0 = None;
        } else if let Some(lane) = &mut self.0 {
            lane.start += u8::try_from(written).unwrap_or(u8::MAX);
        }
    }
}
