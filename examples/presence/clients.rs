//! Clients that come back, to any gateway: any number of users in one process.
//!
//! This module decides where a client tries next. A SIGTERM has all of them say goodbye, and
//! a SIGUSR1 has them move to the next gateway without a word.

use std::{error::Error, io, net::SocketAddr, pin::Pin, time::Duration};

use clap::Args;
use futures::{Sink, SinkExt, Stream, StreamExt};
use heartbeat_examples::{arguments::duration, process};
use heartbeat_tokio::{
    Backoff, Config, Heartbeat, PeerEvent, Reconnect, SendError, websocket::OwnFrames,
};
use tokio::{net::TcpStream, sync::watch, task::JoinSet, time::sleep};
use tokio_tungstenite::client_async;

use crate::{
    Timings,
    message::{Message, News},
};

#[derive(Args, Clone)]
pub struct Options {
    /// Where the gateways are
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', required = true)]
    gateways: Vec<SocketAddr>,
    /// Connect over WebSockets, where the pages are
    #[arg(long)]
    websocket: bool,
    /// Number of users
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    users: usize,
    /// What their names begin with
    #[arg(long, default_value = "user")]
    prefix: String,
    /// How long they wait at most when they have lost a gateway
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = duration)]
    spread: Duration,
    /// Connections opened per second
    #[arg(long, value_name = "NUMBER", default_value_t = 2000)]
    rate: u32,
    #[command(flatten)]
    timings: Timings,
    /// Talks to a program
    #[arg(long, hide = true)]
    json: bool,
    /// Says nothing
    #[arg(long, hide = true)]
    quiet: bool,
}

/// What all clients are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Stay { moves: u32 },
    Leave,
}

pub async fn run(options: Options) -> Result<(), Box<dyn Error>> {
    if options.json || options.quiet {
        process::end_with_parent();
    }
    let config = options.timings.config()?;
    let (wishes, wish) = watch::channel(Wish::Stay { moves: 0 });
    let mut clients = JoinSet::new();
    let start = async {
        for number in 0..options.users {
            let user = format!("{}{number}", options.prefix);
            clients.spawn(client(options.clone(), config, user, number, wish.clone()));
            sleep(Duration::from_secs(1) / options.rate.max(1)).await;
        }
        while clients.join_next().await.is_some() {}
    };
    let obey = async {
        tokio::select! {
            interrupted = process::interrupted() => interrupted?,
            moving = moving(&wishes) => moving?,
        }
        wishes.send_replace(Wish::Leave);
        // `start` ends when all have left.
        std::future::pending::<io::Result<()>>().await
    };
    tokio::select! {
        () = start => Ok(()),
        obeyed = obey => Ok(obeyed?),
    }
}

/// Has all of them move, whenever somebody wants that.
#[cfg(unix)]
async fn moving(wishes: &watch::Sender<Wish>) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut wanted = signal(SignalKind::user_defined1())?;
    while wanted.recv().await.is_some() {
        wishes.send_modify(|wish| {
            if let Wish::Stay { moves } = wish {
                *moves += 1;
            }
        });
    }
    Ok(())
}

#[cfg(not(unix))]
async fn moving(_wishes: &watch::Sender<Wish>) -> io::Result<()> {
    std::future::pending().await
}

/// One user, on one gateway after the other.
async fn client(
    options: Options,
    config: Config,
    user: String,
    number: usize,
    mut wish: watch::Receiver<Wish>,
) {
    let tell = |news: News| {
        if !options.quiet {
            news.tell(options.json);
        }
    };
    let backoff = Backoff::default()
        .loss_spread(options.spread)
        .max_delay(options.spread.max(Duration::from_millis(200)))
        .reset_after(Duration::from_secs(1));
    let gateways = options.gateways.clone();
    let mut next = number;
    let mut connections = Reconnect::owning(backoff, async move || {
        let address = gateways[next % gateways.len()];
        next += 1;
        connect(address, options.websocket, config).await
    });
    loop {
        let mut gateway = tokio::select! {
            gateway = connections.connect() => gateway,
            _ = wish.wait_for(|wish| *wish == Wish::Leave) => return,
        };
        let join = Message::Join {
            user: user.clone(),
            shows: false,
        };
        // If it fails the first event says why.
        let _ = gateway.send(join).await;
        let how = loop {
            tokio::select! {
                event = gateway.next() => match event {
                    Some(PeerEvent::Message(Message::Welcome { gateway })) => {
                        tell(News::Connected { user: user.clone(), gateway });
                    }
                    Some(event) => {
                        connections.note(&event);
                        match event {
                            PeerEvent::Closed { reason } => break reason.to_string(),
                            PeerEvent::Dead(death) => break death.to_string(),
                            _ => {}
                        }
                    }
                    None => break "gone".into(),
                },
                Ok(()) = wish.changed() => {
                    let leaves = *wish.borrow_and_update() == Wish::Leave;
                    if !leaves {
                        break "moves".into();
                    }
                    let _ = gateway.close().await;
                    return;
                }
            }
        };
        tell(News::Ended {
            user: user.clone(),
            how,
        });
    }
}

/// A connection to a gateway, over either. Dropped, it ends without a word.
trait Peer: Stream<Item = PeerEvent<Message>> + Sink<Message, Error = SendError> + Send {}

impl<T: Stream<Item = PeerEvent<Message>> + Sink<Message, Error = SendError> + Send> Peer for T {}

async fn connect(
    address: SocketAddr,
    websocket: bool,
    config: Config,
) -> io::Result<Pin<Box<dyn Peer>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    if !websocket {
        return Ok(Box::pin(Heartbeat::typed(stream, config)));
    }
    let url = format!("ws://{address}/socket");
    let (socket, _) = client_async(url, stream).await.map_err(io::Error::other)?;
    let frames = OwnFrames::typed();
    Ok(Box::pin(Heartbeat::websocket_with(socket, frames, config)))
}
