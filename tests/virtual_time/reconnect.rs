//! `Reconnect`: how long it waits, what makes it start anew, and that dropped
//! futures lose nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use heartbeat_tests::{all_events, ms, quick, secs};
use heartbeat_tokio::{Backoff, CloseReason, Detail, GoodbyeCode, Heartbeat, PeerEvent, Reconnect};
use tokio::time::{Instant, interval, sleep, timeout};

const GUIDE: &str = include_str!("../../docs/guide/reconnect.md");

fn backoff() -> Backoff {
    Backoff::default()
        .min_delay(ms(100))
        .max_delay(secs(2))
        .loss_spread(ms(1000))
        .reset_after(secs(10))
}

// ---- how long it waits --------------------------------------------------------

/// The waits before this many attempts, which all fail.
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
async fn the_first_attempt_is_at_once_and_the_width_of_the_next_doubles() {
    let mut longest = [Duration::ZERO; 8];
    let mut shortest = [Duration::MAX; 8];
    for _ in 0..500 {
        for (index, wait) in waits(8).await.into_iter().enumerate() {
            longest[index] = longest[index].max(wait);
            shortest[index] = shortest[index].min(wait);
        }
    }
    assert_eq!(longest[0], Duration::ZERO);
    for (index, ceiling) in [200, 400, 800, 1600, 2000, 2000, 2000]
        .into_iter()
        .enumerate()
    {
        let (low, high) = (shortest[index + 1], longest[index + 1]);
        // The runtime's timer rounds up to the next millisecond.
        let width = ceiling - 100;
        assert!(high <= ms(ceiling + 1), "{index}: {high:?}");
        assert!(high >= ms(100 + width * 9 / 10), "{index}: {high:?}");
        assert!(low >= ms(100), "{index}: {low:?}");
        assert!(low <= ms(101 + width / 10), "{index}: {low:?}");
    }
}

/// The shortest and the longest wait for another connection, after one that was in use for
/// this time. Its end is noted if it is given.
async fn waits_after(in_use: Duration, end: Option<PeerEvent<()>>) -> [Duration; 2] {
    let mut range = [Duration::MAX, Duration::ZERO];
    for _ in 0..500 {
        let mut reconnect = Reconnect::new(backoff(), async || Ok::<_, ()>(()));
        reconnect.connect().await;
        sleep(in_use).await;
        if let Some(end) = &end {
            reconnect.note(end);
        }
        let before = Instant::now();
        reconnect.connect().await;
        let wait = before.elapsed();
        range = [range[0].min(wait), range[1].max(wait)];
    }
    range
}

/// All clients of a server lose it at the same moment.
#[tokio::test(start_paused = true)]
async fn the_first_wait_after_a_loss_has_a_width_of_its_own() {
    let [low, high] = waits_after(secs(10), None).await;
    assert!(low <= ms(100), "{low:?}");
    assert!((ms(900)..=ms(1001)).contains(&high), "{high:?}");
    // One that didn't last is a failure besides.
    let [low, high] = waits_after(ms(9999), None).await;
    assert!((ms(100)..=ms(200)).contains(&low), "{low:?}");
    assert!((ms(900)..=ms(1001)).contains(&high), "{high:?}");
}

#[tokio::test(start_paused = true)]
async fn no_wait_is_longer_than_the_longest() {
    let week = secs(7 * 24 * 60 * 60);
    let long = Backoff::default().min_delay(week).loss_spread(week);
    for limited in [
        long.max_delay(ms(300)),
        long.max_delay(ms(300)).reset_after(secs(0)),
    ] {
        let fails = Cell::new(true);
        let mut reconnect = Reconnect::new(limited, async || match fails.replace(false) {
            true => Err(()),
            false => Ok(()),
        });
        for _ in 0..50 {
            fails.set(true);
            let before = Instant::now();
            reconnect.connect().await;
            assert!(before.elapsed() <= ms(602), "{:?}", before.elapsed());
        }
    }
    // Nothing overflows either.
    let endless = Backoff::default().min_delay(Duration::MAX);
    let mut reconnect = Reconnect::new(endless.max_delay(Duration::MAX), async || Err::<(), _>(()));
    reconnect.attempt().await.unwrap_err();
    let next = timeout(secs(364 * 24 * 60 * 60), reconnect.attempt()).await;
    assert!(next.is_err(), "after 364 days");
}

