//! What the task and the handles of a connection share.
//!
//! This module decides what one turn does. Whose turn it is is in `turns.rs`, and who
//! waits for what in `waiting.rs`. Nobody is woken, and no waker is dropped, while the
//! lock is held; only `watch` is told within it, so that what it shows is the latest.

use std::{
    future::Future,
    io, mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use futures_core::Stream;
use heartbeat_core::{Config, ConfigError, GoodbyeCode};
use tokio::sync::watch;

use super::{
    connection::{Connection, Room, Snapshot},
    stage::{Stage, Watched},
    turns::Turns,
    waiting::{Ticket, Waiting, Wanted},
};
use crate::{
    Detail, Heartbeat, PeerEvent, SendError, Status,
    safety_net::Liveness,
    transport::{Protocol, Transport},
};

/// A connection, between its task and its handles.
pub(super) struct Shared<S, C: Protocol> {
    state: Mutex<State<S, C>>,
    config: Config,
    turns: Arc<Turns>,
    /// `turns` as the connection sees it. Always the same one, so that nothing has to be
    /// registered anew when another task polls.
    waker: Waker,
}

struct State<S, C: Protocol> {
    stage: Stage<S, C>,
    senders: usize,
    has_receiver: bool,
    waiting: Waiting,
    watched: Watched,
}

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
        let shared = &self.0;
        let mut state = shared.lock();
        if let (Stage::Served(heartbeat), true) = (&mut state.stage, shared.state.is_poisoned()) {
            // A codec panicked, and would again: it is asked for nothing more.
            heartbeat.stop_decoding();
        }
        state.finish();
        shared.settle(state);
        shared.turns.call_receiver();
    }
}

