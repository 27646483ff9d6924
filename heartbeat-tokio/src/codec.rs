//! A heartbeat in a protocol that has a ping of its own, over the protocol's codec.
//!
//! This module decides how bytes go through a tokio-util codec, and that a panic of the
//! codec ends its own connection and nothing else. The codec decides the form of its
//! frames, and the monitor when to ping.

use std::{
    collections::VecDeque,
    error::Error,
    io, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use heartbeat_core::{Control, Dialogue, GoodbyeCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::{
    codec::{Decoder, Encoder},
    io::poll_read_buf,
};

use crate::{
    Detail, SendError,
    error::EncodeError,
    pool,
    transport::{
        Broken, Buffered, Dialect, Doorman, Failure, Frame, Protocol, Scope, Transport, dialogue_of,
    },
};

/// A buffer with less room than this counts as full.
const ROOM: usize = 2048;

/// The transport of [`Heartbeat::with_codec`](crate::Heartbeat::with_codec).
///
/// Messages are encoded when they are sent, so a ping goes behind what is in
/// the buffer, and a sender has to wait while that is 8 KiB or more, as with
/// tokio-util's `Framed`.
#[derive(Debug)]
pub struct Codec<C> {
    /// It isn't called again after a panic, because its state may be inconsistent.
    codec: Result<C, Panicked>,
    read: BytesMut,
    /// Bytes that were read before this connection began, as long as they count as unread.
    handed_over: usize,
    /// The stream has ended.
    eof: bool,
    /// The bytes of the last frame.
    weight: usize,
    /// The bytes that were read since the last frame.
    arrived: usize,
    doorman: Doorman,
    write: BytesMut,
    /// The length of `write` up to the end of the last control frame.
    control: usize,
    /// A control frame that the codec couldn't encode.
    refused: Option<io::Error>,
    direction: Direction,
}

/// Our direction of the stream, if its end means that we have finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Open,
    /// It ends behind the queued bytes.
    Ending,
    Ended,
}

impl<C: Dialect> Codec<C> {
    pub(crate) fn new(codec: C) -> Self {
        Self::resumed(codec, BytesMut::new(), BytesMut::new())
    }

    /// Starts with bytes that were read and bytes to write.
    pub(crate) fn resumed(codec: C, read: BytesMut, write: BytesMut) -> Self {
        Self {
            codec: Ok(codec),
            handed_over: read.len(),
            read,
            eof: false,
            weight: 0,
            arrived: 0,
            doorman: Doorman::new(C::HELLO),
            write,
            control: 0,
            refused: None,
            direction: Direction::Open,
        }
    }

    /// Encodes a frame, or nothing of it.
    fn encode(&mut self, frame: Frame<C::Message>) -> Result<(), Box<dyn Error + Send + Sync>>
    where
        C: Encoder<Frame<<C as Dialect>::Message>>,
        <C as Encoder<Frame<<C as Dialect>::Message>>>::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        if self.write.capacity() == 0 {
            self.write = pool::take();
        }
        let before = self.write.len();
        let result = ask(&mut self.codec, |codec| {
            codec.encode(frame, &mut self.write)
        });
        if result.is_err() {
            self.write.truncate(before);
        }
        result
    }
}

impl<C> Codec<C> {
    /// Ends our direction of the stream, once.
    fn poll_end(
        &mut self,
        stream: Pin<&mut impl AsyncWrite>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.direction == Direction::Ended {
            return Poll::Ready(Ok(()));
        }
        let ended = ready!(stream.poll_shutdown(cx));
        self.direction = Direction::Ended;
        Poll::Ready(ended)
    }
}

impl<C: Dialect> Protocol for Codec<C> {
    type Message = C::Message;
    /// None after it has panicked.
    type Codec = Option<C>;
    const HELLO: bool = C::HELLO;
    const HALF_CLOSE: bool = C::HALF_CLOSE && !C::HELLO;
}

