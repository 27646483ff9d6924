//! WebSockets with a heartbeat, over tokio-tungstenite.
//!
//! This module decides how beats travel in a WebSocket ([`Beats`]), and which
//! of its ends is which. The rest is tungstenite's; pings of the peer's it
//! answers by itself.
//!
//! * A close frame is a goodbye, in both directions, but where there is one of
//!   its own. A connection that ends without a goodbye was cut off.
//! * Bytes of a message that isn't whole yet are a sign of life too, but where long
//!   messages travel in parts: there each part is.

use std::{
    collections::VecDeque,
    error::Error as StdError,
    fmt::Debug,
    io,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{BufMut, Bytes, BytesMut};
use futures::{Sink, Stream};
use heartbeat_tokio::{
    Detail, Dialect, Frame, GoodbyeCode, ProtocolError as Broken,
    heartbeat_core::{Control, Goodbye, Nonce, PART, Tag},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_tungstenite::{
    WebSocketStream, accept_async_with_config,
    tungstenite::{
        self, Error, Utf8Bytes,
        error::ProtocolError,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

/// What is wrong with a frame, or with the socket.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// How beats travel.
pub trait Beats: Unpin {
    /// The application's messages.
    type Message: Clone + Debug;

    /// Limits the messages of the application to `max_message` bytes.
    fn new(max_message: usize) -> Self;

    /// The longest message of a WebSocket that may arrive.
    fn longest(&self) -> usize;

    /// Whether there are messages for Hello and Goodbye. Without them a close
    /// frame is the goodbye, and nobody says hello.
    const HELLO: bool = false;

    /// The bytes of a message.
    fn weight(message: &Self::Message) -> usize;

    /// A frame on its way out: the messages that it travels in, if it does.
    ///
    /// # Errors
    ///
    /// If it can't be written. That is the end of the connection.
    fn wrap(frame: Frame<Self::Message>) -> Result<VecDeque<tungstenite::Message>, BoxError>;

    /// Anything but a close frame on its way in; `None` if it means nothing,
    /// not even life.
    ///
    /// # Errors
    ///
    /// If the peer shouldn't have sent it. That is the end of the connection.
    fn unwrap(
        &mut self,
        message: tungstenite::Message,
    ) -> Result<Option<Frame<Self::Message>>, BoxError>;
}

/// As the protocol's own pings and pongs. Every peer answers them, without its
/// application: a browser does while the page's script hangs, and Chromium even
/// when the user has left a page that it keeps for the way back.
#[derive(Debug)]
pub struct ControlFrames {
    max_message: usize,
}

/// What an application sends in a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A text message.
    Text(Utf8Bytes),
    /// A binary message.
    Binary(Bytes),
}

impl Beats for ControlFrames {
    type Message = Message;

    fn new(max_message: usize) -> Self {
        Self { max_message }
    }

    fn longest(&self) -> usize {
        self.max_message
    }

    fn weight(message: &Message) -> usize {
        match message {
            Message::Text(text) => text.len(),
            Message::Binary(bytes) => bytes.len(),
        }
    }

    fn wrap(frame: Frame<Message>) -> Result<VecDeque<tungstenite::Message>, BoxError> {
        let message = match frame {
            Frame::Data(Message::Text(text)) => tungstenite::Message::Text(text),
            Frame::Data(Message::Binary(bytes)) => tungstenite::Message::Binary(bytes),
            Frame::Ping(nonce) => tungstenite::Message::Ping(payload(nonce)),
            // Tungstenite has sent it already.
            _ => return Ok(VecDeque::new()),
        };
        Ok([message].into())
    }

    fn unwrap(
        &mut self,
        message: tungstenite::Message,
    ) -> Result<Option<Frame<Message>>, BoxError> {
        Ok(Some(match message {
            tungstenite::Message::Text(text) => Frame::Data(Message::Text(text)),
            tungstenite::Message::Binary(bytes) => Frame::Data(Message::Binary(bytes)),
            // A pong that nobody asked for carries anything or nothing.
            tungstenite::Message::Pong(payload) => match <[u8; 8]>::try_from(&payload[..]) {
                Ok(nonce) => Frame::Pong(Some(Nonce(nonce))),
                Err(_) => Frame::Other,
            },
            _ => Frame::Other,
        }))
    }
}

/// As ordinary messages, for networks with a proxy that answers or swallows
/// the protocol's own, and to know that the peer's application lives.
///
/// The application's messages are text. A beat is a binary message of 9 bytes:
/// `?` asks, `!` answers, and 8 bytes say what. `beats.js` is the other end: the
/// least that answers, for a page that is there already. With [`OwnFrames`] the
/// page finds out about a dead server too.
#[derive(Debug)]
pub struct OrdinaryFrames {
    max_message: usize,
}

const ASKS: u8 = b'?';
const ANSWERS: u8 = b'!';

impl Beats for OrdinaryFrames {
    type Message = Utf8Bytes;

    fn new(max_message: usize) -> Self {
        Self { max_message }
    }

    fn longest(&self) -> usize {
        self.max_message
    }

    fn weight(message: &Utf8Bytes) -> usize {
        message.len()
    }

    fn wrap(frame: Frame<Utf8Bytes>) -> Result<VecDeque<tungstenite::Message>, BoxError> {
        let (tag, nonce) = match frame {
            Frame::Data(text) => return Ok([tungstenite::Message::Text(text)].into()),
            Frame::Ping(nonce) => (ASKS, nonce),
            Frame::Pong(nonce) => (ANSWERS, nonce),
            _ => return Ok(VecDeque::new()),
        };
        let mut beat = BytesMut::with_capacity(9);
        beat.put_u8(tag);
        beat.put(payload(nonce));
        Ok([tungstenite::Message::Binary(beat.freeze())].into())
    }

    fn unwrap(
        &mut self,
        message: tungstenite::Message,
    ) -> Result<Option<Frame<Utf8Bytes>>, BoxError> {
        let beat = match message {
            tungstenite::Message::Text(text) => return Ok(Some(Frame::Data(text))),
            tungstenite::Message::Binary(beat) => beat,
            _ => return Ok(Some(Frame::Other)),
        };
        let nonce = beat.get(1..).and_then(|nonce| nonce.try_into().ok());
        Ok(Some(match (beat.first(), nonce.map(Nonce)) {
            (Some(&ASKS), Some(nonce)) => Frame::Ping(Some(nonce)),
            (Some(&ANSWERS), Some(nonce)) => Frame::Pong(Some(nonce)),
            _ => Frame::Other,
        }))
    }
}

/// As the frames of this project's own protocol, one in a binary message, as
/// `docs/protocol.md` says under "Frames in WebSocket messages". Both ends say hello
/// and goodbye, and each finds out when the other is dead. Long messages travel in
/// parts. `examples/heartbeat-js/heartbeat.js` is the other end.
#[derive(Debug)]
pub struct OwnFrames<M> {
    max_message: usize,
    /// The peer's Hello has come.
    greeted: bool,
    /// A message of which not all parts have come.
    assembly: Option<Assembly>,
    messages: PhantomData<fn(M) -> M>,
}

#[derive(Debug)]
struct Assembly {
    announced: usize,
    arrived: BytesMut,
}

/// What an application sends in [`OwnFrames`].
pub trait Payload: Clone + Debug {
    /// About how many bytes it keeps in memory besides itself.
    fn weight(&self) -> usize;

    /// As it travels.
    ///
    /// # Errors
    ///
    /// If it can't be written. That is the end of the connection.
    fn encode(&self) -> Result<Bytes, BoxError>;

    /// Reads what the peer sent: anything.
    ///
    /// # Errors
    ///
    /// If it is no message. That is the end of the connection.
    fn decode(bytes: Bytes) -> Result<Self, BoxError>;
}

/// As it is.
impl Payload for Bytes {
    fn weight(&self) -> usize {
        self.len()
    }

    fn encode(&self) -> Result<Bytes, BoxError> {
        Ok(self.clone())
    }

    fn decode(bytes: Bytes) -> Result<Self, BoxError> {
        Ok(bytes)
    }
}

impl<M: Payload> Beats for OwnFrames<M> {
    type Message = M;
    const HELLO: bool = true;

    fn new(max_message: usize) -> Self {
        Self {
            max_message,
            greeted: false,
            assembly: None,
            messages: PhantomData,
        }
    }

    /// A first part with the longest varint of 32 bits, if parts may come at all.
    fn longest(&self) -> usize {
        match self.max_message > PART {
            true => 1 + 5 + PART,
            false => (1 + self.max_message).max(Control::MAX_ACCEPTED),
        }
    }

    fn weight(message: &M) -> usize {
        message.weight()
    }

    fn wrap(frame: Frame<M>) -> Result<VecDeque<tungstenite::Message>, BoxError> {
        let control = match frame {
            Frame::Data(message) => return Ok(wrap_data(message.encode()?)),
            Frame::Goodbye { code, detail } => {
                let mut buffer = [0; Goodbye::MAX_ENCODED];
                let goodbye = Goodbye::new(code, &detail);
                return Ok([binary(goodbye.encode(&mut buffer)?, b"")].into());
            }
            Frame::Hello(hello) => Control::Hello(hello),
            Frame::Ping(Some(nonce)) => Control::Ping(nonce),
            Frame::Pong(Some(nonce)) => Control::Pong(nonce),
            Frame::Alive => Control::Alive,
            Frame::Fin => Control::Fin,
            // Ours have a nonce, always.
            Frame::Ping(None) | Frame::Pong(None) | Frame::Other => return Ok(VecDeque::new()),
        };
        let mut buffer = [0; Control::MAX_ENCODED];
        Ok([binary(control.encode(&mut buffer)?, b"")].into())
    }

    /// The checks of the page, in its order.
    fn unwrap(&mut self, message: tungstenite::Message) -> Result<Option<Frame<M>>, BoxError> {
        let bytes = match message {
            tungstenite::Message::Binary(bytes) => bytes,
            tungstenite::Message::Text(_) => return Err("a text message".into()),
            // Browsers don't send them by themselves, but proxies may.
            _ => return Ok(None),
        };
        let &tag = bytes.first().ok_or(Broken::EmptyFrame)?;
        let max_control = Control::MAX_ACCEPTED;
        if !self.greeted {
            at_most(&bytes, max_control)?;
        }
        at_most(&bytes, self.longest())?;
        if !self.greeted && tag != Tag::Hello.to_byte() {
            return Err(Broken::HelloExpected { tag }.into());
        }
        match Tag::from_byte(tag)? {
            Tag::Data => {
                at_most(&bytes, 1 + self.max_message.min(PART))?;
                match self.assembly {
                    Some(_) => Err(Broken::BrokenParts.into()),
                    None => Ok(Some(Frame::Data(M::decode(bytes.slice(1..))?))),
                }
            }
            Tag::Part => match self.take_part(&bytes)? {
                Some(whole) => Ok(Some(Frame::Data(M::decode(whole)?))),
                // It shows that the peer lives.
                None => Ok(Some(Frame::Other)),
            },
            Tag::Goodbye => {
                at_most(&bytes, max_control)?;
                let Goodbye { code, detail, .. } = Goodbye::decode(&bytes)?;
                let detail = Detail::from(detail);
                Ok(Some(Frame::Goodbye { code, detail }))
            }
            _ => {
                at_most(&bytes, max_control)?;
                let control = Control::decode(&bytes)?;
                self.greeted = true;
                Ok(Some(control.into()))
            }
        }
    }
}

impl<M> OwnFrames<M> {
    /// Takes a part in, and gives the message if that is its last.
    fn take_part(&mut self, frame: &Bytes) -> Result<Option<Bytes>, Broken> {
        let (mut assembly, part) = match self.assembly.take() {
            Some(assembly) => {
                at_most(frame, 1 + PART)?;
                (assembly, frame.slice(1..))
            }
            None => {
                let (announced, digits) = announced(frame.get(1..).unwrap_or_default())?;
                if announced as usize <= PART {
                    return Err(Broken::BrokenParts);
                } else if announced as usize > self.max_message {
                    return Err(too_long(announced as usize, self.max_message));
                }
                let part = frame.slice(1 + digits..);
                if !part.is_empty() {
                    at_most(frame, 1 + digits + PART)?;
                }
                let assembly = Assembly {
                    announced: announced as usize,
                    // It grows with what arrives.
                    arrived: BytesMut::new(),
                };
                (assembly, part)
            }
        };
        if part.is_empty() || part.len() > assembly.announced - assembly.arrived.len() {
            return Err(Broken::BrokenParts);
        }
        assembly.arrived.put(part);
        if assembly.arrived.len() == assembly.announced {
            return Ok(Some(assembly.arrived.freeze()));
        }
        self.assembly = Some(assembly);
        Ok(None)
    }
}

/// A message of the application, in parts if it is a long one.
fn wrap_data(body: Bytes) -> VecDeque<tungstenite::Message> {
    if body.len() <= PART {
        return [binary(&[Tag::Data.to_byte()], &body)].into();
    }
    let tag = Tag::Part.to_byte();
    let mut header = vec![tag];
    let mut rest = body.len();
    while rest > 0x7f {
        header.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    header.push(rest.to_le_bytes()[0]);
    let parts = body.chunks(PART).map(|part| {
        let part = binary(&header, part);
        header = vec![tag];
        part
    });
    parts.collect()
}

fn binary(header: &[u8], body: &[u8]) -> tungstenite::Message {
    tungstenite::Message::Binary([header, body].concat().into())
}

/// The length of a message that its first part begins with, and how many bytes that
/// takes.
fn announced(part: &[u8]) -> Result<(u32, usize), Broken> {
    let malformed = Broken::Malformed {
        tag: Tag::Part.to_byte(),
    };
    let mut announced = 0_u64;
    for (digit, &byte) in part.iter().take(5).enumerate() {
        announced |= u64::from(byte & 0x7f) << (7 * digit);
        if byte < 0x80 {
            let announced = u32::try_from(announced).map_err(|_| malformed)?;
            return Ok((announced, digit + 1));
        }
    }
    Err(malformed)
}

fn at_most(frame: &Bytes, max: usize) -> Result<(), Broken> {
    match frame.len() <= max {
        true => Ok(()),
        false => Err(too_long(frame.len(), max)),
    }
}

fn too_long(length: usize, max: usize) -> Broken {
    Broken::FrameTooLong {
        length: u32::try_from(length).unwrap_or(u32::MAX),
        max: u32::try_from(max).unwrap_or(u32::MAX),
    }
}

fn payload(nonce: Option<Nonce>) -> Bytes {
    nonce.map_or_else(Bytes::new, |Nonce(nonce)| Bytes::copy_from_slice(&nonce))
}

/// A WebSocket for [`with_frames`](heartbeat_tokio::Heartbeat::with_frames).
#[derive(Debug)]
pub struct WebSocket<S, B> {
    stream: WebSocketStream<Tap<S>>,
    beats: B,
    /// Messages of the application on their way out, and what goes behind them.
    /// Control frames go ahead, between two of them.
    waiting: VecDeque<tungstenite::Message>,
}

/// The longest message that [`WebSocket::accept`] accepts, in bytes.
const MAX_MESSAGE: usize = 64 << 20;

impl<S, B> WebSocket<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Beats,
{
    /// The server's side of the handshake. The heartbeat begins after it: limit
    /// its time.
    ///
    /// # Errors
    ///
    /// If it fails, or isn't one.
    pub async fn accept(stream: S) -> Result<Self, Error> {
        let beats = B::new(MAX_MESSAGE);
        let limits = Some(limits(&beats));
        let stream = accept_async_with_config(Tap::new(stream), limits).await?;
        Ok(Self {
            stream,
            beats,
            waiting: VecDeque::new(),
        })
    }

    /// The server's side of one that an HTTP server has opened already, which
    /// has read so much of it. Longer messages of the application than
    /// `max_message` bytes are refused.
    pub async fn opened(stream: S, read: Bytes, max_message: usize) -> Self {
        let beats = B::new(max_message);
        let limits = Some(limits(&beats).read_buffer_size(4096));
        let (stream, read) = (Tap::new(stream), read.to_vec());
        let opened = WebSocketStream::from_partially_read(stream, read, Role::Server, limits);
        Self {
            stream: opened.await,
            beats,
            waiting: VecDeque::new(),
        }
    }

    /// What it runs over.
    #[must_use]
    pub fn get_ref(&self) -> &S {
        &self.stream.get_ref().stream
    }
}

fn limits(beats: &impl Beats) -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(beats.longest()))
        .max_frame_size(Some(beats.longest()))
}

impl<B: Beats> WebSocket<TcpStream, B> {
    /// For [`with_socket`](heartbeat_tokio::Heartbeat::with_socket).
    #[must_use]
    pub fn socket(&self) -> Option<&TcpStream> {
        Some(self.get_ref())
    }
}

impl<S, B: Beats> Dialect for WebSocket<S, B> {
    type Message = B::Message;
    const HELLO: bool = B::HELLO;
    const GOODBYE: bool = true;

    fn weight(message: &B::Message) -> usize {
        B::weight(message)
    }
}

impl<S, B> Stream for WebSocket<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Beats,
{
    type Item = Result<Frame<B::Message>, BoxError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { stream, beats, .. } = self.get_mut();
        loop {
            let result = Pin::new(&mut *stream).poll_next(cx);
            let heard = std::mem::take(&mut stream.get_mut().heard);
            let message = match result {
                // A part of something; in our own protocol perhaps of a ping, which
                // would show nothing.
                Poll::Pending if heard && !B::HELLO => return Poll::Ready(Some(Ok(Frame::Other))),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(message))) => message,
                Poll::Ready(
                    None | Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))),
                ) => return Poll::Ready(None),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
            };
            if let tungstenite::Message::Close(close) = message {
                // Nobody reads on after a goodbye, and only then tungstenite
                // would answer it.
                let _ = Pin::new(stream).poll_flush(cx);
                return Poll::Ready((!B::HELLO).then(|| Ok(goodbye(close))));
            }
            let frame = beats.unwrap(message).transpose();
            if frame.is_some() {
                return Poll::Ready(frame);
            }
        }
    }
}

