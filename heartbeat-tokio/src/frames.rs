//! A heartbeat over a transport of whole frames.
//!
//! This module decides in which order frames go into a `Sink`, and what its errors mean. The
//! monitor decides when to ping.

use std::{
    collections::VecDeque,
    error::Error,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use futures_sink::Sink;
use heartbeat_core::{Config, Control, Dialogue, GoodbyeCode, ProtocolError};

use crate::{
    Detail, SendError,
    transport::{
        Broken, Buffered, Dialect, Doorman, Failure, Frame, Limit, Protocol, Scope, Transport,
        dialogue_of, reason,
    },
};

/// The bytes of messages that a sink may hold before another message is handed over. Control
/// frames can only overtake messages that weren't handed over.
const HELD: usize = 32 * 1024;

/// The bytes of messages that are queued before a sender waits: two messages of 64 KiB.
/// With less, each would be flushed to its last byte before the next is queued.
const ROOM: usize = 128 * 1024;

/// The transport of [`Heartbeat::with_frames`](crate::Heartbeat::with_frames).
///
/// Only whole frames are visible. A frame that takes longer to arrive than the detection time
/// is a silence, unless the transport yields a [`Frame::Other`] for each part of it, or the
/// kernel reports the bytes (Linux and Android, if the socket is known). The peer's pings
/// wait behind those parts, so an Alive shows it that we live.
#[derive(Debug)]
pub struct Frames<T: Dialect> {
    /// Frames that weren't taken out yet, and their weights.
    received: VecDeque<(Frame<T::Message>, usize)>,
    /// The weight of all of them.
    unread: usize,
    /// The weight of the last one that was taken out.
    weight: usize,
    /// That frame may have been a part of a message that isn't whole.
    in_message: bool,
    /// The transport failed with an error that isn't one of I/O.
    broken: Option<Broken>,
    doorman: Doorman,
    /// The longest message that the peer accepts, if its Hello announced that.
    limit: Limit,
    control: VecDeque<Frame<T::Message>>,
    queue: VecDeque<T::Message>,
    /// The weight of the messages in `queue`.
    queued: usize,
    /// The weight of the messages that the sink may hold: it doesn't report what it has written.
    held: usize,
}

impl<T: Dialect> Frames<T> {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            received: VecDeque::new(),
            unread: 0,
            weight: 0,
            in_message: false,
            broken: None,
            doorman: Doorman::new(T::HELLO),
            limit: Limit::new(config),
            control: VecDeque::new(),
            queue: VecDeque::new(),
            queued: 0,
            held: 0,
        }
    }

    /// The memory that a message takes.
    fn cost(message: &T::Message) -> usize {
        size_of::<T::Message>() + T::weight(message)
    }

    /// A frame of this weight was taken out.
    fn note_taken(&mut self, weight: usize, in_message: bool) {
        self.unread -= weight;
        self.weight = weight;
        self.in_message = in_message;
    }

    /// The next frame that is in scope.
    fn take_next(&mut self, scope: Scope) -> Option<Frame<T::Message>> {
        if self.control.is_empty() && scope == Scope::All {
            let message = self.queue.pop_front()?;
            let cost = Self::cost(&message);
            self.queued -= cost;
            self.held += cost;
            return Some(Frame::Data(message));
        }
        self.control.pop_front()
    }

    fn has_next(&self, scope: Scope) -> bool {
        !self.control.is_empty() || (scope == Scope::All && !self.queue.is_empty())
    }

    /// Hands over frames until the sink has no more room. Counts those that show progress: a
    /// sink that writes nothing may keep any number of pongs, and the peer decides how many
    /// there are. Of the other frames it gets a bounded number.
    fn poll_hand_over<E>(
        &mut self,
        mut sink: Pin<&mut T>,
        cx: &mut Context<'_>,
        scope: Scope,
        taken: &mut usize,
    ) -> Poll<Result<(), E>>
    where
        T: Sink<Frame<T::Message>, Error = E>,
    {
        while self.has_next(scope) {
            if self.control.is_empty() && self.held >= HELD {
                ready!(self.poll_flush(sink.as_mut(), cx))?;
            }
            ready!(sink.as_mut().poll_ready(cx))?;
            if let Some(frame) = self.take_next(scope) {
                *taken += usize::from(!matches!(frame, Frame::Pong(_)));
                sink.as_mut().start_send(frame)?;
            }
        }
        self.poll_flush(sink, cx)
    }

    fn poll_flush<E>(&mut self, sink: Pin<&mut T>, cx: &mut Context<'_>) -> Poll<Result<(), E>>
    where
        T: Sink<Frame<T::Message>, Error = E>,
    {
        ready!(sink.poll_flush(cx))?;
        self.held = 0;
        Poll::Ready(Ok(()))
    }
}

impl<T: Dialect> Protocol for Frames<T> {
    type Message = T::Message;
    type Codec = ();
    const HELLO: bool = T::HELLO;
    const HALF_CLOSE: bool = false;
}

