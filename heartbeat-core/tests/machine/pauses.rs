//! While we don't read nothing is judged, and the peer hears that we live.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use crate::common::{INSTANCE, Run, at, converse, ms, secs};
use heartbeat_core::{Config, ConfigBuilder, Control, Event, Monitor, Nonce, State};

/// Dead after 16 s.
fn timings() -> ConfigBuilder {
    Config::builder()
        .interval(secs(10))
        .timeout(secs(2))
        .min_interval(secs(1))
        .max_stretch(255)
        .jitter(0.0)
}

fn start() -> Run {
    Run::new(timings().build().unwrap())
}

/// A peer with the same timings has greeted.
fn met() -> Run {
    let mut run = start();
    run.at(secs(0), |monitor, now| {
        let hello = timings().build().unwrap().hello(INSTANCE);
        monitor.handle_frame(Control::Hello(hello), now);
    });
    run.told.clear();
    run
}

const HOUR: u64 = 3600;

#[test]
fn a_pause_gives_no_verdict_but_a_sign_of_life_each_interval() {
    let mut run = start();
    run.at(secs(1), Monitor::handle_paused);
    assert_eq!(run.monitor.status().state, State::Paused);
    run.until(secs(HOUR));
    let signs = (0..360).map(|sign| secs(1 + 10 * sign));
    assert_eq!(run.signs(), signs.collect::<Vec<_>>());
    assert_eq!(run.pings(), []);
    assert_eq!(run.told, []);

    // And then it is judged as if it had just been heard.
    run.at(secs(HOUR), Monitor::handle_resumed);
    assert_eq!(run.monitor.status().state, State::Alive);
    run.assert_dies_at(secs(HOUR + 16));
}

#[test]
fn the_first_sign_of_a_pause_comes_at_once_or_an_interval_after_the_last_one() {
    let mut run = start();
    run.until(secs(10));
    run.at(secs(11), Monitor::handle_bytes);
    run.at(secs(12), Monitor::handle_paused);
    run.at(secs(13), Monitor::handle_resumed);
    run.at(secs(14), Monitor::handle_paused);
    run.just_before(secs(22));
    assert_eq!(run.signs(), [secs(12)]);
    run.until(secs(22));
    assert_eq!(run.signs(), [secs(12), secs(22)]);
    // A ping is none, and none is sent.
    assert_eq!(run.pings(), [secs(10)]);
}

#[test]
fn an_impatient_peer_that_is_met_in_a_pause_gets_the_next_sign_sooner() {
    let mut run = start();
    run.at(secs(1), Monitor::handle_paused);
    let impatient = timings().interval(secs(4)).build().unwrap();
    run.at(secs(2), |monitor, now| {
        monitor.handle_frame(Control::Hello(impatient.hello(INSTANCE)), now);
    });
    run.until(secs(9));
    assert_eq!(run.signs(), [secs(1), secs(5), secs(9)]);
}

#[test]
fn in_a_foreign_protocol_a_pause_has_a_ping_each_interval() {
    let mut run = Run::foreign(timings().build().unwrap(), 1);
    run.until(secs(10));
    run.at(secs(11), Monitor::handle_bytes);
    run.at(secs(12), Monitor::handle_paused);
    run.until(secs(30));
    assert_eq!(run.pings(), [secs(10), secs(20), secs(30)]);
    assert_eq!(run.signs(), []);
}

#[test]
fn a_pause_ends_a_round_and_its_misses() {
    let mut run = start();
    run.until(secs(13));
    assert_eq!(run.monitor.status().missed, 1);
    run.at(secs(13), Monitor::handle_paused);
    assert_eq!(run.monitor.status().missed, 0);
    run.until(secs(HOUR));
    run.at(secs(HOUR), Monitor::handle_resumed);
    // Still suspect: nothing was heard.
    assert_eq!(run.monitor.status().state, State::Suspect);
    run.told.clear();
    run.at(secs(HOUR + 1), Monitor::handle_bytes);
    assert!(matches!(run.told[..], [(_, Event::Recovered { .. })]));
    assert_eq!(run.monitor.status().state, State::Alive);
}

#[test]
fn a_sign_that_can_not_leave_is_followed_by_none() {
    let mut run = start();
    run.writable = false;
    run.at(secs(1), Monitor::handle_paused);
    run.until(secs(HOUR));
    assert_eq!(run.signs(), [secs(1)]);

    // Once it has left the next one is an interval away.
    run.writable = true;
    run.at(secs(HOUR), Monitor::handle_flushed);
    run.just_before(secs(HOUR + 10));
    assert_eq!(run.signs(), [secs(1)]);
    run.until(secs(HOUR + 10));
    assert_eq!(run.signs(), [secs(1), secs(HOUR + 10)]);
}

#[test]
fn pausing_twice_and_resuming_without_a_pause_change_nothing() {
    let mut run = start();
    run.at(secs(5), Monitor::handle_resumed);
    run.assert_dies_at(secs(16));

    let mut run = start();
    run.at(secs(1), Monitor::handle_paused);
    run.at(secs(2), Monitor::handle_paused);
    run.until(secs(11));
    assert_eq!(run.signs(), [secs(1), secs(11)]);
}

