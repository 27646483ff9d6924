//! How beats travel among a WebSocket's messages.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};
use heartbeat_core::Nonce;

use super::{BoxError, Message, Packet};
use crate::Frame;

/// How beats travel in a WebSocket.
///
/// Implement it for an application with a ping among its own messages:
///
/// ```
/// use heartbeat_tokio::{Frame, websocket::{Beats, BoxError, Message, Packet}};
/// use std::collections::VecDeque;
///
/// /// Text messages, and among them `ping` and `pong`.
/// #[derive(Debug)]
/// struct Words;
///
/// impl Beats for Words {
///     type Message = String;
///
///     fn weight(text: &String) -> usize {
///         text.len()
///     }
///
///     fn encode(&mut self, frame: Frame<String>, packets: &mut VecDeque<Packet>) -> Result<(), BoxError> {
///         let text = match frame {
///             Frame::Data(text) => text,
///             Frame::Ping(_) => "ping".into(),
///             Frame::Pong(_) => "pong".into(),
///             _ => return Ok(()),
///         };
///         packets.push_back(Packet::Message(Message::Text(text)));
///         Ok(())
///     }
///
///     fn decode(&mut self, packet: Packet, _: usize) -> Result<Option<Frame<String>>, BoxError> {
///         Ok(Some(match packet {
///             Packet::Message(Message::Text(text)) => match &*text {
///                 "ping" => Frame::Ping(None),
///                 "pong" => Frame::Pong(None),
///                 _ => Frame::Data(text),
///             },
///             Packet::Message(_) => Frame::Other,
///             // The library's.
///             _ => return Ok(None),
///         }))
///     }
/// }
/// ```
pub trait Beats: Unpin {
    /// The application's messages.
    type Message;

    /// Whether there is a [`Frame::Hello`], and so a [`Frame::Goodbye`] too. Without them a
    /// close frame is the goodbye. See [`Dialect::HELLO`](crate::Dialect::HELLO).
    const HELLO: bool = false;

    /// About how many bytes a message keeps in memory besides itself.
    fn weight(message: &Self::Message) -> usize;

    /// How many bytes of a message count towards the `max_frame` that the peer's Hello
    /// announces, where there is a [`HELLO`](Self::HELLO). See
    /// [`Dialect::length`](crate::Dialect::length).
    fn length(message: &Self::Message) -> usize {
        let _ = message;
        0
    }

    /// Appends the packets of a frame. A frame that the protocol doesn't have gets none.
    ///
    /// # Errors
    ///
    /// If the frame can't be encoded. The error ends the connection.
    fn encode(
        &mut self,
        frame: Frame<Self::Message>,
        packets: &mut VecDeque<Packet>,
    ) -> Result<(), BoxError>;

    /// Decodes a packet from the peer; `None` if it has no meaning, not even as a sign of life.
    ///
    /// Messages above `max_frame` bytes are refused before this call, unless there is a
    /// [`HELLO`](Self::HELLO).
    ///
    /// # Errors
    ///
    /// If the packet is invalid. The error ends the connection with
    /// [`Cause::Protocol`](crate::Cause::Protocol).
    fn decode(
        &mut self,
        packet: Packet,
        max_frame: usize,
    ) -> Result<Option<Frame<Self::Message>>, BoxError>;
}

/// Beats as WebSocket's own pings (RFC 6455, section 5.5.2).
///
/// The peer's WebSocket library answers them without its application: a browser answers while
/// the page's script hangs, and Chromium even for a page in the back/forward cache. Some
/// proxies answer them themselves. The application's messages are text and binary.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "there is nothing to choose")]
pub struct Pings;

impl Beats for Pings {
    type Message = Message;

    fn weight(message: &Message) -> usize {
        message.len()
    }

    fn encode(
        &mut self,
        frame: Frame<Message>,
        packets: &mut VecDeque<Packet>,
    ) -> Result<(), BoxError> {
        match frame {
            Frame::Data(message) => packets.push_back(Packet::Message(message)),
            Frame::Ping(nonce) => packets.push_back(Packet::Ping(payload(nonce))),
            // The library has already sent the pong.
            _ => {}
        }
        Ok(())
    }

    fn decode(&mut self, packet: Packet, _: usize) -> Result<Option<Frame<Message>>, BoxError> {
        Ok(Some(match packet {
            Packet::Message(message) => Frame::Data(message),
            // An unsolicited pong may carry any bytes.
            Packet::Pong(payload) => match <[u8; 8]>::try_from(&*payload) {
                Ok(nonce) => Frame::Pong(Some(Nonce(nonce))),
                Err(_) => Frame::Other,
            },
            Packet::Ping(_) => Frame::Other,
        }))
    }
}

/// Beats as ordinary messages: for proxies that answer or drop WebSocket's own pings, and to
/// detect that the peer's application hangs.
///
/// The application's messages are text. A beat is a binary message of 9 bytes: `?` for a ping
/// or `!` for a pong, and a nonce of 8 bytes. A page answers with a few lines:
///
/// ```js
/// socket.binaryType = "arraybuffer";
/// socket.addEventListener("message", ({ data }) => {
///   const beat = data instanceof ArrayBuffer && new Uint8Array(data);
///   if (beat.length === 9 && beat[0] === 0x3f) {
///     beat[0] = 0x21;
///     socket.send(beat);
///   }
/// });
/// ```
///
/// With [`OwnFrames`](super::OwnFrames) the page detects a dead server too.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "there is nothing to choose")]
pub struct Messages;

const ASKS: u8 = b'?';
const ANSWERS: u8 = b'!';

impl Beats for Messages {
    type Message = String;

    fn weight(text: &String) -> usize {
        text.len()
    }

    fn encode(
        &mut self,
        frame: Frame<String>,
        packets: &mut VecDeque<Packet>,
    ) -> Result<(), BoxError> {
        let message = match frame {
            Frame::Data(text) => Message::Text(text),
            Frame::Ping(nonce) => beat(ASKS, nonce),
            Frame::Pong(nonce) => beat(ANSWERS, nonce),
            _ => return Ok(()),
        };
        packets.push_back(Packet::Message(message));
        Ok(())
    }

    fn decode(&mut self, packet: Packet, _: usize) -> Result<Option<Frame<String>>, BoxError> {
        let beat = match packet {
            Packet::Message(Message::Text(text)) => return Ok(Some(Frame::Data(text))),
            Packet::Message(Message::Binary(beat)) => beat,
            // The peer's library sends and answers these, not its application.
            Packet::Ping(_) | Packet::Pong(_) => return Ok(None),
        };
        let nonce = beat.get(1..).and_then(|nonce| nonce.try_into().ok());
        Ok(Some(match (beat.first(), nonce.map(Nonce)) {
            (Some(&ASKS), Some(nonce)) => Frame::Ping(Some(nonce)),
            (Some(&ANSWERS), Some(nonce)) => Frame::Pong(Some(nonce)),
            _ => Frame::Other,
        }))
    }
}

fn beat(tag: u8, nonce: Option<Nonce>) -> Message {
    let mut beat = BytesMut::with_capacity(9);
    beat.put_u8(tag);
    beat.put(payload(nonce));
    Message::Binary(beat.freeze())
}

fn payload(nonce: Option<Nonce>) -> Bytes {
    nonce.map_or_else(Bytes::new, |Nonce(nonce)| Bytes::copy_from_slice(&nonce))
}
