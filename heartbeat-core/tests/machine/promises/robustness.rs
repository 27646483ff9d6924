//! Whatever bytes, clocks and callers do: promises 11, 12, 13 and 16.

use heartbeat_core::{
    Config, Control, Death, Event, Evidence, Hello, Instant, Monitor, ProtocolError, Tag,
};
use proptest::{collection::vec, prelude::*};

use super::support::{
    MICROSECOND, Rig, Script, Step, What, budget, cases, ending, hello, history, lenient, part,
    share, shortest, start, step,
};

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn promise_11_total_decoding_never_panics(bytes in frames()) {
        let mut buffer = [0; Control::MAX_ENCODED];
        match Control::decode(&bytes) {
            // What is understood can be said again and means the same.
            Ok(control) => {
                let again = control.encode(&mut buffer).unwrap();
                prop_assert_eq!(Control::decode(again), Ok(control));
                let tag = Tag::from_byte(bytes[0]);
                let is_reserved = matches!(tag, Ok(Tag::Reserved { .. }));
                prop_assert_eq!(is_reserved, control == Control::Reserved);
                prop_assert!(is_reserved || tag == Ok(control.tag()));
            }
            Err(ProtocolError::EmptyFrame) => prop_assert!(bytes.is_empty()),
            Err(ProtocolError::UnknownTag { tag }) => prop_assert_eq!(bytes[0], tag),
            Err(_) => {}
        }
    }

    #[test]
    fn promise_11_total_what_is_encoded_is_decoded_whole_or_not_at_all(
        control: Control, cut in any::<prop::sample::Index>(), tail in vec(any::<u8>(), 1..40),
    ) {
        let mut buffer = [0; Control::MAX_ENCODED];
        let bytes = control.encode(&mut buffer).unwrap().to_vec();
        prop_assert_eq!(Control::decode(&bytes), Ok(control));
        let short = &bytes[..cut.index(bytes.len())];
        prop_assert!(Control::decode(short).is_err());
        let long = [&bytes[..], &tail].concat();
        // Only what a later version has may be longer.
        let may_be_longer = matches!(control, Control::Hello(_) | Control::Reserved);
        let expected = may_be_longer.then_some(control);
        prop_assert_eq!(Control::decode(&long).ok(), expected);
        for length in 0..bytes.len() {
            prop_assert!(control.encode(&mut vec![0; length]).is_err());
        }
    }

    // A peer's frames can say anything; the state they leave is of a fixed
    // size, and so is the answer.
    #[test]
    fn promise_11_total_state_is_constant(
        config: Config, seed: u64, frames in vec(frames(), 0..40),
    ) {
        let mut monitor = Monitor::new(config, seed, Instant::ORIGIN);
        for frame in &frames {
            if let Ok(control) = Control::decode(frame) {
                monitor.handle_frame(control, Instant::ORIGIN);
            }
        }
        let answers = std::iter::from_fn(|| monitor.poll_transmit()).count();
        let events = std::iter::from_fn(|| monitor.poll_event()).count();
        // A Hello, one pong and a ping of our own; Connected, Closed or Dead.
        prop_assert!(answers <= 3, "{} answers", answers);
        prop_assert!(events <= 3, "{} events", events);
        prop_assert!(size_of::<Monitor>() <= 320);
    }

    #[test]
    fn promise_12_no_zeno(
        config: Config, seed: u64, start: Instant, steps in vec(step(), 0..40),
    ) {
        let mut script = Script::new(config, seed, start);
        for &step in &steps {
            script.perform(step);
            let now = script.now;
            let mut woken = script.monitor.clone();
            woken.handle_timeout(now);
            prop_assert!(woken.poll_timeout().is_none_or(|next| next > now), "{:?}", woken);
            // Nor after all that a faithful driver does then.
            while woken.poll_transmit().is_some() {}
            woken.handle_flushed(now);
            prop_assert!(woken.poll_timeout().is_none_or(|next| next > now), "{:?}", woken);
        }
    }

    #[test]
    fn promise_12_no_zeno_a_silent_peer_costs_a_bounded_number_of_wakes(
        config: Config, seed: u64, start in start(), hello in hello(), history in history(),
    ) {
        let mut rig = Rig::new(config, seed, start);
        rig.meet(hello);
        rig.prelude(&history);
        let mut wakes = 0;
        while rig.monitor.poll_timeout().is_some() {
            rig.wake_on_time();
            wakes += 1;
            // Each beat: a suspicion and a miss; and the interval.
            prop_assert!(wakes <= 2 * config.max_missed() + 1, "{} wakes", wakes);
        }
    }

    #[test]
    fn promise_13_clock_abuse_never_panics(
        config: Config, seed: u64, start: Instant, steps in vec(step(), 0..40), end in ending(),
    ) {
        let mut script = Script::new(config, seed, start);
        for &step in &steps {
            script.perform(step);
            let _ = script.monitor.status();
        }
        script.now = Instant::MAX;
        script.call(end);
        script.call(What::Timeout);
        script.drain();
    }

    // Every ping is answered at once, and the clock shows what it likes.
    #[test]
    fn promise_13_clock_abuse_never_kills(
        config: Config, seed: u64, start: Instant, steps in vec(step(), 0..40),
    ) {
        let mut script = Script::new(lenient(config), seed, start);
        for &Step { when, what } in &steps {
            script.perform(Step { when, what: What::Timeout });
            // Whatever we ask of it ourselves.
            if let What::Probe | What::Paused | What::Resumed | What::Blocked = what {
                script.call(what);
            }
            while let Some(control) = script.transmit() {
                script.call(What::Flushed);
                if let Control::Ping(nonce) = control {
                    script.call(What::Bytes);
                    script.call(What::Frame(Control::Pong(nonce)));
                }
            }
            while script.event().is_some() {}
            let dead = script.events.iter().any(|event| matches!(event, Event::Dead(_)));
            prop_assert!(!dead, "{:?}", script.events);
        }
    }

    #[test]
    fn promise_13_a_clock_that_goes_backwards_stands_still(
        config: Config, seed: u64, start in start(), hello in hello(), history in history(),
        abuses in vec((any::<u64>(), 0..4_u8), 1..8),
    ) {
        let verdict = |abuses: &[(u64, u8)]| {
            let mut rig = Rig::new(config, seed, start);
            rig.meet(hello);
            rig.prelude(&history);
            let mut abuses = abuses.iter().cycle();
            while rig.monitor.poll_timeout().is_some() {
                rig.wake_on_time();
                if let Some(&(back, what)) = abuses.next() {
                    let earlier = Instant::from_micros(rig.now.as_micros() - back.min(rig.now.as_micros()));
                    for _ in 0..=what {
                        rig.monitor.handle_timeout(earlier);
                    }
                }
                rig.settle();
            }
            rig.death()
        };
        let abused: Option<(Instant, Death)> = verdict(&abuses);
        prop_assert!(abused.is_some());
        prop_assert_eq!(abused, verdict(&[]));
    }

    #[test]
    fn promise_13_evidence_from_the_past_takes_no_life_away(
        config: Config, seed: u64, start in start(), hello in hello(), history in history(),
        back: u64, part in part(),
    ) {
        let config = config.to_builder().evidence(Evidence::AnyBytes).build().unwrap();
        let mut rig = Rig::new(config, seed, start);
        rig.meet(hello);
        rig.prelude(&history);
        let heard_at = rig.last_heard();
        let earliest = heard_at + shortest(config.interval(), &config) + budget(&config);
        let silence = earliest.saturating_duration_since(heard_at) - MICROSECOND;
        rig.run_until(heard_at + share(silence, part));
        // The latest time that it was told.
        rig.wake(rig.now);
        let earlier = Instant::from_micros(heard_at.as_micros().saturating_sub(back));
        rig.monitor.handle_bytes(earlier);
        rig.settle();
        prop_assert_eq!(rig.last_heard(), rig.now);
        rig.run_until(earliest - MICROSECOND);
        prop_assert!(!rig.monitor.has_ended(), "{:?}", rig.death());
    }

    #[test]
    fn promise_16_determinism(
        config: Config, seed: u64, start: Instant, steps in vec(step(), 0..60),
    ) {
        let run = || {
            let mut script = Script::new(config, seed, start);
            let mut trace = Vec::new();
            for &step in &steps {
                script.perform(step);
                trace.push((script.monitor.poll_timeout(), script.monitor.status()));
            }
            script.drain();
            (trace, script.out, script.events)
        };
        prop_assert_eq!(run(), run());
    }

    // A copy goes the same way as the original, which has no hidden state.
    #[test]
    fn promise_16_determinism_of_copies(
        config: Config, seed: u64, start: Instant, steps in vec(step(), 1..60),
        at in any::<prop::sample::Index>(),
    ) {
        let mut original = Script::new(config, seed, start);
        let (before, after) = steps.split_at(at.index(steps.len()));
        for &step in before {
            original.perform(step);
        }
        let mut copy = Script::new(config, seed, start);
        copy.monitor = original.monitor.clone();
        copy.now = original.now;
        copy.pings = original.pings.clone();
        original.out.clear();
        original.events.clear();
        for &step in after {
            original.perform(step);
            copy.perform(step);
            prop_assert_eq!(original.monitor.poll_timeout(), copy.monitor.poll_timeout());
        }
        original.drain();
        copy.drain();
        prop_assert_eq!(original.out, copy.out);
        prop_assert_eq!(original.events, copy.events);
    }
}

