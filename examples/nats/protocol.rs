//! NATS' client protocol, whose `PING` and `PONG` go both ways.
//!
//! This module decides how frames lie on the wire: lines of text, and a payload
//! behind `PUB` and `MSG`. The server pings too, and ends a connection that
//! doesn't answer; the heartbeat does.
//!
//! It is a part of the protocol: no queue groups, and TLS isn't begun. A server takes the
//! first thing that it hears for a login, so no ping leaves before `CONNECT`. See <https://docs.nats.io/reference/reference-protocols/nats-protocol>.

use std::{io, str};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use heartbeat_tokio::{Dialect, Frame};
use tokio_util::codec::{Decoder, Encoder};

/// The longest line that is accepted. The server's `INFO` names its cluster.
const MAX_LINE: usize = 64 * 1024;

/// The longest payload: no server can be configured to send more.
const MAX_PAYLOAD: usize = 64 * 1024 * 1024;

/// What a client says to a server, or the other way round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// From a server, first: what it is, in JSON.
    Info(String),
    /// To a server, first: options in JSON.
    Connect(String),
    /// To a server: everything about `subject` is to be delivered as `id`.
    Subscribe { subject: String, id: u64 },
    /// To a server.
    Publish { subject: String, payload: Bytes },
    /// From a server.
    Delivered {
        subject: String,
        id: u64,
        /// Empty, unless `CONNECT` asked for them with `"headers":true`.
        headers: Bytes,
        payload: Bytes,
    },
    /// From a server: what it complains about.
    Error(String),
}

/// A client's codec.
#[derive(Debug, Default)]
pub struct Nats {
    /// The `MSG` whose payload isn't whole yet.
    begun: Option<Delivery>,
    /// `CONNECT` was sent.
    has_connected: bool,
}

/// What stands behind `MSG` or `HMSG`.
#[derive(Debug)]
struct Delivery {
    subject: String,
    id: u64,
    /// The number of bytes that are headers.
    headers: usize,
    length: usize,
}

impl Dialect for Nats {
    type Message = Message;

    fn may_ping(&self) -> bool {
        self.has_connected
    }
}

impl Decoder for Nats {
    type Item = Frame<Message>;
    type Error = io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<Option<Self::Item>> {
        if self.begun.is_none() {
            let Some(line) = take_line(bytes)? else {
                return Ok(None);
            };
            let (verb, rest) = line.split_once([' ', '\t']).unwrap_or((&line, ""));
            let rest = rest.trim();
            match &*verb.to_ascii_uppercase() {
                "MSG" => self.begun = Some(delivery(rest, false)?),
                "HMSG" => self.begun = Some(delivery(rest, true)?),
                "PING" => return Ok(Some(Frame::Ping(None))),
                "PONG" => return Ok(Some(Frame::Pong(None))),
                "+OK" => return Ok(Some(Frame::Other)),
                "INFO" => return Ok(Some(Frame::Data(Message::Info(rest.into())))),
                "-ERR" => return Ok(Some(Frame::Data(Message::Error(rest.into())))),
                _ => return Err(wrong(&line)),
            }
        }
        let whole = self.begun.take_if(|begun| bytes.len() >= begun.length + 2);
        let Some(Delivery {
            subject,
            id,
            headers,
            length,
        }) = whole
        else {
            return Ok(None);
        };
        let mut payload = bytes.split_to(length).freeze();
        let headers = payload.split_to(headers);
        if !bytes.starts_with(b"\r\n") {
            return Err(wrong("a payload of another length than announced"));
        }
        bytes.advance(2);
        Ok(Some(Frame::Data(Message::Delivered {
            subject,
            id,
            headers,
            payload,
        })))
    }
}

impl Encoder<Frame<Message>> for Nats {
    type Error = io::Error;

    fn encode(&mut self, frame: Frame<Message>, bytes: &mut BytesMut) -> io::Result<()> {
        match frame {
            Frame::Ping(_) => bytes.put_slice(b"PING\r\n"),
            Frame::Pong(_) => bytes.put_slice(b"PONG\r\n"),
            Frame::Data(Message::Connect(options)) => {
                put_line(bytes, &format!("CONNECT {options}"))?;
                self.has_connected = true;
            }
            Frame::Data(Message::Subscribe { subject, id }) => {
                check(&subject)?;
                put_line(bytes, &format!("SUB {subject} {id}"))?;
            }
            Frame::Data(Message::Publish { subject, payload }) => {
                check(&subject)?;
                put_line(bytes, &format!("PUB {subject} {}", payload.len()))?;
                bytes.put_slice(&payload);
                bytes.put_slice(b"\r\n");
            }
            Frame::Data(Message::Info(_) | Message::Delivered { .. } | Message::Error(_)) => {
                return Err(refused("only a server says this"));
            }
            // They don't exist here, so they are never sent.
            Frame::Hello(_) | Frame::Goodbye { .. } | Frame::Alive | Frame::Fin | Frame::Other => {}
        }
        Ok(())
    }
}

/// A line without its end, if it is there.
fn take_line(bytes: &mut BytesMut) -> io::Result<Option<String>> {
    let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else {
        return match bytes.len() > MAX_LINE {
            true => Err(wrong("a line without an end")),
            false => Ok(None),
        };
    };
    let line = bytes.split_to(end);
    bytes.advance(2);
    let line = str::from_utf8(&line).map_err(|_| wrong("a line that isn't UTF-8"))?;
    Ok(Some(line.into()))
}

/// Subject, id, perhaps where to reply, with headers their length, and that of all.
fn delivery(rest: &str, has_headers: bool) -> io::Result<Delivery> {
    let mut words: Vec<&str> = rest.split_ascii_whitespace().collect();
    let length = words.pop().and_then(|length| length.parse().ok());
    let headers = match has_headers {
        true => words.pop().and_then(|length| length.parse().ok()),
        false => Some(0),
    };
    let ([subject, id] | [subject, id, _]) = words[..] else {
        return Err(wrong(rest));
    };
    match (id.parse(), headers, length) {
        (Ok(id), Some(headers), Some(length)) if headers <= length && length <= MAX_PAYLOAD => {
            let subject = subject.into();
            Ok(Delivery {
                subject,
                id,
                headers,
                length,
            })
        }
        _ => Err(wrong(rest)),
    }
}

fn put_line(bytes: &mut BytesMut, line: &str) -> io::Result<()> {
    if line.contains(['\r', '\n']) {
        return Err(refused("a line has no end within"));
    }
    bytes.put_slice(line.as_bytes());
    bytes.put_slice(b"\r\n");
    Ok(())
}

fn check(subject: &str) -> io::Result<()> {
    match subject.is_empty() || subject.contains(char::is_whitespace) {
        true => Err(refused("a subject is one word")),
        false => Ok(()),
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not NATS: {what:?}"))
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}
