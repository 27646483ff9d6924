//! What a connection keeps when it is idle again, and what its messages keep
//! when they are kept. Counted by an allocator.

use std::thread;

use bytes::Bytes;
use futures::{SinkExt, StreamExt, future::poll_immediate};
use heartbeat_core::{Control, Nonce};
use heartbeat_tests::{
    data_frame, quick,
    scripted::{Read, Script, Scripted, control_frame, filler, greeted, runtime},
};
use heartbeat_tokio::{Heartbeat, PeerEvent};

// ---- small messages that are kept ---------------------------------------------

/// Messages of 16 bytes.
const KEPT: usize = 10_000;

/// A message's share of the memory that came alone: its bytes, and what an
/// allocator rounds up to.
const ALONE: i64 = 32;

#[test]
fn messages_that_came_alone_keep_their_own_bytes() {
    let kept = kept_by(1);
    assert!(kept <= 10_000 * ALONE, "{kept} bytes");
}

#[test]
fn messages_that_came_a_few_at_a_time_keep_little_besides() {
    // In small reads, and in such as need a chunk.
    for at_once in [2, 7, 40, 48, 49, 50, 100, 2000] {
        let kept = kept_by(at_once);
        println!("{at_once} at once: {kept} bytes for 160,000");
        assert!(kept <= 1_000_000, "{at_once} at once: {kept} bytes");
    }
}

#[test]
fn messages_that_came_all_at_once_share_what_they_were_read_into() {
    let kept = kept_by(KEPT);
    assert!(kept <= 600_000, "{kept} bytes");
}

/// The number of messages in each read, with a pause after each.
fn kept_by(at_once: usize) -> i64 {
    let runtime = runtime();
    let frames = Bytes::from(data_frame(&filler(0, 16)).repeat(at_once));
    let mut kept = Vec::with_capacity(KEPT);
    let (mut heartbeat, script) = runtime.block_on(greeted(quick()));
    for _ in 0..KEPT / at_once {
        script.give([Read::Bytes(frames.clone()), Read::Pause]);
    }
    let messages = KEPT / at_once * at_once;
    let measured = allocation_counter::measure(|| {
        runtime.block_on(async {
            while kept.len() < messages {
                match heartbeat.next().await {
                    Some(PeerEvent::Message(message)) => kept.push(message),
                    event => panic!("{event:?}"),
                }
            }
            idle(&mut heartbeat).await;
        });
    });
    assert!(kept.iter().all(|message| *message == filler(0, 16)));
    measured.bytes_current
}

// ---- large messages --------------------------------------------------------------

const MIB: usize = 1 << 20;

/// The messages that it receives, and what is allocated meanwhile.
fn received(sizes: &[usize]) -> (Vec<Bytes>, allocation_counter::AllocationInfo) {
    let runtime = runtime();
    let (mut heartbeat, script) = runtime.block_on(greeted(quick()));
    let wire = sizes.iter().map(|&size| data_frame(&filler(0, size)));
    script.give(wire.map(|wire| Read::Bytes(wire.into())));
    let mut messages = Vec::with_capacity(sizes.len());
    let measured = allocation_counter::measure(|| {
        runtime.block_on(async {
            while messages.len() < sizes.len() {
                match heartbeat.next().await {
                    Some(PeerEvent::Message(message)) => messages.push(message),
                    event => panic!("{event:?}"),
                }
            }
        });
    });
    (messages, measured)
}

/// Each thread keeps memory of 4 MiB, of the latest messages, for those that need as much or half
/// as much.
#[test]
fn a_large_message_uses_the_memory_of_an_earlier_one_that_is_gone() {
    let receiving = || {
        for (size, is_new) in [
            (3 * MIB, true),
            (3 * MIB, false),
            (MIB, true),
            (3 * MIB, false),
            (MIB, false),
            (5 * MIB / 4, true), // in place of the oldest
            (5 * MIB / 4, false),
            (3 * MIB, true),
            (4 * MIB, true),
            (4 * MIB, false),
            (2 * MIB, false),
            (5 * MIB, true), // too much to be kept
            (5 * MIB, true),
        ] {
            let (_, measured) = received(&[size]);
            let allocated = measured.bytes_total >= size as u64;
            assert_eq!(allocated, is_new, "{size}: {measured:?}");
        }
    };
    thread::spawn(receiving).join().unwrap();
}

/// 3 MiB are there for a message that is large too.
#[test]
fn a_message_that_is_kept_keeps_no_more_than_twice_its_size() {
    let receiving = || {
        drop(received(&[3 * MIB]));
        let mut kept = Vec::new();
        let measured = allocation_counter::measure(|| {
            kept.extend(received(&[100_000]).0);
            drop(received(&[3 * MIB]));
        });
        assert_eq!(kept, [filler(0, 100_000)]);
        assert!(measured.bytes_current <= 400_000, "{measured:?}");
    };
    thread::spawn(receiving).join().unwrap();
}

#[test]
fn taken_apart_in_the_middle_of_a_message_it_copies_what_has_arrived_once() {
    let runtime = runtime();
    let (mut heartbeat, script) = runtime.block_on(greeted(quick()));
    let arrived = 2_000_000;
    script.give_bytes(Bytes::from(data_frame(&filler(0, 3 * MIB))).slice(..arrived));
    for _ in 0..10 {
        assert!(runtime.block_on(poll_immediate(heartbeat.next())).is_none());
    }
    let mut read = Bytes::new();
    let measured = allocation_counter::measure(|| read = heartbeat.into_parts().read);
    assert_eq!(read.len(), arrived);
    let most = arrived as u64 + 10_000;
    assert!(measured.bytes_max <= most, "{measured:?}");
}

