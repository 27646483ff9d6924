//! What the peer's kernel takes counts while a ping waits behind our own data, and no
//! longer: an application that hangs behind a large receive buffer is found within the
//! bound of docs/timings.md, also if it reads a byte now and then.
//!
//! Real kernels. What is measured may be late by `SLACK`.
#![cfg(target_os = "linux")]

#[path = "../../examples/mqtt/mqtt.rs"]
#[allow(dead_code, reason = "a part of it is enough here")]
mod mqtt;

use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt};
use heartbeat_tests::{ms, secs};
use heartbeat_tokio::{Cause, Config, Heartbeat, PeerEvent};
use socket2::SockRef;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    time::sleep,
};

use mqtt::{Mqtt, connect, publish};

const SLACK: Duration = ms(1500);

/// A peer whose kernel takes megabytes, and whose application reads a byte now and then, or
/// nothing.
async fn peer(listener: TcpListener, drips: bool) {
    let (mut stream, _) = listener.accept().await.unwrap();
    while drips {
        let mut byte = [0];
        if stream.read_exact(&mut byte).await.is_err() {
            return;
        }
        sleep(ms(50)).await;
    }
    sleep(secs(60)).await;
}

async fn find_a_peer_that_hangs(drips: bool) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let buffer = SockRef::from(&listener);
    buffer.set_recv_buffer_size(4 << 20).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(peer(listener, drips));
    let stream = TcpStream::connect(address).await.unwrap();
    let config = Config::detect_within(secs(1)).unwrap();
    let mut client = Heartbeat::with_codec(stream, Mqtt::default(), config);

    client.send(connect("client", 0)).await.unwrap();
    let began = Instant::now();
    client
        .send(publish("large", &vec![0; 3 << 20]))
        .await
        .unwrap();
    let death = loop {
        match client.next().await.expect("an end") {
            PeerEvent::Dead(death) => break death,
            PeerEvent::Suspect { .. } | PeerEvent::Recovered { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    // It takes 3 MB at once, and so B/R is next to nothing.
    let took = began.elapsed();
    let stuck = matches!(death.cause, Cause::Silent | Cause::WriteStalled);
    assert!(stuck, "{death}");
    // I to the ping, and what its kernel took is seen at most I later.
    let bound = secs(1) + config.interval();
    assert!(took < bound + SLACK, "{took:?}: {death}");
}

#[tokio::test]
async fn an_application_that_hangs_behind_a_large_receive_buffer_is_found() {
    find_a_peer_that_hangs(false).await;
}

#[tokio::test]
async fn an_application_that_reads_a_byte_now_and_then_is_found() {
    find_a_peer_that_hangs(true).await;
}
