//! A whole client: it says hello, answers, and leaves when it is asked to.

use std::{error::Error, thread, time::Duration};

use futures::{SinkExt, StreamExt};
use heartbeat_tokio::{Config, Heartbeat, PeerEvent};
use tokio::net::TcpStream;

pub async fn run(name: &str, address: &str, config: Config) -> Result<(), Box<dyn Error>> {
    let stream = TcpStream::connect(address).await?;
    let mut server = Heartbeat::new(stream, config);
    server.send(format!("hello, I am {name}").into()).await?;

    // While this loop waits, the server's pings are answered.
    while let Some(event) = server.next().await {
        match event {
            PeerEvent::Message(text) if text == "please leave" => server.close().await?,
            // Blocks the only thread of the runtime: nothing is answered any more.
            PeerEvent::Message(text) if text == "please hang" => {
                thread::sleep(Duration::from_secs(60));
            }
            PeerEvent::Message(_) => server.send("thank you".into()).await?,
            // It works in both directions: when the server is dead that is the
            // last event, and the client ends.
            _ => {}
        }
    }
    Ok(())
}
