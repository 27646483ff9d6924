use std::{env, error::Error, time::Duration};

use futures::{SinkExt, StreamExt};
use heartbeat_tokio::{Config, Heartbeat, PeerEvent};
use tokio::{net::TcpStream, signal::ctrl_c};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let config = Config::detect_within(Duration::from_secs(3))?;

    let address = env::args().nth(1).unwrap_or("127.0.0.1:7000".into());
    let stream = TcpStream::connect(address).await?;
    let mut server = Heartbeat::new(stream, config);
    server.send("hello".into()).await?;
    tokio::select! {
        () = listen(&mut server) => return Ok(()),
        pressed = ctrl_c() => pressed?,
    }
    server.close().await?; // says goodbye
    listen(&mut server).await;
    Ok(())
}

/// Until the last event.
async fn listen(server: &mut Heartbeat<TcpStream>) {
    while let Some(event) = server.next().await {
        match event {
            PeerEvent::Message(text) => println!("the server says {text:?}"),
            event => println!("{event}"),
        }
    }
}
