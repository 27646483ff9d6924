//! The control frames and their bytes.
//!
//! This module decides what a frame's tag and body look like. How frames are
//! told apart on a byte stream (the length in front of them) is up to the
//! transport; `docs/protocol.md` specifies the one that the adapter uses.
//!
//! ```text
//!   tag      body
//! +--------+----------------------------------------------------------+
//! | 0 Data | the application's bytes, untouched                       |
//! | 1 Hello| "HBT" 0x00 | version u8 | interval | detection |          |
//! |        | min interval | max missed          (varints; us, count)  |
//! | 2 Ping | nonce, 8 bytes                                           |
//! | 3 Pong | the ping's nonce, 8 bytes                                |
//! | 4 Bye  | empty                                                    |
//! +--------+----------------------------------------------------------+
//! ```
//!
//! Bodies are [postcard](https://postcard.jamesmunns.com/wire-format). No
//! length that a peer chose is ever echoed or allocated: a pong is its ping's
//! eight bytes and nothing else (what RFC 6520, section 4, asks for, and what
//! Heartbleed was about).

use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{config::MAX_DURATION, time::micros};

/// The first byte of every frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive] // a later version of the protocol may have more
#[repr(u8)]
pub enum Tag {
    /// The application's own bytes.
    Data = 0,
    /// [`Control::Hello`].
    Hello = 1,
    /// [`Control::Ping`].
    Ping = 2,
    /// [`Control::Pong`].
    Pong = 3,
    /// [`Control::Goodbye`].
    Goodbye = 4,
}

impl Tag {
    /// The byte on the wire.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        self as u8
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
            tag => Err(ProtocolError::UnknownTag { tag }),
        }
    }
}

/// A frame that two monitors exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive] // a later version of the protocol may have more
pub enum Control {
    /// The first frame of each side. Nobody waits for it.
    Hello(Hello),
    /// Asks for a [`Pong`](Control::Pong) with the same nonce.
    Ping(Nonce),
    /// Answers a [`Ping`](Control::Ping). Is never answered itself.
    Pong(Nonce),
    /// The sender is leaving on purpose.
    Goodbye,
}

/// What one side tells the other about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive] // a later version of the protocol may announce more
pub struct Hello {
    /// Silence after which the sender pings.
    pub interval: Duration,
    /// Silence after which the sender gives up, at the latest.
    pub detection_time: Duration,
    /// The fastest idle pings that the sender accepts.
    pub min_interval: Duration,
    /// How many pings in a row the sender sends before it gives up. The
    /// receiver's flood limit leaves room for them.
    pub max_missed: u32,
}

/// What makes one ping different from every other.
///
/// Eight bytes that the other side can't foresee: only who has read the ping
/// can answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(
    clippy::exhaustive_structs,
    reason = "the wire fixes it at eight bytes"
)]
pub struct Nonce(pub [u8; 8]);

/// How a peer broke the protocol.
///
/// Each of these is fatal to the connection: after bytes that don't make
/// sense, no later byte can be trusted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive] // other codecs may find other faults
pub enum ProtocolError {
    /// A frame has a tag that this version doesn't know.
    #[error("unknown frame tag {tag:#04x}")]
    UnknownTag {
        /// The byte that was found.
        tag: u8,
    },
    /// A frame announces more bytes than are accepted.
    #[error("a frame of {length} bytes, at most {max} are accepted")]
    FrameTooLong {
        /// What the frame announces, its tag included.
        length: u32,
        /// What is accepted, the tag included.
        max: u32,
    },
    /// A frame has no tag.
    #[error("a frame of no bytes")]
    EmptyFrame,
    /// The body of a control frame is too short, too long, or not what its
    /// tag says.
    #[error("the body of a frame with tag {tag:#04x} is malformed")]
    Malformed {
        /// The frame's tag.
        tag: u8,
    },
    /// The first frame isn't a Hello: the peer doesn't speak this protocol.
    #[error("the first frame has tag {tag:#04x} and is no hello")]
    HelloExpected {
        /// The tag that was found.
        tag: u8,
    },
    /// The Hello doesn't start with the protocol's magic.
    #[error("the hello's magic is wrong")]
    WrongMagic,
    /// The peer speaks another version of this protocol.
    #[error("the peer speaks version {version}, we speak {}", Hello::VERSION)]
    WrongVersion {
        /// The peer's version.
        version: u8,
    },
    /// A Hello announces times that contradict each other or have no end.
    #[error("the hello announces impossible times")]
    ImpossibleHello,
    /// The application's own codec can't read what arrived, and names none of
    /// the others.
    #[error("the codec can't read it")]
    Undecodable,
}

