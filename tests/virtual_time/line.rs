//! The testkit's line: what each fault is at both ends, to the millisecond.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may panic too"
)]

use std::{io, time::Duration};

use futures::{FutureExt, SinkExt, StreamExt};
use heartbeat_tests::{for_each, ms, quick, scripted::filler, secs};
use heartbeat_tokio::{
    Cause, GoodbyeCode, Heartbeat, PeerEvent,
    testkit::{Line, LineEnd, Side},
};
use proptest::collection::vec;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};

/// What can be read at once.
fn readable(end: &mut LineEnd) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let mut some = [0; 1024];
        match end.read(&mut some).now_or_never() {
            None | Some(Ok(0)) => return all,
            Some(read) => all.extend_from_slice(some.get(..read.unwrap()).unwrap()),
        }
    }
}

async fn read(end: &mut LineEnd) -> Result<Vec<u8>, io::ErrorKind> {
    let mut some = vec![0; 1024];
    // In virtual time a read that isn't woken would never end.
    let read = timeout(secs(3600), end.read(&mut some)).await.unwrap();
    some.truncate(read.map_err(|error| error.kind())?);
    Ok(some)
}

async fn write(end: &mut LineEnd, bytes: &[u8]) -> Result<(), io::ErrorKind> {
    let written = timeout(secs(3600), end.write_all(bytes)).await.unwrap();
    written.map_err(|error| error.kind())
}

async fn waits(future: impl Future<Output: std::fmt::Debug>) {
    let done = timeout(secs(1000), future).await;
    assert!(done.is_err(), "{done:?}");
}

// ---- bytes --------------------------------------------------------------------

/// Whatever the line is like.
#[test]
fn every_byte_arrives_once_and_in_order() {
    let writes = vec((1_usize..300, 0_u64..30), 1..30);
    let line = (1_usize..500, 0_u64..100, 0_u32..20_000);
    for_each(200, (writes, line), |(writes, (room, delay, rate))| {
        let runtime = heartbeat_tests::scripted::runtime();
        runtime.block_on(async {
            let (mut left, mut right, line) = Line::with_room(room);
            line.delay(Side::Left, ms(delay));
            line.limit_rate(Side::Left, rate);
            let mut sent = Vec::new();
            let writing = async {
                for (nth, (length, pause)) in writes.into_iter().enumerate() {
                    let bytes = filler(nth, length);
                    left.write_all(&bytes).await.unwrap();
                    assert!(line.under_way(Side::Left) <= room);
                    sent.extend_from_slice(&bytes);
                    sleep(ms(pause)).await;
                    // Nothing overtakes what was sent before.
                    line.delay(Side::Left, ms(delay + pause) / 2);
                }
                left.shutdown().await.unwrap();
            };
            let mut received = Vec::new();
            let reading = right.read_to_end(&mut received);
            let both = timeout(secs(86_400), async { tokio::join!(writing, reading) });
            let (_, read) = both.await.unwrap();
            read.unwrap();
            assert_eq!(received, sent);
            assert_eq!(line.under_way(Side::Left), 0);
        });
    });
}

#[tokio::test(start_paused = true)]
async fn a_write_waits_until_there_is_room() {
    let (mut left, mut right, line) = Line::with_room(10);
    let mut writing = Box::pin(left.write_all(&[7; 15]));
    assert!(writing.as_mut().now_or_never().is_none());
    assert_eq!(line.under_way(Side::Left), 10);
    assert_eq!(readable(&mut right).len(), 10);
    timeout(ms(1), writing).await.unwrap().unwrap();
    assert_eq!(readable(&mut right).len(), 5);
}

#[tokio::test(start_paused = true)]
async fn bytes_arrive_after_the_delay_of_their_direction() {
    let (mut left, mut right, line) = Line::pair();
    line.delay(Side::Left, ms(70));
    write(&mut left, b"slow").await.unwrap();
    write(&mut right, b"fast").await.unwrap();
    assert_eq!(readable(&mut left), b"fast");
    sleep(ms(69)).await;
    assert_eq!(readable(&mut right), b"");
    // What comes later doesn't wait less, or more.
    line.delay(Side::Left, Duration::ZERO);
    write(&mut left, b"er").await.unwrap();
    let before = Instant::now();
    assert_eq!(read(&mut right).await.unwrap(), b"slower");
    assert_eq!(before.elapsed(), ms(1));
    write(&mut left, b"!").await.unwrap();
    assert_eq!(readable(&mut right), b"!");
    // The end is delayed as bytes are.
    line.delay(Side::Left, ms(70));
    drop(left);
    let before = Instant::now();
    assert_eq!(read(&mut right).await.unwrap(), b"");
    assert_eq!(before.elapsed(), ms(70));
}

