//! Messages of a serde type.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests may panic too"
)]

use std::time::Duration;

use futures::{FutureExt, SinkExt, StreamExt};
use heartbeat_core::ProtocolError;
use heartbeat_tests::{RawPeer, data_frame, ms, quick};
use heartbeat_tokio::{Cause, Config, Driver, Heartbeat, PeerEvent, Postcard, SendError};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::{io::DuplexStream, time::sleep};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Order {
    Buy { what: String, amount: u32 },
    Cancel(Vec<u64>),
    Nothing,
}

fn orders() -> Vec<Order> {
    vec![
        Order::Nothing,
        Order::Buy {
            what: "tea".into(),
            amount: 3,
        },
        Order::Cancel((0..100_000).collect()),
        Order::Nothing,
    ]
}

fn pair(config: Config) -> [Heartbeat<DuplexStream, Postcard<Order>>; 2] {
    let (ours, theirs) = tokio::io::duplex(4096);
    [ours, theirs].map(|stream| Heartbeat::typed(stream, config))
}

#[tokio::test(start_paused = true)]
async fn they_arrive_as_what_they_were() {
    let [mut ours, theirs] = pair(quick());
    let Driver { sender, .. } = theirs.spawn();
    let sending = tokio::spawn(async move {
        for order in orders() {
            sender.send(order).await.unwrap();
        }
        sender.close().await.unwrap();
    });
    let mut received = Vec::new();
    while let Some(event) = ours.next().await {
        if let PeerEvent::Message(order) = event {
            received.push(order);
        }
    }
    sending.await.unwrap();
    assert_eq!(received, orders());
}

#[tokio::test(start_paused = true)]
async fn on_the_wire_they_are_data_frames_in_postcard() {
    let (ours, theirs) = tokio::io::duplex(4096);
    let mut ours: Heartbeat<_, Postcard<Order>> = Heartbeat::typed(ours, quick());
    let mut raw = RawPeer::new(theirs);
    raw.greet(quick()).await;
    let tea = Order::Buy {
        what: "tea".into(),
        amount: 300,
    };
    ours.send(tea).await.unwrap();
    raw.read_frame().await.expect("our hello");
    let frame = raw.read_frame().await.expect("our order");
    assert_eq!(frame, b"\0\x00\x03tea\xac\x02");
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_message_end_it_and_say_why() {
    let (ours, theirs) = tokio::io::duplex(4096);
    let mut ours: Heartbeat<_, Postcard<Order>> = Heartbeat::typed(ours, quick());
    let mut raw = RawPeer::new(theirs);
    raw.greet(quick()).await;
    raw.send_data(b"\x02").await;
    raw.send_data(b"\x07").await; // there is no such order
    raw.send_data(b"\x02").await;
    let mut events: Vec<_> = ours.by_ref().collect().await;
    let Some(PeerEvent::Dead(death)) = events.pop() else {
        panic!("{events:?}");
    };
    assert_eq!(death.cause, Cause::Protocol(ProtocolError::Undecodable));
    // What came before it is delivered, what comes after isn't.
    assert_eq!(events.pop(), Some(PeerEvent::Message(Order::Nothing)));
    assert!(matches!(events[..], [PeerEvent::Connected { .. }]));
    let words = ours.io_error().expect("postcard's").to_string();
    assert!(words.contains("Serde"), "{words}");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_too_long_is_refused_and_the_connection_goes_on() {
    let [mut ours, mut theirs] = pair(quick().to_builder().max_frame(100).build().unwrap());
    let refused = ours.send(Order::Cancel((0..1000).collect())).await;
    let length = 1 + 2 + 128 + 872 * 2;
    let max = 100;
    assert_eq!(refused, Err(SendError::TooLong { length, max }));
    ours.send(Order::Nothing).await.unwrap();
    loop {
        match theirs.next().await.expect("it goes on") {
            PeerEvent::Message(order) => break assert_eq!(order, Order::Nothing),
            event => assert!(!event.is_terminal(), "{event}"),
        }
    }
}

/// A stream that takes everything at once isn't in the way, however much is sent.
#[tokio::test(start_paused = true)]
async fn a_rest_between_two_bursts_is_no_blocked_stream() {
    let (silent, _peer) = tokio::io::duplex(1);
    let stream = tokio::io::join(silent, tokio::io::sink());
    let mut ours = Heartbeat::<_, Postcard<Vec<u8>>>::typed(stream, quick());
    let message = vec![7; 300_000];
    let mut rests = (0..20).map(|_| ours.feed(message.clone()).now_or_never().is_none());
    assert!(rests.any(|rests| rests), "it never rests");
    sleep(ms(10)).await;
    assert_eq!(ours.status().blocked_for, Duration::ZERO);
}

/// Panics at 13, written or read.
#[derive(Debug, PartialEq)]
struct Superstitious(u8);

impl Superstitious {
    fn checked(number: u8) -> u8 {
        assert!(number != 13, "bad luck");
        number
    }
}

impl Serialize for Superstitious {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(Self::checked(self.0))
    }
}

impl<'de> Deserialize<'de> for Superstitious {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u8::deserialize(deserializer).map(|number| Self(Self::checked(number)))
    }
}

