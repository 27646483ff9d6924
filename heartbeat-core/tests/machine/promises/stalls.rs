//! Our own stalls: promise 5.

use heartbeat_core::{Cause, Config, Event, State};
use proptest::{collection::vec, prelude::*};

use super::support::{
    MICROSECOND, Rig, budget, cases, hello, history, lenient, part, share, start, time,
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
        let deadline = rig.monitor.poll_timeout().unwrap();
        let late = config.stall_tolerance() + MICROSECOND + extra;

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

        rig.now = rig.now + share(config.timeout() - MICROSECOND, delay);
        rig.flush();
        let flushed_at = rig.now;
        rig.run_until(flushed_at + config.timeout() - MICROSECOND);
        prop_assert!(!rig.monitor.has_ended(), "{:?}", rig.death());

        // And if the peer is dead, that is found.
        rig.flushes = true;
        let idle = rig.last_heard() + rig.monitor.status().interval;
        rig.run_until(flushed_at.max(idle) + budget(&config));
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
        rig.wake(deadline + config.stall_tolerance());
        let stalled = |&(_, event): &(_, Event)| matches!(event, Event::LocalStall { .. });
        prop_assert!(!rig.events.iter().any(stalled), "{:?}", rig.events);
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
        let late = config.stall_tolerance() + MICROSECOND + extra;
        rig.now = deadline + late;
        let pings = rig.pings.len();
        rig.forget_events();
        rig.live();
        rig.wake(rig.now);
        let stall = Event::LocalStall { late };
        prop_assert!(rig.events.iter().any(|&(_, event)| event == stall));
        prop_assert_eq!(rig.pings.len(), pings + 1);
        let status = rig.monitor.status();
        prop_assert_eq!((status.state, status.missed), (State::Alive, 0));
    }

    #[test]
    fn promise_05_a_machine_that_always_lags_finds_a_dead_peer_too(
        config: Config, seed: u64, start in start(), hello in hello(), history in history(),
        max_missed in 1..8_u32, extras in vec((any::<bool>(), part()), 1..8),
    ) {
        let config = config.to_builder().max_missed(max_missed).build().unwrap();
        let mut rig = Rig::new(config, seed, start);
        rig.meet(hello);
        rig.prelude(&history);
        rig.forget_events();
        let mut extras = extras.iter().cycle();
        let mut wakes = 0;
        let mut forgiven = 0;
        while let Some(deadline) = rig.monitor.poll_timeout() {
            let &(stalls, part) = extras.next().unwrap();
            let tolerance = config.stall_tolerance();
            let late = if stalls {
                tolerance + MICROSECOND + share(config.timeout(), part)
            } else {
                share(tolerance, part)
            };
            let pings = rig.pings.len();
            let missed = rig.monitor.status().missed;
            rig.forget_events();
            rig.wake(deadline + late);
            let stalled = rig.events.iter().any(|(_, event)| matches!(event, Event::LocalStall { .. }));
            prop_assert_eq!(stalled, stalls);
            let told = rig.events.iter().any(|(_, event)| {
                matches!(event, Event::Suspect { .. } | Event::Dead(_))
            });
            let judged = told || rig.monitor.status().missed > missed;
            forgiven += u32::from(stalled && !judged && rig.pings.len() > pings);
            prop_assert!(forgiven <= max_missed, "{} stalls were forgiven", forgiven);
            wakes += 1;
            // The interval, N stalls and N misses; a suspicion after each ping.
            prop_assert!(wakes <= 4 * max_missed + 1, "not found after {} wakes", wakes);
        }
        prop_assert!(rig.death().is_some());
    }
}

/// Some way into a silence, though not so far that the next deadline is the
/// verdict.
fn after_some_deadlines(
    config: Config,
    seed: u64,
    start: heartbeat_core::Instant,
    hello: Option<heartbeat_core::Hello>,
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
