//! What people read: events, deaths and causes as one line each.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use crate::common::{INSTANCE, LEFT, Run, ms, secs, us};
use heartbeat_core::{
    Cause, CloseReason, Config, Control, Death, Diagnosis, End, Event, GoodbyeCode, Instant,
    Monitor, NoDetail, ProtocolError,
};

/// A death of this cause, a second after the start.
fn death(end: End) -> Death {
    let mut monitor = Monitor::new(Config::default(), 1, Instant::ORIGIN);
    monitor.handle_end(end, Instant::ORIGIN + secs(1));
    match monitor.poll_event() {
        Some(Event::Dead(death)) => death,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_event_is_a_line() {
    let peer = Config::default().hello(INSTANCE);
    let silent_for = us(1_234_567);
    let lines = [
        (
            Event::Connected { peer },
            "connected, the peer pings after 5s",
        ),
        (Event::Beat { rtt: us(1_234) }, "beat, round trip 1.234ms"),
        (Event::Beat { rtt: us(9_999) }, "beat, round trip 9.999ms"),
        (Event::Beat { rtt: us(10_999) }, "beat, round trip 10ms"),
        (
            Event::Suspect {
                missed: 0,
                silent_for,
            },
            "suspect, silent for 1.234s",
        ),
        (
            Event::Suspect {
                missed: 2,
                silent_for,
            },
            "suspect, silent for 1.234s, beats missed: 2",
        ),
        (Event::Recovered { silent_for }, "recovered after 1.234s"),
        (
            Event::LocalStall { late: secs(3) },
            "our own process was 3s late",
        ),
        (
            Event::Closed { reason: LEFT },
            "closed: the peer said goodbye",
        ),
        (
            Event::Closed {
                reason: CloseReason::Peer {
                    code: GoodbyeCode::RESTARTING,
                    detail: NoDetail,
                },
            },
            "closed: the peer said goodbye, restarting",
        ),
        (
            Event::Closed {
                reason: CloseReason::Local,
            },
            "closed: we said goodbye",
        ),
        (
            Event::Closed {
                reason: CloseReason::Unconfirmed,
            },
            "closed: we said goodbye, which wasn't confirmed",
        ),
        (Event::Finished, "the peer sends no more messages"),
        (
            Event::Closed {
                reason: CloseReason::Finished,
            },
            "closed: both sides had finished",
        ),
        (
            Event::Dead(death(End::Eof)),
            "dead: closed without goodbye, silent for 1s",
        ),
    ];
    for (event, line) in lines {
        assert_eq!(event.to_string(), line);
    }
}

#[test]
fn two_events_are_terminal() {
    let silent_for = secs(1);
    assert!(Event::Dead(death(End::Io)).is_terminal());
    for reason in [
        LEFT,
        CloseReason::Local,
        CloseReason::Unconfirmed,
        CloseReason::Finished,
    ] {
        assert!(Event::Closed { reason }.is_terminal());
    }
    assert!(!Event::Finished.is_terminal());
    assert!(
        !Event::Suspect {
            missed: 3,
            silent_for
        }
        .is_terminal()
    );
    assert!(!Event::Recovered { silent_for }.is_terminal());
    assert!(!Event::LocalStall { late: silent_for }.is_terminal());
    assert!(!Event::Beat { rtt: silent_for }.is_terminal());
    let peer = Config::default().hello(INSTANCE);
    assert!(!Event::Connected { peer }.is_terminal());
}

#[test]
fn each_end_has_its_cause_and_each_cause_its_words() {
    let protocol = ProtocolError::UnknownTag { tag: 9 };
    let ends = [
        (End::Eof, Cause::Eof, "closed without goodbye"),
        (End::Reset, Cause::Reset, "connection reset"),
        (End::TimedOut, Cause::TimedOut, "connection timed out"),
        (End::Unreachable, Cause::Unreachable, "peer unreachable"),
        (
            End::Protocol(protocol),
            Cause::Protocol(protocol),
            "protocol violated: unknown frame tag 0x09",
        ),
        (End::Io, Cause::Io, "transport failed"),
    ];
    for (end, cause, words) in ends {
        let death = death(end);
        assert_eq!(death.cause, cause);
        assert_eq!(cause.to_string(), words);
        assert_eq!(death.to_string(), format!("{words}, silent for 1s"));
    }
    let others: [(Cause, &str); 5] = [
        (Cause::Silent, "beats unanswered"),
        (Cause::WriteStalled, "pings could not be written"),
        (Cause::PingFlood, "ping flood"),
        (Cause::Refused, "its timings are refused"),
        (
            Cause::GivenUp {
                code: GoodbyeCode::SILENT,
                detail: NoDetail,
            },
            "given up by the peer, silent",
        ),
    ];
    for (cause, words) in others {
        assert_eq!(cause.to_string(), words);
    }
}

/// It is a stranger's, so nothing in it can look like a line of ours.
#[test]
fn a_detail_is_quoted() {
    let detail = "for 14s\n\"dead\"";
    let code = GoodbyeCode::SILENT;
    let given_up: Cause<&str> = Cause::GivenUp { code, detail };
    assert_eq!(
        given_up.to_string(),
        r#"given up by the peer, silent: "for 14s\n\"dead\"""#
    );
    let left = LEFT.with_detail("at noon");
    assert_eq!(left.to_string(), r#"the peer said goodbye: "at noon""#);
    let death = death(End::Eof).with_detail("");
    assert_eq!(death.to_string(), "closed without goodbye, silent for 1s");
}

#[test]
fn each_code_of_a_goodbye_has_its_words() {
    let words = [
        "leaving",
        "restarting",
        "silent",
        "write stalled",
        "protocol violated",
        "ping flood",
        "refused",
        "not reading",
        "received",
        "code 9",
    ];
    for (code, words) in (0..).zip(words) {
        assert_eq!(GoodbyeCode(code).to_string(), words);
        assert_eq!(GoodbyeCode(code).is_verdict(), (2..=7).contains(&code));
    }
}

#[test]
fn a_death_tells_misses_and_the_last_round_trip() {
    let config = Config::builder()
        .interval(secs(10))
        .timeout(secs(2))
        .jitter(0.0)
        .adaptive(false);
    for (missed, words) in [
        (1, "silent for 12s, 1 beat missed, last round trip 40ms"),
        (2, "silent for 14s, 2 beats missed, last round trip 40ms"),
    ] {
        let mut run = Run::new(config.clone().max_missed(missed).build().unwrap());
        run.until(secs(10));
        let nonce = run.nonces()[0];
        run.at(secs(10) + ms(40), |monitor, now| {
            monitor.handle_frame(Control::Pong(nonce), now);
        });
        run.until(secs(60));
        let Some((_, Event::Dead(death))) = run.told.last() else {
            panic!("{:?}", run.told)
        };
        assert_eq!(death.to_string(), words);
    }
}

#[test]
fn a_diagnosis_is_told_behind_the_death_it_explains() {
    let mut death = death(End::Io);
    assert_eq!(death.diagnosis, Diagnosis::Unknown, "a monitor can't tell");
    let lines = [
        (Diagnosis::Unknown, ""),
        (Diagnosis::AppHung, ": the peer's application hangs"),
        (Diagnosis::PathDead, ": the path to the peer is dead"),
        (Diagnosis::PeerNotReading, ": the peer doesn't read"),
    ];
    for (diagnosis, words) in lines {
        death.diagnosis = diagnosis;
        let line = format!("transport failed, silent for 1s{words}");
        assert_eq!(death.to_string(), line);
    }
    assert_eq!(Diagnosis::Unknown.to_string(), "no diagnosis");
}

#[test]
fn a_peer_that_was_never_heard_is_told_as_that() {
    let mut death = death(End::Io);
    assert!(death.was_heard, "a monitor can't tell");
    death.was_heard = false;
    let lines = [
        (Diagnosis::Unknown, ""),
        (Diagnosis::AppHung, ": only its kernel answers"),
        (Diagnosis::PathDead, ": the path to the peer is dead"),
    ];
    for (diagnosis, words) in lines {
        death.diagnosis = diagnosis;
        let line = format!("transport failed, silent for 1s, nothing ever arrived{words}");
        assert_eq!(death.to_string(), line);
    }
}
