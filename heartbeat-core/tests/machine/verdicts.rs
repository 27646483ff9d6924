//! A verdict of ours is told to the peer, and the peer's to us.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use crate::common::{INSTANCE, Run, at, ms, secs};
use heartbeat_core::{
    Cause, CloseReason, Config, ConfigBuilder, Control, End, Event, GoodbyeCode, Instant, Monitor,
    NoDetail, Nonce, ProtocolError, State,
};

/// Dead after 16 s.
fn timings() -> ConfigBuilder {
    Config::builder()
        .interval(secs(10))
        .timeout(secs(2))
        .jitter(0.0)
}

fn monitor(timings: ConfigBuilder) -> Monitor {
    Monitor::new(timings.build().unwrap(), 1, Instant::ORIGIN)
}

/// What it gives at its end, in the order in which a driver takes it.
fn last_words(monitor: &mut Monitor) -> (Vec<Control>, Vec<Event>) {
    assert!(monitor.has_ended());
    assert_eq!(monitor.poll_timeout(), None);
    let frames = core::iter::from_fn(|| monitor.poll_transmit()).collect();
    let events = core::iter::from_fn(|| monitor.poll_event()).collect();
    (frames, events)
}

fn silent(monitor: &mut Monitor) {
    while let Some(now) = monitor.poll_timeout() {
        while monitor.poll_transmit().is_some() {}
        monitor.handle_flushed(now);
        monitor.handle_timeout(now);
    }
}

/// Brings a monitor to its end.
type Ends = fn(&mut Monitor, Instant);

#[test]
fn each_verdict_of_ours_has_its_code() {
    let second = Instant::ORIGIN + secs(1);
    let wrong = ProtocolError::Malformed { tag: 2 };
    let verdicts: [(Ends, GoodbyeCode); 5] = [
        (|monitor, _| silent(monitor), GoodbyeCode::SILENT),
        (
            |monitor, now| {
                monitor.handle_blocked(now);
                monitor.handle_timeout(now + secs(1));
            },
            GoodbyeCode::WRITE_STALLED,
        ),
        (
            |monitor, now| {
                let wrong = ProtocolError::Malformed { tag: 2 };
                monitor.handle_end(End::Protocol(wrong), now);
            },
            GoodbyeCode::PROTOCOL,
        ),
        (
            |monitor, now| {
                while !monitor.has_ended() {
                    monitor.handle_frame(Control::Ping(Nonce([7; 8])), now);
                }
            },
            GoodbyeCode::PING_FLOOD,
        ),
        (
            |monitor, now| {
                let hasty = Config::builder().interval(ms(10)).timeout(ms(10));
                let hasty = hasty.build().unwrap().hello(INSTANCE);
                monitor.handle_frame(Control::Hello(hasty), now);
            },
            GoodbyeCode::REFUSED,
        ),
    ];
    for (end, code) in verdicts {
        let mut monitor = monitor(timings().write_stall(secs(1)));
        assert!(matches!(monitor.poll_transmit(), Some(Control::Hello(_))));
        end(&mut monitor, second);
        let (frames, events) = last_words(&mut monitor);
        // Nothing else that was owed.
        assert_eq!(frames, [Control::Goodbye(code)]);
        let Some(Event::Dead(death)) = events.last() else {
            panic!("{events:?}");
        };
        assert_eq!(death.cause.goodbye(), Some(code));
        assert_eq!(monitor.poll_transmit(), None);
    }
    let cause: Cause = Cause::Protocol(wrong);
    assert_eq!(cause.goodbye(), Some(GoodbyeCode::PROTOCOL));
}

#[test]
fn what_the_transport_ended_is_told_to_nobody() {
    for end in [
        End::Eof,
        End::Reset,
        End::TimedOut,
        End::Unreachable,
        End::Io,
    ] {
        let mut monitor = monitor(timings());
        monitor.handle_end(end, at(secs(1)));
        assert_eq!(monitor.poll_transmit(), None);
        assert!(matches!(monitor.poll_event(), Some(Event::Dead(_))));
    }
}

