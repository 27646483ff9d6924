//! A peer that lives is never declared dead: in virtual time.

use futures::{SinkExt, StreamExt};
use heartbeat_core::Control;
use heartbeat_tests::{
    all_events, by_peer, data_frame, ms, notable, quick,
    scripted::{OnWire, filler, frames, greeted_by},
    secs, slow_line, wrapped,
};
use heartbeat_tokio::{Cause, CloseReason, Config, Heartbeat, PeerEvent};
use tokio::time::{Instant, timeout};
use tokio_util::codec::Framed;

use super::own_frames::{OwnCodec, OwnFrames};

const MIB: usize = 1 << 20;

#[tokio::test(start_paused = true)]
async fn while_it_sends_a_steady_stream_and_answers_nothing() {
    let (mut heartbeat, mut peer) = wrapped(quick());
    peer.greet(quick()).await;
    tokio::spawn(async move {
        for _ in 0..10_000 {
            tokio::time::sleep(ms(190)).await;
            peer.send_data(b"tick").await;
        }
    });
    let events = all_events(&mut heartbeat).await;
    let notable = notable(&events);
    assert!(
        notable[..10_000]
            .iter()
            .all(|event| matches!(event, PeerEvent::Message(_)))
    );
    let [PeerEvent::Dead(death)] = notable[10_000..] else {
        panic!("{:?}", &notable[10_000..])
    };
    assert_eq!(death.cause, Cause::Eof);
    // It was heard all the time, so it was never asked.
    assert_eq!(heartbeat.status().peer.pings, 0);
}

#[tokio::test(start_paused = true)]
async fn while_it_only_answers_pings() {
    let (mut heartbeat, mut peer) = wrapped(quick());
    peer.greet(quick()).await;
    tokio::spawn(async move { peer.answer_for(secs(3600)).await });
    let start = Instant::now();
    let mut beats = 0;
    while let Some(event) = heartbeat.next().await {
        match event {
            PeerEvent::Beat { .. } => beats += 1,
            PeerEvent::Connected { .. } => {}
            PeerEvent::Dead(_) => assert!(start.elapsed() >= secs(3600)),
            other => panic!("{other:?}"),
        }
    }
    // One each 200 ms; the one at the very end may be answered or not.
    assert!((17_999..=18_000).contains(&beats), "{beats}");
}

/// Both ends, neither of which has anything to say.
#[tokio::test(start_paused = true)]
async fn while_both_are_idle_for_a_day() {
    let (ours, theirs) = tokio::io::duplex(1024);
    let config = Config::default();
    let (mut a, mut b) = (Heartbeat::new(ours, config), Heartbeat::new(theirs, config));
    tokio::spawn(async move {
        let day = tokio::time::timeout(secs(86_400), all_events(&mut b)).await;
        assert!(day.is_err(), "{:?}", day.unwrap().last());
        b.close().await.unwrap();
    });
    let events = all_events(&mut a).await;
    let closed = PeerEvent::Closed { reason: by_peer() };
    assert_eq!(notable(&events), [&closed]);
}

/// The frame takes 32 s, the detection time is 3 s; neither side may blame
/// the other, although the sender's pings wait behind its own frame.
#[tokio::test(start_paused = true)]
async fn while_it_sends_one_large_frame_slowly() {
    let config = Config::detect_within(secs(3))
        .unwrap()
        .to_builder()
        .max_frame(64 * MIB)
        .build()
        .unwrap();
    let (ours, theirs) = slow_line(64 * 1024, 2 << 20);
    let mut sender = Heartbeat::new(ours, config);
    let mut receiver = Heartbeat::new(theirs, config);
    let payload = filler(0, 64 * MIB);
    let expected = payload.clone();

    let start = Instant::now();
    let sending = async {
        sender.send(payload).await.unwrap();
        assert!(start.elapsed() > secs(31), "{:?}", start.elapsed());
        sender.close().await.unwrap();
        all_events(&mut sender).await
    };
    let (received, sent) = tokio::join!(all_events(&mut receiver), sending);

    let closed = |reason| PeerEvent::Closed { reason };
    let received = notable(&received);
    assert_eq!(received.len(), 2, "{:?}", received.last());
    assert!(
        received[0] == &PeerEvent::Message(expected),
        "another payload"
    );
    assert_eq!(received[1], &closed(by_peer()));
    let alarms = sent
        .iter()
        .filter(|event| matches!(event, PeerEvent::Dead(_)));
    assert_eq!(alarms.count(), 0);
    assert_eq!(sent.last(), Some(&closed(CloseReason::Local)));
}

/// Its pings may wait behind them, so that it doesn't hear us. Behind small ones they don't.
#[tokio::test(start_paused = true)]
async fn a_peer_whose_messages_are_large_is_told_that_we_live() {
    for (size, is_told) in [(100, false), (20_000, true)] {
        let make = |stream| {
            let stream = OwnFrames(Framed::new(stream, OwnCodec));
            Heartbeat::with_frames(stream, quick())
        };
        let (mut heartbeat, script) = greeted_by(quick(), make).await;
        for _ in 0..20 {
            script.give_bytes(data_frame(&filler(0, size)));
            let message = heartbeat.next().await;
            assert_eq!(message, Some(PeerEvent::Message(filler(0, size))));
            assert!(timeout(ms(50), heartbeat.next()).await.is_err());
        }
        let sent = frames(&script.sent());
        let mut sent = sent.iter().map(|(_, frame)| frame);
        let alive = sent.any(|frame| *frame == OnWire::Control(Control::Alive));
        assert_eq!(alive, is_told, "{size} bytes");
    }
}
