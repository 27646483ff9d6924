//! A connection that is served while its application works.
//!
//! This module decides who serves it: whoever receives does so itself, as
//! without a driver, and a task of its own does whenever nobody receives. So
//! the beats go on while the application is busy, and a message that somebody
//! waits for takes no detour through another task. What is alive and what is
//! dead is decided below, as it is without a driver.

use std::{
    fmt,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool,
            Ordering::{AcqRel, Acquire, Release},
        },
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use futures::{Sink, Stream, stream::FusedStream, task::AtomicWaker};
use heartbeat_core::{CloseReason, Config, Death};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use crate::{
    Heartbeat, PeerEvent, ProbeError, SendError, Status,
    error::Ended,
    heartbeat::Remains,
    inbox::Inbox,
    transport::{Protocol, Transport},
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
    /// ([`State::Paused`](crate::State::Paused)), pings still go out so that
    /// the peer hears that we live, and once an interval the kernel is asked
    /// whether the connection is still there. When reading goes on, the peer is
    /// judged afresh.
    ///
    /// The connection lives as long as one of the handles does. When the last
    /// is dropped, the task says goodbye behind everything that was queued and
    /// closes, in bounded time. If only the [`Receiver`] is dropped, what
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
        let pongs = before.peer.pongs;
        let answered = |now: &Status| {
            let ended = matches!(
                now.peer.state,
                heartbeat_core::State::Closed | heartbeat_core::State::Dead
            );
            now.peer.pongs != pongs || ended
        };
        let answer = timeout(waited, async {
            status.wait_for(answered).await.map(|now| *now)
        })
        .await;
        // A pong that came with the end is an answer too.
        match (answer, self.0.ended()) {
            (Ok(Ok(now)), _) if now.peer.pongs != pongs => {
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

    /// Says goodbye behind everything that was queued, and waits until the
    /// connection has ended. Gives up if writes make no progress for
    /// `max_missed · timeout`.
    ///
    /// # Errors
    ///
    /// The verdict, if the connection ended without a goodbye.
    pub async fn close(&self) -> Result<CloseReason, Death> {
        self.0.close();
        self.closed().await
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
        self.0.close();
        self.0.poll_ended(cx).map(|ended| match ended {
            Ended::Closed(_) => Ok(()),
            ended @ Ended::Dead(_) => Err(ended.into()),
        })
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

/// The task: serves the connection whenever something happens on it.
struct Serve<S, C: Transport<S>>(Arc<Shared<S, C>>);

impl<S, C: Transport<S>> Future for Serve<S, C> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_serve(cx)
    }
}

/// Also when the runtime shuts down or somebody aborts it.
impl<S, C: Transport<S>> Drop for Serve<S, C> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.finish();
        self.0.note_hints(&state);
        Shared::<S, C>::wake_waiting(state);
        self.0.turns.receiver.wake();
    }
}

