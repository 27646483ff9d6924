//! A snapshot of a connection.

use std::{fmt, time::Duration};

use heartbeat_core::Config;

use super::Heartbeat;
use crate::{net::NetStatus, transport::Transport};

/// A snapshot of a connection.
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
    /// The time since the last evidence of life. On a busy connection not every read is timed,
    /// so this may be too long by up to [`Config::arrival_slack`].
    pub silent_for: Duration,
    /// The time since the stream last took a queued byte. Zero if nothing waits, and while the
    /// stream takes everything. It shows a peer that reads too slowly, and so does
    /// [`queued`](crate::Sender::queued).
    pub blocked_for: Duration,
    /// The second line of defence, in the kernel.
    pub safety_net: NetStatus,
    /// The number of measured round trips; wraps.
    pub(crate) beats: u32,
}

impl Status {
    /// The status of a new connection with this configuration and without a known socket. For
    /// tests; every field can be set.
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

impl<S: fmt::Debug, C: Transport<S>> fmt::Debug for Heartbeat<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heartbeat")
            .field("stream", &self.stream)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}
