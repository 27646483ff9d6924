//! A Redis server whose death is noticed.
//!
//! ```text
//! cargo run --example redis --features redis -- 127.0.0.1:6379
//! ```
//!
//! Stop the server (`kill -STOP`), let it go on, kill it, and see what is told.
//! The server needn't know of any of this: the beats are Redis' own `PING`.
//! `resp.rs` is the codec.

mod resp;

use std::{env, error::Error, time::Duration};

use futures::{SinkExt, StreamExt};
use heartbeat_tokio::{Config, Heartbeat, PeerEvent};
use tokio::net::TcpStream;

use resp::{Resp, command};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:6379".into());
    let stream = TcpStream::connect(&address).await?;
    stream.set_nodelay(true)?;
    let config = Config::detect_within(Duration::from_secs(5))?;
    let mut redis = Heartbeat::with_codec(stream, Resp::default(), config);

    redis.feed(command(["SET", "greeting", "hello"])).await?;
    redis.send(command(["GET", "greeting"])).await?;

    while let Some(event) = redis.next().await {
        match event {
            PeerEvent::Message(reply) => println!("reply: {reply:?}"),
            event => println!("{event}"),
        }
    }
    Ok(())
}
