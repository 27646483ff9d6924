//! The bytes of the control frames: what is written is read again, and
//! whatever else arrives is refused by name and never believed.
//!
//! Single frames with their bytes stand in `docs/protocol.md`; here are the
//! properties that hold for all of them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what a test needs, it needs"
)]

use core::time::Duration;

use crate::common::{YEAR, YEAR_MICROS, us};
use heartbeat_core::{BufferTooShort, Config, Control, Hello, Nonce, ProtocolError, Tag};
use proptest::prelude::*;

// ---- what is written is read again ----------------------------------------

proptest! {
    #[test]
    fn every_frame_survives_the_wire(control in controls()) {
        prop_assert_eq!(Control::decode(&encoded(control)), Ok(control));
    }

    #[test]
    fn every_frame_begins_with_its_tag(control in controls()) {
        prop_assert_eq!(encoded(control)[0], control.tag().to_byte());
    }

    #[test]
    fn the_longest_buffer_that_is_ever_needed_is_known(hello in any_hello()) {
        // Also for times that nobody would accept.
        prop_assert!(encoded(Control::Hello(hello)).len() <= Control::MAX_ENCODED);
    }

    #[test]
    fn a_buffer_that_is_one_byte_too_short_is_an_error_and_no_panic(control in controls()) {
        let length = encoded(control).len();
        let mut exact = vec![0; length];
        prop_assert_eq!(control.encode(&mut exact).unwrap().len(), length);
        for short in 0..length {
            let error: Result<_, BufferTooShort> = control.encode(&mut exact[..short]);
            prop_assert!(error.is_err(), "{} bytes", short);
        }
    }
}

#[test]
fn times_beyond_all_bounds_are_written_as_the_largest_there_is() {
    let longest = Control::Hello(hello(Duration::MAX, Duration::MAX, Duration::MAX, u32::MAX));
    assert_eq!(encoded(longest).len(), 41);
    assert_eq!(
        Control::decode(&encoded(longest)),
        Err(ProtocolError::ImpossibleHello)
    );
}

#[test]
fn a_later_version_has_room_for_more_than_we_write() {
    const { assert!(Control::MAX_ACCEPTED > 2 * Control::MAX_ENCODED) }
}

// ---- a stranger's bytes ---------------------------------------------------

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in strange_bytes()) {
        let _ = Control::decode(&bytes);
    }

    #[test]
    fn what_is_understood_is_understood_for_good(bytes in strange_bytes()) {
        if let Ok(control) = Control::decode(&bytes) {
            let again = encoded(control);
            prop_assert_eq!(Control::decode(&again), Ok(control));
            // Never more than what came: nothing of the peer's is blown up.
            prop_assert!(again.len() <= bytes.len());
        }
    }

    #[test]
    fn a_frame_that_was_cut_is_never_taken_for_a_whole_one(control in controls()) {
        let whole = encoded(control);
        prop_assert_eq!(Control::decode(&[]), Err(ProtocolError::EmptyFrame));
        for cut in 1..whole.len() {
            let malformed = ProtocolError::Malformed { tag: whole[0] };
            prop_assert_eq!(Control::decode(&whole[..cut]), Err(malformed), "{} bytes", cut);
        }
    }

    #[test]
    fn bytes_behind_a_frame_are_refused_and_behind_a_hello_ignored(
        control in controls(),
        tail in prop::collection::vec(any::<u8>(), 1..300),
    ) {
        let mut bytes = encoded(control);
        let tag = bytes[0];
        bytes.extend(tail);
        let expected = match control {
            Control::Hello(_) => Ok(control),
            _ => Err(ProtocolError::Malformed { tag }),
        };
        prop_assert_eq!(Control::decode(&bytes), expected);
    }

    #[test]
    fn any_other_tag_is_unknown(tag in 5_u8.., body in prop::collection::vec(any::<u8>(), 0..20)) {
        let frame = [&[tag], body.as_slice()].concat();
        prop_assert_eq!(Control::decode(&frame), Err(ProtocolError::UnknownTag { tag }));
    }

    #[test]
    fn any_other_magic_is_wrong(hello in possible_hello(), magic: [u8; 4]) {
        prop_assume!(magic != Hello::MAGIC);
        let mut frame = encoded(Control::Hello(hello));
        frame[1..5].copy_from_slice(&magic);
        prop_assert_eq!(Control::decode(&frame), Err(ProtocolError::WrongMagic));
    }

    #[test]
    fn a_hello_is_believed_exactly_if_it_is_possible(hello in any_hello()) {
        let sent = Control::Hello(hello);
        let expected = if is_possible(hello) { Ok(sent) } else { Err(ProtocolError::ImpossibleHello) };
        prop_assert_eq!(Control::decode(&encoded(sent)), expected);
    }
}

