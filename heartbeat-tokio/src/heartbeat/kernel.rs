//! Signs of life from the kernels while the peer's application is silent.
//!
//! This module decides when the kernel is asked, and which of its answers reach the monitor.
//! `net` decides what counts as progress, and the monitor what it proves.

use std::time::Duration;

use heartbeat_core::{Evidence, Instant, Monitor, State};

use super::Heartbeat;
use crate::{net::Taken, transport::Transport};

impl<S, C: Transport<S>> Heartbeat<S, C> {
    /// Reports an acknowledgement of the peer's kernel, if the configuration counts it.
    pub(super) fn ask_the_kernel(&mut self) {
        let Some(stream) = self.stream.as_ref().filter(|_| !self.inbox.is_paused()) else {
            return;
        };
        let status = self.judge.monitor().status();
        let is_met = !C::HELLO || status.peer.is_some();
        let (now, heard_at) = (self.judge.now(), status.last_heard);
        if self.config().evidence() == Evidence::Acknowledgement && is_met {
            if let Some(at) = self.net.acknowledged_at(stream, heard_at, now) {
                self.judge
                    .tell_at(now, |monitor, now| monitor.handle_acknowledged(at, now));
                self.count_incomplete();
            }
        }
    }

    /// Reports progress of the kernels' counters where frames can't show life: our ping waits
    /// behind our own data, or the peer's bytes in a wrapper such as TLS.
    pub(super) fn look_for_progress(&mut self) {
        let monitor = self.judge.monitor();
        let status = monitor.status();
        let by_bytes = !matches!(self.config().evidence(), Evidence::Frame | Evidence::Echo);
        let Some(stream) = self.stream.as_ref().filter(|_| by_bytes) else {
            return;
        };
        if !matches!(status.state, State::Alive | State::Suspect) {
            return;
        }
        debug_assert!(!self.inbox.is_paused(), "then it is in another state");
        let is_answered = monitor.dialogue().beats_every.is_none();
        let has_question = is_answered && monitor.has_unanswered();
        let now = self.judge.now();
        if C::HELLO && status.peer.is_none() {
            return; // before the Hello, bytes prove nothing
        }
        if !C::HELLO && has_question {
            let taken = self.net.taken(stream, status.pongs);
            if let Some((taken @ (Taken::Data | Taken::Question), ago)) = taken {
                let at = before(now, ago);
                self.judge
                    .tell_at(now, |monitor, now| monitor.handle_taken(at, now));
                if taken == Taken::Question {
                    // Its timeout starts here.
                    self.judge.tell_at(now, Monitor::probe);
                }
            }
        }
        let most = self.config().max_frame() as u64;
        let stream = self.stream.as_ref();
        let arrived =
            stream.and_then(|stream| self.net.arrived_below(stream, self.receiving.reads(), most));
        if let Some((arrived, ago)) = arrived {
            if arrived >= self.judge.monitor().bytes_wanted(now) {
                self.judge.tell_at(before(now, ago), Monitor::handle_bytes);
                if C::HELLO {
                    // The peer's pings wait behind these bytes.
                    self.judge.tell(Monitor::handle_backlog);
                }
            }
        }
    }
}

/// The instant that was this long ago.
fn before(now: Instant, ago: Duration) -> Instant {
    Instant::ORIGIN
        + now
            .saturating_duration_since(Instant::ORIGIN)
            .saturating_sub(ago)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_was_before_the_connection() {
        let at = |seconds| Instant::ORIGIN + Duration::from_secs(seconds);
        assert_eq!(before(at(10), Duration::from_secs(3)), at(7));
        assert_eq!(before(at(10), Duration::from_secs(11)), at(0));
    }
}