/// Bytes that may be a frame: noise, a valid frame, and one with some bytes
/// changed.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let valid = any::<Control>().prop_map(|control| {
        let mut buffer = [0; Control::MAX_ENCODED];
        control.encode(&mut buffer).unwrap().to_vec()
    });
    let lie = any::<([u64; 5], [u8; 8])>().prop_map(|(numbers, instance)| {
        // A Hello of any numbers at all.
        let mut bytes = vec![Tag::Hello.to_byte()];
        bytes.extend(Hello::MAGIC);
        bytes.push(Hello::VERSION);
        for mut number in numbers {
            while number >= 0x80 {
                bytes.push(0x80 | u8::try_from(number & 0x7f).unwrap());
                number >>= 7;
            }
            bytes.push(u8::try_from(number).unwrap());
        }
        bytes.extend(instance);
        bytes
    });
    let changed =
        (valid.clone(), any::<(prop::sample::Index, u8)>()).prop_map(|(mut bytes, (at, byte))| {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes
        });
    prop_oneof![
        2 => vec(any::<u8>(), 0..64),
        1 => (0..9_u8, vec(any::<u8>(), 0..64)).prop_map(|(tag, mut body)| {
            body.insert(0, tag);
            body
        }),
        1 => valid,
        1 => changed,
        1 => lie,
    ]
}
