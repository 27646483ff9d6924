//! WebSockets with a heartbeat, over tokio-tungstenite.
//!
//! This module decides how beats travel in a WebSocket ([`Beats`]), and which
//! of its ends is which. The rest is tungstenite's; pings of the peer's it
//! answers by itself.
//!
//! * A close frame is a goodbye, in both directions, but where there is one of
//!   its own. A connection that ends without a goodbye was cut off.
//! * Bytes of a message that isn't whole yet are a sign of life too.

use std::{
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
    Dialect, Frame, ProtocolError as Broken,
    heartbeat_core::{Control, Nonce, Tag},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_tungstenite::{
    WebSocketStream, accept_async,
    tungstenite::{
        self, Error, Utf8Bytes,
        error::ProtocolError,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

/// What is wrong with a frame, or with the socket.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// How beats travel.
pub trait Beats: Default + Unpin {
    /// The application's messages.
    type Message: Clone + Debug;

    /// Whether there are messages for Hello and Goodbye. Without them a close
    /// frame is the goodbye, and nobody says hello.
    const HELLO: bool = false;

    /// The bytes of a message.
    fn weight(message: &Self::Message) -> usize;

    /// A frame on its way out; `None` if it doesn't travel.
    ///
    /// # Errors
    ///
    /// If it can't be written. That is the end of the connection.
    fn wrap(frame: Frame<Self::Message>) -> Result<Option<tungstenite::Message>, BoxError>;

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
#[derive(Debug, Default)]
pub struct ControlFrames;

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

    fn weight(message: &Message) -> usize {
        match message {
            Message::Text(text) => text.len(),
            Message::Binary(bytes) => bytes.len(),
        }
    }

    fn wrap(frame: Frame<Message>) -> Result<Option<tungstenite::Message>, BoxError> {
        Ok(Some(match frame {
            Frame::Data(Message::Text(text)) => tungstenite::Message::Text(text),
            Frame::Data(Message::Binary(bytes)) => tungstenite::Message::Binary(bytes),
            Frame::Ping(nonce) => tungstenite::Message::Ping(payload(nonce)),
            // Tungstenite has sent it already.
            _ => return Ok(None),
        }))
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
#[derive(Debug, Default)]
pub struct OrdinaryFrames;

const ASKS: u8 = b'?';
const ANSWERS: u8 = b'!';

impl Beats for OrdinaryFrames {
    type Message = Utf8Bytes;

    fn weight(message: &Utf8Bytes) -> usize {
        message.len()
    }

    fn wrap(frame: Frame<Utf8Bytes>) -> Result<Option<tungstenite::Message>, BoxError> {
        let (tag, nonce) = match frame {
            Frame::Data(text) => return Ok(Some(tungstenite::Message::Text(text))),
            Frame::Ping(nonce) => (ASKS, nonce),
            Frame::Pong(nonce) => (ANSWERS, nonce),
            _ => return Ok(None),
        };
        let mut beat = BytesMut::with_capacity(9);
        beat.put_u8(tag);
        beat.put(payload(nonce));
        Ok(Some(tungstenite::Message::Binary(beat.freeze())))
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

/// As the control frames of this project's own protocol, one in a binary
/// message, as `docs/protocol.md` says under "Frames in WebSocket messages". Both
/// ends say hello and goodbye, and each finds out when the other is dead.
/// `examples/chat/page/heartbeat.js` is the other end.
#[derive(Debug)]
pub struct OwnFrames<M> {
    /// The peer's Hello has come.
    greeted: bool,
    messages: PhantomData<fn(M) -> M>,
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

impl<M> Default for OwnFrames<M> {
    fn default() -> Self {
        Self {
            greeted: false,
            messages: PhantomData,
        }
    }
}

impl<M: Payload> Beats for OwnFrames<M> {
    type Message = M;
    const HELLO: bool = true;

    fn weight(message: &M) -> usize {
        message.weight()
    }

    fn wrap(frame: Frame<M>) -> Result<Option<tungstenite::Message>, BoxError> {
        let control = match frame {
            Frame::Data(message) => {
                let body = message.encode()?;
                let mut data = BytesMut::with_capacity(1 + body.len());
                data.put_u8(Tag::Data.to_byte());
                data.put(body);
                return Ok(Some(tungstenite::Message::Binary(data.freeze())));
            }
            Frame::Hello(hello) => Control::Hello(hello),
            Frame::Ping(Some(nonce)) => Control::Ping(nonce),
            Frame::Pong(Some(nonce)) => Control::Pong(nonce),
            Frame::Goodbye => Control::Goodbye,
            // Ours have a nonce, always.
            Frame::Ping(None) | Frame::Pong(None) | Frame::Other => return Ok(None),
        };
        let mut buffer = [0; Control::MAX_ENCODED];
        let encoded = Bytes::copy_from_slice(control.encode(&mut buffer)?);
        Ok(Some(tungstenite::Message::Binary(encoded)))
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
        let is_long = bytes.len() > Control::MAX_ACCEPTED;
        if !self.greeted && is_long {
            return Err(too_long(&bytes).into());
        }
        if !self.greeted && tag != Tag::Hello.to_byte() {
            return Err(Broken::HelloExpected { tag }.into());
        }
        if Tag::from_byte(tag)? == Tag::Data {
            return Ok(Some(Frame::Data(M::decode(bytes.slice(1..))?)));
        }
        if is_long {
            return Err(too_long(&bytes).into());
        }
        let control = Control::decode(&bytes)?;
        self.greeted = true;
        Ok(Some(control.into()))
    }
}

fn too_long(bytes: &Bytes) -> Broken {
    Broken::FrameTooLong {
        length: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
        max: u32::try_from(Control::MAX_ACCEPTED).unwrap_or(u32::MAX),
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
}

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
        Ok(Self {
            stream: accept_async(Tap::new(stream)).await?,
            beats: B::default(),
        })
    }

    /// The server's side of one that an HTTP server has opened already, which
    /// has read so much of it. Longer messages than `max_message` bytes are
    /// refused.
    pub async fn opened(stream: S, read: Bytes, max_message: usize) -> Self {
        let limits = WebSocketConfig::default()
            .read_buffer_size(4096)
            .max_message_size(Some(max_message))
            .max_frame_size(Some(max_message));
        let (stream, read) = (Tap::new(stream), read.to_vec());
        let opened = WebSocketStream::from_partially_read(stream, read, Role::Server, Some(limits));
        Self {
            stream: opened.await,
            beats: B::default(),
        }
    }

    /// What it runs over.
    #[must_use]
    pub fn get_ref(&self) -> &S {
        &self.stream.get_ref().stream
    }
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
        let Self { stream, beats } = self.get_mut();
        loop {
            let result = Pin::new(&mut *stream).poll_next(cx);
            let heard = std::mem::take(&mut stream.get_mut().heard);
            let message = match result {
                // A part of something.
                Poll::Pending if heard => return Poll::Ready(Some(Ok(Frame::Other))),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(message))) => message,
                Poll::Ready(
                    None | Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))),
                ) => return Poll::Ready(None),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
            };
            if message.is_close() {
                // Nobody reads on after a goodbye, and only then tungstenite
                // would answer it.
                let _ = Pin::new(stream).poll_flush(cx);
                return Poll::Ready((!B::HELLO).then_some(Ok(Frame::Goodbye)));
            }
            match beats.unwrap(message).transpose() {
                None => {}
                Some(Ok(Frame::Goodbye)) => {
                    // The closing handshake, as far as it goes without waiting.
                    let _ = Pin::new(&mut *stream).start_send(closing());
                    let _ = Pin::new(stream).poll_flush(cx);
                    return Poll::Ready(Some(Ok(Frame::Goodbye)));
                }
                Some(frame) => return Poll::Ready(Some(frame)),
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
        let message = match frame {
            Frame::Goodbye if !B::HELLO => Some(closing()),
            frame => B::wrap(frame)?,
        };
        if let Some(message) = message {
            Pin::new(&mut self.get_mut().stream).start_send(message)?;
        }
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let flushed = Pin::new(&mut self.get_mut().stream).poll_flush(cx);
        flushed.map_err(BoxError::from)
    }

    /// Waits for the peer's close frame, so that it sees a clean end. The
    /// heartbeat limits how long.
    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let mut stream = Pin::new(&mut self.get_mut().stream);
        ready!(stream.as_mut().poll_close(cx))?;
        while let Some(Ok(_)) = ready!(stream.as_mut().poll_next(cx)) {}
        Poll::Ready(Ok(()))
    }
}

fn closing() -> tungstenite::Message {
    tungstenite::Message::Close(Some(CloseFrame {
        code: CloseCode::Normal,
        reason: Utf8Bytes::default(),
    }))
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
