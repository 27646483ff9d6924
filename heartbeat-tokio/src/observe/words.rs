//! The names of causes, reasons and states in logs and metrics.
//!
//! This module decides their spelling. It is the same in both, so that a metric leads to its
//! log entries.

use heartbeat_core::{Cause, CloseReason, Diagnosis};

pub(super) const fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Silent => "silent",
        Cause::WriteStalled => "write_stalled",
        Cause::GivenUp { .. } => "given_up",
        Cause::Eof => "eof",
        Cause::Reset => "reset",
        Cause::TimedOut => "timed_out",
        Cause::Unreachable => "unreachable",
        Cause::Protocol(_) => "protocol",
        Cause::PingFlood => "ping_flood",
        Cause::Refused => "refused",
        Cause::NotReading => "not_reading",
        Cause::Io => "io",
        _ => "other",
    }
}

pub(super) const fn diagnosis(diagnosis: Diagnosis) -> &'static str {
    match diagnosis {
        Diagnosis::AppHung => "app_hung",
        Diagnosis::PathDead => "path_dead",
        Diagnosis::PeerNotReading => "peer_not_reading",
        _ => "unknown",
    }
}

pub(super) const fn reason(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Peer { .. } => "peer",
        CloseReason::Local => "local",
        CloseReason::Unconfirmed => "unconfirmed",
        CloseReason::Finished => "finished",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_diagnosis_has_a_name_of_its_own() {
        assert_eq!(diagnosis(Diagnosis::AppHung), "app_hung");
        assert_eq!(diagnosis(Diagnosis::PathDead), "path_dead");
        assert_eq!(diagnosis(Diagnosis::PeerNotReading), "peer_not_reading");
        assert_eq!(diagnosis(Diagnosis::Unknown), "unknown");
    }
}
