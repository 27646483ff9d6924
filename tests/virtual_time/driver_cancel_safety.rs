//! The futures of a driver's handles may be dropped at any point and made
//! anew: nothing is lost, repeated or reordered. (Those of a `Heartbeat`
//! itself: `cancel_safety.rs`.)

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may panic too"
)]

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
};

use bytes::Bytes;
use futures::StreamExt;
use heartbeat_tests::{by_peer, for_each, ms, quick, secs};
use heartbeat_tokio::{CloseReason, Driver, Heartbeat, PeerEvent, Receiver, Sender};
use proptest::{collection::vec, prelude::*};
use tokio::{
    task::yield_now,
    time::{Instant, sleep, timeout_at},
};

/// One side's work, and after how many polls its futures are dropped.
#[derive(Clone, Debug)]
struct Script {
    /// The lengths of its messages.
    messages: Vec<usize>,
    drops: Vec<u8>,
    /// Between two events its application does nothing for this many milliseconds.
    works: u8,
}

fn script() -> impl Strategy<Value = Script> {
    let length = prop_oneof![4 => 4..100_usize, 2 => 100..5000_usize, 1 => 30_000..70_000_usize];
    // A probe's ping may wait until all messages of the peer are dealt with, and its
    // pong until all of ours are: less than the 800 ms in which it has to come.
    (vec(length, 0..40), vec(0..6_u8, 1..20), 0..10_u8).prop_map(|(messages, drops, works)| {
        Script {
            messages,
            drops,
            works,
        }
    })
}

impl Script {
    fn message(&self, number: usize) -> Bytes {
        let mut bytes = u32::try_from(number).unwrap().to_be_bytes().to_vec();
        bytes.resize(self.messages[number], 7);
        bytes.into()
    }

    fn all(&self) -> Vec<Bytes> {
        (0..self.messages.len())
            .map(|number| self.message(number))
            .collect()
    }

    fn drops(&self) -> impl Iterator<Item = u8> + use<> {
        self.drops.clone().into_iter().cycle()
    }
}

/// Polls once.
async fn once<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

/// Makes the future and drops it, a number of times.
async fn impatiently<T, F: Future<Output = T>>(
    drops: &mut impl Iterator<Item = u8>,
    mut make: impl FnMut() -> F,
) -> T {
    for _ in 0..20 {
        let mut polls = drops.next().unwrap();
        let mut future = pin!(make());
        if polls == 5 {
            break;
        }
        loop {
            match once(future.as_mut()).await {
                Poll::Ready(output) => return output,
                Poll::Pending if polls == 0 => break,
                Poll::Pending => polls -= 1,
            }
            yield_now().await;
        }
        // Time doesn't pass while a task is busy.
        sleep(ms(1)).await;
    }
    // Patiently: a wake-up that is missing shows, and a probe that is always
    // asked anew has never an answer.
    make().await
}

async fn send_all(sender: Sender<Bytes>, script: Script) {
    let mut drops = script.drops();
    for message in script.all() {
        // One that was dropped before it was ready wasn't queued.
        let send = || sender.send(message.clone());
        impatiently(&mut drops, send).await.unwrap();
        if message.len() % 5 == 0 {
            impatiently(&mut drops, || sender.probe()).await.unwrap();
        }
    }
    impatiently(&mut drops, || sender.flush()).await.unwrap();
}

async fn receive(receiver: &mut Receiver<Bytes>, count: usize, script: &Script) -> Vec<Bytes> {
    let mut drops = script.drops();
    let mut received = Vec::new();
    while received.len() < count {
        // A pinned borrow for each attempt.
        let event = loop {
            let mut polls = drops.next().unwrap();
            let mut next = receiver.next();
            if polls == 5 {
                break next.await;
            }
            let event = loop {
                match once(Pin::new(&mut next)).await {
                    Poll::Ready(event) => break Some(event),
                    Poll::Pending if polls == 0 => break None,
                    Poll::Pending => polls -= 1,
                }
                yield_now().await;
            };
            match event {
                Some(event) => break event,
                None => sleep(ms(1)).await,
            }
        };
        match event.expect("it goes on") {
            PeerEvent::Message(message) => {
                received.push(message);
                sleep(ms(script.works.into())).await;
            }
            event => assert!(!event.is_terminal(), "{event}"),
        }
    }
    received
}

async fn play(ours: Script, theirs: Script, room: usize) {
    let (one, other) = tokio::io::duplex(room);
    let one = Heartbeat::new(one, quick()).spawn();
    let other = Heartbeat::new(other, quick()).spawn();
    let side = |driver: Driver<Bytes>, script: Script, peer: Script| {
        let Driver {
            sender,
            mut receiver,
            ..
        } = driver;
        async move {
            let sending = tokio::spawn(send_all(sender.clone(), script.clone()));
            let received = receive(&mut receiver, peer.messages.len(), &script).await;
            sending.await.unwrap();
            assert_eq!(received, peer.all());
            (sender, receiver)
        }
    };
    let ((sender, mine), (_, theirs)) = tokio::join!(
        side(one, ours.clone(), theirs.clone()),
        side(other, theirs, ours.clone()),
    );
    let mut drops = ours.drops();
    let closed = impatiently(&mut drops, || sender.close()).await;
    assert_eq!(closed, Ok(CloseReason::Local));
    for (receiver, reason) in [(mine, CloseReason::Local), (theirs, by_peer())] {
        let last: Vec<_> = receiver
            .filter(|event| std::future::ready(event.is_terminal()))
            .collect()
            .await;
        assert_eq!(last, [PeerEvent::Closed { reason }]);
    }
}

#[test]
fn dropped_futures_lose_repeat_and_reorder_nothing() {
    let scripts = (
        script(),
        script(),
        prop_oneof![64..200_usize, 4096..100_000_usize],
    );
    for_each(300, scripts, |(ours, theirs, room)| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let limit = Instant::now() + secs(600);
            timeout_at(limit, play(ours, theirs, room))
                .await
                .expect("nobody waits for ever");
        });
    });
}