/// What the handles do with a connection, whatever carries it.
trait Connection<M>: Send + Sync {
    fn poll_event(&self, cx: &mut Context<'_>) -> Poll<Option<PeerEvent<M>>>;
    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>>;
    fn post(&self, message: M) -> Result<(), SendError>;
    fn poll_flushed(&self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>>;
    fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<Ended>;
    /// How it ended, once everything is closed.
    fn over(&self) -> Option<Ended>;
    /// Asks, and gives the status of before.
    fn probe(&self) -> Status;
    fn io_error(&self) -> Option<Arc<io::Error>>;
    fn close(&self);
    fn status(&self) -> Status;
    fn watch(&self) -> watch::Receiver<Status>;
    fn config(&self) -> Config;
    fn ended(&self) -> Option<Ended>;
    fn is_drained(&self) -> bool;
    fn add_sender(&self);
    fn remove_sender(&self);
    fn remove_receiver(&self);
}

/// A connection, between its task and its handles.
struct Shared<S, C: Protocol> {
    state: Mutex<State<S, C>>,
    turns: Arc<Turns>,
    /// `turns` as the connection sees it. Always the same one, so that nothing
    /// has to be registered anew when another task polls.
    waker: Waker,
}

/// Whom the connection wakes: whoever receives, and the task in case nobody
/// does.
#[derive(Default)]
struct Turns {
    receiver: AtomicWaker,
    task: AtomicWaker,
    /// The connection has to be polled until it waits. If the receiver does
    /// that first, the task finds nothing left to do.
    due: AtomicBool,
    /// The stream called, and nobody came yet. The task lets the receiver go
    /// first, once: what it takes in itself needs no inbox.
    called: AtomicBool,
    /// There is room for a message; a hint, for senders that would only look.
    room: AtomicBool,
    /// Messages may lie there; a hint, for the receiver.
    unread: AtomicBool,
}

impl Turns {
    /// The task has something to do, unless somebody else does it first.
    fn call_task(&self) {
        if !self.due.load(Acquire) && !self.due.swap(true, AcqRel) {
            self.task.wake();
        }
    }
}

impl Wake for Turns {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.due.store(true, Release);
        self.called.store(true, Release);
        self.receiver.wake();
        self.task.wake();
    }
}

struct State<S, C: Protocol> {
    /// Until it is over.
    served: Option<Heartbeat<S, C>>,
    /// From then on.
    remains: Option<Remains<C::Message>>,
    config: Config,
    /// Somebody asked for a goodbye.
    closing: bool,
    senders: usize,
    has_receiver: bool,
    /// Who waits for room, for a flush, or for the end.
    waiting: Vec<Waker>,
    /// The last news that were told to `watch`.
    told: u32,
    watch: watch::Sender<Status>,
}

impl<S, C: Transport<S>> Shared<S, C> {
    fn new(heartbeat: Heartbeat<S, C>) -> Arc<Self> {
        let turns = Arc::<Turns>::default();
        turns.due.store(true, Release);
        let state = State {
            config: *heartbeat.config(),
            told: heartbeat.news(),
            watch: watch::Sender::new(heartbeat.status()),
            served: Some(heartbeat),
            remains: None,
            closing: false,
            senders: 0,
            has_receiver: true,
            waiting: Vec::new(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            waker: turns.clone().into(),
            turns,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State<S, C>> {
        // A codec that panics leaves nothing half done that matters here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever waited for what has happened is woken, without the lock.
    fn wake_waiting(mut state: MutexGuard<'_, State<S, C>>) {
        let woken = state.satisfied();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Remembers for the handles what they would only look for.
    fn note_hints(&self, state: &State<S, C>) {
        let (room, unread) = match &state.served {
            Some(heartbeat) if heartbeat.ended().is_none() => {
                (heartbeat.has_room(), heartbeat.has_unread())
            }
            _ => (false, false),
        };
        for (hint, now) in [(&self.turns.room, room), (&self.turns.unread, unread)] {
            if now != hint.load(Acquire) {
                hint.store(now, Release);
            }
        }
    }

    /// Waits until the connection is `ready` for a sender.
    fn poll_until(
        &self,
        cx: &mut Context<'_>,
        mut state: MutexGuard<'_, State<S, C>>,
        ready: fn(&Heartbeat<S, C>) -> bool,
    ) -> Poll<Result<(), SendError>> {
        match (&state.served, state.ended()) {
            (_, Some(ended)) => Poll::Ready(Err(ended.into())),
            (Some(heartbeat), None) if !ready(heartbeat) => {
                state.wait(cx);
                Poll::Pending
            }
            _ => Poll::Ready(Ok(())),
        }
    }

    fn poll_serve(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.turns.task.register(cx.waker());
        if !self.turns.due.load(Acquire) {
            return Poll::Pending;
        }
        if self.turns.called.swap(false, AcqRel) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.turns.due.store(false, Release);
        let mut state = self.lock();
        let served = state.serve(&mut Context::from_waker(&self.waker));
        state.tell();
        let has_events = state.has_events();
        self.note_hints(&state);
        Self::wake_waiting(state);
        if has_events {
            self.turns.receiver.wake();
        }
        served
    }
}

impl<S, C: Transport<S>> State<S, C> {
    /// Serves the connection until it has to wait.
    fn serve(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deserted = self.senders == 0 && !self.has_receiver;
        let closing = self.closing || deserted;
        while let Some(heartbeat) = &mut self.served {
            let over = if closing {
                Pin::new(&mut *heartbeat).poll_close(cx).is_ready()
            } else {
                heartbeat.take_in(cx);
                heartbeat.has_finished()
            };
            if over {
                self.finish();
            } else if self.has_receiver || !heartbeat.has_events() {
                return Poll::Pending;
            } else {
                heartbeat.discard();
            }
        }
        Poll::Ready(())
    }

    /// The connection is over.
    fn finish(&mut self) {
        if let Some(heartbeat) = self.served.take() {
            let remains = heartbeat.into_remains();
            self.watch.send_replace(remains.status);
            self.remains = Some(remains);
        }
    }

    /// Tells `watch` what is new.
    fn tell(&mut self) {
        if let Some(heartbeat) = &self.served {
            if heartbeat.news() != self.told {
                self.told = heartbeat.news();
                self.watch.send_replace(heartbeat.status());
            }
        }
    }

    /// Takes out those who have waited for what is so now.
    fn satisfied(&mut self) -> Vec<Waker> {
        let satisfied = match &self.served {
            Some(heartbeat) => heartbeat.has_room() || heartbeat.ended().is_some(),
            None => true,
        };
        match satisfied {
            true => std::mem::take(&mut self.waiting),
            false => Vec::new(),
        }
    }

    fn wait(&mut self, cx: &mut Context<'_>) {
        let waits = |waker: &Waker| waker.will_wake(cx.waker());
        if !self.waiting.iter().any(waits) {
            self.waiting.push(cx.waker().clone());
        }
    }

    fn has_events(&self) -> bool {
        match &self.served {
            Some(heartbeat) => heartbeat.has_events(),
            None => true,
        }
    }

    fn ended(&self) -> Option<Ended> {
        match &self.served {
            Some(heartbeat) => heartbeat.ended(),
            None => self.over(),
        }
    }

    /// How it ended, once everything is closed.
    fn over(&self) -> Option<Ended> {
        self.remains.as_ref()?.ended
    }

    fn status(&self) -> Status {
        match (&self.served, &self.remains) {
            (Some(heartbeat), _) => heartbeat.status(),
            (None, Some(remains)) => remains.status,
            (None, None) => *self.watch.borrow(),
        }
    }
}

impl<S, C> Connection<C::Message> for Shared<S, C>
where
    S: Send,
    C: Transport<S> + Send,
    C::Message: Send,
{
    fn poll_event(&self, cx: &mut Context<'_>) -> Poll<Option<PeerEvent<C::Message>>> {
        if self.turns.unread.load(Acquire) {
            let mut state = self.lock();
            if let Some(heartbeat) = &mut state.served {
                if let Some(message) = heartbeat.next_message() {
                    drop(state);
                    // There may be more behind it, and we may not be polled
                    // for long.
                    self.turns.call_task();
                    return Poll::Ready(Some(PeerEvent::Message(message)));
                }
            }
        }
        self.turns.receiver.register(cx.waker());
        let mut state = self.lock();
        let closing = state.closing;
        let Some(heartbeat) = &mut state.served else {
            let inbox = state.remains.as_mut().map(|remains| &mut remains.inbox);
            return Poll::Ready(inbox.and_then(Inbox::pop));
        };
        // What is to be done for a goodbye the task alone does.
        if !closing {
            self.turns.due.store(false, Release);
            self.turns.called.store(false, Release);
        }
        let event = Pin::new(heartbeat).poll_next(&mut Context::from_waker(&self.waker));
        state.tell();
        self.note_hints(&state);
        let woken = state.satisfied();
        drop(state);
        if event.is_ready() {
            // An inbox that is empty again is a reason to read on.
            self.turns.call_task();
        }
        woken.into_iter().for_each(Waker::wake);
        event
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        if self.turns.room.load(Acquire) {
            return Poll::Ready(Ok(()));
        }
        self.poll_until(cx, self.lock(), Heartbeat::has_room)
    }

    fn post(&self, message: C::Message) -> Result<(), SendError> {
        let mut state = self.lock();
        let Some(heartbeat) = &mut state.served else {
            return state.over().map_or(Ok(()), |ended| Err(ended.into()));
        };
        heartbeat.post(message)?;
        if !heartbeat.has_room() {
            self.turns.room.store(false, Release);
        }
        drop(state);
        self.turns.call_task();
        Ok(())
    }

    fn poll_flushed(&self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let mut state = self.lock();
        if let Some(heartbeat) = state.served.as_mut().filter(|served| !served.is_flushed()) {
            // Who waits for it may as well write it, rather than wait for the
            // task to come to it.
            heartbeat.write_now(&mut Context::from_waker(&self.waker));
            if heartbeat.is_disturbed() {
                self.turns.call_task();
            }
        }
        self.note_hints(&state);
        self.poll_until(cx, state, Heartbeat::is_flushed)
    }

    fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<Ended> {
        let mut state = self.lock();
        match state.over() {
            Some(ended) => Poll::Ready(ended),
            None => {
                state.wait(cx);
                Poll::Pending
            }
        }
    }

    fn over(&self) -> Option<Ended> {
        self.lock().over()
    }

    fn probe(&self) -> Status {
        let mut state = self.lock();
        let before = state.status();
        if let Some(heartbeat) = &mut state.served {
            heartbeat.probe();
        }
        drop(state);
        self.turns.call_task();
        before
    }

    fn close(&self) {
        self.lock().closing = true;
        self.turns.call_task();
    }

    fn status(&self) -> Status {
        self.lock().status()
    }

    fn watch(&self) -> watch::Receiver<Status> {
        self.lock().watch.subscribe()
    }

    fn config(&self) -> Config {
        self.lock().config
    }

    fn ended(&self) -> Option<Ended> {
        self.lock().ended()
    }

    fn io_error(&self) -> Option<Arc<io::Error>> {
        let state = self.lock();
        match &state.served {
            Some(heartbeat) => heartbeat.shared_io_error(),
            None => state.remains.as_ref()?.io_error.clone(),
        }
    }

    fn is_drained(&self) -> bool {
        let remains = &self.lock().remains;
        remains
            .as_ref()
            .is_some_and(|remains| remains.inbox.is_empty())
    }

    fn add_sender(&self) {
        self.lock().senders += 1;
    }

    fn remove_sender(&self) {
        let mut state = self.lock();
        state.senders -= 1;
        let last = state.senders == 0;
        drop(state);
        if last {
            self.turns.call_task();
        }
    }

    fn remove_receiver(&self) {
        self.lock().has_receiver = false;
        self.turns.call_task();
    }
}
