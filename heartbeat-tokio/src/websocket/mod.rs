//! A heartbeat in a WebSocket: over tokio-tungstenite, and over axum.
//!
//! [`Heartbeat::websocket`] wraps an open WebSocket, on the server or the client. It takes the
//! types of both libraries, each behind a feature:
//!
//! | feature | type | supported version |
//! |---|---|---|
//! | `tungstenite` | `tokio_tungstenite::WebSocketStream<S>` | tokio-tungstenite 0.30 |
//! | `axum` | `axum::extract::ws::WebSocket`, alone or with its [`TcpSocket`] | axum 0.8 |
//!
//! # How beats travel
//!
//! | beats | as | answered by | the peer detects our death |
//! |---|---|---|---|
//! | [`Pings`] | WebSocket's own pings | the peer's library; a browser also while the page's script hangs | if it sends pings too |
//! | [`Messages`] | binary messages of 9 bytes | the peer's program | no |
//! | [`OwnFrames`] | this project's protocol, one frame in a binary message | a heartbeat on the other side, such as `heartbeat-js` in a page | yes |
//!
//! [`Heartbeat::websocket`] sends [`Pings`], which need no support from the peer.
//! [`Heartbeat::websocket_with`] takes the others, and your own [`Beats`].
//!
//! # How it ends
//!
//! A connection that drops without a closing handshake is [`Cause::Eof`](crate::Cause::Eof),
//! as with any killed process. A close frame is a goodbye, except with [`OwnFrames`], which
//! have their own. Its code is 1000 for [`LEAVING`](crate::GoodbyeCode::LEAVING), and 4000 + c for
//! code c, in both directions. So a page may leave with `socket.close(4064, "lunch")`.
//!
//! | the peer's close code | is |
//! |---|---|
//! | 1000, 1001, none | code 0 |
//! | 1012 | code 1, [`RESTARTING`](crate::GoodbyeCode::RESTARTING) |
//! | 1002, 1003, 1007, 1009, 1010 | code 4: the peer gave us up, for what we sent |
//! | 4001 to 4007, 4009 to 4255 | code 1 to 7, 9 to 255 |
//! | any other | code 0 |
//!
//! The detail is the close frame's reason. If the close code isn't one that we would send,
//! the detail begins with it: `1011 out of memory`.
//!
//! The stream is closed as soon as the connection has ended, before the heartbeat is
//! dropped.
//!
//! [`close`](Heartbeat::close) is Ok when the closing handshake is done. That proves that the
//! peer's library received everything, not its application; [`OwnFrames`] prove both.
//!
//! # Long messages
//!
//! Neither library shows an incomplete message. With [`OwnFrames`] that makes no difference,
//! because long messages travel in parts. With the other beats, data that reaches our kernel
//! is a sign of life too ([`Evidence::AnyBytes`](crate::Evidence::AnyBytes)), on Linux and
//! Android and if the socket is known. Elsewhere a message must arrive within the detection
//! time.
//!
//! Our ping waits behind our own long message. With the other beats, and under the same
//! conditions, progress of that message in the peer's kernel is a sign of life too. Elsewhere
//! the message must leave within the detection time.
//!
//! The socket is known below a `WebSocketStream` over a `TcpStream` or a plain
//! `MaybeTlsStream`, and with axum if its [`TcpSocket`] is given. Otherwise name it with
//! [`with_socket`](Heartbeat::with_socket).
//!
//! [`Config::max_frame`] limits messages. The library first keeps a longer one in memory, up
//! to a limit of its own (`max_message_size`). Set that too.

