//! Brokers that give up a client which says nothing: mosquitto with the codec of
//! `examples/mqtt`, and RabbitMQ with that of `examples/stomp`, where nobody answers beats.
//!
//! Real processes, real TCP, real time. `HEARTBEAT_BROKERS` is for how many seconds the
//! connections are held: 600 before a release. RabbitMQ takes 7 s of processor time to start.
#![cfg(unix)]

#[path = "../../examples/mqtt/mqtt.rs"]
mod mqtt;
#[path = "../../examples/stomp/stomp.rs"]
mod stomp;

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use futures::{SinkExt, StreamExt, future::join_all};
use heartbeat_tests::{free_address, ms, secs, server::Server};
use heartbeat_tokio::{Cause, Codec, Config, Heartbeat, PeerEvent, State};
use tempfile::TempDir;
use tokio::{net::TcpStream, time::sleep};

use mqtt::{Mqtt, Packet, connect, publish, subscribe};
use stomp::{Stomp, frame};

const GUARD: &str = env!("CARGO_BIN_EXE_heartbeat-test-guard");

/// For how long a connection is held.
fn held() -> Duration {
    let seconds = std::env::var("HEARTBEAT_BROKERS").map(|text| text.parse().expect("a number"));
    secs(seconds.unwrap_or(8))
}

/// Dead within `detection`, and heard by the broker every `speech`.
fn config(detection: Duration, speech: Duration) -> Config {
    let timings = Config::detect_within(detection).unwrap();
    timings.to_builder().speak_within(speech).build().unwrap()
}

/// Debian's are where only root looks.
fn program(name: &str, other: &str) -> Option<String> {
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

// ---- STOMP -----------------------------------------------------------------

struct Rabbit {
    server: Server,
    _folder: TempDir,
}

/// It takes long until it listens.
async fn rabbitmq() -> Option<Rabbit> {
    let program = program("rabbitmq-server", "/usr/lib/rabbitmq/bin/rabbitmq-server")?;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("plugins"), "[rabbitmq_stomp].").unwrap();
    let amqp = free_address().unwrap().port();
    let distribution = free_address().unwrap().port();
    let epmd = free_address().unwrap().port();
    let start = |port: u16| {
        let file = at("rabbitmq.conf");
        let settings = format!(
            "listeners.tcp.1 = 127.0.0.1:{amqp}\nstomp.listeners.tcp.1 = 127.0.0.1:{port}\n"
        );
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
    let server = Server::start(GUARD, start).await;
    Some(Rabbit {
        server,
        _folder: folder,
    })
}

async fn stomp(rabbit: &Rabbit, detection: Duration) -> Heartbeat<TcpStream, Codec<Stomp>> {
    let stream = rabbit.server.connect().await;
    stream.set_nodelay(true).unwrap();
    let config = config(detection, secs(1));
    let mut client = Heartbeat::with_codec(stream, Stomp::default(), config);
    let login = "login:guest\npasscode:guest\nhost:/\naccept-version:1.2\nheart-beat:2000,2000";
    let login = frame(&format!("CONNECT\n{login}"), "");
    client.send(login).await.unwrap();
    let answer = next_message(&mut client).await;
    assert!(answer.starts_with("CONNECTED"), "{answer}");
    client
}

/// Idle, or with a message to itself every 0.2 s.
async fn hold(rabbit: &Rabbit, detection: Duration, is_busy: bool) {
    let mut client = stomp(rabbit, detection).await;
    let queue = format!("destination:/queue/{}", detection.as_secs());
    if is_busy {
        let headers = format!("SUBSCRIBE\nid:0\n{queue}");
        client.send(frame(&headers, "")).await.unwrap();
    }
    let until = tokio::time::Instant::now() + held();
    let mut every = tokio::time::interval(ms(200));
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(until) => break,
            _ = every.tick(), if is_busy => {
                let message = frame(&format!("SEND\n{queue}"), "hello");
                client.send(message).await.unwrap();
            }
            event = client.next() => match event {
                Some(PeerEvent::Dead(death)) => panic!("{detection:?}, {is_busy}: {death}"),
                Some(PeerEvent::Message(text)) => assert!(text.starts_with("MESSAGE"), "{text}"),
                Some(_) => {}
                None => panic!("it ended"),
            }
        }
    }
    let status = client.status();
    assert_ne!(status.peer.state, State::Dead);
    assert_eq!(status.peer.pongs, 0, "nobody answers");
}

/// Both sides agreed on a beat every two seconds, which nobody answers.
#[tokio::test]
async fn where_nobody_answers_beats_both_sides_live() {
    let Some(rabbit) = rabbitmq().await else {
        return;
    };
    let detections = [2, 4, 10, 14].map(secs);
    let idle = detections.map(|detection| hold(&rabbit, detection, false));
    let busy = detections.map(|detection| hold(&rabbit, detection, true));
    tokio::join!(join_all(idle), join_all(busy));

    // D is 2 s, of which I is 0.7 s; the broker's 2 s take its place.
    let mut client = stomp(&rabbit, secs(2)).await;
    assert_eq!(client.status().peer.interval, secs(2));
    rabbit.server.process.stop().unwrap();
    let frozen_at = Instant::now();
    while !matches!(client.next().await, Some(PeerEvent::Dead(_))) {}
    let took = frozen_at.elapsed();
    assert!(took < client.detection_time() + ms(1500), "{took:?}");
}
