//! A server whose connections may rest for as long as their clients want.

use std::{error::Error, time::Duration};

use futures::StreamExt;
use heartbeat_tokio::{Config, Heartbeat, PeerEvent, Role};
use tokio::net::{TcpListener, TcpStream};

/// No client makes us wait for its death any longer.
const LONGEST: Duration = Duration::from_secs(4 * 60 * 60);

pub async fn run(address: &str) -> Result<(), Box<dyn Error>> {
    // The client asks first.
    let config = Config::mobile().to_builder().role(Role::Passive).build()?;
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, from) = listener.accept().await?;
        tokio::spawn(async move {
            let end = serve(stream, config).await;
            println!("{from}: {}", end.unwrap_or_default());
        });
    }
}

/// Takes the client's interval over each time that it announces another one.
async fn serve(stream: TcpStream, config: Config) -> Option<String> {
    stream.set_nodelay(true).ok()?;
    let mut peer = Heartbeat::new(stream, config);
    while let Some(event) = peer.next().await {
        match event {
            PeerEvent::Connected { peer: client } => {
                // A little longer, so that it is the client that asks. An interval that
                // we can't have changes nothing.
                let _ = peer.set_interval((client.interval * 5 / 4).min(LONGEST));
            }
            event if event.is_terminal() => return Some(event.to_string()),
            _ => {}
        }
    }
    None
}
