//! However few bytes a stream takes at a time, with or without vectored writes
//! and a buffer of its own: what is on the wire are whole frames, the messages
//! in their order, and control frames at the next boundary, ahead of messages
//! that wait. With any transport, inline and with a driver; in virtual time.

use std::{
    collections::BTreeSet,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{Sink, SinkExt, Stream, StreamExt, future::poll_immediate};
use heartbeat_core::{Control, GoodbyeCode, Nonce};
use heartbeat_tests::{
    for_each, ms, quick,
    scripted::{
        OnWire, Read, Script, Scripted, control_frame, filler, frames, greeted, greeted_by,
        messages, runtime,
    },
    secs,
};
use heartbeat_tokio::{Config, Driver, Heartbeat, PeerEvent, Receiver, SendError, Sender};
use proptest::{collection::vec, prelude::*};
use tokio_util::codec::Framed;

use super::own_frames::{OwnCodec, OwnFrames};

/// Nothing but what a test does: beats are far away.
fn calm() -> Config {
    let calm = quick().to_builder().interval(secs(3600));
    calm.build().unwrap()
}

// ---- a stream that is stuck after each byte ------------------------------------

#[test]
fn a_control_frame_leaves_at_the_next_boundary_wherever_the_stream_is_stuck() {
    let queues: [&[usize]; 7] = [
        &[0],
        &[100],
        &[1000],
        &[1, 0, 300, 20],
        &[4095, 7],
        &[4096],
        &[3, 4096, 4097, 0, 2000, 5],
    ];
    for sizes in queues {
        let queued: Vec<Bytes> = (sizes.iter().enumerate())
            .map(|(nth, &size)| filler(nth, size))
            .collect();
        let all: usize = sizes.iter().map(|size| 5 + size).sum();
        for kind in 0..4 {
            for stuck in 0..=all {
                overtakes(&queued, stuck, kind & 1 != 0, kind & 2 != 0);
            }
        }
    }
}

/// After this many bytes a ping is sent.
fn overtakes(queued: &[Bytes], stuck: usize, vectored: bool, buffered: bool) {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = runtime();
    }
    let (begun, sent) = RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let (mut heartbeat, script) = greeted(calm()).await;
            heartbeat.flush().await.unwrap();
            script.set_vectored(vectored);
            script.set_buffered(buffered);
            let before = script.taken();
            for message in queued {
                heartbeat.feed(message.clone()).await.unwrap();
            }
            assert_eq!(script.taken(), before, "it was written at once");
            script.take_only(stuck);
            assert!(poll_immediate(heartbeat.flush()).await.is_none() || before + stuck > 0);
            let begun = script.taken();
            heartbeat.probe();
            // The next poll does it.
            match stuck % 3 {
                0 => assert!(poll_immediate(heartbeat.next()).await.is_none()),
                1 => {
                    let _ = poll_immediate(heartbeat.flush()).await;
                }
                _ => {}
            }
            script.take_only(usize::MAX);
            heartbeat.flush().await.unwrap();
            // If nothing was queued any more, that didn't send it.
            assert!(poll_immediate(heartbeat.next()).await.is_none());
            heartbeat.flush().await.unwrap();
            (begun, script.sent())
        })
    });
    let frames = frames(&sent);
    let sizes = || queued.iter().map(Bytes::len).collect::<Vec<_>>();
    assert!(messages(&frames) == queued, "{:?}, {stuck}", sizes());
    let ping = (frames.iter())
        .find(|(_, frame)| matches!(frame, OnWire::Control(Control::Ping(_))))
        .map(|&(begin, _)| begin);
    // A stream with a buffer may have taken more behind it by then.
    let boundary = (frames.iter().map(|&(begin, _)| begin))
        .find(|&begin| begin >= begun)
        .unwrap();
    assert_eq!(ping, Some(boundary), "{:?}, {stuck}: {frames:?}", sizes());
}

// ---- a frame that waits for another ----------------------------------------------

