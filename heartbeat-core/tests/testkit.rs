//! The testkit itself: what it simulates, what it asserts, and what it draws.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic too")]

use heartbeat_core::{
    Cause, Config, ConfigBuilder, ConfigError, Control, Death, Event, Hello, Monitor, Status,
    testkit::{Direction, Link, Side, Simulation, hours, minutes, ms, secs},
};
use proptest::prelude::*;

/// No randomness in the timings: dead after 14 s.
fn steady() -> Config {
    Config::builder().jitter(0.0).build().unwrap()
}

#[test]
fn a_healthy_hour_has_beats_and_nothing_else() {
    let report = Simulation::new(steady(), Link::new().rtt(ms(40)), 1).run_for(hours(1));
    report.assert_no_false_alarm().unwrap();
    assert_eq!(report.lasted(), hours(1));
    for side in [Side::A, Side::B] {
        assert!(report.beats(side) > 700, "{}", report.beats(side));
        assert_eq!(report.pings_sent(side), report.beats(side));
        assert_eq!(report.suspicions(side), 0);
        let events: Vec<_> = report.events(side).map(|(_, event)| event).collect();
        assert!(
            matches!(events[..], [Event::Connected { .. }]),
            "{events:?}"
        );
    }
}

#[test]
fn a_hung_peer_is_found_and_that_is_no_mistake() {
    let report = Simulation::new(steady(), Link::new(), 1)
        .hang(Side::B, secs(60))
        .run_for(minutes(2));
    report.assert_no_false_alarm().unwrap();
    report
        .assert_detects_within(steady().detection_time())
        .unwrap();
    let too_soon = report.assert_detects_within(secs(8)).unwrap_err();
    assert!(
        too_soon.to_string().starts_with("a knew after "),
        "{too_soon}"
    );
    assert_eq!(report.death(Side::A).unwrap().cause, Cause::Silent);
    assert_eq!(report.death(Side::B), None);
}

#[test]
fn a_cut_is_found_by_both_sides() {
    for direction in [Direction::Both, Direction::AToB, Direction::BToA] {
        let report = Simulation::new(steady(), Link::new().rtt(ms(10)), 1)
            .cut(direction, secs(60))
            .run_for(minutes(3));
        report.assert_no_false_alarm().unwrap();
        // With one direction cut, the other lets one more segment through.
        report
            .assert_detects_within(steady().detection_time() * 2)
            .unwrap();
        assert!(report.detection_time(Side::A).is_some());
        assert!(report.detection_time(Side::B).is_some());
    }
}

#[test]
fn a_killed_peer_is_found_when_its_end_arrives() {
    let report = Simulation::new(steady(), Link::new().rtt(ms(10)), 1)
        .kill(Side::A, secs(60))
        .run_for(minutes(2));
    report.assert_detects_within(ms(5)).unwrap();
    assert_eq!(report.death(Side::B).unwrap().cause, Cause::Eof);
}

#[test]
fn a_partition_that_is_too_long_is_a_false_alarm_with_a_timeline() {
    let report = Simulation::new(steady(), Link::new().rtt(ms(20)), 7)
        .partition(Direction::Both, secs(60), secs(30))
        .run_for(minutes(2));
    let (_, death) = report.mistake().unwrap();
    assert_eq!(death.cause, Cause::Silent);
    let failure = report.assert_no_false_alarm().unwrap_err().to_string();
    for part in [
        "was alive: silent for 14s",
        "rtt: 20ms",
        "seed 7",
        "partitioned for 30s",
        "** Dead",
    ] {
        assert!(failure.contains(part), "{part} is missing in:\n{failure}");
    }
}

#[test]
fn nothing_is_shown_by_a_run_without_a_fault_or_one_that_is_too_short() {
    let healthy = Simulation::new(steady(), Link::new(), 1);
    let error = healthy
        .clone()
        .run_for(secs(60))
        .assert_detects_within(secs(60));
    assert!(
        error
            .unwrap_err()
            .to_string()
            .starts_with("there was no fault")
    );
    let error = healthy
        .hang(Side::B, secs(60))
        .run_for(secs(65))
        .assert_detects_within(secs(60));
    assert!(
        error
            .unwrap_err()
            .to_string()
            .starts_with("the run ended before")
    );
}

#[test]
fn a_reader_that_pauses_is_neither_given_up_nor_gives_up() {
    let report = Simulation::new(steady(), Link::new().rtt(ms(20)), 7)
        .messages(Side::A, secs(1), 100_000)
        .pause_reading(Side::B, secs(60), minutes(10))
        .run_for(minutes(20));
    report.assert_no_false_alarm().unwrap();
}

#[test]
fn a_message_larger_than_the_window_arrives_in_pieces() {
    // Ten round trips of a second each: longer than the detection time.
    let report = Simulation::new(steady(), Link::new().rtt(secs(2)).window(10_000), 7)
        .messages(Side::A, minutes(2), 100_000)
        .run_for(minutes(20));
    report.assert_no_false_alarm().unwrap();
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let link = Link::new()
        .rtt(ms(50))
        .jitter(ms(50))
        .loss(0.1)
        .outage(secs(5));
    let run = |seed| {
        let simulation = Simulation::new(Config::wan(), link.clone(), seed);
        simulation
            .lateness(Side::A, ms(20))
            .run_for(hours(1))
            .timeline()
            .to_string()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_configs_are_what_a_builder_accepts(config: Config) {
        prop_assert_eq!(config.to_builder().build(), Ok(config));
    }

    #[test]
    fn builders_never_panic_and_errors_name_a_knob(builder: ConfigBuilder, error: ConfigError) {
        let _ = builder.build();
        prop_assert!(!error.field().is_empty());
    }

    #[test]
    fn arbitrary_frames_are_what_a_decoder_accepts(control: Control, hello: Hello) {
        for control in [control, Control::Hello(hello)] {
            let mut buffer = [0; Control::MAX_ENCODED];
            let bytes = control.encode(&mut buffer).unwrap();
            prop_assert_eq!(Control::decode(bytes), Ok(control));
        }
    }

    #[test]
    fn everything_else_can_be_drawn_and_printed(
        event: Event,
        death: Death,
        status: Status,
        monitor: Monitor,
        link: Link,
    ) {
        let printed = format!("{event:?} {death} {status:?} {monitor:?} {link:?}");
        prop_assert!(!printed.is_empty());
        prop_assert!(!monitor.has_ended());
    }

    #[test]
    fn links_are_drawn_from_their_ranges(
        link in Link::strategy().rtt(ms(20)..=ms(20)).loss(..=0.0).outage(secs(1)..secs(1)),
    ) {
        prop_assert_eq!(link, Link::new().rtt(ms(20)).outage(secs(1)));
    }
}
