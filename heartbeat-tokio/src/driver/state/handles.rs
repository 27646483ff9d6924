//! The operations of a connection's handles.
//!
//! This module decides which of them serve the connection themselves, and whether the task
//! is called afterwards. Each call takes the lock once.

use std::{
    io, mem,
    pin::Pin,
    sync::MutexGuard,
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;
use heartbeat_core::{ConfigError, GoodbyeCode};
use tokio::sync::watch;

use super::{Shared, Stage, State, Watched};
use crate::{
    Detail, PeerEvent, SendError, Status,
    driver::{
        connection::{Connection, Room, Snapshot},
        waiting::{Ticket, Wanted},
    },
    safety_net::Liveness,
    transport::Transport,
};

impl<S, C: Transport<S>> Shared<S, C> {
    /// The next event of those that the task took in, and whether there may be more.
    fn take(
        &self,
        mut state: MutexGuard<'_, State<S, C>>,
        more: &mut bool,
    ) -> Poll<Option<PeerEvent<C::Message>>> {
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
                // There may be more behind it, and the next poll may be far off.
                self.turns.call_task();
                return Poll::Ready(Some(PeerEvent::Message(message)));
            }
        }
        self.turns.await_events(cx);
        let mut state = self.lock();
        let heartbeat = match &mut state.stage {
            Stage::Served(heartbeat) if !heartbeat.has_events() || heartbeat.is_overdue() => {
                heartbeat
            }
            _ => return self.take(state, &mut false),
        };
        self.turns.serve();
        let event = Pin::new(&mut *heartbeat).poll_next(&mut Context::from_waker(&self.waker));
        *more = event.is_ready() && heartbeat.has_unread();
        state.receiver_waits = event.is_pending();
        self.settle(state);
        if event.is_ready() {
            // There may be more to read.
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
        self.take(self.lock(), more)
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
                return Poll::Ready(reached); // nothing has changed
            }
        }
        let mut calls_task = false;
        match (&mut state.stage, wanted) {
            (Stage::Served(heartbeat), Wanted::Flushed) if !heartbeat.is_flushed() => {
                // The sender that waits writes itself. The task's turn may be far off. It comes
                // all the same: the message called the task, or the stream wakes it.
                self.turns.hold();
                heartbeat.write_now(&mut Context::from_waker(&self.waker));
            }
            // Only the first time: a waiting caller asks again.
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
        // A task that waits for the end asks again when it is woken. That must not cause
        // another turn.
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
                unwritten: heartbeat.unwritten(),
                ended: heartbeat.ended().cloned(),
                close_result: None,
                io_error: heartbeat.shared_io_error(),
                is_drained: false,
            },
            Stage::Over(remains) => Snapshot {
                status: remains.status,
                config,
                unwritten: remains.unwritten,
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
        let watched = state.watched.get_or_insert_with(|| match &state.stage {
            Stage::Served(heartbeat) => Watched {
                told: heartbeat.news(),
                status: watch::Sender::new(heartbeat.status()),
            },
            Stage::Over(remains) => Watched {
                told: 0, // and nothing more will be
                status: watch::Sender::new(remains.status),
            },
        });
        watched.status.subscribe()
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
