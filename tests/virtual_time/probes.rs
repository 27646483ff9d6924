//! Each probe gets an answer, a measured round trip or the verdict, also if we stop reading or
//! sleep meanwhile. In virtual time.

use std::{
    future::poll_fn,
    ops::RangeInclusive,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::{SinkExt, StreamExt, future::poll_immediate};
use heartbeat_core::Control;
use heartbeat_tests::{
    RawPeer, data_frame, ms, quick,
    scripted::{OnWire, frames, greeted},
    secs,
};
use heartbeat_tokio::{Config, Heartbeat, PeerEvent, State};
use tokio::time::{advance, sleep, timeout};

/// How long the peer takes to answer one ping, and another one that it gets
/// meanwhile.
const ROUND_TRIP: RangeInclusive<Duration> = ms(30)..=ms(60);

/// Until the peer accepts another ping, and has answered it.
const SOON: Duration = ms(160);

#[tokio::test(start_paused = true)]
async fn a_probe_while_the_inbox_is_full_is_answered_when_reading_goes_on() {
    for (pause, config) in pauses() {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let mut driver = Heartbeat::new(ours, config).spawn();
        let peer = tokio::spawn(talk_and_answer(RawPeer::new(theirs)));
        sleep(ms(1)).await;
        let sender = driver.sender.clone();
        let probe = tokio::spawn(async move { sender.probe().await });
        sleep(pause).await;
        assert_eq!(driver.sender.status().peer.state, State::Paused);
        assert!(!probe.is_finished(), "after {pause:?}");

        let reading = async {
            while let Some(event) = driver.receiver.next().await {
                check(&event)
            }
        };
        let answer = tokio::select! {
            () = reading => panic!("it ended"),
            answer = timeout(SOON, probe) => answer,
        };
        let answer = answer.expect("nobody waits for ever").unwrap();
        // Not how long the pause was.
        let answer = answer.unwrap();
        assert!(ROUND_TRIP.contains(&answer), "{answer:?} after {pause:?}");
        peer.abort();
    }
}

/// A sender that waits takes in what the peer sends until that is too much, and
/// the peer goes on sending first.
#[tokio::test(start_paused = true)]
async fn a_probe_of_an_application_that_sends_is_answered_when_it_reads() {
    for (pause, config) in pauses() {
        if !config.beat_events() {
            continue; // the end would be reported to no caller
        }
        for asked_before in [true, false] {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            let mut heartbeat = Heartbeat::new(ours, config);
            let peer = tokio::spawn(talk_and_answer(RawPeer::new(theirs)));
            let greeted = heartbeat.next().await;
            assert!(matches!(greeted, Some(PeerEvent::Connected { .. })));
            if asked_before {
                heartbeat.probe();
            }
            let sending = heartbeat.send(Bytes::from(vec![0; 300_000]));
            assert!(timeout(ms(1), sending).await.is_err());
            assert_eq!(heartbeat.status().peer.state, State::Paused);
            if !asked_before {
                heartbeat.probe();
            }
            assert!(timeout(pause, heartbeat.flush()).await.is_err());

            let beat = async {
                loop {
                    match heartbeat.next().await.unwrap() {
                        PeerEvent::Beat { rtt } => return rtt,
                        event => check(&event),
                    }
                }
            };
            let beat = timeout(SOON, beat).await;
            let rtt = beat.expect("nobody waits for ever");
            assert!(ROUND_TRIP.contains(&rtt), "{rtt:?} after {pause:?}");
            peer.abort();
        }
    }
}

/// The pong is there when we wake up, and would measure our sleep. The peer
/// doesn't accept another ping right away.
#[tokio::test(start_paused = true)]
async fn a_probe_that_we_slept_through_is_asked_again() {
    for config in [patient(), quiet(patient())] {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let mut driver = Heartbeat::new(ours, config).spawn();
        let mut peer = RawPeer::new(theirs);
        let second = patient()
            .to_builder()
            .timeout(secs(1))
            .min_interval(secs(1));
        peer.greet(second.build().unwrap()).await;
        assert!(matches!(
            driver.receiver.next().await,
            Some(PeerEvent::Connected { .. })
        ));
        let sender = driver.sender.clone();
        let probe = tokio::spawn(async move { sender.probe().await });
        loop {
            if let Some(Control::Ping(nonce)) = peer.read_control().await {
                peer.send_control(Control::Pong(nonce)).await;
                break;
            }
        }
        // Before any other task has a turn.
        advance(ms(700)).await; // and 200 ms are tolerated
        let peer = tokio::spawn(answer(peer));
        let answer = timeout(secs(1) + SOON, probe).await;
        let answer = answer.expect("nobody waits for ever").unwrap().unwrap();
        assert!(ROUND_TRIP.contains(&answer), "{answer:?}");
        let told = poll_immediate(driver.receiver.next()).await;
        assert!(
            matches!(told, Some(Some(PeerEvent::LocalStall { .. }))),
            "{told:?}"
        );
        peer.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_side_that_wants_no_beats_is_told_of_none() {
    for config in [patient(), quiet(patient())] {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let mut heartbeat = Heartbeat::new(ours, config);
        let mut peer = RawPeer::new(theirs);
        peer.greet(patient()).await;
        let peer = tokio::spawn(answer(peer));
        heartbeat.probe();
        let mut beats = 0;
        let telling = async {
            while let Some(event) = heartbeat.next().await {
                check(&event);
                beats += u32::from(matches!(event, PeerEvent::Beat { .. }));
            }
        };
        assert!(timeout(secs(1), telling).await.is_err());
        assert_eq!(beats, u32::from(config.beat_events()));
        peer.abort();
    }
}

/// Which waits for events.
#[tokio::test(start_paused = true)]
async fn a_probe_of_a_connection_that_another_task_polls_leaves_at_once() {
    let (heartbeat, script) = greeted(patient()).await;
    let shared = Arc::new(Mutex::new(heartbeat));
    let polled = shared.clone();
    let polling = tokio::spawn(poll_fn(move |cx| {
        polled.lock().unwrap().poll_next_unpin(cx)
    }));
    sleep(ms(1)).await;
    shared.lock().unwrap().probe();
    sleep(ms(1)).await;
    let sent = frames(&script.sent());
    let last = sent.last().map(|(_, frame)| frame);
    assert!(
        matches!(last, Some(OnWire::Control(Control::Ping(_)))),
        "{last:?}"
    );
    polling.abort();
}

/// Nothing asks by itself, not for seconds.
fn patient() -> Config {
    let patient = quick().to_builder().interval(secs(10));
    patient.build().unwrap()
}

/// As long as until before and after our next sign of life leaves, with beats
/// that are told and that aren't.
fn pauses() -> Vec<(Duration, Config)> {
    let pauses = [ms(1), ms(10), ms(60), ms(150), ms(250), ms(550)];
    let each = |pause| [(pause, patient()), (pause, quiet(patient()))];
    pauses.into_iter().flat_map(each).collect()
}

fn quiet(config: Config) -> Config {
    config.to_builder().beat_events(false).build().unwrap()
}

/// Neither our own stall nor an end: we were on time all along.
fn check(event: &PeerEvent<Bytes>) {
    let wrong = event.is_terminal() || matches!(event, PeerEvent::LocalStall { .. });
    assert!(!wrong, "{event}");
}

/// Sends more than an inbox holds, and answers pings from then on.
async fn talk_and_answer(mut peer: RawPeer) {
    peer.greet(quick()).await;
    peer.send_raw(&data_frame(&[0; 1000]).repeat(600)).await;
    answer(peer).await;
}

async fn answer(mut peer: RawPeer) {
    while let Some(control) = peer.read_control().await {
        if let Control::Ping(nonce) = control {
            sleep(*ROUND_TRIP.start()).await;
            peer.send_control(Control::Pong(nonce)).await;
        }
    }
}
