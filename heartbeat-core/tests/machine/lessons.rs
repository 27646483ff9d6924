//! What went wrong in other people's heartbeats, and goes right here.
//!
//! Each test is named after the lesson in `docs/testing.md` that it keeps; the
//! line above it is the public thread, and what happened there. All of them
//! drive a [`Monitor`] in virtual time. Unless a test says otherwise the
//! interval is 10 s, the timeout 2 s, and three misses are deadly:
//!
//! ```text
//!  last sign of life     ping      ping      ping      dead
//!  |                     |         |         |         |
//!  0 s                   10 s      12 s      14 s      16 s
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what a test needs, it needs"
)]

use core::time::Duration;

use crate::common::{
    GOODBYE, INSTANCE, LEFT, MICRO, RECEIVED, Run, YEAR, at, converse, leave, ms, secs, us,
};
use heartbeat_core::{
    Cause, CloseReason, Config, ConfigBuilder, Control, End, Event, Evidence, GoodbyeCode, Hello,
    Instant, Monitor, Nonce, ProtocolError, Role, State,
};

const HOUR: Duration = secs(3600);

fn timings() -> ConfigBuilder {
    Config::builder()
        .interval(secs(10))
        .timeout(secs(2))
        .max_missed(3)
        .max_stretch(255)
        .jitter(0.0)
}

/// A monitor with the timings above.
fn start() -> Run {
    Run::new(timings().build().unwrap())
}

