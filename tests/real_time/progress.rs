//! What the peer's kernel takes counts while a ping waits behind our own data, and no
//! longer: an application that hangs behind a large receive buffer is found within the
//! bound of docs/timings.md, also if it reads a byte now and then, and also while no other
//! ping may leave.
//!
//! Real kernels. What is measured may be late by `SLACK`.
#![cfg(target_os = "linux")]

use std::{
    io,
    time::{Duration, Instant},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use heartbeat_tests::{ms, secs};
use heartbeat_tokio::{Cause, Config, Dialect, Frame, Heartbeat, PeerEvent};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::codec::{Decoder, Encoder};

use crate::brokers::mqtt::{Mqtt, connect, publish};

const SLACK: Duration = ms(1500);

/// A peer whose kernel takes megabytes, and whose application reads a byte now and then, or
/// nothing.
async fn peer(listener: TcpListener, drips: bool) {
    let (mut stream, _) = listener.accept().await.unwrap();
    if !drips {
        return sleep(secs(60)).await;
    }
    let mut byte = [0];
    while stream.read_exact(&mut byte).await.is_ok() {
        sleep(ms(50)).await;
    }
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

/// Bytes. A ping is a byte among them, and may leave until the peer has said something.
#[derive(Default)]
struct Once {
    was_spoken_to: bool,
}

impl Dialect for Once {
    type Message = Bytes;

    fn may_ping(&self) -> bool {
        !self.was_spoken_to
    }
}

impl Decoder for Once {
    type Item = Frame<Bytes>;
    type Error = io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<Option<Frame<Bytes>>> {
        self.was_spoken_to |= bytes.has_remaining();
        Ok((!bytes.split().is_empty()).then_some(Frame::Other))
    }
}

impl Encoder<Frame<Bytes>> for Once {
    type Error = io::Error;

    fn encode(&mut self, frame: Frame<Bytes>, bytes: &mut BytesMut) -> io::Result<()> {
        match frame {
            Frame::Data(message) => bytes.put(message),
            Frame::Ping(_) => bytes.put_u8(b'?'),
            other => panic!("{other:?}"),
        }
        Ok(())
    }
}

#[tokio::test]
async fn an_application_that_hangs_while_no_other_ping_may_leave_is_found() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // Our message and the ping behind it wait until the peer reads.
    SockRef::from(&listener)
        .set_recv_buffer_size(64 << 10)
        .unwrap();
    let address = listener.local_addr().unwrap();
    let config = Config::detect_within(secs(2)).unwrap();
    let size = 8 << 20;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        sleep(config.interval() + ms(200)).await;
        stream.write_all(b"!").await.unwrap();
        let mut message = vec![0; size];
        stream.read_exact(&mut message).await.unwrap();
        sleep(secs(60)).await;
    });
    let stream = TcpStream::connect(address).await.unwrap();
    let mut driver = Heartbeat::with_codec(stream, Once::default(), config).spawn();

    let sender = driver.sender.clone();
    let message = Bytes::from(vec![0; size]);
    tokio::spawn(async move { sender.send(message).await });
    let began = Instant::now();
    let death = loop {
        let event = timeout(secs(20), driver.receiver.next()).await;
        match event.expect("nobody judges it").expect("an end") {
            PeerEvent::Dead(death) => break death,
            PeerEvent::Suspect { .. } | PeerEvent::Recovered { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    let took = began.elapsed();
    assert_eq!(death.cause, Cause::Silent, "{death}");
    assert_eq!(driver.sender.status().peer.pings, 1);
    // It said something after I, and took the rest next to at once.
    let bound = config.interval() + ms(200) + secs(2) + config.interval();
    assert!(took < bound + SLACK, "{took:?}: {death}");
}