impl<T, E> Transport<T> for Frames<T>
where
    T: Stream<Item = Result<Frame<<T as Dialect>::Message>, E>>,
    T: Sink<Frame<<T as Dialect>::Message>, Error = E>,
    T: Dialect + Unpin,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    /// A sink that is closed takes nothing more.
    const CLOSES: bool = true;

    fn poll_read(&mut self, transport: &mut T, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let read = match ready!(Pin::new(transport).poll_next(cx)) {
            None => 0,
            Some(Ok(frame)) => {
                let weight = match &frame {
                    Frame::Data(message) => Self::cost(message),
                    _ => 1,
                };
                self.unread += weight;
                self.received.push_back((frame, weight));
                weight
            }
            Some(Err(error)) => match Failure::of::<T>(error.into(), meaning) {
                Failure::Io(error) => return Poll::Ready(Err(error)),
                Failure::Protocol(broken) => {
                    self.broken = Some(broken);
                    1
                }
            },
        };
        Poll::Ready(Ok(read))
    }

    #[inline]
    fn next_message(&mut self) -> Option<T::Message> {
        let is_message = matches!(self.received.front(), Some((Frame::Data(_), _)));
        if !is_message || self.doorman != Doorman::Open {
            return None;
        }
        let Some((Frame::Data(message), weight)) = self.received.pop_front() else {
            return None;
        };
        self.note_taken(weight, false);
        Some(message)
    }

    fn next_frame(&mut self) -> Result<Option<Frame<T::Message>>, Failure> {
        while let Some((frame, weight)) = self.received.pop_front() {
            self.note_taken(weight, matches!(frame, Frame::Other));
            if self.doorman.admits(&frame)? {
                if let Frame::Hello(hello) = &frame {
                    self.limit.greet(hello.max_frame);
                }
                return Ok(Some(frame));
            }
        }
        self.broken
            .take()
            .map_or(Ok(None), |broken| Err(broken.into()))
    }

    fn weight(&self) -> usize {
        self.weight
    }

    fn unread(&self) -> usize {
        self.unread
    }

    fn may_hold_more(&self) -> bool {
        true
    }

    /// A needless Alive costs little. Without one, a peer whose pings wait behind a long
    /// message would give us up.
    fn is_in_message(&self) -> bool {
        T::HELLO && self.in_message
    }

    fn push(&mut self, message: T::Message) -> Result<(), SendError> {
        if T::HELLO {
            self.limit.check(T::length(&message))?;
        }
        self.queued += Self::cost(&message);
        self.queue.push_back(message);
        Ok(())
    }

    fn push_control(&mut self, control: Control) {
        // Where there is no Hello, the monitor sends no Alive, and a Fin is refused before.
        debug_assert!(
            T::HELLO || !matches!(control, Control::Hello(_) | Control::Alive | Control::Fin)
        );
        self.control.push_back(control.into());
    }

    fn push_goodbye(&mut self, code: GoodbyeCode, detail: Detail) {
        if T::GOODBYE {
            self.control.push_back(Frame::Goodbye { code, detail });
        }
    }

    fn has_messages(&self) -> bool {
        !self.queue.is_empty() || self.held > 0
    }

    fn has_room(&self) -> bool {
        self.unwritten() < ROOM
    }

    fn give_up(&mut self) {
        self.queue.clear();
        self.queued = 0;
    }

    fn unwritten(&self) -> usize {
        self.queued + self.held + self.control.len()
    }

    fn control_unwritten(&self) -> bool {
        !self.control.is_empty()
    }

    fn poll_write(
        &mut self,
        transport: &mut T,
        cx: &mut Context<'_>,
        scope: Scope,
    ) -> (usize, Poll<io::Result<()>>) {
        let mut taken = 0;
        let written = self.poll_hand_over(Pin::new(transport), cx, scope, &mut taken);
        (taken, written.map_err(unwritable::<T>))
    }

    fn poll_shutdown(&mut self, transport: &mut T, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(transport).poll_close(cx);
        closed.map_err(unwritable::<T>)
    }

    fn dialogue(&self, transport: &T) -> Dialogue {
        dialogue_of(transport)
    }

    fn into_buffered(self) -> Buffered<T::Message> {
        Buffered {
            received: self
                .received
                .into_iter()
                .filter_map(|(frame, _)| match frame {
                    Frame::Data(message) => Some(message),
                    _ => None,
                })
                .collect(),
            unsent: self.queue,
            ..Buffered::default()
        }
    }
}

/// The meaning of a transport's error that its dialect doesn't define.
fn meaning(error: Box<dyn Error + Send + Sync>) -> Failure {
    let by_peer = reason::<ProtocolError>(&*error).is_some();
    match reason::<io::Error>(&*error) {
        Some(_) if !by_peer => Failure::Io(into_io(error)),
        _ => Failure::Protocol(Broken::by_codec(error)),
    }
}

/// The meaning of an error for writing.
fn unwritable<T: Dialect>(error: impl Into<Box<dyn Error + Send + Sync>>) -> io::Error {
    Failure::of::<T>(error.into(), |error| Failure::Io(into_io(error))).into_io()
}

/// The operating system's error among an error's sources, unchanged: its code says what
/// happened to the connection.
fn into_io(error: Box<dyn Error + Send + Sync>) -> io::Error {
    match reason::<io::Error>(&*error) {
        Some(io) => match io.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(io.kind(), error),
        },
        None => io::Error::other(error),
    }
}
