//! Whose turn it is to serve a connection.
//!
//! This module decides which side is woken to serve the connection: the receiver if it
//! waits, otherwise the task. It touches nothing but its own atomics, so that loom can
//! try every interleaving of them (`model.rs`). What serving means, and the lock that it
//! takes, is `state.rs`.

use std::{
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use super::atomics::{
    AtomicBool, AtomicU8, AtomicWaker,
    Ordering::{AcqRel, Acquire, Relaxed},
};

/// The task is to serve, unless the receiver does it first.
const DUE: u8 = 1;
/// The stream or the timer called. The task lets the receiver go first, once: what the
/// receiver takes in itself needs no inbox.
const CALLED: u8 = 2;
/// The lock is held, and the stream may be touched. Calls that come meanwhile, perhaps
/// from within, are noted until the lock is free: a waker may ask for it.
const HELD: u8 = 4;

/// Whom the connection wakes, and what is still to be done.
#[derive(Debug)]
pub(super) struct Turns {
    receiver: AtomicWaker,
    task: AtomicWaker,
    /// Of the bits above those that are so.
    next: AtomicU8,
    /// The stream and the timer don't call the receiver.
    by_task: AtomicBool,
}

impl Turns {
    /// The task's turn comes first.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            receiver: AtomicWaker::new(),
            task: AtomicWaker::new(),
            next: AtomicU8::new(DUE),
            by_task: AtomicBool::new(false),
        })
    }

    /// Ready when the task is to serve. Whatever was done before it was called is then
    /// visible to it.
    pub(super) fn poll_task(&self, cx: &Context<'_>) -> Poll<()> {
        self.task.register(cx.waker());
        let turn = |next: u8| match next & (CALLED | DUE) {
            0 => None,
            DUE => Some(next & HELD),
            _ => Some(next & HELD | DUE),
        };
        match self.next.fetch_update(AcqRel, Acquire, turn) {
            Ok(next) if next & CALLED == 0 => Poll::Ready(()),
            Ok(_) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Err(_) => Poll::Pending,
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

    /// The lock is free again: wakes the sides that were called meanwhile.
    pub(super) fn pass_on(&self, called: u8) {
        if called & HELD != 0 && called & CALLED != 0 {
            self.receiver.wake();
        }
        if called & HELD != 0 && called != HELD {
            self.task.wake();
        }
    }

    /// The task has something to do, unless the receiver does it first. To be called
    /// after the lock was held in which that something was put.
    pub(super) fn call_task(&self) {
        // If it was called before, it is about to take the lock, and sees it then.
        if self.next.load(Acquire) & (CALLED | DUE) == 0 {
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

    /// The stream and the timer call the task only, from now on. An earlier call isn't
    /// lost: the task serves it unless the receiver does.
    pub(super) fn leave_serving_to_the_task(&self) {
        self.by_task.store(true, Relaxed);
    }

    /// What the stream and the timer wake.
    pub(super) fn waker(self: &Arc<Self>) -> Waker {
        self.clone().into()
    }
}

impl Wake for Turns {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.by_task.load(Relaxed) {
            self.call_task_now();
        } else if self.next.fetch_or(CALLED, AcqRel) & HELD == 0 {
            self.receiver.wake();
            self.task.wake();
        }
    }
}
