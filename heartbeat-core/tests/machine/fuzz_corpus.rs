//! What the fuzz targets check, without a fuzzer: on the saved inputs, and on
//! inputs made by dice.
//!
//! The saved inputs are in `fuzz/corpus`, one folder for each target. They
//! are made by this file (`seeds` and `frames` below):
//!
//! ```text
//! HEARTBEAT_SAVE_SEEDS=1 cargo test -p heartbeat-core --test machine fuzz_corpus::
//! ```
//!
//! What a fuzzer finds is saved next to them, under a name that says what it
//! is, when it has been mended.

#![expect(clippy::expect_used, reason = "how a test fails")]

#[path = "../../fuzz/src/lib.rs"]
mod checks;

use std::{collections::HashSet, env, fs, path::PathBuf};

use crate::common::{GOODBYE, INSTANCE, LEFT};
use checks::op;
use heartbeat_core::{Cause, CloseReason, Config, Control, Event, Nonce, State};

#[test]
fn saved_inputs_hold() {
    for (name, bytes) in saved("decode") {
        println!("decode/{name}");
        checks::decode(&bytes);
    }
    for (name, bytes) in saved("monitor") {
        println!("monitor/{name}");
        checks::monitor(&bytes);
    }
}

#[test]
fn the_seeds_are_saved() {
    for (target, made) in [("decode", frames()), ("monitor", seeds())] {
        let saved = saved(target);
        for seed in made {
            assert!(saved.contains(&seed), "{target}/{} is not current", seed.0);
        }
    }
}

#[test]
fn the_seeds_are_as_they_were_made() {
    for (target, made) in [("decode", frames()), ("monitor", seeds())] {
        for (name, bytes) in made {
            let file = corpus(target).join(&name);
            if env::var_os("HEARTBEAT_SAVE_SEEDS").is_some() {
                fs::write(&file, &bytes).expect("the corpus can be written");
            }
            let saved = fs::read(&file).expect("the seed was saved");
            assert!(saved == bytes, "{target}/{name}");
        }
    }
}

#[test]
fn each_seed_comes_to_what_its_name_says() {
    for (name, bytes) in seeds() {
        let (state, told) = checks::monitor(&bytes).expect("a valid use");
        println!("{name}: {state:?} {told:?}");
        let count = |like: fn(&Event) -> bool| told.iter().filter(|event| like(event)).count();
        let beats = count(|event| matches!(event, Event::Beat { .. }));
        let recovered = count(|event| matches!(event, Event::Recovered { .. }));
        let stalls = count(|event| matches!(event, Event::LocalStall { .. }));
        let cause = match told.last() {
            Some(Event::Dead(death)) => Some(death.cause),
            _ => None,
        };
        let closed = match told.last() {
            Some(&Event::Closed { reason }) => Some(reason),
            _ => None,
        };
        let silent = cause == Some(Cause::Silent);
        let holds = match name.as_str() {
            "silent" => silent && stalls == 0,
            "answered" => state == State::Alive && beats == 4,
            "answered-late" => state == State::Alive && recovered == 1,
            "traffic" => state == State::Alive && told.is_empty(),
            "peer-says-goodbye" => closed == Some(LEFT),
            "peer-gave-us-up" => cause
                .is_some_and(|cause| matches!(cause, Cause::GivenUp { code, .. } if code.0 == 2)),
            "asked-along" => state == State::Alive && beats == 1 && stalls == 0,
            "signs-of-life" => state == State::Alive && told.is_empty(),
            "unnumbered-pongs" => silent && beats == 2,
            "acknowledged" => silent && recovered == 1,
            "we-say-goodbye" | "both-say-goodbye" => closed == Some(CloseReason::Local),
            "farewell-to-the-dead" => cause == Some(Cause::WriteStalled),
            "goodbye-unconfirmed" => closed == Some(CloseReason::Unconfirmed),
            "goodbye-discarded" => closed == Some(LEFT),
            "both-finish" => {
                closed == Some(CloseReason::Finished) && told.contains(&Event::Finished)
            }
            "finish-and-leave" => silent && told.contains(&Event::Finished),
            "write-stalled" => cause == Some(Cause::WriteStalled),
            "slow-write" => silent && told.len() == 1,
            // Three are forgiven.
            "stalls" => silent && stalls == 4,
            "paused" => state == State::Alive && stalls == 0,
            "flood" => cause == Some(Cause::PingFlood),
            "clock-abuse" => state == State::Alive && stalls == 1,
            "passive-echo" => silent && beats == 2,
            "probe-and-reset" => cause == Some(Cause::Reset) && beats == 1,
            _ => false,
        };
        assert!(holds, "{name}: {state:?} {told:?}");
    }
}

