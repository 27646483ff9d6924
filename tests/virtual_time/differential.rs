//! Streams that three implementations judge: this one, inline and spawned,
//! `support/stranger.py`, which was written from `docs/protocol.md` alone, and what web
//! pages have, `examples/heartbeat-js`.
//!
//! A stream is made of valid frames, of which some are damaged: bytes are changed,
//! lengths don't fit, frames are out of order. It arrives in pieces. All must tell their
//! application the same and refuse the same with the same error, and the first two answer
//! the same pings. The third has no streams: it is given whole frames.
//!
//! `HEARTBEAT_STREAMS` says how many, `HEARTBEAT_SEED` which. Streams on which two of them
//! once differed are in `differential.txt`, and are tried first.

use std::{
    io::{BufRead, BufReader, Write},
    ops::Range,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use heartbeat_core::{Control, Goodbye};
use heartbeat_tests::{
    few_or_all, needs,
    scripted::{OnWire, Read, Script, control_frame, frames, runtime, scripted},
};
use heartbeat_tokio::{Config, GoodbyeCode, Heartbeat, Nonce, PeerEvent};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::time::timeout;

use crate::protocol_vectors::{hex, told};

const STRANGER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/support/stranger.py");
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/support/differ.mjs");
const KNOWN: &str = include_str!("differential.txt");

/// The number of streams that the other side has at once.
const BATCH: usize = 500;

#[test]
fn three_implementations_judge_the_same_bytes_alike() {
    if !needs("python3") || !needs("node") {
        return;
    }
    let seed = knob("HEARTBEAT_SEED").unwrap_or(1);
    let streams = knob("HEARTBEAT_STREAMS").unwrap_or(few_or_all(1_000, 8_000));
    let mut dice = SmallRng::seed_from_u64(seed);
    let known = KNOWN.lines().filter(|line| !line.starts_with('#'));
    let known = known.map(|line| Case::parse(line).unwrap_or_else(|| panic!("{line}")));
    let random = (0..streams).map(|_| Case::random(&mut dice));
    let mut cases = known.chain(random);
    let mut kinds = Kinds::default();
    loop {
        let batch: Vec<Case> = cases.by_ref().take(BATCH).collect();
        if batch.is_empty() {
            break;
        }
        for ((case, theirs), page) in batch.iter().zip(stranger(&batch)).zip(page(&batch)) {
            kinds.count(&theirs);
            if let Err(error) = compare(case, &theirs).and_then(|()| agree(&theirs, &page)) {
                let case = smallest(case.clone());
                panic!("{error}\nthe smallest such stream: {}", case.line());
            }
        }
    }
    println!("{streams} streams: {kinds:?}");
    kinds.check(streams);
}

fn knob(name: &str) -> Option<u64> {
    Some(std::env::var(name).ok()?.parse().expect("a number"))
}

// ---- what is compared -----------------------------------------------------------

/// What one side made of a stream.
#[derive(Debug, PartialEq)]
struct Verdict {
    told: Vec<String>,
    /// The nonces of each piece: of the pings in it, or of the pongs behind it.
    nonces: Vec<Vec<Nonce>>,
    /// The code of our goodbye.
    goodbye: Option<GoodbyeCode>,
}

fn compare(case: &Case, theirs: &Verdict) -> Result<(), String> {
    for spawned in [false, true] {
        let ours = case.judge(spawned);
        let way = if spawned { "spawned" } else { "inline" };
        let differ = |what: &str| Err(format!("{way}, {what}: {ours:?}\nand {theirs:?}"));
        if ours.told != theirs.told {
            return differ("what is told");
        }
        if ours.goodbye != theirs.goodbye {
            return differ("the last frame");
        }
        // The piece with which it ends may be answered or not.
        let over = theirs.nonces.len().min(case.pieces.len());
        let ends_early =
            theirs.goodbye.is_some() || theirs.told.last().is_some_and(|words| is_goodbye(words));
        for (index, pings) in theirs.nonces.iter().enumerate() {
            let pongs = ours.nonces.get(index).map_or(&[][..], Vec::as_slice);
            let mut rest = pings.iter();
            if !pongs.iter().all(|pong| rest.any(|ping| ping == pong)) {
                return differ("a pong without its ping");
            }
            let is_last = ends_early && index + 1 == over;
            if !is_last && pongs.last() != pings.last() {
                return differ("a ping without its pong");
            }
        }
        if ours.nonces.iter().skip(over).any(|pongs| !pongs.is_empty()) {
            return differ("a pong behind the end");
        }
    }
    Ok(())
}

/// Whether a page is told the same. The beginning of a frame it doesn't judge, and we may.
fn agree(theirs: &Verdict, page: &[String]) -> Result<(), String> {
    let agrees = match page.split_last() {
        Some((last, whole)) if last == "..." => {
            theirs.told.starts_with(whole)
                && (theirs.told.len() == whole.len() || theirs.goodbye.is_some())
        }
        _ => theirs.told == page,
    };
    match agrees {
        true => Ok(()),
        false => Err(format!(
            "a page is told {page:?}, and not {:?}",
            theirs.told
        )),
    }
}

fn is_goodbye(words: &str) -> bool {
    words.starts_with("goodbye")
}

/// Drops frames and joins pieces as long as any two differ.
fn smallest(mut case: Case) -> Case {
    'again: loop {
        for batch in case.smaller().chunks(BATCH) {
            let judged = stranger(batch).into_iter().zip(page(batch));
            let differs = batch.iter().zip(judged).find(|(case, (theirs, page))| {
                compare(case, theirs).is_err() || agree(theirs, page).is_err()
            });
            if let Some((smaller, _)) = differs {
                case = smaller.clone();
                continue 'again;
            }
        }
        return case;
    }
}

