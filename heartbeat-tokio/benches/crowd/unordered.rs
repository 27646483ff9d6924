//! Many idle connections in one task.
//!
//! One `FuturesUnordered` on one thread holds all of a side's ends of 10,000 connections
//! that begin together, D = 3 s; or it holds both ends of 9,500. All peers live, so each death
//! is a false one. It is compared with the usual hand-written loop: `select!` over a `Framed`
//! and a timer, with the same interval and timeout.
//!
//! The connections share what tokio lets a task do in one poll.

use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
    time::Duration,
};

use bytes::Bytes;
use futures::{SinkExt, StreamExt, future::Either, stream::FuturesUnordered};
use heartbeat_tokio::{Config, Heartbeat, PeerEvent};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::{
    process::{Arguments, Child, tell_parent},
    table::{Limit, Row},
};

const DETECTION: Duration = Duration::from_secs(3);

pub(crate) fn rows(arguments: &Arguments, found: &mut dyn FnMut(Row)) -> io::Result<()> {
    let lasts = Duration::from_secs(arguments.quick_or_full(4, 8));
    let of_all = arguments.quick_or_full(4_000, 10_000);
    let of_both = arguments.quick_or_full(3_000, 9_500);
    let layouts: [(_, _, Measure); 2] = [
        ("a side's ends", of_all, between_two),
        ("both ends", of_both, within_one),
    ];
    for (name, connections, measure) in layouts {
        let input = format!("unordered, {connections}, {name} in one task: dead");
        if arguments.wants(&input) {
            let dead = |subject| {
                DEAD.store(0, Relaxed);
                measure(subject, connections, lasts).map(|dead| dead as f64)
            };
            found(Row {
                input,
                unit: "",
                plain: Some(dead("hand")?),
                ours: dead("heartbeat")?,
                at_most: Limit::Figure(0.0),
            });
        }
    }
    Ok(())
}

/// How many of the living are taken for dead, by either side.
type Measure = fn(&str, usize, Duration) -> io::Result<usize>;

/// The peers are in another process.
fn between_two(subject: &str, connections: usize, lasts: Duration) -> io::Result<usize> {
    let runtime = one_thread()?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let mut peers = Child::start(
        "idle-peers",
        &[
            ("--to", listener.local_addr()?.to_string()),
            ("--count", connections.to_string()),
            ("--subject", subject.to_owned()),
        ],
    )?;
    let accepted = (0..connections).map(|_| Ok(runtime.block_on(listener.accept())?.0));
    let accepted = accepted.collect::<io::Result<Vec<_>>>()?;
    runtime.block_on(async {
        let mut watched = watch_all(subject, accepted);
        let _ = timeout(lasts, async { while watched.next().await.is_some() {} }).await;
        let theirs = peers.found::<usize>()?;
        Ok(DEAD.load(Relaxed) + theirs.into_iter().sum::<usize>())
    })
}

pub(crate) fn be_the_peers(arguments: &Arguments) -> io::Result<()> {
    let to: SocketAddr = arguments.get("--to");
    let subject: String = arguments.get("--subject");
    let runtime = one_thread()?;
    // The measurement starts when all are connected.
    let connected = (0..arguments.get("--count")).map(|_| runtime.block_on(TcpStream::connect(to)));
    let connected = connected.collect::<io::Result<Vec<_>>>()?;
    thread::spawn(|| tell_parent(|| DEAD.load(Relaxed).to_string()));
    runtime.block_on(async {
        let mut watched = watch_all(&subject, connected);
        while watched.next().await.is_some() {}
        std::future::pending().await
    })
}

fn within_one(subject: &str, connections: usize, lasts: Duration) -> io::Result<usize> {
    one_thread()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let to = listener.local_addr()?;
        let mut streams = Vec::new();
        for _ in 0..connections {
            streams.push(TcpStream::connect(to).await?);
            streams.push(listener.accept().await?.0);
        }
        let mut watched = watch_all(subject, streams);
        let _ = timeout(lasts, async { while watched.next().await.is_some() {} }).await;
        Ok(DEAD.load(Relaxed))
    })
}

fn one_thread() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

fn watch_all(
    subject: &str,
    streams: Vec<TcpStream>,
) -> FuturesUnordered<impl Future<Output = ()> + use<>> {
    let watched = streams.into_iter().map(|stream| watch(subject, stream));
    watched.collect()
}

static DEAD: AtomicUsize = AtomicUsize::new(0);

/// Until the peer counts as dead.
fn watch(subject: &str, stream: TcpStream) -> impl Future<Output = ()> + use<> {
    match subject {
        "hand" => Either::Left(watch_by_hand(stream)),
        _ => Either::Right(watch_with(stream)),
    }
}

async fn watch_with(stream: TcpStream) {
    let config = Config::detect_within(DETECTION).expect("valid timings");
    let mut peer = Heartbeat::new(stream, config);
    while let Some(event) = peer.next().await {
        if let PeerEvent::Dead(_) = event {
            DEAD.fetch_add(1, Relaxed);
        }
    }
}

/// Asks once an interval, answers, and is patient for as long.
async fn watch_by_hand(stream: TcpStream) {
    let config = Config::detect_within(DETECTION).expect("valid timings");
    let mut framed = Framed::new(stream, LengthDelimitedCodec::new());
    let mut heard = Instant::now();
    let mut due = heard + config.interval() / 2;
    let sleep = sleep_until(due);
    tokio::pin!(sleep);
    loop {
        tokio::select! {
            frame = framed.next() => match frame {
                Some(Ok(frame)) => {
                    heard = Instant::now();
                    if frame.starts_with(b"ping")
                        && framed.send(Bytes::from_static(b"pong12345")).await.is_err() {
                        break;
                    }
                }
                _ => break,
            },
            () = &mut sleep => {
                if heard.elapsed() > DETECTION {
                    break;
                }
                if framed.send(Bytes::from_static(b"ping12345")).await.is_err() {
                    break;
                }
                due += config.interval();
                sleep.as_mut().reset(due);
            }
        }
    }
    DEAD.fetch_add(1, Relaxed);
}
