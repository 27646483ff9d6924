//! A server's WebSocket against a client that is written here byte by byte: fragments,
//! control frames, close frames, and what RFC 6455 forbids.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use std::collections::VecDeque;

use axum::extract::{ConnectInfo, ws};
use bytes::Bytes;
use futures::SinkExt;
use heartbeat_core::{Control, Goodbye, Nonce, PART};
use heartbeat_tests::{
    Watched, ms, quick,
    scripted::{control_frame, filler},
    secs, varint,
};
use heartbeat_tokio::{
    Cause, CloseError, CloseReason, Config, Detail, Dialect, End, Frame, GoodbyeCode, Heartbeat,
    PeerEvent, ProtocolError, SendError,
    testkit::{Line, LineEnd},
    websocket::{
        Beats, Connection, Message, Messages, OwnFrames, Packet, Pings, TcpSocket, WebSocket,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

const MORE: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
/// The last frame of a message.
const FINAL: u8 = 0x80;

type Ours<B> = Watched<Connection<WebSocketStream<LineEnd>, B>, <B as Beats>::Message>;

/// A server with a heartbeat, and a client's bytes.
async fn pair<B>(beats: B, config: Config) -> (Ours<B>, Client)
where
    B: Beats<Message: Clone + std::fmt::Debug>,
{
    let (ours, theirs, _) = Line::pair();
    let ours = WebSocketStream::from_raw_socket(ours, Role::Server, None).await;
    let ours = Heartbeat::websocket_with(ours, beats, config);
    (Watched::new(ours), Client(theirs))
}

struct Client(LineEnd);

impl Client {
    /// A frame (RFC 6455, section 5.2), masked with zeros.
    async fn send(&mut self, first: u8, payload: &[u8]) {
        let mut frame = vec![first];
        match u16::try_from(payload.len()).expect("no test has more") {
            short @ ..=125 => frame.push(0x80 | short.to_be_bytes()[1]),
            long => {
                frame.push(0x80 | 126);
                frame.extend(long.to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(payload);
        self.0.write_all(&frame).await.unwrap();
    }

    async fn send_own(&mut self, control: Control) {
        // Behind the length that it has in a stream of bytes.
        let frame = &control_frame(control)[4..];
        self.send(FINAL | BINARY, frame).await;
    }

    /// The server's next frame; `None` at the end of the stream.
    async fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        let frame = timeout(secs(20), self.receive_late()).await;
        frame.expect("the server says something, or ends")
    }

    async fn receive_late(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = self.0.read_u8().await.ok()?;
        let length = match self.0.read_u8().await.unwrap() {
            126 => usize::from(self.0.read_u16().await.unwrap()),
            short @ ..=125 => usize::from(short),
            _ => panic!("no test has more"),
        };
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).await.unwrap();
        Some((first, payload))
    }

    /// The next one that isn't a ping.
    async fn receive_answer(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            match self.receive().await {
                Some((first, _)) if first == FINAL | PING => {}
                other => return other,
            }
        }
    }
}

fn closing(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_bytes()].concat()
}

// ---- frames of the standard ----------------------------------------------------

#[tokio::test(start_paused = true)]
async fn fragments_are_one_message_and_control_frames_may_come_between() {
    let (mut ours, mut client) = pair(Pings, quick()).await;
    let text = "grüß dich".as_bytes();
    let (begun, rest) = text.split_at(3); // within a letter
    client.send(TEXT, begun).await;
    client.send(FINAL | PING, b"between").await;
    client.send(MORE, rest).await;
    client.send(FINAL | PONG, b"unasked").await;
    client.send(FINAL | MORE, b"!").await;
    assert_eq!(ours.message().await, Message::from("grüß dich!"));
    let pong = (FINAL | PONG, b"between".to_vec());
    let answer = async { client.receive_answer().await };
    let (answer, ()) = tokio::join!(answer, ours.go_on_for(ms(1)));
    assert_eq!(answer, Some(pong));
    assert_eq!(ours.beats(), 0, "a pong that nobody asked for");
    ours.assert_alive();
}

#[tokio::test(start_paused = true)]
async fn a_pong_measures_only_with_the_bytes_of_our_ping() {
    let (mut ours, mut client) = pair(Pings, quick()).await;
    let answering = async {
        let (first, nonce) = client.receive().await.unwrap();
        assert_eq!((first, nonce.len()), (FINAL | PING, 8));
        let other: Vec<u8> = nonce.iter().map(|byte| !byte).collect();
        client.send(FINAL | PONG, &other).await;
        client.send(FINAL | PONG, &nonce[..7]).await;
        sleep(ms(10)).await;
        client.send(FINAL | PONG, &nonce).await;
        sleep(ms(10)).await;
    };
    tokio::join!(answering, ours.go_on_for(secs(1)));
    let round_trips = ours.events.iter().filter_map(|event| match event {
        PeerEvent::Beat { rtt } => Some(*rtt),
        _ => None,
    });
    assert_eq!(round_trips.collect::<Vec<_>>(), [ms(10)]);
}

#[tokio::test(start_paused = true)]
async fn the_longest_ping_is_answered() {
    let (mut ours, mut client) = pair(Pings, quick()).await;
    let longest = filler(1, 125);
    client.send(FINAL | PING, &longest).await;
    let (answer, ()) = tokio::join!(client.receive_answer(), ours.go_on_for(ms(1)));
    assert_eq!(answer, Some((FINAL | PONG, longest.to_vec())));
    ours.assert_alive();
}

/// Each ends the connection, and the client is told that it was the one who broke a rule.
#[tokio::test(start_paused = true)]
async fn what_the_standard_forbids_is_a_broken_protocol() {
    let one_too_many = vec![0; 126];
    for (what, first, payload) in [
        ("a ping of 126 bytes", FINAL | PING, &*one_too_many),
        ("a close frame of 126 bytes", FINAL | CLOSE, &*one_too_many),
        ("a close frame with half a code", FINAL | CLOSE, &[3]),
        ("a ping in fragments", PING, b"half"),
        ("a kind of frame that doesn't exist", FINAL | 3, b"what?"),
        ("a bit that nobody agreed to", FINAL | 0x40 | TEXT, b"zip"),
        ("a continuation of nothing", FINAL | MORE, b"?"),
        ("text that isn't UTF-8", FINAL | TEXT, &[0xff]),
    ] {
        let (mut ours, mut client) = pair(Pings, quick()).await;
        client.send(FINAL | TEXT, b"before").await;
        client.send(first, payload).await;
        assert_eq!(ours.message().await, Message::from("before"), "{what}");
        let death = ours.until_dead().await;
        assert!(matches!(death.cause, Cause::Protocol(_)), "{what}: {death}");
        assert!(ours.peer.io_error().is_some(), "{what}: in whose words?");
        let told = client.receive_answer().await;
        let Some((0x88, close)) = told else {
            panic!("{what}: {told:?}");
        };
        assert_eq!(close[..2], 4004_u16.to_be_bytes(), "{what}");
        assert_eq!(client.receive().await, None, "{what}");
    }
}

/// A client's frames are masked (RFC 6455, section 5.1).
#[tokio::test(start_paused = true)]
async fn a_frame_without_a_mask_is_a_broken_protocol() {
    let (mut ours, mut client) = pair(Pings, quick()).await;
    client.0.write_all(b"\x81\x05hello").await.unwrap();
    let death = ours.until_dead().await;
    assert!(matches!(death.cause, Cause::Protocol(_)), "{death}");
}

#[tokio::test(start_paused = true)]
async fn a_message_in_fragments_has_the_limit_of_a_whole_one() {
    let config = quick().to_builder().max_frame(1000).build().unwrap();
    let (mut ours, mut client) = pair(Pings, config).await;
    for last in [500, 501] {
        client.send(BINARY, &[0; 500]).await;
        client.send(FINAL | MORE, &vec![0; last]).await;
    }
    assert_eq!(ours.message().await.len(), 1000);
    let (length, max) = (1001, 1000);
    let rule = ProtocolError::FrameTooLong { length, max };
    assert_eq!(ours.until_dead().await.cause, Cause::Protocol(rule));
}

// ---- closing --------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_close_frame_may_have_no_code() {
    let (mut ours, mut client) = pair(Pings, quick()).await;
    client.send(FINAL | CLOSE, b"").await;
    let reason = left(ours.until_ended().await);
    assert_eq!(reason, (0, String::new()));
    assert_eq!(client.receive_answer().await, Some((FINAL | CLOSE, vec![])));
    assert_eq!(client.receive().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_close_frame_ends_a_message_that_was_begun_and_nothing_follows_it() {
    let (mut ours, mut client) = pair(Pings, quick()).await;
    client.send(FINAL | TEXT, b"whole").await;
    client.send(BINARY, &[0; 30_000]).await;
    client.send(FINAL | CLOSE, &closing(4064, "lunch")).await;
    client.send(FINAL | MORE, b"the rest").await;
    client.send(FINAL | TEXT, b"late").await;
    let reason = left(ours.until_ended().await);
    assert_eq!(reason, (64, "lunch".into()));
    let messages = ours.events.iter().filter_map(|event| match event {
        PeerEvent::Message(message) => Some(message),
        _ => None,
    });
    assert_eq!(
        messages.collect::<Vec<_>>(),
        [&Message::Text("whole".into())]
    );
}

/// It lives, and reads. That its library took everything in is never confirmed.
#[tokio::test(start_paused = true)]
async fn a_client_that_never_answers_our_close_is_left_after_linger() {
    let config = quick().to_builder().linger(secs(3)).build().unwrap();
    let (mut ours, mut client) = pair(Pings, config).await;
    let reading = tokio::spawn(async move {
        let mut seen = Vec::new();
        while let Some((first, payload)) = client.receive_answer().await {
            seen.push((first, payload));
            client.send(FINAL | TEXT, b"I go on").await;
        }
        seen
    });
    ours.peer.send("the last word".into()).await.unwrap();
    let began = Instant::now();
    let closed = ours.peer.close().await;
    assert_eq!(closed, Err(CloseError::Unconfirmed { unwritten: 0 }));
    assert_eq!(began.elapsed(), secs(3));
    let seen = timeout(secs(1), reading).await.unwrap().unwrap();
    let last_word = (FINAL | TEXT, b"the last word".to_vec());
    assert_eq!(seen, [last_word, (FINAL | CLOSE, closing(1000, ""))]);
}

fn left<M: std::fmt::Debug>(end: PeerEvent<M>) -> (u8, String) {
    match end {
        PeerEvent::Closed {
            reason: CloseReason::Peer { code, detail },
        } => (code.0, detail.to_string()),
        other => panic!("{other:?}"),
    }
}

// ---- beats as ordinary messages -------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_question_among_ordinary_messages_is_answered_with_its_bytes() {
    let (mut ours, mut client) = pair(Messages, quick()).await;
    client.send(FINAL | BINARY, b"?12345678").await;
    let (answer, ()) = tokio::join!(client.receive(), ours.go_on_for(ms(1)));
    assert_eq!(answer, Some((FINAL | BINARY, b"!12345678".to_vec())));

    // Nor are these questions, nor are they told. They show that the program lives.
    let until = Instant::now() + 3 * quick().detection_time();
    let others: [&[u8]; 4] = [b"", b"?", b"?1234567", b"?123456789"];
    let client = tokio::spawn(async move {
        for other in others.into_iter().cycle() {
            client.send(FINAL | BINARY, other).await;
            sleep(ms(50)).await;
            if Instant::now() > until {
                return client;
            }
        }
        unreachable!("it cycles");
    });
    ours.go_on_for(until - Instant::now()).await;
    assert!(ours.events.is_empty(), "{:?}", ours.events);
    let mut client = client.await.unwrap();
    drop(ours);
    while let Some((first, payload)) = client.receive().await {
        assert_eq!(first, FINAL | BINARY);
        assert_eq!(payload.first(), Some(&b'?'), "{payload:?}");
    }
}

/// The client's library sends and answers them, and a proxy may.
#[tokio::test(start_paused = true)]
async fn pings_of_the_library_are_no_life_where_beats_are_messages() {
    let (mut ours, client) = pair(Messages, quick()).await;
    assert_eq!(dies_among_pings(&mut ours, client).await, Cause::Silent);

    let (mut ours, mut client) = pair(OwnFrames::new(), quick()).await;
    client.send_own(hello()).await;
    assert_eq!(dies_among_pings(&mut ours, client).await, Cause::Silent);
}

async fn dies_among_pings<B>(ours: &mut Ours<B>, mut client: Client) -> Cause
where
    B: Beats<Message: Clone + std::fmt::Debug> + 'static,
{
    let pinging = async move {
        loop {
            client.send(FINAL | PING, b"").await;
            client.send(FINAL | PONG, b"").await;
            sleep(ms(50)).await;
        }
    };
    let began = Instant::now();
    let pinging = timeout(secs(10), pinging);
    let death = tokio::select! {
        death = ours.until_dead() => death,
        _ = pinging => panic!("{:?}", ours.events),
    };
    assert!(began.elapsed() <= quick().detection_time());
    death.cause
}

// ---- this project's own frames --------------------------------------------------

fn hello() -> Control {
    Control::Hello(quick().hello([7; 8]))
}

/// The client answers no ping meanwhile: it is busy with its message.
#[tokio::test(start_paused = true)]
async fn a_part_of_a_message_is_a_sign_of_life() {
    let (mut ours, mut client) = pair(OwnFrames::new(), quick()).await;
    client.send_own(hello()).await;
    let large = filler(3, 200_000);
    let sent = large.clone();
    let each = quick().detection_time() - ms(100);
    tokio::spawn(async move {
        let mut header = [&[7][..], &varint(sent.len())].concat();
        for part in sent.chunks(50_000) {
            sleep(each).await;
            client.send(FINAL | BINARY, &[&header, part].concat()).await;
            header.truncate(1);
        }
        sleep(secs(60)).await;
        drop(client);
    });
    assert!(ours.message().await == large);
    ours.assert_alive();
    let last = Instant::now();
    assert_eq!(ours.until_dead().await.cause, Cause::Silent);
    assert_eq!(last.elapsed(), quick().detection_time());
}

#[tokio::test(start_paused = true)]
async fn own_frames_are_binary_and_begin_with_a_hello() {
    let nonce = Control::Ping(Nonce([1; 8]));
    let ping = control_frame(nonce)[4..].to_vec();
    for (what, first, payload, rule) in [
        ("text", FINAL | TEXT, b"hello".to_vec(), None),
        (
            "no tag",
            FINAL | BINARY,
            vec![],
            Some(ProtocolError::EmptyFrame),
        ),
        (
            "a ping before the Hello",
            FINAL | BINARY,
            ping,
            Some(ProtocolError::HelloExpected { tag: 2 }),
        ),
    ] {
        let (mut ours, mut client) = pair(OwnFrames::new(), quick()).await;
        client.send(first, &payload).await;
        let cause = ours.until_dead().await.cause;
        let Cause::Protocol(broken) = cause else {
            panic!("{what}: {cause}");
        };
        assert!(rule.is_none_or(|rule| rule == broken), "{what}: {broken}");
        // Our Hello, and why.
        let (_, greeting) = client.receive().await.unwrap();
        assert_eq!(greeting.first(), Some(&1), "{what}");
        let (_, goodbye) = client.receive().await.unwrap();
        assert_eq!(goodbye[..2], [4, 4], "{what}");
    }
}

/// The client breaks a rule behind its Hello.
#[tokio::test(start_paused = true)]
async fn parts_that_contradict_each_other_are_a_broken_protocol() {
    let first = [&[7][..], &varint(70_000), &[0; 10]].concat();
    let too_long = [&[7][..], &varint(quick().max_frame() + 1), &[0; 10]].concat();
    let limit = ProtocolError::FrameTooLong {
        length: u32::try_from(quick().max_frame()).unwrap() + 1,
        max: u32::try_from(quick().max_frame()).unwrap(),
    };
    let fin = control_frame(Control::Fin)[4..].to_vec();
    for (what, frames, rule) in [
        ("longer than we accept", vec![too_long], limit),
        (
            "an empty part",
            vec![first.clone(), vec![7]],
            ProtocolError::BrokenParts,
        ),
        (
            "another message between",
            vec![first, b"\0data".to_vec()],
            ProtocolError::BrokenParts,
        ),
        (
            "a message behind the last one",
            vec![fin, b"\0data".to_vec()],
            ProtocolError::AfterFin,
        ),
    ] {
        let (mut ours, mut client) = pair(OwnFrames::new(), quick()).await;
        client.send_own(hello()).await;
        for frame in frames {
            client.send(FINAL | BINARY, &frame).await;
        }
        let cause = ours.until_dead().await.cause;
        assert_eq!(cause, Cause::Protocol(rule), "{what}");
    }
}

/// The last of these frames, decoded behind a Hello.
fn decoded(max_frame: usize, frames: &[Vec<u8>]) -> Result<Option<Frame<Bytes>>, ProtocolError> {
    let mut beats = OwnFrames::new();
    let mut last = Ok(None);
    let hello = control_frame(hello())[4..].to_vec();
    for frame in [hello].iter().chain(frames) {
        assert!(last.is_ok(), "{last:?}");
        let packet = Packet::Message(Message::Binary(frame.clone().into()));
        last = beats.decode(packet, max_frame);
    }
    last.map_err(|error| *error.downcast().expect("a rule of the protocol"))
}

fn first_part(announced: usize, bytes: usize) -> Vec<u8> {
    [&[7][..], &varint(announced), &vec![b'x'; bytes]].concat()
}

#[test]
fn the_parts_of_a_message_have_as_many_bytes_as_its_length_says() {
    let part = |bytes| [&[7][..], &vec![b'x'; bytes]].concat();
    let whole = Ok(Some(Frame::Data(Bytes::from(vec![b'x'; PART + 1]))));
    let shortest = |last| decoded(1 << 20, &[first_part(PART + 1, PART - 9), part(last)]);
    assert_eq!(shortest(9), Ok(Some(Frame::Other)));
    assert_eq!(shortest(10), whole);
    assert_eq!(shortest(11), Err(ProtocolError::BrokenParts));

    // It would fit in one frame.
    let needless = decoded(1 << 20, &[first_part(PART, 100)]);
    assert_eq!(needless, Err(ProtocolError::BrokenParts));
    let empty = decoded(1 << 20, &[first_part(PART + 1, 0)]);
    assert_eq!(empty, Err(ProtocolError::BrokenParts));

    let largest = decoded(1 << 20, &[first_part(2 * PART, PART)]);
    assert_eq!(largest, Ok(Some(Frame::Other)));
    let too_large = decoded(1 << 20, &[first_part(2 * PART, PART + 1)]);
    let max = u32::try_from(1 + 3 + PART).unwrap();
    let length = max + 1;
    let rule = ProtocolError::FrameTooLong { length, max };
    assert_eq!(too_large, Err(rule));
}

/// Before its tag is looked at.
#[test]
fn a_frame_is_no_longer_than_the_longest_that_the_limit_allows() {
    for (max_frame, longest) in [
        (100, 256),
        (1000, 1 + 1000),
        (PART, 1 + PART),
        (PART + 1, 1 + 5 + PART),
    ] {
        let unknown = |length| decoded(max_frame, &[vec![0x33; length]]);
        let tag = ProtocolError::UnknownTag { tag: 0x33 };
        assert_eq!(unknown(longest), Err(tag), "{max_frame}");
        let max = u32::try_from(longest).unwrap();
        let length = max + 1;
        let rule = ProtocolError::FrameTooLong { length, max };
        assert_eq!(unknown(longest + 1), Err(rule), "{max_frame}");
    }
}

#[test]
fn the_length_of_a_message_in_parts_is_written_in_its_shortest_form() {
    // 0x7f in the highest digit, and the numbers around it.
    for length in [PART + 1, (0x7f << 14) - 1, 0x7f << 14, 1 << 21] {
        let mut packets = VecDeque::new();
        let message = Frame::Data(Bytes::from(vec![0; length]));
        OwnFrames::new().encode(message, &mut packets).unwrap();
        assert_eq!(packets.len(), length.div_ceil(PART));
        let Some(Packet::Message(Message::Binary(first))) = packets.front() else {
            panic!("{length}: {packets:?}");
        };
        let header = [&[7][..], &varint(length)].concat();
        assert_eq!(first[..first.len() - PART], header, "{length}");
    }
}

#[test]
fn a_goodbye_in_own_frames_has_a_detail() {
    let mut buffer = [0; Goodbye::MAX_ENCODED];
    let goodbye = Goodbye::new(GoodbyeCode(64), "back at noon");
    let goodbye = goodbye.encode(&mut buffer).unwrap().to_vec();
    let expected = Frame::Goodbye {
        code: GoodbyeCode(64),
        detail: Detail::from("back at noon"),
    };
    assert_eq!(decoded(1000, &[goodbye]), Ok(Some(expected)));
}

/// Neither what the client sends gives it more time, nor our answers, which the library keeps.
#[tokio::test(start_paused = true)]
async fn pongs_that_the_library_keeps_extend_no_limit_for_stalled_writes() {
    let alive = control_frame(Control::Alive)[4..].to_vec();
    let ping = control_frame(Control::Ping(Nonce([7; 8])))[4..].to_vec();
    stalls(OwnFrames::new(), filler(1, 200_000), vec![ping, alive]).await;
    let ping = b"?12345678".to_vec();
    stalls(Messages, "x".repeat(200_000), vec![ping]).await;
}

/// The message is longer than what the line takes, and the client sends these again and again.
async fn stalls<B>(beats: B, message: B::Message, sends: Vec<Vec<u8>>)
where
    B: Beats<Message: Clone + std::fmt::Debug>,
{
    let config = quick().to_builder().write_stall(ms(500)).build().unwrap();
    let (mut ours, mut client) = pair(beats, config).await;
    if B::HELLO {
        client.send_own(hello()).await;
    }
    let sending = tokio::spawn(async move {
        loop {
            for frame in &sends {
                client.send(FINAL | BINARY, frame).await;
            }
            sleep(ms(150)).await;
        }
    });
    let began = Instant::now();
    let sent = timeout(secs(30), ours.peer.send(message)).await;
    let Ok(Err(SendError::Dead(death))) = sent else {
        panic!("{sent:?}: {:?}", ours.peer.status());
    };
    assert_eq!(death.cause, Cause::WriteStalled);
    assert_eq!(began.elapsed(), ms(500));
    sending.abort();
}

// ---- the library's words and the application's memory ---------------------------

/// What they say when the closing handshake is over, or never came.
#[test]
fn an_end_in_the_words_of_either_library_is_an_end() {
    use tokio_tungstenite::tungstenite::{Error, error::ProtocolError as Rule};

    type Tungstenite = WebSocket<WebSocketStream<LineEnd>, Pings>;
    type Axum = WebSocket<ws::WebSocket, Pings>;
    type WithSocket = WebSocket<(ws::WebSocket, ConnectInfo<TcpSocket>), Pings>;
    for (error, end) in [
        (Error::ConnectionClosed, Some(End::Eof)),
        (Error::AlreadyClosed, Some(End::Eof)),
        (
            Error::Protocol(Rule::ResetWithoutClosingHandshake),
            Some(End::Eof),
        ),
        (Error::Protocol(Rule::SendAfterClosing), Some(End::Eof)),
        (Error::Protocol(Rule::UnmaskedFrameFromClient), None),
    ] {
        assert_eq!(Tungstenite::end_of(&error), end, "{error}");
        let error = axum::Error::new(error);
        assert_eq!(Axum::end_of(&error), end, "{error}");
        assert_eq!(WithSocket::end_of(&error), end, "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn reading_pauses_when_256_kib_of_messages_wait() {
    let bytes = [&[0][..], &filler(1, 999)].concat();
    for (by, sent) in [
        (
            "pings",
            sent_to_one_that_is_busy(Pings, BINARY, &bytes).await,
        ),
        (
            "messages",
            sent_to_one_that_is_busy(Messages, TEXT, &[b'x'; 1000]).await,
        ),
        (
            "own frames",
            sent_to_one_that_is_busy(OwnFrames::new(), BINARY, &bytes).await,
        ),
    ] {
        // And 64 KiB lie on the line, and 128 KiB may lie in the library.
        assert!((256..480).contains(&sent), "{by}: {sent} KB");
    }
}

/// How many messages an application is sent that takes none.
async fn sent_to_one_that_is_busy<B>(beats: B, kind: u8, message: &[u8]) -> usize
where
    B: Beats<Message: Clone + std::fmt::Debug + Send> + Send + 'static,
{
    let (ours, mut client) = pair(beats, quick()).await;
    if B::HELLO {
        client.send_own(hello()).await;
    }
    let busy = ours.peer.spawn();
    let mut sent = 0;
    while sent < 2000 {
        match timeout(ms(1), client.send(FINAL | kind, message)).await {
            Ok(()) => sent += 1,
            Err(_) => break,
        }
    }
    drop(busy);
    sent
}
