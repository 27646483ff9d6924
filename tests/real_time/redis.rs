//! A heartbeat with a real Redis server, which knows nothing of it: the codec of
//! `examples/redis`.
//!
//! Real processes, real TCP, real time. What is measured may be late by
//! `SLACK`; what must not happen is far from the times that it could happen at.
#![cfg(unix)]

#[path = "../../examples/redis/resp.rs"]
mod resp;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use futures::SinkExt;
use heartbeat_tests::{Watched, is_cut_off, ms, needs, patient, quick, secs, server::Server};
use heartbeat_tokio::heartbeat_core::Nonce;
use heartbeat_tokio::{
    Cause, Codec, Config, Driver, Frame, Heartbeat, PeerEvent, SendError, State,
};
use redis_protocol::resp2::types::BytesFrame;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_util::codec::{Decoder, Encoder};

use resp::{Resp, command};

/// How late a process may be on a machine under load.
const SLACK: Duration = ms(1500);

// ---- alive -----------------------------------------------------------------

#[tokio::test]
async fn replies_find_their_commands_while_beats_go_on() {
    let often = patient().to_builder().interval(ms(2)).min_interval(ms(1));
    let often = often.build().unwrap();
    let Some((_server, mut redis)) = visit(often, &[]).await else {
        return;
    };
    for round in 0..500_u32 {
        // As long as a nonce, so that only its place tells a reply from a pong.
        let value = format!("{round:08}");
        redis.peer.feed(set(&value)).await.unwrap();
        // Goes between the two, or behind them.
        redis.peer.probe();
        if round % 2 == 0 {
            redis.peer.flush().await.unwrap();
        }
        redis.peer.send(command(["GET", "key"])).await.unwrap();
        assert_eq!(redis.message().await, BytesFrame::SimpleString("OK".into()));
        assert_eq!(redis.message().await, BytesFrame::BulkString(value.into()));
    }
    let status = redis.peer.status().peer;
    assert!(status.pongs >= 300, "{status:?}");
    redis.assert_alive();
}

#[tokio::test]
async fn an_idle_connection_beats() {
    let Some((_server, mut redis)) = visit(patient(), &[]).await else {
        return;
    };
    redis.go_on_for(secs(3)).await;
    // An interval is 200 ms.
    assert!((5..=16).contains(&redis.beats()), "{:?}", redis.events);
    redis.assert_alive();
}

#[tokio::test]
async fn beats_go_on_while_the_application_works() {
    let Some((_server, redis)) = visit(patient(), &[]).await else {
        return;
    };
    let Driver {
        sender, receiver, ..
    } = redis.peer.spawn();
    let rtt = sender.probe().await.unwrap();
    assert!(rtt < secs(3), "{rtt:?}");
    sender.send(set("hello")).await.unwrap();
    tokio::time::sleep(secs(4)).await; // longer than a death takes
    let silent_for = sender.status().silent_for;
    assert!(silent_for < secs(2), "{silent_for:?}");

    let mut redis = Watched::new(receiver);
    assert_eq!(redis.message().await, BytesFrame::SimpleString("OK".into()));
    redis.assert_alive();
}

#[tokio::test]
async fn a_server_that_is_busy_for_a_while_recovers() {
    let options = ["--enable-debug-command", "local"];
    let Some((server, mut redis)) = visit(patient(), &options).await else {
        return;
    };
    redis.until_beat().await;
    let mut other = server.connect().await;
    other.write_all(b"DEBUG SLEEP 1.5\r\n").await.unwrap();

    redis
        .until(|events| matches!(events.last(), Some(PeerEvent::Recovered { .. })))
        .await;
    let suspected = |event: &PeerEvent<_>| matches!(event, PeerEvent::Suspect { .. });
    assert!(redis.events.iter().any(suspected), "{:?}", redis.events);
    redis.peer.send(set("again")).await.unwrap();
    assert_eq!(redis.message().await, BytesFrame::SimpleString("OK".into()));
    redis.assert_alive();
}

#[tokio::test]
async fn a_refusal_is_an_answer_too() {
    let Some((_server, mut redis)) = visit(patient(), &["--requirepass", "secret"]).await else {
        return;
    };
    redis.until_beat().await;
    redis.peer.send(set("hello")).await.unwrap();
    let BytesFrame::Error(refusal) = redis.message().await else {
        panic!("{:?}", redis.events);
    };
    assert!(refusal.starts_with("NOAUTH"), "{refusal}");
    redis.until_beat().await;

    redis.peer.send(command(["AUTH", "secret"])).await.unwrap();
    assert_eq!(redis.message().await, BytesFrame::SimpleString("OK".into()));
    redis.until_beat().await;
    redis.assert_alive();
}

