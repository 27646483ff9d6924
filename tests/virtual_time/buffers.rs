//! Which memory is read into and written from: a connection reads as much at once as its
//! chunk has room for, begins no large message that would have to be moved, uses a chunk
//! again, and writes large messages from where they are. In virtual time.

use std::{ops::Range, thread};

use bytes::Bytes;
use futures::{FutureExt, SinkExt, StreamExt, future::poll_immediate};
use heartbeat_core::PART;
use heartbeat_tests::{
    data_frame, parts, quick,
    scripted::{Script, Scripted, filler, greeted, runtime},
    secs,
};
use heartbeat_tokio::{Config, Heartbeat, PeerEvent};
use tokio::runtime::Runtime;

const PAGE: usize = 4096;

/// The data and the framing that fit into each buffer, and a page more so that it can begin in
/// the middle of one.
const CHUNK: usize = 66 * 1024;

/// What a read is offered that is probably small.
const SMALL: usize = 2 * (5 + 1024);

/// A chunk with less room counts as full.
const ROOM: usize = 2048;

/// Nothing but what a test does: beats are far away.
fn calm() -> Config {
    let calm = quick().to_builder().interval(secs(3600));
    calm.build().unwrap()
}

/// In a thread that has kept no buffers of other connections.
fn alone(test: impl FnOnce() + Send + 'static) {
    thread::spawn(test).join().unwrap();
}

// ---- reads ---------------------------------------------------------------------

struct Reading {
    runtime: Runtime,
    heartbeat: Heartbeat<Scripted>,
    script: Script,
}

impl Reading {
    fn begin() -> Self {
        let runtime = runtime();
        let (heartbeat, script) = runtime.block_on(greeted(calm()));
        script.record_nothing();
        let _ = script.memory();
        Self {
            runtime,
            heartbeat,
            script,
        }
    }

    /// Reads these bytes. Drops the messages, unless they are `kept`. Returns what each read
    /// was offered, and last the one that found nothing.
    fn reads(&mut self, bytes: impl Into<Bytes>, mut kept: Option<&mut Vec<Bytes>>) -> Reads {
        self.script.give_bytes(bytes);
        self.runtime.block_on(async {
            while let Some(event) = poll_immediate(self.heartbeat.next()).await {
                match (event, &mut kept) {
                    (Some(PeerEvent::Message(message)), Some(kept)) => kept.push(message),
                    (Some(PeerEvent::Message(_)), None) => {}
                    (event, _) => panic!("{event:?}"),
                }
            }
        });
        self.script.memory().reads
    }

    /// Reads more than a small read takes. Returns where the chunk ends that it needs.
    fn chunk(&mut self) -> usize {
        let reads = self.reads(data_frame(&filler(0, 16)).repeat(200), None);
        assert_eq!(reads[0].len(), SMALL);
        reads[1].end
    }
}

type Reads = Vec<Range<usize>>;

/// Where the memory begins of a chunk that ends there.
const fn memory_of(end: usize) -> usize {
    end - CHUNK - PAGE
}

/// Where an empty chunk begins that ends there: in the middle of a page.
const fn begin_of(end: usize) -> usize {
    memory_of(end) + (PAGE / 2).wrapping_sub(memory_of(end)) % PAGE
}

#[test]
fn small_messages_are_read_into_the_whole_rest_of_one_chunk_that_is_used_again() {
    alone(|| {
        let mut reading = Reading::begin();
        let end = reading.chunk();
        for size in [16, 30, 100, 1000, 3000, 4090] {
            let message = data_frame(&filler(0, size));
            for read in reading.reads(message.repeat(100_000 / message.len()), None) {
                assert_eq!(read.end, end, "{size}: {read:?}");
                assert!(read.len() >= ROOM, "{size}: {read:?}");
            }
        }
    });
}