#[tokio::test(start_paused = true)]
async fn a_type_that_panics_as_it_is_read_ends_its_own_connection() {
    let (ours, theirs) = tokio::io::duplex(4096);
    let ours = Heartbeat::<_, Postcard<Superstitious>>::typed(ours, quick()).spawn();
    let theirs = Heartbeat::<_, Postcard<u8>>::typed(theirs, quick()).spawn();
    for number in [1, 13, 2] {
        theirs.sender.send(number).await.unwrap();
    }
    let is_beat = |event: &PeerEvent<_>| matches!(event, PeerEvent::Beat { .. });
    let events: Vec<_> = ours.receiver.collect().await;
    let mut events = events.into_iter().filter(|event| !is_beat(event)).skip(1);
    assert_eq!(events.next(), Some(PeerEvent::Message(Superstitious(1))));
    let Some(PeerEvent::Dead(death)) = events.next() else {
        panic!("it goes on");
    };
    assert_eq!(death.cause, Cause::Protocol(ProtocolError::Undecodable));
    let error = ours.sender.io_error().expect("the type's").to_string();
    assert_eq!(error, "the codec panicked: bad luck");
    ours.task.await.expect("the task doesn't panic");
}

#[tokio::test(start_paused = true)]
async fn a_type_that_panics_as_it_is_written_is_refused_and_the_connection_goes_on() {
    let (ours, theirs) = tokio::io::duplex(4096);
    let mut ours = Heartbeat::<_, Postcard<Superstitious>>::typed(ours, quick());
    let mut theirs = Heartbeat::<_, Postcard<u8>>::typed(theirs, quick());
    let refused = ours.send(Superstitious(13)).await;
    let Err(SendError::Unencodable(error)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(error.to_string(), "the codec panicked: bad luck");
    ours.send(Superstitious(2)).await.unwrap();
    let connected = theirs.next().await;
    assert!(matches!(connected, Some(PeerEvent::Connected { .. })));
    assert_eq!(theirs.next().await, Some(PeerEvent::Message(2)));
}

#[tokio::test(start_paused = true)]
async fn what_was_buffered_is_in_the_parts() {
    let (ours, theirs) = tokio::io::duplex(4096);
    let mut ours: Heartbeat<_, Postcard<Order>> = Heartbeat::typed(ours, quick());
    let mut raw = RawPeer::new(theirs);
    raw.greet(quick()).await;
    raw.send_data(b"\x02").await;
    let half = &data_frame(b"\x02")[..5];
    raw.send_raw(half).await;
    while !matches!(ours.next().await, Some(PeerEvent::Message(_))) {}
    ours.feed(Order::Nothing).await.unwrap();
    let parts = ours.into_parts();
    assert_eq!(parts.read, half);
    assert_eq!(parts.write, data_frame(b"\x02"));
}
