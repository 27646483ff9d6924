//! Redis' protocol, and its `PING` as the heartbeat.
//!
//! This module decides which reply answers a ping. Redis replies in the order
//! in which it was asked, so it is enough to remember which of the commands
//! were pings. How frames look is the `redis-protocol` crate's to say.
//!
//! * Whatever answers a ping is a pong, errors too: a server that says
//!   `-NOAUTH` or `-LOADING` lives.
//! * Redis does one command of a connection after the other. While one that
//!   blocks, such as `BLPOP`, is unanswered, no answer to a ping can be expected:
//!   the server is judged by its kernel. `CLIENT PAUSE` is answered at once and blocks what
//!   comes behind it, so a `PING` of ours goes behind it, whose reply ends the pause. A
//!   `CLIENT PAUSE` on another connection isn't visible here.
//! * Between `MULTI` and `EXEC` the answer to a ping would be one of the
//!   transaction's: no ping leaves, unless the server refuses the `MULTI`.
//! * Commands after which there isn't one reply for each command are refused:
//!   `SUBSCRIBE` and its relatives, `MONITOR`, `CLIENT REPLY`, `SYNC`; and `HELLO` with a
//!   version other than 2, which may begin RESP3. So is a pause of which nothing shows the
//!   end: that of writes only, or one within a transaction.

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
    /// The numbers of commands sent and replies received.
    asked: u64,
    answered: u64,
    /// Which of the commands, counted like that, are unanswered pings.
    pings: VecDeque<u64>,
    /// Which of them, likewise, are unanswered commands that may block.
    blocking: VecDeque<u64>,
    /// Which of them, likewise, may have begun a transaction whose `EXEC` or `DISCARD` wasn't
    /// sent. The first has, if it isn't refused.
    begun: VecDeque<u64>,
}

impl Dialect for Resp {
    type Message = BytesFrame;

    fn may_ping(&self) -> bool {
        self.begun.is_empty()
    }

    fn answers(&self) -> bool {
        self.blocking.is_empty()
    }
}

impl Decoder for Resp {
    type Item = Frame<BytesFrame>;
    type Error = io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<Option<Self::Item>> {
        let reply = self.resp.decode(bytes).map_err(io::Error::other)?;
        Ok(reply.map(|reply| {
            let number = self.answered;
            self.answered += 1;
            let has_blocked = self.blocking.front() == Some(&number);
            if has_blocked {
                self.blocking.pop_front();
            }
            if self.pings.front() != Some(&number) {
                if self.begun.front() == Some(&number) && matches!(reply, BytesFrame::Error(_)) {
                    self.begun.pop_front();
                }
                return Frame::Data(reply);
            }
            self.pings.pop_front();
            match has_blocked {
                // Behind a pause: the monitor hasn't asked it.
                true => Frame::Other,
                false => Frame::Pong(nonce_in(&reply)),
            }
        }))
    }
}

impl Encoder<Frame<BytesFrame>> for Resp {
    type Error = io::Error;

    fn encode(&mut self, frame: Frame<BytesFrame>, bytes: &mut BytesMut) -> io::Result<()> {
        let words = match frame {
            Frame::Data(words) => match self.note(check(&words)?)? {
                Kind::Pauses => {
                    self.ask(words, bytes)?;
                    self.pings.push_back(self.asked);
                    self.blocking.push_back(self.asked);
                    command(["PING"])
                }
                _ => words,
            },
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
        self.ask(words, bytes)
    }
}

impl Resp {
    fn ask(&mut self, words: BytesFrame, bytes: &mut BytesMut) -> io::Result<()> {
        self.resp.encode(words, bytes).map_err(io::Error::other)?;
        self.asked += 1;
        Ok(())
    }

    fn note(&mut self, kind: Kind) -> io::Result<Kind> {
        let is_within = !self.begun.is_empty();
        match kind {
            // Within a transaction nothing blocks.
            Kind::Blocks if !is_within => self.blocking.push_back(self.asked),
            Kind::Pauses if is_within => return Err(refused("nothing shows the pause's end")),
            Kind::Begins => self.begun.push_back(self.asked),
            Kind::Ends => self.begun.clear(),
            Kind::Blocks | Kind::Pauses | Kind::Other => {}
        }
        Ok(kind)
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

/// What a command does to the order of replies.
#[derive(Clone, Copy)]
enum Kind {
    /// Its reply may take long, and no other comes before it.
    Blocks,
    /// Its reply comes at once, and the next one may take long.
    Pauses,
    /// A transaction.
    Begins,
    Ends,
    Other,
}

/// What the command does, if exactly one reply will come.
fn check(command: &BytesFrame) -> io::Result<Kind> {
    let BytesFrame::Array(words) = command else {
        return Err(refused("a command is an array"));
    };
    let mut names = words.iter().map(|word| match word {
        BytesFrame::BulkString(word) => word.to_ascii_uppercase(),
        _ => Vec::new(),
    });
    let (name, argument) = (names.next().unwrap_or_default(), names.next());
    match (&*name, argument.as_deref()) {
        (b"", _) => Err(refused("a command begins with its name")),
        (
            b"SUBSCRIBE" | b"PSUBSCRIBE" | b"SSUBSCRIBE" | b"UNSUBSCRIBE" | b"PUNSUBSCRIBE"
            | b"SUNSUBSCRIBE" | b"MONITOR" | b"SYNC" | b"PSYNC",
            _,
        )
        | (b"CLIENT", Some(b"REPLY")) => Err(refused("replies don't come one for each command")),
        (b"HELLO", Some(version)) if version != b"2" => Err(refused("RESP3 isn't spoken here")),
        (b"CLIENT", Some(b"PAUSE")) => match names.any(|word| word == b"WRITE") {
            true => Err(refused("nothing shows the pause's end")),
            false => Ok(Kind::Pauses),
        },
        (b"MULTI", _) => Ok(Kind::Begins),
        (b"EXEC" | b"DISCARD" | b"RESET", _) => Ok(Kind::Ends),
        (
            b"BLPOP" | b"BRPOP" | b"BLMOVE" | b"BLMPOP" | b"BRPOPLPUSH" | b"BZPOPMIN" | b"BZPOPMAX"
            | b"BZMPOP" | b"WAIT" | b"WAITAOF" | b"DEBUG",
            _,
        ) => Ok(Kind::Blocks),
        (b"XREAD" | b"XREADGROUP", _) if names.any(|word| word == b"BLOCK") => Ok(Kind::Blocks),
        (b"XREAD", Some(b"BLOCK")) => Ok(Kind::Blocks),
        _ => Ok(Kind::Other),
    }
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}