#[tokio::test(start_paused = true)]
async fn zero_waits_for_nothing() {
    let now = Backoff::default()
        .min_delay(Duration::ZERO)
        .loss_spread(Duration::ZERO);
    let mut fails = 0;
    let mut reconnect = Reconnect::owning(now, async || {
        fails += 1;
        if fails % 5 == 0 { Ok(()) } else { Err(()) }
    });
    let before = Instant::now();
    for _ in 0..5 {
        reconnect.connect().await;
    }
    assert_eq!(before.elapsed(), Duration::ZERO);
}

// ---- what is a failure ----------------------------------------------------------

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
    assert_eq!(reconnect.failures(), 6);
}

#[tokio::test(start_paused = true)]
async fn connect_while_ends_with_the_error_that_is_final() {
    let mut attempts = 0;
    let mut reconnect = Reconnect::owning(backoff(), async || {
        attempts += 1;
        match attempts {
            4 => Err("login refused"),
            1..6 => Err("connection refused"),
            _ => Ok(attempts),
        }
    });
    let retry = |error: &&str| *error != "login refused";
    assert_eq!(reconnect.connect_while(retry).await, Err("login refused"));
    assert_eq!(reconnect.failures(), 4);
    // A caller that tries all the same waits as long as is due.
    let before = Instant::now();
    assert_eq!(reconnect.connect_while(retry).await, Ok(6));
    assert!(before.elapsed() >= ms(200));
}

#[tokio::test(start_paused = true)]
async fn only_a_connection_that_lasted_ends_the_failures() {
    let mut reconnect = Reconnect::new(backoff(), async || Ok::<_, ()>(()));
    reconnect.connect().await;
    // A server that accepts and closes at once.
    for accepted in 1..10 {
        reconnect.connect().await;
        assert_eq!(reconnect.failures(), accepted);
    }
    sleep(secs(10)).await;
    reconnect.connect().await;
    assert_eq!(reconnect.failures(), 0);
}

