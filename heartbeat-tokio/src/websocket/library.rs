//! The interface to a WebSocket library.
//!
//! This module decides the seam between beats and the libraries. Each has a module of its
//! own for its types.

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
/// For code that is generic over the library. It can be named, and not implemented.
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

    /// Ends our direction of the stream below, after the closing handshake, if it can be
    /// reached. TLS says goodbye then.
    #[doc(hidden)]
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let _ = cx;
        Poll::Ready(Ok(()))
    }

    /// Reads a message of the library's.
    #[doc(hidden)]
    fn received(raw: Self::Raw) -> Received;

    /// Makes one.
    #[doc(hidden)]
    fn raw(sent: Sent) -> Self::Raw;

    /// What an error of its says of the end, if it isn't an `io::Error`'s to say.
    #[doc(hidden)]
    fn end_of(error: &(dyn Error + 'static)) -> Option<End>;
}

/// What arrived.
#[derive(Debug)]
pub enum Received {
    Packet(Packet),
    Close(Close),
    /// A piece of the library's that shows nothing.
    Nothing,
}

/// What leaves.
#[derive(Debug)]
pub enum Sent {
    Packet(Packet),
    Close(Close),
}