#[test]
fn a_probe_in_a_pause_is_sent_when_reading_resumes_and_once() {
    let mut run = start();
    run.at(secs(1), Monitor::handle_paused);
    run.at(secs(4), Monitor::probe);
    run.at(secs(5), Monitor::probe);
    run.until(secs(13));
    assert_eq!(run.pings(), []);
    run.at(secs(14), Monitor::handle_resumed);
    assert_eq!(run.pings(), [secs(14)]);
    run.assert_dies_at(secs(14 + 6));

    let mut run = start();
    run.writable = false;
    run.at(secs(1), Monitor::handle_paused);
    run.monitor.probe(at(secs(4)));
    // The sign of life is under way, and no timer can make it leave.
    assert_eq!(run.monitor.poll_timeout(), None);
    run.until(secs(60));
    assert_eq!(run.signs(), [secs(1)]);
}

#[test]
fn a_probe_that_waits_for_the_peer_waits_for_the_end_of_the_pause_too() {
    let mut run = met();
    run.until(secs(10));
    run.at(ms(10_100), Monitor::handle_bytes);
    run.at(ms(10_200), Monitor::probe);
    run.at(ms(10_300), Monitor::handle_paused);
    run.until(secs(12));
    assert_eq!(run.pings(), [secs(10)]);
    run.at(secs(12), Monitor::handle_resumed);
    assert_eq!(run.pings(), [secs(10), secs(12)]);
}

#[test]
fn a_probe_is_sent_as_soon_as_the_peer_accepts_it() {
    let mut run = met();
    run.until(secs(10));
    run.at(ms(10_100), Monitor::handle_bytes);
    run.at(ms(10_200), Monitor::probe);
    run.just_before(secs(11));
    assert_eq!(run.pings(), [secs(10)]);
    run.until(secs(11));
    assert_eq!(run.pings(), [secs(10), secs(11)]);

    // At that very moment it needn't wait for a timer.
    let mut run = met();
    run.until(secs(10));
    run.at(ms(10_100), Monitor::handle_bytes);
    run.just_before(secs(11));
    run.monitor.probe(at(secs(11)));
    assert!(matches!(
        run.monitor.poll_transmit(),
        Some(Control::Ping(_))
    ));
}

#[test]
fn a_stall_in_a_pause_is_told_once() {
    let mut run = start();
    run.at(secs(1), Monitor::handle_paused);
    run.asleep_until(secs(100));
    run.monitor.handle_blocked(at(secs(100)));
    run.monitor.handle_bytes(at(secs(100)));
    run.wake();
    run.wake();
    assert_eq!(
        run.told,
        [(secs(100), Event::LocalStall { late: secs(89) })]
    );
}

/// Its intervals are as good as nothing now and then, and what it tolerates
/// then is a second.
#[test]
fn a_peer_with_much_jitter_and_little_patience_hears_enough_of_a_pause() {
    let nervous = timings().timeout(secs(1)).max_missed(1).jitter(1.0);
    for seed in 100..120 {
        let mut busy = start();
        let mut peer = Run::seeded(nervous.clone().build().unwrap(), seed);
        converse(&mut busy, &mut peer, ms(50), secs(100));
        busy.reads = false;
        busy.at(secs(100), Monitor::handle_paused);
        converse(&mut busy, &mut peer, ms(50), secs(1000));
        peer.assert_alive();
    }
}

/// 4 · 3 pings at once, and 2 · 3 for each second since the start.
#[test]
fn what_lay_unread_during_a_pause_is_no_flood() {
    let pings = |run: &mut Run, count: u64| {
        for n in 0..count {
            let nonce = Nonce(n.to_be_bytes());
            let now = at(run.now);
            run.monitor.handle_frame(Control::Ping(nonce), now);
        }
        run.monitor.has_ended()
    };
    let paused = || {
        let mut run = met();
        run.at(secs(1), Monitor::handle_paused);
        run.until(secs(1001));
        run.at(secs(1001), Monitor::handle_resumed);
        run
    };
    assert!(!pings(&mut met(), 12));
    assert!(pings(&mut met(), 13));
    assert!(!pings(&mut paused(), 12 + 6 * 1001));
    assert!(pings(&mut paused(), 12 + 6 * 1001 + 1));

    // What a stall of ours kept from being read isn't either.
    let slept = || {
        let mut run = met();
        run.asleep_until(secs(1010));
        run.wake();
        run
    };
    assert!(!pings(&mut slept(), 12 + 6 * 1010));
    assert!(pings(&mut slept(), 12 + 6 * 1010 + 1));
}

/// The peer accepts a ping a second, so the probe has to wait until 2 s.
#[test]
fn a_probe_that_waits_outlives_a_pause() {
    for asked_in_the_pause in [false, true] {
        let mut run = met();
        run.at(secs(1), Monitor::probe);
        run.at(secs(1), |monitor, now| {
            monitor.handle_flushed(now);
            monitor.handle_bytes(now);
        });
        let (probed_at, paused_at) = match asked_in_the_pause {
            false => (ms(1100), ms(1200)),
            true => (ms(1200), ms(1100)),
        };
        let ask = |run: &mut Run| run.at(probed_at, Monitor::probe);
        if !asked_in_the_pause {
            ask(&mut run);
        }
        run.at(paused_at, Monitor::handle_paused);
        if asked_in_the_pause {
            ask(&mut run);
        }
        run.at(ms(1300), Monitor::handle_resumed);
        run.until(ms(1999));
        assert_eq!(run.pings(), [secs(1)]);
        run.until(secs(2));
        assert_eq!(run.pings(), [secs(1), secs(2)]);
    }
}
