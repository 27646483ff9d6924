//! Untrusted peers, and an application that takes nothing: promise 18, refusals, loops, and
//! `max_pause`. In virtual time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{
    FutureExt, Sink, SinkExt, Stream, StreamExt,
    channel::mpsc,
    future::{join_all, poll_immediate},
};
use heartbeat_core::{Control, GoodbyeCode, Nonce, ProtocolError};
use heartbeat_tests::{
    RawPeer, all_events, data_frame, framed, ms, notable, parts, quick,
    scripted::{control_frame, greeted},
    secs, wrapped,
};
use heartbeat_tokio::{Cause, Config, Death, Dialect, Evidence, Frame, Heartbeat, PeerEvent};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::own_frames::OwnCodec;

const MICRO: Duration = Duration::from_micros(1);

/// Longer than anything here takes.
const NEVER: Duration = secs(1_000);

async fn death<M>(events: impl Stream<Item = PeerEvent<M>>) -> Death {
    let events = events.fold(None, async |_, event| Some(event));
    match timeout(NEVER, events).await {
        Ok(Some(PeerEvent::Dead(death))) => death,
        Ok(_) => panic!("another end than a death"),
        Err(_) => panic!("no end"),
    }
}

// ---- what a Hello may announce -------------------------------------------------

/// Both sides' ends, where the other accepts a ping in `min_interval` only.
async fn met(min_interval: Duration) -> (Heartbeat<DuplexStream>, JoinHandle<Death>) {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let slow = quick().to_builder().interval(secs(4)).timeout(secs(2));
    let slow = slow.min_interval(min_interval).build().unwrap();
    let other = tokio::spawn(async move { death(Heartbeat::new(theirs, slow)).await });
    (Heartbeat::new(ours, quick()), other)
}

/// Dead after 800 ms, so 3.2 s at most.
#[tokio::test(start_paused = true)]
async fn a_peer_that_stretches_our_detection_time_too_much_is_told_the_value_and_the_bound() {
    let most = ms(3_200 - 600);
    let (mut ours, _other) = met(most).await;
    let first = ours.next().await;
    assert!(matches!(first, Some(PeerEvent::Connected { .. })));
    assert_eq!(ours.detection_time(), ms(3_200));

    let (ours, other) = met(most + MICRO).await;
    assert_eq!(death(ours).await.cause, Cause::Refused);
    let Cause::GivenUp { code, detail } = other.await.unwrap().cause else {
        panic!("it was told nothing");
    };
    assert_eq!(code, GoodbyeCode::REFUSED);
    assert_eq!(
        detail,
        "a min_interval of 2.600001s, at most 2.6s is accepted"
    );
}

// ---- a complete Hello within the detection time ---------------------------------

/// The first frame's bytes, one each second; the stream stays open.
async fn drip(mut stream: DuplexStream, bytes: Vec<u8>) {
    for byte in bytes {
        if stream.write_all(&[byte]).await.is_err() {
            return;
        }
        sleep(secs(1)).await;
    }
    std::future::pending().await
}

fn a_hello() -> Vec<u8> {
    let mut buffer = [0; Control::MAX_ENCODED];
    let hello = Control::Hello(Config::default().hello([7; 8]));
    framed(hello.encode(&mut buffer).unwrap())
}

