//! An application that takes one message after another, slowly, and is never idle: it
//! lives for its peer, whatever carries the messages.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may panic too"
)]

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use heartbeat_tests::{few_or_all, ms, secs};
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

/// One side that nobody drives but by taking events, and its peer.
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

/// Takes messages, each for so long, until `enough` or the end. Says how many there
/// were.
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

/// Sends so many messages, each after `every`, and expects all to be handled.
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
