//! Protocols that have a ping of their own: no Hello, pongs without numbers;
//! and what a kernel knows of the peer.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use core::time::Duration;

use crate::common::{ms, secs};
use heartbeat_core::{
    Config, ConfigBuilder, Control, Dialogue, Event, Evidence, Instant, Monitor, Nonce, State,
};

/// 10 s, 2 s, 3 misses: dead after 16 s.
fn timings() -> ConfigBuilder {
    Config::builder()
        .interval(secs(10))
        .timeout(secs(2))
        .max_missed(3)
        .adaptive(false)
        .jitter(0.0)
}

fn at(seconds: u64) -> Instant {
    Instant::ORIGIN + secs(seconds)
}

/// Wakes up on time until `end`, and sends at once what is to be sent.
fn wait_until(monitor: &mut Monitor, end: Instant) -> Vec<Control> {
    let mut sent = Vec::new();
    let drain = |monitor: &mut Monitor, now, sent: &mut Vec<Control>| {
        sent.extend(std::iter::from_fn(|| monitor.poll_transmit()));
        monitor.handle_flushed(now);
    };
    while let Some(deadline) = monitor.poll_timeout().filter(|&deadline| deadline <= end) {
        monitor.handle_timeout(deadline);
        drain(monitor, deadline, &mut sent);
    }
    drain(monitor, end, &mut sent);
    sent
}

fn events(monitor: &mut Monitor) -> Vec<Event> {
    std::iter::from_fn(|| monitor.poll_event()).collect()
}

#[test]
fn without_a_hello_none_is_sent() {
    let mut monitor = Monitor::new(timings().build().unwrap(), 1, at(0)).without_hello();
    assert!(!monitor.has_transmit());
    assert_eq!(wait_until(&mut monitor, at(9)), []);
    let sent = wait_until(&mut monitor, at(10));
    assert!(matches!(sent[..], [Control::Ping(_)]), "{sent:?}");
}

/// It is our direction that ends with it.
#[test]
fn a_ping_that_arrives_while_our_fin_leaves_is_not_answered() {
    let mut monitor = Monitor::new(timings().build().unwrap(), 1, at(0)).without_hello();
    monitor.finish(at(1));
    assert_eq!(monitor.poll_transmit(), Some(Control::Fin));
    monitor.handle_frame(Control::Ping(Nonce([1; 8])), at(2));
    monitor.handle_flushed(at(3));
    assert_eq!(monitor.poll_transmit(), None);
    assert_eq!(monitor.status().state, State::HalfClosed);
}

/// Nothing may be sent, and nothing is answered.
const SILENCE: Dialogue = Dialogue {
    may_ping: false,
    answers: false,
    beats_every: None,
};

#[test]
fn our_own_protocol_allows_pings_whatever_the_dialogue_says() {
    let mut monitor = Monitor::new(timings().build().unwrap(), 1, at(0));
    wait_until(&mut monitor, at(1));
    let before = monitor.dialogue();
    monitor.handle_dialogue(SILENCE, at(2));
    assert_eq!(monitor.dialogue(), before);
    let sent = wait_until(&mut monitor, at(10));
    assert!(matches!(sent[..], [Control::Ping(_)]), "{sent:?}");
}

#[test]
fn a_dialogue_after_our_fin_or_the_end_changes_nothing() {
    let start = Monitor::new(timings().build().unwrap(), 1, at(0)).without_hello();
    let mut half_closed = start.clone();
    half_closed.finish(at(1));
    wait_until(&mut half_closed, at(1));
    assert_eq!(half_closed.status().state, State::HalfClosed);
    let mut dead = start;
    wait_until(&mut dead, at(20));
    assert!(dead.has_ended());
    for mut monitor in [half_closed, dead] {
        let before = monitor.dialogue();
        monitor.handle_dialogue(SILENCE, at(21));
        assert_eq!(monitor.dialogue(), before);
    }
}

#[test]
fn a_dialogue_tells_what_the_protocol_allows_and_expects() {
    let mut monitor = Monitor::new(timings().build().unwrap(), 1, at(0)).without_hello();
    let open = Dialogue {
        may_ping: true,
        answers: true,
        beats_every: None,
    };
    assert_eq!(monitor.dialogue(), open);
    let beats_every = |every| Dialogue {
        beats_every: every,
        ..SILENCE
    };
    for every in [Some(secs(30)), Some(secs(1)), None] {
        monitor.handle_dialogue(beats_every(every), at(1));
        assert_eq!(monitor.dialogue(), beats_every(every));
    }
    // No beats are expected without an interval between them.
    monitor.handle_dialogue(beats_every(Some(Duration::ZERO)), at(1));
    assert_eq!(monitor.dialogue(), SILENCE);
}

/// A ping only shows that we live, and hasn't left when no other one may leave any more.
#[test]
fn a_ping_that_has_not_left_asks_nothing_though_no_other_may_leave() {
    let config = timings().speak_within(secs(3)).build().unwrap();
    let mut monitor = Monitor::new(config, 1, at(0)).without_hello();
    monitor.handle_timeout(at(3));
    let sent = monitor.poll_transmit();
    assert!(matches!(sent, Some(Control::Ping(_))), "{sent:?}");
    let held = Dialogue {
        answers: true,
        ..SILENCE
    };
    monitor.handle_dialogue(held, at(4));
    while let Some(deadline) = monitor.poll_timeout().filter(|&at| at < self::at(16)) {
        monitor.handle_timeout(deadline);
    }
    assert_eq!(events(&mut monitor), []);
    assert_eq!(monitor.status().missed, 0);
}

