//! A connection that leads to something else than the peer: a real haproxy, whose backend
//! is down, or which puts a PROXY header ahead of what a client says. The messages are those
//! of docs/guide/faq.md.
//!
//! Real processes, real TCP, real time.
#![cfg(unix)]

use std::{fs, process::Command};

use heartbeat_tests::{Watched, free_address, is_cut_off, secs, server::Server};
use heartbeat_tokio::{Cause, Config, Diagnosis, Heartbeat, PeerEvent};
use tempfile::NamedTempFile;
use tokio::net::TcpListener;

use crate::brokers::program;

/// A proxy that hands connections on to a backend.
struct Proxy {
    server: Server,
    _settings: NamedTempFile,
}

async fn haproxy(backend: &str) -> Option<Proxy> {
    let program = program("haproxy", "/usr/sbin/haproxy")?;
    let settings = NamedTempFile::new().unwrap();
    let server = Server::start(env!("CARGO_BIN_EXE_heartbeat-test-guard"), |port| {
        let text = format!(
            "defaults\n mode tcp\n timeout connect 30s\n timeout client 30s\n timeout server 30s\n\
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

/// The proxy's kernel acknowledges, and the proxy tries to reach its backend for three
/// seconds. Then it hangs up.
#[tokio::test]
async fn a_proxy_without_a_backend_never_answers_and_hangs_up() {
    let down = free_address().unwrap();
    let Some(proxy) = haproxy(&down.to_string()).await else {
        return;
    };
    let client = async |detection| {
        let stream = proxy.server.connect().await;
        let config = Config::detect_within(detection).unwrap();
        let mut client = Watched::new(Heartbeat::new(stream, config));
        let death = client.until_dead().await;
        let is_connected = |event: &PeerEvent<_>| matches!(event, PeerEvent::Connected { .. });
        assert!(!client.events.iter().any(is_connected));
        death
    };
    let (hasty, patient) = tokio::join!(client(secs(1)), client(secs(14)));
    // No peer ever answered, so there is no round trip.
    let told = hasty.to_string();
    assert_eq!(hasty.cause, Cause::Silent);
    assert!(!told.contains("round trip"), "{told}");
    if cfg!(target_os = "linux") {
        assert_eq!(hasty.diagnosis, Diagnosis::AppHung, "{told}");
    }
    assert!(is_cut_off(&patient.cause), "{patient}");
}

/// It comes before the client's Hello.
#[tokio::test]
async fn a_proxy_header_is_named_by_its_first_bytes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend = format!("{} send-proxy", listener.local_addr().unwrap());
    let Some(proxy) = haproxy(&backend).await else {
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