#[tokio::test]
async fn commands_that_change_the_order_are_refused() {
    let Some((_server, mut redis)) = visit(patient(), &[]).await else {
        return;
    };
    let number = BytesFrame::Integer(3);
    for refused in [
        command(["subscribe", "news"]),
        command(["HELLO", "3"]),
        command(["CLIENT", "PAUSE", "9000", "WRITE"]),
        command([]),
        number,
    ] {
        let error = redis.peer.send(refused).await.unwrap_err();
        assert!(matches!(error, SendError::Unencodable(_)), "{error}");
    }
    redis.peer.send(set("hello")).await.unwrap();
    assert_eq!(redis.message().await, BytesFrame::SimpleString("OK".into()));
    redis.assert_alive();
}

// ---- what becomes of it ----------------------------------------------------

#[tokio::test]
async fn a_server_that_hangs_is_found_silent_in_time() {
    let Some((server, mut redis)) = visit(quick(), &[]).await else {
        return;
    };
    redis.until_beat().await;
    let stopped = Instant::now();
    server.process.stop().unwrap();
    let death = redis.until_dead().await;
    let measured = stopped.elapsed();

    assert_eq!(death.cause, Cause::Silent);
    assert!(measured >= ms(600), "{measured:?}: too early");
    assert!(measured <= ms(800) + SLACK, "{measured:?}: too late");
}

#[tokio::test]
async fn a_server_that_is_killed_is_found_at_once() {
    let Some((server, mut redis)) = visit(seldom(), &[]).await else {
        return;
    };
    redis.peer.send(set("hello")).await.unwrap();
    redis.message().await;
    let killed = Instant::now();
    server.process.kill().unwrap();
    let death = redis.until_dead().await;
    let measured = killed.elapsed();

    assert!(is_cut_off(&death.cause), "{death}");
    assert!(measured <= SLACK, "{measured:?}: too late");
}

#[tokio::test]
async fn its_last_reply_comes_before_its_end() {
    let Some((server, mut redis)) = visit(seldom(), &[]).await else {
        return;
    };
    // Both replies lie there when we look.
    redis.peer.feed(set("last")).await.unwrap();
    redis.peer.send(command(["GET", "key"])).await.unwrap();
    // When a later question is answered, so were these.
    let mut other = server.connect().await;
    other.write_all(b"PING\r\n").await.unwrap();
    let mut pong = [0; 7];
    other.read_exact(&mut pong).await.unwrap();
    other.write_all(b"SHUTDOWN NOSAVE\r\n").await.unwrap();
    other.read_to_end(&mut Vec::new()).await.unwrap();

    let end = redis.until_dead().await;
    assert!(is_cut_off(&end.cause), "{end}");
    let last = PeerEvent::Message(BytesFrame::BulkString("last".into()));
    let place = redis.events.iter().position(|event| *event == last);
    let behind = place.map(|place| redis.events.len() - place);
    assert_eq!(behind, Some(2), "{:?}", redis.events);
}

// ---- the codec alone -------------------------------------------------------

#[test]
fn replies_may_arrive_in_any_pieces() {
    let nonce = Nonce(*b"8 bytes!");
    let mut resp = Resp::default();
    let mut sent = BytesMut::new();
    for frame in [
        Frame::Data(command(["GET", "key"])),
        Frame::Ping(Some(nonce)),
        Frame::Data(command(["GET", "key"])),
        Frame::Ping(Some(nonce)),
        Frame::Ping(Some(nonce)),
    ] {
        resp.encode(frame, &mut sent).unwrap();
    }
    assert!(sent.ends_with(b"*2\r\n$4\r\nPING\r\n$8\r\n8 bytes!\r\n"));

    let replies = b"$8\r\n8 bytes!\r\n$8\r\n8 bytes!\r\n$-1\r\n-LOADING wait\r\n$8\r\n8 bytes!\r\n";
    let mut arrived = BytesMut::new();
    let mut frames = Vec::new();
    for byte in replies {
        arrived.extend([byte]);
        frames.extend(resp.decode(&mut arrived).unwrap());
    }
    let value = BytesFrame::BulkString(Bytes::from_static(b"8 bytes!"));
    let expected = [
        Frame::Data(value),
        Frame::Pong(Some(nonce)),
        Frame::Data(BytesFrame::Null),
        Frame::Pong(None),
        Frame::Pong(Some(nonce)),
    ];
    assert_eq!(frames, expected);
}

