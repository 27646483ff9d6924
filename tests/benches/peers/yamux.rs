//! A multiplexer, of which one stream is used, and a task that drives it.
//!
//! It pings every ten seconds to measure the round trip. It has no verdict: a
//! pong that never comes has no consequences.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{SinkExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::{
    compat::{Compat, FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt},
    task::AbortOnDropHandle,
};
use yamux::{Config, Connection, Mode};

use crate::{
    harness::{End, LengthDelimited},
    sink_by,
};

/// The stream's messages, each behind its length.
pub(crate) struct Yamux {
    messages: LengthDelimited<Compat<yamux::Stream>>,
    _driver: AbortOnDropHandle<()>,
}

pub(crate) async fn stream<S>(stream: S, end: End) -> Yamux
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mode = match end {
        End::Asking => Mode::Client,
        End::Answering => Mode::Server,
    };
    let mut connection = Connection::new(stream.compat(), Config::default(), mode);
    let stream = match end {
        End::Asking => poll_fn(|cx| connection.poll_new_outbound(cx))
            .await
            .expect("a stream"),
        End::Answering => poll_fn(|cx| connection.poll_next_inbound(cx))
            .await
            .expect("a stream")
            .expect("a stream"),
    };
    let mut messages = LengthDelimited::new(stream.compat());
    let driver = tokio::spawn(async move {
        while let Some(Ok(_)) = poll_fn(|cx| connection.poll_next_inbound(cx)).await {}
    });
    // The other end learns of a stream when something is sent on it.
    match end {
        End::Asking => messages.send(Bytes::new()).await.expect("the peer lives"),
        End::Answering => drop(messages.next().await.expect("the peer lives")),
    }
    Yamux {
        messages,
        _driver: AbortOnDropHandle::new(driver),
    }
}

impl Stream for Yamux {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.messages.poll_next_unpin(cx)
    }
}

sink_by!(messages, std::io::Error, Yamux);
