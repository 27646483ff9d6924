//! MQTT 3.1.1 without acknowledged messages: `PINGREQ` and `PINGRESP` are its heartbeat.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use heartbeat_tokio::{Dialect, Frame};
use tokio_util::codec::{Decoder, Encoder};

const PINGREQ: u8 = 0xC0;
const PINGRESP: u8 = 0xD0;
const CONNECT: u8 = 0x10;

/// The type and flags of a packet, and all behind its length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet(pub u8, pub Bytes);

pub fn connect(client: &str, keep_alive: u16) -> Packet {
    let mut body = BytesMut::from(&b"\0\x04MQTT\x04\x02"[..]);
    body.put_u16(keep_alive);
    put_text(&mut body, client);
    Packet(CONNECT, body.freeze())
}

pub fn subscribe(topic: &str) -> Packet {
    let mut body = BytesMut::from(&b"\0\x01"[..]);
    put_text(&mut body, topic);
    body.put_u8(0);
    Packet(0x82, body.freeze())
}

pub fn publish(topic: &str, payload: &[u8]) -> Packet {
    let mut body = BytesMut::new();
    put_text(&mut body, topic);
    body.put_slice(payload);
    Packet(0x30, body.freeze())
}

fn put_text(body: &mut BytesMut, text: &str) {
    body.put_u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
    body.put_slice(text.as_bytes());
}

/// A client's codec.
#[derive(Debug, Default)]
pub struct Mqtt {
    has_connected: bool,
}

impl Dialect for Mqtt {
    type Message = Packet;

    /// The first packet must be a CONNECT.
    fn may_ping(&self) -> bool {
        self.has_connected
    }
}

impl Decoder for Mqtt {
    type Item = Frame<Packet>;
    type Error = io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<Option<Self::Item>> {
        let (mut length, mut header) = (0, 1);
        loop {
            let Some(&byte) = bytes.get(header) else {
                return Ok(None);
            };
            length |= usize::from(byte & 127) << (7 * (header - 1));
            header += 1;
            match byte {
                ..128 => break,
                _ if header > 4 => return Err(io::ErrorKind::InvalidData.into()),
                _ => {}
            }
        }
        if bytes.len() < header + length {
            return Ok(None);
        }
        let mut packet = bytes.split_to(header + length).freeze();
        let kind = packet[0];
        packet.advance(header);
        Ok(Some(match kind {
            PINGRESP => Frame::Pong(None),
            _ => Frame::Data(Packet(kind, packet)),
        }))
    }
}

impl Encoder<Frame<Packet>> for Mqtt {
    type Error = io::Error;

    fn encode(&mut self, frame: Frame<Packet>, bytes: &mut BytesMut) -> io::Result<()> {
        let Packet(kind, body) = match frame {
            Frame::Data(packet) => packet,
            Frame::Ping(_) => Packet(PINGREQ, Bytes::new()),
            _ => return Ok(()), // there are no others
        };
        self.has_connected |= kind == CONNECT;
        bytes.put_u8(kind);
        let mut length = body.len();
        while length > 127 {
            bytes.put_u8((length % 128) as u8 | 128);
            length /= 128;
        }
        bytes.put_u8(length as u8);
        bytes.put_slice(&body);
        Ok(())
    }
}
