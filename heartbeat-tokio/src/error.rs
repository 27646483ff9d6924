//! Why a message couldn't be sent.
//!
//! This module decides nothing. What happens to a *connection* is told by
//! events; these errors only answer whoever tried to send.

use heartbeat_core::{CloseReason, Death};

/// A message wasn't accepted, or couldn't be flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive] // other transports may refuse for other reasons
pub enum SendError {
    /// The message exceeds
    /// [`max_frame`](heartbeat_core::ConfigBuilder::max_frame). Nothing of it
    /// was queued, and the connection goes on.
    #[error("a message of {length} bytes, at most {max} are allowed")]
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The connection has ended with a goodbye. The message, and whatever was
    /// queued before it, may not have arrived.
    #[error("the connection is closed: {0}")]
    Closed(CloseReason),
    /// The peer is dead. The message, and whatever was queued before it, may
    /// not have arrived.
    #[error("the peer is dead: {0}")]
    Dead(#[source] Death),
}
