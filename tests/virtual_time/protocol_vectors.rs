//! The test vectors of `docs/protocol.md`, read from the page itself: what it
//! tells the author of a peer in another language is what this code does.

use std::{fmt::Write as _, time::Duration};

use heartbeat_core::{Config, Control, Goodbye, GoodbyeCode, Hello, Nonce, ProtocolError, Tag};
use heartbeat_tests::{all_events, notable, quick, wrapped};
use heartbeat_tokio::{Cause, CloseReason, Detail, PeerEvent};
use tokio::io::AsyncWriteExt;

const PAGE: &str = include_str!("../../docs/protocol.md");

/// The streams, and the largest message that their receiver accepts.
const STREAMS: [(&str, u32); 2] = [("vectors-stream", 16), ("vectors-parts", 100_000)];

#[test]
fn what_a_sender_writes_is_what_the_page_says() {
    for vector in vectors("vectors") {
        assert_eq!(
            hex(&written(vector.meaning)),
            hex(&vector.bytes),
            "{}",
            vector.name
        );
    }
}

#[test]
fn what_a_receiver_understands_is_what_the_page_says() {
    for vector in [vectors("vectors"), vectors("vectors-read")].concat() {
        let understood = words(&vector.bytes);
        assert_eq!(understood, Ok(vector.meaning.to_owned()), "{}", vector.name);
    }
}

#[test]
fn what_only_a_receiver_understands_is_written_in_another_way() {
    for vector in vectors("vectors-read") {
        // No side writes a reserved frame.
        if vector.meaning != "reserved" {
            assert_ne!(
                hex(&written(vector.meaning)),
                hex(&vector.bytes),
                "{}",
                vector.name
            );
        }
    }
}

#[test]
fn what_is_refused_is_refused_with_the_error_that_the_page_names() {
    for vector in vectors("vectors-refused") {
        let error = Control::decode(&vector.bytes).expect_err(vector.name);
        assert_eq!(error_words(error), vector.meaning, "{}", vector.name);
    }
}

#[test]
fn streams_are_cut_into_frames_as_the_page_says() {
    for (streams, max_frame) in STREAMS {
        for vector in vectors(streams) {
            let seen = Receiver::new(&vector.bytes, max_frame).all().join("; ");
            assert_eq!(seen, vector.meaning, "{}", vector.name);
        }
    }
}

/// The same streams through a real `Heartbeat`, as far as it tells what it saw.
#[tokio::test(start_paused = true)]
async fn the_adapter_understands_streams_as_the_page_says() {
    for (streams, max_frame) in STREAMS {
        let max_frame = max_frame as usize;
        let config = quick().to_builder().max_frame(max_frame).build().unwrap();
        for vector in vectors(streams) {
            let (mut heartbeat, mut peer) = wrapped(config);
            peer.send_raw(&vector.bytes).await;
            peer.stream.shutdown().await.unwrap();
            let events = all_events(&mut heartbeat).await;
            let seen = notable(&events).into_iter().filter_map(told);
            let among = ["hello", "ping", "pong", "alive", "reserved", "part"];
            let frames = vector.meaning.split("; ");
            // It isn't leaving, and doesn't look at what comes behind a goodbye.
            let (mut left, mut finished) = (false, false);
            let expected = frames.filter(|frame| {
                let first = frame.split(' ').next().unwrap_or_default();
                let is_repeated = first == "fin" && std::mem::replace(&mut finished, true);
                let is_told = !(left || frame.is_empty() || among.contains(&first) || is_repeated);
                left |= first == "goodbye";
                is_told
            });
            assert!(seen.eq(expected), "{}: {events:?}", vector.name);
        }
    }
}

