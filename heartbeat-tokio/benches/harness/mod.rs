//! Times two ways of carrying the same messages, in turns.
//!
//! This module decides what a row of a table is: which work, over which kind of stream, how
//! often, and that received payloads are compared with the sent ones. The benchmark decides
//! which sides are compared.

#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    dead_code,
    unreachable_pub,
    reason = "shared by benchmarks, which use different parts of it and have to stop when they fail"
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
use futures::{Sink, SinkExt, Stream, StreamExt, future::LocalBoxFuture};
use heartbeat_tokio::{Config, Driver, Heartbeat, PeerEvent, Receiver, SendError, Sender};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::mpsc,
    time::Sleep,
};
use tokio_util::{
    codec::{Framed, LengthDelimitedCodec},
    sync::{PollSendError, PollSender},
};

pub const KIB: usize = 1024;
pub const MIB: usize = 1024 * KIB;

/// The payloads of the rows of a [`Target`], in bytes.
pub const SIZES: [usize; 5] = [16, 64, KIB, 64 * KIB, MIB];

/// What a table has one line each for.
pub struct Target {
    /// What it is called.
    pub name: &'static str,
    pub work: Work,
    pub io: Io,
    pub workers: Workers,
    pub ours: Subject,
    pub theirs: Subject,
    /// For each of [`SIZES`]. None of zero: that size isn't measured.
    pub ratios: [f64; 5],
    /// What is reached, where that is known to be less: a regression is judged
    /// by it.
    pub reached: [f64; 5],
}

#[derive(Clone, Copy, PartialEq)]
pub enum Work {
    /// One way, flushed at the end.
    Feed,
    /// One way, each message flushed.
    Send,
    /// There and back, one at a time.
    Echo,
}

#[derive(Clone, Copy)]
pub enum Io {
    /// In memory, 64 KiB in each direction.
    Duplex,
    /// Over loopback, without Nagle's algorithm.
    Tcp,
}

#[derive(Clone, Copy)]
pub enum Workers {
    /// Both ends on one thread.
    One,
    /// Each end on a thread of its own.
    Two,
}

/// The end of a connection: the one that asks, or the one that answers.
#[derive(Clone, Copy, PartialEq)]
pub enum End {
    Asking,
    Answering,
}

/// One way of carrying messages.
#[derive(Clone, Copy)]
pub struct Subject {
    pub name: &'static str,
    pub run: fn(Job) -> LocalBoxFuture<'static, Duration>,
}

/// Makes a [`Subject`] of a name and an asynchronous function of a stream and
/// its [`End`], which wraps it in something that is [`Messages`].
#[macro_export]
macro_rules! subject {
    ($name:literal, $wrap:path) => {
        $crate::harness::Subject {
            name: $name,
            run: |job| {
                Box::pin(async move {
                    match job.io {
                        $crate::harness::Io::Duplex => {
                            let (ours, theirs) = $crate::harness::duplex();
                            job.run($wrap, ours, theirs).await
                        }
                        $crate::harness::Io::Tcp => {
                            let (ours, theirs) = $crate::harness::tcp().await;
                            job.run($wrap, ours, theirs).await
                        }
                    }
                })
            },
        }
    };
}

/// The number of messages to carry.
#[derive(Clone)]
pub struct Job {
    pub work: Work,
    pub io: Io,
    pub payload: Bytes,
    pub count: usize,
}

impl Job {
    /// How long it took.
    pub async fn run<S, T, F>(self, wrap: impl Fn(S, End) -> F, ours: S, theirs: S) -> Duration
    where
        T: Messages,
        F: Future<Output = T>,
    {
        let wrapped = (wrap(ours, End::Asking), wrap(theirs, End::Answering));
        let (ours, theirs) = futures::future::join(wrapped.0, wrapped.1).await;
        let Self {
            payload,
            count,
            work,
            ..
        } = self;
        let start = Instant::now();
        let (ours, theirs) = match work {
            Work::Feed | Work::Send => {
                let each = work == Work::Send;
                (
                    tokio::spawn(send_all(ours, payload.clone(), count, each)),
                    tokio::spawn(receive_all(theirs, payload, count)),
                )
            }
            Work::Echo => (
                tokio::spawn(ask_all(ours, payload.clone(), count)),
                tokio::spawn(answer_all(theirs, payload, count)),
            ),
        };
        // The side that ended first stays: flushed bytes may still be with its driver.
        let theirs = theirs.await.expect("it doesn't panic");
        let ours = ours.await.expect("it doesn't panic");
        let took = start.elapsed();
        drop((ours, theirs));
        took
    }
}

