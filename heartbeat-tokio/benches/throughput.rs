//! What a heartbeat costs a stream of messages.
//!
//! ```text
//! cargo bench -p heartbeat-tokio --bench throughput -- [--quick] [--only TEXT] [--json FILE]
//! ```
//!
//! `--only` chooses the rows that begin with a text such as `feed tcp`.
//!
//! Every row is a ratio within one run: messages per second through a
//! [`Heartbeat`], over messages per second through what people have without
//! one, a `Framed<_, LengthDelimitedCodec>` (plus a far `Sleep`, because any
//! timer at all costs a few per cent). The two take turns, and the medians are
//! compared. Each payload is compared with what was sent.

#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark that fails has to stop"
)]

use std::{
    env, fs,
    future::Future,
    io::{self, Write},
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{Sink, SinkExt, Stream, StreamExt};
use heartbeat_tokio::{Config, Heartbeat, PeerEvent, SendError};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    net::{TcpListener, TcpStream},
    time::Sleep,
};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Sizes of payloads, and what is to be reached with them.
struct Target {
    work: Work,
    io: Io,
    /// For 16 B, 64 B, 1 KiB, 64 KiB and 1 MiB.
    ratios: [f64; 5],
}

const SIZES: [usize; 5] = [16, 64, KIB, 64 * KIB, MIB];

const TARGETS: [Target; 6] = [
    Target {
        work: Work::Feed,
        io: Io::Duplex,
        ratios: [1.20, 1.20, 1.10, 1.45, 1.80],
    },
    Target {
        work: Work::Feed,
        io: Io::Tcp,
        ratios: [1.30, 1.50, 2.5, 3.5, 3.3],
    },
    Target {
        work: Work::Send,
        io: Io::Duplex,
        ratios: [1.25, 1.25, 1.20, 1.45, 1.80],
    },
    Target {
        work: Work::Send,
        io: Io::Tcp,
        ratios: [1.05; 5],
    },
    Target {
        work: Work::Echo,
        io: Io::Duplex,
        ratios: [1.05, 1.05, 1.12, 1.35, 1.65],
    },
    Target {
        work: Work::Echo,
        io: Io::Tcp,
        ratios: [1.00; 5],
    },
];

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let value = |name| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let (json, only) = (value("--json"), value("--only").unwrap_or_default());

    let mut rows = Vec::new();
    println!("work  io      bytes     plain/s  heartbeat/s   ratio  target");
    for target in TARGETS {
        for (size, wanted) in SIZES.into_iter().zip(target.ratios) {
            let name = format!("{} {} {size}", target.work.name(), target.io.name());
            if !name.starts_with(&only) {
                continue;
            }
            let row = measure(target.work, target.io, size, wanted, quick);
            println!("{}", row.line());
            io::stdout().flush()?;
            rows.push(row.json());
        }
    }
    if let Some(file) = json {
        fs::write(file, format!("{{\"rows\":[{}]}}\n", rows.join(",")))?;
    }
    Ok(())
}

struct Row {
    work: Work,
    io: Io,
    bytes: usize,
    plain: f64,
    heartbeat: f64,
    target: f64,
}

impl Row {
    fn ratio(&self) -> f64 {
        self.heartbeat / self.plain
    }

    fn line(&self) -> String {
        let missed = if self.ratio() < self.target {
            "  missed"
        } else {
            ""
        };
        format!(
            "{:<5} {:<6} {:>7} {:>11.0} {:>12.0} {:>7.2} {:>7.2}{missed}",
            self.work.name(),
            self.io.name(),
            self.bytes,
            self.plain,
            self.heartbeat,
            self.ratio(),
            self.target,
        )
    }

    fn json(&self) -> String {
        format!(
            r#"{{"work":"{}","io":"{}","bytes":{},"ratio":{:.3},"target":{}}}"#,
            self.work.name(),
            self.io.name(),
            self.bytes,
            self.ratio(),
            self.target,
        )
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Work {
    /// One way, flushed at the end.
    Feed,
    /// One way, each message flushed.
    Send,
    /// There and back, one at a time.
    Echo,
}

impl Work {
    const fn name(self) -> &'static str {
        match self {
            Self::Feed => "feed",
            Self::Send => "send",
            Self::Echo => "echo",
        }
    }

    async fn run<T: Messages>(self, ours: T, theirs: T, payload: Bytes, count: usize) -> Duration {
        let start = Instant::now();
        let (ours, theirs) = match self {
            Self::Feed | Self::Send => {
                let each = self == Self::Send;
                (
                    tokio::spawn(send_all(ours, payload.clone(), count, each)),
                    tokio::spawn(receive_all(theirs, payload, count)),
                )
            }
            Self::Echo => (
                tokio::spawn(ask_all(ours, payload.clone(), count)),
                tokio::spawn(answer_all(theirs, payload, count)),
            ),
        };
        theirs.await.expect("it doesn't panic");
        let took = start.elapsed();
        ours.await.expect("it doesn't panic");
        took
    }
}

async fn send_all<T: Messages>(mut stream: T, payload: Bytes, count: usize, flush_each: bool) -> T {
    for _ in 0..count {
        stream.feed(payload.clone()).await.expect("the peer lives");
        if flush_each {
            stream.flush().await.expect("the peer lives");
        }
    }
    stream.flush().await.expect("the peer lives");
    stream
}

async fn receive_all<T: Messages>(mut stream: T, payload: Bytes, count: usize) -> T {
    for _ in 0..count {
        let message = stream.next().await.expect("the peer lives");
        assert!(message == payload, "another payload");
    }
    stream
}

async fn ask_all<T: Messages>(mut stream: T, payload: Bytes, count: usize) -> T {
    for _ in 0..count {
        stream.send(payload.clone()).await.expect("the peer lives");
        let message = stream.next().await.expect("the peer lives");
        assert!(message == payload, "another payload");
    }
    stream
}

async fn answer_all<T: Messages>(mut stream: T, payload: Bytes, count: usize) -> T {
    for _ in 0..count {
        let message = stream.next().await.expect("the peer lives");
        assert!(message == payload, "another payload");
        stream.send(message).await.expect("the peer lives");
    }
    stream
}

#[derive(Clone, Copy)]
enum Io {
    Duplex,
    Tcp,
}

impl Io {
    const fn name(self) -> &'static str {
        match self {
            Self::Duplex => "duplex",
            Self::Tcp => "tcp",
        }
    }
}

