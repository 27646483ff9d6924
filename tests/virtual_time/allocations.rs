//! How often memory is allocated for a message, once a connection is under
//! way. Counted by an allocator.

use std::{hint::black_box, thread};

use bytes::Bytes;
use futures::{SinkExt, StreamExt, future::poll_immediate};
use heartbeat_core::{Control, Nonce};
use heartbeat_tests::{
    data_frame, few_or_all, quick,
    scripted::{Read, Script, Scripted, control_frame, filler, greeted, runtime},
    secs,
};
use heartbeat_tokio::{Config, Heartbeat, PeerEvent};
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

/// Each cycle fills a buffer to its end, when the stream has taken the front of it only. The
/// rest is copied into another one, and both are kept.
#[test]
fn a_buffer_that_is_full_before_all_of_it_was_written_is_replaced_by_one_that_is_kept() {
    for vectored in [true, false] {
        let takes = [25_000, 0, usize::MAX];
        let count = sending(1000, vectored, false, &takes, MESSAGES);
        assert!(count <= 5, "{count}: vectored {vectored}");
    }
}

#[test]
fn sending_a_message_in_parts_allocates_one_list() {
    for size in [65_537, 1 << 20] {
        for flushed in [true, false] {
            let count = sending(size, true, flushed, &[], 50);
            assert!(count <= 2 * 50, "{count}: {size}, flushed {flushed}");
        }
    }
}

/// It is written from the stack. A thread that sends nothing else keeps no buffer.
#[test]
fn sending_a_small_message_alone_needs_no_buffer() {
    let sending = || {
        let runtime = runtime();
        let (mut heartbeat, script) = runtime.block_on(greeted(quick()));
        script.record_nothing();
        let message = filler(0, 4095);
        let send = || runtime.block_on(heartbeat.send(message)).unwrap();
        let most = allocation_counter::measure(send).bytes_max;
        assert!(most <= 1000, "{most} bytes");
    };
    thread::spawn(sending).join().unwrap();
}

#[test]
fn a_connection_that_ends_in_the_middle_of_something_leaves_its_buffers_to_the_next() {
    let half = Bytes::from(data_frame(&filler(0, 30_000))).slice(..15_000);
    let reading = async move |heartbeat: &mut Heartbeat<Scripted>, script: &Script| {
        script.give_bytes(half.clone());
        assert!(poll_immediate(heartbeat.next()).await.is_none());
    };
    let writing = async |heartbeat: &mut Heartbeat<Scripted>, _: &Script| {
        for _ in 0..2 {
            heartbeat.feed(filler(0, 1000)).await.unwrap();
        }
    };
    thread::spawn(move || leaves_its_buffers(reading))
        .join()
        .unwrap();
    thread::spawn(move || leaves_its_buffers(writing))
        .join()
        .unwrap();
}

fn leaves_its_buffers(be_used: impl AsyncFn(&mut Heartbeat<Scripted>, &Script)) {
    let runtime = runtime();
    let one = || {
        runtime.block_on(async {
            let (mut heartbeat, script) = greeted(quick()).await;
            be_used(&mut heartbeat, &script).await;
        });
    };
    one();
    let most = allocation_counter::measure(one).bytes_max;
    assert!(most <= 50_000, "{most} bytes");
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

/// Beyond 1 KiB it shares the chunk that the reads go to. Below that its first bytes are an
/// allocation of their own, and the whole is another.
#[test]
fn a_message_of_up_to_1_kib_that_arrives_in_two_reads_is_copied_and_a_longer_one_is_not() {
    for (size, copies) in [(600, true), (1024, true), (1025, false), (3000, false)] {
        let frame = Bytes::from(data_frame(&filler(0, size)));
        let reads = [frame.slice(..500), frame.slice(500..)].map(Read::Bytes);
        let count = receiving_in(&[&reads[..], &[Read::Pause]].concat(), 1);
        match copies {
            true => assert_eq!(count, 2 * MESSAGES as u64, "{size}"),
            false => assert!(count <= MESSAGES as u64 / 10, "{size}: {count}"),
        }
    }
}

/// How many allocations there are while messages are received and dropped.
fn receiving(size: usize, at_once: usize) -> u64 {
    let frames = Bytes::from(data_frame(&filler(0, size)).repeat(at_once));
    receiving_in(&[Read::Bytes(frames), Read::Pause], at_once)
}

/// The same if as many arrive by such reads, again and again.
fn receiving_in(reads: &[Read], at_once: usize) -> u64 {
    let runtime = runtime();
    let (mut heartbeat, script) = runtime.block_on(greeted(quick()));
    script.record_nothing();
    let rounds = 2 * MESSAGES / at_once + 2;
    script.give((0..rounds).flat_map(|_| reads.iter().cloned()));
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