/// How often each kind of end occurred, so that none is missing unnoticed.
#[derive(Debug, Default)]
struct Kinds {
    eof: u64,
    goodbye: u64,
    refused: u64,
    protocol: u64,
    pings: u64,
    messages: u64,
}

impl Kinds {
    fn count(&mut self, verdict: &Verdict) {
        self.pings += verdict
            .nonces
            .iter()
            .map(|piece| piece.len() as u64)
            .sum::<u64>();
        let messages = verdict
            .told
            .iter()
            .filter(|words| words.starts_with("data"));
        self.messages += messages.count() as u64;
        match verdict.goodbye {
            Some(GoodbyeCode::PROTOCOL | GoodbyeCode::PING_FLOOD) => self.protocol += 1,
            Some(GoodbyeCode::REFUSED) => self.refused += 1,
            _ if verdict.told.last().is_some_and(|words| is_goodbye(words)) => self.goodbye += 1,
            _ => self.eof += 1,
        }
    }

    fn check(&self, streams: u64) {
        let Self {
            eof,
            goodbye,
            refused,
            protocol,
            pings,
            messages,
        } = *self;
        for count in [eof, goodbye, refused, protocol, pings, messages] {
            assert!(count >= streams / 200, "{self:?}");
        }
    }
}

// ---- the other sides ------------------------------------------------------------

/// What a program answers to each, which it reads and writes in lines.
fn answers(program: &str, arguments: &[&str], cases: &[Case]) -> Vec<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect(program);
    let mut input = child.stdin.take().expect("a pipe");
    let lines: String = cases.iter().map(|case| case.line() + "\n").collect();
    let writer = thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = BufReader::new(child.stdout.take().expect("a pipe"));
    let answers: Vec<_> = output.lines().map(|line| line.expect("text")).collect();
    assert!(child.wait().expect("it ends").success());
    writer.join().unwrap().expect("it reads");
    assert_eq!(answers.len(), cases.len());
    answers
}

