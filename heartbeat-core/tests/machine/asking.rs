//! A ping is piggybacked on the pong: one beat proves both directions to both sides. A
//! ping itself proves nothing.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use core::time::Duration;

use crate::common::{INSTANCE, MICRO, Run, at, converse, ms, secs};
use heartbeat_core::{Config, ConfigBuilder, Control, Instant, Monitor, Nonce, Role};

/// Dead after 16 s; idle pings are 7.5 s apart.
fn timings() -> ConfigBuilder {
    Config::builder()
        .interval(secs(10))
        .timeout(secs(2))
        .jitter(0.0)
        .adaptive(false)
}

fn start(timings: ConfigBuilder) -> Run {
    Run::new(timings.build().unwrap())
}

fn asks(monitor: &mut Monitor, now: Instant) {
    monitor.handle_frame(Control::Ping(Nonce([7; 8])), now);
}

/// Our ping of second 10 was answered after 100 ms.
fn answered(timings: ConfigBuilder) -> Run {
    let mut run = start(timings);
    run.until(secs(10));
    let pong = run.answer();
    run.at(ms(10_100), |monitor, now| monitor.handle_frame(pong, now));
    run
}

#[test]
fn our_ping_leaves_with_the_answer() {
    for role in [Role::Both, Role::Passive] {
        let mut run = start(timings().role(role));
        run.at(secs(3), asks);
        let sent: Vec<_> = run.sent[1..].iter().map(|&(_, control)| control).collect();
        let pong = Control::Pong(Nonce([7; 8]));
        assert!(matches!(sent[..], [first, Control::Ping(_)] if first == pong));
        assert_eq!(run.monitor.status().last_heard, at(secs(0)));
        // No sooner than without the peer's ping.
        let death = run.assert_dies_at(secs(16));
        assert_eq!(death.silent_for, secs(16));
        assert_eq!(run.pings(), [secs(3), secs(12), secs(14)]);
    }
}

#[test]
fn one_ping_is_enough_for_many_questions() {
    let mut run = start(timings());
    for second in 1..16 {
        run.at(secs(second), asks);
    }
    run.assert_dies_at(secs(16));
    assert_eq!(run.pings(), [secs(1), secs(12), secs(14)]);
}

#[test]
fn it_leaves_only_if_it_was_due_soon() {
    let soon = secs(10) + ms(7_500);
    let mut run = answered(timings());
    run.at(soon - MICRO, asks);
    assert_eq!(run.pings(), [secs(10)]);
    let mut run = answered(timings());
    run.at(soon, asks);
    assert_eq!(run.pings(), [secs(10), soon]);
    run.assert_dies_at(ms(10_100) + secs(16));
}

#[test]
fn much_jitter_makes_it_due_sooner() {
    let half = || timings().jitter(0.5);
    for (wait, asked) in [(secs(5) - MICRO, false), (secs(5), true)] {
        let mut run = start(half());
        run.at(MICRO, asks);
        let left = run.pings()[0];
        let pong = run.answer();
        run.at(ms(100), |monitor, now| monitor.handle_frame(pong, now));
        run.at(left + wait, asks);
        assert_eq!(run.pings().len(), if asked { 2 } else { 1 });
    }
}

/// What each of two such sides sent in 100 s.
fn conversation(timings: &ConfigBuilder, round_trip: Duration) -> [Run; 2] {
    let config = timings.clone().build().unwrap();
    let [mut a, mut b] = [1, 2].map(|seed| Run::seeded(config, seed));
    converse(&mut a, &mut b, round_trip / 2, secs(100));
    [a, b]
}

