//! A WebSocket of tokio-tungstenite over a line in memory: how it ends, which code is
//! which, and what counts as life.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use heartbeat_tests::{Watched, ms, patient, quick, scripted::filler, secs};
use heartbeat_tokio::{
    Cause, CloseError, CloseReason, Config, Detail, Frame, GoodbyeCode, Heartbeat, PeerEvent,
    ProtocolError, SendError,
    testkit::{Line, LineEnd, Side},
    websocket::{
        Beats, BoxError, Connection, Message, Messages, OwnFrames, Packet, Payload, Pings,
        SUBPROTOCOL,
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self,
        protocol::{CloseFrame, Role, WebSocketConfig},
    },
};

type Ours<B> = Watched<Connection<WebSocketStream<LineEnd>, B>, <B as Beats>::Message>;
type Theirs = WebSocketStream<LineEnd>;

/// A server with a heartbeat, and a client without.
async fn pair<B>(beats: B, config: Config) -> (Ours<B>, Theirs, Line)
where
    B: Beats<Message: Clone + std::fmt::Debug>,
{
    let (ours, theirs, line) = Line::pair();
    let ours = WebSocketStream::from_raw_socket(ours, Role::Server, None).await;
    let theirs = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
    let ours = Heartbeat::websocket_with(ours, beats, config);
    (Watched::new(ours), theirs, line)
}

/// A client's library reads, and answers pings, until it is closed: with what.
async fn read_to_the_end(mut theirs: Theirs) -> Option<(u16, String)> {
    let mut closed = None;
    while let Some(Ok(message)) = theirs.next().await {
        if let tungstenite::Message::Close(close) = message {
            closed = close.map(|close| (close.code.into(), close.reason.to_string()));
        }
    }
    closed
}

#[tokio::test(start_paused = true)]
async fn text_and_binary_go_both_ways_and_the_library_answers_beats() {
    let (mut ours, mut theirs, _line) = pair(Pings, quick()).await;
    tokio::spawn(async move {
        while let Some(Ok(message)) = theirs.next().await {
            if message.is_text() || message.is_binary() {
                theirs.send(message).await.unwrap();
            }
        }
    });
    for message in [
        Message::from("grüß dich"),
        Message::Text(String::new()),
        Message::Binary(filler(1, 300_000)),
        Message::Binary(Bytes::new()),
    ] {
        ours.peer.send(message.clone()).await.unwrap();
        assert!(ours.message().await == message);
    }
    ours.go_on_for(secs(10)).await;
    assert!(ours.beats() >= 40, "{:?}", ours.events);
    ours.assert_alive();
}

