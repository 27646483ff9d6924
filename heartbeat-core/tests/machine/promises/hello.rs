//! What two sides tell each other about themselves: promise 10.

use crate::common::INSTANCE;
use heartbeat_core::{
    Cause, Config, Control, Event, Hello, Monitor, Nonce,
    testkit::{Link, Side, Simulation, ms, secs},
};
use proptest::{collection::vec, prelude::*};

use super::support::{
    MICROSECOND, Rig, Script, What, budget, cases, forward_step, hello, history, is_accepted,
    lenient, part, share, shortest, start, steady,
};

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn promise_10_negotiation_does_not_depend_on_order(
        config: Config, seed: u64, start in start(), after in part(), peer: Hello,
        frames in vec(company(), 0..4), at in any::<prop::sample::Index>(),
    ) {
        let outcome = |position: usize| {
            // Not after the first deadline: what a stall draws anew is random.
            let first = Monitor::new(config, seed, start).poll_timeout().unwrap();
            let now = start + share(first.saturating_duration_since(start), after);
            let mut all = frames.clone();
            all.insert(position, What::Frame(Control::Hello(peer)));
            let mut script = Script::new(config, seed, start);
            script.now = now;
            for &what in &all {
                script.call(what);
            }
            script.drain();
            let deadline = script.monitor.poll_timeout();
            (script.monitor.status(), deadline, script.out, script.events)
        };
        prop_assert_eq!(outcome(0), outcome(at.index(frames.len() + 1)));
    }

    #[test]
    fn promise_10_negotiation_is_idempotent(
        config: Config, seed: u64, start in start(), peer: Hello,
        before in vec(forward_step(), 0..12), after in vec(forward_step(), 0..12),
    ) {
        let run = |again: Control| {
            let mut script = Script::new(config, seed, start);
            script.call(What::Frame(Control::Hello(peer)));
            let others = |what: &What| !matches!(what, What::Frame(Control::Hello(_)));
            let mut trace = Vec::new();
            for step in before.iter().filter(|step| others(&step.what)) {
                script.perform(*step);
            }
            script.call(What::Events);
            script.call(What::Frame(again));
            script.call(What::Events);
            for step in after.iter().filter(|step| others(&step.what)) {
                script.perform(*step);
                trace.push((script.monitor.poll_timeout(), script.monitor.status()));
            }
            script.drain();
            (trace, script.out, script.events)
        };
        // A whole frame that says nothing, against the same Hello again.
        let nothing = Control::Pong(Nonce([0; 8]));
        prop_assert_eq!(run(Control::Hello(peer)), run(nothing));
    }

    #[test]
    fn promise_10_the_last_hello_counts(
        config in steady(), seed: u64, start in start(), first: Hello, last: Hello,
        history in history(),
    ) {
        let config = lenient(config);
        if !is_accepted(&config, &last) {
            return Ok(());
        }
        let mut rig = Rig::new(config, seed, start);
        rig.meet(Some(first));
        rig.prelude(&history);
        rig.meet(Some(last));
        let only = {
            let mut rig = Rig::new(config, seed, start);
            rig.meet(Some(last));
            rig.monitor.status()
        };
        let status = rig.monitor.status();
        prop_assert_eq!(status.peer, Some(last));
        prop_assert_eq!(status.interval, only.interval);
        prop_assert_eq!(status.detection_time, only.detection_time);
        prop_assert_eq!(status.interval, config.interval().max(last.min_interval));
        // And the bound that it says is kept.
        if rig.last_heard() == rig.now {
            let deadline = rig.now + status.detection_time;
            rig.run_until(deadline - MICROSECOND);
            prop_assert!(!rig.monitor.has_ended(), "too early");
            rig.run_until(deadline);
            prop_assert!(rig.monitor.has_ended(), "too late");
        }
    }

    // As if the first one had never been said.
    #[test]
    fn promise_10_a_hello_that_takes_values_back_takes_all_of_them_back(
        config: Config, seed: u64, start in start(), first: Hello, last: Hello, after in part(),
        probes: bool,
    ) {
        if !is_accepted(&config, &first) || !is_accepted(&config, &last) {
            return Ok(());
        }
        let heard = [Control::Hello(first), Control::Pong(Nonce([0; 8]))];
        let [mut both, mut only] = heard.map(|control| {
            let mut script = Script::new(config, seed, start);
            script.call(What::Frame(control));
            script
        });
        // Before either of them asks.
        let asks = [&both, &only].map(|script| script.monitor.poll_timeout());
        let until = asks.into_iter().flatten().min().unwrap();
        let now = start + share(until.saturating_duration_since(start) - MICROSECOND, after);
        let outcomes = [&mut both, &mut only].map(|script| {
            script.now = now;
            script.call(What::Frame(Control::Hello(last)));
            if probes {
                script.call(What::Probe);
            }
            script.drain();
            (script.monitor.poll_timeout(), script.monitor.status(), script.out.clone())
        });
        let [both, only] = outcomes;
        prop_assert_eq!(both, only);
    }

    // The peer would hear of us too often, or be asked too rarely.
    #[test]
    fn promise_10_timings_beyond_our_bounds_are_refused(
        config: Config, seed: u64, start in start(), hello: Hello, after in part(), paused: bool,
    ) {
        let mut rig = Rig::new(config, seed, start);
        rig.now = start + share(config.interval() - MICROSECOND, after);
        if paused {
            rig.monitor.handle_paused(rig.now);
        }
        let before = rig.monitor.status();
        rig.monitor.handle_frame(Control::Hello(hello), rig.now);
        rig.settle();
        let refused = !is_accepted(&config, &hello);
        prop_assert_eq!(rig.death().map(|(_, death)| death.cause), refused.then_some(Cause::Refused));
        let status = rig.monitor.status();
        prop_assert_eq!(status.peer, (!refused).then_some(hello));
        if refused {
            prop_assert_eq!(status.interval, before.interval);
        }
    }

    // A Hello in the middle of a silence never makes the verdict come sooner:
    // the silence goes on after it, for as long as is harmless.
    #[test]
    fn promise_10_a_late_hello_causes_no_false_dead(
        config: Config, seed: u64, start in start(), peer: Hello, again in hello(),
        parts in vec((part(), part()), 1..8),
    ) {
        let config = lenient(config);
        let mut rig = Rig::new(config, seed, start);
        let longest = shortest(config.interval(), &config) + budget(&config) - MICROSECOND;
        for (index, &(gap, met)) in parts.iter().enumerate() {
            let gap = share(longest, gap);
            let met_at = rig.last_heard() + share(gap, met);
            rig.run_until(met_at);
            prop_assert!(!rig.monitor.has_ended(), "{:?}", rig.death());
            rig.meet(Some(again.filter(|_| index % 2 == 1).unwrap_or(peer)));
            rig.run_until(rig.last_heard() + gap);
            prop_assert!(!rig.monitor.has_ended(), "{:?}", rig.death());
            // An echo needs a question.
            if rig.can_live() {
                rig.live();
            }
        }
    }

    #[test]
    fn promise_10_asymmetric_settings_cause_no_false_dead(
        a in timings(), b in timings(), seed: u64, rtt in part(), jitter in part(), chatty: Option<Side>,
    ) {
        if !is_accepted(&a, &b.hello(INSTANCE)) || !is_accepted(&b, &a.hello(INSTANCE)) {
            return Ok(());
        }
        let patience = a.timeout().min(b.timeout());
        let rtt = share(patience / 2, rtt);
        let link = Link::new().rtt(rtt).jitter(share(patience / 8, jitter));
        let mut simulation = Simulation::between(a, b, link, seed);
        if let Some(side) = chatty {
            simulation = simulation.messages(side, ms(300), 100);
        }
        let report = simulation.run_for(secs(30));
        report.assert_no_false_alarm()?;
        for (side, own, other) in [(Side::A, a, b), (Side::B, b, a)] {
            let status = report.status(side);
            let instance = status.peer.map(|peer| peer.instance).unwrap_or_default();
            prop_assert_eq!(status.peer, Some(other.hello(instance)));
            prop_assert_eq!(status.interval, own.interval().max(other.min_interval()));
            prop_assert!(!report.events(side).any(|(_, event)| matches!(event, Event::Dead(_))));
        }
    }
}

/// What may come together with a Hello. A ping comes behind it: the Hello is
/// the first frame.
fn company() -> impl Strategy<Value = What> {
    prop_oneof![
        Just(What::Bytes),
        Just(What::Message),
        any::<Nonce>().prop_map(|nonce| What::Frame(Control::Pong(nonce))),
        Just(What::Frame(Control::Alive)),
    ]
}

/// Timings of which a few seconds show something.
fn timings() -> impl Strategy<Value = Config> {
    let times = (50..5_000_u64, 20..3_000_u64, 1..5_u32, 10..5_000_u64);
    (any::<Config>(), times).prop_map(|(config, (interval, timeout, max_missed, min_interval))| {
        config
            .to_builder()
            .interval(ms(interval))
            .timeout(ms(timeout))
            .max_missed(max_missed)
            .min_interval(ms(min_interval
                .min(interval)
                .min(timeout * u64::from(max_missed))))
            .adaptive_floor(ms(10))
            .stall_tolerance(ms(timeout))
            .write_stall(None)
            .build()
            .unwrap()
    })
}