#[test]
fn with_much_jitter_and_a_long_round_trip_each_answer_asks_and_pings_keep_their_distance() {
    // The peer's min_interval is 1 s, and I·(1 − J) is 1 s and nothing.
    for jitter in [0.9, 1.0] {
        for round_trip in [ms(1_000), ms(1_400)] {
            let sides = conversation(&timings().jitter(jitter), round_trip);
            for side in &sides {
                side.assert_alive();
                let pings = side.pings();
                let gaps = pings.windows(2).map(|pair| pair[1] - pair[0]);
                assert!(gaps.clone().all(|gap| gap >= secs(1)), "{pings:?}");
                // One for each round trip.
                assert!(gaps.filter(|&gap| gap == round_trip).count() > 50);
            }
            let [a, b] = sides.map(|side| {
                let status = side.monitor.status();
                let sent = side.sent.iter();
                let pongs = sent.filter(|(_, frame)| matches!(frame, Control::Pong(_)));
                (status.pings, pongs.count())
            });
            for (asked, answered) in [(a.0, b.1), (b.0, a.1)] {
                assert!(answered <= asked as usize);
            }
        }
    }
}

#[test]
fn with_much_jitter_and_a_shorter_round_trip_no_answer_asks() {
    for side in conversation(&timings().jitter(0.9), ms(900)) {
        side.assert_alive();
        // No interval is below 10 s · (1 − ⅞ · 0.9).
        assert!((8..=48).contains(&side.pings().len()));
    }
}

#[test]
fn it_leaves_no_sooner_than_the_peer_accepts_it() {
    let slow = timings().timeout(secs(3)).min_interval(secs(9));
    let slow = Control::Hello(slow.build().unwrap().hello(INSTANCE));
    for (when, asked) in [(secs(19) - MICRO, false), (secs(19), true)] {
        let mut run = answered(timings());
        run.at(ms(10_200), |monitor, now| monitor.handle_frame(slow, now));
        run.at(when, asks);
        assert_eq!(run.pings().len(), if asked { 2 } else { 1 });
    }
}

#[test]
fn it_leaves_only_if_none_waits_for_its_answer() {
    // In a round one does.
    let mut run = start(timings());
    run.until(secs(10));
    run.at(secs(11), asks);
    run.just_before(secs(12));
    assert_eq!(run.pings(), [secs(10)]);

    // Or evidence ended the round, and its ping has a second left.
    for (when, asked) in [(secs(19) - MICRO, false), (secs(19), true)] {
        let mut run = start(timings().timeout(secs(9)));
        run.until(secs(10));
        run.at(ms(10_500), Monitor::handle_bytes);
        run.at(when, asks);
        assert_eq!(run.pings().len(), if asked { 2 } else { 1 });
    }

    // Or it hasn't even left.
    let mut run = start(timings());
    run.writable = false;
    run.until(secs(10));
    run.at(ms(10_500), Monitor::handle_bytes);
    run.at(secs(20), asks);
    assert_eq!(run.pings(), [secs(10)]);
}

#[test]
fn the_round_is_counted_from_the_promised_accuracy() {
    let config = timings().jitter(0.25).build().unwrap();
    let heard_at = ms(100);
    let base = heard_at + ms(7_500) + config.arrival_slack();
    for (when, counted_from) in [
        (ms(7_501), base),
        (base, base),
        (base + MICRO, base + MICRO),
    ] {
        let mut run = Run::seeded(config, 5);
        run.at(MICRO, asks);
        let pong = run.answer();
        run.at(heard_at, |monitor, now| monitor.handle_frame(pong, now));
        run.at(when, asks);
        assert_eq!(run.pings(), [MICRO, when]);
        run.assert_dies_at(counted_from + secs(6));
    }
}

#[test]
fn a_probe_that_waits_is_served_by_it() {
    let hello = timings().timeout(secs(3)).min_interval(secs(8));
    let hello = Control::Hello(hello.build().unwrap().hello(INSTANCE));
    let mut run = answered(timings());
    run.at(ms(10_200), |monitor, now| monitor.handle_frame(hello, now));
    run.at(ms(10_300), Monitor::probe);
    run.just_before(secs(18));
    run.monitor
        .handle_frame(Control::Ping(Nonce([7; 8])), at(secs(18)));
    run.now = secs(18);
    run.wake();
    assert_eq!(run.pings(), [secs(10), secs(18)]);
    run.assert_dies_at(secs(18 + 6));
}

