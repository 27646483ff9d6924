//! A page in a browser that is known to live.
//!
//! ```text
//! cargo run --example websocket --features websocket
//! ```
//!
//! Open the address that it prints. Close the page, kill the browser, or stop it
//! (`kill -STOP`), and see what is told. An argument says how the beats travel:
//!
//! | | |
//! |---|---|
//! | none | as WebSocket's own pings, which every browser answers |
//! | `ordinary` | as ordinary messages that the page's script answers (`beats.js`): a script that hangs is found too |
//! | `own` | as frames of this project's own (`../heartbeat-js`): the page finds out when the server is dead, and comes back |

mod http;

use std::{env, error::Error, fmt::Debug, time::Duration};

use futures::{SinkExt, StreamExt};
use heartbeat_tokio::{
    Config, Heartbeat, PeerEvent,
    websocket::{Beats, Messages, OwnFrames, Pings},
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_tungstenite::accept_async;

/// What the browser loads for `own`.
const OWN_PAGE: &str = concat!(
    "<!doctype html><title>Heartbeat</title><body><script type=\"module\">",
    include_str!("../heartbeat-js/heartbeat.js"),
    include_str!("own.js"),
    "</script>"
);

/// What it loads otherwise.
const PAGE: &str = concat!(
    "<!doctype html><title>Heartbeat</title><body><script>",
    include_str!("beats.js"),
    include_str!("page.js"),
    "</script>"
);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let beats = env::args().nth(1).unwrap_or_default();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}/", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let beats = beats.clone();
        tokio::spawn(async move {
            let served = match &*beats {
                "own" => serve(stream, OWN_PAGE, OwnFrames::new(), "welcome".into()).await,
                "ordinary" => serve(stream, PAGE, Messages, "welcome".into()).await,
                _ => serve(stream, PAGE, Pings, "welcome".into()).await,
            };
            if let Err(error) = served {
                eprintln!("{error}");
            }
        });
    }
}

/// One connection: the page, or the WebSocket that it opens.
async fn serve<B: Beats>(
    stream: TcpStream,
    page: &str,
    beats: B,
    welcome: B::Message,
) -> Result<(), Box<dyn Error>>
where
    B::Message: Debug,
{
    stream.set_nodelay(true)?;
    let config = Config::detect_within(Duration::from_secs(5))?;
    if timeout(config.timeout(), http::path(&stream)).await?? != "/socket" {
        return Ok(timeout(config.timeout(), http::hand_out(stream, page)).await??);
    }
    let socket = timeout(config.timeout(), accept_async(stream)).await??;
    let mut page = Heartbeat::websocket_with(socket, beats, config);

    page.send(welcome).await?;
    while let Some(event) = page.next().await {
        match event {
            PeerEvent::Message(message) => println!("{message:?}"),
            event => println!("{event}"),
        }
    }
    Ok(())
}
