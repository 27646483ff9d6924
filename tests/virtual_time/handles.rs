//! What the handles of a spawned connection offer besides sending and receiving, and
//! what stays of those that were dropped.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests may panic too"
)]

use std::{
    collections::HashMap,
    io::{self, ErrorKind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures::{Sink, StreamExt, stream::FusedStream};
use heartbeat_tests::{by_peer, data_frame, ms, quick, scripted::greeted, secs, wrapped};
use heartbeat_tokio::{
    Cause, CloseError, CloseReason, Config, Death, Detail, Driver, GoodbyeCode, Heartbeat, Hello,
    NetStatus, Nonce, PeerEvent, Postcard, Protocol, ProtocolError, Receiver, SendError, Sender,
    State, Status, Transport, TrySendError, WeakSender,
};
use tokio::{
    io::DuplexStream,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

/// Over a stream of this many bytes, with a living peer that takes a message now and then.
fn slow_peer(room: usize, each: Duration) -> (Driver<Bytes>, JoinHandle<()>) {
    let (ours, theirs) = tokio::io::duplex(room);
    let mut peer = Heartbeat::new(theirs, quick()).spawn();
    let reading = tokio::spawn(async move {
        while let Some(event) = peer.receiver.recv().await {
            if let PeerEvent::Message(_) = event {
                sleep(each).await;
            }
        }
        drop(peer.sender);
    });
    (Heartbeat::new(ours, quick()).spawn(), reading)
}

/// Sends until there is no room for long.
async fn fill(sender: &Sender<Bytes>, message: &Bytes) {
    while timeout(ms(500), sender.send(message.clone())).await.is_ok() {}
}

// ---- sending -----------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn try_send_gives_the_message_back_when_there_is_no_room() {
    let (driver, reading) = slow_peer(1024, secs(3600));
    let sender = &driver.sender;
    let message = Bytes::from(vec![7; 1024]);
    assert_eq!(sender.try_send(message.clone()), Ok(()));
    fill(sender, &message).await;
    let full = sender.try_send("this one".into());
    assert_eq!(full, Err(TrySendError::Full(Bytes::from("this one"))));
    assert!(!sender.is_closed());

    // The reason why none can be sent comes before a lack of room.
    let finishing = timeout(ms(1), sender.finish()).await;
    assert!(finishing.is_err(), "it waits behind what is queued");
    let finished = sender.try_send(message.clone());
    assert_eq!(finished, Err(TrySendError::Failed(SendError::Finished)));
    reading.abort();
    assert_eq!(sender.closed().await, Ok(by_peer()));
    let reason = by_peer();
    let closed = TrySendError::Failed(SendError::Closed(reason));
    assert_eq!(sender.try_send(message), Err(closed));
    assert!(sender.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_slow_consumer_shows_in_what_is_queued_and_for_how_long() {
    let (ours, mut raw) = wrapped(quick());
    let driver = ours.spawn();
    let sender = &driver.sender;
    raw.greet(quick()).await;
    sleep(ms(1)).await;
    let shown = |sender: &Sender<_>| (sender.queued(), sender.status().blocked_for);
    assert_eq!(shown(sender), (0, Duration::ZERO));

    // More than the stream holds. The peer lives, and reads nothing.
    let message = Bytes::from(vec![7; 64 * 1024]);
    for _ in 0..17 {
        sender.send(message.clone()).await.unwrap();
    }
    for step in 1..=10 {
        sleep(ms(100)).await;
        raw.send_data(b"I live").await;
        let (queued, blocked_for) = shown(sender);
        assert!(queued > 60_000, "{queued}");
        assert_eq!(blocked_for, ms(100 * step));
    }
    // It takes a little, and then everything.
    raw.read_frame().await.unwrap();
    sleep(ms(1)).await;
    assert!(sender.status().blocked_for <= ms(2));
    for _ in 0..20 {
        let _ = timeout(ms(10), raw.read_frame()).await;
    }
    assert_eq!(shown(sender), (0, Duration::ZERO));

    // Inline it shows too.
    let (mut ours, _raw) = wrapped(quick());
    let sending = async {
        loop {
            futures::SinkExt::send(&mut ours, message.clone())
                .await
                .unwrap();
        }
    };
    let _: Result<(), _> = timeout(ms(300), sending).await;
    assert_eq!(ours.status().blocked_for, ms(300));
}

// ---- futures that are dropped ------------------------------------------------

/// Each is given up while it waits for room, in a task of its own.
#[test]
fn senders_that_give_up_leave_nothing_behind() {
    let runtime = heartbeat_tests::scripted::runtime();
    let (driver, reading) = runtime.block_on(async {
        let (driver, reading) = slow_peer(1024, ms(50));
        // The peer's inbox, the stream and our queue.
        fill(&driver.sender, &Bytes::from(vec![7; 1024])).await;
        (driver, reading)
    });
    let give_up = |count: usize| {
        let measured = allocation_counter::measure(|| {
            runtime.block_on(async {
                for _ in 0..count {
                    let sender = driver.sender.clone();
                    let message = Bytes::from_static(&[7; 1024]);
                    let sending = async move {
                        timeout(ms(1), async move { sender.clone().send(message).await }).await
                    };
                    let sent = tokio::spawn(sending).await.unwrap();
                    assert!(!matches!(sent, Ok(Err(_))), "{sent:?}");
                }
            });
        });
        measured.bytes_current
    };
    // A waker that stays would be looked at by each sender that comes later.
    let kept: i64 = (0..16).map(|_| give_up(1000)).sum();
    assert!(kept < 300_000, "{kept} bytes");
    let is_alive = driver.sender.status().peer.state == State::Alive;
    assert!(is_alive, "it is slow, and lives");
    reading.abort();
}

/// How often a waker was called.
pub struct Counts(AtomicUsize);

impl Wake for Counts {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Counts {
    pub fn new() -> (Arc<Self>, Waker) {
        let counts = Arc::new(Self(AtomicUsize::new(0)));
        (counts.clone(), counts.into())
    }

    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Tasks may take turns in polling one handle. Only the last one waits.
#[tokio::test(start_paused = true)]
async fn a_sink_waits_in_one_place_and_a_future_that_is_dropped_in_none() {
    let (ours, mut raw) = wrapped(quick());
    let mut driver = ours.spawn();
    raw.greet(quick()).await;
    let message = Bytes::from(vec![7; 64 * 1024]);
    while timeout(ms(1), driver.sender.send(message.clone()))
        .await
        .is_ok()
    {}
    let polled: Vec<_> = (0..100)
        .map(|_| {
            let (counts, waker) = Counts::new();
            let sink = Pin::new(&mut driver.sender);
            let ready = Sink::poll_ready(sink, &mut Context::from_waker(&waker));
            assert!(ready.is_pending());
            counts
        })
        .collect();
    let (dropped, waker) = Counts::new();
    let mut sending = Box::pin(driver.sender.send(message));
    let poll = sending.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(poll.is_pending());
    drop(sending);
    drop(waker);
    assert_eq!(Arc::strong_count(&dropped), 1, "nobody keeps its waker");
    let kept = polled.iter().filter(|counts| Arc::strong_count(counts) > 1);
    assert_eq!(kept.count(), 1);

    for _ in 0..4 {
        raw.read_frame().await.unwrap();
    }
    sleep(ms(1)).await;
    let woken: Vec<_> = polled.iter().map(|counts| counts.get()).collect();
    let (last, others) = woken.split_last().unwrap();
    assert_eq!(others.iter().sum::<usize>(), 0);
    assert_eq!(*last, 1);
    // Woken, it has its place no more.
    let (_, waker) = Counts::new();
    let ready = Pin::new(&mut driver.sender).poll_ready(&mut Context::from_waker(&waker));
    assert!(matches!(ready, Poll::Ready(Ok(()))), "{ready:?}");
    drop(polled);
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_is_ready_for_a_message_waits_for_its_flush_no_more() {
    let (heartbeat, script) = greeted(quick()).await;
    let mut sender = heartbeat.spawn().sender;
    sleep(ms(1)).await;
    script.take_only(0);
    futures::SinkExt::feed(&mut sender, "queued".into())
        .await
        .unwrap();
    let (flush, waker) = Counts::new();
    let flushed = Pin::new(&mut sender).poll_flush(&mut Context::from_waker(&waker));
    assert!(flushed.is_pending());
    let ready = Pin::new(&mut sender).poll_ready(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(ready, Poll::Ready(Ok(()))), "{ready:?}");
    drop(waker);
    assert_eq!(Arc::strong_count(&flush), 1, "nobody keeps its waker");
}

/// Each that waits is woken for what it waits for, and not for anything else.
#[tokio::test(start_paused = true)]
async fn a_sender_that_waits_for_everything_to_be_written_is_not_woken_by_room() {
    let (ours, mut raw) = wrapped(quick());
    let driver = ours.spawn();
    raw.greet(quick()).await;
    let message = Bytes::from(vec![7; 64 * 1024]);
    while timeout(ms(1), driver.sender.send(message.clone()))
        .await
        .is_ok()
    {}
    let (counts, waker) = Counts::new();
    let mut flushing = Box::pin(driver.sender.flush());
    let poll = flushing.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(poll.is_pending());
    // Room for some of them, again and again.
    for _ in 0..2 {
        raw.read_frame().await.unwrap();
        sleep(ms(1)).await;
    }
    assert!(driver.sender.try_send(message).is_ok(), "there is room");
    assert_eq!(counts.get(), 0);
    while driver.sender.queued() > 0 {
        let _ = timeout(ms(10), raw.read_frame()).await;
    }
    sleep(ms(1)).await;
    assert_eq!(counts.get(), 1);
    flushing.await.unwrap();
}

// ---- weak handles ------------------------------------------------------------

/// The pattern that the documentation recommends: the handler has the strong handles,
/// and a map of all members has weak ones.
#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_is_over_for_its_peer_at_once() {
    let (ours, theirs) = tokio::io::duplex(1024);
    let mut peer = Heartbeat::new(theirs, quick()).spawn();
    let Driver {
        sender,
        mut receiver,
        ..
    } = Heartbeat::new(ours, quick()).spawn();
    let mut members = HashMap::from([("anna", sender.downgrade())]);
    let handler = tokio::spawn(async move {
        let _sender = sender;
        while let Some(event) = receiver.recv().await {
            assert!(!matches!(event, PeerEvent::Message(_)), "a bug");
        }
    });
    let anna: WeakSender<Bytes> = members["anna"].clone();
    anna.upgrade().unwrap().send("hello".into()).await.unwrap();
    sleep(secs(5)).await;
    assert_eq!(peer.sender.status().peer.state, State::Alive);

    let began = Instant::now();
    peer.sender.send("an order".into()).await.unwrap();
    assert!(handler.await.unwrap_err().is_panic());
    let mut told = Vec::new();
    while let Some(event) = peer.receiver.recv().await {
        told.push(event);
    }
    let reason = by_peer();
    assert_eq!(told.last(), Some(&PeerEvent::Closed { reason }));
    assert!(told.contains(&PeerEvent::Message("hello".into())));
    assert_eq!(began.elapsed(), Duration::ZERO);
    members.retain(|_, member| member.upgrade().is_some());
    assert!(members.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_weak_sender_is_as_good_as_a_strong_one_while_any_handle_is_left() {
    let (ours, theirs) = tokio::io::duplex(1024);
    let driver = Heartbeat::new(ours, quick()).spawn();
    let mut peer = Heartbeat::new(theirs, quick()).spawn();
    let weak = driver.sender.downgrade();
    drop(driver.sender);
    // The receiver keeps the connection.
    sleep(secs(5)).await;
    let sender = weak.upgrade().unwrap();
    sender.send("still here".into()).await.unwrap();
    drop(driver.receiver);
    sleep(secs(5)).await;
    assert_eq!(peer.sender.status().peer.state, State::Alive);
    drop(sender);
    assert!(weak.upgrade().is_none(), "the connection leaves");
    assert_eq!(peer.sender.closed().await, Ok(by_peer()));
    let received = async {
        loop {
            if let PeerEvent::Message(message) = peer.receiver.recv().await.unwrap() {
                break message;
            }
        }
    };
    assert_eq!(received.await, "still here");
    assert!(weak.upgrade().is_none());
}

// ---- names and values for users' code ------------------------------------------

/// What carries the connection is a parameter, without a macro for each.
struct Member<S, C: Protocol> {
    peer: Heartbeat<S, C>,
    heard: Vec<C::Message>,
}

impl<S, C: Transport<S>> Member<S, C> {
    async fn hear(&mut self) -> (State, usize) {
        while self.heard.is_empty() {
            match self.peer.next().await {
                Some(PeerEvent::Message(message)) => self.heard.push(message),
                event => assert!(event.is_some_and(|event| !event.is_terminal())),
            }
        }
        (self.peer.status().peer.state, self.heard.len())
    }
}

#[tokio::test(start_paused = true)]
async fn code_can_be_generic_over_what_carries_a_connection() {
    let (ours, mut raw) = wrapped(quick());
    raw.greet(quick()).await;
    raw.send_data(b"hello").await;
    let mut bytes = Member {
        peer: ours,
        heard: Vec::new(),
    };
    assert_eq!(bytes.hear().await, (State::Alive, 1));

    let (ours, theirs) = tokio::io::duplex(1024);
    let mut typed = Member {
        peer: Heartbeat::<DuplexStream, Postcard<u32>>::typed(ours, quick()),
        heard: Vec::new(),
    };
    let mut peer = Heartbeat::<_, Postcard<u32>>::typed(theirs, quick());
    futures::SinkExt::send(&mut peer, 7).await.unwrap();
    assert_eq!(typed.hear().await, (State::Alive, 1));
    assert_eq!(typed.heard, [7]);
}

#[test]
fn the_values_of_events_can_be_made_for_tests() {
    let config = Config::default();
    let peer: Hello = config.hello([7; 8]);
    let _: PeerEvent<()> = PeerEvent::Connected { peer };
    let mut death = Death::new(Cause::GivenUp {
        code: GoodbyeCode::SILENT,
        detail: Detail::from("silent for 14s"),
    });
    death.missed = 3;
    assert_eq!(
        death.to_string(),
        "given up by the peer, silent: \"silent for 14s\", silent for 0ns, 3 beats missed"
    );
    let mut status = Status::new(&config);
    assert_eq!(status.peer.state, State::Alive);
    assert_eq!(status.peer.detection_time, config.detection_time());
    assert_eq!(status.safety_net, NetStatus::NoSocket);
    status.peer.state = State::Suspect;
    status.blocked_for = secs(1);
    assert_ne!(status.peer, Status::new(&config).peer);
    assert_eq!(status.blocked_for, secs(1));
    assert_eq!(Nonce([1; 8]).0, [1; 8]);
}

#[test]
fn deaths_and_send_errors_are_errors_of_the_standard_library() {
    fn kind(error: impl Into<io::Error>) -> ErrorKind {
        error.into().kind()
    }
    let of = |cause| kind(Death::new(cause));
    assert_eq!(of(Cause::Silent), ErrorKind::TimedOut);
    assert_eq!(of(Cause::Eof), ErrorKind::UnexpectedEof);
    assert_eq!(of(Cause::Reset), ErrorKind::ConnectionReset);
    assert_eq!(of(Cause::Unreachable), ErrorKind::HostUnreachable);
    let broken = Cause::Protocol(ProtocolError::Loop);
    assert_eq!(of(broken), ErrorKind::InvalidData);
    assert_eq!(of(Cause::NotReading), ErrorKind::ConnectionAborted);
    assert_eq!(of(Cause::Io), ErrorKind::Other);

    let death = || Death::new(Cause::Reset);
    let dead = SendError::Dead(death());
    assert_eq!(kind(dead), ErrorKind::ConnectionReset);
    let closed = SendError::Closed(CloseReason::Local);
    assert_eq!(kind(closed), ErrorKind::BrokenPipe);
    let long = SendError::TooLong { length: 2, max: 1 };
    assert_eq!(kind(long), ErrorKind::InvalidInput);
    let lost = CloseError::Dead {
        death: death(),
        unwritten: 1,
    };
    assert_eq!(kind(SendError::from(lost)), ErrorKind::ConnectionReset);

    // What it was is kept.
    let error = io::Error::from(death());
    let kept = error.get_ref().and_then(|error| error.downcast_ref());
    assert_eq!(kept, Some(&death()));

    // And so a function with `?` in it may give either.
    fn fails() -> io::Result<()> {
        Err(SendError::Finished)?
    }
    assert!(fails().is_err());
}

/// As a stream, and without the traits of `futures`.
#[tokio::test(start_paused = true)]
async fn a_receiver_is_received_from() {
    let (ours, mut raw) = wrapped(quick());
    let mut receiver: Receiver<Bytes> = ours.spawn().receiver;
    raw.greet(quick()).await;
    raw.send_raw(&data_frame(b"hello")).await;
    assert!(matches!(
        receiver.recv().await,
        Some(PeerEvent::Connected { .. })
    ));
    assert_eq!(
        receiver.recv().await,
        Some(PeerEvent::Message("hello".into()))
    );
    drop(raw);
    let death = receiver.recv().await;
    assert!(matches!(death, Some(PeerEvent::Dead(_))), "{death:?}");
    assert_eq!(receiver.recv().await, None);
}

/// The terminal event may still wait in the inbox. A receiver shows its status, and a sender
/// its configuration.
#[tokio::test(start_paused = true)]
async fn a_stream_of_events_is_terminated_once_the_last_one_is_taken() {
    let (mut inline, peer) = wrapped(quick());
    drop(peer);
    assert!(!inline.is_terminated());
    let last = inline.next().await;
    assert!(matches!(last, Some(PeerEvent::Dead(_))), "{last:?}");
    assert!(inline.is_terminated());

    let (heartbeat, peer) = wrapped(quick());
    let Driver {
        sender,
        mut receiver,
        task,
        ..
    } = heartbeat.spawn();
    assert_eq!(sender.config(), quick());
    assert!(!receiver.is_terminated());
    assert!(format!("{receiver:?}").starts_with("Receiver { status: "));
    drop(peer);
    task.await.unwrap();
    assert!(!receiver.is_terminated());
    let last = receiver.next().await;
    assert!(matches!(last, Some(PeerEvent::Dead(_))), "{last:?}");
    assert!(receiver.is_terminated());
}

/// The task hasn't had a turn yet.
#[tokio::test(start_paused = true)]
async fn a_flush_writes_by_itself_what_was_queued() {
    let (ours, mut raw) = wrapped(quick());
    let sender = ours.spawn().sender;
    sender.try_send("queued".into()).unwrap();
    let flushed = futures::future::poll_immediate(sender.flush()).await;
    assert_eq!(flushed, Some(Ok(())));
    let hello = raw.read_frame().await;
    assert_eq!(hello.unwrap().first(), Some(&1));
    assert_eq!(raw.read_frame().await.as_deref(), Some(&b"\0queued"[..]));
}

#[tokio::test(start_paused = true)]
async fn debug_output_shows_the_stream_and_the_status_of_a_connection() {
    let (heartbeat, _peer) = wrapped(quick());
    let shown = format!("{heartbeat:?}");
    assert!(shown.starts_with("Heartbeat { stream: Some("), "{shown}");
    assert!(shown.contains(", status: Status { peer: "), "{shown}");
    let sender = heartbeat.spawn().sender;
    let shown = format!("{sender:?}");
    assert!(shown.starts_with("Sender { status: Status {"), "{shown}");
    assert_eq!(format!("{:?}", sender.downgrade()), "WeakSender");
}
