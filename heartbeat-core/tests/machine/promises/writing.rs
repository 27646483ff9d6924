//! Writes that take their time: promise 15.

use heartbeat_core::{Cause, Config, Evidence, Monitor};
use proptest::{collection::vec, prelude::*};

use super::support::{
    MICROSECOND, Rig, budget, cases, hello, history, lenient, part, share, shortest, start, steady,
    time,
};

proptest! {
    #![proptest_config(cases())]

    //   ping asked for        flushed              missed
    //   |<------ delay ------>|<------- W ------->|
    #[test]
    fn promise_15_a_timeout_starts_when_the_ping_has_left(
        config: Config, seed: u64, start in start(), hello in hello(), history in history(),
        delay in part(),
    ) {
        // The last W of the budget is cut short by the verdict.
        let missed = config.max_missed().max(2);
        let config = lenient(config).to_builder()
            .max_missed(missed).adaptive(false).build().unwrap();
        let mut rig = Rig::new(config, seed, start);
        rig.meet(hello);
        rig.prelude(&history);
        // The round of the first interval begins later than its ping.
        while !rig.can_live() || rig.pings.is_empty() {
            rig.wake_on_time();
        }
        rig.live();
        rig.flushes = false;
        let pings = rig.pings.len();
        while rig.pings.len() == pings {
            rig.wake_on_time();
        }
        let (asked_at, _) = *rig.pings.last().unwrap();
        let longest = budget(&config) - config.timeout();
        let flushed_at = asked_at + share(longest, delay);
        rig.run_until(flushed_at);
        rig.flush();
        prop_assert_eq!(rig.monitor.status().missed, 0, "it hadn't left");

        rig.flushes = true;
        let missed_at = flushed_at + config.timeout();
        rig.run_until(missed_at - MICROSECOND);
        prop_assert_eq!(rig.monitor.status().missed, 0, "too early");
        prop_assert!(!rig.monitor.has_ended());
        let pings = rig.pings.len();
        rig.run_until(missed_at);
        if rig.monitor.has_ended() {
            // The flush came just in time for the verdict.
            let verdict = asked_at.max(rig.last_heard() + rig.monitor.status().interval) + budget(&config);
            prop_assert!(missed_at <= verdict);
        } else {
            prop_assert_eq!(rig.monitor.status().missed, 1);
            prop_assert_eq!(rig.pings.len(), pings + 1, "asks again");
        }
    }

    #[test]
    fn promise_15_a_ping_that_cannot_leave_uses_up_the_same_budget(
        config in steady(), seed: u64, start in start(), hello in hello(), history in history(),
        blocked in part(), leaves: bool,
    ) {
        let config = lenient(config);
        let mut rig = Rig::new(config, seed, start);
        rig.meet(hello);
        rig.prelude(&history);
        let deadline = rig.last_heard() + rig.detection_time();
        // It waits from the first ping of the round on, or the round's first
        // ping leaves and the later ones don't.
        let first = rig.last_heard() + rig.monitor.status().interval;
        rig.run_until(first - MICROSECOND);
        rig.flushes = leaves;
        rig.run_until(first);
        rig.flushes = false;
        let blocked_at = rig.now + share(config.timeout() - MICROSECOND, blocked);
        rig.run_until(blocked_at.min(deadline - MICROSECOND));
        rig.monitor.handle_blocked(rig.now);

        rig.run_until(deadline - MICROSECOND);
        prop_assert!(!rig.monitor.has_ended(), "too early: {:?}", rig.death());
        rig.run_until(deadline);
        let (at, death) = rig.death().expect("a verdict");
        prop_assert_eq!(at, deadline);
        let cause = if leaves { Cause::Silent } else { Cause::WriteStalled };
        prop_assert_eq!(death.cause, cause);
    }

    #[test]
    fn promise_15_a_peer_that_sends_but_does_not_read_is_alive(
        config: Config, seed: u64, start in start(), hello in hello(),
        gaps in vec(part(), 1..16),
    ) {
        let config = lenient(config).to_builder().evidence(Evidence::AnyBytes).build().unwrap();
        let mut rig = Rig::new(config, seed, start);
        rig.meet(hello);
        rig.flushes = false;
        let longest = shortest(config.interval(), &config) + budget(&config) - MICROSECOND;
        for gap in gaps {
            rig.run_until(rig.last_heard() + share(longest, gap));
            rig.monitor.handle_blocked(rig.now);
            rig.live();
            prop_assert!(!rig.monitor.has_ended(), "{:?}", rig.death());
        }
    }

    #[test]
    fn promise_15_unless_the_limit_for_stalled_writes_is_over(
        config: Config, seed: u64, start in start(), hello in hello(),
        limit in time(), gaps in vec((part(), 0..8_u8), 1..8), progresses in 0..4_usize,
    ) {
        let config = config.to_builder()
            .evidence(Evidence::AnyBytes).write_stall(limit).build().unwrap();
        let mut rig = Rig::new(config, seed, start);
        rig.meet(hello);
        rig.flushes = false;
        rig.monitor.handle_blocked(rig.now);
        let mut stuck_since = rig.now;
        let longest = shortest(config.interval(), &config) + budget(&config) - MICROSECOND;
        // The peer sends; some bytes of ours leave now and then, and then none.
        for (index, &(gap, doing)) in gaps.iter().cycle().take(200).enumerate() {
            let next = rig.last_heard() + share(longest, gap).max(MICROSECOND);
            let stalled_at = stuck_since + limit;
            if next >= stalled_at {
                rig.run_until(stalled_at - MICROSECOND);
                prop_assert!(!rig.monitor.has_ended(), "{:?}", rig.death());
                rig.run_until(stalled_at);
                let (at, death) = rig.death().expect("a verdict");
                prop_assert_eq!((at, death.cause), (stalled_at, Cause::WriteStalled));
                return Ok(());
            }
            rig.run_until(next);
            rig.live();
            prop_assert!(!rig.monitor.has_ended(), "{:?}", rig.death());
            // Nothing but written bytes ends it.
            let other: fn(&mut Monitor, _) = match doing {
                0 => Monitor::handle_blocked,
                1 => Monitor::handle_paused,
                2 => Monitor::handle_resumed,
                3 => Monitor::handle_message,
                _ => Monitor::handle_timeout,
            };
            other(&mut rig.monitor, rig.now);
            rig.settle();
            if index < progresses {
                rig.monitor.handle_progress(rig.now);
                stuck_since = rig.now;
            }
        }
    }

    // A large frame moves slowly, and the ping behind it waits: kernels take
    // bytes for a peer that hangs, so that is no evidence.
    #[test]
    fn promise_15_a_write_that_moves_leaves_the_bound_alone(
        config: Config, seed: u64, start in start(), moves in vec(part(), 1..16),
    ) {
        let config = lenient(config);
        let mut rig = Rig::new(config, seed, start);
        rig.flushes = false;
        let bound = rig.now + config.detection_time();
        rig.wake_on_time();
        for part in moves {
            rig.run_until(rig.now + share(budget(&config) / 16, part));
            if !rig.monitor.has_ended() {
                rig.monitor.handle_progress(rig.now);
                rig.settle();
            }
        }
        rig.run_until(bound);
        let (_, death) = rig.death().expect("a verdict");
        prop_assert_eq!(death.cause, Cause::WriteStalled);
    }
}