// Each returns the stream, boxed, so that no task's poll has a large result to
// move, and both streams live until both tasks have ended.

async fn send_all<T: Messages>(
    mut stream: T,
    payload: Bytes,
    count: usize,
    flush_each: bool,
) -> Box<T> {
    for _ in 0..count {
        stream.feed(payload.clone()).await.expect("the peer lives");
        if flush_each {
            stream.flush().await.expect("the peer lives");
        }
    }
    stream.flush().await.expect("the peer lives");
    Box::new(stream)
}

async fn receive_all<T: Messages>(mut stream: T, payload: Bytes, count: usize) -> Box<T> {
    for nth in 0..count {
        let message = stream.next().await.expect("the peer lives");
        verify(&message, &payload, nth);
    }
    Box::new(stream)
}

async fn ask_all<T: Messages>(mut stream: T, payload: Bytes, count: usize) -> Box<T> {
    for nth in 0..count {
        stream.send(payload.clone()).await.expect("the peer lives");
        let message = stream.next().await.expect("the peer lives");
        verify(&message, &payload, nth);
    }
    Box::new(stream)
}

async fn answer_all<T: Messages>(mut stream: T, payload: Bytes, count: usize) -> Box<T> {
    for nth in 0..count {
        let message = stream.next().await.expect("the peer lives");
        verify(&message, &payload, nth);
        stream.send(message).await.expect("the peer lives");
    }
    Box::new(stream)
}

/// Stops if the message isn't the payload. A large one is compared at its ends
/// and in a window that moves on from message to message: comparing all of it
/// would take as long as carrying it.
fn verify(message: &[u8], payload: &[u8], nth: usize) {
    const WINDOW: usize = 512;
    assert_eq!(message.len(), payload.len(), "another length");
    if payload.len() <= 8 * WINDOW {
        assert!(message == payload, "another payload");
        return;
    }
    let windows = payload.len().div_ceil(WINDOW);
    let same = |at: usize| {
        let window = at * WINDOW..payload.len().min((at + 1) * WINDOW);
        message[window.clone()] == payload[window]
    };
    let all = [0, nth % windows, windows - 1].into_iter().all(same);
    assert!(all, "another payload");
}

/// The same bytes without a heartbeat and without messages of one's own: what a stream
/// allows by itself.
pub async fn carry_bytes<S>(job: Job, ours: S, theirs: S) -> Duration
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let frame = HEADER + job.payload.len();
    let start = Instant::now();
    let (ours, theirs) = match job.work {
        Work::Echo => (
            tokio::spawn(ask_bytes(ours, frame, job.count)),
            tokio::spawn(answer_bytes(theirs, frame, job.count)),
        ),
        Work::Feed | Work::Send if frame < 4 * KIB => (
            tokio::spawn(write_frames(ours, job.payload, job.count)),
            tokio::spawn(read_frames(theirs, job.count)),
        ),
        Work::Feed | Work::Send => {
            let all = job.count * frame;
            (
                tokio::spawn(write_bytes(ours, all)),
                tokio::spawn(read_bytes(theirs, all)),
            )
        }
    };
    let theirs = theirs.await.expect("it doesn't panic");
    let ours = ours.await.expect("it doesn't panic");
    let took = start.elapsed();
    drop((ours, theirs));
    took
}

/// A length and a tag.
const HEADER: usize = 5;

// In the pieces with which that was fastest.

pub async fn write_bytes<S: AsyncWrite + Unpin>(mut stream: S, mut left: usize) -> S {
    let piece = vec![7; 192 * KIB];
    while left > 0 {
        let piece = &piece[..left.min(piece.len())];
        stream.write_all(piece).await.expect("the peer lives");
        left -= piece.len();
        tokio::task::yield_now().await;
    }
    stream
}

