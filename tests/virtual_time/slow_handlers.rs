//! An application that takes one message after another, slowly, and is never idle: it
//! lives for its peer, whatever carries the messages.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may panic too"
)]

use std::{sync::mpsc, thread, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt};
use heartbeat_core::{Control, Nonce};
use heartbeat_tests::{
    data_frame, few_or_all, ms, quick,
    scripted::{OnWire, Read, control_frame, frames, greeted, runtime},
    secs, wrapped,
};
use heartbeat_tokio::{Config, Driver, Heartbeat, PeerEvent};
use tokio::{
    io::DuplexStream,
    time::{Instant, sleep, timeout},
};
use tokio_util::codec::Framed;

use crate::own_frames::{OwnCodec, OwnFrames};

/// What carries the messages.
#[derive(Clone, Copy, Debug)]
enum By {
    Wire,
    Codec,
    Frames,
}

const EACH: [By; 3] = [By::Wire, By::Codec, By::Frames];

type Events = Box<dyn Stream<Item = PeerEvent<Bytes>> + Unpin>;

/// A side that is driven only by taking its events, and its peer.
fn sides(by: By, config: Config) -> (Events, Driver<Bytes>) {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let frames = |stream: DuplexStream| OwnFrames(Framed::new(stream, OwnCodec));
    match by {
        By::Wire => (
            Box::new(Heartbeat::new(ours, config)),
            Heartbeat::new(theirs, config).spawn(),
        ),
        By::Codec => (
            Box::new(Heartbeat::with_codec(ours, OwnCodec, config)),
            Heartbeat::with_codec(theirs, OwnCodec, config).spawn(),
        ),
        By::Frames => (
            Box::new(Heartbeat::with_frames(frames(ours), config)),
            Heartbeat::with_frames(frames(theirs), config).spawn(),
        ),
    }
}

/// Takes messages, and works on each for this time, until `enough` or the end. Returns their
/// number.
async fn handle(mut events: Events, each: impl Fn(usize) -> Duration, enough: usize) -> usize {
    let mut handled = 0;
    while handled < enough {
        match events.next().await {
            Some(PeerEvent::Message(_)) => {
                sleep(each(handled)).await;
                handled += 1;
            }
            None => break,
            Some(PeerEvent::Dead(death)) => panic!("{death:?} after {handled}"),
            Some(_) => {}
        }
    }
    handled
}

/// Keeps the peer's receiver empty, and panics if it gives us up.
fn watch(peer: &mut Driver<Bytes>, by: By) -> impl Future<Output = ()> {
    let sender = peer.sender.clone();
    async move {
        let death = sender.closed().await;
        panic!("{by:?}: {death:?}");
    }
}