/// What an event says in the words of the page.
pub(crate) fn told(event: &PeerEvent<bytes::Bytes>) -> Option<String> {
    Some(match event {
        PeerEvent::Message(message) => data_words(message),
        PeerEvent::Finished => "fin".into(),
        PeerEvent::Closed { reason } => match reason {
            CloseReason::Peer { code, detail } => goodbye_words(*code, detail),
            other => other.to_string(),
        },
        PeerEvent::Dead(death) => match &death.cause {
            Cause::Protocol(error) => error_words(*error),
            Cause::Eof => return None,
            Cause::GivenUp { code, detail } => goodbye_words(*code, detail),
            Cause::Refused => "Refused".into(),
            cause => cause.to_string(),
        },
        event => event.to_string(),
    })
}

#[test]
fn each_error_that_the_page_lists_has_a_vector() {
    let section = PAGE.split("## What ends a connection").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let listed: Vec<&str> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    assert_eq!(listed.len(), 11);

    let streams = STREAMS.map(|(streams, _)| vectors(streams)).concat();
    let refused = [vectors("vectors-refused"), streams].concat();
    // A loop shows in what the receiver itself has sent, which no vector has.
    for error in listed.into_iter().filter(|&error| error != "Loop") {
        let shown = refused.iter().any(|vector| vector.meaning.contains(error));
        assert!(shown, "no vector shows {error}");
    }
}

// ---- a receiver, written from the page and nothing else -------------------

/// What gets frames out of the first bytes of a connection.
struct Receiver<'a> {
    bytes: &'a [u8],
    max_frame: u32,
    greeted: bool,
    /// It was told that no message follows.
    finished: bool,
    /// Of a message that comes in parts: what was announced, and what is there.
    message: Option<(u32, Vec<u8>)>,
}

impl<'a> Receiver<'a> {
    fn new(bytes: &'a [u8], max_frame: u32) -> Self {
        Self {
            bytes,
            max_frame,
            greeted: false,
            finished: false,
            message: None,
        }
    }

    fn all(mut self) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            match self.take_frame() {
                Ok(Some(frame)) => seen.push(frame),
                Ok(None) => return seen,
                Err(error) => {
                    seen.push(error_words(error));
                    return seen;
                }
            }
            self.greeted = true;
        }
    }

    /// The checks of "Frames on a byte stream", in their order.
    fn take_frame(&mut self) -> Result<Option<String>, ProtocolError> {
        let Some((length, rest)) = self.bytes.split_first_chunk() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length);
        let at_most = |max| match length {
            0 => Err(ProtocolError::EmptyFrame),
            length if length > max => Err(ProtocolError::FrameTooLong { length, max }),
            _ => Ok(()),
        };
        let longest_data = self.max_frame.min(65_536);
        at_most(match (self.greeted, self.max_frame > 65_536) {
            (false, _) => 256,
            (true, true) => 65_542,
            (true, false) => (longest_data + 1).max(256),
        })?;
        let Some((&tag, body)) = rest.split_first() else {
            return Ok(None);
        };
        if !self.greeted && tag != 1 {
            return Err(ProtocolError::HelloExpected { tag });
        }
        let tag = Tag::from_byte(tag)?;
        at_most(match tag {
            Tag::Data => longest_data + 1,
            Tag::Part if self.message.is_none() => 65_542,
            Tag::Part => 65_537,
            _ => 256,
        })?;
        if matches!(tag, Tag::Data | Tag::Part) && self.finished {
            return Err(ProtocolError::AfterFin);
        }
        if tag == Tag::Data && self.message.is_some() {
            return Err(ProtocolError::BrokenParts);
        }
        if tag == Tag::Part {
            return self.take_part(length, body);
        }
        let Some((frame, rest)) = rest.split_at_checked(length as usize) else {
            return Ok(None);
        };
        self.bytes = rest;
        self.finished |= matches!(tag, Tag::Fin | Tag::Goodbye);
        Ok(Some(match tag {
            Tag::Data => data_words(&frame[1..]),
            _ => words(frame)?,
        }))
    }

    /// Those of "Part".
    fn take_part(&mut self, length: u32, body: &[u8]) -> Result<Option<String>, ProtocolError> {
        let mut bytes = length - 1;
        let mut header = 5;
        if self.message.is_none() {
            let Some((announced, digits)) = varint(body, bytes)? else {
                return Ok(None);
            };
            let too_long = |length, max| Err(ProtocolError::FrameTooLong { length, max });
            bytes -= digits;
            header += digits as usize;
            if announced <= 65_536 {
                return Err(ProtocolError::BrokenParts);
            } else if announced > self.max_frame {
                return too_long(announced, self.max_frame);
            } else if bytes == 0 {
                return Err(ProtocolError::BrokenParts);
            } else if bytes > 65_536 {
                return too_long(length, 1 + digits + 65_536);
            }
            self.message = Some((announced, Vec::new()));
        }
        let (announced, mut message) = self.message.take().unwrap_or_default();
        if bytes == 0 || message.len() + bytes as usize > announced as usize {
            return Err(ProtocolError::BrokenParts);
        }
        let Some(part) = self.bytes.get(header..header + bytes as usize) else {
            return Ok(None);
        };
        self.bytes = &self.bytes[header + part.len()..];
        message.extend_from_slice(part);
        if message.len() == announced as usize {
            return Ok(Some(data_words(&message)));
        }
        self.message = Some((announced, message));
        Ok(Some("part".to_owned()))
    }
}

