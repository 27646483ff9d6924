//! A heartbeat with a real PostgreSQL server, which answers nothing while it works on a
//! query: the codec of `examples/postgres`.
//!
//! Real processes, real TCP, real time. The server takes a second of processor time to be
//! made.
#![cfg(unix)]

#[path = "../../examples/postgres/postgres.rs"]
mod protocol;

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use futures::SinkExt;
use heartbeat_tests::{
    Watched, is_cut_off, ms, needs, secs,
    server::{Server, not_as_root},
};
use heartbeat_tokio::{Cause, Codec, Config, Heartbeat, PeerEvent, State};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;
use tokio::{net::TcpStream, time::sleep};

use protocol::{Message, Postgres, query, startup};

const GUARD: &str = env!("CARGO_BIN_EXE_heartbeat-test-guard");

/// How late a process may be on a machine under load.
const SLACK: Duration = ms(1500);

const USER: &str = "postgres";

// ---- what is shown ---------------------------------------------------------

#[tokio::test]
async fn queries_and_copies_may_take_longer_than_the_detection_time() {
    let Some(database) = Database::start().await else {
        return;
    };
    let ((), (), (mut busy, backend), (), (), ()) = tokio::join!(
        sleeps(&database),
        copies(&database),
        hangs(&database),
        copies_with_an_extended_query(&database),
        fails_in_a_transaction(&database),
        is_notified(&database),
    );
    // With one of its own the server ends everybody's.
    kill_process(backend, Signal::KILL).unwrap();
    let death = busy.until_dead().await;
    assert!(is_cut_off(&death.cause), "{death}");
}

async fn sleeps(database: &Database) {
    let mut client = database.client(secs(2)).await;
    client.until_beat().await;
    let began = Instant::now();
    client.peer.send(query("SELECT pg_sleep(6)")).await.unwrap();
    client.go_on_for(secs(4)).await;
    assert_eq!(client.peer.status().peer.state, State::Occupied);
    until_ready(&mut client).await;
    assert!(began.elapsed() >= secs(6), "{:?}", began.elapsed());
    client.until_beat().await;
    assert_unsuspected(&client);
}

/// The server ignores a `Sync` there.
async fn copies(database: &Database) {
    let mut client = database.client(secs(2)).await;
    let table = "CREATE TEMP TABLE lines (line text)";
    client.peer.send(query(table)).await.unwrap();
    until_ready(&mut client).await;
    client.until_beat().await;

    let copy = "COPY lines FROM STDIN";
    client.peer.send(query(copy)).await.unwrap();
    while client.message().await.0 != b'G' {}
    let data = |line: &'static str| Message(b'd', line.into());
    client.peer.send(data("one\n")).await.unwrap();
    client.go_on_for(secs(6)).await;
    client.peer.feed(data("two\n")).await.unwrap();
    client.peer.send(Message(b'c', Bytes::new())).await.unwrap();
    until_ready(&mut client).await;
    client.until_beat().await;

    let lines = "SELECT string_agg(line, ',') FROM lines";
    client.peer.send(query(lines)).await.unwrap();
    let rows = until_ready(&mut client).await;
    let row = rows.iter().find(|message| message.0 == b'D').unwrap();
    assert!(row.1.ends_with(b"one,two"), "{row:?}");
    assert_unsuspected(&client);
}

/// The `Sync` ahead of the data is ignored, and the one behind it answered. Then rows are
/// copied out, of which each is a message.
async fn copies_with_an_extended_query(database: &Database) {
    let mut client = database.client(secs(1)).await;
    let table = "CREATE TEMP TABLE lines (line text)";
    client.peer.send(query(table)).await.unwrap();
    until_ready(&mut client).await;
    let sync = || Message(b'S', Bytes::new());
    for part in [
        Message(b'P', (&b"\0COPY lines FROM STDIN\0\0\0"[..]).into()),
        Message(b'B', (&[0; 8][..]).into()),
        Message(b'E', (&[0; 5][..]).into()),
        sync(),
    ] {
        client.peer.feed(part).await.unwrap();
    }
    client.peer.flush().await.unwrap();
    while client.message().await.0 != b'G' {}
    let data = Message(b'd', "one\n".into());
    client.peer.send(data).await.unwrap();
    client.go_on_for(secs(2)).await;
    client.peer.feed(Message(b'c', Bytes::new())).await.unwrap();
    client.peer.send(sync()).await.unwrap();
    until_ready(&mut client).await;
    client.until_beat().await;
    assert_eq!(client.peer.status().peer.state, State::Alive);

    let rows = "COPY (SELECT generate_series(1, 50000) FROM lines) TO STDOUT";
    client.peer.send(query(rows)).await.unwrap();
    let copied = until_ready(&mut client).await;
    let rows = copied.iter().filter(|message| message.0 == b'd');
    assert_eq!(rows.count(), 50_000);
    client.until_beat().await;
    assert_unsuspected(&client);
}

