//! What a peer can send that isn't this protocol: one `Dead` that says what
//! was wrong, after every frame that was in order. In virtual time.

use heartbeat_core::{Control, Nonce};
use heartbeat_tests::{all_events, data_frame, framed, notable, quick, secs, wrapped};
use heartbeat_tokio::{Cause, Config, PeerEvent, ProtocolError};
use tokio::io::AsyncWriteExt;

/// Sends a greeting, one message and then `bytes`; expects the message, and
/// then the cause.
async fn after_one_message(config: Config, bytes: &[u8]) -> Cause {
    let (mut heartbeat, mut peer) = wrapped(config);
    peer.greet(config).await;
    peer.send_data(b"in order").await;
    peer.send_raw(bytes).await;
    peer.stream.shutdown().await.unwrap();
    let events = tokio::time::timeout(secs(60), all_events(&mut heartbeat)).await;
    let events = events.expect("it ends");
    match *notable(&events) {
        [PeerEvent::Message(message), PeerEvent::Dead(death)] => {
            assert_eq!(message, "in order");
            assert!(!death.to_string().is_empty());
            death.cause.clone()
        }
        ref events => panic!("{events:?}"),
    }
}

/// Sends nothing but `bytes`.
async fn at_once(bytes: &[u8]) -> Cause {
    let (mut heartbeat, mut peer) = wrapped(quick());
    peer.send_raw(bytes).await;
    peer.stream.shutdown().await.unwrap();
    let events = tokio::time::timeout(secs(60), all_events(&mut heartbeat)).await;
    match events.expect("it ends").as_slice() {
        [PeerEvent::Dead(death)] => death.cause.clone(),
        events => panic!("{events:?}"),
    }
}

