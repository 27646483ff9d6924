//! A side that receives in bulk shows life: the peer's pings wait behind its data.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use crate::common::{INSTANCE, Run, at, ms, secs};
use heartbeat_core::{Config, ConfigBuilder, Control, Evidence, Instant, Monitor};

fn timings() -> ConfigBuilder {
    Config::builder()
        .interval(secs(10))
        .timeout(secs(2))
        .jitter(0.0)
}

/// A minute of bytes, one batch each 100 ms.
fn a_minute(run: &mut Run, batch: fn(&mut Monitor, Instant)) {
    for tenth in 1..=600 {
        run.at(ms(100) * tenth, batch);
    }
}

fn bytes(monitor: &mut Monitor, now: Instant) {
    monitor.handle_bytes(now);
}

fn bulk(monitor: &mut Monitor, now: Instant) {
    monitor.handle_bytes(now);
    monitor.handle_backlog(now);
}

#[test]
fn it_shows_life_once_an_interval_although_it_hears_the_peer() {
    let mut run = Run::new(timings().build().unwrap());
    a_minute(&mut run, bulk);
    let tenth = ms(100);
    let every_ten = (0..6).map(|round| tenth + secs(10) * round);
    assert_eq!(run.signs(), every_ten.collect::<Vec<_>>());
    assert_eq!(run.pings(), []);
    assert_eq!(run.told, []);
    assert_eq!(run.monitor.status().missed, 0);
}

#[test]
fn such_a_sign_makes_nobody_judge_sooner() {
    let mut run = Run::new(timings().build().unwrap());
    run.at(secs(1), bulk);
    assert_eq!(run.signs(), [secs(1)]);
    run.assert_dies_at(secs(17));
}

#[test]
fn without_a_backlog_a_peer_that_is_heard_is_shown_nothing() {
    let mut run = Run::new(timings().build().unwrap());
    a_minute(&mut run, bytes);
    assert_eq!((run.signs(), run.pings()), (vec![], vec![]));
}

#[test]
fn an_impatient_peer_is_shown_life_as_often_as_it_would_ping() {
    let mut run = Run::new(timings().build().unwrap());
    let impatient = timings().interval(secs(1)).build().unwrap();
    run.at(ms(0), |monitor, now| {
        monitor.handle_frame(Control::Hello(impatient.hello(INSTANCE)), now);
    });
    a_minute(&mut run, bulk);
    assert_eq!(run.signs().len(), 60);
}

/// It is no ping, so it needs no answer.
#[test]
fn a_peer_that_accepts_only_slow_pings_is_shown_life_no_less_often() {
    let mut run = Run::new(timings().build().unwrap());
    let slow = timings()
        .interval(secs(30))
        .timeout(secs(10))
        .min_interval(secs(30))
        .build()
        .unwrap();
    run.at(ms(0), |monitor, now| {
        monitor.handle_frame(Control::Hello(slow.hello(INSTANCE)), now);
    });
    a_minute(&mut run, bulk);
    assert_eq!(run.signs().len(), 6);
}

/// One that can't leave isn't followed by others.
#[test]
fn one_sign_at_a_time() {
    let mut run = Run::new(timings().build().unwrap());
    run.writable = false;
    a_minute(&mut run, bulk);
    assert_eq!(run.signs(), [ms(100)]);
}

/// Bytes of a message that isn't whole are no evidence here, so we ask too.
#[test]
fn it_shows_life_while_it_asks() {
    let mut run = Run::new(timings().evidence(Evidence::Frame).build().unwrap());
    run.until(secs(10));
    run.at(secs(11), bulk);
    assert_eq!((run.pings(), run.signs()), (vec![secs(10)], vec![secs(11)]));
    run.assert_dies_at(secs(16));
}

/// Nothing else says it there, and a peer that accepts few pings gets few.
#[test]
fn a_foreign_protocol_has_pings_for_that() {
    let mut run = Run::foreign(timings().build().unwrap(), 1);
    a_minute(&mut run, bulk);
    assert_eq!(run.pings().len(), 6);
    assert_eq!(run.signs(), []);
    // That they stay unanswered counts against neither side.
    assert_eq!(run.told, []);
}

/// The peer may have asked just when its messages came, which wait for our application.
#[test]
fn what_waits_is_seen_to_before_the_peers_patience_ends() {
    let mut run = Run::new(timings().build().unwrap());
    let deadline = |run: &Run, since| run.monitor.backlog_deadline(at(since));
    run.at(secs(1), Monitor::handle_message);
    assert_eq!(deadline(&run, secs(1)), Some(at(secs(6))));
    run.at(secs(6), Monitor::handle_backlog);
    assert_eq!(run.signs(), [secs(6)]);
    // The next sign is due a sign interval after it, and no sooner.
    assert_eq!(deadline(&run, secs(1)), Some(at(secs(16))));
    assert_eq!(deadline(&run, secs(12)), Some(at(secs(17))));
    // A pause has its own.
    run.at(secs(7), Monitor::handle_paused);
    assert_eq!(deadline(&run, secs(12)), None);
}

#[test]
fn what_waits_has_no_deadline_where_no_sign_can_follow() {
    let deadline = |run: &Run| run.monitor.backlog_deadline(at(secs(1)));
    // A sign is on its way.
    let mut run = Run::new(timings().build().unwrap());
    run.writable = false;
    run.at(secs(1), bulk);
    assert_eq!((run.signs(), deadline(&run)), (vec![secs(1)], None));

    // In a foreign protocol the pings of a round show the same,
    let mut run = Run::foreign(timings().build().unwrap(), 1);
    run.at(ms(0), |monitor, now| {
        let hello = timings().build().unwrap().hello(INSTANCE);
        monitor.handle_frame(Control::Hello(hello), now);
    });
    run.until(secs(10));
    assert_eq!((run.pings(), deadline(&run)), (vec![secs(10)], None));
    // and so does the ping of a probe, which waits until the peer accepts it.
    run.at(ms(10_005), bytes);
    assert!(deadline(&run).is_some());
    run.at(ms(10_010), Monitor::probe);
    assert_eq!((run.pings(), deadline(&run)), (vec![secs(10)], None));
}
