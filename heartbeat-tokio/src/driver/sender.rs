//! The sending side of a spawned connection.
//!
//! This module decides what its handles offer, and what dropping one means.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_sink::Sink;
use heartbeat_core::{Config, ConfigError, GoodbyeCode};
use tokio::{sync::watch, time::timeout};

use super::{
    WeakSender,
    connection::{Connection, Room},
    waiting::{Ticket, Wanted},
};
use crate::{
    CloseError, CloseReason, Death, Detail, ProbeError, SendError, State, Status, TrySendError,
    safety_net::Liveness,
};

/// The sending side of a connection that a [`Driver`](crate::Driver) serves.
///
/// Messages that are sent in a row leave together, as soon as the driver runs. A sender
/// waits while 48 KiB of small messages or 192 KiB in all are queued (8 KiB with a codec of
/// your own, 128 KiB with frames).
///
/// It is a [`Sink`] too. The connection lives as long as a `Sender` or the
/// [`Receiver`](crate::Receiver) does; a [`WeakSender`] doesn't count.
///
/// ```
/// # use heartbeat_tokio::{Config, Heartbeat};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (ours, theirs) = tokio::io::duplex(1024);
/// # let _other = Heartbeat::new(theirs, Config::default()).spawn();
/// let sender = Heartbeat::new(ours, Config::default()).spawn().sender;
/// let clone = sender.clone(); // for another task
/// clone.send("hello".into()).await?;
/// println!("a round trip of {:?}", sender.probe().await?);
/// sender.close().await?; // the peer has taken in everything
/// # Ok(()) }
/// ```
pub struct Sender<M> {
    connection: Arc<dyn Connection<M>>,
    /// This handle's place among the waiting callers, as a sink.
    ticket: Ticket,
    /// Whether there was room when this handle last sent as a sink.
    room: bool,
}

impl<M> Sender<M> {
    /// The one that is counted already.
    pub(super) fn first(connection: Arc<dyn Connection<M>>) -> Self {
        Self {
            connection,
            ticket: Ticket::default(),
            room: false,
        }
    }

    /// Queues a message, as soon as there is room.
    ///
    /// Cancel safe: if the future is dropped before it is ready, the message
    /// wasn't queued.
    ///
    /// # Errors
    ///
    /// [`SendError::TooLong`] and [`SendError::Unencodable`] for a message that can't be sent;
    /// the connection goes on. Any other error says how the connection ended.
    pub async fn send(&self, mut message: M) -> Result<(), SendError> {
        let mut waiter = Waiter::new(self);
        while let Some(unsent) = self.connection.post(message, Room::Needed)? {
            message = unsent;
            waiter.until(Wanted::Room).await?;
        }
        Ok(())
    }

    /// Queues a message if there is room. Never waits.
    ///
    /// # Errors
    ///
    /// [`TrySendError::Full`] returns the message. Otherwise as with [`send`](Self::send).
    pub fn try_send(&self, message: M) -> Result<(), TrySendError<M>> {
        match self.connection.post(message, Room::Needed)? {
            None => Ok(()),
            Some(unsent) => Err(TrySendError::Full(unsent)),
        }
    }

    /// Waits until everything that was queued has left for the kernel.
    ///
    /// # Errors
    ///
    /// How the connection ended.
    pub async fn flush(&self) -> Result<(), SendError> {
        Waiter::new(self).until(Wanted::Flushed).await
    }

    /// The bytes that were queued and that the stream hasn't taken yet, those of frames
    /// around messages included. Zero once the connection has ended.
    ///
    /// Together with [`blocked_for`](Status::blocked_for) it shows a peer that reads too
    /// slowly.
    #[must_use]
    pub fn queued(&self) -> usize {
        let now = self.connection.snapshot();
        match now.ended {
            None => now.unwritten,
            Some(_) => 0,
        }
    }

    /// The bytes that the stream hasn't taken; or never took, once the connection has
    /// ended.
    pub(crate) fn unwritten(&self) -> usize {
        self.connection.snapshot().unwritten
    }

