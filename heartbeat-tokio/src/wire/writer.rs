//! Encodes frames and writes bytes.
//!
//! This module decides the order of writing: the rest of a begun frame, then control frames,
//! then the application's messages. `queue` and `lane` decide how frames lie in memory, and
//! `burst` when other tasks have a turn.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{BufMut, Bytes, BytesMut};
use heartbeat_core::{Control, GoodbyeCode, PART};
use tokio::io::{AsyncWrite, ReadBuf};

use super::{
    HEADER,
    burst::Burst,
    header,
    lane::Lane,
    queue::{Queue, UNCOPIED},
};
use crate::{
    SendError,
    transport::{Limit, Scope},
};

/// The number of slices for one system call.
const SLICES: usize = 32;

/// The sending half of [`Wire`](super::Wire).
#[derive(Debug)]
pub(super) struct Writer {
    /// The largest message that the peer accepts.
    limit: Limit,
    lane: Lane,
    queue: Queue,
    burst: Burst,
}

/// The bytes that weren't written yet.
#[derive(Clone, Copy, Debug)]
enum Place {
    Lane,
    Queue,
}

impl Writer {
    pub(super) fn new(limit: Limit) -> Self {
        Self {
            limit,
            lane: Lane::default(),
            queue: Queue::default(),
            burst: Burst::new(),
        }
    }

    /// The peer announced its largest message.
    pub(super) fn greet(&mut self, max_frame: u32) {
        self.limit.greet(max_frame);
    }

