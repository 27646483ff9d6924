//! A heartbeat over TLS: client and server in one program, over a real socket.
//!
//! ```text
//! cargo run --example tls --features tls
//! ```
//!
//! The client says hello and is answered, then it hangs: its kernel goes on
//! acknowledging, and TLS has nothing to say to that. The server finds out.

use std::{error::Error, sync::Arc, time::Duration};

use futures::{SinkExt, StreamExt};
use heartbeat_tokio::{Cause, Config, Heartbeat, NetStatus, PeerEvent};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        pki_types::{PrivateKeyDer, ServerName},
    },
};

type Fallible<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Fallible {
    let config = Config::detect_within(Duration::from_secs(1))?;
    let (acceptor, connector) = certified()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;

    tokio::spawn(async move {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let tls = connector
            .connect(ServerName::try_from("localhost")?, stream)
            .await?;
        // The one thing that is different: where the socket is, below TLS.
        let mut server = Heartbeat::new(tls, config).with_socket(|tls| Some(tls.get_ref().0));
        server.send("hello".into()).await?;
        while let Some(event) = server.next().await {
            println!("client: {event}");
            if matches!(event, PeerEvent::Message(_)) {
                break;
            }
        }
        println!("client: hangs");
        std::future::pending::<()>().await;
        Fallible::Ok(())
    });

    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    let tls = acceptor.accept(stream).await?;
    let mut client = Heartbeat::new(tls, config).with_socket(|tls| Some(tls.get_ref().0));
    if let NetStatus::Applied(options) = client.status().safety_net {
        println!(
            "server: safety net below TLS complete: {}",
            options.is_complete()
        );
    }
    let mut cause = None;
    while let Some(event) = client.next().await {
        println!("server: {event}");
        match event {
            PeerEvent::Message(message) => client.send(message).await?,
            PeerEvent::Dead(death) => cause = Some(death.cause),
            _ => {}
        }
    }
    assert_eq!(cause, Some(Cause::Silent));
    Ok(())
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
