//! Leaving: `close` is Ok only if the peer took everything in, `finish` ends one
//! direction, and both end in bounded time. Inline and spawned, in virtual time.

use std::{
    future::{Future, pending},
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::{SinkExt, StreamExt, future::join};
use heartbeat_core::Control;
use heartbeat_tests::{
    RawPeer, all_events, by_peer, data_frame, few_or_all, for_each, framed, ms, quick,
    scripted::{Read, control_frame, frames, greeted, messages, runtime, scripted},
    secs, slow_line, wrapped,
};
use heartbeat_tokio::{
    Cause, CloseError, CloseReason, Config, Detail, Driver, GoodbyeCode, Heartbeat, PeerEvent,
    Postcard, SendError, State, testkit::LineEnd,
};
use proptest::prelude::*;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::codec::Framed;

use super::own_frames::{OwnCodec, OwnFrames};

const MESSAGES: usize = 48;

/// Dead within 2.5 s.
fn impatient() -> Config {
    Config::builder()
        .interval(secs(1))
        .timeout(ms(500))
        .max_missed(3)
        .build()
        .unwrap()
}

fn linger() -> Duration {
    impatient().linger()
}

type Peer = Heartbeat<Once>;

fn pair(room: usize) -> (Peer, Peer) {
    let (ours, theirs) = streams(room, 0);
    (
        Heartbeat::new(ours, impatient()),
        Heartbeat::new(theirs, impatient()),
    )
}

/// Zero bytes a second are no limit.
fn streams(room: usize, bytes_per_second: u32) -> (Once, Once) {
    let (ours, theirs) = slow_line(room, bytes_per_second);
    (Once::new(ours), Once::new(theirs))
}

/// A stream that isn't to be read again after its end, nor written or ended again
/// after ours.
#[derive(Debug)]
struct Once {
    stream: LineEnd,
    read_out: bool,
    ended: bool,
}

impl Once {
    fn new(stream: LineEnd) -> Self {
        Self {
            stream,
            read_out: false,
            ended: false,
        }
    }
}

impl AsyncRead for Once {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        assert!(!self.read_out, "read after the end");
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        self.read_out = read.is_err() || buf.filled().len() == before;
        Poll::Ready(read)
    }
}

impl AsyncWrite for Once {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        assert!(!self.ended, "written after the end");
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        assert!(!self.ended, "ended twice");
        let ended = ready!(Pin::new(&mut self.stream).poll_shutdown(cx));
        self.ended = true;
        Poll::Ready(ended)
    }
}

fn message(number: usize) -> Bytes {
    vec![u8::try_from(number % 256).unwrap(); 100_000].into()
}

/// Sends all and leaves.
async fn send_and_leave(driver: Driver<Bytes>) -> (Driver<Bytes>, Result<CloseReason, CloseError>) {
    for number in 0..MESSAGES {
        driver.sender.send(message(number)).await.unwrap();
    }
    let closed = driver.sender.close().await;
    (driver, closed)
}

/// Takes everything in, as fast as `each` allows: the messages, and how it ended.
fn take_in(driver: Driver<Bytes>, first: Duration, each: Duration) -> JoinHandle<Received> {
    tokio::spawn(async move {
        let mut receiver = driver.receiver;
        let mut received = Received::default();
        sleep(first).await;
        while let Some(event) = receiver.next().await {
            match event {
                PeerEvent::Message(message) => {
                    received.messages.push(message);
                    sleep(each).await;
                }
                PeerEvent::Closed { .. } | PeerEvent::Dead(_) => received.end = Some(event),
                _ => assert!(received.end.is_none(), "{event:?} after the end"),
            }
        }
        received
    })
}

#[derive(Debug, Default)]
struct Received {
    messages: Vec<Bytes>,
    end: Option<PeerEvent<Bytes>>,
}

impl Received {
    fn assert_complete(&self) {
        assert_eq!(self.messages.len(), MESSAGES);
        assert!((self.messages.iter().enumerate()).all(|(number, got)| *got == message(number)));
        assert_eq!(self.end, Some(PeerEvent::Closed { reason: by_peer() }));
    }
}

// ---- confirmed ------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_receiver_that_is_busy_for_longer_than_a_death_takes_gets_everything() {
    let (ours, theirs) = pair(64 * 1024);
    let received = take_in(theirs.spawn(), secs(6), Duration::ZERO);
    let (_driver, closed) = send_and_leave(ours.spawn()).await;
    assert_eq!(closed, Ok(CloseReason::Local));
    received.await.unwrap().assert_complete();
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_takes_its_time_for_each_message_gets_everything() {
    let (ours, theirs) = pair(64 * 1024);
    let received = take_in(theirs.spawn(), Duration::ZERO, ms(150));
    let began = Instant::now();
    let (_driver, closed) = send_and_leave(ours.spawn()).await;
    assert_eq!(closed, Ok(CloseReason::Local));
    // It is Ok when everything was taken in, be it by the inbox.
    assert!(began.elapsed() > ms(6_000), "{:?}", began.elapsed());
    received.await.unwrap().assert_complete();
}

#[tokio::test(start_paused = true)]
async fn a_receiver_behind_a_slow_line_gets_everything() {
    let (ours, theirs) = streams(16 * 1024, 400_000);
    let ours = Heartbeat::new(ours, impatient());
    let theirs = Heartbeat::new(theirs, impatient());
    let received = take_in(theirs.spawn(), Duration::ZERO, Duration::ZERO);
    let began = Instant::now();
    let (_driver, closed) = send_and_leave(ours.spawn()).await;
    assert_eq!(closed, Ok(CloseReason::Local));
    assert!(began.elapsed() > secs(11), "{:?}", began.elapsed());
    received.await.unwrap().assert_complete();
}

