//! The seam between the handles of a connection and what carries it.
//!
//! This module only defines an interface, for handles whose type knows neither the stream
//! nor the transport.

use std::{
    io,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use heartbeat_core::{Config, ConfigError, GoodbyeCode};
use tokio::sync::watch;

use super::waiting::{Ticket, Wanted};
use crate::{
    CloseError, CloseReason, Detail, PeerEvent, SendError, Status, error::Ended,
    safety_net::Liveness,
};

/// What the handles do with a connection, whatever carries it.
pub(super) trait Connection<M>: Send + Sync {
    /// The next event. `more` holds whether messages waited behind the previous one, and is
    /// updated.
    fn poll_event(&self, more: &mut bool, cx: &mut Context<'_>) -> Poll<Option<PeerEvent<M>>>;
    /// The next event of those that the task took in, and whether there may be more.
    fn poll_taken_in(&self, more: &mut bool, cx: &Context<'_>) -> Poll<Option<PeerEvent<M>>>;
    /// Waits for something. Until it is so, or `ticket` is given back, the task of `cx`
    /// is woken when it is.
    fn poll_until(
        &self,
        wanted: Wanted,
        ticket: &mut Ticket,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SendError>>;
    fn give_back(&self, ticket: &mut Ticket);
    /// Queues a message, or gives it back if there is no room.
    fn post(&self, message: M, room: Room<'_>) -> Result<Option<M>, SendError>;
    /// Probes, and returns the status before that.
    fn probe(&self) -> Status;
    fn set_interval(&self, interval: Duration) -> Result<(), ConfigError>;
    fn leave(&self, code: GoodbyeCode, detail: Detail);
    fn snapshot(&self) -> Snapshot;
    /// Looks at the socket; `None` without one.
    fn check(&self) -> io::Result<Option<Liveness>>;
    fn watch(&self) -> watch::Receiver<Status>;
    /// Adds a sender. Fails if no handle is left.
    fn add_sender(&self) -> bool;
    fn remove_sender(&self);
    fn remove_receiver(&self);
}

/// The state of a connection at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) status: Status,
    pub(super) config: Config,
    /// The bytes that were queued and not written; once it has ended, those that never were.
    pub(super) unwritten: usize,
    /// How it ended, if it has.
    pub(super) ended: Option<Ended>,
    /// Whether our messages were received, once nothing is left to do.
    pub(super) close_result: Option<Result<CloseReason, CloseError>>,
    pub(super) io_error: Option<Arc<io::Error>>,
    /// The connection is over, and every event was handed out.
    pub(super) is_drained: bool,
}

/// Whether a message may be queued in excess.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Room<'a> {
    /// There was room, which others may have taken since. Set to whether there still is.
    WasThere(&'a mut bool),
    Needed,
}
