//! Peers that we don't trust: what they may announce, how fast their bytes must
//! come, and an application of our own that takes nothing.

#![allow(clippy::unwrap_used, reason = "what a test needs, it needs")]

use crate::common::{INSTANCE, MICRO, Run, YEAR, at, ms, secs, us};
use heartbeat_core::{
    Cause, Config, ConfigBuilder, Control, Event, Evidence, GoodbyeCode, Hello, Monitor,
    ProtocolError, State,
};

/// Dead after 16 s, and 4 · 16 s at most.
fn timings() -> ConfigBuilder {
    Config::builder()
        .interval(secs(10))
        .timeout(secs(2))
        .jitter(0.0)
}

fn start() -> Run {
    Run::new(timings().build().unwrap())
}

/// A peer that accepts a ping in this time.
fn accepts(min_interval: core::time::Duration) -> Hello {
    let slow = Config::builder().interval(YEAR).timeout(YEAR);
    let slow = slow.min_interval(min_interval).build().unwrap();
    slow.hello(INSTANCE)
}

fn meet(run: &mut Run, hello: Hello) {
    run.at(secs(1), |monitor, now| {
        monitor.handle_frame(Control::Hello(hello), now);
    });
}

// ---- max_stretch -------------------------------------------------------------

#[test]
fn a_hello_stretches_our_detection_time_to_four_times_and_not_a_microsecond_more() {
    let longest = secs(4 * 16 - 6);
    let mut run = start();
    meet(&mut run, accepts(longest));
    assert_eq!(run.monitor.status().detection_time, secs(64));
    run.assert_dies_at(secs(1 + 64));

    for too_long in [longest + MICRO, secs(3_600), YEAR] {
        let mut run = start();
        meet(&mut run, accepts(too_long));
        let (when, death) = run.death().unwrap();
        assert_eq!((when, death.cause), (secs(1), Cause::Refused));
        let told = Control::Goodbye(GoodbyeCode::REFUSED);
        assert_eq!(run.sent.last(), Some(&(secs(1), told)));
        // Nothing of it was taken.
        let status = run.monitor.status();
        assert_eq!((status.interval, status.peer), (secs(10), None));
    }
}

#[test]
fn with_a_stretch_of_one_no_peer_makes_us_ask_less_often() {
    for (accepted, refused) in [(secs(10), false), (secs(10) + MICRO, true)] {
        let mut run = Run::new(timings().max_stretch(1).build().unwrap());
        meet(&mut run, accepts(accepted));
        assert_eq!(run.death().is_some(), refused);
        assert_eq!(run.monitor.status().detection_time, secs(16));
    }
}

/// Also the first that was accepted stays in force.
#[test]
fn a_later_hello_is_refused_like_the_first() {
    let mut run = start();
    meet(&mut run, accepts(secs(20)));
    run.at(secs(2), |monitor, now| {
        monitor.handle_frame(Control::Hello(accepts(YEAR)), now);
    });
    assert_eq!(run.death().unwrap().1.cause, Cause::Refused);
    assert_eq!(run.monitor.status().interval, secs(20));
}

#[test]
fn a_refusal_names_the_value_and_the_bound() {
    let config = timings().build().unwrap();
    let told = |hello: &Hello| config.refusal(hello).map(|refusal| refusal.to_string());
    assert_eq!(told(&accepts(secs(58))), None);
    let slow = "a min_interval of 58.000001s, at most 58s is accepted";
    assert_eq!(told(&accepts(secs(58) + MICRO)).unwrap(), slow);
    let mut hasty = accepts(ms(1));
    hasty.interval = ms(1);
    hasty.detection_time = us(99_999);
    let hasty = told(&hasty).unwrap();
    assert_eq!(
        hasty,
        "a detection time of 99.999ms, at least 100ms is accepted"
    );
    // The longest of them fits into a goodbye.
    let mut most = timings().interval(YEAR - MICRO).timeout(YEAR - MICRO);
    most = most.max_missed(255).max_stretch(255);
    let (config, mut endless) = (most.build().unwrap(), accepts(YEAR));
    endless.min_interval = core::time::Duration::MAX;
    let longest = config.refusal(&endless).unwrap().to_string();
    assert!(
        longest.len() <= heartbeat_core::Goodbye::MAX_DETAIL,
        "{longest}"
    );
}

