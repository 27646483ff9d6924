//! One connection, from its first message to its end.
//!
//! This module decides how a connection is served: the loop to copy. It works over any
//! transport. The room knows the other members.

use std::{
    io,
    sync::Weak,
    time::{Duration, Instant},
};

use axum::extract::{ConnectInfo, ws::WebSocket};
use futures::{Sink, SinkExt, Stream, StreamExt};
use heartbeat_tokio::{
    Cause, CloseReason, Config, Death, Diagnosis, Heartbeat, PeerEvent, Postcard, SendError,
    Status,
    websocket::{Connection, OwnFrames, TcpSocket},
};
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    message::{Kind, Message, text},
    room::Room,
    socket::Shared,
};

/// What the room wants from a member's task.
pub enum Command {
    /// Tell it this.
    Send(Message),
    /// Ask for a beat now.
    Probe,
    /// Say goodbye.
    Close,
}

/// A terminal or a bot: Postcard over TCP.
pub type Terminal = Heartbeat<Shared, Postcard<Message>>;

/// A page: JSON in a WebSocket.
pub type Page = Connection<PageSocket, OwnFrames<Message>>;
pub type PageSocket = (WebSocket, ConnectInfo<TcpSocket>);

pub fn terminal(stream: TcpStream, config: Config) -> (Terminal, Weak<TcpStream>) {
    let stream = Shared::new(stream);
    let socket = stream.downgrade();
    let peer = Heartbeat::typed(stream, config);
    (peer.with_socket(|stream| Some(stream.socket())), socket)
}

pub fn page(stream: PageSocket, config: Config) -> (Page, Weak<TcpStream>) {
    let socket = stream.1.downgrade();
    let peer = Heartbeat::websocket_with(stream, OwnFrames::typed(), config);
    (peer, socket)
}

/// A heartbeat, whatever carries it.
pub trait Peer:
    Stream<Item = PeerEvent<Message>> + Sink<Message, Error = SendError> + Unpin
{
    fn status(&self) -> Status;
    fn probe(&mut self);
    fn io_error(&self) -> Option<&io::Error>;
}

macro_rules! peer {
    ($heartbeat:ty) => {
        impl Peer for $heartbeat {
            fn status(&self) -> Status {
                Self::status(self)
            }

            fn probe(&mut self) {
                Self::probe(self);
            }

            fn io_error(&self) -> Option<&io::Error> {
                Self::io_error(self)
            }
        }
    };
}
peer!(Terminal);
peer!(Page);

/// Serves a connection to its end.
pub async fn serve<P: Peer>(room: Room, (mut peer, socket): (P, Weak<TcpStream>), is_page: bool) {
    // A connection must give its name within this time.
    let patience = room.config().detection_time();
    let Ok(Some((name, badge))) = timeout(patience, introduction(&mut peer)).await else {
        metrics::counter!("chat_refused_total").increment(1);
        return;
    };
    let kind = if is_page {
        Kind::Browser
    } else {
        Kind::Terminal
    };
    let (commands, mut wanted) = mpsc::channel(256);
    let (hold, mut held) = watch::channel(false);
    let Some(id) = room.enter(&name, badge, kind, commands, hold, socket) else {
        return; // It is full.
    };

    let mut look = interval(Duration::from_millis(250));
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let how = loop {
        let is_held = *held.borrow();
        room.note(id, &peer.status(), is_held);
        tokio::select! {
            // As in a handler that waits for something slow, nothing is read while this is
            // held.
            changed = held.changed() => if changed.is_err() {
                break How::gone();
            },
            event = peer.next(), if !is_held => match event {
                Some(PeerEvent::Message(message)) => room.hear(id, message),
                Some(event) => {
                    room.observe(id, &event);
                    if let Some(how) = How::of(&event, peer.io_error()) {
                        break how;
                    }
                }
                None => break How::gone(),
            },
            command = wanted.recv(), if !is_held => match command {
                // If it fails the next event says why.
                Some(Command::Send(message)) => drop(peer.send(message).await),
                Some(Command::Probe) => peer.probe(),
                Some(Command::Close) | None => {
                    let _ = peer.close().await;
                    break How::we_left();
                }
            },
            _ = look.tick() => {}
        }
    };
    room.leave(id, how);
}

/// The first message, if it is what it has to be.
async fn introduction(peer: &mut impl Peer) -> Option<(String, Option<u64>)> {
    while let Some(event) = peer.next().await {
        match event {
            PeerEvent::Message(Message::Join { name, badge }) => return Some((name, badge)),
            PeerEvent::Message(_) => return None,
            _ => {}
        }
    }
    None
}

/// How a connection ended.
pub struct How {
    /// One word, for the page and for metrics.
    pub cause: &'static str,
    /// For people.
    pub words: String,
    pub at: Instant,
}

impl How {
    /// What the last event says.
    fn of(event: &PeerEvent<Message>, error: Option<&io::Error>) -> Option<Self> {
        let (cause, words) = match event {
            PeerEvent::Closed { reason } => match reason {
                CloseReason::Peer { detail, .. } if detail.is_empty() => {
                    ("goodbye", "said goodbye".into())
                }
                CloseReason::Peer { detail, .. } => {
                    // Its words: terminals show this.
                    let said = text(detail);
                    ("goodbye", format!("said goodbye: {said}"))
                }
                CloseReason::Local | CloseReason::Unconfirmed => return Some(Self::we_left()),
                CloseReason::Finished => ("goodbye", "had nothing more to say".into()),
            },
            PeerEvent::Dead(death) => of_death(death, error),
            _ => return None,
        };
        Some(Self::new(cause, words))
    }

    fn we_left() -> Self {
        Self::new("closed", "the server said goodbye".into())
    }

    fn gone() -> Self {
        Self::new("io", "gone".into())
    }

    fn new(cause: &'static str, words: String) -> Self {
        let at = Instant::now();
        Self { cause, words, at }
    }
}

fn of_death(death: &Death, error: Option<&io::Error>) -> (&'static str, String) {
    let silence = death.silent_for.as_secs_f64();
    match (&death.cause, death.diagnosis) {
        (Cause::Silent, Diagnosis::AppHung) => {
            ("silent", format!("hung: no beat for {silence:.1} s"))
        }
        (Cause::Silent, Diagnosis::PathDead) => {
            ("silent", format!("unreachable: no beat for {silence:.1} s"))
        }
        (Cause::Silent, _) => ("silent", format!("silent: no beat for {silence:.1} s")),
        (Cause::GivenUp { code, detail }, _) => {
            let said = text(detail);
            (
                "gave_up",
                format!("gave us up: {code} {said}").trim_end().into(),
            )
        }
        (Cause::Eof | Cause::Reset, _) => ("cut_off", "cut off: closed without a goodbye".into()),
        (Cause::Protocol(rule), _) => match error {
            Some(error) => ("protocol", format!("broke the protocol: {error}")),
            None => ("protocol", format!("broke the protocol: {rule}")),
        },
        (cause, _) => ("network", cause.to_string()),
    }
}