/// The ping was stuck. When it leaves, so does what had to wait for it, and
/// no further call is needed for that.
#[test]
fn a_pong_that_waits_for_a_ping_leaves_right_behind_it() {
    for buffered in [false, true] {
        runtime().block_on(async {
            let (mut heartbeat, script) = stuck_with_a_ping(buffered).await;
            let nonce = Nonce([7; 8]);
            script.give_bytes(control_frame(Control::Ping(nonce)));
            script.take_only(usize::MAX);
            let event = tokio::time::timeout(ms(10), heartbeat.next()).await;
            assert!(event.is_err(), "{event:?}");
            assert_eq!(last(&script), Control::Pong(nonce), "{buffered}");
        });
    }
}

/// More would have to be kept for as long as the peer takes nothing, also if we send meanwhile.
#[test]
fn a_peer_that_pings_and_reads_nothing_gets_one_more_pong_than_was_begun() {
    runtime().block_on(async {
        let (mut heartbeat, script) = greeted(calm()).await;
        heartbeat.flush().await.unwrap();
        script.take_only(0);
        for nth in 1..=50 {
            script.give_bytes(control_frame(Control::Ping(Nonce([nth; 8]))));
            let event = tokio::time::timeout(calm().min_interval(), heartbeat.next()).await;
            assert!(event.is_err(), "{event:?}");
            heartbeat.feed(filler(0, 10)).await.unwrap();
        }
        script.take_only(usize::MAX);
        heartbeat.flush().await.unwrap();
        let event = tokio::time::timeout(ms(10), heartbeat.next()).await;
        assert!(event.is_err(), "{event:?}");
        let answered: Vec<Nonce> = (frames(&script.sent()).into_iter())
            .filter_map(|(_, frame)| match frame {
                OnWire::Control(Control::Pong(nonce)) => Some(nonce),
                _ => None,
            })
            .collect();
        assert_eq!(answered, [1, 50].map(|nth| Nonce([nth; 8])));
    });
}

#[test]
fn a_goodbye_that_waits_for_a_ping_leaves_right_behind_it() {
    runtime().block_on(async {
        let (mut heartbeat, script) = stuck_with_a_ping(false).await;
        assert!(poll_immediate(heartbeat.close()).await.is_none());
        script.take_only(usize::MAX);
        assert!(poll_immediate(heartbeat.close()).await.is_none());
        assert_eq!(last(&script), Control::Goodbye(GoodbyeCode::LEAVING));
    });
}

async fn stuck_with_a_ping(buffered: bool) -> (Heartbeat<Scripted>, Script) {
    let (mut heartbeat, script) = greeted(calm()).await;
    heartbeat.flush().await.unwrap();
    script.set_buffered(buffered);
    script.take_only(0);
    heartbeat.probe();
    assert!(poll_immediate(heartbeat.next()).await.is_none());
    (heartbeat, script)
}

fn last(script: &Script) -> Control {
    match frames(&script.sent()).pop() {
        Some((_, OnWire::Control(control))) => control,
        other => panic!("{other:?}"),
    }
}

// ---- a stream that is never done -------------------------------------------------

/// The feeder is always ahead: buffers fill up, and are replaced.
#[test]
fn a_stream_that_takes_less_than_there_is_gets_all_of_it() {
    for sizes in [
        &[16][..],
        &[250],
        &[3000],
        &[250, 260, 5000],
        &[4000, 30_000],
    ] {
        for takes in [&[1000, 0][..], &[20_000, 0], &[5000, 0, 1]] {
            for vectored in [true, false] {
                let mut queued = Vec::new();
                let sent = runtime().block_on(async {
                    let (mut heartbeat, script) = greeted(calm()).await;
                    heartbeat.flush().await.unwrap();
                    script.set_vectored(vectored);
                    script.take_each(takes);
                    let mut bytes = 0;
                    for (nth, &size) in sizes.iter().cycle().enumerate() {
                        let message = filler(nth, size);
                        heartbeat.feed(message.clone()).await.unwrap();
                        queued.push(message);
                        bytes += size;
                        if bytes > 1_500_000 {
                            break;
                        }
                    }
                    heartbeat.flush().await.unwrap();
                    script.sent()
                });
                let sent = messages(&frames(&sent));
                assert!(sent == queued, "{sizes:?}, {takes:?}, {vectored}");
            }
        }
    }
}

// ---- any stream -----------------------------------------------------------------

