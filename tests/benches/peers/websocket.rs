//! A WebSocket with the usual hand-written pings: a timer sends them, and a peer that wasn't
//! heard since the last tick is dead.
//!
//! The library answers pings. The server pings, because its frames aren't masked: that is the
//! faster direction. An end that only sends doesn't check its peer, because it doesn't read.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::{Sink, SinkExt, Stream, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Interval,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        protocol::{Role, WebSocketConfig},
    },
};

use super::INTERVAL;
use crate::harness::{End, KIB};

/// With reads of 128 KiB, the default, which suit bulk.
pub(crate) async fn large_reads<S>(stream: S, end: End) -> Pinged<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    pinged(stream, end, 128 * KIB).await
}

/// With reads of 4 KiB: it clears its buffer before each read, which in a
/// dialogue takes most of the time if the buffer is large.
pub(crate) async fn small_reads<S>(stream: S, end: End) -> Pinged<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    pinged(stream, end, 4 * KIB).await
}

pub(crate) struct Pinged<S> {
    socket: WebSocketStream<S>,
    interval: Interval,
    /// Whether anything arrived since the last ping.
    heard: bool,
}

async fn pinged<S>(stream: S, end: End, read: usize) -> Pinged<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let role = match end {
        End::Asking => Role::Server,
        End::Answering => Role::Client,
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(read)
        .max_message_size(None)
        .max_frame_size(None);
    Pinged {
        socket: WebSocketStream::from_raw_socket(stream, role, Some(config)).await,
        interval: tokio::time::interval(INTERVAL),
        heard: true,
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for Pinged<S> {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let this = &mut *self;
        loop {
            match this.socket.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(message))) => {
                    this.heard = true;
                    if let Message::Binary(message) = message {
                        return Poll::Ready(Some(message));
                    }
                }
                Poll::Ready(_) => return Poll::Ready(None),
                Poll::Pending => {
                    ready!(this.interval.poll_tick(cx));
                    if !this.heard {
                        return Poll::Ready(None);
                    }
                    this.heard = false;
                    let ping = Message::Ping(Bytes::new());
                    if this.socket.start_send_unpin(ping).is_err()
                        || matches!(this.socket.poll_flush_unpin(cx), Poll::Ready(Err(_)))
                    {
                        return Poll::Ready(None);
                    }
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Sink<Bytes> for Pinged<S> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.socket.poll_ready_unpin(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Bytes) -> Result<(), Error> {
        self.socket.start_send_unpin(Message::Binary(message))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.socket.poll_flush_unpin(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.socket.poll_close_unpin(cx)
    }
}
