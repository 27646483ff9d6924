//! Brokers that give up a client which says nothing: mosquitto with the codec of
//! `examples/mqtt`, and RabbitMQ with that of `examples/stomp` and one for AMQP 0-9-1, where
//! beats have no answers.
//!
//! Real processes, real TCP, real time. `HEARTBEAT_BROKERS` is for how many seconds the
//! connections are held: 8 if nothing is said, 60 in CI, 600 before a release. RabbitMQ takes 7 s of processor time to start.
#![cfg(unix)]

#[path = "../../examples/mqtt/mqtt.rs"]
pub(crate) mod mqtt;
#[path = "../../examples/stomp/stomp.rs"]
mod stomp;

use std::{
    collections::VecDeque,
    fs,
    net::SocketAddr,
    process::Command,
    time::{Duration, Instant},
};

use futures::{SinkExt, StreamExt, future::join_all};
use heartbeat_tests::{
    few_or_all, free_address, ms, quick, secs,
    server::{Server, listens},
};
use heartbeat_tokio::{Cause, Codec, Config, Heartbeat, PeerEvent, State};
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::amqp::{Amqp, Part};
use mqtt::{Mqtt, Packet, connect, publish, subscribe};
use stomp::{Stomp, frame};

const GUARD: &str = env!("CARGO_BIN_EXE_heartbeat-test-guard");

/// For how long a connection is held.
fn held() -> Duration {
    let seconds = std::env::var("HEARTBEAT_BROKERS").map(|text| text.parse().expect("a number"));
    secs(seconds.unwrap_or(few_or_all(8, 60)))
}

/// Dead within `detection`, and heard by the broker every `speech`.
fn config(detection: Duration, speech: Duration) -> Config {
    let timings = Config::detect_within(detection).unwrap();
    timings.to_builder().speak_within(speech).build().unwrap()
}

/// Debian's are where only root looks.
pub(crate) fn program(name: &str, other: &str) -> Option<String> {
    if std::path::Path::new(other).exists() {
        return Some(other.into());
    }
    heartbeat_tests::needs(name).then(|| name.into())
}

// ---- MQTT ------------------------------------------------------------------

type Client = Heartbeat<TcpStream, Codec<Mqtt>>;

async fn mosquitto() -> Option<Server> {
    let program = program("mosquitto", "/usr/sbin/mosquitto")?;
    let start = |port: u16| {
        let mut command = Command::new(&program);
        command.args(["-p", &port.to_string()]);
        command
    };
    Some(Server::start(GUARD, start).await)
}

/// A client that has to be heard within three seconds.
async fn mqtt(server: &Server, name: &str, config: Config) -> Client {
    let stream = server.connect().await;
    stream.set_nodelay(true).unwrap();
    let mut client = Heartbeat::with_codec(stream, Mqtt::default(), config);
    client.send(connect(name, 2)).await.unwrap();
    let accepted = next_message(&mut client).await;
    assert_eq!(accepted, Packet(0x20, (&[0, 0][..]).into()));
    client
}

async fn next_message<M, C>(client: &mut Heartbeat<TcpStream, C>) -> M
where
    C: heartbeat_tokio::Transport<TcpStream, Message = M>,
{
    loop {
        match client.next().await.expect("it goes on") {
            PeerEvent::Message(message) => return message,
            PeerEvent::Dead(death) => panic!("{death}"),
            _ => {}
        }
    }
}

/// A subscriber that is sent a message every 0.2 s has nothing to ask, and says nothing by
/// itself: the broker gives it up after three seconds without `speak_within`.
#[tokio::test]
async fn a_broker_that_sends_all_the_time_hears_us_too() {
    let Some(server) = mosquitto().await else {
        return;
    };
    let mut reader = mqtt(&server, "reader", config(secs(4), secs(1))).await;
    reader.send(subscribe("news")).await.unwrap();
    next_message(&mut reader).await;
    let mut writer = mqtt(&server, "writer", config(secs(4), secs(1))).await;

    let until = Instant::now() + held();
    let mut received = 0;
    while Instant::now() < until {
        writer.send(publish("news", b"hello")).await.unwrap();
        assert_eq!(next_message(&mut reader).await, publish("news", b"hello"));
        received += 1;
        sleep(ms(200)).await;
    }
    assert!(received > 10, "{received}");
    let pings = reader.status().peer.pings;
    assert!(u64::from(pings) >= held().as_secs() / 2, "{pings} pings");
}