// ---- the two of them -------------------------------------------------------

type Redis = Watched<Heartbeat<TcpStream, Codec<Resp>>, BytesFrame>;

/// Within a transaction the answer to a ping would be one of the transaction's.
#[tokio::test]
async fn a_beat_never_appears_in_a_transaction() {
    let Some((_server, mut redis)) = visit(quick(), &[]).await else {
        return;
    };
    redis.peer.feed(command(["MULTI"])).await.unwrap();
    redis.peer.send(command(["SET", "a", "1"])).await.unwrap();
    let status = |text: &'static str| BytesFrame::SimpleString(text.into());
    assert_eq!(redis.message().await, status("OK"));
    assert_eq!(redis.message().await, status("QUEUED"));
    redis.peer.probe();
    redis.go_on_for(ms(1500)).await;
    redis.peer.feed(command(["GET", "a"])).await.unwrap();
    redis.peer.send(command(["EXEC"])).await.unwrap();
    assert_eq!(redis.message().await, status("QUEUED"));
    let both = vec![status("OK"), BytesFrame::BulkString("1".into())];
    assert_eq!(redis.message().await, BytesFrame::Array(both));
    redis.until_beat().await;
}

/// Not with a ping in each place of it, however it ends.
#[tokio::test]
async fn a_beat_in_any_place_of_a_transaction_changes_no_reply() {
    let Some((server, mut redis)) = visit(eager(), &[]).await else {
        return;
    };
    let mut other = server.connect().await;
    let status = |text: &'static str| BytesFrame::SimpleString(text.into());
    let results = |value: &'static str| {
        BytesFrame::Array(vec![status("OK"), BytesFrame::BulkString(value.into())])
    };
    for (end, is_overtaken) in [("EXEC", false), ("DISCARD", false), ("EXEC", true)] {
        let expected = match (end, is_overtaken) {
            (_, true) => BytesFrame::Null,
            ("EXEC", _) => results("1"),
            _ => status("OK"),
        };
        if is_overtaken {
            redis.peer.feed(command(["WATCH", "a"])).await.unwrap();
            redis.peer.send(command(["PING"])).await.unwrap();
            assert_eq!(redis.message().await, status("OK"));
            assert_eq!(redis.message().await, status("PONG"));
            other.write_all(b"SET a 2\r\n").await.unwrap();
            other.read_exact(&mut [0; 5]).await.unwrap();
        }
        for (words, reply) in [
            (&["WATCH", "b"][..], status("OK")),
            (&["MULTI"], status("OK")),
            (&["SET", "a", "1"], status("QUEUED")),
            (&["GET", "a"], status("QUEUED")),
            (&[end], expected),
        ] {
            redis.peer.probe();
            redis.peer.send(self::words(words)).await.unwrap();
            redis.peer.probe();
            assert_eq!(redis.message().await, reply, "{words:?}");
            redis.go_on_for(ms(60)).await; // three intervals
        }
        redis.until_beat().await;
    }
    redis.assert_alive();
}

#[tokio::test]
async fn replies_find_their_commands_in_a_thousand_transactions_at_once() {
    let Some((_server, mut redis)) = visit(eager(), &[]).await else {
        return;
    };
    redis.until_beat().await;
    let status = |text: &'static str| BytesFrame::SimpleString(text.into());
    for number in 0..1000 {
        let value = format!("{number:08}");
        for command in [
            command(["MULTI"]),
            set(&value),
            command(["GET", "key"]),
            command(["EXEC"]),
        ] {
            redis.peer.feed(command).await.unwrap();
            redis.peer.probe();
        }
    }
    redis.peer.flush().await.unwrap();
    for number in 0..1000 {
        let value = BytesFrame::BulkString(format!("{number:08}").into());
        for reply in [
            status("OK"),
            status("QUEUED"),
            status("QUEUED"),
            BytesFrame::Array(vec![status("OK"), value]),
        ] {
            assert_eq!(redis.message().await, reply, "{number}");
        }
    }
    redis.until_beat().await;
    redis.assert_alive();
}