/// A number of 32 bits at the start of the bytes, and the number of bytes that it takes.
fn varint(body: &[u8], bytes: u32) -> Result<Option<(u32, u32)>, ProtocolError> {
    let malformed = ProtocolError::Malformed { tag: 7 };
    let mut number = 0_u64;
    for digit in 0..5 {
        if digit == bytes {
            return Err(malformed);
        }
        let Some(&byte) = body.get(digit as usize) else {
            return Ok(None);
        };
        number |= u64::from(byte & 0x7f) << (7 * digit);
        if byte < 0x80 {
            let number = u32::try_from(number).map_err(|_| malformed)?;
            return Ok(Some((number, digit + 1)));
        }
    }
    Err(malformed)
}

// ---- the page -------------------------------------------------------------

#[derive(Clone)]
struct Vector {
    name: &'static str,
    bytes: Vec<u8>,
    meaning: &'static str,
}

/// The lines of the one block that is fenced with this word.
fn vectors(fence: &str) -> Vec<Vector> {
    let (_, block) = PAGE.split_once(&format!("\n```{fence}\n")).expect(fence);
    let (block, _) = block.split_once("\n```").expect("the fence is closed");
    block.lines().map(parse).collect()
}

fn parse(line: &'static str) -> Vector {
    let columns: Vec<&str> = line.split('|').map(str::trim).collect();
    let &[name, hex, meaning] = columns.as_slice() else {
        panic!("three columns in: {line}");
    };
    let bytes = |word: &str| {
        let (digits, count) = word.split_once('*').unwrap_or((word, "1"));
        let byte = u8::from_str_radix(digits, 16).expect(line);
        vec![byte; count.parse().expect(line)]
    };
    Vector {
        name,
        bytes: hex.split_whitespace().flat_map(bytes).collect(),
        meaning,
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut words, byte| {
        let _ = write!(words, "{byte:02x}");
        words
    })
}

/// A message. A long one is told as runs of the same byte.
fn data_words(message: &[u8]) -> String {
    let digits = match message.len() {
        0..100 => hex(message),
        _ => {
            let runs = message.chunk_by(|one, other| one == other);
            let runs = runs.map(|run| match run.len() {
                1 => hex(&run[..1]),
                count => format!("{}*{count}", hex(&run[..1])),
            });
            runs.collect::<Vec<_>>().join(" ")
        }
    };
    format!("data {digits}").trim_end().to_owned()
}