/// What a page is told of each.
fn page(cases: &[Case]) -> Vec<Vec<String>> {
    let answers = answers("node", &[PAGE], cases);
    answers.iter().map(|line| all_told(line)).collect()
}

fn all_told(line: &str) -> Vec<String> {
    let told = line.trim().split("; ").filter(|words| !words.is_empty());
    told.map(str::to_owned).collect()
}

/// What the stranger makes of each.
fn stranger(cases: &[Case]) -> Vec<Verdict> {
    let answers = answers("python3", &[STRANGER, "--differ"], cases);
    answers.iter().map(|line| strangers_verdict(line)).collect()
}

fn strangers_verdict(line: &str) -> Verdict {
    let (told, pings) = line.trim_end().split_once('|').expect("an answer");
    let told = all_told(told);
    let last = told.last().map_or("", String::as_str);
    let is_error = !["", "data", "fin", "goodbye"].contains(&last.split(' ').next().unwrap_or(""));
    Verdict {
        goodbye: match last {
            "Refused" => Some(GoodbyeCode::REFUSED),
            "ping flood" => Some(GoodbyeCode::PING_FLOOD),
            _ if is_error => Some(GoodbyeCode::PROTOCOL),
            _ => match last
                .strip_prefix("goodbye code=")
                .and_then(|rest| rest.split(' ').next()?.parse().ok())
            {
                // A verdict on us isn't answered, nor is an answer.
                Some(2..=8) | None => None,
                Some(_) => Some(GoodbyeCode::RECEIVED),
            },
        },
        nonces: pings.trim().split(' ').map(nonces).collect(),
        told,
    }
}

fn nonces(words: &str) -> Vec<Nonce> {
    let words = words
        .split(',')
        .filter(|word| !word.is_empty() && *word != "-");
    let nonce = |word: &str| Some(Nonce(bytes(word)?.try_into().ok()?));
    words.map(|word| nonce(word).expect("a nonce")).collect()
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.map(byte).collect()
}

// ---- streams --------------------------------------------------------------------

#[derive(Clone, Debug)]
struct Case {
    max_frame: u32,
    pieces: Vec<Vec<u8>>,
}

impl Case {
    /// As the stranger and `differential.txt` have it.
    fn line(&self) -> String {
        let pieces = self.pieces.iter().map(|piece| hex(piece));
        let words = std::iter::once(self.max_frame.to_string()).chain(pieces);
        words.collect::<Vec<_>>().join(" ")
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let max_frame = words.next()?.parse().ok()?;
        let pieces = words.map(bytes).collect::<Option<_>>()?;
        Some(Self { max_frame, pieces })
    }

    /// The same with two pieces joined, or without some of its bytes.
    fn smaller(&self) -> Vec<Self> {
        let max_frame = self.max_frame;
        let mut smaller = Vec::new();
        for at in 1..self.pieces.len() {
            let mut pieces = self.pieces.clone();
            let next = pieces.remove(at);
            pieces[at - 1].extend(next);
            smaller.push(Self { max_frame, pieces });
        }
        let length: usize = self.pieces.iter().map(Vec::len).sum();
        for size in [4096, 256, 64, 16, 4, 1] {
            for at in (0..length).step_by(size).take(2_000) {
                let pieces = without(&self.pieces, at..at + size);
                smaller.push(Self { max_frame, pieces });
            }
        }
        smaller.retain(|case| case.pieces != self.pieces);
        smaller
    }

    fn random(dice: &mut SmallRng) -> Self {
        let max_frame = pick(dice, &[1, 16, 300, 65_536, 65_537, 200_000]);
        let mut stream = Vec::new();
        let long = max_frame > 65_536 && dice.random_ratio(1, 20);
        if !dice.random_ratio(1, 20) {
            stream.extend(damaged(hello(dice), dice));
        }
        for _ in 0..dice.random_range(0..10) {
            let frame = frame(max_frame, long, dice);
            stream.extend(damaged(frame, dice));
        }
        if dice.random_ratio(1, 20) {
            stream.truncate(dice.random_range(0..=stream.len()));
        }
        Self {
            max_frame,
            pieces: cut(&stream, dice),
        }
    }

