//! A connection that is served while its application works.
//!
//! Whoever receives serves it, as without a driver, and a task of its own does
//! whenever nobody receives. So the beats go on while the application is busy, and a
//! message that somebody waits for takes no detour through another task. This module
//! decides what the handles offer, and what it means that one is dropped; who serves
//! the connection is in `shared`. What is alive and what is dead is decided below, as
//! it is without a driver.

mod shared;

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_core::{FusedStream, Stream};
use futures_sink::Sink;
use heartbeat_core::{Config, GoodbyeCode};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use self::shared::{Connection, Serve, Shared};
use crate::{
    CloseError, CloseReason, Death, Detail, Heartbeat, PeerEvent, ProbeError, SendError, Status,
    transport::Transport,
};

impl<S, C> Heartbeat<S, C>
where
    S: Send + 'static,
    C: Transport<S> + Send + 'static,
    C::Message: Send,
{
    /// Gives the connection to a task that serves it while the application
    /// works, and two handles to talk with it.
    ///
    /// Beats go on however long the application takes between two reads. What
    /// arrives meanwhile waits in the [`Receiver`]'s inbox. Once that holds 256
    /// KiB nothing more is read, so that the peer has to wait too; then nothing
    /// can be held against the peer either: the judgement is suspended
    /// ([`State::Paused`](crate::State::Paused)), a small frame still goes out
    /// once an interval so that the peer hears that we live, and once an interval the kernel is asked
    /// whether the connection is still there. When reading goes on, the peer is
    /// judged afresh.
    ///
    /// With [`max_pause`](heartbeat_core::ConfigBuilder::max_pause) the oldest
    /// message may wait for that long. Then the connection is given up with
    /// [`NotReading`](crate::Cause::NotReading), and the peer is told. The
    /// [`Receiver`] still gets all that had arrived.
    ///
    /// The connection lives as long as one of the handles does. When the last
    /// is dropped, the task says goodbye behind everything that was queued and
    /// closes, as [`close`](Sender::close) does. If only the [`Receiver`] is dropped, what
    /// arrives is thrown away, and the peer is judged as before.
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
    #[must_use = "without its handles the connection is closed"]
    pub fn spawn(self) -> Driver<C::Message> {
        let shared = Shared::new(self);
        let task = tokio::spawn(Serve(shared.clone()));
        let connection: Arc<dyn Connection<C::Message>> = shared;
        connection.add_sender();
        Driver {
            sender: Sender(connection.clone()),
            receiver: Receiver(connection),
            task,
        }
    }
}

/// What [`Heartbeat::spawn`] gives.
#[derive(Debug)]
#[non_exhaustive] // later versions may give more
pub struct Driver<M> {
    /// Sends, asks, and says how the connection is. Can be cloned.
    pub sender: Sender<M>,
    /// Receives the events.
    pub receiver: Receiver<M>,
    /// The task. It ends when the connection is closed; wait for it to be sure
    /// that a goodbye has left. Aborting it ends the connection without one.
    pub task: JoinHandle<()>,
}

/// The sending side of a connection that a [`Driver`] serves.
///
/// A message is written as soon as the driver comes to it. Several that are
/// sent in a row leave together. While 48 KiB of small messages or 192 KiB in all
/// are queued (8 KiB with a codec or frames of your own) a sender waits.
///
/// It is a [`Sink`] too.
pub struct Sender<M>(Arc<dyn Connection<M>>);

impl<M> Sender<M> {
    /// Queues a message, as soon as there is room.
    ///
    /// Cancel safe: if the future is dropped before it is ready, the message
    /// wasn't queued.
    ///
    /// # Errors
    ///
    /// [`SendError::TooLong`] and [`SendError::Unencodable`] for messages that
    /// can't be sent; the connection goes on. Otherwise how it ended.
    pub async fn send(&self, message: M) -> Result<(), SendError> {
        poll_fn(|cx| self.0.poll_room(cx)).await?;
        self.0.post(message)
    }

    /// Waits until everything that was queued has left for the kernel.
    ///
    /// # Errors
    ///
    /// How the connection ended.
    pub async fn flush(&self) -> Result<(), SendError> {
        poll_fn(|cx| self.0.poll_flushed(cx)).await
    }

    /// Asks the peer now, and waits for its answer: the round trip or the
    /// verdict. See [`Heartbeat::probe`].
    ///
    /// # Errors
    ///
    /// How the connection ended; [`ProbeError::Unanswered`] if neither an
    /// answer nor a verdict came within the detection time.
    pub async fn probe(&self) -> Result<Duration, ProbeError> {
        let mut status = self.0.watch();
        let asked = tokio::time::Instant::now();
        let before = self.0.probe();
        let waited = before.peer.detection_time;
        // While `wait_for` looks, and as long as its answer lives, it holds a
        // lock that the connection takes within its own: no call of `self.0`.
        // Not the number of pongs: one that came while nobody read, or while we
        // slept, measures nothing, and the peer is asked again then.
        let beats = before.beats;
        let answered = |now: &Status| {
            let ended = matches!(
                now.peer.state,
                heartbeat_core::State::Closed | heartbeat_core::State::Dead
            );
            now.beats != beats || ended
        };
        let answer = timeout(waited, async {
            status.wait_for(answered).await.map(|now| *now)
        })
        .await;
        // A pong that came with the end is an answer too.
        match (answer, self.0.ended()) {
            (Ok(Ok(now)), _) if now.beats != beats => {
                Ok(now.peer.last_rtt.unwrap_or(asked.elapsed()))
            }
            (_, Some(ended)) => Err(ended.into()),
            _ => Err(ProbeError::Unanswered { waited }),
        }
    }

