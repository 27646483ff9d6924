//! The turns: which side serves a connection.
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

/// The task serves, unless the receiver does it first.
const DUE: u8 = 1;
/// The stream or the timer called. The task lets the receiver go first, once: events that
/// the receiver takes in itself need no inbox.
const CALLED: u8 = 2;
/// The lock is held, and the stream may be touched. Calls that come meanwhile, perhaps
/// from within, are noted until the lock is free: a waker may ask for it.
const HELD: u8 = 4;

/// The sides that the connection wakes, and the work that is left.
#[derive(Debug)]
pub(super) struct Turns {
    receiver: AtomicWaker,
    task: AtomicWaker,
    /// The bits above that are set.
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

    /// Ready when the task has to serve. Everything that was done before the call is then
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

    /// The lock is free again: wakes the sides that were called meanwhile.
    pub(super) fn pass_on(&self, called: u8) {
        if called & HELD != 0 && called & CALLED != 0 {
            self.receiver.wake();
        }
        if called & HELD != 0 && called != HELD {
            self.task.wake();
        }
    }

    /// The task has work, unless the receiver does it first. Call this after the lock was
    /// released under which the work was queued.
    pub(super) fn call_task(&self) {
        // If it was called before, it is about to take the lock, and will see the work.
        if self.next.load(Acquire) & (CALLED | DUE) == 0 {
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

    /// The stream and the timer call the task only, from now on. An earlier call isn't
    /// lost: the task serves it unless the receiver does.
    pub(super) fn leave_serving_to_the_task(&self) {
        self.by_task.store(true, Relaxed);
    }

    /// The waker that the stream and the timer get.
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
