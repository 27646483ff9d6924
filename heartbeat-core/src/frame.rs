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

use core::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{config::MAX_DURATION, time::micros};

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
    /// The first frame of each side. Nobody waits for it.
    Hello(Hello),
    /// Asks for a [`Pong`](Control::Pong) with the same nonce.
    Ping(Nonce),
    /// Answers a [`Ping`](Control::Ping). Is never answered itself.
    Pong(Nonce),
    /// The sender leaves, or gave the receiver up. The detail that may follow
    /// the code on the wire is for the application: see [`Goodbye`].
    Goodbye(GoodbyeCode),
    /// The sender lives. Nobody answers it.
    Alive,
    /// The sender sends no more messages. It still reads and answers.
    Fin,
    /// A frame of a later revision. It is ignored.
    Reserved,
}

/// Why a side says goodbye.
///
/// | code | meaning |
/// |---|---|
/// | 0 | leaving |
/// | 1 | restarting: come back |
/// | 2 to 7 | the sender gave the receiver up, for the reason of that name |
/// | 8 | the answer to a goodbye: everything before it was taken in |
/// | 64 to 127 | the application's own |
///
/// Others are for later revisions, and count as leaving.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "the wire fixes it at one byte")]
pub struct GoodbyeCode(pub u8);

impl GoodbyeCode {
    /// The sender leaves.
    pub const LEAVING: Self = Self(0);
    /// The sender restarts, and can be connected to again.
    pub const RESTARTING: Self = Self(1);
    /// The receiver didn't answer.
    pub const SILENT: Self = Self(2);
    /// The receiver took nothing of what was to be written.
    pub const WRITE_STALLED: Self = Self(3);
    /// The receiver sent something that isn't this protocol.
    pub const PROTOCOL: Self = Self(4);
    /// The receiver pinged far more often than it had been told to.
    pub const PING_FLOOD: Self = Self(5);
    /// The receiver's Hello announced something that the sender doesn't go
    /// along with.
    pub const REFUSED: Self = Self(6);
    /// The sender's own application doesn't take its messages.
    pub const NOT_READING: Self = Self(7);
    /// The answer to a goodbye: everything before it was taken in.
    pub const RECEIVED: Self = Self(8);

    /// Whether the sender gave the receiver up: codes 2 to 7.
    #[must_use]
    pub const fn is_verdict(self) -> bool {
        matches!(self.0, 2..=7)
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

/// A goodbye with its detail: what [`Control::Goodbye`] is on the wire.
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

    /// A goodbye. Of a detail that is too long the beginning is kept.
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

fn encoded<'b>(frame: &impl Serialize, buffer: &'b mut [u8]) -> Result<&'b [u8], BufferTooShort> {
    match postcard::to_slice(frame, buffer) {
        Ok(written) => Ok(written),
        Err(_) => Err(BufferTooShort),
    }
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
    /// The largest message that the sender accepts, in bytes.
    pub max_frame: u32,
    /// Random bytes that tell one end of a connection from every other. Who
    /// receives its own is connected to itself.
    pub instance: [u8; 8],
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
    /// A message came in pieces that make no whole: a whole message within
    /// another, an empty part, or parts of a message that fits in one frame.
    #[error("parts that make no message")]
    BrokenParts,
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
        let (fields, _) = postcard::take_from_bytes::<Fields>(rest).map_err(|_| malformed)?;
        fields.try_into()
    }
}

/// A Hello's body up to where versions may differ.
#[derive(Serialize, Deserialize)]
struct Prefix {
    magic: [u8; 4],
    version: u8,
}

/// The rest of a version 1 Hello: microseconds, a count and bytes, all varints;
/// and eight bytes.
#[derive(Serialize, Deserialize)]
struct Fields {
    interval: u64,
    detection_time: u64,
    min_interval: u64,
    max_missed: u32,
    max_frame: u32,
    instance: [u8; 8],
}

#[derive(Serialize)]
struct HelloBody {
    prefix: Prefix,
    fields: Fields,
}

impl From<&Hello> for HelloBody {
    fn from(hello: &Hello) -> Self {
        Self {
            prefix: Prefix {
                magic: Hello::MAGIC,
                version: Hello::VERSION,
            },
            fields: Fields {
                interval: micros(hello.interval),
                detection_time: micros(hello.detection_time),
                min_interval: micros(hello.min_interval),
                max_missed: hello.max_missed,
                max_frame: hello.max_frame,
                instance: hello.instance,
            },
        }
    }
}

impl TryFrom<Fields> for Hello {
    type Error = ProtocolError;

    /// Refuses what no valid [`Config`](crate::Config) can announce, so that
    /// a lie here can't reach the arithmetic of the monitor.
    fn try_from(fields: Fields) -> Result<Self, ProtocolError> {
        let hello = Self {
            interval: Duration::from_micros(fields.interval),
            detection_time: Duration::from_micros(fields.detection_time),
            min_interval: Duration::from_micros(fields.min_interval),
            max_missed: fields.max_missed,
            max_frame: fields.max_frame,
            instance: fields.instance,
        };
        // The longest that any configuration with so many misses has.
        let longest = MAX_DURATION.saturating_mul(fields.max_missed.saturating_add(1));
        let possible = !hello.interval.is_zero()
            && hello.interval <= MAX_DURATION
            && hello.interval < hello.detection_time
            && hello.detection_time <= longest
            && !hello.min_interval.is_zero()
            && hello.min_interval <= MAX_DURATION
            && (1..=crate::config::MAX_MISSED).contains(&hello.max_missed)
            && (1..=crate::config::MAX_FRAME).contains(&hello.max_frame);
        possible
            .then_some(hello)
            .ok_or(ProtocolError::ImpossibleHello)
    }
}
