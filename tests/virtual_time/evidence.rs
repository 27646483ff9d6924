//! What counts as a sign of life, through the adapter. In virtual time.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, StreamExt};
use heartbeat_core::{Control, GoodbyeCode, Nonce};
use heartbeat_tests::{RawPeer, all_events, framed, ms, notable, quick, wrapped};
use heartbeat_tokio::{
    Cause, Config, Evidence, Heartbeat, PeerEvent,
    testkit::{Line, Side},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, BufStream, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{Instant, advance, sleep_until, timeout},
};

/// 16 bytes each 150 ms are faster than the default `min_rate`.
const TRICKLE: &[u8] = b"trickling slowly";

/// A peer that greets and then writes `bytes` each 150 ms: how long until it
/// is dead? `None` for longer than 100 s.
async fn dead_after(
    evidence: Evidence,
    bytes: &'static [u8],
) -> Option<(std::time::Duration, Cause)> {
    let config: Config = quick()
        .to_builder()
        .evidence(evidence)
        .max_frame(1 << 20)
        .build()
        .unwrap();
    let (mut heartbeat, mut peer) = wrapped(config);
    peer.greet(config).await;
    // The header of a frame that never ends, if `bytes` are its body.
    if bytes == TRICKLE {
        peer.send_raw(&[0, 0, 0xff, 0xff, 0]).await;
    }
    let start = Instant::now();
    let talking = tokio::spawn(async move {
        loop {
            tokio::time::sleep(ms(150)).await;
            peer.send_raw(bytes).await;
        }
    });
    let limit = std::time::Duration::from_secs(100);
    let events = tokio::time::timeout(limit, all_events(&mut heartbeat))
        .await
        .ok();
    talking.abort();
    let events = events?;
    match notable(&events).last() {
        Some(PeerEvent::Dead(death)) => Some((start.elapsed(), death.cause.clone())),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn any_bytes_are_evidence_by_default_also_within_a_frame() {
    assert_eq!(dead_after(Evidence::AnyBytes, TRICKLE).await, None);
}

#[tokio::test(start_paused = true)]
async fn where_only_frames_count_a_trickle_of_bytes_is_none() {
    let verdict = dead_after(Evidence::Frame, TRICKLE).await;
    assert_eq!(verdict, Some((ms(800), Cause::Silent)));
}

#[tokio::test(start_paused = true)]
async fn where_frames_count_messages_are_evidence() {
    assert_eq!(dead_after(Evidence::Frame, b"\0\0\0\x02\0m").await, None);
}

#[tokio::test(start_paused = true)]
async fn where_only_echoes_count_nothing_else_is_evidence() {
    let verdict = dead_after(Evidence::Echo, b"\0\0\0\x02\0m").await;
    assert_eq!(verdict, Some((ms(800), Cause::Silent)));

    let stale = framed(b"\x0312345678").leak();
    let nonce = Control::Pong(Nonce(*b"12345678"));
    assert_eq!(Control::decode(&stale[4..]), Ok(nonce));
    let verdict = dead_after(Evidence::Echo, stale).await;
    assert_eq!(verdict, Some((ms(800), Cause::Silent)));
}

#[tokio::test(start_paused = true)]
async fn where_only_echoes_count_answers_are_evidence() {
    let config = quick()
        .to_builder()
        .evidence(Evidence::Echo)
        .build()
        .unwrap();
    let (mut heartbeat, mut peer) = wrapped(config);
    peer.greet(config).await;
    tokio::spawn(async move {
        peer.answer_for(ms(10_000)).await;
        std::future::pending::<()>().await;
    });
    let start = Instant::now();
    let events = all_events(&mut heartbeat).await;
    assert!(matches!(events.last(), Some(PeerEvent::Dead(_))));
    assert!(start.elapsed() >= ms(10_600), "{:?}", start.elapsed());
}

/// We are late by less than is a stall, and what arrived before the deadline
/// is read after it: it counts, whatever counts.
#[tokio::test(start_paused = true)]
async fn what_came_before_the_deadline_counts_also_if_it_is_read_after_it() {
    for evidence in [Evidence::AnyBytes, Evidence::Frame, Evidence::Echo] {
        // Behind this many messages.
        for messages in [0, 1, 3] {
            let config = quick().to_builder().evidence(evidence).build().unwrap();
            let (mut heartbeat, mut peer) = wrapped(config);
            peer.greet(config).await;
            let start = Instant::now();
            let mut nonce = None;
            while start.elapsed() < ms(790) {
                while let Some(event) = heartbeat.next().now_or_never() {
                    assert!(!event.unwrap().is_terminal());
                }
                while let Some(control) = peer.read_control().now_or_never() {
                    if let Some(Control::Ping(of_ping)) = control {
                        nonce = Some(of_ping);
                    }
                }
                advance(ms(10)).await;
            }
            for _ in 0..messages {
                peer.send_data(b"message").await;
            }
            peer.send_control(Control::Pong(nonce.unwrap())).await;
            // The deadline is at 800 ms, and the next poll at 850 ms.
            advance(ms(60)).await;

            let late: Vec<_> =
                std::iter::from_fn(|| heartbeat.next().now_or_never().flatten()).collect();
            let notable = notable(&late);
            assert_eq!(notable.len(), messages + 1, "{evidence:?}: {late:?}");
            let recovered = |event| matches!(event, &&PeerEvent::Recovered { .. });
            assert!(notable.iter().any(recovered), "{late:?}");
            assert!(
                late.iter()
                    .any(|event| matches!(event, PeerEvent::Beat { .. }))
            );
        }
    }
}

/// A peer whose reading task is dead, and whose writing task pings on.
#[tokio::test(start_paused = true)]
async fn pings_are_no_evidence_whatever_counts() {
    let ping: &'static [u8] = framed(b"\x0212345678").leak();
    for evidence in [
        Evidence::Acknowledgement,
        Evidence::AnyBytes,
        Evidence::Frame,
        Evidence::Echo,
    ] {
        let verdict = dead_after(evidence, ping).await;
        assert_eq!(verdict, Some((ms(800), Cause::Silent)), "{evidence:?}");
    }
}

/// The kernel has counted their bytes, too. Those that a wrapper has passed on count above it.
#[tokio::test(start_paused = true)]
async fn pings_through_a_wrapper_are_no_evidence_below_it_either() {
    let config = quick().to_builder().min_rate(1).build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
    let ours = BufStream::new(ours.unwrap());
    let heartbeat = Heartbeat::new(ours, config);
    let mut heartbeat = heartbeat.with_socket(|stream| Some(stream.get_ref()));
    let mut peer = RawPeer::new(theirs.unwrap().0);
    peer.greet(quick()).await;
    let greeted = heartbeat.next().await;
    assert!(matches!(greeted, Some(PeerEvent::Connected { .. })));
    let pinging = tokio::spawn(async move {
        loop {
            tokio::time::sleep(ms(150)).await;
            peer.send_control(Control::Ping(Nonce([1; 8]))).await;
        }
    });
    let events = timeout(ms(5_000), all_events(&mut heartbeat)).await;
    pinging.abort();
    let events = events.expect("it is silent");
    assert!(matches!(events.last(), Some(PeerEvent::Dead(death)) if death.cause == Cause::Silent));
}

/// A wrapper that passes on what has arrived until it is told to keep it.
struct Keeps {
    stream: TcpStream,
    keeps: Arc<AtomicBool>,
}

impl AsyncRead for Keeps {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.keeps.load(Ordering::Relaxed) {
            true => Poll::Pending,
            false => Pin::new(&mut self.stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Keeps {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// 200 bytes in 400 ms, which only the kernel has seen.
#[tokio::test(start_paused = true)]
async fn bytes_that_a_wrapper_keeps_are_life_if_they_come_at_the_rate() {
    let are_seen = cfg!(any(target_os = "linux", target_os = "android"));
    for (bytes, lives) in [(199, false), (200, are_seen)] {
        let config = quick().to_builder().min_rate(500).build().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        let keeps = Arc::<AtomicBool>::default();
        let ours = Keeps {
            stream: ours.unwrap(),
            keeps: keeps.clone(),
        };
        let heartbeat = Heartbeat::new(ours, config);
        let mut heartbeat = heartbeat.with_socket(|ours| Some(&ours.stream));
        let mut peer = RawPeer::new(theirs.unwrap().0);
        peer.greet(quick()).await;
        let greeted = heartbeat.next().await;
        assert!(matches!(greeted, Some(PeerEvent::Connected { .. })));
        keeps.store(true, Ordering::Relaxed);
        let start = Instant::now();
        let sending = tokio::spawn(async move {
            tokio::time::sleep(ms(300)).await;
            peer.send_raw(&vec![0; bytes]).await;
            peer
        });
        let events = all_events(&mut heartbeat).await;
        let took = start.elapsed();
        assert_eq!(took > ms(850), lives, "{bytes}: {took:?}, {events:?}");
        assert!(took >= ms(800), "{bytes}: {took:?}, {events:?}");
        drop(sending);
    }
}

/// However often it comes, and however slowly a message may arrive.
#[tokio::test(start_paused = true)]
async fn half_a_ping_is_no_evidence() {
    let slowest = quick().to_builder().min_rate(1).build().unwrap();
    for (config, half) in [quick(), slowest]
        .into_iter()
        .flat_map(|config| (1..13).map(move |half| (config, half)))
    {
        let (mut heartbeat, mut peer) = wrapped(config);
        peer.greet(quick()).await;
        let start = Instant::now();
        let ping = framed(b"\x0212345678");
        let pinging = tokio::spawn(async move {
            for piece in ping.chunks(half).cycle() {
                tokio::time::sleep(ms(150)).await;
                peer.send_raw(piece).await;
            }
        });
        let events = timeout(ms(5_000), all_events(&mut heartbeat)).await;
        pinging.abort();
        assert_eq!(start.elapsed(), ms(800), "{half}: {events:?}");
    }
}

/// These bytes arrive, each after a pause in milliseconds, and 500 bytes per second are fast
/// enough. How long until it is dead?
async fn dead_after_pieces(pieces: &[(u64, &[u8])]) -> Duration {
    let config = quick().to_builder().min_rate(500).build().unwrap();
    let (mut heartbeat, mut peer) = wrapped(config);
    peer.greet(config).await;
    let start = Instant::now();
    let talking = async {
        for &(pause, bytes) in pieces {
            tokio::time::sleep(ms(pause)).await;
            peer.send_raw(bytes).await;
        }
        std::future::pending().await
    };
    tokio::select! {
        events = all_events(&mut heartbeat) => {
            let last = events.last();
            assert!(
                matches!(last, Some(PeerEvent::Dead(death)) if death.cause == Cause::Silent),
                "{last:?}"
            );
        }
        () = talking => {}
    }
    start.elapsed()
}

/// Most of a message counts when it arrives. The next message counts from its first byte.
#[tokio::test(start_paused = true)]
async fn the_bytes_of_each_message_are_counted_from_its_beginning() {
    let (first, second) = (framed(&[0; 1_001]), framed(&[0; 2_001]));
    // The last are more than 500 bytes per second, and hardly more than there were of the first.
    let pieces = [
        (0, &first[..900]),
        (100, &first[900..]),
        (700, &second[..950]),
    ];
    assert_eq!(dead_after_pieces(&pieces).await, ms(100 + 700 + 800));
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_exactly_as_fast_as_the_rate_are_life_and_one_less_is_silence() {
    let (message, next) = (framed(b"\0message"), framed(&[0; 2_001]));
    // 500 bytes per second, and length and tag.
    for (bytes, dead_after) in [(350 + 5, 700 + 800), (349 + 5, 800)] {
        let pieces = [(0, &message[..]), (700, &next[..bytes])];
        let dead = dead_after_pieces(&pieces).await;
        assert_eq!(dead, ms(dead_after), "{bytes} bytes");
    }
}

/// A line loses our direction from some time on. The peer's data still arrives; the peer
/// hears nothing, gives us up, and says so.
#[tokio::test(start_paused = true)]
async fn where_only_what_we_send_is_lost_we_are_told() {
    let (ours, theirs, line) = Line::pair();
    let cut_at = Instant::now() + ms(1_234);
    tokio::spawn(async move {
        sleep_until(cut_at).await;
        line.cut(Side::Left);
    });

    let theirs = Heartbeat::new(theirs, quick()).spawn();
    let sender = theirs.sender.clone();
    tokio::spawn(async move {
        while sender.send("data".into()).await.is_ok() {
            tokio::time::sleep(ms(50)).await;
        }
    });
    let mut ours = Heartbeat::new(ours, quick());
    let events = all_events(&mut ours).await;
    let Some(PeerEvent::Dead(death)) = events.last() else {
        panic!("{events:?}")
    };
    let Cause::GivenUp { code, detail } = &death.cause else {
        panic!("{death}")
    };
    assert_eq!(*code, GoodbyeCode::SILENT);
    assert_eq!(*detail, "silent for 800ms");
    assert!(cut_at.elapsed() <= ms(800), "{:?}", cut_at.elapsed());
    let verdict = theirs.sender.closed().await.unwrap_err();
    assert_eq!(verdict.cause, Cause::Silent);
}
