//! A WebSocket of axum's with a heartbeat, and clients of tungstenite's: `examples/axum.rs`,
//! and what becomes of clients that drop, freeze, or send slowly.
//!
//! Real TCP, real time. What is measured may be late by `SLACK`; what must not happen is
//! far from the times that it could happen at.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use std::{
    io::ErrorKind,
    net::SocketAddr,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{
        ConnectInfo, State,
        ws::{WebSocket, WebSocketUpgrade},
    },
    response::Response,
    routing::any,
};
use futures::SinkExt;
use heartbeat_tests::{Watched, ms, patient, quick, scripted::filler, secs};
use heartbeat_tokio::{
    Cause, Diagnosis, Heartbeat, NetStatus, PeerEvent,
    websocket::{Library, Message, OwnFrames, SUBPROTOCOL, TcpSocket},
};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{client::IntoClientRequest, http::HeaderValue},
};

/// How late a process may be on a machine under load.
const SLACK: Duration = ms(1500);

type Opened = (WebSocket, ConnectInfo<TcpSocket>);

/// A server of axum's that hands over each WebSocket which was opened.
struct Server {
    address: SocketAddr,
    opened: mpsc::UnboundedReceiver<Opened>,
}

impl Server {
    async fn start() -> Self {
        let (tell, opened) = mpsc::unbounded_channel();
        let app = Router::new().route("/socket", any(open)).with_state(tell);
        let app = app.into_make_service_with_connect_info::<TcpSocket>();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(axum::serve(listener, app).into_future());
        Self { address, opened }
    }

    /// A client that has connected, and the server's side of it.
    async fn visit(&mut self) -> (WebSocketStream<TcpStream>, Opened) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let url = format!("ws://{}/socket", self.address);
        let mut request = url.into_client_request().unwrap();
        let wanted = HeaderValue::from_static(SUBPROTOCOL);
        request
            .headers_mut()
            .insert("sec-websocket-protocol", wanted);
        let (client, response) = client_async(request, stream).await.unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], SUBPROTOCOL);
        let opened = timeout(secs(20), self.opened.recv()).await;
        (client, opened.expect("in time").unwrap())
    }
}

async fn open(
    State(tell): State<mpsc::UnboundedSender<Opened>>,
    upgrade: WebSocketUpgrade,
    socket: ConnectInfo<TcpSocket>,
) -> Response {
    let upgrade = upgrade.protocols([SUBPROTOCOL]);
    upgrade.on_upgrade(async move |ws| drop(tell.send((ws, socket))))
}

#[tokio::test]
async fn text_and_binary_go_both_ways_over_axum() {
    let mut server = Server::start().await;
    let (client, opened) = server.visit().await;
    let mut ours = Watched::new(Heartbeat::websocket(opened, patient()));
    let mut client = Watched::new(Heartbeat::websocket(client, patient()));
    // The socket below was named, and the client's is found.
    for status in [ours.peer.status(), client.peer.status()] {
        assert!(matches!(status.safety_net, NetStatus::Applied(_)));
    }
    for message in [
        Message::from("grüß dich"),
        Message::Binary(filler(1, 300_000)),
    ] {
        let answered = async {
            let echo = ours.message().await;
            ours.peer.send(echo).await.unwrap();
        };
        let asking = async {
            client.peer.send(message.clone()).await.unwrap();
            client.message().await
        };
        let (echo, ()) = tokio::join!(asking, answered);
        assert!(echo == message);
    }
    tokio::join!(ours.go_on_for(secs(2)), client.go_on_for(secs(2)));
    assert!(
        ours.beats() >= 3 && client.beats() >= 3,
        "{:?}",
        ours.events
    );
    let serving = async {
        let end = ours.until_ended().await;
        (end, ours) // a handler may keep it
    };
    let (closed, (end, _ours)) = tokio::join!(client.peer.close(), serving);
    closed.unwrap(); // its library has waited for the server's end of TCP
    assert!(matches!(end, PeerEvent::Closed { .. }), "{end:?}");
}

#[tokio::test]
async fn own_frames_go_over_axum() {
    let mut server = Server::start().await;
    let (client, (ws, _)) = server.visit().await;
    assert_eq!(ws.protocol().unwrap(), SUBPROTOCOL);
    let mut ours = Watched::new(Heartbeat::websocket_with(ws, OwnFrames::new(), patient()));
    let mut client = Heartbeat::websocket_with(client, OwnFrames::new(), patient());
    let large = filler(2, 300_000);
    client.feed(large.clone()).await.unwrap();
    let reading = async {
        assert!(ours.message().await == large);
        ours.until_ended().await
    };
    let (closed, end) = tokio::join!(client.close(), reading);
    closed.unwrap();
    assert!(matches!(end, PeerEvent::Closed { .. }), "{end:?}");
}

#[tokio::test]
async fn a_client_of_axum_that_drops_tcp_is_an_end_and_no_fault() {
    let mut server = Server::start().await;
    let (client, opened) = server.visit().await;
    let (other, (bare, _)) = server.visit().await;
    let dropped = Instant::now();
    drop((client, other));
    assert_dropped(opened, dropped).await;
    assert_dropped(bare, dropped).await;
}

