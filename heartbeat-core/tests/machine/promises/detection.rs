//! When a peer is dead, when it isn't, and what comes before: promises 1 to 4
//! and 14.

use heartbeat_core::{
    Cause, Config, Control, Event, Evidence, Instant, Nonce, State,
    testkit::{Direction, Link, Side, Simulation, ms, us},
};
use proptest::{collection::vec, prelude::*};

use super::support::{
    MICROSECOND, Rig, budget, cases, hello, history, lenient, micros, part, patient, share,
    shortest, start, steady, tolerated,
};

proptest! {
    #![proptest_config(cases())]

    //   t0                                        t0 + I + N·W
    //   |<------- I ------->|<-- W -->| ... |<-- W -->|
    //   evidence            ping      ping            Dead
    #[test]
    fn promise_01_completeness_is_exact_without_jitter_and_lateness(
        config in steady(), seed: u64, start in start(), hello in hello(), history in history(),
    ) {
        let mut rig = Rig::new(config, seed, start);
        rig.meet(hello);
        rig.prelude(&history);
        let bound = rig.detection_time();
        let deadline = rig.last_heard() + bound;

        rig.run_until(deadline - MICROSECOND);
        prop_assert!(!rig.monitor.has_ended(), "too early");
        rig.run_until(deadline);
        let (at, death) = rig.death().expect("a verdict");
        prop_assert_eq!(at, deadline);
        prop_assert_eq!(death.cause, Cause::Silent);
        prop_assert_eq!(death.silent_for, bound);
        prop_assert_eq!(death.missed, config.max_missed());
    }

    #[test]
    fn promise_01_completeness_holds_with_jitter_lateness_and_noise(
        config: Config, seed: u64, start in start(), hello in hello(), history in history(),
        late_by in part(),
        doings in vec((part(), part(), any::<u8>()), 1..12),
        flushes in vec(any::<bool>(), 1..4),
    ) {
        let mut rig = Rig::new(config, seed, start);
        rig.meet(hello);
        rig.prelude(&history);
        let lateness = share(tolerated(&config), late_by);
        let deadline = rig.last_heard() + rig.detection_time();

        let mut doings = doings.iter().cycle();
        let mut flushes = flushes.iter().cycle();
        for _ in 0..10_000 {
            let Some(next) = rig.monitor.poll_timeout() else { break };
            prop_assert!(next <= deadline, "{next:?} is after {deadline:?}");
            let &(soon, late, what) = doings.next().unwrap();
            // Something that is no evidence, between now and the deadline.
            rig.flushes = *flushes.next().unwrap();
            rig.now = rig.now + share(next.saturating_duration_since(rig.now), soon);
            match what % 16 {
                0..4 => rig.noise(what / 16),
                4 => rig.monitor.handle_blocked(rig.now),
                5 => rig.monitor.probe(rig.now),
                6 => rig.flush(),
                7 => rig.monitor.handle_timeout(rig.now),
                _ => {}
            }
            rig.settle();
            if let Some(next) = rig.monitor.poll_timeout() {
                rig.wake(next.max(rig.now) + share(lateness, late));
            }
        }
        let (at, _) = rig.death().expect("a verdict");
        prop_assert!(at <= deadline + lateness, "{at:?} is after {deadline:?} + {lateness:?}");
    }

    #[test]
    fn promise_01_completeness_of_two_peers_over_a_link(
        config in timings_for_links(), rtt in 0..300_u64, seed: u64, side: Side,
        at in 0..5_000_000_u64, cut: bool, late in part(), chatty: bool,
    ) {
        let link = Link::new().rtt(ms(rtt)).jitter(ms(rtt) / 4);
        let lateness = share(tolerated(&config), late);
        let at = us(at);
        let mut simulation = Simulation::new(config, link, seed).lateness(side.other(), lateness);
        simulation = if cut { simulation.cut(Direction::Both, at) } else { simulation.hang(side, at) };
        if chatty {
            simulation = simulation.messages(side, ms(70), 500);
        }
        // What was under way when it happened still arrives.
        let under_way = ms(rtt) / 2 + ms(rtt) / 4;
        let bound = config.detection_time() + lateness + under_way;
        let report = simulation.run_for(at + bound);
        let judge = side.other();
        if report.mistake().is_none() {
            let took = report.detection_time(judge);
            prop_assert!(took.is_some_and(|took| took <= bound), "{took:?}\n{}", report.timeline());
        }
    }

    // What A sends is lost from `at` on. A learns it by itself: no pong comes. B
    // hears nothing, not even questions.
    #[test]
    fn promise_01_completeness_on_both_sides_whichever_direction_failed(
        config in timings_for_links(), rtt in 0..300_u64, seed: u64, side: Side, at in 0..5_000_000_u64,
    ) {
        let config = config.to_builder().role(heartbeat_core::Role::Both).build().unwrap();
        let link = Link::new().rtt(ms(rtt));
        let direction = match side {
            Side::A => Direction::AToB,
            Side::B => Direction::BToA,
        };
        let at = us(at);
        let bound = config.detection_time() + ms(rtt);
        let report = Simulation::new(config, link, seed).cut(direction, at).run_for(at + bound);
        if report.mistake().is_none() {
            for judge in [Side::A, Side::B] {
                let took = report.detection_time(judge);
                prop_assert!(took.is_some_and(|took| took <= bound), "{took:?}\n{}", report.timeline());
            }
        }
    }

    #[test]
    fn promise_02_accuracy(
        config: Config, seed: u64, start in start(), hello in hello(),
        arrivals in vec((part(), part(), any::<bool>()), 1..16),
    ) {
        let config = lenient(config);
        let mut rig = Rig::new(config, seed, start);
        rig.meet(hello);
        let longest = shortest(config.interval(), &config) + budget(&config) - MICROSECOND;
        let echo = config.evidence() == Evidence::Echo;

        for (gap, late, flushes) in arrivals {
            let arrival = rig.last_heard() + share(longest, gap).max(MICROSECOND);
            // An answer needs a question that has left, and was asked in time.
            rig.flushes = flushes || echo;
            let late = if echo { 0.0 } else { late };
            while let Some(deadline) = rig.monitor.poll_timeout() {
                let wakes_at = deadline.max(rig.now) + share(config.stall_tolerance() * 2, late);
                if wakes_at >= arrival && rig.can_live() {
                    break;
                }
                rig.wake(wakes_at);
                prop_assert!(!rig.monitor.has_ended(), "{:?}", rig.death());
            }
            rig.now = rig.now.max(arrival);
            rig.live();
            prop_assert!(!rig.monitor.has_ended(), "{:?}", rig.death());
        }
    }

    // A partition of X is a silence of less than 2·X and a few round trips.
    #[test]
    fn promise_02_accuracy_of_two_peers_over_a_link(
        config in timings_for_links(), rtt in part(), seed: u64, outage in part(),
        direction: Direction, at in 0..5_000_u64, stalled: Side, chatty: bool,
    ) {
        let rtt = share(config.timeout() / 4, rtt);
        let link = Link::new().rtt(rtt).jitter(rtt / 2);
        let slack = ms(400) + rtt * 10;
        let budget = budget(&config);
        let outage = share(budget.saturating_sub(slack) / 2, outage);
        let (stall_at, pause_at) = (ms(at) + ms(15_000), ms(at) + ms(40_000));
        let mut simulation = Simulation::new(config, link, seed)
            .partition(direction, ms(at), outage)
            .stall(stalled, stall_at, budget.saturating_sub(rtt * 4 + MICROSECOND))
            .lateness(stalled, config.stall_tolerance().min(rtt));
        // With `Echo` a peer that doesn't read is given up.
        if config.evidence() != Evidence::Echo {
            simulation = simulation.pause_reading(stalled, pause_at, ms(10_000));
        }
        if chatty {
            simulation = simulation.messages(Side::A, ms(500), 20_000);
        }
        simulation.run_for(pause_at + ms(20_000)).assert_no_false_alarm()?;
    }

    #[test]
    fn promise_03_suspect_is_not_dead(
        config in patient(), seed: u64, start in start(), hello in hello(), history in history(),
        suspicions in 1..6_usize, wait in part(), life: u8,
    ) {
        let mut rig = Rig::new(config, seed, start);
        rig.meet(hello);
        rig.prelude(&history);
        rig.forget_events();
        // Until it was suspected this often, or nearly dead.
        while suspected(&rig) < suspicions.min(config.max_missed() as usize - 1) {
            rig.wake_on_time();
            prop_assert!(!rig.monitor.has_ended());
        }
        prop_assert_eq!(rig.monitor.status().state, State::Suspect);
        let next = rig.monitor.poll_timeout().unwrap();
        rig.now = rig.now + share(next.saturating_duration_since(rig.now), wait);
        let silent_for = rig.now.saturating_duration_since(rig.last_heard());
        rig.forget_events();

        // Any evidence that is accepted.
        let now = rig.now;
        match (config.evidence(), life % 5) {
            (Evidence::Acknowledgement, 0) => rig.monitor.handle_acknowledged(now, now),
            (Evidence::AnyBytes, 0) => rig.monitor.handle_bytes(now),
            (Evidence::Acknowledgement | Evidence::AnyBytes | Evidence::Frame, 1) => rig.monitor.handle_message(now),
            (Evidence::Acknowledgement | Evidence::AnyBytes | Evidence::Frame, 2) => {
                rig.monitor.handle_frame(Control::Alive, now);
            }
            (Evidence::Acknowledgement | Evidence::AnyBytes | Evidence::Frame, 3) => {
                rig.monitor.handle_frame(Control::Pong(Nonce([life; 8])), now);
            }
            _ => rig.pong(),
        }
        rig.settle();

        let recovered: Vec<_> = rig.events.iter().map(|&(_, event)| event)
            .filter(|event| !matches!(event, Event::Beat { .. }))
            .collect();
        prop_assert_eq!(recovered, [Event::Recovered { silent_for }]);
        let status = rig.monitor.status();
        prop_assert_eq!((status.state, status.missed), (State::Alive, 0));

        // And the whole budget is there again.
        let earliest = now + shortest(config.interval(), &config) + budget(&config);
        rig.run_until(earliest - MICROSECOND);
        prop_assert!(!rig.monitor.has_ended());
    }

    // Each suspicion is about a ping that left, and about that one only.
    #[test]
    fn promise_03_no_suspect_for_a_beat_that_was_never_sent(
        config: Config, seed: u64, start in start(), hello in hello(), history in history(),
        flushes in vec(any::<bool>(), 1..8), waits in vec(part(), 1..8),
    ) {
        let mut rig = Rig::new(config, seed, start);
        rig.meet(hello);
        rig.prelude(&history);
        rig.live_if_possible();
        rig.forget_events();
        let earlier = rig.pings.len();
        let mut left = 0;
        let mut flushes = flushes.iter().cycle();
        let mut waits = waits.iter().cycle();
        while let Some(deadline) = rig.monitor.poll_timeout() {
            rig.flushes = *flushes.next().unwrap();
            rig.wake_on_time();
            if rig.flushes {
                left = rig.pings.len() - earlier;
            }
            prop_assert!(suspected(&rig) <= left, "{} of {left}", suspected(&rig));
            // What waits may leave between two deadlines.
            if *flushes.next().unwrap() && !rig.monitor.has_ended() {
                let until = rig.monitor.poll_timeout().unwrap_or(deadline);
                rig.now = rig.now + share(until.saturating_duration_since(rig.now), *waits.next().unwrap());
                rig.flush();
                left = rig.pings.len() - earlier;
            }
        }
    }

    // Read first, then look at the clock: both at the same microsecond.
    #[test]
    fn promise_04_ties_go_to_the_living(
        config in steady(), seed: u64, start in start(), hello in hello(), history in history(),
        deadlines: u8,
    ) {
        let mut rig = Rig::new(config, seed, start);
        rig.meet(hello);
        rig.prelude(&history);
        let verdict = rig.last_heard() + rig.detection_time();
        for _ in 0..deadlines {
            if rig.monitor.poll_timeout() < Some(verdict) {
                rig.wake_on_time();
            }
        }
        // With `Echo` a ping must be out.
        while !rig.can_live() {
            rig.wake_on_time();
        }
        rig.forget_events();

        rig.now = rig.monitor.poll_timeout().unwrap();
        rig.live();
        rig.wake(rig.now);
        let worried = |&(_, event): &(_, Event)| matches!(event, Event::Suspect { .. }) || event.is_terminal();
        prop_assert!(!rig.events.iter().any(worried), "{:?}", rig.events);
        let status = rig.monitor.status();
        prop_assert_eq!((status.state, status.missed), (State::Alive, 0));
        prop_assert_eq!(status.last_heard, rig.now);
    }

    #[test]
    fn promise_04_ties_go_to_the_living_at_the_verdict_itself(
        config in steady(), seed: u64, start in start(), hello in hello(), rounds in 1..4,
    ) {
        let mut rig = Rig::new(config, seed, start);
        rig.meet(hello);
        for _ in 0..rounds {
            let verdict = rig.last_heard() + rig.detection_time();
            rig.run_until(verdict - MICROSECOND);
            rig.now = verdict;
            rig.live();
            rig.wake(verdict);
            prop_assert_eq!(rig.monitor.status().state, State::Alive);
        }
        let verdict = rig.last_heard() + rig.detection_time();
        rig.run_until(verdict - MICROSECOND);
        rig.wake(verdict);
        prop_assert_eq!(rig.monitor.status().state, State::Dead);
    }

    #[test]
    fn promise_14_rtt_comes_from_matching_nonces_only(
        config: Config, seed: u64, start in start(),
        answers in vec((part(), 0..4_u8, any::<Nonce>()), 1..16),
    ) {
        let mut rig = Rig::new(config, seed, start);
        let mut measured = None;
        let mut answered = None;
        for (wait, kind, nonce) in answers {
            // The first ping of a round, and before its timeout an answer.
            while rig.answered == rig.pings.len() {
                rig.wake_on_time();
                prop_assert!(!rig.monitor.has_ended());
            }
            let &(asked_at, asked) = rig.pings.last().unwrap();
            rig.run_until(asked_at + share(config.timeout() - MICROSECOND, wait));
            let took = rig.now.saturating_duration_since(asked_at);
            let before = rig.monitor.status();
            rig.forget_events();
            let matches = match (kind, answered) {
                // A guess, an old answer again, or our own ping.
                (0, _) => {
                    rig.monitor.handle_frame(Control::Pong(nonce), rig.now);
                    false
                }
                (1, Some(old)) => {
                    rig.monitor.handle_frame(Control::Pong(old), rig.now);
                    false
                }
                (2, _) => {
                    rig.monitor.handle_frame(Control::Ping(asked), rig.now);
                    false
                }
                _ => {
                    rig.pong();
                    true
                }
            };
            rig.settle();
            let after = rig.monitor.status();
            let beats = rig.events.iter().filter(|(_, event)| matches!(event, Event::Beat { .. }));
            if matches {
                measured = Some(took);
                prop_assert_eq!(after.pongs, before.pongs + 1);
                prop_assert_eq!(beats.count(), usize::from(config.beat_events()));
            } else {
                prop_assert_eq!(after.pongs, before.pongs);
                prop_assert_eq!(after.smoothed_rtt, before.smoothed_rtt);
                prop_assert_eq!(beats.count(), 0);
            }
            // What is longer than 71 minutes counts as that.
            let longest = us(u64::from(u32::MAX) - 1);
            prop_assert_eq!(after.last_rtt, measured.map(|rtt| rtt.min(longest)));

            if matches {
                answered = Some(asked);
            } else if config.evidence() == Evidence::Echo {
                rig.pong();
                rig.settle();
                answered = Some(asked);
                measured = Some(took);
            } else {
                // That was life enough: the next round.
                rig.live();
                rig.answered = rig.pings.len();
            }
        }
    }

    // RFC 6298: after one round trip R the timeout is R + 4·R/2, and after
    // any number of them it is between the floor and W.
    #[test]
    fn promise_14_the_adaptive_timeout_stays_within_floor_and_timeout(
        config in patient(), seed: u64, start in start(), trips in vec(part(), 1..12), steadily: bool,
    ) {
        let config = config.to_builder().adaptive(true).build().unwrap();
        let (floor, timeout) = (config.adaptive_floor(), config.timeout());
        let mut rig = Rig::new(config, seed, start);
        let mut last = Instant::ORIGIN;
        let mut trip = MICROSECOND;
        for (index, &part) in trips.iter().enumerate() {
            if index == 0 || !steadily {
                trip = share(timeout - MICROSECOND, part);
            }
            while rig.answered == rig.pings.len() {
                rig.wake_on_time();
            }
            let asked_at = rig.now;
            rig.run_until(asked_at + trip);
            rig.pong();
            rig.settle();
            last = rig.now;
        }
        rig.forget_events();
        while rig.answered == rig.pings.len() {
            rig.wake_on_time();
        }
        let asked_at = rig.now;
        prop_assert!(asked_at > last);
        rig.run_until(asked_at + floor.min(timeout) - MICROSECOND);
        prop_assert_eq!(suspected(&rig), 0, "sooner than the floor");
        rig.run_until(asked_at + timeout);
        let &(at, _) = rig.events.iter()
            .find(|(_, event)| matches!(event, Event::Suspect { .. }))
            .expect("suspected within the timeout");

        let waited = at.saturating_duration_since(asked_at);
        let measurable = us(u64::from(u32::MAX) - 1);
        if trips.len() == 1 && trip <= measurable {
            // The variation is half of the trip, rounded down.
            let expected = us(micros(trip) + 4 * (micros(trip) / 2));
            prop_assert_eq!(waited, expected.clamp(floor, timeout));
        }
        if steadily {
            prop_assert!(waited >= trip.min(measurable).min(timeout), "{waited:?} < {trip:?}");
        }
    }
}

fn suspected(rig: &Rig) -> usize {
    let suspicions = rig.events.iter();
    suspicions
        .filter(|(_, event)| matches!(event, Event::Suspect { .. }))
        .count()
}

/// Timings of which some ten rounds are worth simulating, for segments that
/// are retransmitted after 200 ms.
fn timings_for_links() -> impl Strategy<Value = Config> {
    (any::<Config>(), 200..5_000_u64, 200..3_000_u64, 1..5_u32).prop_map(
        |(config, interval, timeout, max_missed)| {
            config
                .to_builder()
                .interval(ms(interval))
                .timeout(ms(timeout))
                .max_missed(max_missed)
                .min_interval(ms(1))
                // A side that pauses doesn't know the jitter of the peer, and beats at
                // most twice an interval.
                .jitter(config.jitter() / 2.0)
                .adaptive_floor(ms(100))
                .stall_tolerance(ms(timeout))
                .write_stall(None)
                .build()
                .unwrap()
        },
    )
}
