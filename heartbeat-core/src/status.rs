//! A snapshot of a peer.
//!
//! This module decides which data a [`Monitor`](crate::Monitor) shows to people and
//! metrics. Reading a status changes nothing.

use core::time::Duration;

use crate::{config::Config, frame::Hello, time::Instant};

/// A snapshot of a [`Monitor`](crate::Monitor).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive] // later versions may know more
pub struct Status {
    /// The peer's state.
    pub state: State,
    /// Beats missed in a row.
    pub missed: u32,
    /// The time of the last evidence of life; the start, if there was none yet.
    pub last_heard: Instant,
    /// The last round trip.
    pub last_rtt: Option<Duration>,
    /// The smoothed round trip (RFC 6298).
    pub smoothed_rtt: Option<Duration>,
    /// Pings sent. Wraps at 2³².
    pub pings: u32,
    /// Pings that were answered. Wraps at 2³².
    pub pongs: u32,
    /// What the peer announced, once its Hello arrived.
    pub peer: Option<Hello>,
    /// The silence after which we ping: the configured interval, or longer if
    /// the peer accepts nothing faster.
    pub interval: Duration,
    /// The silence after which the peer is dead at the latest: the configured
    /// [`detection_time`](crate::Config::detection_time), plus what `interval` is longer than
    /// configured.
    pub detection_time: Duration,
    /// The time within which something of ours leaves: the configured
    /// [`speak_within`](crate::ConfigBuilder::speak_within), or longer if only pings can
    /// and the peer accepts nothing faster.
    pub speak_within: Option<Duration>,
}

impl Status {
    /// The status of a new [`Monitor`](crate::Monitor) with this configuration. For
    /// tests; every field can be set.
    #[must_use]
    pub const fn new(config: &Config) -> Self {
        Self {
            state: State::Alive,
            missed: 0,
            last_heard: Instant::ORIGIN,
            last_rtt: None,
            smoothed_rtt: None,
            pings: 0,
            pongs: 0,
            peer: None,
            interval: config.interval(),
            detection_time: config.detection_time(),
            speak_within: config.speak_within(),
        }
    }
}

/// The state of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive] // later versions may tell more states apart
pub enum State {
    /// No beat is late.
    Alive,
    /// A beat is late; see [`Event::Suspect`](crate::Event::Suspect).
    Suspect,
    /// We don't read at the moment, so nothing is judged.
    Paused,
    /// No answer can be expected in the present state of a protocol
    /// [without a Hello](crate::Monitor::without_hello), so nothing is judged. Only the peer's
    /// kernel shows whether it lives.
    Occupied,
    /// A direction of the stream has ended in a protocol
    /// [without a Hello](crate::Monitor::without_hello), so nothing is judged any more.
    HalfClosed,
    /// We leave, and the peer hasn't confirmed it yet. It is judged as before.
    Closing,
    /// Ended in order.
    Closed,
    /// Ended in any other way.
    Dead,
}