impl<S, B> Sink<Frame<B::Message>> for WebSocket<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Beats,
{
    type Error = BoxError;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let ready = Pin::new(&mut self.get_mut().stream).poll_ready(cx);
        ready.map_err(BoxError::from)
    }

    fn start_send(self: Pin<&mut Self>, frame: Frame<B::Message>) -> Result<(), BoxError> {
        let this = self.get_mut();
        match frame {
            Frame::Goodbye { code, detail } => {
                if code.is_verdict() {
                    // Nothing goes ahead of that.
                    this.waiting.clear();
                }
                if B::HELLO {
                    let goodbye = Frame::Goodbye { code, detail };
                    this.waiting.extend(B::wrap(goodbye)?);
                } else {
                    this.waiting.push_back(closing(code, detail));
                }
            }
            Frame::Data(_) => this.waiting.extend(B::wrap(frame)?),
            _ => {
                for message in B::wrap(frame)? {
                    Pin::new(&mut this.stream).start_send(message)?;
                }
            }
        }
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let this = self.get_mut();
        let mut stream = Pin::new(&mut this.stream);
        while !this.waiting.is_empty() {
            ready!(stream.as_mut().poll_ready(cx))?;
            if let Some(message) = this.waiting.pop_front() {
                stream.as_mut().start_send(message)?;
            }
        }
        stream.poll_flush(cx).map_err(BoxError::from)
    }

    /// Waits for the peer's close frame, so that it sees a clean end. The
    /// heartbeat limits how long.
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        ready!(self.as_mut().poll_flush(cx))?;
        let mut stream = Pin::new(&mut self.get_mut().stream);
        ready!(stream.as_mut().poll_close(cx))?;
        while let Some(Ok(_)) = ready!(stream.as_mut().poll_next(cx)) {}
        Poll::Ready(Ok(()))
    }
}

