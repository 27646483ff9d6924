//! The state that the task and the handles of a connection share.
//!
//! This module decides what one turn of the task does, and `handles` what the handles do.
//! `turns.rs` decides the turns, and `waiting.rs` has the waiting callers. No waker of the
//! application is woken or dropped while the lock is held: the stream and the timer wake
//! `turns`, which wakes the application afterwards. Only `watch` is updated under the lock,
//! so that it shows the latest state.

mod handles;

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use heartbeat_core::{Config, GoodbyeCode};
use tokio::sync::watch;

use super::{
    turns::Turns,
    waiting::{Waiting, Wanted},
};
use crate::{
    Detail, Heartbeat, SendError, Status,
    heartbeat::Remains,
    transport::{Protocol, Transport},
};

/// A connection, between its task and its handles.
pub(super) struct Shared<S, C: Protocol> {
    state: Mutex<State<S, C>>,
    config: Config,
    turns: Arc<Turns>,
    /// `turns` as the connection sees it. Always the same one, so that nothing has to be
    /// registered again when another task polls.
    waker: Waker,
}

struct State<S, C: Protocol> {
    stage: Stage<S, C>,
    senders: usize,
    has_receiver: bool,
    /// It found nothing when it was polled last, and nothing was put there for it since.
    receiver_waits: bool,
    waiting: Waiting,
    watched: Option<Watched>,
}

/// The state of `watch`. Few programs use it, and it takes half a kilobyte.
struct Watched {
    /// The last reported change.
    told: u32,
    status: watch::Sender<Status>,
}

#[expect(
    clippy::large_enum_variant,
    reason = "each is in one allocation of its own, which a connection keeps to its end"
)]
enum Stage<S, C: Protocol> {
    Served(Heartbeat<S, C>),
    /// The connection is over. Its remains.
    Over(Remains<C::Message>),
}

/// The task: serves the connection whenever something happens on it.
pub(super) struct Serve<S, C: Transport<S>>(pub(super) Arc<Shared<S, C>>);

impl<S, C: Transport<S>> Future for Serve<S, C> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_serve(cx)
    }
}

/// Also when the runtime shuts down or the task is aborted.
impl<S, C: Transport<S>> Drop for Serve<S, C> {
    fn drop(&mut self) {
        let shared = &self.0;
        let mut state = shared.lock();
        if let (Stage::Served(heartbeat), true) = (&mut state.stage, shared.state.is_poisoned()) {
            // A codec panicked, and may again: it isn't called any more.
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
                watched: None,
                stage: Stage::Served(heartbeat),
                senders: 1,
                has_receiver: true,
                receiver_waits: false,
                waiting: Waiting::default(),
            }),
            waker: turns.waker(),
            turns,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State<S, C>> {
        // A panic of application code leaves this state consistent.
        self.state.lock().unwrap_or_else(|poisoned| {
            self.turns.release();
            PoisonError::into_inner(poisoned)
        })
    }

    /// Updates `watch` after a change, and wakes the callers that waited for it.
    fn settle(&self, mut state: MutexGuard<'_, State<S, C>>) {
        let woken = state.settle();
        let called = self.turns.release();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        self.turns.pass_on(called);
    }

    fn poll_serve(&self, cx: &Context<'_>) -> Poll<()> {
        ready!(self.turns.poll_task(cx));
        let mut state = self.lock();
        self.turns.serve();
        let served = state.serve(&mut Context::from_waker(&self.waker));
        let has_events = state.has_events();
        self.settle(state);
        if has_events {
            self.turns.call_receiver();
        }
        if let Served::Partly = served {
            // Behind the receiver, which may do the rest itself.
            self.turns.call_task();
        }
        match served {
            Served::Over => Poll::Ready(()),
            Served::Partly | Served::Fully => Poll::Pending,
        }
    }
}

/// How far the task got in one turn.
enum Served {
    /// Until the connection had to wait.
    Fully,
    /// Until there was something for the receiver, and more behind it.
    Partly,
    /// To its end.
    Over,
}

impl<S, C: Transport<S>> State<S, C> {
    /// Serves the connection until it has to wait. What a waiting receiver can take from
    /// the connection itself is left to it, once.
    fn serve(&mut self, cx: &mut Context<'_>) -> Served {
        let is_held = self.is_held();
        let Stage::Served(heartbeat) = &mut self.stage else {
            return Served::Over;
        };
        if !is_held {
            heartbeat.leave(GoodbyeCode::LEAVING, Detail::default());
        }
        let leaves_rest = self.receiver_waits;
        let is_enough = |heartbeat: &Heartbeat<S, C>| {
            leaves_rest && heartbeat.has_events() && heartbeat.has_unread()
        };
        heartbeat.take_in(cx, |heartbeat| !is_enough(heartbeat));
        self.receiver_waits &= !heartbeat.has_events();
        if heartbeat.has_finished() {
            self.finish();
            return Served::Over;
        }
        match is_enough(heartbeat) {
            true => Served::Partly,
            false => Served::Fully,
        }
    }

    /// Whether a handle is left that keeps the connection alive.
    fn is_held(&self) -> bool {
        self.has_receiver || self.senders > 0
    }

    /// The connection is over.
    fn finish(&mut self) {
        if let Stage::Served(heartbeat) = &mut self.stage {
            let remains = heartbeat.take_remains();
            if let Some(watched) = &self.watched {
                watched.status.send_replace(remains.status);
            }
            self.stage = Stage::Over(remains);
        }
    }

    /// Updates `watch`, and takes out the callers whose condition now holds.
    fn settle(&mut self) -> Vec<Waker> {
        if let (Stage::Served(heartbeat), Some(watched)) = (&self.stage, &mut self.watched) {
            if heartbeat.news() != watched.told {
                watched.told = heartbeat.news();
                watched.status.send_replace(heartbeat.status());
            }
        }
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

impl<S, C: Transport<S>> Stage<S, C> {
    /// The result, once there is nothing left to wait for.
    fn reached(&self, wanted: Wanted) -> Option<Result<(), SendError>> {
        let heartbeat = match (self, wanted) {
            (Self::Served(heartbeat), _) => heartbeat,
            (Self::Over(_), Wanted::Over) => return Some(Ok(())),
            (Self::Over(remains), _) => return Some(Err(remains.ended.clone().into())),
        };
        if let (Some(ended), true) = (heartbeat.ended(), wanted != Wanted::Over) {
            return Some(Err(ended.clone().into()));
        }
        let is_so = match wanted {
            Wanted::Room => heartbeat.has_room(),
            Wanted::Flushed => heartbeat.is_flushed(),
            Wanted::Finished => heartbeat.is_finished(),
            Wanted::Over => false,
        };
        is_so.then_some(Ok(()))
    }
}
