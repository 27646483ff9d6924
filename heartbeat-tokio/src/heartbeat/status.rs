//! What is known about a connection.

use std::time::Duration;

use heartbeat_core::Config;

use crate::net::NetStatus;

/// What is known about a connection.
///
/// ```
/// use heartbeat_tokio::{State, Status};
///
/// /// A row of a table of all connections.
/// fn row(status: &Status) -> String {
///     let trip = status.peer.last_rtt;
///     match status.peer.state {
///         State::Alive => format!("alive, round trip {trip:?}"),
///         State::Suspect => format!("silent for {:?}", status.silent_for),
///         state => format!("{state:?}"),
///     }
/// }
///
/// let status = Status::new(&heartbeat_tokio::Config::default());
/// assert_eq!(row(&status), "alive, round trip None");
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive] // later versions may know more
pub struct Status {
    /// The monitor's view of the peer.
    pub peer: heartbeat_core::Status,
    /// Since the last evidence of life. On a busy connection, where not every
    /// read is timed, up to [`Config::arrival_slack`] more than it was.
    pub silent_for: Duration,
    /// Since the stream last took something of what is queued. Zero if nothing waits,
    /// and while the stream takes everything. A peer that reads too slowly shows here
    /// before it is in the way, and in [`queued`](crate::Sender::queued).
    pub blocked_for: Duration,
    /// The second line of defence, in the kernel.
    pub safety_net: NetStatus,
    /// Round trips that were measured; wraps.
    pub(crate) beats: u32,
}

impl Status {
    /// That of a connection with this configuration that has just been made, of which the
    /// socket isn't known. For tests; every field can be set.
    #[must_use]
    pub const fn new(config: &Config) -> Self {
        Self {
            peer: heartbeat_core::Status::new(config),
            silent_for: Duration::ZERO,
            blocked_for: Duration::ZERO,
            safety_net: NetStatus::NoSocket,
            beats: 0,
        }
    }
}