    /// Pings the peer now, and waits for the round trip or the verdict. See
    /// [`Heartbeat::probe`](crate::Heartbeat::probe).
    ///
    /// # Errors
    ///
    /// How the connection ended; [`ProbeError::Unanswered`] if neither an
    /// answer nor a verdict came within the detection time.
    pub async fn probe(&self) -> Result<Duration, ProbeError> {
        let mut status = self.watch();
        let asked = tokio::time::Instant::now();
        let before = self.connection.probe();
        let waited = before.peer.detection_time;
        // While `wait_for` looks, and as long as its answer lives, it holds a
        // lock that the connection takes within its own: no call of the connection.
        // Not the number of pongs: a pong that came during a pause or a local stall
        // measures nothing, and the peer is pinged again then.
        let beats = before.beats;
        let answered = |now: &Status| {
            now.beats != beats || matches!(now.peer.state, State::Closed | State::Dead)
        };
        let answer = timeout(waited, async {
            status.wait_for(answered).await.map(|now| *now)
        })
        .await;
        // A pong that came with the end is an answer too.
        match (answer, self.connection.snapshot().ended) {
            (Ok(Ok(now)), _) if now.beats != beats => {
                Ok(now.peer.last_rtt.unwrap_or(asked.elapsed()))
            }
            (_, Some(ended)) => Err(ended.into()),
            _ => Err(ProbeError::Unanswered { waited }),
        }
    }

    /// Sets another interval. See [`Heartbeat::set_interval`](crate::Heartbeat::set_interval).
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if a configuration can't have it, or if the peer would be refused
    /// with it. Nothing has changed then.
    pub fn set_interval(&self, interval: Duration) -> Result<(), ConfigError> {
        self.connection.set_interval(interval)
    }

    /// Checks the socket below the connection, as
    /// [`safety_net::check`](crate::safety_net::check) does. `None` if it isn't known
    /// ([`NetStatus::NoSocket`](crate::NetStatus::NoSocket)), or the stream is closed.
    ///
    /// # Errors
    ///
    /// If the socket can't be asked.
    pub fn check(&self) -> io::Result<Option<Liveness>> {
        self.connection.check()
    }

    /// A snapshot of the connection.
    #[must_use]
    pub fn status(&self) -> Status {
        self.connection.snapshot().status
    }

    /// Follows the status, which changes with each event but messages, and when reading
    /// pauses or resumes. Its [`silent_for`](Status::silent_for) is that of the change.
    ///
    /// Hold what `borrow` gives only briefly, and call nothing of this handle
    /// meanwhile: the connection waits for it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.connection.watch()
    }

    /// The error behind [`PeerEvent::Dead`](crate::PeerEvent::Dead), if there was one: the
    /// operating system's, or that of a codec or a library.
    #[must_use]
    pub fn io_error(&self) -> Option<Arc<io::Error>> {
        self.connection.snapshot().io_error
    }

    /// The configuration of the connection.
    #[must_use]
    pub fn config(&self) -> Config {
        self.connection.snapshot().config
    }

    /// Ends our messages behind everything that was queued, for all handles, and waits
    /// until the Fin has left. See [`Heartbeat::finish`](crate::Heartbeat::finish).
    ///
    /// # Errors
    ///
    /// How the connection ended; [`SendError::Unfinishable`] if the protocol can't say
    /// it.
    pub async fn finish(&self) -> Result<(), SendError> {
        Waiter::new(self).until(Wanted::Finished).await
    }

    /// The same, for a handle that is polled as a sink is.
    pub(crate) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.connection
            .poll_until(Wanted::Finished, &mut self.ticket, cx)
    }

    /// Says goodbye behind everything that was queued, and waits until the peer
    /// confirms that it received everything. See
    /// [`Heartbeat::close`](crate::Heartbeat::close).
    ///
    /// What arrives meanwhile is kept for the [`Receiver`](crate::Receiver), up to 256 KiB.
    /// While that is full nothing is read, until half of the peer's timeouts (its detection
    /// time less its interval) have passed since it was full for the first time. What has
    /// no room then is discarded, and a peer that leaves too isn't confirmed that.
    ///
    /// # Errors
    ///
    /// [`CloseError`]: the peer may lack some of what was sent.
    pub async fn close(&self) -> Result<CloseReason, CloseError> {
        self.close_with(GoodbyeCode::LEAVING, Detail::default())
            .await
    }

    /// The same as [`close`](Self::close), with a reason. See
    /// [`Heartbeat::close_with`](crate::Heartbeat::close_with).
    ///
    /// # Errors
    ///
    /// See [`close`](Self::close).
    pub async fn close_with(
        &self,
        code: GoodbyeCode,
        detail: Detail,
    ) -> Result<CloseReason, CloseError> {
        self.leave(code, detail);
        let mut waiter = Waiter::new(self);
        loop {
            if let Some(closed) = self.connection.snapshot().close_result {
                return closed;
            }
            // There is no error but that it is over.
            let _ = waiter.until(Wanted::Over).await;
        }
    }

    /// The same without waiting for the peer.
    pub(crate) fn leave(&self, code: GoodbyeCode, detail: Detail) {
        self.connection.leave(code, detail);
    }

    /// Waits until the connection has ended, and returns the end.
    ///
    /// # Errors
    ///
    /// The verdict, if that was without a goodbye.
    pub async fn closed(&self) -> Result<CloseReason, Death> {
        let mut waiter = Waiter::new(self);
        loop {
            let now = self.connection.snapshot();
            if let (Some(ended), Some(_)) = (now.ended, now.close_result) {
                return ended.into();
            }
            // As above.
            let _ = waiter.until(Wanted::Over).await;
        }
    }

    /// Whether the connection has ended: [`closed`](Self::closed) doesn't wait.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.connection.snapshot().close_result.is_some()
    }

    /// A handle that doesn't keep the connection alive.
    #[must_use]
    pub fn downgrade(&self) -> WeakSender<M> {
        WeakSender::of(&self.connection)
    }
}