    /// What the adapter makes of it.
    fn judge(&self, spawned: bool) -> Verdict {
        let config = Config::default()
            .to_builder()
            .max_frame(self.max_frame as usize);
        let config = config.jitter(0.0).build().expect("valid");
        let (stream, script) = scripted();
        runtime().block_on(async {
            let heartbeat = Heartbeat::new(stream, config);
            if spawned {
                let driver = heartbeat.spawn();
                self.feed(driver.receiver, &script).await
            } else {
                self.feed(heartbeat, &script).await
            }
        })
    }

    async fn feed(
        &self,
        mut events: impl Stream<Item = PeerEvent<Bytes>> + Unpin,
        script: &Script,
    ) -> Verdict {
        let mut told_all = Vec::new();
        let mut ends = Vec::new();
        let pieces = self
            .pieces
            .iter()
            .cloned()
            .map(|piece| Read::Bytes(piece.into()));
        for read in pieces.chain([Read::End]) {
            script.give([read]);
            // Until nothing happens any more.
            while let Ok(Some(event)) = timeout(Duration::from_millis(1), events.next()).await {
                if !matches!(event, PeerEvent::Connected { .. } | PeerEvent::Beat { .. }) {
                    told_all.extend(told(&event));
                }
            }
            ends.push(script.taken());
        }
        let sent = script.sent();
        let mut verdict = Verdict {
            told: told_all,
            nonces: vec![Vec::new(); ends.len()],
            goodbye: None,
        };
        for (begin, frame) in frames(&sent) {
            let piece = ends.iter().position(|&end| begin < end).unwrap_or(0);
            match frame {
                OnWire::Control(Control::Pong(nonce)) => verdict.nonces[piece].push(nonce),
                OnWire::Control(Control::Goodbye(code)) => verdict.goodbye = Some(code),
                _ => {}
            }
        }
        verdict
    }
}

/// The pieces without these bytes of the stream.
fn without(pieces: &[Vec<u8>], bytes: Range<usize>) -> Vec<Vec<u8>> {
    let mut at = 0;
    let mut kept = Vec::new();
    for piece in pieces {
        let numbered = (at..).zip(piece.iter());
        let left = numbered.filter(|(number, _)| !bytes.contains(number));
        kept.push(left.map(|(_, &byte)| byte).collect::<Vec<_>>());
        at += piece.len();
    }
    kept.retain(|piece| !piece.is_empty());
    kept
}

fn pick<T: Copy>(dice: &mut SmallRng, all: &[T]) -> T {
    all[dice.random_range(0..all.len())]
}

/// A frame with its length in front.
fn framed(body: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("short");
    [&length.to_be_bytes(), &body[..]].concat()
}

fn hello(dice: &mut SmallRng) -> Vec<u8> {
    let mut numbers = [5_000_000, 14_000_000, 1_000_000, 3, 8 << 20];
    if dice.random_ratio(1, 8) {
        let (field, edges): (usize, &[u64]) = pick(
            dice,
            &[
                (0, &[0, 1, 13_999_999, 14_000_000, u64::MAX]),
                (
                    1,
                    &[
                        5_000_000,
                        5_000_001,
                        126_144_000_000_000,
                        126_144_000_000_001,
                    ],
                ),
                (
                    2,
                    &[
                        0,
                        1,
                        47_000_000,
                        47_000_001,
                        31_536_000_000_000,
                        31_536_000_000_001,
                    ],
                ),
                (3, &[0, 1, 255, 256, 1 << 32]),
                (4, &[0, 1, (1 << 32) - 2, (1 << 32) - 1, 1 << 32]),
            ],
        );
        numbers[field] = pick(dice, edges);
        if dice.random_ratio(1, 8) {
            numbers[..2].copy_from_slice(pick(dice, &[&[99_998, 99_999], &[99_999, 100_000]]));
        }
    }
    let mut body = b"\x01HBT\0\x01".to_vec();
    for number in numbers {
        body.extend(varint(number, dice));
    }
    body.extend([9; 8]);
    framed(body)
}

