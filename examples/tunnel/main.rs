//! A TCP tunnel with a heartbeat between its ends: ssh, HTTP or a database pass
//! unchanged, and each end learns within a bound that the other is gone.
//!
//! ```text
//! cargo run -p tunnel -- exit --listen 127.0.0.1:7001 --to 127.0.0.1:22
//! cargo run -p tunnel -- enter --listen 127.0.0.1:2222 --exit 127.0.0.1:7001
//! ssh -p 2222 localhost
//! ```
//!
//! The first runs beside the server, the second beside its clients. Each client's
//! connection has one of its own between the two ends. When one end freezes, loses its
//! network or is killed, the other resets the programs' connections; so does a program
//! that breaks off. A half-close passes as one.
//!
//! | file | what it decides |
//! |---|---|
//! | `main.rs` | which connections are made |
//! | `carry.rs` | what becomes of one connection |
//!
//! The tunnel is neither encrypted nor are its ends authenticated: put TLS between
//! (`../tls.rs`), or a network that you trust.

mod carry;

use std::{error::Error, io, net::SocketAddr, time::Duration};

use clap::{Args, Parser};
use heartbeat_examples::arguments::duration;
use heartbeat_tokio::Config;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

#[derive(Parser)]
#[command(about = "A TCP tunnel whose ends know that the other is gone")]
enum End {
    /// Accepts programs, and connects each to the exit
    Enter {
        /// The address of the exit
        #[arg(long, value_name = "ADDRESS")]
        exit: SocketAddr,
        #[command(flatten)]
        options: Options,
    },
    /// Accepts entries, and connects each to the server
    Exit {
        /// The address of the server
        #[arg(long, value_name = "ADDRESS")]
        to: SocketAddr,
        #[command(flatten)]
        options: Options,
    },
}

#[derive(Args)]
struct Options {
    /// The address to listen on; the system picks a port for 0
    #[arg(long, value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Detect a lost end within this time
    #[arg(long, value_name = "TIME", default_value = "6s", value_parser = duration)]
    detect_within: Duration,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    match End::parse() {
        End::Enter { exit, options } => {
            serve(options, move |program, config| enter(program, exit, config)).await
        }
        End::Exit { to, options } => {
            let serve_one =
                move |entry, config| carry::carry(TcpStream::connect(to), entry, config);
            serve(options, serve_one).await
        }
    }
}

/// Accepts connections, each with a task of its own.
async fn serve<F>(
    options: Options,
    serve_one: impl Fn(TcpStream, Config) -> F,
) -> Result<(), Box<dyn Error>>
where
    F: Future<Output = io::Result<(u64, u64)>> + Send + 'static,
{
    let config = Config::detect_within(options.detect_within)?;
    let listener = TcpListener::bind(options.listen).await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // File descriptors may have run out; others will be closed.
                eprintln!("{error}");
                sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let served = serve_one(stream, config);
        tokio::spawn(async move {
            match served.await {
                Ok((there, back)) => println!("{from}: {there} bytes there, {back} back"),
                Err(error) => println!("{from}: {error}"),
            }
        });
    }
}

/// Connects a program to the exit.
async fn enter(program: TcpStream, exit: SocketAddr, config: Config) -> io::Result<(u64, u64)> {
    let connected = timeout(config.detection_time(), TcpStream::connect(exit)).await;
    match connected.unwrap_or_else(|elapsed| Err(elapsed.into())) {
        Ok(exit) => carry::carry(async { Ok(program) }, exit, config).await,
        Err(error) => carry::refuse(&program).and(Err(error)),
    }
}
