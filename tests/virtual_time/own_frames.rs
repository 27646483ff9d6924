//! This project's own frames, by a codec and as something that is a `Stream` and
//! a `Sink`: what carries them differs, and what is on the wire doesn't.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{Sink, SinkExt, Stream, StreamExt};
use heartbeat_core::Control;
use heartbeat_tests::scripted::control_frame;
use heartbeat_tokio::{Dialect, Frame};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::{Decoder, Encoder, Framed};

pub struct OwnCodec;

impl Dialect for OwnCodec {
    type Message = Bytes;
    const HELLO: bool = true;
    const GOODBYE: bool = true;
}

impl Decoder for OwnCodec {
    type Item = Frame<Bytes>;
    type Error = io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<Option<Frame<Bytes>>> {
        let Some(length) = bytes.first_chunk::<4>() else {
            return Ok(None);
        };
        let end = 4 + u32::from_be_bytes(*length) as usize;
        if bytes.len() < end {
            return Ok(None);
        }
        let mut frame = bytes.split_to(end).freeze();
        frame.advance(4);
        if frame[0] == 0 {
            frame.advance(1);
            return Ok(Some(Frame::Data(frame)));
        }
        let control = Control::decode(&frame).map_err(io::Error::other)?;
        Ok(Some(control.into()))
    }
}

impl Encoder<Frame<Bytes>> for OwnCodec {
    type Error = io::Error;

    fn encode(&mut self, frame: Frame<Bytes>, bytes: &mut BytesMut) -> io::Result<()> {
        let control = match frame {
            Frame::Data(message) => {
                bytes.put_u32(u32::try_from(1 + message.len()).unwrap());
                bytes.put_u8(0);
                bytes.put(message);
                return Ok(());
            }
            Frame::Hello(hello) => Control::Hello(hello),
            Frame::Ping(nonce) => Control::Ping(nonce.unwrap()),
            Frame::Pong(nonce) => Control::Pong(nonce.unwrap()),
            Frame::Goodbye { code, .. } => Control::Goodbye(code),
            Frame::Alive => Control::Alive,
            Frame::Fin => Control::Fin,
            Frame::Other => panic!("nobody sends that"),
        };
        bytes.put_slice(&control_frame(control));
        Ok(())
    }
}

pub struct OwnFrames<S>(pub Framed<S, OwnCodec>);

impl<S> Dialect for OwnFrames<S> {
    type Message = Bytes;
    const HELLO: bool = true;
    const GOODBYE: bool = true;

    fn weight(message: &Bytes) -> usize {
        message.len()
    }
}

impl<S: AsyncRead + Unpin> Stream for OwnFrames<S> {
    type Item = io::Result<Frame<Bytes>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl<S: AsyncWrite + Unpin> Sink<Frame<Bytes>> for OwnFrames<S> {
    type Error = io::Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_ready_unpin(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, frame: Frame<Bytes>) -> io::Result<()> {
        self.0.start_send_unpin(frame)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_flush_unpin(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_close_unpin(cx)
    }
}
