//! What the tests share: configurations, a raw peer that speaks the wire byte
//! by byte, and slow lines of the testkit's.

use std::{
    cell::RefCell,
    env, io,
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use heartbeat_core::{Control, PART};
use heartbeat_tokio::{
    CloseReason, Config, Detail, GoodbyeCode, Heartbeat, PeerEvent,
    testkit::{Line, LineEnd, Side},
};
use proptest::{
    strategy::Strategy,
    test_runner::{Config as ProptestConfig, RngSeed, TestRunner},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, copy_bidirectional},
    net::TcpSocket,
    time::Instant,
};

pub mod codecs;
pub mod drive;
mod examples;
#[cfg(target_os = "linux")]
pub mod network;
#[cfg(unix)]
pub mod process;
mod programs;
pub mod scripted;
#[cfg(unix)]
pub mod server;
mod watched;

pub use examples::{example, living};
pub use programs::{needs, needs_browser, needs_netcat, needs_node, needs_python_with};
pub use watched::{Watched, is_cut_off};

/// The code in the README compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// So does that in the page about logs and metrics.
#[cfg(all(doctest, feature = "observability"))]
#[doc = include_str!("../../docs/observability.md")]
struct Observability;

/// So does the code in the crates' own.
#[cfg(doctest)]
#[doc = include_str!("../../heartbeat-core/README.md")]
struct CoreReadme;

/// The same.
#[cfg(doctest)]
#[doc = include_str!("../../heartbeat-tokio/README.md")]
struct TokioReadme;

/// And in the page about configuration.
#[cfg(doctest)]
#[doc = include_str!("../../docs/configuration.md")]
struct Configuration;

/// And in the guide.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../../docs/guide/getting-started.md")]
    struct GettingStarted;

    #[doc = include_str!("../../docs/guide/choosing-timings.md")]
    struct ChoosingTimings;

    #[doc = include_str!("../../docs/guide/own-protocol.md")]
    struct OwnProtocol;

    #[doc = include_str!("../../docs/guide/tls.md")]
    struct Tls;

    #[doc = include_str!("../../docs/guide/busy.md")]
    struct Busy;

    #[doc = include_str!("../../docs/guide/many-connections.md")]
    struct ManyConnections;

    #[doc = include_str!("../../docs/guide/batteries.md")]
    struct Batteries;

    #[doc = include_str!("../../docs/guide/reconnect.md")]
    struct ConnectingAgain;

    #[doc = include_str!("../../docs/guide/production.md")]
    struct Production;
}

/// Milliseconds.
pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Seconds.
pub const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// The timings of most tests: dead after exactly 800 ms of silence, and no
/// chance in it.
///
/// # Panics
///
/// Never: the values are valid.
#[must_use]
pub fn quick() -> Config {
    Config::builder()
        .interval(ms(200))
        .timeout(ms(200))
        .max_missed(3)
        .jitter(0.0)
        .build()
        .expect("valid timings")
}

/// How much a test tries: `few` so that all tests together take minutes, or
/// `all` where `HEARTBEAT_FULL` is set, as `.ci/run` does.
#[must_use]
pub fn few_or_all<T>(few: T, all: T) -> T {
    match env::var_os("HEARTBEAT_FULL") {
        Some(_) => all,
        None => few,
    }
}

