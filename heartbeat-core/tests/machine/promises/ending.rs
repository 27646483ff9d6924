//! How it ends: promise 6.

use crate::common::{GOODBYE, LEFT};
use heartbeat_core::{
    Cause, CloseReason, Config, Control, Event, GoodbyeCode, Instant, NoDetail, State,
};
use proptest::{collection::vec, prelude::*, test_runner::TestCaseError};

use super::support::{Script, What, cases, ending, forward_step, start, step};

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

    // Ours is told to the peer, ahead of the event, and the peer's isn't. A peer
    // that leaves is answered.
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
        let said: Vec<_> = script.out.iter().filter(|said| matches!(said, Control::Goodbye(_))).collect();
        let is_answer = code == GoodbyeCode::RECEIVED;
        let answer = (!code.is_verdict() && !is_answer).then(|| script.answer());
        prop_assert_eq!(said, answer.iter().collect::<Vec<_>>());
        let detail = NoDetail;
        match script.events.last() {
            _ if leaves && !code.is_verdict() && !is_answer => {
                prop_assert_eq!(script.monitor.status().state, State::Closing);
            }
            Some(Event::Dead(death)) => {
                prop_assert_eq!(death.cause, Cause::GivenUp { code, detail });
                prop_assert!((2..=7).contains(&code.0));
            }
            Some(Event::Closed { reason: CloseReason::Peer { code: told, .. } }) => {
                prop_assert_eq!(*told, code);
                prop_assert!(!leaves && !(2..=7).contains(&code.0));
            }
            Some(Event::Closed { reason }) => {
                prop_assert_eq!(*reason, CloseReason::Local);
                prop_assert!(leaves && is_answer);
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn promise_06_a_goodbye_of_the_peer_never_turns_into_dead(
        config: Config, seed: u64, start in start(),
        before in vec(forward_step(), 0..24), leaves: bool,
        end in ending(), after in vec(step(), 0..24),
    ) {
        let mut script = Script::new(config, seed, start);
        for &step in &before {
            script.perform(step);
        }
        if script.monitor.has_ended() {
            return Ok(());
        }
        if leaves {
            script.call(What::Close);
        }
        script.call(What::Frame(GOODBYE));
        prop_assert_eq!(script.monitor.has_ended(), !leaves);
        script.call(end);
        for &step in &after {
            script.perform(step);
        }
        // The end of linger, if nothing else came before.
        script.now = Instant::MAX;
        script.call(What::Timeout);
        script.drain();
        let goodbye = Event::Closed { reason: LEFT };
        prop_assert_eq!(script.events.last(), Some(&goodbye));
    }
}

/// Takes the outputs after the end: our verdict or our answer for the peer, the terminal
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
        let goodbye = match script.events.last() {
            Some(Event::Dead(death)) => death.cause.goodbye().map(Control::Goodbye),
            Some(Event::Closed {
                reason: CloseReason::Peer { code, .. },
            }) => {
                let is_answered = !script.leaving && *code != GoodbyeCode::RECEIVED;
                is_answered.then(|| script.answer())
            }
            _ => None,
        };
        prop_assert_eq!(last, goodbye.iter().collect::<Vec<_>>());
    }
    prop_assert_eq!(script.monitor.poll_timeout(), None);
    let terminal = script.events.iter().filter(|event| event.is_terminal());
    prop_assert_eq!(terminal.count(), 1, "{:?}", script.events);
    prop_assert!(script.events.last().is_some_and(Event::is_terminal));
    Ok(())
}
