//! How often memory is allocated for a message, once a connection is under
//! way. Counted by an allocator.

use std::hint::black_box;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use heartbeat_core::{Control, Nonce};
use heartbeat_tests::{
    data_frame, few_or_all, quick,
    scripted::{Read, control_frame, filler, greeted, runtime},
    secs,
};
use heartbeat_tokio::{Config, PeerEvent};
use tokio::time::timeout;

const MESSAGES: usize = 1_000;

/// Below 64 KiB, headers included.
const SIZES: [usize; 12] = [
    0, 16, 250, 251, 255, 1024, 4095, 4096, 5000, 16_384, 40_000, 65_000,
];

/// From here on a message is written from where it is.
const UNCOPIED: usize = 4096;

/// What is written from where it is waits in a list, which isn't kept.
#[test]
fn sending_allocates_nothing_for_small_messages_and_a_list_for_large_ones() {
    for size in SIZES {
        for vectored in [true, false] {
            for flushed in [true, false] {
                let count = sending(size, vectored, flushed, &[], MESSAGES);
                let most = if size < UNCOPIED {
                    0
                } else {
                    2 * MESSAGES as u64
                };
                assert!(
                    count <= most,
                    "{count}: {size}, vectored {vectored}, flushed {flushed}"
                );
            }
        }
    }
}

/// Next to nothing: a buffer in a thousand that is full before all of it was
/// written.
#[test]
fn sending_to_a_stream_that_takes_a_part_at_a_time_allocates_next_to_nothing() {
    // With the longest message each: a small part at a time takes its time.
    let parts = [
        (&[1000, 0][..], 20_000),
        (&[70_000, 3, 0, 20_000], few_or_all(20_000, usize::MAX)),
        (&[5], 1024),
    ];
    for size in SIZES {
        for (takes, _) in parts.into_iter().filter(|(_, longest)| size <= *longest) {
            for vectored in [true, false] {
                for flushed in [true, false] {
                    // Five bytes at a time take theirs.
                    let messages = if takes == [5] { MESSAGES / 5 } else { MESSAGES };
                    let count = sending(size, vectored, flushed, takes, messages);
                    let most = match size < UNCOPIED {
                        true => messages as u64 / 200,
                        false => 2 * messages as u64,
                    };
                    assert!(
                        count <= most,
                        "{count}: {size}, {takes:?}, {vectored}, {flushed}"
                    );
                }
            }
        }
    }
}

/// How many allocations there are while `count` messages are sent, after as
/// many.
fn sending(size: usize, vectored: bool, flushed: bool, takes: &[usize], count: usize) -> u64 {
    let runtime = runtime();
    let (mut heartbeat, script) = runtime.block_on(greeted(quick()));
    script.record_nothing();
    script.set_vectored(vectored);
    script.take_each(takes);
    let payload = filler(0, size);
    // The same memory each time: what is sent isn't ours to count.
    let _shared = payload.clone();
    let mut send = |messages| {
        runtime.block_on(async {
            for _ in 0..messages {
                match flushed {
                    true => heartbeat.send(payload.clone()).await.unwrap(),
                    false => heartbeat.feed(payload.clone()).await.unwrap(),
                }
            }
        });
    };
    // Until each buffer was written and used again.
    send(if size < 1024 { 10 * count } else { count });
    // The runtime itself allocates something each time it is entered.
    let few = allocation_counter::measure(|| send(count)).count_total;
    let many = allocation_counter::measure(|| send(3 * count)).count_total;
    many.saturating_sub(few)
}

#[test]
fn a_message_that_arrives_alone_is_one_allocation() {
    for size in [0, 1, 16, 255, 1024] {
        let count = receiving(size, 1);
        assert_eq!(count, MESSAGES as u64, "{size}");
    }
}

/// What is left of a read that was cut by a smaller one is copied.
#[test]
fn messages_that_arrive_together_share_their_chunk() {
    for (size, at_once) in [(16, 100), (16, 2000), (1024, 60), (4096, 20), (20_000, 4)] {
        let count = receiving(size, at_once);
        println!("{count} allocations for {MESSAGES} messages of {size} bytes, {at_once} at once");
        assert!(count <= MESSAGES as u64 / 10, "{size}, {at_once} at once");
    }
}

/// How many allocations there are while messages are received and dropped.
fn receiving(size: usize, at_once: usize) -> u64 {
    let runtime = runtime();
    let (mut heartbeat, script) = runtime.block_on(greeted(quick()));
    script.record_nothing();
    let frames = Bytes::from(data_frame(&filler(0, size)).repeat(at_once));
    let rounds = 2 * MESSAGES / at_once + 2;
    script.give((0..rounds).flat_map(|_| [Read::Bytes(frames.clone()), Read::Pause]));
    let mut receive = || {
        runtime.block_on(async {
            for _ in 0..MESSAGES {
                match heartbeat.next().await {
                    Some(PeerEvent::Message(message)) => drop(black_box(message)),
                    event => panic!("{event:?}"),
                }
            }
        });
    };
    receive();
    allocation_counter::measure(receive).count_total
}

#[test]
fn a_control_frame_is_one_allocation_when_it_arrives_and_one_when_it_leaves() {
    const PINGS: u32 = 100;
    let runtime = runtime();
    // It asks once, along with the first answer, and waits long.
    let calm = Config::builder()
        .interval(secs(86_400))
        .timeout(secs(86_400));
    let calm = calm.build().unwrap();
    let (mut heartbeat, script) = runtime.block_on(greeted(calm));
    script.record_nothing();
    let ping = Bytes::from(control_frame(Control::Ping(Nonce([1; 8]))));
    let apart = calm.min_interval();
    let mut answer = |pings: u32| {
        runtime.block_on(async {
            for _ in 0..pings {
                script.give_bytes(ping.clone());
                let event = timeout(apart, heartbeat.next()).await;
                assert!(event.is_err(), "{event:?}");
            }
        });
    };
    answer(PINGS);
    let few = allocation_counter::measure(|| answer(PINGS)).count_total;
    let many = allocation_counter::measure(|| answer(2 * PINGS)).count_total;
    assert_eq!(many - few, 2 * u64::from(PINGS));
}