/// The frame that the words of a vector describe, as a sender writes it.
fn written(meaning: &str) -> Vec<u8> {
    let mut words = meaning.split(' ');
    let frame = words.next().unwrap_or_default();
    let mut word = |name: &str| {
        let (key, value) = words.next()?.split_once('=').expect(name);
        assert_eq!(key, name, "in: {meaning}");
        Some(value)
    };
    let mut number = |name: &str| -> u64 {
        let radix = match name {
            "nonce" | "instance" => 16,
            _ => 10,
        };
        u64::from_str_radix(word(name).expect(name), radix).expect(name)
    };
    let control = match frame {
        "hello" => {
            // `Hello` may grow, so that only the crate itself can make one.
            let mut hello: Hello = Config::default().hello([0; 8]);
            hello.interval = Duration::from_micros(number("interval"));
            hello.detection_time = Duration::from_micros(number("detection"));
            hello.min_interval = Duration::from_micros(number("min"));
            hello.max_missed = number("missed").try_into().expect(meaning);
            hello.max_frame = number("frame").try_into().expect(meaning);
            hello.instance = number("instance").to_be_bytes();
            Control::Hello(hello)
        }
        "ping" => Control::Ping(Nonce(number("nonce").to_be_bytes())),
        "pong" => Control::Pong(Nonce(number("nonce").to_be_bytes())),
        "goodbye" => {
            let code = GoodbyeCode(number("code").try_into().expect(meaning));
            let detail = word("detail").unwrap_or_default();
            let digits = detail.as_bytes().chunks(2);
            let byte = |digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
            let detail: Vec<u8> = digits.map(|digits| byte(digits).expect(meaning)).collect();
            let detail = String::from_utf8(detail).expect(meaning);
            let mut buffer = [0; Goodbye::MAX_ENCODED];
            let goodbye = Goodbye::new(code, &detail);
            return goodbye.encode(&mut buffer).expect(meaning).to_vec();
        }
        "alive" => Control::Alive,
        "fin" => Control::Fin,
        other => panic!("no frame is called {other}"),
    };
    let mut buffer = [0; Control::MAX_ENCODED];
    control.encode(&mut buffer).expect(meaning).to_vec()
}

/// The words of a vector that describe what this frame is understood as.
fn words(frame: &[u8]) -> Result<String, ProtocolError> {
    Ok(match Control::decode(frame)? {
        Control::Hello(hello) => format!(
            "hello interval={} detection={} min={} missed={} frame={} instance={}",
            hello.interval.as_micros(),
            hello.detection_time.as_micros(),
            hello.min_interval.as_micros(),
            hello.max_missed,
            hello.max_frame,
            hex(&hello.instance),
        ),
        Control::Ping(nonce) => format!("ping nonce={}", hex(&nonce.0)),
        Control::Pong(nonce) => format!("pong nonce={}", hex(&nonce.0)),
        Control::Goodbye(code) => {
            goodbye_words(code, &Detail::from(Goodbye::decode(frame)?.detail))
        }
        Control::Alive => "alive".to_owned(),
        Control::Fin => "fin".to_owned(),
        Control::Reserved => "reserved".to_owned(),
        other => panic!("the page doesn't know {other:?}"),
    })
}

fn goodbye_words(GoodbyeCode(code): GoodbyeCode, detail: &Detail) -> String {
    match detail.is_empty() {
        true => format!("goodbye code={code}"),
        false => format!("goodbye code={code} detail={}", hex(detail.as_bytes())),
    }
}

/// The words of a vector that describe this error.
fn error_words(error: ProtocolError) -> String {
    match error {
        ProtocolError::UnknownTag { tag } => format!("UnknownTag tag={tag:#04x}"),
        ProtocolError::Malformed { tag } => format!("Malformed tag={tag:#04x}"),
        ProtocolError::HelloExpected { tag } => format!("HelloExpected tag={tag:#04x}"),
        ProtocolError::WrongVersion { version } => format!("WrongVersion version={version}"),
        ProtocolError::FrameTooLong { length, max } => {
            format!("FrameTooLong length={length} max={max}")
        }
        plain => format!("{plain:?}"),
    }
}
