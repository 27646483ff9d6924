//! What a hostile peer can cost, as SECURITY.md says it, where no other file has it.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use futures::{StreamExt, future::poll_immediate};
use heartbeat_core::{Control, Nonce, PART};
use heartbeat_tests::{all_events, framed, ms, quick, secs, varint, wrapped};
use heartbeat_tokio::{Cause, Config, Evidence, Heartbeat, PeerEvent};
use tokio::io::{AsyncRead, ReadBuf, Repeat, join, sink};

// ---- memory -----------------------------------------------------------------

const MIB: u64 = 1 << 20;

/// A read buffer, and what else one poll may need.
const A_BUFFER: u64 = 104 * 1024;

#[test]
fn a_length_that_is_only_named_reserves_little() {
    for max_frame in [MIB, 4096 * MIB - 2] {
        for sent in [1, 1000, 16 * 1024 - 5] {
            let reserved = reserved_for(max_frame, max_frame, sent);
            assert!(
                reserved <= A_BUFFER,
                "{sent} bytes of {max_frame}: {reserved}"
            );
        }
    }
}

#[test]
fn a_frame_that_is_begun_in_earnest_reserves_no_more_than_it_takes() {
    let reserved = reserved_for(64 * MIB, 32 * MIB, 100_000);
    assert!(reserved <= 2 * 100_000 + 64 * 1024 + A_BUFFER, "{reserved}");
}

/// After our goodbye what arrives is read without being looked at.
#[test]
fn a_length_that_is_named_after_our_goodbye_reserves_little() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let (mut heartbeat, mut peer) = wrapped(quick());
    runtime.block_on(async {
        peer.greet(quick()).await;
        let first = heartbeat.next().await;
        assert!(matches!(first, Some(PeerEvent::Connected { .. })));
        let closed = poll_immediate(heartbeat.close()).await;
        assert!(closed.is_none(), "it waits for the peer's end");
        peer.send_raw(&[0xff; 100_000]).await;
    });
    let measured = allocation_counter::measure(|| {
        runtime.block_on(async {
            for _ in 0..10 {
                let _ = poll_immediate(heartbeat.close()).await;
            }
        });
    });
    assert!(measured.bytes_max <= 4 * A_BUFFER, "{measured:?}");
}

/// The most memory that is in use at once while a heartbeat reads the first
/// `sent` bytes of a message of `length` bytes.
fn reserved_for(max_frame: u64, length: u64, sent: usize) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let max_frame = usize::try_from(max_frame).unwrap();
    let config = quick().to_builder().max_frame(max_frame).build().unwrap();
    let length = usize::try_from(length).unwrap();

    let (mut heartbeat, mut peer) = wrapped(config);
    runtime.block_on(async {
        peer.greet(config).await;
        let first = heartbeat.next().await;
        assert!(matches!(first, Some(PeerEvent::Connected { .. })));
        let mut left = sent;
        let mut announced = varint(length);
        while left > 0 {
            let of_part = u32::try_from(1 + announced.len() + PART).unwrap();
            peer.send_raw(&of_part.to_be_bytes()).await;
            peer.send_raw(&[7]).await;
            peer.send_raw(&std::mem::take(&mut announced)).await;
            let some = left.min(PART);
            peer.send_raw(&vec![0; some]).await;
            left -= some;
        }
    });
    let measured = allocation_counter::measure(|| {
        runtime.block_on(async {
            // Until there is nothing left to read.
            for _ in 0..10 {
                let event = poll_immediate(heartbeat.next()).await;
                assert!(event.is_none(), "{event:?}");
            }
        });
    });
    measured.bytes_max
}

// ---- CPU ----------------------------------------------------------------------

