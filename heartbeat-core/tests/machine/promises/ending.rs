//! How it ends: promise 6.

use crate::common::{GOODBYE, LEFT, leave};
use heartbeat_core::{
    Cause, CloseReason, Config, Control, Death, Event, GoodbyeCode, NoDetail, State,
};
use proptest::{collection::vec, prelude::*, test_runner::TestCaseError};

use super::support::{
    MICROSECOND, Rig, Script, What, budget, cases, ending, forward_step, hello, history, start,
    step,
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
        for &step in &before {
            script.perform(step);
            drain_the_end(&mut script, &mut ended)?;
        }
        script.call(ending);
        drain_the_end(&mut script, &mut ended)?;
        for &step in &after {
            script.perform(step);
            drain_the_end(&mut script, &mut ended)?;
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

    // Ours is told to the peer, ahead of the event, and the peer's isn't.
    #[test]
    fn promise_06_who_is_given_up_is_told(
        config: Config, seed: u64, start in start(), before in vec(forward_step(), 0..24),
        code in any::<GoodbyeCode>(), leaves: bool,
    ) {
        let mut script = Script::new(config, seed, start);
        for &step in &before {
            script.perform(step);
        }
        if leaves {
            script.call(What::Close);
        }
        if script.monitor.has_ended() {
            return Ok(());
        }
        script.drain();
        script.out.clear();
        script.call(What::Frame(Control::Goodbye(code)));
        script.drain();
        prop_assert_eq!(&script.out, &[]);
        match script.events.last() {
            Some(Event::Dead(death)) => {
                let detail = NoDetail;
                prop_assert_eq!(death.cause, Cause::GivenUp { code, detail });
                prop_assert!((2..=7).contains(&code.0));
            }
            Some(Event::Closed { reason: CloseReason::Peer { code: told, .. } }) => {
                prop_assert_eq!(*told, code);
                prop_assert!(!(2..=7).contains(&code.0));
            }
            other => prop_assert!(false, "{other:?}"),
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
        script.call(What::Frame(GOODBYE));
        script.call(end);
        for &step in &after {
            script.perform(step);
        }
        script.drain();
        let goodbye = Event::Closed { reason: LEFT };
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
        // Unless the peer gave us up before, and said so.
        let given_up = |death: &Death| matches!(death.cause, Cause::GivenUp { .. });
        let closed = match script.events.last() {
            Some(Event::Dead(death)) => given_up(death),
            last => matches!(last, Some(Event::Closed { .. })),
        };
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
        leave(&mut rig.monitor, closed_at);
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

/// Takes what there is once it has ended: our verdict for the peer, the terminal
/// event, and nothing afterwards.
fn drain_the_end(script: &mut Script, ended: &mut bool) -> Result<(), TestCaseError> {
    if !script.monitor.has_ended() {
        prop_assert!(!*ended, "rose from the dead");
        return Ok(());
    }
    let sent = script.out.len();
    let told = script.events.len();
    script.drain();
    let last: Vec<_> = script.out[sent..].iter().collect();
    let last: Vec<_> = last
        .into_iter()
        .filter(|control| !matches!(control, Control::Hello(_)))
        .collect();
    if std::mem::replace(ended, true) {
        prop_assert!(script.out.len() == sent, "sends after the end");
        prop_assert!(script.events.len() == told, "tells after the end");
    } else {
        let verdict = match script.events.last() {
            Some(Event::Dead(death)) => death.cause.goodbye(),
            _ => None,
        };
        let goodbye = verdict.map(Control::Goodbye);
        prop_assert_eq!(last, goodbye.iter().collect::<Vec<_>>());
    }
    prop_assert_eq!(script.monitor.poll_timeout(), None);
    let terminal = script.events.iter().filter(|event| event.is_terminal());
    prop_assert_eq!(terminal.count(), 1, "{:?}", script.events);
    prop_assert!(script.events.last().is_some_and(Event::is_terminal));
    Ok(())
}
