//! AMQP 0-9-1, whose heartbeat is a frame without an answer: the part that is needed to send
//! messages to a queue and to receive them. `brokers.rs` tries it with RabbitMQ.
#![cfg(unix)]

use std::{io, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use heartbeat_tokio::{Dialect, Frame};
use tokio_util::codec::{Decoder, Encoder};

const MAX: usize = 1 << 20;
/// What a client says before all frames has no type.
const PROTOCOL: u8 = 0;
const METHOD: u8 = 1;
const HEARTBEAT: u8 = 8;
const END: u8 = 0xCE;
const TUNE_OK: &[u8] = &[0, 10, 0, 31];

/// The type of a frame, its channel, and its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part(pub u8, pub u16, pub Bytes);

impl Part {
    pub fn protocol() -> Self {
        Self(PROTOCOL, 0, Bytes::from_static(b"AMQP\0\0\x09\x01"))
    }

    pub fn method(channel: u16, class: u8, method: u8, arguments: &[&[u8]]) -> Self {
        let payload = [&[0, class, 0, method], &*arguments.concat()].concat();
        Self(METHOD, channel, payload.into())
    }

    pub fn is_method(&self, class: u8, method: u8) -> bool {
        self.0 == METHOD && self.2.starts_with(&[0, class, 0, method])
    }
}

/// A client's codec.
#[derive(Debug, Default)]
pub struct Amqp {
    /// From our Tune-Ok on.
    beats_every: Option<Duration>,
}

impl Dialect for Amqp {
    type Message = Part;

    fn may_ping(&self) -> bool {
        self.beats_every.is_some()
    }

    fn answers(&self) -> bool {
        self.beats_every.is_some()
    }

    fn beats_every(&self) -> Option<Duration> {
        self.beats_every
    }
}

impl Decoder for Amqp {
    type Item = Frame<Part>;
    type Error = io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<Option<Self::Item>> {
        let Some(mut header) = bytes.get(..7) else {
            return Ok(None);
        };
        let (kind, channel) = (header.get_u8(), header.get_u16());
        let end = 7 + header.get_u32() as usize;
        if end > MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if bytes.len() <= end {
            return Ok(None);
        }
        let frame = bytes.split_to(end + 1).freeze();
        Ok(Some(match kind {
            HEARTBEAT => Frame::Other,
            _ => Frame::Data(Part(kind, channel, frame.slice(7..end))),
        }))
    }
}

impl Encoder<Frame<Part>> for Amqp {
    type Error = io::Error;

    fn encode(&mut self, frame: Frame<Part>, bytes: &mut BytesMut) -> io::Result<()> {
        let Part(kind, channel, payload) = match frame {
            Frame::Data(part) => part,
            Frame::Ping(_) => Part(HEARTBEAT, 0, Bytes::new()),
            _ => return Ok(()), // there are no others
        };
        if kind == PROTOCOL {
            bytes.put_slice(&payload);
            return Ok(());
        }
        if let (METHOD, Some(mut tuned)) = (kind, payload.strip_prefix(TUNE_OK)) {
            tuned.advance(6);
            let seconds = tuned.get_u16();
            self.beats_every = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
        }
        bytes.put_u8(kind);
        bytes.put_u16(channel);
        bytes.put_u32(u32::try_from(payload.len()).map_err(io::Error::other)?);
        bytes.put_slice(&payload);
        bytes.put_u8(END);
        Ok(())
    }
}