/// What a goodbye is where there is none but WebSocket's own.
fn closing(code: GoodbyeCode, detail: Detail) -> tungstenite::Message {
    tungstenite::Message::Close(Some(CloseFrame {
        code: match code {
            GoodbyeCode::LEAVING => CloseCode::Normal,
            GoodbyeCode::RESTARTING => CloseCode::Restart,
            GoodbyeCode::PROTOCOL => CloseCode::Protocol,
            code if code.is_verdict() => CloseCode::Policy,
            _ => CloseCode::Normal,
        },
        reason: detail.as_str().into(),
    }))
}

/// And the other way round.
fn goodbye<M>(close: Option<CloseFrame>) -> Frame<M> {
    let code = match &close {
        Some(close) if close.code == CloseCode::Restart => GoodbyeCode::RESTARTING,
        _ => GoodbyeCode::LEAVING,
    };
    let reason = close.map(|close| Detail::from(close.reason.as_str()));
    let detail = reason.unwrap_or_default();
    Frame::Goodbye { code, detail }
}

/// Knows whether anything was read: tungstenite tells only of whole messages.
#[derive(Debug)]
struct Tap<S> {
    stream: S,
    heard: bool,
}

impl<S> Tap<S> {
    fn new(stream: S) -> Self {
        let heard = false;
        Self { stream, heard }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let result = Pin::new(&mut this.stream).poll_read(cx, buffer);
        this.heard |= buffer.filled().len() > before;
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