pub async fn read_bytes<S: AsyncRead + Unpin>(mut stream: S, mut left: usize) -> S {
    let mut piece = vec![0; 64 * KIB];
    while left > 0 {
        let read = stream.read(&mut piece).await.expect("the peer lives");
        assert!(read > 0, "the peer lives");
        left -= read;
    }
    stream
}

// Small messages as the bytes that they are, with one pass over their headers: none is
// handed out, and none is copied by itself.

async fn write_frames<S: AsyncWrite + Unpin>(mut stream: S, payload: Bytes, count: usize) -> S {
    let length = (payload.len() as u32 + 1).to_be_bytes();
    let frame = [&length, &[0][..], &payload].concat();
    let at_once = (64 * KIB).div_ceil(frame.len());
    let batch = frame.repeat(at_once);
    let mut left = count;
    while left > 0 {
        let frames = left.min(at_once);
        let batch = &batch[..frames * frame.len()];
        stream.write_all(batch).await.expect("the peer lives");
        left -= frames;
        tokio::task::yield_now().await;
    }
    stream
}

async fn read_frames<S: AsyncRead + Unpin>(mut stream: S, count: usize) -> S {
    let mut memory = vec![0; 64 * KIB];
    let (mut filled, mut seen) = (0, 0);
    while seen < count {
        let read = stream.read(&mut memory[filled..]).await;
        let read = read.expect("the peer lives");
        assert!(read > 0, "the peer lives");
        filled += read;
        let mut rest = &memory[..filled];
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let Some(after) = after.get(u32::from_be_bytes(*length) as usize..) else {
                break;
            };
            rest = after;
            seen += 1;
        }
        let begun = rest.len();
        memory.copy_within(filled - begun..filled, 0);
        filled = begun;
    }
    stream
}

async fn ask_bytes<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    frame: usize,
    count: usize,
) -> S {
    let mut memory = vec![7; frame];
    for _ in 0..count {
        stream.write_all(&memory).await.expect("the peer lives");
        stream
            .read_exact(&mut memory)
            .await
            .expect("the peer lives");
    }
    stream
}

async fn answer_bytes<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    frame: usize,
    count: usize,
) -> S {
    let mut memory = vec![7; frame];
    for _ in 0..count {
        stream
            .read_exact(&mut memory)
            .await
            .expect("the peer lives");
        stream.write_all(&memory).await.expect("the peer lives");
    }
    stream
}

/// A stream of messages in both directions.
pub trait Messages:
    Stream<Item = Bytes> + Sink<Bytes, Error: std::fmt::Debug> + Unpin + Send + 'static
{
}

impl<T> Messages for T where
    T: Stream<Item = Bytes> + Sink<Bytes, Error: std::fmt::Debug> + Unpin + Send + 'static
{
}

/// The command line.
pub struct Arguments {
    quick: bool,
    only: String,
    json: Option<String>,
    alone: Option<String>,
    at_least: f64,
}

impl Arguments {
    pub fn parse() -> Self {
        let arguments: Vec<String> = env::args().collect();
        let value = |name: &str| {
            let at = arguments.iter().position(|argument| argument == name)?;
            arguments.get(at + 1).cloned()
        };
        Self {
            quick: arguments.iter().any(|argument| argument == "--quick"),
            only: value("--only").unwrap_or_default(),
            json: value("--json"),
            alone: value("--alone"),
            at_least: value("--at-least").map_or(0.0, |part| part.parse().expect("a number")),
        }
    }

    fn effort(&self, target: &Target) -> Effort {
        match self.quick {
            true if self.at_least > 0.0 && !target.is_steady() => Effort::Once,
            true => Effort::Quick,
            false => Effort::Exact,
        }
    }
}

/// How often a row is timed.
enum Effort {
    /// To see that it works. No limit applies to it.
    Once,
    Quick,
    Exact,
}

