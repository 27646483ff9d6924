//! Futures that are dropped wherever they wait, and made anew: nothing is lost,
//! repeated or reordered. In virtual time, over an in-memory stream.
//!
//! ```text
//!  script of one side      next(2)  send(0)  probe  feed(1)  wait  flush(3) ...
//!  polls until dropped       2        0                1             3
//! ```
//!
//! 150 pairs of scripts that are the same each time, 500 with `HEARTBEAT_FULL`, or
//! as many others as `HEARTBEAT_CASES` says.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    sync::LazyLock,
    task::Poll,
};

use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt, stream::FuturesUnordered};
use heartbeat_tests::{by_peer, few_or_all, for_each, ms, secs};
use heartbeat_tokio::{CloseReason, Config, Heartbeat, PeerEvent, SendError};
use proptest::{collection::vec, prelude::*};
use tokio::{
    io::DuplexStream,
    runtime::Builder,
    time::{sleep, timeout},
};

#[test]
fn dropping_and_making_anew_any_future_loses_repeats_and_reorders_nothing() {
    let mut given_up = 0;
    let mut arrived = 0;
    for_each(few_or_all(150, 500), case(), |case| {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let [leaving, staying] = runtime.block_on(async {
            let (ours, theirs) = tokio::io::duplex(case.room);
            let [one, other] = case.scripts.clone();
            let leaving = tokio::spawn(Side::new(ours).play(one, Some(case.farewell.clone())));
            let staying = tokio::spawn(Side::new(theirs).play(other, None));
            // A lost wake-up would leave a caller waiting for ever.
            let both = async { [leaving.await.unwrap(), staying.await.unwrap()] };
            timeout(secs(3600), both).await.expect("it got stuck")
        });
        leaving.assert_got_what_was_sent_by(&staying);
        staying.assert_got_what_was_sent_by(&leaving);
        assert_eq!(leaving.end, Some(CloseReason::Local));
        assert_eq!(staying.end, Some(by_peer()));
        for side in [leaving, staying] {
            given_up += side.given_up;
            arrived += side.received.len();
        }
    });
    // It would show nothing if these didn't happen.
    println!("{given_up} futures were dropped, {arrived} messages arrived");
    assert!(given_up > 1_000 && arrived > 1_000);
}

// ---- scripts ---------------------------------------------------------------

#[derive(Clone, Debug)]
struct Case {
    /// Bytes that a direction of the stream holds.
    room: usize,
    scripts: [Vec<Step>; 2],
    /// What the side that leaves does with its farewell before it waits for
    /// the end of it.
    farewell: Vec<Step>,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    call: Call,
    /// How often it is polled before it is dropped.
    polls: u32,
    /// Whether it is woken through a waker of its own, as in a task of its
    /// own, or through the one of the side.
    own_waker: bool,
}

#[derive(Clone, Copy, Debug)]
enum Call {
    Next,
    /// A message with this many bytes of filler.
    Send(usize),
    Feed(usize),
    Flush,
    Probe,
    Close,
    /// Not a call: nothing is polled for this many milliseconds.
    Wait(u64),
}

fn case() -> impl Strategy<Value = Case> {
    let room = prop_oneof![1..64_usize, 64..5_000_usize, Just(200_000)];
    let script = || vec(step(call()), 0..80);
    let farewell = vec(step(prop_oneof![Just(Call::Close), Just(Call::Next)]), 0..6);
    (room, [script(), script()], farewell).prop_map(|(room, scripts, farewell)| Case {
        room,
        scripts,
        farewell,
    })
}

fn step(call: impl Strategy<Value = Call>) -> impl Strategy<Value = Step> {
    (call, 0..4_u32, any::<bool>()).prop_map(|(call, polls, own_waker)| Step {
        call,
        polls,
        own_waker,
    })
}

fn call() -> impl Strategy<Value = Call> {
    let size = || prop_oneof![4 => 0..100_usize, 2 => 0..5_000_usize, 1 => 30_000..80_000_usize];
    prop_oneof![
        4 => Just(Call::Next),
        2 => size().prop_map(Call::Send),
        2 => size().prop_map(Call::Feed),
        2 => Just(Call::Flush),
        1 => Just(Call::Probe),
        1 => (0..20_u64).prop_map(Call::Wait),
    ]
}

// ---- a side ----------------------------------------------------------------

struct Side {
    heartbeat: Heartbeat<DuplexStream>,
    next_id: u32,
    seen: Seen,
}

#[derive(Debug, Default)]
struct Seen {
    /// Messages that were certainly queued, and those that perhaps were: the
    /// `send` was dropped.
    sent: Vec<u32>,
    perhaps_sent: Vec<u32>,
    received: Vec<u32>,
    end: Option<CloseReason>,
    given_up: u32,
}

/// The last message of each side.
const DONE: u32 = u32::MAX;

impl Side {
    fn new(stream: DuplexStream) -> Self {
        // No side is late here by more than a few milliseconds.
        let heartbeat = Heartbeat::new(stream, Config::default());
        Self {
            heartbeat,
            next_id: 0,
            seen: Seen::default(),
        }
    }

