//! axum's WebSocket.
//!
//! This module maps its messages and errors, and finds its socket.

use std::{
    error::Error,
    io,
    net::TcpStream as StdTcpStream,
    sync::{Arc, Weak},
};

use axum::{
    extract::{
        connect_info::{ConnectInfo, Connected},
        ws,
    },
    serve::IncomingStream,
};
use heartbeat_core::End;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};

use super::{
    Message, Packet,
    close::Close,
    library::{Library, Received, Sent},
};
use crate::Detail;

/// The TCP socket below a connection of axum, which axum's WebSocket doesn't expose.
///
/// With it there is a safety net below the heartbeat, a message that arrives slowly is a sign
/// of life, and a verdict resets the connection. Extract it for each connection, and pass it
/// together with the WebSocket:
///
/// ```
/// use axum::{Router, extract::{ConnectInfo, ws::WebSocketUpgrade}, response::Response, routing::any};
/// # use futures::StreamExt;
/// use heartbeat_tokio::{Config, Heartbeat, websocket::TcpSocket};
/// # use tokio::net::TcpListener;
///
/// async fn handler(upgrade: WebSocketUpgrade, socket: ConnectInfo<TcpSocket>) -> Response {
///     upgrade.on_upgrade(|ws| async {
///         let mut peer = Heartbeat::websocket((ws, socket), Config::default());
///         while let Some(event) = peer.next().await {
///             println!("{event}");
///         }
///     })
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let app = Router::new().route("/socket", any(handler));
/// let app = app.into_make_service_with_connect_info::<TcpSocket>();
/// # let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let server = axum::serve(listener, app);
/// # drop(server);
/// # Ok(()) }
/// ```
///
/// It costs a second file descriptor for each connection. The connection stays open as long
/// as a clone of it exists.
#[derive(Clone, Debug)]
pub struct TcpSocket(Option<Arc<TcpStream>>);

impl TcpSocket {
    /// The socket, for options such as `set_nodelay`. `None` if no file descriptor was left for
    /// it.
    #[must_use]
    pub fn get(&self) -> Option<&TcpStream> {
        self.0.as_deref()
    }

    /// A reference for [`sweep`](crate::safety_net::sweep) and other checks. It doesn't keep the
    /// connection open.
    #[must_use]
    pub fn downgrade(&self) -> Weak<TcpStream> {
        self.0.as_ref().map(Arc::downgrade).unwrap_or_default()
    }
}

impl Connected<IncomingStream<'_, TcpListener>> for TcpSocket {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        // Without it the heartbeat has no safety net.
        Self(duplicate(stream.io()).ok().map(Arc::new))
    }
}

fn duplicate(socket: &TcpStream) -> io::Result<TcpStream> {
    let socket: StdTcpStream = SockRef::from(socket).try_clone()?.into();
    TcpStream::from_std(socket)
}

impl Library for ws::WebSocket {
    type Io = Self;
    type Raw = ws::Message;
    type Fault = axum::Error;

    fn io(&mut self) -> &mut Self {
        self
    }

    fn tcp(&self) -> Option<&TcpStream> {
        None
    }

    fn received(raw: ws::Message) -> Received {
        Received::Packet(match raw {
            ws::Message::Text(text) => Packet::Message(Message::Text(text.as_str().to_owned())),
            ws::Message::Binary(bytes) => Packet::Message(Message::Binary(bytes)),
            ws::Message::Ping(payload) => Packet::Ping(payload),
            ws::Message::Pong(payload) => Packet::Pong(payload),
            ws::Message::Close(close) => {
                return Received::Close(close.map_or_else(Close::empty, |close| Close {
                    code: close.code,
                    reason: Detail::from(close.reason.as_str()),
                }));
            }
        })
    }

    fn raw(sent: Sent) -> ws::Message {
        match sent {
            Sent::Packet(Packet::Message(Message::Text(text))) => text.into(),
            Sent::Packet(Packet::Message(Message::Binary(bytes))) => ws::Message::Binary(bytes),
            Sent::Packet(Packet::Ping(payload)) => ws::Message::Ping(payload),
            Sent::Packet(Packet::Pong(payload)) => ws::Message::Pong(payload),
            Sent::Close(Close { code, reason }) => ws::Message::Close(Some(ws::CloseFrame {
                code,
                reason: reason.as_str().into(),
            })),
        }
    }

    /// axum doesn't expose its version of tungstenite, nor the types of these errors. Their texts
    /// have been the same since tungstenite 0.10.
    fn end_of(error: &(dyn Error + 'static)) -> Option<End> {
        const CLOSED: [&str; 4] = [
            "Connection closed normally",
            "Trying to work with closed connection",
            "Connection reset without closing handshake",
            "Sending after closing is not allowed",
        ];
        let words = error.to_string();
        let is_closed = CLOSED.iter().any(|closed| words.ends_with(closed));
        is_closed.then_some(End::Eof)
    }
}

/// With the socket below it.
impl Library for (ws::WebSocket, ConnectInfo<TcpSocket>) {
    type Io = ws::WebSocket;
    type Raw = ws::Message;
    type Fault = axum::Error;

    fn io(&mut self) -> &mut ws::WebSocket {
        &mut self.0
    }

    fn tcp(&self) -> Option<&TcpStream> {
        self.1.0.get()
    }

    fn received(raw: ws::Message) -> Received {
        ws::WebSocket::received(raw)
    }

    fn raw(sent: Sent) -> ws::Message {
        ws::WebSocket::raw(sent)
    }

    fn end_of(error: &(dyn Error + 'static)) -> Option<End> {
        ws::WebSocket::end_of(error)
    }
}
