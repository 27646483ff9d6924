//! A busy connection, where not every read is timed, falls silent: the verdict
//! is exact all the same. In virtual time.
//!
//! ```text
//!  bytes  ||||||| ||||||  |||||||.
//!                                |<- I·(1-J) + N·W ->|<- J·I ->|
//!                                                    Dead in here
//! ```

use std::time::Duration;

use futures::{SinkExt, StreamExt, future::poll_immediate};
use heartbeat_core::{Control, Nonce};
use heartbeat_tests::{
    data_frame, for_each, ms,
    scripted::{Script, Scripted, control_frame, filler, greeted, runtime},
};
use heartbeat_tokio::{Cause, Config, Heartbeat, PeerEvent};
use proptest::{collection::vec, prelude::*};
use tokio::time::{Instant, advance, sleep, timeout};

/// As exactly as tokio's timers are.
const TICK: Duration = ms(1);

#[test]
fn dead_within_the_bound_after_the_last_byte() {
    check(vec(step(false), 1..400));
}

#[test]
fn also_if_the_runtime_was_stalled_on_the_way() {
    check(vec(step(true), 1..400));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A number of bytes of a message arrive, and a number of microseconds pass.
    Message(usize, u64),
    /// A pong for no ping.
    Pong,
    /// A part of a frame, whose rest comes later.
    Part,
    /// We send.
    Send,
    /// Nothing for this many milliseconds.
    Pause(u64),
    /// Nothing runs for this many milliseconds.
    Stall(u64),
}

fn step(stalls: bool) -> impl Strategy<Value = Step> {
    let stall = if stalls { 1 } else { 0 };
    prop_oneof![
        100 => (0..50_usize, 0..3_000_u64).prop_map(|(size, us)| Step::Message(size, us)),
        60 => (0..50_usize, Just(0_u64)).prop_map(|(size, us)| Step::Message(size, us)),
        1 => Just(Step::Pong),
        // We ping a peer whose frames take long. Reads are timed until the answer comes,
        // which never does here.
        1 => Just(Step::Part),
        1 => Just(Step::Send),
        1 => (0..300_u64).prop_map(Step::Pause),
        stall => (0..20_000_u64).prop_map(Step::Stall),
        stall => (0..200_u64).prop_map(Step::Stall),
    ]
}

fn check(steps: impl Strategy<Value = Vec<Step>>) {
    let config = Config::default();
    let wait = config.timeout() * config.max_missed();
    let earliest = config.interval().mul_f64(1.0 - config.jitter()) + wait;
    let latest = config.detection_time();
    let (mut soonest, mut longest) = (latest, Duration::ZERO);
    for_each(300, steps, |steps| {
        let took = silence_until_dead(config, &steps);
        assert!(took + TICK > earliest, "{took:?} is too early");
        assert!(took <= latest + TICK, "{took:?} is too late");
        soonest = soonest.min(took);
        longest = longest.max(took);
    });
    println!("dead after {soonest:?} to {longest:?}");
    // The jitter was there.
    assert!(longest - soonest > ms(500));
}

/// How long after the last byte.
fn silence_until_dead(config: Config, steps: &[Step]) -> Duration {
    runtime().block_on(async {
        let (heartbeat, script) = greeted(config).await;
        script.record_nothing();
        let (mut sink, mut events) = heartbeat.split();
        let watching = tokio::spawn(async move {
            loop {
                match events.next().await {
                    Some(PeerEvent::Dead(death)) => {
                        assert_eq!(death.cause, Cause::Silent);
                        return Instant::now();
                    }
                    Some(_) => {}
                    None => panic!("no verdict"),
                }
            }
        });
        let mut part = false;
        for step in steps {
            if part {
                script.give_bytes(vec![0]);
                part = false;
            }
            match *step {
                Step::Message(size, micros) => {
                    script.give_bytes(data_frame(&filler(0, size)));
                    tokio::task::yield_now().await;
                    if micros > 0 {
                        advance(Duration::from_micros(micros)).await;
                    }
                }
                Step::Pong => {
                    script.give_bytes(control_frame(Control::Pong(Nonce([1; 8]))));
                }
                Step::Part => {
                    let frame = data_frame(&[0; 10]);
                    script.give_bytes(frame[..frame.len() - 1].to_vec());
                    part = true;
                    tokio::task::yield_now().await;
                }
                Step::Send => sink.send(filler(0, 10)).await.unwrap(),
                Step::Pause(millis) => sleep(ms(millis)).await,
                Step::Stall(millis) => advance(ms(millis)).await,
            }
        }
        // Behind a stall, too, something comes; it is read at once.
        script.give_bytes(match part {
            true => vec![0],
            false => data_frame(&[1; 20]),
        });
        let last = Instant::now();
        watching.await.unwrap() - last
    })
}

/// Messages a millisecond apart, of which the last has come just now.
async fn be_busy(heartbeat: &mut Heartbeat<Scripted>, script: &Script) {
    for _ in 0..40 {
        advance(ms(1)).await;
        script.give_bytes(data_frame(b"busy"));
        let message = heartbeat.next().await;
        assert_eq!(message, Some(PeerEvent::Message("busy".into())));
        assert_eq!(poll_immediate(heartbeat.next()).await, None);
    }
}

#[test]
fn the_clock_isnt_read_for_each_message_of_a_busy_connection() {
    runtime().block_on(async {
        let config = Config::default();
        let (mut heartbeat, script) = greeted(config).await;
        be_busy(&mut heartbeat, &script).await;
        let silent_for = heartbeat.status().silent_for;
        // It is for the first ones, and then once in the slack.
        assert!(silent_for > ms(10), "{silent_for:?}");
        assert!(silent_for <= config.arrival_slack(), "{silent_for:?}");
    });
}

/// The timer woke another task before.
#[test]
fn a_busy_connection_that_another_task_polls_is_dead_within_the_bound() {
    runtime().block_on(async {
        let config = Config::default();
        let (mut heartbeat, script) = greeted(config).await;
        be_busy(&mut heartbeat, &script).await;
        let last = Instant::now();
        let watching = tokio::spawn(async move {
            let events: Vec<_> = heartbeat.collect().await;
            assert!(
                matches!(events.last(), Some(PeerEvent::Dead(_))),
                "{events:?}"
            );
        });
        let watched = timeout(2 * config.detection_time(), watching).await;
        watched.expect("there is a verdict").unwrap();
        assert!(last.elapsed() <= config.detection_time() + TICK);
    });
}