/// Has the C library copy with a loop, whatever the size. For more than 4 KiB it takes an
/// instruction (`rep movsb`) that is thirty times as slow on some processors if the
/// destination is 1 to 31 bytes behind the source, modulo the page size. The allocator
/// decides where buffers begin, so a side that carries large messages in memory was fast or
/// slow by chance. `docs/performance.md` has more.
///
/// The library reads this once, so the program starts itself again. If `GLIBC_TUNABLES` is
/// set, even to nothing, it is left alone.
#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
fn copy_steadily() -> io::Result<()> {
    use std::{os::unix::process::CommandExt as _, process::Command};

    const TUNABLES: &str = "GLIBC_TUNABLES";
    if env::var_os(TUNABLES).is_some() {
        return Ok(());
    }
    let error = Command::new(env::current_exe()?)
        .args(env::args_os().skip(1))
        .env(TUNABLES, "glibc.cpu.x86_rep_movsb_threshold=0x10000000")
        .exec();
    Err(error)
}

#[cfg(not(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64")))]
fn copy_steadily() -> io::Result<()> {
    Ok(())
}

/// Measures and prints a table.
///
/// # Errors
///
/// The file of `--json` can't be written; or, with `--at-least`, a steady row
/// fell behind.
pub fn table(targets: &[Target], arguments: &Arguments) -> io::Result<()> {
    copy_steadily()?;
    let (mut rows, mut behind) = (Vec::new(), Vec::new());
    println!(
        "{:<22} {:<6} {:>7}  {:>18} {:>18}  {:>6} {:>6}",
        "work", "io", "bytes", "msg/s", "msg/s", "ratio", "target"
    );
    for target in targets {
        let ratios = target.ratios.into_iter().zip(target.reached);
        for (bytes, (wanted, reached)) in SIZES.into_iter().zip(ratios) {
            let name = format!("{} {} {bytes}", target.name, target.io.name());
            if wanted == 0.0 || !name.starts_with(&arguments.only) {
                continue;
            }
            if let Some(alone) = &arguments.alone {
                target.run_alone(bytes, alone);
                continue;
            }
            let is_behind =
                |row: &Row| target.is_steady() && arguments.at_least * reached > row.ratio();
            let mut row = target.measure(bytes, wanted, arguments.effort(target));
            println!("{}", row.line());
            io::stdout().flush()?;
            // Once more, and then longer: something else may have had its turn.
            for effort in [Effort::Quick, Effort::Exact] {
                if is_behind(&row) {
                    row = target.measure(bytes, wanted, effort);
                    println!("{}", row.line());
                }
            }
            if is_behind(&row) {
                behind.push(format!("{} (usually {reached})", row.line()));
            }
            rows.push(row);
        }
    }
    if let Some(file) = &arguments.json {
        let rows: Vec<String> = rows.iter().map(Row::json).collect();
        fs::write(file, format!("{{\"rows\":[{}]}}\n", rows.join(",")))?;
    }
    match behind.is_empty() {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "slower than it was:\n{}",
            behind.join("\n")
        ))),
    }
}

struct Row {
    work: &'static str,
    io: &'static str,
    bytes: usize,
    ours: (&'static str, f64),
    theirs: (&'static str, f64),
    target: f64,
}

impl Row {
    fn ratio(&self) -> f64 {
        self.ours.1 / self.theirs.1
    }

    fn line(&self) -> String {
        let missed = match self.ratio() < self.target {
            true => "  missed",
            false => "",
        };
        let figure = |(name, rate): (&str, f64)| format!("{name} {rate:.0}");
        format!(
            "{:<22} {:<6} {:>7}  {:>18} {:>18}  {:>6.2} {:>6.2}{missed}",
            self.work,
            self.io,
            self.bytes,
            figure(self.theirs),
            figure(self.ours),
            self.ratio(),
            self.target,
        )
    }

    fn json(&self) -> String {
        format!(
            r#"{{"work":"{}","io":"{}","bytes":{},"ratio":{:.3},"target":{},"ours":"{}","theirs":"{}"}}"#,
            self.work,
            self.io,
            self.bytes,
            self.ratio(),
            self.target,
            self.ours.0,
            self.theirs.0,
        )
    }
}

impl Io {
    const fn name(self) -> &'static str {
        match self {
            Self::Duplex => "duplex",
            Self::Tcp => "tcp",
        }
    }
}

impl Workers {
    fn runtime(self) -> Runtime {
        match self {
            Self::One => tokio::runtime::Builder::new_current_thread(),
            Self::Two => {
                let mut builder = tokio::runtime::Builder::new_multi_thread();
                builder.worker_threads(2);
                builder
            }
        }
        .enable_all()
        .build()
        .expect("a runtime")
    }
}

impl Target {
    /// Whether the same comes out each time: in memory, on one thread.
    fn is_steady(&self) -> bool {
        matches!((self.io, self.workers), (Io::Duplex, Workers::One))
    }

