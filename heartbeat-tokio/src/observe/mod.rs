//! Observers of all connections: the log, and metrics.
//!
//! This module decides what is reported and when: the monitor's events, and the changes
//! of its state since the last look. It sees no message and changes nothing. [`log`]
//! (feature `tracing`) and [`count`] (feature `metrics`) decide the form; without both,
//! all of this has no size and does nothing.

#[cfg(feature = "metrics")]
mod count;
#[cfg(feature = "tracing")]
mod log;
#[cfg(any(feature = "metrics", feature = "tracing"))]
mod words;

#[cfg(feature = "metrics")]
pub use count::describe_metrics;

#[cfg(any(feature = "metrics", feature = "tracing"))]
pub(crate) use on::Observe;

#[cfg(not(any(feature = "metrics", feature = "tracing")))]
pub(crate) use off::Observe;

#[cfg(any(feature = "metrics", feature = "tracing"))]
mod on {
    use std::{io, net::SocketAddr, time::Duration};

    use heartbeat_core::{CloseReason, Control, Death, Event, Hello, Monitor, State};

    use crate::{net::Net, net::NetStatus, safety_net::Applied};

    #[cfg(feature = "metrics")]
    use super::count::Count;
    #[cfg(feature = "tracing")]
    use super::log::Log;

    #[cfg(not(feature = "metrics"))]
    type Count = Nobody;
    #[cfg(not(feature = "tracing"))]
    type Log = Nobody;

    /// An observer; every hook defaults to a no-op.
    pub(super) trait Told: Sized {
        /// A connection was made.
        fn opened() -> Self;
        /// The peer's address, if there is one. Asking for it is a system call.
        fn peer_is(&self, _: impl FnOnce() -> Option<SocketAddr>) {}
        /// Options of the safety net failed.
        fn options_failed(&self, _: &Applied) {}
        fn moved(&mut self, _from: State, _to: State) {}
        fn sent(&self, _: &Control) {}
        /// Pings were answered, the last one after `rtt`.
        fn beats(&self, _count: u32, _rtt: Duration) {}
        /// Beats were missed.
        fn missed(&self, _count: u32) {}
        fn connected(&self, _: &Hello) {}
        /// A beat is late, for the first time or again.
        fn suspect(&self, _first: bool, _missed: u32, _silent_for: Duration) {}
        fn recovered(&self, _silent_for: Duration) {}
        fn local_stall(&self, _late: Duration) {}
        fn closed(&mut self, _: CloseReason) {}
        fn dead(&mut self, _: &Death, _: Option<&io::Error>) {}
        /// The connection was dropped, neither closed nor dead.
        fn dropped(&mut self) {}
    }

    /// Replaces a feature that is off.
    #[cfg(not(all(feature = "metrics", feature = "tracing")))]
    #[derive(Debug)]
    pub(super) struct Nobody;

    #[cfg(not(all(feature = "metrics", feature = "tracing")))]
    impl Told for Nobody {
        fn opened() -> Self {
            Self
        }
    }

    /// The observers of one connection. It counts as long as it exists and hasn't ended.
    #[derive(Debug)]
    pub(crate) struct Observe {
        count: Count,
        log: Log,
        state: State,
        missed: u32,
        pongs: u32,
        suspect: bool,
        ended: bool,
        /// The last report of the safety net.
        net: Option<NetStatus>,
    }

    impl Observe {
        pub(crate) fn new() -> Self {
            Self {
                count: Told::opened(),
                log: Told::opened(),
                state: State::Alive,
                missed: 0,
                pongs: 0,
                suspect: false,
                ended: false,
                net: None,
            }
        }

        /// Reports state changes that aren't events, before the monitor's events are drained.
        pub(crate) fn look<S>(&mut self, monitor: &Monitor, net: &Net<S>, stream: &S) {
            if self.ended {
                return;
            }
            self.look_at_net(net, stream);
            let status = monitor.status();
            let beats = status.pongs.wrapping_sub(self.pongs);
            if let (Some(rtt), 1..) = (status.last_rtt, beats) {
                self.count.beats(beats, rtt);
                self.log.beats(beats, rtt);
            }
            self.pongs = status.pongs;
            if let missed @ 1.. = status.missed.saturating_sub(self.missed) {
                self.count.missed(missed);
                self.log.missed(missed);
            }
            self.missed = status.missed;
            // The end is an event.
            if self.state != status.state && !monitor.has_ended() {
                self.count.moved(self.state, status.state);
                self.log.moved(self.state, status.state);
                self.state = status.state;
            }
        }

        /// Reports the safety net at first, and whenever its outcome changes.
        fn look_at_net<S>(&mut self, net: &Net<S>, stream: &S) {
            let status = net.status();
            if self.net == Some(status) {
                return;
            }
            if self.net.is_none() {
                self.log.peer_is(|| net.peer_addr(stream));
            }
            self.net = Some(status);
            if let NetStatus::Applied(applied) = status {
                if !applied.is_complete() {
                    self.count.options_failed(&applied);
                    self.log.options_failed(&applied);
                }
            }
        }

        /// A control frame goes to the transport.
        pub(crate) fn sent(&self, control: &Control) {
            self.count.sent(control);
            self.log.sent(control);
        }

        /// One of the monitor's events.
        pub(crate) fn event(&mut self, event: &Event) {
            match *event {
                Event::Connected { ref peer } => {
                    self.count.connected(peer);
                    self.log.connected(peer);
                }
                Event::Suspect { missed, silent_for } => {
                    let first = !std::mem::replace(&mut self.suspect, true);
                    self.count.suspect(first, missed, silent_for);
                    self.log.suspect(first, missed, silent_for);
                }
                Event::Recovered { silent_for } => {
                    self.suspect = false;
                    self.count.recovered(silent_for);
                    self.log.recovered(silent_for);
                }
                Event::LocalStall { late } => {
                    self.count.local_stall(late);
                    self.log.local_stall(late);
                }
                // Beats come from `look`, whether events are on or off; the ends from
                // `end`, with all their data.
                _ => {}
            }
        }

        /// The terminal event, and the operating system's error.
        pub(crate) fn end(&mut self, event: &Event, error: Option<&io::Error>) {
            self.ended = true;
            match *event {
                Event::Closed { reason } => {
                    self.count.closed(reason);
                    self.log.closed(reason);
                }
                Event::Dead(ref death) => {
                    self.count.dead(death, error);
                    self.log.dead(death, error);
                }
                _ => {}
            }
        }
    }

    impl Drop for Observe {
        fn drop(&mut self) {
            if !self.ended {
                self.count.dropped();
                self.log.dropped();
            }
        }
    }
}

#[cfg(not(any(feature = "metrics", feature = "tracing")))]
mod off {
    use std::io;

    use heartbeat_core::{Control, Event, Monitor};

    use crate::net::Net;

    /// No observer.
    #[derive(Debug)]
    pub(crate) struct Observe;

    impl Observe {
        pub(crate) fn new() -> Self {
            Self
        }

        #[inline(always)]
        pub(crate) fn look<S>(&mut self, _: &Monitor, _: &Net<S>, _: &S) {}

        #[inline(always)]
        pub(crate) fn sent(&self, _: &Control) {}

        #[inline(always)]
        pub(crate) fn event(&mut self, _: &Event) {}

        #[inline(always)]
        pub(crate) fn end(&mut self, _: &Event, _: Option<&io::Error>) {}
    }

    const _: () = assert!(size_of::<Observe>() == 0 && !std::mem::needs_drop::<Observe>());
}
