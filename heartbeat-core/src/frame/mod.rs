//! The control frames and their bytes.
//!
//! This module decides what a frame's tag and body look like. How frames are
//! told apart on a byte stream (the length in front of them) is up to the
//! transport; `docs/protocol.md` specifies the one that the adapter uses.
//!
//! ```text
//!    tag       body
//! +---------+---------------------------------------------------------+
//! | 0 Data  | the application's bytes, untouched                      |
//! | 1 Hello | "HBT" 0x00 | version u8 | interval | detection |         |
//! |         | min interval | max missed | max frame  (all varints)    |
//! |         | instance, 8 bytes                                       |
//! | 2 Ping  | nonce, 8 bytes                                          |
//! | 3 Pong  | the ping's nonce, 8 bytes                               |
//! | 4 Bye   | code u8 | length of the detail (varint) | detail, UTF-8 |
//! | 5 Alive | empty                                                   |
//! | 6 Fin   | empty                                                   |
//! | 7 Part  | in a message's first: its length (varint); some of it   |
//! | 40..7f  | reserved: ignored                                       |
//! +---------+---------------------------------------------------------+
//! ```
//!
//! Bodies are [postcard](https://postcard.jamesmunns.com/wire-format). No
//! length that a peer chose is ever echoed or allocated: a pong is its ping's
//! eight bytes and nothing else (what RFC 6520, section 4, asks for, and what
//! Heartbleed was about).

use serde::{Deserialize, Serialize};

mod error;
mod goodbye;
mod hello;

pub use error::{BufferTooShort, ProtocolError};
pub use goodbye::{Goodbye, GoodbyeCode};
pub use hello::Hello;
use hello::HelloBody;

/// The first byte of every frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive] // a later version of the protocol may have more
pub enum Tag {
    /// A whole message of the application, of up to [`PART`] bytes.
    Data,
    /// [`Control::Hello`].
    Hello,
    /// [`Control::Ping`].
    Ping,
    /// [`Control::Pong`].
    Pong,
    /// [`Control::Goodbye`].
    Goodbye,
    /// [`Control::Alive`].
    Alive,
    /// [`Control::Fin`].
    Fin,
    /// The next bytes of a message that is longer than [`PART`].
    Part,
    /// A control frame of a later revision. It is ignored.
    #[non_exhaustive] // its tag is from 0x40 to 0x7f
    Reserved {
        /// The byte on the wire.
        tag: u8,
    },
}

/// The most bytes of a message that one frame carries. A longer message travels
/// in parts, so that a control frame never waits for the end of it.
pub const PART: usize = 65_536;

impl Tag {
    /// The byte on the wire.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Hello => 1,
            Self::Ping => 2,
            Self::Pong => 3,
            Self::Goodbye => 4,
            Self::Alive => 5,
            Self::Fin => 6,
            Self::Part => 7,
            Self::Reserved { tag } => tag,
        }
    }

    /// The tag that `byte` stands for.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::UnknownTag`] for a byte that this version doesn't
    /// know.
    pub const fn from_byte(byte: u8) -> Result<Self, ProtocolError> {
        match byte {
            0 => Ok(Self::Data),
            1 => Ok(Self::Hello),
            2 => Ok(Self::Ping),
            3 => Ok(Self::Pong),
            4 => Ok(Self::Goodbye),
            5 => Ok(Self::Alive),
            6 => Ok(Self::Fin),
            7 => Ok(Self::Part),
            tag @ 0x40..=0x7f => Ok(Self::Reserved { tag }),
            tag => Err(ProtocolError::UnknownTag { tag }),
        }
    }
}

/// A frame that two monitors exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive] // a later version of the protocol may have more
pub enum Control {
    /// The first frame of each side. No side waits for it.
    Hello(Hello),
    /// Asks for a [`Pong`](Control::Pong) with the same nonce.
    Ping(Nonce),
    /// Answers a [`Ping`](Control::Ping). Is never answered itself.
    Pong(Nonce),
    /// The sender leaves, or gave the receiver up. The detail that may follow
    /// the code on the wire is for the application: see [`Goodbye`].
    Goodbye(GoodbyeCode),
    /// The sender lives. It is never answered.
    Alive,
    /// The sender sends no more messages. It still reads and answers.
    Fin,
    /// A frame of a later revision. It is ignored.
    Reserved,
}

