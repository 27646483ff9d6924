//! What counts as a sign of life, through the adapter. In virtual time.

use heartbeat_core::{Control, Nonce};
use heartbeat_tests::{all_events, framed, ms, notable, quick, wrapped};
use heartbeat_tokio::{Cause, Config, Evidence, PeerEvent};
use tokio::time::Instant;

/// A peer that greets and then writes `bytes` each 150 ms: how long until it
/// is dead? `None` for longer than 100 s.
async fn dead_after(
    evidence: Evidence,
    bytes: &'static [u8],
) -> Option<(std::time::Duration, Cause)> {
    let config: Config = quick()
        .to_builder()
        .evidence(evidence)
        .max_frame(1 << 20)
        .build()
        .unwrap();
    let (mut heartbeat, mut peer) = wrapped(config);
    peer.greet(config).await;
    // The header of a frame that never ends, if `bytes` are its body.
    if bytes == b"trickle" {
        peer.send_raw(&[0, 0x0f, 0xff, 0xff, 0]).await;
    }
    let start = Instant::now();
    let talking = tokio::spawn(async move {
        loop {
            tokio::time::sleep(ms(150)).await;
            peer.send_raw(bytes).await;
        }
    });
    let limit = std::time::Duration::from_secs(100);
    let events = tokio::time::timeout(limit, all_events(&mut heartbeat))
        .await
        .ok();
    talking.abort();
    let events = events?;
    match notable(&events).last() {
        Some(PeerEvent::Dead(death)) => Some((start.elapsed(), death.cause)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn any_bytes_are_evidence_by_default_also_within_a_frame() {
    assert_eq!(dead_after(Evidence::AnyBytes, b"trickle").await, None);
}

#[tokio::test(start_paused = true)]
async fn where_only_frames_count_a_trickle_of_bytes_is_none() {
    let verdict = dead_after(Evidence::Frame, b"trickle").await;
    assert_eq!(verdict, Some((ms(800), Cause::Silent)));
}

#[tokio::test(start_paused = true)]
async fn where_frames_count_messages_are_evidence() {
    assert_eq!(dead_after(Evidence::Frame, b"\0\0\0\x02\0m").await, None);
}

#[tokio::test(start_paused = true)]
async fn where_only_echoes_count_nothing_else_is_evidence() {
    let verdict = dead_after(Evidence::Echo, b"\0\0\0\x02\0m").await;
    assert_eq!(verdict, Some((ms(800), Cause::Silent)));

    let stale = framed(b"\x0312345678").leak();
    let nonce = Control::Pong(Nonce(*b"12345678"));
    assert_eq!(Control::decode(&stale[4..]), Ok(nonce));
    let verdict = dead_after(Evidence::Echo, stale).await;
    assert_eq!(verdict, Some((ms(800), Cause::Silent)));
}

#[tokio::test(start_paused = true)]
async fn where_only_echoes_count_answers_are_evidence() {
    let config = quick()
        .to_builder()
        .evidence(Evidence::Echo)
        .build()
        .unwrap();
    let (mut heartbeat, mut peer) = wrapped(config);
    peer.greet(config).await;
    tokio::spawn(async move {
        peer.answer_for(ms(10_000)).await;
        std::future::pending::<()>().await;
    });
    let start = Instant::now();
    let events = all_events(&mut heartbeat).await;
    assert!(matches!(events.last(), Some(PeerEvent::Dead(_))));
    assert!(start.elapsed() >= ms(10_600), "{:?}", start.elapsed());
}