/// Messages that are acknowledged, and the will of a client whose broker heard nothing of it.
#[tokio::test]
async fn acknowledged_messages_arrive_and_only_a_client_that_is_mute_has_its_will_done() {
    let Some(server) = mosquitto().await else {
        return;
    };
    let mut reader = mqtt(&server, "reader", config(secs(4), ms(500))).await;
    for topic in ["acknowledged", "wills"] {
        let Packet(kind, body) = subscribe(topic);
        let once = [&body[..body.len() - 1], &[1]].concat();
        reader.send(Packet(kind, once.into())).await.unwrap();
        assert_eq!(next_message(&mut reader).await.0, 0x90);
    }
    let mute = config(secs(60), secs(30)).to_builder();
    let mute = mute.interval(secs(30)).build().unwrap();
    let mut drivers = VecDeque::new();
    for (name, config) in [("mute", mute), ("speaks", config(secs(60), ms(500)))] {
        let stream = server.connect().await;
        let mut client = Heartbeat::with_codec(stream, Mqtt::default(), config);
        client.send(with_a_will(name)).await.unwrap();
        next_message(&mut client).await;
        // The identifier is behind the topic.
        let Packet(_, body) = publish("acknowledged", b"");
        let body = [&body, &b"\0\x07"[..], name.as_bytes()].concat();
        client.send(Packet(0x32, body.into())).await.unwrap();
        let acknowledgement = Packet(0x40, (&b"\0\x07"[..]).into());
        assert_eq!(next_message(&mut client).await, acknowledgement);
        let Packet(kind, body) = next_message(&mut reader).await;
        assert!(kind == 0x32 && body.ends_with(name.as_bytes()), "{body:?}");
        let identifier = body.slice(14..16);
        reader.send(Packet(0x40, identifier)).await.unwrap();
        drivers.push_back(client.spawn());
    }
    // It looks every five seconds.
    let will = timeout(secs(20), next_message(&mut reader)).await.unwrap();
    assert!(will.1.ends_with(b"mute"), "{will:?}");
    let mute = drivers.pop_front().unwrap();
    timeout(secs(5), mute.task).await.unwrap().unwrap();
    let speaks = drivers.pop_front().unwrap().sender.status();
    assert_eq!(speaks.peer.state, State::Alive);
}

/// Its will says its name. It has to be heard within three seconds.
fn with_a_will(name: &str) -> Packet {
    let Packet(kind, body) = connect(name, 2);
    let Packet(_, topic) = publish("wills", b"");
    let length = u16::try_from(name.len()).unwrap().to_be_bytes();
    let mut body = [&body, &topic, &length[..], name.as_bytes()].concat();
    body[7] |= 4;
    Packet(kind, body.into())
}

/// A broker hangs up on a client that sends anything before CONNECT.
#[tokio::test]
async fn no_ping_leaves_before_the_login() {
    let Some(server) = mosquitto().await else {
        return;
    };
    let often = quick().to_builder().interval(ms(20)).min_interval(ms(10));
    let often = often.speak_within(ms(20)).build().unwrap();
    let stream = server.connect().await;
    let mut client = Heartbeat::with_codec(stream, Mqtt::default(), often);
    assert!(timeout(ms(300), client.next()).await.is_err());
    client.send(connect("late", 2)).await.unwrap();
    let accepted = next_message(&mut client).await;
    assert_eq!(accepted, Packet(0x20, (&[0, 0][..]).into()));
}

#[tokio::test]
async fn a_frozen_broker_is_found_in_time() {
    let Some(server) = mosquitto().await else {
        return;
    };
    let mut client = mqtt(&server, "client", config(secs(2), secs(1))).await;
    server.process.stop().unwrap();
    let frozen_at = Instant::now();
    let death = loop {
        if let PeerEvent::Dead(death) = client.next().await.expect("an end") {
            break death;
        }
    };
    assert_eq!(death.cause, Cause::Silent);
    assert!(frozen_at.elapsed() < ms(3500), "{:?}", frozen_at.elapsed());
}

// ---- RabbitMQ --------------------------------------------------------------

struct Rabbit {
    server: Server,
    /// Where it speaks STOMP. The server's own address is that of AMQP, where it listens last.
    stomp: SocketAddr,
    _folder: TempDir,
}

