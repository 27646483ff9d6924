//! How it ends: promise 6.

use heartbeat_core::{CloseReason, Config, Control, Event, State};
use proptest::{collection::vec, prelude::*};

use super::support::{
    MICROSECOND, Rig, Script, Step, What, budget, cases, ending, forward_step, hello, history,
    start, step,
};

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn promise_06_terminal_once_and_then_silence(
        config: Config, seed: u64, start in start(),
        before in vec(step(), 0..24), ending in ending(), after in vec(step(), 0..24),
    ) {
        let mut script = Script::new(config, seed, start);
        let mut ended = false;
        let mut perform = |script: &mut Script, step: Step| {
            script.perform(step);
            if script.monitor.has_ended() {
                let sent = script.out.len();
                script.drain();
                prop_assert!(sent == script.out.len(), "sends after the end");
                prop_assert_eq!(script.monitor.poll_timeout(), None);
                let terminal = script.events.iter().filter(|event| event.is_terminal()).count();
                prop_assert_eq!(terminal, 1, "{:?}", script.events);
                prop_assert!(script.events.last().is_some_and(Event::is_terminal));
                ended = true;
            } else {
                prop_assert!(!ended, "rose from the dead");
            }
            Ok(())
        };
        for &step in &before {
            perform(&mut script, step)?;
        }
        script.call(ending);
        for &step in &after {
            perform(&mut script, step)?;
        }
        let told = script.events.clone();
        let state = script.monitor.status().state;
        if ended {
            let agree = matches!(
                (told.last(), state),
                (Some(Event::Dead(_)), State::Dead) | (Some(Event::Closed { .. }), State::Closed)
            );
            prop_assert!(agree, "{:?} but {:?}", told.last(), state);
        }
    }

    #[test]
    fn promise_06_a_goodbye_of_the_peer_never_turns_into_dead(
        config: Config, seed: u64, start in start(),
        before in vec(forward_step(), 0..24), end in ending(), after in vec(step(), 0..24),
    ) {
        let mut script = Script::new(config, seed, start);
        for &step in &before {
            script.perform(step);
        }
        if script.monitor.has_ended() {
            return Ok(());
        }
        script.call(What::Frame(Control::Goodbye));
        script.call(end);
        for &step in &after {
            script.perform(step);
        }
        script.drain();
        let goodbye = Event::Closed { reason: CloseReason::Peer };
        prop_assert_eq!(script.events.last(), Some(&goodbye));
    }

    #[test]
    fn promise_06_our_goodbye_never_turns_into_dead(
        config: Config, seed: u64, start in start(),
        before in vec(forward_step(), 0..24), end in ending(), after in vec(step(), 0..24),
    ) {
        let mut script = Script::new(config, seed, start);
        for &step in &before {
            script.perform(step);
        }
        if script.monitor.has_ended() {
            return Ok(());
        }
        script.call(What::Close);
        for &step in &after {
            script.perform(step);
        }
        script.call(end);
        // Whatever happened, it is over when writes made no progress for its budget.
        if let Some(deadline) = script.monitor.poll_timeout() {
            script.now = deadline;
            script.call(What::Timeout);
        }
        script.drain();
        let closed = matches!(script.events.last(), Some(Event::Closed { .. }));
        prop_assert!(closed, "{:?}", script.events);
    }

    #[test]
    fn promise_06_a_goodbye_that_cannot_leave_ends_after_its_budget(
        config: Config, seed: u64, start in start(), hello in hello(), history in history(),
        leaves: bool,
    ) {
        let mut rig = Rig::new(config, seed, start);
        rig.meet(hello);
        rig.prelude(&history);
        rig.forget_events();
        let closed_at = rig.now;
        rig.monitor.close(closed_at);
        rig.flushes = leaves;
        rig.settle();
        if !leaves {
            let deadline = closed_at + budget(&config);
            rig.run_until(deadline - MICROSECOND);
            prop_assert!(!rig.monitor.has_ended());
            rig.run_until(deadline);
        }
        let events: Vec<_> = rig.events.iter().map(|&(_, event)| event).collect();
        prop_assert_eq!(events, [Event::Closed { reason: CloseReason::Local }]);
    }
}