/// Sends this many messages, one each `every`, and expects all to be handled.
async fn assert_handled(
    by: By,
    config: Config,
    messages: usize,
    every: Duration,
    each: impl Fn(usize) -> Duration,
) {
    let (events, mut peer) = sides(by, config);
    let sender = peer.sender.clone();
    let sending = async {
        for _ in 0..messages {
            if !every.is_zero() {
                sleep(every).await;
            }
            sender.send(Bytes::from_static(&[7; 96])).await.unwrap();
        }
    };
    let given_up = watch(&mut peer, by);
    let began = Instant::now();
    let handled = tokio::select! {
        (handled, ()) = async { tokio::join!(handle(events, each, messages), sending) } => handled,
        () = given_up => unreachable!(),
    };
    assert_eq!(handled, messages, "{by:?} after {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_hundred_messages_at_once_may_take_longer_than_a_death() {
    for by in EACH {
        for interval in [ms(500), secs(2), secs(10)] {
            let config = Config::builder().interval(interval).timeout(ms(500));
            let config = config.build().unwrap();
            assert_handled(by, config, 100, Duration::ZERO, |_| ms(200)).await;
        }
        assert_handled(by, Config::default(), 100, Duration::ZERO, |_| ms(400)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn so_may_a_steady_stream_that_is_never_caught_up_with() {
    for by in EACH {
        let config = Config::default();
        assert_handled(by, config, 300, ms(100), |_| ms(200)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_take_most_of_the_detection_time() {
    for by in EACH {
        for slowest in [100, 200, 400, 600, 800] {
            let config = Config::detect_within(secs(1)).unwrap();
            let each = move |nth: usize| ms(slowest - u64::try_from(nth % 3).unwrap() * 20);
            assert_handled(by, config, 60, ms(50), each).await;
        }
    }
}

/// The peer may be about to ask when a batch arrives, and has little patience then.
#[tokio::test(start_paused = true)]
async fn a_batch_may_come_at_any_time_between_two_beats() {
    for by in EACH {
        for tenths in (0..250).step_by(few_or_all(5, 1)) {
            let config = Config::builder().interval(secs(10)).timeout(ms(500));
            let config = config.build().unwrap();
            let (mut events, mut peer) = sides(by, config);
            let quiet = async {
                while let Some(event) = events.next().await {
                    assert!(!matches!(event, PeerEvent::Dead(_)), "{event:?}");
                }
            };
            let _ = timeout(ms(100 * tenths), quiet).await;
            let sender = peer.sender.clone();
            for _ in 0..100 {
                sender.send(Bytes::from_static(&[7; 96])).await.unwrap();
            }
            tokio::select! {
                handled = handle(events, |_| ms(200), 100) => assert_eq!(handled, 100),
                () = watch(&mut peer, by) => unreachable!(),
            }
        }
    }
}

/// What comes faster than is taken stays with the peer, at last.
#[tokio::test(start_paused = true)]
async fn a_stream_that_is_never_caught_up_with_takes_no_more_memory() {
    for by in EACH {
        let (mut events, peer) = sides(by, quick());
        let sender = peer.sender.clone();
        let (counting, counted) = mpsc::channel();
        let sending = tokio::spawn(async move {
            while sender.send(vec![7; 10_000].into()).await.is_ok() {
                counting.send(()).unwrap();
            }
        });
        let mut handled = 0;
        while handled < 200 {
            if let Some(PeerEvent::Message(_)) = events.next().await {
                handled += 1;
                sleep(ms(400)).await;
            }
        }
        // The line holds 1 MiB, the peer's queue a fifth of that, and ours a quarter.
        let waiting = counted.try_iter().count() - handled;
        assert!(waiting < 200, "{by:?}: {waiting} of 10 kB");
        sending.abort();
    }
}

/// Reads that come one upon the other aren't timed one by one; and then nothing comes.
#[test]
fn a_burst_and_then_nothing_is_no_reason_to_spin() {
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        runtime().block_on(async {
            let (mut ours, script) = greeted(Config::default()).await;
            for _ in 0..40 {
                script.give([Read::Bytes(data_frame(&[7; 96]).into())]);
                assert!(matches!(ours.next().await, Some(PeerEvent::Message(_))));
            }
            sleep(ms(200)).await;
            assert!(ours.next().now_or_never().is_none());
            done.send(()).unwrap();
        });
    });
    assert_eq!(is_done.recv_timeout(secs(60)), Ok(()), "it spins");
}

/// Whatever came before the task took over hasn't waited in its inbox.
#[tokio::test(start_paused = true)]
async fn what_was_read_before_it_was_spawned_has_not_waited_yet() {
    let limited = quick().to_builder().max_pause(secs(2)).build().unwrap();
    let (mut ours, mut peer) = wrapped(limited);
    peer.greet(quick()).await;
    peer.send_raw(&[data_frame(b"1"), data_frame(b"2")].concat())
        .await;
    while !matches!(ours.next().await, Some(PeerEvent::Message(_))) {}
    sleep(ms(2_100)).await;
    let mut driver = ours.spawn();
    sleep(ms(100)).await;
    peer.send_control(Control::Alive).await;
    let mut events = Vec::new();
    while !matches!(events.last(), Some(PeerEvent::Message(_))) {
        events.push(driver.receiver.recv().await.unwrap());
    }
    assert!(
        !matches!(events.first(), Some(PeerEvent::Dead(_))),
        "{events:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn pings_that_come_one_behind_the_other_are_answered_once_ahead_of_what_follows() {
    let (mut ours, script) = greeted(Config::default()).await;
    let before = script.sent().len();
    let ping = |nth| control_frame(Control::Ping(Nonce([nth; 8])));
    let pings: Vec<u8> = (0..3).flat_map(ping).collect();
    script.give_bytes([pings, data_frame(b"1"), ping(3), data_frame(b"2")].concat());
    let pongs = || {
        let sent = script.sent();
        let sent = frames(&sent[before..]);
        let is_pong = |frame: &OnWire| matches!(frame, OnWire::Control(Control::Pong(_)));
        sent.iter().filter(|(_, frame)| is_pong(frame)).count()
    };
    for answered in [1, 2] {
        let event = ours.next().await;
        assert!(matches!(event, Some(PeerEvent::Message(_))), "{event:?}");
        assert_eq!(pongs(), answered);
    }
}
