//! The receiving side of a spawned connection.
//!
//! This module decides what its handle offers, and what dropping it means.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::{FusedStream, Stream};

use super::connection::Connection;
use crate::{PeerEvent, Status};

/// The receiving side of a connection that a [`Driver`](crate::Driver) serves: a
/// [`Stream`] of the same events as [`Heartbeat`](crate::Heartbeat).
///
/// Messages wait in an inbox of 256 KiB. Other events need no room:
///
/// - Of [`Beat`](PeerEvent::Beat), [`LocalStall`](PeerEvent::LocalStall),
///   [`Suspect`](PeerEvent::Suspect) and [`Recovered`](PeerEvent::Recovered) the last one
///   each waits, in their order, ahead of the messages. A suspicion that ended before it was
///   taken isn't reported, nor is its end.
/// - [`Connected`](PeerEvent::Connected) comes before everything else.
/// - [`Finished`](PeerEvent::Finished) and the terminal event come behind everything else.
///
/// It can be polled in any runtime, or in none: the connection's timer belongs to the
/// runtime in which it was [spawned](crate::Heartbeat::spawn).
///
/// ```
/// # async fn example(mut receiver: heartbeat_tokio::Receiver<bytes::Bytes>) {
/// use heartbeat_tokio::PeerEvent;
///
/// while let Some(event) = receiver.recv().await {
///     match event {
///         PeerEvent::Message(bytes) => println!("{} bytes", bytes.len()),
///         PeerEvent::Suspect { silent_for, .. } => println!("silent for {silent_for:?}"),
///         end if end.is_terminal() => println!("{end}"), // the last event
///         _ => {}
///     }
/// }
/// # }
/// ```
#[must_use = "nothing is received unless it is polled"]
pub struct Receiver<M> {
    connection: Arc<dyn Connection<M>>,
    /// Whether messages wait, as far as this handle knows.
    more: bool,
}

impl<M> Receiver<M> {
    pub(super) fn new(connection: Arc<dyn Connection<M>>) -> Self {
        Self {
            connection,
            more: false,
        }
    }

    /// The next event; `None` after the terminal one.
    ///
    /// Cancel safe: if the future is dropped, no event is lost.
    pub async fn recv(&mut self) -> Option<PeerEvent<M>> {
        poll_fn(|cx| self.connection.poll_event(&mut self.more, cx)).await
    }

    /// The next event of those that the task took in, for a receiver that leaves serving to
    /// it. Without `more` behind it there is nothing until this is woken.
    pub(crate) fn poll_taken_in(
        &mut self,
        more: &mut bool,
        cx: &Context<'_>,
    ) -> Poll<Option<PeerEvent<M>>> {
        self.more = false;
        self.connection.poll_taken_in(more, cx)
    }

    /// A snapshot of the connection.
    #[must_use]
    pub fn status(&self) -> Status {
        self.connection.snapshot().status
    }
}

impl<M> Stream for Receiver<M> {
    type Item = PeerEvent<M>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<PeerEvent<M>>> {
        let this = self.get_mut();
        this.connection.poll_event(&mut this.more, cx)
    }
}

impl<M> FusedStream for Receiver<M> {
    fn is_terminated(&self) -> bool {
        self.connection.snapshot().is_drained
    }
}

impl<M> Drop for Receiver<M> {
    fn drop(&mut self) {
        self.connection.remove_receiver();
    }
}

impl<M> fmt::Debug for Receiver<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status();
        f.debug_struct("Receiver").field("status", &status).finish()
    }
}