impl<S, C> Transport<S> for Codec<C>
where
    S: AsyncRead + AsyncWrite + Unpin,
    C: Dialect,
    C: Decoder<Item = Frame<<C as Dialect>::Message>>,
    C: Encoder<Frame<<C as Dialect>::Message>>,
    <C as Decoder>::Error: Into<Box<dyn Error + Send + Sync>>,
    <C as Encoder<Frame<<C as Dialect>::Message>>>::Error: Into<Box<dyn Error + Send + Sync>>,
{
    fn poll_read(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.handed_over > 0 {
            let read = mem::take(&mut self.handed_over);
            self.arrived = read;
            return Poll::Ready(Ok(read));
        }
        if self.read.capacity() == 0 {
            self.read = pool::take();
        } else if self.read.capacity() - self.read.len() < ROOM {
            self.read.reserve(ROOM);
        }
        let result = poll_read_buf(Pin::new(stream), cx, &mut self.read);
        if self.read.is_empty() {
            pool::give_back(&mut self.read);
        }
        let read = ready!(result)?;
        self.eof |= read == 0;
        self.arrived = self.arrived.saturating_add(read);
        Poll::Ready(Ok(read))
    }

    fn next_frame(&mut self) -> Result<Option<Frame<C::Message>>, Failure> {
        loop {
            let before = self.read.len();
            // A codec isn't called without bytes, except at the end.
            if self.codec.is_err() || before == 0 && !self.eof {
                return Ok(None);
            }
            let frame = ask(&mut self.codec, |codec| match self.eof {
                true => codec.decode_eof(&mut self.read),
                false => codec.decode(&mut self.read),
            });
            self.weight = before.saturating_sub(self.read.len());
            let frame = match frame {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(None),
                Err(error) => return Err(Failure::of::<C>(error, by_codec)),
            };
            self.arrived = self.read.len();
            if self.doorman.admits(&frame)? {
                return Ok(Some(frame));
            }
        }
    }

    fn weight(&self) -> usize {
        self.weight
    }

    fn unread(&self) -> usize {
        self.read.len()
    }

    fn incomplete(&self) -> usize {
        match self.doorman.is_open() {
            true => self.arrived,
            false => 0,
        }
    }

    fn push(&mut self, message: C::Message) -> Result<(), SendError> {
        let encoded = self.encode(Frame::Data(message));
        encoded.map_err(|error| SendError::Unencodable(EncodeError::new(error)))
    }

    fn push_control(&mut self, control: Control) {
        let sayable = match control {
            Control::Hello(_) | Control::Alive | Control::Fin => C::HELLO,
            _ => self.direction == Direction::Open,
        };
        if Self::HALF_CLOSE && control == Control::Fin {
            self.direction = Direction::Ending;
        }
        if sayable {
            if let Err(error) = self.encode(control.into()) {
                self.refused = Some(io::Error::new(io::ErrorKind::InvalidInput, error));
            }
        }
        self.control = self.write.len();
    }

    fn has_messages(&self) -> bool {
        !self.write.is_empty()
    }

    /// The ends of encoded frames are unknown, so all of it stays.
    fn give_up(&mut self) {}

    fn push_goodbye(&mut self, code: GoodbyeCode, detail: Detail) {
        let sayable = C::GOODBYE && self.direction == Direction::Open;
        if sayable && self.encode(Frame::Goodbye { code, detail }).is_ok() {
            self.control = self.write.len();
        }
    }

    fn unwritten(&self) -> usize {
        self.write.len()
    }

    fn control_unwritten(&self) -> bool {
        self.control > 0 || self.direction == Direction::Ending
    }

    fn poll_write(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        scope: Scope,
    ) -> (usize, Poll<io::Result<()>>) {
        let failed = match &self.codec {
            Ok(_) => self.refused.take(),
            Err(panicked) => Some(io::Error::other(panicked.clone())),
        };
        if let Some(error) = failed {
            return (0, Poll::Ready(Err(error)));
        }
        let mut stream = Pin::new(stream);
        let mut taken = 0;
        let result = loop {
            let left = match scope {
                Scope::All => self.write.len(),
                Scope::Control => self.control,
            };
            if left == 0 && self.direction == Direction::Open {
                break stream.poll_flush(cx);
            }
            if left == 0 {
                break self.poll_end(stream, cx);
            }
            match stream.as_mut().poll_write(cx, &self.write) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    taken += written;
                    self.write.advance(written);
                    self.control = self.control.saturating_sub(written);
                }
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        if self.write.is_empty() {
            pool::give_back(&mut self.write);
        }
        (taken, result)
    }

    fn poll_shutdown(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_end(Pin::new(stream), cx)
    }

    fn dialogue(&self, _: &S) -> Dialogue {
        let asked = self.codec.as_ref().ok();
        let answer = asked.and_then(|codec| catch(|| dialogue_of(codec)).ok());
        answer.unwrap_or_default()
    }

    fn into_buffered(self) -> Buffered<C::Message, Option<C>> {
        Buffered {
            received: VecDeque::new(),
            unsent: VecDeque::new(),
            read: self.read.freeze(),
            write: self.write.freeze(),
            codec: self.codec.ok(),
        }
    }
}

/// The meaning of a codec's error that its dialect doesn't define.
fn by_codec(error: Box<dyn Error + Send + Sync>) -> Failure {
    Failure::Protocol(Broken::by_codec(error))
}

/// The message of a codec's panic.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the codec panicked: {0}")]
pub(crate) struct Panicked(Box<str>);

/// Calls application code that may panic, in a state of ours that is consistent.
pub(crate) fn catch<T>(call: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|payload| {
        let literal = payload.downcast_ref::<&str>().copied();
        let words = literal.or_else(|| payload.downcast_ref().map(String::as_str));
        Panicked(words.unwrap_or("it doesn't say why").into())
    })
}

/// Calls a codec, unless it has panicked before.
fn ask<C, T, E>(
    codec: &mut Result<C, Panicked>,
    question: impl FnOnce(&mut C) -> Result<T, E>,
) -> Result<T, Box<dyn Error + Send + Sync>>
where
    E: Into<Box<dyn Error + Send + Sync>>,
{
    match codec {
        Err(panicked) => Err(panicked.clone().into()),
        Ok(asked) => match catch(|| question(asked)) {
            Ok(answer) => answer.map_err(Into::into),
            Err(panicked) => {
                *codec = Err(panicked.clone());
                Err(panicked.into())
            }
        },
    }
}