#[test]
fn a_side_that_does_not_read_or_leaves_pings_nobody() {
    let mut run = start(timings());
    run.at(secs(1), Monitor::handle_paused);
    run.at(secs(2), asks);
    assert_eq!(run.pings(), []);
    assert!(matches!(run.sent.last(), Some((_, Control::Pong(_)))));
}

#[test]
fn in_a_foreign_protocol_a_ping_is_evidence_and_nobody_asks_along() {
    let mut run = Run::foreign(timings().build().unwrap(), 1);
    run.at(secs(9), asks);
    assert_eq!(run.pings(), []);
    assert_eq!(run.monitor.status().last_heard, at(secs(9)));
    run.assert_dies_at(secs(9 + 16));
}

/// The timer is late, and the peer's ping is read first: that makes the verdict no
/// later than the timer would.
#[test]
fn a_round_that_is_overdue_is_counted_from_its_interval() {
    let mut run = start(timings());
    run.asleep_until(secs(12));
    run.monitor
        .handle_frame(Control::Ping(Nonce([7; 8])), at(secs(12)));
    run.wake();
    assert_eq!(run.told, []);
    run.assert_dies_at(secs(16));
    assert_eq!(run.pings(), [secs(12), secs(14)]);
}

/// Nor is a probe's that waited.
#[test]
fn a_probe_that_is_overdue_together_with_the_interval_is_counted_from_that() {
    let hello = timings().timeout(secs(3)).min_interval(secs(8));
    let hello = Control::Hello(hello.build().unwrap().hello(INSTANCE));
    let mut run = answered(timings().stall_tolerance(secs(5)));
    run.at(ms(10_200), |monitor, now| monitor.handle_frame(hello, now));
    run.at(ms(10_300), Monitor::probe);
    // The probe was due at 18 s, and the interval was over at 20.2 s.
    run.asleep_until(secs(21));
    run.monitor
        .handle_frame(Control::Ping(Nonce([7; 8])), at(secs(21)));
    run.wake();
    assert_eq!(run.pings(), [secs(10), secs(21)]);
    run.assert_dies_at(ms(26_200));
}

#[test]
fn it_is_idle_once_its_ping_is_answered() {
    let mut run = start(timings());
    assert!(run.monitor.is_idle());
    run.writable = false;
    run.until(secs(10));
    assert!(!run.monitor.is_idle(), "a round");
    run.at(secs(11), Monitor::handle_bytes);
    assert!(!run.monitor.is_idle(), "its ping hasn't left");
    run.writable = true;
    run.at(secs(12), Monitor::handle_flushed);
    assert!(!run.monitor.is_idle(), "its ping is unanswered");
    let pong = run.answer();
    run.at(secs(13), |monitor, now| monitor.handle_frame(pong, now));
    assert!(run.monitor.is_idle());
    run.at(secs(14), Monitor::handle_paused);
    assert!(!run.monitor.is_idle(), "a pause");
}

/// So one wake-up serves several connections.
#[test]
fn intervals_end_on_a_grid_that_all_monitors_share() {
    // The widest power of two within an eighth of the jitter, which is 500 ms.
    let grid = 1 << 18;
    for seed in 0..20 {
        let config = timings().interval(secs(16)).jitter(0.25).build().unwrap();
        let mut run = Run::seeded(config, seed);
        run.until(secs(16));
        let pong = run.answer();
        run.at(secs(17), |monitor, now| monitor.handle_frame(pong, now));
        let end = run.monitor.poll_timeout().unwrap().as_micros();
        assert_eq!(end % grid, 0, "seed {seed}");
    }
}
