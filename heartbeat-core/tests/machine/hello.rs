//! A second Hello replaces the first, and what was waited for goes on.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use crate::common::{INSTANCE, Run, secs};
use heartbeat_core::{Config, ConfigBuilder, Control, Event, Evidence, Instant, Monitor};

/// Dead after 16 s.
fn timings() -> ConfigBuilder {
    Config::builder()
        .interval(secs(10))
        .timeout(secs(2))
        .max_stretch(5)
        .jitter(0.0)
}

/// The Hello of a peer that accepts a ping each this many seconds.
fn accepts(min_interval: u64) -> Control {
    let accepted = secs(min_interval);
    let peer = timings()
        .interval(accepted)
        .timeout(accepted)
        .min_interval(accepted);
    Control::Hello(peer.build().unwrap().hello(INSTANCE))
}

/// A Hello is no echo, so the silence goes on.
#[test]
fn a_shorter_interval_makes_nobody_late() {
    let mut run = Run::new(timings().evidence(Evidence::Echo).build().unwrap());
    run.at(secs(0), |monitor, now| {
        monitor.handle_frame(accepts(60), now);
    });
    run.told.clear();
    run.at(secs(40), |monitor, now| {
        monitor.handle_frame(accepts(1), now);
        // It pings now, and isn't late although it would have pinged long ago
        // with this Hello.
        assert!(monitor.has_transmit());
        assert_eq!(monitor.poll_timeout(), Some(now + secs(2)));
    });
    assert_eq!(run.pings(), [secs(40)]);
    assert!(
        matches!(run.told[..], [(_, Event::Connected { .. })]),
        "{:?}",
        run.told
    );
    run.assert_dies_at(secs(46));
}

#[test]
fn a_shorter_interval_that_is_not_over_yet_is_kept_to() {
    let mut run = Run::new(timings().evidence(Evidence::Echo).build().unwrap());
    run.at(secs(0), |monitor, now| {
        monitor.handle_frame(accepts(60), now);
    });
    run.at(secs(4), |monitor, now| {
        monitor.handle_frame(accepts(1), now);
    });
    run.until(secs(12));
    assert_eq!(run.pings(), [secs(10), secs(12)]);
}

#[test]
fn a_probe_that_waited_is_sent_when_it_need_not_wait_any_longer() {
    let mut run = Run::new(timings().build().unwrap());
    run.at(secs(0), |monitor, now| {
        monitor.handle_frame(accepts(60), now);
        monitor.probe(now);
    });
    run.at(secs(1), Monitor::handle_bytes);
    run.at(secs(2), Monitor::probe);
    assert_eq!(run.pings(), [secs(0)]);
    run.told.clear();
    run.at(secs(40), |monitor, now| {
        monitor.handle_frame(accepts(1), now);
    });
    assert_eq!(run.pings(), [secs(0), secs(40)]);
    // No side was late: only the Hello is reported.
    assert_eq!(run.told.len(), 1, "{:?}", run.told);
    run.just_before(secs(42));
    assert_eq!(run.pings().len(), 2);
    run.assert_dies_at(secs(46));
}

/// A side that receives its own Hello knows that it is connected to itself.
#[test]
fn each_end_of_a_connection_has_an_instance_of_its_own() {
    let instance = |seed| {
        let mut monitor = Monitor::new(timings().build().unwrap(), seed, Instant::ORIGIN);
        match monitor.poll_transmit() {
            Some(Control::Hello(hello)) => hello.instance,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(instance(1), instance(1));
    let mut all: Vec<_> = (0..1000).map(instance).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 1000);
}

#[test]
fn a_hello_says_the_largest_message_and_is_news_if_only_that_changed() {
    let mut run = Run::new(timings().max_frame(1000).build().unwrap());
    let Some(&(_, Control::Hello(ours))) = run.sent.first() else {
        panic!("{:?}", run.sent);
    };
    assert_eq!(ours.max_frame, 1000);
    let says = |max_frame| {
        timings()
            .max_frame(max_frame)
            .build()
            .unwrap()
            .hello(INSTANCE)
    };
    for max_frame in [2000, 2000, 3000] {
        run.at(secs(1), |monitor, now| {
            monitor.handle_frame(Control::Hello(says(max_frame)), now);
        });
        assert_eq!(run.monitor.status().peer, Some(says(max_frame)));
    }
    assert_eq!(run.told.len(), 2);
}