/// A monitor with the timings above and one thing changed.
fn start_with(change: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Run {
    Run::new(change(timings()).build().unwrap())
}

/// The other end of a connection.
fn start_other(change: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Run {
    Run::seeded(change(timings()).build().unwrap(), 2)
}

/// The Hello of a peer with the timings above and one thing changed.
fn hello(change: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Control {
    Control::Hello(change(timings()).build().unwrap().hello(INSTANCE))
}

fn bytes(monitor: &mut Monitor, now: Instant) {
    monitor.handle_bytes(now);
}

fn message(monitor: &mut Monitor, now: Instant) {
    monitor.handle_message(now);
}

fn frame(control: Control) -> impl Fn(&mut Monitor, Instant) {
    move |monitor, now| monitor.handle_frame(control, now)
}

// ---- what counts as life --------------------------------------------------

/// python-websockets #1187: killed while 100 messages a minute arrived.
#[test]
fn lesson_01_any_message_is_a_sign_of_life() {
    let mut run = start();
    for count in 1..=1000 {
        run.at(ms(600) * count, message);
    }
    assert_eq!(run.told, []);

    // Also one at the very last moment, with three pings unanswered.
    run.at(secs(600 + 16) - MICRO, message);
    assert_eq!(run.pings().len(), 3);
    run.assert_dies_at(secs(616 + 16) - MICRO);
}

/// envoy PR #21077: the ACK waited behind other frames.
#[test]
fn lesson_02_any_frame_answers_an_outstanding_probe() {
    let stale_pong = Control::Pong(Nonce(*b"anything"));
    let others = [Control::Alive, Control::Fin, Control::Reserved, stale_pong];
    for other in others.into_iter().chain([hello(|same| same)]) {
        let mut run = start();
        run.until(secs(10));
        assert_eq!(run.pings(), [secs(10)]);

        run.at(secs(12) - MICRO, frame(other));
        run.just_before(secs(22) - MICRO);
        assert_eq!(run.suspicions(), 0, "{other:?}");
        assert_eq!(run.pings(), [secs(10)]);

        // The pong that comes behind it is still the answer to its ping.
        let mut run = start();
        run.until(secs(10));
        run.at(secs(12) - MICRO, frame(other));
        run.at(secs(13), frame(run.answer()));
        assert_eq!(
            run.told.last(),
            Some(&(secs(13), Event::Beat { rtt: secs(3) }))
        );
    }
}

/// A peer that asks hears nothing: it says nothing of whether it hears us.
#[test]
fn a_question_is_no_answer() {
    for evidence in [Evidence::AnyBytes, Evidence::Frame, Evidence::Echo] {
        let mut run = start_with(|timings| timings.evidence(evidence));
        run.until(secs(10));
        for half in 21..=31 {
            run.at(ms(500) * half, frame(Control::Ping(Nonce([7; 8]))));
        }
        assert_eq!(run.suspicions(), 2, "{evidence:?}");
        assert_eq!(run.monitor.status().last_heard, at(secs(0)));
        run.assert_dies_at(secs(16));
    }
}

/// playcanvas vscode-extension PR #322: stale buffered data refreshed a dead
/// socket after suspend.
#[test]
fn lesson_04_with_echo_only_an_answer_is_a_sign_of_life() {
    let stale = |monitor: &mut Monitor, now| {
        monitor.handle_bytes(now);
        monitor.handle_message(now);
        monitor.handle_frame(Control::Ping(Nonce([1; 8])), now);
        monitor.handle_frame(Control::Pong(Nonce([2; 8])), now);
    };

    let mut run = start_with(|timings| timings.evidence(Evidence::Echo));
    for second in 1..=15 {
        run.at(secs(second), stale);
    }
    run.assert_dies_at(secs(16));

    // After a suspension: what lay in the buffer changes nothing, and only
    // the answer to a fresh ping does.
    let mut run = start_with(|timings| timings.evidence(Evidence::Echo));
    run.asleep_until(HOUR);
    run.at(HOUR, stale);
    assert_eq!(run.monitor.status().last_heard, at(secs(0)));
    assert_eq!(run.pings(), [HOUR]);
    run.at(HOUR + secs(1), frame(run.answer()));
    assert_eq!(run.monitor.status().last_heard, at(HOUR + secs(1)));
}

/// hashicorp/yamux PR #38: keepalive failed on a saturated link.
#[test]
fn lesson_05_no_ping_while_bytes_keep_coming() {
    let mut run = start();
    let gap = secs(10) - MICRO;
    for count in 1..=100 {
        run.at(gap * count, bytes);
    }
    assert_eq!(run.pings(), []);

    let silent_since = gap * 100;
    run.just_before(silent_since + secs(10));
    assert_eq!(run.pings(), []);
    run.until(silent_since + secs(10));
    assert_eq!(run.pings(), [silent_since + secs(10)]);
}

/// rumqtt #98: pinged in spite of traffic.
#[test]
fn lesson_06_traffic_takes_the_place_of_pings() {
    let an_hour_of_messages = |evidence| {
        let mut run = start_with(|timings| timings.evidence(evidence));
        for second in 1..=3600 {
            run.at(secs(second), message);
            if run.pings().last() == Some(&secs(second)) {
                run.at(secs(second), frame(run.answer()));
            }
        }
        run.assert_alive();
        run.pings().len()
    };
    assert_eq!(an_hour_of_messages(Evidence::AnyBytes), 0);
    assert_eq!(an_hour_of_messages(Evidence::Frame), 0);
    // Documented: this one believes answers only, so it has to ask.
    assert_eq!(an_hour_of_messages(Evidence::Echo), 360);
}

/// lnd PR #9805: skipped pings starved a separate write-idle killer.
#[test]
fn lesson_07_hearing_and_writing_have_clocks_of_their_own() {
    // However much we write: that is no sign of the peer's life.
    let mut run = start();
    for tenth in 1..=159 {
        run.at(ms(100) * tenth, |monitor, now| {
            monitor.handle_blocked(now);
            monitor.handle_progress(now);
            monitor.handle_flushed(now);
        });
    }
    assert_eq!(run.pings(), [secs(10), secs(12), secs(14)]);
    run.assert_dies_at(secs(16));

    // However much we hear: that doesn't move a write that is stuck.
    let mut run = start_with(|timings| timings.write_stall(secs(5)));
    run.writable = false;
    run.at(secs(1), Monitor::handle_blocked);
    for tenth in 11..=59 {
        run.at(ms(100) * tenth, bytes);
    }
    let death = run.assert_dies_at(secs(6));
    assert_eq!(death.cause, Cause::WriteStalled);
    assert_eq!(death.silent_for, ms(100));
}

// ---- writing and head-of-line blocking ------------------------------------

/// WebSocket-Node #229: ping queued behind 10 MB.
#[test]
fn lesson_08_the_clock_of_a_ping_starts_when_it_has_left() {
    let stuck_for_1900_ms = || {
        let mut run = start();
        run.writable = false;
        run.just_before(ms(11_900));
        run.writable = true;
        run.at(ms(11_900), Monitor::handle_flushed);
        assert_eq!(run.pings(), [secs(10)]);
        run
    };

    let mut run = stuck_for_1900_ms();
    run.just_before(ms(13_900));
    assert_eq!(run.told, []);
    run.until(ms(13_900));
    let late = Event::Suspect {
        missed: 1,
        silent_for: ms(13_900),
    };
    assert_eq!(run.told, [(ms(13_900), late)]);
    // The verdict comes when it was promised all the same.
    run.assert_dies_at(secs(16));

    // And the round trip is one of the network, not of our queue.
    let mut run = stuck_for_1900_ms();
    run.at(ms(12_900), frame(run.answer()));
    assert_eq!(run.told, [(ms(12_900), Event::Beat { rtt: secs(1) })]);
}

/// swift-websocket PR #47: timed out on a ping never sent.
#[test]
fn lesson_09_a_ping_that_was_never_sent_is_no_missed_beat() {
    let mut run = start();
    run.writable = false;
    run.just_before(secs(16));
    assert_eq!(run.pings(), [secs(10)]);
    assert_eq!(run.monitor.status().missed, 0);

    // It uses up the same time all the same, and the cause is told apart.
    let death = run.assert_dies_at(secs(16));
    assert_eq!(death.cause, Cause::WriteStalled);

    let mut run = start();
    assert_eq!(run.assert_dies_at(secs(16)).cause, Cause::Silent);
}

// ---- a runtime that is blocked --------------------------------------------

/// memberlist PR #83: a slow node blamed others.
#[test]
fn lesson_23_when_we_are_the_slow_one_the_deadline_widens() {
    let mut run = start();
    run.asleep_until(secs(13));
    run.wake();
    assert_eq!(run.told, [(secs(13), Event::LocalStall { late: secs(3) })]);
    assert_eq!(run.pings(), [secs(13)]);

    // Not at 16 s: what we slept through isn't counted.
    run.assert_dies_at(secs(13 + 6));
}

// ---- clocks ---------------------------------------------------------------

/// nats.rs #875: interval bursts after a stall.
#[test]
fn lesson_24_never_a_burst_of_pings_after_a_stall() {
    let mut run = start();
    run.asleep_until(HOUR);
    for _ in 0..360 {
        run.wake();
    }
    assert_eq!(run.pings(), [HOUR]);

    run.just_before(HOUR + secs(2));
    assert_eq!(run.pings(), [HOUR]);
    run.until(HOUR + secs(2));
    assert_eq!(run.pings(), [HOUR, HOUR + secs(2)]);
}

/// `NodeLite` #21: a burst after suspend used up the outstanding pings.
#[test]
fn lesson_25_a_wake_up_uses_at_most_one_ping() {
    let mut run = start();
    run.until(secs(11));
    assert_eq!(run.pings(), [secs(10)]);
    run.asleep_until(HOUR);
    for _ in 0..360 {
        run.wake();
    }
    assert_eq!(run.pings(), [secs(10), HOUR]);
    assert_eq!(run.monitor.status().missed, 0);

    // What we slept through isn't counted: two beats are left, as when we fell
    // asleep, and the fresh one is whole.
    run.assert_dies_at(HOUR + secs(4));
}

/// claudecode.nvim PR #141: waking up timed everyone out.
#[test]
fn lesson_26_after_a_jump_we_ask_again_before_we_judge() {
    // Idle; a ping unanswered; one missed; two missed.
    for fell_asleep in [secs(5), secs(11), secs(13), secs(15)] {
        let mut run = start();
        run.until(fell_asleep);
        run.asleep_until(HOUR);
        run.wake();
        run.assert_alive();
        assert_eq!(run.pings().last(), Some(&HOUR));

        // The fresh ping has a whole timeout.
        run.just_before(HOUR + secs(2));
        run.assert_alive();
        run.at(HOUR + secs(2), frame(run.answer()));
        run.assert_alive();
        let status = run.monitor.status();
        assert_eq!((status.state, status.missed), (State::Alive, 0));
    }
}

/// omnigent PR #5054: 120 s to notice after sleep.
#[test]
fn lesson_27_after_a_jump_we_ask_at_once() {
    let mut run = start();
    run.until(secs(5));
    run.asleep_until(HOUR);
    run.wake();
    assert_eq!(run.pings(), [HOUR]);
    // N·W, and not another interval first.
    run.assert_dies_at(HOUR + secs(6));

    // Also if bytes lay in the buffer, which may be an hour old.
    let mut run = start();
    run.until(secs(5));
    run.asleep_until(HOUR);
    run.at(HOUR, bytes);
    assert_eq!(run.pings(), [HOUR]);
}

/// rust #79462, #87906: `Instant` stops in suspend on Linux, not on Windows.
#[test]
fn lesson_28_both_a_clock_that_stops_in_suspend_and_one_that_goes_on_will_do() {
    // An hour of suspension, after 5 s of silence. One clock saw nothing of it:
    let mut stopped = start();
    stopped.until(secs(5));
    stopped.until(secs(10));
    assert_eq!(stopped.told, []);
    assert_eq!(stopped.pings(), [secs(10)]);

    // The other saw all of it:
    let mut went_on = start();
    went_on.until(secs(5));
    went_on.asleep_until(HOUR);
    went_on.wake();
    let late = HOUR - secs(10);
    assert_eq!(went_on.told, [(HOUR, Event::LocalStall { late })]);
    assert_eq!(went_on.pings(), [HOUR]);

    // Either way the peer has three beats to answer.
    stopped.assert_dies_at(secs(10 + 6));
    went_on.assert_dies_at(HOUR + secs(6));

    // And one that jumps back stands still.
    let mut back = start();
    back.until(secs(12));
    for earlier in [secs(11), secs(3), secs(0)] {
        back.monitor.handle_timeout(at(earlier));
    }
    assert_eq!(back.pings(), [secs(10), secs(12)]);
    back.assert_dies_at(secs(16));
}

// ---- state machines -------------------------------------------------------

/// hyper #2310: only one ping was ever sent.
#[test]
fn lesson_29_probes_recur() {
    let mut run = start();
    for count in 1..=1000 {
        let ping = (secs(10) + ms(100)) * count - ms(100);
        run.just_before(ping);
        assert_eq!(run.pings().len() + 1, count as usize);
        run.until(ping);
        assert_eq!(run.pings().len(), count as usize);
        run.at(ping + ms(100), frame(run.answer()));
    }
    let beats = vec![Event::Beat { rtt: ms(100) }; 1000];
    let told: Vec<Event> = run.told.iter().map(|&(_, event)| event).collect();
    assert_eq!(told, beats);
}

/// nats.rs #955: pending grew, no disconnect.
#[test]
fn lesson_30_silence_is_dead_within_the_bound() {
    for max_missed in [1, 2, 3, 10, 255] {
        let mut run = start_with(|timings| timings.max_missed(max_missed));
        let death = run.assert_dies_at(secs(10) + secs(2) * max_missed);
        assert_eq!(death.cause, Cause::Silent);
        assert_eq!(death.missed, max_missed);
        assert_eq!(run.pings().len(), max_missed as usize);

        // And nothing is pending any more.
        assert_eq!(run.monitor.poll_timeout(), None);
        assert_eq!(run.monitor.poll_transmit(), None);
        assert_eq!(run.monitor.poll_event(), None);
    }
}

/// nats.py #129: the outstanding count went negative.
#[test]
fn lesson_31_pongs_are_matched_by_nonce_and_not_counted() {
    let mut run = start_with(|timings| timings.evidence(Evidence::Echo));
    let pong = |nonce| frame(Control::Pong(Nonce(nonce)));

    // These answer no ping.
    for _ in 0..100 {
        run.at(secs(1), pong([0; 8]));
    }
    run.until(secs(10));
    assert_eq!(run.pings(), [secs(10)]);
    for _ in 0..100 {
        run.at(ms(10_500), pong([0; 8]));
    }
    assert_eq!(run.monitor.status().pongs, 0);

    // This one was asked for, once.
    for _ in 0..100 {
        run.at(secs(11), frame(run.answer()));
    }
    for _ in 0..100 {
        run.at(secs(12), frame(run.answer()));
    }
    assert_eq!(run.monitor.status().pongs, 1);
    assert_eq!(run.told, [(secs(11), Event::Beat { rtt: secs(1) })]);

    // No credit was saved up.
    run.assert_dies_at(secs(11 + 16));
}

/// pika #243: misses that weren't consecutive killed.
#[test]
fn lesson_32_life_resets_the_count_of_misses() {
    let mut run = start();
    for round in 0..100 {
        let began = secs(15) * round;
        run.until(began + secs(14));
        assert_eq!(run.monitor.status().missed, 2);
        run.at(began + secs(15), message);
        assert_eq!(run.monitor.status().missed, 0);
    }
    run.assert_dies_at(secs(1500 + 16));
}

/// russh #543: 75 s where 60 were configured.
#[test]
fn lesson_33_the_detection_time_is_what_the_formula_says() {
    let config = timings().interval(secs(15)).timeout(secs(15));
    let config = config.build().unwrap();
    assert_eq!(config.detection_time(), secs(60));

    let mut run = Run::new(config);
    let death = run.assert_dies_at(secs(60));
    assert_eq!(death.silent_for, secs(60));

    // Jitter only makes it come earlier: by a quarter of the interval here.
    let config = config.to_builder().jitter(0.25).build().unwrap();
    for seed in 0..100 {
        let mut run = Run::seeded(config, seed);
        run.just_before(secs(60) - secs(15) / 4);
        run.assert_alive();
        run.until(secs(60));
        assert!(run.death().is_some());
    }
}

/// russh #232, PR #214: replies ignored; probes without a gap.
#[test]
fn lesson_34_replies_count_and_probes_keep_their_distance() {
    // A reply at the last moment.
    let mut run = start_with(|timings| timings.evidence(Evidence::Echo));
    run.just_before(secs(16));
    run.at(secs(16) - MICRO, frame(run.answer()));
    let silent_for = secs(16) - MICRO;
    let recovered = (silent_for, Event::Recovered { silent_for });
    assert!(run.told.contains(&recovered), "{:?}", run.told);
    run.assert_dies_at(secs(32) - MICRO);

    let gaps = |run: &Run| {
        let pings = run.pings();
        let gaps = pings.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.collect::<Vec<_>>()
    };
    for seed in 0..50 {
        let config = timings().jitter(0.5).build().unwrap();
        // Unanswered: a timeout apart, or more after a first one that came early.
        let mut run = Run::seeded(config, seed);
        run.until(secs(16));
        let gaps_until_death = gaps(&run);
        assert_eq!(gaps_until_death.len(), 2);
        assert!(gaps_until_death[0] >= secs(2));
        assert_eq!(gaps_until_death[1], secs(2));

        // Answered: an interval apart, jitter aside.
        let mut run = Run::seeded(config, seed);
        while run.now < HOUR {
            let ping = run.monitor.poll_timeout().unwrap();
            run.until(ping.saturating_duration_since(at(secs(0))));
            run.at(run.now, frame(run.answer()));
        }
        assert!(
            gaps(&run)
                .iter()
                .all(|gap| (secs(5)..=secs(10)).contains(gap))
        );
    }
}

/// lightway PR #276: a new ping rearmed the old timer for ever.
#[test]
fn lesson_35_a_pending_deadline_is_not_pushed_out() {
    // By repeated probes,
    let mut run = start();
    for half in 1..=12 {
        run.at(ms(500) * half, Monitor::probe);
    }
    run.assert_dies_at(ms(500) + secs(6));

    // by what is written, or by calls that come for no reason.
    let mut run = start();
    for half in 1..=31 {
        run.at(ms(500) * half, |monitor, now| {
            monitor.handle_timeout(now);
            monitor.handle_flushed(now);
            if now >= at(secs(10)) {
                monitor.probe(now);
            }
        });
    }
    run.assert_dies_at(secs(16));
}

/// `IXWebSocket` PR #166: interval equal to timeout: instant death.
#[test]
fn lesson_36_an_interval_equal_to_the_timeout_is_nothing_special() {
    let equal = |max_missed| {
        start_with(|timings| {
            timings
                .interval(secs(5))
                .timeout(secs(5))
                .max_missed(max_missed)
        })
    };
    let mut run = equal(1);
    run.until(secs(5));
    assert_eq!(run.pings(), [secs(5)]);
    run.assert_dies_at(secs(10));

    equal(3).assert_dies_at(secs(20));

    // An answer at the very instant of the deadline counts.
    let mut run = equal(1);
    run.until(secs(5));
    run.at(secs(10), frame(run.answer()));
    run.assert_dies_at(secs(20));
}

/// libzmq #4226: a TTL over 65.5 s overflowed.
#[test]
fn lesson_37_no_duration_overflows_on_the_wire_or_in_the_timer() {
    let limits = [
        us(65_535),
        us(65_536),
        ms(65_535),
        ms(65_536),
        secs(65_535),
        secs(65_536),
        us(1 << 31),
        us(1 << 32),
        ms(1 << 32),
        YEAR,
    ];
    for interval in limits {
        let config = timings().interval(interval).timeout(interval);
        let config = config.min_interval(interval).build().unwrap();
        let hello = Control::Hello(config.hello(INSTANCE));
        let mut buffer = [0; Control::MAX_ENCODED];
        let sent = hello.encode(&mut buffer).unwrap();
        assert_eq!(Control::decode(sent), Ok(hello), "{interval:?}");

        let mut run = Run::new(config);
        run.assert_dies_at(interval * 4);
        assert_eq!(run.pings(), [interval, interval * 2, interval * 3]);
    }
}

/// yamux #12: a ping waited for ever.
#[test]
fn lesson_38_a_probe_always_has_a_deadline() {
    // It isn't fetched; it is fetched and never leaves; it leaves.
    let fates: [fn(&mut Monitor); 3] = [
        |_| {},
        |monitor| while monitor.poll_transmit().is_some() {},
        |monitor| {
            while monitor.poll_transmit().is_some() {}
            monitor.handle_flushed(at(secs(3)));
        },
    ];
    for fate in fates {
        let mut run = start();
        run.until(secs(3));
        run.monitor.probe(at(secs(3)));
        fate(&mut run.monitor);
        while let Some(deadline) = run.monitor.poll_timeout() {
            assert!(deadline <= at(secs(3 + 6)));
            run.monitor.handle_timeout(deadline);
        }
        let last = core::iter::from_fn(|| run.monitor.poll_event()).last();
        let Some(Event::Dead(death)) = last else {
            panic!("not dead but {last:?}");
        };
        assert_eq!(death.silent_for, secs(3 + 6));
    }

    // One that the peer isn't ready for yet, half a second after another.
    let mut run = start();
    run.at(secs(1), frame(hello(|same| same.min_interval(secs(1)))));
    run.at(secs(2), Monitor::probe);
    run.at(ms(2_100), frame(run.answer()));
    run.at(ms(2_500), Monitor::probe);
    assert_eq!(run.monitor.poll_timeout(), Some(at(secs(3))));
    run.assert_dies_at(secs(3 + 6));
    assert_eq!(run.pings()[..2], [secs(2), secs(3)]);
}

/// grpc PR #15041: another ping in flight suppressed the watchdog.
#[test]
fn lesson_39_any_outstanding_probe_arms_the_deadline() {
    // The application's probe is in flight when the interval ends.
    let mut run = start();
    run.at(secs(9), Monitor::probe);
    run.assert_dies_at(secs(9 + 6));

    // The idle ping is in flight when the application asks.
    let mut run = start();
    run.at(secs(11), Monitor::probe);
    run.assert_dies_at(secs(16));

    // A ping of an earlier round still waits to be written.
    let mut run = start();
    run.writable = false;
    run.until(secs(10));
    run.at(secs(11), bytes);
    run.assert_dies_at(secs(11 + 16));
    assert_eq!(run.pings(), [secs(10)]);
}

/// ravel #1956, etcd PR #8928: zero interval panicked, or was accepted.
#[test]
fn lesson_40_zero_is_refused_when_the_configuration_is_built() {
    let zero = Duration::ZERO;
    for (wrong, knob) in [
        (timings().interval(zero), "interval"),
        (timings().timeout(zero), "timeout"),
        (timings().min_interval(zero), "min_interval"),
        (timings().stall_tolerance(zero), "stall_tolerance"),
        (timings().max_missed(0), "max_missed"),
    ] {
        assert_eq!(wrong.build().unwrap_err().field(), knob);
    }
    assert!(Config::detect_within(zero).is_err());

    // A peer can't smuggle one in either.
    let refused = Err(ProtocolError::ImpossibleHello);
    assert_eq!(
        Control::decode(b"\x01HBT\0\x01\x00\x05\x01\x01\x01instance"),
        refused
    );
    assert_eq!(
        Control::decode(b"\x01HBT\0\x01\x01\x05\x00\x01\x01instance"),
        refused
    );
}

// ---- policing, negotiation, scale -----------------------------------------

/// grpc #33661, PR #9902: `too_many_pings` between mismatched settings.
#[test]
fn lesson_41_the_minimum_interval_is_announced() {
    let mut eager = start_with(|timings| timings.interval(ms(100)));
    let mut strict = start_other(|timings| timings.interval(secs(60)).min_interval(secs(5)));
    let announced = strict.monitor.config().hello(INSTANCE).min_interval;
    assert_eq!(announced, secs(5));

    converse(&mut eager, &mut strict, ms(20), HOUR);
    eager.assert_alive();
    strict.assert_alive();
    let pings = eager.pings();
    assert!(pings.windows(2).all(|pair| pair[1] - pair[0] >= secs(5)));
    assert!(pings.len() > 700);
}

/// grpc #16210: the peer's complaint was ignored.
#[test]
fn lesson_42_we_slow_down_to_what_the_peer_accepts() {
    let mut run = start();
    let accepts = |pace: u64| {
        hello(|timings| {
            let pace = secs(pace);
            timings.interval(pace).timeout(pace).min_interval(pace)
        })
    };
    run.at(secs(1), frame(accepts(25)));
    let status = run.monitor.status();
    assert_eq!(status.interval, secs(25));
    assert_eq!(status.detection_time, secs(25 + 6));

    run.just_before(secs(1 + 25));
    assert_eq!(run.pings(), []);
    run.until(secs(1 + 25));
    assert_eq!(run.pings(), [secs(26)]);

    // Also when it asks for that in the middle of a connection.
    run.at(secs(27), frame(accepts(40)));
    run.just_before(secs(27 + 40));
    assert_eq!(run.pings(), [secs(26)]);
    run.assert_dies_at(secs(27 + 40 + 6));
}

/// CVE-2019-9512 (h2o #2090): a ping flood filled a pong queue.
#[test]
fn lesson_43_one_pong_is_pending_and_a_flood_is_cut_off() {
    // With the default times on both sides `docs/protocol.md` promises room
    // for 12 pings at once, and 6 more in each second.
    let mut run = Run::new(Config::default());
    run.at(
        secs(0),
        frame(Control::Hello(Config::default().hello(INSTANCE))),
    );
    let ping = |number: u64| Control::Ping(Nonce(number.to_be_bytes()));
    for number in 1..=12 {
        run.monitor.handle_frame(ping(number), at(secs(0)));
    }
    let latest = Control::Pong(Nonce(12_u64.to_be_bytes()));
    assert_eq!(run.monitor.poll_transmit(), Some(latest));
    // A ping is piggybacked on the pong, once.
    let ours = run.monitor.poll_transmit();
    assert!(matches!(ours, Some(Control::Ping(_))), "{ours:?}");
    assert_eq!(run.monitor.poll_transmit(), None);

    for number in 1..=6 {
        run.monitor.handle_frame(ping(number), at(secs(1)));
    }
    run.at(secs(1), frame(ping(7)));
    let told: Vec<Event> = run.told.iter().map(|&(_, event)| event).collect();
    let [Event::Connected { .. }, Event::Dead(death)] = told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(death.cause, Cause::PingFlood);
    let flood = Control::Goodbye(GoodbyeCode::PING_FLOOD);
    assert_eq!(run.sent.last(), Some(&(secs(1), flood)));
    assert_eq!(run.monitor.poll_transmit(), None);
}

#[test]
fn lesson_43_no_hello_buys_room_for_a_flood_without_end() {
    // The longest that isn't refused: 4 · 14 s − 9 s.
    let slowest = secs(47);
    let forever = Config::builder()
        .interval(slowest)
        .timeout(YEAR)
        .max_missed(255)
        .min_interval(slowest)
        .build()
        .unwrap();
    let mut run = Run::new(Config::default());
    run.at(secs(0), frame(Control::Hello(forever.hello(INSTANCE))));
    // 4 · 255, as `docs/protocol.md` says, however slow it claims to be.
    let room = 4 * 255;
    for _ in 0..room {
        run.monitor
            .handle_frame(Control::Ping(Nonce([7; 8])), at(secs(0)));
    }
    assert!(!run.monitor.has_ended());
    run.monitor
        .handle_frame(Control::Ping(Nonce([7; 8])), at(secs(0)));
    assert!(run.monitor.has_ended());
}

/// RFC 6520 section 4, Heartbleed: the peer's length was believed.
#[test]
fn lesson_44_nothing_of_the_peers_choosing_in_length_is_echoed() {
    let ping = b"\x02\xff\xff\xff\xff\xff\xff\xff\xff";
    for padding in 1..=64 {
        let longer = [&ping[..], &vec![0; padding]].concat();
        let malformed = Err(ProtocolError::Malformed { tag: 2 });
        assert_eq!(Control::decode(&longer), malformed);
    }

    let mut run = start();
    run.at(secs(1), frame(Control::decode(ping).unwrap()));
    // Our own ping is behind it.
    let (pong, _) = run.sent[1..].split_first().unwrap();
    let (_, pong) = *pong;
    let mut buffer = [0xaa; Control::MAX_ENCODED];
    let sent = pong.encode(&mut buffer).unwrap();
    assert_eq!(sent, b"\x03\xff\xff\xff\xff\xff\xff\xff\xff");
}

/// quinn #1670: an interval longer than the peer's idle timeout.
#[test]
fn lesson_45_how_often_we_beat_follows_from_what_the_peer_announced() {
    // We ping once a minute, and the peer gives up after 14 s.
    let mut slow = start_with(|timings| timings.interval(secs(60)).timeout(secs(20)));
    let mut quick = Run::seeded(Config::default(), 2);
    converse(&mut slow, &mut quick, ms(50), HOUR);

    // While we don't read we can't answer; our signs of life are all that it hears.
    slow.reads = false;
    slow.at(HOUR, Monitor::handle_paused);
    converse(&mut slow, &mut quick, ms(50), 2 * HOUR);
    quick.assert_alive();

    slow.reads = true;
    slow.at(2 * HOUR, Monitor::handle_resumed);
    converse(&mut slow, &mut quick, ms(50), 3 * HOUR);
    quick.assert_alive();
    slow.assert_alive();
}

/// camunda #26879, dat DEPs #18: asymmetric settings, false death.
#[test]
fn lesson_46_asymmetric_settings_live_together_and_know_of_each_other() {
    let with_role = |config: Config, role| config.to_builder().role(role).build().unwrap();
    for (quick_role, slow_role) in [
        (Role::Both, Role::Both),
        (Role::Both, Role::Passive),
        (Role::Passive, Role::Both),
        (Role::Passive, Role::Passive),
    ] {
        let mut quick = Run::seeded(with_role(Config::lan(), quick_role), 1);
        let mut slow = Run::seeded(with_role(Config::mobile(), slow_role), 2);
        converse(&mut quick, &mut slow, ms(100), HOUR);

        for (side, other) in [(&quick, &slow), (&slow, &quick)] {
            side.assert_alive();
            assert_eq!(side.suspicions(), 0, "{quick_role:?} {slow_role:?}");
            let peer: Hello = side.monitor.status().peer.unwrap();
            let detection_time = other.monitor.config().detection_time();
            assert_eq!(peer.detection_time, detection_time);
        }
    }
}

/// go-stomp PR #89: no tolerance at all.
#[test]
fn lesson_47_a_beat_that_is_owed_has_an_explicit_margin() {
    // The peer promised a sign of life every 10 s, and each comes nearly 2 s late.
    // We ask after 10 s, and that question has a whole timeout.
    let mut run = start_with(|timings| timings.role(Role::Passive));
    run.at(secs(0), frame(hello(|same| same)));
    let gap = secs(12) - MICRO;
    for count in 1..=100 {
        run.at(gap * count, frame(Control::Alive));
    }
    assert_eq!(run.suspicions(), 0);
    assert_eq!(run.pings().len(), 100);

    // Beyond the margin a beat is missed, and two are left.
    let last = gap * 100;
    run.just_before(last + secs(12));
    assert_eq!(run.suspicions(), 0);
    run.until(last + secs(12));
    assert_eq!(run.suspicions(), 1);
    run.assert_dies_at(last + secs(16));
}

/// cockroach PR #161383, onefuzz #386: a herd in step.
#[test]
fn lesson_48_a_thousand_connections_do_not_ping_in_step() {
    let config = Config::default();
    let mut first = [0; 10];
    let mut second = [0; 5];
    for seed in 0..1000 {
        let mut run = Run::seeded(config, seed);
        while run.pings().is_empty() {
            let deadline = run.monitor.poll_timeout().unwrap();
            run.until(deadline.saturating_duration_since(at(secs(0))));
        }
        let asked = run.now;
        run.at(asked, frame(run.answer()));
        let deadline = run.monitor.poll_timeout().unwrap();
        let idle = deadline.saturating_duration_since(at(asked));

        // The first falls anywhere within the 5 s, the others in the last
        // quarter of them (and seldom in its first part, which is what is left
        // for rounding to the grid). Never later.
        assert!(asked <= secs(5));
        assert!((ms(3_750)..=secs(5)).contains(&idle));
        first[(asked - MICRO).as_millis() as usize / 500] += 1;
        second[(idle - MICRO).as_millis().saturating_sub(3_750) as usize / 250] += 1;
    }
    assert!(
        first.iter().all(|count| (60..140).contains(count)),
        "{first:?}"
    );
    assert!(
        second[1..].iter().all(|count| (160..320).contains(count)),
        "{second:?}"
    );
}

/// nomad #25380: 10,000 agents, constants not tunable.
#[cfg(feature = "serde")]
#[test]
fn lesson_49_every_constant_is_a_knob_and_every_knob_does_something() {
    use serde_json::{Value, json};

    let base = timings().write_stall(secs(50)).build().unwrap();
    let Value::Object(base) = serde_json::to_value(base).unwrap() else {
        panic!("a configuration is a map");
    };
    let other = json!({
        "interval": "11s",
        "timeout": "2500ms",
        "max_missed": 4,
        "jitter": 0.5,
        "adaptive": false,
        "adaptive_floor": "500ms",
        "evidence": "frame",
        "role": "passive",
        "min_interval": "2s",
        "stall_tolerance": "1s",
        "write_stall": "40s",
        "max_frame": 1000,
        "min_rate": 50,
        "max_stretch": 1,
        "max_pause": "20s",
        "speak_within": "4s",
        "linger": "10s",
        "beat_events": false,
    });
    let Value::Object(other) = other else {
        panic!("a map");
    };
    let config = |knobs| serde_json::from_value::<Config>(Value::Object(knobs)).unwrap();

    // A knob that is added later has to be added here.
    assert!(base.keys().eq(other.keys()));
    for (knob, value) in other {
        let mut base = base.clone();
        if knob == "role" {
            // Jitter is what a passive side refrains from.
            base.insert("jitter".to_owned(), json!(0.25));
        }
        let mut turned = base.clone();
        turned.insert(knob.clone(), value);
        let (before, after) = (config(base), config(turned));
        if ["max_frame", "max_pause"].contains(&&*knob) {
            // The adapter's business; the core only carries it.
            assert_ne!(before, after, "{knob}");
        } else {
            assert_ne!(a_whole_life(before), a_whole_life(after), "{knob}");
        }
    }
}

/// All that a monitor does while everything happens to it that can.
fn a_whole_life(config: Config) -> String {
    let mut run = Run::new(config);
    run.at(secs(1), frame(hello(|same| same)));
    let wanted = run.monitor.bytes_wanted(at(secs(9)));
    run.at(secs(9), bytes);
    // Three pings answered after 50 ms.
    for second in 10..=60 {
        run.until(secs(second));
        if run.pings().last() > Some(&secs(second - 1)) {
            run.at(secs(second) + ms(50), frame(run.answer()));
        }
    }
    // One late, then a stall of one and a half seconds.
    run.at(secs(65), message);
    run.just_before(secs(75));
    run.asleep_until(ms(76_500));
    run.wake();
    run.at(secs(77), message);
    // A write that is stuck for 45 s, while messages come.
    run.writable = false;
    for second in 78..=123 {
        run.at(secs(second), |monitor, now| {
            monitor.handle_blocked(now);
            monitor.handle_message(now);
        });
    }
    run.writable = true;
    run.at(secs(124), Monitor::handle_flushed);
    // A Hello that makes us ask less often.
    let slow = hello(|timings| {
        let timings = timings.interval(secs(60)).timeout(secs(20));
        timings.min_interval(secs(20))
    });
    run.at(secs(125), frame(slow));
    run.until(HOUR);
    // We leave a peer that lives and confirms nothing.
    let mut leaving = Run::new(config);
    leaving.at(secs(1), |monitor, now| {
        monitor.close(GoodbyeCode::LEAVING, now);
    });
    for second in 2..=60 {
        leaving.at(secs(second), message);
    }
    format!("{wanted} {:?} {:?} {:?}", run.sent, run.told, leaving.told)
}

/// phoenix PR #4309: servers want no timers.
#[test]
fn lesson_51_a_passive_server_asks_only_along_with_its_answers() {
    let mut server = start_with(|timings| timings.role(Role::Passive));
    let mut client = start_other(|timings| timings.interval(secs(9)));
    converse(&mut server, &mut client, ms(20), HOUR);
    assert_eq!(server.asked_alone(), []);
    assert!(client.pings().len() > 350);
    // One beat proves both directions to both sides.
    assert_eq!(server.pings().len(), client.pings().len());

    // It asks alone only when the client is silent.
    let heard = server.monitor.status().last_heard;
    let heard = heard.saturating_duration_since(at(secs(0)));
    server.just_before(heard + secs(10));
    assert_eq!(server.asked_alone(), []);
    server.until(heard + secs(10));
    assert_eq!(server.asked_alone(), [heard + secs(10)]);
    server.assert_dies_at(heard + secs(16));
}

/// primus #348: browser timers are throttled.
#[test]
fn lesson_52_the_server_can_be_the_one_that_probes() {
    let mut server = start_with(|timings| timings.interval(secs(9)));
    let mut browser = start_other(|timings| timings.role(Role::Passive));
    // A page in the background gets a timer once in a minute.
    browser.timer = secs(60);
    converse(&mut server, &mut browser, ms(50), HOUR);

    assert_eq!(browser.asked_alone(), []);
    assert!(server.pings().len() > 350);
    for side in [&server, &browser] {
        side.assert_alive();
        assert_eq!(side.suspicions(), 0);
        let stalled = |(_, event): &(_, Event)| matches!(event, Event::LocalStall { .. });
        assert!(!side.told.iter().any(stalled));
    }
}

// ---- death and teardown ---------------------------------------------------

/// mezon-js PR #1128: a stale ping killed the new socket.
#[test]
fn lesson_61_a_nonce_belongs_to_one_connection() {
    let config = timings().evidence(Evidence::Echo).build().unwrap();
    let mut old = Run::seeded(config, 1);
    old.until(secs(14));
    let mut new = Run::seeded(config, 2);
    new.until(secs(14));
    assert!(
        old.nonces()
            .iter()
            .all(|nonce| !new.nonces().contains(nonce))
    );

    // What the old one is owed is nothing to the new one.
    for nonce in old.nonces() {
        new.at(secs(15), frame(Control::Pong(nonce)));
    }
    assert_eq!(new.monitor.status().pongs, 0);
    new.at(secs(15), frame(new.answer()));
    assert_eq!(new.monitor.status().pongs, 1);

    // And the old one's death is its own.
    old.assert_dies_at(secs(16));
    new.until(secs(16));
    new.assert_alive();
}

/// libp2p #2109: a peer without ping was closed.
#[test]
fn lesson_63_a_peer_that_speaks_something_else_is_not_dead_by_silence() {
    // Known at the first frame, and by its name.
    let stranger = Control::decode(b"-ERR unknown command\r\n").unwrap_err();
    let mut run = start();
    run.at(ms(50), |monitor, now| {
        monitor.handle_bytes(now);
        monitor.handle_end(End::Protocol(stranger), now);
    });
    let (when, death) = run.death().unwrap();
    assert_eq!(when, ms(50));
    let unknown = ProtocolError::UnknownTag { tag: b'-' };
    assert_eq!(death.cause, Cause::Protocol(unknown));
    assert_eq!(death.missed, 0);

    // A peer that only ever answers, and sends no ping of its own, is fine.
    let mut run = start();
    while run.now < HOUR {
        let deadline = run.monitor.poll_timeout().unwrap();
        run.until(deadline.saturating_duration_since(at(secs(0))));
        run.at(run.now + ms(50), frame(run.answer()));
    }
    run.assert_alive();
    assert_eq!(run.suspicions(), 0);
}

/// primus #307, `MagicOnion` #1000: the reason was lost.
#[test]
fn lesson_64_every_end_has_a_typed_cause() {
    let malformed = ProtocolError::Malformed { tag: 2 };
    for (end, cause) in [
        (End::Eof, Cause::Eof),
        (End::Reset, Cause::Reset),
        (End::TimedOut, Cause::TimedOut),
        (End::Unreachable, Cause::Unreachable),
        (End::Protocol(malformed), Cause::Protocol(malformed)),
        (End::Io, Cause::Io),
    ] {
        let mut run = start();
        // The first reason counts, not what follows from it.
        run.at(secs(13), |monitor, now| {
            monitor.handle_end(end, now);
            monitor.handle_end(End::Io, now);
        });
        run.until(HOUR);
        let (when, death) = run.death().unwrap();
        assert_eq!((when, death.cause), (secs(13), cause));
        assert_eq!((death.silent_for, death.missed), (secs(13), 1));
    }

    let by_us: fn(&mut Monitor, Instant) = |monitor, now| {
        leave(monitor, now);
        while monitor.poll_transmit().is_some() {}
        monitor.handle_flushed(now);
        monitor.handle_frame(RECEIVED, now);
    };
    let by_the_peer: fn(&mut Monitor, Instant) = |monitor, now| {
        monitor.handle_frame(GOODBYE, now);
    };
    for (goodbye, reason) in [(by_us, CloseReason::Local), (by_the_peer, LEFT)] {
        let mut run = start();
        run.at(secs(1), goodbye);
        // A transport that ends behind a goodbye takes nothing back.
        run.at(secs(2), |monitor, now| monitor.handle_end(End::Reset, now));
        assert_eq!(run.told, [(secs(1), Event::Closed { reason })]);
    }
}
