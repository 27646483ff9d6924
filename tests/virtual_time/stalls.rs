//! A peer that takes nothing, and a machine that is late again and again: the
//! adapter neither spins nor forgets its verdict.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, SinkExt, StreamExt};
use heartbeat_core::{Event, Instant, Monitor};
use heartbeat_tests::quick;
use heartbeat_tokio::{Cause, Heartbeat, PeerEvent, SendError};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::advance,
};

#[tokio::test(start_paused = true)]
async fn a_stream_that_takes_not_even_a_hello_is_dead_in_time() {
    let mut peer = Heartbeat::new(Stuck { writes: 0 }, quick());
    for _ in 0..8 {
        while let Some(event) = peer.next().now_or_never() {
            assert!(
                matches!(event, Some(PeerEvent::Suspect { .. })),
                "{event:?}"
            );
        }
        advance(Duration::from_millis(100)).await;
    }
    let end = std::iter::from_fn(|| peer.next().now_or_never().flatten()).last();
    assert!(
        matches!(&end, Some(PeerEvent::Dead(death)) if death.cause == Cause::WriteStalled),
        "{end:?}"
    );
}

/// As a buffer of a fixed size does once it is full.
#[tokio::test(start_paused = true)]
async fn a_stream_that_takes_zero_bytes_has_failed() {
    let (silent, _theirs) = tokio::io::duplex(1);
    let full = io::Cursor::new(vec![0; 10].into_boxed_slice());
    let mut peer = Heartbeat::new(tokio::io::join(silent, full), quick());
    let end = peer.next().await;
    assert!(
        matches!(&end, Some(PeerEvent::Dead(death)) if death.cause == Cause::Io),
        "{end:?}"
    );
    assert_eq!(peer.io_error().unwrap().kind(), io::ErrorKind::WriteZero);
}

#[tokio::test(start_paused = true)]
async fn a_stuck_send_ends_in_time() {
    let mut peer = Heartbeat::new(Stuck { writes: 0 }, quick());
    let mut send = peer.send("hello".into());
    for _ in 0..8 {
        assert_eq!((&mut send).now_or_never(), None);
        advance(Duration::from_millis(100)).await;
    }
    let sent = send.now_or_never();
    assert!(matches!(sent, Some(Err(SendError::Dead(_)))), "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stuck_send_ends_after_more_stalls_than_are_forgiven() {
    let mut peer = Heartbeat::new(Stuck { writes: 0 }, quick());
    let mut send = peer.send("hello".into());
    for _ in 0..10 {
        if let Some(sent) = (&mut send).now_or_never() {
            assert!(matches!(sent, Err(SendError::Dead(_))), "{sent:?}");
            return;
        }
        // By more than the stall tolerance.
        advance(Duration::from_secs(5)).await;
    }
    panic!("not dead after 50 s");
}

/// An adapter that hands out events before it comes to `handle_timeout` never
/// comes there if each blocked write brings another event.
#[test]
fn one_stall_is_told_once() {
    let mut monitor = Monitor::new(quick(), 1, Instant::ORIGIN);
    for stall in 1..5 {
        let now = Instant::from_micros(stall * 5_000_000);
        let mut told = 0;
        for _ in 0..3 {
            monitor.handle_blocked(now);
            while let Some(event) = monitor.poll_event() {
                told += u32::from(matches!(event, Event::LocalStall { .. }));
            }
        }
        assert!(told <= 1, "stall {stall} was told {told} times");
    }
}

/// A peer that sends nothing and takes nothing.
struct Stuck {
    writes: u32,
}

impl AsyncRead for Stuck {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Stuck {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writes += 1;
        assert!(self.writes < 1000, "it writes again and again in one poll");
        Poll::Pending
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}
