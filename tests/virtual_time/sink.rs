//! A `Heartbeat` as a `Stream` and a `Sink`: nothing is lost, repeated or
//! reordered, however it is polled, split or taken apart.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use heartbeat_tests::{
    RawPeer, all_events, data_frame, ms, notable, quick, scripted::filler, secs, slow_line, wrapped,
};
use heartbeat_tokio::{CloseReason, Config, Heartbeat, PeerEvent, SendError, State};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::sleep,
};

/// Messages of many sizes, around every limit that the buffers have.
fn messages() -> Vec<Bytes> {
    messages_up_to(usize::MAX)
}

fn messages_up_to(longest: usize) -> Vec<Bytes> {
    let sizes = [
        0, 1, 2, 15, 16, 64, 500, 1023, 1024, 1025, 2047, 4091, 4095, 4096, 4097, 8192,
    ];
    let large = [
        16_379,
        32_763,
        32_768,
        49_147,
        49_152,
        65_530,
        65_531,
        65_536,
        65_541,
        100_000,
        1 << 20,
    ];
    let all = sizes.into_iter().chain(large).chain(sizes).chain([3; 3000]);
    all.filter(|&size| size <= longest)
        .enumerate()
        .map(|(n, size)| filler(n, size))
        .collect()
}

fn received(events: &[PeerEvent<Bytes>]) -> Vec<Bytes> {
    let messages = events.iter().filter_map(|event| match event {
        PeerEvent::Message(message) => Some(message.clone()),
        _ => None,
    });
    messages.collect()
}

fn assert_same(received: &[Bytes], sent: &[Bytes]) {
    assert_eq!(received.len(), sent.len());
    for (n, (received, sent)) in received.iter().zip(sent).enumerate() {
        assert!(
            received == sent,
            "message {n} of {} bytes differs",
            sent.len()
        );
    }
}

async fn send_all_and_close<S>(heartbeat: &mut Heartbeat<S>, messages: &[Bytes], flush_each: bool)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    for message in messages {
        match flush_each {
            true => heartbeat.send(message.clone()).await.unwrap(),
            false => heartbeat.feed(message.clone()).await.unwrap(),
        }
    }
    heartbeat.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn every_message_arrives_as_it_was_whatever_room_the_stream_has() {
    for room in [1, 7, 64, 4096, 1 << 16, 1 << 22] {
        // Byte by byte the large ones would only take longer.
        let messages = messages_up_to(5000 * room);
        for flush_each in [true, false] {
            let (ours, theirs) = tokio::io::duplex(room);
            let config = Config::default();
            let (mut a, mut b) = (Heartbeat::new(ours, config), Heartbeat::new(theirs, config));
            let (events, ()) = tokio::join!(
                all_events(&mut b),
                send_all_and_close(&mut a, &messages, flush_each)
            );
            assert_same(&received(&events), &messages);
        }
    }
}

#[tokio::test]
async fn every_message_arrives_over_tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
    let config = Config::default();
    let mut a = Heartbeat::new(ours.unwrap(), config);
    let mut b = Heartbeat::new(theirs.unwrap().0, config);
    let sent = messages();
    let (events, ()) = tokio::join!(all_events(&mut b), send_all_and_close(&mut a, &sent, false));
    assert_same(&received(&events), &messages());
}

#[tokio::test(start_paused = true)]
async fn every_split_of_a_stream_of_frames_into_reads_gives_the_same_messages() {
    let payloads: Vec<Bytes> = [3, 0, 1024, 5000, 70_000, 9, 2]
        .into_iter()
        .map(|size| filler(size, size))
        .collect();
    let mut bytes = Vec::new();
    for payload in &payloads {
        bytes.extend(data_frame(payload));
    }
    for step in [
        1,
        2,
        3,
        5,
        7,
        100,
        1023,
        1025,
        4999,
        65_535,
        65_536,
        1 << 20,
    ] {
        let (mut heartbeat, mut peer) = wrapped(quick());
        peer.greet(quick()).await;
        let writing = async {
            for part in bytes.chunks(step) {
                peer.send_raw(part).await;
                tokio::task::yield_now().await;
            }
            peer.stream.shutdown().await.unwrap();
        };
        let (events, ()) = tokio::join!(all_events(&mut heartbeat), writing);
        assert_same(&received(&events), &payloads);
    }
}