// Turns are counted. A clock that goes on would end the connection on a
// machine that has no time for us.
#[tokio::test(start_paused = true)]
async fn a_peer_that_never_stops_sending_leaves_others_their_turn() {
    let hello = Control::Hello(quick().hello([7; 8]));
    for repeated in [hello, Control::Pong(Nonce([7; 8]))] {
        let reads = Arc::new(AtomicUsize::new(0));
        let endless = Endless {
            rest: encoded(hello),
            repeated: encoded(repeated).repeat(100),
            turn: tokio::io::repeat(0),
            reads: reads.clone(),
        };
        let mut heartbeat = Heartbeat::new(join(endless, sink()), quick());
        let first = heartbeat.next().await;
        assert!(matches!(first, Some(PeerEvent::Connected { .. })));

        let others = tokio::spawn(async move {
            for _ in 0..20 {
                let reads = reads.swap(0, Ordering::Relaxed);
                assert!(reads <= 130, "{reads} reads in one turn");
                tokio::task::yield_now().await;
            }
        });
        tokio::select! {
            // The turn of this task is over when the heartbeat has used it up.
            biased;
            result = others => result.unwrap(),
            event = heartbeat.next() => panic!("{event:?}"),
        }
    }
}

/// Always has something to read.
struct Endless {
    rest: Vec<u8>,
    repeated: Vec<u8>,
    /// Counts reads towards the task's turn, as all streams of tokio do.
    turn: Repeat,
    reads: Arc<AtomicUsize>,
}

impl AsyncRead for Endless {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut one = [0];
        ready!(Pin::new(&mut self.turn).poll_read(cx, &mut ReadBuf::new(&mut one)))?;
        let reads = self.reads.fetch_add(1, Ordering::Relaxed);
        assert!(reads < 1000, "it reads on and on");
        if self.rest.is_empty() {
            self.rest = self.repeated.clone();
        }
        let read = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..read]);
        self.rest.drain(..read);
        Poll::Ready(Ok(()))
    }
}

fn encoded(control: Control) -> Vec<u8> {
    let mut buffer = [0; Control::MAX_ENCODED];
    framed(control.encode(&mut buffer).unwrap())
}

// ---- detection time -------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_peer_that_asks_for_slow_pings_is_seen_through() {
    let year = secs(365 * 24 * 3600);
    let slow = |accepted| {
        let slow = quick().to_builder().interval(year).timeout(year);
        slow.min_interval(accepted).build().unwrap()
    };
    let (mut heartbeat, mut peer) = wrapped(quick());
    let (longest, budget) = (4 * quick().detection_time(), ms(600));
    peer.greet(slow(longest - budget)).await;
    match heartbeat.next().await {
        Some(PeerEvent::Connected { peer }) => assert_eq!(peer.min_interval, longest - budget),
        event => panic!("{event:?}"),
    }
    // Its interval instead of ours.
    assert_eq!(heartbeat.detection_time(), longest);

    let (mut heartbeat, mut peer) = wrapped(quick());
    peer.greet(slow(year)).await;
    let events = all_events(&mut heartbeat).await;
    assert!(matches!(&events[..], [PeerEvent::Dead(death)] if death.cause == Cause::Refused));
}

#[tokio::test(start_paused = true)]
async fn timings_that_would_make_us_send_without_end_are_refused() {
    let hasty = Config::detect_within(ms(99)).unwrap();
    let (mut heartbeat, mut peer) = wrapped(quick());
    peer.greet(hasty).await;
    peer.send_data(b"not handed out").await;
    let events = all_events(&mut heartbeat).await;
    assert!(matches!(&events[..], [PeerEvent::Dead(death)] if death.cause == Cause::Refused));

    // Unless ours are as short.
    let (mut heartbeat, mut peer) = wrapped(hasty);
    peer.greet(hasty).await;
    let greeted = heartbeat.next().await;
    assert!(matches!(greeted, Some(PeerEvent::Connected { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_greeting_that_never_ends_is_silence_where_only_frames_count() {
    let config = quick().to_builder().evidence(Evidence::Frame);
    let config = config.build().unwrap();
    let (mut heartbeat, mut peer) = wrapped(config);
    let trickle = tokio::spawn(async move {
        // A Hello of 200 bytes, one at a time.
        let begin = framed(&[1; 200]);
        for byte in begin.chunks(1) {
            peer.send_raw(byte).await;
            tokio::time::sleep(config.interval() / 2).await;
        }
    });
    let began = tokio::time::Instant::now();
    let last = loop {
        match heartbeat.next().await {
            Some(PeerEvent::Dead(death)) => break death,
            Some(_) => {}
            None => panic!("no verdict"),
        }
    };
    assert_eq!(last.cause, Cause::Silent);
    assert_eq!(began.elapsed(), config.detection_time());
    trickle.abort();
}