#[test]
fn any_stream_any_calls_and_futures_that_are_dropped() {
    any_stream(|stream| Heartbeat::new(stream, calm()), Heartbeat::probe);
}

#[test]
fn any_stream_by_a_codec() {
    let wrap = |stream| Heartbeat::with_codec(stream, OwnCodec, calm());
    any_stream(wrap, Heartbeat::probe);
}

#[test]
fn any_stream_as_whole_frames() {
    let framed = |stream| OwnFrames(Framed::new(stream, OwnCodec));
    let wrap = |stream| Heartbeat::with_frames(framed(stream), calm());
    any_stream(wrap, Heartbeat::probe);
}

#[test]
fn any_stream_that_a_driver_serves() {
    let wrap = |stream| Handles::of(Heartbeat::new(stream, calm()).spawn());
    any_stream(wrap, Handles::probe);
}

#[test]
fn any_stream_by_a_codec_that_a_driver_serves() {
    let wrap = |stream| Heartbeat::with_codec(stream, OwnCodec, calm()).spawn();
    any_stream(|stream| Handles::of(wrap(stream)), Handles::probe);
}

fn any_stream<H: Side>(wrap: impl Fn(Scripted) -> H, probe: fn(&mut H)) {
    let (mut dropped, mut arrived) = (0, 0);
    for_each(600, case(), |case| {
        let outcome = runtime().block_on(async {
            let play = tokio::time::timeout(secs(600), play(&case, &wrap, probe));
            play.await.expect("it got stuck")
        });
        let frames = frames(&outcome.sent);
        let greeting = |frame: &OnWire| match frame {
            OnWire::Control(Control::Hello(hello)) => *hello == calm().hello(hello.instance),
            _ => false,
        };
        assert!(frames[0].0 == 0 && greeting(&frames[0].1), "{frames:?}");
        let last = &frames.last().unwrap().1;
        assert_eq!(
            last,
            &OnWire::Control(Control::Goodbye(GoodbyeCode::LEAVING))
        );

        let mut numbers = Vec::new();
        for message in messages(&frames) {
            let number = u32::from_be_bytes(*message.first_chunk().unwrap()) as usize;
            assert!(message == outcome.messages[number], "other bytes");
            numbers.push(number);
        }
        assert!(numbers.is_sorted_by(|one, other| one < other));
        let numbers: BTreeSet<_> = numbers.into_iter().collect();
        assert!(outcome.certain.is_subset(&numbers));

        let mut pings = outcome.pings.iter();
        let mut answered = None;
        for (_, frame) in &frames {
            if let OnWire::Control(Control::Pong(nonce)) = frame {
                assert!(pings.any(|ping| ping == nonce), "not asked, or twice");
                answered = Some(nonce);
            }
        }
        assert_eq!(answered, outcome.pings.last());
        dropped += outcome.dropped;
        arrived += numbers.len();
    });
    println!("{dropped} futures were dropped, {arrived} messages arrived");
    assert!(dropped > 500 && arrived > 2000, "{dropped}, {arrived}");
}

trait Side: Stream<Item = PeerEvent<Bytes>> + Sink<Bytes, Error = SendError> + Unpin {}

impl<H> Side for H where H: Stream<Item = PeerEvent<Bytes>> + Sink<Bytes, Error = SendError> + Unpin {}

/// A driver's, as one.
struct Handles(Sender<Bytes>, Receiver<Bytes>);

impl Handles {
    fn of(driver: Driver<Bytes>) -> Self {
        Self(driver.sender, driver.receiver)
    }

    fn probe(&mut self) {
        let sender = self.0.clone();
        tokio::spawn(async move { sender.probe().await });
    }
}

impl Stream for Handles {
    type Item = PeerEvent<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.1.poll_next_unpin(cx)
    }
}

