//! Model-checks the turns with loom: the serving side sees everything that arrived, and no
//! wake-up is lost.
//!
//! The stream is a counter. Threads add to it and wake the connection. The lock is loom's,
//! and serving means to take the whole count. A lost wake-up is a deadlock, which loom
//! reports.

#![allow(clippy::unwrap_used, reason = "how a test fails")]

use std::{
    future::poll_fn,
    mem,
    sync::{Arc, atomic::AtomicU32},
    task::{Context, Poll, Wake, Waker},
};

use loom::{
    future::block_on,
    sync::{Mutex, MutexGuard, Notify, atomic::AtomicUsize, atomic::Ordering::Relaxed},
    thread,
};

use self::turns::Turns;

/// The same file, with loom's atomics.
#[path = "turns.rs"]
#[allow(clippy::duplicate_mod, reason = "the same source, with other atomics")]
mod turns;

mod atomics {
    pub(super) use loom::sync::atomic::{AtomicU8, Ordering};

    /// What the crate `atomic-waker` does, with a lock.
    #[derive(Debug, Default)]
    pub(super) struct AtomicWaker(loom::sync::Mutex<Option<std::task::Waker>>);

    impl AtomicWaker {
        pub(super) fn new() -> Self {
            Self::default()
        }

        pub(super) fn register(&self, waker: &std::task::Waker) {
            *self.0.lock().unwrap() = Some(waker.clone());
        }

