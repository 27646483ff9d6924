use std::{env, error::Error, net::SocketAddr, time::Duration};

use futures::{SinkExt, StreamExt};
use heartbeat_tokio::{Config, Heartbeat, PeerEvent, SendError};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The one number to choose: every timing follows from it.
    let config = Config::detect_within(Duration::from_secs(3))?;

    let address = env::args().nth(1).unwrap_or("127.0.0.1:7000".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening at {}", listener.local_addr()?);
    loop {
        let (stream, client) = listener.accept().await?;
        tokio::spawn(async move {
            if let Err(error) = serve(stream, client, config).await {
                println!("{client} got no answer: {error}");
            }
        });
    }
}

/// One client, from its first byte to its end.
async fn serve(stream: TcpStream, client: SocketAddr, config: Config) -> Result<(), SendError> {
    let mut peer = Heartbeat::new(stream, config);
    while let Some(event) = peer.next().await {
        println!("{client} {event}");
        if let PeerEvent::Message(text) = event {
            peer.send(text).await?;
        }
    }
    Ok(())
}