#[test]
fn fifty_thousand_random_uses_hold() {
    let mut dice = Dice(0x6865_6172_7462_6561);
    let seeds = seeds();
    let mut ends = HashSet::new();
    for _ in 0..50_000 {
        let input = match dice.below(4) {
            0 => dice.changed(&seeds),
            _ => dice.uses(),
        };
        ends.insert(checks::monitor(&input).map(|(state, _)| state));
    }
    // Heads that aren't valid, and each of the six states.
    assert_eq!(ends.len(), 7, "{ends:?}");
}

#[test]
fn fifty_thousand_random_frames_hold() {
    let mut dice = Dice(0x6672_616d_6573);
    let frames = frames();
    for _ in 0..50_000 {
        let frame = dice.changed(&frames);
        checks::decode(&frame);
    }
}

// ---- seeds ---------------------------------------------------------------

type Named = (String, Vec<u8>);

/// One use of a monitor each.
fn seeds() -> Vec<Named> {
    use op::*;

    let hello = bytes(&[
        &[
            HELLO, 2, 0xe8, 3, 2, 0x40, 0x1f, 2, 0xf4, 1, 1, 3, 2, 0, 1, 7,
        ],
        &[DRAIN],
    ]);
    let beat = [DEADLINE, TIMEOUT, DRAIN];
    let later = [LATER, 2, 0xe8, 3];
    let late = [AFTER_DEADLINE, 4, 0, 0, 1, 0, TIMEOUT, DRAIN];
    let answered = bytes(&[&beat, &[LATER, 1, 9, PONG, 0, DRAIN]]);

    let plain = Head::default();
    let limited = Head {
        switches: 7,
        ..plain
    };
    let lingering = Head {
        switches: 11,
        ..plain
    };
    let passive = Head {
        role: 2,
        evidence: 2,
        ..plain
    };
    let uses = [
        ("silent", plain, bytes(&[&hello, &beat.repeat(5)])),
        ("answered", plain, bytes(&[&hello, &answered.repeat(4)])),
        (
            "answered-late",
            plain,
            bytes(&[&hello, &beat, &beat, &[PONG, 1, DRAIN, PONG, 0, DRAIN]]),
        ),
        (
            "traffic",
            plain,
            bytes(&[&later, &[BYTES, BACKLOG, MESSAGE, DRAIN]]).repeat(6),
        ),
        (
            "peer-says-goodbye",
            plain,
            bytes(&[&hello, &[GOODBYE, 0, DRAIN, PING, 1, DRAIN]]),
        ),
        (
            "peer-gave-us-up",
            plain,
            bytes(&[&hello, &[GOODBYE, 2, DRAIN, PING, 1, DRAIN]]),
        ),
        (
            "asked-along",
            plain,
            bytes(&[
                &hello,
                &[PING, 1, DRAIN, PONG, 0, ALIVE, FIN, RESERVED, DRAIN],
            ]),
        ),
        (
            "signs-of-life",
            plain,
            bytes(&[
                &[PAUSED, DRAIN, DEADLINE, TIMEOUT, DRAIN],
                &[RESUMED, BYTES, BACKLOG, DRAIN],
            ]),
        ),
        (
            "unnumbered-pongs",
            Head {
                evidence: 2,
                ..plain
            },
            bytes(&[
                &beat.repeat(2),
                &[UNNUMBERED_PONG, DRAIN].repeat(3),
                &beat.repeat(5),
            ]),
        ),
        (
            "acknowledged",
            Head {
                evidence: 3,
                ..plain
            },
            bytes(&[
                &beat.repeat(2),
                &[ACKNOWLEDGED, 1, 5, DRAIN],
                &beat.repeat(5),
            ]),
        ),
        (
            "we-say-goodbye",
            plain,
            vec![
                DRAIN, CLOSE, DRAIN, EVENT, PING, 1, DRAIN, GOODBYE, 8, DRAIN,
            ],
        ),
        (
            "both-say-goodbye",
            plain,
            vec![CLOSE, DRAIN, GOODBYE, 1, GOODBYE, 8, TRANSMIT, DRAIN, DRAIN],
        ),
        (
            "farewell-to-the-dead",
            plain,
            bytes(&[
                &[DRAIN, CLOSE, TRANSMIT],
                &[DEADLINE, TIMEOUT, EVENT].repeat(6),
            ]),
        ),
        (
            "goodbye-unconfirmed",
            lingering,
            bytes(&[
                &[DRAIN, CLOSE, DRAIN],
                &[DEADLINE, TIMEOUT, BYTES, DRAIN].repeat(4),
            ]),
        ),
        (
            "goodbye-discarded",
            plain,
            vec![DRAIN, MESSAGE, DISCARDED, GOODBYE, 0, TRANSMIT, DRAIN],
        ),
        (
            "both-finish",
            plain,
            vec![DRAIN, FINISH, FIN, PING, 1, DRAIN, FINISH],
        ),
        (
            "finish-and-leave",
            plain,
            bytes(&[&[DRAIN, FIN, DRAIN, CLOSE, FINISH, DRAIN], &beat.repeat(4)]),
        ),
        (
            "write-stalled",
            limited,
            bytes(&[
                &[DRAIN, BLOCKED],
                &[DEADLINE, TIMEOUT, TRANSMIT, BYTES, EVENT].repeat(4),
            ]),
        ),
        (
            "slow-write",
            plain,
            bytes(&[
                &[DRAIN, DEADLINE, TIMEOUT, TRANSMIT],
                &[LATER, 2, 0, 2, PROGRESS, TIMEOUT].repeat(5),
                &[FLUSHED],
                &beat.repeat(4),
            ]),
        ),
        ("stalls", plain, bytes(&[&hello, &late.repeat(5)])),
        (
            "paused",
            plain,
            bytes(&[
                &hello,
                &[PAUSED, DRAIN],
                &beat.repeat(3),
                &[RESUMED, DRAIN],
                &beat,
            ]),
        ),
        (
            "flood",
            plain,
            bytes(&[&hello, &[PING, 7].repeat(120), &[DRAIN]]),
        ),
        (
            "clock-abuse",
            plain,
            bytes(&[
                &hello,
                &[END_OF_TIME, TIMEOUT, DRAIN, ORIGIN, TIMEOUT, BYTES, DRAIN],
                &[END_OF_TIME, PING, 1, ORIGIN, DRAIN, TIMEOUT],
            ]),
        ),
        (
            "passive-echo",
            passive,
            bytes(&[
                &hello,
                &later,
                &[PING, 1, DRAIN],
                &answered.repeat(2),
                &[WRONG_PONG],
                &beat.repeat(4),
            ]),
        ),
        (
            "probe-and-reset",
            plain,
            bytes(&[
                &hello,
                &[PROBE, DRAIN, PROBE, PONG, 0],
                &later,
                &[PROBE, DRAIN, END, 1, EVENT, PROBE, DRAIN],
            ]),
        ),
    ];
    uses.map(|(name, head, operations)| {
        let mut input = head.bytes();
        input.extend(operations);
        (name.to_owned(), input)
    })
    .into()
}