fn closed(code: GoodbyeCode) -> PeerEvent<()> {
    let detail = Detail::default();
    let reason = CloseReason::Peer { code, detail };
    PeerEvent::Closed { reason }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_restarts_is_no_failure() {
    let restarting = closed(GoodbyeCode::RESTARTING);
    let [low, high] = waits_after(ms(500), Some(restarting)).await;
    assert!(low <= ms(100), "{low:?}");
    assert!((ms(900)..=ms(1001)).contains(&high), "{high:?}");

    for (code, failures) in [
        (GoodbyeCode::RESTARTING, 0),
        (GoodbyeCode::LEAVING, 1),
        (GoodbyeCode(64), 1),
    ] {
        let mut reconnect = Reconnect::new(backoff(), async || Ok::<_, ()>(()));
        reconnect.connect().await;
        reconnect.note(&closed(code));
        assert_eq!(reconnect.failures(), failures, "{code:?}");
    }
}

/// Work after the end isn't time in use, and the wait runs meanwhile.
#[tokio::test(start_paused = true)]
async fn the_wait_runs_from_the_end_that_was_noted() {
    let mut reconnect = Reconnect::new(backoff(), async || Ok::<_, ()>(()));
    reconnect.connect().await;
    sleep(secs(5)).await;
    // Only a terminal event ends it, and only once.
    reconnect.note(&PeerEvent::Message(()));
    assert_eq!(reconnect.failures(), 0);
    reconnect.note(&closed(GoodbyeCode::LEAVING));
    reconnect.note(&closed(GoodbyeCode::LEAVING));
    assert_eq!(reconnect.failures(), 1);
    sleep(secs(8)).await;
    let before = Instant::now();
    reconnect.connect().await;
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert_eq!(reconnect.failures(), 1);
}

/// Over a stream, with a server that says so.
#[tokio::test(start_paused = true)]
async fn a_server_that_restarts_gets_its_client_back_at_once() {
    let (accept, mut accepted) = tokio::sync::mpsc::unbounded_channel();
    let mut server = Reconnect::new(Backoff::default(), async || {
        let (ours, theirs) = tokio::io::duplex(1024);
        accept.send(theirs).unwrap();
        Ok::<_, ()>(Heartbeat::new(ours, quick()))
    });
    let restarting = tokio::spawn(async move {
        let mut peer = Heartbeat::new(accepted.recv().await.unwrap(), quick());
        let closing = peer.close_with(GoodbyeCode::RESTARTING, "back soon".into());
        closing.await.unwrap();
        accepted
    });
    let mut client = server.connect().await;
    let events = all_events(&mut client).await;
    for event in &events {
        server.note(event);
    }
    assert_eq!(server.failures(), 0, "{events:?}");
    let mut accepted = restarting.await.unwrap();
    let _again = server.connect().await;
    assert!(accepted.recv().await.is_some());
}

// ---- dropped futures --------------------------------------------------------------

/// An attempt takes longer than another branch of the loop ever leaves it.
#[tokio::test(start_paused = true)]
async fn a_client_within_select_connects() {
    let begun = Cell::new(0);
    let mut server = Reconnect::new(backoff(), async || {
        begun.set(begun.get() + 1);
        sleep(ms(300)).await;
        if begun.get() < 4 { Err(()) } else { Ok(()) }
    });
    let mut tick = interval(ms(10));
    let connecting = async {
        loop {
            tokio::select! {
                () = server.connect() => break,
                _ = tick.tick() => {}
            }
        }
    };
    // Three waits and four attempts.
    timeout(secs(4), connecting).await.unwrap();
    assert_eq!(begun.get(), 4);
}

/// At every await, the ones within an attempt too.
#[tokio::test(start_paused = true)]
async fn futures_that_are_dropped_after_one_poll_lose_nothing() {
    let begun = Cell::new(0);
    let mut server = Reconnect::new(backoff(), async || {
        begun.set(begun.get() + 1);
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        if begun.get() < 10 { Err(()) } else { Ok(()) }
    });
    let mut polls = 0;
    while server.connect().now_or_never().is_none() {
        polls += 1;
        assert!(polls < 10_000, "after {} attempts", begun.get());
        sleep(ms(10)).await;
    }
    assert_eq!(begun.get(), 10);
    assert_eq!(server.failures(), 9);
}

/// The connection isn't made twice, and what made it isn't lost.
#[tokio::test(start_paused = true)]
async fn an_attempt_under_way_is_kept() {
    let dropped = Rc::new(Cell::new(false));
    struct Tells(Rc<Cell<bool>>);
    impl Drop for Tells {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    let mut server = Reconnect::new(backoff(), async || {
        let connecting = Tells(dropped.clone());
        sleep(secs(3)).await;
        Ok::<_, ()>(connecting)
    });
    assert!(timeout(secs(1), server.connect()).await.is_err());
    assert!(!dropped.get());
    let before = Instant::now();
    let _connection = server.connect().await;
    assert_eq!(before.elapsed(), secs(2));
    assert!(!dropped.get());
    // Until it is itself.
    assert!(timeout(secs(2), server.connect()).await.is_err());
    drop(server);
}

/// Also in another task than the one that has begun.
#[tokio::test(start_paused = true)]
async fn an_async_closure_owns_what_it_borrows_from() {
    let name = String::from("server");
    let mut calls = 0;
    let mut server = Reconnect::owning(backoff(), async move || {
        calls += 1;
        sleep(ms(10)).await;
        match calls {
            1..3 => Err(format!("no {name}")),
            _ => Ok(format!("{name} {calls}")),
        }
    });
    assert!(timeout(ms(5), server.connect()).await.is_err());
    let task = tokio::spawn(async move { server.connect().await });
    assert_eq!(task.await.unwrap(), "server 3");
}

/// It compiles: the task is `Send`.
#[tokio::test(start_paused = true)]
async fn a_closure_in_a_task_may_borrow_from_the_task() {
    async fn client(name: &str) -> String {
        let suffix = String::from("!");
        let mut server = Reconnect::new(backoff(), async || {
            sleep(ms(10)).await;
            Ok::<_, ()>(format!("{name}{suffix}"))
        });
        server.connect().await
    }
    let task = tokio::spawn(async { client("server").await });
    assert_eq!(task.await.unwrap(), "server!");
}

// ---- many clients -----------------------------------------------------------------

/// When the attempts came, of 10,000 clients that lost their server at 0 s and
/// that it accepts again from `down_for` on.
async fn attempts(backoff: Backoff, down_for: Duration) -> Vec<Duration> {
    let lasted = secs(60);
    let (begin, attempts) = (Instant::now(), RefCell::new(Vec::new()));
    let clients: FuturesUnordered<_> = (0..10_000)
        .map(async |_| {
            let mut server = Reconnect::new(backoff, async || {
                let now = begin.elapsed();
                if now > Duration::ZERO {
                    attempts.borrow_mut().push(now - lasted);
                }
                let is_down = (lasted..lasted + down_for).contains(&now);
                if is_down { Err(()) } else { Ok(()) }
            });
            server.connect().await;
            sleep(lasted).await;
            server.connect().await;
        })
        .collect();
    clients.collect::<()>().await;
    attempts.into_inner()
}

/// How many came in each such time.
fn counted(attempts: &[Duration], each: Duration) -> Vec<usize> {
    let slot = |at: &Duration| usize::try_from(at.as_nanos() / each.as_nanos()).unwrap();
    let mut counts = vec![0; attempts.iter().map(slot).max().unwrap() + 1];
    for at in attempts {
        counts[slot(at)] += 1;
    }
    counts
}

fn histogram(attempts: &[Duration]) -> String {
    let each = ms(500);
    let lines = counted(attempts, each).into_iter().enumerate();
    let line = |(slot, count)| {
        let from = each.as_secs_f64() * slot as f64;
        let bar = "#".repeat(count / 40);
        format!("{from:>4.1} s {count:>6} {bar}")
            .trim_end()
            .to_owned()
            + "\n"
    };
    lines.map(line).collect()
}

/// What `docs/guide/reconnect.md` shows:
///
/// ```sh
/// cargo test --workspace --test virtual_time -- reconnect::ten_thousand --nocapture
/// ```
#[tokio::test(start_paused = true)]
async fn ten_thousand_clients_of_a_dead_server_come_back_over_seconds() {
    let back_at_once = attempts(Backoff::default(), Duration::ZERO).await;
    println!(
        "The server is back at once:\n\n{}",
        histogram(&back_at_once)
    );
    assert_eq!(back_at_once.len(), 10_000);
    // Evenly over 5 s: 200 each 100 ms, give or take five standard deviations.
    let counts = counted(&back_at_once, ms(100));
    assert!((50..=51).contains(&counts.len()), "{counts:?}");
    assert!(counts.iter().all(|&count| count <= 270), "{counts:?}");
    assert!(counts[..50].iter().all(|&count| count >= 130), "{counts:?}");

    let down = attempts(Backoff::default(), secs(10)).await;
    println!("It is down for 10 s:\n\n{}", histogram(&down));
    let counts = counted(&down, ms(100));
    // No attempt waits for others, so that none of them comes with many.
    assert!(counts.iter().all(|&count| count <= 1500), "{counts:?}");
    assert!(counts.len() > 150, "{counts:?}");
}

/// The figures differ from run to run; what the page says of them doesn't.
#[test]
fn the_histogram_in_the_guide_is_one_of_these() {
    let shown: Vec<(f64, f64)> = GUIDE
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let from = words.next()?.parse().ok()?;
            (words.next()? == "s").then_some(())?;
            let count: f64 = words.next()?.parse().ok()?;
            let bar = words.next().unwrap_or_default();
            assert_eq!(bar.len(), (count / 40.0) as usize, "{line}");
            Some((from, count))
        })
        .collect();
    assert_eq!(shown.len(), 10, "{shown:?}");
    for (slot, (from, count)) in shown.into_iter().enumerate() {
        assert_eq!(from, slot as f64 / 2.0);
        assert!((850.0..=1150.0).contains(&count), "{count}");
    }
    let command = "cargo test --workspace --test virtual_time -- reconnect::ten_thousand";
    assert!(GUIDE.contains(command));
}

