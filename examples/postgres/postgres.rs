//! PostgreSQL's protocol, version 3. `Sync` is its ping and `ReadyForQuery` the answer, but
//! not behind a query nor within `COPY`; in an extended query it would end a transaction.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use heartbeat_tokio::{Dialect, Frame};
use tokio_util::codec::{Decoder, Encoder};

const MAX: usize = 64 << 20; // the longest message that is accepted
const SYNC: u8 = b'S';
const READY_FOR_QUERY: u8 = b'Z';
const QUESTIONS: &[u8] = b"\0SQF"; // each is answered with that

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
    last: Option<u8>, // the type of the last question, or part of an extended query
}

impl Dialect for Postgres {
    type Message = Message;

    fn may_ping(&self) -> bool {
        let is_complete = self.last.is_some_and(|kind| QUESTIONS.contains(&kind));
        is_complete && self.queries == 0
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
                // The end of a `COPY`, which ignored the `Sync` ahead: another one follows.
                let may_end = self.last == Some(SYNC) && self.queries > 0;
                let is_end = may_end && b"cf".contains(&message.0);
                if is_end || b"\0SQFBCDEHP".contains(&message.0) {
                    self.last = Some(message.0);
                }
                self.queries += u32::from(QUESTIONS.contains(&message.0));
                self.queries -= u32::from(is_end);
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
