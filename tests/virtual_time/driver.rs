//! `spawn`: beats go on while the application works, and the handles are
//! answered.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use std::{future::poll_fn, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, SinkExt, StreamExt};
use heartbeat_core::Control;
use heartbeat_tests::{
    by_peer, data_frame, ms, quick,
    scripted::{control_frame, greeted},
    secs, wrapped,
};
use heartbeat_tokio::{
    Cause, CloseError, CloseReason, Config, Driver, Heartbeat, PeerEvent, ProbeError, Receiver,
    SendError, Sender, State,
};
use tokio::{
    io::DuplexStream,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

/// Two ends of one in-memory stream.
fn pair(room: usize, config: Config) -> (Heartbeat<DuplexStream>, Heartbeat<DuplexStream>) {
    let (ours, theirs) = tokio::io::duplex(room);
    (Heartbeat::new(ours, config), Heartbeat::new(theirs, config))
}

/// Reads on, and keeps what isn't a greeting or a beat.
fn record(mut peer: Heartbeat<DuplexStream>) -> JoinHandle<Vec<PeerEvent<Bytes>>> {
    tokio::spawn(async move {
        let mut events = Vec::new();
        while let Some(event) = peer.next().await {
            if !matches!(event, PeerEvent::Beat { .. } | PeerEvent::Connected { .. }) {
                events.push(event);
            }
        }
        events
    })
}

async fn next_message(receiver: &mut Receiver<Bytes>) -> Bytes {
    loop {
        match receiver.next().await.expect("it goes on") {
            PeerEvent::Message(message) => return message,
            PeerEvent::Connected { .. } | PeerEvent::Beat { .. } => {}
            other => panic!("{other}"),
        }
    }
}

async fn terminal(receiver: &mut Receiver<Bytes>) -> PeerEvent<Bytes> {
    let mut last = None;
    while let Some(event) = receiver.next().await {
        assert!(
            !last.as_ref().is_some_and(PeerEvent::is_terminal),
            "{event}"
        );
        last = Some(event);
    }
    last.expect("there is an end")
}

#[tokio::test(start_paused = true)]
async fn an_application_that_works_for_a_minute_is_alive_and_so_is_its_peer() {
    let (ours, theirs) = pair(1024, quick());
    let Driver {
        sender,
        mut receiver,
        ..
    } = ours.spawn();
    let peer = record(theirs);
    for round in 0..3 {
        sender.send(format!("round {round}").into()).await.unwrap();
        // Nothing of ours is polled meanwhile.
        sleep(secs(60)).await;
        assert_eq!(sender.status().peer.state, State::Alive);
        while let Some(event) = receiver.next().now_or_never() {
            let event = event.expect("it goes on");
            assert!(
                matches!(event, PeerEvent::Beat { .. } | PeerEvent::Connected { .. }),
                "{event}"
            );
        }
    }
    drop((sender, receiver));
    let events = peer.await.unwrap();
    let round = |n: u32| PeerEvent::Message(Bytes::from(format!("round {n}")));
    let reason = by_peer();
    assert_eq!(
        events,
        [round(0), round(1), round(2), PeerEvent::Closed { reason }]
    );
}

/// A `select!` may poll `next` once and then do something else for long: the
/// waker that it left behind leads nowhere.
#[tokio::test(start_paused = true)]
async fn a_receiver_that_was_polled_once_and_forgotten_holds_nothing_up() {
    let (ours, theirs) = pair(1024, quick());
    let driver = ours.spawn();
    let mut receiver = driver.receiver;
    let peer = record(theirs);
    while receiver.next().now_or_never().is_some() {}
    sleep(secs(60)).await;
    assert_eq!(driver.sender.status().peer.state, State::Alive);
    drop((driver.sender, receiver));
    let reason = by_peer();
    assert_eq!(peer.await.unwrap(), [PeerEvent::Closed { reason }]);
}

#[tokio::test(start_paused = true)]
async fn a_ping_is_answered_at_once_while_the_application_works() {
    let (ours, mut raw) = wrapped(quick());
    let mut driver = ours.spawn();
    raw.greet(quick()).await;
    raw.send_data(b"an order").await;
    assert_eq!(next_message(&mut driver.receiver).await, "an order");
    sleep(ms(50)).await;
    let asked = Instant::now();
    let nonce = heartbeat_core::Nonce([1; 8]);
    raw.send_control(heartbeat_core::Control::Ping(nonce)).await;
    while raw.read_control().await != Some(heartbeat_core::Control::Pong(nonce)) {}
    assert_eq!(asked.elapsed(), Duration::ZERO);
}

/// The application may work for long after it has taken the last event out of a full inbox.
/// The task reads on at once, and not at the next beat.
#[tokio::test(start_paused = true)]
async fn when_the_inbox_is_empty_again_reading_goes_on_at_once() {
    let (ours, mut raw) = wrapped(quick());
    let mut driver = ours.spawn();
    raw.greet(quick()).await;
    let mut watch = driver.sender.watch();
    let flood = tokio::spawn(async move {
        let message = heartbeat_tests::data_frame(&[7; 1024]);
        for _ in 0..10_000 {
            raw.send_raw(&message).await;
        }
    });
    let paused = watch.wait_for(|status| status.peer.state == State::Paused);
    paused.await.unwrap();
    while driver.sender.status().peer.state == State::Paused {
        driver.receiver.next().await;
    }
    // The inbox fills anew, in no time.
    let paused = watch.wait_for(|status| status.peer.state == State::Paused);
    timeout(ms(1), paused).await.unwrap().unwrap();
    flood.abort();
}

#[tokio::test(start_paused = true)]
async fn a_full_inbox_stops_the_reading_and_both_sides_stay_alive() {
    let (ours, theirs) = pair(64 * 1024, quick());
    let Driver {
        sender,
        mut receiver,
        ..
    } = ours.spawn();
    let peer = theirs.spawn();
    let feeding = tokio::spawn({
        let sender = peer.sender.clone();
        async move {
            for number in 0..1000_u32 {
                let mut message = number.to_be_bytes().to_vec();
                message.resize(1024, 7);
                sender.send(message.into()).await.unwrap();
            }
        }
    });
    let mut states = sender.watch();
    let paused = states.wait_for(|status| status.peer.state == State::Paused);
    timeout(secs(1), paused).await.unwrap().unwrap();
    // Backpressure reaches the peer's application.
    sleep(secs(60)).await;
    assert!(!feeding.is_finished());
    assert_eq!(sender.status().peer.state, State::Paused);
    // Its pings lie unread, and it hears that we live.
    assert_eq!(peer.sender.status().peer.state, State::Alive);
    assert!(peer.sender.status().silent_for <= ms(200));
    // What we send reaches it.
    sender.send("we are busy".into()).await.unwrap();
    let mut theirs = peer.receiver;
    assert_eq!(next_message(&mut theirs).await, "we are busy");

    for number in 0..1000_u32 {
        let message = next_message(&mut receiver).await;
        assert_eq!(message[..4], number.to_be_bytes());
        assert_eq!(message.len(), 1024);
    }
    feeding.await.unwrap();
    sleep(secs(10)).await;
    assert_eq!(sender.status().peer.state, State::Alive);
}

#[tokio::test(start_paused = true)]
async fn messages_without_bytes_fill_the_inbox_too() {
    let (ours, mut raw) = wrapped(quick());
    let driver = ours.spawn();
    raw.greet(quick()).await;
    let empty = heartbeat_tests::data_frame(b"").repeat(1000);
    let flood = async {
        loop {
            raw.send_raw(&empty).await;
        }
    };
    let _ = timeout(ms(700), flood).await;
    assert_eq!(driver.sender.status().peer.state, State::Paused);
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_dead_in_time_although_nobody_reads() {
    let (ours, mut raw) = wrapped(quick());
    let driver = ours.spawn();
    raw.greet(quick()).await;
    raw.send_data(b"last words").await;
    let began = Instant::now();
    let death = driver.sender.closed().await.unwrap_err();
    assert_eq!(began.elapsed(), ms(800));
    assert_eq!(death.cause, Cause::Silent);
    assert!(matches!(
        driver.sender.send("?".into()).await,
        Err(SendError::Dead(_))
    ));
    assert_eq!(
        driver.sender.probe().await,
        Err(ProbeError::Dead(death.clone()))
    );
    // What came before the end is told before it, whenever it is asked for.
    sleep(secs(60)).await;
    let told: Vec<_> = driver.receiver.collect().await;
    let last_words = PeerEvent::Message("last words".into());
    assert!(
        told.ends_with(&[last_words, PeerEvent::Dead(death)]),
        "{told:?}"
    );
    // And the stream is closed.
    while raw.read_frame().await.is_some() {}
}

#[tokio::test(start_paused = true)]
async fn a_probe_gives_the_round_trip() {
    let (ours, mut raw) = wrapped(quick());
    let driver = ours.spawn();
    raw.greet(quick()).await;
    tokio::spawn(async move {
        while let Some(control) = raw.read_control().await {
            if let heartbeat_core::Control::Ping(nonce) = control {
                sleep(ms(30)).await;
                raw.send_control(heartbeat_core::Control::Pong(nonce)).await;
            }
        }
    });
    for _ in 0..5 {
        sleep(ms(73)).await;
        assert_eq!(driver.sender.probe().await, Ok(ms(30)));
    }
}

/// The connection and the watch have a lock each. On several threads the order
/// in which they are taken matters.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn probes_from_many_threads_are_all_answered() {
    // As many pings as there is time for.
    let eager = Config::detect_within(secs(3)).unwrap().to_builder();
    let eager = eager.min_interval(Duration::from_micros(1));
    let (ours, theirs) = pair(4096, eager.build().unwrap());
    let (ours, theirs) = (ours.spawn(), theirs.spawn());
    let probing = [&ours.sender, &theirs.sender]
        .repeat(4)
        .into_iter()
        .cloned();
    let tasks: Vec<_> = probing
        .map(|sender| {
            tokio::spawn(async move {
                let until = Instant::now() + secs(1);
                while Instant::now() < until {
                    sender.send("between".into()).await.unwrap();
                    let answer = timeout(secs(10), sender.probe()).await;
                    // While an inbox is full, the answer isn't read.
                    let answer = answer.expect("nobody waits for ever");
                    assert!(!matches!(answer, Err(ProbeError::Dead(_))), "{answer:?}");
                    assert_ne!(sender.status().peer.state, State::Dead);
                }
            })
        })
        .collect();
    let (mut one, mut other) = (ours.receiver, theirs.receiver);
    let reading = async {
        loop {
            tokio::select! {
                event = one.next() => assert!(event.is_some_and(|event| !event.is_terminal())),
                event = other.next() => assert!(event.is_some_and(|event| !event.is_terminal())),
            }
        }
    };
    tokio::select! {
        () = reading => {}
        probed = timeout(secs(20), futures::future::try_join_all(tasks)) => {
            probed.expect("nobody waits for ever").unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_nobody_answers_ends() {
    let (ours, mut raw) = wrapped(quick());
    let driver = ours.spawn();
    raw.greet(quick()).await;
    sleep(ms(10)).await;
    // The verdict, within the budget.
    let began = Instant::now();
    let Err(ProbeError::Dead(death)) = driver.sender.probe().await else {
        panic!("it is dead");
    };
    assert_eq!(death.cause, Cause::Silent);
    assert_eq!(began.elapsed(), ms(600));

    // A peer that talks and answers no ping.
    let (ours, mut raw) = wrapped(quick());
    let driver = ours.spawn();
    raw.greet(quick()).await;
    tokio::spawn(async move {
        loop {
            raw.send_data(b"well").await;
            sleep(ms(50)).await;
        }
    });
    let mut receiver = driver.receiver;
    tokio::spawn(async move { while receiver.next().await.is_some() {} });
    let waited = ms(800);
    assert_eq!(
        driver.sender.probe().await,
        Err(ProbeError::Unanswered { waited })
    );
    assert_eq!(driver.sender.status().peer.state, State::Alive);
}

#[tokio::test(start_paused = true)]
async fn the_watch_tells_each_change() {
    let (ours, mut raw) = wrapped(quick());
    let driver = ours.spawn();
    let mut watch = driver.sender.watch();
    assert!(watch.borrow_and_update().peer.peer.is_none());
    raw.greet(quick()).await;
    watch.changed().await.unwrap();
    assert!(watch.borrow_and_update().peer.peer.is_some());
    let suspect = watch.wait_for(|status| status.peer.state == State::Suspect);
    assert_eq!(suspect.await.unwrap().peer.missed, 1);
    raw.send_data(b"I was busy").await;
    let alive = watch.wait_for(|status| status.peer.state == State::Alive);
    assert_eq!(alive.await.unwrap().peer.missed, 0);
    let dead = watch.wait_for(|status| status.peer.state == State::Dead);
    assert_eq!(dead.await.unwrap().peer.missed, 3);
}

#[tokio::test(start_paused = true)]
async fn close_says_goodbye_behind_what_was_queued() {
    let (ours, theirs) = pair(64, quick());
    let driver = ours.spawn();
    let peer = record(theirs);
    for _ in 0..10 {
        driver.sender.send("a message".into()).await.unwrap();
    }
    assert_eq!(driver.sender.close().await, Ok(CloseReason::Local));
    driver.task.await.unwrap();
    let events = peer.await.unwrap();
    assert_eq!(events.len(), 11);
    let reason = by_peer();
    assert_eq!(events[10], PeerEvent::Closed { reason });
    let mut receiver = driver.receiver;
    let reason = CloseReason::Local;
    assert_eq!(terminal(&mut receiver).await, PeerEvent::Closed { reason });
    assert!(matches!(
        driver.sender.send("?".into()).await,
        Err(SendError::Closed(CloseReason::Local))
    ));
}

/// The peer hears the goodbye and doesn't hang up. Closing as a `Sink` waits for it
/// without keeping a processor busy.
#[tokio::test(start_paused = true)]
async fn a_sink_that_is_closed_waits_and_does_not_ask_again_and_again() {
    let (ours, theirs) = pair(1 << 16, quick());
    let mut peer = ours.spawn();
    let _theirs = theirs; // hears nothing
    let mut polls = 0;
    let closed = poll_fn(|cx| {
        polls += 1;
        assert!(polls < 100, "asked {polls} times");
        peer.sender.poll_close_unpin(cx)
    });
    let closed = closed.await.unwrap_err();
    let SendError::NotClosed(CloseError::Dead {
        death,
        unwritten: 0,
    }) = closed
    else {
        panic!("{closed}")
    };
    assert_eq!(death.cause, Cause::Silent);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_handles_closes_in_bounded_time_also_without_a_reader() {
    let (ours, raw) = wrapped(quick());
    let driver = ours.spawn();
    // More than the stream holds, and the peer doesn't read.
    let mut sender = driver.sender;
    while timeout(ms(1), sender.feed(vec![0; 64 * 1024].into()))
        .await
        .is_ok()
    {}
    drop((sender, driver.receiver));
    let began = Instant::now();
    driver.task.await.unwrap();
    assert!(began.elapsed() <= ms(800), "{:?}", began.elapsed());
    drop(raw);
}

#[tokio::test(start_paused = true)]
async fn without_a_receiver_messages_are_thrown_away_and_the_peer_is_judged() {
    let (ours, theirs) = pair(64 * 1024, quick());
    let driver = ours.spawn();
    drop(driver.receiver);
    let peer = theirs.spawn();
    for _ in 0..10_000 {
        peer.sender.send(vec![0; 1024].into()).await.unwrap();
    }
    peer.sender.flush().await.unwrap();
    sleep(secs(10)).await;
    assert_eq!(driver.sender.status().peer.state, State::Alive);
    driver.sender.send("still here".into()).await.unwrap();
    let mut theirs = peer.receiver;
    assert_eq!(next_message(&mut theirs).await, "still here");
    peer.task.abort();
    let death = driver.sender.closed().await.unwrap_err();
    assert_eq!(death.cause, Cause::Eof);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_aborted_ends_the_connection() {
    let (ours, mut raw) = wrapped(quick());
    let driver = ours.spawn();
    raw.greet(quick()).await;
    raw.send_data(b"before").await;
    sleep(ms(10)).await;
    driver.task.abort();
    let death = driver.sender.closed().await.unwrap_err();
    assert_eq!(death.cause, Cause::Io);
    let mut receiver = driver.receiver;
    assert_eq!(next_message(&mut receiver).await, "before");
    assert_eq!(terminal(&mut receiver).await, PeerEvent::Dead(death));
    while raw.read_frame().await.is_some() {}
}

/// Some of it wasn't decoded, because the inbox was full.
#[tokio::test(start_paused = true)]
async fn a_task_that_is_aborted_leaves_all_messages_that_were_read() {
    let (heartbeat, script) = greeted(quick()).await;
    let driver = heartbeat.spawn();
    let frames = [data_frame(&[7; 1000]), control_frame(Control::Alive)].concat();
    for _ in 0..20 {
        script.give_bytes(frames.repeat(20));
    }
    sleep(ms(1)).await;
    assert_eq!(driver.sender.status().peer.state, State::Paused);
    let read = 20 * 20 - script.unread().div_ceil(frames.len());
    driver.task.abort();
    let death = driver.sender.closed().await.unwrap_err();
    assert_eq!(death.cause, Cause::Io);
    let events: Vec<_> = driver.receiver.collect().await;
    let messages = events.iter();
    let messages = messages.filter(|event| matches!(event, PeerEvent::Message(_)));
    assert_eq!(messages.count(), read);
    assert_eq!(events.last(), Some(&PeerEvent::Dead(death)));
}

/// With the receiver gone before.
#[tokio::test(start_paused = true)]
async fn a_connection_leaves_at_once_when_its_last_sender_is_dropped() {
    let (ours, theirs) = pair(1024, quick());
    let (ours, theirs) = (ours.spawn(), theirs.spawn());
    drop(ours.receiver);
    sleep(ms(50)).await;
    let began = Instant::now();
    drop(ours.sender);
    assert_eq!(theirs.sender.closed().await, Ok(by_peer()));
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn many_senders_share_the_connection_and_wait_for_room() {
    let (ours, theirs) = pair(4096, quick());
    let driver = ours.spawn();
    let peer = record(theirs);
    let tasks: Vec<_> = (0..8_u8)
        .map(|name| {
            let sender: Sender<Bytes> = driver.sender.clone();
            tokio::spawn(async move {
                for number in 0..500_u16 {
                    let [high, low] = number.to_be_bytes();
                    let mut message = vec![name, high, low];
                    message.resize(100 + usize::from(number), 0);
                    sender.send(message.into()).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    drop((driver.sender, driver.receiver));
    let mut next = [0_u16; 8];
    for event in peer.await.unwrap() {
        let PeerEvent::Message(message) = event else {
            continue;
        };
        let number = &mut next[usize::from(message[0])];
        assert_eq!(message[1..3], number.to_be_bytes());
        assert_eq!(message.len(), 100 + usize::from(*number));
        *number += 1;
    }
    assert_eq!(next, [500; 8]);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_too_long_is_refused_and_the_connection_goes_on() {
    let config = quick().to_builder().max_frame(10).build().unwrap();
    let (ours, theirs) = pair(1024, config);
    let driver = ours.spawn();
    let peer = record(theirs);
    assert_eq!(
        driver.sender.send(vec![0; 11].into()).await,
        Err(SendError::TooLong {
            length: 11,
            max: 10
        })
    );
    driver.sender.send(vec![0; 10].into()).await.unwrap();
    drop((driver.sender, driver.receiver));
    assert_eq!(peer.await.unwrap().len(), 2);
}
