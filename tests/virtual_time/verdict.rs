//! When a peer is dead, and that it is said once: in virtual time.
//!
//! ```text
//! t=0        200        400        600        800 ms
//! |---- I ----|--- W ----|--- W ----|--- W ----|
//! last byte   ping       ping       ping       Dead
//! ```

use futures::{SinkExt, StreamExt};
use heartbeat_core::Control;
use heartbeat_tests::{all_events, by_peer, data_frame, ms, notable, quick, secs, wrapped};
use heartbeat_tokio::{
    Cause, CloseError, CloseReason, Config, Heartbeat, PeerEvent, SendError, State,
};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_dead_at_the_detection_time_to_the_millisecond() {
    for (interval, timeout, missed) in [(200, 200, 3), (5000, 3000, 3), (1, 1, 1), (70, 10, 7)] {
        let config = Config::builder()
            .interval(ms(interval))
            .timeout(ms(timeout))
            .max_missed(missed)
            .jitter(0.0)
            .build()
            .unwrap();
        let (mut heartbeat, _peer) = wrapped(config);
        let start = Instant::now();

        let early = config.detection_time() - ms(1);
        let events = async {
            let mut events = Vec::new();
            while let Ok(Some(event)) =
                tokio::time::timeout_at(start + early, heartbeat.next()).await
            {
                events.push(event);
            }
            events
        };
        let events = events.await;
        assert!(!events.iter().any(PeerEvent::is_terminal), "{events:?}");
        assert_eq!(start.elapsed(), early);

        let rest = all_events(&mut heartbeat).await;
        assert_eq!(start.elapsed(), config.detection_time());
        let [PeerEvent::Dead(death)] = rest.as_slice() else {
            panic!("{rest:?}")
        };
        assert_eq!(death.cause, Cause::Silent);
        assert_eq!(death.silent_for, config.detection_time());
        assert_eq!(death.missed, missed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_falls_silent_later_is_dead_as_long_after_its_last_byte() {
    let (mut heartbeat, mut peer) = wrapped(quick());
    peer.greet(quick()).await;
    let lives_for = ms(12_345);
    let peer = tokio::spawn(async move {
        let start = Instant::now();
        while start.elapsed() < lives_for {
            peer.send_data(b"x").await;
            tokio::time::sleep(ms(15)).await;
        }
        let last = Instant::now() - ms(15);
        std::future::pending::<()>().await;
        (peer, last)
    });

    let start = Instant::now();
    let mut last_message = start;
    while let Some(event) = heartbeat.next().await {
        match event {
            PeerEvent::Message(_) => last_message = Instant::now(),
            PeerEvent::Dead(death) => assert_eq!(death.cause, Cause::Silent),
            _ => {}
        }
    }
    assert!(last_message - start > ms(12_000));
    assert_eq!(last_message.elapsed(), ms(800));
    peer.abort();
}

#[tokio::test(start_paused = true)]
async fn each_late_beat_is_told_and_the_last_word_comes_once() {
    let (mut heartbeat, peer) = wrapped(quick());
    let events = all_events(&mut heartbeat).await;
    let missed: Vec<_> = events
        .iter()
        .map(|event| match event {
            PeerEvent::Suspect { missed, .. } => format!("suspect {missed}"),
            PeerEvent::Dead(death) => format!("dead {}", death.missed),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(missed, ["suspect 1", "suspect 2", "dead 3"]);

    assert_eq!(heartbeat.next().await, None);
    assert_eq!(heartbeat.next().await, None);
    assert_eq!(heartbeat.status().peer.state, State::Dead);
    let error = heartbeat.send("too late".into()).await.unwrap_err();
    assert!(matches!(error, SendError::Dead(death) if death.cause == Cause::Silent));
    drop(peer);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_comes_back_in_time_recovers() {
    let (mut heartbeat, mut peer) = wrapped(quick());
    peer.greet(quick()).await;
    let start = Instant::now();
    tokio::spawn(async move {
        tokio::time::sleep(ms(799)).await;
        peer.send_data(b"here").await;
        peer.answer_for(secs(10)).await;
        std::future::pending::<()>().await;
    });

    let mut seen = Vec::new();
    while let Some(event) = heartbeat.next().await {
        match event {
            PeerEvent::Recovered { silent_for } => {
                assert_eq!(silent_for, ms(799));
                assert_eq!(start.elapsed(), ms(799));
                seen.push("recovered");
            }
            PeerEvent::Message(_) => seen.push("message"),
            PeerEvent::Suspect { .. } => seen.push("suspect"),
            PeerEvent::Dead(_) => seen.push("dead"),
            _ => {}
        }
        if start.elapsed() < secs(10) {
            assert!(!seen.contains(&"dead"));
        }
    }
    assert_eq!(seen[..4], ["suspect", "suspect", "recovered", "message"]);
    assert_eq!(seen.last(), Some(&"dead"));
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_is_no_death_and_comes_after_the_messages() {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let config = quick();
    let (mut a, mut b) = (Heartbeat::new(ours, config), Heartbeat::new(theirs, config));
    let leaving = async {
        for n in 0..100 {
            b.feed(format!("message {n}").into()).await.unwrap();
        }
        b.close().await.unwrap();
        let events = all_events(&mut b).await;
        assert_eq!(
            events.last(),
            Some(&PeerEvent::Closed {
                reason: CloseReason::Local
            })
        );
    };
    let (events, ()) = tokio::join!(all_events(&mut a), leaving);

    let notable = notable(&events);
    assert_eq!(notable.len(), 101);
    assert_eq!(notable[0], &PeerEvent::Message("message 0".into()));
    assert_eq!(notable[99], &PeerEvent::Message("message 99".into()));
    assert_eq!(notable[100], &PeerEvent::Closed { reason: by_peer() });
    let error = a.send("too late".into()).await.unwrap_err();
    assert_eq!(error, SendError::Closed(by_peer()));
}

#[tokio::test(start_paused = true)]
async fn a_farewell_to_a_peer_that_is_dead_ends_with_the_verdict() {
    let config = quick();
    let (ours, _theirs) = tokio::io::duplex(64);
    let mut heartbeat = Heartbeat::new(ours, config);
    heartbeat.feed(vec![7; 10_000].into()).await.unwrap();

    let start = Instant::now();
    let error = heartbeat.close().await.unwrap_err();
    assert_eq!(start.elapsed(), ms(800));
    // The stream took 64 bytes: of the Hello, and perhaps of the message.
    let CloseError::Dead { death, unwritten } = error else {
        panic!("{error}")
    };
    assert_eq!(death.cause, Cause::WriteStalled);
    assert!((9_900..=10_100).contains(&unwritten), "{unwritten}");
    let events = all_events(&mut heartbeat).await;
    assert_eq!(events.last(), Some(&PeerEvent::Dead(death)));
}

#[tokio::test(start_paused = true)]
async fn what_arrived_before_the_end_is_delivered_before_it() {
    let (mut heartbeat, mut peer) = wrapped(quick());
    peer.greet(Config::default()).await;
    for n in 0..10_u8 {
        peer.send_data(&[n]).await;
    }
    peer.send_raw(&data_frame(b"cut short")[..7]).await;
    drop(peer);

    let events = all_events(&mut heartbeat).await;
    let notable = notable(&events);
    for n in 0..10_u8 {
        assert_eq!(notable[usize::from(n)], &PeerEvent::Message(vec![n].into()));
    }
    let [PeerEvent::Dead(death)] = notable[10..] else {
        panic!("{notable:?}")
    };
    assert_eq!(death.cause, Cause::Eof);
}

#[tokio::test(start_paused = true)]
async fn a_probe_is_answered_with_a_beat() {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let mut a = Heartbeat::new(ours, Config::default());
    let mut b = Heartbeat::new(theirs, Config::default());
    tokio::spawn(async move { while b.next().await.is_some() {} });
    assert!(matches!(a.next().await, Some(PeerEvent::Connected { .. })));

    let start = Instant::now();
    a.probe();
    assert!(matches!(a.next().await, Some(PeerEvent::Beat { rtt }) if rtt < ms(1)));
    assert!(start.elapsed() < ms(1));
}

#[tokio::test(start_paused = true)]
async fn a_ping_is_answered_by_one_pong_with_its_nonce() {
    let (mut heartbeat, mut peer) = wrapped(Config::default());
    peer.greet(Config::default()).await;
    tokio::spawn(async move { while heartbeat.next().await.is_some() {} });
    let ping = |byte| Control::Ping(heartbeat_core::Nonce([byte; 8]));

    assert!(matches!(peer.read_control().await, Some(Control::Hello(_))));
    peer.send_control(ping(7)).await;
    assert_eq!(
        peer.read_control().await,
        Some(Control::Pong(heartbeat_core::Nonce([7; 8])))
    );
    // Two that arrive at once: the latest is answered.
    let mut buffer = [0; Control::MAX_ENCODED];
    let first = heartbeat_tests::framed(ping(8).encode(&mut buffer).unwrap());
    let second = heartbeat_tests::framed(ping(9).encode(&mut buffer).unwrap());
    peer.send_raw(&[first, second].concat()).await;
    let mut answers = Vec::new();
    while let Ok(more) = tokio::time::timeout(ms(100), peer.read_control()).await {
        // It piggybacks a ping.
        if !matches!(more, Some(Control::Ping(_))) {
            answers.push(more);
        }
    }
    assert_eq!(
        answers.last(),
        Some(&Some(Control::Pong(heartbeat_core::Nonce([9; 8]))))
    );
}

/// What lies here is an incomplete frame: the application isn't behind, the
/// peer is.
#[tokio::test(start_paused = true)]
async fn a_peer_that_falls_silent_within_a_large_message_is_dead_in_time() {
    for arrived in [1_000, 300_000, 900_000] {
        let (mut heartbeat, mut peer) = wrapped(quick());
        peer.greet(quick()).await;
        assert!(matches!(
            heartbeat.next().await,
            Some(PeerEvent::Connected { .. })
        ));
        let whole = heartbeat_tests::data_frame(&vec![7; 1 << 20]);
        let start = Instant::now();
        peer.send_raw(&whole[..arrived]).await;
        let events = all_events(&mut heartbeat).await;
        assert!(
            matches!(events.last(), Some(PeerEvent::Dead(death)) if death.cause == Cause::Silent),
            "{arrived}: {events:?}"
        );
        assert_eq!(start.elapsed(), ms(800), "{arrived}");
    }
}
