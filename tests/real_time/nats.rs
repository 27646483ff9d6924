//! A heartbeat with a real NATS server, which pings too: the codec of
//! `examples/nats`.
//!
//! Real processes, real TCP, real time. What is measured may be late by
//! `SLACK`; what must not happen is far from the times that it could happen at.
#![cfg(unix)]

#[path = "../../examples/nats/protocol.rs"]
mod protocol;

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use futures::SinkExt;
use heartbeat_tests::{Watched, is_cut_off, ms, needs, patient, quick, secs, server::Server};
use heartbeat_tokio::{Cause, Codec, Config, Frame, Heartbeat, PeerEvent, SendError};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy_bidirectional},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_util::codec::{Decoder, Encoder};

use protocol::{Message, Nats};

/// How late a process may be on a machine under load.
const SLACK: Duration = ms(1500);

// ---- alive -----------------------------------------------------------------

#[tokio::test]
async fn messages_go_from_one_client_to_another_while_beats_go_on() {
    let Some(broker) = Broker::start("").await else {
        return;
    };
    let mut alice = broker.client(patient()).await;
    let mut bob = broker.client(patient()).await;
    bob.peer.send(subscribe("news.*", 7)).await.unwrap();
    // What was subscribed before a ping is in force when it is answered.
    bob.peer.probe();
    bob.until_beat().await;

    let large = Bytes::from(vec![b'\n'; 300_000]);
    let payloads = [
        "hello".into(),
        Bytes::new(),
        "PING\r\nPONG\r\n".into(),
        large,
    ];
    for round in 0..25 {
        for payload in &payloads {
            let subject = format!("news.{round}");
            alice.peer.probe();
            alice.peer.send(publish(&subject, payload)).await.unwrap();
            bob.peer.probe();
            let delivered = Message::Delivered {
                subject,
                id: 7,
                headers: Bytes::new(),
                payload: payload.clone(),
            };
            assert!(bob.message().await == delivered, "round {round}");
            alice.until_beat().await;
        }
    }
    assert!(bob.beats() >= 10, "{} beats", bob.beats());
    alice.assert_alive();
    bob.assert_alive();
}

#[tokio::test]
async fn an_idle_connection_beats() {
    let Some(broker) = Broker::start("").await else {
        return;
    };
    let mut nats = broker.client(patient()).await;
    nats.go_on_for(secs(3)).await;
    // An interval is 200 ms.
    assert!((5..=16).contains(&nats.beats()), "{:?}", nats.events);
    nats.assert_alive();
}

#[tokio::test]
async fn its_pings_are_answered() {
    // It pings twice a second, and ends what answered neither of two.
    let Some(broker) = Broker::start("ping_interval: \"500ms\"\nping_max: 2\n").await else {
        return;
    };
    // We never ask.
    let seldom = quick().to_builder().interval(secs(300)).build().unwrap();
    let mut nats = broker.client(seldom).await;

    // A peer that doesn't answer, for comparison.
    let mut mute = broker.server.connect().await;
    mute.write_all(b"CONNECT {\"verbose\":false}\r\n")
        .await
        .unwrap();
    let mut told = String::new();
    let began = Instant::now();
    let thrown_out = async { timeout(secs(20), mute.read_to_string(&mut told)).await };
    let ((), thrown_out) = tokio::join!(nats.go_on_for(secs(5)), async {
        let result = thrown_out.await;
        (result, began.elapsed())
    });
    let (result, after) = thrown_out;
    result.expect("it is thrown out").expect("with a word");
    assert!(told.ends_with("-ERR 'Stale Connection'\r\n"), "{told}");
    assert!(told.contains("PING\r\n"), "{told}");

    // We live longer than that, and hear from it all the time.
    nats.go_on_for(after).await;
    assert_eq!(nats.beats(), 0, "we asked");
    let silent_for = nats.peer.status().silent_for;
    assert!(silent_for <= ms(500) + SLACK, "{silent_for:?}");
    nats.assert_alive();
}

#[tokio::test]
async fn what_is_no_message_is_refused() {
    let Some(broker) = Broker::start("").await else {
        return;
    };
    let mut nats = broker.client(patient()).await;
    for refused in [
        publish("two words", &Bytes::new()),
        subscribe("", 1),
        Message::Connect("{}\r\nPUB a 0\r\n".into()),
        Message::Info("{}".into()),
    ] {
        let error = nats.peer.send(refused).await.unwrap_err();
        assert!(matches!(error, SendError::Unencodable(_)), "{error}");
    }
    nats.until_beat().await;
    nats.assert_alive();
}

// ---- what becomes of it ----------------------------------------------------