// ---- ourselves ---------------------------------------------------------------

#[test]
fn our_own_instance_in_a_hello_is_a_loop_under_every_evidence() {
    for evidence in [Evidence::AnyBytes, Evidence::Frame, Evidence::Echo] {
        let config = timings().evidence(evidence).build().unwrap();
        let mut run = Run::new(config);
        let Some(&(_, ours @ Control::Hello(_))) = run.sent.first() else {
            unreachable!("a Hello comes first");
        };
        run.at(secs(1), |monitor, now| monitor.handle_frame(ours, now));
        let (when, death) = run.death().unwrap();
        let cause = Cause::Protocol(ProtocolError::Loop);
        assert_eq!((when, death.cause), (secs(1), cause));
        let told = Control::Goodbye(GoodbyeCode::PROTOCOL);
        assert_eq!(run.sent.last(), Some(&(secs(1), told)));
        assert_eq!(run.monitor.status().peer, None);
    }
}

#[test]
fn a_protocol_without_a_hello_of_ours_knows_no_loop() {
    let config = timings().build().unwrap();
    let mut run = Run::foreign(config, 1);
    let Some(&(_, ours)) = Run::new(config).sent.first() else {
        unreachable!("a Hello comes first");
    };
    run.at(secs(1), |monitor, now| monitor.handle_frame(ours, now));
    run.assert_alive();
}

// ---- min_rate ----------------------------------------------------------------

#[test]
fn bytes_are_wanted_for_the_time_since_the_last_evidence() {
    let wanted = |rate: u32, silence| {
        let config = timings().min_rate(rate).build().unwrap();
        let mut monitor = Monitor::new(config, 1, at(secs(0)));
        monitor.handle_message(at(secs(5)));
        monitor.bytes_wanted(at(secs(5) + silence))
    };
    assert_eq!(wanted(100, secs(0)), 1, "something has to come");
    assert_eq!(wanted(100, MICRO), 1);
    assert_eq!(wanted(100, ms(10)), 1);
    assert_eq!(wanted(100, ms(10) + MICRO), 2);
    assert_eq!(wanted(100, secs(14)), 1400);
    assert_eq!(wanted(1, secs(14)), 14);
    assert_eq!(wanted(0, secs(14)), 1, "any byte will do");
    assert_eq!(wanted(u32::MAX, secs(1_000_000)), 4_294_967_295_000_000);
}

#[test]
fn no_time_and_no_rate_overflow_what_is_wanted() {
    let config = timings().min_rate(u32::MAX).build().unwrap();
    let monitor = Monitor::new(config, 1, at(secs(0)));
    assert_eq!(monitor.bytes_wanted(heartbeat_core::Instant::MAX), u64::MAX);
}

// ---- max_pause ---------------------------------------------------------------

#[test]
fn an_application_that_takes_nothing_ends_the_connection_and_the_peer_is_told() {
    // In a round, and in a pause.
    let enters: [fn(&mut Run); 2] = [|_| {}, |run| run.at(secs(1), Monitor::handle_paused)];
    for (enter, missed) in enters.into_iter().zip([1, 0]) {
        let mut run = start();
        enter(&mut run);
        run.at(secs(13), Monitor::handle_not_reading);
        let (when, death) = run.death().unwrap();
        assert_eq!((when, death.cause), (secs(13), Cause::NotReading));
        assert_eq!(death.missed, missed);
        let told = Control::Goodbye(GoodbyeCode::NOT_READING);
        assert_eq!(run.sent.last(), Some(&(secs(13), told)));
        assert_eq!(run.monitor.poll_timeout(), None);
    }
}

#[test]
fn a_connection_that_has_ended_does_not_end_again() {
    let mut run = start();
    run.assert_dies_at(secs(16));
    run.told.clear();
    run.at(secs(17), Monitor::handle_not_reading);
    assert_eq!(run.told, []);
    assert_eq!(run.monitor.status().state, State::Dead);
}

#[test]
fn not_reading_is_known_as_such() {
    let mut run = start();
    run.at(secs(1), Monitor::handle_not_reading);
    let Some((_, Event::Dead(death))) = run.told.last() else {
        unreachable!("it ended");
    };
    let said = "our application takes no messages, silent for 1s";
    assert_eq!(death.to_string(), said);
}