        pub(super) fn wake(&self) {
            let waker = self.0.lock().unwrap().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// A connection: what has arrived on its stream, and what the lock protects.
struct Connection {
    turns: Arc<Turns>,
    /// Relaxed: only the turns order it.
    arrived: AtomicUsize,
    state: Mutex<State>,
    /// The number of things that are to arrive and to be queued.
    expected: usize,
    /// All of them were handled.
    done: Notify,
}

#[derive(Default)]
struct State {
    /// The part of the arrivals that was read.
    read: usize,
    /// The part that was read and not handed out.
    inbox: usize,
    /// The part that senders queued, and the part of it that was written.
    posted: usize,
    written: usize,
    /// The receiver found nothing, and nothing was put there for it since.
    receiver_waits: bool,
    /// The task is to end.
    stopped: bool,
}

impl Connection {
    /// Something arrives on the stream.
    fn arrive(&self) {
        let arrived = self.arrived.load(Relaxed);
        self.arrived.store(arrived + 1, Relaxed);
        self.turns.waker().wake();
    }

    /// A sender queues something.
    fn post(&self) {
        self.state.lock().unwrap().posted += 1;
        self.turns.call_task();
    }

    /// Reads `most` of what is there. Says whether there was more.
    fn serve(&self, state: &mut State, most: usize) -> bool {
        let waits = self.arrived.load(Relaxed) - state.read;
        let read = waits.min(most);
        state.inbox += read;
        state.read += read;
        self.write(state, read > 0);
        read < waits
    }

    fn write(&self, state: &mut State, is_news: bool) {
        let is_news = is_news || state.written < state.posted;
        state.written = state.posted;
        if is_news && state.read + state.written == self.expected {
            self.done.notify();
        }
    }

    /// A sender that waits writes itself. As `poll_until` in `state.rs` does it.
    fn flush(&self) {
        let mut state = self.state.lock().unwrap();
        self.turns.hold();
        self.write(&mut state, false);
        self.give_back(state);
    }

    /// As `settle` in `state.rs` does it.
    fn give_back(&self, state: MutexGuard<'_, State>) {
        let called = self.turns.release();
        drop(state);
        self.turns.pass_on(called);
    }

    /// As `state.rs` does it.
    fn poll_task(&self, cx: &Context<'_>) -> Poll<()> {
        if self.turns.poll_task(cx).is_pending() {
            return Poll::Pending;
        }
        let mut state = self.state.lock().unwrap();
        self.turns.serve();
        let most = match state.receiver_waits {
            true => 1,
            false => usize::MAX,
        };
        let has_more = self.serve(&mut state, most);
        let (has_events, stopped) = (state.inbox > 0, state.stopped);
        state.receiver_waits &= !has_events;
        self.give_back(state);
        if has_events {
            self.turns.call_receiver();
        }
        if has_more {
            self.turns.call_task();
        }
        match stopped {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// As `state.rs` does it.
    fn poll_event(&self, cx: &Context<'_>) -> Poll<()> {
        self.turns.await_events(cx);
        let mut state = self.state.lock().unwrap();
        if state.inbox > 0 {
            state.inbox -= 1;
            return Poll::Ready(());
        }
        self.turns.serve();
        self.serve(&mut state, 1);
        let is_event = mem::take(&mut state.inbox) > 0;
        state.receiver_waits = !is_event;
        self.give_back(state);
        if !is_event {
            return Poll::Pending;
        }
        self.turns.call_task();
        Poll::Ready(())
    }
}

impl Connection {
    /// As `take` in `handles.rs` does it, but that reading on never needs the task.
    fn poll_taken_in(&self, cx: &Context<'_>) -> Poll<()> {
        self.turns.await_events(cx);
        let mut state = self.state.lock().unwrap();
        if state.inbox == 0 {
            return Poll::Pending;
        }
        state.inbox -= 1;
        Poll::Ready(())
    }
}

/// Lets `outside` happen while a task serves and `receiver` polls, in every order with up to two
/// preemptions of a thread. `expected` things have to be dealt with. Without `HEARTBEAT_FULL`,
/// which `.ci/run` sets, it is one preemption where two things happen.
fn in_every_order(expected: usize, outside: fn(&Connection), receiver: fn(&Connection)) {
    let is_full = std::env::var_os("HEARTBEAT_FULL").is_some();
    let preemptions = if expected == 1 || is_full { 2 } else { 1 };
    in_orders(preemptions, expected, outside, receiver);
}

/// The same in the orders with `preemptions` of a thread.
fn in_orders(
    preemptions: usize,
    expected: usize,
    outside: fn(&Connection),
    receiver: fn(&Connection),
) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(move || {
        let connection = Arc::new(Connection {
            turns: Turns::new(),
            arrived: AtomicUsize::new(0),
            state: Mutex::default(),
            expected,
            done: Notify::new(),
        });
        let of = |connection: &Arc<Connection>| connection.clone();
        let task = thread::spawn({
            let connection = of(&connection);
            move || block_on(poll_fn(|cx| connection.poll_task(cx)))
        });
        let receiver = thread::spawn({
            let connection = of(&connection);
            move || receiver(&connection)
        });
        outside(&connection);
        connection.done.wait();
        receiver.join().unwrap();
        connection.state.lock().unwrap().stopped = true;
        connection.turns.waker().wake();
        task.join().unwrap();
    });
}

/// A `select!` may poll it once and then be busy elsewhere.
fn polls_once(connection: &Connection) {
    let _ = connection.poll_event(&Context::from_waker(Waker::noop()));
}

fn both(connection: &Connection) {
    connection.post();
    connection.arrive();
}

fn twice(connection: &Connection) {
    connection.arrive();
    connection.arrive();
}

fn takes<const EVENTS: usize>(connection: &Connection) {
    for _ in 0..EVENTS {
        block_on(poll_fn(|cx| connection.poll_event(cx)));
    }
}

#[test]
fn what_arrives_is_read_although_the_receiver_was_polled_once_and_forgotten() {
    in_every_order(1, Connection::arrive, polls_once);
}

#[test]
fn what_is_posted_is_written_although_the_receiver_serves_meanwhile() {
    in_every_order(1, Connection::post, polls_once);
}

#[test]
fn what_arrives_is_read_although_a_sender_writes_meanwhile() {
    in_every_order(1, Connection::arrive, Connection::flush);
}

#[test]
fn what_is_posted_is_written_although_a_sender_writes_meanwhile() {
    in_every_order(1, Connection::post, Connection::flush);
}

#[test]
fn what_arrives_reaches_a_receiver_that_waits() {
    in_every_order(1, Connection::arrive, takes::<1>);
}

#[test]
fn what_arrives_reaches_a_receiver_that_leaves_serving_to_the_task() {
    in_every_order(1, Connection::arrive, |connection| {
        block_on(poll_fn(|cx| connection.poll_taken_in(cx)));
    });
    // One that begins with that when it has served before.
    in_every_order(2, both, |connection| {
        let first = connection.poll_event(&Context::from_waker(Waker::noop()));
        if first.is_pending() {
            block_on(poll_fn(|cx| connection.poll_taken_in(cx)));
        }
    });
}

#[test]
fn what_is_left_behind_the_first_message_reaches_a_waiting_receiver() {
    // With two preemptions there are too many for each run of the tests.
    in_orders(1, 2, twice, takes::<2>);
}

#[test]
fn what_is_left_behind_the_first_message_is_read_without_the_receiver() {
    in_every_order(2, twice, polls_once);
}

#[test]
fn both_directions_at_once_hold_nobody_up() {
    in_every_order(2, both, takes::<1>);
}

/// A stream may wake the connection from within a write, and the task needs the lock.
#[test]
fn a_call_that_comes_while_the_lock_is_held_is_passed_on_when_it_is_free() {
    loom::model(|| {
        for hold in [Turns::serve, Turns::hold] {
            let turns = Turns::new();
            turns.serve(); // its first turn
            turns.release();
            let woken = Arc::<Woken>::default();
            let task = Waker::from(woken.clone());
            assert!(turns.poll_task(&Context::from_waker(&task)).is_pending());
            hold(&turns);
            turns.waker().wake();
            assert_eq!(woken.0.load(Relaxed), 0);
            let called = turns.release();
            turns.pass_on(called);
            assert_eq!(woken.0.load(Relaxed), 1);
        }
    });
}

#[derive(Default)]
struct Woken(AtomicU32);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}