#[tokio::test(start_paused = true)]
async fn inline_everything_arrives_too_and_both_end_at_once() {
    let (mut ours, mut theirs) = pair(1024);
    let sending = async {
        for number in 0..MESSAGES {
            ours.send(message(number)).await.unwrap();
        }
        ours.close().await
    };
    let began = Instant::now();
    let (closed, events) = join(sending, all_events(&mut theirs)).await;
    assert_eq!(closed, Ok(()));
    assert_eq!(began.elapsed(), Duration::ZERO);
    let messages = events
        .iter()
        .filter(|event| matches!(event, PeerEvent::Message(_)));
    assert_eq!(messages.count(), MESSAGES);
    assert_eq!(
        events.last(),
        Some(&PeerEvent::Closed { reason: by_peer() })
    );
}

#[tokio::test(start_paused = true)]
async fn the_reason_arrives_unchanged_with_its_words() {
    for (given, told) in [(1, 1), (64, 64), (127, 127), (2, 0), (8, 0), (200, 0)] {
        let (mut ours, mut theirs) = pair(1024);
        let leaving = ours.close_with(GoodbyeCode(given), Detail::from("back at noon"));
        let (closed, events) = join(leaving, all_events(&mut theirs)).await;
        assert_eq!(closed, Ok(()), "{given}");
        let reason = CloseReason::Peer {
            code: GoodbyeCode(told),
            detail: Detail::from("back at noon"),
        };
        assert_eq!(events.last(), Some(&PeerEvent::Closed { reason }));
    }
}

/// The goodbye waits behind a message until then.
#[tokio::test(start_paused = true)]
async fn a_side_that_leaves_twice_has_given_its_reason_the_first_time() {
    let (mut ours, mut theirs) = pair(16);
    ours.feed(vec![0; 1000].into()).await.unwrap();
    for (code, detail) in [(64, "back at noon"), (65, "never")] {
        let leaving = ours.close_with(GoodbyeCode(code), Detail::from(detail));
        leaving.now_or_pending().await;
    }
    let (closed, events) = join(ours.close(), all_events(&mut theirs)).await;
    assert_eq!(closed, Ok(()));
    let reason = CloseReason::Peer {
        code: GoodbyeCode(64),
        detail: Detail::from("back at noon"),
    };
    assert_eq!(events.last(), Some(&PeerEvent::Closed { reason }));
}

