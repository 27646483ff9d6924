//! `examples/tunnel`: programs that know nothing of it, through two processes.
#![cfg(target_os = "linux")]

use std::{
    io::ErrorKind,
    net::SocketAddr,
    process::Command,
    time::{Duration, Instant},
};

use heartbeat_tests::{example, ms, needs, secs, server::Server};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy, split},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

const GUARD: &str = env!("CARGO_BIN_EXE_heartbeat-test-guard");

/// How soon an end knows that the other is gone.
const BOUND: Duration = secs(2);

/// How late a process may be on a machine under load.
const SLACK: Duration = ms(1500);

/// The two ends of a tunnel to `server`: where programs enter, and where they leave.
async fn tunnel_to(server: SocketAddr) -> (Server, Server) {
    let program = example("tunnel");
    let end = |role: &'static str, option: &'static str, other: SocketAddr| {
        let program = program.clone();
        move |port: u16| {
            let mut command = Command::new(&program);
            command
                .args([role, "--listen", &format!("127.0.0.1:{port}")])
                .args([option, &other.to_string(), "--detect-within", "2s"]);
            command
        }
    };
    let exit = Server::start(GUARD, end("exit", "--to", server)).await;
    let entry = Server::start(GUARD, end("enter", "--exit", exit.address)).await;
    (entry, exit)
}

#[tokio::test]
async fn redis_goes_through_a_tunnel_unchanged() {
    if !needs("redis-server") {
        return;
    }
    let redis = Server::start(GUARD, |port| {
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
        command.args(["--save", "", "--appendonly", "no"]);
        command
    });
    let redis = redis.await;
    let (entry, _exit) = tunnel_to(redis.address).await;
    let mut client = entry.connect().await;

    // One large value there and back, with bytes that aren't text.
    let value: Vec<u8> = (0..=255).cycle().take(3_000_000).collect();
    let (mut replies, mut commands) = client.split();
    let header = format!("*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n${}\r\n", value.len());
    let set = [header.as_bytes(), &value, b"\r\nGET key\r\n"].concat();
    let expected = [
        format!("+OK\r\n${}\r\n", value.len()).as_bytes(),
        &value,
        b"\r\n",
    ]
    .concat();
    let mut received = vec![0; expected.len()];
    let exchanged =
        async { tokio::try_join!(commands.write_all(&set), replies.read_exact(&mut received)) };
    timeout(secs(20), exchanged).await.unwrap().unwrap();
    assert!(received == expected);

    // Many small ones at once, and the server ends the connection.
    let commands = [&b"INCR n\r\n".repeat(10_000)[..], b"QUIT\r\n"].concat();
    let (mut replies, mut writer) = split(client);
    let mut received = String::new();
    let exchanged = async {
        tokio::try_join!(
            writer.write_all(&commands),
            replies.read_to_string(&mut received)
        )
    };
    timeout(secs(20), exchanged).await.unwrap().unwrap();
    assert!(received.ends_with(":10000\r\n+OK\r\n"));
    assert_eq!(received.lines().count(), 10_001);
}

#[tokio::test]
async fn each_of_many_programs_is_reset_in_time_when_either_end_freezes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for frozen in ["entry", "exit"] {
        let (entry, exit) = tunnel_to(listener.local_addr().unwrap()).await;
        let mut pairs = Vec::new();
        while pairs.len() < 30 {
            let mut client = entry.connect().await;
            client.write_all(b"hello").await.unwrap();
            // The wait for the ends to listen was a connection too.
            let (mut server, mut word) = (listener.accept().await.unwrap().0, [0; 5]);
            while server.read_exact(&mut word).await.is_err() {
                server = listener.accept().await.unwrap().0;
            }
            assert_eq!(&word, b"hello");
            pairs.push((client, server));
        }
        let (stops, goes_on) = match frozen {
            "entry" => (&entry, &exit),
            _ => (&exit, &entry),
        };
        // For as long as a death takes nothing happens to the living.
        let (client, server) = &mut pairs[0];
        let ends = async { tokio::join!(client.read_u8(), server.read_u8()) };
        assert!(timeout(BOUND, ends).await.is_err());

        stops.process.stop().unwrap();
        let began = Instant::now();
        let mut told = JoinSet::new();
        for (client, server) in pairs {
            let (mut on_this_side, other) = match frozen {
                "entry" => (server, client),
                _ => (client, server),
            };
            told.spawn(async move {
                let error = on_this_side.read_u8().await.unwrap_err();
                (error.kind(), began.elapsed(), other)
            });
        }
        let mut others = Vec::new();
        while let Some(told) = timeout(secs(20), told.join_next()).await.unwrap() {
            let (kind, after, other) = told.unwrap();
            assert_eq!(kind, ErrorKind::ConnectionReset);
            assert!(after <= BOUND + SLACK, "{frozen}: {after:?}");
            assert!(after >= BOUND / 3, "{frozen}: {after:?}");
            others.push(other);
        }
        // The frozen end hears that it was given up, and resets its side too.
        stops.process.go_on().unwrap();
        for mut other in others {
            let end = timeout(secs(20), other.read_u8()).await.unwrap();
            assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
        assert!(TcpStream::connect(goes_on.address).await.is_ok());
    }
}

#[tokio::test]
async fn a_half_close_passes_and_a_program_that_breaks_off_is_no_end_of_file() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (entry, _exit) = tunnel_to(listener.local_addr().unwrap()).await;
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut received = Vec::new();
            // That nothing more comes is how the server knows that it is its turn.
            match stream.read_to_end(&mut received).await {
                Ok(_) => stream.write_all(&received).await.unwrap(),
                // A look whether the tunnel listens came through it.
                Err(_) if received.is_empty() => {}
                Err(error) => return error.kind(),
            }
        }
    });
    let mut client = entry.connect().await;
    client.write_all(b"all of it").await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = Vec::new();
    copy(&mut client, &mut answer).await.unwrap();
    assert_eq!(answer, b"all of it");

    let mut client = entry.connect().await;
    client.write_all(b"only hal").await.unwrap();
    client.flush().await.unwrap();
    tokio::time::sleep(ms(200)).await;
    client.set_zero_linger().unwrap();
    drop(client);
    let end = timeout(secs(20), serving).await.unwrap().unwrap();
    assert_eq!(end, ErrorKind::ConnectionReset);
}
