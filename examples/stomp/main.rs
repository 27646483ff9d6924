//! Detects the death of a STOMP broker, although beats have no answers.
//!
//! ```text
//! cargo run --example stomp -- 127.0.0.1:61613
//! ```
//!
//! `stomp.rs` is the codec. Each side sends beats by itself: ours are those of
//! `speak_within`, and the broker's are expected as often as it announced.

mod stomp;

use std::{env, error::Error, time::Duration};

use futures::{SinkExt, StreamExt};
use heartbeat_tokio::{Config, Heartbeat, PeerEvent};
use tokio::net::TcpStream;

use stomp::{Stomp, frame};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:61613".into());
    let stream = TcpStream::connect(&address).await?;
    let config = Config::detect_within(Duration::from_secs(5))?
        .to_builder()
        .speak_within(Duration::from_secs(1)) // half of what is announced below
        .build()?;
    let mut broker = Heartbeat::with_codec(stream, Stomp::default(), config);

    let user = "login:guest\npasscode:guest\nhost:/\naccept-version:1.2";
    broker
        .send(frame(&format!("CONNECT\n{user}\nheart-beat:2000,2000"), ""))
        .await?;
    while let Some(event) = broker.next().await {
        match event {
            PeerEvent::Message(text) => {
                println!("{text:?}");
                if text.starts_with("CONNECTED") {
                    let to = "SUBSCRIBE\nid:0\ndestination:/queue/greetings";
                    broker.feed(frame(to, "")).await?;
                    let to = "SEND\ndestination:/queue/greetings";
                    broker.send(frame(to, "hello")).await?;
                }
            }
            event => println!("{event}"),
        }
    }
    Ok(())
}
