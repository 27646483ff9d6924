//! Connections to oneself, on real sockets.

use std::time::Duration;

use futures::StreamExt;
use heartbeat_core::ProtocolError;
use heartbeat_tests::{quick, secs};
use heartbeat_tokio::{Cause, Config, Evidence, Heartbeat, PeerEvent};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};

const KINDS: [Evidence; 4] = [
    Evidence::Acknowledgement,
    Evidence::AnyBytes,
    Evidence::Frame,
    Evidence::Echo,
];

const SOON: Duration = secs(20);

fn counting(evidence: Evidence) -> Config {
    quick().to_builder().evidence(evidence).build().unwrap()
}

/// It ends as a loop, and nothing else is told.
async fn meets_itself(stream: TcpStream, evidence: Evidence) {
    let heartbeat = Heartbeat::new(stream, counting(evidence));
    let events: Vec<_> = timeout(SOON, heartbeat.collect()).await.unwrap();
    let [PeerEvent::Dead(death)] = &events[..] else {
        panic!("{evidence:?}: {events:?}");
    };
    assert_eq!(death.cause, Cause::Protocol(ProtocolError::Loop));
}

/// The client's own port, of all that are free, is that of its server, which isn't
/// up: TCP connects the socket with itself.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_client_that_is_connected_to_itself_knows_it() {
    use heartbeat_tests::free_address;
    use tokio::net::TcpSocket;

    for evidence in KINDS {
        let address = free_address().unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let stream = socket.connect(address).await.unwrap();
        assert_eq!(stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        meets_itself(stream, evidence).await;
    }
}

#[tokio::test]
async fn a_client_of_an_echo_server_knows_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    for evidence in KINDS {
        let stream = TcpStream::connect(address).await.unwrap();
        meets_itself(stream, evidence).await;
    }
    server.abort();
}