    /// Whether more may be queued before something is written.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.queue.has_room() && !self.burst.is_resting()
    }

    /// Whether the last write stopped after a long burst.
    pub(super) fn is_resting(&self) -> bool {
        self.burst.is_resting()
    }

    /// Bytes were read: the peer makes progress too.
    pub(super) fn end_burst(&mut self) {
        self.burst.end();
    }

    /// Bytes that weren't written yet.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.lane.len() + self.queue.len()
    }

    pub(super) fn control_unwritten(&self) -> bool {
        !self.lane.is_empty()
    }

    /// Whether messages are queued, or the rest of one.
    pub(super) fn has_messages(&self) -> bool {
        self.queue.len() > 0
    }

    /// Queues a message.
    #[inline]
    pub(super) fn push(&mut self, payload: Bytes) -> Result<(), SendError> {
        let length = payload.len();
        self.limit.check(length)?;
        if length > PART {
            self.queue.push_parts(payload);
            self.burst.extend(self.queue.len());
        } else {
            self.queue.push(payload);
        }
        Ok(())
    }

    /// Queues a control frame.
    pub(super) fn push_control(&mut self, control: Control) {
        self.lane.push_control(control);
    }

    /// Queues a goodbye: no message may follow it, and none may wait.
    pub(super) fn push_goodbye(&mut self, code: GoodbyeCode, detail: &str) {
        let (queued, begun) = (self.queue.len(), self.queue.begun());
        debug_assert_eq!(queued, begun, "a goodbye goes behind messages");
        self.lane.push_goodbye(code, detail);
    }

    /// Discards the messages, except for the rest of a begun frame.
    pub(super) fn give_up(&mut self) {
        self.queue.give_up();
    }

    /// The bytes to write, in this order. No message may be inline.
    fn in_order(&self, scope: Scope) -> impl Iterator<Item = (Place, &[u8])> {
        // Without control frames nothing goes between.
        let begun = if self.lane.is_empty() {
            0
        } else {
            self.queue.begun()
        };
        let front = self.queue.chunks_before(begun);
        let lane = self.lane.bytes().into_iter();
        let rest = self
            .queue
            .chunks_behind(begun)
            .take_while(move |_| scope == Scope::All);
        let queued = |bytes| (Place::Queue, bytes);
        (front.map(queued))
            .chain(lane.map(|bytes| (Place::Lane, bytes)))
            .chain(rest.map(queued))
    }

    /// Its bytes.
    fn in_scope(&self, scope: Scope) -> usize {
        match scope {
            Scope::All => self.len(),
            Scope::Control if self.lane.is_empty() => 0,
            Scope::Control => self.queue.begun() + self.lane.len(),
        }
    }

    /// Writes the frames in scope, and flushes the stream when all of them are written. Also
    /// returns the number of bytes that the stream took.
    pub(super) fn poll_write(
        &mut self,
        mut stream: Pin<&mut impl AsyncWrite>,
        cx: &mut Context<'_>,
        scope: Scope,
    ) -> (usize, Poll<io::Result<()>>) {
        let mut taken = 0;
        self.burst.resume();
        let result = loop {
            if self.in_scope(scope) == 0 {
                break stream.poll_flush(cx);
            }
            if self.burst.room() == 0 {
                self.burst.rest(self.queue.len(), cx);
                break Poll::Pending;
            }
            match self.poll_write_once(stream.as_mut(), cx, scope) {
                Poll::Ready(Ok(written)) => {
                    taken += written;
                    self.burst.go_on(written);
                }
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.burst.end();
                    break Poll::Pending;
                }
            }
        };
        (taken, result)
    }

    /// One system call.
    #[inline]
    fn poll_write_once(
        &mut self,
        stream: Pin<&mut impl AsyncWrite>,
        cx: &mut Context<'_>,
        scope: Scope,
    ) -> Poll<io::Result<usize>> {
        let lone = self.queue.lone().filter(|_| self.lane.is_empty());
        let written = match lone {
            Some(payload) => ready!(poll_write_copy(stream, cx, payload))?,
            None => {
                self.queue.unite();
                ready!(self.poll_write_slices(stream, cx, scope))?
            }
        };
        self.advance(written, scope);
        match written {
            // A stream that takes no bytes and isn't pending will never take any.
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            written => Poll::Ready(Ok(written)),
        }
    }

    fn poll_write_slices(
        &self,
        stream: Pin<&mut impl AsyncWrite>,
        cx: &mut Context<'_>,
        scope: Scope,
    ) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        let mut room = self.burst.room();
        for (slice, (_, bytes)) in slices.iter_mut().zip(self.in_order(scope)) {
            let some = bytes.get(..room).unwrap_or(bytes);
            *slice = IoSlice::new(some);
            count += 1;
            room -= some.len();
            if room == 0 {
                break;
            }
        }
        match slices.get(..count).unwrap_or_default() {
            [slice] => stream.poll_write(cx, slice),
            [slice, ..] if !stream.is_write_vectored() => stream.poll_write(cx, slice),
            slices => stream.poll_write_vectored(cx, slices),
        }
    }

    /// Removes the `written` bytes at the front.
    #[inline]
    fn advance(&mut self, written: usize, scope: Scope) {
        if self.lane.is_empty() {
            self.queue.advance(written);
        } else {
            self.advance_both(written, scope);
        }
    }

    fn advance_both(&mut self, written: usize, scope: Scope) {
        let (mut of_lane, mut of_queue) = (0, 0);
        for (place, bytes) in self.in_order(scope) {
            let left = written - of_lane - of_queue;
            let of_place = match place {
                Place::Lane => &mut of_lane,
                Place::Queue => &mut of_queue,
            };
            *of_place += bytes.len().min(left);
        }
        debug_assert_eq!(of_lane + of_queue, written, "more than there is");
        self.queue.advance(of_queue);
        self.lane.advance(of_lane);
    }

    /// The unwritten bytes, in the order of writing.
    pub(super) fn into_bytes(mut self) -> Bytes {
        self.queue.unite();
        let mut all = BytesMut::with_capacity(self.len());
        for (_, bytes) in self.in_order(Scope::All) {
            all.put_slice(bytes);
        }
        debug_assert_eq!(all.len(), self.len(), "all of it, and nothing twice");
        all.freeze()
    }
}

/// Copies header and payload of a small message into one slice, which is cheaper to write
/// than two.
#[inline]
fn poll_write_copy(
    stream: Pin<&mut impl AsyncWrite>,
    cx: &mut Context<'_>,
    payload: &[u8],
) -> Poll<io::Result<usize>> {
    let mut memory = [const { MaybeUninit::uninit() }; HEADER + UNCOPIED];
    let mut memory = ReadBuf::uninit(&mut memory);
    memory.put_slice(&header(payload.len()));
    memory.put_slice(payload);
    stream.poll_write(cx, memory.filled())
}
