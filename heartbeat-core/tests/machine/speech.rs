//! When something of ours must leave, and when a foreign protocol lets us ask.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use std::time::Duration;

use heartbeat_core::{
    Cause, Config, Control, Dialogue, Event, Evidence, Instant, Monitor, Nonce, State,
};

/// I = 1 s, W = 1 s, N = 2: dead after 3 s.
fn config() -> Config {
    let second = Duration::from_secs(1);
    let timings = Config::builder().interval(second).timeout(second);
    let timings = timings.max_missed(2).jitter(0.0).adaptive(false);
    timings.build().unwrap()
}

fn speaking(millis: u64) -> Config {
    let within = Duration::from_millis(millis);
    config().to_builder().speak_within(within).build().unwrap()
}

fn at(millis: u64) -> Instant {
    Instant::from_micros(millis * 1000)
}

/// Everything that is to be sent leaves.
fn sent(monitor: &mut Monitor, millis: u64) -> Vec<Control> {
    let frames: Vec<_> = std::iter::from_fn(|| monitor.poll_transmit()).collect();
    if !frames.is_empty() {
        monitor.handle_flushed(at(millis));
    }
    frames
}

fn is_ping(frames: &[Control]) -> bool {
    matches!(frames, [Control::Ping(_)])
}

fn foreign(config: Config) -> Monitor {
    Monitor::new(config, 7, at(0)).without_hello()
}

fn dialogue(may_ping: bool, answers: bool) -> Dialogue {
    Dialogue {
        may_ping,
        answers,
        ..Dialogue::default()
    }
}

#[test]
fn an_alive_leaves_when_nothing_else_has_though_the_peer_sends_all_the_time() {
    let mut monitor = Monitor::new(speaking(300), 7, at(0));
    sent(&mut monitor, 0);
    for millis in 1..300 {
        monitor.handle_message(at(millis));
        monitor.handle_timeout(at(millis));
        assert_eq!(sent(&mut monitor, millis), []);
    }
    assert_eq!(monitor.poll_timeout(), Some(at(300)));
    monitor.handle_timeout(at(300));
    assert_eq!(sent(&mut monitor, 300), [Control::Alive]);
    assert_eq!(monitor.poll_timeout(), Some(at(600)));
}

/// What is late isn't the interval, so nothing is missed, and the peer is asked when it would
/// be anyway: however often it accepts pings, and while that isn't known yet.
#[test]
fn a_driver_that_is_late_for_every_alive_sends_no_ping_for_that() {
    let ten = Duration::from_millis(10);
    let timings = speaking(20).to_builder().timeout(ten).min_interval(ten);
    let timings = timings.adaptive_floor(ten).stall_tolerance(ten);
    let timings = timings.build().unwrap();
    let slow = config()
        .to_builder()
        .min_interval(Duration::from_millis(800));
    let slow = slow.build().unwrap();
    for peer in [None, Some(timings), Some(slow)] {
        let mut monitor = Monitor::new(timings, 7, at(0));
        if let Some(peer) = peer {
            monitor.handle_frame(Control::Hello(peer.hello([1; 8])), at(0));
        }
        sent(&mut monitor, 0);
        let (mut pings, mut stalls) = (0, 0);
        let mut millis = 0;
        while millis < 80_000 {
            millis = monitor.poll_timeout().unwrap().as_micros() / 1000 + 15;
            monitor.handle_timeout(at(millis));
            for frame in sent(&mut monitor, millis) {
                if let Control::Ping(nonce) = frame {
                    pings += 1;
                    monitor.handle_frame(Control::Pong(nonce), at(millis));
                }
            }
            while let Some(event) = monitor.poll_event() {
                stalls += u32::from(matches!(event, Event::LocalStall { .. }));
            }
        }
        assert!(stalls > 1000, "{stalls}");
        // One for each interval of 1 s, of which the first is shorter.
        assert!(pings <= 81, "{pings} pings in 80 s, with {peer:?}");
    }
}

#[test]
fn a_message_that_left_is_speech_too() {
    let mut monitor = Monitor::new(speaking(300), 7, at(0));
    sent(&mut monitor, 0);
    monitor.handle_sent(at(299));
    monitor.handle_message(at(299));
    monitor.handle_timeout(at(300));
    assert_eq!(sent(&mut monitor, 300), []);
    assert_eq!(monitor.poll_timeout(), Some(at(599)));
}

