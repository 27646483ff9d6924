//! PostgreSQL's protocol, version 3: `Sync` is its ping, and `ReadyForQuery` the answer.
//! The server answers nothing behind a query, and ignores a `Sync` within `COPY`. Among the
//! messages of an extended query it would end a transaction.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use heartbeat_tokio::{Dialect, Frame};
use tokio_util::codec::{Decoder, Encoder};

const MAX: usize = 64 << 20; // the longest message that is accepted
const SYNC: u8 = b'S';
const READY_FOR_QUERY: u8 = b'Z';

/// The type of a message, and all behind its length. That of a client's first one is 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message(pub u8, pub Bytes);

pub fn startup(user: &str) -> Message {
    Message(0, format!("\0\x03\0\0user\0{user}\0\0").into())
}

pub fn query(sql: &str) -> Message {
    Message(b'Q', format!("{sql}\0").into())
}

/// A client's codec.
#[derive(Debug, Default)]
pub struct Postgres {
    pings: u32, // unanswered, and ahead of all unanswered queries
    queries: u32,
    /// No extended query is begun whose `Sync` wasn't sent.
    is_complete: bool,
}

impl Dialect for Postgres {
    type Message = Message;

    fn may_ping(&self) -> bool {
        self.is_complete && self.queries == 0
    }

    fn answers(&self) -> bool {
        self.may_ping()
    }
}

impl Decoder for Postgres {
    type Item = Frame<Message>;
    type Error = io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<Option<Self::Item>> {
        let Some(mut header) = bytes.get(..5) else {
            return Ok(None);
        };
        let (kind, length) = (header.get_u8(), header.get_u32() as usize);
        if !(4..MAX).contains(&length) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if bytes.len() <= length {
            return Ok(None);
        }
        let body = bytes.split_to(1 + length).split_off(5).freeze();
        if kind == READY_FOR_QUERY && self.pings > 0 {
            self.pings -= 1;
            return Ok(Some(Frame::Pong(None)));
        }
        self.queries -= u32::from(kind == READY_FOR_QUERY && self.queries > 0);
        Ok(Some(Frame::Data(Message(kind, body))))
    }
}

impl Encoder<Frame<Message>> for Postgres {
    type Error = io::Error;

    fn encode(&mut self, frame: Frame<Message>, bytes: &mut BytesMut) -> io::Result<()> {
        let Message(kind, body) = match frame {
            Frame::Data(message) => {
                match message.0 {
                    0 | SYNC | b'Q' | b'F' => {
                        self.queries += 1;
                        self.is_complete = true;
                    }
                    b'B' | b'C' | b'D' | b'E' | b'H' | b'P' => self.is_complete = false,
                    _ => {} // of a login, or within `COPY`
                }
                message
            }
            Frame::Ping(_) => {
                self.pings += 1;
                Message(SYNC, Bytes::new())
            }
            _ => return Ok(()), // there are no others
        };
        bytes.extend((kind != 0).then_some(kind));
        bytes.put_u32(u32::try_from(4 + body.len()).map_err(io::Error::other)?);
        bytes.put_slice(&body);
        Ok(())
    }
}
