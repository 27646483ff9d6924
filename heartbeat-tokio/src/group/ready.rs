//! The order in which many things that were woken are polled.
//!
//! This module decides it: first woken, first polled, each at most once in the queue. The
//! task that polls is woken only when it waits: once for all that become due before it comes.
//! What is polled isn't known here.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering::AcqRel},
    },
    task::{Context, Poll, Wake},
};

use atomic_waker::AtomicWaker;

/// The queue, and the task that polls.
///
/// Invariant: the owner is registered only while the queue is empty, or has been woken since.
#[derive(Debug)]
pub(super) struct Ready {
    queue: Mutex<VecDeque<Arc<Turn>>>,
    owner: AtomicWaker,
}

/// One thing to poll, and the waker that it is polled with.
#[derive(Debug)]
pub(super) struct Turn {
    /// The place of the member that is polled.
    pub(super) place: usize,
    is_queued: AtomicBool,
    /// Weak: a turn in the queue must not keep the queue alive.
    ready: Weak<Ready>,
}

impl Ready {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::default(),
            owner: AtomicWaker::new(),
        })
    }

    /// Adds one, which is due at once.
    pub(super) fn add(self: &Arc<Self>, place: usize) {
        let turn = Arc::new(Turn {
            place,
            is_queued: AtomicBool::new(false),
            ready: Arc::downgrade(self),
        });
        turn.wake();
    }

    /// The next one to poll. If there may be more behind what it gives, wake it again.
    pub(super) fn poll_next(&self, cx: &Context<'_>) -> Poll<Arc<Turn>> {
        let turn = self.pop().or_else(|| {
            self.owner.register(cx.waker());
            self.pop() // calls that came meanwhile woke no task
        });
        let Some(turn) = turn else {
            return Poll::Pending;
        };
        let was_queued = turn.is_queued.swap(false, AcqRel);
        debug_assert!(was_queued, "it is in the queue once");
        Poll::Ready(turn)
    }

    fn pop(&self) -> Option<Arc<Turn>> {
        self.lock().pop_front()
    }

    /// Behind the others. The first one wakes the owner, which takes all.
    fn push(&self, turn: Arc<Turn>) {
        let mut queue = self.lock();
        let is_first = queue.is_empty();
        queue.push_back(turn);
        drop(queue);
        if is_first {
            self.owner.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Turn>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// The queue, if this one has to be put into it.
    fn enter(&self) -> Option<Arc<Ready>> {
        let was_queued = self.is_queued.swap(true, AcqRel);
        (!was_queued).then(|| self.ready.upgrade())?
    }
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        if let Some(ready) = self.enter() {
            ready.push(self);
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(ready) = self.enter() {
            ready.push(self.clone());
        }
    }
}
