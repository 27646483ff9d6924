//! A NATS server whose death is noticed, and which notices ours.
//!
//! ```text
//! cargo run --example nats -- 127.0.0.1:4222
//! ```
//!
//! Stop the server (`kill -STOP`), let it go on, kill it, and see what is told.
//! The beats are the `PING` and `PONG` that every NATS server knows.
//! `protocol.rs` is the codec.

mod protocol;

use std::{env, error::Error, time::Duration};

use futures::{SinkExt, StreamExt};
use heartbeat_tokio::{Config, Heartbeat, PeerEvent};
use tokio::net::TcpStream;

use protocol::{Message, Nats};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:4222".into());
    let stream = TcpStream::connect(&address).await?;
    stream.set_nodelay(true)?;
    let config = Config::detect_within(Duration::from_secs(5))?;
    let mut nats = Heartbeat::with_codec(stream, Nats::default(), config);

    let subject = || "greetings".to_owned();
    let options = r#"{"verbose":false,"pedantic":false,"lang":"rust","version":"0"}"#;
    nats.feed(Message::Connect(options.into())).await?;
    let (id, payload) = (1, "hello".into());
    let subscription = Message::Subscribe {
        subject: subject(),
        id,
    };
    nats.feed(subscription).await?;
    let greeting = Message::Publish {
        subject: subject(),
        payload,
    };
    nats.send(greeting).await?;

    while let Some(event) = nats.next().await {
        match event {
            PeerEvent::Message(Message::Info(_)) => println!("the server introduced itself"),
            PeerEvent::Message(message) => println!("{message:?}"),
            event => println!("{event}"),
        }
    }
    Ok(())
}
