//! Every way in which a connection can go.

use std::io;

use futures::{FutureExt, SinkExt, StreamExt, future::LocalBoxFuture};
use heartbeat_core::{Control, GoodbyeCode, Nonce};
use heartbeat_tests::{RawPeer, all_events, ms, quick, secs, wrapped};
use heartbeat_tokio::{
    Heartbeat, PeerEvent,
    testkit::{Line, Side},
};
use tokio::{io::DuplexStream, time::sleep};

/// One of them: makes one connection, of which nothing is left when the runtime
/// has gone too.
#[derive(Clone, Copy, Debug)]
pub struct End {
    pub name: &'static str,
    pub run: fn() -> LocalBoxFuture<'static, ()>,
    /// The one series of those that count ends that counts it.
    pub counted: &'static str,
}

macro_rules! ends {
    ($($run:ident => $counted:literal,)*) => {
        pub const ENDS: &[End] = &[$(End {
            name: stringify!($run),
            run: || $run().boxed_local(),
            counted: $counted,
        }),*];
    };
}

ends! {
    the_peer_says_goodbye => r#"heartbeat_closed_total{reason="peer"}"#,
    we_say_goodbye => r#"heartbeat_closed_total{reason="local"}"#,
    our_goodbye_cannot_leave => r#"heartbeat_deaths_total{cause="write_stalled",diagnosis="unknown"}"#,
    our_goodbye_is_not_confirmed => r#"heartbeat_closed_total{reason="unconfirmed"}"#,
    both_sides_finish => r#"heartbeat_closed_total{reason="finished"}"#,
    silence => r#"heartbeat_deaths_total{cause="silent",diagnosis="unknown"}"#,
    writes_are_stuck => r#"heartbeat_deaths_total{cause="write_stalled",diagnosis="unknown"}"#,
    the_stream_ends => r#"heartbeat_deaths_total{cause="eof",diagnosis="unknown"}"#,
    reset => r#"heartbeat_deaths_total{cause="reset",diagnosis="unknown"}"#,
    the_kernel_gives_up => r#"heartbeat_deaths_total{cause="timed_out",diagnosis="unknown"}"#,
    unreachable => r#"heartbeat_deaths_total{cause="unreachable",diagnosis="unknown"}"#,
    another_error => r#"heartbeat_deaths_total{cause="io",diagnosis="unknown"}"#,
    rubbish => r#"heartbeat_deaths_total{cause="protocol",diagnosis="unknown"}"#,
    a_flood => r#"heartbeat_deaths_total{cause="ping_flood",diagnosis="unknown"}"#,
    a_refusal => r#"heartbeat_deaths_total{cause="refused",diagnosis="unknown"}"#,
    a_handler_hangs => r#"heartbeat_deaths_total{cause="not_reading",diagnosis="unknown"}"#,
    dropped_before_it_was_polled => r#"heartbeat_dropped_total"#,
    dropped_while_alive => r#"heartbeat_dropped_total"#,
    dropped_while_suspect => r#"heartbeat_dropped_total"#,
    dropped_while_paused => r#"heartbeat_dropped_total"#,
    dropped_while_closing => r#"heartbeat_dropped_total"#,
    taken_apart => r#"heartbeat_dropped_total"#,
    taken_apart_after_the_end => r#"heartbeat_deaths_total{cause="eof",diagnosis="unknown"}"#,
    both_handles_are_dropped => r#"heartbeat_closed_total{reason="local"}"#,
    a_sender_closes => r#"heartbeat_closed_total{reason="local"}"#,
    silence_and_nobody_receives => r#"heartbeat_deaths_total{cause="silent",diagnosis="unknown"}"#,
    aborted_before_it_was_polled => r#"heartbeat_deaths_total{cause="io",diagnosis="unknown"}"#,
    aborted => r#"heartbeat_deaths_total{cause="io",diagnosis="unknown"}"#,
    aborted_while_paused => r#"heartbeat_deaths_total{cause="io",diagnosis="unknown"}"#,
    the_runtime_ends => r#"heartbeat_deaths_total{cause="io",diagnosis="unknown"}"#,
}