#[test]
fn a_ping_of_speech_in_a_round_moves_neither_its_steps_nor_its_verdict() {
    let mut monitor = foreign(speaking(400));
    let mut pings = 0;
    for millis in 0..3000 {
        monitor.handle_timeout(at(millis));
        pings += sent(&mut monitor, millis).len();
    }
    // The round's at 2 s, and speech 400 ms after whatever left last.
    assert!(pings >= 6, "{pings}");
    assert_eq!(monitor.status().missed, 1);
    monitor.handle_timeout(at(3000));
    let told: Vec<_> = std::iter::from_fn(|| monitor.poll_event()).collect();
    let Some(Event::Dead(death)) = told.last() else {
        panic!("{told:?}");
    };
    assert_eq!((death.cause, death.missed), (Cause::Silent, 2));
}

#[test]
fn an_answer_to_an_old_ping_of_speech_counts_as_an_answer() {
    let echo = heartbeat_core::Evidence::Echo;
    let config = speaking(20).to_builder().evidence(echo).build().unwrap();
    let mut monitor = foreign(config);
    let mut pings: Vec<Nonce> = Vec::new();
    for millis in 0..1500 {
        monitor.handle_timeout(at(millis));
        for frame in sent(&mut monitor, millis) {
            if let Control::Ping(nonce) = frame {
                pings.push(nonce);
            }
        }
    }
    // Sixty came after it, and N is 2.
    let old = pings[pings.len() - 60];
    monitor.handle_frame(Control::Pong(old), at(1500));
    assert_eq!(monitor.status().last_heard, at(1500));
}

#[test]
fn while_no_ping_may_leave_none_does_and_then_it_leaves_at_once() {
    let mut monitor = foreign(config());
    monitor.handle_dialogue(dialogue(false, true), at(0));
    assert_eq!(monitor.poll_timeout(), None);
    monitor.handle_timeout(at(60_000));
    assert_eq!(sent(&mut monitor, 60_000), []);
    assert_eq!(monitor.status().state, State::Alive);

    monitor.handle_dialogue(Dialogue::default(), at(60_000));
    assert!(is_ping(&sent(&mut monitor, 60_000)));
    monitor.handle_timeout(at(61_999));
    assert_eq!(monitor.status().state, State::Suspect);
    monitor.handle_timeout(at(62_000));
    assert_eq!(monitor.status().state, State::Dead);
}

#[test]
fn a_round_that_has_asked_goes_on_while_no_other_ping_may_leave() {
    let mut monitor = foreign(config());
    monitor.handle_timeout(at(1000));
    assert!(is_ping(&sent(&mut monitor, 1000)));
    monitor.handle_dialogue(dialogue(false, true), at(1500));
    for millis in [2000, 2999] {
        monitor.handle_timeout(at(millis));
        assert_eq!(sent(&mut monitor, millis), []);
    }
    monitor.handle_timeout(at(3000));
    assert_eq!(monitor.status().state, State::Dead);
}

/// A ping has left at 1 s, and from 1.5 s on no other may.
fn asked_once(config: Config) -> Monitor {
    let mut monitor = foreign(config);
    monitor.handle_timeout(at(1000));
    assert!(is_ping(&sent(&mut monitor, 1000)));
    monitor.handle_dialogue(dialogue(false, true), at(1500));
    monitor
}

/// Nothing else comes: it is dead at `millis`, and not before, and isn't asked again.
fn assert_dead_at(mut monitor: Monitor, millis: u64) {
    while let Some(deadline) = monitor.poll_timeout() {
        monitor.handle_timeout(deadline);
        assert!(!is_ping(&sent(&mut monitor, millis)));
        let died = std::iter::from_fn(|| monitor.poll_event()).find_map(|event| match event {
            Event::Dead(death) => Some(death.cause),
            _ => None,
        });
        if let Some(cause) = died {
            return assert_eq!((cause, deadline), (Cause::Silent, at(millis)));
        }
    }
    panic!("nobody judges it");
}

#[test]
fn a_ping_that_waits_for_its_answer_is_judged_by_while_no_other_may_leave() {
    // Its kernel takes data ahead of the ping, until 2.5 s.
    let mut monitor = asked_once(config());
    monitor.handle_taken(at(2500), at(2500));
    assert_eq!(monitor.poll_timeout(), Some(at(3500)));
    assert_dead_at(monitor.clone(), 5500);

    // Or has the ping then.
    monitor.probe(at(2500));
    assert_dead_at(monitor, 4500);

    // Or a part of something else arrives.
    let mut monitor = asked_once(config());
    monitor.handle_bytes(at(2500));
    assert_dead_at(monitor, 5500);
}