fn encoded<'b>(frame: &impl Serialize, buffer: &'b mut [u8]) -> Result<&'b [u8], BufferTooShort> {
    match postcard::to_slice(frame, buffer) {
        Ok(written) => Ok(written),
        Err(_) => Err(BufferTooShort),
    }
}

/// What makes one ping different from every other.
///
/// Eight bytes that the peer can't predict: only a reader of the ping
/// can answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(
    clippy::exhaustive_structs,
    reason = "the wire fixes it at eight bytes"
)]
pub struct Nonce(pub [u8; 8]);

impl Control {
    /// The longest encoding of a control frame, tag included, in bytes.
    pub const MAX_ENCODED: usize = 64;

    /// The longest control frame that is accepted, tag included, in bytes.
    ///
    /// Longer than [`MAX_ENCODED`](Self::MAX_ENCODED): a later version may
    /// append fields to a Hello, and this one ignores them.
    pub const MAX_ACCEPTED: usize = 256;

    /// This frame's tag.
    #[must_use]
    pub const fn tag(&self) -> Tag {
        match self {
            Self::Hello(_) => Tag::Hello,
            Self::Ping(_) => Tag::Ping,
            Self::Pong(_) => Tag::Pong,
            Self::Goodbye(_) => Tag::Goodbye,
            Self::Alive => Tag::Alive,
            Self::Fin => Tag::Fin,
            Self::Reserved => Tag::Reserved { tag: 0x40 },
        }
    }

    /// Writes tag and body to the front of `buffer` and returns that part.
    ///
    /// ```
    /// use heartbeat_core::{Control, Nonce};
    ///
    /// let mut buffer = [0; Control::MAX_ENCODED];
    /// let ping = Control::Ping(Nonce(*b"12345678"));
    /// assert_eq!(ping.encode(&mut buffer)?, b"\x0212345678");
    /// # Ok::<(), heartbeat_core::BufferTooShort>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`BufferTooShort`]; never for a buffer of
    /// [`MAX_ENCODED`](Self::MAX_ENCODED) bytes. The buffer's content is
    /// unspecified then.
    pub fn encode<'b>(&self, buffer: &'b mut [u8]) -> Result<&'b [u8], BufferTooShort> {
        let tag = self.tag().to_byte();
        match self {
            Self::Hello(hello) => encoded(&(tag, HelloBody::from(hello)), buffer),
            Self::Ping(nonce) | Self::Pong(nonce) => encoded(&(tag, nonce), buffer),
            Self::Goodbye(code) => Goodbye::new(*code, "").encode(buffer),
            Self::Alive | Self::Fin | Self::Reserved => encoded(&tag, buffer),
        }
    }

    /// Reads one control frame: its tag and its whole body.
    ///
    /// # Errors
    ///
    /// A [`ProtocolError`] that says what is wrong with it. [`Tag::Data`] and
    /// [`Tag::Part`] are no control frames and give
    /// [`ProtocolError::UnknownTag`].
    pub fn decode(frame: &[u8]) -> Result<Self, ProtocolError> {
        let (&tag, body) = frame.split_first().ok_or(ProtocolError::EmptyFrame)?;
        let malformed = ProtocolError::Malformed { tag };
        let nonce = || match <[u8; 8]>::try_from(body) {
            Ok(bytes) => Ok(Nonce(bytes)),
            Err(_) => Err(malformed),
        };
        let empty = |control| match body {
            [] => Ok(control),
            _ => Err(malformed),
        };
        match Tag::from_byte(tag)? {
            Tag::Data | Tag::Part => Err(ProtocolError::UnknownTag { tag }),
            Tag::Hello => Hello::decode(body).map(Self::Hello),
            Tag::Ping => nonce().map(Self::Ping),
            Tag::Pong => nonce().map(Self::Pong),
            Tag::Goodbye => Goodbye::decode(frame).map(|goodbye| Self::Goodbye(goodbye.code)),
            Tag::Alive => empty(Self::Alive),
            Tag::Fin => empty(Self::Fin),
            Tag::Reserved { .. } => Ok(Self::Reserved),
        }
    }
}
