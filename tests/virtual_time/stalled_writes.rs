//! Writing to a peer that doesn't read: it must not stop the timer, and it
//! must not make a peer that lives look dead. In virtual time.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use heartbeat_core::{Control, Nonce};
use heartbeat_tests::{
    RawPeer, all_events, ms, notable, quick,
    scripted::{control_frame, greeted},
    secs,
};
use heartbeat_tokio::{Cause, Heartbeat, PeerEvent, SendError};
use tokio::time::{Instant, sleep};

/// A heartbeat whose peer's end takes so few bytes that the first message
/// fills it.
fn narrow() -> (Heartbeat<tokio::io::DuplexStream>, RawPeer) {
    let (ours, theirs) = tokio::io::duplex(256);
    (Heartbeat::new(ours, quick()), RawPeer::new(theirs))
}

#[tokio::test(start_paused = true)]
async fn a_send_that_can_not_go_on_ends_with_the_verdict() {
    let (mut heartbeat, _peer) = narrow();
    let start = Instant::now();
    let error = heartbeat.send(vec![1; 100_000].into()).await.unwrap_err();
    assert!(matches!(error, SendError::Dead(death) if death.cause == Cause::WriteStalled));
    assert_eq!(start.elapsed(), ms(800));
    let events = all_events(&mut heartbeat).await;
    assert!(
        matches!(events.last(), Some(PeerEvent::Dead(death)) if death.cause == Cause::WriteStalled)
    );
}

#[tokio::test(start_paused = true)]
async fn waiting_for_events_with_a_full_send_buffer_gives_the_verdict_in_time() {
    let (mut heartbeat, _peer) = narrow();
    let start = Instant::now();
    // Given up before it was written.
    let sending = heartbeat.send(vec![1; 100_000].into());
    assert!(tokio::time::timeout(ms(50), sending).await.is_err());
    let events = all_events(&mut heartbeat).await;
    assert_eq!(start.elapsed(), ms(800));
    assert!(
        matches!(events.last(), Some(PeerEvent::Dead(death)) if death.cause == Cause::WriteStalled)
    );
}

#[tokio::test(start_paused = true)]
async fn the_two_halves_in_two_tasks_both_learn_of_the_verdict() {
    let (heartbeat, _peer) = narrow();
    let (mut sink, stream) = heartbeat.split();
    let start = Instant::now();
    let sending = tokio::spawn(async move { sink.send(vec![1; 100_000].into()).await });
    let reading = tokio::spawn(stream.collect::<Vec<_>>());
    let error = sending.await.unwrap().unwrap_err();
    assert!(matches!(error, SendError::Dead(_)));
    let events = reading.await.unwrap();
    assert!(matches!(events.last(), Some(PeerEvent::Dead(_))));
    assert_eq!(start.elapsed(), ms(800));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_sends_but_does_not_read_is_alive() {
    let (mut heartbeat, mut peer) = narrow();
    peer.greet(quick()).await;
    let talking = tokio::spawn(async move {
        for _ in 0..100 {
            tokio::time::sleep(ms(150)).await;
            peer.send_data(b"tick").await;
        }
    });
    let sending = heartbeat.send(vec![1; 100_000].into());
    assert!(tokio::time::timeout(secs(15), sending).await.is_err());
    let events = all_events(&mut heartbeat).await;
    assert!(notable(&events).len() >= 100);
    assert!(matches!(events.last(), Some(PeerEvent::Dead(death)) if death.cause == Cause::Eof));
    talking.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_limit_for_stalled_writes_ends_even_a_peer_that_sends() {
    let (ours, theirs) = tokio::io::duplex(256);
    let config = quick().to_builder().write_stall(secs(2)).build().unwrap();
    let (mut heartbeat, mut peer) = (Heartbeat::new(ours, config), RawPeer::new(theirs));
    peer.greet(quick()).await;
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(ms(150)).await;
            peer.send_data(b"tick").await;
        }
    });
    let start = Instant::now();
    let error = heartbeat.send(vec![1; 100_000].into()).await.unwrap_err();
    assert!(matches!(error, SendError::Dead(death) if death.cause == Cause::WriteStalled));
    assert_eq!(start.elapsed(), secs(2));
}

/// Only written bytes give it more time: neither what the peer sends, nor our
/// pongs and pings that wait, nor attempts to write.
#[tokio::test(start_paused = true)]
async fn the_limit_for_stalled_writes_counts_from_the_last_written_byte() {
    for spawned in [false, true] {
        let config = quick().to_builder().interval(ms(100)).write_stall(ms(500));
        let (heartbeat, script) = greeted(config.build().unwrap()).await;
        script.take_only(10_000);
        let pings = script.clone();
        let pinging = tokio::spawn(async move {
            for nonce in 0..=u8::MAX {
                pings.give_bytes(control_frame(Control::Ping(Nonce([nonce; 8]))));
                pings.give_bytes(control_frame(Control::Alive));
                sleep(ms(150)).await;
            }
        });
        // Some bytes are taken until 350 ms have passed.
        let last = Instant::now() + ms(350);
        let room = script.clone();
        let taking = tokio::spawn(async move {
            while Instant::now() < last {
                sleep(ms(70)).await;
                room.take_only(10);
            }
        });
        let message = vec![1; 100_000];
        let death = match spawned {
            false => {
                let mut heartbeat = heartbeat;
                let sent = heartbeat.send(message.into()).await;
                assert!(matches!(sent, Err(SendError::Dead(_))), "{sent:?}");
                all_events(&mut heartbeat).await.pop()
            }
            true => {
                let driver = heartbeat.spawn();
                driver.sender.send(message.into()).await.unwrap();
                driver.receiver.collect::<Vec<_>>().await.pop()
            }
        };
        assert!(
            matches!(&death, Some(PeerEvent::Dead(death)) if death.cause == Cause::WriteStalled),
            "{death:?}"
        );
        assert_eq!(last.elapsed(), ms(500), "spawned: {spawned}");
        taking.await.unwrap();
        pinging.abort();
    }
}

