//! Bytes over a heartbeat: half-closes, ends and verdicts as the bytes see them, and
//! other people's protocols on top.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use std::{
    error::Error,
    io::{self, ErrorKind},
};

use bytes::Bytes;
use futures::SinkExt;
use heartbeat_core::GoodbyeCode;
use heartbeat_tests::{ms, quick, secs};
use heartbeat_tokio::{
    Cause, CloseError, Config, Death, Heartbeat, Io, PeerEvent, SendError,
    testkit::{Line, Side},
};
use tokio::{
    io::{
        AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, DuplexStream, copy_bidirectional, duplex,
        split,
    },
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

fn pair(config: Config) -> (Io, Io, Line) {
    let (left, right, line) = Line::pair();
    let io = |stream| Heartbeat::new(stream, config).into_io();
    (io(left), io(right), line)
}

type Carried = JoinHandle<io::Result<(u64, u64)>>;

/// Two programs' streams, and between them a tunnel whose middle is a heartbeat.
fn tunnel() -> (DuplexStream, DuplexStream, [Carried; 2]) {
    let (mut left, mut right, _) = pair(quick());
    let ((client, mut entry), (mut exit, server)) = (duplex(1 << 16), duplex(1 << 16));
    let carried = [
        tokio::spawn(async move { copy_bidirectional(&mut entry, &mut left).await }),
        tokio::spawn(async move { copy_bidirectional(&mut exit, &mut right).await }),
    ];
    (client, server, carried)
}

/// The error's own source, as people print it.
fn death(error: &io::Error) -> &Death {
    error.source().unwrap().downcast_ref().unwrap()
}

// ---- in order ----------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn either_direction_ends_by_itself_and_the_other_goes_on() {
    for client_first in [true, false] {
        let (mut client, mut server, carried) = tunnel();
        let (first, second) = match client_first {
            true => (&mut client, &mut server),
            false => (&mut server, &mut client),
        };
        first.write_all(b"question").await.unwrap();
        first.shutdown().await.unwrap();
        let mut read = String::new();
        second.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "question");

        sleep(secs(60)).await; // it thinks for longer than any bound
        second.write_all(b"answer").await.unwrap();
        second.shutdown().await.unwrap();
        read.clear();
        first.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "answer");
        for carried in carried {
            let (there, back) = carried.await.unwrap().unwrap();
            assert_eq!(there + back, 14);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn shutdown_is_fin_and_after_the_peers_fin_a_flush_of_nothing_is_fine() {
    let (left, right, _line) = Line::pair();
    let mut io = Heartbeat::new(left, quick()).into_io();
    let mut peer = Heartbeat::new(right, quick()).spawn();

    io.write_all(b"last").await.unwrap();
    io.shutdown().await.unwrap();
    let mut seen = Vec::new();
    while let Some(event) = peer.receiver.recv().await {
        match event {
            PeerEvent::Message(bytes) => seen.push(bytes),
            PeerEvent::Finished => break,
            _ => {}
        }
    }
    assert_eq!(seen, ["last"]);
    let refused = io.write_all(b"more").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::BrokenPipe);

    let _ = peer.sender.finish().await; // the end of all, then
    assert_eq!(io.read(&mut [0; 8]).await.unwrap(), 0);
    io.flush().await.unwrap();
    peer.sender.closed().await.unwrap();
    io.flush().await.unwrap();
    io.shutdown().await.unwrap();
    assert_eq!(io.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_flush_after_the_peers_fin_still_waits_for_what_was_written() {
    let (mut left, mut right, line) = pair(quick());
    right.shutdown().await.unwrap();
    assert_eq!(left.read(&mut [0; 8]).await.unwrap(), 0);
    line.limit_rate(Side::Left, 1 << 20);
    left.write_all(&[7; 190_000]).await.unwrap(); // 64 KiB of it are on the way at once
    let mut read = Vec::new();
    let (flushed, _) = tokio::join!(
        async {
            let began = Instant::now();
            left.flush().await.unwrap();
            let waited = began.elapsed();
            left.shutdown().await.unwrap();
            waited
        },
        async { right.read_to_end(&mut read).await.unwrap() }
    );
    assert!(flushed > ms(100), "{flushed:?}");
    assert_eq!(read.len(), 190_000);
}

#[tokio::test(start_paused = true)]
async fn dropping_it_ends_the_peers_bytes_behind_all_that_was_written() {
    let (mut left, mut right, _line) = pair(quick());
    left.write_all(&[1; 150_000]).await.unwrap();
    drop(left);
    let mut read = Vec::new();
    right.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, [1; 150_000]);
    right.flush().await.unwrap();
    let late = right.write_all(b"late").await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::BrokenPipe);
}

