//! One busy connection leaves the other tasks of its runtime their turn, also
//! over a stream that is never pending and knows nothing of tokio's
//! cooperative budget.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use heartbeat_core::{Control, Nonce, PART};
use heartbeat_tests::{
    parts, quick,
    scripted::{Read, Script, control_frame, filler, greeted, runtime},
    secs,
};
use heartbeat_tokio::PeerEvent;
use tokio::task::yield_now;

/// The bytes that are written in one turn. Two turns may come before the other task's.
const A_TURN: usize = 192 * 1024;

/// The number of reads in one turn.
const READS: usize = 64;

#[test]
fn a_sender_that_has_always_more() {
    for size in [0, 16, 1024, 5000, 65_536, 1 << 20] {
        for vectored in [true, false] {
            for flushed in [true, false] {
                let most = most_in_a_turn(Script::written, async |script| {
                    let (mut heartbeat, own) = greeted(quick()).await;
                    own.record_nothing();
                    own.set_vectored(vectored);
                    script.send(own).unwrap();
                    let message = filler(0, size);
                    loop {
                        match flushed {
                            true => heartbeat.send(message.clone()).await.unwrap(),
                            false => heartbeat.feed(message.clone()).await.unwrap(),
                        }
                    }
                });
                // One that is larger than a turn gets longer ones.
                let turn = A_TURN.max(size.min(640 * 1024));
                assert!(most <= 3 * turn, "{size}: {most} bytes in a turn");
            }
        }
    }
}

#[test]
fn a_peer_that_never_stops_sending() {
    let pongs = control_frame(Control::Pong(Nonce([7; 8])));
    let hello = control_frame(Control::Hello(quick().hello([7; 8])));
    // A message that doesn't end soon.
    let large = Bytes::from(parts(&vec![0; 8 << 20], PART));
    for endless in [
        Bytes::from(pongs.repeat(50)),
        Bytes::from(pongs),
        Bytes::from(hello),
        large.clone(),
    ] {
        for sending in [true, false] {
            let endless = endless.clone();
            let most = most_in_a_turn(Script::reads, async |script| {
                let (mut heartbeat, own) = greeted(quick()).await;
                own.record_nothing();
                match endless == large {
                    true => own.give_bytes(endless),
                    false => own.give([Read::Endless(endless)]),
                }
                if sending {
                    // A sender that waits serves the connection.
                    own.take_only(0);
                    script.send(own).unwrap();
                    heartbeat.send(filler(0, 100)).await.unwrap();
                } else {
                    script.send(own).unwrap();
                    let mut event = heartbeat.next().await;
                    while let Some(PeerEvent::Message(_)) = event {
                        event = heartbeat.next().await;
                    }
                    panic!("{event:?}");
                }
            });
            assert!(most > 0, "nothing was read");
            assert!(most <= 3 * READS, "{most} reads in a turn");
        }
    }
}

/// The most of something that happens between two turns of another task.
fn most_in_a_turn<F>(count: fn(&Script) -> usize, busy: F) -> usize
where
    F: AsyncFnOnce(tokio::sync::oneshot::Sender<Script>),
{
    runtime().block_on(async {
        let (give, get) = tokio::sync::oneshot::channel();
        let watching = async move {
            let script = get.await.unwrap();
            let mut most = 0;
            for _ in 0..30 {
                yield_now().await;
                most = most.max(count(&script));
            }
            most
        };
        let watching = tokio::spawn(watching);
        tokio::select! {
            biased;
            most = watching => most.unwrap(),
            () = busy(give) => unreachable!("it goes on"),
        }
    })
}

/// After this time unread bytes count as never read.
#[test]
fn what_is_queued_leaves_while_a_peer_never_stops_sending() {
    let pongs = Bytes::from(control_frame(Control::Pong(Nonce([7; 8]))));
    runtime().block_on(async {
        let (mut heartbeat, script) = greeted(quick()).await;
        script.give([Read::Endless(pongs)]);
        script.take_only(0);
        let message = filler(0, 100);
        // Given up when it waits; it is queued.
        let sent = futures::future::poll_immediate(heartbeat.send(message.clone())).await;
        assert!(sent.is_none());
        script.take_only(usize::MAX);
        let reading = async {
            let event = heartbeat.next().await;
            panic!("{event:?}");
        };
        let looking = async {
            for _ in 0..100 {
                yield_now().await;
            }
        };
        tokio::select! {
            () = reading => {}
            () = looking => {}
        }
        let sent = script.sent();
        assert!(sent.windows(100).any(|bytes| bytes == message), "it waits");
        assert!(quick().detection_time() < secs(1));
    });
}
