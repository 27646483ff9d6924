//! MQTT 3.1.1 without acknowledged messages: `PINGREQ` and `PINGRESP` are its heartbeat.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use heartbeat_tokio::{Dialect, Frame};
use tokio_util::codec::{Decoder, Encoder};

/// Those of a packet's length: up to 2 MB are accepted.
const DIGITS: usize = 3;

const PINGREQ: u8 = 0xC0;
const PINGRESP: u8 = 0xD0;
const CONNECT: u8 = 0x10;

/// The type and flags of a packet, and all behind its length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet(pub u8, pub Bytes);

pub fn connect(client: &str, keep_alive: u16) -> Packet {
    let protocol = &b"\0\x04MQTT\x04\x02"[..];
    let body = [protocol, &keep_alive.to_be_bytes(), &text(client)];
    Packet(CONNECT, body.concat().into())
}

pub fn subscribe(topic: &str) -> Packet {
    Packet(0x82, [b"\0\x01", &*text(topic), &[0]].concat().into())
}

pub fn publish(topic: &str, payload: &[u8]) -> Packet {
    Packet(0x30, [&text(topic), payload].concat().into())
}

fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), text.as_bytes()].concat()
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
        let mut digits = bytes.iter().skip(1).take(DIGITS);
        let Some(last) = digits.position(|&digit| digit < 128) else {
            return match bytes.len() <= DIGITS {
                true => Ok(None),
                false => Err(io::ErrorKind::InvalidData.into()),
            };
        };
        let header = last + 2;
        let digits = bytes[1..header].iter().rev();
        let length = digits.fold(0, |sum, digit| sum << 7 | usize::from(digit & 127));
        if bytes.len() < header + length {
            return Ok(None);
        }
        let packet = bytes.split_to(header + length).freeze();
        Ok(Some(match packet[0] {
            PINGRESP => Frame::Pong(None),
            kind => Frame::Data(Packet(kind, packet.slice(header..))),
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
