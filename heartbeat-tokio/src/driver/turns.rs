//! The turns: which side serves a connection.
//!
//! This module decides which side is woken: the task by the stream, the timer and senders,
//! the receiver by the task. One task only is woken for what arrives: with two the runtime
//! would wake another thread for the second. It touches nothing but its own atomics, so
//! that loom can try every interleaving of them (`model.rs`). What serving means, and the
//! lock that it takes, is `state.rs`.

use std::{
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use super::atomics::{
    AtomicU8, AtomicWaker,
    Ordering::{AcqRel, Acquire},
};

/// The task serves, unless the receiver does it first.
const DUE: u8 = 1;
/// The lock is held, and the stream may be touched. Calls that come meanwhile, perhaps
/// from within, are noted until the lock is free: a waker may ask for it.
const HELD: u8 = 2;

/// The sides that the connection wakes, and the work that is left.
#[derive(Debug)]
pub(super) struct Turns {
    receiver: AtomicWaker,
    task: AtomicWaker,
    /// The bits above that are set.
    next: AtomicU8,
}

impl Turns {
    /// The task's turn comes first.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            receiver: AtomicWaker::new(),
            task: AtomicWaker::new(),
            next: AtomicU8::new(DUE),
        })
    }

    /// Ready when the task has to serve. Everything that was done before the call is then
    /// visible to it.
    pub(super) fn poll_task(&self, cx: &Context<'_>) -> Poll<()> {
        self.task.register(cx.waker());
        match self.next.load(Acquire) & DUE {
            0 => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }

    /// From now on the receiver is woken. Call this before it checks for events.
    pub(super) fn await_events(&self, cx: &Context<'_>) {
        self.receiver.register(cx.waker());
    }

    /// The holder of the lock serves now. It sees everything that was done before a call,
    /// so no further wake-up is needed.
    pub(super) fn serve(&self) {
        self.next.swap(HELD, AcqRel);
    }

    /// The holder of the lock touches the stream, and doesn't serve.
    pub(super) fn hold(&self) {
        self.next.fetch_or(HELD, AcqRel);
    }

    /// The holder of the lock is about to release it. Returns the calls that came meanwhile,
    /// for `pass_on`.
    pub(super) fn release(&self) -> u8 {
        self.next.fetch_and(!HELD, AcqRel)
    }

    /// The lock is free again: wakes the task if it was called meanwhile.
    pub(super) fn pass_on(&self, called: u8) {
        if called == HELD | DUE {
            self.task.wake();
        }
    }

    /// The task has work, unless the receiver does it first. Call this after the lock was
    /// released under which the work was queued.
    pub(super) fn call_task(&self) {
        // If it was called before, it is about to take the lock, and sees it then.
        if self.next.load(Acquire) & DUE == 0 {
            self.call_task_now();
        }
    }

    fn call_task_now(&self) {
        if self.next.fetch_or(DUE, AcqRel) == 0 {
            self.task.wake();
        }
    }

    /// An event waits for the receiver.
    pub(super) fn call_receiver(&self) {
        self.receiver.wake();
    }

    /// What the stream and the timer wake.
    pub(super) fn waker(self: &Arc<Self>) -> Waker {
        self.clone().into()
    }
}

impl Wake for Turns {
    fn wake(self: Arc<Self>) {
        self.call_task_now();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.call_task_now();
    }
}
