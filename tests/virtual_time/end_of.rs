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
use futures::{Sink, SinkExt, Stream, StreamExt, future::poll_immediate};
use heartbeat_tests::{quick, secs};
use heartbeat_tokio::{
    Cause, Dialect, End, Frame, Heartbeat, PeerEvent, ProtocolError, SendError, testkit::Line,
};
use tokio::{io::AsyncWriteExt, time::timeout};
use tokio_util::codec::{Decoder, Encoder, Framed};

use crate::own_frames::{OwnCodec, OwnFrames};

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
/// its direction may go on receiving.
struct AtTheEnd<const GOES_ON: bool>(HungUp);

impl<const GOES_ON: bool> Dialect for AtTheEnd<GOES_ON> {
    type Message = ();
    const HALF_CLOSE: bool = GOES_ON;

    fn end_of(error: &(dyn Error + 'static)) -> Option<End> {
        end_of(error)
    }
}

impl<const GOES_ON: bool> Decoder for AtTheEnd<GOES_ON> {
    type Item = Frame<()>;
    type Error = Box<dyn Error + Send + Sync>;

    fn decode(&mut self, _: &mut BytesMut) -> Result<Option<Frame<()>>, Self::Error> {
        Ok(None)
    }

    fn decode_eof(&mut self, _: &mut BytesMut) -> Result<Option<Frame<()>>, Self::Error> {
        Err(self.0.into())
    }
}

impl<const GOES_ON: bool> Encoder<Frame<()>> for AtTheEnd<GOES_ON> {
    type Error = io::Error;

    fn encode(&mut self, _: Frame<()>, bytes: &mut BytesMut) -> io::Result<()> {
        bytes.extend_from_slice(b"frame");
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
            let mut peer = Heartbeat::with_codec(ours, AtTheEnd::<true>(HungUp(end)), quick());
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

#[tokio::test(start_paused = true)]
async fn an_error_of_a_codec_about_an_end_that_is_known_already_is_kept() {
    for (end, _) in ends() {
        let (ours, theirs) = tokio::io::duplex(64);
        drop(theirs);
        let mut peer = Heartbeat::with_codec(ours, AtTheEnd::<false>(HungUp(end)), quick());
        let events: Vec<_> = peer.by_ref().collect().await;
        assert_eq!(cause(&events), &Cause::Eof);
        assert_eq!(peer.io_error().unwrap().to_string(), "hung up", "{end:?}");
    }
}

/// A write had failed before.
#[tokio::test(start_paused = true)]
async fn an_error_of_a_codec_about_an_end_that_has_an_error_already_changes_nothing() {
    for (end, _) in ends() {
        let no_room = io::Cursor::new(Box::<[u8]>::default());
        let stream = tokio::io::join(&b"anything"[..], no_room);
        let mut peer = Heartbeat::with_codec(stream, AtTheEnd::<false>(HungUp(end)), quick());
        let sent = peer.send(()).await;
        assert!(matches!(sent, Err(SendError::Dead(_))), "{sent:?}");
        let events: Vec<_> = peer.by_ref().collect().await;
        assert_eq!(cause(&events), &Cause::Io);
        assert_eq!(peer.io_error().unwrap().kind(), io::ErrorKind::WriteZero);
    }
}

/// A bug in what it says of an error.
struct Panics;

impl Dialect for Panics {
    type Message = ();

    fn end_of(_: &(dyn Error + 'static)) -> Option<End> {
        panic!("a bug")
    }
}

impl Decoder for Panics {
    type Item = Frame<()>;
    type Error = io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<Option<Frame<()>>> {
        match bytes.is_empty() {
            true => Ok(None),
            false => Err(io::Error::other("nobody understands it")),
        }
    }
}

impl Encoder<Frame<()>> for Panics {
    type Error = io::Error;

    fn encode(&mut self, _: Frame<()>, _: &mut BytesMut) -> io::Result<()> {
        Ok(())
    }
}

/// It isn't asked again, as its connection is dropped: a second panic would end the process.
#[tokio::test(start_paused = true)]
async fn a_dialect_that_panics_ends_its_own_connection() {
    let (ours, mut theirs) = tokio::io::duplex(64);
    theirs.write_all(b"anything").await.unwrap();
    let driver = Heartbeat::with_codec(ours, Panics, quick()).spawn();
    assert!(driver.task.await.unwrap_err().is_panic());
    let events: Vec<_> = driver.receiver.collect().await;
    assert_eq!(cause(&events), &Cause::Io);
}

#[tokio::test(start_paused = true)]
async fn an_io_error_of_a_stream_of_frames_is_the_end_that_it_is_of_any_stream() {
    let (ours, _theirs, line) = Line::pair();
    let frames = OwnFrames(Framed::new(ours, OwnCodec));
    let mut peer = Heartbeat::with_frames(frames, quick());
    // Our Hello leaves before, so that only reading can fail.
    assert!(poll_immediate(peer.next()).await.is_none());
    line.reset();
    match peer.next().await {
        Some(PeerEvent::Dead(death)) => assert_eq!(death.cause, Cause::Reset),
        other => panic!("{other:?}"),
    }
}