#[test]
fn a_chunk_is_full_with_less_than_2_kib_of_room() {
    for (left, is_full) in [(ROOM, false), (ROOM - 1, true), (0, true)] {
        alone(move || {
            let mut reading = Reading::begin();
            let end = reading.chunk();
            let room = end - begin_of(end) - left;
            let mut bytes = data_frame(&filler(0, 16)).repeat(room / 21 - 1);
            bytes.extend(data_frame(&filler(0, room - bytes.len() - 5)));
            let reads = reading.reads(bytes, None);
            assert_eq!(reads[0], begin_of(end)..end);
            let next = match is_full {
                false => end - left..end,
                true => begin_of(end)..end,
            };
            assert_eq!(reads[1], next, "{left}");
        });
    }
}

#[test]
fn a_read_takes_whole_messages_from_4_kib_on() {
    alone(|| {
        let mut reading = Reading::begin();
        let end = reading.chunk();
        for size in [4091, 5000, 30_000, 65_536] {
            let message = data_frame(&filler(0, size));
            let length = message.len();
            // The next one is probably as long.
            reading.reads(message.clone(), None);
            let reads = reading.reads(message.repeat(150_000_usize.div_ceil(length)), None);
            assert!(reads.len() > 2);
            for read in reads {
                let room = end - read.start;
                assert!(room >= length, "{size}: {read:?}");
                assert_eq!(read.len(), room - room % length, "{size}: {read:?}");
            }
            // In the middle of one, its rest and whole ones.
            for missing in [1, 1000, length - 1030] {
                let (some, rest) = message.split_at(length - missing);
                let reads = reading.reads(some.to_vec(), None);
                let last = reads.last().unwrap();
                let behind = end - last.start - missing;
                let expected = missing + behind - behind % length;
                assert_eq!(last.len(), expected, "{size}, {missing}");
                reading.reads(rest.to_vec(), None);
            }
        }
    });
}

#[test]
fn large_messages_are_read_to_the_middle_of_a_page() {
    alone(|| {
        let mut reading = Reading::begin();
        let message = data_frame(&filler(0, PART));
        reading.reads(message.clone(), None);
        for _ in 0..3 {
            let reads = reading.reads(message.repeat(5), None);
            assert!(reads.len() > 5);
            for read in reads {
                assert_eq!(read.start % PAGE, PAGE / 2, "{read:?}");
                assert_eq!(read.len(), message.len());
            }
        }
    });
}

/// Its beginning is moved to the front of the chunk, which no message holds.
#[test]
fn a_message_that_was_begun_in_a_chunk_without_room_for_it_is_read_in_one_piece() {
    alone(|| {
        let mut reading = Reading::begin();
        let end = reading.chunk();
        let message = data_frame(&filler(1, 40_000));
        let (some, rest) = message.split_at(5000);
        let before = (end - begin_of(end) - 10_000) / 21;
        let bytes = [&*data_frame(&filler(0, 16)).repeat(before), some].concat();
        let reads = reading.reads(bytes, None);
        assert_eq!(reads[0], begin_of(end)..end);
        assert_eq!(reads[1], memory_of(end) + 5000..end);
        let mut kept = Vec::new();
        reading.reads(rest.to_vec(), Some(&mut kept));
        assert_eq!(kept, [filler(1, 40_000)]);
    });
}

#[test]
fn after_much_a_chunk_is_read_into_also_behind_a_pause() {
    alone(|| {
        let mut reading = Reading::begin();
        let end = reading.chunk();
        let messages = |count| data_frame(&filler(0, 16)).repeat(count);
        for _ in 0..3 {
            let reads = reading.reads(messages(200), None);
            assert_eq!(reads[0], begin_of(end)..end);
            // But not behind a small read.
            let reads = reading.reads(messages(1), None);
            assert_eq!(reads[0], begin_of(end)..end);
            assert_eq!(reads[1].len(), SMALL);
            let reads = reading.reads(messages(200), None);
            assert_eq!(reads[0].len(), SMALL);
        }
    });
}

#[test]
fn the_rest_of_a_chunk_is_for_messages_below_4_kib() {
    for (size, is_whole) in [(4090, false), (4091, true)] {
        alone(move || {
            let mut reading = Reading::begin();
            let mut kept = Vec::new();
            let message = data_frame(&filler(0, size));
            reading.reads(message.clone(), Some(&mut kept));
            // The last read finds nothing. Then the rest of the chunk is given back.
            let reads = reading.reads(message.repeat(3), Some(&mut kept));
            let rest = reads.last().unwrap().start;
            let next = reading.reads(message, None)[0].start;
            assert_eq!(next != rest, is_whole, "{size}");
        });
    }
}

