//! What the peer's kernel takes counts while a ping waits behind our own data, and no
//! longer: a slow reader lives, and an application that hangs behind a large receive buffer
//! is found within the bound of docs/timings.md, also if it reads a byte now and then, if we
//! send more all the time, and while no other ping may leave.
//!
//! Real kernels. What is measured may be late by `SLACK`.
#![cfg(target_os = "linux")]

use std::{
    io,
    time::{Duration, Instant},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use heartbeat_tests::{ms, secs, server::slow_line_to};
use heartbeat_tokio::{Cause, Codec, Config, Dialect, Frame, Heartbeat, PeerEvent, SendError};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::codec::{Decoder, Encoder, Framed};

use crate::brokers::mqtt::{Mqtt, Packet, connect, publish};

const SLACK: Duration = ms(1500);
const PINGREQ: u8 = 0xC0;
const PINGRESP: [u8; 2] = [0xD0, 0];

type Client = Heartbeat<TcpStream, Codec<Mqtt>>;

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

/// Bytes a second.
const RATE: u32 = 1_000_000;

/// Bytes. All that our kernel holds ahead of a ping is at most this: what it may hold unsent,
/// and what the line's kernel takes.
const AHEAD: u32 = 500_000;

/// Behind a line of `RATE`. It takes all that we send, and answers pings or doesn't.
async fn behind_the_line(answers: bool) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap());
    let near = slow_line_to(far.await.unwrap(), RATE).await;
    let (stream, _) = listener.accept().await.unwrap();
    tokio::spawn(async move {
        let mut peer = Framed::new(stream, Mqtt::default());
        while let Some(Ok(frame)) = peer.next().await {
            let is_ping = matches!(frame, Frame::Data(Packet(PINGREQ, _)));
            if is_ping && answers {
                peer.get_mut().write_all(&PINGRESP).await.unwrap();
            }
        }
    });
    let config = Config::detect_within(secs(1)).unwrap();
    let mut client = Heartbeat::with_codec(near, Mqtt::default(), config);
    client.send(connect("client", 0)).await.unwrap();
    client
}

/// As fast as the line takes it.
async fn send_small(client: &mut Client) -> Result<(), SendError> {
    let sent = client.send(publish("small", &[0; 1000]));
    timeout(secs(20), sent).await.expect("nobody judges it")
}

/// The ping waits behind the message for three times the detection time.
#[tokio::test]
async fn an_application_lives_that_reads_a_message_for_longer_than_the_detection_time() {
    let mut client = behind_the_line(true).await;
    let began = Instant::now();
    for _ in 0..2 {
        let message = publish("large", &vec![0; 1_500_000]);
        client.send(message).await.unwrap();
    }
    let answered = client.status().peer.pongs;
    while client.status().peer.pongs == answered {
        let event = timeout(secs(20), client.next()).await.unwrap();
        let event = event.expect("it goes on");
        assert!(!event.is_terminal(), "{event}");
    }
    let took = began.elapsed();
    assert!(took > ms(2500), "{took:?}: not slow enough");
}

/// Its kernel takes all the time what we said after the ping.
#[tokio::test]
async fn an_application_that_hangs_while_we_send_more_is_found_and_one_that_answers_lives() {
    let (mut lives, mut hangs) = tokio::join!(behind_the_line(true), behind_the_line(false));
    let began = Instant::now();
    let living = async {
        while began.elapsed() < secs(4) {
            send_small(&mut lives).await.unwrap();
        }
        let status = lives.status();
        assert!(status.peer.pongs > 1, "{status:?}");
    };
    let hanging = async {
        loop {
            match send_small(&mut hangs).await {
                Ok(()) => assert!(began.elapsed() < secs(20), "nobody judges it"),
                Err(SendError::Dead(death)) => break (death, began.elapsed()),
                Err(other) => panic!("{other}"),
            }
        }
    };
    let ((), (death, took)) = tokio::join!(living, hanging);
    assert_eq!(death.cause, Cause::Silent, "{death}");
    // B/R + I + N·W, and what its kernel took is seen at most I later.
    let behind = secs(1) * AHEAD / RATE;
    let bound = behind + hangs.detection_time() + hangs.config().interval();
    assert!(took < bound + SLACK, "{took:?}, at most {bound:?}: {death}");
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