#[tokio::test(start_paused = true)]
async fn bytes_arrive_at_the_rate_one_after_the_other() {
    let (mut left, mut right, line) = Line::with_room(1 << 20);
    line.limit_rate(Side::Left, 10_000);
    write(&mut left, &[1; 50_000]).await.unwrap();
    for second in 1..=5 {
        sleep(secs(1)).await;
        assert_eq!(readable(&mut right).len(), 10_000, "second {second}");
    }
    // An idle line saves nothing up.
    sleep(secs(60)).await;
    write(&mut left, &[1; 10_000]).await.unwrap();
    sleep(ms(500)).await;
    assert_eq!(readable(&mut right).len(), 5_000);
    line.limit_rate(Side::Left, 0);
    sleep(ms(500)).await;
    write(&mut left, &[1; 10_000]).await.unwrap();
    assert_eq!(readable(&mut right).len(), 15_000);
}

// ---- freezing and cutting ---------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_frozen_side_does_nothing_and_its_kernel_goes_on() {
    let (mut left, mut right, line) = Line::with_room(10);
    write(&mut right, b"before").await.unwrap();
    line.freeze(Side::Right);
    assert_eq!(readable(&mut left), b"before");
    write(&mut left, b"0123456789").await.unwrap();
    waits(write(&mut left, b"no room")).await;
    waits(read(&mut right)).await;
    waits(write(&mut right, b"frozen")).await;
    waits(right.shutdown()).await;

    // A waiting task is woken.
    let (reading, writing) = (read(&mut right), read(&mut left));
    let thawing = async {
        sleep(secs(5)).await;
        line.thaw(Side::Right);
    };
    tokio::pin!(writing);
    let (read, ()) = tokio::join!(timeout(secs(6), reading), thawing);
    assert_eq!(read.unwrap().unwrap(), b"0123456789");
    assert!(writing.as_mut().now_or_never().is_none());
    write(&mut right, b"thawed").await.unwrap();
    assert_eq!(writing.await.unwrap(), b"thawed");
}

#[tokio::test(start_paused = true)]
async fn nobody_learns_what_a_frozen_side_drops() {
    let (mut left, right, line) = Line::pair();
    line.freeze(Side::Right);
    drop(right);
    waits(read(&mut left)).await;
    write(&mut left, b"still there?").await.unwrap();
    line.thaw(Side::Right);
    // It had that unread.
    assert_eq!(read(&mut left).await, Err(io::ErrorKind::ConnectionReset));
}

#[tokio::test(start_paused = true)]
async fn a_cut_holds_back_one_direction_until_it_is_mended() {
    let (mut left, mut right, line) = Line::pair();
    write(&mut left, b"a").await.unwrap();
    line.delay(Side::Left, ms(10));
    write(&mut left, b"b").await.unwrap();
    line.cut(Side::Left);
    write(&mut left, b"c").await.unwrap();
    write(&mut right, b"d").await.unwrap();
    assert_eq!(readable(&mut left), b"d");
    sleep(secs(100)).await;
    // What had arrived had arrived. A second cut changes nothing.
    line.cut(Side::BOTH);
    assert_eq!(readable(&mut right), b"a");
    left.shutdown().await.unwrap();
    waits(read(&mut right)).await;
    let reading = async {
        let bytes = read(&mut right).await;
        (bytes, read(&mut right).await)
    };
    let mending = async {
        sleep(secs(1)).await;
        line.mend(Side::Left);
    };
    let (read, ()) = tokio::join!(timeout(secs(2), reading), mending);
    assert_eq!(read.unwrap(), (Ok(b"bc".into()), Ok(vec![])));
    // The other direction is still cut.
    write(&mut right, b"e").await.unwrap();
    assert_eq!(readable(&mut left), b"");
    line.mend(Side::Right);
    assert_eq!(readable(&mut left), b"e");
}