// ---- messages in parts -----------------------------------------------------------

#[test]
fn a_message_in_parts_begins_with_about_32_kib() {
    alone(|| {
        for length in [PART + 1, 100_000, 1 << 20, 2_000_000] {
            let mut reading = Reading::begin();
            let wire = Bytes::from(parts(&filler(0, length), PART));
            let reads = reading.reads(wire.slice(..SMALL), None);
            // The header of the first part, and the length of the message.
            let arrived = SMALL - 8;
            assert_eq!(reads.len(), 2);
            let memory = arrived + reads[1].len();
            let least = 32 * 1024 - PAGE;
            assert!((least..=64 * 1024).contains(&memory), "{length}: {memory}");
        }
    });
}

/// What is read of a part there is copied once more.
#[test]
fn between_the_parts_of_a_message_little_is_read_at_once() {
    alone(|| {
        let mut reading = Reading::begin();
        let wire = Bytes::from(parts(&filler(0, 2 * PART), PART));
        let second = 8 + PART;
        reading.reads(wire.slice(..second), None);
        for at in second..second + 5 {
            let reads = reading.reads(wire.slice(at..=at), None);
            let last = reads.last().unwrap();
            assert!(last.len() == SMALL || at == second + 4, "{last:?}");
        }
        let mut kept = Vec::new();
        reading.reads(wire.slice(second + 5..), Some(&mut kept));
        assert!(kept == [filler(0, 2 * PART)]);
    });
}

// ---- writes ----------------------------------------------------------------------

struct Writing {
    runtime: Runtime,
    heartbeat: Heartbeat<Scripted>,
    script: Script,
}

impl Writing {
    fn begin() -> Self {
        let Reading {
            runtime,
            mut heartbeat,
            script,
        } = Reading::begin();
        runtime.block_on(heartbeat.flush()).unwrap();
        let (_, _) = (script.written(), script.memory());
        Self {
            runtime,
            heartbeat,
            script,
        }
    }

    /// How many bytes are written when a message is fed.
    fn feed(&mut self, message: &Bytes) -> usize {
        let fed = self.heartbeat.feed(message.clone());
        self.runtime.block_on(fed).unwrap();
        self.script.written()
    }

    /// The peer sends a message. With it a burst of ours is over.
    fn read_one(&mut self) {
        self.script.give_bytes(data_frame(b"read"));
        let read = self.runtime.block_on(self.heartbeat.next());
        assert!(matches!(read, Some(PeerEvent::Message(_))));
        assert_eq!(self.script.written(), 0);
    }

    /// How many bytes are written in one poll, and whether these were all.
    fn flush(&mut self) -> (usize, bool) {
        let flushed = self
            .runtime
            .block_on(async { self.heartbeat.flush().now_or_never() });
        (self.script.written(), flushed.is_some())
    }
}

/// The slices of each write of these messages.
fn written(sizes: &[usize], vectored: bool) -> (Vec<Bytes>, Vec<Vec<Range<usize>>>) {
    let mut writing = Writing::begin();
    writing.script.set_vectored(vectored);
    let messages: Vec<Bytes> = sizes.iter().map(|&size| filler(0, size)).collect();
    for message in &messages {
        assert_eq!(writing.feed(message), 0);
    }
    assert!(writing.flush().1);
    (messages, writing.script.memory().writes)
}

fn is_from(message: &Bytes, slice: &Range<usize>) -> bool {
    *slice == (message.as_ptr() as usize..message.as_ptr() as usize + message.len())
}