// ---- connections that are idle again --------------------------------------------

/// Many, because a thread keeps a few buffers for busy connections.
const CONNECTIONS: usize = 40;

#[test]
fn an_idle_connection_keeps_nothing_of_what_it_was_busy_with() {
    let lone = data_frame(&filler(1, 100));
    let bulk = data_frame(&filler(2, 500)).repeat(400);
    let large = data_frame(&filler(3, 4 << 20));
    let ping = control_frame(Control::Ping(Nonce([1; 8])));
    held(&[]); // what the runtime and the thread keep for the next
    let fresh = held(&[]);
    for (what, uses) in [
        ("one that was pinged", vec![Use::Reads(vec![ping.clone()])]),
        ("a message alone", vec![Use::Reads(vec![lone.clone()])]),
        ("many at once", vec![Use::Reads(vec![bulk.clone()])]),
        (
            "many at once, and one alone",
            vec![
                Use::Reads(vec![bulk.clone()]),
                Use::Reads(vec![lone.clone()]),
            ],
        ),
        (
            "many at once, and a ping",
            vec![
                Use::Reads(vec![bulk.clone()]),
                Use::Reads(vec![ping.clone()]),
            ],
        ),
        (
            "one in two reads",
            vec![Use::Reads(vec![lone[..50].to_vec(), lone[50..].to_vec()])],
        ),
        (
            "one in two reads, some time apart",
            vec![
                Use::Reads(vec![lone[..3].to_vec()]),
                Use::Reads(vec![lone[3..].to_vec()]),
            ],
        ),
        ("a large one", vec![Use::Reads(vec![large.clone()])]),
        (
            "a large one and a ping",
            vec![
                Use::Reads(vec![large.clone()]),
                Use::Reads(vec![ping.clone()]),
            ],
        ),
        ("sent one", vec![Use::Sends(100, 1)]),
        ("sent many", vec![Use::Sends(500, 1000)]),
        ("sent large ones", vec![Use::Sends(100_000, 20)]),
        ("sent middling ones", vec![Use::Sends(5000, 200)]),
        ("sent a very large one", vec![Use::Sends(4 << 20, 1)]),
        (
            "sent to one that took little at a time",
            vec![Use::Takes(vec![1000, 0, 70_000, 3]), Use::Sends(5000, 200)],
        ),
        (
            "received while it was sending",
            vec![
                Use::Takes(vec![100, 0]),
                Use::SendsAndReads(20_000, bulk.clone()),
            ],
        ),
    ] {
        let held = held(&uses);
        println!("{what}: {held} bytes, as against {fresh}");
        assert!(held <= fresh, "{what}: {held} bytes instead of {fresh}");
    }
}

enum Use {
    /// Reads of these bytes, one directly behind the other.
    Reads(Vec<Vec<u8>>),
    /// The stream takes this many bytes at a time from now on.
    Takes(Vec<usize>),
    /// Messages of a size, and how many.
    Sends(usize, usize),
    /// A message of a size is sent while those bytes arrive.
    SendsAndReads(usize, Vec<u8>),
}

/// What each connection holds after having been used so: what is free once it
/// is dropped.
fn held(uses: &[Use]) -> i64 {
    let runtime = runtime();
    let mut connections = Vec::new();
    let mut scripts = Vec::new();
    for _ in 0..CONNECTIONS {
        let (heartbeat, script) = runtime.block_on(async {
            let (mut heartbeat, script) = greeted(quick()).await;
            script.record_nothing();
            idle(&mut heartbeat).await;
            for one in uses {
                be_used(&mut heartbeat, &script, one).await;
                idle(&mut heartbeat).await;
            }
            (heartbeat, script)
        });
        connections.push(heartbeat);
        scripts.push(script);
    }
    let freed = allocation_counter::measure(|| {
        let _guard = runtime.enter();
        connections.clear();
    });
    let each = -freed.bytes_current;
    each / i64::try_from(CONNECTIONS).unwrap()
}

async fn be_used(heartbeat: &mut Heartbeat<Scripted>, script: &Script, one: &Use) {
    match one {
        Use::Reads(reads) => {
            let reads = reads.iter().cloned().map(Bytes::from);
            script.give(reads.map(Read::Bytes));
        }
        Use::Takes(takes) => script.take_each(takes.clone()),
        Use::Sends(size, count) => {
            for nth in 0..*count {
                heartbeat.feed(filler(nth, *size)).await.unwrap();
            }
            heartbeat.flush().await.unwrap();
        }
        Use::SendsAndReads(size, bytes) => {
            script.give_bytes(bytes.clone());
            heartbeat.send(filler(0, *size)).await.unwrap();
        }
    }
}

/// Takes out whatever there is, until nothing is left to do.
async fn idle(heartbeat: &mut Heartbeat<Scripted>) {
    for _ in 0..3 {
        while let Some(event) = poll_immediate(heartbeat.next()).await {
            assert!(matches!(event, Some(PeerEvent::Message(_))), "{event:?}");
        }
    }
}