use std::{
    collections::VecDeque,
    error::Error,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use futures_sink::Sink;
use heartbeat_core::{Config, End};

pub use self::{
    beats::{Beats, Messages, Pings},
    library::Library,
    message::{Message, Packet},
    own_frames::{OwnFrames, Payload, SUBPROTOCOL},
};
use self::{
    close::Close,
    library::{Received, Sent},
    message::at_most,
};
use crate::{Dialect, Frame, Frames, Heartbeat};

#[cfg(feature = "axum")]
mod axum;
mod beats;
mod close;
mod library;
mod message;
mod own_frames;
#[cfg(feature = "tungstenite")]
mod tungstenite;

#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use self::axum::TcpSocket;

/// The error type of messages and of the WebSocket.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The most bytes that the library holds before it is flushed. Control frames wait behind
/// them.
const HELD: usize = 64 * 1024;

/// The transport of [`Heartbeat::websocket`]: `W` is the library's WebSocket, and `B` decides
/// how beats travel.
#[derive(Debug)]
pub struct WebSocket<W, B> {
    library: W,
    beats: B,
    max_frame: usize,
    /// Packets to send, in this order. Control frames go ahead, between two of them.
    waiting: VecDeque<Packet>,
    /// The close frame, behind all packets.
    closing: Option<Close>,
    /// An upper bound of the bytes that the library holds.
    held: usize,
}

/// The type of a WebSocket with a heartbeat, for structures and signatures.
pub type Connection<W, B = Pings> = Heartbeat<WebSocket<W, B>, Frames<WebSocket<W, B>>>;

impl<W, B> WebSocket<W, B> {
    /// The library's WebSocket, for inspection.
    #[must_use]
    pub const fn get_ref(&self) -> &W {
        &self.library
    }
}

/// Over a WebSocket.
impl<W: Library> Connection<W> {
    /// Wraps an open WebSocket, on either side. The peer needs no heartbeat: its library
    /// answers pings. See [`websocket`](crate::websocket) for what is supported.
    ///
    /// The handshake comes before the heartbeat. Limit its time.
    #[cfg_attr(
        feature = "tungstenite",
        doc = r#"
Over tokio-tungstenite:

```
# use futures::{SinkExt, StreamExt};
use heartbeat_tokio::{Config, Heartbeat, PeerEvent, websocket::Message};
use tokio_tungstenite::{accept_async, connect_async};
# use tokio::net::TcpListener;

# #[tokio::main(flavor = "current_thread")]
# async fn main() -> Result<(), Box<dyn std::error::Error>> {
# let listener = TcpListener::bind("127.0.0.1:0").await?;
# let url = format!("ws://{}", listener.local_addr()?);
# let server = tokio::spawn(async move {
# let (stream, _) = listener.accept().await.unwrap();
let mut server = Heartbeat::websocket(accept_async(stream).await.unwrap(), Config::default());
while let Some(event) = server.next().await {
    match event {
        PeerEvent::Message(message) => server.send(message).await.unwrap(), // an echo
        end => println!("{end}"),
    }
}
# });

let (socket, _) = connect_async(url).await?;
let mut client = Heartbeat::websocket(socket, Config::default());
client.send(Message::from("hello")).await?;
assert_eq!(client.next().await, Some(PeerEvent::Message("hello".into())));
client.close().await?;
# server.await?;
# Ok(()) }
```
"#
    )]
    #[cfg_attr(
        feature = "axum",
        doc = r#"
Over axum:

```
use axum::{Router, extract::ws::WebSocketUpgrade, response::Response, routing::any};
# use futures::{SinkExt, StreamExt};
use heartbeat_tokio::{Config, Heartbeat, PeerEvent};

async fn echo(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|socket| async move {
        let mut peer = Heartbeat::websocket(socket, Config::default());
        while let Some(event) = peer.next().await {
            if let PeerEvent::Message(message) = event {
                let _ = peer.send(message).await; // an error is the next event, too
            }
        }
    })
}

let app: Router = Router::new().route("/echo", any(echo));
```
"#
    )]
    pub fn websocket(socket: W, config: Config) -> Self {
        Self::websocket_with(socket, Pings, config)
    }
}

/// Over a WebSocket.
impl<W: Library, B: Beats> Connection<W, B> {
    /// Wraps an open WebSocket as [`websocket`](Heartbeat::websocket) does, with other beats:
    /// [`Messages`], [`OwnFrames`], or your own [`Beats`].
    #[cfg_attr(
        feature = "tungstenite",
        doc = r#"
```
# use futures::{SinkExt, StreamExt};
# use heartbeat_tokio::{Config, Heartbeat, PeerEvent};
use heartbeat_tokio::websocket::OwnFrames;
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

# #[tokio::main(flavor = "current_thread")]
# async fn main() -> Result<(), Box<dyn std::error::Error>> {
let (ours, theirs) = tokio::io::duplex(1024);
let ours = WebSocketStream::from_raw_socket(ours, Role::Server, None).await;
let theirs = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;

let mut server = Heartbeat::websocket_with(ours, OwnFrames::new(), Config::default());
let mut client = Heartbeat::websocket_with(theirs, OwnFrames::new(), Config::default());
client.send("hello".into()).await?;
assert!(matches!(server.next().await, Some(PeerEvent::Connected { .. })));
assert_eq!(server.next().await, Some(PeerEvent::Message("hello".into())));
# Ok(()) }
```
"#
    )]
    pub fn websocket_with(socket: W, beats: B, config: Config) -> Self {
        let socket = WebSocket {
            library: socket,
            beats,
            max_frame: config.max_frame(),
            waiting: VecDeque::new(),
            closing: None,
            held: 0,
        };
        Self::with_frames(socket, config).with_socket(|socket| socket.library.tcp())
    }
}

