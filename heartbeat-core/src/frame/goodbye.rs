//! Why a side says goodbye.
//!
//! This module decides what the codes mean and how a goodbye lies in its frame. It
//! doesn't decide when one is said.

use core::fmt;

use serde::{Deserialize, Serialize};

use super::{BufferTooShort, ProtocolError, Tag, encoded};

/// Why a side says goodbye.
///
/// | code | meaning |
/// |---|---|
/// | 0 | leaving |
/// | 1 | restarting: come back |
/// | 2 to 7 | the sender gave the receiver up, for the reason of that name |
/// | 8 | the answer to a goodbye: everything before it was delivered |
/// | 64 to 127 | the application's own |
///
/// Others are for later revisions, and count as leaving.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "the wire fixes it at one byte")]
pub struct GoodbyeCode(pub u8);

impl GoodbyeCode {
    /// The sender leaves.
    pub const LEAVING: Self = Self(0);
    /// The sender restarts: reconnect.
    pub const RESTARTING: Self = Self(1);
    /// The receiver didn't answer.
    pub const SILENT: Self = Self(2);
    /// The receiver took nothing of what was to be written.
    pub const WRITE_STALLED: Self = Self(3);
    /// The receiver sent something that isn't this protocol.
    pub const PROTOCOL: Self = Self(4);
    /// The receiver pinged far more often than the sender allows.
    pub const PING_FLOOD: Self = Self(5);
    /// The sender refuses the timings of the receiver's Hello.
    pub const REFUSED: Self = Self(6);
    /// The sender's own application doesn't take its messages.
    pub const NOT_READING: Self = Self(7);
    /// The answer to a goodbye: everything before it was delivered.
    pub const RECEIVED: Self = Self(8);

    /// Whether the sender gave the receiver up: codes 2 to 7.
    #[must_use]
    pub const fn is_verdict(self) -> bool {
        matches!(self.0, 2..=7)
    }

    /// The same if a side may leave with it: 0, 1 and 64 to 127. Any other becomes 0.
    pub(crate) const fn for_leaving(self) -> Self {
        match self.0 {
            0 | 1 | 64..=127 => self,
            _ => Self::LEAVING,
        }
    }
}

impl fmt::Display for GoodbyeCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::LEAVING => "leaving",
            Self::RESTARTING => "restarting",
            Self::SILENT => "silent",
            Self::WRITE_STALLED => "write stalled",
            Self::PROTOCOL => "protocol violated",
            Self::PING_FLOOD => "ping flood",
            Self::REFUSED => "refused",
            Self::NOT_READING => "not reading",
            Self::RECEIVED => "received",
            Self(code) => return write!(f, "code {code}"),
        })
    }
}

/// A goodbye with its detail: what [`Control::Goodbye`](super::Control::Goodbye) is on the wire.
///
/// The detail is for people. It comes from the peer, so nothing may be
/// concluded from it.
///
/// ```
/// use heartbeat_core::{Goodbye, GoodbyeCode};
///
/// let goodbye = Goodbye::new(GoodbyeCode::RESTARTING, "back at noon");
/// let mut buffer = [0; Goodbye::MAX_ENCODED];
/// let frame = goodbye.encode(&mut buffer)?;
/// assert_eq!(frame, b"\x04\x01\x0cback at noon");
/// assert_eq!(Goodbye::decode(frame), Ok(goodbye));
/// # Ok::<(), heartbeat_core::BufferTooShort>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive] // its detail has a longest length
pub struct Goodbye<'a> {
    /// Why.
    pub code: GoodbyeCode,
    /// The reason in words, at most [`MAX_DETAIL`](Self::MAX_DETAIL) bytes.
    pub detail: &'a str,
}

impl<'a> Goodbye<'a> {
    /// The longest detail, in bytes: what a WebSocket's close frame has room
    /// for (RFC 6455, section 5.5).
    pub const MAX_DETAIL: usize = 123;

    /// The longest encoding, tag included, in bytes.
    pub const MAX_ENCODED: usize = 3 + Self::MAX_DETAIL;

    /// A goodbye. A detail that is too long is truncated.
    #[must_use]
    pub fn new(code: GoodbyeCode, detail: &'a str) -> Self {
        let longest = detail.len().min(Self::MAX_DETAIL);
        // Within a character there is nothing to get.
        let detail = (0..=longest).rev().find_map(|end| detail.get(..end));
        Self {
            code,
            detail: detail.unwrap_or_default(),
        }
    }

    /// Writes tag and body to the front of `buffer` and returns that part.
    ///
    /// # Errors
    ///
    /// [`BufferTooShort`]; never for a buffer of
    /// [`MAX_ENCODED`](Self::MAX_ENCODED) bytes. The buffer's content is
    /// unspecified then.
    pub fn encode<'b>(&self, buffer: &'b mut [u8]) -> Result<&'b [u8], BufferTooShort> {
        encoded(&(Tag::Goodbye.to_byte(), self), buffer)
    }

    /// Reads one goodbye: its tag and its whole body.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::Malformed`] if it is anything else.
    pub fn decode(frame: &'a [u8]) -> Result<Self, ProtocolError> {
        let tag = Tag::Goodbye.to_byte();
        match frame.split_first() {
            Some((&found, body)) if found == tag => postcard::take_from_bytes::<Self>(body)
                .ok()
                .filter(|(goodbye, rest)| {
                    rest.is_empty() && goodbye.detail.len() <= Self::MAX_DETAIL
                })
                .map(|(goodbye, _)| goodbye)
                .ok_or(ProtocolError::Malformed { tag }),
            _ => Err(ProtocolError::Malformed { tag }),
        }
    }
}