#[tokio::test]
async fn a_server_that_hangs_is_found_silent_in_time() {
    let Some(broker) = Broker::start("").await else {
        return;
    };
    let mut nats = broker.client(quick()).await;
    nats.until_beat().await;
    let stopped = Instant::now();
    broker.server.process.stop().unwrap();
    let death = nats.until_dead().await;
    let measured = stopped.elapsed();

    assert_eq!(death.cause, Cause::Silent);
    assert!(measured >= ms(600), "{measured:?}: too early");
    assert!(measured <= ms(800) + SLACK, "{measured:?}: too late");
}

#[tokio::test]
async fn a_server_that_hangs_for_a_while_recovers() {
    let Some(broker) = Broker::start("").await else {
        return;
    };
    let mut nats = broker.client(patient()).await;
    nats.until_beat().await;
    broker.server.process.stop().unwrap();
    nats.until(|events| matches!(events.last(), Some(PeerEvent::Suspect { missed: 1, .. })))
        .await;
    broker.server.process.go_on().unwrap();
    nats.until(|events| matches!(events.last(), Some(PeerEvent::Recovered { .. })))
        .await;
    nats.until_beat().await;
    nats.assert_alive();
}

#[tokio::test]
async fn a_server_that_is_killed_is_found_at_once() {
    let Some(broker) = Broker::start("").await else {
        return;
    };
    // Nothing is written that could fail.
    let seldom = patient().to_builder().interval(secs(30)).build().unwrap();
    let mut nats = broker.client(seldom).await;
    nats.peer.probe();
    nats.until_beat().await;
    let killed = Instant::now();
    broker.server.process.kill().unwrap();
    let death = nats.until_dead().await;
    let measured = killed.elapsed();

    assert!(is_cut_off(&death.cause), "{death}");
    assert!(measured <= SLACK, "{measured:?}: too late");
}

#[tokio::test]
async fn what_it_complains_about_comes_before_the_end() {
    let Some(broker) = Broker::start("max_payload: 1024\n").await else {
        return;
    };
    let mut nats = broker.client(patient()).await;
    let too_much = Bytes::from(vec![0; 2000]);
    nats.peer.send(publish("news", &too_much)).await.unwrap();
    let complaint = Message::Error("'Maximum Payload Violation'".into());
    assert_eq!(nats.message().await, complaint);
    let death = nats.until_dead().await;
    assert!(is_cut_off(&death.cause), "{death}");
}

/// It waits for a login for half a second, and says so; or that the login is wrong.
#[tokio::test]
async fn a_login_that_is_late_or_wrong_is_complained_about_before_the_end() {
    let options = "authorization: { user: a, password: b, timeout: 0.5 }";
    let Some(broker) = Broker::start(options).await else {
        return;
    };
    let wrong = r#"{"user":"a","pass":"c","verbose":false}"#;
    for (login, complaint) in [
        (None, "'Authentication Timeout'"),
        (Some(wrong), "'Authorization Violation'"),
    ] {
        let stream = broker.server.connect().await;
        let mut nats = Client::new(Heartbeat::with_codec(stream, Nats::default(), quick()));
        let info = nats.message().await;
        assert!(matches!(info, Message::Info(_)), "{info:?}");
        if let Some(login) = login {
            let login = Message::Connect(login.into());
            nats.peer.send(login).await.unwrap();
        }
        assert_eq!(nats.message().await, Message::Error(complaint.into()));
        let death = nats.until_dead().await;
        assert!(is_cut_off(&death.cause), "{death}");
    }
}

/// It announces that it leaves, sends what it is sent, and hangs up later.
#[tokio::test]
async fn a_server_that_is_a_lame_duck_is_told_and_beats_to_the_end() {
    let options = "lame_duck_duration: \"30s\"\nlame_duck_grace_period: \"2s\"\n";
    let Some(broker) = Broker::start(options).await else {
        return;
    };
    let stream = broker.server.connect().await;
    let mut nats = Client::new(Heartbeat::with_codec(stream, Nats::default(), patient()));
    nats.message().await;
    // With 1 it is told of changes.
    let login = r#"{"verbose":false,"protocol":1}"#;
    let login = Message::Connect(login.into());
    nats.peer.send(login).await.unwrap();
    nats.until_beat().await;
    kill_process(broker.pid(), Signal::USR2).unwrap();
    let info = nats.message().await;
    assert!(
        matches!(&info, Message::Info(info) if info.contains("\"ldm\":true")),
        "{info:?}"
    );
    nats.peer.send(subscribe("news", 1)).await.unwrap();
    nats.peer
        .send(publish("news", &"last".into()))
        .await
        .unwrap();
    nats.message().await;
    nats.until_beat().await;
    let death = nats.until_dead().await;
    assert!(is_cut_off(&death.cause), "{death}");
}

