//! What a heartbeat costs a WebSocket, and bytes that pass through it.
//!
//! ```text
//! cargo bench -p heartbeat-tokio --bench wrapped --features tungstenite -- [--quick] [--only TEXT]
//! ```
//!
//! `websocket` rows carry messages with `Heartbeat::websocket`, over messages a second with
//! the library alone and a timer that sends its pings. `bytes` rows carry bytes through two
//! relays with `copy_bidirectional`, whose link is a `Heartbeat::into_io` each side, over
//! bytes a second through a plain link: one connection, or a hundred at once.

#![allow(clippy::expect_used, reason = "a benchmark that fails has to stop")]

mod harness;

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{Sink, SinkExt, Stream, StreamExt};
use harness::{
    Arguments, End,
    Io::{Duplex, Tcp},
    Job, Subject, Target,
    Work::{Echo, Feed},
    Workers,
};
use heartbeat_tokio::{
    Config, Heartbeat, PeerEvent,
    websocket::{self, Message as Beat},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional},
    net::TcpStream,
    time::{Interval, interval},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error, Message, protocol::Role},
};

async fn open<S: AsyncRead + AsyncWrite + Unpin>(stream: S, end: End) -> WebSocketStream<S> {
    let role = match end {
        End::Asking => Role::Client,
        End::Answering => Role::Server,
    };
    WebSocketStream::from_raw_socket(stream, role, None).await
}

/// The library with a heartbeat.
struct Beating<S>(websocket::Connection<WebSocketStream<S>>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static;

async fn beating<S>(stream: S, end: End) -> Beating<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    Beating(Heartbeat::websocket(
        open(stream, end).await,
        Config::default(),
    ))
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for Beating<S> {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            match self.0.poll_next_unpin(cx) {
                Poll::Ready(Some(PeerEvent::Message(Beat::Binary(message)))) => {
                    return Poll::Ready(Some(message));
                }
                Poll::Ready(Some(_)) => {}
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// The library, and what people write: a timer that sends pings.
struct Pinging<S> {
    socket: WebSocketStream<S>,
    timer: Interval,
}

async fn pinging<S: AsyncRead + AsyncWrite + Unpin>(stream: S, end: End) -> Pinging<S> {
    Pinging {
        socket: open(stream, end).await,
        timer: interval(Duration::from_secs(5)),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for Pinging<S> {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            match self.socket.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(Message::Binary(message)))) => {
                    return Poll::Ready(Some(message));
                }
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => return Poll::Ready(None),
                Poll::Pending if self.timer.poll_tick(cx).is_ready() => {
                    let ready = self.socket.poll_ready_unpin(cx).is_ready();
                    let ping = Message::Ping(Bytes::from_static(b"8 bytes."));
                    if ready && self.socket.start_send_unpin(ping).is_ok() {
                        let _ = self.socket.poll_flush_unpin(cx);
                    }
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

macro_rules! sink_of_bytes {
    ($subject:ident, $field:tt, $error:ty, $message:path) => {
        impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Sink<Bytes> for $subject<S> {
            type Error = $error;

            fn poll_ready(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
            ) -> Poll<Result<(), $error>> {
                self.$field.poll_ready_unpin(cx)
            }

            fn start_send(mut self: Pin<&mut Self>, message: Bytes) -> Result<(), $error> {
                self.$field.start_send_unpin($message(message))
            }

            fn poll_flush(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
            ) -> Poll<Result<(), $error>> {
                self.$field.poll_flush_unpin(cx)
            }

            fn poll_close(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
            ) -> Poll<Result<(), $error>> {
                self.$field.poll_close_unpin(cx)
            }
        }
    };
}

sink_of_bytes!(Beating, 0, heartbeat_tokio::SendError, Beat::Binary);
sink_of_bytes!(Pinging, socket, Error, Message::Binary);

const BEATING: Subject = subject!("heartbeat", beating);
const PINGING: Subject = subject!("alone", pinging);

/// A stream to a relay, a link between two relays, and a stream behind them.
async fn relay<L>(job: Job, connections: usize, wrap: fn(TcpStream) -> L) -> Duration
where
    L: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let bytes = job.count * job.payload.len() / connections;
    let mut ends = Vec::new();
    for _ in 0..connections {
        let (ours, mut near) = harness::tcp().await;
        let (mut far, theirs) = harness::tcp().await;
        let link = harness::tcp().await;
        let (mut from, mut to) = (wrap(link.0), wrap(link.1));
        tokio::spawn(async move { copy_bidirectional(&mut near, &mut from).await });
        tokio::spawn(async move { copy_bidirectional(&mut to, &mut far).await });
        ends.push((ours, theirs));
    }
    let start = Instant::now();
    let tasks = ends.into_iter().map(|(ours, theirs)| {
        let writing = tokio::spawn(harness::write_bytes(ours, bytes));
        let reading = tokio::spawn(harness::read_bytes(theirs, bytes));
        futures::future::join(writing, reading)
    });
    for (wrote, read) in futures::future::join_all(tasks).await {
        wrote.and(read).expect("it doesn't panic");
    }
    start.elapsed()
}

fn into_io(stream: TcpStream) -> heartbeat_tokio::Io {
    Heartbeat::new(stream, Config::default()).into_io()
}

macro_rules! relayed {
    ($name:literal, $connections:literal, $wrap:expr) => {
        Subject {
            name: $name,
            run: |job| Box::pin(relay(job, $connections, $wrap)),
        }
    };
}

const fn row(name: &'static str, work: harness::Work, io: harness::Io) -> Target {
    let ratios = [0.0, 1.0, 0.0, 1.0, 0.0];
    Target {
        name,
        work,
        io,
        ratios,
        reached: ratios,
        workers: Workers::One,
        ours: BEATING,
        theirs: PINGING,
    }
}

const fn bytes(name: &'static str, ours: Subject, theirs: Subject) -> Target {
    let ratios = [0.0, 0.0, 0.0, 0.0, 0.85];
    Target {
        name,
        work: Feed,
        io: Tcp,
        ratios,
        reached: ratios,
        workers: Workers::One,
        ours,
        theirs,
    }
}

const TARGETS: [Target; 6] = [
    row("websocket-feed", Feed, Duplex),
    row("websocket-feed", Feed, Tcp),
    row("websocket-echo", Echo, Duplex),
    row("websocket-echo", Echo, Tcp),
    bytes(
        "bytes",
        relayed!("into_io", 1, into_io),
        relayed!("plain", 1, |stream| stream),
    ),
    bytes(
        "bytes-of-a-hundred",
        relayed!("into_io", 100, into_io),
        relayed!("plain", 100, |stream| stream),
    ),
];

fn main() -> io::Result<()> {
    harness::table(&TARGETS, &Arguments::parse())
}