impl<W: Library, B: Beats> Dialect for WebSocket<W, B> {
    type Message = B::Message;
    const HELLO: bool = B::HELLO;
    const GOODBYE: bool = true;

    fn weight(message: &B::Message) -> usize {
        B::weight(message)
    }

    fn length(message: &B::Message) -> usize {
        B::length(message)
    }

    fn end_of(error: &(dyn Error + 'static)) -> Option<End> {
        W::end_of(error)
    }
}

impl<W: Library, B: Beats> WebSocket<W, B> {
    /// Hands a packet to the library, which has room.
    fn send(&mut self, sent: Sent) -> Result<(), BoxError> {
        let io = Pin::new(self.library.io());
        io.start_send(W::raw(sent)).map_err(Into::into)
    }

    /// Hands over the first packet that waits. The library has room.
    fn hand_over_next(&mut self) -> Result<(), BoxError> {
        let Some(packet) = self.waiting.pop_front() else {
            return Ok(());
        };
        self.held += packet.len();
        self.send(Sent::Packet(packet))
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let ready = Pin::new(self.library.io()).poll_ready(cx);
        ready.map_err(Into::into)
    }

    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        ready!(Pin::new(self.library.io()).poll_flush(cx)).map_err(Into::into)?;
        self.held = 0;
        Poll::Ready(Ok(()))
    }

    /// Decodes a packet. `None` if it has no meaning, not even as a sign of life.
    fn frame(&mut self, packet: Packet) -> Result<Option<Frame<B::Message>>, BoxError> {
        if let (Packet::Message(message), false) = (&packet, B::HELLO) {
            at_most(message.len(), self.max_frame)?;
        }
        self.beats.decode(packet, self.max_frame)
    }
}

impl<W: Library, B: Beats> Stream for WebSocket<W, B> {
    type Item = Result<Frame<B::Message>, BoxError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            let received = match ready!(Pin::new(this.library.io()).poll_next(cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Some(Ok(raw)) => W::received(raw),
            };
            let frame = match received {
                Received::Packet(packet) => this.frame(packet).transpose(),
                Received::Nothing => None,
                Received::Close(close) => {
                    // The library would answer in the next read, and none follows a goodbye.
                    let _ = this.poll_out(cx);
                    // With Hello, the goodbye came before it.
                    return Poll::Ready((!B::HELLO).then(|| Ok(close.into_goodbye())));
                }
            };
            if frame.is_some() {
                return Poll::Ready(frame);
            }
        }
    }
}

impl<W: Library, B: Beats> Sink<Frame<B::Message>> for WebSocket<W, B> {
    type Error = BoxError;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.get_mut().poll_room(cx)
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
                    this.beats.encode(goodbye, &mut this.waiting)?;
                } else {
                    this.closing = Some(Close::of_goodbye(code, detail));
                }
            }
            Frame::Data(_) => {
                this.beats.encode(frame, &mut this.waiting)?;
                // The library has room for one.
                if this.waiting.len() == 1 {
                    this.hand_over_next()?;
                }
            }
            _ => {
                let mut ahead = VecDeque::new();
                this.beats.encode(frame, &mut ahead)?;
                for packet in ahead {
                    this.send(Sent::Packet(packet))?;
                }
            }
        }
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let this = self.get_mut();
        while !this.waiting.is_empty() {
            if this.held >= HELD {
                ready!(this.poll_out(cx))?;
            }
            ready!(this.poll_room(cx))?;
            this.hand_over_next()?;
        }
        if this.closing.is_some() {
            ready!(this.poll_room(cx))?;
        }
        if let Some(close) = this.closing.take() {
            this.send(Sent::Close(close))?;
        }
        this.poll_out(cx)
    }

    /// Waits for the peer's close frame, and for a server's end of the stream, so that the
    /// peer sees a clean end (RFC 6455, section 7.1.1). The heartbeat limits how long.
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        ready!(self.as_mut().poll_flush(cx))?;
        let library = &mut self.get_mut().library;
        let mut io = Pin::new(library.io());
        ready!(io.as_mut().poll_close(cx)).map_err(Into::into)?;
        while let Some(Ok(_)) = ready!(io.as_mut().poll_next(cx)) {}
        library.poll_shutdown(cx).map_err(Into::into)
    }
}