// ---- with a goodbye -----------------------------------------------------

async fn the_peer_says_goodbye() {
    let (mut heartbeat, mut peer) = wrapped(quick());
    peer.greet(quick()).await;
    peer.send_control(Control::Goodbye(GoodbyeCode::LEAVING))
        .await;
    all_events(&mut heartbeat).await;
}

async fn we_say_goodbye() {
    let (mut heartbeat, peer) = wrapped(quick());
    tokio::spawn(hear_out(peer));
    heartbeat.close().await.unwrap();
}

async fn our_goodbye_cannot_leave() {
    let (mut heartbeat, _peer) = narrow();
    heartbeat.close().await.unwrap_err();
}

async fn our_goodbye_is_not_confirmed() {
    let config = quick().to_builder().linger(ms(100)).build().unwrap();
    let (mut heartbeat, mut peer) = wrapped(config);
    peer.greet(quick()).await;
    heartbeat.close().await.unwrap_err();
}

async fn both_sides_finish() {
    let (mut heartbeat, mut peer) = wrapped(quick());
    peer.greet(quick()).await;
    peer.send_control(Control::Fin).await;
    tokio::spawn(async move { while peer.read_frame().await.is_some() {} });
    heartbeat.finish().await.unwrap();
    all_events(&mut heartbeat).await;
}

// ---- without a goodbye --------------------------------------------------

async fn silence() {
    let (mut heartbeat, _peer) = wrapped(quick());
    all_events(&mut heartbeat).await;
}

async fn writes_are_stuck() {
    let (mut heartbeat, _peer) = narrow();
    all_events(&mut heartbeat).await;
}

async fn the_stream_ends() {
    let (mut heartbeat, peer) = wrapped(quick());
    drop(peer);
    all_events(&mut heartbeat).await;
}

async fn reset() {
    broken(io::ErrorKind::ConnectionReset).await;
}

async fn the_kernel_gives_up() {
    broken(io::ErrorKind::TimedOut).await;
}

async fn unreachable() {
    broken(io::ErrorKind::HostUnreachable).await;
}

async fn another_error() {
    broken(io::ErrorKind::Other).await;
}

async fn rubbish() {
    let (mut heartbeat, mut peer) = wrapped(quick());
    peer.send_raw(&[0xff; 64]).await;
    all_events(&mut heartbeat).await;
}

async fn a_flood() {
    let (mut heartbeat, mut peer) = wrapped(quick());
    peer.greet(quick()).await;
    for _ in 0..10_000 {
        peer.send_control(Control::Ping(Nonce([7; 8]))).await;
    }
    all_events(&mut heartbeat).await;
}

async fn a_handler_hangs() {
    let config = quick().to_builder().max_pause(ms(300)).build().unwrap();
    let (heartbeat, mut peer) = wrapped(config);
    let driver = heartbeat.spawn();
    peer.greet(quick()).await;
    peer.send_data(b"work").await;
    driver.task.await.unwrap();
}

async fn a_refusal() {
    let (mut heartbeat, mut peer) = wrapped(quick());
    peer.greet(heartbeat_tokio::Config::detect_within(ms(50)).unwrap())
        .await;
    all_events(&mut heartbeat).await;
}

// ---- it is dropped ------------------------------------------------------

async fn dropped_before_it_was_polled() {
    drop(wrapped(quick()));
}

async fn dropped_while_alive() {
    let (mut heartbeat, mut peer) = wrapped(quick());
    peer.greet(quick()).await;
    heartbeat.next().await;
}

async fn dropped_while_suspect() {
    let (mut heartbeat, _peer) = wrapped(quick());
    let event = heartbeat.next().await;
    assert!(
        matches!(event, Some(PeerEvent::Suspect { .. })),
        "{event:?}"
    );
}

async fn dropped_while_paused() {
    let (mut heartbeat, mut peer) = wrapped(quick());
    peer.greet(quick()).await;
    peer.send_raw(&much()).await;
    // A send that has to wait takes in what arrives, until that is too much.
    let sending = heartbeat.send(vec![0; 2 << 20].into());
    let _ = tokio::time::timeout(ms(100), sending).await;
    let state = heartbeat.status().peer.state;
    assert_eq!(state, heartbeat_tokio::State::Paused);
}