/// Not even the first byte of a message.
#[tokio::test(start_paused = true)]
async fn a_stream_that_takes_nothing_at_all_is_stalled_from_the_first_attempt() {
    let config = quick().to_builder().write_stall(secs(2)).build().unwrap();
    let (mut heartbeat, script) = greeted(config).await;
    script.take_only(0);
    let talking = tokio::spawn(async move {
        loop {
            sleep(ms(150)).await;
            script.give_bytes(control_frame(Control::Alive));
        }
    });
    let start = Instant::now();
    let sent = tokio::time::timeout(secs(60), heartbeat.send("hello".into())).await;
    assert!(
        matches!(&sent, Ok(Err(SendError::Dead(death))) if death.cause == Cause::WriteStalled),
        "{sent:?}"
    );
    assert_eq!(start.elapsed(), secs(2));
    talking.abort();
}

/// A long message is written in bursts, with a turn for other tasks in between. However long
/// that takes, it is no stalled write.
#[tokio::test(start_paused = true)]
async fn a_turn_for_others_is_no_stalled_write() {
    let config = quick().to_builder().write_stall(ms(5)).max_frame(16 << 20);
    let (heartbeat, script) = greeted(config.build().unwrap()).await;
    script.record_nothing();
    let driver = heartbeat.spawn();
    let others = tokio::spawn(async {
        loop {
            tokio::time::advance(ms(10)).await;
        }
    });
    let start = Instant::now();
    for _ in 0..8 {
        driver.sender.send(vec![1; 1 << 20].into()).await.unwrap();
        driver.sender.flush().await.unwrap();
    }
    assert!(start.elapsed() > ms(50), "others had no turn");
    others.abort();
}

/// Each burst is progress, after a time in which nothing was taken.
#[tokio::test(start_paused = true)]
async fn a_stalled_write_that_goes_on_in_bursts_has_its_time_again() {
    let config = quick()
        .to_builder()
        .write_stall(ms(500))
        .max_frame(16 << 20);
    let (heartbeat, script) = greeted(config.build().unwrap()).await;
    script.record_nothing();
    script.take_only(0);
    let driver = heartbeat.spawn();
    driver.sender.send(vec![1; 15 << 20].into()).await.unwrap();
    sleep(ms(300)).await;
    script.take_only(usize::MAX);
    let others = tokio::spawn(async move {
        loop {
            script.give_bytes(control_frame(Control::Alive));
            tokio::time::advance(ms(50)).await;
        }
    });
    let start = Instant::now();
    driver.sender.flush().await.unwrap();
    assert!(start.elapsed() > ms(500), "{:?}", start.elapsed());
    others.abort();
}

#[tokio::test(start_paused = true)]
async fn control_frames_overtake_queued_messages() {
    let (mut heartbeat, mut peer) = narrow();
    peer.greet(quick()).await;
    // The first message is begun and can't be finished; ten more wait.
    for n in 0..11_u8 {
        heartbeat.feed(vec![n; 1000].into()).await.unwrap();
    }
    let flushing = heartbeat.flush();
    assert!(tokio::time::timeout(ms(10), flushing).await.is_err());
    peer.send_control(Control::Ping(Nonce([5; 8]))).await;
    tokio::spawn(async move { while heartbeat.next().await.is_some() {} });

    let mut order = Vec::new();
    while order.len() < 14 {
        let frame = peer.read_frame().await.unwrap();
        order.push(match frame[..] {
            [0, n, ..] => format!("message {n}"),
            [1, ..] => "hello".into(),
            [2, ..] => "ping".into(),
            [3, ..] => "pong".into(),
            _ => format!("{frame:?}"),
        });
    }
    // It piggybacks a ping.
    assert_eq!(
        order[..5],
        ["hello", "message 0", "pong", "ping", "message 1"]
    );
    assert_eq!(order[13], "message 10");
}

/// A sender that waits takes messages in, so that two that send at once don't
/// wait for each other.
#[tokio::test(start_paused = true)]
async fn two_peers_that_send_at_once_both_get_through() {
    let (ours, theirs) = tokio::io::duplex(256);
    let config = quick();
    let mut a = Heartbeat::new(ours, config);
    let mut b = Heartbeat::new(theirs, config);
    let payload = Bytes::from(vec![1; 100_000]);
    let send_and_receive = async |peer: &mut Heartbeat<_>| {
        peer.send(payload.clone()).await.unwrap();
        loop {
            match peer.next().await.unwrap() {
                PeerEvent::Message(message) => break assert_eq!(message, payload),
                event => assert!(!event.is_terminal()),
            }
        }
    };
    tokio::join!(send_and_receive(&mut a), send_and_receive(&mut b));
}