/// The client reads nothing, and so answers nothing.
#[tokio::test(start_paused = true)]
async fn a_ping_of_the_clients_library_is_a_sign_of_life() {
    let (mut ours, mut theirs, _line) = pair(Pings, quick()).await;
    tokio::spawn(async move {
        for _ in 0..40 {
            sleep(ms(100)).await;
            theirs
                .send(tungstenite::Message::Ping(Bytes::new()))
                .await
                .unwrap();
        }
        sleep(secs(60)).await;
    });
    ours.go_on_for(secs(4)).await;
    ours.assert_alive();
    assert_eq!(ours.beats(), 0);
    assert_eq!(ours.until_dead().await.cause, Cause::Silent);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_is_found_at_the_detection_time() {
    let (mut ours, _theirs, line) = pair(Pings, quick()).await;
    line.freeze(Side::Right);
    let hung = Instant::now();
    let death = ours.until_dead().await;
    assert_eq!(death.cause, Cause::Silent);
    assert_eq!(hung.elapsed(), quick().detection_time());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_drops_without_a_closing_handshake_is_an_end_and_no_fault() {
    let (mut ours, theirs, _line) = pair(Pings, quick()).await;
    drop(theirs);
    assert_eq!(ours.until_dead().await.cause, Cause::Eof);

    // With own frames, too, and in the middle of a message.
    let (mut ours, theirs, _line) = pair(OwnFrames::new(), quick()).await;
    drop(theirs);
    assert_eq!(ours.until_dead().await.cause, Cause::Eof);

    let (mut ours, mut theirs, _line) = pair(Pings, quick()).await;
    let begun = tungstenite::protocol::frame::Frame::message(
        "begun",
        tungstenite::protocol::frame::coding::OpCode::Data(
            tungstenite::protocol::frame::coding::Data::Text,
        ),
        false,
    );
    theirs
        .send(tungstenite::Message::Frame(begun))
        .await
        .unwrap();
    drop(theirs);
    assert_eq!(ours.until_dead().await.cause, Cause::Eof);
}

#[tokio::test(start_paused = true)]
async fn our_goodbye_is_a_close_frame_with_its_code() {
    for (code, close) in [(0, 1000), (1, 4001), (64, 4064), (127, 4127)] {
        let (ours, theirs, _line) = pair(Pings, quick()).await;
        let client = tokio::spawn(read_to_the_end(theirs));
        let mut ours = ours.peer;
        let detail = Detail::from("at noon");
        ours.close_with(GoodbyeCode(code), detail).await.unwrap();
        drop(ours);
        assert_eq!(client.await.unwrap(), Some((close, "at noon".into())));
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_frame_is_the_goodbye_of_its_code() {
    for (close, code) in [(1000, 0), (1012, 1), (4001, 1), (4064, 64), (4127, 127)] {
        let (mut ours, mut theirs, _line) = pair(Pings, quick()).await;
        let close = CloseFrame {
            code: close.into(),
            reason: "at noon".into(),
        };
        theirs.send(close_with(close)).await.unwrap();
        tokio::spawn(read_to_the_end(theirs));
        let end = ours.until_ended().await;
        let PeerEvent::Closed {
            reason: CloseReason::Peer { code: told, detail },
        } = end
        else {
            panic!("{end:?}");
        };
        assert_eq!((told.0, detail.as_str()), (code, "at noon"));
    }
}

/// RFC 6455, section 7.1.1: the server closes TCP first, and at once. The application may
/// keep the heartbeat for longer.
#[tokio::test(start_paused = true)]
async fn the_stream_is_closed_when_the_closing_handshake_is_done() {
    // The client leaves.
    let (mut ours, mut theirs, _line) = pair(Pings, quick()).await;
    theirs.close(None).await.unwrap();
    let (end, closed) = tokio::join!(ours.until_ended(), timeout(secs(1), theirs.next()));
    assert!(matches!(end, PeerEvent::Closed { .. }), "{end:?}");
    assert!(closed.is_ok(), "the client's library waits");
    assert!(ours.peer.get_ref().is_none());

    // We do.
    let (mut ours, theirs, _line) = pair(Pings, quick()).await;
    let client = tokio::spawn(timeout(secs(1), read_to_the_end(theirs)));
    ours.peer.close().await.unwrap();
    assert!(client.await.unwrap().is_ok(), "the client's library waits");

    // The client closes the WebSocket and says no goodbye.
    let (mut ours, mut theirs, _line) = pair(OwnFrames::new(), quick()).await;
    let close = CloseFrame {
        code: 1000.into(),
        reason: "enough".into(),
    };
    theirs.send(close_with(close)).await.unwrap();
    let closing = timeout(secs(1), read_to_the_end(theirs));
    let (death, closed) = tokio::join!(ours.until_dead(), closing);
    assert_eq!(death.cause, Cause::Eof);
    assert_eq!(closed, Ok(Some((1000, "enough".into()))));
}

/// TLS says its own goodbye then.
#[tokio::test(start_paused = true)]
async fn the_stream_is_shut_down_before_it_is_dropped() {
    let (stream, theirs, _line) = Line::pair();
    let is_shut_down = Arc::new(AtomicBool::new(false));
    let stream = ShutDown {
        stream,
        noted: is_shut_down.clone(),
    };
    let ours = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    let theirs = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
    let client = tokio::spawn(read_to_the_end(theirs));
    let mut ours = Heartbeat::websocket(ours, quick());
    ours.close().await.unwrap();
    assert!(ours.get_ref().is_none());
    assert!(is_shut_down.load(Ordering::Relaxed));
    client.await.unwrap();
}

/// Notes whether it was shut down.
struct ShutDown {
    stream: LineEnd,
    noted: Arc<AtomicBool>,
}

impl AsyncRead for ShutDown {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ShutDown {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.noted.store(true, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// It says that it gave us up, or its library doesn't like what we sent.
#[tokio::test(start_paused = true)]
async fn a_close_frame_that_gives_us_up_is_a_death() {
    for (close, code, detail) in [
        (4002, GoodbyeCode::SILENT, "why"),
        (1009, GoodbyeCode::PROTOCOL, "1009 why"),
    ] {
        let (mut ours, mut theirs, _line) = pair(Pings, quick()).await;
        let close = CloseFrame {
            code: close.into(),
            reason: "why".into(),
        };
        theirs.send(close_with(close)).await.unwrap();
        tokio::spawn(read_to_the_end(theirs));
        let detail = Detail::from(detail);
        assert_eq!(
            ours.until_dead().await.cause,
            Cause::GivenUp { code, detail }
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_was_given_up_reads_why_when_it_goes_on() {
    let (mut ours, theirs, line) = pair(Pings, quick()).await;
    line.freeze(Side::Right);
    ours.until_dead().await;
    line.thaw(Side::Right);
    // Its library would answer our pings first, on a closed connection.
    let mut heard = Vec::new();
    theirs.into_inner().read_to_end(&mut heard).await.unwrap();
    let reason = b"silent for 800ms";
    let close = [&[0x88, 2 + 16], &4002_u16.to_be_bytes()[..], reason].concat();
    assert!(heard.ends_with(&close), "{heard:?}");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_too_long_is_refused() {
    let config = quick().to_builder().max_frame(1000).build().unwrap();
    let (mut ours, mut theirs, _line) = pair(Pings, config).await;
    for length in [1000, 1001] {
        let message = tungstenite::Message::binary(vec![0; length]);
        theirs.send(message).await.unwrap();
    }
    assert_eq!(ours.message().await.len(), 1000);
    let rule = ProtocolError::FrameTooLong {
        length: 1001,
        max: 1000,
    };
    assert_eq!(ours.until_dead().await.cause, Cause::Protocol(rule));

    // For the library, too, which is asked first.
    let (ours, theirs, _line) = Line::pair();
    let limit = WebSocketConfig::default().max_message_size(Some(500));
    let ours = WebSocketStream::from_raw_socket(ours, Role::Server, Some(limit)).await;
    let mut theirs = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
    let mut ours = Watched::new(Heartbeat::websocket(ours, config));
    let message = tungstenite::Message::binary(vec![0; 1000]);
    theirs.send(message).await.unwrap();
    let rule = ProtocolError::FrameTooLong {
        length: 1000,
        max: 500,
    };
    assert_eq!(ours.until_dead().await.cause, Cause::Protocol(rule));
}

#[tokio::test(start_paused = true)]
async fn own_frames_tell_both_sides_of_each_other() {
    let (mut server, client, line) = pair(OwnFrames::new(), quick()).await;
    let client = Heartbeat::websocket_with(client, OwnFrames::new(), quick());
    let mut client = Watched::new(client);
    let large = filler(2, 1_000_000);
    client.peer.feed(large.clone()).await.unwrap();
    tokio::join!(async { assert!(server.message().await == large) }, async {
        client.peer.flush().await.unwrap()
    },);
    let both = async {
        tokio::join!(server.go_on_for(secs(5)), client.go_on_for(secs(5)));
    };
    both.await;
    server.assert_alive();
    client.assert_alive();

    line.cut(Side::BOTH);
    let cut = Instant::now();
    let (one, other) = tokio::join!(server.until_dead(), client.until_dead());
    assert_eq!((one.cause, other.cause), (Cause::Silent, Cause::Silent));
    assert!(cut.elapsed() <= quick().detection_time());
}

#[tokio::test(start_paused = true)]
async fn own_frames_keep_to_what_the_peer_accepts() {
    let small = quick().to_builder().max_frame(1000).build().unwrap();
    let (mut server, client, _line) = pair(OwnFrames::new(), small).await;
    let mut client = Watched::new(Heartbeat::websocket_with(client, OwnFrames::new(), quick()));
    server.peer.send("hello".into()).await.unwrap();
    client.message().await; // behind the Hello
    let refused = client.peer.send(filler(1, 1001)).await;
    let (length, max) = (1001, 1000);
    assert_eq!(refused, Err(SendError::TooLong { length, max }));
    client.peer.send(filler(2, 1000)).await.unwrap();
    assert_eq!(server.message().await, filler(2, 1000));
    server.assert_alive();
}

/// A message that says nothing of its length.
#[derive(Clone, Debug)]
struct Verse(String);

impl Payload for Verse {
    fn weight(&self) -> usize {
        self.0.len()
    }

    fn encode(&self) -> Result<Bytes, BoxError> {
        Ok(self.0.clone().into())
    }

    fn decode(bytes: Bytes) -> Result<Self, BoxError> {
        Ok(Self(String::from_utf8(bytes.into())?))
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_is_as_long_as_its_encoding_unless_it_says_otherwise() {
    let small = quick().to_builder().max_frame(100).build().unwrap();
    let (mut ours, _theirs, _line) = pair(OwnFrames::<Verse>::typed(), small).await;
    let verse = |length| Verse("x".repeat(length));
    let refused = ours.peer.feed(verse(101)).await;
    let (length, max) = (101, 100);
    assert_eq!(refused, Err(SendError::TooLong { length, max }));
    ours.peer.feed(verse(100)).await.unwrap();
}

/// It goes behind a message of which parts still wait.
#[tokio::test(start_paused = true)]
async fn own_frames_finish_behind_what_was_sent() {
    let (ours, theirs, line) = Line::with_room(8 * 1024);
    line.limit_rate(Side::BOTH, 500_000);
    let ours = WebSocketStream::from_raw_socket(ours, Role::Server, None).await;
    let theirs = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
    let mut ours = Heartbeat::websocket_with(ours, OwnFrames::new(), quick());
    let mut theirs = Watched::new(Heartbeat::websocket_with(theirs, OwnFrames::new(), quick()));
    let large = filler(3, 500_000);
    ours.feed(large.clone()).await.unwrap();
    let finishing = async {
        // Parts of it are on the way.
        let _ = timeout(ms(100), ours.flush()).await;
        ours.finish().await.unwrap();
        let _ = timeout(secs(1), ours.next()).await;
    };
    let reading = async {
        assert!(theirs.message().await == large);
        let is_end = |event: &PeerEvent<_>| matches!(event, PeerEvent::Finished);
        theirs.until(|events| events.iter().any(is_end)).await;
    };
    tokio::join!(finishing, reading);
}

/// tungstenite fails if it is given more than that.
#[tokio::test(start_paused = true)]
async fn a_library_that_has_no_room_is_waited_for() {
    let (ours, theirs, _line) = Line::with_room(1024);
    let limits = WebSocketConfig::default().write_buffer_size(0);
    let limits = limits.max_write_buffer_size(6_000);
    let ours = WebSocketStream::from_raw_socket(ours, Role::Server, Some(limits)).await;
    let mut theirs = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
    let mut ours = Heartbeat::websocket(ours, patient());
    let message = |nth| Message::Binary(filler(nth, 4_000));
    for nth in 0..5 {
        ours.feed(message(nth)).await.unwrap();
    }
    let flushed = timeout(ms(100), ours.flush()).await;
    assert!(flushed.is_err(), "{flushed:?}");
    let reading = async {
        for nth in 0..5 {
            let received = theirs.next().await.unwrap().unwrap();
            assert_eq!(received.into_data(), filler(nth, 4_000));
        }
    };
    let (flushed, ()) = tokio::join!(ours.flush(), reading);
    flushed.unwrap();
}

/// What its library holds counts as not written.
#[tokio::test(start_paused = true)]
async fn what_a_library_holds_is_unwritten() {
    let (mut ours, _theirs, line) = pair(Pings, quick()).await;
    line.freeze(Side::Right);
    let message = Message::Binary(filler(4, 30_000));
    let mut fed = 0;
    while ours.peer.feed(message.clone()).await.is_ok() {
        fed += message.len();
    }
    match ours.peer.close().await {
        // The line took 64 KiB.
        Err(CloseError::Dead { unwritten, .. }) => assert!(
            unwritten + 64 * 1024 >= fed,
            "{unwritten} of {fed} bytes are unwritten"
        ),
        other => panic!("{other:?}"),
    }
}

/// Pages ask for it by this name.
#[test]
fn the_subprotocol_is_called_as_the_page_about_the_protocol_says() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains(&format!("`{SUBPROTOCOL}`")));
}

#[tokio::test(start_paused = true)]
async fn own_frames_confirm_that_everything_was_taken_in() {
    let (mut server, client, _line) = pair(OwnFrames::new(), quick()).await;
    let mut client = Heartbeat::websocket_with(client, OwnFrames::new(), quick());
    client.feed("the last word".into()).await.unwrap();
    let reading = async {
        assert_eq!(server.message().await, "the last word");
        server.until_ended().await
    };
    let (closed, end) = tokio::join!(client.close(), reading);
    closed.unwrap();
    assert!(matches!(end, PeerEvent::Closed { .. }), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn bytes_pass_through_own_frames_and_each_direction_ends_by_itself() {
    let (ours, theirs, line) = Line::pair();
    line.delay(Side::BOTH, ms(20));
    let ours = WebSocketStream::from_raw_socket(ours, Role::Server, None).await;
    let theirs = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
    let ours = Heartbeat::websocket_with(ours, OwnFrames::new(), quick()).into_io();
    let theirs = Heartbeat::websocket_with(theirs, OwnFrames::new(), quick()).into_io();
    let echo = tokio::spawn(async move {
        let (mut reading, mut writing) = tokio::io::split(theirs);
        tokio::io::copy(&mut reading, &mut writing).await.unwrap();
        sleep(secs(5)).await; // while our direction has ended
        writing.write_all(b"!").await.unwrap();
        writing.shutdown().await.unwrap();
    });
    let sent = filler(5, 1_000_000);
    let (mut reading, mut writing) = tokio::io::split(ours);
    let asking = async {
        writing.write_all(&sent).await.unwrap();
        writing.shutdown().await.unwrap();
    };
    let mut answer = Vec::new();
    let (read, ()) = tokio::join!(reading.read_to_end(&mut answer), asking);
    read.unwrap();
    assert!(answer.strip_suffix(b"!") == Some(&sent));
    echo.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn ordinary_messages_are_beats_that_a_program_answers() {
    let (mut ours, mut theirs, _line) = pair(Messages, quick()).await;
    let client = tokio::spawn(async move {
        let until = Instant::now() + secs(5);
        while let Some(Ok(message)) = theirs.next().await {
            if let tungstenite::Message::Binary(beat) = message {
                let answer = [b"!", beat.get(1..).unwrap()].concat();
                theirs
                    .send(tungstenite::Message::binary(answer))
                    .await
                    .unwrap();
            }
            if Instant::now() > until {
                break;
            }
        }
        theirs // its library would go on answering pings
    });
    ours.go_on_for(secs(5)).await;
    assert!(ours.beats() >= 20, "{:?}", ours.events);
    ours.assert_alive();
    assert_eq!(ours.until_dead().await.cause, Cause::Silent);
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn text_goes_both_ways_beside_beats_that_are_messages() {
    let (mut ours, theirs, _line) = pair(Messages, quick()).await;
    let mut theirs = Watched::new(Heartbeat::websocket_with(theirs, Messages, quick()));
    ours.peer.send("grüß dich".into()).await.unwrap();
    assert_eq!(theirs.message().await, "grüß dich");
    theirs.peer.send(String::new()).await.unwrap();
    assert_eq!(ours.message().await, "");
    tokio::join!(ours.go_on_for(secs(2)), theirs.go_on_for(secs(2)));
    assert!(ours.beats() >= 4, "{:?}", ours.events);
}

/// A ping among the messages of an application.
struct Words;

impl Beats for Words {
    type Message = String;

    fn weight(text: &String) -> usize {
        text.len()
    }

    fn encode(
        &mut self,
        frame: Frame<String>,
        packets: &mut VecDeque<Packet>,
    ) -> Result<(), BoxError> {
        let text = match frame {
            Frame::Data(text) => text,
            Frame::Ping(_) => "ping".into(),
            Frame::Pong(_) => "pong".into(),
            _ => return Ok(()),
        };
        packets.push_back(Packet::Message(Message::Text(text)));
        Ok(())
    }

    fn decode(&mut self, packet: Packet, _: usize) -> Result<Option<Frame<String>>, BoxError> {
        Ok(Some(match packet {
            Packet::Message(Message::Text(text)) => match &*text {
                "ping" => Frame::Ping(None),
                "pong" => Frame::Pong(None),
                _ => Frame::Data(text),
            },
            _ => Frame::Other,
        }))
    }
}

#[tokio::test(start_paused = true)]
async fn an_applications_own_ping_is_a_beat() {
    let (mut ours, theirs, _line) = pair(Words, quick()).await;
    let mut theirs = Watched::new(Heartbeat::websocket_with(theirs, Words, quick()));
    tokio::spawn(async move {
        theirs.peer.send("hello".into()).await.unwrap();
        theirs.go_on_for(secs(5)).await;
        sleep(secs(5)).await;
    });
    assert_eq!(ours.message().await, "hello");
    ours.go_on_for(secs(4)).await;
    assert!(ours.beats() >= 8, "{:?}", ours.events);
    ours.assert_alive();
    assert_eq!(ours.until_dead().await.cause, Cause::Silent);
}

/// While a long message leaves, a beat waits behind no more than a part of it.
#[tokio::test(start_paused = true)]
async fn a_ping_goes_between_two_parts() {
    let (ours, theirs, line) = Line::with_room(8 * 1024);
    line.limit_rate(Side::BOTH, 200_000);
    let ours = WebSocketStream::from_raw_socket(ours, Role::Server, None).await;
    let theirs = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
    let config = quick().to_builder().timeout(ms(600)).build().unwrap();
    let mut ours = Heartbeat::websocket_with(ours, OwnFrames::new(), config);
    let mut theirs = Watched::new(Heartbeat::websocket_with(theirs, OwnFrames::new(), config));
    let began = Instant::now();
    tokio::spawn(async move {
        // It takes 10 s.
        ours.send(filler(3, 2_000_000)).await.unwrap();
        while ours.next().await.is_some() {}
    });
    theirs.message().await;
    assert!(began.elapsed() > secs(9), "not slow enough");
    assert!(theirs.beats() >= 5, "{:?}", theirs.beats());
    theirs.assert_alive();
}

fn close_with(close: CloseFrame) -> tungstenite::Message {
    tungstenite::Message::Close(Some(close))
}