async fn dropped_while_closing() {
    let (mut heartbeat, _peer) = narrow();
    assert_eq!(heartbeat.close().now_or_never(), None);
}

async fn taken_apart() {
    let (heartbeat, _peer) = wrapped(quick());
    drop(heartbeat.into_parts());
}

async fn taken_apart_after_the_end() {
    let (mut heartbeat, mut peer) = wrapped(quick());
    peer.greet(quick()).await;
    peer.send_data(b"a message").await;
    drop(peer);
    // A send that fails knows of the end, which wasn't reported before.
    heartbeat.send(vec![0; 2 << 20].into()).await.unwrap_err();
    let parts = heartbeat.into_parts();
    assert!(parts.events.back().is_some_and(PeerEvent::is_terminal));
}

// ---- a driver serves it -------------------------------------------------

async fn both_handles_are_dropped() {
    let (heartbeat, peer) = wrapped(quick());
    tokio::spawn(hear_out(peer));
    let task = heartbeat.spawn().task;
    task.await.unwrap();
}

async fn a_sender_closes() {
    let (heartbeat, peer) = wrapped(quick());
    tokio::spawn(hear_out(peer));
    let driver = heartbeat.spawn();
    driver.sender.close().await.unwrap();
}

async fn silence_and_nobody_receives() {
    let (heartbeat, _peer) = wrapped(quick());
    let driver = heartbeat.spawn();
    drop(driver.receiver);
    driver.sender.closed().await.unwrap_err();
}

async fn aborted_before_it_was_polled() {
    let (heartbeat, _peer) = wrapped(quick());
    let driver = heartbeat.spawn();
    driver.task.abort();
    driver.sender.closed().await.unwrap_err();
}

async fn aborted() {
    let (heartbeat, mut peer) = wrapped(quick());
    let driver = heartbeat.spawn();
    peer.greet(quick()).await;
    sleep(ms(10)).await;
    driver.task.abort();
    assert!(driver.task.await.unwrap_err().is_cancelled());
}

async fn aborted_while_paused() {
    let (heartbeat, mut peer) = wrapped(quick());
    let driver = heartbeat.spawn();
    peer.greet(quick()).await;
    peer.send_raw(&much()).await;
    sleep(ms(10)).await;
    let state = driver.sender.status().peer.state;
    assert_eq!(state, heartbeat_tokio::State::Paused);
    driver.task.abort();
    assert!(driver.task.await.unwrap_err().is_cancelled());
}

async fn the_runtime_ends() {
    let (heartbeat, mut peer) = wrapped(quick());
    let mut driver = heartbeat.spawn();
    peer.greet(quick()).await;
    driver.receiver.next().await;
    // All of it goes with the runtime.
    tokio::spawn(async move {
        peer.answer_for(secs(3600)).await;
        drop(driver);
    });
}

// ---- what they need -----------------------------------------------------

/// Not even a Hello gets through.
fn narrow() -> (Heartbeat<DuplexStream>, RawPeer) {
    let (ours, theirs) = tokio::io::duplex(8);
    (Heartbeat::new(ours, quick()), RawPeer::new(theirs))
}

/// More messages than an inbox holds.
fn much() -> Vec<u8> {
    heartbeat_tests::data_frame(&[0; 1000]).repeat(600)
}

/// Reads until a goodbye, confirms it, and closes then.
async fn hear_out(mut peer: RawPeer) {
    peer.greet(quick()).await;
    while peer.read_control().await != Some(Control::Goodbye(GoodbyeCode::LEAVING)) {}
    peer.send_control(Control::Goodbye(GoodbyeCode::RECEIVED))
        .await;
    drop(peer);
}

async fn broken(kind: io::ErrorKind) {
    let (ours, _theirs, line) = Line::pair();
    let mut heartbeat = Heartbeat::new(ours, quick());
    let failing = async {
        sleep(ms(1)).await;
        line.fail(Side::Left, kind);
    };
    tokio::join!(all_events(&mut heartbeat), failing);
}
