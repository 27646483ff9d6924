//! A connection goes from a `Framed` to a heartbeat and back, and no byte is lost.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use bytes::BytesMut;
use futures::{SinkExt, StreamExt};
use heartbeat_tests::{for_each, patient, quick, scripted::runtime, secs};
use heartbeat_tokio::{Cause, Config, Dialect, Frame, Heartbeat, PeerEvent};
use proptest::collection::vec;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, duplex},
    task::yield_now,
    time::{Instant, timeout},
};
use tokio_util::codec::{Decoder, Encoder, Framed, LinesCodec, LinesCodecError};

/// Lines of text, and the lines `PING` and `PONG`.
struct Lines {
    codec: LinesCodec,
    /// How many it has decoded.
    decoded: usize,
}

impl Lines {
    fn new(codec: LinesCodec) -> Self {
        Self { codec, decoded: 0 }
    }
}

impl Dialect for Lines {
    type Message = String;
}

impl Decoder for Lines {
    type Item = Frame<String>;
    type Error = LinesCodecError;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Frame<String>>, LinesCodecError> {
        let Some(line) = self.codec.decode(bytes)? else {
            return Ok(None);
        };
        self.decoded += 1;
        Ok(Some(match &*line {
            "PING" => Frame::Ping(None),
            "PONG" => Frame::Pong(None),
            _ => Frame::Data(line),
        }))
    }
}

impl Encoder<Frame<String>> for Lines {
    type Error = LinesCodecError;

    fn encode(&mut self, frame: Frame<String>, to: &mut BytesMut) -> Result<(), LinesCodecError> {
        match frame {
            Frame::Data(line) => self.codec.encode(line, to),
            Frame::Ping(_) => self.codec.encode("PING", to),
            Frame::Pong(_) => self.codec.encode("PONG", to),
            _ => Ok(()),
        }
    }
}

fn pair() -> (Framed<DuplexStream, LinesCodec>, DuplexStream) {
    let (ours, theirs) = duplex(1 << 20);
    (Framed::new(ours, LinesCodec::new()), theirs)
}

#[tokio::test(start_paused = true)]
async fn what_came_with_the_login_is_the_first_message() {
    let (mut framed, mut client) = pair();
    client.write_all(b"LOGIN ann\nhello\nand so").await.unwrap();
    assert_eq!(framed.next().await.unwrap().unwrap(), "LOGIN ann");

    let mut peer = Heartbeat::from_framed(framed.map_codec(Lines::new), patient());
    let hello = PeerEvent::Message("hello".into());
    assert_eq!(peer.next().await, Some(hello));
    client.write_all(b" on\n").await.unwrap();
    let on = PeerEvent::Message("and so on".into());
    assert_eq!(peer.next().await, Some(on));
}

#[tokio::test(start_paused = true)]
async fn what_was_not_written_before_leaves_first() {
    let (mut framed, client) = pair();
    framed.feed("WELCOME").await.unwrap();
    let mut peer = Heartbeat::from_framed(framed.map_codec(Lines::new), patient());
    let began = Instant::now();
    tokio::spawn(async move { while peer.next().await.is_some() {} });
    let mut lines = BufReader::new(client).lines();
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "WELCOME");
    assert_eq!(began.elapsed(), secs(0));
    // And beats follow.
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "PING");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_after_the_login_is_found() {
    let (mut framed, mut client) = pair();
    client.write_all(b"LOGIN ann\n").await.unwrap();
    framed.next().await.unwrap().unwrap();
    let mut peer = Heartbeat::from_framed(framed.map_codec(Lines::new), quick());
    let began = Instant::now();
    match peer.next().await {
        Some(PeerEvent::Suspect { .. }) => {}
        other => panic!("{other:?}"),
    }
    let last = peer.by_ref().collect::<Vec<_>>().await.pop();
    assert!(
        matches!(&last, Some(PeerEvent::Dead(death)) if death.cause == Cause::Silent),
        "{last:?}"
    );
    assert_eq!(began.elapsed(), quick().detection_time());
}

/// The codec keeps what it knows.
#[tokio::test(start_paused = true)]
async fn the_codec_comes_back_as_it_is() {
    let (framed, mut client) = pair();
    client.write_all(b"one\ntwo\nthr").await.unwrap();
    let mut peer = Heartbeat::from_framed(framed.map_codec(Lines::new), patient());
    peer.next().await.unwrap();
    peer.next().await.unwrap();
    let parts = peer.into_parts();
    assert_eq!(parts.codec.as_ref().unwrap().decoded, 2);
    assert_eq!(&parts.read[..], b"thr");
    let (events, framed) = parts.into_framed();
    assert!(events.is_empty(), "{events:?}");
    client.write_all(b"ee\n").await.unwrap();
    let mut framed = framed.unwrap();
    let three = Frame::Data("three".into());
    assert_eq!(framed.next().await.unwrap().unwrap(), three);
    assert_eq!(framed.codec().decoded, 3);
}

/// A client writes lines, and reads them again: an echo that is a `Framed`, then a
/// heartbeat, then a `Framed`.
#[test]
fn no_byte_is_lost_on_the_way_there_and_back() {
    let lines = vec("[a-z]{0,30}", 1..20);
    for_each(
        200,
        (lines, 1_usize..100, 0_usize..12, 0_usize..12),
        |(lines, piece, there, back)| {
            runtime().block_on(async {
                let echoed = echo(&lines, piece, there, back);
                let echoed = timeout(secs(3600), echoed).await.unwrap();
                assert_eq!(echoed, lines);
            });
        },
    );
}

async fn echo(lines: &[String], piece: usize, there: usize, back: usize) -> Vec<String> {
    let (mut framed, client) = pair();
    let (mut reading, mut writing) = tokio::io::split(client);
    let sent: String = lines.iter().map(|line| format!("{line}\n")).collect();
    tokio::spawn(async move {
        for piece in sent.as_bytes().chunks(piece) {
            writing.write_all(piece).await.unwrap();
            yield_now().await;
        }
    });

    // Nothing is flushed before the end.
    let (mut there, mut back) = (there.min(lines.len()), back);
    let mut left = lines.len() - there;
    while there > 0 {
        let line = framed.next().await.unwrap().unwrap();
        framed.feed(line).await.unwrap();
        there -= 1;
    }
    let mut peer = Heartbeat::from_framed(framed.map_codec(Lines::new), seldom());
    back = back.min(left);
    while back > 0 {
        let Some(PeerEvent::Message(line)) = peer.next().await else {
            panic!("only messages come");
        };
        peer.feed(line).await.unwrap();
        back -= 1;
        left -= 1;
    }
    let (events, framed) = peer.into_parts().into_framed();
    let mut framed = framed.unwrap().map_codec(|lines| lines.codec);
    for event in events {
        let PeerEvent::Message(line) = event else {
            panic!("{event:?}");
        };
        framed.feed(line).await.unwrap();
        left -= 1;
    }
    while left > 0 {
        let line = framed.next().await.unwrap().unwrap();
        framed.feed(line).await.unwrap();
        left -= 1;
    }
    SinkExt::<String>::flush(&mut framed).await.unwrap();
    drop(framed);
    let mut echoed = String::new();
    reading.read_to_string(&mut echoed).await.unwrap();
    let lines = echoed.lines().filter(|&line| line != "PING");
    lines.map(str::to_owned).collect()
}

/// The first interval is shorter, by chance.
fn seldom() -> Config {
    let day = secs(86_400);
    let config = quick().to_builder().interval(day).timeout(day);
    config.adaptive(false).build().unwrap()
}
