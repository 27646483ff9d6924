//! An MQTT broker whose death is noticed, and which is never left without a word of ours.
//!
//! ```text
//! cargo run --example mqtt -- 127.0.0.1:1883
//! ```
//!
//! `mqtt.rs` is the codec. A broker disconnects a client of which it hears nothing for one
//! and a half of the keep-alive time, however much it sends to it itself.

mod mqtt;

use std::{env, error::Error, time::Duration};

use futures::{SinkExt, StreamExt};
use heartbeat_tokio::{Config, Heartbeat, PeerEvent};
use tokio::net::TcpStream;

use mqtt::{Mqtt, connect, publish, subscribe};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:1883".into());
    let stream = TcpStream::connect(&address).await?;
    let config = Config::detect_within(Duration::from_secs(5))?
        .to_builder()
        .speak_within(Duration::from_secs(5))
        .build()?;
    let mut broker = Heartbeat::with_codec(stream, Mqtt::default(), config);

    broker.feed(connect("heartbeat", 10)).await?;
    broker.feed(subscribe("greetings")).await?;
    broker.send(publish("greetings", b"hello")).await?;
    while let Some(event) = broker.next().await {
        match event {
            PeerEvent::Message(packet) => println!("{packet:?}"),
            event => println!("{event}"),
        }
    }
    Ok(())
}
