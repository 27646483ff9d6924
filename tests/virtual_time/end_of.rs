//! What an error of a codec, or of a stream and sink, means: as its dialect says.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use std::{
    error::Error,
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::BytesMut;
use futures::{Sink, Stream, StreamExt};
use heartbeat_tests::{quick, secs};
use heartbeat_tokio::{Cause, Dialect, End, Frame, Heartbeat, PeerEvent, ProtocolError};
use tokio::{io::AsyncWriteExt, time::timeout};
use tokio_util::codec::{Decoder, Encoder};

/// An error of a library's own.
#[derive(Clone, Copy, Debug)]
struct HungUp(End);

impl fmt::Display for HungUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hung up")
    }
}

impl Error for HungUp {}

/// What it means.
fn end_of(error: &(dyn Error + 'static)) -> Option<End> {
    error.downcast_ref().map(|HungUp(end)| *end)
}

/// Whatever comes, this is what it makes of it.
struct Library(HungUp);

impl Dialect for Library {
    type Message = ();

    fn end_of(error: &(dyn Error + 'static)) -> Option<End> {
        end_of(error)
    }
}

impl Decoder for Library {
    type Item = Frame<()>;
    type Error = Box<dyn Error + Send + Sync>;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Frame<()>>, Self::Error> {
        match bytes.is_empty() {
            true => Ok(None),
            false => Err(self.0.into()),
        }
    }
}

/// Of the end of the stream it has something to say, and of nothing else. A side that ends
/// its direction goes on receiving.
struct AtTheEnd(HungUp);

impl Dialect for AtTheEnd {
    type Message = ();
    const HALF_CLOSE: bool = true;

    fn end_of(error: &(dyn Error + 'static)) -> Option<End> {
        end_of(error)
    }
}

impl Decoder for AtTheEnd {
    type Item = Frame<()>;
    type Error = Box<dyn Error + Send + Sync>;

    fn decode(&mut self, _: &mut BytesMut) -> Result<Option<Frame<()>>, Self::Error> {
        Ok(None)
    }

    fn decode_eof(&mut self, _: &mut BytesMut) -> Result<Option<Frame<()>>, Self::Error> {
        Err(self.0.into())
    }
}

impl Encoder<Frame<()>> for AtTheEnd {
    type Error = io::Error;

    fn encode(&mut self, _: Frame<()>, _: &mut BytesMut) -> io::Result<()> {
        Ok(())
    }
}

impl Encoder<Frame<()>> for Library {
    type Error = io::Error;

    fn encode(&mut self, _: Frame<()>, _: &mut BytesMut) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Library {
    type Item = Result<Frame<()>, HungUp>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(Some(Err(self.0)))
    }
}

impl Sink<Frame<()>> for Library {
    type Error = HungUp;

    fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), HungUp>> {
        Poll::Ready(Ok(()))
    }

    fn start_send(self: Pin<&mut Self>, _: Frame<()>) -> Result<(), HungUp> {
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), HungUp>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), HungUp>> {
        Poll::Ready(Ok(()))
    }
}

/// Every end, and the cause that is told of it.
fn ends() -> [(End, Cause); 6] {
    let rule = ProtocolError::EmptyFrame;
    [
        (End::Eof, Cause::Eof),
        (End::Reset, Cause::Reset),
        (End::TimedOut, Cause::TimedOut),
        (End::Unreachable, Cause::Unreachable),
        (End::Io, Cause::Io),
        (End::Protocol(rule), Cause::Protocol(rule)),
    ]
}

fn cause(events: &[PeerEvent<()>]) -> &Cause {
    match events {
        [PeerEvent::Dead(death)] => &death.cause,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_a_codec_is_the_end_that_its_dialect_says() {
    for (end, expected) in ends() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        theirs.write_all(b"anything").await.unwrap();
        let mut peer = Heartbeat::with_codec(ours, Library(HungUp(end)), quick());
        let events: Vec<_> = peer.by_ref().collect().await;
        assert_eq!(cause(&events), &expected);
        assert_eq!(peer.io_error().unwrap().to_string(), "hung up");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_codec_says_of_an_end_behind_which_we_could_go_on_is_the_end() {
    for (end, expected) in ends() {
        for bytes in ["", "anything"] {
            let (ours, mut theirs) = tokio::io::duplex(64);
            theirs.write_all(bytes.as_bytes()).await.unwrap();
            theirs.shutdown().await.unwrap();
            let mut peer = Heartbeat::with_codec(ours, AtTheEnd(HungUp(end)), quick());
            let events = timeout(secs(60), peer.by_ref().collect::<Vec<_>>()).await;
            assert_eq!(cause(&events.expect("it ends")), &expected);
            assert_eq!(peer.io_error().unwrap().to_string(), "hung up");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_a_stream_of_frames_is_the_end_that_its_dialect_says() {
    for (end, expected) in ends() {
        let mut peer = Heartbeat::with_frames(Library(HungUp(end)), quick());
        let events: Vec<_> = peer.by_ref().collect().await;
        assert_eq!(cause(&events), &expected);
        assert_eq!(peer.io_error().unwrap().to_string(), "hung up");
    }
}