    fn job(&self, bytes: usize, count: usize) -> Job {
        Job {
            work: self.work,
            io: self.io,
            payload: (0..bytes).map(|n| (n * 31 % 251) as u8).collect(),
            count,
        }
    }

    /// For a profiler: one of the two for five seconds.
    fn run_alone(&self, bytes: usize, name: &str) {
        let subject = [self.ours, self.theirs]
            .into_iter()
            .find(|subject| subject.name == name)
            .expect("one of the row's two");
        let runtime = self.workers.runtime();
        let start = Instant::now();
        let count = (64 * MIB / bytes).clamp(100, 200_000);
        let mut carried = 0;
        while start.elapsed() < Duration::from_secs(5) {
            runtime.block_on((subject.run)(self.job(bytes, count)));
            carried += count;
        }
        println!("{carried} messages");
    }

    /// Times both, in turns.
    fn measure(&self, bytes: usize, target: f64, effort: Effort) -> Row {
        let (turns, each) = match effort {
            Effort::Once => (1, Duration::from_millis(35)),
            Effort::Quick => (7, Duration::from_millis(35)),
            Effort::Exact => (11, Duration::from_millis(250)),
        };
        let runtime = self.workers.runtime();
        let run = |subject: Subject, count| runtime.block_on((subject.run)(self.job(bytes, count)));

        // As many messages as theirs carries in `each`.
        let mut count = 8;
        let count = loop {
            let took = run(self.theirs, count);
            if took > each / 4 {
                break (count as f64 * each.as_secs_f64() / took.as_secs_f64()) as usize + 1;
            }
            count *= 2;
        };
        let mut theirs = Vec::new();
        let mut ours = Vec::new();
        for _ in 0..turns {
            theirs.push(count as f64 / run(self.theirs, count).as_secs_f64());
            ours.push(count as f64 / run(self.ours, count).as_secs_f64());
        }
        Row {
            work: self.name,
            io: self.io.name(),
            bytes,
            ours: (self.ours.name, median(ours)),
            theirs: (self.theirs.name, median(theirs)),
            target,
        }
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

pub fn duplex() -> (DuplexStream, DuplexStream) {
    tokio::io::duplex(64 * KIB)
}

pub async fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (ours, theirs) = (ours.expect("connected"), theirs.expect("accepted").0);
    for stream in [&ours, &theirs] {
        stream.set_nodelay(true).expect("an option");
    }
    (ours, theirs)
}

/// What people have without a heartbeat: a codec, and a far timer, because any
/// timer at all costs a few per cent.
pub struct Plain<S> {
    framed: LengthDelimited<S>,
    sleep: Pin<Box<Sleep>>,
}

pub async fn plain<S: AsyncRead + AsyncWrite>(stream: S, _: End) -> Plain<S> {
    Plain {
        framed: LengthDelimited::new(stream),
        sleep: Box::pin(tokio::time::sleep(Duration::from_secs(3600))),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for Plain<S> {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let message = self.framed.poll_next_unpin(cx);
        if message.is_pending() {
            let _ = self.sleep.as_mut().poll(cx);
        }
        message
    }
}

/// The messages of a stream of bytes, each behind its length.
pub struct LengthDelimited<S>(Framed<S, LengthDelimitedCodec>);

impl<S: AsyncRead + AsyncWrite> LengthDelimited<S> {
    pub fn new(stream: S) -> Self {
        Self(Framed::new(stream, LengthDelimitedCodec::new()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for LengthDelimited<S> {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let message = self.0.poll_next_unpin(cx);
        message.map(|message| Some(message?.ok()?.freeze()))
    }
}

/// A [`Heartbeat`] as it is.
pub struct Inline<S>(Heartbeat<S>);

pub async fn inline<S: AsyncRead + AsyncWrite + Unpin + 'static>(stream: S, _: End) -> Inline<S> {
    Inline(Heartbeat::new(stream, Config::default()))
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Stream for Inline<S> {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        poll_message(&mut self.0, cx)
    }
}

/// A [`Heartbeat`] with a task of its own.
pub struct Spawned {
    receiver: Receiver<Bytes>,
    sender: Sender<Bytes>,
}

pub async fn spawned<S>(stream: S, _: End) -> Spawned
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Driver {
        receiver, sender, ..
    } = Heartbeat::new(stream, Config::default()).spawn();
    Spawned { receiver, sender }
}

impl Stream for Spawned {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        poll_message(&mut self.receiver, cx)
    }
}

/// What people write instead of [`Spawned`]: a task that owns a `Framed`, with a channel
/// each way.
pub struct Tasked {
    receiver: mpsc::Receiver<Bytes>,
    sender: PollSender<Bytes>,
}

pub async fn tasked<S>(stream: S, _: End) -> Tasked
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, mut outgoing) = mpsc::channel(64);
    let (incoming, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        let mut framed = plain(stream, End::Asking).await;
        loop {
            tokio::select! {
                message = outgoing.recv() => {
                    let Some(message) = message else { return };
                    if framed.send(message).await.is_err() {
                        return;
                    }
                }
                message = framed.next() => {
                    let Some(message) = message else { return };
                    if incoming.send(message).await.is_err() {
                        return;
                    }
                }
            }
        }
    });
    Tasked {
        receiver,
        sender: PollSender::new(sender),
    }
}

