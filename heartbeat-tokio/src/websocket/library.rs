//! The interface to a WebSocket library.
//!
//! This module defines the interface between beats and the libraries. Each library has a
//! module for its types.

use std::{
    error::Error,
    io,
    task::{Context, Poll},
};

use futures_core::Stream;
use futures_sink::Sink;
use heartbeat_core::End;
use tokio::net::TcpStream;

use super::{BoxError, Close, Packet};

/// A WebSocket of a library that [`Heartbeat::websocket`](crate::Heartbeat::websocket)
/// wraps.
///
/// For code that is generic over the library. The trait is sealed.
pub trait Library: Unpin {
    /// The library's stream and sink.
    #[doc(hidden)]
    type Io: Stream<Item = Result<Self::Raw, Self::Fault>>
        + Sink<Self::Raw, Error = Self::Fault>
        + Unpin;
    /// The library's messages.
    #[doc(hidden)]
    type Raw;
    /// The library's errors.
    #[doc(hidden)]
    type Fault: Into<BoxError>;

    /// The stream and sink.
    #[doc(hidden)]
    fn io(&mut self) -> &mut Self::Io;

    /// The TCP socket below, if it can be reached.
    #[doc(hidden)]
    fn tcp(&self) -> Option<&TcpStream>;

    /// After the closing handshake, ends our direction of the stream below, if it can be reached.
    /// TLS then sends `close_notify`.
    #[doc(hidden)]
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let _ = cx;
        Poll::Ready(Ok(()))
    }

    /// Converts a message from the library.
    #[doc(hidden)]
    fn received(raw: Self::Raw) -> Received;

    /// Converts a message for the library.
    #[doc(hidden)]
    fn raw(sent: Sent) -> Self::Raw;

    /// Maps one of its errors to an end, unless an `io::Error` among its sources decides.
    #[doc(hidden)]
    fn end_of(error: &(dyn Error + 'static)) -> Option<End>;
}

/// A received message.
#[derive(Debug)]
pub enum Received {
    Packet(Packet),
    Close(Close),
    /// A message of the library that shows nothing.
    Nothing,
}

/// A message to send.
#[derive(Debug)]
pub enum Sent {
    Packet(Packet),
    Close(Close),
}