impl Sink<Bytes> for Handles {
    type Error = SendError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.0.poll_ready_unpin(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Bytes) -> Result<(), SendError> {
        self.0.start_send_unpin(message)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.0.poll_flush_unpin(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.0.poll_close_unpin(cx)
    }
}

#[derive(Clone, Debug)]
struct Case {
    takes: Vec<usize>,
    vectored: bool,
    buffered: bool,
    calls: Vec<(Call, usize)>,
}

#[derive(Clone, Copy, Debug)]
enum Call {
    Feed(usize),
    Send(usize),
    Flush,
    Next,
    Probe,
    /// The peer pings.
    Pinged,
    /// Time passes.
    Wait,
}

fn case() -> impl Strategy<Value = Case> {
    let take = prop_oneof![
        2 => Just(0_usize),
        4 => 1..10_usize,
        3 => 1..5_000_usize,
        2 => 1..200_000_usize,
    ];
    let size = || {
        prop_oneof![
            6 => 4..100_usize,
            3 => 200..300_usize,
            3 => 100..5_000_usize,
            2 => 4_090..4_100_usize,
            1 => 30_000..80_000_usize,
            1 => 190_000..300_000_usize,
        ]
    };
    let call = prop_oneof![
        6 => size().prop_map(Call::Feed),
        4 => size().prop_map(Call::Send),
        2 => Just(Call::Flush),
        2 => Just(Call::Next),
        1 => Just(Call::Probe),
        1 => Just(Call::Pinged),
        1 => Just(Call::Wait),
    ];
    let polls = prop_oneof![3 => Just(usize::MAX), 2 => 0..4_usize];
    (
        vec(take, 1..8),
        1..3_000_usize,
        any::<bool>(),
        any::<bool>(),
        vec((call, polls), 0..40),
    )
        .prop_map(|(mut takes, some, vectored, buffered, calls)| {
            takes.push(some);
            Case {
                takes,
                vectored,
                buffered,
                calls,
            }
        })
}

#[derive(Default)]
struct Outcome {
    sent: Vec<u8>,
    messages: Vec<Bytes>,
    /// Those whose sending wasn't given up.
    certain: BTreeSet<usize>,
    pings: Vec<Nonce>,
    dropped: usize,
}

/// The peer has taken everything in.
const RECEIVED: Control = Control::Goodbye(GoodbyeCode::RECEIVED);

async fn play<H: Side>(case: &Case, wrap: impl Fn(Scripted) -> H, probe: fn(&mut H)) -> Outcome {
    let mut outcome = Outcome::default();
    let (mut heartbeat, script) = greeted_by(calm(), wrap).await;
    script.take_each(case.takes.clone());
    script.set_vectored(case.vectored);
    script.set_buffered(case.buffered);
    for &(call, polls) in &case.calls {
        let number = outcome.messages.len();
        let mut message = |size: usize| {
            let number = u32::try_from(number).unwrap().to_be_bytes();
            let message = Bytes::from([&number[..], &filler(size, size - 4)].concat());
            outcome.messages.push(message.clone());
            message
        };
        let done = match call {
            Call::Feed(size) => polled(polls, heartbeat.feed(message(size))).await,
            Call::Send(size) => polled(polls, heartbeat.send(message(size))).await,
            Call::Flush => polled(polls, heartbeat.flush()).await,
            Call::Next => {
                // There is an event only when a side has sent something.
                let _ = polled(polls.min(1), heartbeat.next()).await;
                continue;
            }
            Call::Probe => {
                probe(&mut heartbeat);
                continue;
            }
            Call::Pinged => {
                let nonce = Nonce([outcome.pings.len().to_le_bytes()[0]; 8]);
                if outcome.pings.len() < 4 {
                    outcome.pings.push(nonce);
                    script.give_bytes(control_frame(Control::Ping(nonce)));
                }
                continue;
            }
            Call::Wait => {
                tokio::time::sleep(ms(5)).await;
                continue;
            }
        };
        match done {
            Some(result) => {
                result.unwrap();
                if matches!(call, Call::Feed(_) | Call::Send(_)) {
                    outcome.certain.insert(number);
                }
            }
            None => outcome.dropped += 1,
        }
    }
    // Whatever is owed leaves.
    while tokio::time::timeout(ms(1), heartbeat.next()).await.is_ok() {}
    let leaving = async {
        tokio::time::sleep(ms(100)).await;
        script.give_bytes(control_frame(RECEIVED));
        script.give([Read::End]);
    };
    tokio::join!(heartbeat.close(), leaving).0.unwrap();
    outcome.sent = script.sent();
    outcome
}

/// Polls as often as that, and drops the future then.
async fn polled<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