    /// What is known about the connection right now.
    #[must_use]
    pub fn status(&self) -> Status {
        self.0.status()
    }

    /// The status, each time that it changes: with each event but messages,
    /// and when reading pauses or resumes. Its
    /// [`silent_for`](Status::silent_for) is that of the change.
    ///
    /// Hold what `borrow` gives only briefly, and call nothing of this handle
    /// meanwhile: the connection waits for it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.0.watch()
    }

    /// The operating system's error behind [`PeerEvent::Dead`], if there was
    /// one.
    #[must_use]
    pub fn io_error(&self) -> Option<Arc<io::Error>> {
        self.0.io_error()
    }

    /// The configuration that the connection was made with.
    #[must_use]
    pub fn config(&self) -> Config {
        self.0.config()
    }

    /// Says behind everything that was queued that no more messages follow, from this
    /// handle or another, and waits until that has left. See [`Heartbeat::finish`].
    ///
    /// # Errors
    ///
    /// How the connection ended; [`SendError::Unfinishable`] if the protocol can't say
    /// it.
    pub async fn finish(&self) -> Result<(), SendError> {
        poll_fn(|cx| self.0.poll_finish(cx)).await
    }

    /// Leaves: says goodbye behind everything that was queued, and waits until the
    /// peer has taken everything in and said so. See [`Heartbeat::close`].
    ///
    /// What arrives meanwhile is kept for the [`Receiver`], up to 256 KiB. While that is
    /// full nothing is read, for half of the peer's timeouts (its detection time less
    /// its interval) at most. What has no room then is thrown away, and a peer that
    /// leaves too isn't confirmed that.
    ///
    /// # Errors
    ///
    /// [`CloseError`]: the peer may lack some of what was sent.
    pub async fn close(&self) -> Result<CloseReason, CloseError> {
        self.close_with(GoodbyeCode::LEAVING, Detail::default())
            .await
    }

    /// The same as [`close`](Self::close), with a reason. See
    /// [`Heartbeat::close_with`].
    ///
    /// # Errors
    ///
    /// See [`close`](Self::close).
    pub async fn close_with(
        &self,
        code: GoodbyeCode,
        detail: Detail,
    ) -> Result<CloseReason, CloseError> {
        self.0.leave(code, detail);
        let mut status = self.0.watch();
        loop {
            if let Some(closed) = self.0.close_result() {
                return closed;
            }
            // See `closed`.
            let _ = status.changed().await;
        }
    }

    /// Waits until the connection has ended, and says how.
    ///
    /// # Errors
    ///
    /// The verdict, if that was without a goodbye.
    pub async fn closed(&self) -> Result<CloseReason, Death> {
        let mut status = self.0.watch();
        loop {
            if let Some(ended) = self.0.over() {
                return ended.into();
            }
            // That it is over is told to `watch` too, and far less often than
            // senders are woken. It lives as long as this handle.
            let _ = status.changed().await;
        }
    }
}

impl<M> Clone for Sender<M> {
    fn clone(&self) -> Self {
        self.0.add_sender();
        Self(self.0.clone())
    }
}

impl<M> Drop for Sender<M> {
    fn drop(&mut self) {
        self.0.remove_sender();
    }
}

impl<M> Sink<M> for Sender<M> {
    type Error = SendError;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.0.poll_room(cx)
    }

    fn start_send(self: Pin<&mut Self>, message: M) -> Result<(), SendError> {
        self.0.post(message)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.0.poll_flushed(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.0.leave(GoodbyeCode::LEAVING, Detail::default());
        let closed = ready!(self.0.poll_closed(cx));
        Poll::Ready(closed.map(drop).map_err(SendError::from))
    }
}

impl<M> fmt::Debug for Sender<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status();
        f.debug_struct("Sender").field("status", &status).finish()
    }
}

/// The receiving side of a connection that a [`Driver`] serves: a [`Stream`]
/// of the same events as [`Heartbeat`].
///
/// Poll it within the runtime: whoever receives serves the connection, and
/// needs its timer.
pub struct Receiver<M>(Arc<dyn Connection<M>>);

impl<M> Receiver<M> {
    /// What is known about the connection right now.
    #[must_use]
    pub fn status(&self) -> Status {
        self.0.status()
    }
}

impl<M> Stream for Receiver<M> {
    type Item = PeerEvent<M>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<PeerEvent<M>>> {
        self.0.poll_event(cx)
    }
}

impl<M> FusedStream for Receiver<M> {
    fn is_terminated(&self) -> bool {
        self.0.is_drained()
    }
}

impl<M> Drop for Receiver<M> {
    fn drop(&mut self) {
        self.0.remove_receiver();
    }
}

impl<M> fmt::Debug for Receiver<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status();
        f.debug_struct("Receiver").field("status", &status).finish()
    }
}
