//! A client that comes back, subscribes again, can be cancelled at any moment, and stops
//! at an error that is final.
//!
//! ```text
//! cargo run --example subscriber
//! ```
//!
//! Its server drops the first connection and hangs on the second one. The client is
//! cancelled on the third. Another client asks for a missing topic.

use std::{error::Error, fmt, io, net::SocketAddr, time::Duration};

use futures::{SinkExt, StreamExt};
use heartbeat_tokio::{
    Backoff, CloseReason, Config, ConfigError, Detail, GoodbyeCode, Heartbeat, PeerEvent, Reconnect,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};

/// An attempt and a silence may take that long.
const PATIENCE: Duration = Duration::from_secs(1);

/// With it the server refuses a subscription.
const NO_SUCH_TOPIC: GoodbyeCode = GoodbyeCode(64);

type Fallible<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;
type Connection = Heartbeat<TcpStream>;

fn config() -> Result<Config, ConfigError> {
    Config::detect_within(PATIENCE)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Fallible {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(serve(listener));

    let (cancel, cancelled) = watch::channel(false);
    let (tell, mut told) = watch::channel(Vec::new());
    let client = tokio::spawn(subscriber(address, "prices", cancelled.clone(), tell));
    told.wait_for(|prices| prices.len() == 3).await?;
    cancel.send_replace(true);
    client.await??;
    assert_eq!(*told.borrow(), ["1", "2", "3"]);

    cancel.send_replace(false);
    let (tell, _) = watch::channel(Vec::new());
    let end = subscriber(address, "weather", cancelled, tell).await;
    println!("{end:?}");
    assert!(matches!(end, Err(Failed::Refused(_))));
    server.await?
}

// ---- the client ---------------------------------------------------------------

/// Why an attempt failed.
#[derive(Debug)]
enum Failed {
    /// The next one may do better.
    Io(io::Error),
    /// No other one will.
    Refused(Detail),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Refused(why) => write!(f, "refused: {why}"),
        }
    }
}

impl Error for Failed {}

impl<E: Into<io::Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Io(error.into())
    }
}

/// Ends when it is cancelled, or at an error that is final.
async fn subscriber(
    address: SocketAddr,
    topic: &'static str,
    mut cancelled: watch::Receiver<bool>,
    prices: watch::Sender<Vec<String>>,
) -> Result<(), Failed> {
    let backoff = Backoff::default().loss_spread(Duration::from_millis(100));
    let mut server = Reconnect::new(backoff, || subscribe(address, topic));
    loop {
        let mut peer = tokio::select! {
            connected = server.connect_while(|error| matches!(error, Failed::Io(_))) => connected?,
            () = is_set(&mut cancelled) => return Ok(()),
        };
        loop {
            let event = tokio::select! {
                event = peer.next() => event,
                () = is_set(&mut cancelled) => {
                    let _ = peer.close().await; // as far as it is there
                    return Ok(());
                }
            };
            let Some(event) = event else { break };
            println!("{event}");
            server.note(&event);
            if let PeerEvent::Message(price) = event {
                let price = String::from_utf8_lossy(&price).into_owned();
                prices.send_modify(|prices| prices.push(price));
            }
        }
    }
}

async fn is_set(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|is_set| *is_set).await;
}

/// One attempt. The new connection knows nothing of the one before.
async fn subscribe(address: SocketAddr, topic: &str) -> Result<Connection, Failed> {
    let attempt = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut peer = Heartbeat::new(stream, config().map_err(io::Error::other)?);
        peer.send(topic.to_owned().into()).await?;
        loop {
            match peer.next().await {
                Some(PeerEvent::Message(_)) => return Ok(peer), // it is confirmed
                Some(PeerEvent::Closed {
                    reason: CloseReason::Peer { code, detail },
                }) if code == NO_SUCH_TOPIC => return Err(Failed::Refused(detail)),
                Some(_) => {}
                None => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
    };
    timeout(PATIENCE, attempt).await?
}

// ---- the server ---------------------------------------------------------------

async fn serve(listener: TcpListener) -> Fallible {
    let mut hung = Vec::new();
    for price in ["1", "2", "3", ""] {
        let mut client = Heartbeat::new(listener.accept().await?.0, config()?);
        let wanted = loop {
            match client.next().await {
                Some(PeerEvent::Message(topic)) => break topic,
                Some(_) => {}
                None => return Err("no subscription".into()),
            }
        };
        if wanted != "prices" {
            let detail = "there are prices only".into();
            client.close_with(NO_SUCH_TOPIC, detail).await?;
            continue;
        }
        client.feed("confirmed".into()).await?;
        client.send(price.into()).await?;
        match price {
            "1" => drop(client), // as if it was killed
            "2" => hung.push(client),
            _ => while client.next().await.is_some() {},
        }
    }
    Ok(())
}