/// A client that asked for headers is sent them.
#[tokio::test]
async fn headers_of_another_client_arrive() {
    let Some(broker) = Broker::start("").await else {
        return;
    };
    let stream = broker.server.connect().await;
    let mut nats = Client::new(Heartbeat::with_codec(stream, Nats::default(), patient()));
    nats.message().await;
    let login = r#"{"verbose":true,"headers":true}"#;
    nats.peer
        .send(Message::Connect(login.into()))
        .await
        .unwrap();
    nats.peer.send(subscribe("news", 1)).await.unwrap();
    nats.until_beat().await;
    let mut other = broker.server.connect().await;
    let said = b"CONNECT {\"headers\":true,\"verbose\":false}\r\n\
        HPUB news 21 25\r\nNATS/1.0\r\nA: PONG\r\n\r\nPING\r\n";
    other.write_all(said).await.unwrap();
    let delivered = Message::Delivered {
        subject: "news".into(),
        id: 1,
        headers: Bytes::from_static(b"NATS/1.0\r\nA: PONG\r\n\r\n"),
        payload: Bytes::from_static(b"PING"),
    };
    assert_eq!(nats.message().await, delivered);
    nats.until_beat().await;
}

/// A server takes the first thing that it hears for a login. Its INFO comes in two pieces, or
/// late.
#[tokio::test]
async fn no_ping_leaves_before_the_login() {
    let Some(broker) = Broker::start("authorization: { user: a, password: b }").await else {
        return;
    };
    let often = quick().to_builder().interval(ms(5)).min_interval(ms(1));
    let often = often.build().unwrap();
    let logins = (0..100).map(|login| {
        let stream = broker.server.connect();
        async move {
            let stream = match login % 2 {
                0 => hesitant(stream.await, Hesitation::Within(ms(50))).await,
                _ => hesitant(stream.await, Hesitation::Before(ms(150))).await,
            };
            let mut client = Watched::new(Heartbeat::with_codec(stream, Nats::default(), often));
            let info = client.message().await;
            assert!(matches!(info, Message::Info(_)), "{info:?}");
            let options = r#"{"user":"a","pass":"b","verbose":false,"headers":true}"#;
            let connect = Message::Connect(options.into());
            client.peer.send(connect).await.unwrap();
            client.until_beat().await;
            client.peer.send(subscribe("news", 1)).await.unwrap();
            client
                .peer
                .send(publish("news", &"hello".into()))
                .await
                .unwrap();
            client.message().await;
        }
    });
    futures::future::join_all(logins).await;
}

/// Where a server's first words wait.
enum Hesitation {
    Before(Duration),
    Within(Duration),
}

/// The near end of a line whose first words from `far` wait.
async fn hesitant(mut far: TcpStream, hesitation: Hesitation) -> DuplexStream {
    let (near, mut line) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move {
        let mut first = vec![0; 4096];
        let read = far.read(&mut first).await.unwrap();
        let (before, behind) = match hesitation {
            Hesitation::Before(time) => {
                sleep(time).await;
                first[..read].split_at(0)
            }
            Hesitation::Within(_) => first[..read].split_at(read / 2),
        };
        line.write_all(before).await.unwrap();
        if let Hesitation::Within(time) = hesitation {
            sleep(time).await;
        }
        line.write_all(behind).await.unwrap();
        copy_bidirectional(&mut line, &mut far).await
    });
    near
}

/// 900 kB through a line of 200 kB/s: the ping waits behind our own data for twice the
/// detection time.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_ping_behind_our_own_data_is_not_the_servers_fault() {
    let Some(broker) = Broker::start("").await else {
        return;
    };
    let stream = broker.server.connect_slowly(200_000).await;
    let config = Config::detect_within(secs(2)).unwrap();
    let peer = Heartbeat::with_codec(stream, Nats::default(), config);
    let mut nats = Client::new(peer);
    introduce(&mut nats).await;
    nats.peer.send(subscribe("large", 1)).await.unwrap();
    let began = Instant::now();
    let large = Bytes::from(vec![b'x'; 900_000]);
    nats.peer.send(publish("large", &large)).await.unwrap();
    let delivered = nats.message().await;
    assert!(matches!(delivered, Message::Delivered { payload, .. } if payload == large));
    assert!(began.elapsed() > secs(4), "{:?}", began.elapsed());
    nats.until_beat().await;
    nats.assert_alive();
}

