//! Redis' protocol, and its `PING` as the heartbeat.
//!
//! This module decides which reply answers a ping. Redis replies in the order
//! in which it was asked, so it is enough to remember which of the commands
//! were pings. How frames look is the `redis-protocol` crate's to say.
//!
//! * Whatever answers a ping is a pong, errors too: a server that says
//!   `-NOAUTH` or `-LOADING` lives.
//! * Redis does one command of a connection after the other. One that blocks,
//!   such as `BLPOP`, holds back the answers to all pings behind it: let it
//!   block for less than `max_missed · timeout`.
//! * Commands after which there isn't one reply for each command are refused:
//!   `SUBSCRIBE` and its relatives, `MONITOR`, `CLIENT REPLY`, `SYNC`.

use std::{collections::VecDeque, io};

use bytes::{Bytes, BytesMut};
use heartbeat_tokio::{Dialect, Frame, heartbeat_core::Nonce};
use redis_protocol::{codec::Resp2, resp2::types::BytesFrame};
use tokio_util::codec::{Decoder, Encoder};

/// A command: its name and its arguments.
pub fn command<const N: usize>(words: [&'static str; N]) -> BytesFrame {
    let word = |word: &'static str| BytesFrame::BulkString(Bytes::from_static(word.as_bytes()));
    BytesFrame::Array(words.into_iter().map(word).collect())
}

/// A client's codec. What is sent are commands, what arrives are replies.
#[derive(Debug, Default)]
pub struct Resp {
    resp: Resp2,
    /// So many commands were sent, and so many replies came.
    asked: u64,
    answered: u64,
    /// Which of the commands, counted like that, are unanswered pings.
    pings: VecDeque<u64>,
}

impl Dialect for Resp {
    type Message = BytesFrame;
}

impl Decoder for Resp {
    type Item = Frame<BytesFrame>;
    type Error = io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<Option<Self::Item>> {
        let reply = self.resp.decode(bytes).map_err(io::Error::other)?;
        Ok(reply.map(|reply| {
            let number = self.answered;
            self.answered += 1;
            match self.pings.front() {
                Some(ping) if *ping == number => {
                    self.pings.pop_front();
                    Frame::Pong(nonce_in(&reply))
                }
                _ => Frame::Data(reply),
            }
        }))
    }
}

impl Encoder<Frame<BytesFrame>> for Resp {
    type Error = io::Error;

    fn encode(&mut self, frame: Frame<BytesFrame>, bytes: &mut BytesMut) -> io::Result<()> {
        let command = match frame {
            Frame::Data(command) => {
                check(&command)?;
                command
            }
            // `PING` alone is answered with `PONG`, `PING x` with `x`.
            Frame::Ping(nonce) => {
                let nonce = nonce.map(|Nonce(nonce)| Bytes::copy_from_slice(&nonce));
                let words = [Some(Bytes::from_static(b"PING")), nonce];
                let words = words.into_iter().flatten().map(BytesFrame::BulkString);
                self.pings.push_back(self.asked);
                BytesFrame::Array(words.collect())
            }
            // The server never asks, and the rest doesn't exist here.
            Frame::Pong(_)
            | Frame::Hello(_)
            | Frame::Goodbye { .. }
            | Frame::Alive
            | Frame::Fin
            | Frame::Other => return Ok(()),
        };
        self.resp.encode(command, bytes).map_err(io::Error::other)?;
        self.asked += 1;
        Ok(())
    }
}

/// What a ping gave the server to send back. Not in an error: that answers the
/// oldest ping.
fn nonce_in(reply: &BytesFrame) -> Option<Nonce> {
    match reply {
        BytesFrame::BulkString(nonce) => <[u8; 8]>::try_from(&nonce[..]).ok().map(Nonce),
        _ => None,
    }
}

/// Whether exactly one reply will come.
fn check(command: &BytesFrame) -> io::Result<()> {
    let refused = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    let BytesFrame::Array(words) = command else {
        return refused("a command is an array");
    };
    let mut names = words.iter().map(|word| match word {
        BytesFrame::BulkString(word) => word.to_ascii_uppercase(),
        _ => Vec::new(),
    });
    match (&*names.next().unwrap_or_default(), names.next().as_deref()) {
        (b"", _) => refused("a command begins with its name"),
        (
            b"SUBSCRIBE" | b"PSUBSCRIBE" | b"SSUBSCRIBE" | b"UNSUBSCRIBE" | b"PUNSUBSCRIBE"
            | b"SUNSUBSCRIBE" | b"MONITOR" | b"SYNC" | b"PSYNC",
            _,
        )
        | (b"CLIENT", Some(b"REPLY")) => refused("replies no longer come one for each command"),
        _ => Ok(()),
    }
}