#[test]
fn a_message_of_4_kib_is_written_from_its_own_buffer() {
    for (before, lengths) in [
        (&[][..], &[5][..]),
        (&[10], &[20]),
        (&[10, 5000], &[20, 5000, 5]),
    ] {
        let sizes = [before, &[4096]].concat();
        let (messages, writes) = written(&sizes, true);
        let [slices] = &writes[..] else {
            panic!("{writes:?}")
        };
        let (own, others) = slices.split_last().unwrap();
        assert!(is_from(messages.last().unwrap(), own), "{sizes:?}");
        let others: Vec<usize> = others.iter().map(Range::len).collect();
        assert_eq!(others, lengths, "{sizes:?}");

        // By a stream that takes one slice at a time, each in a write of its own.
        let (_, writes) = written(&sizes, false);
        let all = [lengths, &[4096]].concat();
        let single: Vec<_> = writes.iter().map(|slices| slices[0].len()).collect();
        assert_eq!(single, all, "{sizes:?}");
    }
}

#[test]
fn smaller_messages_are_written_in_one_piece() {
    for sizes in [&[4095][..], &[0], &[16, 4095], &[4095, 4095, 0, 1]] {
        let (_, writes) = written(sizes, true);
        let all: usize = sizes.iter().map(|size| 5 + size).sum();
        let lengths: Vec<Vec<usize>> = (writes.iter())
            .map(|slices| slices.iter().map(Range::len).collect())
            .collect();
        assert_eq!(lengths, [[all]], "{sizes:?}");
    }
}

#[test]
fn what_is_fed_waits_up_to_48_kib_if_it_is_copied_and_up_to_192_kib_if_not() {
    for (frame, most) in [(1024, 48 * 1024), (8192, 192 * 1024)] {
        let mut writing = Writing::begin();
        let message = filler(0, frame - 5);
        for _ in 0..2 {
            for nth in 0..most / frame {
                assert_eq!(writing.feed(&message), 0, "{nth}");
            }
            assert_eq!(writing.feed(&message), most);
            writing.read_one();
            assert_eq!(writing.flush(), (frame, true));
            writing.read_one();
        }
    }
}

// ---- bursts ----------------------------------------------------------------------

/// The bytes that are written before other tasks have a turn.
const BURST: usize = 192 * 1024;

/// The same of a message that is as long or longer.
const LONGEST: usize = 640 * 1024;

#[test]
fn a_writer_yields_after_192_kib_and_after_640_kib_of_a_longer_message() {
    let mut writing = Writing::begin();
    for size in [60_000, 60_000, 60_000, 60_000] {
        assert_eq!(writing.feed(&filler(0, size)), 0);
    }
    assert_eq!(writing.flush(), (BURST, false));
    assert_eq!(writing.flush(), (4 * 60_005 - BURST, true));

    let mut writing = Writing::begin();
    let message = filler(0, 1 << 20);
    let all = data_frame(&message).len();
    assert_eq!(writing.feed(&message), 0);
    assert_eq!(writing.flush(), (LONGEST, false));
    assert_eq!(writing.flush(), (all - LONGEST, true));
}

/// Three messages of 150,015 bytes together.
fn feed_150_000(writing: &mut Writing) {
    for _ in 0..3 {
        assert_eq!(writing.feed(&filler(0, 50_000)), 0);
    }
}

#[test]
fn a_burst_goes_on_where_the_last_write_ended_and_anew_behind_a_read_or_a_full_stream() {
    let mut writing = Writing::begin();
    feed_150_000(&mut writing);
    assert_eq!(writing.flush(), (150_015, true));
    feed_150_000(&mut writing);
    assert_eq!(writing.flush(), (BURST - 150_015, false));
    assert_eq!(writing.flush(), (300_030 - BURST, true));

    let mut writing = Writing::begin();
    feed_150_000(&mut writing);
    assert_eq!(writing.flush(), (150_015, true));
    writing.read_one();
    feed_150_000(&mut writing);
    assert_eq!(writing.flush(), (150_015, true));

    let mut writing = Writing::begin();
    feed_150_000(&mut writing);
    writing.script.take_only(100_000);
    assert_eq!(writing.flush(), (100_000, false));
    feed_150_000(&mut writing);
    writing.script.take_only(usize::MAX);
    assert_eq!(writing.flush(), (BURST, false));
}
