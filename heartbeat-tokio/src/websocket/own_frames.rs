//! This project's own frames in a WebSocket, one in a binary message.
//!
//! This module decides their layout and the order of checks, as `docs/protocol.md` specifies
//! in "Frames in WebSocket messages".

use std::{collections::VecDeque, fmt::Debug, marker::PhantomData};

use bytes::{BufMut, Bytes, BytesMut};
use heartbeat_core::{Control, Goodbye, PART, ProtocolError, Tag};

use super::{Beats, BoxError, Message, Packet, at_most};
use crate::{Detail, Frame};

/// The name of the subprotocol of [`OwnFrames`] (RFC 6455, section 1.9), for the handshake. It
/// is optional if both sides know the protocol.
///
/// A page asks with `new WebSocket(url, "heartbeat.v1")`, and axum answers with
/// `upgrade.protocols([SUBPROTOCOL])`.
pub const SUBPROTOCOL: &str = "heartbeat.v1";

/// Beats as the frames of this project's own protocol.
///
/// Both ends send Hello and Goodbye, and each detects the death of the other. Long messages
/// travel in parts, so beats don't wait behind them. [`close`](crate::Heartbeat::close)
/// confirms that the peer's application received everything. In a page, `heartbeat-js` is the
/// other end.
///
/// Messages are [`Bytes`], or any [`Payload`].
#[derive(Debug)]
pub struct OwnFrames<M = Bytes> {
    /// The peer's Hello has come.
    greeted: bool,
    /// A message whose parts haven't all arrived.
    assembly: Option<Assembly>,
    messages: PhantomData<fn(M) -> M>,
}

#[derive(Debug)]
struct Assembly {
    announced: usize,
    arrived: BytesMut,
}

impl OwnFrames {
    /// Creates the protocol with messages of bytes.
    #[must_use]
    pub const fn new() -> Self {
        Self::typed()
    }
}

impl Default for OwnFrames {
    fn default() -> Self {
        Self::new()
    }
}

impl<M> OwnFrames<M> {
    /// Creates the protocol with messages of another type.
    #[must_use]
    pub const fn typed() -> Self {
        Self {
            greeted: false,
            assembly: None,
            messages: PhantomData,
        }
    }
}

/// An application's message in [`OwnFrames`].
///
/// ```
/// use bytes::Bytes;
/// use heartbeat_tokio::websocket::{BoxError, OwnFrames, Payload};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Line { text: String }
///
/// /// As JSON.
/// # mod serde_json { // not a dependency
/// #     pub fn to_vec<T>(_: &T) -> Result<Vec<u8>, std::fmt::Error> { Ok(Vec::new()) }
/// #     pub fn from_slice<T>(_: &[u8]) -> Result<T, std::fmt::Error> { Err(std::fmt::Error) }
/// # }
/// impl Payload for Line {
///     fn weight(&self) -> usize {
///         self.text.len()
///     }
///
///     fn encode(&self) -> Result<Bytes, BoxError> {
///         Ok(serde_json::to_vec(self)?.into())
///     }
///
///     fn decode(bytes: Bytes) -> Result<Self, BoxError> {
///         Ok(serde_json::from_slice(&bytes)?)
///     }
/// }
///
/// let beats = OwnFrames::<Line>::typed();
/// ```
pub trait Payload: Sized {
    /// About how many bytes it keeps in memory besides itself.
    fn weight(&self) -> usize;

    /// Its encoded length in bytes. A message above the peer's `max_frame` is refused. The default
    /// encodes the message; one that can't be encoded has no length.
    fn length(&self) -> usize {
        self.encode().map_or(0, |bytes| bytes.len())
    }

    /// Encodes the message.
    ///
    /// # Errors
    ///
    /// If it can't be encoded. The error ends the connection.
    fn encode(&self) -> Result<Bytes, BoxError>;

    /// Decodes bytes from the peer, which may be invalid.
    ///
    /// # Errors
    ///
    /// If they aren't a message. The error ends the connection.
    fn decode(bytes: Bytes) -> Result<Self, BoxError>;
}

/// The bytes are the message.
impl Payload for Bytes {
    fn weight(&self) -> usize {
        self.len()
    }

    fn length(&self) -> usize {
        self.len()
    }

    fn encode(&self) -> Result<Bytes, BoxError> {
        Ok(self.clone())
    }

    fn decode(bytes: Bytes) -> Result<Self, BoxError> {
        Ok(bytes)
    }
}

impl<M: Payload> Beats for OwnFrames<M> {
    type Message = M;
    const HELLO: bool = true;

    fn weight(message: &M) -> usize {
        message.weight()
    }

    fn length(message: &M) -> usize {
        message.length()
    }

    fn encode(&mut self, frame: Frame<M>, packets: &mut VecDeque<Packet>) -> Result<(), BoxError> {
        let control = match frame {
            Frame::Data(message) => {
                encode_data(&message.encode()?, packets);
                return Ok(());
            }
            Frame::Goodbye { code, detail } => {
                let mut buffer = [0; Goodbye::MAX_ENCODED];
                let goodbye = Goodbye::new(code, &detail);
                packets.push_back(binary(goodbye.encode(&mut buffer)?, b""));
                return Ok(());
            }
            Frame::Hello(hello) => Control::Hello(hello),
            Frame::Ping(Some(nonce)) => Control::Ping(nonce),
            Frame::Pong(Some(nonce)) => Control::Pong(nonce),
            Frame::Alive => Control::Alive,
            Frame::Fin => Control::Fin,
            // Ours have a nonce, always.
            Frame::Ping(None) | Frame::Pong(None) | Frame::Other => return Ok(()),
        };
        let mut buffer = [0; Control::MAX_ENCODED];
        packets.push_back(binary(control.encode(&mut buffer)?, b""));
        Ok(())
    }

