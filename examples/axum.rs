//! A server of axum's whose WebSockets have a heartbeat, and a client of tungstenite's.
//!
//! ```text
//! cargo run --example axum --features axum
//! cargo run --example axum --features axum -- ws://127.0.0.1:PORT/echo
//! ```
//!
//! The first is the server, which prints its address, and the second a client of it. Stop
//! either (`kill -STOP`), kill it, or end it with Ctrl-C, and see what the other says.

use std::{env, error::Error, time::Duration};

use axum::{
    Router,
    extract::{ConnectInfo, ws::WebSocketUpgrade},
    response::Response,
    routing::any,
};
use futures::{SinkExt, StreamExt};
use heartbeat_tokio::{Config, Heartbeat, PeerEvent, websocket::TcpSocket};
use tokio::{net::TcpListener, time::timeout};
use tokio_tungstenite::connect_async;

/// The time limit of a handshake. A death is detected within 2.5 s.
const HANDSHAKE: Duration = Duration::from_secs(5);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    match env::args().nth(1) {
        Some(url) => client(&url).await,
        None => server().await,
    }
}

async fn server() -> Result<(), Box<dyn Error>> {
    let app = Router::new().route("/echo", any(echo));
    let app = app.into_make_service_with_connect_info::<TcpSocket>();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("ws://{}/echo", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}

async fn echo(upgrade: WebSocketUpgrade, socket: ConnectInfo<TcpSocket>) -> Response {
    upgrade.on_upgrade(|ws| async {
        let mut peer = Heartbeat::websocket((ws, socket), Config::lan());
        while let Some(event) = peer.next().await {
            match event {
                PeerEvent::Message(message) => drop(peer.send(message).await), // told below, too
                event => println!("{event}"),
            }
        }
    })
}

async fn client(url: &str) -> Result<(), Box<dyn Error>> {
    let (socket, _) = timeout(HANDSHAKE, connect_async(url)).await??;
    let mut server = Heartbeat::websocket(socket, Config::lan());
    server.send("hello".into()).await?;
    loop {
        tokio::select! {
            Some(event) = server.next() => println!("{event}"),
            _ = tokio::signal::ctrl_c() => return Ok(server.close().await?),
            else => return Ok(()),
        }
    }
}
