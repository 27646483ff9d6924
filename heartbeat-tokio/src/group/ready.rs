//! Which of many have something to do.
//!
//! This module decides in which order their owner polls them: in the order in which they
//! called, each at most once in a round. It knows nothing of what they are.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering::AcqRel},
    },
    task::{Context, Poll, Wake},
};

use atomic_waker::AtomicWaker;

/// Those who called, and whose they are.
#[derive(Debug)]
pub(super) struct Ready<K> {
    queue: Mutex<VecDeque<Arc<Turn<K>>>>,
    owner: AtomicWaker,
}

/// One of them, as the waker that it is polled with.
#[derive(Debug)]
pub(super) struct Turn<K> {
    pub(super) key: K,
    is_queued: AtomicBool,
    /// Weak, or a queue would keep itself alive.
    ready: Weak<Ready<K>>,
}

impl<K> Ready<K> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::default(),
            owner: AtomicWaker::new(),
        })
    }

    /// One more, which has something to do.
    pub(super) fn add(self: &Arc<Self>, key: K) -> Arc<Turn<K>>
    where
        K: Send + Sync,
    {
        let turn = Arc::new(Turn {
            key,
            is_queued: AtomicBool::new(false),
            ready: Arc::downgrade(self),
        });
        turn.wake_by_ref();
        turn
    }

    /// The next one to be polled. If that finds something, it has to be called again.
    pub(super) fn poll_next(&self, cx: &Context<'_>) -> Poll<Arc<Turn<K>>> {
        self.owner.register(cx.waker());
        let Some(turn) = self.lock().pop_front() else {
            return Poll::Pending;
        };
        let was_queued = turn.is_queued.swap(false, AcqRel);
        debug_assert!(was_queued, "it is in the queue once");
        Poll::Ready(turn)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Turn<K>>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Send + Sync> Wake for Turn<K> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.is_queued.swap(true, AcqRel) {
            return;
        }
        if let Some(ready) = self.ready.upgrade() {
            ready.lock().push_back(self.clone());
            ready.owner.wake();
        }
    }
}