/// A transaction that the server refuses isn't one, and the server is judged on.
#[tokio::test]
async fn a_server_that_refuses_a_transaction_and_hangs_is_found() {
    let Some((server, mut redis)) = visit(quick(), &["--requirepass", "secret"]).await else {
        return;
    };
    redis.peer.send(command(["MULTI"])).await.unwrap();
    let BytesFrame::Error(refusal) = redis.message().await else {
        panic!("{:?}", redis.events);
    };
    assert!(refusal.starts_with("NOAUTH"), "{refusal}");
    redis.until_beat().await;
    // The first of these is refused, and the other not.
    redis.peer.feed(command(["MULTI"])).await.unwrap();
    redis.peer.feed(command(["AUTH", "secret"])).await.unwrap();
    redis.peer.feed(command(["MULTI"])).await.unwrap();
    redis.peer.send(command(["MULTI"])).await.unwrap();
    for is_refused in [true, false, false, true] {
        let reply = redis.message().await;
        assert_eq!(
            matches!(reply, BytesFrame::Error(_)),
            is_refused,
            "{reply:?}"
        );
    }
    let beats = redis.beats();
    redis.go_on_for(ms(500)).await;
    assert_eq!(redis.beats(), beats, "within a transaction");
    redis.peer.send(command(["DISCARD"])).await.unwrap();
    redis.until_beat().await;

    server.process.stop().unwrap();
    assert_eq!(redis.until_dead().await.cause, Cause::Silent);
}

/// The server answers a command that blocks while our application takes no messages.
#[tokio::test]
async fn a_command_that_blocks_may_be_answered_while_we_read_nothing() {
    let Some((server, redis)) = visit(quick(), &[]).await else {
        return;
    };
    let Driver {
        sender, receiver, ..
    } = redis.peer.spawn();
    sender.send(set("hello")).await.unwrap();
    for _ in 0..5000 {
        sender.send(command(["GET", "key"])).await.unwrap();
    }
    sender.send(command(["BLPOP", "list", "60"])).await.unwrap();
    let mut other = server.connect().await;
    tokio::time::sleep(secs(2)).await; // twice as long as a death takes
    assert_eq!(sender.status().peer.state, State::Paused);
    other.write_all(b"RPUSH list pushed\r\n").await.unwrap();
    tokio::time::sleep(secs(1)).await;

    let mut redis = Watched::new(receiver);
    assert_eq!(redis.message().await, BytesFrame::SimpleString("OK".into()));
    for _ in 0..5000 {
        assert_eq!(
            redis.message().await,
            BytesFrame::BulkString("hello".into())
        );
    }
    let popped = ["list", "pushed"].map(|word| BytesFrame::BulkString(word.into()));
    assert_eq!(redis.message().await, BytesFrame::Array(popped.into()));
    redis.until_beat().await;
    assert_eq!(sender.status().peer.state, State::Alive);
}

/// While a command blocks, nothing behind it is answered, and nobody is blamed for that.
#[tokio::test]
async fn a_server_that_works_on_a_command_lives() {
    let waits = async |command_and_arguments: &[&'static str], options: &[&str]| {
        let config = Config::detect_within(secs(2)).unwrap();
        let Some((_server, mut redis)) = visit(config, options).await else {
            return;
        };
        redis.until_beat().await;
        let began = Instant::now();
        redis.peer.send(words(command_and_arguments)).await.unwrap();
        redis.go_on_for(ms(4500)).await;
        assert_eq!(redis.peer.status().peer.state, State::Occupied);
        redis.until_beat().await;
        assert!(began.elapsed() > ms(4500), "{:?}", began.elapsed());
        assert_eq!(redis.peer.status().peer.state, State::Alive);
        let suspected = |event: &PeerEvent<_>| matches!(event, PeerEvent::Suspect { .. });
        assert!(!redis.events.iter().any(suspected), "{:?}", redis.events);
        redis.peer.send(set("again")).await.unwrap();
        // Nothing of it is left among the replies.
        assert_eq!(redis.message().await, BytesFrame::SimpleString("OK".into()));
    };
    tokio::join!(
        waits(&["BLPOP", "nothing", "8"], &[]),
        waits(&["DEBUG", "SLEEP", "5"], &["--enable-debug-command", "yes"]),
        waits(&["CLIENT", "PAUSE", "5000"], &[]),
    );
}