// ---- both ----------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn both_may_leave_at_once_with_full_pipes_and_with_empty_ones() {
    for messages in [0, 1, MESSAGES] {
        let (ours, theirs) = pair(16 * 1024);
        let leave = |peer: Peer| async move {
            let Driver {
                sender,
                mut receiver,
                ..
            } = peer.spawn();
            let receiving = async {
                let mut received = 0;
                while let Some(event) = receiver.next().await {
                    received += usize::from(matches!(event, PeerEvent::Message(_)));
                }
                received
            };
            let sending = async {
                for number in 0..messages {
                    sender.send(message(number)).await.unwrap();
                }
                sender.close().await
            };
            join(receiving, sending).await
        };
        let both = join(leave(ours), leave(theirs)).await;
        let all_is_well = (messages, Ok(CloseReason::Local));
        assert_eq!(both, (all_is_well.clone(), all_is_well));
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_kept_while_we_leave_is_not_confirmed() {
    // Both leave inline, so neither takes messages out of its inbox.
    let (ours, theirs) = streams(16 * 1024, 1_000_000);
    let mut ours = Heartbeat::new(ours, impatient());
    let mut theirs = Heartbeat::new(theirs, impatient());
    ours.feed(vec![0; 4_000_000].into()).await.unwrap();
    let sending = async {
        for number in 0..20 {
            theirs.send(message(number)).await.unwrap();
        }
        theirs.close().await
    };
    let began = Instant::now();
    let (few, many) = join(ours.close(), sending).await;
    assert_eq!(few, Ok(()));
    let Err(CloseError::Unconfirmed { unwritten: 0 }) = many else {
        panic!("{many:?}")
    };
    assert!(began.elapsed() < secs(5), "{:?}", began.elapsed());
    let kept = all_events(&mut ours).await;
    let messages = kept
        .iter()
        .filter(|event| matches!(event, PeerEvent::Message(_)));
    let kept = messages.count();
    assert!(
        (2..=4).contains(&kept),
        "{kept} of 100,000 bytes, 256 KiB are kept"
    );
}

#[tokio::test(start_paused = true)]
async fn a_peer_whose_receiver_was_dropped_confirms_nothing() {
    let (ours, theirs) = pair(1024);
    let theirs = theirs.spawn();
    drop(theirs.receiver);
    let mut ours = ours;
    ours.send("unheard".into()).await.unwrap();
    let closed = timeout(secs(1), ours.close()).await.unwrap();
    assert_eq!(closed, Err(CloseError::Unconfirmed { unwritten: 0 }));
    assert_eq!(theirs.sender.closed().await, Ok(by_peer()));
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_is_dropped_confirms_unless_a_message_waits_in_it() {
    for waits in [false, true] {
        let (mut ours, theirs) = pair(1024);
        let theirs = theirs.spawn();
        if waits {
            ours.send("unheard".into()).await.unwrap();
        }
        assert!(timeout(ms(10), ours.next()).await.is_ok());
        sleep(ms(10)).await;
        drop(theirs.receiver);
        let closed = timeout(secs(1), ours.close()).await.unwrap();
        let expected = match waits {
            true => Err(CloseError::Unconfirmed { unwritten: 0 }),
            false => Ok(()),
        };
        assert_eq!(closed, expected, "{waits}");
    }
}

#[tokio::test(start_paused = true)]
async fn leaving_after_the_peer_did_is_confirmed_if_there_was_nothing_to_lose() {
    for sends in [false, true] {
        let (mut ours, mut theirs) = pair(1024);
        if sends {
            ours.send("hello".into()).await.unwrap();
        }
        let (closed, events) = join(theirs.close(), all_events(&mut ours)).await;
        assert_eq!(closed, Ok(()));
        assert_eq!(
            events.last(),
            Some(&PeerEvent::Closed { reason: by_peer() })
        );
        let expected = match sends {
            true => Err(CloseError::Unconfirmed { unwritten: 0 }),
            false => Ok(()),
        };
        assert_eq!(ours.close().await, expected);
    }
}

// ---- not confirmed ------------------------------------------------------------

/// Sends until nothing more is taken.
async fn fill(driver: &Driver<Bytes>) {
    let mut number = 0;
    while timeout(ms(100), driver.sender.send(message(number)))
        .await
        .is_ok()
    {
        number += 1;
        assert!(number < 1_000);
    }
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_never_reads_is_an_error_after_linger_that_names_the_bytes() {
    for spawned in [false, true] {
        let (mut ours, theirs) = pair(16 * 1024);
        let idle = theirs.spawn(); // its messages aren't taken
        let began;
        let error = if spawned {
            let ours = ours.spawn();
            fill(&ours).await;
            began = Instant::now();
            ours.sender.close().await.unwrap_err()
        } else {
            let mut number = 0;
            while timeout(ms(100), ours.send(message(number))).await.is_ok() {
                number += 1;
            }
            began = Instant::now();
            ours.close().await.unwrap_err()
        };
        assert_eq!(began.elapsed(), linger(), "spawned: {spawned}");
        let CloseError::Unconfirmed { unwritten } = error else {
            panic!("{error}")
        };
        assert!((50_000..=300_000).contains(&unwritten), "{unwritten}");
        // Its application is told once it reads.
        let events = all_events(&mut { idle.receiver }).await;
        assert!(
            matches!(events.last(), Some(PeerEvent::Dead(_))),
            "{:?}",
            events.last()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_pipe_takes_everything_and_nobody_confirms_it() {
    let (mut ours, theirs) = pair(1 << 20);
    let _idle = theirs.spawn();
    for number in 0..4 {
        ours.send(message(number)).await.unwrap();
    }
    let began = Instant::now();
    // It is paused behind these, and sees no goodbye.
    let closed = ours.close().await;
    assert_eq!(closed, Err(CloseError::Unconfirmed { unwritten: 0 }));
    assert_eq!(began.elapsed(), linger());
    let events = all_events(&mut ours).await;
    let reason = CloseReason::Unconfirmed;
    assert_eq!(events.last(), Some(&PeerEvent::Closed { reason }));
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_dies_meanwhile_is_dead_in_time() {
    for spawned in [false, true] {
        let (mut ours, theirs) = pair(16 * 1024);
        ours.send(message(0)).now_or_pending().await;
        let _hangs = theirs; // is never polled
        let began = Instant::now();
        let error = match spawned {
            true => ours.spawn().sender.close().await.unwrap_err(),
            false => ours.close().await.unwrap_err(),
        };
        assert!(began.elapsed() <= impatient().detection_time());
        let CloseError::Dead { death, unwritten } = error else {
            panic!("{error}")
        };
        assert_eq!(death.cause, Cause::WriteStalled);
        assert!((80_000..100_100).contains(&unwritten), "{unwritten}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_before_the_confirmation_is_a_death() {
    let (mut ours, mut raw) = wrapped(quick());
    raw.greet(quick()).await;
    let leaving = async {
        ours.send("perhaps".into()).await.unwrap();
        ours.close().await
    };
    let (closed, ()) = join(leaving, async {
        sleep(ms(10)).await;
        drop(raw);
    })
    .await;
    let Err(CloseError::Dead {
        death,
        unwritten: 0,
    }) = closed
    else {
        panic!("{closed:?}")
    };
    assert_eq!(death.cause, Cause::Eof);
}

#[tokio::test(start_paused = true)]
async fn while_we_leave_the_peer_is_answered_and_asked() {
    let (mut ours, mut raw) = wrapped(quick());
    raw.greet(quick()).await;
    let peer = async {
        let mut seen = Vec::new();
        let mut said_goodbye = false;
        while let Some(control) = raw.read_control().await {
            said_goodbye |= control == Control::Goodbye(GoodbyeCode::LEAVING);
            if let Control::Ping(nonce) = control {
                raw.send_control(Control::Pong(nonce)).await;
                if said_goodbye {
                    raw.send_control(Control::Ping(nonce)).await;
                }
            }
            seen.push(control);
            if seen
                .iter()
                .filter(|seen| matches!(seen, Control::Pong(_)))
                .count()
                == 3
            {
                raw.send_control(Control::Goodbye(GoodbyeCode::RECEIVED))
                    .await;
                return seen;
            }
        }
        seen
    };
    let (closed, seen) = join(ours.close(), peer).await;
    assert_eq!(closed, Ok(()));
    let goodbyes = seen
        .iter()
        .filter(|seen| matches!(seen, Control::Goodbye(_)));
    assert_eq!(goodbyes.count(), 1, "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn after_a_goodbye_little_more_is_read() {
    for (bytes, ends_early) in [(60 * 1024, false), (200 * 1024, true)] {
        let (ours, mut raw) = wrapped(quick());
        let driver = ours.spawn();
        raw.greet(quick()).await;
        raw.send_control(Control::Goodbye(GoodbyeCode::LEAVING))
            .await;
        let began = Instant::now();
        let _ = timeout(secs(1), raw.send_raw(&vec![0; bytes])).await;
        let hung = pending::<()>();
        tokio::select! {
            () = hung => {}
            closed = driver.sender.closed() => assert_eq!(closed, Ok(by_peer())),
        }
        let patience = quick().timeout() * quick().max_missed();
        let expected = if ends_early { Duration::ZERO } else { patience };
        assert_eq!(began.elapsed(), expected, "{bytes}");
    }
}

/// Half of them as fast as they can, and half of them a little at a time.
#[tokio::test(start_paused = true)]
async fn two_hundred_that_say_goodbye_and_go_on_sending_are_read_little_more() {
    const ROOM: usize = 64 * 1024;
    let patience = quick().timeout() * quick().max_missed();
    let leaving = (0..200).map(|nth| {
        tokio::spawn(async move {
            let (ours, theirs) = tokio::io::duplex(ROOM);
            let driver = Heartbeat::new(ours, quick()).spawn();
            let mut raw = RawPeer::new(theirs);
            raw.greet(quick()).await;
            raw.send_control(Control::Goodbye(GoodbyeCode::LEAVING))
                .await;
            let began = Instant::now();
            let (chunk, pause) = match nth % 2 {
                0 => (vec![7; 16 * 1024], Duration::ZERO),
                _ => (vec![7; 16], ms(10)),
            };
            let mut taken = 0;
            while raw.stream.write_all(&chunk).await.is_ok() {
                taken += chunk.len();
                if !pause.is_zero() {
                    sleep(pause).await;
                }
            }
            driver.task.await.unwrap();
            assert_eq!(driver.sender.closed().await, Ok(by_peer()));
            (taken, began.elapsed())
        })
    });
    let left = futures::future::join_all(leaving).await;
    for (nth, left) in left.into_iter().enumerate() {
        let (taken, took) = left.unwrap();
        // Behind what is read there is what the stream holds, and a last read.
        assert!(taken <= 64 * 1024 + 2 * ROOM, "{taken} bytes");
        match nth % 2 {
            0 => assert_eq!(took, Duration::ZERO),
            _ => assert!((patience..=patience + ms(10)).contains(&took), "{took:?}"),
        }
    }
}

// ---- no message follows ----------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_message_after_the_last_one_is_refused_and_the_rest_goes_on() {
    // While it leaves, and when it has finished; inline and spawned.
    let (mut ours, mut theirs) = pair(1024);
    let talk = async {
        ours.send("before".into()).await.unwrap();
        ours.finish().await.unwrap();
        let refused = ours.send("after".into()).await;
        assert_eq!(refused, Err(SendError::Finished));
        ours.flush().await.unwrap();
        ours.close().await.unwrap();
        ours.send("too late".into()).await.unwrap_err()
    };
    let (error, events) = join(talk, all_events(&mut theirs)).await;
    assert_eq!(error, SendError::Closed(CloseReason::Local));
    let told: Vec<_> = (events.iter())
        .filter(|event| !matches!(event, PeerEvent::Connected { .. }))
        .collect();
    let expected = [
        &PeerEvent::Message("before".into()),
        &PeerEvent::Finished,
        &PeerEvent::Closed { reason: by_peer() },
    ];
    assert_eq!(told, expected);

    let (ours, theirs) = pair(1024);
    let (ours, _idle) = (ours.spawn(), theirs);
    let closing = ours.sender.clone();
    let closing = tokio::spawn(async move { closing.close().await });
    sleep(ms(1)).await;
    assert_eq!(ours.sender.status().peer.state, State::Closing);
    let refused = ours.sender.send("after".into()).await;
    assert_eq!(refused, Err(SendError::Finished));
    closing.await.unwrap().unwrap_err();
}

/// In the other ways to carry messages, inline and spawned.
#[tokio::test(start_paused = true)]
async fn a_message_after_the_last_one_is_refused_whatever_carries_it() {
    let stream = || scripted().0;
    let text = || Bytes::from("after");
    let codec = || Heartbeat::with_codec(stream(), OwnCodec, quick());
    let frames = || Heartbeat::with_frames(OwnFrames(Framed::new(stream(), OwnCodec)), quick());
    let typed = || Heartbeat::<_, Postcard<String>>::typed(stream(), quick());

    let refused = Err(SendError::Finished);
    let (mut codec_inline, mut frames_inline, mut typed_inline) = (codec(), frames(), typed());
    codec_inline.close().now_or_pending().await;
    assert_eq!(codec_inline.send(text()).await, refused);
    frames_inline.close().now_or_pending().await;
    assert_eq!(frames_inline.send(text()).await, refused);
    typed_inline.close().now_or_pending().await;
    assert_eq!(typed_inline.send("after".into()).await, refused);

    let (codec, frames, typed) = (codec().spawn(), frames().spawn(), typed().spawn());
    codec.sender.close().now_or_pending().await;
    assert_eq!(codec.sender.send(text()).await, refused);
    frames.sender.close().now_or_pending().await;
    assert_eq!(frames.sender.send(text()).await, refused);
    typed.sender.close().now_or_pending().await;
    assert_eq!(typed.sender.send("after".into()).await, refused);
}

#[tokio::test(start_paused = true)]
async fn closing_again_gives_the_same_and_touches_nothing() {
    let (mut ours, mut theirs) = pair(1024);
    let (closed, _) = join(ours.close(), all_events(&mut theirs)).await;
    assert_eq!(closed, Ok(()));
    for _ in 0..3 {
        assert_eq!(ours.close().await, Ok(()));
        assert_eq!(SinkExt::close(&mut ours).await, Ok(()));
    }
    let reason = CloseReason::Local;
    let events = all_events(&mut ours).await;
    assert_eq!(events.last(), Some(&PeerEvent::Closed { reason }));
    assert_eq!(ours.next().await, None);
    assert_eq!(ours.close().await, Ok(()));
}

// ---- one direction ---------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_client_that_has_finished_gets_its_answer() {
    for spawned in [false, true] {
        let (mut ours, theirs) = pair(4 * 1024);
        let server = tokio::spawn(async move {
            let mut theirs = theirs;
            let mut asked = Vec::new();
            while let Some(event) = theirs.next().await {
                match event {
                    PeerEvent::Message(message) => asked.push(message),
                    PeerEvent::Finished => {
                        sleep(secs(10)).await_serving(&mut theirs).await;
                        theirs.send(message(7)).await.unwrap();
                        theirs.finish().await.unwrap();
                    }
                    PeerEvent::Closed { reason } => return (asked, reason),
                    _ => {}
                }
            }
            panic!("no end")
        });
        let events = if spawned {
            let Driver {
                sender,
                mut receiver,
                ..
            } = ours.spawn();
            sender.send("question".into()).await.unwrap();
            sender.finish().await.unwrap();
            all_events(&mut receiver).await
        } else {
            ours.send("question".into()).await.unwrap();
            ours.finish().await.unwrap();
            all_events(&mut ours).await
        };
        let told: Vec<_> = (events.into_iter())
            .filter(|event| !matches!(event, PeerEvent::Connected { .. } | PeerEvent::Beat { .. }))
            .collect();
        let reason = CloseReason::Finished;
        let expected = [
            PeerEvent::Message(message(7)),
            PeerEvent::Finished,
            PeerEvent::Closed { reason },
        ];
        assert_eq!(told, expected, "spawned: {spawned}");
        let asked = vec![Bytes::from("question")];
        assert_eq!(server.await.unwrap(), (asked, CloseReason::Finished));
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_behind_a_fin_breaks_the_protocol() {
    for greets_again in [false, true] {
        let (mut ours, mut raw) = wrapped(quick());
        raw.greet(quick()).await;
        raw.send_control(Control::Fin).await;
        if greets_again {
            raw.greet(quick()).await;
        }
        raw.send_data(b"after all").await;
        let events = all_events(&mut ours).await;
        let Some(PeerEvent::Dead(death)) = events.last() else {
            panic!("{events:?}")
        };
        assert_eq!(
            death.cause.to_string(),
            "protocol violated: a message after the last one"
        );
        assert_eq!(raw.read_control().await.map(drop), Some(())); // our Hello
        let told = raw.read_control().await;
        assert_eq!(told, Some(Control::Goodbye(GoodbyeCode::PROTOCOL)));
    }
}

// ---- nothing is lost without a word ------------------------------------------------

/// What a receiver does.
#[derive(Clone, Copy, Debug)]
struct Reader {
    /// After this many messages it acts.
    after: usize,
    then: Then,
    /// The time that it takes for each.
    each: u64,
}

#[derive(Clone, Copy, Debug)]
enum Then {
    ReadsOn,
    StopsReading,
    Leaves,
    Dies,
    /// At once: what a receiver that is dropped later had kept was taken in.
    HasDroppedItsReceiver,
}

fn reader() -> impl Strategy<Value = Reader> {
    let then = prop_oneof![
        2 => Just(Then::ReadsOn),
        1 => Just(Then::StopsReading),
        1 => Just(Then::Leaves),
        1 => Just(Then::Dies),
        1 => Just(Then::HasDroppedItsReceiver),
    ];
    (0..30_usize, then, 0..100_u64).prop_map(|(after, then, each)| Reader { after, then, each })
}

#[test]
fn close_is_ok_only_if_nothing_was_lost() {
    let case = (
        reader(),
        0..40_usize,
        0..100_000_usize,
        64..70_000_usize,
        any::<bool>(),
    );
    let mut outcomes = [0, 0];
    for_each(
        few_or_all(100, 500),
        case,
        |(reader, messages, size, room, spawned)| {
            let (delivered, accepted, closed) = runtime().block_on(async move {
                let (ours, theirs) = pair(room);
                let reading = tokio::spawn(read(theirs, reader));
                let (accepted, closed) = match spawned {
                    true => send_spawned(ours, messages, size).await,
                    false => send_inline(ours, messages, size).await,
                };
                (reading.await.unwrap(), accepted, closed)
            });
            assert!(delivered <= accepted, "{delivered} of {accepted} arrived");
            match closed {
                Ok(()) => assert_eq!(delivered, accepted),
                Err(CloseError::Dead { unwritten, .. } | CloseError::Unconfirmed { unwritten }) => {
                    // What was never written didn't arrive.
                    let lost = (accepted - delivered) * (size + 16);
                    assert!(
                        unwritten <= lost + 256,
                        "{unwritten} unwritten, {lost} lost"
                    );
                }
                Err(error) => panic!("{error}"),
            }
            outcomes[usize::from(closed.is_ok())] += 1;
        },
    );
    assert!(outcomes.iter().all(|&count| count > 10), "{outcomes:?}");
}

/// How many messages a receiver gets.
async fn read(theirs: Peer, reader: Reader) -> usize {
    let Driver {
        sender,
        mut receiver,
        task,
        ..
    } = theirs.spawn();
    if let Then::HasDroppedItsReceiver = reader.then {
        drop(receiver);
        let _ = sender.closed().await;
        return 0;
    }
    let mut delivered = 0;
    while delivered < reader.after || matches!(reader.then, Then::ReadsOn) {
        match receiver.next().await {
            Some(PeerEvent::Message(_)) => {
                delivered += 1;
                sleep(ms(reader.each)).await;
            }
            Some(_) => {}
            None => return delivered,
        }
    }
    match reader.then {
        Then::ReadsOn | Then::HasDroppedItsReceiver => {}
        Then::StopsReading => sleep(secs(60)).await,
        Then::Leaves => {
            let _ = sender.close().await;
        }
        Then::Dies => {
            task.abort();
            let _ = task.await;
        }
    }
    // What was kept is delivered.
    while let Some(event) = receiver.next().await {
        delivered += usize::from(matches!(event, PeerEvent::Message(_)));
    }
    delivered
}

async fn send_inline(
    mut ours: Peer,
    messages: usize,
    size: usize,
) -> (usize, Result<(), CloseError>) {
    let mut accepted = 0;
    for _ in 0..messages {
        match timeout(secs(5), ours.feed(vec![0; size].into())).await {
            Ok(Ok(())) => accepted += 1,
            _ => break,
        }
    }
    (accepted, ours.close().await)
}

async fn send_spawned(ours: Peer, messages: usize, size: usize) -> (usize, Result<(), CloseError>) {
    let ours = ours.spawn();
    let mut accepted = 0;
    for _ in 0..messages {
        match timeout(secs(5), ours.sender.send(vec![0; size].into())).await {
            Ok(Ok(())) => accepted += 1,
            _ => break,
        }
    }
    (accepted, ours.sender.close().await.map(drop))
}

// ---- at the edges ----------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_finish_that_waits_is_no_reason_to_serve() {
    let (ours, theirs) = pair(1024);
    let ours = ours.spawn();
    ours.sender.send(vec![0; 20_000].into()).await.unwrap();
    // The peer takes nothing yet, and there is room for more messages.
    let finishing = ours.sender.finish();
    assert_eq!(wait_calmly(finishing, ms(100)).await, None);
    let theirs = theirs.spawn();
    let finished = wait_calmly(ours.sender.finish(), ms(100)).await;
    assert_eq!(finished, Some(Ok(())));
    drop(theirs);
}

#[tokio::test(start_paused = true)]
async fn a_side_that_paused_and_took_some_messages_still_hears_the_confirmation() {
    let (mut ours, theirs) = pair(1024);
    let theirs = theirs.spawn();
    let sender = theirs.sender.clone();
    let sending = tokio::spawn(async move {
        for number in 0..6 {
            // The last of them are given up when we leave.
            let _ = sender.send(message(number)).await;
        }
    });
    // Both inboxes are full.
    let mut sent = 0;
    while timeout(ms(500), ours.send(message(0))).await.is_ok() {
        sent += 1;
        assert!(sent < 100);
    }
    assert_eq!(ours.status().peer.state, State::Paused);
    let mut taken = 0;
    while taken < 2 {
        let event = ours.next().await.unwrap();
        taken += usize::from(matches!(event, PeerEvent::Message(_)));
    }
    let mut receiver = theirs.receiver;
    let (closed, events) = join(ours.close(), all_events(&mut receiver)).await;
    assert_eq!(closed, Ok(()));
    assert_eq!(
        events.last(),
        Some(&PeerEvent::Closed { reason: by_peer() })
    );
    sending.await.unwrap();
}

/// The peer waits 1.5 s for our end, once it has confirmed. A reader that takes longer
/// for what the inbox holds mustn't keep us from it.
#[tokio::test(start_paused = true)]
async fn a_slow_reader_of_ours_doesnt_keep_us_from_leaving() {
    for busy in [ms(0), ms(3_000)] {
        let (ours, mut theirs) = pair(4 * 1024 * 1024);
        let ours = ours.spawn();
        let sender = ours.sender.clone();
        let received = take_in(ours, Duration::ZERO, ms(900));
        let peer = tokio::spawn(async move {
            for number in 0..30 {
                let _ = theirs.send(message(number)).await;
            }
            all_events(&mut theirs).await
        });
        sleep(busy).await;
        let began = Instant::now();
        assert_eq!(sender.close().await, Ok(CloseReason::Local));
        assert!(began.elapsed() < ms(1_500), "{:?}", began.elapsed());
        let told = peer.await.unwrap();
        assert_eq!(told.last(), Some(&PeerEvent::Closed { reason: by_peer() }));
        let received = received.await.unwrap();
        // Some were still to be sent when the goodbye came.
        assert!(!received.messages.is_empty());
        let reason = CloseReason::Local;
        assert_eq!(received.end, Some(PeerEvent::Closed { reason }));
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_with_much_to_send_confirms_all_the_same() {
    // What it has queued takes more than N·W on this line.
    let (ours, theirs) = slow_line(1024, 50_000);
    let mut ours = Heartbeat::new(ours, impatient());
    let mut theirs = Heartbeat::new(theirs, impatient());
    ours.send("hello".into()).await.unwrap();
    for _ in 0..3 {
        theirs.feed(vec![0; 60_000].into()).await.unwrap();
    }
    let (closed, events) = join(ours.close(), all_events(&mut theirs)).await;
    assert_eq!(
        events.last(),
        Some(&PeerEvent::Closed { reason: by_peer() })
    );
    assert_eq!(closed, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_confirms_at_the_last_moment_and_stays_is_not_waited_for() {
    for confirms in [true, false] {
        let (mut ours, mut raw) = wrapped(quick());
        raw.greet(quick()).await;
        let began = Instant::now();
        let peer = async {
            raw.answer_for(linger() - ms(100)).await;
            raw.send_control(Control::Goodbye(match confirms {
                true => GoodbyeCode::RECEIVED,
                false => GoodbyeCode::LEAVING,
            }))
            .await;
            raw.answer_for(secs(5)).await;
        };
        let leaving = async {
            let closed = ours.close().await;
            (closed, began.elapsed())
        };
        let ((closed, took), ()) = join(leaving, peer).await;
        // Nothing was sent that could be lost.
        assert_eq!(closed, Ok(()), "confirms: {confirms}");
        assert_eq!(took, linger(), "confirms: {confirms}");
    }
}

/// Linger is for what the peer still reads before it confirms.
#[tokio::test(start_paused = true)]
async fn a_peer_that_confirms_at_once_and_stays_is_waited_for_as_long_as_a_verdict_takes() {
    let config = quick().to_builder().linger(secs(60)).build().unwrap();
    let (mut ours, mut raw) = wrapped(config);
    raw.greet(config).await;
    let began = Instant::now();
    let peer = async {
        while !matches!(raw.read_control().await, Some(Control::Goodbye(_))) {}
        raw.send_control(Control::Goodbye(GoodbyeCode::RECEIVED))
            .await;
        sleep(secs(120)).await;
    };
    let leaving = async {
        let closed = ours.close().await;
        (closed, began.elapsed())
    };
    let ((closed, took), ()) = join(leaving, peer).await;
    assert_eq!((closed, took), (Ok(()), ms(3 * 200)));
}

#[tokio::test(start_paused = true)]
async fn when_both_have_finished_the_peer_has_linger_to_read_the_rest() {
    for (reads_after, reads_in_time) in [(linger() - ms(1), true), (linger() + ms(1), false)] {
        let (mut ours, mut raw) = wrapped(quick());
        raw.greet(quick()).await;
        raw.send_control(Control::Fin).await;
        ours.send("the rest".into()).await.unwrap();
        let began = Instant::now();
        ours.finish().await.unwrap();
        let peer = tokio::spawn(async move {
            sleep(reads_after).await;
            drop(raw);
        });
        let events = all_events(&mut ours).await;
        let reason = CloseReason::Finished;
        assert_eq!(events.last(), Some(&PeerEvent::Closed { reason }));
        assert_eq!(began.elapsed(), reads_after.min(linger()));
        // If not, it was reset.
        assert_eq!(ours.get_ref().is_some(), reads_in_time);
        peer.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_ends_a_suspicion_and_that_nobody_hears_is_not_confirmed() {
    let (theirs, mut raw) = wrapped(quick());
    let theirs = theirs.spawn();
    drop(theirs.receiver);
    raw.greet(quick()).await;
    // Its ping is unanswered: we are suspect.
    sleep(ms(500)).await;
    assert_eq!(theirs.sender.status().peer.state, State::Suspect);
    raw.send_data(b"unheard").await;
    raw.send_control(Control::Goodbye(GoodbyeCode::LEAVING))
        .await;
    let mut answer = None;
    while let Some(control) = raw.read_control().await {
        if let Control::Goodbye(code) = control {
            answer = Some(code);
            break;
        }
    }
    assert_eq!(answer, Some(GoodbyeCode::LEAVING));
}

/// The stream has always more, and never yields by itself. Time is real.
#[test]
fn a_flood_does_not_keep_us_from_leaving() {
    let (told, ends) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (stream, script) = scripted();
            script.record_nothing();
            script.give_bytes(control_frame(Control::Hello(quick().hello([7; 8]))));
            script.give([Read::Endless(data_frame(&[0; 1_000]).into())]);
            let config = impatient().to_builder().linger(ms(200)).build().unwrap();
            let mut ours = Heartbeat::new(stream, config);
            let _ = told.send(ours.close().await);
        });
    });
    let closed = ends.recv_timeout(secs(10));
    assert_eq!(closed, Ok(Err(CloseError::Unconfirmed { unwritten: 0 })));
}

#[tokio::test(start_paused = true)]
async fn of_two_goodbyes_the_first_one_is_told_code_and_detail() {
    let (mut ours, mut raw) = wrapped(quick());
    raw.greet(quick()).await;
    let peer = async {
        for (code, detail) in [(64, "back at noon"), (0, "")] {
            let mut buffer = [0; heartbeat_core::Goodbye::MAX_ENCODED];
            let goodbye = heartbeat_core::Goodbye::new(GoodbyeCode(code), detail);
            let frame = goodbye.encode(&mut buffer).unwrap();
            raw.send_raw(&framed(frame)).await;
        }
        sleep(ms(10)).await;
        drop(raw);
    };
    let (closed, ()) = join(ours.close(), peer).await;
    assert_eq!(closed, Ok(())); // nothing was sent
    let reason = CloseReason::Peer {
        code: GoodbyeCode(64),
        detail: Detail::from("back at noon"),
    };
    let events = all_events(&mut ours).await;
    assert_eq!(events.last(), Some(&PeerEvent::Closed { reason }));
}

/// Not even by a codec, which would have something to say of it.
#[tokio::test(start_paused = true)]
async fn nothing_behind_a_goodbye_is_decoded() {
    for code in [GoodbyeCode::LEAVING, GoodbyeCode::SILENT] {
        let (ours, theirs) = tokio::io::duplex(1024);
        let mut ours = Heartbeat::with_codec(ours, OwnCodec, quick());
        let mut raw = RawPeer::new(theirs);
        let hello = Control::Hello(quick().hello([7; 8]));
        let frames = [hello, Control::Goodbye(code)].map(control_frame).concat();
        raw.send_raw(&[&frames[..], &framed(b"\xee no frame")].concat())
            .await;
        let events = all_events(&mut ours).await;
        let is_told = match events.last() {
            Some(PeerEvent::Closed { reason }) => *reason == by_peer(),
            Some(PeerEvent::Dead(death)) => matches!(death.cause, Cause::GivenUp { .. }),
            _ => false,
        };
        assert!(is_told, "{code:?}: {events:?}");
        assert!(ours.io_error().is_none(), "{:?}", ours.io_error());
    }
}

/// A side that hasn't left.
#[tokio::test(start_paused = true)]
async fn a_confirmation_that_a_side_didnt_ask_for_is_a_goodbye_with_its_words() {
    let (mut ours, mut raw) = wrapped(quick());
    raw.greet(quick()).await;
    let mut buffer = [0; heartbeat_core::Goodbye::MAX_ENCODED];
    let goodbye = heartbeat_core::Goodbye::new(GoodbyeCode::RECEIVED, "so long");
    raw.send_raw(&framed(goodbye.encode(&mut buffer).unwrap()))
        .await;
    drop(raw);
    let events = all_events(&mut ours).await;
    let reason = CloseReason::Peer {
        code: GoodbyeCode::RECEIVED,
        detail: Detail::from("so long"),
    };
    assert_eq!(events.last(), Some(&PeerEvent::Closed { reason }));
}

/// It has half of the time for which the peer waits for our end: 300 ms.
#[tokio::test(start_paused = true)]
async fn a_full_inbox_that_is_emptied_soon_while_we_leave_loses_nothing() {
    let (ours, mut raw) = wrapped(quick());
    let driver = ours.spawn();
    raw.greet(quick()).await;
    raw.send_raw(&data_frame(&[7; 1000]).repeat(400)).await;
    sleep(ms(1)).await;
    let sender = driver.sender.clone();
    assert_eq!(sender.status().peer.state, State::Paused);
    let peer = tokio::spawn(async move {
        while !matches!(raw.read_control().await, Some(Control::Goodbye(_))) {}
        raw.send_control(Control::Goodbye(GoodbyeCode::RECEIVED))
            .await;
    });
    let leaving = tokio::spawn(async move { sender.close().await });
    sleep(ms(250)).await;
    let received = take_in(driver, Duration::ZERO, Duration::ZERO);
    let received = received.await.unwrap();
    assert_eq!(received.messages.len(), 400);
    let reason = CloseReason::Local;
    assert_eq!(received.end, Some(PeerEvent::Closed { reason }));
    assert_eq!(leaving.await.unwrap(), Ok(CloseReason::Local));
    peer.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_a_goodbye_replaces_waiting_messages_and_has_no_words() {
    let (mut ours, script) = greeted(quick()).await;
    for _ in 0..3 {
        ours.feed("never begun".into()).await.unwrap();
    }
    let goodbye = Control::Goodbye(GoodbyeCode::LEAVING);
    script.give([Read::Bytes(control_frame(goodbye).into()), Read::End]);
    let events = all_events(&mut ours).await;
    assert_eq!(
        events.last(),
        Some(&PeerEvent::Closed { reason: by_peer() })
    );
    let sent = script.sent();
    let frames = frames(&sent);
    assert_eq!(messages(&frames), [] as [Bytes; 0]);
    let answer = frames.last().map(|&(begin, _)| &sent[begin + 4..]);
    let answer = heartbeat_core::Goodbye::decode(answer.unwrap()).unwrap();
    assert_eq!(answer.detail, "");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_was_refused_was_not_sent() {
    let (mut ours, mut theirs) = pair(1024);
    let length = impatient().max_frame() + 1;
    let refused = ours.send(vec![0; length].into()).await;
    assert!(
        matches!(refused, Err(SendError::TooLong { .. })),
        "{refused:?}"
    );
    let (closed, _) = join(theirs.close(), all_events(&mut ours)).await;
    assert_eq!(closed, Ok(()));
    assert_eq!(ours.close().await, Ok(()));
}

// ---- helpers ------------------------------------------------------------------------

/// Fails if `waiting` is polled again and again while no time passes.
async fn wait_calmly<F: Future>(waiting: F, time: Duration) -> Option<F::Output> {
    let mut waiting = std::pin::pin!(waiting);
    let mut polls = 0;
    let counted = std::future::poll_fn(|cx| {
        polls += 1;
        assert!(polls < 1_000, "polled again and again");
        waiting.as_mut().poll(cx)
    });
    timeout(time, counted).await.ok()
}

trait FutureExt: Future + Sized {
    /// Polls it for as long as it makes progress, and drops it then.
    async fn now_or_pending(self) {
        let _ = timeout(Duration::ZERO, self).await;
    }

    /// Waits for it, and serves a connection meanwhile.
    async fn await_serving(self, peer: &mut Peer) {
        let mut this = std::pin::pin!(self);
        loop {
            tokio::select! {
                _ = &mut this => return,
                event = peer.next() => assert!(event.is_some_and(|event| !event.is_terminal())),
            }
        }
    }
}

impl<F: Future> FutureExt for F {}