/// It takes long until it listens.
async fn rabbitmq() -> Option<Rabbit> {
    let program = program("rabbitmq-server", "/usr/lib/rabbitmq/bin/rabbitmq-server")?;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("plugins"), "[rabbitmq_stomp].").unwrap();
    let stomp = free_address().unwrap();
    let distribution = free_address().unwrap().port();
    let epmd = free_address().unwrap().port();
    let start = |port: u16| {
        let file = at("rabbitmq.conf");
        let settings =
            format!("listeners.tcp.1 = 127.0.0.1:{port}\nstomp.listeners.tcp.1 = {stomp}\n");
        fs::write(&file, settings).unwrap();
        let mut command = Command::new(&program);
        command.env("HOME", folder.path());
        command.env("RABBITMQ_CONFIG_FILE", &file);
        command.env("RABBITMQ_ENABLED_PLUGINS_FILE", at("plugins"));
        command.env("RABBITMQ_MNESIA_BASE", at("data"));
        command.env("RABBITMQ_LOG_BASE", at("log"));
        command.env("RABBITMQ_LOGS", "-");
        command.env("RABBITMQ_NODENAME", format!("heartbeat{port}@localhost"));
        command.env("RABBITMQ_DIST_PORT", distribution.to_string());
        command.env("ERL_EPMD_PORT", epmd.to_string());
        command.env("ERL_EPMD_ADDRESS", "127.0.0.1");
        command
    };
    let mut server = Server::start(GUARD, start).await;
    // It serves one protocol before the other.
    let is_up = listens(&mut server.process, stomp).await;
    assert!(is_up, "RabbitMQ ended before it served STOMP");
    Some(Rabbit {
        server,
        stomp,
        _folder: folder,
    })
}

/// `beats` is how often we offer a beat, and how often we want one.
async fn stomp(
    rabbit: &Rabbit,
    detection: Duration,
    beats: &str,
) -> Heartbeat<TcpStream, Codec<Stomp>> {
    let stream = TcpStream::connect(rabbit.stomp).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let config = config(detection, secs(1));
    let mut client = Heartbeat::with_codec(stream, Stomp::default(), config);
    let login = "login:guest\npasscode:guest\nhost:/\naccept-version:1.2\nheart-beat";
    let login = frame(&format!("CONNECT\n{login}:{beats}"), "");
    client.send(login).await.unwrap();
    let answer = next_message(&mut client).await;
    assert!(answer.starts_with("CONNECTED"), "{answer}");
    client
}

/// Logged in, and consuming the queue `name`, which is its own.
async fn amqp(rabbit: &Rabbit, detection: Duration, name: &[u8]) -> AmqpClient {
    let stream = rabbit.server.connect().await;
    stream.set_nodelay(true).unwrap();
    let config = config(detection, secs(1));
    let mut client = Heartbeat::with_codec(stream, Amqp::default(), config);
    let no_table = &[0; 4][..];
    let login: &[&[u8]] = &[
        no_table,
        b"\x05PLAIN",
        b"\0\0\0\x0C\0guest\0guest",
        b"\x05en_US",
    ];
    // One channel, frames of 128 KiB, a beat each two seconds.
    let tuned: &[&[u8]] = &[&[0, 1], &[0, 2, 0, 0], &[0, 2]];
    let exclusive = &[4][..];
    let without_acknowledgements = &[2][..];
    for (questions, (class, method)) in [
        (vec![Part::protocol()], (10, 10)),
        (vec![Part::method(0, 10, 11, login)], (10, 30)),
        (
            vec![
                Part::method(0, 10, 31, tuned),
                Part::method(0, 10, 40, &[b"\x01/", &[0], &[0]]),
            ],
            (10, 41),
        ),
        (vec![Part::method(1, 20, 10, &[&[0]])], (20, 11)),
        (
            vec![Part::method(
                1,
                50,
                10,
                &[&[0, 0], name, exclusive, no_table],
            )],
            (50, 11),
        ),
        (
            vec![Part::method(
                1,
                60,
                20,
                &[&[0, 0], name, &[0], without_acknowledgements, no_table],
            )],
            (60, 21),
        ),
    ] {
        for question in questions {
            client.feed(question).await.unwrap();
        }
        client.flush().await.unwrap();
        let answer = next_message(&mut client).await;
        assert!(answer.is_method(class, method), "{answer:?}");
    }
    client
}

type AmqpClient = Heartbeat<TcpStream, Codec<Amqp>>;

async fn hold_amqp(rabbit: &Rabbit, detection: Duration, is_busy: bool) {
    let name = format!("\x02q{}", detection.as_secs() + 4 * u64::from(is_busy));
    let client = amqp(rabbit, detection, name.as_bytes()).await;
    let message = is_busy.then(|| {
        let length = b"hello".len() as u64;
        let header = [&[0, 60, 0, 0], &length.to_be_bytes()[..], &[0, 0]].concat();
        vec![
            Part::method(1, 60, 40, &[&[0, 0], &[0], name.as_bytes(), &[0]]),
            Part(2, 1, header.into()),
            Part(3, 1, "hello".into()),
        ]
    });
    let received = hold(client, message).await;
    let hellos = received.iter().filter(|part| part.0 == 3).count();
    assert_eq!(hellos > 10, is_busy, "{hellos}");
}

