//! Many connections in one task. Tokio's budget for a poll is the task's, so they share
//! it; and a connection that is refused something for that reason has to say so, or the
//! others are asked again and again for nothing.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
};

use bytes::Bytes;
use futures::{SinkExt, StreamExt, stream::FuturesUnordered};
use heartbeat_tests::{ms, secs};
use heartbeat_tokio::{Config, Driver, Heartbeat, PeerEvent, Sender};
use tokio::{
    io::DuplexStream,
    task::coop::consume_budget,
    time::{sleep, timeout},
};

/// As often as each connection has something to do, and not as often as there are others.
#[test]
fn polls_each_of_a_thousand_connections_as_often_as_each_of_a_hundred() {
    let of_few = polls_until_all_are_heard(100) / 100;
    let of_many = polls_until_all_are_heard(1_000) / 1_000;
    assert!(of_many <= 2 * of_few, "{of_many} times, {of_few}");
}

/// Opened together, all in one `FuturesUnordered`, until each had the answer to a ping:
/// how often they were polled.
fn polls_until_all_are_heard(connections: usize) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let polls = Arc::<AtomicUsize>::default();
        let together = tokio::spawn({
            let polls = polls.clone();
            async move {
                let mut all = FuturesUnordered::new();
                for _ in 0..connections {
                    let (ours, theirs) = tokio::io::duplex(1024);
                    tokio::spawn(be_a_peer(theirs));
                    all.push(first_beat(ours, polls.clone()));
                }
                while let Some(is_alive) = all.next().await {
                    assert!(is_alive);
                }
            }
        });
        timeout(secs(60), together).await.unwrap().unwrap();
        polls.load(Relaxed)
    })
}

async fn be_a_peer(stream: DuplexStream) {
    let config = Config::detect_within(secs(3)).unwrap();
    let mut peer = Heartbeat::new(stream, config);
    while peer.next().await.is_some() {}
}

/// Whether one comes.
async fn first_beat(stream: DuplexStream, polls: Arc<AtomicUsize>) -> bool {
    let config = Config::detect_within(secs(3)).unwrap();
    let mut peer = Heartbeat::new(stream, config);
    peer.probe();
    let mut beat = pin!(async {
        loop {
            match peer.next().await {
                Some(PeerEvent::Beat { .. }) => return true,
                Some(PeerEvent::Dead(_)) | None => return false,
                Some(_) => {}
            }
        }
    });
    poll_fn(|cx| {
        polls.fetch_add(1, Relaxed);
        beat.as_mut().poll(cx)
    })
    .await
}

/// No waker is called while the driver holds its lock, so it may ask the connection.
#[test]
fn a_waker_may_ask_the_connection() {
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        ask_when_woken();
        done.send(()).unwrap();
    });
    is_done.recv_timeout(secs(30)).expect("it isn't stuck");
}

struct Asks {
    sender: Sender<Bytes>,
    woken: AtomicUsize,
}

impl Wake for Asks {
    fn wake(self: Arc<Self>) {
        let _ = self.sender.status();
        self.woken.fetch_add(1, Relaxed);
    }
}

fn ask_when_woken() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let (ours, theirs) = tokio::io::duplex(1024);
        let mut other = Heartbeat::new(theirs, Config::default());
        let peer = Heartbeat::new(ours, Config::default());
        let Driver {
            sender,
            mut receiver,
            ..
        } = peer.spawn();
        sleep(ms(1)).await;
        let woken = AtomicUsize::new(0);
        let asks = Arc::new(Asks { sender, woken });
        poll_fn(|cx| {
            // What else is in this task uses its budget up.
            while pin!(consume_budget()).poll(cx).is_ready() {}
            let waker = Waker::from(asks.clone());
            let receives = pin!(receiver.recv()).poll(&mut Context::from_waker(&waker));
            assert!(receives.is_pending());
            Poll::Ready(())
        })
        .await;
        // The task goes on where that was refused, and wakes the receiver.
        other.send("here".into()).await.unwrap();
        sleep(ms(1)).await;
        assert!(asks.woken.load(Relaxed) > 0, "there is something to take");
    });
}