/// How long until it is gone, over each of the wires that have a Hello.
async fn gone_after(bytes: Vec<u8>, with_codec: bool) -> Duration {
    let (ours, theirs) = tokio::io::duplex(1 << 10);
    let begun = Instant::now();
    let dripping = tokio::spawn(drip(theirs, bytes));
    let config = Config::default();
    match with_codec {
        false => death(Heartbeat::new(ours, config)).await,
        true => death(Heartbeat::with_codec(ours, OwnCodec, config)).await,
    };
    dripping.abort();
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_thousand_strangers_that_drip_a_hello_are_gone_within_the_detection_time() {
    assert!(a_hello().len() > 20, "it takes longer than that");
    let endless = framed(&[1; 200]);
    let strangers = (0..1_000).map(|nth| match nth % 4 {
        0 => gone_after(a_hello(), false),
        1 => gone_after(endless.clone(), false),
        2 => gone_after(a_hello(), true),
        _ => gone_after(Vec::new(), nth % 8 == 7),
    });
    let longest = join_all(strangers).await.into_iter().max().unwrap();
    assert!(longest <= Config::default().detection_time(), "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_first_frame_that_is_no_hello_is_told_as_such_with_a_codec_too() {
    let firsts: [(Vec<u8>, u8); 4] = [
        (data_frame(b"message"), 0),
        (framed(b"\x0212345678"), 2),
        (framed(b"\x04\0\0"), 4),
        (framed(b"\x05"), 5),
    ];
    for (first, tag) in firsts {
        let (ours, theirs) = tokio::io::duplex(1 << 10);
        let dripping = tokio::spawn(drip(theirs, first));
        let death = death(Heartbeat::with_codec(ours, OwnCodec, Config::default())).await;
        let cause = Cause::Protocol(ProtocolError::HelloExpected { tag });
        assert_eq!(death.cause, cause);
        dripping.abort();
    }
}

/// Frames that a test puts in; what is sent goes nowhere.
struct Given(mpsc::UnboundedReceiver<Frame<Bytes>>);

impl Dialect for Given {
    type Message = Bytes;
    const HELLO: bool = true;
    const GOODBYE: bool = true;
}

impl Stream for Given {
    type Item = io::Result<Frame<Bytes>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx).map(|frame| frame.map(Ok))
    }
}

impl Sink<Frame<Bytes>> for Given {
    type Error = io::Error;

    fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn start_send(self: Pin<&mut Self>, _: Frame<Bytes>) -> io::Result<()> {
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn with_frames_too_nothing_before_the_hello_is_a_sign_of_life() {
    let (frames, given) = mpsc::unbounded();
    let begun = Instant::now();
    let parts = tokio::spawn(async move {
        // Pieces of something, each second.
        while frames.unbounded_send(Frame::Other).is_ok() {
            sleep(secs(1)).await;
        }
    });
    let config = Config::default();
    let silent = death(Heartbeat::with_frames(Given(given), config)).await;
    assert_eq!(silent.cause, Cause::Silent);
    assert!(begun.elapsed() <= config.detection_time());
    parts.abort();

    let (frames, given) = mpsc::unbounded();
    frames.unbounded_send(Frame::Other).unwrap();
    frames.unbounded_send(Frame::Alive).unwrap();
    let first = death(Heartbeat::with_frames(Given(given), config)).await;
    let cause = Cause::Protocol(ProtocolError::HelloExpected { tag: 5 });
    assert_eq!(first.cause, cause);

    // Behind it they are what they were.
    let (frames, given) = mpsc::unbounded();
    let hello = config.hello([7; 8]);
    frames.unbounded_send(Frame::Hello(hello)).unwrap();
    let parts = tokio::spawn(async move {
        while frames.unbounded_send(Frame::Other).is_ok() {
            sleep(secs(1)).await;
        }
    });
    let alive = death(Heartbeat::with_frames(Given(given), config));
    assert!(timeout(secs(100), alive).await.is_err());
    parts.abort();
}

/// Our own Hello has left then, and nothing is to do until a frame comes.
#[tokio::test(start_paused = true)]
async fn with_frames_a_message_before_the_hello_is_refused_however_late_it_comes() {
    let (frames, given) = mpsc::unbounded();
    let mut ours = Heartbeat::with_frames(Given(given), Config::default());
    assert!(poll_immediate(ours.next()).await.is_none());
    frames
        .unbounded_send(Frame::Data("too soon".into()))
        .unwrap();
    let cause = Cause::Protocol(ProtocolError::HelloExpected { tag: 0 });
    assert_eq!(death(ours).await.cause, cause);
}

#[tokio::test(start_paused = true)]
async fn with_frames_a_second_hello_lets_no_message_follow_a_fin() {
    let (frames, given) = mpsc::unbounded();
    let hello = Config::default().hello([7; 8]);
    for frame in [
        Frame::Hello(hello),
        Frame::Fin,
        Frame::Hello(hello),
        Frame::Data("late".into()),
    ] {
        frames.unbounded_send(frame).unwrap();
    }
    let death = death(Heartbeat::with_frames(Given(given), Config::default())).await;
    assert_eq!(death.cause, Cause::Protocol(ProtocolError::AfterFin));
}

/// Not even where a byte in a second is enough.
#[tokio::test(start_paused = true)]
async fn with_frames_too_a_ping_is_no_sign_of_life() {
    let config = quick().to_builder().min_rate(1).build().unwrap();
    let (frames, given) = mpsc::unbounded();
    let hello = config.hello([7; 8]);
    frames.unbounded_send(Frame::Hello(hello)).unwrap();
    frames.unbounded_send(Frame::Data("heard".into())).unwrap();
    let began = Instant::now();
    let pinging = tokio::spawn(async move {
        sleep(ms(500)).await;
        let ping = Frame::Ping(Some(Nonce([1; 8])));
        frames.unbounded_send(ping).unwrap();
        sleep(NEVER).await;
    });
    let death = death(Heartbeat::with_frames(Given(given), config)).await;
    assert_eq!(death.cause, Cause::Silent);
    assert_eq!(began.elapsed(), config.detection_time());
    pinging.abort();
}

// ---- min_rate ------------------------------------------------------------------

/// A message of 60,000 bytes, byte by byte, and no answers.
async fn trickle(mut peer: RawPeer, config: Config, per_second: u32) {
    peer.greet(config).await;
    let frame = data_frame(&[7; 60_000]);
    let (header, body) = frame.split_at(5);
    peer.send_raw(header).await;
    for byte in body.chunks(1) {
        sleep(secs(1) / per_second).await;
        if peer.stream.write_all(byte).await.is_err() {
            return;
        }
    }
}

/// When it is dead, if it is before the message is whole.
async fn trickles(config: Config, per_second: u32, with_codec: bool) -> Option<Duration> {
    let (ours, theirs) = tokio::io::duplex(1 << 10);
    let begun = Instant::now();
    let peer = tokio::spawn(trickle(RawPeer::new(theirs), config, per_second));
    let death = async {
        match with_codec {
            false => death(Heartbeat::new(ours, config)).await,
            true => death(Heartbeat::with_codec(ours, OwnCodec, config)).await,
        }
    };
    let death = timeout(secs(50), death).await.ok();
    peer.abort();
    let cause = death?.cause;
    assert_eq!(cause, Cause::Silent);
    Some(begun.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_frame_at_50_bytes_a_second_is_silence_and_at_150_it_is_life() {
    let config = Config::default();
    for with_codec in [false, true] {
        let dead_at = trickles(config, 50, with_codec).await.unwrap();
        assert!(dead_at <= config.detection_time(), "{dead_at:?}");
        assert_eq!(trickles(config, 150, with_codec).await, None);
    }
}

/// Also with so frequent reads that they aren't timed.
#[tokio::test(start_paused = true)]
async fn the_rate_is_the_configured_one() {
    let rate = |bytes| Config::builder().min_rate(bytes).build().unwrap();
    for with_codec in [false, true] {
        assert_eq!(trickles(rate(0), 1, with_codec).await, None, "off");
        assert!(trickles(rate(2_000), 1_000, with_codec).await.is_some());
        assert_eq!(trickles(rate(500), 1_000, with_codec).await, None);
    }
}

/// A busy connection that falls to a trickle: its reads weren't timed.
#[tokio::test(start_paused = true)]
async fn a_flood_of_messages_buys_no_time_for_the_one_that_never_ends() {
    for with_codec in [false, true] {
        let (ours, theirs) = tokio::io::duplex(1 << 10);
        let config = Config::mobile();
        let peer = tokio::spawn(async move {
            let mut peer = RawPeer::new(theirs);
            peer.greet(config).await;
            for _ in 0..2_000 {
                peer.send_data(&[7; 100]).await;
                sleep(ms(1)).await;
            }
            peer.send_raw(&data_frame(&[7; 60_000])[..5]).await;
            let last = Instant::now();
            // 50 bytes a second, so that reads are as close as on a busy one.
            for _ in 0..60_000 {
                sleep(ms(20)).await;
                if peer.stream.write_all(&[7]).await.is_err() {
                    break;
                }
            }
            last.elapsed()
        });
        let cause = match with_codec {
            false => death(Heartbeat::new(ours, config)).await.cause,
            true => {
                death(Heartbeat::with_codec(ours, OwnCodec, config))
                    .await
                    .cause
            }
        };
        assert_eq!(cause, Cause::Silent);
        let took = peer.await.unwrap();
        let slack = ms(20) + config.arrival_slack();
        assert!(took <= config.detection_time() + slack, "{took:?}");
    }
}

/// A part shows life when it is whole, and its bytes do before that.
#[tokio::test(start_paused = true)]
async fn a_long_message_over_a_slow_line_is_life_at_any_speed_above_the_rate() {
    for (per_second, alive) in [(1_000, true), (150, true), (60, false)] {
        let (mut heartbeat, mut peer) = wrapped(Config::default());
        let sending = tokio::spawn(async move {
            peer.greet(Config::default()).await;
            let message = parts(&vec![7; 200_000], 65_536);
            for piece in message.chunks(50) {
                peer.send_raw(piece).await;
                sleep(secs(50) / per_second).await;
            }
            std::future::pending::<()>().await;
        });
        let events = timeout(secs(190), all_events(&mut heartbeat)).await;
        assert_eq!(events.is_err(), alive, "{per_second}: {events:?}");
        sending.abort();
    }
}

/// Pings don't make old bytes new.
#[tokio::test(start_paused = true)]
async fn pings_between_the_parts_of_a_message_buy_no_time() {
    let config = Config::default();
    let (mut heartbeat, mut peer) = wrapped(config);
    peer.greet(config).await;
    let message = parts(&vec![7; 200_000], 65_536);
    // The first part, and the second one's header.
    let (first, rest) = message.split_at(5 + 3 + 65_536 + 5);
    peer.send_raw(&first[..first.len() - 5]).await;
    let begun = Instant::now();
    let (header, bytes) = (first[first.len() - 5..].to_vec(), rest.to_vec());
    let asking = tokio::spawn(async move {
        for nonce in 0..4_u8 {
            sleep(secs(2)).await;
            peer.send_control(Control::Ping(Nonce([nonce; 8]))).await;
        }
        peer.send_raw(&header).await;
        for byte in bytes.chunks(1) {
            peer.send_raw(byte).await;
            sleep(secs(1)).await;
        }
    });
    let events = all_events(&mut heartbeat).await;
    asking.abort();
    assert!(
        matches!(events.last(), Some(PeerEvent::Dead(_))),
        "{events:?}"
    );
    assert!(
        begun.elapsed() <= config.detection_time(),
        "{:?}",
        begun.elapsed()
    );
}

// ---- ourselves -------------------------------------------------------------------

/// What goes in at one end of a relay comes out at the other.
fn relay(mut from: tokio::io::ReadHalf<DuplexStream>, mut to: tokio::io::WriteHalf<DuplexStream>) {
    tokio::spawn(async move {
        let mut bytes = [0; 1000];
        while let Ok(read @ 1..) = from.read(&mut bytes).await {
            if to.write_all(&bytes[..read]).await.is_err() {
                break;
            }
        }
    });
}

async fn meets_itself(ours: DuplexStream, evidence: Evidence) {
    let config = quick().to_builder().evidence(evidence).build().unwrap();
    let mut heartbeat = Heartbeat::new(ours, config);
    let events = all_events(&mut heartbeat).await;
    let events = notable(&events);
    let [PeerEvent::Dead(death)] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(death.cause, Cause::Protocol(ProtocolError::Loop));
}

#[tokio::test(start_paused = true)]
async fn an_echo_server_is_a_loop_under_every_evidence() {
    for evidence in [Evidence::AnyBytes, Evidence::Frame, Evidence::Echo] {
        let (ours, server) = tokio::io::duplex(1 << 10);
        let (from, to) = tokio::io::split(server);
        relay(from, to);
        meets_itself(ours, evidence).await;
    }
}

/// Two clients, and two relays that were to join them: each gives its client back
/// what the other relay gave it.
#[tokio::test(start_paused = true)]
async fn two_crossed_relays_are_a_loop_at_both_ends() {
    for evidence in [Evidence::AnyBytes, Evidence::Echo] {
        let clients = [(); 2].map(|()| {
            let (ours, outer) = tokio::io::duplex(1 << 10);
            let (one, other) = tokio::io::duplex(1 << 10);
            let (from_client, to_client) = tokio::io::split(outer);
            let (from_one, to_one) = tokio::io::split(one);
            let (from_other, to_other) = tokio::io::split(other);
            relay(from_client, to_one);
            relay(from_other, to_other);
            relay(from_one, to_client);
            ours
        });
        for ours in clients {
            meets_itself(ours, evidence).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_codec_that_has_a_hello_meets_itself_too() {
    let (ours, server) = tokio::io::duplex(1 << 10);
    let (from, to) = tokio::io::split(server);
    relay(from, to);
    let death = death(Heartbeat::with_codec(ours, OwnCodec, quick())).await;
    assert_eq!(death.cause, Cause::Protocol(ProtocolError::Loop));
}

// ---- max_pause -------------------------------------------------------------------

/// Dead after 800 ms; a message may wait for 2 s.
fn limited() -> Config {
    quick().to_builder().max_pause(secs(2)).build().unwrap()
}

/// Sends a message of this size each `every`, and returns how it ended and when.
fn talks(stream: DuplexStream, bytes: usize, every: Duration) -> JoinHandle<(Death, Instant)> {
    let driver = Heartbeat::new(stream, quick()).spawn();
    tokio::spawn(async move {
        let sender = driver.sender.clone();
        let sending = async {
            while sender.send(vec![7; bytes].into()).await.is_ok() {
                sleep(every).await;
            }
        };
        let receiving = async { (death(driver.receiver).await, Instant::now()) };
        let (death, ()) = tokio::join!(receiving, sending);
        death
    })
}

/// The application slept too, with the whole process.
#[tokio::test(start_paused = true)]
async fn a_stall_of_the_process_is_not_counted_as_a_handler_that_hangs() {
    let (ours, mut theirs) = tokio::io::duplex(1 << 16);
    let driver = Heartbeat::new(ours, limited()).spawn();
    let hello = Control::Hello(quick().hello([7; 8]));
    theirs.write_all(&control_frame(hello)).await.unwrap();
    theirs.write_all(&data_frame(b"waits")).await.unwrap();
    sleep(ms(500)).await;
    tokio::time::advance(secs(60)).await;
    let woken = Instant::now();
    // From here on it may wait for 2 s again.
    let alive = tokio::spawn(async move {
        while theirs
            .write_all(&control_frame(Control::Alive))
            .await
            .is_ok()
        {
            sleep(ms(100)).await;
        }
    });
    driver.task.await.unwrap();
    let took = woken.elapsed();
    assert!((ms(1_990)..ms(2_200)).contains(&took), "{took:?}");
    alive.await.unwrap();
    let end = death(driver.receiver).await;
    assert_eq!(end.cause, Cause::NotReading);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_hangs_with_messages_waiting_ends_it_for_both_sides() {
    // Small ones that all fit, and large ones that make us stop reading.
    for (bytes, every) in [(10, ms(100)), (100_000, ms(1)), (10, secs(60))] {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let mut driver = Heartbeat::new(ours, limited()).spawn();
        let peer = talks(theirs, bytes, every);
        // The application takes one, and hangs.
        loop {
            if let Some(PeerEvent::Message(_)) = driver.receiver.next().await {
                break;
            }
        }
        let first = match every == secs(60) {
            true => Instant::now() + every,
            false => Instant::now() + every.min(ms(2)),
        };
        let task = driver.task;
        timeout(NEVER, task).await.unwrap().unwrap();
        let ours_at = Instant::now();
        let (theirs, theirs_at) = peer.await.unwrap();
        let bound = secs(2) + quick().detection_time();
        for at in [ours_at, theirs_at] {
            let took = at.saturating_duration_since(first);
            assert!((ms(1_990)..=bound).contains(&took), "{bytes}: {took:?}");
        }
        let Cause::GivenUp { code, detail } = theirs.cause else {
            panic!("{theirs}");
        };
        assert_eq!(code, GoodbyeCode::NOT_READING);
        assert_eq!(detail, "a message waited for 2s");

        // When it goes on it gets all that came, and then learns of it.
        let events: Vec<_> = driver.receiver.collect().await;
        let (last, before) = events.split_last().unwrap();
        let PeerEvent::Dead(death) = last else {
            panic!("{last}");
        };
        assert_eq!(death.cause, Cause::NotReading);
        let messages = before
            .iter()
            .filter(|event| matches!(event, PeerEvent::Message(_)));
        assert!(messages.count() > 0);
        assert!(!before.iter().any(PeerEvent::is_terminal));
    }
}

/// Of what was read at once a part was in the inbox when that was full.
#[tokio::test(start_paused = true)]
async fn all_that_was_read_before_the_verdict_is_handed_out_before_it() {
    let (heartbeat, script) = greeted(limited()).await;
    let driver = heartbeat.spawn();
    let message = |number: usize| number.to_be_bytes().repeat(125);
    let frame = data_frame(&message(0)).len();
    for piece in 0..30 {
        let frames = (20 * piece..20 * (piece + 1)).map(|number| data_frame(&message(number)));
        script.give_bytes(frames.collect::<Vec<_>>().concat());
    }
    timeout(NEVER, driver.task).await.unwrap().unwrap();
    let read = 600 - script.unread().div_ceil(frame);

    let mut events: Vec<_> = driver.receiver.collect().await;
    let Some(PeerEvent::Dead(death)) = events.pop() else {
        panic!("{events:?}");
    };
    assert_eq!(death.cause, Cause::NotReading);
    let messages: Vec<_> = events
        .into_iter()
        .filter_map(|event| match event {
            PeerEvent::Message(message) => Some(message),
            other => {
                assert!(!other.is_terminal());
                None
            }
        })
        .collect();
    assert_eq!(messages.len(), read);
    assert!((200..600).contains(&read), "{read}");
    assert!((messages.iter().enumerate()).all(|(number, got)| *got == message(number)));
}

/// The application's time begins anew only after a stall.
#[tokio::test(start_paused = true)]
async fn a_process_that_is_late_by_what_is_tolerated_has_not_slept() {
    for (late, cause) in [(ms(200), Cause::NotReading), (ms(201), Cause::Silent)] {
        let (heartbeat, script) = greeted(limited()).await;
        let driver = heartbeat.spawn();
        script.give_bytes(data_frame(b"waits"));
        tokio::task::yield_now().await;
        tokio::time::advance(secs(2) + late).await;
        timeout(NEVER, driver.task).await.unwrap().unwrap();
        let end = death(driver.receiver).await;
        assert_eq!(end.cause, cause, "{late:?}");
    }
}

/// 10 messages each 4 s, each of which takes 190 ms: the last waits for 1.9 s.
#[tokio::test(start_paused = true)]
async fn a_handler_that_is_slower_than_its_messages_lives_while_each_waits_less() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let mut driver = Heartbeat::new(ours, limited()).spawn();
    let peer = Heartbeat::new(theirs, quick()).spawn();
    let sender = peer.sender.clone();
    let sending = tokio::spawn(async move {
        loop {
            for _ in 0..10 {
                sender.send("work".into()).await.unwrap();
            }
            sleep(secs(4)).await;
        }
    });
    let until = Instant::now() + secs(120);
    let mut taken = 0;
    while let Ok(Some(event)) = tokio::time::timeout_at(until, driver.receiver.next()).await {
        assert!(!event.is_terminal(), "{event}");
        if let PeerEvent::Message(_) = event {
            taken += 1;
            sleep(ms(190)).await;
        }
    }
    assert_eq!(taken, 300);
    sending.abort();
    drop(peer);
}

/// Nor does one whose inbox is never empty: ten wait at any time, each for 1 s.
#[tokio::test(start_paused = true)]
async fn a_backlog_that_moves_on_is_no_pause() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let mut driver = Heartbeat::new(ours, limited()).spawn();
    let peer = Heartbeat::new(theirs, quick()).spawn();
    let sender = peer.sender.clone();
    let sending = tokio::spawn(async move {
        for _ in 0..10 {
            sender.send("work".into()).await.unwrap();
        }
        loop {
            sleep(ms(100)).await;
            sender.send("work".into()).await.unwrap();
        }
    });
    let mut taken = 0;
    while taken < 600 {
        let event = driver.receiver.next().await.unwrap();
        assert!(!event.is_terminal(), "{event} after {taken}");
        if let PeerEvent::Message(_) = event {
            taken += 1;
            sleep(ms(100)).await;
        }
    }
    sending.abort();
}

/// Nor does one whose inbox is full, if it takes messages in time.
#[tokio::test(start_paused = true)]
async fn a_handler_that_empties_a_full_inbox_in_time_lives() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let mut driver = Heartbeat::new(ours, limited()).spawn();
    let _peer = talks(theirs, 60_000, ms(1));
    let until = Instant::now() + secs(60);
    let mut paused = 0;
    while Instant::now() < until {
        let Some(event) = driver.receiver.next().await else {
            panic!("it ended");
        };
        assert!(!event.is_terminal(), "{event}");
        let state = driver.sender.status().peer.state;
        paused += u32::from(state == heartbeat_tokio::State::Paused);
        sleep(ms(200)).await;
    }
    assert!(paused > 100, "{paused}");
}

#[tokio::test(start_paused = true)]
async fn an_application_that_hangs_while_no_message_waits_is_not_noticed() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let driver = Heartbeat::new(ours, limited()).spawn();
    let peer = Heartbeat::new(theirs, quick()).spawn();
    // Its events wait all the same.
    sleep(secs(60)).await;
    assert!(driver.receiver.now_or_never_terminal().is_none());
    drop(peer);
}

/// A connection that isn't spawned has no inbox.
#[tokio::test(start_paused = true)]
async fn a_connection_that_is_not_spawned_is_never_judged_by_it() {
    let (ours, theirs) = tokio::io::duplex(1 << 10);
    let mut heartbeat = Heartbeat::new(ours, limited());
    let peer = tokio::spawn(async move {
        // It sends, and reads nothing.
        let mut peer = RawPeer::new(theirs);
        peer.greet(quick()).await;
        loop {
            peer.send_data(b"message").await;
            sleep(ms(100)).await;
        }
    });
    let sending = async {
        loop {
            heartbeat.send(vec![7; 60_000].into()).await.unwrap();
        }
    };
    assert!(timeout(secs(60), sending).await.is_err(), "it waits");
    let waiting = std::iter::from_fn(|| heartbeat.next().now_or_never().flatten());
    let waiting: Vec<_> = waiting.collect();
    assert!(!waiting.iter().any(PeerEvent::is_terminal));
    assert!(waiting.len() > 100);
    peer.abort();
}

/// What had come before counts from then.
#[tokio::test(start_paused = true)]
async fn what_lay_there_when_it_was_spawned_waits_from_then_on() {
    let (mut heartbeat, mut peer) = wrapped(limited());
    peer.greet(quick()).await;
    peer.send_data(b"one").await;
    peer.send_data(b"two").await;
    heartbeat.send("hello".into()).await.unwrap();
    let told = tokio::spawn(async move {
        peer.answer_for(secs(60)).await;
        Instant::now()
    });
    sleep(ms(100)).await;
    let begun = Instant::now();
    let driver = heartbeat.spawn();
    timeout(NEVER, driver.task).await.unwrap().unwrap();
    let took = begun.elapsed();
    assert!((secs(2)..ms(2_100)).contains(&took), "{took:?}");
    told.abort();
}

trait NowOrNever {
    fn now_or_never_terminal(self) -> Option<PeerEvent<Bytes>>;
}

impl NowOrNever for heartbeat_tokio::Receiver<Bytes> {
    fn now_or_never_terminal(mut self) -> Option<PeerEvent<Bytes>> {
        let events = std::iter::from_fn(|| self.next().now_or_never().flatten());
        events.filter(PeerEvent::is_terminal).last()
    }
}