/// One frame each, right and wrong ones.
fn frames() -> Vec<Named> {
    let encoded = |control: Control| {
        let mut buffer = [0; Control::MAX_ENCODED];
        let frame = control.encode(&mut buffer).expect("always long enough");
        frame.to_vec()
    };
    let hello = encoded(Control::Hello(Config::default().hello(INSTANCE)));
    let impossible = b"\0\0\0\0\0instance";
    let (prefix, times) = hello.split_at(6);
    let frames = [
        ("hello", hello.clone()),
        ("hello-of-a-later-version", bytes(&[&hello, b"more"])),
        ("hello-wrong-magic", bytes(&[b"\x01HTTP\x01", times])),
        ("hello-wrong-version", bytes(&[b"\x01HBT\0\x02", times])),
        ("hello-cut-short", bytes(&[prefix, b"\x01"])),
        ("hello-endless-number", bytes(&[prefix, &[0xff; 12]])),
        ("hello-impossible", bytes(&[prefix, impossible])),
        ("ping", encoded(Control::Ping(Nonce(*b"12345678")))),
        ("ping-too-long", b"\x02123456789".to_vec()),
        ("pong", encoded(Control::Pong(Nonce([0xff; 8])))),
        ("goodbye", encoded(GOODBYE)),
        (
            "goodbye-with-a-detail",
            b"\x04\x01\x0cback at noon".to_vec(),
        ),
        ("goodbye-without-a-detail", vec![4, 0]),
        ("goodbye-no-text", vec![4, 64, 2, 0xc3, 0x28]),
        ("goodbye-too-long", bytes(&[&[4, 64, 124], &[b'd'; 124]])),
        ("alive", encoded(Control::Alive)),
        ("alive-with-a-body", vec![5, 0]),
        ("fin", encoded(Control::Fin)),
        ("reserved", b"\x55of a later revision".to_vec()),
        ("data", b"\0data".to_vec()),
        ("part", b"\x07part".to_vec()),
        ("unknown-tag", vec![0x80]),
    ];
    frames.map(|(name, frame)| (name.to_owned(), frame)).into()
}

/// The head of an input, times in microseconds.
#[derive(Clone, Copy)]
struct Head {
    interval: u64,
    timeout: u64,
    min_interval: u64,
    max_missed: u8,
    jitter: u8,
    evidence: u8,
    role: u8,
    switches: u8,
    stall_tolerance: u64,
    linger: u64,
    start: u64,
}

