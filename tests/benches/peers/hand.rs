//! The usual hand-written loop: one task, which selects among the peer's
//! frames, what the application sends, and a timer.
//!
//! It finds a dead peer, as long as it isn't stuck in a `send`.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{SinkExt, Stream, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};
use tokio_util::{
    codec::{Decoder, Encoder, Framed, LengthDelimitedCodec},
    sync::{PollSendError, PollSender},
};

use super::{INTERVAL, SILENCE};
use crate::{harness::End, sink_by};

/// How many messages wait between the application and the loop.
const CHANNEL: usize = 32;

/// As it is found: an enum in postcard, sent message by message.
pub(crate) async fn pasted<S>(stream: S, _: End) -> Looped
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    Looped::new(stream, Postcard::default(), 1)
}

/// Its better form: a tag before the bytes, which are copied once and not one
/// by one; and all that the application has sent goes out with one flush.
pub(crate) async fn tagged<S>(stream: S, _: End) -> Looped
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    Looped::new(stream, Tagged::default(), CHANNEL)
}

/// The application's end of the loop, which ends when this is dropped.
pub(crate) struct Looped {
    incoming: mpsc::Receiver<Bytes>,
    outgoing: PollSender<Bytes>,
}

impl Looped {
    fn new<S, C>(stream: S, codec: C, at_once: usize) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        C: Decoder<Item = Frame, Error = io::Error>,
        C: Encoder<Frame, Error = io::Error> + Unpin + Send + 'static,
    {
        let (to_application, incoming) = mpsc::channel(CHANNEL);
        let (outgoing, from_application) = mpsc::channel(CHANNEL);
        tokio::spawn(carry(
            Framed::new(stream, codec),
            to_application,
            from_application,
            at_once,
        ));
        Self {
            incoming,
            outgoing: PollSender::new(outgoing),
        }
    }
}

async fn carry<S, C>(
    mut framed: Framed<S, C>,
    to_application: mpsc::Sender<Bytes>,
    mut from_application: mpsc::Receiver<Bytes>,
    at_once: usize,
) -> Option<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
    C: Decoder<Item = Frame, Error = io::Error> + Encoder<Frame, Error = io::Error>,
{
    let mut interval = tokio::time::interval(INTERVAL);
    let mut last_seen = Instant::now();
    let mut messages = Vec::with_capacity(at_once);
    loop {
        tokio::select! {
            frame = framed.next() => {
                let frame = frame?.ok()?;
                last_seen = Instant::now();
                match frame {
                    Frame::Data(message) => to_application.send(message).await.ok()?,
                    Frame::Ping => framed.send(Frame::Pong).await.ok()?,
                    Frame::Pong => {}
                }
            }
            count = from_application.recv_many(&mut messages, at_once) => {
                if count == 0 {
                    return None;
                }
                for message in messages.drain(..) {
                    framed.feed(Frame::Data(message)).await.ok()?;
                }
                framed.flush().await.ok()?;
            }
            _ = interval.tick() => {
                if last_seen.elapsed() > SILENCE {
                    return None;
                }
                framed.send(Frame::Ping).await.ok()?;
            }
        }
    }
}

impl Stream for Looped {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.incoming.poll_recv(cx)
    }
}

sink_by!(outgoing, PollSendError<Bytes>, Looped);

enum Frame {
    Ping,
    Pong,
    Data(Bytes),
}

/// An enum that serde derives, behind a length.
#[derive(Default)]
struct Postcard(LengthDelimitedCodec);

#[derive(Serialize, Deserialize)]
enum Message {
    Ping,
    Pong,
    Data(Vec<u8>),
}

impl Encoder<Frame> for Postcard {
    type Error = io::Error;

    fn encode(&mut self, frame: Frame, to: &mut BytesMut) -> io::Result<()> {
        let message = match frame {
            Frame::Ping => Message::Ping,
            Frame::Pong => Message::Pong,
            Frame::Data(message) => Message::Data(message.into()),
        };
        let encoded = postcard::to_stdvec(&message).map_err(io::Error::other)?;
        self.0.encode(Bytes::from(encoded), to)
    }
}

impl Decoder for Postcard {
    type Item = Frame;
    type Error = io::Error;

    fn decode(&mut self, from: &mut BytesMut) -> io::Result<Option<Frame>> {
        let Some(encoded) = self.0.decode(from)? else {
            return Ok(None);
        };
        let message = postcard::from_bytes(&encoded).map_err(io::Error::other)?;
        Ok(Some(match message {
            Message::Ping => Frame::Ping,
            Message::Pong => Frame::Pong,
            Message::Data(message) => Frame::Data(message.into()),
        }))
    }
}

/// A length, a tag, and the bytes as they are.
#[derive(Default)]
struct Tagged(LengthDelimitedCodec);

const PING: u8 = 0;
const PONG: u8 = 1;
const DATA: u8 = 2;

impl Encoder<Frame> for Tagged {
    type Error = io::Error;

    fn encode(&mut self, frame: Frame, to: &mut BytesMut) -> io::Result<()> {
        let (tag, body) = match frame {
            Frame::Ping => (PING, Bytes::new()),
            Frame::Pong => (PONG, Bytes::new()),
            Frame::Data(message) => (DATA, message),
        };
        let length = u32::try_from(1 + body.len()).map_err(io::Error::other)?;
        to.reserve(5 + body.len());
        to.put_u32(length);
        to.put_u8(tag);
        to.extend_from_slice(&body);
        Ok(())
    }
}

impl Decoder for Tagged {
    type Item = Frame;
    type Error = io::Error;

    fn decode(&mut self, from: &mut BytesMut) -> io::Result<Option<Frame>> {
        let Some(mut frame) = self.0.decode(from)? else {
            return Ok(None);
        };
        match frame.try_get_u8().map_err(io::Error::other)? {
            PING => Ok(Some(Frame::Ping)),
            PONG => Ok(Some(Frame::Pong)),
            DATA => Ok(Some(Frame::Data(frame.freeze()))),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
