//! A real haproxy in between: its backend is down, it puts a PROXY header ahead of what a
//! client says, or it gives up a client that says nothing. The messages are those of
//! docs/guide/faq.md.
//!
//! Real processes, real TCP, real time.
#![cfg(unix)]

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use futures::StreamExt;
use heartbeat_tests::{Watched, free_address, is_cut_off, ms, secs, server::Server};
use heartbeat_tokio::{Cause, Config, Death, Diagnosis, Heartbeat};
use tempfile::NamedTempFile;
use tokio::{
    net::TcpListener,
    time::{interval, timeout},
};

use crate::brokers::program;

/// A proxy that hands connections on to a backend.
struct Proxy {
    server: Server,
    _settings: NamedTempFile,
}

async fn haproxy(backend: &str, limit: &str) -> Option<Proxy> {
    let program = program("haproxy", "/usr/sbin/haproxy")?;
    let settings = NamedTempFile::new().unwrap();
    let server = Server::start(env!("CARGO_BIN_EXE_heartbeat-test-guard"), |port| {
        let text = format!(
            "defaults\n mode tcp\n option independent-streams\n timeout connect 30s\n \
             timeout client {limit}\n timeout server {limit}\n\
             listen proxy\n bind 127.0.0.1:{port}\n server backend {backend}\n"
        );
        fs::write(settings.path(), text).unwrap();
        let mut command = Command::new(&program);
        // In the foreground, and without processes of its own.
        command.arg("-db").arg("-f").arg(settings.path());
        command
    })
    .await;
    Some(Proxy {
        server,
        _settings: settings,
    })
}

/// What becomes of a client that is dead after this time at most.
async fn visit(proxy: &Proxy, detection: Duration) -> Death {
    let stream = proxy.server.connect().await;
    let config = Config::detect_within(detection).unwrap();
    Watched::new(Heartbeat::new(stream, config))
        .until_dead()
        .await
}

/// The proxy's kernel acknowledges, and the proxy tries to reach its backend for three
/// seconds. Then it hangs up. One that looks after its backends hangs up at once.
#[tokio::test]
async fn a_proxy_without_a_backend_is_told_as_a_peer_that_was_never_heard() {
    let down = free_address().unwrap().to_string();
    let checked = format!("{down} check inter 50ms fall 1");
    let (Some(proxy), Some(knows)) = tokio::join!(haproxy(&down, "30s"), haproxy(&checked, "30s"))
    else {
        return;
    };
    let began = Instant::now();
    let (hasty, patient) = tokio::join!(visit(&proxy, secs(1)), visit(&proxy, secs(14)));
    let took = began.elapsed();
    let at_once = visit(&knows, secs(14)).await;
    println!("{hasty}\n{patient} after {took:?}\n{at_once}");

    assert_eq!(hasty.cause, Cause::Silent);
    for death in [&patient, &at_once] {
        assert!(is_cut_off(&death.cause), "{death}");
        assert_eq!(death.diagnosis, Diagnosis::Unknown);
    }
    assert!(took > secs(2) && took < secs(9), "{took:?}");
    if cfg!(target_os = "linux") {
        assert_eq!(hasty.diagnosis, Diagnosis::AppHung);
        let words = ", nothing ever arrived: only its kernel answers";
        assert!(hasty.to_string().ends_with(words), "{hasty}");
        for death in [patient, at_once] {
            let told = death.to_string();
            assert!(told.ends_with(", nothing ever arrived"), "{told}");
        }
    }
}

/// The server sends all the time, so nobody asks, and the proxy hears nothing of the client.
/// The proxy's limit is a second.
#[tokio::test]
async fn half_of_a_proxys_time_limit_keeps_a_connection_open() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend = listener.local_addr().unwrap().to_string();
    let Some(proxy) = haproxy(&backend, "1s").await else {
        return;
    };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let server = Heartbeat::new(stream, Config::default()).spawn();
            tokio::spawn(async move {
                let mut every = interval(ms(100));
                while server.sender.send("news".into()).await.is_ok() {
                    every.tick().await;
                }
            });
        }
    });
    let client = async |config| {
        let stream = proxy.server.connect().await;
        let mut client = Heartbeat::new(stream, config);
        let began = Instant::now();
        let until_dead = async {
            while client
                .next()
                .await
                .is_some_and(|event| !event.is_terminal())
            {}
        };
        let ended = timeout(secs(4), until_dead).await.is_ok();
        (ended, began.elapsed(), client.status().peer.pings)
    };
    let speaks = Config::builder().speak_within(ms(500)).build().unwrap();
    let (mute, speaks) = tokio::join!(client(Config::default()), client(speaks));
    assert!(mute.0 && mute.1 < secs(3), "{mute:?}");
    assert!(!speaks.0, "{speaks:?}");
}

/// It comes before the client's Hello.
#[tokio::test]
async fn a_proxy_header_is_named_by_its_first_bytes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend = format!("{} send-proxy", listener.local_addr().unwrap());
    let Some(proxy) = haproxy(&backend, "30s").await else {
        return;
    };
    let _client = proxy.server.connect().await;
    let (stream, _) = listener.accept().await.unwrap();
    let mut client = Watched::new(Heartbeat::new(stream, Config::default()));
    let end = client.until_ended().await.to_string();
    let told = "dead: protocol violated: a frame of 1347571544 bytes, at most 256 are accepted, \
                silent for ";
    assert!(end.starts_with(told), "{end}");
}