#[tokio::test(start_paused = true)]
async fn two_halves_in_two_tasks_carry_everything_in_both_directions() {
    for room in [64, 1 << 16] {
        let (ours, theirs) = tokio::io::duplex(room);
        let mut echo = Heartbeat::new(theirs, Config::default());
        let echoing = tokio::spawn(async move {
            let mut count = 0;
            while let Some(event) = echo.next().await {
                if let PeerEvent::Message(message) = event {
                    count += 1;
                    echo.send(message).await.unwrap();
                }
            }
            count
        });
        let (mut sink, mut stream) = Heartbeat::new(ours, Config::default()).split();
        let sending = tokio::spawn(async move {
            for message in messages() {
                sink.send(message).await.unwrap();
            }
            sink
        });
        let mut echoed = Vec::new();
        let all = messages();
        while echoed.len() < all.len() {
            if let Some(PeerEvent::Message(message)) = stream.next().await {
                echoed.push(message);
            }
        }
        assert_same(&echoed, &all);
        let mut sink = sending.await.unwrap();
        sink.close().await.unwrap();
        assert_eq!(echoing.await.unwrap(), all.len());
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_futures_at_any_point_loses_nothing() {
    let (ours, theirs) = slow_line(100, 1_000_000);
    let mut slow = Heartbeat::new(ours, Config::default());
    let mut peer = Heartbeat::new(theirs, Config::default());
    let sending = async {
        for message in messages() {
            slow.feed(message).await.unwrap();
            // Given up again and again.
            for micros in [0, 900, 2100] {
                let patience = std::time::Duration::from_micros(micros);
                let _ = tokio::time::timeout(patience, slow.flush()).await;
                let _ = tokio::time::timeout(patience, slow.next()).await;
            }
        }
        slow.close().await.unwrap();
    };
    let receiving = async {
        let mut messages = Vec::new();
        loop {
            match tokio::time::timeout(ms(1), peer.next()).await {
                Ok(Some(PeerEvent::Message(message))) => messages.push(message),
                Ok(None) => break messages,
                Ok(Some(_)) | Err(_) => {}
            }
        }
    };
    let ((), received) = tokio::join!(sending, receiving);
    assert_same(&received, &messages());
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_too_long_is_refused_and_the_connection_goes_on() {
    let config = quick().to_builder().max_frame(10).build().unwrap();
    let (ours, theirs) = tokio::io::duplex(1024);
    let (mut a, mut b) = (Heartbeat::new(ours, config), Heartbeat::new(theirs, config));
    let sending = async {
        let error = a.send(vec![0; 11].into()).await.unwrap_err();
        assert_eq!(
            error,
            SendError::TooLong {
                length: 11,
                max: 10
            }
        );
        a.send(vec![1; 10].into()).await.unwrap();
        a.close().await.unwrap();
    };
    let (events, ()) = tokio::join!(all_events(&mut b), sending);
    assert_eq!(received(&events), [vec![1; 10]]);
}

#[tokio::test(start_paused = true)]
async fn taken_apart_it_gives_back_everything_that_was_buffered() {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let config = quick();
    let mut heartbeat = Heartbeat::new(ours, config);
    let mut peer = RawPeer::new(theirs);
    peer.greet(config).await;
    peer.send_data(b"first").await;
    peer.send_data(b"second").await;
    peer.send_raw(&data_frame(b"third")[..6]).await;
    assert!(matches!(
        heartbeat.next().await,
        Some(PeerEvent::Connected { .. })
    ));
    assert_eq!(
        heartbeat.next().await,
        Some(PeerEvent::Message("first".into()))
    );
    heartbeat.feed("not flushed".into()).await.unwrap();

    let parts = heartbeat.into_parts();
    let second_and_half = [data_frame(b"second"), data_frame(b"third")[..6].to_vec()].concat();
    assert_eq!(parts.read, second_and_half);
    assert_eq!(parts.write, data_frame(b"not flushed"));
    assert!(parts.events.is_empty());
    drop(parts.stream);
}

/// What a waiting sender took in is handed out later, in order, and beyond
/// 256 KiB nothing is taken in.
#[tokio::test(start_paused = true)]
async fn messages_that_arrive_while_a_send_waits_are_kept_and_bounded() {
    let (ours, theirs) = tokio::io::duplex(4096);
    let config = Config::default();
    let mut heartbeat = Heartbeat::new(ours, config);
    let mut peer = RawPeer::new(theirs);
    peer.greet(config).await;
    let talking = tokio::spawn(async move {
        for n in 0..1000_u32 {
            peer.send_data(&[&n.to_be_bytes()[..], &[0; 996]].concat())
                .await;
        }
        peer
    });
    let sending = heartbeat.send(vec![1; 1 << 20].into());
    assert!(tokio::time::timeout(secs(600), sending).await.is_err());
    // The peer is stuck: we took no more than the limit, and gave no verdict.
    assert!(!talking.is_finished());
    assert_eq!(heartbeat.status().peer.state, State::Paused);

    let mut next = 0_u32;
    while next < 1000 {
        match heartbeat.next().await.unwrap() {
            PeerEvent::Message(message) => {
                assert_eq!(message[..4], next.to_be_bytes());
                next += 1;
            }
            event => assert!(!event.is_terminal(), "{event:?}"),
        }
    }
    talking.await.unwrap();
}

/// A sender in another task goes on when there is room, and not only when everything was
/// written.
#[tokio::test(start_paused = true)]
async fn a_sender_that_waits_for_room_goes_on_as_soon_as_there_is_some() {
    let (ours, mut theirs) = tokio::io::duplex(4096);
    let (mut sink, mut stream) = Heartbeat::new(ours, Config::default()).split();
    let queued = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&queued);
    let sending = tokio::spawn(async move {
        loop {
            sink.feed(vec![1; 16 * 1024].into()).await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let reading = tokio::spawn(async move { while stream.next().await.is_some() {} });
    sleep(ms(10)).await;
    let at_first = queued.load(Ordering::Relaxed);

    // Of some 200 KiB that lie there half are taken.
    theirs.read_exact(&mut [0; 6 * 16 * 1024]).await.unwrap();
    sleep(ms(10)).await;
    let later = queued.load(Ordering::Relaxed);
    assert!(later >= at_first + 5, "{at_first}, then {later}");
    sending.abort();
    reading.abort();
}

#[tokio::test(start_paused = true)]
async fn both_may_say_goodbye_at_once() {
    let (ours, theirs) = tokio::io::duplex(1024);
    let config = Config::default();
    let (mut a, mut b) = (Heartbeat::new(ours, config), Heartbeat::new(theirs, config));
    let (closed_a, closed_b) = tokio::join!(a.close(), b.close());
    closed_a.unwrap();
    closed_b.unwrap();
    for peer in [&mut a, &mut b] {
        let events = all_events(peer).await;
        assert!(matches!(
            notable(&events)[..],
            [PeerEvent::Closed {
                reason: CloseReason::Local | CloseReason::Peer { .. }
            }]
        ));
    }
}
