//! The log of a connection's events.
//!
//! This module decides the level and the fields of each, as
//! `docs/observability.md` lists them. Faults of our own machine are warnings. Faults of
//! peers and networks aren't, because they are no fault of the process that logs them,
//! and the application receives them as events.

use std::{io, net::SocketAddr, time::Duration};

use heartbeat_core::{Cause, CloseReason, Control, Death, Hello, State};
use tracing::{
    Span, debug,
    field::{Empty, debug as shown, display},
    info, trace, warn, warn_span,
};

use super::{on::Told, words};
use crate::safety_net::Applied;

/// The target, for filters.
const TARGET: &str = "heartbeat_tokio";

/// The connection's span. It is never entered, because polls of connections interleave.
/// Events name it as their parent.
#[derive(Debug)]
pub(super) struct Log(Span);

impl Told for Log {
    /// The application's current span becomes its parent. Its level is that of the most severe
    /// event in it, so that no filter drops the span of an event.
    fn opened() -> Self {
        Self(warn_span!(target: TARGET, "heartbeat", peer = Empty))
    }

    fn peer_is(&self, peer: impl FnOnce() -> Option<SocketAddr>) {
        if self.0.is_disabled() {
            return;
        }
        if let Some(peer) = peer() {
            self.0.record("peer", display(peer));
        }
    }

    fn options_failed(&self, applied: &Applied) {
        warn!(target: TARGET, parent: &self.0, missing = %applied, "safety net incomplete");
    }

    fn moved(&mut self, from: State, to: State) {
        match (from, to) {
            (_, State::Paused) => debug!(target: TARGET, parent: &self.0, "paused"),
            (State::Paused, _) => debug!(target: TARGET, parent: &self.0, "resumed"),
            _ => {}
        }
    }

    fn sent(&self, control: &Control) {
        if let Control::Ping(_) = control {
            trace!(target: TARGET, parent: &self.0, "ping");
        }
    }

    fn beats(&self, _: u32, rtt: Duration) {
        trace!(target: TARGET, parent: &self.0, ?rtt, "beat");
    }

    fn connected(&self, peer: &Hello) {
        debug!(
            target: TARGET,
            parent: &self.0,
            interval = ?peer.interval,
            detection_time = ?peer.detection_time,
            "connected"
        );
    }

    fn suspect(&self, _: bool, missed: u32, silent_for: Duration) {
        debug!(target: TARGET, parent: &self.0, missed, ?silent_for, "suspect");
    }

    fn recovered(&self, silent_for: Duration) {
        debug!(target: TARGET, parent: &self.0, ?silent_for, "recovered");
    }

    fn local_stall(&self, late: Duration) {
        warn!(target: TARGET, parent: &self.0, ?late, "local stall");
    }

    fn closed(&mut self, reason: CloseReason) {
        let reason = words::reason(reason);
        debug!(target: TARGET, parent: &self.0, reason, "closed");
    }

    fn dead(&mut self, death: &Death, error: Option<&io::Error>) {
        let violation = match death.cause {
            Cause::Protocol(violation) => Some(display(violation)),
            _ => None,
        };
        info!(
            target: TARGET,
            parent: &self.0,
            cause = words::cause(death.cause),
            diagnosis = words::diagnosis(death.diagnosis),
            silent_for = ?death.silent_for,
            missed = death.missed,
            last_rtt = death.last_rtt.map(shown),
            violation,
            error = error.map(display),
            "dead"
        );
    }

    fn dropped(&mut self) {
        debug!(target: TARGET, parent: &self.0, "dropped");
    }
}