/// The bytes that were never written, of an error that says so.
fn lost(error: &io::Error) -> usize {
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
    match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(SendError::NotClosed(CloseError::Unconfirmed { unwritten })) => *unwritten,
        other => panic!("{other:?}"),
    }
}

/// A goodbye takes the place of what was queued and not begun. Its writer has to
/// know.
#[tokio::test(start_paused = true)]
async fn a_flush_fails_if_a_peer_that_left_lacks_some_of_what_was_written() {
    for waits_for in ["flush", "shutdown"] {
        let (mut left, mut right, line) = pair(quick());
        right.write_all(b"x").await.unwrap();
        left.read_u8().await.unwrap();
        line.limit_rate(Side::Left, 100_000);
        left.write_all(&[7; 190_000]).await.unwrap();
        drop(right); // leaves
        let error = match waits_for {
            "flush" => left.flush().await.unwrap_err(),
            _ => left.shutdown().await.unwrap_err(),
        };
        assert!((1..190_100).contains(&lost(&error)), "{error}");
        // A second call is told the same. The rest of what was begun may have left since.
        left.sender().closed().await.unwrap();
        let again = left.flush().await.unwrap_err();
        assert!((1..=lost(&error)).contains(&lost(&again)), "{again}");
        assert_eq!(left.read(&mut [0; 8]).await.unwrap(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn writes_fit_what_the_peer_accepts_and_small_reads_lose_nothing() {
    let (left, right, _line) = Line::pair();
    let small = quick().to_builder().max_frame(1000).build().unwrap();
    let mut left = Heartbeat::new(left, quick()).into_io();
    let mut right = Heartbeat::new(right, small).into_io();
    right.write_all(b"\n").await.unwrap();
    assert_eq!(left.read_u8().await.unwrap(), b'\n'); // after the Hello

    let sent: Vec<u8> = (0..=250).cycle().take(10_007).collect();
    assert_eq!(left.write(&sent).await.unwrap(), 1000);
    left.write_all(&sent[1000..]).await.unwrap();
    left.shutdown().await.unwrap();
    let mut read = Vec::new();
    let mut some = [0; 7];
    while let Ok(length @ 1..) = right.read(&mut some).await {
        read.extend_from_slice(&some[..length]);
    }
    assert_eq!(read, sent);
}

#[tokio::test(start_paused = true)]
async fn its_debug_output_says_how_the_peer_is() {
    let (left, right, _line) = pair(quick());
    assert!(format!("{left:?}").starts_with("Io { status: Status {"));
    drop(right);
    left.sender().closed().await.unwrap();
    let closed = format!("{left:?}");
    assert!(closed.contains("state: Closed"), "{closed}");
}

#[tokio::test(start_paused = true)]
async fn messages_are_no_boundaries_and_empty_ones_no_end() {
    let (left, right, _line) = Line::pair();
    let mut messages = Heartbeat::new(left, quick());
    let mut bytes = Heartbeat::new(right, quick()).into_io();
    for message in ["", "one\nt", "", "wo\n", ""] {
        messages.send(Bytes::from(message)).await.unwrap();
    }
    for line in ["one\n", "two\n"] {
        let mut read = String::new();
        bytes.read_line(&mut read).await.unwrap();
        assert_eq!(read, line);
    }
    let more = timeout(ms(50), bytes.read(&mut [0; 8])).await;
    assert!(more.is_err(), "it goes on");
}

#[tokio::test]
async fn many_megabytes_go_through_a_tunnel_unchanged_both_ways() {
    const LENGTHS: [usize; 2] = [64 << 20, 4 << 20];
    let (client, server, carried) = tunnel();
    let pattern: Vec<u8> = (0..1 << 16).map(|n: u32| (n % 251) as u8).collect();
    let transfer = async |stream, sends, receives| {
        let (mut reader, mut writer) = split(stream);
        let mut buffer = vec![0; pattern.len()];
        let sent = async {
            for _ in 0..sends / pattern.len() {
                writer.write_all(&pattern).await?;
            }
            writer.shutdown().await
        };
        let received = async {
            for _ in 0..receives / pattern.len() {
                reader.read_exact(&mut buffer).await?;
                assert!(buffer == pattern);
            }
            reader.read(&mut [0]).await
        };
        tokio::try_join!(sent, received).unwrap().1
    };
    let [there, back] = LENGTHS;
    let ends = tokio::join!(transfer(client, there, back), transfer(server, back, there));
    assert_eq!(ends, (0, 0));
    let [entry, exit] = carried;
    assert_eq!(entry.await.unwrap().unwrap(), (there as u64, back as u64));
    assert_eq!(exit.await.unwrap().unwrap(), (back as u64, there as u64));
}

#[tokio::test(start_paused = true)]
async fn http_2_goes_over_it_unchanged() {
    let (left, right, _line) = pair(quick());
    tokio::spawn(async move {
        let mut connection = h2::server::handshake(right).await.unwrap();
        while let Some(request) = connection.accept().await {
            let (mut request, mut respond) = request.unwrap();
            tokio::spawn(async move {
                let mut answer = respond.send_response(http::Response::new(()), false)?;
                let mut length = 0;
                while let Some(data) = request.body_mut().data().await {
                    length += data.as_ref().map_or(0, Bytes::len);
                    request
                        .body_mut()
                        .flow_control()
                        .release_capacity(data?.len())?;
                }
                answer.send_data(length.to_string().into(), true)
            });
        }
    });
    let (mut requests, connection) = h2::client::handshake(left).await.unwrap();
    tokio::spawn(connection);
    for length in [10, 60_000] {
        requests = requests.ready().await.unwrap();
        let request = http::Request::post("http://peer/").body(()).unwrap();
        let (response, mut body) = requests.send_request(request, false).unwrap();
        body.send_data(vec![0; length].into(), true).unwrap();
        let mut response = response.await.unwrap();
        let answer = response.body_mut().data().await.unwrap().unwrap();
        assert_eq!(answer, length.to_string());
    }
}

// ---- verdicts ----------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_timed_out_within_the_bound_whatever_is_waited_for() {
    for waits_for in ["read", "write", "flush", "shutdown"] {
        let (mut left, mut right, line) = pair(quick());
        right.write_all(b"x").await.unwrap();
        left.read_u8().await.unwrap();
        line.cut(Side::BOTH);
        let cut = Instant::now();
        let full = [0; 64 * 1024];
        let error = match waits_for {
            "read" => left.read_u8().await.unwrap_err(),
            "write" => loop {
                if let Err(error) = left.write_all(&full).await {
                    break error;
                }
            },
            other => {
                left.write_all(&full).await.unwrap();
                left.write_all(&full).await.unwrap();
                match other {
                    "flush" => left.flush().await.unwrap_err(),
                    _ => left.shutdown().await.unwrap_err(),
                }
            }
        };
        assert!(cut.elapsed() <= quick().detection_time(), "{waits_for}");
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{waits_for}: {error}");
        let causes = [Cause::Silent, Cause::WriteStalled];
        assert!(causes.contains(&death(&error).cause), "{error}");

        // A second call is told the same.
        let again = left.read_u8().await.unwrap_err();
        assert_eq!(death(&again), death(&error));
    }
}

#[tokio::test(start_paused = true)]
async fn what_arrived_before_a_verdict_is_read_before_it() {
    let (mut left, mut right, line) = pair(quick());
    right.write_all(&[3; 100_000]).await.unwrap();
    right.flush().await.unwrap();
    sleep(ms(1)).await;
    line.cut(Side::BOTH);
    sleep(secs(60)).await;
    let mut read = Vec::new();
    let error = left.read_to_end(&mut read).await.unwrap_err();
    assert_eq!(read, [3; 100_000]);
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_killed_is_an_unexpected_end_and_one_that_aborts_an_abort() {
    let (mut left, mut right, line) = pair(quick());
    right.write_all(b"half").await.unwrap();
    right.flush().await.unwrap();
    line.half_close(Side::Right);
    let mut read = Vec::new();
    let killed = left.read_to_end(&mut read).await.unwrap_err();
    assert_eq!(
        (killed.kind(), &*read),
        (ErrorKind::UnexpectedEof, &b"half"[..])
    );
    assert_eq!(death(&killed).cause, Cause::Eof);

    let (mut left, right, _line) = pair(quick());
    left.write_all(b"lost?").await.unwrap();
    let code = GoodbyeCode(70);
    let leaving = right.sender().close_with(code, "the disk is full".into());
    let (_, aborted) = tokio::join!(leaving, left.read_u8());
    let aborted = aborted.unwrap_err();
    assert_eq!(aborted.kind(), ErrorKind::ConnectionAborted);
    let inner = aborted.get_ref().unwrap().downcast_ref();
    assert!(matches!(inner, Some(SendError::Closed(_))), "{aborted:?}");
    assert!(aborted.to_string().contains("the disk is full"));
    assert_eq!(
        left.flush().await.unwrap_err().kind(),
        ErrorKind::ConnectionAborted
    );
}

#[tokio::test(start_paused = true)]
async fn beats_go_on_while_nobody_reads_or_writes() {
    let (mut left, right, _line) = pair(quick());
    sleep(secs(60)).await;
    left.sender().probe().await.unwrap();
    drop(right);
    assert_eq!(left.read(&mut [0; 8]).await.unwrap(), 0);
}