/// Random times hardly ever lie beside each other.
#[test]
fn the_bounds_of_the_times_in_a_hello_are_exact() {
    let possible = [
        hello(us(1), us(2), us(1), 1),
        hello(us(7), us(8), us(1), 255),
        hello(YEAR, YEAR * 2, YEAR, 1),
        hello(us(1), YEAR * 256, YEAR, 255),
    ];
    let impossible = [
        hello(us(0), us(1), us(1), 1),
        hello(us(7), us(7), us(1), 1),
        hello(us(7), us(6), us(1), 1),
        hello(YEAR + us(1), YEAR * 2, us(1), 1),
        hello(YEAR, YEAR * 2 + us(1), us(1), 1),
        hello(us(7), us(8), us(0), 1),
        hello(us(7), us(8), YEAR + us(1), 1),
        hello(us(7), us(8), us(1), 0),
        hello(us(7), us(8), us(1), 256),
    ];
    for hello in possible.map(Control::Hello) {
        assert_eq!(Control::decode(&encoded(hello)), Ok(hello));
    }
    for hello in impossible.map(Control::Hello) {
        let refused = Err(ProtocolError::ImpossibleHello);
        assert_eq!(Control::decode(&encoded(hello)), refused, "{hello:?}");
    }
}

#[test]
fn every_magic_that_differs_in_one_bit_is_wrong() {
    let frame = encoded(Control::Hello(Config::default().hello()));
    for bit in 0..32 {
        let mut frame = frame.clone();
        frame[1 + bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Control::decode(&frame), Err(ProtocolError::WrongMagic));
    }
}

#[test]
fn every_other_version_is_wrong() {
    let mut frame = encoded(Control::Hello(Config::default().hello()));
    for version in (0..=u8::MAX).filter(|&version| version != Hello::VERSION) {
        frame[5] = version;
        let error = ProtocolError::WrongVersion { version };
        assert_eq!(Control::decode(&frame), Err(error));
    }
}

#[test]
fn a_data_frame_is_no_control_frame() {
    assert_eq!(Tag::from_byte(0), Ok(Tag::Data));
    let error = ProtocolError::UnknownTag { tag: 0 };
    assert_eq!(Control::decode(b"\0hello"), Err(error));
}

#[test]
fn tags_and_bytes_are_one_to_one() {
    for byte in 0..=u8::MAX {
        match Tag::from_byte(byte) {
            Ok(tag) => assert_eq!(tag.to_byte(), byte),
            Err(error) => assert_eq!(error, ProtocolError::UnknownTag { tag: byte }),
        }
    }
    assert_eq!((0..=u8::MAX).flat_map(Tag::from_byte).count(), 5);
}

