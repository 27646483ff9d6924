//! A protocol that has a ping of its own, by its codec and as whole frames:
//! lines of text, where `PING` asks and `PONG` answers, and that is all.

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
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use futures::{Sink, SinkExt, Stream, StreamExt};
use heartbeat_core::ProtocolError;
use heartbeat_tests::{
    Watched, ms, quick,
    scripted::{Read, runtime, scripted},
    secs,
};
use heartbeat_tokio::{
    Cause, CloseError, CloseReason, Codec, Config, Dialect, Driver, Frame, Heartbeat, PeerEvent,
    SendError, State, TrySendError, testkit::Line,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf},
    time::{Instant, sleep, timeout},
};
use tokio_util::{
    codec::{Decoder, Encoder, Framed, LinesCodec, LinesCodecError},
    io::InspectReader,
};

/// Lines of at most 1000 bytes.
struct Lines(LinesCodec);

impl Default for Lines {
    fn default() -> Self {
        Self(LinesCodec::new_with_max_length(1000))
    }
}

impl Dialect for Lines {
    type Message = String;
}

const STRANGE: ProtocolError = ProtocolError::UnknownTag { tag: b'?' };

fn frame(line: String) -> Frame<String> {
    match &*line {
        "PING" => Frame::Ping(None),
        "PONG" => Frame::Pong(None),
        "#" => Frame::Other,
        _ => Frame::Data(line),
    }
}

/// Why a line is none.
#[derive(Debug)]
enum BadLine {
    Lines(LinesCodecError),
    Strange(io::Error),
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lines(error) => error.fmt(f),
            Self::Strange(_) => f.write_str("a line that nobody understands"),
        }
    }
}

impl Error for BadLine {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Lines(_) => None,
            Self::Strange(error) => Some(error),
        }
    }
}

impl From<io::Error> for BadLine {
    fn from(error: io::Error) -> Self {
        Self::Lines(error.into())
    }
}

impl From<LinesCodecError> for BadLine {
    fn from(error: LinesCodecError) -> Self {
        Self::Lines(error)
    }
}

impl Decoder for Lines {
    type Item = Frame<String>;
    type Error = BadLine;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Self::Item>, BadLine> {
        match self.0.decode(bytes)? {
            Some(line) if line == "?" => {
                let error = io::Error::new(io::ErrorKind::InvalidData, STRANGE);
                Err(BadLine::Strange(error))
            }
            line => Ok(line.map(frame)),
        }
    }

    fn decode_eof(&mut self, bytes: &mut BytesMut) -> Result<Option<Self::Item>, BadLine> {
        Ok(self.0.decode_eof(bytes)?.map(frame))
    }
}

impl Encoder<Frame<String>> for Lines {
    type Error = BadLine;

    fn encode(&mut self, frame: Frame<String>, bytes: &mut BytesMut) -> Result<(), Self::Error> {
        match frame {
            Frame::Data(line) if line.contains('\n') => {
                // What was written of it must not stay.
                self.0.encode("half of", bytes)?;
                Err(io::Error::other("a line has no line break in it").into())
            }
            Frame::Data(line) => Ok(self.0.encode(line, bytes)?),
            Frame::Ping(_) => Ok(self.0.encode("PING", bytes)?),
            Frame::Pong(_) => Ok(self.0.encode("PONG", bytes)?),
            Frame::Hello(_) | Frame::Goodbye { .. } | Frame::Alive | Frame::Fin | Frame::Other => {
                panic!("this dialect has no such frame")
            }
        }
    }
}

/// The same, as something that gives and takes whole frames.
struct Socket(Framed<DuplexStream, Lines>);

impl Dialect for Socket {
    type Message = String;

    fn weight(line: &String) -> usize {
        line.len()
    }
}

