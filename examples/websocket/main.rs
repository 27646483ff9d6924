//! A page in a browser that is known to live.
//!
//! ```text
//! cargo run --example websocket --features websocket
//! ```
//!
//! Open the address that it prints. Close the page, kill the browser, or stop it
//! (`kill -STOP`), and see what is told. With `ordinary` as an argument the
//! beats travel as ordinary messages that the page's script answers, not as
//! WebSocket's own pings: then a script that hangs is found too.
//! `websocket.rs` is a WebSocket as the heartbeat wants it.

mod http;

use std::{env, error::Error, time::Duration};

use futures::{SinkExt, StreamExt};
use heartbeat_examples::websocket::{Beats, ControlFrames, Message, OrdinaryFrames, WebSocket};
use heartbeat_tokio::{Config, Heartbeat, PeerEvent};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// What the browser loads.
const PAGE: &str = concat!(
    "<!doctype html><title>Heartbeat</title><body><script>",
    include_str!("beats.js"),
    include_str!("page.js"),
    "</script>"
);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let ordinary = env::args().nth(1).is_some_and(|word| word == "ordinary");
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}/", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let served = match ordinary {
                true => serve::<OrdinaryFrames>(stream, "welcome".into()).await,
                false => serve::<ControlFrames>(stream, Message::Text("welcome".into())).await,
            };
            if let Err(error) = served {
                eprintln!("{error}");
            }
        });
    }
}

/// One connection: the page, or the WebSocket that it opens.
async fn serve<B>(stream: TcpStream, welcome: B::Message) -> Result<(), Box<dyn Error>>
where
    B: Beats,
{
    stream.set_nodelay(true)?;
    let config = Config::detect_within(Duration::from_secs(5))?;
    if timeout(config.timeout(), http::path(&stream)).await?? != "/socket" {
        return Ok(timeout(config.timeout(), http::hand_out(stream, PAGE)).await??);
    }
    let socket = timeout(config.timeout(), WebSocket::<_, B>::accept(stream)).await??;
    let mut page = Heartbeat::with_frames(socket, config).with_socket(WebSocket::socket);

    page.send(welcome).await?;
    while let Some(event) = page.next().await {
        match event {
            PeerEvent::Message(message) => println!("{message:?}"),
            event => println!("{event}"),
        }
    }
    Ok(())
}