#[test]
fn nothing_is_waited_for_once_the_ping_is_answered_and_no_other_may_leave() {
    let mut monitor = asked_once(config());
    monitor.handle_taken(at(2500), at(2500));
    monitor.handle_timeout(at(3500));
    monitor.handle_unnumbered_pong(at(4000));
    assert_eq!(monitor.poll_timeout(), None);

    // Where the peer's kernel counts, that has answered.
    let kernel = config().to_builder();
    let kernel = kernel.evidence(Evidence::Acknowledgement).build().unwrap();
    let mut monitor = asked_once(kernel);
    monitor.handle_acknowledged(at(2500), at(2500));
    assert_eq!(monitor.poll_timeout(), None);
}

#[test]
fn a_ping_that_is_due_behind_an_unanswered_one_leaves_when_it_may_and_costs_no_time() {
    let mut monitor = asked_once(config());
    monitor.handle_bytes(at(2500));
    monitor.handle_timeout(at(3500));
    monitor.handle_timeout(at(4500));
    assert_eq!(monitor.status().missed, 1);
    monitor.handle_dialogue(Dialogue::default(), at(4600));
    assert!(is_ping(&sent(&mut monitor, 4600)));
    monitor.handle_timeout(at(5499));
    assert_eq!(monitor.status().state, State::Suspect);
    monitor.handle_timeout(at(5500));
    assert_eq!(monitor.status().state, State::Dead);
}

#[test]
fn a_round_whose_ping_may_not_leave_goes_on_if_an_earlier_one_is_unanswered() {
    let mut monitor = foreign(config());
    monitor.handle_timeout(at(1000));
    assert!(is_ping(&sent(&mut monitor, 1000)));
    monitor.handle_bytes(at(1500));
    // A round begins, and its ping isn't handed out.
    monitor.handle_timeout(at(2500));
    monitor.handle_dialogue(dialogue(false, true), at(2600));
    assert_dead_at(monitor, 4500);
}

#[test]
fn a_peer_that_cannot_answer_is_not_judged_and_then_afresh() {
    let mut monitor = foreign(config());
    monitor.handle_timeout(at(1000));
    assert!(is_ping(&sent(&mut monitor, 1000)));
    monitor.handle_dialogue(dialogue(true, false), at(1500));
    assert_eq!(monitor.status().state, State::Occupied);
    monitor.handle_timeout(at(100_000));
    assert_eq!(monitor.status().state, State::Occupied);

    monitor.handle_dialogue(Dialogue::default(), at(100_000));
    assert_eq!(monitor.poll_timeout(), Some(at(101_000)));
    for millis in [101_000, 102_000, 102_999] {
        monitor.handle_timeout(at(millis));
        sent(&mut monitor, millis);
        assert_ne!(monitor.status().state, State::Dead, "{millis}");
    }
    monitor.handle_timeout(at(103_000));
    assert_eq!(monitor.status().state, State::Dead);
}

#[test]
fn beats_that_come_by_themselves_make_the_interval_as_long_up_to_max_stretch() {
    let mut monitor = foreign(speaking(500));
    let beats = |seconds| Dialogue {
        beats_every: Some(Duration::from_secs(seconds)),
        ..Dialogue::default()
    };
    monitor.handle_dialogue(beats(2), at(0));
    let status = monitor.status();
    assert_eq!(status.interval, Duration::from_secs(2));
    assert_eq!(status.detection_time, Duration::from_secs(4));
    // Ours are no slower for that.
    assert_eq!(status.speak_within, Some(Duration::from_millis(500)));
    assert_eq!(monitor.poll_timeout(), Some(at(500)));

    monitor.handle_dialogue(beats(3600), at(0));
    assert_eq!(monitor.detection(), Duration::from_secs(12));
    monitor.handle_dialogue(Dialogue::default(), at(0));
    assert_eq!(monitor.detection(), Duration::from_secs(3));
}

trait Detection {
    fn detection(&self) -> Duration;
}

impl Detection for Monitor {
    fn detection(&self) -> Duration {
        self.status().detection_time
    }
}

#[test]
fn data_that_the_peers_kernel_takes_is_life_in_a_foreign_protocol_only() {
    let mut monitor = foreign(config());
    monitor.handle_timeout(at(1000));
    sent(&mut monitor, 1000);
    monitor.handle_taken(at(2500), at(2900));
    assert_eq!(monitor.status().last_heard, at(2500));
    monitor.handle_timeout(at(5499));
    assert_ne!(monitor.status().state, State::Dead);

    let mut monitor = Monitor::new(config(), 7, at(0));
    monitor.handle_taken(at(500), at(500));
    assert_eq!(monitor.status().last_heard, at(0));
}
