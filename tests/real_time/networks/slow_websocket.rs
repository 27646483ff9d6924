//! A WebSocket client in Python, which knows nothing of us, behind a line of 1.6 Mbit/s. It
//! reads all the time, and its pongs wait until it has read what is ahead of our pings. A
//! client that is frozen there is found within the bound of docs/timings.md.
//!
//! ```text
//! left   data, pings ──▶ │ a queue of one second │ ──▶ right
//!        ◀─────────────────────────────────── pongs ──
//! ```
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "how a test fails")]

use std::{
    fs,
    net::SocketAddr,
    process::Command,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use futures::{SinkExt, StreamExt};
use heartbeat_tests::{
    ms, needs_python_with,
    network::{LEFT, Network},
    process::PeerProcess,
    secs,
};
use heartbeat_tokio::{
    Cause, Config, Death, Heartbeat, PeerEvent, SendError,
    websocket::{Connection, Message},
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{WebSocketStream, accept_async};

const GUARD: &str = env!("CARGO_BIN_EXE_heartbeat-test-guard");

/// How late a process may be on a machine under load.
const SLACK: Duration = ms(1500);

/// Bytes a second.
const RATE: u64 = 200_000;

/// The most that the client's kernel takes while the client doesn't read.
const RECEIVE_BUFFER: u64 = 256 * 1024;

type Client = Connection<WebSocketStream<TcpStream>>;

/// 20 s on this line, and the detection time is 14 s.
#[test]
fn a_client_lives_that_reads_one_large_message_for_longer_than_the_detection_time() {
    let config = Config::default();
    behind_the_line(config, async move |mut client, _process| {
        let took = send_one(&mut client, 4_000_000).await;
        assert!(took > config.detection_time(), "{took:?}: not slow enough");
    });
}

#[test]
fn a_client_lives_that_reads_a_message_with_a_shorter_detection_time() {
    let config = Config::detect_within(secs(5)).unwrap();
    behind_the_line(config, async |mut client, _process| {
        let took = send_one(&mut client, 1_000_000).await;
        assert!(took > ms(4500), "{took:?}: not slow enough");
        // The next ping isn't behind anything.
        let before = client.status().peer.pongs;
        while client.status().peer.pongs == before {
            assert_lives(&timeout(secs(20), client.next()).await.unwrap());
        }
    });
}

#[test]
fn a_client_lives_that_reads_small_messages_and_is_found_when_it_freezes() {
    let config = Config::detect_within(secs(5)).unwrap();
    behind_the_line(config, async move |mut client, process| {
        let began = Instant::now();
        while began.elapsed() < secs(12) {
            send_small(&mut client).await.unwrap();
        }
        let status = client.status();
        assert!(status.peer.pongs > 0, "{status:?}");

        process.stop().unwrap();
        let stopped = Instant::now();
        let death = loop {
            if let Err(death) = send_small(&mut client).await {
                break death;
            }
        };
        let took = stopped.elapsed();
        println!("{took:?}: {death}");
        let is_stuck = matches!(death.cause, Cause::Silent | Cause::WriteStalled);
        assert!(is_stuck, "{death}");
        // B/R + I + N·W, and what its kernel took is seen at most I later.
        let behind = secs(1) * u32::try_from(RECEIVE_BUFFER / RATE + 1).unwrap();
        let bound = behind + config.detection_time() + config.interval();
        assert!(took < bound + SLACK, "{took:?}, at most {bound:?}: {death}");
    });
}

/// Sends a message, and says how long it takes until the client has all of it.
async fn send_one(client: &mut Client, length: usize) -> Duration {
    let began = Instant::now();
    let message = Message::Binary(vec![7; length].into());
    client.send(message).await.unwrap();
    loop {
        match timeout(secs(60), client.next()).await.unwrap() {
            Some(PeerEvent::Message(message)) => {
                assert_eq!(message, Message::Text(length.to_string()));
                return began.elapsed();
            }
            other => assert_lives(&other),
        }
    }
}

async fn send_small(client: &mut Client) -> Result<(), Death> {
    let message = Message::Binary(vec![7; 1000].into());
    let sent = timeout(secs(60), client.send(message)).await.unwrap();
    match sent {
        Ok(()) => Ok(()),
        Err(SendError::Dead(death)) => Err(death),
        Err(other) => panic!("{other}"),
    }
}

fn assert_lives(event: &Option<PeerEvent<Message>>) {
    let event = event.as_ref().expect("it goes on");
    assert!(!event.is_terminal(), "{event:?}");
}

/// Serves a client on the other side of a slow line.
fn behind_the_line(config: Config, serve: impl AsyncFnOnce(Client, PeerProcess) + Send) {
    let test = "a WebSocket on a slow line";
    let (Some(network), Some(python)) = (Network::or_skip(test), needs_python_with("websockets"))
    else {
        return;
    };
    slow_down(&network);
    let (send_address, address) = mpsc::channel();
    let (send_process, process) = mpsc::channel();
    let (done, is_done) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(|| {
            let start = move || {
                let address: SocketAddr = address.recv().unwrap();
                let mut command = Command::new(python);
                command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/support/visitor.py"));
                command.arg(address.to_string()).arg("--quiet");
                send_process
                    .send(PeerProcess::guarded(GUARD, &command)?)
                    .unwrap();
                // It ends with the thread that started it.
                let _ = is_done.recv();
                Ok(())
            };
            network.right.enter(start).unwrap();
        });
        let serving = move || {
            run(async move {
                let listener = TcpListener::bind((LEFT, 0)).await?;
                send_address.send(listener.local_addr()?).unwrap();
                let (stream, _) = timeout(secs(30), listener.accept()).await??;
                let socket = timeout(secs(30), accept_async(stream)).await?;
                let client = Heartbeat::websocket(socket.unwrap(), config);
                serve(client, process.recv().unwrap()).await;
                drop(done);
                Ok(())
            })
        };
        network.left.enter(serving).unwrap();
    });
}

fn slow_down(network: &Network) {
    let rate = RATE * 8 / 1000;
    let limit = RATE;
    let line = format!("qdisc replace dev to1 root tbf rate {rate}kbit burst 5kb limit {limit}");
    network.router.tc(&[&line]).unwrap();
    let sizes = format!("4096 65536 {RECEIVE_BUFFER}");
    let limited = network
        .right
        .enter(|| fs::write("/proc/sys/net/ipv4/tcp_rmem", sizes));
    limited.unwrap();
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().unwrap();
    runtime.block_on(test)
}
