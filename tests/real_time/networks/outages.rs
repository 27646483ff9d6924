//! How soon a connection comes back after an outage, in real time on a network
//! of namespaces.
//!
//! ```text
//! cut, and written                                    mended
//! |--.2--|---.4---|------.8------|---------1.6---------|----3.2---->  by itself
//! |--.2--|---.4---|------.8------|---1 s----|---1 s----|--|           at most 1 s apart
//! ```
//!
//! A heartbeat has its kernel do so while its peer is suspect, and only then.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "how a test fails")]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Instant,
};

use futures::StreamExt;
use heartbeat_tests::{
    ms,
    network::{LEFT, Network, RIGHT},
    secs,
};
use heartbeat_tokio::{Config, Heartbeat, PeerEvent, SafetyNet, safety_net::Outcome};
use tokio::time::timeout;

#[test]
fn lost_data_is_repeated_as_often_as_was_asked_for() {
    let Some(network) = Network::or_skip("lost_data_is_repeated_as_often_as_was_asked_for") else {
        return;
    };
    let (send_listening, listening) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        let arrival = scope.spawn(|| {
            let arrived = network.right.enter(|| {
                let listener = TcpListener::bind((RIGHT, 0))?;
                send_listening.send(listener.local_addr()?).unwrap();
                let (mut stream, _) = listener.accept()?;
                stream.read_exact(&mut [0])?;
                Ok(Instant::now())
            });
            arrived.unwrap()
        });
        let address = listening.recv().unwrap();
        let sent = network.left.enter(|| {
            let mut stream = TcpStream::connect(address)?;
            let net = SafetyNet::default().with_max_retransmit_timeout(secs(1));
            let applied = net.unwrap().apply(&stream);
            network.cut_towards(RIGHT)?;
            stream.write_all(b"a")?;
            Ok((stream, applied))
        });
        let (_stream, applied) = sent.unwrap();
        thread::sleep(secs(4));
        let mended = Instant::now();
        network.mend_towards(RIGHT).unwrap();
        let late = arrival.join().unwrap().saturating_duration_since(mended);
        match applied.max_retransmit_timeout {
            Outcome::Set => assert!(late < ms(1500), "{late:?} after it was mended"),
            Outcome::NotSupported => eprintln!("SKIPPED: the kernel is older than 6.15"),
            other => panic!("{other}"),
        }
    });
}

/// ```text
/// ping                                     mended         too late by itself
/// |--.2--|---.4---|------.8------|---1.6---|---3.2---|----------6.4---------->
/// |--.2--|---.4---|------.8------|---1.6---|--2.3--|--2.3--|   dead after 12 s
/// ```
#[test]
fn a_suspect_is_asked_more_often_and_survives_a_longer_outage() {
    let test = "a_suspect_is_asked_more_often_and_survives_a_longer_outage";
    let Some(network) = Network::or_skip(test) else {
        return;
    };
    let config = Config::builder()
        .interval(secs(1))
        .timeout(secs(1))
        .max_missed(12);
    let config = config.build().unwrap();
    let listener = network.left.enter(|| TcpListener::bind((LEFT, 0))).unwrap();
    let address = listener.local_addr().unwrap();
    thread::scope(|scope| {
        let left = scope.spawn(|| {
            network.left.enter(|| {
                let (stream, _) = listener.accept()?;
                Ok(recovers(stream, config))
            })
        });
        let right = scope.spawn(|| {
            network
                .right
                .enter(|| Ok(recovers(TcpStream::connect(address)?, config)))
        });
        thread::sleep(secs(3));
        for host in [LEFT, RIGHT] {
            network.cut_towards(host).unwrap();
        }
        thread::sleep(ms(8_300));
        for host in [LEFT, RIGHT] {
            network.mend_towards(host).unwrap();
        }
        for side in [left, right] {
            let event = side.join().unwrap().unwrap();
            assert!(matches!(event, PeerEvent::Recovered { .. }), "{event:?}");
        }
    });
}

/// What becomes of a peer that doesn't answer for some time.
fn recovers(stream: TcpStream, config: Config) -> PeerEvent<bytes::Bytes> {
    stream.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        let mut heartbeat = Heartbeat::new(stream, config);
        let told = async {
            while let Some(event) = heartbeat.next().await {
                let is_long = |silent_for| silent_for > secs(5);
                match event {
                    PeerEvent::Recovered { silent_for } if is_long(silent_for) => return event,
                    event if event.is_terminal() => return event,
                    _ => {}
                }
            }
            panic!("it ended without a word")
        };
        let event = timeout(secs(30), told).await.expect("it ends or recovers");
        // The other side needs this one to recover.
        let _ = timeout(secs(1), async { while heartbeat.next().await.is_some() {} }).await;
        event
    })
}
