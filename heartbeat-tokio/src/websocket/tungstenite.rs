//! tokio-tungstenite's WebSocket.
//!
//! This module maps its messages and errors, and finds its socket.

use std::{
    any::Any,
    error::Error,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use heartbeat_core::{End, ProtocolError};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{
        self,
        error::{CapacityError, ProtocolError as Rule},
        protocol::CloseFrame,
    },
};

use super::{
    Message, Packet,
    close::Close,
    library::{Library, Received, Sent},
};
use crate::{Detail, net::itself, transport::reason};

impl<S> Library for WebSocketStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    type Io = Self;
    type Raw = tungstenite::Message;
    type Fault = tungstenite::Error;

    fn io(&mut self) -> &mut Self {
        self
    }

    fn tcp(&self) -> Option<&TcpStream> {
        let stream = self.get_ref();
        match (stream as &dyn Any).downcast_ref() {
            Some(MaybeTlsStream::Plain(socket)) => Some(socket),
            Some(_) => None,
            None => itself(stream),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut()).poll_shutdown(cx)
    }

    fn received(raw: tungstenite::Message) -> Received {
        Received::Packet(match raw {
            tungstenite::Message::Text(text) => {
                Packet::Message(Message::Text(text.as_str().to_owned()))
            }
            tungstenite::Message::Binary(bytes) => Packet::Message(Message::Binary(bytes)),
            tungstenite::Message::Ping(payload) => Packet::Ping(payload),
            tungstenite::Message::Pong(payload) => Packet::Pong(payload),
            tungstenite::Message::Frame(_) => return Received::Nothing,
            tungstenite::Message::Close(close) => {
                return Received::Close(close.map_or_else(Close::empty, |close| Close {
                    code: close.code.into(),
                    reason: Detail::from(close.reason.as_str()),
                }));
            }
        })
    }

    fn raw(sent: Sent) -> tungstenite::Message {
        match sent {
            Sent::Packet(Packet::Message(Message::Text(text))) => text.into(),
            Sent::Packet(Packet::Message(Message::Binary(bytes))) => {
                tungstenite::Message::Binary(bytes)
            }
            Sent::Packet(Packet::Ping(payload)) => tungstenite::Message::Ping(payload),
            Sent::Packet(Packet::Pong(payload)) => tungstenite::Message::Pong(payload),
            Sent::Close(Close { code, reason }) => tungstenite::Message::Close(Some(CloseFrame {
                code: code.into(),
                reason: reason.as_str().into(),
            })),
        }
    }

    fn end_of(error: &(dyn Error + 'static)) -> Option<End> {
        match reason(error)? {
            // The closing handshake is over, or never came.
            tungstenite::Error::ConnectionClosed
            | tungstenite::Error::AlreadyClosed
            | tungstenite::Error::Protocol(
                Rule::ResetWithoutClosingHandshake | Rule::SendAfterClosing,
            ) => Some(End::Eof),
            tungstenite::Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
                Some(End::Protocol(ProtocolError::FrameTooLong {
                    length: u32::try_from(*size).unwrap_or(u32::MAX),
                    max: u32::try_from(*max_size).unwrap_or(u32::MAX),
                }))
            }
            _ => None,
        }
    }
}
