//! Which side is woken, for what, and how often a stream is read and flushed: nothing is done in
//! vain.

use std::{future::poll_fn, sync::Arc, task::Context};

use futures::{SinkExt, StreamExt, future::poll_immediate};
use heartbeat_core::{Control, Nonce};
use heartbeat_tests::{
    data_frame, ms, quick,
    scripted::{control_frame, greeted},
    secs, wrapped,
};
use heartbeat_tokio::PeerEvent;
use tokio::time::sleep;

use super::handles::Counts;

const PING: Control = Control::Ping(Nonce([1; 8]));

/// By the task, which had put the messages there.
#[tokio::test(start_paused = true)]
async fn a_receiver_takes_what_waits_and_nothing_is_read() {
    let (heartbeat, script) = greeted(quick()).await;
    let mut driver = heartbeat.spawn();
    script.give_bytes(data_frame(b"message").repeat(3));
    sleep(ms(1)).await;
    assert!(script.reads() > 0);
    for _ in 0..3 {
        let taken = poll_immediate(driver.receiver.recv()).await;
        assert_eq!(taken, Some(Some(PeerEvent::Message("message".into()))));
        sleep(ms(1)).await;
    }
    assert_eq!(script.reads(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_is_woken_for_events_and_not_for_pings() {
    let (heartbeat, script) = greeted(quick()).await;
    let mut driver = heartbeat.spawn();
    let (counts, waker) = Counts::new();
    let cx = &mut Context::from_waker(&waker);
    assert!(driver.receiver.poll_next_unpin(cx).is_pending());
    let before = script.taken();
    script.give_bytes(control_frame(PING));
    sleep(ms(1)).await;
    assert!(script.taken() > before, "it is answered");
    assert_eq!(counts.get(), 0);
    script.give_bytes(data_frame(b"message"));
    sleep(ms(1)).await;
    assert_eq!(counts.get(), 1);
}

/// The stream has woken the task, and the receiver was polled before that had its turn.
#[tokio::test(start_paused = true)]
async fn the_task_repeats_nothing_that_the_receiver_has_done() {
    let (heartbeat, script) = greeted(quick()).await;
    let mut driver = heartbeat.spawn();
    sleep(ms(1)).await;
    assert!(script.reads() > 0);
    script.give_bytes(control_frame(PING));
    assert_eq!(poll_immediate(driver.receiver.recv()).await, None);
    assert!(script.reads() > 0);
    sleep(ms(1)).await;
    assert_eq!(script.reads(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_flushed_is_not_flushed_again() {
    let (mut heartbeat, script) = greeted(quick()).await;
    heartbeat.send("message".into()).await.unwrap();
    assert!(script.flushes() > 0);
    heartbeat.flush().await.unwrap();
    for _ in 0..3 {
        script.give_bytes(data_frame(b"message"));
        assert!(heartbeat.next().await.is_some());
        assert_eq!(poll_immediate(heartbeat.next()).await, None);
    }
    assert_eq!(script.flushes(), 0);

    let sender = heartbeat.spawn().sender;
    sender.send("message".into()).await.unwrap();
    sender.flush().await.unwrap();
    sleep(ms(1)).await;
    assert!(script.flushes() > 0);
    sender.flush().await.unwrap();
    assert_eq!(script.flushes(), 0);
}

/// For the ping and for its answer, and not at the end of the time that the answer had.
#[tokio::test(start_paused = true)]
async fn each_beat_of_an_idle_connection_wakes_it_twice() {
    const BEATS: usize = 20;
    let config = quick().to_builder().interval(secs(10)).timeout(secs(1));
    let config = config.build().unwrap();
    let (mut heartbeat, mut peer) = wrapped(config);
    peer.greet(config).await;
    let answering = tokio::spawn(async move { peer.answer_for(secs(1000)).await });
    let (mut beats, mut woken) = (0, 0);
    while beats < BEATS {
        let event = poll_fn(|cx| {
            let event = heartbeat.poll_next_unpin(cx);
            woken += usize::from(event.is_pending());
            event
        });
        match event.await {
            Some(PeerEvent::Beat { .. }) => beats += 1,
            Some(PeerEvent::Connected { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(woken <= 2 * BEATS + 2, "{woken}");
    answering.abort();
}

/// The task that serves the connection is woken from then on.
#[tokio::test(start_paused = true)]
async fn a_task_that_polled_a_connection_before_it_was_spawned_is_forgotten() {
    let (mut heartbeat, _script) = greeted(quick()).await;
    let (counts, waker) = Counts::new();
    let polled = heartbeat.poll_next_unpin(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    let _driver = heartbeat.spawn();
    sleep(ms(1)).await;
    drop(waker);
    assert_eq!(Arc::strong_count(&counts), 1);
}
