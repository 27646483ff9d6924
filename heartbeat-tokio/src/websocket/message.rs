//! The messages and control frames of a WebSocket.

use bytes::Bytes;
use heartbeat_core::ProtocolError;

/// A message in a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "RFC 6455 has these two")]
pub enum Message {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Bytes),
}

impl Message {
    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Bytes> for Message {
    fn from(bytes: Bytes) -> Self {
        Self::Binary(bytes)
    }
}

/// A message, ping or pong in a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "RFC 6455 has these three")]
pub enum Packet {
    /// A message.
    Message(Message),
    /// A ping, with at most 125 bytes. The library has already answered one from the peer.
    Ping(Bytes),
    /// A pong, with the ping's bytes.
    Pong(Bytes),
}

impl Packet {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Message(message) => message.len(),
            Self::Ping(bytes) | Self::Pong(bytes) => bytes.len(),
        }
    }
}

/// Refuses a frame or a message of more than `max` bytes.
pub(super) fn at_most(length: usize, max: usize) -> Result<(), ProtocolError> {
    if length <= max {
        return Ok(());
    }
    Err(ProtocolError::FrameTooLong {
        length: u32::try_from(length).unwrap_or(u32::MAX),
        max: u32::try_from(max).unwrap_or(u32::MAX),
    })
}