#[test]
fn a_ping_is_unanswered_from_its_making_to_its_answer() {
    let mut monitor = Monitor::new(timings().build().unwrap(), 1, at(0)).without_hello();
    assert!(!monitor.has_unanswered());
    wait_until(&mut monitor, at(10));
    assert!(monitor.has_unanswered());
    monitor.handle_unnumbered_pong(at(11));
    assert!(!monitor.has_unanswered());
}

#[test]
fn a_peer_that_was_told_no_limit_is_held_to_none() {
    let flood = |mut monitor: Monitor| {
        for _ in 0..100_000 {
            monitor.handle_frame(Control::Ping(Nonce([1; 8])), at(1));
        }
        monitor.has_ended()
    };
    let config = timings().build().unwrap();
    assert!(!flood(Monitor::new(config, 1, at(0)).without_hello()));
    assert!(flood(Monitor::new(config, 1, at(0))));
}

#[test]
fn an_unnumbered_pong_answers_the_ping_and_tells_its_round_trip() {
    let mut monitor = Monitor::new(timings().build().unwrap(), 1, at(0)).without_hello();
    wait_until(&mut monitor, at(10));
    monitor.handle_unnumbered_pong(at(10) + ms(30));
    assert_eq!(events(&mut monitor), [Event::Beat { rtt: ms(30) }]);
    assert_eq!(monitor.status().pongs, 1);
    // There is no ping that another one could answer.
    monitor.handle_unnumbered_pong(at(11));
    assert_eq!(events(&mut monitor), []);
    assert_eq!(monitor.status().pongs, 1);
    assert_eq!(monitor.status().last_heard, at(11));
}

#[test]
fn unnumbered_pongs_answer_in_order() {
    let config = timings().evidence(Evidence::Echo).build().unwrap();
    let mut monitor = Monitor::new(config, 1, at(0)).without_hello();
    // Pings at 10, 12 and 14 s.
    assert_eq!(wait_until(&mut monitor, at(14)).len(), 3);
    events(&mut monitor);
    monitor.handle_unnumbered_pong(at(15));
    assert_eq!(
        events(&mut monitor),
        [
            Event::Recovered {
                silent_for: secs(15)
            },
            Event::Beat { rtt: secs(5) },
        ]
    );
    // The time at which the one in the middle left isn't kept.
    monitor.handle_unnumbered_pong(at(15));
    assert_eq!(events(&mut monitor), []);
    monitor.handle_unnumbered_pong(at(15));
    assert_eq!(events(&mut monitor), [Event::Beat { rtt: secs(1) }]);
    assert_eq!(monitor.status().pongs, 3);
    // With `Echo` a pong for nothing is no evidence.
    monitor.handle_unnumbered_pong(at(16));
    assert_eq!(monitor.status().last_heard, at(15));
}

#[test]
fn an_acknowledgement_holds_the_verdict_back_only_for_who_asked_for_that() {
    let died_at = |evidence| {
        let config = timings().evidence(evidence).build().unwrap();
        let mut monitor = Monitor::new(config, 1, at(0));
        wait_until(&mut monitor, at(12));
        // The ping of second 10 was acknowledged at once.
        monitor.handle_acknowledged(at(10) + ms(1), at(13));
        wait_until(&mut monitor, at(60));
        match events(&mut monitor).pop() {
            Some(Event::Dead(death)) => monitor.status().last_heard + death.silent_for,
            other => panic!("{other:?}"),
        }
    };
    for (evidence, since_start) in [
        (Evidence::Acknowledgement, secs(26) + ms(1)),
        (Evidence::AnyBytes, secs(16)),
        (Evidence::Frame, secs(16)),
        (Evidence::Echo, secs(16)),
    ] {
        assert_eq!(died_at(evidence), at(0) + since_start, "{evidence:?}");
    }
}

#[test]
fn an_acknowledgement_that_is_known_already_says_nothing_new() {
    let config = timings()
        .evidence(Evidence::Acknowledgement)
        .build()
        .unwrap();
    let mut monitor = Monitor::new(config, 1, at(0));
    wait_until(&mut monitor, at(12));
    monitor.handle_acknowledged(at(10) + ms(1), at(13));
    assert_eq!(monitor.status().last_heard, at(10) + ms(1));
    assert_eq!(monitor.status().state, State::Alive);
    wait_until(&mut monitor, at(22) + ms(1));
    assert_eq!(monitor.status().state, State::Suspect);
    monitor.handle_acknowledged(at(10) + ms(1), at(23));
    assert_eq!(monitor.status().state, State::Suspect);
    wait_until(&mut monitor, at(26));
    assert_eq!(monitor.status().state, State::Suspect);
    wait_until(&mut monitor, at(26) + ms(1));
    assert_eq!(monitor.status().state, State::Dead);
}
