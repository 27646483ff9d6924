//! A connection, between its task and its handles.
//!
//! This module decides who serves the connection at a moment, and whom it wakes when
//! something has happened: whoever receives comes first, and the task if nobody does.
//! Who waits is woken when the lock has been released; `watch` is told within it, so
//! that what it shows is the latest.

use std::{
    future::Future,
    io, mem,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool,
            Ordering::{AcqRel, Acquire, Release},
        },
    },
    task::{Context, Poll, Wake, Waker},
};

use atomic_waker::AtomicWaker;
use futures_core::Stream;
use heartbeat_core::{Config, GoodbyeCode};
use tokio::sync::watch;

use crate::{
    CloseError, CloseReason, Detail, Heartbeat, PeerEvent, SendError, Status,
    error::Ended,
    heartbeat::{Keep, Remains},
    inbox::Inbox,
    transport::{Protocol, Transport},
};

/// The task: serves the connection whenever something happens on it.
pub(super) struct Serve<S, C: Transport<S>>(pub(super) Arc<Shared<S, C>>);

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
        if self.0.state.is_poisoned() {
            state.distrust();
        }
        state.finish();
        self.0.note_hints(&state);
        Shared::<S, C>::wake_waiting(state);
        self.0.turns.receiver.wake();
    }
}

/// What the handles do with a connection, whatever carries it.
pub(super) trait Connection<M>: Send + Sync {
    fn poll_event(&self, cx: &mut Context<'_>) -> Poll<Option<PeerEvent<M>>>;
    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>>;
    fn post(&self, message: M) -> Result<(), SendError>;
    fn poll_flushed(&self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>>;
    /// Says that no more messages follow, and waits until that has left.
    fn poll_finish(&self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>>;
    fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<Result<CloseReason, CloseError>>;
    /// How it ended, once everything is closed.
    fn over(&self) -> Option<Ended>;
    /// Asks, and gives the status of before.
    fn probe(&self) -> Status;
    fn io_error(&self) -> Option<Arc<io::Error>>;
    fn leave(&self, code: GoodbyeCode, detail: Detail);
    /// What is known of what we sent, once everything is closed.
    fn close_result(&self) -> Option<Result<CloseReason, CloseError>>;
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
pub(super) struct Shared<S, C: Protocol> {
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
    senders: usize,
    has_receiver: bool,
    /// Who waits for room, for a flush, or for the end.
    waiting: Vec<Waker>,
    /// The last news that were told to `watch`.
    told: u32,
    watch: watch::Sender<Status>,
}

impl<S, C: Transport<S>> Shared<S, C> {
    pub(super) fn new(mut heartbeat: Heartbeat<S, C>) -> Arc<Self> {
        heartbeat.limit_pauses();
        let turns = Arc::<Turns>::default();
        turns.due.store(true, Release);
        let state = State {
            config: *heartbeat.config(),
            told: heartbeat.news(),
            watch: watch::Sender::new(heartbeat.status()),
            served: Some(heartbeat),
            remains: None,
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
            Some(heartbeat) if !heartbeat.has_ended() => {
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
        let Some(heartbeat) = &mut self.served else {
            return Poll::Ready(());
        };
        if self.senders == 0 && !self.has_receiver {
            heartbeat.leave(GoodbyeCode::LEAVING, Detail::default());
        }
        let keep = match self.has_receiver {
            true => Keep::All,
            false => Keep::Nothing,
        };
        heartbeat.take_in(keep, cx);
        if !heartbeat.has_finished() {
            return Poll::Pending;
        }
        self.finish();
        Poll::Ready(())
    }

    /// A codec panicked, and would again: it is asked for nothing more.
    fn distrust(&mut self) {
        if let Some(heartbeat) = &mut self.served {
            heartbeat.stop_decoding();
        }
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
            Some(heartbeat) => heartbeat.has_room() || heartbeat.has_ended(),
            None => true,
        };
        match satisfied {
            true => mem::take(&mut self.waiting),
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
            Some(heartbeat) => heartbeat.ended().cloned(),
            None => self.over(),
        }
    }

    /// How it ended, once everything is closed.
    fn over(&self) -> Option<Ended> {
        self.remains.as_ref()?.ended.clone()
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
        let Some(heartbeat) = &mut state.served else {
            let inbox = state.remains.as_mut().map(|remains| &mut remains.inbox);
            return Poll::Ready(inbox.and_then(Inbox::pop));
        };
        self.turns.due.store(false, Release);
        self.turns.called.store(false, Release);
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

    fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<Result<CloseReason, CloseError>> {
        let mut state = self.lock();
        match &state.remains {
            Some(remains) => Poll::Ready(remains.close_result.clone()),
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

    fn poll_finish(&self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let mut state = self.lock();
        if let Some(heartbeat) = &mut state.served {
            // As in `leave`: a waiting task asks again after each turn.
            if heartbeat.finish_sending()? {
                self.turns.call_task();
            }
        }
        self.poll_until(cx, state, Heartbeat::is_finished)
    }

    fn leave(&self, code: GoodbyeCode, detail: Detail) {
        let mut state = self.lock();
        let heartbeat = state.served.as_mut();
        // A task that waits for the end is woken after each turn, and asks again. That
        // must not cause another turn.
        if heartbeat.is_some_and(|heartbeat| heartbeat.leave(code, detail)) {
            drop(state);
            self.turns.call_task();
        }
    }

    fn close_result(&self) -> Option<Result<CloseReason, CloseError>> {
        let state = self.lock();
        state
            .remains
            .as_ref()
            .map(|remains| remains.close_result.clone())
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
        let mut state = self.lock();
        state.has_receiver = false;
        if let Some(heartbeat) = &mut state.served {
            heartbeat.discard();
        }
        drop(state);
        self.turns.call_task();
    }
}
