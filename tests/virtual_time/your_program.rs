//! The code in the guide's chapter "Testing your program", and that the chapter has
//! no other.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic too")]

use std::{io, time::Duration};

use futures::{SinkExt, StreamExt};
use heartbeat_tokio::{
    Backoff, Cause, CloseReason, Config, Death, Heartbeat, PeerEvent, Reconnect,
    testkit::{Line, LineEnd, Side},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

/// A program: counts messages until its peer is gone, and says how it went.
async fn program<S>(stream: S, config: Config) -> (usize, Result<CloseReason, Death>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (mut peer, mut messages) = (Heartbeat::new(stream, config), 0);
    loop {
        match peer.next().await {
            Some(PeerEvent::Message(_)) => messages += 1,
            Some(PeerEvent::Closed { reason }) => return (messages, Ok(reason)),
            Some(PeerEvent::Dead(death)) => return (messages, Err(death)),
            Some(_) => {}
            None => unreachable!("the terminal event came before"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_freezes_is_given_up_within_the_bound() {
    let config = Config::detect_within(Duration::from_secs(6)).unwrap();
    let (ours, theirs, line) = Line::pair();
    let program = tokio::spawn(program(ours, config));
    let peer = Heartbeat::new(theirs, config).spawn();
    peer.sender.send("hello".into()).await.unwrap();

    sleep(Duration::from_secs(3600)).await; // an hour in which nothing happens
    assert!(!program.is_finished());

    line.freeze(Side::Right);
    let frozen = Instant::now();
    let (messages, end) = program.await.unwrap();
    assert!(frozen.elapsed() <= config.detection_time());
    assert_eq!(messages, 1);
    assert_eq!(end.unwrap_err().cause, Cause::Silent);
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_is_shorter_than_all_timeouts_survives() {
    let config = Config::wan();
    let (ours, theirs, line) = Line::pair();
    line.delay(Side::BOTH, Duration::from_millis(40)); // a round trip of 80 ms
    let program = tokio::spawn(program(ours, config));
    let peer = Heartbeat::new(theirs, config).spawn();

    for _ in 0..20 {
        line.cut(Side::BOTH);
        sleep(config.max_missed() * config.timeout() - Duration::from_millis(80)).await;
        line.mend(Side::BOTH);
        sleep(Duration::from_secs(60)).await;
        assert!(!program.is_finished());
    }
    peer.sender.close().await.unwrap();
    let (_, end) = program.await.unwrap();
    assert!(matches!(end, Ok(CloseReason::Peer { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_large_message_on_a_slow_line_is_no_silence() {
    let config = Config::detect_within(Duration::from_secs(3)).unwrap();
    let (ours, theirs, line) = Line::pair();
    line.limit_rate(Side::Right, 100_000); // bytes a second
    let program = tokio::spawn(program(ours, config));
    let mut peer = Heartbeat::new(theirs, config);

    let begun = Instant::now();
    peer.send(vec![0; 4_000_000].into()).await.unwrap();
    peer.close().await.unwrap();
    assert!(begun.elapsed() > Duration::from_secs(40));
    let (messages, end) = program.await.unwrap();
    assert_eq!((messages, end.is_ok()), (1, true));
}

/// A client that counts its connections, and gets each from the test.
async fn client(mut connections: mpsc::Receiver<LineEnd>, connected: mpsc::Sender<()>) {
    let mut server = Reconnect::owning(Backoff::default(), async move || {
        let stream = connections.recv().await.ok_or(io::ErrorKind::NotFound)?;
        Ok::<_, io::Error>(Heartbeat::new(stream, Config::wan()))
    });
    let is_final = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    while let Ok(mut peer) = server.connect_while(|error| !is_final(error)).await {
        connected.send(()).await.unwrap();
        while let Some(event) = peer.next().await {
            server.note(&event);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_comes_back_however_its_connection_ends() {
    let (accept, connections) = mpsc::channel(1);
    let (connected, mut is_connected) = mpsc::channel(1);
    let client = tokio::spawn(client(connections, connected));

    let faults: [fn(&Line); 4] = [
        |line| line.freeze(Side::Right),
        |line| line.cut(Side::Left),
        |line| line.half_close(Side::Right),
        |line| line.reset(),
    ];
    for fault in faults {
        let (ours, theirs, line) = Line::pair();
        accept.send(ours).await.unwrap();
        let _server = Heartbeat::new(theirs, Config::wan()).spawn();
        // The wait after a loss is up to 5 s.
        let limit = Config::wan().detection_time() + Duration::from_secs(6);
        timeout(limit, is_connected.recv()).await.unwrap().unwrap();
        fault(&line);
    }
    drop(accept);
    client.await.unwrap();
}

const CHAPTER: &str = include_str!("../../docs/guide/testing.md");

/// Each of its blocks stands in this file, word by word.
#[test]
fn the_chapter_shows_what_is_tested_here() {
    let here = include_str!("your_program.rs");
    let mut shown = 0;
    for block in CHAPTER.split("```rust\n").skip(1) {
        let (block, _) = block.split_once("```").unwrap();
        assert!(here.contains(block), "{block}");
        shown += block.matches("#[tokio::test").count();
    }
    assert_eq!(shown, here.matches("\n#[tokio::test").count());
}
