//! When a passive side asks: after the whole interval, so that the peer usually
//! asks first. In all else it is like any other.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use crate::common::{Run, at, converse, ms, secs};
use heartbeat_core::{Config, ConfigBuilder, Control, Event, Evidence, Monitor, Role};

/// Dead after 16 s.
fn timings() -> ConfigBuilder {
    Config::builder().interval(secs(10)).timeout(secs(2))
}

fn passive() -> ConfigBuilder {
    timings().role(Role::Passive)
}

#[test]
fn it_asks_after_the_whole_interval_whatever_the_jitter() {
    for jitter in [0.0, 0.25, 1.0] {
        for evidence in [Evidence::AnyBytes, Evidence::Echo] {
            let config = passive().jitter(jitter).evidence(evidence);
            let mut run = Run::seeded(config.build().unwrap(), 3);
            run.assert_dies_at(secs(16));
            assert_eq!(run.pings(), [secs(10), secs(12), secs(14)]);

            // Also behind the first interval, and off the grid.
            let mut run = Run::seeded(config_of(&run), 3);
            run.at(secs(10), |_, _| {});
            let pong = run.answer();
            run.at(ms(10_007), |monitor, now| monitor.handle_frame(pong, now));
            run.assert_dies_at(ms(26_007));
            assert_eq!(run.pings()[1..], [ms(20_007), ms(22_007), ms(24_007)]);
        }
    }
}

fn config_of(run: &Run) -> Config {
    *run.monitor.config()
}

#[test]
fn where_one_miss_decides_it_has_the_same_bound() {
    let mut run = Run::new(passive().max_missed(1).build().unwrap());
    run.assert_dies_at(secs(12));
    assert_eq!(run.pings(), [secs(10)]);
}

#[test]
fn its_own_ping_is_suspicious_when_round_trips_say_so() {
    let mut run = Run::new(passive().build().unwrap());
    run.at(secs(1), Monitor::probe);
    let pong = run.answer();
    run.at(ms(1_050), |monitor, now| monitor.handle_frame(pong, now));
    run.told.clear();
    // 200 ms, the floor, after its ping has left.
    run.just_before(ms(11_250));
    assert_eq!(run.told, []);
    run.until(ms(11_250));
    let late = Event::Suspect {
        missed: 0,
        silent_for: ms(10_200),
    };
    assert_eq!(run.told, [(ms(11_250), late)]);
    assert_eq!(run.pings(), [secs(1), ms(11_050)]);
}

#[test]
fn a_peer_with_the_same_timings_usually_asks_first() {
    let (mut asked_by_it, mut asked_by_the_peer) = (0, 0);
    for seed in 0..20 {
        let mut side = Run::seeded(passive().build().unwrap(), seed);
        let mut peer = Run::seeded(timings().build().unwrap(), seed + 100);
        converse(&mut side, &mut peer, ms(20), secs(3600));
        for run in [&side, &peer] {
            run.assert_alive();
            assert_eq!(run.suspicions(), 0);
        }
        asked_by_it += side.asked_alone().len();
        asked_by_the_peer += peer.asked_alone().len();
    }
    assert!(asked_by_it * 10 < asked_by_the_peer, "{asked_by_it}");
}

/// The peer's ping is no evidence, so its own is counted from there.
#[test]
fn a_ping_of_the_peer_brings_its_own_forward() {
    let mut run = Run::new(passive().build().unwrap());
    run.at(secs(9), |monitor, now| {
        monitor.handle_frame(Control::Ping(heartbeat_core::Nonce([1; 8])), now);
    });
    assert_eq!(run.pings(), [secs(9)]);
    assert_eq!(run.asked_alone(), []);
    assert_eq!(run.monitor.status().last_heard, at(secs(0)));
    run.assert_dies_at(secs(9 + 6));
    assert_eq!(run.pings(), [secs(9), secs(11), secs(13)]);
}
