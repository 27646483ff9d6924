//! `Reconnect`: how long it waits, and what makes it start anew.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use heartbeat_tests::{ms, secs};
use heartbeat_tokio::{Backoff, Reconnect};
use tokio::time::{Instant, sleep, timeout};

fn backoff() -> Backoff {
    Backoff::default()
        .first(ms(100))
        .max(secs(2))
        .lasting(secs(10))
}

/// The waits before so many attempts of which each fails.
async fn waits(attempts: usize) -> Vec<Duration> {
    let called = RefCell::new(Vec::new());
    let mut reconnect = Reconnect::new(backoff(), || {
        called.borrow_mut().push(Instant::now());
        async { Err::<(), _>(()) }
    });
    let mut waits = Vec::new();
    for _ in 0..attempts {
        let before = Instant::now();
        assert!(reconnect.attempt().await.is_err());
        let called = called.borrow();
        waits.push(*called.last().unwrap() - before);
    }
    waits
}

#[tokio::test(start_paused = true)]
async fn the_first_attempt_is_at_once_and_the_next_waits_at_most_twice_as_long_each() {
    let mut longest = [Duration::ZERO; 8];
    let mut shortest = [Duration::MAX; 8];
    for _ in 0..500 {
        for (index, wait) in waits(8).await.into_iter().enumerate() {
            longest[index] = longest[index].max(wait);
            shortest[index] = shortest[index].min(wait);
        }
    }
    assert_eq!(longest[0], Duration::ZERO);
    for (index, ceiling) in [100, 200, 400, 800, 1600, 2000, 2000]
        .into_iter()
        .enumerate()
    {
        let (low, high) = (shortest[index + 1], longest[index + 1]);
        // The runtime's timer rounds up to the next millisecond.
        assert!(high <= ms(ceiling + 1), "{index}: {high:?}");
        // Full jitter: anything from nothing to all of it.
        assert!(high >= ms(ceiling) * 9 / 10, "{index}: {high:?}");
        assert!(low <= ms(ceiling) / 10 + ms(1), "{index}: {low:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn connect_goes_on_until_it_succeeds() {
    let attempts = Cell::new(0);
    let mut reconnect = Reconnect::new(backoff(), || {
        attempts.set(attempts.get() + 1);
        let attempt = attempts.get();
        async move {
            if attempt < 7 {
                Err("refused")
            } else {
                Ok(attempt)
            }
        }
    });
    assert_eq!(reconnect.connect().await, 7);
    assert_eq!(reconnect.failures(), 7);
}

#[tokio::test(start_paused = true)]
async fn only_a_connection_that_lasted_starts_it_anew() {
    let mut reconnect = Reconnect::new(backoff(), || async { Ok::<_, ()>(()) });
    // A server that accepts and closes at once.
    for accepted in 1..10 {
        reconnect.connect().await;
        assert_eq!(reconnect.failures(), accepted);
    }
    sleep(secs(10)).await;
    let before = Instant::now();
    reconnect.connect().await;
    assert_eq!(reconnect.failures(), 1);
    assert!(before.elapsed() <= ms(101));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_given_up_counts_as_failed() {
    let hang = Cell::new(true);
    let mut reconnect = Reconnect::new(backoff(), || {
        let hangs = hang.get();
        async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            Ok::<_, ()>(())
        }
    });
    assert!(timeout(secs(5), reconnect.connect()).await.is_err());
    assert_eq!(reconnect.failures(), 1);
    hang.set(false);
    reconnect.connect().await;
    assert_eq!(reconnect.failures(), 2);
}
