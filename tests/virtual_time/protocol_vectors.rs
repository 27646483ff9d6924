//! The test vectors of `docs/protocol.md`, read from the page itself: what it
//! tells the author of a peer in another language is what this code does.

use std::{fmt::Write as _, time::Duration};

use heartbeat_core::{Config, Control, GoodbyeCode, Hello, Nonce, ProtocolError, Tag};
use heartbeat_tests::{all_events, notable, quick, wrapped};
use heartbeat_tokio::{Cause, PeerEvent};
use tokio::io::AsyncWriteExt;

const PAGE: &str = include_str!("../../docs/protocol.md");

#[test]
fn what_a_sender_writes_is_what_the_page_says() {
    for vector in vectors("vectors") {
        let mut buffer = [0; Control::MAX_ENCODED];
        let written = control(vector.meaning).encode(&mut buffer).unwrap();
        assert_eq!(hex(written), hex(&vector.bytes), "{}", vector.name);
    }
}

#[test]
fn what_a_receiver_understands_is_what_the_page_says() {
    for vector in [vectors("vectors"), vectors("vectors-read")].concat() {
        let understood = Control::decode(&vector.bytes);
        assert_eq!(understood, Ok(control(vector.meaning)), "{}", vector.name);
    }
}

#[test]
fn what_only_a_receiver_understands_is_written_in_another_way() {
    for vector in vectors("vectors-read") {
        let mut buffer = [0; Control::MAX_ENCODED];
        let written = control(vector.meaning).encode(&mut buffer).unwrap();
        assert_ne!(hex(written), hex(&vector.bytes), "{}", vector.name);
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
    for vector in vectors("vectors-stream") {
        let seen = read_stream(&vector.bytes, 16).join("; ");
        assert_eq!(seen, vector.meaning, "{}", vector.name);
    }
}

/// The same streams through a real `Heartbeat`, as far as it tells what it saw.
#[tokio::test(start_paused = true)]
async fn the_adapter_understands_streams_as_the_page_says() {
    let config = quick().to_builder().max_frame(16).build().unwrap();
    for vector in vectors("vectors-stream") {
        let (mut heartbeat, mut peer) = wrapped(config);
        peer.send_raw(&vector.bytes).await;
        peer.stream.shutdown().await.unwrap();
        let events = all_events(&mut heartbeat).await;
        let seen = notable(&events)
            .into_iter()
            .filter_map(|event| match event {
                PeerEvent::Message(message) => {
                    Some(format!("data {}", hex(message).replace(' ', "")))
                }
                PeerEvent::Closed { .. } => Some("goodbye".into()),
                PeerEvent::Dead(death) => match death.cause.clone() {
                    Cause::Protocol(error) => Some(error_words(error)),
                    Cause::Eof => None,
                    cause => Some(cause.to_string()),
                },
                event => Some(event.to_string()),
            });
        let told = ["hello", "ping", "pong"];
        let frames = vector.meaning.split("; ").filter(|frame| !frame.is_empty());
        let expected =
            frames.filter(|frame| !told.iter().any(|control| frame.starts_with(control)));
        let seen = seen.map(|frame| frame.trim_end().to_owned());
        assert!(seen.eq(expected), "{}: {events:?}", vector.name);
    }
}

#[test]
fn each_error_that_the_page_lists_has_a_vector() {
    let section = PAGE.split("## What ends a connection").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let listed: Vec<&str> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    assert_eq!(listed.len(), 8);

    let refused = [vectors("vectors-refused"), vectors("vectors-stream")].concat();
    for error in listed {
        let shown = refused.iter().any(|vector| vector.meaning.contains(error));
        assert!(shown, "no vector shows {error}");
    }
}

// ---- a receiver, written from the page and nothing else -------------------

/// What a receiver gets out of the first bytes of a connection.
fn read_stream(mut bytes: &[u8], max_frame: u32) -> Vec<String> {
    let mut seen = Vec::new();
    let mut greeted = false;
    loop {
        match take_frame(&mut bytes, greeted, max_frame) {
            Ok(Some(frame)) => seen.push(frame),
            Ok(None) => return seen,
            Err(error) => {
                seen.push(error_words(error));
                return seen;
            }
        }
        greeted = true;
    }
}

/// The six checks of "Frames on a byte stream", in their order.
fn take_frame(
    bytes: &mut &[u8],
    greeted: bool,
    max_frame: u32,
) -> Result<Option<String>, ProtocolError> {
    let (max_control, max_data) = (256, max_frame + 1);
    let Some((length, rest)) = bytes.split_first_chunk() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length);
    let at_most = |max| match length {
        0 => Err(ProtocolError::EmptyFrame),
        length if length > max => Err(ProtocolError::FrameTooLong { length, max }),
        _ => Ok(()),
    };

    at_most(if greeted {
        max_control.max(max_data)
    } else {
        max_control
    })?;
    let Some(&tag) = rest.first() else {
        return Ok(None);
    };
    if !greeted && tag != 1 {
        return Err(ProtocolError::HelloExpected { tag });
    }
    let tag = Tag::from_byte(tag)?;
    at_most(if tag == Tag::Data {
        max_data
    } else {
        max_control
    })?;

    let Some((frame, rest)) = rest.split_at_checked(length as usize) else {
        return Ok(None);
    };
    *bytes = rest;
    let words = match tag {
        Tag::Data => format!("data {}", hex(&frame[1..]).replace(' ', "")),
        _ => words(Control::decode(frame)?),
    };
    Ok(Some(words.trim_end().to_owned()))
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
    let byte = |digits| u8::from_str_radix(digits, 16).expect(line);
    Vector {
        name,
        bytes: hex.split_whitespace().map(byte).collect(),
        meaning,
    }
}

