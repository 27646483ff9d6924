//! How an application uses a heartbeat. What is promised mustn't depend on it,
//! so the tests of promises are written for any [`Drive`].

use std::future::Future;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use heartbeat_tokio::{Config, Driver, Heartbeat, PeerEvent};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};

/// What a test wants a connection to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// Send this, and wait until it has left.
    Send(Bytes),
    /// Ask the peer now.
    Probe,
    /// Say goodbye.
    Close,
}

/// A way to use a heartbeat.
pub trait Drive: Copy + Send + Sync + 'static {
    /// Wraps `stream` and serves it until the stream of events ends: `tell`s
    /// each event as it comes, and does what it is told to, one after the
    /// other. No commands any more means no more to do, not goodbye.
    fn drive<S>(
        self,
        stream: S,
        config: Config,
        commands: mpsc::Receiver<Command>,
        tell: impl FnMut(PeerEvent<Bytes>) + Send + 'static,
    ) -> impl Future<Output = ()> + Send
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static;
}

/// One task that reads events and, between two of them, sends.
#[derive(Clone, Copy, Debug)]
pub struct Inline;

impl Drive for Inline {
    async fn drive<S>(
        self,
        stream: S,
        config: Config,
        mut commands: mpsc::Receiver<Command>,
        mut tell: impl FnMut(PeerEvent<Bytes>) + Send + 'static,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut heartbeat = Heartbeat::new(stream, config);
        let mut open = true;
        loop {
            tokio::select! {
                event = heartbeat.next() => match event {
                    Some(event) => tell(event),
                    None => return,
                },
                command = commands.recv(), if open => {
                    // How sending fails is told by the events.
                    let _ = match command {
                        Some(Command::Send(message)) => heartbeat.send(message).await,
                        Some(Command::Close) => SinkExt::close(&mut heartbeat).await,
                        Some(Command::Probe) => {
                            heartbeat.probe();
                            Ok(())
                        }
                        None => {
                            open = false;
                            Ok(())
                        }
                    };
                }
            }
        }
    }
}

/// `spawn`: a driver serves the connection, one task reads events, and another
/// sends.
#[derive(Clone, Copy, Debug)]
pub struct Spawned;

impl Drive for Spawned {
    async fn drive<S>(
        self,
        stream: S,
        config: Config,
        mut commands: mpsc::Receiver<Command>,
        mut tell: impl FnMut(PeerEvent<Bytes>) + Send + 'static,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Driver {
            sender,
            mut receiver,
            ..
        } = Heartbeat::new(stream, config).spawn();
        tokio::spawn(async move {
            while let Some(command) = commands.recv().await {
                // How it fails is told by the events.
                match command {
                    Command::Send(message) => {
                        let _ = sender.send(message).await;
                        let _ = sender.flush().await;
                    }
                    Command::Close => {
                        let _ = sender.close().await;
                    }
                    Command::Probe => {
                        let sender = sender.clone();
                        tokio::spawn(async move { sender.probe().await });
                    }
                }
            }
        });
        while let Some(event) = receiver.next().await {
            tell(event);
        }
    }
}