impl Stream for Socket {
    type Item = Result<Frame<String>, BadLine>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl Sink<Frame<String>> for Socket {
    type Error = BadLine;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready_unpin(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, frame: Frame<String>) -> Result<(), Self::Error> {
        self.0.start_send_unpin(frame)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_flush_unpin(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_close_unpin(cx)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum By {
    Codec,
    Frames,
}

const BOTH: [By; 2] = [By::Codec, By::Frames];

/// Ours, and the other end of the stream.
fn wrap(by: By, config: Config) -> (Driver<String>, DuplexStream) {
    let (ours, theirs) = tokio::io::duplex(256);
    let driver = match by {
        By::Codec => Heartbeat::with_codec(ours, Lines::default(), config).spawn(),
        By::Frames => {
            let socket = Socket(Framed::new(ours, Lines::default()));
            Heartbeat::with_frames(socket, config).spawn()
        }
    };
    (driver, theirs)
}

async fn read_line(stream: &mut DuplexStream) -> String {
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await {
            Ok(b'\n') | Err(_) => return String::from_utf8(line).unwrap(),
            Ok(byte) => line.push(byte),
        }
    }
}

/// What isn't a beat.
async fn rest(mut events: impl Stream<Item = PeerEvent<String>> + Unpin) -> Vec<PeerEvent<String>> {
    let mut rest = Vec::new();
    while let Some(event) = events.next().await {
        if !matches!(event, PeerEvent::Beat { .. } | PeerEvent::Suspect { .. }) {
            rest.push(event);
        }
    }
    rest
}

#[tokio::test(start_paused = true)]
async fn it_pings_after_the_interval_and_takes_any_pong_for_an_answer() {
    for by in BOTH {
        let (mut driver, mut peer) = wrap(by, quick());
        let began = Instant::now();
        for round in 1..=5 {
            // No greeting comes first.
            assert_eq!(read_line(&mut peer).await, "PING", "{by:?}");
            assert_eq!(began.elapsed(), ms(230) * round - ms(30));
            sleep(ms(30)).await;
            peer.write_all(b"PONG\n").await.unwrap();
            let beat = driver.receiver.next().await;
            assert_eq!(beat, Some(PeerEvent::Beat { rtt: ms(30) }));
        }
        assert_eq!(driver.sender.status().peer.pongs, 5);
    }
}

#[tokio::test(start_paused = true)]
async fn it_answers_the_peers_pings_however_many_there_are() {
    for by in BOTH {
        let (driver, mut peer) = wrap(by, quick());
        for _ in 0..1000 {
            peer.write_all(b"PING\n").await.unwrap();
            assert_eq!(read_line(&mut peer).await, "PONG", "{by:?}");
        }
        assert_eq!(driver.sender.status().peer.state, State::Alive);
    }
}

#[tokio::test(start_paused = true)]
async fn messages_go_both_ways_and_what_nobody_needs_to_see_is_a_sign_of_life() {
    for by in BOTH {
        let (mut driver, mut peer) = wrap(by, quick());
        driver.sender.send("hello".into()).await.unwrap();
        assert_eq!(read_line(&mut peer).await, "hello");
        for _ in 0..20 {
            sleep(ms(150)).await;
            peer.write_all(b"#\n").await.unwrap();
        }
        peer.write_all(b"well\n").await.unwrap();
        let event = driver.receiver.next().await;
        assert_eq!(event, Some(PeerEvent::Message("well".into())), "{by:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_dead_in_time() {
    for by in BOTH {
        let (driver, mut peer) = wrap(by, quick());
        peer.write_all(b"last\n").await.unwrap();
        let began = Instant::now();
        let death = driver.sender.closed().await.unwrap_err();
        assert_eq!(death.cause, Cause::Silent, "{by:?}");
        assert_eq!(began.elapsed(), ms(800));
        let message = PeerEvent::Message("last".into());
        assert_eq!(
            rest(driver.receiver).await,
            [message, PeerEvent::Dead(death)]
        );
        assert_eq!(read_line(&mut peer).await, "PING");
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_line_is_life_only_where_bytes_are_seen() {
    for by in BOTH {
        let (driver, mut peer) = wrap(by, quick());
        let trickle = async {
            loop {
                // Faster than `min_rate`.
                let _ = peer.write_all(&[b'a'; 20]).await;
                sleep(ms(100)).await;
            }
        };
        let closed = timeout(secs(5), driver.sender.closed());
        tokio::select! {
            () = trickle => {}
            closed = closed => assert_eq!(closed.is_ok(), by == By::Frames, "{by:?}"),
        }
    }
}

/// The first byte of `#` has counted before.
#[tokio::test(start_paused = true)]
async fn the_bytes_of_each_line_are_counted_from_its_beginning() {
    let config = quick().to_builder().min_rate(500).build().unwrap();
    for rest in ["\n", "\nline\n"] {
        let (driver, mut peer) = wrap(By::Codec, config);
        let began = Instant::now();
        peer.write_all(b"#").await.unwrap();
        sleep(ms(100)).await;
        peer.write_all(rest.as_bytes()).await.unwrap();
        sleep(ms(700)).await;
        // Just as many bytes as are needed.
        peer.write_all("x".repeat(350).as_bytes()).await.unwrap();
        let death = driver.sender.closed().await.unwrap_err();
        assert_eq!(death.cause, Cause::Silent);
        assert_eq!(began.elapsed(), ms(100 + 700 + 800), "{rest:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_goodbye_a_peer_that_leaves_looks_like_one_that_was_killed() {
    for by in BOTH {
        let (driver, mut peer) = wrap(by, quick());
        // The last line has no end; the codec makes one of it.
        peer.write_all(b"one\ntwo").await.unwrap();
        drop(peer);
        let events = rest(driver.receiver).await;
        let [
            PeerEvent::Message(one),
            PeerEvent::Message(two),
            PeerEvent::Dead(death),
        ] = &events[..]
        else {
            panic!("{by:?}: {events:?}");
        };
        assert_eq!((&**one, &**two), ("one", "two"));
        assert_eq!(death.cause, Cause::Eof);
    }
}

#[tokio::test(start_paused = true)]
async fn our_close_sends_what_is_queued_and_ends_the_stream() {
    for by in BOTH {
        let (driver, mut peer) = wrap(by, quick());
        let reading = tokio::spawn(async move {
            let mut all = String::new();
            peer.read_to_string(&mut all).await.unwrap();
            all
        });
        for _ in 0..100 {
            driver.sender.send("a line".into()).await.unwrap();
        }
        assert_eq!(
            driver.sender.close().await,
            Ok(CloseReason::Local),
            "{by:?}"
        );
        assert_eq!(reading.await.unwrap(), "a line\n".repeat(100));
    }
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_decoded_ends_it_and_the_codec_says_why() {
    for by in BOTH {
        let (driver, mut peer) = wrap(by, quick());
        peer.write_all(b"good\n").await.unwrap();
        let _ = peer.write_all(&[b'x'; 2000]).await;
        let death = driver.sender.closed().await.unwrap_err();
        assert_eq!(death.cause, Cause::Protocol(ProtocolError::Undecodable));
        let words = driver.sender.io_error().expect("the codec's").to_string();
        assert_eq!(words, "max line length exceeded", "{by:?}");
        let message = PeerEvent::Message("good".into());
        assert_eq!(
            rest(driver.receiver).await,
            [message, PeerEvent::Dead(death)]
        );
    }
}

/// Wherever it stands among the reasons that a codec gives.
#[tokio::test(start_paused = true)]
async fn a_rule_that_the_codec_names_is_the_cause() {
    for by in BOTH {
        let (driver, mut peer) = wrap(by, quick());
        peer.write_all(b"?\n").await.unwrap();
        let death = driver.sender.closed().await.unwrap_err();
        assert_eq!(death.cause, Cause::Protocol(STRANGE), "{by:?}");
        let words = driver.sender.io_error().expect("the codec's").to_string();
        assert_eq!(words, "a line that nobody understands");
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_can_not_be_encoded_is_refused_and_nothing_of_it_is_sent() {
    let (driver, mut peer) = wrap(By::Codec, quick());
    driver.sender.send("before".into()).await.unwrap();
    let refused = driver.sender.send("two\nlines".into()).await;
    let Err(SendError::Unencodable(error)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(error.to_string(), "a line has no line break in it");
    driver.sender.send("after".into()).await.unwrap();
    assert_eq!(read_line(&mut peer).await, "before");
    assert_eq!(read_line(&mut peer).await, "after");
}

#[tokio::test(start_paused = true)]
async fn the_error_of_a_message_is_equal_to_itself_and_its_source_is_the_codecs() {
    let (driver, _peer) = wrap(By::Codec, quick());
    let refused = || driver.sender.try_send("two\nlines".into()).unwrap_err();
    let (one, other) = (refused(), refused());
    assert_eq!(one, one.clone());
    assert_ne!(one, other);
    let TrySendError::Failed(SendError::Unencodable(error)) = one else {
        panic!("{one:?}");
    };
    let source = error.source().expect("the codec's");
    assert!(source.is::<BadLine>(), "{source}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_dies_while_we_leave_is_dead_in_time() {
    for by in BOTH {
        let (driver, mut peer) = wrap(by, quick());
        let began = Instant::now();
        assert_eq!(read_line(&mut peer).await, "PING");
        // More than the stream takes.
        for _ in 0..20 {
            driver.sender.send("x".repeat(100)).await.unwrap();
        }
        let closed = driver.sender.close().await;
        let Err(CloseError::Dead { unwritten, .. }) = closed else {
            panic!("{by:?}: {closed:?}");
        };
        assert!(unwritten > 0, "{by:?}");
        assert_eq!(began.elapsed(), quick().detection_time(), "{by:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_is_found_while_we_send() {
    for by in BOTH {
        let (driver, peer) = wrap(by, quick());
        let began = Instant::now();
        let error = loop {
            if let Err(error) = driver.sender.send("x".repeat(900)).await {
                break error;
            }
        };
        let SendError::Dead(death) = error else {
            panic!("{by:?}: {error}");
        };
        assert_eq!(death.cause, Cause::WriteStalled);
        assert_eq!(began.elapsed(), ms(800));
        drop(peer);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_when_it_is_taken_apart() {
    let (ours, mut theirs) = tokio::io::duplex(8);
    let mut inline = Heartbeat::with_codec(ours, Lines::default(), quick());
    theirs.write_all(b"one\ntw").await.unwrap();
    let message = PeerEvent::Message("one".into());
    assert_eq!(inline.next().await, Some(message));
    inline.feed("three".into()).await.unwrap();
    let parts = inline.into_parts();
    assert_eq!((&*parts.read, &*parts.write), (&b"tw"[..], &b"three\n"[..]));

    let (ours, mut theirs) = tokio::io::duplex(64);
    let socket = Socket(Framed::new(ours, Lines::default()));
    let mut inline = Heartbeat::with_frames(socket, quick());
    theirs.write_all(b"one\n").await.unwrap();
    assert!(inline.next().await.is_some());
    inline.feed("three".into()).await.unwrap();
    inline.feed("four".into()).await.unwrap();
    assert_eq!(inline.into_parts().unsent, ["three", "four"]);
}

#[tokio::test(start_paused = true)]
async fn what_comes_after_our_goodbye_isnt_told_after_the_end() {
    for by in BOTH {
        let (driver, mut peer) = wrap(by, quick());
        let Driver {
            sender, receiver, ..
        } = driver;
        let peer = tokio::spawn(async move {
            let mut all = String::new();
            peer.read_to_string(&mut all).await.unwrap();
            peer.write_all(b"too late\n").await.unwrap();
        });
        assert_eq!(sender.close().await, Ok(CloseReason::Local), "{by:?}");
        peer.await.unwrap();
        let events = rest(receiver).await;
        let closed = PeerEvent::Closed {
            reason: CloseReason::Local,
        };
        assert_eq!(events.last(), Some(&closed), "{by:?}: {events:?}");
    }
}

/// 100,000 bytes: more than is read after a peer's goodbye.
#[tokio::test(start_paused = true)]
async fn a_peer_that_says_much_before_its_end_has_received_everything() {
    for by in BOTH {
        let (driver, mut peer) = wrap(by, quick());
        let peer = tokio::spawn(async move {
            let mut all = String::new();
            peer.read_to_string(&mut all).await.unwrap();
            for _ in 0..200 {
                let line = "x".repeat(499) + "\n";
                peer.write_all(line.as_bytes()).await.unwrap();
            }
        });
        assert_eq!(
            driver.sender.close().await,
            Ok(CloseReason::Local),
            "{by:?}"
        );
        peer.await.unwrap();
    }
}

/// It is thrown away, and what is kept of it at a time is bounded.
#[test]
fn what_a_peer_says_before_its_end_takes_little_memory() {
    let much = Bytes::from(("x".repeat(499) + "\n").repeat(8_000));
    let runtime = runtime();
    let (stream, script) = scripted();
    let mut ours = Heartbeat::with_codec(stream, Lines::default(), quick());
    let measured = allocation_counter::measure(|| {
        runtime.block_on(async {
            let saying = async {
                sleep(ms(1)).await;
                script.give([Read::Bytes(much.clone()), Read::End]);
            };
            let (closed, ()) = tokio::join!(ours.close(), saying);
            assert_eq!(closed, Ok(()));
        });
    });
    let most = measured.bytes_max;
    assert!(most < much.len() as u64 / 3, "{most} bytes");
}

/// By a codec: it was read, and not decoded yet.
#[tokio::test(start_paused = true)]
async fn a_line_that_was_read_before_we_leave_is_handed_out_before_the_end() {
    let (ours, mut peer) = tokio::io::duplex(256);
    let mut ours = Heartbeat::with_codec(ours, Lines::default(), quick());
    peer.write_all(b"one\ntwo\n").await.unwrap();
    peer.shutdown().await.unwrap();
    assert_eq!(ours.next().await, Some(PeerEvent::Message("one".into())));
    assert_eq!(ours.close().await, Ok(()));
    let reason = CloseReason::Local;
    let expected = [
        PeerEvent::Message("two".into()),
        PeerEvent::Closed { reason },
    ];
    assert_eq!(rest(&mut ours).await, expected);
}

/// The line is too long, and nobody waits for it any more.
#[tokio::test(start_paused = true)]
async fn an_error_of_a_codec_behind_our_own_end_explains_nothing() {
    let (ours, mut peer) = tokio::io::duplex(4 << 10);
    let mut ours = Heartbeat::with_codec(ours, Lines::default(), quick());
    let lines = "one\n".to_owned() + &"x".repeat(1_100);
    peer.write_all(lines.as_bytes()).await.unwrap();
    peer.shutdown().await.unwrap();
    assert_eq!(ours.next().await, Some(PeerEvent::Message("one".into())));
    assert_eq!(ours.close().await, Ok(()));
    let reason = CloseReason::Local;
    assert_eq!(rest(&mut ours).await, [PeerEvent::Closed { reason }]);
    assert!(ours.io_error().is_none());
}

/// The peer sends more than the inbox holds, and reads nothing. Of its own times nothing is
/// known, so half of what a verdict takes is left: 300 ms.
#[tokio::test(start_paused = true)]
async fn a_full_inbox_that_is_emptied_soon_while_we_leave_loses_no_line() {
    let (driver, mut peer) = wrap(By::Codec, quick());
    let Driver {
        sender, receiver, ..
    } = driver;
    let saying = tokio::spawn(async move {
        for _ in 0..400 {
            let line = "x".repeat(899) + "\n";
            peer.write_all(line.as_bytes()).await.unwrap();
        }
        peer
    });
    while let Ok(sent) = timeout(ms(1), sender.send("y".repeat(900))).await {
        sent.unwrap();
    }
    assert_eq!(sender.status().peer.state, State::Paused);
    let leaving = tokio::spawn(async move { sender.close().await });
    sleep(ms(250)).await;
    let events = tokio::spawn(rest(receiver));
    let mut peer = saying.await.unwrap();
    peer.read_to_end(&mut Vec::new()).await.unwrap();
    drop(peer);
    assert_eq!(leaving.await.unwrap(), Ok(CloseReason::Local));
    assert_eq!(events.await.unwrap().len(), 400 + 1);
}

/// A stream that fails as soon as our direction has ended. It takes everything.
struct Fails {
    with: io::ErrorKind,
    has_ended: bool,
}

impl AsyncRead for Fails {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.has_ended {
            true => Poll::Ready(Err(self.with.into())),
            false => Poll::Pending,
        }
    }
}

impl AsyncWrite for Fails {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.has_ended = true;
        Poll::Ready(Ok(()))
    }
}

/// Libraries of TLS call the end of a stream unexpected if the peer didn't announce it.
#[tokio::test(start_paused = true)]
async fn an_unexpected_end_confirms_like_any_other_and_a_failure_confirms_nothing() {
    let unconfirmed = Err(CloseError::Unconfirmed { unwritten: 0 });
    for (with, expected) in [
        (io::ErrorKind::UnexpectedEof, Ok(())),
        (io::ErrorKind::ConnectionReset, unconfirmed),
    ] {
        let stream = Fails {
            with,
            has_ended: false,
        };
        let mut ours = Heartbeat::with_codec(stream, Lines::default(), quick());
        ours.send("a line".into()).await.unwrap();
        assert_eq!(ours.close().await, expected, "{with}");
    }
}

/// What lay in its kernel is lost then.
#[tokio::test(start_paused = true)]
async fn a_reset_confirms_nothing() {
    let (stream, _unread, line) = Line::pair();
    let mut ours = Heartbeat::with_codec(stream, Lines::default(), quick());
    ours.send("a line".into()).await.unwrap();
    let resetting = async {
        // Our direction has ended by then, and the peer's hasn't.
        sleep(ms(1)).await;
        line.reset();
    };
    let (closed, ()) = tokio::join!(ours.close(), resetting);
    let unconfirmed = CloseError::Unconfirmed { unwritten: 0 };
    assert_eq!(closed, Err(unconfirmed));
}

// ---- a codec that panics -------------------------------------------------------

/// Lines of which `!` makes it panic, as it reads one and in the middle of writing one.
struct Panics {
    lines: Lines,
    is_broken: bool,
    /// It was asked for something once it had panicked.
    again: Arc<AtomicBool>,
}

impl Panics {
    fn ask(&mut self) {
        self.again.fetch_or(self.is_broken, Ordering::Relaxed);
    }

    fn panic(&mut self) -> ! {
        self.is_broken = true;
        panic!("a bug in line {}", 7);
    }
}

impl Dialect for Panics {
    type Message = String;
}

impl Decoder for Panics {
    type Item = Frame<String>;
    type Error = BadLine;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Self::Item>, BadLine> {
        self.ask();
        assert!(!bytes.is_empty(), "there is nothing to decode");
        match self.lines.decode(bytes)? {
            Some(Frame::Data(line)) if line == "!" => self.panic(),
            frame => Ok(frame),
        }
    }

    fn decode_eof(&mut self, bytes: &mut BytesMut) -> Result<Option<Self::Item>, BadLine> {
        match bytes.is_empty() {
            true => Ok(None),
            false => self.decode(bytes),
        }
    }
}

impl Encoder<Frame<String>> for Panics {
    type Error = BadLine;

    fn encode(&mut self, frame: Frame<String>, bytes: &mut BytesMut) -> Result<(), BadLine> {
        self.ask();
        if frame == Frame::Data("!".into()) {
            bytes.extend_from_slice(b"half of");
            self.panic();
        }
        self.lines.encode(frame, bytes)
    }
}

/// Ours, whether it was asked again, and the other end of the stream.
fn panicking() -> (
    Heartbeat<DuplexStream, Codec<Panics>>,
    Arc<AtomicBool>,
    DuplexStream,
) {
    let (ours, peer) = tokio::io::duplex(256);
    let again = Arc::<AtomicBool>::default();
    let codec = Panics {
        lines: Lines::default(),
        is_broken: false,
        again: again.clone(),
    };
    (Heartbeat::with_codec(ours, codec, quick()), again, peer)
}

const BUG: &str = "the codec panicked: a bug in line 7";

#[tokio::test(start_paused = true)]
async fn a_codec_that_panics_decoding_ends_its_own_connection() {
    for spawned in [false, true] {
        let (mut heartbeat, again, mut peer) = panicking();
        peer.write_all(b"one\n!\ntwo\n").await.unwrap();
        let (events, error) = if spawned {
            let driver = heartbeat.spawn();
            let events = rest(driver.receiver).await;
            let closed = driver.sender.close().await;
            assert!(matches!(closed, Err(CloseError::Dead { .. })), "{closed:?}");
            driver.task.await.expect("the task doesn't panic");
            (
                events,
                driver.sender.io_error().map(|error| error.to_string()),
            )
        } else {
            let events = rest(&mut heartbeat).await;
            (events, heartbeat.io_error().map(ToString::to_string))
        };
        let [PeerEvent::Message(one), PeerEvent::Dead(death)] = &*events else {
            panic!("{events:?}");
        };
        assert_eq!(one, "one");
        assert_eq!(death.cause, Cause::Protocol(ProtocolError::Undecodable));
        assert_eq!(error.as_deref(), Some(BUG));
        assert!(!again.load(Ordering::Relaxed), "it is asked no more");
    }
}

#[tokio::test(start_paused = true)]
async fn a_codec_that_panics_encoding_ends_its_own_connection_and_nothing_of_the_message_leaves() {
    for spawned in [false, true] {
        let (mut heartbeat, again, mut peer) = panicking();
        let began = Instant::now();
        let (sent, events, error) = if spawned {
            let driver = heartbeat.spawn();
            driver.sender.send("one".into()).await.unwrap();
            driver.sender.flush().await.unwrap();
            let sent = driver.sender.send("!".into()).await;
            let events = rest(driver.receiver).await;
            driver.task.await.expect("the task doesn't panic");
            let later = driver.sender.send("two".into()).await;
            assert!(matches!(later, Err(SendError::Dead(_))), "{later:?}");
            let error = driver.sender.io_error().map(|error| error.to_string());
            (sent, events, error)
        } else {
            heartbeat.send("one".into()).await.unwrap();
            let sent = heartbeat.send("!".into()).await;
            let events = rest(&mut heartbeat).await;
            let later = heartbeat.send("two".into()).await;
            assert!(matches!(later, Err(SendError::Dead(_))), "{later:?}");
            let error = heartbeat.io_error().map(ToString::to_string);
            drop(heartbeat);
            (sent, events, error)
        };
        let Err(SendError::Unencodable(refused)) = sent else {
            panic!("{sent:?}");
        };
        assert_eq!(refused.to_string(), BUG);
        let [PeerEvent::Dead(death)] = &*events else {
            panic!("{events:?}");
        };
        assert_eq!(death.cause, Cause::Io);
        assert_eq!(error.as_deref(), Some(BUG));
        assert_eq!(began.elapsed(), ms(0), "at once");
        let mut arrived = String::new();
        peer.read_to_string(&mut arrived).await.unwrap();
        assert_eq!(arrived, "one\n");
        assert!(!again.load(Ordering::Relaxed), "it is asked no more");
    }
}

/// The end of a direction says that a side has finished.
struct HalfLines(Lines);

impl Dialect for HalfLines {
    type Message = String;
    const HALF_CLOSE: bool = true;
}

impl Decoder for HalfLines {
    type Item = Frame<String>;
    type Error = BadLine;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Self::Item>, BadLine> {
        self.0.decode(bytes)
    }

    fn decode_eof(&mut self, bytes: &mut BytesMut) -> Result<Option<Self::Item>, BadLine> {
        self.0.decode_eof(bytes)
    }
}

impl Encoder<Frame<String>> for HalfLines {
    type Error = BadLine;

    fn encode(&mut self, frame: Frame<String>, bytes: &mut BytesMut) -> Result<(), Self::Error> {
        self.0.encode(frame, bytes)
    }
}

#[tokio::test(start_paused = true)]
async fn a_side_that_has_finished_can_wait_long_for_the_answer() {
    let (ours, mut peer) = tokio::io::duplex(256);
    let mut ours = Heartbeat::with_codec(ours, HalfLines(Lines::default()), quick());
    ours.send("question".into()).await.unwrap();
    ours.finish().await.unwrap();
    let peer = tokio::spawn(async move {
        let mut all = String::new();
        peer.read_to_string(&mut all).await.unwrap();
        sleep(secs(5)).await;
        peer.write_all(b"answer\n").await.unwrap();
        all
    });
    let events = rest(&mut ours).await;
    let expected = [
        PeerEvent::Message("answer".to_owned()),
        PeerEvent::Finished,
        PeerEvent::Closed {
            reason: CloseReason::Finished,
        },
    ];
    assert_eq!(events, expected);
    assert_eq!(peer.await.unwrap(), "question\n");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_has_ended_its_direction_is_not_asked() {
    let (ours, mut peer) = tokio::io::duplex(256);
    let mut ours = Heartbeat::with_codec(ours, HalfLines(Lines::default()), quick());
    peer.write_all(b"question\n").await.unwrap();
    peer.shutdown().await.unwrap();
    let asked = PeerEvent::Message("question".to_owned());
    assert_eq!(ours.next().await, Some(asked));
    assert_eq!(ours.next().await, Some(PeerEvent::Finished));
    let nothing = timeout(secs(60), ours.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    assert_eq!(ours.status().peer.state, State::HalfClosed);
    ours.send("answer".into()).await.unwrap();
    assert_eq!(ours.close().await, Ok(()));
    let mut all = String::new();
    peer.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "answer\n");
}

/// The codec makes a line of what has no end.
#[tokio::test(start_paused = true)]
async fn a_direction_that_ends_within_a_line_has_finished_behind_it() {
    let (ours, mut peer) = tokio::io::duplex(256);
    let mut ours = Heartbeat::with_codec(ours, HalfLines(Lines::default()), quick());
    peer.write_all(b"one\ntwo").await.unwrap();
    peer.shutdown().await.unwrap();
    for line in ["one", "two"] {
        let message = PeerEvent::Message(line.to_owned());
        assert_eq!(ours.next().await, Some(message));
    }
    assert_eq!(ours.next().await, Some(PeerEvent::Finished));
}

#[tokio::test(start_paused = true)]
async fn a_ping_does_not_end_our_direction() {
    let (ours, mut peer) = tokio::io::duplex(256);
    let ours = Heartbeat::with_codec(ours, HalfLines(Lines::default()), quick()).spawn();
    assert_eq!(read_line(&mut peer).await, "PING");
    peer.write_all(b"PONG\n").await.unwrap();
    ours.sender.send("still here".into()).await.unwrap();
    assert_eq!(read_line(&mut peer).await, "still here");
}

// ---- what a codec is given -----------------------------------------------------

/// Each stands behind the begin of a line.
#[tokio::test(start_paused = true)]
async fn each_read_of_a_codec_has_room_for_2_kib() {
    let (stream, script) = scripted();
    let smallest = Arc::new(AtomicUsize::new(usize::MAX));
    let least = smallest.clone();
    let stream = InspectReader::new(stream, move |bytes: &[u8]| {
        least.fetch_min(bytes.len(), Ordering::Relaxed);
    });
    let lines = "x".repeat(399) + "\n";
    let lines = lines.repeat(5) + &lines[..48];
    assert_eq!(lines.len(), 2048);
    script.give([Read::Endless(lines.into())]);
    let mut ours = Watched::new(Heartbeat::with_codec(stream, Lines::default(), quick()));
    for _ in 0..1000 {
        ours.message().await;
    }
    assert_eq!(smallest.load(Ordering::Relaxed), 2048);
}

/// Neither behind a message nor behind a frame of another kind.
#[tokio::test(start_paused = true)]
async fn a_codec_is_asked_only_if_there_are_bytes() {
    let (ours, _, mut peer) = panicking();
    let mut ours = Watched::new(ours);
    for lines in ["one\n", "PING\n", "#\n", "two\nPING\n"] {
        peer.write_all(lines.as_bytes()).await.unwrap();
        ours.go_on_for(ms(100)).await;
    }
    ours.assert_alive();
}