/// A `Sync` within a transaction neither ends it nor helps it.
async fn fails_in_a_transaction(database: &Database) {
    let mut client = database.client(secs(1)).await;
    for (sql, state) in [
        ("BEGIN", b"T"),
        ("SELECT 1/0", b"E"),
        ("SELECT 1", b"E"),
        ("ROLLBACK", b"I"),
    ] {
        client.peer.send(query(sql)).await.unwrap();
        let ready = loop {
            let message = client.message().await;
            if message.0 == b'Z' {
                break message;
            }
            assert_eq!(message.0 == b'E', state == b"E", "{sql}: {message:?}");
        };
        assert_eq!(&ready.1[..], state, "{sql}");
        client.until_beat().await;
        client.until_beat().await;
    }
    assert_unsuspected(&client);
}

/// What another client says arrives between two beats.
async fn is_notified(database: &Database) {
    let mut client = database.client(secs(1)).await;
    client.peer.send(query("LISTEN news")).await.unwrap();
    until_ready(&mut client).await;
    client.until_beat().await;
    let mut other = database.client(secs(1)).await;
    for _ in 0..3 {
        let notify = "NOTIFY news, 'ReadyForQuery'";
        other.peer.send(query(notify)).await.unwrap();
        until_ready(&mut other).await;
        let told = client.message().await;
        assert_eq!(told.0, b'A', "{told:?}");
        client.until_beat().await;
    }
    assert_unsuspected(&client);
}

/// A backend that is stopped is found in time, unless it works on a query: that one is
/// given back.
async fn hangs(database: &Database) -> (Client, Pid) {
    let mut idle = database.client(secs(2)).await;
    let mut busy = database.client(secs(2)).await;
    let backends = (backend(&idle), backend(&busy));
    idle.until_beat().await;
    busy.peer.send(query("SELECT pg_sleep(60)")).await.unwrap();
    let stopped = Instant::now();
    kill_process(backends.0, Signal::STOP).unwrap();
    kill_process(backends.1, Signal::STOP).unwrap();
    let death = idle.until_dead().await;
    assert_eq!(death.cause, Cause::Silent);
    let took = stopped.elapsed();
    assert!(took < secs(2) + SLACK, "{took:?}");
    kill_process(backends.0, Signal::CONT).unwrap();

    busy.go_on_for(secs(2)).await;
    busy.assert_alive();
    assert_eq!(busy.peer.status().peer.state, State::Occupied);
    (busy, backends.1)
}

/// What a login, a query and an extended one do to pings, byte for byte.
#[test]
fn a_sync_of_ours_leaves_only_between_two_questions() {
    use heartbeat_tokio::{Dialect, Frame};
    use tokio_util::codec::{Decoder, Encoder};

    let ready = b"Z\0\0\0\x05I";
    let mut codec = Postgres::default();
    let mut sent = bytes::BytesMut::new();
    let hear = |codec: &mut Postgres, count: usize| {
        let mut bytes = bytes::BytesMut::from(&*ready.repeat(count));
        (0..count)
            .map(|_| codec.decode(&mut bytes).unwrap().unwrap() == Frame::Pong(None))
            .collect::<Vec<_>>()
    };
    assert!(!codec.may_ping(), "before the login");
    let login = Frame::Data(startup("me"));
    codec.encode(login, &mut sent).unwrap();
    assert_eq!(&sent[..], b"\0\0\0\x11\0\x03\0\0user\0me\0\0");
    assert!(!codec.may_ping() && !codec.answers());
    assert_eq!(hear(&mut codec, 1), [false]);
    assert!(codec.may_ping() && codec.answers());

    sent.clear();
    codec.encode(Frame::Ping(None), &mut sent).unwrap();
    assert_eq!(&sent[..], b"S\0\0\0\x04");
    codec.encode(Frame::Data(query("")), &mut sent).unwrap();
    assert!(!codec.may_ping() && !codec.answers());
    assert_eq!(hear(&mut codec, 2), [true, false]);

    let message = |kind| Frame::Data(Message(kind, Bytes::new()));
    codec.encode(message(b'P'), &mut sent).unwrap();
    assert!(!codec.may_ping(), "within an extended query");
    codec.encode(message(b'S'), &mut sent).unwrap();
    codec.encode(message(b'P'), &mut sent).unwrap();
    assert_eq!(hear(&mut codec, 1), [false]);
    assert!(!codec.may_ping(), "within the next one");

    // It copies, and so the server ignores the `Sync` ahead of the data.
    for kind in *b"Sddc" {
        codec.encode(message(kind), &mut sent).unwrap();
        assert!(!codec.may_ping(), "{kind}");
    }
    codec.encode(message(b'S'), &mut sent).unwrap();
    assert_eq!(hear(&mut codec, 1), [false]);
    assert!(codec.may_ping(), "the copy is complete");
}

