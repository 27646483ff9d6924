//! A PostgreSQL server whose death is noticed, and which may take its time for a query.
//!
//! ```text
//! cargo run --example postgres -- 127.0.0.1:5432 postgres
//! ```
//!
//! `postgres.rs` is the codec. The user has to be trusted: no password is sent.

mod postgres;

use std::{env, error::Error, time::Duration};

use futures::{SinkExt, StreamExt};
use heartbeat_tokio::{Config, Heartbeat, PeerEvent};
use tokio::net::TcpStream;

use postgres::{Postgres, query, startup};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let address = arguments.next().unwrap_or("127.0.0.1:5432".into());
    let user = arguments.next().unwrap_or("postgres".into());
    let stream = TcpStream::connect(&address).await?;
    stream.set_nodelay(true)?;
    let config = Config::detect_within(Duration::from_secs(2))?;
    let mut server = Heartbeat::with_codec(stream, Postgres::default(), config);

    server.feed(startup(&user)).await?;
    server.send(query("SELECT pg_sleep(6)")).await?;
    while let Some(event) = server.next().await {
        match event {
            PeerEvent::Message(message) => println!("{message:?}"),
            event => println!("{event}"),
        }
    }
    Ok(())
}