impl Default for Head {
    /// Dead after 4 ms; no jitter, adaptive, with beat events.
    fn default() -> Self {
        Self {
            interval: 1_000,
            timeout: 1_000,
            min_interval: 500,
            max_missed: 3,
            jitter: 0,
            evidence: 0,
            role: 0,
            switches: 3,
            stall_tolerance: 1_000,
            linger: 2_500,
            start: 5_000,
        }
    }
}

impl Head {
    fn bytes(self) -> Vec<u8> {
        let mut input = Vec::new();
        number(&mut input, self.interval);
        number(&mut input, self.timeout);
        number(&mut input, self.min_interval);
        input.extend([self.max_missed, self.jitter]);
        input.extend([self.evidence, self.role, self.switches]);
        number(&mut input, self.stall_tolerance);
        if self.switches & 4 != 0 {
            number(&mut input, self.timeout);
        }
        if self.switches & 8 != 0 {
            number(&mut input, self.linger);
        }
        number(&mut input, 1);
        number(&mut input, self.start);
        input
    }
}

fn bytes(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn number(input: &mut Vec<u8>, number: u64) {
    let width = 8 - number.leading_zeros() / 8;
    input.extend(u8::try_from(width));
    input.extend(number.to_le_bytes().iter().take(width as usize));
}

fn corpus(target: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fuzz", "corpus", target]
        .iter()
        .collect()
}

fn saved(target: &str) -> Vec<Named> {
    let files = fs::read_dir(corpus(target)).expect("there is a corpus");
    let mut saved: Vec<_> = files
        .map(|file| {
            let file = file.expect("the folder can be read");
            let bytes = fs::read(file.path()).expect("the file can be read");
            (file.file_name().to_string_lossy().into_owned(), bytes)
        })
        .collect();
    saved.sort();
    saved
}

// ---- dice ----------------------------------------------------------------

/// `SplitMix64` (Steele, Lea, Flood 2014).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn byte(&mut self) -> u8 {
        self.roll().to_le_bytes()[0]
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.roll() >> 33).unwrap_or(0) % limit.max(1)
    }

    /// From 1 to 2^20, small ones as often as large ones.
    fn micros(&mut self) -> u64 {
        let bits = self.below(21);
        1 + (self.roll() & ((1 << bits) - 1))
    }

    /// One of them, with some bytes changed.
    fn changed(&mut self, among: &[Named]) -> Vec<u8> {
        let chosen = self.below(among.len());
        let mut bytes = among
            .get(chosen)
            .map_or(Vec::new(), |(_, bytes)| bytes.clone());
        for _ in 0..self.below(4) {
            let place = self.below(bytes.len());
            match (self.below(3), bytes.get_mut(place)) {
                (0, Some(byte)) => *byte = self.byte(),
                (1, Some(_)) => bytes.truncate(place),
                _ => bytes.insert(place, self.byte()),
            }
        }
        bytes
    }

    /// A valid head and some operations.
    fn uses(&mut self) -> Vec<u8> {
        let mut input = Head {
            interval: self.micros(),
            timeout: self.micros(),
            min_interval: self.micros(),
            max_missed: 1 + self.byte() % 4,
            jitter: self.byte(),
            evidence: self.byte(),
            role: self.byte(),
            switches: self.byte(),
            stall_tolerance: self.micros(),
            linger: self.micros(),
            start: self.micros(),
        }
        .bytes();
        for _ in 0..self.below(120) {
            self.operation(&mut input);
        }
        input
    }

    /// Usually what a driver does, now and then anything.
    fn operation(&mut self, input: &mut Vec<u8>) {
        match self.below(12) {
            0..3 => input.extend([op::DEADLINE, op::TIMEOUT, op::DRAIN]),
            3 => input.extend([op::DEADLINE, op::TIMEOUT, op::TRANSMIT]),
            4 => input.extend([op::PONG, self.byte() % 3]),
            5 => {
                input.push(op::LATER);
                number(input, self.micros());
                input.push(op::TIMEOUT);
            }
            6 => {
                input.push(op::HELLO);
                let interval = self.micros();
                number(input, interval);
                number(input, interval + self.micros());
                number(input, self.micros());
                number(input, 3);
                number(input, self.micros());
                input.push(7);
            }
            _ => {
                let op = self.byte() % op::COUNT;
                let ends = [op::GOODBYE, op::END, op::CLOSE, op::END_OF_TIME];
                // These are rare, or nothing would live long.
                if !ends.contains(&op) || self.below(16) == 0 {
                    input.push(op);
                    let width = self.byte() % 4;
                    input.push(width);
                    input.extend((0..width).map(|_| self.byte()));
                }
            }
        }
    }
}
