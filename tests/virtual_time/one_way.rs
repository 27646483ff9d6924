//! Beats without answers, and requests behind which nothing is answered: the codec of
//! `examples/stomp` against a broker of a few lines, in virtual time.

#[path = "../../examples/stomp/stomp.rs"]
mod stomp;

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use heartbeat_tests::{ms, secs};
use heartbeat_tokio::{Cause, Codec, Config, Heartbeat, PeerEvent, State};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::{Instant, interval, sleep_until, timeout},
};

use stomp::{Stomp, frame};

type Client = Heartbeat<DuplexStream, Codec<Stomp>>;

/// Answers with these headers.
async fn mute_broker(mut stream: DuplexStream, headers: &str) -> Vec<u8> {
    let mut heard = vec![0; 1000];
    let _ = stream.read(&mut heard).await.unwrap();
    let answer = format!("CONNECTED\n{headers}\n\0");
    stream.write_all(answer.as_bytes()).await.unwrap();
    heard.clear();
    stream.read_to_end(&mut heard).await.unwrap();
    heard
}

/// A broker that beats every two seconds, gives up a client that says nothing for four, and
/// falls silent at some time. It sends something every 0.2 s if it is busy.
async fn broker(mut stream: DuplexStream, is_busy: bool, silent_from: Instant) {
    let mut heard = Instant::now();
    let mut bytes = [0; 1000];
    let _ = stream.read(&mut bytes).await.unwrap();
    let answer = b"CONNECTED\nversion:1.2\nheart-beat:2000,2000\n\n\0";
    stream.write_all(answer).await.unwrap();
    let mut beats = interval(secs(2));
    let mut messages = interval(ms(200));
    loop {
        let is_silent = Instant::now() >= silent_from;
        tokio::select! {
            read = stream.read(&mut bytes) => match read {
                Ok(1..) => heard = Instant::now(),
                _ => return,
            },
            _ = beats.tick() => {
                if !is_silent && stream.write_all(b"\n").await.is_err() {
                    return;
                }
            }
            _ = messages.tick() => {
                let message = b"MESSAGE\n\nhello\0";
                if is_busy && !is_silent && stream.write_all(message).await.is_err() {
                    return;
                }
            }
            () = sleep_until(heard + secs(4)) => return,
        }
    }
}

async fn client(detection: Duration, is_busy: bool, silent_after: Duration) -> Client {
    let (ours, theirs) = duplex(64 * 1024);
    let silent_from = Instant::now() + silent_after;
    tokio::spawn(broker(theirs, is_busy, silent_from));
    let config = Config::detect_within(detection).unwrap().to_builder();
    let config = config.speak_within(secs(1)).build().unwrap();
    let mut client = Heartbeat::with_codec(ours, Stomp::default(), config);
    let login = frame("CONNECT\naccept-version:1.2\nheart-beat:2000,2000", "");
    client.send(login).await.unwrap();
    client
}

#[tokio::test(start_paused = true)]
async fn where_nobody_answers_beats_both_sides_live_and_a_silent_one_is_found() {
    for detection in [2, 4, 10, 14].map(secs) {
        for is_busy in [false, true] {
            let mut client = client(detection, is_busy, secs(600)).await;
            let began = Instant::now();
            let death = loop {
                match client.next().await.unwrap() {
                    PeerEvent::Dead(death) => break death,
                    PeerEvent::Message(_) | PeerEvent::Suspect { .. } => {}
                    PeerEvent::Recovered { .. } => {}
                    other => panic!("{other:?}"),
                }
            };
            let lived = began.elapsed();
            let label = format!("{detection:?}, {is_busy}: {death} after {lived:?}");
            assert_eq!(death.cause, Cause::Silent, "{label}");
            assert!(lived >= secs(600), "{label}");
            assert!(lived <= secs(600) + client.detection_time(), "{label}");
            // The broker's two seconds take the place of a shorter interval.
            let budget = detection - client.config().interval();
            let expected = client.config().interval().max(secs(2)) + budget;
            assert_eq!(client.detection_time(), expected, "{label}");
        }
    }
}

/// It agreed to none of its own, so its silence proves nothing. It hears ours.
#[tokio::test(start_paused = true)]
async fn a_broker_that_sends_no_beats_is_not_judged() {
    for (wanted, headers) in [
        ("2000,0", "heart-beat:0,2000\n"),
        ("2000,2000", "heart-beat:0,2000\n"),
        ("2000,0", "heart-beat:2000,2000\n"),
        ("2000,2000", ""),
    ] {
        let (ours, theirs) = duplex(64 * 1024);
        let broker = tokio::spawn(mute_broker(theirs, headers));
        let config = Config::detect_within(secs(2)).unwrap().to_builder();
        let config = config.speak_within(secs(1)).build().unwrap();
        let mut client = Heartbeat::with_codec(ours, Stomp::default(), config);
        let login = frame(&format!("CONNECT\nheart-beat:{wanted}"), "");
        client.send(login).await.unwrap();
        let hundred_seconds = async {
            while let Some(event) = client.next().await {
                assert!(!event.is_terminal(), "{wanted}, {headers}: {event}");
            }
        };
        assert!(timeout(secs(100), hundred_seconds).await.is_err());
        let status = client.status();
        assert_eq!(status.peer.state, State::Occupied, "{wanted}, {headers}");
        drop(client);
        let beats = broker.await.unwrap().len();
        assert!((95..=105).contains(&beats), "{beats} of ours");
    }
}

/// What it sends takes the place of beats.
#[tokio::test(start_paused = true)]
async fn a_client_that_sends_more_often_than_it_must_sends_no_beats() {
    let (ours, theirs) = duplex(64 * 1024);
    let broker = tokio::spawn(mute_broker(theirs, "heart-beat:0,2000\n"));
    let config = Config::detect_within(secs(2)).unwrap().to_builder();
    let config = config.speak_within(secs(1)).build().unwrap();
    let mut client = Heartbeat::with_codec(ours, Stomp::default(), config);
    let login = frame("CONNECT\nheart-beat:2000,0", "");
    client.send(login).await.unwrap();
    assert!(
        timeout(ms(1), client.next()).await.is_ok(),
        "it is logged in"
    );
    let message = || frame("SEND\ndestination:here", "hello");
    for _ in 0..50 {
        client.send(message()).await.unwrap();
        let event = timeout(ms(900), client.next()).await;
        assert!(event.is_err(), "{event:?}");
    }
    drop(client);
    let heard = String::from_utf8(broker.await.unwrap()).unwrap();
    let frames: Vec<_> = heard.split_terminator('\0').collect();
    assert_eq!(frames.len(), 50);
    assert!(
        frames.iter().all(|frame| frame.starts_with("SEND")),
        "{heard:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn no_beat_comes_before_the_login_is_answered() {
    let (ours, mut theirs) = duplex(1024);
    let config = Config::detect_within(secs(1)).unwrap();
    let mut client = Heartbeat::with_codec(ours, Stomp::default(), config);
    client.send(frame("CONNECT", "")).await.unwrap();
    assert!(timeout(secs(100), client.next()).await.is_err());
    let mut bytes = Vec::new();
    let _ = theirs.read_buf(&mut bytes).await.unwrap();
    assert_eq!(bytes, b"CONNECT\n\n\0");
}
