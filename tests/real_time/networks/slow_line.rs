//! A line of 64 kbit/s with half a minute in its queue. What we send isn't acknowledged
//! for all that time, and bytes of the peer arrive all the time: nothing is lost, and
//! no peer may be given up.
//!
//! ```text
//! left   data, pings ──▶ │ 30 s of other traffic │ ──▶ right
//!        ◀──────────────── data, all the time ─────────
//! ```
//!
//! Acknowledgements overtake the queue; otherwise the right side couldn't send for long.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "how a test fails")]

use std::{
    net::{SocketAddr, UdpSocket},
    sync::mpsc,
    thread,
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use heartbeat_tests::{
    ms,
    network::{LEFT, Network, RIGHT},
    secs,
};
use heartbeat_tokio::{Config, Heartbeat, PeerEvent};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout_at},
};

/// Networks at once, with a connection each.
const LINES: usize = 4;

/// The left side's; it hears the right one.
const DETECTION: Duration = secs(3);

/// The right side's; it hears nothing while the queue drains.
const PATIENCE: Duration = secs(60);

/// With a limit of a second for retransmissions the kernel gives up after 15 s.
const LONG: Duration = secs(25);

/// 30 s at 64 kbit/s.
const QUEUED: usize = 240_000;

/// How a side fared once the queue was there.
#[derive(Debug)]
struct Seen {
    /// The longest time between two messages.
    gap: Duration,
    messages: u32,
    end: Option<PeerEvent<Bytes>>,
}

#[test]
fn a_peer_that_is_heard_lives_behind_a_deep_queue() {
    let test = "a_peer_that_is_heard_lives_behind_a_deep_queue";
    let networks: Option<Vec<_>> = (0..LINES).map(|_| Network::or_skip(test)).collect();
    let Some(networks) = networks else {
        return;
    };
    let seen: Vec<_> = thread::scope(|scope| {
        let lines: Vec<_> = networks
            .iter()
            .map(|network| scope.spawn(|| line(network)))
            .collect();
        lines.into_iter().map(|line| line.join().unwrap()).collect()
    });
    println!("{seen:?}");
    for seen in seen {
        assert!(seen.messages > 100 && seen.gap < DETECTION / 2, "{seen:?}");
        assert!(seen.end.is_none(), "{seen:?}");
    }
}

/// What the left side saw on one slow line.
fn line(network: &Network) -> Seen {
    let (send_address, address) = mpsc::channel();
    let (send_queued, queued) = tokio::sync::oneshot::channel();
    thread::scope(|scope| {
        let left = scope.spawn(move || {
            network.left.enter(|| {
                Ok(run(async {
                    let listener = TcpListener::bind((LEFT, 0)).await.unwrap();
                    send_address.send(listener.local_addr().unwrap()).unwrap();
                    let stream = listener.accept().await.unwrap().0;
                    busy(stream, DETECTION, async { queued.await.unwrap() }).await
                }))
            })
        });
        let address: SocketAddr = address.recv().unwrap();
        scope.spawn(move || {
            network.right.enter(|| {
                Ok(run(async {
                    let stream = TcpStream::connect(address).await.unwrap();
                    // As long as the left one, which begins to count a little later.
                    busy(stream, PATIENCE, sleep(secs(4))).await
                }))
            })
        });
        thread::sleep(secs(2));
        fill(network);
        send_queued.send(()).unwrap();
        left.join().unwrap().unwrap()
    })
}

/// From here on what the left side sends waits behind half a minute of other packets.
fn fill(network: &Network) {
    network.slow_down_to_the_right().unwrap();
    let sent = network.left.enter(|| {
        let socket = UdpSocket::bind((LEFT, 0))?;
        for _ in 0..QUEUED / 1000 {
            socket.send_to(&[0; 1000 - 28], (RIGHT, 9))?;
            // No more at once than buffers on the way take.
            thread::sleep(ms(1));
        }
        Ok(())
    });
    sent.unwrap();
}

/// Sends ten messages a second, and reads; counts from `begun` on.
async fn busy(stream: TcpStream, detection: Duration, begun: impl Future<Output = ()>) -> Seen {
    let config = Config::detect_within(detection).unwrap();
    let driver = Heartbeat::new(stream, config).spawn();
    let sender = driver.sender;
    let sending = tokio::spawn(async move {
        let message = Bytes::from(vec![0; 1000]);
        while sender.send(message.clone()).await.is_ok() {
            sleep(ms(100)).await;
        }
    });
    let mut receiver = driver.receiver;
    let mut seen = Seen {
        gap: Duration::ZERO,
        messages: 0,
        end: None,
    };
    begun.await;
    let began = Instant::now();
    let mut last = began;
    while let Ok(event) = timeout_at(began + LONG, receiver.next()).await {
        match event {
            Some(PeerEvent::Message(_)) => {
                seen.messages += 1;
                seen.gap = seen.gap.max(last.elapsed());
                last = Instant::now();
            }
            Some(event) if event.is_terminal() => {
                seen.end = Some(event);
                break;
            }
            Some(_) => {}
            None => break,
        }
    }
    sending.abort();
    seen
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().unwrap();
    runtime.block_on(test)
}