async fn hold_stomp(rabbit: &Rabbit, detection: Duration, is_busy: bool) {
    let mut client = stomp(rabbit, detection, "2000,2000").await;
    let queue = format!("destination:/queue/{}", detection.as_secs());
    let mut message = None;
    if is_busy {
        let headers = format!("SUBSCRIBE\nid:0\n{queue}");
        client.send(frame(&headers, "")).await.unwrap();
        message = Some(vec![frame(&format!("SEND\n{queue}"), "hello")]);
    }
    let received = hold(client, message).await;
    let mut texts = received.iter();
    assert!(
        texts.all(|text| text.starts_with("MESSAGE")),
        "{received:?}"
    );
    assert_eq!(received.len() > 10, is_busy, "{}", received.len());
}

/// Idle, or with a message to itself every 0.2 s. Says what it received.
async fn hold<M: Clone, C>(mut client: Heartbeat<TcpStream, C>, message: Option<Vec<M>>) -> Vec<M>
where
    C: heartbeat_tokio::Transport<TcpStream, Message = M>,
{
    let until = tokio::time::Instant::now() + held();
    let mut every = tokio::time::interval(ms(200));
    let mut received = Vec::new();
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(until) => break,
            _ = every.tick(), if message.is_some() => {
                for part in message.iter().flatten() {
                    client.feed(part.clone()).await.unwrap();
                }
                client.flush().await.unwrap();
            }
            event = client.next() => match event {
                Some(PeerEvent::Dead(death)) => panic!("{death}"),
                Some(PeerEvent::Message(message)) => received.push(message),
                Some(_) => {}
                None => panic!("it ended"),
            }
        }
    }
    let status = client.status();
    assert_ne!(status.peer.state, State::Dead);
    assert_eq!(status.peer.pongs, 0, "nobody answers");
    received
}

/// One side sends no beats, or none does. A broker that sends none isn't judged.
async fn hold_one_sided(rabbit: &Rabbit, detection: Duration, beats: &str) {
    let client = stomp(rabbit, detection, beats).await;
    let is_judged = client.status().peer.state != State::Occupied;
    assert_eq!(is_judged, beats.ends_with(",2000"), "{beats}");
    assert_eq!(hold(client, None).await, Vec::<String>::new());
}

/// The broker closes the channel, and beats go on.
async fn hold_without_a_channel(rabbit: &Rabbit) {
    let mut client = amqp(rabbit, secs(4), b"\x06closed").await;
    let passive = &[1][..];
    let unknown = Part::method(1, 50, 10, &[&[0, 0], b"\x04none", passive, &[0; 4]]);
    client.send(unknown).await.unwrap();
    let error = next_message(&mut client).await;
    assert!(error.is_method(20, 40), "{error:?}");
    let confirmed = Part::method(1, 20, 41, &[]);
    client.send(confirmed).await.unwrap();
    assert_eq!(hold(client, None).await, []);
}

/// Both sides agreed on a beat every two seconds, which nobody answers.
#[tokio::test]
async fn where_nobody_answers_beats_both_sides_live() {
    let Some(rabbit) = rabbitmq().await else {
        return;
    };
    let detections = [2, 4, 10, 14].map(secs);
    let idle = detections.map(|detection| hold_stomp(&rabbit, detection, false));
    let busy = detections.map(|detection| hold_stomp(&rabbit, detection, true));
    let detections = [2, 4].map(secs);
    let idle_amqp = detections.map(|detection| hold_amqp(&rabbit, detection, false));
    let busy_amqp = detections.map(|detection| hold_amqp(&rabbit, detection, true));
    let one_sided = detections.map(|detection| {
        let beats = ["0,2000", "2000,0", "0,0"];
        join_all(beats.map(|beats| hold_one_sided(&rabbit, detection, beats)))
    });
    tokio::join!(
        join_all(idle),
        join_all(busy),
        join_all(idle_amqp),
        join_all(busy_amqp),
        join_all(one_sided),
        hold_without_a_channel(&rabbit),
    );

    // D is 2 s, of which I is 0.7 s; the broker's 2 s take its place.
    let stomp = stomp(&rabbit, secs(2), "2000,2000").await;
    let amqp = amqp(&rabbit, secs(2), b"\x01q").await;
    rabbit.server.process.stop().unwrap();
    tokio::join!(is_found_in_time(stomp), is_found_in_time(amqp));
}

/// It was frozen a moment ago.
async fn is_found_in_time<C>(mut client: Heartbeat<TcpStream, C>)
where
    C: heartbeat_tokio::Transport<TcpStream>,
{
    let frozen_at = Instant::now();
    assert_eq!(client.status().peer.interval, secs(2));
    while !matches!(client.next().await, Some(PeerEvent::Dead(_))) {}
    let took = frozen_at.elapsed();
    assert!(took < client.detection_time() + ms(1500), "{took:?}");
}
