//! Our own stalls: promise 5.

use std::time::Duration;

use heartbeat_core::{Cause, Config, Event, Hello, Instant, State};
use proptest::{collection::vec, prelude::*};

use super::support::{
    MICROSECOND, Rig, cases, hello, history, lenient, part, share, start, steady, time, tolerated,
};

proptest! {
    #![proptest_config(cases())]

    //   deadline            we wake up             flushed
    //   |<-- > tolerance -->|<----- delay ----->|<------- W ------->|
    //                       LocalStall, ping                        Dead at the earliest
    #[test]
    fn promise_05_after_a_stall_a_fresh_ping_has_its_whole_timeout(
        config: Config, seed: u64, start in start(), hello in hello(), history in history(),
        deadlines: u8, extra in time(), noise: Option<u8>, delay in part(),
    ) {
        let mut rig = after_some_deadlines(lenient(config), seed, start, hello, &history, deadlines);
        let undisturbed = rig.last_heard() + rig.detection_time();
        let deadline = rig.monitor.poll_timeout().unwrap();
        let late = tolerated(&config) + MICROSECOND + extra;

        let pings = rig.pings.len();
        rig.flushes = false;
        rig.forget_events();
        rig.now = deadline + late;
        if let Some(kind) = noise {
            rig.noise(kind);
        }
        rig.wake(rig.now);
        let stalls: Vec<_> = rig.events.iter().map(|&(_, event)| event).collect();
        prop_assert_eq!(stalls, [Event::LocalStall { late }]);
        prop_assert_eq!(rig.pings.len(), pings + 1, "one fresh ping");

        let waited = share(config.timeout() - MICROSECOND, delay);
        rig.now = rig.now + waited;
        rig.flush();
        let flushed_at = rig.now;
        rig.run_until(flushed_at + config.timeout() - MICROSECOND);
        prop_assert!(!rig.monitor.has_ended(), "{:?}", rig.death());

        // And if the peer is dead, that is found.
        rig.flushes = true;
        rig.run_until(undisturbed + late + config.timeout() + waited);
        prop_assert_eq!(rig.death().map(|(_, death)| death.cause), Some(Cause::Silent));
    }

    #[test]
    fn promise_05_what_is_tolerated_is_no_stall(
        config: Config, seed: u64, start in start(), hello in hello(), history in history(),
        deadlines: u8,
    ) {
        let mut rig = after_some_deadlines(config, seed, start, hello, &history, deadlines);
        let deadline = rig.monitor.poll_timeout().unwrap();
        rig.forget_events();
        rig.wake(deadline + tolerated(&config));
        prop_assert_eq!(stalls(&rig), []);
    }

    // What was heard may have lain in a buffer while we slept.
    #[test]
    fn promise_05_a_peer_that_was_heard_after_a_stall_is_asked_at_once(
        config: Config, seed: u64, start in start(), hello in hello(), history in history(),
        deadlines: u8, extra in time(),
    ) {
        let mut rig = after_some_deadlines(config, seed, start, hello, &history, deadlines);
        if !rig.can_live() {
            // Nothing was asked that an echo could answer.
            return Ok(());
        }
        let deadline = rig.monitor.poll_timeout().unwrap();
        let late = tolerated(&config) + MICROSECOND + extra;
        rig.now = deadline + late;
        let pings = rig.pings.len();
        // Not sooner than it accepts a ping.
        let accepted = rig.monitor.status().peer.map_or(Duration::ZERO, |peer| peer.min_interval);
        let is_too_soon = rig.pings.last().is_some_and(|&(at, _)| rig.now < at + accepted);
        rig.forget_events();
        rig.live();
        rig.wake(rig.now);
        prop_assert_eq!(stalls(&rig), [late]);
        prop_assert_eq!(rig.pings.len(), pings + usize::from(!is_too_soon));
        let status = rig.monitor.status();
        prop_assert_eq!((status.state, status.missed), (State::Alive, 0));
    }

    #[test]
    fn promise_05_a_machine_that_always_lags_finds_a_dead_peer_too(
        config: Config, seed: u64, start in start(), hello in hello(), history in history(),
        max_missed in 1..8_u32, extras in vec((any::<bool>(), part()), 1..8),
    ) {
        let min_interval = config.min_interval().min(config.timeout() * max_missed);
        let config = config.to_builder()
            .max_missed(max_missed).min_interval(min_interval).build().unwrap();
        let mut rig = Rig::new(config, seed, start);
        rig.meet(hello);
        rig.prelude(&history);
        rig.forget_events();
        let mut extras = extras.iter().cycle();
        let mut wakes = 0;
        let mut forgiven = 0;
        while let Some(deadline) = rig.monitor.poll_timeout() {
            let &(stall, part) = extras.next().unwrap();
            let late = if stall {
                tolerated(&config) + MICROSECOND + share(config.timeout(), part)
            } else {
                share(tolerated(&config), part)
            };
            let pings = rig.pings.len();
            let missed = rig.monitor.status().missed;
            rig.forget_events();
            rig.wake(deadline + late);
            let told = stalls(&rig);
            prop_assert_eq!(&told[..], if stall { &[late][..] } else { &[] });
            let judged = rig.events.iter().any(|(_, event)| {
                matches!(event, Event::Suspect { .. } | Event::Dead(_))
            });
            let judged = judged || rig.monitor.status().missed > missed;
            forgiven += u32::from(stall && !judged && rig.pings.len() > pings);
            prop_assert!(forgiven <= max_missed, "{} stalls were forgiven", forgiven);
            wakes += 1;
            // The interval, N stalls and N misses; after each ping more time, and a suspicion.
            prop_assert!(wakes <= 6 * max_missed + 1, "not found after {} wakes", wakes);
        }
        prop_assert!(rig.death().is_some());
    }

    //   t0      t0 + I + N·W                                     Dead, k = 1
    //   |------->|<---- L ---->|<---- w ---->|<------- W ------->|
    //                          we wake up    the fresh ping leaves
    #[test]
    fn promise_05_the_bound_with_k_stalls_is_attained(
        config in steady(), seed: u64, start in start(), hello in hello(), leaves: bool,
        slept in vec((time(), prop::option::of(part())), 1..8),
    ) {
        let config = lenient(config);
        let mut rig = Rig::new(config, seed, start);
        rig.meet(hello);
        rig.flushes = leaves;
        let mut verdict = rig.last_heard() + rig.detection_time();
        let mut asked = leaves;
        for &(extra, waits) in slept.iter().take(config.max_missed() as usize) {
            rig.run_until(verdict - MICROSECOND);
            prop_assert_eq!(rig.monitor.poll_timeout(), Some(verdict));
            rig.flushes = false;
            let late = tolerated(&config) + MICROSECOND + extra;
            rig.wake(verdict + late);
            verdict = rig.now + config.timeout();
            // Or the fresh ping never leaves.
            if let Some(part) = waits {
                let waited = share(config.timeout(), part);
                rig.now = rig.now + waited;
                rig.flush();
                verdict = verdict + waited;
                asked = true;
            }
        }
        rig.run_until(verdict - MICROSECOND);
        prop_assert!(!rig.monitor.has_ended(), "too early: {:?}", rig.death());
        rig.run_until(verdict);
        let (at, death) = rig.death().expect("a verdict");
        prop_assert_eq!(at, verdict);
        prop_assert_eq!(death.cause, if asked { Cause::Silent } else { Cause::WriteStalled });
    }

    #[test]
    fn promise_05_the_bound_with_k_stalls_holds_wherever_they_happen(
        config: Config, seed: u64, start in start(), hello in hello(), history in history(),
        doings in vec((any::<bool>(), time(), prop::option::of(part())), 1..12),
    ) {
        let mut rig = Rig::new(config, seed, start);
        rig.meet(hello);
        rig.prelude(&history);
        let mut bound = rig.last_heard() + rig.detection_time();
        let mut forgiven = 0;
        // Since when a fresh ping waits.
        let mut waits = None;
        let mut doings = doings.iter().cycle();
        rig.flushes = false;
        while let Some(deadline) = rig.monitor.poll_timeout() {
            let &(stalls, extra, leaves) = doings.next().unwrap();
            if stalls && forgiven < config.max_missed() {
                let late = tolerated(&config) + MICROSECOND + extra;
                rig.wake(deadline + late);
                forgiven += 1;
                bound = bound + late + config.timeout();
                waits = Some(rig.now);
            } else {
                rig.wake_on_time();
            }
            let next = rig.monitor.poll_timeout();
            if let (Some(part), Some(next)) = (leaves, next) {
                rig.now = rig.now + share(next.saturating_duration_since(rig.now), part);
                rig.flush();
                if let Some(since) = waits.take() {
                    bound = bound + rig.now.saturating_duration_since(since);
                }
            }
        }
        let (at, _) = rig.death().expect("a verdict");
        prop_assert!(at <= bound, "{at:?} is after {bound:?}");
    }
}

/// How late we were told to have been.
fn stalls(rig: &Rig) -> Vec<Duration> {
    let events = rig.events.iter();
    let late = events.filter_map(|&(_, event)| match event {
        Event::LocalStall { late } => Some(late),
        _ => None,
    });
    late.collect()
}

/// Some way into a silence, though not so far that the next deadline is the
/// verdict.
fn after_some_deadlines(
    config: Config,
    seed: u64,
    start: Instant,
    hello: Option<Hello>,
    history: &[f64],
    deadlines: u8,
) -> Rig {
    let mut rig = Rig::new(config, seed, start);
    rig.meet(hello);
    rig.prelude(history);
    for _ in 0..deadlines {
        let mut next = rig.monitor.clone();
        next.handle_timeout(next.poll_timeout().unwrap());
        if next.has_ended() {
            break;
        }
        rig.wake_on_time();
    }
    rig
}