/// Its first frame is a Hello, whatever it has to say.
#[test]
fn a_verdict_is_told_behind_the_hello() {
    let mut monitor = monitor(timings());
    for second in [10, 12, 14, 16] {
        monitor.handle_timeout(at(secs(second)));
    }
    let (frames, _) = last_words(&mut monitor);
    let silent = Control::Goodbye(GoodbyeCode::WRITE_STALLED);
    assert!(matches!(frames[..], [Control::Hello(_), last] if last == silent));
}

/// The driver drops the stream with the event.
#[test]
fn a_verdict_that_was_told_to_us_is_told_to_the_peer_no_more() {
    let mut monitor = monitor(timings());
    silent(&mut monitor);
    assert!(monitor.has_transmit());
    while let Some(event) = monitor.poll_event() {
        assert_eq!(monitor.has_transmit(), !event.is_terminal());
    }
    assert_eq!(monitor.poll_transmit(), None);
}

#[test]
fn a_verdict_in_a_goodbye_is_a_death_and_nothing_else_is() {
    let states: [fn(&mut Monitor, Instant); 4] = [
        |_, _| {},
        |monitor, now| monitor.probe(now),
        |monitor, now| monitor.handle_paused(now),
        |monitor, now| monitor.close(GoodbyeCode::LEAVING, now),
    ];
    for before in states {
        for code in (0..=u8::MAX).map(GoodbyeCode) {
            let mut run = Run::new(timings().build().unwrap());
            run.writable = false;
            run.at(secs(1), before);
            let is_leaving = run.monitor.status().state == State::Closing;
            run.at(secs(2), |monitor, now| {
                monitor.handle_frame(Control::Goodbye(code), now);
            });
            let detail = NoDetail;
            if is_leaving && !code.is_verdict() {
                // Our own goodbye is confirmed, or is to be.
                let is_confirmed = code == GoodbyeCode::RECEIVED;
                let reason = is_confirmed.then_some(CloseReason::Local);
                let told: Vec<_> = run.told.iter().map(|&(_, told)| told).collect();
                let expected = reason.map(|reason| Event::Closed { reason });
                assert_eq!(told, expected.as_slice());
                continue;
            }
            let &[(when, told)] = &run.told[..] else {
                panic!("{:?}", run.told);
            };
            assert_eq!(when, secs(2));
            if (2..=7).contains(&code.0) {
                let Event::Dead(death) = told else {
                    panic!("{told:?}");
                };
                assert_eq!(death.cause, Cause::GivenUp { code, detail });
                assert_eq!(run.monitor.status().state, State::Dead);
            } else {
                let reason = CloseReason::Peer { code, detail };
                assert_eq!(told, Event::Closed { reason });
                assert_eq!(run.monitor.status().state, State::Closed);
            }
            assert_eq!(run.monitor.poll_transmit(), None);
        }
    }
}

#[test]
fn the_code_of_our_own_goodbye_is_what_we_said() {
    for code in [GoodbyeCode::RESTARTING, GoodbyeCode(64)] {
        let mut run = Run::new(timings().build().unwrap());
        run.at(secs(1), |monitor, now| monitor.close(code, now));
        assert_eq!(run.sent.last(), Some(&(secs(1), Control::Goodbye(code))));
    }
}

#[test]
fn our_own_goodbye_says_neither_a_verdict_nor_an_answer_nor_what_is_reserved() {
    for code in (0..=u8::MAX).filter(|code| !matches!(code, 0 | 1 | 64..=127)) {
        let mut run = Run::new(timings().build().unwrap());
        run.at(secs(1), |monitor, now| {
            monitor.close(GoodbyeCode(code), now);
        });
        let goodbye = Control::Goodbye(GoodbyeCode::LEAVING);
        assert_eq!(run.sent.last(), Some(&(secs(1), goodbye)), "{code}");
    }
}