/// Tries this many cases that are the same each time, or `HEARTBEAT_CASES` others.
///
/// # Panics
///
/// If one of them fails, with the smallest one that does.
pub fn for_each<S: Strategy>(cases: u32, strategy: S, check: impl FnMut(S::Value)) {
    let asked = env::var("HEARTBEAT_CASES").map(|cases| cases.parse().expect("a number"));
    let config = ProptestConfig {
        rng_seed: match asked {
            Ok(_) => RngSeed::Random,
            Err(_) => RngSeed::Fixed(7),
        },
        cases: asked.unwrap_or(cases),
        failure_persistence: None,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    };
    // What it counts is of interest only if nothing fails.
    let check = RefCell::new(check);
    let result = TestRunner::new(config).run(&strategy, |case| {
        check.borrow_mut()(case);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// How late a thread wakes up that only sleeps, at worst, until it is done. What
/// is measured meanwhile may be as much too late.
pub fn lateness(done: &AtomicBool) -> Duration {
    let nap = ms(2);
    let mut worst = Duration::ZERO;
    while !done.load(Ordering::Relaxed) {
        let asleep = std::time::Instant::now();
        thread::sleep(nap);
        worst = worst.max(asleep.elapsed().saturating_sub(nap));
    }
    worst
}

/// Dead after 3.2 s, so that a delay on a busy machine ends no connection.
///
/// # Panics
///
/// Never: the values are valid.
#[must_use]
pub fn patient() -> Config {
    let quick = quick().to_builder();
    quick.timeout(secs(1)).build().expect("valid timings")
}

/// A port without a listener. It is bound and closed without listening: a process that
/// another thread starts has our open files too until it runs its program, and would listen
/// in our place until then.
///
/// # Errors
///
/// If there is none.
pub fn free_address() -> io::Result<SocketAddr> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    socket.local_addr()
}

/// A heartbeat over an in-memory stream whose other end is `RawPeer`.
pub fn wrapped(config: Config) -> (Heartbeat<DuplexStream>, RawPeer) {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    (Heartbeat::new(ours, config), RawPeer::new(theirs))
}

/// All events until the stream ends.
pub async fn all_events(
    events: &mut (impl Stream<Item = PeerEvent<Bytes>> + Unpin),
) -> Vec<PeerEvent<Bytes>> {
    events.collect().await
}

/// Only what ends a connection or disturbs it: neither beats nor greetings.
pub fn notable(events: &[PeerEvent<Bytes>]) -> Vec<&PeerEvent<Bytes>> {
    events
        .iter()
        .filter(|event| !matches!(event, PeerEvent::Beat { .. } | PeerEvent::Connected { .. }))
        .collect()
}

/// The other end of a wire, without a heartbeat of its own: it sends what a
/// test tells it to, and reads frames.
#[derive(Debug)]
pub struct RawPeer<S = DuplexStream> {
    /// The stream.
    pub stream: S,
}

impl<S: AsyncRead + AsyncWrite + Unpin> RawPeer<S> {
    /// Speaks over `stream`.
    pub fn new(stream: S) -> Self {
        Self { stream }
    }

    /// Sends bytes as they are.
    pub async fn send_raw(&mut self, bytes: &[u8]) {
        self.stream
            .write_all(bytes)
            .await
            .expect("the stream is open");
    }

    /// Sends a control frame.
    pub async fn send_control(&mut self, control: Control) {
        let mut buffer = [0; Control::MAX_ENCODED];
        let body = control.encode(&mut buffer).expect("long enough");
        self.send_raw(&framed(body)).await;
    }

    /// Sends the Hello of a peer with this configuration.
    pub async fn greet(&mut self, config: Config) {
        self.send_control(Control::Hello(config.hello([7; 8])))
            .await;
    }

    /// Sends a message.
    pub async fn send_data(&mut self, payload: &[u8]) {
        self.send_raw(&data_frame(payload)).await;
    }

    /// The next frame, tag and body; `None` at the end.
    pub async fn read_frame(&mut self) -> Option<Vec<u8>> {
        let length = self.stream.read_u32().await.ok()?;
        let mut frame = vec![0; length as usize];
        self.stream.read_exact(&mut frame).await.ok()?;
        Some(frame)
    }

    /// The next control frame; other frames are passed over.
    pub async fn read_control(&mut self) -> Option<Control> {
        loop {
            let frame = self.read_frame().await?;
            if !matches!(frame.first(), Some(0 | 7)) {
                return Some(Control::decode(&frame).expect("we send valid frames"));
            }
        }
    }

    /// Answers pings for this time, then stops.
    pub async fn answer_for(&mut self, duration: Duration) {
        let until = Instant::now() + duration;
        while let Ok(control) = tokio::time::timeout_at(until, self.read_control()).await {
            match control {
                Some(Control::Ping(nonce)) => self.send_control(Control::Pong(nonce)).await,
                Some(_) => {}
                None => return,
            }
        }
    }
}

/// Length in front of tag and body.
pub fn framed(frame: &[u8]) -> Vec<u8> {
    let length = u32::try_from(frame.len()).expect("tests send small frames");
    [&length.to_be_bytes(), frame].concat()
}

/// A whole message: a data frame, or parts of 64 KiB.
pub fn data_frame(payload: &[u8]) -> Vec<u8> {
    match payload.len() > PART {
        true => parts(payload, PART),
        false => framed(&[&[0], payload].concat()),
    }
}

/// A message in parts of this many bytes.
pub fn parts(payload: &[u8], size: usize) -> Vec<u8> {
    let mut parts = Vec::new();
    for (nth, part) in payload.chunks(size).enumerate() {
        let announced = match nth {
            0 => varint(payload.len()),
            _ => Vec::new(),
        };
        parts.extend(framed(&[&[7], &*announced, part].concat()));
    }
    parts
}

/// A number as the wire has it.
#[must_use]
pub fn varint(mut number: usize) -> Vec<u8> {
    let mut varint = Vec::new();
    while number > 0x7f {
        varint.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    varint.push(number.to_le_bytes()[0]);
    varint
}

/// Two streams with a line between them, with this many bytes a second in each direction. Zero
/// is no limit.
#[must_use]
pub fn slow_line(room: usize, bytes_per_second: u32) -> (LineEnd, LineEnd) {
    let (ours, theirs, line) = Line::with_room(room);
    line.limit_rate(Side::BOTH, bytes_per_second);
    (ours, theirs)
}

/// The same with `stream` at the other end, whose own buffers fill up. It ends as
/// `stream` does.
pub fn throttled<S>(mut stream: S, bytes_per_second: u32) -> LineEnd
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // What 40 ms bring.
    let room = bytes_per_second as usize / 25;
    let (near, mut far) = slow_line(room, bytes_per_second);
    tokio::spawn(async move { copy_bidirectional(&mut stream, &mut far).await });
    near
}

/// The peer said goodbye, and nothing else.
#[must_use]
pub fn by_peer() -> CloseReason {
    CloseReason::Peer {
        code: GoodbyeCode::LEAVING,
        detail: Detail::default(),
    }
}