#[test]
fn each_error_says_what_was_found() {
    for (frame, message) in [
        (&b""[..], "a frame of no bytes"),
        (b"G", "unknown frame tag 0x47"),
        (b"\x02", "the body of a frame with tag 0x02 is malformed"),
        (b"\x01HTTP/", "the hello's magic is wrong"),
        (b"\x01HBT\0\x07", "the peer speaks version 7, we speak 1"),
        (
            b"\x01HBT\0\x01\x00\x00\x00\x00",
            "the hello announces impossible times",
        ),
    ] {
        let error = Control::decode(frame).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

// ---- frames ---------------------------------------------------------------

fn encoded(control: Control) -> Vec<u8> {
    let mut buffer = [0; Control::MAX_ENCODED];
    control.encode(&mut buffer).unwrap().to_vec()
}

/// What `docs/protocol.md` allows, in its own words.
fn is_possible(hello: Hello) -> bool {
    let detection_time = hello.detection_time.as_micros();
    let interval = hello.interval.as_micros();
    let year = YEAR.as_micros();
    (1..=year).contains(&interval)
        && (1..=year).contains(&hello.min_interval.as_micros())
        && (1..=255).contains(&hello.max_missed)
        && detection_time > interval
        && detection_time <= year * (u128::from(hello.max_missed) + 1)
}

fn hello(interval: Duration, detection: Duration, min: Duration, missed: u32) -> Hello {
    // `Hello` may grow, so that only the crate itself can make one.
    let mut hello = Config::default().hello();
    hello.interval = interval;
    hello.detection_time = detection;
    hello.min_interval = min;
    hello.max_missed = missed;
    hello
}

fn controls() -> impl Strategy<Value = Control> {
    prop_oneof![
        possible_hello().prop_map(Control::Hello),
        any::<[u8; 8]>().prop_map(|nonce| Control::Ping(Nonce(nonce))),
        any::<[u8; 8]>().prop_map(|nonce| Control::Pong(Nonce(nonce))),
        Just(Control::Goodbye),
    ]
}

/// Over the whole range of every field.
fn possible_hello() -> impl Strategy<Value = Hello> {
    let times = (numbers(YEAR_MICROS), numbers(YEAR_MICROS), 1..=255_u32);
    times.prop_flat_map(|(interval, min, missed)| {
        let longest = YEAR_MICROS * u64::from(missed + 1);
        let detection = prop_oneof![interval + 1..=longest, Just(interval + 1), Just(longest)];
        detection.prop_map(move |detection| hello(us(interval), us(detection), us(min), missed))
    })
}

/// Whatever fits into the types: often what lies around a bound, and often
/// with one field out of its range only.
fn any_hello() -> impl Strategy<Value = Hello> {
    let time = || {
        prop_oneof![
            numbers(u64::MAX),
            0..3_u64,
            Just(u64::MAX),
            YEAR_MICROS - 1..=YEAR_MICROS + 1,
            (2..=256_u64).prop_map(|years| YEAR_MICROS * years + 1),
        ]
    };
    let missed = prop_oneof![any::<u32>(), 0..=257_u32, Just(u32::MAX)];
    let wild = (time(), time(), time(), missed).prop_map(|(interval, detection, min, missed)| {
        hello(us(interval), us(detection), us(min), missed)
    });
    (possible_hello(), wild, 0..6).prop_map(|(mut hello, wild, which)| {
        match which {
            0 => hello.interval = wild.interval,
            1 => hello.detection_time = wild.detection_time,
            2 => hello.min_interval = wild.min_interval,
            3 => hello.max_missed = wild.max_missed,
            4 => return wild,
            _ => {}
        }
        hello
    })
}

/// From 1 to `largest`, uniform in the number of bits, so that varints of
/// every length come up.
fn numbers(largest: u64) -> impl Strategy<Value = u64> {
    (0..64_u32, any::<u64>())
        .prop_map(move |(bits, random)| ((1 << bits) | (random & ((1 << bits) - 1))).min(largest))
}

/// Anything, and often what begins like one of ours.
fn strange_bytes() -> impl Strategy<Value = Vec<u8>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..64);
    let varints = prop::collection::vec(numbers(u64::MAX), 0..6);
    prop_oneof![
        bytes(),
        (0..6_u8, bytes()).prop_map(|(tag, body)| [vec![tag], body].concat()),
        bytes().prop_map(|rest| [b"\x01HBT\0\x01".to_vec(), rest].concat()),
        varints.prop_map(|numbers| {
            let mut frame = [&[1], &Hello::MAGIC[..], &[Hello::VERSION]].concat();
            for mut number in numbers {
                while number > 0x7f {
                    frame.push(number.to_le_bytes()[0] | 0x80);
                    number >>= 7;
                }
                frame.push(number.to_le_bytes()[0]);
            }
            frame
        }),
        (controls(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(control, at, byte)| {
            let mut frame = encoded(control);
            let at = at.index(frame.len());
            frame[at] = byte;
            frame
        }),
    ]
}