impl Stream for Tasked {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.receiver.poll_recv(cx)
    }
}

/// Only the messages are looked at.
fn poll_message(
    events: &mut (impl Stream<Item = PeerEvent<Bytes>> + Unpin),
    cx: &mut Context<'_>,
) -> Poll<Option<Bytes>> {
    loop {
        match events.poll_next_unpin(cx) {
            Poll::Ready(Some(PeerEvent::Message(message))) => return Poll::Ready(Some(message)),
            Poll::Ready(Some(_)) => {}
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        }
    }
}

/// Sends through one of its fields.
#[macro_export]
macro_rules! sink_by {
    ($field:tt, $error:ty, $subject:ty $(, $generic:ident: $($bound:tt)+)?) => {
        impl<$($generic: $($bound)+)?> futures::Sink<bytes::Bytes> for $subject {
            type Error = $error;

            fn poll_ready(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Result<(), $error>> {
                futures::SinkExt::<bytes::Bytes>::poll_ready_unpin(&mut self.$field, cx)
            }

            fn start_send(
                mut self: std::pin::Pin<&mut Self>,
                message: bytes::Bytes,
            ) -> Result<(), $error> {
                futures::SinkExt::<bytes::Bytes>::start_send_unpin(&mut self.$field, message)
            }

            fn poll_flush(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Result<(), $error>> {
                futures::SinkExt::<bytes::Bytes>::poll_flush_unpin(&mut self.$field, cx)
            }

            fn poll_close(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Result<(), $error>> {
                futures::SinkExt::<bytes::Bytes>::poll_close_unpin(&mut self.$field, cx)
            }
        }
    };
}

sink_by!(framed, io::Error, Plain<S>, S: AsyncRead + AsyncWrite + Unpin);
sink_by!(0, io::Error, LengthDelimited<S>, S: AsyncRead + AsyncWrite + Unpin);
sink_by!(0, SendError, Inline<S>, S: AsyncRead + AsyncWrite + Unpin + 'static);
sink_by!(sender, SendError, Spawned);
sink_by!(sender, PollSendError<Bytes>, Tasked);
