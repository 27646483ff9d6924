//! WebSockets with a heartbeat, over tokio-tungstenite.
//!
//! This module decides how beats travel in a WebSocket ([`Beats`]), and which
//! of its ends is which. The rest is tungstenite's; pings of the peer's it
//! answers by itself.
//!
//! * A close frame is a goodbye, in both directions. A connection that ends
//!   without one was cut off.
//! * Bytes of a message that isn't whole yet are a sign of life too.

use std::{
    fmt::Debug,
    io,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{BufMut, Bytes, BytesMut};
use futures::{Sink, Stream};
use heartbeat_tokio::{Dialect, Frame, heartbeat_core::Nonce};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_tungstenite::{
    WebSocketStream, accept_async,
    tungstenite::{
        self, Error, Utf8Bytes,
        error::ProtocolError,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

/// How beats travel.
pub trait Beats {
    /// The application's messages.
    type Message: Clone + Debug;

    /// The bytes of a message.
    fn weight(message: &Self::Message) -> usize;

    /// A message, a ping or a pong on its way out.
    fn wrap(frame: Frame<Self::Message>) -> Option<tungstenite::Message>;

    /// Anything but a close frame on its way in.
    fn unwrap(message: tungstenite::Message) -> Frame<Self::Message>;
}

/// As the protocol's own pings and pongs. Every peer answers them, without its
/// application: a browser does while the page's script hangs, and Chromium even
/// when the user has left a page that it keeps for the way back.
#[derive(Debug)]
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

    fn wrap(frame: Frame<Message>) -> Option<tungstenite::Message> {
        Some(match frame {
            Frame::Data(Message::Text(text)) => tungstenite::Message::Text(text),
            Frame::Data(Message::Binary(bytes)) => tungstenite::Message::Binary(bytes),
            Frame::Ping(nonce) => tungstenite::Message::Ping(payload(nonce)),
            // Tungstenite has sent it already.
            _ => return None,
        })
    }

    fn unwrap(message: tungstenite::Message) -> Frame<Message> {
        match message {
            tungstenite::Message::Text(text) => Frame::Data(Message::Text(text)),
            tungstenite::Message::Binary(bytes) => Frame::Data(Message::Binary(bytes)),
            // A pong that nobody asked for carries anything or nothing.
            tungstenite::Message::Pong(payload) => match <[u8; 8]>::try_from(&payload[..]) {
                Ok(nonce) => Frame::Pong(Some(Nonce(nonce))),
                Err(_) => Frame::Other,
            },
            _ => Frame::Other,
        }
    }
}

/// As ordinary messages, for networks with a proxy that answers or swallows
/// the protocol's own, and to know that the peer's application lives.
///
/// The application's messages are text. A beat is a binary message of 9 bytes:
/// `?` asks, `!` answers, and 8 bytes say what. `beats.js` is the other end.
#[derive(Debug)]
pub struct OrdinaryFrames;

const ASKS: u8 = b'?';
const ANSWERS: u8 = b'!';

impl Beats for OrdinaryFrames {
    type Message = Utf8Bytes;

    fn weight(message: &Utf8Bytes) -> usize {
        message.len()
    }

    fn wrap(frame: Frame<Utf8Bytes>) -> Option<tungstenite::Message> {
        let (tag, nonce) = match frame {
            Frame::Data(text) => return Some(tungstenite::Message::Text(text)),
            Frame::Ping(nonce) => (ASKS, nonce),
            Frame::Pong(nonce) => (ANSWERS, nonce),
            _ => return None,
        };
        let mut beat = BytesMut::with_capacity(9);
        beat.put_u8(tag);
        beat.put(payload(nonce));
        Some(tungstenite::Message::Binary(beat.freeze()))
    }

    fn unwrap(message: tungstenite::Message) -> Frame<Utf8Bytes> {
        let beat = match message {
            tungstenite::Message::Text(text) => return Frame::Data(text),
            tungstenite::Message::Binary(beat) => beat,
            _ => return Frame::Other,
        };
        let nonce = beat.get(1..).and_then(|nonce| nonce.try_into().ok());
        match (beat.first(), nonce.map(Nonce)) {
            (Some(&ASKS), Some(nonce)) => Frame::Ping(Some(nonce)),
            (Some(&ANSWERS), Some(nonce)) => Frame::Pong(Some(nonce)),
            _ => Frame::Other,
        }
    }
}

fn payload(nonce: Option<Nonce>) -> Bytes {
    nonce.map_or_else(Bytes::new, |Nonce(nonce)| Bytes::copy_from_slice(&nonce))
}

/// A WebSocket for [`with_frames`](heartbeat_tokio::Heartbeat::with_frames).
#[derive(Debug)]
pub struct WebSocket<S, B> {
    stream: WebSocketStream<Tap<S>>,
    beats: PhantomData<fn(B) -> B>,
}

impl<S, B> WebSocket<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// The server's side of the handshake. The heartbeat begins after it: limit
    /// its time.
    pub async fn accept(stream: S) -> Result<Self, Error> {
        let heard = false;
        Ok(Self {
            stream: accept_async(Tap { stream, heard }).await?,
            beats: PhantomData,
        })
    }
}

impl<B> WebSocket<TcpStream, B> {
    /// For [`with_socket`](heartbeat_tokio::Heartbeat::with_socket).
    pub fn socket(&self) -> Option<&TcpStream> {
        Some(&self.stream.get_ref().stream)
    }
}

impl<S, B: Beats> Dialect for WebSocket<S, B> {
    type Message = B::Message;
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
    type Item = Result<Frame<B::Message>, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let stream = &mut self.get_mut().stream;
        let result = Pin::new(&mut *stream).poll_next(cx);
        let heard = std::mem::take(&mut stream.get_mut().heard);
        let message = match result {
            // A part of something.
            Poll::Pending if heard => return Poll::Ready(Some(Ok(Frame::Other))),
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Ok(message))) => message,
            Poll::Ready(Some(Err(Error::Protocol(
                ProtocolError::ResetWithoutClosingHandshake,
            )))) => return Poll::Ready(None),
            Poll::Ready(end) => return Poll::Ready(end.map(|end| end.map(B::unwrap))),
        };
        let frame = match message {
            tungstenite::Message::Close(_) => {
                // Nobody reads on after a goodbye, and only then tungstenite
                // would answer it.
                let _ = Pin::new(stream).poll_flush(cx);
                Frame::Goodbye
            }
            message => B::unwrap(message),
        };
        Poll::Ready(Some(Ok(frame)))
    }
}

impl<S, B> Sink<Frame<B::Message>> for WebSocket<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Beats,
{
    type Error = Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.get_mut().stream).poll_ready(cx)
    }

    fn start_send(self: Pin<&mut Self>, frame: Frame<B::Message>) -> Result<(), Error> {
        let message = match frame {
            Frame::Goodbye => Some(tungstenite::Message::Close(Some(CloseFrame {
                code: CloseCode::Normal,
                reason: Utf8Bytes::default(),
            }))),
            frame => B::wrap(frame),
        };
        match message {
            Some(message) => Pin::new(&mut self.get_mut().stream).start_send(message),
            None => Ok(()),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    /// Waits for the peer's close frame, so that it sees a clean end. The
    /// heartbeat limits how long.
    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut stream = Pin::new(&mut self.get_mut().stream);
        ready!(stream.as_mut().poll_close(cx))?;
        while let Some(Ok(_)) = ready!(stream.as_mut().poll_next(cx)) {}
        Poll::Ready(Ok(()))
    }
}

/// Knows whether anything was read: tungstenite tells only of whole messages.
#[derive(Debug)]
struct Tap<S> {
    stream: S,
    heard: bool,
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