impl<S, C: Transport<S>> Shared<S, C> {
    pub(super) fn new(mut heartbeat: Heartbeat<S, C>) -> Arc<Self> {
        heartbeat.prepare_spawn();
        let turns = Turns::new();
        Arc::new(Self {
            config: *heartbeat.config(),
            state: Mutex::new(State {
                watched: Watched::default(),
                stage: Stage::Served(heartbeat),
                senders: 1,
                has_receiver: true,
                waiting: Waiting::default(),
            }),
            waker: turns.waker(),
            turns,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State<S, C>> {
        // A codec that panics leaves nothing half done that matters here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was done: `watch` is told, and those who waited for it are woken.
    fn settle(&self, mut state: MutexGuard<'_, State<S, C>>) {
        let woken = state.settle();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    fn poll_serve(&self, cx: &Context<'_>) -> Poll<()> {
        ready!(self.turns.poll_task(cx));
        let mut state = self.lock();
        let served = state.serve(&mut Context::from_waker(&self.waker));
        let has_events = state.has_events();
        self.settle(state);
        if has_events {
            self.turns.call_receiver();
        }
        served
    }
}

impl<S, C: Transport<S>> State<S, C> {
    /// Serves the connection until it has to wait.
    fn serve(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let is_held = self.is_held();
        let Stage::Served(heartbeat) = &mut self.stage else {
            return Poll::Ready(());
        };
        if !is_held {
            heartbeat.leave(GoodbyeCode::LEAVING, Detail::default());
        }
        heartbeat.take_in(cx, |_| true);
        if !heartbeat.has_finished() {
            return Poll::Pending;
        }
        self.finish();
        Poll::Ready(())
    }

    /// Whether a handle is left that keeps the connection alive.
    fn is_held(&self) -> bool {
        self.has_receiver || self.senders > 0
    }

    /// The connection is over.
    fn finish(&mut self) {
        if let Stage::Served(heartbeat) = &mut self.stage {
            let remains = heartbeat.take_remains();
            self.stage = Stage::Over(remains);
            self.watched.tell(&self.stage);
        }
    }

    /// Tells `watch` what is new, and takes out those who waited for what is so now.
    fn settle(&mut self) -> Vec<Waker> {
        self.watched.tell(&self.stage);
        let stage = &self.stage;
        self.waiting
            .satisfied(|wanted| stage.reached(wanted).is_some())
    }

    fn has_events(&self) -> bool {
        match &self.stage {
            Stage::Served(heartbeat) => heartbeat.has_events(),
            Stage::Over(_) => true,
        }
    }
}

impl<S, C> Connection<C::Message> for Shared<S, C>
where
    S: Send,
    C: Transport<S> + Send,
    C::Message: Send,
{
    fn poll_event(
        &self,
        more: &mut bool,
        cx: &mut Context<'_>,
    ) -> Poll<Option<PeerEvent<C::Message>>> {
        if mem::take(more) {
            let message = match &mut self.lock().stage {
                Stage::Served(heartbeat) => {
                    let message = heartbeat.next_message();
                    *more = heartbeat.has_unread();
                    message
                }
                Stage::Over(_) => None,
            };
            if let Some(message) = message {
                // There may be more behind it, and we may not be polled for long.
                self.turns.call_task();
                return Poll::Ready(Some(PeerEvent::Message(message)));
            }
        }
        self.turns.await_events(cx);
        let mut state = self.lock();
        let heartbeat = match &mut state.stage {
            Stage::Served(heartbeat) => heartbeat,
            Stage::Over(remains) => return Poll::Ready(remains.inbox.pop()),
        };
        self.turns.receiver_serves();
        let event = Pin::new(&mut *heartbeat).poll_next(&mut Context::from_waker(&self.waker));
        *more = event.is_ready() && heartbeat.has_unread();
        self.settle(state);
        if event.is_ready() {
            // An inbox that is empty again is a reason to read on.
            self.turns.call_task();
        }
        event
    }

    fn poll_taken_in(
        &self,
        more: &mut bool,
        cx: &Context<'_>,
    ) -> Poll<Option<PeerEvent<C::Message>>> {
        self.turns.await_events(cx);
        let mut state = self.lock();
        let heartbeat = match &mut state.stage {
            Stage::Served(heartbeat) => heartbeat,
            Stage::Over(remains) => {
                *more = true; // if only to learn that there isn't
                return Poll::Ready(remains.inbox.pop());
            }
        };
        let was_full = heartbeat.is_paused();
        let event = heartbeat.take_from_inbox();
        let reads_on = was_full && !heartbeat.is_paused();
        *more = heartbeat.has_events();
        drop(state);
        if reads_on {
            self.turns.call_task();
        }
        event.map_or(Poll::Pending, |event| Poll::Ready(Some(event)))
    }

    fn leave_serving_to_the_task(&self) {
        self.turns.leave_serving_to_the_task();
    }

    fn poll_until(
        &self,
        wanted: Wanted,
        ticket: &mut Ticket,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SendError>> {
        let mut state = self.lock();
        if let (Wanted::Room, false) = (wanted, ticket.is_held()) {
            if let Some(reached) = state.stage.reached(wanted) {
                return Poll::Ready(reached); // nothing has changed by that
            }
        }
        let mut calls_task = false;
        match (&mut state.stage, wanted) {
            (Stage::Served(heartbeat), Wanted::Flushed) if !heartbeat.is_flushed() => {
                // The sender that waits writes itself. The task's turn may be far off.
                heartbeat.write_now(&mut Context::from_waker(&self.waker));
                calls_task = heartbeat.is_disturbed();
            }
            // Only the first time: whoever waits asks again.
            (Stage::Served(heartbeat), Wanted::Finished) => {
                calls_task = heartbeat.finish_sending()?;
            }
            _ => {}
        }
        let reached = state.stage.reached(wanted);
        let place = match reached {
            Some(_) => state.waiting.leave(ticket),
            None => state.waiting.enter(wanted, ticket, cx.waker().clone()),
        };
        self.settle(state);
        drop(place);
        if calls_task {
            self.turns.call_task();
        }
        reached.map_or(Poll::Pending, Poll::Ready)
    }

    fn give_back(&self, ticket: &mut Ticket) {
        let mut state = self.lock();
        let place = state.waiting.leave(ticket);
        drop(state);
        drop(place);
    }

    fn post(&self, message: C::Message, room: Room<'_>) -> Result<Option<C::Message>, SendError> {
        let mut state = self.lock();
        let heartbeat = match &mut state.stage {
            Stage::Served(heartbeat) => heartbeat,
            Stage::Over(remains) => return Err(remains.ended.clone().into()),
        };
        if room == Room::Needed && !heartbeat.has_room() {
            heartbeat.check_sending()?;
            return Ok(Some(message));
        }
        let posted = heartbeat.post(message);
        if let Room::WasThere(still) = room {
            *still = heartbeat.has_room();
        }
        drop(state);
        // Also if a codec has failed: that may be the end.
        self.turns.call_task();
        posted.map(|()| None)
    }

    fn set_interval(&self, interval: Duration) -> Result<(), ConfigError> {
        let mut state = self.lock();
        if let Stage::Served(heartbeat) = &mut state.stage {
            heartbeat.set_interval(interval)?;
        }
        drop(state);
        self.turns.call_task();
        Ok(())
    }

    fn probe(&self) -> Status {
        let mut state = self.lock();
        let heartbeat = match &mut state.stage {
            Stage::Served(heartbeat) => heartbeat,
            Stage::Over(remains) => return remains.status,
        };
        let before = heartbeat.status();
        heartbeat.probe();
        drop(state);
        self.turns.call_task();
        before
    }

    fn leave(&self, code: GoodbyeCode, detail: Detail) {
        let mut state = self.lock();
        let is_new = match &mut state.stage {
            Stage::Served(heartbeat) => heartbeat.leave(code, detail),
            Stage::Over(_) => false,
        };
        drop(state);
        // A task that waits for the end says it again when it is woken. That must not
        // cause another turn.
        if is_new {
            self.turns.call_task();
        }
    }

    fn snapshot(&self) -> Snapshot {
        let config = self.config;
        match &self.lock().stage {
            Stage::Served(heartbeat) => Snapshot {
                status: heartbeat.status(),
                config,
                queued: heartbeat.queued(),
                ended: heartbeat.ended().cloned(),
                close_result: None,
                io_error: heartbeat.shared_io_error(),
                is_drained: false,
            },
            Stage::Over(remains) => Snapshot {
                status: remains.status,
                config,
                queued: 0,
                ended: Some(remains.ended.clone()),
                close_result: Some(remains.close_result.clone()),
                io_error: remains.io_error.clone(),
                is_drained: remains.inbox.is_empty(),
            },
        }
    }

    fn check(&self) -> io::Result<Option<Liveness>> {
        match &self.lock().stage {
            Stage::Served(heartbeat) => heartbeat.check(),
            Stage::Over(_) => Ok(None),
        }
    }

    fn watch(&self) -> watch::Receiver<Status> {
        let state = &mut *self.lock();
        state.watched.subscribe(&state.stage)
    }

    fn add_sender(&self) -> bool {
        let mut state = self.lock();
        let is_held = state.is_held();
        state.senders += usize::from(is_held);
        is_held
    }

    fn remove_sender(&self) {
        let mut state = self.lock();
        debug_assert!(state.senders > 0, "each is removed once");
        state.senders -= 1;
        let is_last = state.senders == 0;
        drop(state);
        if is_last {
            self.turns.call_task();
        }
    }

    fn remove_receiver(&self) {
        let mut state = self.lock();
        state.has_receiver = false;
        let unread = match &mut state.stage {
            Stage::Served(heartbeat) => heartbeat.discard(),
            Stage::Over(remains) => remains.inbox.take(),
        };
        drop(state);
        drop(unread);
        self.turns.call_task();
    }
}
