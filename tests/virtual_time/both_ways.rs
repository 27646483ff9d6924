//! Two peers that send to each other at once, over memory of every size from
//! one byte up, inline and with `spawn`: everything arrives, byte for byte and
//! in order. In virtual time.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use heartbeat_tests::{
    scripted::{filler, runtime},
    secs,
};
use heartbeat_tokio::{Config, Driver, Heartbeat, PeerEvent};
use tokio::io::DuplexStream;

#[test]
fn through_any_size_inline() {
    for room in rooms() {
        runtime().block_on(async {
            let (ours, theirs) = tokio::io::duplex(room);
            let both = async {
                tokio::join!(
                    inline(ours, sizes(room, 0), sizes(room, 1)),
                    inline(theirs, sizes(room, 1), sizes(room, 0))
                )
            };
            let both = tokio::time::timeout(secs(3600), both);
            both.await
                .unwrap_or_else(|_| panic!("{room}: it got stuck"));
        });
    }
}

#[test]
fn through_any_size_spawned() {
    for room in rooms() {
        runtime().block_on(async {
            let (ours, theirs) = tokio::io::duplex(room);
            let both = async {
                tokio::join!(
                    spawned(ours, sizes(room, 0), sizes(room, 1)),
                    spawned(theirs, sizes(room, 1), sizes(room, 0))
                )
            };
            let both = tokio::time::timeout(secs(3600), both);
            both.await
                .unwrap_or_else(|_| panic!("{room}: it got stuck"));
        });
    }
}

#[test]
fn inline_with_spawned() {
    for room in rooms().into_iter().step_by(3) {
        runtime().block_on(async {
            let (ours, theirs) = tokio::io::duplex(room);
            let both = async {
                tokio::join!(
                    inline(ours, sizes(room, 0), sizes(room, 1)),
                    spawned(theirs, sizes(room, 1), sizes(room, 0))
                )
            };
            let both = tokio::time::timeout(secs(3600), both);
            both.await
                .unwrap_or_else(|_| panic!("{room}: it got stuck"));
        });
    }
}

/// Bytes that a direction of the stream holds.
fn rooms() -> Vec<usize> {
    let mut rooms: Vec<usize> = (1..40).collect();
    rooms.extend([64, 255, 256, 261, 1000, 1029, 1030, 2058, 2059]);
    rooms.extend([4095, 4096, 16_384, 65_536, 67_583, 67_584, 67_585, 1 << 20]);
    rooms
}

/// Larger messages where it doesn't take for ever.
fn sizes(room: usize, side: usize) -> Vec<usize> {
    let mut sizes = vec![0, 1, 100, 3, 255, 256, 251, 252];
    if room > 20 {
        sizes.extend([1023, 1024, 0, 1025, 1030, 4095, 4096, 4097]);
    }
    if room > 200 {
        sizes.extend([65_530, 2, 65_531, 65_536, 65_542, 66 * 1024, 20]);
    }
    if room > 4000 {
        sizes.extend([(1 << 20) + 1, 7, 300_000, 0]);
        sizes.extend([500; 300]);
    }
    let middle = sizes.len() / 2;
    sizes.rotate_left(middle * side);
    sizes
}

fn config() -> Config {
    Config::default()
}

fn message((nth, size): (usize, usize)) -> Bytes {
    filler(nth, size)
}

async fn inline(stream: DuplexStream, sending: Vec<usize>, receiving: Vec<usize>) {
    let heartbeat = Heartbeat::new(stream, config());
    let (mut sink, mut events) = heartbeat.split();
    let sending = async {
        for (nth, size) in sending.into_iter().enumerate() {
            match nth % 3 {
                0 => sink.send(message((nth, size))).await.unwrap(),
                _ => sink.feed(message((nth, size))).await.unwrap(),
            }
        }
        sink.flush().await.unwrap();
    };
    let receiving = async {
        for expected in receiving.into_iter().enumerate().map(message) {
            expect(&mut events, expected).await;
        }
    };
    tokio::join!(sending, receiving);
    // The other side has received everything only when it says goodbye too.
    let mut heartbeat = sink.reunite(events).unwrap();
    heartbeat.close().await.unwrap();
}

async fn spawned(stream: DuplexStream, sending: Vec<usize>, receiving: Vec<usize>) {
    let Driver {
        sender,
        mut receiver,
        ..
    } = Heartbeat::new(stream, config()).spawn();
    let sending = async {
        for (nth, size) in sending.into_iter().enumerate() {
            sender.send(message((nth, size))).await.unwrap();
            if nth % 3 == 0 {
                sender.flush().await.unwrap();
            }
        }
        sender.flush().await.unwrap();
    };
    let receiving = async {
        for expected in receiving.into_iter().enumerate().map(message) {
            expect(&mut receiver, expected).await;
        }
    };
    tokio::join!(sending, receiving);
    // The other one may have said it first.
    let _ = sender.close().await;
}

async fn expect(
    events: &mut (impl futures::Stream<Item = PeerEvent<Bytes>> + Unpin),
    expected: Bytes,
) {
    loop {
        match events.next().await {
            Some(PeerEvent::Message(message)) => {
                assert_eq!(message.len(), expected.len());
                assert!(message == expected, "other bytes");
                return;
            }
            Some(event) if !event.is_terminal() => {}
            event => panic!("{event:?}"),
        }
    }
}
