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
        pki_types::{CertificateDer, PrivateKeyDer, ServerName},
        server::WebPkiClientVerifier,
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

/// The peer's kernel still acknowledges; the other end isn't polled.
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

/// In TLS 1.3 the client's handshake succeeds without the certificate that the server
/// wants. The alert comes with the first read.
#[tokio::test]
async fn a_missing_certificate_of_ours_is_a_broken_protocol() {
    let parties = Parties::new();
    let (client, server) = pair().await;
    let wants = WebPkiClientVerifier::builder(parties.trusted.clone());
    let acceptor = ServerConfig::builder()
        .with_client_cert_verifier(wants.build().unwrap())
        .with_single_cert(vec![parties.certificate.clone()], parties.key.clone_key());
    let accepting = TlsAcceptor::from(Arc::new(acceptor.unwrap())).accept(server);
    let (client, refused) = tokio::join!(parties.begin(client), accepting);
    assert!(refused.is_err());

    let mut client = wrapped(client, quick());
    let words = broken(&mut client).await;
    assert_eq!(words, "received fatal alert: CertificateRequired");
}

/// The server's stream is wrapped below TLS: what it sends isn't a record.
#[tokio::test]
async fn bytes_that_are_not_tls_are_a_broken_protocol() {
    let (client, server) = connected().await;
    let TlsStream::Server(server) = server else {
        panic!("the server's side")
    };
    let mut client = wrapped(client, quick());
    let below = Heartbeat::new(server.into_inner().0, quick());
    let (words, _) = tokio::join!(broken(&mut client), below.collect::<Vec<_>>());
    assert_eq!(words, "received corrupt message of type InvalidContentType");
}

/// Waits for the end, and gives the words of TLS.
async fn broken(client: &mut Heartbeat<Tls>) -> String {
    let end = terminal(client).await;
    let told = "dead: protocol violated: the codec can't read it, silent for ";
    assert!(end.to_string().starts_with(told), "{end}");
    client.io_error().expect("its words").to_string()
}

/// Records of 16 KiB that take 2 s each, as long as the detection time.
#[cfg(target_os = "linux")] // whose kernel tells what arrives
mod slow_records {
    use std::time::Duration;

    use heartbeat_tests::{secs, server::slow_line_to};
    use heartbeat_tokio::Diagnosis;

    use super::*;

    /// Bytes a second.
    const RATE: u32 = 8_000;

    const LENGTH: usize = 64 * 1024;

    /// The client's side of the line, with a detection time of `patience`, and a server
    /// that was greeted and knows nothing of its own socket, or does.
    async fn greeted(
        patience: Duration,
        serve: fn(Tls, Config) -> Heartbeat<Tls>,
    ) -> (Heartbeat<Tls>, Heartbeat<Tls>) {
        let config = Config::detect_within(secs(2)).unwrap();
        let clients = Config::detect_within(patience).unwrap();
        let (client, server) = pair().await;
        let client = slow_line_to(client, RATE).await;
        let (client, server) = Parties::new().connect(client, server).await;
        let (mut client, mut server) = (wrapped(client, clients), serve(server, config));
        // A Hello that shares a record with the message would be as slow.
        for event in <[_; 2]>::from(tokio::join!(client.next(), server.next())) {
            assert!(
                matches!(event, Some(PeerEvent::Connected { .. })),
                "{event:?}"
            );
        }
        (client, server)
    }

    #[tokio::test]
    async fn are_life_where_the_socket_is_named() {
        let (mut client, mut server) = greeted(secs(2), wrapped).await;
        let began = Instant::now();
        client.send(vec![7; LENGTH].into()).await.unwrap();
        let receiving = async {
            loop {
                match server.next().await.unwrap() {
                    PeerEvent::Message(message) => return message,
                    event => assert!(!event.is_terminal(), "{event}"),
                }
            }
        };
        let message = tokio::select! {
            message = receiving => message,
            end = terminal(&mut client) => panic!("the client: {end}"),
        };
        assert_eq!(message.len(), LENGTH);
        assert!(began.elapsed() > secs(7), "{:?}", began.elapsed());
    }

    /// The client's application isn't blamed, because its state is unknown.
    #[tokio::test]
    async fn are_silence_without_a_diagnosis_where_it_is_not_named() {
        let (mut client, mut server) = greeted(secs(7), Heartbeat::new).await;
        client.send(vec![7; LENGTH].into()).await.unwrap();
        let end = tokio::select! {
            end = terminal(&mut server) => end,
            end = terminal(&mut client) => panic!("the client: {end}"),
        };
        let PeerEvent::Dead(death) = end else {
            panic!("{end}")
        };
        assert_eq!(death.cause, Cause::Silent);
        assert_eq!(death.diagnosis, Diagnosis::Unknown);
    }
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

        // Without a name there is none, and the status says so.
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

/// Client and server after the handshake.
async fn connected() -> (Tls, Tls) {
    let (client, server) = pair().await;
    Parties::new().connect(client, server).await
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
    (ours.unwrap(), theirs.unwrap().0)
}

/// What both know of certificates: one was made for the server.
struct Parties {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    trusted: Arc<RootCertStore>,
}

impl Parties {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let mut trusted = RootCertStore::empty();
        trusted.add(certificate.clone()).unwrap();
        Self {
            certificate,
            key,
            trusted: trusted.into(),
        }
    }

    async fn connect(self, client: TcpStream, server: TcpStream) -> (Tls, Tls) {
        let acceptor = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key());
        let accepting = TlsAcceptor::from(Arc::new(acceptor.unwrap())).accept(server);
        let (client, server) = tokio::join!(self.begin(client), accepting);
        (client, server.unwrap().into())
    }

    /// A client without a certificate.
    async fn begin(&self, client: TcpStream) -> Tls {
        let config = ClientConfig::builder()
            .with_root_certificates(self.trusted.clone())
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, client).await.unwrap().into()
    }
}