// ---- the two of them -------------------------------------------------------

type Client = Watched<Heartbeat<TcpStream, Codec<Postgres>>, Message>;

/// A server of our own, and where its data lies.
struct Database {
    server: Server,
    _folder: TempDir,
}

impl Database {
    async fn start() -> Option<Self> {
        let programs = programs()?;
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        if geteuid().is_root() {
            let owned = Command::new("chown").arg(USER).arg(data).status();
            assert!(owned.unwrap().success());
        }
        let mut make = not_as_root(USER, programs.join("initdb"));
        make.args([
            "--auth=trust",
            "--no-sync",
            "--no-locale",
            "--username",
            USER,
        ]);
        let made = make.arg("-D").arg(data).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let start = |port: u16| {
            let mut command = not_as_root(USER, programs.join("postgres"));
            command
                .arg("-D")
                .arg(data)
                .args(["-h", "127.0.0.1", "-k", ""]);
            // Nothing of it is left behind in the system's shared memory.
            command.args(["-c", "dynamic_shared_memory_type=mmap", "-c", "fsync=off"]);
            command.args(["-p", &port.to_string()]);
            command
        };
        let server = Server::start(GUARD, start).await;
        Some(Self {
            server,
            _folder: folder,
        })
    }

    /// A connection that is logged in.
    async fn client(&self, detection: Duration) -> Client {
        let config = Config::detect_within(detection).unwrap();
        loop {
            let stream = self.server.connect().await;
            stream.set_nodelay(true).unwrap();
            let peer = Heartbeat::with_codec(stream, Postgres::default(), config);
            let mut client = Client::new(peer);
            client.peer.send(startup(USER)).await.unwrap();
            if client.message().await.0 == b'R' {
                until_ready(&mut client).await;
                return client;
            }
            // It listens before it is ready.
            sleep(ms(50)).await;
        }
    }
}

impl Drop for Database {
    /// It takes its shared memory along. What becomes of a server that doesn't end, its
    /// process says.
    fn drop(&mut self) {
        let _ = self.server.process.interrupt();
        let until = Instant::now() + secs(5);
        while Instant::now() < until && matches!(self.server.process.has_ended(), Ok(false)) {
            std::thread::sleep(ms(20));
        }
    }
}

/// Debian's folder for them isn't in the `PATH`.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok();
    let folders = versions.into_iter().flatten().flatten();
    let newest = folders.map(|version| version.path().join("bin")).max();
    newest.or_else(|| needs("postgres").then(PathBuf::new))
}

/// All messages up to the server's `ReadyForQuery`.
async fn until_ready(client: &mut Client) -> Vec<Message> {
    let mut messages = Vec::new();
    loop {
        let message = client.message().await;
        assert_ne!(message.0, b'E', "{message:?}");
        if message.0 == b'Z' {
            return messages;
        }
        messages.push(message);
    }
}

/// The process that serves this client: it said so when it logged in.
fn backend(client: &Client) -> Pid {
    let number = client.events.iter().find_map(|event| match event {
        PeerEvent::Message(Message(b'K', key)) => Some(key.clone().get_i32()),
        _ => None,
    });
    Pid::from_raw(number.unwrap()).unwrap()
}

fn assert_unsuspected(client: &Client) {
    let is_suspect = |event: &PeerEvent<_>| matches!(event, PeerEvent::Suspect { .. });
    assert!(!client.events.iter().any(is_suspect), "{:?}", client.events);
    client.assert_alive();
}