// ---- configuration ------------------------------------------------------------------

#[test]
fn a_backoff_in_a_file_is_what_it_is_in_code() {
    let file = "min_delay = '250ms'\nmax_delay = '1m 30s'\nloss_spread = '10s'\nreset_after = '5m'";
    let by_hand = Backoff::default()
        .min_delay(ms(250))
        .max_delay(secs(90))
        .loss_spread(secs(10))
        .reset_after(secs(300));
    let read: Backoff = toml::from_str(file).unwrap();
    assert_eq!(read, by_hand);
    let written = toml::to_string(&by_hand).unwrap();
    assert_eq!(toml::from_str::<Backoff>(&written).unwrap(), by_hand);
    assert_eq!(toml::from_str::<Backoff>("").unwrap(), Backoff::default());
}

#[test]
fn a_mistake_in_a_backoff_is_told_at_its_line() {
    let told = |file| toml::from_str::<Backoff>(file).unwrap_err().to_string();
    let unknown = told("max_delay = '1s'\nmax = '5s'");
    assert!(unknown.contains("line 2"), "{unknown}");
    let keys = "expected one of `min_delay`, `max_delay`, `loss_spread`, `reset_after`";
    assert!(unknown.contains(keys), "{unknown}");
    for wrong in ["min_delay = 5", "min_delay = 'soon'", "min_delay = '-1s'"] {
        let told = told(wrong);
        assert!(told.contains("line 1") && told.contains(wrong), "{told}");
    }
}
