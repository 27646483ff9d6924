//! Whichever direction of a path is cut, both sides know within the detection
//! time, whether they are idle or send.
//!
//! The last sign of life came before the cut, so the detection time counted from
//! the cut is the bound.

#![cfg(target_os = "linux")]

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{StreamExt, future::join_all};
use heartbeat_core::GoodbyeCode;
use heartbeat_tests::{
    lateness, ms,
    network::{LEFT, Network, RIGHT},
    secs,
};
use heartbeat_tokio::{Cause, Config, Driver, Heartbeat, PeerEvent, Receiver, Sender};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::sleep,
};

/// Connections at once, each at another phase of its interval.
const CONNECTIONS: usize = 21;

const DETECTION: Duration = secs(3);

/// How late a verdict may be; a machine that is under load may add to it.
const SCHEDULING: Duration = ms(100);

/// Which side sends.
#[derive(Clone, Copy, Debug)]
enum Load {
    Idle,
    LeftSends,
    BothSend,
}

impl Load {
    const fn of(connection: usize) -> Self {
        match connection % 3 {
            0 => Self::Idle,
            1 => Self::LeftSends,
            _ => Self::BothSend,
        }
    }
}

#[derive(Debug)]
struct Verdict {
    cause: Cause,
    /// After the cut.
    after: Duration,
}

#[test]
fn both_sides_know_in_time_when_nothing_reaches_the_right_one() {
    know_in_time("to the right", RIGHT);
}

#[test]
fn both_sides_know_in_time_when_nothing_reaches_the_left_one() {
    know_in_time("to the left", LEFT);
}

/// The left side doesn't read until 6 s after the cut: then it judges afresh, and
/// what it sent until then is what the right side goes by.
#[test]
fn a_side_that_has_paused_is_judged_by_its_signs_of_life() {
    let test = "a_side_that_has_paused_is_judged_by_its_signs_of_life";
    for towards in [RIGHT, LEFT] {
        let Some(network) = Network::or_skip(test) else {
            return;
        };
        let config = Config::detect_within(DETECTION).unwrap();
        let resume_after = secs(6);
        let (left, right, machine) = across(&network, towards, async |streams, cut_at, is_left| {
            let sides = streams.into_iter().map(async |stream| {
                let driver = Heartbeat::new(stream, config).spawn();
                let Driver {
                    sender, receiver, ..
                } = driver;
                if !is_left {
                    let sending = tokio::spawn(stream_on(sender));
                    let verdict = verdict(receiver, cut_at, Duration::ZERO).await;
                    sending.abort();
                    return verdict;
                }
                while cut_at.get().is_none_or(|at| at.elapsed() < resume_after) {
                    sleep(ms(10)).await;
                }
                verdict(receiver, cut_at, resume_after).await
            });
            join_all(sides).await
        });
        let late = SCHEDULING + machine;
        for verdict in left {
            assert!(verdict.after <= DETECTION + late, "left: {verdict:?}");
        }
        for verdict in right {
            let limit = DETECTION + config.interval() + late;
            assert!(verdict.after <= limit, "right: {verdict:?}");
        }
    }
}

fn know_in_time(test: &str, towards: IpAddr) {
    let Some(network) = Network::or_skip(test) else {
        return;
    };
    let (left, right, machine) = across(&network, towards, serve);
    let limit = DETECTION + SCHEDULING + machine;
    for (side, verdicts) in [("left", left), ("right", right)] {
        let latest = verdicts.iter().map(|verdict| verdict.after).max();
        println!("{test}, {side}: {latest:.2?} (the machine was late by up to {machine:.1?})");
        for (connection, verdict) in verdicts.iter().enumerate() {
            let load = Load::of(connection);
            assert!(verdict.after <= limit, "{side}, {load:?}: {verdict:?}");
            let is_right = match verdict.cause {
                Cause::Silent | Cause::WriteStalled | Cause::Reset => true,
                Cause::GivenUp { code, .. } => {
                    [GoodbyeCode::SILENT, GoodbyeCode::WRITE_STALLED].contains(&code)
                }
                _ => false,
            };
            assert!(is_right, "{side}, {load:?}: {verdict:?}");
        }
    }
}

/// Opens the connections, cuts the path when they are some intervals old, and
/// gives what became of both sides, and how late the machine was.
fn across<T: Send>(
    network: &Network,
    towards: IpAddr,
    side: impl AsyncFn(Vec<TcpStream>, &OnceLock<Instant>, bool) -> T + Sync,
) -> (T, T, Duration) {
    let done = AtomicBool::new(false);
    let cut_at = OnceLock::new();
    let (send_address, address) = mpsc::channel();
    thread::scope(|scope| {
        let witness = scope.spawn(|| lateness(&done));
        let left = scope.spawn(|| {
            network.left.enter(|| {
                Ok(run(async {
                    let listener = TcpListener::bind((LEFT, 0)).await.unwrap();
                    send_address.send(listener.local_addr().unwrap()).unwrap();
                    let mut streams = Vec::new();
                    for _ in 0..CONNECTIONS {
                        streams.push(listener.accept().await.unwrap().0);
                    }
                    side(streams, &cut_at, true).await
                }))
            })
        });
        let address: SocketAddr = address.recv().unwrap();
        let (side, cut_at) = (&side, &cut_at);
        let right = scope.spawn(move || {
            network.right.enter(|| {
                Ok(run(async {
                    let mut streams = Vec::new();
                    for _ in 0..CONNECTIONS {
                        streams.push(TcpStream::connect(address).await.unwrap());
                    }
                    side(streams, cut_at, false).await
                }))
            })
        });
        thread::sleep(secs(4));
        cut_at.set(Instant::now()).unwrap();
        network.cut_towards(towards).unwrap();
        let left = left.join().unwrap().unwrap();
        let right = right.join().unwrap().unwrap();
        done.store(true, Ordering::Relaxed);
        (left, right, witness.join().unwrap())
    })
}

/// One side of all connections.
async fn serve(streams: Vec<TcpStream>, cut_at: &OnceLock<Instant>, is_left: bool) -> Vec<Verdict> {
    let config = Config::detect_within(DETECTION).unwrap();
    let sides = streams.into_iter().enumerate();
    let sides = sides.map(async |(connection, stream)| {
        let Driver {
            sender, receiver, ..
        } = Heartbeat::new(stream, config).spawn();
        let sends = match Load::of(connection) {
            Load::Idle => false,
            Load::LeftSends => is_left,
            Load::BothSend => true,
        };
        let mut sending = JoinSet::new();
        if sends {
            sending.spawn(stream_on(sender.clone()));
        }
        verdict(receiver, cut_at, Duration::ZERO).await
    });
    join_all(sides).await
}

/// How a connection ended, and how long after the cut and `later`.
async fn verdict(
    mut receiver: Receiver<Bytes>,
    cut_at: &OnceLock<Instant>,
    later: Duration,
) -> Verdict {
    loop {
        match receiver.next().await.unwrap() {
            PeerEvent::Dead(death) => {
                let cut_at = cut_at.get().expect("nobody dies before the cut");
                return Verdict {
                    cause: death.cause,
                    after: cut_at.elapsed().saturating_sub(later),
                };
            }
            PeerEvent::Closed { reason } => panic!("{reason}"),
            _ => {}
        }
    }
}

/// 3 MB a second, as far as the path takes them.
async fn stream_on(sender: Sender<Bytes>) {
    let message = Bytes::from(vec![0; 16 * 1024]);
    while sender.send(message.clone()).await.is_ok() {
        sleep(ms(5)).await;
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().unwrap();
    runtime.block_on(test)
}