/// Times both, in turns.
fn measure(work: Work, io: Io, bytes: usize, target: f64, quick: bool) -> Row {
    let (turns, each) = match quick {
        true => (5, Duration::from_millis(60)),
        false => (11, Duration::from_millis(250)),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let payload: Bytes = (0..bytes).map(|n| (n * 31 % 251) as u8).collect();
    let run = |heartbeat, count| {
        runtime.block_on(async {
            let payload = payload.clone();
            match (io, heartbeat) {
                (Io::Duplex, false) => pair(work, duplex(), Plain::new, payload, count).await,
                (Io::Duplex, true) => pair(work, duplex(), Beating::new, payload, count).await,
                (Io::Tcp, false) => pair(work, tcp().await, Plain::new, payload, count).await,
                (Io::Tcp, true) => pair(work, tcp().await, Beating::new, payload, count).await,
            }
        })
    };

    // As many messages as the plain one carries in `each`.
    let mut count = 8;
    let count = loop {
        let took = run(false, count);
        if took > each / 4 {
            break (count as f64 * each.as_secs_f64() / took.as_secs_f64()) as usize + 1;
        }
        count *= 2;
    };
    let mut plain = Vec::new();
    let mut heartbeat = Vec::new();
    for _ in 0..turns {
        plain.push(count as f64 / run(false, count).as_secs_f64());
        heartbeat.push(count as f64 / run(true, count).as_secs_f64());
    }
    Row {
        work,
        io,
        bytes,
        plain: median(plain),
        heartbeat: median(heartbeat),
        target,
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

async fn pair<S, T: Messages>(
    work: Work,
    (ours, theirs): (S, S),
    wrap: fn(S) -> T,
    payload: Bytes,
    count: usize,
) -> Duration {
    work.run(wrap(ours), wrap(theirs), payload, count).await
}

fn duplex() -> (DuplexStream, DuplexStream) {
    tokio::io::duplex(64 * KIB)
}

async fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (ours, theirs) = (ours.expect("connected"), theirs.expect("accepted").0);
    for stream in [&ours, &theirs] {
        stream.set_nodelay(true).expect("an option");
    }
    (ours, theirs)
}

/// A stream of messages in both directions.
trait Messages:
    Stream<Item = Bytes> + Sink<Bytes, Error: std::fmt::Debug> + Unpin + Send + 'static
{
}

impl<T> Messages for T where
    T: Stream<Item = Bytes> + Sink<Bytes, Error: std::fmt::Debug> + Unpin + Send + 'static
{
}

/// What people have without a heartbeat.
struct Plain<S> {
    framed: Framed<S, LengthDelimitedCodec>,
    sleep: Pin<Box<Sleep>>,
}

impl<S: AsyncRead + AsyncWrite> Plain<S> {
    fn new(stream: S) -> Self {
        Self {
            framed: Framed::new(stream, LengthDelimitedCodec::new()),
            sleep: Box::pin(tokio::time::sleep(Duration::from_secs(3600))),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for Plain<S> {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match self.framed.poll_next_unpin(cx) {
            Poll::Ready(Some(Ok(message))) => Poll::Ready(Some(message.freeze())),
            Poll::Ready(Some(Err(_)) | None) => Poll::Ready(None),
            Poll::Pending => {
                let _ = self.sleep.as_mut().poll(cx);
                Poll::Pending
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Sink<Bytes> for Plain<S> {
    type Error = io::Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        SinkExt::<Bytes>::poll_ready_unpin(&mut self.framed, cx)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Bytes) -> io::Result<()> {
        self.framed.start_send_unpin(message)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        SinkExt::<Bytes>::poll_flush_unpin(&mut self.framed, cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        SinkExt::<Bytes>::poll_close_unpin(&mut self.framed, cx)
    }
}

/// A heartbeat, of which only the messages are looked at.
struct Beating<S>(Heartbeat<S>);

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Beating<S> {
    fn new(stream: S) -> Self {
        Self(Heartbeat::new(stream, Config::default()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Stream for Beating<S> {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            match self.0.poll_next_unpin(cx) {
                Poll::Ready(Some(PeerEvent::Message(message))) => {
                    return Poll::Ready(Some(message));
                }
                Poll::Ready(Some(_)) => {}
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Sink<Bytes> for Beating<S> {
    type Error = SendError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.0.poll_ready_unpin(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Bytes) -> Result<(), SendError> {
        self.0.start_send_unpin(message)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.0.poll_flush_unpin(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.0.poll_close_unpin(cx)
    }
}
