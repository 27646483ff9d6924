//! A chat that shows the state of each member's connection.
//!
//! ```text
//! cargo run -p chat -- server
//! cargo run -p chat -- client --name Ann
//! ```
//!
//! The first prints the address of a web page. People chat on the page and in
//! terminals, all in one room. The page lists every connection: whether it is
//! alive, when it was last heard, its round trips and the beats it missed. The
//! server starts a few bots, which are processes of their own, so that they can
//! be killed, frozen and thawed with real signals. The room is told when a member leaves, and
//! why.
//!
//! | file | |
//! |---|---|
//! | `server.rs` | listens, and ends politely |
//! | `room.rs` | the members and those that have left; what the page shows of them |
//! | `member.rs` | one connection, from its first message to its end |
//! | `web.rs` | the page, `/metrics`, and HTTP connections that become WebSockets |
//! | `bots.rs` | the bots as processes |
//! | `client.rs` | a person in a terminal, or a bot; comes back when the server was gone |
//! | `message.rs` | what travels |
//! | `socket.rs` | a TCP stream whose socket others may look at |
//! | `page/` | the page |
//!
//! Messages are of one type: in Postcard over plain TCP, in JSON over a
//! WebSocket. In both they travel in this project's own
//! frames, since a page's script sees nothing of WebSocket's own pings.

mod bots;
mod client;
mod member;
mod message;
mod room;
mod server;
mod socket;
mod web;

use std::{error::Error, net::SocketAddr, time::Duration};

use clap::{Args, Parser};
use heartbeat_examples::{arguments::duration, process};
use heartbeat_tokio::{Config, ConfigError};

#[derive(Parser)]
#[command(about = "A chat that knows who is there")]
enum Role {
    /// Starts the room, the page and some bots
    Server(ServerOptions),
    /// Joins the room from this terminal
    Client(ClientOptions),
    /// Joins the room as a program
    #[command(hide = true)]
    Bot(ClientOptions),
}

#[derive(Args)]
struct ServerOptions {
    /// The address for terminals
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7000")]
    tcp: SocketAddr,
    /// The address of the page
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7080")]
    http: SocketAddr,
    /// Detect a death within this time
    #[arg(long, value_name = "TIME", default_value = "4s", value_parser = duration)]
    detect_within: Duration,
    /// The number of bots at the start
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    bots: usize,
    /// Keep the bots silent
    #[arg(long)]
    quiet: bool,
}

#[derive(Args)]
struct ClientOptions {
    /// Your name in the room
    #[arg(long)]
    name: String,
    /// The address of the server
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7000")]
    server: SocketAddr,
    /// Detect the death of the server within this time
    #[arg(long, value_name = "TIME", default_value = "4s", value_parser = duration)]
    detect_within: Duration,
    /// Send no messages by itself
    #[arg(long, hide = true)]
    quiet: bool,
}

// One thread is enough; and a bot ends with the thread that started it.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    match Role::parse() {
        Role::Server(options) => server::run(options).await,
        Role::Client(options) => client::run(options).await,
        Role::Bot(options) => {
            process::end_with_parent();
            client::run_bot(options).await
        }
    }
}

/// Derives all timings from the detection time.
fn config(detect_within: Duration) -> Result<Config, ConfigError> {
    let config = Config::detect_within(detect_within)?;
    let min_interval = config.min_interval().min(Duration::from_millis(200));
    config
        .to_builder()
        // Frequent pings cost little here.
        .min_interval(min_interval)
        .max_frame(message::MAX_LENGTH)
        .build()
}
