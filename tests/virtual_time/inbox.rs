//! What waits for an application that reads nothing: only messages fill the inbox.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests may panic too"
)]

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use heartbeat_core::{Control, Nonce};
use heartbeat_tests::{
    RawPeer, data_frame, few_or_all, ms, quick, scripted::greeted, secs, wrapped,
};
use heartbeat_tokio::{Cause, Config, Heartbeat, PeerEvent, Receiver, State};
use tokio::{
    sync::oneshot,
    task::yield_now,
    time::{Instant, advance, sleep},
};

const DAY: Duration = secs(24 * 3600);

/// 105,120 beats a year: 3,640 of them once filled the inbox.
fn calm() -> Config {
    let calm = Config::builder().interval(secs(300)).timeout(secs(60));
    calm.jitter(0.0).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_receiver_nobody_reads_is_judged_for_a_year() {
    let (ours, theirs) = tokio::io::duplex(1024);
    let driver = Heartbeat::new(ours, calm()).spawn();
    let (hang, hanging) = oneshot::channel();
    let peer = tokio::spawn(async move {
        let mut peer = Heartbeat::new(theirs, calm());
        let living = async {
            while let Some(event) = peer.next().await {
                assert!(!event.is_terminal(), "{event}");
            }
        };
        tokio::select! {
            () = living => panic!("it goes on"),
            _ = hanging => {}
        }
        sleep(DAY).await; // It holds the stream, and polls nothing.
    });
    let lasting = few_or_all(30, 365) * DAY;
    sleep(lasting).await;
    let status = driver.sender.status();
    assert_eq!(status.peer.state, State::Alive);
    assert!(status.silent_for <= secs(300), "{:?}", status.silent_for);
    assert!(driver.sender.probe().await.is_ok());

    hang.send(()).unwrap();
    let began = Instant::now();
    let death = driver.sender.closed().await.unwrap_err();
    assert_eq!(death.cause, Cause::Silent);
    let took = began.elapsed();
    assert!(took <= calm().detection_time(), "{took:?}");
    peer.abort();

    let told: Vec<_> = driver.receiver.collect().await;
    let is_beat = |event: &PeerEvent<_>| matches!(event, PeerEvent::Beat { .. });
    assert_eq!(told.iter().filter(|event| is_beat(event)).count(), 1);
    assert!(matches!(told.first(), Some(PeerEvent::Connected { .. })));
    assert_eq!(told.last(), Some(&PeerEvent::Dead(death)));
}

/// The next ping is answered this much later.
async fn answer(raw: &mut RawPeer, rtt: Duration) {
    loop {
        if let Some(Control::Ping(nonce)) = raw.read_control().await {
            sleep(rtt).await;
            return raw.send_control(Control::Pong(nonce)).await;
        }
    }
}

/// All that waits.
async fn waiting(receiver: &mut Receiver<Bytes>) -> Vec<PeerEvent<Bytes>> {
    let mut events = Vec::new();
    while let Some(Some(event)) = futures::future::poll_immediate(receiver.recv()).await {
        events.push(event);
    }
    events
}

#[tokio::test(start_paused = true)]
async fn news_wait_ahead_of_messages_and_only_the_last_of_each() {
    let (ours, mut raw) = wrapped(quick());
    let mut driver = ours.spawn();
    raw.send_control(Control::Hello(quick().hello([7; 8])))
        .await;
    raw.send_data(b"one").await;
    answer(&mut raw, ms(10)).await;
    raw.send_data(b"two").await;
    answer(&mut raw, ms(20)).await;
    sleep(ms(1)).await;
    // We sleep, and hear of it.
    advance(secs(5)).await;
    answer(&mut raw, ms(30)).await;
    raw.send_data(b"three").await;
    sleep(ms(1)).await;
    let told = waiting(&mut driver.receiver).await;
    let message = |text: &'static str| PeerEvent::Message(Bytes::from(text));
    let [connected, stall, beat, messages @ ..] = &told[..] else {
        panic!("{told:?}")
    };
    assert!(matches!(connected, PeerEvent::Connected { .. }), "{told:?}");
    assert!(matches!(stall, PeerEvent::LocalStall { .. }), "{told:?}");
    assert_eq!(*beat, PeerEvent::Beat { rtt: ms(30) });
    assert_eq!(messages, [message("one"), message("two"), message("three")]);
}

#[tokio::test(start_paused = true)]
async fn a_suspicion_that_nobody_took_is_not_told_when_it_is_over() {
    let (ours, mut raw) = wrapped(quick());
    let mut driver = ours.spawn();
    raw.greet(quick()).await;
    let mut watch = driver.sender.watch();
    for taken in [false, true] {
        let suspect = watch.wait_for(|status| status.peer.state == State::Suspect);
        suspect.await.unwrap();
        let mut told = Vec::new();
        if taken {
            told = waiting(&mut driver.receiver).await;
            let suspect = told
                .iter()
                .any(|event| matches!(event, PeerEvent::Suspect { .. }));
            assert!(suspect, "{told:?}");
            told.clear();
        }
        raw.send_data(b"I was busy").await;
        let alive = watch.wait_for(|status| status.peer.state == State::Alive);
        alive.await.unwrap();
        told.extend(waiting(&mut driver.receiver).await);
        let of_it = |event: &&PeerEvent<_>| {
            matches!(
                event,
                PeerEvent::Suspect { .. } | PeerEvent::Recovered { .. }
            )
        };
        let told: Vec<_> = told.iter().filter(of_it).collect();
        match (taken, &told[..]) {
            (false, []) | (true, [PeerEvent::Recovered { .. }]) => {}
            _ => panic!("taken: {taken}, {told:?}"),
        }
    }
}

/// The messages that came before them come before them.
#[tokio::test(start_paused = true)]
async fn finished_and_the_end_wait_behind_all_messages() {
    let (ours, theirs) = tokio::io::duplex(1024);
    let (driver, peer) = (
        Heartbeat::new(ours, quick()).spawn(),
        Heartbeat::new(theirs, quick()).spawn(),
    );
    peer.sender.send("last".into()).await.unwrap();
    peer.sender.finish().await.unwrap();
    sleep(secs(60)).await; // Beats go on.
    peer.task.abort();
    driver.sender.closed().await.unwrap_err();
    let told: Vec<_> = driver.receiver.collect().await;
    let [
        ..,
        PeerEvent::Message(last),
        PeerEvent::Finished,
        PeerEvent::Dead(death),
    ] = &told[..]
    else {
        panic!("{told:?}")
    };
    assert_eq!((&**last, death.cause.clone()), (&b"last"[..], Cause::Eof));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_read_while_the_inbox_is_full() {
    let (heartbeat, script) = greeted(calm()).await;
    let driver = heartbeat.spawn();
    // One after the other, so that no byte waits to be decoded when it is full.
    while driver.sender.status().peer.state != State::Paused {
        script.give_bytes(data_frame(&[0; 10_000]));
        sleep(ms(1)).await;
    }
    let _ = script.reads();
    for _ in 0..3 {
        script.give_bytes(data_frame(b"more"));
        sleep(ms(1)).await;
    }
    assert_eq!(script.reads(), 0);
}

/// By the task: the receiver takes exactly what waits, and then nothing more.
#[tokio::test(start_paused = true)]
async fn reading_goes_on_at_once_when_a_full_inbox_was_emptied() {
    let (ours, mut raw) = wrapped(calm());
    let mut driver = ours.spawn();
    raw.greet(calm()).await;
    for _ in 0..5 {
        raw.send_data(&[0; 64_000]).await;
    }
    sleep(ms(1)).await;
    let nonce = Nonce([1; 8]);
    raw.send_control(Control::Ping(nonce)).await;
    sleep(ms(1)).await;
    for _ in 0..6 {
        yield_now().await; // the task has nothing to do yet
        let waiting = futures::future::poll_immediate(driver.receiver.recv()).await;
        assert!(matches!(waiting, Some(Some(_))), "{waiting:?}");
    }
    let emptied = Instant::now();
    while raw.read_control().await != Some(Control::Pong(nonce)) {}
    assert_eq!(emptied.elapsed(), Duration::ZERO);
}
