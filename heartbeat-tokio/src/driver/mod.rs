//! Serves a connection while its application works.
//!
//! A task serves the connection whenever something happens on it, so that beats continue
//! while the application is busy, and wakes the receiver. A sender that flushes writes
//! itself, and a receiver that finds nothing waiting reads itself. This module decides what
//! `spawn` makes. The handles are in `sender` and `receiver`, wake-ups in `turns`, and
//! serving in `state`. The connection itself judges the peer.

mod connection;
#[cfg(all(test, target_pointer_width = "64"))]
mod model;
mod receiver;
mod sender;
mod state;
mod turns;
mod waiting;
mod weak;

use tokio::task::JoinHandle;

use self::state::{Serve, Shared};
pub use self::{receiver::Receiver, sender::Sender, weak::WeakSender};
use crate::{Heartbeat, transport::Transport};

/// The primitives of `turns`; `model` uses loom's.
mod atomics {
    pub(super) use std::sync::atomic::{AtomicU8, Ordering};

    pub(super) use atomic_waker::AtomicWaker;
}

impl<S, C> Heartbeat<S, C>
where
    S: Send + 'static,
    C: Transport<S> + Send + 'static,
    C::Message: Send,
{
    /// Gives the connection to a task that serves it while the application works, and returns
    /// two handles.
    ///
    /// Beats continue however long the application takes between two reads. Messages that
    /// arrive meanwhile wait in the [`Receiver`]'s inbox. When it holds 256 KiB, reading pauses
    /// and the peer has to wait ([`State::Paused`](crate::State::Paused)): the peer isn't
    /// judged, a small frame once an interval shows it that we live, and the kernel is asked
    /// once an interval whether the connection still exists. When reading resumes, the peer is
    /// judged afresh.
    ///
    /// [`max_pause`](heartbeat_core::ConfigBuilder::max_pause) limits how long the oldest
    /// message may wait. Then the connection is given up with
    /// [`NotReading`](crate::Cause::NotReading), and the peer is told. The [`Receiver`] still
    /// gets everything that had arrived.
    ///
    /// Only messages fill the inbox: a connection whose receiver isn't read is judged like any
    /// other. [`Receiver`] describes how other events wait.
    ///
    /// The connection lives as long as one of the handles does; a [`WeakSender`] doesn't count.
    /// When the last one is dropped, the task says goodbye behind everything that was queued
    /// and closes, as [`close`](Sender::close) does. If only the [`Receiver`] is dropped,
    /// messages that arrive are discarded, and the peer is judged as before.
    ///
    /// ```
    /// use futures::StreamExt;
    /// use heartbeat_tokio::{Config, Driver, Heartbeat, PeerEvent};
    /// use std::time::Duration;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (ours, theirs) = tokio::io::duplex(1024);
    /// # let other = Heartbeat::new(theirs, Config::default()).spawn();
    /// # other.sender.send("dinner".into()).await?;
    /// # let an_hour = Duration::from_millis(20);
    /// let peer = Heartbeat::new(ours, Config::default());
    /// let Driver { sender, mut receiver, .. } = peer.spawn();
    ///
    /// while let Some(event) = receiver.next().await {
    ///     if let PeerEvent::Message(order) = event {
    ///         tokio::time::sleep(an_hour).await; // cooking
    ///         sender.send("here you are".into()).await?;
    ///         break;
    ///     }
    /// }
    /// let round_trip = sender.probe().await?;
    /// # drop(round_trip);
    /// # Ok(()) }
    /// ```
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime, as [`tokio::spawn`] does.
    pub fn spawn(self) -> Driver<C::Message> {
        let shared = Shared::new(self);
        let task = tokio::spawn(Serve(shared.clone()));
        Driver {
            sender: Sender::first(shared.clone()),
            receiver: Receiver::new(shared),
            task,
        }
    }
}

/// The handles and the task of a connection: what [`Heartbeat::spawn`] returns.
///
/// ```
/// # async fn example(
/// #     peer: heartbeat_tokio::Heartbeat<tokio::net::TcpStream>,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// use heartbeat_tokio::Driver;
///
/// let Driver { sender, receiver, task, .. } = peer.spawn();
/// sender.send("hello".into()).await?;
/// drop((sender, receiver)); // a goodbye follows what was sent
/// task.await?; // it has left
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "without its handles the connection is closed"]
#[non_exhaustive] // later versions may give more
pub struct Driver<M> {
    /// Sends, pings, and reports the state. Can be cloned.
    pub sender: Sender<M>,
    /// Receives the events.
    pub receiver: Receiver<M>,
    /// The task. It ends when the connection is closed: await it to be sure that a goodbye has
    /// left. Aborting it ends the connection without a goodbye.
    pub task: JoinHandle<()>,
}