/// We aren't told: it looks like a server that hangs.
#[tokio::test]
async fn a_server_that_another_client_pauses_is_given_up() {
    let config = Config::detect_within(secs(2)).unwrap();
    let Some((server, mut redis)) = visit(config, &[]).await else {
        return;
    };
    redis.until_beat().await;
    let mut other = server.connect().await;
    other.write_all(b"CLIENT PAUSE 60000\r\n").await.unwrap();
    let death = redis.until_dead().await;
    assert_eq!(death.cause, Cause::Silent);
}

/// Nothing shows that it hangs, because its kernel lives; and that tells its end.
#[tokio::test]
async fn a_server_that_is_stopped_while_it_works_on_a_command_is_found_by_its_end_only() {
    let Some((server, mut redis)) = visit(quick(), &[]).await else {
        return;
    };
    redis
        .peer
        .send(command(["BLPOP", "nothing", "60"]))
        .await
        .unwrap();
    server.process.stop().unwrap();
    // Twice as long as a death takes.
    redis.go_on_for(ms(1600)).await;
    assert_eq!(redis.peer.status().peer.state, State::Occupied);

    let killed = Instant::now();
    server.process.kill().unwrap();
    let death = redis.until_dead().await;
    assert!(is_cut_off(&death.cause), "{death}");
    assert!(killed.elapsed() <= SLACK, "{:?}", killed.elapsed());
}

#[tokio::test]
async fn a_protocol_that_the_codec_does_not_speak_is_not_begun() {
    let mut codec = Resp::default();
    let mut bytes = BytesMut::new();
    let hello = |version| codec.encode(Frame::Data(command(["HELLO", version])), &mut bytes);
    let outcomes = ["3", "2"].map(hello).map(|outcome| outcome.is_ok());
    assert_eq!(outcomes, [false, true]);
}

/// 16 MB through a line of 2 MB/s: the ping waits behind our own data for four times the
/// detection time. A server that is stopped then is found within the bound.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_ping_behind_our_own_data_is_not_the_servers_fault() {
    let Some((server, _)) = visit(seldom(), &[]).await else {
        return;
    };
    let stream = server.connect_slowly(2_000_000).await;
    let config = Config::detect_within(secs(2)).unwrap();
    let mut redis = Watched::new(Heartbeat::with_codec(stream, Resp::default(), config));
    let began = Instant::now();
    let value = Bytes::from(vec![b'x'; 16_000_000]);
    let words = [
        Bytes::from_static(b"SET"),
        Bytes::from_static(b"large"),
        value,
    ];
    let set = BytesFrame::Array(words.map(BytesFrame::BulkString).to_vec());
    redis.peer.send(set).await.unwrap();
    assert_eq!(redis.message().await, BytesFrame::SimpleString("OK".into()));
    assert!(began.elapsed() > secs(6), "{:?}", began.elapsed());
    redis.until_beat().await;

    server.process.stop().unwrap();
    let stopped = Instant::now();
    let death = redis.until_dead().await;
    assert_eq!(death.cause, Cause::Silent);
    let took = stopped.elapsed();
    assert!(took < config.detection_time() + SLACK, "{took:?}");
}

/// A server of our own, and a connection to it.
async fn visit(config: Config, options: &[&str]) -> Option<(Server, Redis)> {
    if !needs("redis-server") {
        return None;
    }
    let server = Server::start(env!("CARGO_BIN_EXE_heartbeat-test-guard"), |port| {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
        // It writes nothing to the disk.
        command.args(["--save", "", "--appendonly", "no"]);
        command.args(options);
        command
    })
    .await;
    let stream = server.connect().await;
    let redis = Heartbeat::with_codec(stream, Resp::default(), config);
    Some((server, Watched::new(redis)))
}

/// Asks every 20 ms.
fn eager() -> Config {
    let often = patient().to_builder().interval(ms(20)).min_interval(ms(10));
    often.build().unwrap()
}

/// Nothing is written that could fail.
fn seldom() -> Config {
    patient().to_builder().interval(secs(30)).build().unwrap()
}

fn set(value: &str) -> BytesFrame {
    words(&["SET", "key", value])
}

fn words(words: &[&str]) -> BytesFrame {
    let word = |word: &&str| BytesFrame::BulkString(Bytes::copy_from_slice(word.as_bytes()));
    BytesFrame::Array(words.iter().map(word).collect())
}