async fn assert_dropped(opened: impl Library, since: Instant) {
    // Nothing is written that could fail.
    let config = patient().to_builder().interval(secs(30)).build().unwrap();
    let mut ours = Watched::new(Heartbeat::websocket(opened, config));
    assert_eq!(ours.until_dead().await.cause, Cause::Eof);
    let measured = since.elapsed();
    assert!(measured <= SLACK, "{measured:?}: too late");
}

#[tokio::test]
async fn a_frozen_client_of_axum_is_found_in_time_and_its_socket_is_closed() {
    let mut server = Server::start().await;
    let (client, opened) = server.visit().await;
    let frozen = Instant::now();
    let mut ours = Watched::new(Heartbeat::websocket(opened, quick()));
    let death = ours.until_dead().await;
    let measured = frozen.elapsed();
    assert_eq!(death.cause, Cause::Silent);
    assert!(
        measured >= quick().detection_time(),
        "{measured:?}: too early"
    );
    assert!(
        measured <= quick().detection_time() + SLACK,
        "{measured:?}: too late"
    );
    if cfg!(target_os = "linux") {
        assert_eq!(death.diagnosis, Diagnosis::AppHung);
    }

    // It goes on, and finds that it was given up, while we keep the heartbeat.
    let mut socket = client.into_inner();
    let mut heard = Vec::new();
    let read = timeout(secs(20), socket.read_to_end(&mut heard)).await;
    let end = read.expect("closed").unwrap_err().kind();
    assert_eq!(end, ErrorKind::ConnectionReset);
    drop(ours);
}

#[cfg(target_os = "linux")] // whose kernel tells what arrives
mod a_slow_line {
    use heartbeat_tokio::Config;
    use tokio::{io::AsyncWriteExt, time::interval};

    use super::*;

    /// Without a heartbeat on the other side, and with a message that takes twice the detection
    /// time.
    #[tokio::test]
    async fn a_message_that_arrives_slowly_over_axum_is_life_if_the_socket_is_known() {
        let mut server = Server::start().await;
        let (client, opened) = server.visit().await;
        let (other, (bare, _)) = server.visit().await;
        tokio::spawn(send_slowly(client.into_inner()));
        tokio::spawn(send_slowly(other.into_inner()));
        let known = async {
            let mut ours = Watched::new(Heartbeat::websocket(opened, slow()));
            let began = Instant::now();
            let large = ours.message().await;
            assert!(began.elapsed() > secs(5), "not slow enough");
            assert!(large == Message::Binary(vec![0; 6_000_000].into()));
            ours.assert_alive();
        };
        // As documented.
        let unknown = async {
            let mut ours = Watched::new(Heartbeat::websocket(bare, slow()));
            assert_eq!(ours.until_dead().await.cause, Cause::Silent);
        };
        tokio::join!(known, unknown);
    }

    /// Of 2.6 s.
    fn slow() -> Config {
        patient().to_builder().timeout(ms(800)).build().unwrap()
    }

    /// A message of 6 MB, at 1 MB each second.
    async fn send_slowly(mut socket: TcpStream) {
        let length = 6_000_000_u64;
        // Final, binary, masked with zeros (RFC 6455, section 5.2).
        let mut header = vec![0x82, 0x80 | 127];
        header.extend(length.to_be_bytes());
        header.extend([0; 4]);
        socket.write_all(&header).await.unwrap();
        let mut each = interval(ms(20));
        for _ in 0..300 {
            each.tick().await;
            if socket.write_all(&[0; 20_000]).await.is_err() {
                return; // it was given up
            }
        }
        std::future::pending().await
    }
}

#[cfg(unix)] // SIGSTOP
mod the_program {
    use std::{
        io::{BufRead, BufReader},
        process::{Command, Stdio},
    };

    use heartbeat_tests::{example, process::PeerProcess};
    use tokio::task::spawn_blocking;

    use super::*;

    #[tokio::test]
    async fn the_axum_program_finds_a_client_that_is_stopped() {
        let program = example("axum");
        let (server, mut said) = start(&mut Command::new(&program));
        let url = next_line(&mut said).await;
        let (client, mut heard) = start(Command::new(&program).arg(url));
        assert!(next_line(&mut heard).await.contains("message"));
        client.stop().unwrap();
        let stopped = Instant::now();
        loop {
            let line = next_line(&mut said).await;
            if line.contains("dead") {
                assert!(line.contains("silent"), "{line}");
                break;
            }
        }
        let measured = stopped.elapsed();
        assert!(measured <= ms(2500) + SLACK, "{measured:?}: too late");
        drop((server, client));
    }

    type Lines = mpsc::UnboundedReceiver<String>;

    fn start(command: &mut Command) -> (PeerProcess, Lines) {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = PeerProcess::spawn(command).unwrap();
        let (_, output) = process.take_pipes().unwrap();
        let (tell, lines) = mpsc::unbounded_channel();
        spawn_blocking(move || {
            for line in BufReader::new(output).lines() {
                let _ = line.map(|line| tell.send(line));
            }
        });
        (process, lines)
    }

    async fn next_line(lines: &mut Lines) -> String {
        let line = timeout(secs(20), lines.recv()).await;
        line.expect("in time").expect("it goes on")
    }
}