fn hex(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.join(" ")
}

/// The frame that the words of a vector describe.
fn control(meaning: &str) -> Control {
    let mut words = meaning.split(' ');
    let frame = words.next().unwrap_or_default();
    let mut number = |name: &str| -> u64 {
        let (key, value) = words.next().expect(name).split_once('=').expect(name);
        assert_eq!(key, name, "in: {meaning}");
        let radix = if name == "nonce" { 16 } else { 10 };
        u64::from_str_radix(value, radix).expect(name)
    };
    match frame {
        "hello" => {
            // `Hello` may grow, so that only the crate itself can make one.
            let mut hello: Hello = Config::default().hello([7; 8]);
            hello.interval = Duration::from_micros(number("interval"));
            hello.detection_time = Duration::from_micros(number("detection"));
            hello.min_interval = Duration::from_micros(number("min"));
            hello.max_missed = number("missed").try_into().expect(meaning);
            Control::Hello(hello)
        }
        "ping" => Control::Ping(Nonce(number("nonce").to_be_bytes())),
        "pong" => Control::Pong(Nonce(number("nonce").to_be_bytes())),
        "goodbye" => Control::Goodbye(GoodbyeCode::LEAVING),
        other => panic!("no frame is called {other}"),
    }
}

/// The words of a vector that describe this frame.
fn words(control: Control) -> String {
    match control {
        Control::Hello(hello) => format!(
            "hello interval={} detection={} min={} missed={}",
            hello.interval.as_micros(),
            hello.detection_time.as_micros(),
            hello.min_interval.as_micros(),
            hello.max_missed
        ),
        Control::Ping(nonce) => format!("ping nonce={}", nonce_words(nonce)),
        Control::Pong(nonce) => format!("pong nonce={}", nonce_words(nonce)),
        Control::Goodbye(GoodbyeCode::LEAVING) => "goodbye".to_owned(),
        other => panic!("the page doesn't know {other:?}"),
    }
}

fn nonce_words(nonce: Nonce) -> String {
    nonce.0.iter().fold(String::new(), |mut words, byte| {
        let _ = write!(words, "{byte:02x}");
        words
    })
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