impl<M> Clone for Sender<M> {
    fn clone(&self) -> Self {
        self.connection.add_sender();
        Self::first(self.connection.clone())
    }
}

impl<M> Drop for Sender<M> {
    fn drop(&mut self) {
        if self.ticket.is_held() {
            self.connection.give_back(&mut self.ticket);
        }
        self.connection.remove_sender();
    }
}

impl<M> Sink<M> for Sender<M> {
    type Error = SendError;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let this = self.get_mut();
        if this.room && !this.ticket.is_held() {
            return Poll::Ready(Ok(()));
        }
        this.connection
            .poll_until(Wanted::Room, &mut this.ticket, cx)
    }

    fn start_send(self: Pin<&mut Self>, message: M) -> Result<(), SendError> {
        let this = self.get_mut();
        let mut room = false;
        let posted = this.connection.post(message, Room::WasThere(&mut room));
        this.room = room && posted.is_ok();
        posted.map(drop)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let this = self.get_mut();
        this.connection
            .poll_until(Wanted::Flushed, &mut this.ticket, cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let this = self.get_mut();
        this.connection
            .leave(GoodbyeCode::LEAVING, Detail::default());
        let over = this
            .connection
            .poll_until(Wanted::Over, &mut this.ticket, cx);
        let _ = ready!(over);
        let closed = this.connection.snapshot().close_result;
        closed.map_or(Poll::Pending, |closed| {
            Poll::Ready(closed.map(drop).map_err(SendError::from))
        })
    }
}

impl<M> fmt::Debug for Sender<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status();
        f.debug_struct("Sender").field("status", &status).finish()
    }
}

/// A future that waits. Dropping it leaves nothing behind.
struct Waiter<'a, M> {
    connection: &'a dyn Connection<M>,
    ticket: Ticket,
}

impl<'a, M> Waiter<'a, M> {
    fn new(sender: &'a Sender<M>) -> Self {
        Self {
            connection: &*sender.connection,
            ticket: Ticket::default(),
        }
    }

    async fn until(&mut self, wanted: Wanted) -> Result<(), SendError> {
        poll_fn(|cx| self.connection.poll_until(wanted, &mut self.ticket, cx)).await
    }
}

impl<M> Drop for Waiter<'_, M> {
    fn drop(&mut self) {
        if self.ticket.is_held() {
            self.connection.give_back(&mut self.ticket);
        }
    }
}