fn frame(max_frame: u32, long: bool, dice: &mut SmallRng) -> Vec<u8> {
    let mut nonce = [0; 8];
    dice.fill(&mut nonce);
    match dice.random_range(0..16) {
        0..4 => control_frame(Control::Ping(Nonce(nonce))),
        4 => control_frame(Control::Pong(Nonce(nonce))),
        5 => control_frame(Control::Alive),
        6 => framed(vec![dice.random_range(0x3e..0x82); dice.random_range(1..9)]),
        7 if dice.random_ratio(1, 2) => control_frame(Control::Fin),
        8 if dice.random_ratio(1, 2) => {
            let detail = pick(dice, &["", "back soon", "größer"]);
            let goodbye = Goodbye::new(GoodbyeCode(dice.random_range(0..130)), detail);
            let mut buffer = [0; Goodbye::MAX_ENCODED];
            framed(goodbye.encode(&mut buffer).expect("it fits").to_vec())
        }
        9 => hello(dice),
        10 if long => message(pick(dice, &[65_537, 131_072, 131_073, 200_000]), dice),
        _ => {
            let length = dice.random_range(0..=max_frame.min(40) + 1);
            framed([&[0], &vec![dice.random(); length as usize][..]].concat())
        }
    }
}

/// A message in parts, with frames in between.
fn message(length: usize, dice: &mut SmallRng) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut sent = 0;
    while sent < length {
        let part = pick(dice, &[1, 100, 65_535, 65_536, 65_536]).min(length - sent);
        let mut body = vec![7];
        if sent == 0 {
            body.extend(varint(length as u64, dice));
        }
        body.extend(vec![b'm'; part]);
        stream.extend(damaged(framed(body), dice));
        if dice.random_ratio(1, 3) {
            stream.extend(control_frame(Control::Ping(Nonce([3; 8]))));
        }
        sent += part;
    }
    stream
}

/// As a sender writes it, or longer than it need be.
fn varint(mut number: u64, dice: &mut SmallRng) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    if dice.random_ratio(1, 10) {
        let last = bytes.len() - 1;
        bytes[last] |= 0x80;
        bytes.extend([0x80; 2]);
        bytes.push(0);
    }
    bytes
}

/// Mostly as it is.
fn damaged(mut frame: Vec<u8>, dice: &mut SmallRng) -> Vec<u8> {
    if !dice.random_ratio(1, 25) || frame.is_empty() {
        return frame;
    }
    let at = dice.random_range(0..frame.len().min(40));
    match dice.random_range(0..5) {
        0 => frame[at] = dice.random(),
        1 => frame[at] ^= 1 << dice.random_range(0..8),
        2 => drop(frame.remove(at)),
        3 => frame.insert(at, dice.random()),
        // A length that is right.
        _ => {
            frame.drain(..4.min(frame.len()));
            frame.truncate(dice.random_range(0..=frame.len()));
            return framed(frame);
        }
    }
    frame
}

/// In one piece, in a few, or byte by byte.
fn cut(stream: &[u8], dice: &mut SmallRng) -> Vec<Vec<u8>> {
    let most = match dice.random_range(0..4) {
        0 => stream.len(),
        1 if stream.len() < 300 => 1,
        _ => stream.len() / 3 + 1,
    };
    let mut pieces = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() {
        let (piece, others) = rest.split_at(dice.random_range(1..=most.min(rest.len())));
        pieces.push(piece.to_vec());
        rest = others;
    }
    pieces
}