    /// Checks in the order that the specification lists.
    fn decode(&mut self, packet: Packet, max_frame: usize) -> Result<Option<Frame<M>>, BoxError> {
        let bytes = match packet {
            Packet::Message(Message::Binary(bytes)) => bytes,
            Packet::Message(Message::Text(_)) => return Err("a text message".into()),
            // Browsers don't send them by themselves, but proxies may.
            Packet::Ping(_) | Packet::Pong(_) => return Ok(None),
        };
        let &tag = bytes.first().ok_or(ProtocolError::EmptyFrame)?;
        let max_control = Control::MAX_ACCEPTED;
        if !self.greeted {
            at_most(bytes.len(), max_control)?;
        }
        at_most(bytes.len(), longest(max_frame))?;
        if !self.greeted && tag != Tag::Hello.to_byte() {
            return Err(ProtocolError::HelloExpected { tag }.into());
        }
        let tag = Tag::from_byte(tag)?;
        if !matches!(tag, Tag::Data | Tag::Part) {
            at_most(bytes.len(), max_control)?;
        }
        match tag {
            Tag::Data => {
                at_most(bytes.len(), 1 + max_frame.min(PART))?;
                match self.assembly {
                    Some(_) => Err(ProtocolError::BrokenParts.into()),
                    None => Ok(Some(Frame::Data(M::decode(bytes.slice(1..))?))),
                }
            }
            Tag::Part => match self.take_part(&bytes, max_frame)? {
                Some(whole) => Ok(Some(Frame::Data(M::decode(whole)?))),
                // It is a sign of life.
                None => Ok(Some(Frame::Other)),
            },
            Tag::Goodbye => {
                let Goodbye { code, detail, .. } = Goodbye::decode(&bytes)?;
                let detail = Detail::from(detail);
                Ok(Some(Frame::Goodbye { code, detail }))
            }
            _ => {
                let control = Control::decode(&bytes)?;
                self.greeted = true;
                Ok(Some(control.into()))
            }
        }
    }
}

impl<M> OwnFrames<M> {
    /// Adds a part, and returns the message if it is whole.
    fn take_part(
        &mut self,
        frame: &Bytes,
        max_frame: usize,
    ) -> Result<Option<Bytes>, ProtocolError> {
        let (mut assembly, part) = match self.assembly.take() {
            Some(assembly) => {
                at_most(frame.len(), 1 + PART)?;
                (assembly, frame.slice(1..))
            }
            None => {
                let (announced, digits) = announced(frame.get(1..).unwrap_or_default())?;
                if announced <= PART {
                    return Err(ProtocolError::BrokenParts);
                }
                at_most(announced, max_frame)?;
                let part = frame.slice(1 + digits..);
                at_most(frame.len(), 1 + digits + PART)?;
                let assembly = Assembly {
                    announced,
                    // It grows with what arrives.
                    arrived: BytesMut::new(),
                };
                (assembly, part)
            }
        };
        if part.is_empty() || part.len() > assembly.announced - assembly.arrived.len() {
            return Err(ProtocolError::BrokenParts);
        }
        assembly.arrived.put(part);
        if assembly.arrived.len() == assembly.announced {
            return Ok(Some(assembly.arrived.freeze()));
        }
        self.assembly = Some(assembly);
        Ok(None)
    }
}

/// The longest frame: a first part with the longest varint of 32 bits, if parts may come at
/// all.
fn longest(max_frame: usize) -> usize {
    match max_frame > PART {
        true => 1 + 5 + PART,
        false => (1 + max_frame).max(Control::MAX_ACCEPTED),
    }
}

/// Encodes a message, in parts if it is long.
fn encode_data(body: &Bytes, packets: &mut VecDeque<Packet>) {
    if body.len() <= PART {
        packets.push_back(binary(&[Tag::Data.to_byte()], body));
        return;
    }
    let tag = Tag::Part.to_byte();
    let mut header = vec![tag];
    let mut rest = body.len();
    while rest > 0x7f {
        header.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    header.push(rest.to_le_bytes()[0]);
    for part in body.chunks(PART) {
        packets.push_back(binary(&header, part));
        header.truncate(1);
    }
}

fn binary(header: &[u8], body: &[u8]) -> Packet {
    Packet::Message(Message::Binary([header, body].concat().into()))
}

/// Decodes the length of a message at the start of its first part. Also returns the size of
/// that length.
fn announced(part: &[u8]) -> Result<(usize, usize), ProtocolError> {
    let malformed = ProtocolError::Malformed {
        tag: Tag::Part.to_byte(),
    };
    let mut announced = 0_u64;
    for (digit, &byte) in part.iter().take(5).enumerate() {
        announced |= u64::from(byte & 0x7f) << (7 * digit);
        if byte < 0x80 {
            let announced = u32::try_from(announced).map_err(|_| malformed)?;
            return Ok((announced as usize, digit + 1));
        }
    }
    Err(malformed)
}
