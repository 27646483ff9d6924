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

use crate::common::{INSTANCE, YEAR, YEAR_MICROS, us};
use heartbeat_core::{
    BufferTooShort, Config, Control, Goodbye, GoodbyeCode, Hello, Nonce, ProtocolError, Tag,
};
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
        // Also for times that no side would accept.
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
    let mut longest = hello(Duration::MAX, Duration::MAX, Duration::MAX, u32::MAX);
    longest.max_frame = u32::MAX;
    let longest = Control::Hello(longest);
    assert_eq!(encoded(longest).len(), 54);
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
        if let Ok(goodbye) = Goodbye::decode(&bytes) {
            let mut buffer = [0; Goodbye::MAX_ENCODED];
            let again = goodbye.encode(&mut buffer).unwrap();
            prop_assert_eq!(Goodbye::decode(again), Ok(goodbye));
            prop_assert!(again.len() <= bytes.len());
            prop_assert_eq!(Control::decode(&bytes), Ok(Control::Goodbye(goodbye.code)));
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
    fn bytes_behind_a_frame_are_refused_and_in_one_of_a_later_revision_ignored(
        control in controls(),
        tail in prop::collection::vec(any::<u8>(), 1..300),
    ) {
        let mut bytes = encoded(control);
        let tag = bytes[0];
        bytes.extend(tail);
        let expected = match control {
            Control::Hello(_) | Control::Reserved => Ok(control),
            _ => Err(ProtocolError::Malformed { tag }),
        };
        prop_assert_eq!(Control::decode(&bytes), expected);
    }

    #[test]
    fn any_other_tag_is_unknown(
        tag in prop_oneof![8..0x40_u8, 0x80_u8..],
        body in prop::collection::vec(any::<u8>(), 0..20),
    ) {
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
fn the_bounds_of_the_numbers_in_a_hello_are_exact() {
    let possible = [
        hello(us(1), us(2), us(1), 1),
        hello(us(7), us(8), us(1), 255),
        hello(YEAR, YEAR * 2, YEAR, 1),
        hello(us(1), YEAR * 256, YEAR, 255),
        accepts(1),
        accepts(u32::MAX - 1),
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
        accepts(0),
        accepts(u32::MAX),
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
    let frame = encoded(Control::Hello(Config::default().hello(INSTANCE)));
    for bit in 0..32 {
        let mut frame = frame.clone();
        frame[1 + bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Control::decode(&frame), Err(ProtocolError::WrongMagic));
    }
}

#[test]
fn every_other_version_is_wrong() {
    let mut frame = encoded(Control::Hello(Config::default().hello(INSTANCE)));
    for version in (0..=u8::MAX).filter(|&version| version != Hello::VERSION) {
        frame[5] = version;
        let error = ProtocolError::WrongVersion { version };
        assert_eq!(Control::decode(&frame), Err(error));
    }
}

#[test]
fn what_carries_messages_is_no_control_frame() {
    for (tag, expected) in [(0, Tag::Data), (7, Tag::Part)] {
        assert_eq!(Tag::from_byte(tag), Ok(expected));
        let error = ProtocolError::UnknownTag { tag };
        assert_eq!(Control::decode(&[tag, b'a']), Err(error));
        assert_eq!(Control::decode(&[tag]), Err(error));
    }
}

#[test]
fn alive_and_fin_have_no_body() {
    for (tag, control) in [(5, Control::Alive), (6, Control::Fin)] {
        assert_eq!(encoded(control), [tag]);
        assert_eq!(Control::decode(&[tag]), Ok(control));
        let error = ProtocolError::Malformed { tag };
        assert_eq!(Control::decode(&[tag, 0]), Err(error));
    }
}

#[test]
fn a_frame_of_a_later_revision_is_read_and_means_nothing() {
    for tag in [0x40, 0x55, 0x7f] {
        let mut frame = vec![tag; Control::MAX_ACCEPTED];
        assert_eq!(Control::decode(&frame), Ok(Control::Reserved));
        frame.truncate(1);
        assert_eq!(Control::decode(&frame), Ok(Control::Reserved));
    }
    for tag in [0x08, 0x3f, 0x80, 0xff] {
        let error = ProtocolError::UnknownTag { tag };
        assert_eq!(Control::decode(&[tag]), Err(error));
    }
}

// ---- a goodbye's detail ----------------------------------------------------

fn goodbye(code: u8, detail: &[u8]) -> Vec<u8> {
    let length = u8::try_from(detail.len()).unwrap();
    let mut frame = vec![4, code];
    // A varint.
    if length > 0x7f {
        frame.extend([length & 0x7f | 0x80, 1]);
    } else {
        frame.push(length);
    }
    frame.extend(detail);
    frame
}

#[test]
fn a_detail_has_at_most_123_bytes() {
    let detail = "d".repeat(124);
    for (length, fits) in [(0, true), (1, true), (123, true), (124, false)] {
        let detail = &detail[..length];
        let frame = goodbye(64, detail.as_bytes());
        let code = GoodbyeCode(64);
        let refused = ProtocolError::Malformed { tag: 4 };
        let read = Goodbye::decode(&frame);
        assert_eq!(
            read,
            if fits {
                Ok(Goodbye::new(code, detail))
            } else {
                Err(refused)
            }
        );
        let control = Control::decode(&frame);
        assert_eq!(
            control,
            if fits {
                Ok(Control::Goodbye(code))
            } else {
                Err(refused)
            }
        );
        if fits {
            let mut buffer = [0; Goodbye::MAX_ENCODED];
            assert_eq!(
                Goodbye::new(code, detail).encode(&mut buffer),
                Ok(&frame[..])
            );
            assert!(
                Goodbye::new(code, detail)
                    .encode(&mut buffer[..frame.len() - 1])
                    .is_err()
            );
        }
    }
}

#[test]
fn the_longest_goodbye_fills_the_buffer_that_is_announced() {
    let longest = goodbye(64, &[b'd'; Goodbye::MAX_DETAIL]);
    assert_eq!(longest.len(), Goodbye::MAX_ENCODED);
}

#[test]
fn of_a_detail_that_is_too_long_whole_characters_are_kept() {
    let ended = "x".repeat(122) + "\u{e9}";
    assert_eq!(
        Goodbye::new(GoodbyeCode::LEAVING, &ended).detail,
        &ended[..122]
    );
    let exact = "x".repeat(121) + "\u{e9}";
    assert_eq!(Goodbye::new(GoodbyeCode::LEAVING, &exact).detail, exact);
}

#[test]
fn what_is_no_goodbye_is_refused() {
    let wrong: [&[u8]; 8] = [
        b"",
        b"\x04",
        b"\x04\0",
        // No UTF-8; cut; something behind it; a length without end.
        b"\x04\0\x01\xff",
        b"\x04\0\x02a",
        b"\x04\0\x01ab",
        b"\x04\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        // Another frame.
        b"\x05\0\0",
    ];
    for frame in wrong {
        let refused = ProtocolError::Malformed { tag: 4 };
        assert_eq!(Goodbye::decode(frame), Err(refused), "{frame:?}");
        if frame.first() == Some(&4) {
            assert_eq!(Control::decode(frame), Err(refused), "{frame:?}");
        }
    }
}

#[test]
fn every_code_is_read_as_it_is() {
    for code in 0..=u8::MAX {
        let control = Control::Goodbye(GoodbyeCode(code));
        assert_eq!(encoded(control), [4, code, 0]);
        assert_eq!(Control::decode(&[4, code, 0]), Ok(control));
    }
}

#[test]
fn tags_and_bytes_are_one_to_one() {
    for byte in 0..=u8::MAX {
        match Tag::from_byte(byte) {
            Ok(tag) => assert_eq!(tag.to_byte(), byte),
            Err(error) => assert_eq!(error, ProtocolError::UnknownTag { tag: byte }),
        }
    }
    assert_eq!((0..=u8::MAX).flat_map(Tag::from_byte).count(), 8 + 64);
}

#[test]
fn each_error_says_what_was_found() {
    for (frame, message) in [
        (&b""[..], "a frame of no bytes"),
        (b"\x90", "unknown frame tag 0x90"),
        (b"\x02", "the body of a frame with tag 0x02 is malformed"),
        (b"\x01HTTP/", "the hello's magic is wrong"),
        (b"\x01HBT\0\x07", "the peer speaks version 7, we speak 1"),
        (
            b"\x01HBT\0\x01\x00\x00\x00\x00\x00instance",
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
        && (1..u32::MAX).contains(&hello.max_frame)
        && detection_time > interval
        && detection_time <= year * (u128::from(hello.max_missed) + 1)
}

fn hello(interval: Duration, detection: Duration, min: Duration, missed: u32) -> Hello {
    // `Hello` may grow, so that only the crate itself can make one.
    let mut hello = Config::default().hello(INSTANCE);
    hello.interval = interval;
    hello.detection_time = detection;
    hello.min_interval = min;
    hello.max_missed = missed;
    hello
}

/// A Hello that announces this `max_frame`.
fn accepts(max_frame: u32) -> Hello {
    let mut hello = hello(us(7), us(8), us(1), 1);
    hello.max_frame = max_frame;
    hello
}

fn controls() -> impl Strategy<Value = Control> {
    prop_oneof![
        possible_hello().prop_map(Control::Hello),
        any::<[u8; 8]>().prop_map(|nonce| Control::Ping(Nonce(nonce))),
        any::<[u8; 8]>().prop_map(|nonce| Control::Pong(Nonce(nonce))),
        any::<u8>().prop_map(|code| Control::Goodbye(GoodbyeCode(code))),
        Just(Control::Alive),
        Just(Control::Fin),
        Just(Control::Reserved),
    ]
}

/// Over the whole range of every field.
fn possible_hello() -> impl Strategy<Value = Hello> {
    let times = (numbers(YEAR_MICROS), numbers(YEAR_MICROS), 1..=255_u32);
    times.prop_flat_map(|(interval, min, missed)| {
        let longest = YEAR_MICROS * u64::from(missed + 1);
        let detection = prop_oneof![interval + 1..=longest, Just(interval + 1), Just(longest)];
        (detection, 1..u32::MAX, any::<[u8; 8]>()).prop_map(move |(detection, frame, instance)| {
            let mut hello = hello(us(interval), us(detection), us(min), missed);
            hello.max_frame = frame;
            hello.instance = instance;
            hello
        })
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
    let frame = prop_oneof![any::<u32>(), Just(0), Just(u32::MAX)];
    let wild = (time(), time(), time(), missed, frame).prop_map(
        |(interval, detection, min, missed, frame)| {
            let mut hello = hello(us(interval), us(detection), us(min), missed);
            hello.max_frame = frame;
            hello
        },
    );
    (possible_hello(), wild, 0..7).prop_map(|(mut hello, wild, which)| {
        match which {
            0 => hello.interval = wild.interval,
            1 => hello.detection_time = wild.detection_time,
            2 => hello.min_interval = wild.min_interval,
            3 => hello.max_missed = wild.max_missed,
            4 => hello.max_frame = wild.max_frame,
            5 => return wild,
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
    let varints = prop::collection::vec(numbers(u64::MAX), 0..8);
    let text = prop::collection::vec(any::<u8>(), 0..130);
    prop_oneof![
        bytes(),
        (prop_oneof![0..9_u8, 0x3e..0x42_u8, 0x7e..0x82_u8], bytes()).prop_map(|(tag, body)| [
            vec![tag],
            body
        ]
        .concat()),
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
        (any::<u8>(), text).prop_map(|(code, detail)| goodbye(code, &detail)),
        (controls(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(control, at, byte)| {
            let mut frame = encoded(control);
            let at = at.index(frame.len());
            frame[at] = byte;
            frame
        }),
    ]
}