#[test]
fn headers_are_told_from_the_payload() {
    let mut codec = Nats::default();
    let mut arrived = BytesMut::from(&b"HMSG a 7 reply 12 14\r\nNATS/1.0\r\n\r\nhi\r\n"[..]);
    let delivered = Message::Delivered {
        subject: "a".into(),
        id: 7,
        headers: Bytes::from_static(b"NATS/1.0\r\n\r\n"),
        payload: Bytes::from_static(b"hi"),
    };
    assert_eq!(
        codec.decode(&mut arrived).unwrap(),
        Some(Frame::Data(delivered))
    );
    let mut wrong = BytesMut::from(&b"HMSG a 7 15 14\r\n"[..]);
    assert!(codec.decode(&mut wrong).is_err());
}

// ---- the codec alone -------------------------------------------------------

#[test]
fn frames_may_arrive_in_any_pieces() {
    let transcript = b"INFO {\"max_payload\":9}\r\n+OK\r\nPING\r\nMSG a.b 7 4\r\n\r\n\r\n\r\n\
        pong\r\nMSG a 8 reply.to 0\r\n\r\n-ERR 'why'\r\n";
    let delivered = |subject: &str, id, payload: &'static [u8]| {
        Frame::Data(Message::Delivered {
            subject: subject.into(),
            id,
            headers: Bytes::new(),
            payload: Bytes::from_static(payload),
        })
    };
    let expected = [
        Frame::Data(Message::Info("{\"max_payload\":9}".into())),
        Frame::Other,
        Frame::Ping(None),
        delivered("a.b", 7, b"\r\n\r\n"),
        Frame::Pong(None),
        delivered("a", 8, b""),
        Frame::Data(Message::Error("'why'".into())),
    ];
    for piece in [1, 2, 3, 7, transcript.len()] {
        let mut codec = Nats::default();
        let mut arrived = BytesMut::new();
        let mut frames = Vec::new();
        for bytes in transcript.chunks(piece) {
            arrived.extend_from_slice(bytes);
            while let Some(frame) = codec.decode(&mut arrived).unwrap() {
                frames.push(frame);
            }
        }
        assert_eq!(frames, expected, "in pieces of {piece}");
    }
}

#[test]
fn what_is_not_nats_is_an_error() {
    let endless = vec![b'x'; 70_000];
    for wrong in [
        &b"HTTP/1.1 400 Bad Request\r\n"[..],
        b"MSG a 7\r\n",
        b"MSG a b c 4\r\n",
        b"MSG a 7 99999999999\r\n",
        b"MSG a 7 -1\r\n",
        b"MSG a 7 2\r\nfour\r\n",
        b"\xff\xfe\r\n",
        &endless,
    ] {
        let decoded = Nats::default().decode(&mut BytesMut::from(wrong));
        assert!(decoded.is_err(), "{decoded:?}");
    }
    let mut sent = BytesMut::new();
    Nats::default()
        .encode(Frame::Pong(None), &mut sent)
        .unwrap();
    assert_eq!(&sent[..], b"PONG\r\n");
}

// ---- the two of them -------------------------------------------------------

/// A server of our own.
struct Broker {
    server: Server,
    /// Its configuration lies there.
    folder: TempDir,
}

type Client = Watched<Heartbeat<TcpStream, Codec<Nats>>, Message>;

impl Broker {
    async fn start(options: &str) -> Option<Self> {
        if !needs("nats-server") {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("nats.conf");
        fs::write(&file, options).unwrap();
        let server = Server::start(env!("CARGO_BIN_EXE_heartbeat-test-guard"), |port| {
            let mut command = Command::new("nats-server");
            command.args(["--addr", "127.0.0.1", "--port", &port.to_string()]);
            command.arg("--config").arg(&file);
            command.arg("--pid").arg(folder.path().join("pid"));
            command
        })
        .await;
        Some(Self { server, folder })
    }

    /// Its own, and not that of its guard.
    fn pid(&self) -> Pid {
        let pid = fs::read_to_string(self.folder.path().join("pid")).unwrap();
        Pid::from_raw(pid.trim().parse().unwrap()).unwrap()
    }

    /// A connection to it, on which both have introduced themselves.
    async fn client(&self, config: Config) -> Client {
        let stream = self.server.connect().await;
        let peer = Heartbeat::with_codec(stream, Nats::default(), config);
        let mut client = Watched::new(peer);
        introduce(&mut client).await;
        client
    }
}

/// Both introduce themselves.
async fn introduce(client: &mut Client) {
    let info = client.message().await;
    assert!(matches!(info, Message::Info(_)), "{info:?}");
    let options = r#"{"verbose":false,"pedantic":true,"lang":"rust","version":"0"}"#;
    let connect = Message::Connect(options.into());
    client.peer.send(connect).await.unwrap();
}

fn subscribe(subject: &str, id: u64) -> Message {
    let subject = subject.into();
    Message::Subscribe { subject, id }
}

fn publish(subject: &str, payload: &Bytes) -> Message {
    Message::Publish {
        subject: subject.into(),
        payload: payload.clone(),
    }
}