    /// The script; then everything is flushed, and after both sides are done
    /// one of them leaves.
    async fn play(mut self, script: Vec<Step>, farewell: Option<Vec<Step>>) -> Seen {
        for step in script {
            self.step(step).await;
        }
        match self.heartbeat.send(message(DONE, 0)).await {
            Ok(()) => {}
            // Its receiver may leave while a pong behind it is being written.
            Err(SendError::Closed(CloseReason::Peer { .. })) if farewell.is_none() => {}
            Err(error) => panic!("{error}"),
        }
        self.seen.sent.push(DONE);
        if let Some(farewell) = farewell {
            while self.seen.received.last() != Some(&DONE) {
                let event = self.heartbeat.next().await;
                self.note(event);
            }
            for step in farewell {
                self.step(step).await;
            }
            self.heartbeat.close().await.unwrap();
        }
        while let Some(event) = self.heartbeat.next().await {
            self.note(Some(event));
        }
        assert_eq!(self.heartbeat.next().await, None);
        self.seen
    }

    async fn step(&mut self, step: Step) {
        let id = self.next_id;
        match step.call {
            Call::Next => {
                let event = step.poll(self.heartbeat.next()).await;
                match event {
                    Some(event) => self.note(event),
                    None => self.seen.given_up += 1,
                }
            }
            Call::Send(filler) => {
                self.next_id += 1;
                let sent = step.poll(self.heartbeat.send(message(id, filler))).await;
                self.seen.given_up += u32::from(sent.is_none());
                match sent {
                    // Not even polled: it wasn't begun.
                    None if step.polls == 0 => {}
                    None => self.seen.perhaps_sent.push(id),
                    Some(sent) => {
                        sent.unwrap();
                        self.seen.sent.push(id);
                    }
                }
            }
            Call::Feed(filler) => {
                self.next_id += 1;
                let fed = step.poll(self.heartbeat.feed(message(id, filler))).await;
                self.seen.given_up += u32::from(fed.is_none());
                // One that waited for room hasn't queued anything.
                if let Some(fed) = fed {
                    fed.unwrap();
                    self.seen.sent.push(id);
                }
            }
            Call::Flush => {
                let flushed = step.poll(self.heartbeat.flush()).await;
                self.expect_open(flushed);
            }
            Call::Close => {
                let closed = step.poll(self.heartbeat.close()).await;
                self.expect_open(closed);
            }
            Call::Probe => self.heartbeat.probe(),
            Call::Wait(millis) => sleep(ms(millis)).await,
        }
    }

    fn expect_open<E: fmt::Debug>(&mut self, result: Option<Result<(), E>>) {
        match result {
            Some(result) => result.unwrap(),
            None => self.seen.given_up += 1,
        }
    }

    fn note(&mut self, event: Option<PeerEvent<Bytes>>) {
        match event {
            Some(PeerEvent::Message(message)) => {
                self.seen.received.push(parse(&message));
                assert_eq!(self.seen.end, None);
            }
            Some(PeerEvent::Closed { reason }) => {
                assert_eq!(self.seen.end.replace(reason), None);
            }
            Some(PeerEvent::Connected { .. } | PeerEvent::Beat { .. }) => {}
            None => assert!(self.seen.end.is_some()),
            other => panic!("{other:?}"),
        }
    }
}

impl Step {
    /// The future's output, or `None` if it was dropped after this many polls.
    async fn poll<F: Future>(self, future: F) -> Option<F::Output> {
        let mut left = self.polls;
        if self.own_waker {
            let mut alone = FuturesUnordered::new();
            alone.push(give_up(future, &mut left));
            alone.next().await.flatten()
        } else {
            give_up(future, &mut left).await
        }
    }
}

async fn give_up<F: Future>(future: F, left: &mut u32) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        if *left == 0 {
            return Poll::Ready(None);
        }
        *left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if *left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

impl Seen {
    /// All that was certainly sent, nothing that wasn't, in order, once.
    fn assert_got_what_was_sent_by(&self, other: &Self) {
        let received = &self.received;
        assert!(
            received.is_sorted_by(|one, next| one < next),
            "{received:?}"
        );
        for id in &other.sent {
            assert!(
                received.contains(id),
                "{id} of {other:?} is not in {received:?}"
            );
        }
        for id in received {
            let sent = other.sent.contains(id) || other.perhaps_sent.contains(id);
            assert!(sent, "{id} was never sent by {other:?}");
        }
    }
}

fn message(id: u32, filler: usize) -> Bytes {
    let mut message = BytesMut::new();
    message.put_u32(id);
    message.extend_from_slice(filler_of(id, filler));
    message.freeze()
}

fn parse(message: &[u8]) -> u32 {
    let (id, filler) = message.split_first_chunk().unwrap();
    let id = u32::from_be_bytes(*id);
    assert!(filler == filler_of(id, filler.len()));
    id
}

/// Bytes in which a part that is missing, repeated or of another message shows.
/// They are made once: all messages together have hundreds of megabytes.
fn filler_of(id: u32, length: usize) -> &'static [u8] {
    static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let byte = |at: usize| (at ^ (at / 251)).to_le_bytes()[0];
        (0..80_256).map(byte).collect()
    });
    let from = id as usize % 256;
    &BYTES[from..from + length]
}