/// Nothing needs to take time for that: neither the line nor the test.
#[tokio::test(start_paused = true)]
async fn a_cut_holds_back_what_is_sent_at_the_same_instant() {
    let (mut left, mut right, line) = Line::pair();
    write(&mut left, b"before").await.unwrap();
    line.cut(Side::Left);
    write(&mut left, b"behind").await.unwrap();
    assert_eq!(readable(&mut right), b"before");
    waits(read(&mut right)).await;
    line.mend(Side::Left);
    assert_eq!(readable(&mut right), b"behind");

    // An end, too.
    line.cut(Side::Left);
    drop(left);
    waits(read(&mut right)).await;
    line.mend(Side::Left);
    assert_eq!(read(&mut right).await.unwrap(), b"");

    // At a limited rate, and mended at the same instant.
    let (mut left, mut right, line) = Line::pair();
    line.limit_rate(Side::Left, 1000);
    line.cut(Side::Left);
    write(&mut left, b"slow").await.unwrap();
    line.mend(Side::Left);
    let before = Instant::now();
    while line.under_way(Side::Left) > 0 {
        read(&mut right).await.unwrap();
    }
    assert_eq!(before.elapsed(), ms(5));
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_a_year_at_most() {
    let (mut left, mut right, line) = Line::pair();
    line.delay(Side::Left, Duration::MAX);
    write(&mut left, b"slow").await.unwrap();
    let before = Instant::now();
    let mut some = [0; 4];
    right.read_exact(&mut some).await.unwrap();
    assert_eq!(before.elapsed(), secs(365 * 24 * 3600));
}

// ---- ends ---------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_half_closed_line_still_carries_the_other_direction() {
    let (mut left, mut right, line) = Line::pair();
    write(&mut left, b"last").await.unwrap();
    line.half_close(Side::Left);
    assert_eq!(
        write(&mut left, b"more").await,
        Err(io::ErrorKind::BrokenPipe)
    );
    assert_eq!(read(&mut right).await.unwrap(), b"last");
    assert_eq!(read(&mut right).await.unwrap(), b"");
    write(&mut right, b"answer").await.unwrap();
    assert_eq!(read(&mut left).await.unwrap(), b"answer");
}

#[tokio::test(start_paused = true)]
async fn a_reset_is_told_to_both_once_after_what_has_arrived() {
    let (mut left, mut right, line) = Line::pair();
    write(&mut left, b"arrived").await.unwrap();
    line.delay(Side::Left, ms(10));
    write(&mut left, b"lost").await.unwrap();
    line.reset();
    sleep(ms(20)).await;
    assert_eq!(read(&mut right).await.unwrap(), b"arrived");
    for end in [&mut left, &mut right] {
        assert_eq!(read(end).await, Err(io::ErrorKind::ConnectionReset));
        assert_eq!(read(end).await, Ok(vec![]));
        assert_eq!(write(end, b"x").await, Err(io::ErrorKind::BrokenPipe));
    }
    let (mut left, _right, line) = Line::pair();
    line.reset();
    assert_eq!(
        write(&mut left, b"x").await,
        Err(io::ErrorKind::ConnectionReset)
    );
    assert_eq!(write(&mut left, b"x").await, Err(io::ErrorKind::BrokenPipe));
}

