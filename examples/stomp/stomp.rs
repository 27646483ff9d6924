//! STOMP 1.2, whose heartbeat is an empty line without an answer.

use std::{io, time::Duration};

use bytes::{Buf, BufMut, BytesMut};
use heartbeat_tokio::{Dialect, Frame};
use tokio_util::codec::{Decoder, Encoder};

const MAX: usize = 1 << 20; // the longest frame that is accepted

/// A frame of these headers, without the NUL at its end.
pub fn frame(headers: &str, body: &str) -> String {
    format!("{headers}\n\n{body}")
}

/// A client's codec. Bodies are text without NUL.
#[derive(Debug, Default)]
pub struct Stomp {
    /// What we want, in milliseconds; from CONNECTED on, what was agreed.
    every: u64,
    is_connected: bool,
}

impl Dialect for Stomp {
    type Message = String;

    /// No beat comes before the broker has said CONNECTED.
    fn may_ping(&self) -> bool {
        self.is_connected
    }

    /// A broker that agreed to no beats of its own is silent while it has no messages.
    fn answers(&self) -> bool {
        self.beats_every().is_some()
    }

    fn beats_every(&self) -> Option<Duration> {
        let is_agreed = self.is_connected && self.every > 0;
        is_agreed.then(|| Duration::from_millis(self.every))
    }
}

/// The milliseconds of a heart-beat header: how often a beat is offered, and wanted.
fn beats(frame: &str) -> (u64, u64) {
    let mut headers = frame.split("\n\n").next().unwrap_or("").lines();
    let header = headers.find_map(|header| header.strip_prefix("heart-beat:"));
    let pair = header.and_then(|numbers| numbers.split_once(','));
    let number = |text: &str| text.trim().parse().unwrap_or(0);
    let (offered, wanted) = pair.unwrap_or_default();
    (number(offered), number(wanted))
}

impl Decoder for Stomp {
    type Item = Frame<String>;
    type Error = io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<Option<Self::Item>> {
        if bytes.starts_with(b"\n") || bytes.starts_with(b"\r\n") {
            bytes.advance(if bytes[0] == b'\n' { 1 } else { 2 });
            return Ok(Some(Frame::Other));
        }
        let Some(end) = bytes.iter().position(|&byte| byte == 0) else {
            return match bytes.len() > MAX {
                true => Err(io::Error::other("a frame without an end")),
                false => Ok(None),
            };
        };
        let text = bytes.split_to(end);
        bytes.advance(1);
        let text = String::from_utf8(text.to_vec()).map_err(io::Error::other)?;
        if text.starts_with("CONNECTED") {
            self.is_connected = true;
            let (offered, wanted) = (beats(&text).0, self.every);
            self.every = offered.max(wanted) * u64::from(offered.min(wanted) > 0);
        }
        Ok(Some(Frame::Data(text)))
    }
}

impl Encoder<Frame<String>> for Stomp {
    type Error = io::Error;

    fn encode(&mut self, frame: Frame<String>, bytes: &mut BytesMut) -> io::Result<()> {
        match frame {
            Frame::Ping(_) => bytes.put_u8(b'\n'),
            Frame::Data(text) if text.contains('\0') => {
                return Err(io::Error::other("a frame has no NUL within"));
            }
            Frame::Data(text) => {
                if text.starts_with("CONNECT\n") || text.starts_with("STOMP\n") {
                    self.every = beats(&text).1;
                }
                bytes.put_slice(text.as_bytes());
                bytes.put_u8(0);
            }
            _ => {} // there are no others
        }
        Ok(())
    }
}