/// A buffer was too short for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the buffer is shorter than the frame, {} bytes are always enough",
    Control::MAX_ENCODED
)]
#[non_exhaustive] // made by this crate only
pub struct BufferTooShort;

impl Control {
    /// The longest encoding of a control frame, tag included, in bytes.
    pub const MAX_ENCODED: usize = 48;

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
            Self::Goodbye => Tag::Goodbye,
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
            Self::Hello(hello) => postcard::to_slice(&(tag, HelloBody::from(hello)), buffer),
            Self::Ping(nonce) | Self::Pong(nonce) => postcard::to_slice(&(tag, nonce), buffer),
            Self::Goodbye => postcard::to_slice(&tag, buffer),
        }
        .map(|written| &*written)
        .map_err(|_| BufferTooShort)
    }

    /// Reads one control frame: its tag and its whole body.
    ///
    /// # Errors
    ///
    /// A [`ProtocolError`] that says what is wrong with it. A
    /// [`Tag::Data`] frame is no control frame and gives
    /// [`ProtocolError::UnknownTag`].
    pub fn decode(frame: &[u8]) -> Result<Self, ProtocolError> {
        let (&tag, body) = frame.split_first().ok_or(ProtocolError::EmptyFrame)?;
        let malformed = ProtocolError::Malformed { tag };
        let nonce = || match <[u8; 8]>::try_from(body) {
            Ok(bytes) => Ok(Nonce(bytes)),
            Err(_) => Err(malformed),
        };
        match Tag::from_byte(tag)? {
            Tag::Data => Err(ProtocolError::UnknownTag { tag }),
            Tag::Hello => Hello::decode(body).map(Self::Hello),
            Tag::Ping => nonce().map(Self::Ping),
            Tag::Pong => nonce().map(Self::Pong),
            Tag::Goodbye if body.is_empty() => Ok(Self::Goodbye),
            Tag::Goodbye => Err(malformed),
        }
    }
}

impl Hello {
    /// The first bytes of every Hello's body.
    pub const MAGIC: [u8; 4] = *b"HBT\0";

    /// The version of the protocol that this crate speaks.
    pub const VERSION: u8 = 1;

    fn decode(body: &[u8]) -> Result<Self, ProtocolError> {
        let malformed = ProtocolError::Malformed {
            tag: Tag::Hello.to_byte(),
        };
        let (prefix, rest) = postcard::take_from_bytes::<Prefix>(body).map_err(|_| malformed)?;
        if prefix.magic != Self::MAGIC {
            return Err(ProtocolError::WrongMagic);
        }
        if prefix.version != Self::VERSION {
            return Err(ProtocolError::WrongVersion {
                version: prefix.version,
            });
        }
        // What follows the fields is a later version's: ignored.
        let (times, _) = postcard::take_from_bytes::<Times>(rest).map_err(|_| malformed)?;
        times.try_into()
    }
}

/// A Hello's body up to where versions may differ.
#[derive(Serialize, Deserialize)]
struct Prefix {
    magic: [u8; 4],
    version: u8,
}

/// The rest of a version 1 Hello: microseconds and a count, all varints.
#[derive(Serialize, Deserialize)]
struct Times {
    interval: u64,
    detection_time: u64,
    min_interval: u64,
    max_missed: u32,
}

#[derive(Serialize)]
struct HelloBody {
    prefix: Prefix,
    times: Times,
}

impl From<&Hello> for HelloBody {
    fn from(hello: &Hello) -> Self {
        Self {
            prefix: Prefix {
                magic: Hello::MAGIC,
                version: Hello::VERSION,
            },
            times: Times {
                interval: micros(hello.interval),
                detection_time: micros(hello.detection_time),
                min_interval: micros(hello.min_interval),
                max_missed: hello.max_missed,
            },
        }
    }
}

impl TryFrom<Times> for Hello {
    type Error = ProtocolError;

    /// Refuses what no valid [`Config`](crate::Config) can announce, so that
    /// a lie here can't reach the arithmetic of the monitor.
    fn try_from(times: Times) -> Result<Self, ProtocolError> {
        let hello = Self {
            interval: Duration::from_micros(times.interval),
            detection_time: Duration::from_micros(times.detection_time),
            min_interval: Duration::from_micros(times.min_interval),
            max_missed: times.max_missed,
        };
        let longest = MAX_DURATION.saturating_mul(times.max_missed.saturating_add(1));
        let possible = !hello.interval.is_zero()
            && hello.interval <= MAX_DURATION
            && hello.interval < hello.detection_time
            && hello.detection_time <= longest
            && !hello.min_interval.is_zero()
            && hello.min_interval <= MAX_DURATION
            && (1..=crate::config::MAX_MISSED).contains(&hello.max_missed);
        possible
            .then_some(hello)
            .ok_or(ProtocolError::ImpossibleHello)
    }
}
