//! The errors of bytes that aren't a frame.

use super::{Control, Hello};

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
        /// What the frame announces, its tag included; or, of a message in
        /// parts, what its first part announces.
        length: u32,
        /// What is accepted, counted in the same way.
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
    /// A message came after its sender had said that none follows, with a Fin or a
    /// goodbye.
    #[error("a message after the last one")]
    AfterFin,
    /// A Hello announces times that contradict each other or have no end.
    #[error("the hello announces impossible times")]
    ImpossibleHello,
    /// The Hello carries our own `instance`: we are connected to ourselves, or to
    /// something that sends back what we send.
    #[error("connected to ourselves")]
    Loop,
    /// The application's own codec, or a layer below such as TLS, can't read what arrived,
    /// and names none of the others.
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
