//! A side that gives its peer up tells it why, and a process that was frozen
//! learns so when it goes on.
#![cfg(unix)]

use std::{
    io::Read,
    net::SocketAddr,
    process::{Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, future::try_join_all};
use heartbeat_core::{Control, GoodbyeCode, Nonce};
use heartbeat_tests::{framed, ms, process::PeerProcess, quick, secs};
use heartbeat_tokio::{Cause, Config, Death, Heartbeat, PeerEvent};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    runtime::Builder,
    task::LocalSet,
    time::timeout,
};

const RUNS: usize = 12;

/// Longer than any side waits.
const FROZEN: Duration = secs(10);

#[test]
fn a_process_that_was_frozen_learns_why_it_was_left() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let tasks = LocalSet::new();
    let runs: Vec<_> = (0..RUNS)
        .map(|run| tasks.spawn_local(freeze(ms(200) * u32::try_from(run).unwrap() / 12)))
        .collect();
    let words = tasks.block_on(&runtime, try_join_all(runs)).unwrap();
    for said in words {
        // The peer's words: our verdict, and how long it was silent for.
        let told = "given up by the peer, silent: \"silent for 8";
        assert!(said.starts_with(told), "{said}");
    }
}

/// What a process says that was frozen at this phase of an interval.
async fn freeze(phase: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut process = start(address);
    let (stream, _) = listener.accept().await.unwrap();
    let mut heartbeat = Heartbeat::new(stream, quick());
    heartbeat.probe();
    while !matches!(heartbeat.next().await, Some(PeerEvent::Beat { .. })) {}
    let early = timeout(phase, end(&mut heartbeat)).await;
    assert!(early.is_err(), "{early:?}");

    process.stop().unwrap();
    let thawed = tokio::time::sleep(FROZEN);
    let death = dead(&mut heartbeat).await;
    assert_eq!(death.cause, Cause::Silent);
    assert!(heartbeat.get_ref().is_none(), "the stream is closed");
    thawed.await;
    process.go_on().unwrap();
    let (_, mut output) = process.take_pipes().unwrap();
    let said = tokio::task::spawn_blocking(move || {
        let mut said = String::new();
        output.read_to_string(&mut said).map(|_| said)
    });
    let said = said.await.unwrap().unwrap();
    assert!(!process.wait().unwrap().success());
    said
}

/// A process that gives up long after us.
fn start(address: SocketAddr) -> PeerProcess {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heartbeat-test-peer"));
    command.arg(address.to_string()).arg("60000");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    PeerProcess::spawn(&mut command).unwrap()
}

#[test]
fn a_peer_that_is_given_up_for_what_it_sends_is_told() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    // A Hello with timings that are too short for other peers, a flood, a frame of a later
    // version.
    let hasty = Config::detect_within(ms(50)).unwrap();
    let flood = (0..20_000_u64).map(|ping| Control::Ping(Nonce(ping.to_be_bytes())));
    let flood = flood.flat_map(|ping| encoded(&ping)).collect();
    let cases: [(Config, Vec<u8>, Cause, &str); 3] = [
        (hasty, Vec::new(), given_up(GoodbyeCode::REFUSED), "50ms"),
        (
            quick(),
            flood,
            given_up(GoodbyeCode::PING_FLOOD),
            "one ping in 100ms is accepted",
        ),
        (
            quick(),
            framed(&[9, 0, 0]),
            given_up(GoodbyeCode::PROTOCOL),
            "unknown frame tag 0x09",
        ),
    ];
    for (config, bytes, expected, detail) in cases {
        for run in 0..RUNS {
            let death = runtime.block_on(rude(config, &bytes));
            let Cause::GivenUp { code, detail: said } = &death.cause else {
                panic!("{run}: {death}");
            };
            assert_eq!(given_up(*code), expected, "{run}: {death}");
            assert!(said.contains(detail), "{run}: {death}");
        }
    }
}

/// How a connection ends for a side that sends these bytes of its own.
async fn rude(config: Config, bytes: &[u8]) -> Death {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap());
    let (stream, accepted) = tokio::join!(stream, listener.accept());
    let mut other = Heartbeat::new(accepted.unwrap().0, quick());
    let rude = async {
        let mut stream = stream.unwrap();
        let hello = Control::Hello(config.hello([1; 8]));
        stream.write_all(&encoded(&hello)).await.unwrap();
        // The reset may come before all of it is written.
        let _ = stream.write_all(bytes).await;
        dead(&mut Heartbeat::new(stream, config)).await
    };
    let (theirs, ours) = tokio::join!(dead(&mut other), rude);
    assert_eq!(theirs.cause.goodbye(), code_of(&ours), "{theirs}, {ours}");
    ours
}

fn code_of(death: &Death) -> Option<GoodbyeCode> {
    match death.cause {
        Cause::GivenUp { code, .. } => Some(code),
        _ => None,
    }
}

fn given_up(code: GoodbyeCode) -> Cause {
    let detail = "".into();
    Cause::GivenUp { code, detail }
}

fn encoded(control: &Control) -> Vec<u8> {
    let mut buffer = [0; Control::MAX_ENCODED];
    framed(control.encode(&mut buffer).unwrap())
}

async fn dead<S>(heartbeat: &mut Heartbeat<S>) -> Death
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    match timeout(secs(20), end(heartbeat)).await.unwrap() {
        PeerEvent::Dead(death) => death,
        event => panic!("{event}"),
    }
}

async fn end<S>(heartbeat: &mut Heartbeat<S>) -> PeerEvent<Bytes>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    loop {
        let event = heartbeat.next().await.unwrap();
        if event.is_terminal() {
            return event;
        }
    }
}
