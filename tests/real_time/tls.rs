//! Over TLS (rustls) and a real socket: the same events, and the safety net on
//! the socket below.

use std::sync::Arc;

use futures::{SinkExt, StreamExt};
use heartbeat_tests::{by_peer, ms, notable, quick};
use heartbeat_tokio::{Cause, CloseReason, Config, Heartbeat, PeerEvent, SendError};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector, TlsStream,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        pki_types::{PrivateKeyDer, ServerName},
    },
};

type Tls = TlsStream<TcpStream>;

#[tokio::test]
async fn messages_beats_and_a_goodbye_pass_in_both_directions() {
    let (client, server) = connected().await;
    let (mut client, mut server) = (wrapped(client, quick()), wrapped(server, quick()));
    let serving = tokio::spawn(async move {
        let mut seen = Vec::new();
        while let Some(event) = server.next().await {
            if let PeerEvent::Message(message) = &event {
                server.send(message.clone()).await.unwrap();
            }
            seen.push(event);
        }
        seen
    });
    let connected = client.next().await;
    assert!(
        matches!(connected, Some(PeerEvent::Connected { .. })),
        "{connected:?}"
    );
    client.probe();
    let beat = client.next().await;
    assert!(matches!(beat, Some(PeerEvent::Beat { .. })), "{beat:?}");
    // Larger than a record of TLS, and than what its buffers hold.
    let large = vec![7; 1 << 20];
    client.send(large.clone().into()).await.unwrap();
    let echoed = loop {
        match client.next().await.unwrap() {
            PeerEvent::Message(message) => break message,
            event => assert!(!event.is_terminal(), "{event:?}"),
        }
    };
    assert!(echoed == large, "another message");

    client.close().await.unwrap();
    let seen = serving.await.unwrap();
    let reason = by_peer();
    assert_eq!(notable(&seen).last(), Some(&&PeerEvent::Closed { reason }));
    let last = client.collect::<Vec<_>>().await.pop();
    let reason = CloseReason::Local;
    assert_eq!(last, Some(PeerEvent::Closed { reason }));
}

/// The peer's kernel goes on acknowledging; nobody polls the other end.
#[tokio::test]
async fn a_peer_that_hangs_is_found_in_time() {
    let (client, server) = connected().await;
    let (mut client, mut server) = (wrapped(client, quick()), wrapped(server, quick()));
    // It lives for a while.
    let both = async { tokio::join!(terminal(&mut client), terminal(&mut server)) };
    assert!(timeout(ms(1_000), both).await.is_err());

    let hung = Instant::now();
    let PeerEvent::Dead(death) = terminal(&mut client).await else {
        panic!("it didn't die")
    };
    assert_eq!(death.cause, Cause::Silent);
    assert!(death.silent_for >= ms(800), "{death}");
    assert!(hung.elapsed() < ms(1_800), "{:?}", hung.elapsed());
    drop(server);
}

#[tokio::test]
async fn a_send_to_a_peer_that_hangs_ends_with_the_verdict() {
    let (client, _server) = connected().await;
    let mut client = wrapped(client, quick());
    let begun = Instant::now();
    let error = loop {
        if let Err(error) = client.send(vec![0; 1 << 20].into()).await {
            break error;
        }
    };
    assert!(matches!(error, SendError::Dead(_)), "{error:?}");
    assert!(begun.elapsed() < ms(2_800), "{:?}", begun.elapsed());
}

/// A killed process sends no `close_notify`, which rustls reports as an error.
#[tokio::test]
async fn a_connection_that_ends_without_close_notify_is_an_end_without_goodbye() {
    let (client, server) = connected().await;
    let mut client = wrapped(client, quick());
    drop(server);
    let PeerEvent::Dead(death) = terminal(&mut client).await else {
        panic!("it didn't die")
    };
    assert!(matches!(death.cause, Cause::Eof | Cause::Reset), "{death}");
}

// On Windows socket2 reads no keepalive back.
#[cfg(not(windows))]
mod safety_net {
    use heartbeat_tests::secs;
    use heartbeat_tokio::{NetStatus, SafetyNet};

    use super::*;

    #[tokio::test]
    async fn the_socket_below_has_the_safety_net() {
        let config = Config::builder()
            .interval(secs(40))
            .timeout(secs(20))
            .build()
            .unwrap();
        let (client, server) = connected().await;
        let options = |heartbeat: &Heartbeat<Tls>| {
            let socket = socket2::SockRef::from(heartbeat.get_ref().unwrap().get_ref().0);
            let time = socket.tcp_keepalive_time().unwrap();
            (socket.keepalive().unwrap(), time)
        };
        let named = wrapped(client, config);
        let NetStatus::Applied(applied) = named.status().safety_net else {
            panic!("{:?}", named.status())
        };
        assert!(applied.is_complete(), "{applied:?}");
        let (on, time) = options(&named);
        let expected = SafetyNet::from(&config);
        assert!(on && time >= config.interval(), "{time:?}, of {expected:?}");

        // Who doesn't name it has none, and is told so.
        let unnamed = Heartbeat::new(server, config);
        assert!(matches!(unnamed.status().safety_net, NetStatus::NoSocket));
        assert!(!options(&unnamed).0);
    }

    /// The socket stays reachable through the function when the peer's Hello asks
    /// for slower pings.
    #[tokio::test]
    async fn the_safety_net_below_follows_a_peer_that_slows_us_down() {
        let slow = Config::builder()
            .interval(secs(8))
            .timeout(secs(8))
            .min_interval(secs(8));
        let (client, server) = connected().await;
        let mut quick = wrapped(client, Config::lan());
        let mut slow = wrapped(server, slow.build().unwrap());
        tokio::join!(quick.next(), slow.next());
        let socket = socket2::SockRef::from(quick.get_ref().unwrap().get_ref().0);
        let ours = SafetyNet::from(&Config::lan());
        let derived = socket.tcp_keepalive_time().unwrap();
        assert!(derived > secs(8), "{derived:?}, not that of {ours:?}");
    }
}

// ---- connections -----------------------------------------------------------

fn wrapped(stream: Tls, config: Config) -> Heartbeat<Tls> {
    Heartbeat::new(stream, config).with_socket(|tls| Some(tls.get_ref().0))
}

async fn terminal(heartbeat: &mut Heartbeat<Tls>) -> PeerEvent<bytes::Bytes> {
    loop {
        let event = heartbeat.next().await.unwrap();
        if event.is_terminal() {
            return event;
        }
    }
}

/// Client and server after the handshake, with a certificate made for it.
async fn connected() -> (Tls, Tls) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut trusted = RootCertStore::empty();
    trusted.add(certificate.clone()).unwrap();
    let server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let client = ClientConfig::builder()
        .with_root_certificates(trusted)
        .with_no_client_auth();

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connecting = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(client));
        connector.connect(name, stream).await.unwrap()
    };
    let accepting = async {
        let (stream, _) = listener.accept().await.unwrap();
        TlsAcceptor::from(Arc::new(server))
            .accept(stream)
            .await
            .unwrap()
    };
    let (client, server) = tokio::join!(connecting, accepting);
    (client.into(), server.into())
}