fn small() -> Config {
    quick().to_builder().max_frame(1000).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_frame_of_exactly_max_frame_is_accepted_and_one_byte_more_is_not() {
    let cause = after_one_message(small(), &data_frame(&[0; 1001])).await;
    let expected = ProtocolError::FrameTooLong {
        length: 1002,
        max: 1001,
    };
    assert_eq!(cause, Cause::Protocol(expected));

    let (mut heartbeat, mut peer) = wrapped(small());
    peer.greet(small()).await;
    peer.send_data(&[7; 1000]).await;
    drop(peer);
    let events = all_events(&mut heartbeat).await;
    assert_eq!(
        notable(&events)[0],
        &PeerEvent::Message(vec![7; 1000].into())
    );
}

/// The length alone is refused: we don't wait for four gigabytes.
#[tokio::test(start_paused = true)]
async fn a_length_beyond_all_bounds_is_refused_before_anything_is_reserved() {
    let cause = after_one_message(small(), &u32::MAX.to_be_bytes()).await;
    let expected = ProtocolError::FrameTooLong {
        length: u32::MAX,
        max: 1001,
    };
    assert_eq!(cause, Cause::Protocol(expected));
    assert_eq!(
        Cause::Protocol(expected).to_string(),
        "protocol violated: a frame of 4294967295 bytes, at most 1001 are accepted"
    );

    // A message of at most 64 KiB is never in parts.
    let config = quick().to_builder().max_frame(65_536).build().unwrap();
    let cause = after_one_message(config, &65_538_u32.to_be_bytes()).await;
    let expected = ProtocolError::FrameTooLong {
        length: 65_538,
        max: 65_537,
    };
    assert_eq!(cause, Cause::Protocol(expected));
}

#[tokio::test(start_paused = true)]
async fn a_control_frame_longer_than_any_is_refused() {
    let cause = after_one_message(quick(), &[0, 0, 1, 1, 2]).await;
    let expected = ProtocolError::FrameTooLong {
        length: 257,
        max: 256,
    };
    assert_eq!(cause, Cause::Protocol(expected));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_tag_is_refused() {
    let cause = after_one_message(small(), &framed(b"\x33???")).await;
    assert_eq!(
        cause,
        Cause::Protocol(ProtocolError::UnknownTag { tag: 0x33 })
    );
}

#[tokio::test(start_paused = true)]
async fn a_frame_of_no_bytes_is_refused() {
    let cause = after_one_message(small(), &[0; 4]).await;
    assert_eq!(cause, Cause::Protocol(ProtocolError::EmptyFrame));
}

#[tokio::test(start_paused = true)]
async fn a_truncated_control_body_is_refused() {
    for frame in [
        &b"\x02short"[..],
        b"\x03",
        b"\x02nine bytes",
        b"\x04x",
        b"\x01HBT\0\x01\xff",
    ] {
        let cause = after_one_message(small(), &framed(frame)).await;
        let tag = frame[0];
        assert_eq!(cause, Cause::Protocol(ProtocolError::Malformed { tag }));
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_magic_or_version_is_refused() {
    let mut buffer = [0; Control::MAX_ENCODED];
    let hello = Control::Hello(small().hello([7; 8]))
        .encode(&mut buffer)
        .unwrap()
        .to_vec();

    let mut magic = hello.clone();
    magic[1] = b'X';
    assert_eq!(
        at_once(&framed(&magic)).await,
        Cause::Protocol(ProtocolError::WrongMagic)
    );

    let mut version = hello;
    version[5] = 2;
    let expected = ProtocolError::WrongVersion { version: 2 };
    assert_eq!(at_once(&framed(&version)).await, Cause::Protocol(expected));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_greet_does_not_speak_this_protocol() {
    let expected = ProtocolError::HelloExpected { tag: 0 };
    assert_eq!(
        at_once(&data_frame(b"hello?")).await,
        Cause::Protocol(expected)
    );

    // An HTTP server, say: its first four bytes are no length.
    let cause = at_once(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    assert!(matches!(
        cause,
        Cause::Protocol(ProtocolError::FrameTooLong { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn an_empty_stream_is_an_end_without_goodbye() {
    assert_eq!(at_once(b"").await, Cause::Eof);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_within_a_frame_is_an_end_without_goodbye() {
    let frame = data_frame(b"cut short");
    for cut in 1..frame.len() {
        assert_eq!(after_one_message(small(), &frame[..cut]).await, Cause::Eof);
    }
}

#[tokio::test(start_paused = true)]
async fn random_bytes_end_it_and_never_panic() {
    // xorshift64* (Marsaglia, Vigna): any generator will do.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    for _ in 0..500 {
        let length = usize::try_from(random() % 300).unwrap();
        // Small bytes more often, so that lengths are plausible.
        let mask = if random() % 2 == 0 { 0x03 } else { 0xff };
        let bytes: Vec<u8> = (0..length).map(|_| (random() >> 32) as u8 & mask).collect();

        let cause = at_once(&bytes).await;
        assert!(
            matches!(cause, Cause::Protocol(_) | Cause::Eof),
            "{bytes:?}: {cause:?}"
        );

        let (mut heartbeat, mut peer) = wrapped(small());
        peer.greet(small()).await;
        peer.send_data(b"in order").await;
        peer.send_raw(&bytes).await;
        peer.stream.shutdown().await.unwrap();
        let events = tokio::time::timeout(secs(60), all_events(&mut heartbeat)).await;
        let events = events.expect("it ends");
        let notable = notable(&events);
        assert_eq!(notable[0], &PeerEvent::Message("in order".into()));
        let terminals = events.iter().filter(|event| event.is_terminal());
        assert_eq!(terminals.count(), 1);
        assert!(events.last().unwrap().is_terminal());
    }
}

#[tokio::test(start_paused = true)]
async fn a_ping_flood_ends_it_after_a_bounded_number() {
    let (mut heartbeat, mut peer) = wrapped(Config::default());
    peer.greet(Config::default()).await;
    let mut buffer = [0; Control::MAX_ENCODED];
    let ping = framed(Control::Ping(Nonce([1; 8])).encode(&mut buffer).unwrap());
    peer.send_raw(&ping.repeat(10_000)).await;
    let events = all_events(&mut heartbeat).await;
    assert!(matches!(
        notable(&events)[..],
        [PeerEvent::Dead(death)] if death.cause == Cause::PingFlood
    ));
    // docs/protocol.md: 2 * 3 * (14 s / 1 s + 2).
    let (mut answered, mut last) = (0, Vec::new());
    drop(heartbeat);
    while let Some(frame) = peer.read_frame().await {
        answered += 1;
        last = frame;
    }
    assert!(answered <= 97, "{answered}");
    let verdict = heartbeat_core::Goodbye::decode(&last).unwrap();
    assert_eq!(verdict.code, heartbeat_core::GoodbyeCode::PING_FLOOD);
    assert_eq!(verdict.detail, "one ping in 1s is accepted");
}
