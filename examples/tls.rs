//! A server over TLS with a registry of its connections and an orderly shutdown.
//!
//! ```text
//! cargo run --example tls --features tls
//! ```
//!
//! Two clients come. One hangs: its kernel goes on acknowledging, and TLS has nothing to say
//! to that. The server finds out, and the registry forgets it. Then the server restarts: the
//! other client gets what was sent before, and is told to come back.

use std::{
    collections::HashMap,
    error::Error,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{SinkExt, StreamExt, future::join_all};
use heartbeat_tokio::{
    Cause, CloseReason, Config, Detail, Driver, GoodbyeCode, Heartbeat, PeerEvent, Sender,
    WeakSender,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        pki_types::{PrivateKeyDer, ServerName},
    },
};

type Fallible<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// A death, and a handshake, are known within this time.
const PATIENCE: Duration = Duration::from_secs(1);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Fallible {
    let (acceptor, connector) = certified()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let registry = Registry::default();
    let server = tokio::spawn(serve(listener, acceptor, registry.clone()));

    let hangs = connect(address, &connector).await?;
    let stays = tokio::spawn(stay(connect(address, &connector).await?));
    for there in [2, 1] {
        while registry.members().len() != there {
            sleep(Duration::from_millis(20)).await;
        }
    }
    // A server does this when it is interrupted.
    server.abort();
    registry.leave().await;
    assert_eq!(stays.await??, ["one is left"]);
    drop(hangs);
    Ok(())
}

// ---- the server ---------------------------------------------------------------

/// The registry of connections. It keeps none alive.
#[derive(Clone, Default)]
struct Registry(Arc<Mutex<HashMap<SocketAddr, WeakSender<Bytes>>>>);

impl Registry {
    fn members(&self) -> Vec<Sender<Bytes>> {
        let mut members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        members.retain(|_, member| member.upgrade().is_some());
        members.values().filter_map(WeakSender::upgrade).collect()
    }

    fn enter(&self, address: SocketAddr, member: &Sender<Bytes>) {
        let mut members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        members.insert(address, member.downgrade());
    }

    /// Tells all clients to reconnect, behind all earlier messages. Ends within `linger`.
    async fn leave(&self) {
        let leaving = self.members().into_iter().map(async |member| {
            let last = member.try_send("one is left".into());
            let detail = Detail::from("a new version");
            let left = member.close_with(GoodbyeCode::RESTARTING, detail).await;
            println!("server: {last:?}, {left:?}");
        });
        join_all(leaving).await;
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, registry: Registry) -> Fallible {
    loop {
        let (stream, address) = listener.accept().await?;
        tokio::spawn(member(stream, address, acceptor.clone(), registry.clone()));
    }
}

async fn member(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    registry: Registry,
) -> Fallible {
    stream.set_nodelay(true)?;
    let tls = timeout(PATIENCE, acceptor.accept(stream)).await??;
    // The one thing that is different: where the socket is, below TLS.
    let peer = Heartbeat::new(tls, Config::detect_within(PATIENCE)?)
        .with_socket(|tls| Some(tls.get_ref().0));
    let Driver {
        sender,
        mut receiver,
        ..
    } = peer.spawn();
    registry.enter(address, &sender);
    while let Some(event) = receiver.next().await {
        println!("server: {event}");
        if let PeerEvent::Dead(death) = event {
            assert_eq!(death.cause, Cause::Silent);
        }
    }
    Ok(())
}

// ---- the clients --------------------------------------------------------------

type Connection = Heartbeat<tokio_rustls::client::TlsStream<TcpStream>>;

async fn connect(address: SocketAddr, connector: &TlsConnector) -> Fallible<Connection> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("localhost")?;
    let tls = timeout(PATIENCE, connector.connect(name, stream)).await??;
    let config = Config::detect_within(PATIENCE)?;
    let mut server = Heartbeat::new(tls, config).with_socket(|tls| Some(tls.get_ref().0));
    server.send("hello".into()).await?;
    Ok(server)
}

async fn stay(mut server: Connection) -> Fallible<Vec<Bytes>> {
    let mut heard = Vec::new();
    while let Some(event) = server.next().await {
        println!("client: {event}");
        match event {
            PeerEvent::Message(message) => heard.push(message),
            PeerEvent::Closed {
                reason: CloseReason::Peer { code, .. },
            } => {
                assert_eq!(code, GoodbyeCode::RESTARTING);
            }
            _ => {}
        }
    }
    Ok(heard)
}

/// Both ends, with a certificate that one has and the other trusts.
fn certified() -> Fallible<(TlsAcceptor, TlsConnector)> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())?;

    let mut trusted = RootCertStore::empty();
    trusted.add(certificate.clone())?;
    let server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    let client = ClientConfig::builder()
        .with_root_certificates(trusted)
        .with_no_client_auth();
    Ok((
        TlsAcceptor::from(Arc::new(server)),
        TlsConnector::from(Arc::new(client)),
    ))
}