#[tokio::test(start_paused = true)]
async fn a_kernels_verdict_is_told_to_one_side_only() {
    let (mut left, mut right, line) = Line::pair();
    line.fail(Side::Left, io::ErrorKind::TimedOut);
    assert_eq!(read(&mut left).await, Err(io::ErrorKind::TimedOut));
    write(&mut right, b"x").await.unwrap();
    drop(left);
    waits(read(&mut right)).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_dropped_ends_the_line_as_a_process_does() {
    let (left, mut right, _) = Line::pair();
    drop(left);
    assert_eq!(read(&mut right).await.unwrap(), b"");
    assert_eq!(
        write(&mut right, b"x").await,
        Err(io::ErrorKind::BrokenPipe)
    );

    let (mut left, right, _) = Line::pair();
    write(&mut left, b"x").await.unwrap();
    drop(right);
    assert_eq!(
        write(&mut left, b"x").await,
        Err(io::ErrorKind::ConnectionReset)
    );
    // A write that waits for room is told too.
    let (mut left, right, _) = Line::with_room(1);
    let writing = write(&mut left, b"xy");
    let dropping = async {
        sleep(secs(1)).await;
        drop(right);
    };
    let (written, ()) = tokio::join!(timeout(secs(2), writing), dropping);
    assert_eq!(written.unwrap(), Err(io::ErrorKind::ConnectionReset));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_waits_for_room_is_told_of_the_end_when_that_arrives() {
    let cases = [
        // What has arrived and isn't read makes it a reset.
        (Duration::ZERO, io::ErrorKind::ConnectionReset),
        (secs(1), io::ErrorKind::BrokenPipe),
    ];
    for (delay, kind) in cases {
        let (mut left, right, line) = Line::with_room(1);
        line.delay(Side::Left, delay);
        line.delay(Side::Right, ms(70));
        assert!(write(&mut left, b"xy").now_or_never().is_none());
        let before = Instant::now();
        drop(right);
        assert_eq!(write(&mut left, b"y").await, Err(kind));
        assert_eq!(before.elapsed(), ms(70));
    }
    // If a cut holds the end back, the write waits until that is mended.
    let (mut left, right, line) = Line::with_room(1);
    line.delay(Side::Right, ms(70));
    write(&mut left, b"x").await.unwrap();
    drop(right);
    line.cut(Side::Right);
    waits(write(&mut left, b"y")).await;
    line.mend(Side::Right);
    assert_eq!(
        write(&mut left, b"y").await,
        Err(io::ErrorKind::ConnectionReset)
    );
}

/// Each of them is woken by itself.
#[tokio::test(start_paused = true)]
async fn a_read_and_a_write_in_two_tasks_are_both_told_of_the_end() {
    let (left, right, line) = Line::with_room(1);
    line.delay(Side::Right, ms(70));
    let (mut reading, mut writing) = tokio::io::split(left);
    let reader = tokio::spawn(async move { reading.read(&mut [0]).await.is_err() });
    let writer = tokio::spawn(async move { writing.write_all(b"xy").await });
    sleep(ms(1)).await;
    let before = Instant::now();
    drop(right);
    let both = async { tokio::join!(reader, writer) };
    let (read, written) = timeout(secs(1), both).await.unwrap();
    // The one that comes first is told why.
    let kind = written.unwrap().unwrap_err().kind();
    let was_told = kind == io::ErrorKind::ConnectionReset;
    assert!(read.unwrap() != was_told, "{kind:?}");
    assert_eq!(before.elapsed(), ms(70));
}

// ---- a heartbeat over it ---------------------------------------------------------------

/// A fault, by its name, and what it looks like.
type Fault<'a> = (&'a str, &'a dyn Fn(&Line), Cause);

/// Both sides know, unless it is said otherwise.
#[tokio::test(start_paused = true)]
async fn a_heartbeat_finds_each_fault_in_time() {
    let io = |kind| move |line: &Line| line.fail(Side::Left, kind);
    let faults: [Fault; 6] = [
        ("freeze", &|line| line.freeze(Side::Right), Cause::Silent),
        ("cut", &|line| line.cut(Side::Right), Cause::Silent),
        ("cut", &|line| line.cut(Side::Left), Cause::Silent),
        ("reset", &Line::reset, Cause::Reset),
        ("timed out", &io(io::ErrorKind::TimedOut), Cause::TimedOut),
        ("end", &|line| line.half_close(Side::Right), Cause::Eof),
    ];
    for (name, fault, cause) in faults {
        let (ours, theirs, line) = Line::pair();
        line.delay(Side::BOTH, ms(20));
        let _peer = Heartbeat::new(theirs, quick()).spawn();
        let mut heartbeat = Heartbeat::new(ours, quick());
        let watching = async {
            loop {
                if let Some(PeerEvent::Dead(death)) = heartbeat.next().await {
                    return (death.cause, Instant::now());
                }
            }
        };
        let failing = async {
            sleep(secs(10)).await;
            fault(&line);
            Instant::now()
        };
        let ((found, at), failed) = tokio::join!(watching, failing);
        // Whichever side finds it first tells the other one, where that can hear it.
        let is_told = matches!(found, Cause::GivenUp { code, .. } if code == GoodbyeCode::SILENT);
        assert!(
            found == cause || name == "cut" && is_told,
            "{name}: {found:?}"
        );
        // Both find a silence at the same time, and hear of it after 20 ms more.
        let took = at - failed;
        assert!(
            took <= quick().detection_time() + ms(21),
            "{name}: {took:?}"
        );
        assert!(
            took >= ms(600) || cause != Cause::Silent,
            "{name}: {took:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_line_is_no_silence() {
    let (ours, theirs, line) = Line::pair();
    line.delay(Side::BOTH, ms(50));
    line.limit_rate(Side::BOTH, 50_000);
    let mut sender = Heartbeat::new(ours, quick());
    let receiver = tokio::spawn(Heartbeat::new(theirs, quick()).collect::<Vec<_>>());
    let begun = Instant::now();
    sender.send(filler(1, 1_000_000)).await.unwrap();
    sender.close().await.unwrap();
    assert!((secs(20)..secs(21)).contains(&begun.elapsed()));
    let events = receiver.await.unwrap();
    let messages = events
        .iter()
        .filter(|event| matches!(event, PeerEvent::Message(_)));
    assert_eq!(messages.count(), 1, "{events:?}");
}
