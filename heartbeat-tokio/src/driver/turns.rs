//! Whose turn it is to serve a connection.
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

/// The task is to serve, unless the receiver does it first.
const DUE: u8 = 1;
/// The lock is held, and the stream may be touched. Calls that come meanwhile, perhaps
/// from within, are noted until the lock is free: a waker may ask for it.
const HELD: u8 = 2;

/// Whom the connection wakes, and what is still to be done.
#[derive(Debug)]
pub(super) struct Turns {
    receiver: AtomicWaker,
    task: AtomicWaker,
    /// Of the bits above those that are so.
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

    /// Ready when the task is to serve. Whatever was done before it was called is then
    /// visible to it.
    pub(super) fn poll_task(&self, cx: &Context<'_>) -> Poll<()> {
        self.task.register(cx.waker());
        match self.next.load(Acquire) & DUE {
            0 => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }

    /// The receiver is woken from now on. To be called before it looks whether there
    /// is anything.
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

    /// The holder of the lock is about to release it. Tells `pass_on` what was called
    /// meanwhile.
    pub(super) fn release(&self) -> u8 {
        self.next.fetch_and(!HELD, AcqRel)
    }

    /// The lock is free again: wakes the task if it was called meanwhile.
    pub(super) fn pass_on(&self, called: u8) {
        if called == HELD | DUE {
            self.task.wake();
        }
    }

    /// The task has something to do, unless the receiver does it first. To be called
    /// after the lock was held in which that something was put.
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

    /// The receiver has something to take.
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
