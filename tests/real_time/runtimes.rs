//! The timer belongs to the runtime in which a connection was made or spawned, whichever
//! runtime polls it.

use std::{
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake},
    thread::{self, Thread},
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use heartbeat_tests::{RawPeer, patient, quick, secs};
use heartbeat_tokio::{Cause, Death, Driver, Heartbeat, PeerEvent};
use tokio::{
    io::DuplexStream,
    runtime::{Builder, Runtime},
    time::{Instant, timeout},
};

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Its peer has said hello, and says nothing any more.
fn greeted(runtime: &Runtime) -> (Heartbeat<DuplexStream>, RawPeer) {
    let _context = runtime.enter();
    let (heartbeat, mut raw) = heartbeat_tests::wrapped(quick());
    runtime.block_on(raw.greet(quick()));
    (heartbeat, raw)
}

/// Takes what is there, and waits for more once.
async fn poll_a_little(events: impl StreamExt<Item = PeerEvent<Bytes>>) {
    let mut events = pin!(events);
    poll_fn(|cx| {
        while let Poll::Ready(event) = events.poll_next_unpin(cx) {
            assert!(event.is_some_and(|event| !event.is_terminal()));
        }
        Poll::Ready(())
    })
    .await;
}

fn assert_in_time(death: &Death, took: Duration) {
    assert_eq!(death.cause, Cause::Silent);
    // And what a busy machine takes.
    assert!(took < quick().detection_time() + secs(2), "{took:?}");
}

/// What is to become of the runtime in which the receiver was polled.
fn polled_elsewhere(then: impl FnOnce(Runtime)) {
    let (own, other) = (runtime(), runtime());
    let (heartbeat, raw) = greeted(&own);
    let Driver {
        sender,
        mut receiver,
        ..
    } = own.block_on(async { heartbeat.spawn() });
    // Before its task has its first turn.
    other.block_on(poll_a_little(&mut receiver));
    then(other);
    let began = Instant::now();
    let closed = own.block_on(async { timeout(secs(10), sender.closed()).await });
    let death = closed.expect("there is a verdict").unwrap_err();
    assert_in_time(&death, began.elapsed());
    drop((receiver, raw));
}

#[test]
fn a_receiver_that_was_polled_in_a_runtime_that_idles_takes_no_verdict_along() {
    let mut idle = None;
    polled_elsewhere(|runtime| idle = Some(runtime));
}

#[test]
fn nor_does_one_whose_runtime_is_gone() {
    polled_elsewhere(drop);
}

#[test]
fn a_connection_that_is_polled_outside_of_its_runtime_has_its_timer() {
    let (own, other) = (runtime(), runtime());
    let (mut heartbeat, raw) = greeted(&own);
    other.block_on(poll_a_little(&mut heartbeat));
    drop(other);
    let began = Instant::now();
    let events = async { heartbeat.by_ref().collect::<Vec<_>>().await };
    let events = own.block_on(async { timeout(secs(10), events).await });
    let events = events.expect("there is a verdict");
    let Some(PeerEvent::Dead(death)) = events.last() else {
        panic!("{events:?}")
    };
    assert_in_time(death, began.elapsed());
    drop(raw);
}

/// It was polled in one runtime before another one got it.
#[test]
fn a_connection_that_is_spawned_elsewhere_takes_its_timer_along() {
    let (first, own) = (runtime(), runtime());
    let (mut heartbeat, raw) = greeted(&first);
    first.block_on(poll_a_little(&mut heartbeat));
    let driver = own.block_on(async { heartbeat.spawn() });
    drop(first);
    let began = Instant::now();
    let closed = own.block_on(async { timeout(secs(10), driver.sender.closed()).await });
    let death = closed.expect("there is a verdict").unwrap_err();
    assert_in_time(&death, began.elapsed());
    drop(raw);
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Without a runtime.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Arc::new(Unpark(thread::current())).into();
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// A thread without any runtime receives, and sends.
#[test]
fn handles_work_outside_of_any_runtime() {
    let mut own = Builder::new_multi_thread();
    let own = own.worker_threads(1).enable_all().build().unwrap();
    let (ours, theirs) = tokio::io::duplex(1024);
    let (driver, peer) = own.block_on(async {
        let spawn = |stream| Heartbeat::new(stream, patient()).spawn();
        (spawn(ours), spawn(theirs))
    });
    let echoing = thread::spawn(move || {
        block_on(async {
            let Driver {
                sender,
                mut receiver,
                ..
            } = peer;
            while let Some(event) = receiver.recv().await {
                if let PeerEvent::Message(message) = event {
                    sender.send(message).await.unwrap();
                }
            }
        });
    });
    block_on(async {
        let Driver {
            sender,
            mut receiver,
            ..
        } = driver;
        for number in 0..100_u8 {
            sender.send(vec![number].into()).await.unwrap();
            let message = loop {
                if let Some(PeerEvent::Message(message)) = receiver.recv().await {
                    break message;
                }
            };
            assert_eq!(*message, [number]);
        }
    });
    echoing.join().unwrap();
}
