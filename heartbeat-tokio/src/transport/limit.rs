//! The limit on the length of a message.
//!
//! This module decides which limit applies before the peer's Hello, and after a Hello that
//! lowers it.

use heartbeat_core::Config;

use crate::SendError;

/// The largest message that may be sent, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    /// Our own limit, until the peer's Hello arrives.
    Ours(u32),
    /// The peer's announced limit.
    Peers(u32),
}

impl Limit {
    pub(crate) fn new(config: &Config) -> Self {
        // `Config` leaves room for the tag.
        Self::Ours(u32::try_from(config.max_frame()).unwrap_or(u32::MAX - 1))
    }

    /// The peer announced its largest message.
    pub(crate) fn greet(&mut self, max_frame: u32) {
        *self = Self::Peers(match *self {
            Self::Ours(_) => max_frame,
            // A lower limit is ignored: the application may rely on the former one.
            Self::Peers(former) => max_frame.max(former),
        });
    }

    /// Whether a message of `length` bytes may be sent.
    #[inline]
    pub(crate) const fn check(self, length: usize) -> Result<(), SendError> {
        let (Self::Ours(max) | Self::Peers(max)) = self;
        let max = max as usize;
        match length <= max {
            true => Ok(()),
            false => Err(SendError::TooLong { length, max }),
        }
    }
}
