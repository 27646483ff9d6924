//! What a monitor shows after a call: everything that it would give, and
//! nothing of how.

use heartbeat_core::{Control, Event, Instant, Monitor, Status};

/// More than any order of calls can make pending.
const PLENTY: usize = 16;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) deadline: Option<u64>,
    pub(crate) status: Status,
    pub(crate) frames: Vec<Control>,
    pub(crate) events: Vec<Event>,
    /// `has_transmit`, `has_event` and `has_ended`.
    pub(crate) has: (bool, bool, bool),
    pub(crate) is_idle: bool,
}

impl Seen {
    pub(crate) fn of(monitor: &Monitor) -> Self {
        let mut seen = Self {
            deadline: None,
            status: monitor.status(),
            frames: Vec::with_capacity(4),
            events: Vec::with_capacity(4),
            has: (false, false, false),
            is_idle: false,
        };
        seen.look(monitor);
        seen
    }

    pub(crate) fn look(&mut self, monitor: &Monitor) {
        self.deadline = monitor.poll_timeout().map(Instant::as_micros);
        self.status = monitor.status();
        self.frames.clear();
        self.events.clear();
        self.has = (
            monitor.has_transmit(),
            monitor.has_event(),
            monitor.has_ended(),
        );
        self.is_idle = monitor.is_idle();
        // A copy gives everything, so that the original keeps it.
        let mut copy = monitor.clone();
        while let Some(frame) = copy.poll_transmit() {
            self.frames.push(frame);
            assert!(self.frames.len() < PLENTY, "poll_transmit never ends");
        }
        while let Some(event) = copy.poll_event() {
            self.events.push(event);
            assert!(self.events.len() < PLENTY, "poll_event never ends");
        }
    }
}
