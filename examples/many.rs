//! 2,000 connections in one loop.
//!
//! ```text
//! cargo run --example many
//! ```
//!
//! Server and clients are one process. A tenth of the clients hangs, and a tenth leaves.
//! The server finds that out, says so to all others, and leaves.

use std::{collections::BTreeMap, error::Error, net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use heartbeat_tokio::{Cause, Config, ConfigError, GoodbyeCode, Group, Heartbeat, PeerEvent, Slow};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
};

const CLIENTS: usize = 2_000;
const SOME: usize = CLIENTS / 10;

type Fallible<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// A death is detected within 4 s.
fn config() -> Result<Config, ConfigError> {
    Config::detect_within(Duration::from_secs(4))
}

#[tokio::main]
async fn main() -> Fallible {
    allow_files(2 * CLIENTS + 100)?;
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    // All may wait to be accepted at once.
    let listener = socket.listen(u32::try_from(CLIENTS)?)?;
    let address = listener.local_addr()?;
    let mut server = tokio::spawn(serve(listener));
    let (mut hanging, mut others) = (JoinSet::new(), JoinSet::new());
    for number in 0..CLIENTS {
        match number < SOME {
            true => hanging.spawn(hang(address)),
            false => others.spawn(client(address, number < 2 * SOME)),
        };
    }

    let mut heard = BTreeMap::<_, usize>::new();
    let mut has_served = false;
    while !has_served || !others.is_empty() {
        tokio::select! {
            served = &mut server, if !has_served => {
                served??;
                has_served = true;
            }
            Some(client) = others.join_next() => *heard.entry(client??).or_default() += 1,
        }
    }
    println!("{heard:?}");
    assert_eq!(heard, BTreeMap::from([(0, SOME), (1, CLIENTS - 2 * SOME)]));
    Ok(())
}

// ---- the server ---------------------------------------------------------------

async fn serve(listener: TcpListener) -> Fallible {
    let mut members = Group::<SocketAddr, Bytes>::new();
    let (mut hung, mut left) = (0, 0);
    while (hung, left) != (SOME, SOME) {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, address) = accepted?;
                stream.set_nodelay(true)?;
                members.insert(address, Heartbeat::new(stream, config()?).spawn());
            }
            Some((address, event)) = members.recv() => match event {
                PeerEvent::Closed { .. } => left += 1,
                PeerEvent::Dead(death) if death.cause == Cause::Silent => hung += 1,
                PeerEvent::Dead(death) => return Err(format!("{address}: {death}").into()),
                _ => {}
            },
        }
    }
    println!("{hung} hung, {left} left: {:?}", members.counts());
    let all = members.broadcast("one of us hung".into(), Slow::Drop).await;
    assert_eq!(all.sent, members.len());
    members.leave(GoodbyeCode::RESTARTING, "a new version");
    while members.recv().await.is_some() {}
    Ok(())
}

// ---- the clients --------------------------------------------------------------

/// Isn't polled any more once it has connected.
async fn hang(address: SocketAddr) -> Fallible {
    let _server = connect(address).await?;
    std::future::pending().await
}

/// How many messages it hears.
async fn client(address: SocketAddr, leaves: bool) -> Fallible<usize> {
    let mut server = connect(address).await?;
    if leaves {
        server.close().await?;
    }
    let mut heard = 0;
    while let Some(event) = server.next().await {
        match event {
            PeerEvent::Message(_) => heard += 1,
            PeerEvent::Dead(death) => return Err(death.into()),
            _ => {}
        }
    }
    Ok(heard)
}

async fn connect(address: SocketAddr) -> Fallible<Heartbeat<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut server = Heartbeat::new(stream, config()?);
    server.send("hello".into()).await?;
    Ok(server)
}

/// A process may have that many files open, if the hard limit allows it.
#[cfg(unix)]
fn allow_files(files: usize) -> Fallible {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let files = u64::try_from(files)?;
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < files) {
        limit.current = Some(limit.maximum.map_or(files, |maximum| maximum.min(files)));
        setrlimit(Resource::Nofile, limit)?;
    }
    Ok(())
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere it may fail")]
fn allow_files(_: usize) -> Fallible {
    Ok(())
}
