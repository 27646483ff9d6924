//! What holds whichever transport carries this project's own frames: its own framing, with
//! messages of bytes or of a serde type; a codec; and something that takes whole frames. In
//! virtual time, over a stream of which each read and each write is decided here.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may panic too"
)]

use std::future::poll_fn;

use bytes::Bytes;
use futures::{FutureExt, SinkExt, StreamExt, future::poll_immediate};
use heartbeat_core::{Control, GoodbyeCode, Nonce, PART};
use heartbeat_tests::{
    RawPeer, data_frame, framed, ms, quick,
    scripted::{
        OnWire, Read, Script, Scripted, control_frame, frames, messages, runtime, scripted,
    },
    secs, varint,
};
use heartbeat_tokio::{Codec, Frames, Heartbeat, PeerEvent, Postcard, Transport, Wire};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, duplex},
    time::{Instant, sleep, timeout},
};
use tokio_util::codec::Framed;

use super::own_frames::{OwnCodec, OwnFrames};

// ---- the transports ----------------------------------------------------------

trait Stream: AsyncRead + AsyncWrite + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Stream for S {}

fn wire<S: Stream>(stream: S) -> Heartbeat<S, Wire> {
    Heartbeat::new(stream, quick())
}

fn typed<S: Stream>(stream: S) -> Heartbeat<S, Postcard<Vec<u8>>> {
    Heartbeat::typed(stream, quick())
}

fn codec<S: Stream>(stream: S) -> Heartbeat<S, Codec<OwnCodec>> {
    Heartbeat::with_codec(stream, OwnCodec, quick())
}

fn whole_frames<S: Stream>(stream: S) -> Heartbeat<OwnFrames<S>, Frames<OwnFrames<S>>> {
    Heartbeat::with_frames(OwnFrames(Framed::new(stream, OwnCodec)), quick())
}

/// Plays a scenario with each of these, and its name.
macro_rules! with_each {
    ($scenario:ident: $($make:ident),+) => {
        $($scenario(stringify!($make), $make).await;)+
    };
}

/// A message for each of them.
fn message(length: usize) -> Vec<u8> {
    postcard::to_stdvec(&vec![7_u8; length]).unwrap()
}

/// A side that has heard the peer's Hello, and has nothing to do.
async fn met<S, C: Transport<S>>(
    make: impl FnOnce(Scripted) -> Heartbeat<S, C>,
) -> (Heartbeat<S, C>, Script) {
    let (stream, script) = scripted();
    let mut ours = make(stream);
    script.give_bytes(control_frame(Control::Hello(quick().hello([7; 8]))));
    let first = ours.next().await;
    assert!(matches!(first, Some(PeerEvent::Connected { .. })));
    assert!(poll_immediate(ours.next()).await.is_none());
    (ours, script)
}

// ---- what arrives ------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn reading_pauses_when_256_kib_of_messages_wait() {
    with_each!(pauses: wire, typed, codec, whole_frames);
}

async fn pauses<S, C>(by: &str, make: impl FnOnce(Scripted) -> Heartbeat<S, C>)
where
    S: Send + 'static,
    C: Transport<S, Message: Send> + Send + 'static,
{
    let (ours, script) = met(make).await;
    let frame = Bytes::from(data_frame(&message(1000)));
    let _ = script.reads();
    script.give(vec![Read::Bytes(frame); 2000]);
    let unread = ours.spawn();
    sleep(ms(1)).await;
    let read = script.reads();
    assert!((200..300).contains(&read), "{by}: {read} reads");
    drop(unread);
}

#[tokio::test(start_paused = true)]
async fn while_whole_messages_arrive_nothing_leaves() {
    with_each!(is_quiet: wire, typed, codec, whole_frames);
}

async fn is_quiet<S, C: Transport<S>>(by: &str, make: impl FnOnce(Scripted) -> Heartbeat<S, C>) {
    let (mut ours, script) = met(make).await;
    let before = script.taken();
    for _ in 0..50 {
        script.give_bytes(data_frame(&message(100)));
        let event = poll_immediate(ours.next()).await;
        assert!(matches!(event, Some(Some(PeerEvent::Message(_)))), "{by}");
        assert!(poll_immediate(ours.next()).await.is_none(), "{by}");
        sleep(ms(50)).await;
    }
    assert_eq!(script.taken(), before, "{by}");
}

/// Small ones, each in a read of its own.
#[tokio::test(start_paused = true)]
async fn while_parts_of_a_message_arrive_we_show_that_we_live() {
    with_each!(shows_life: wire, typed);
}

async fn shows_life<S, C: Transport<S>>(by: &str, make: impl FnOnce(Scripted) -> Heartbeat<S, C>) {
    let (mut ours, script) = met(make).await;
    let slowly = async {
        let mut header = [&[7][..], &varint(PART + 1)].concat();
        for _ in 0..20 {
            script.give_bytes(framed(&[&header[..], &[0; 100]].concat()));
            header.truncate(1);
            sleep(quick().interval() / 2).await;
        }
    };
    tokio::select! {
        _ = ours.next() => panic!("{by}: nothing is whole"),
        () = slowly => {}
    }
    let sent = frames(&script.sent());
    let is_alive = |frame: &&(usize, OnWire)| matches!(frame.1, OnWire::Control(Control::Alive));
    let signs = sent.iter().filter(is_alive).count();
    assert!((9..=10).contains(&signs), "{by}: {signs} in 10 intervals");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_trickles_in_is_a_sign_of_life() {
    with_each!(lives: wire, typed, codec);
}

async fn lives<S, C: Transport<S>>(by: &str, make: impl FnOnce(Scripted) -> Heartbeat<S, C>) {
    let (mut ours, script) = met(make).await;
    // The header of a message that never ends.
    script.give_bytes(vec![0, 0, 0xff, 0xff, 0]);
    let trickling = async {
        for _ in 0..40 {
            sleep(ms(150)).await;
            script.give_bytes(&b"faster than min_rate"[..]);
        }
    };
    tokio::select! {
        _ = ours.next() => panic!("{by}: it is suspected"),
        () = trickling => {}
    }
}

/// One that is behind others may have waited, and so may a ping behind it: we show that we
/// live after half an interval.
#[tokio::test(start_paused = true)]
async fn a_message_that_came_alone_wakes_nobody_before_the_next_beat() {
    with_each!(sleeps: wire, typed, codec);
}

async fn sleeps<S, C: Transport<S>>(by: &str, make: impl FnOnce(Scripted) -> Heartbeat<S, C>) {
    let (mut ours, script) = met(make).await;
    script.give_bytes(data_frame(&message(100)));
    let event = poll_immediate(ours.next()).await;
    assert!(matches!(event, Some(Some(PeerEvent::Message(_)))), "{by}");
    let began = Instant::now();
    let mut polled = Vec::new();
    let waiting = poll_fn(|cx| {
        polled.push(began.elapsed());
        ours.poll_next_unpin(cx)
    });
    assert!(timeout(ms(190), waiting).await.is_err(), "{by}");
    polled.dedup();
    assert_eq!(polled, [ms(0), ms(190)], "{by}");
}

// ---- what leaves -------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn pings_that_come_while_nothing_leaves_are_answered_once() {
    with_each!(answers_once: wire, typed, codec);
}

/// The first answer waits for the stream, and the last one for the first.
async fn answers_once<S, C: Transport<S>>(
    by: &str,
    make: impl FnOnce(Scripted) -> Heartbeat<S, C>,
) {
    let (mut ours, script) = met(make).await;
    script.take_only(0);
    for nth in 0..5 {
        script.give_bytes(control_frame(Control::Ping(Nonce([nth; 8]))));
        assert!(poll_immediate(ours.next()).await.is_none(), "{by}");
    }
    script.take_only(usize::MAX);
    assert!(timeout(ms(1), ours.next()).await.is_err(), "{by}");
    let sent = frames(&script.sent()).into_iter();
    let pongs = sent.filter_map(|(_, frame)| match frame {
        OnWire::Control(Control::Pong(Nonce(nonce))) => Some(nonce[0]),
        _ => None,
    });
    assert_eq!(pongs.collect::<Vec<_>>(), [0, 4], "{by}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_takes_nothing_shows_in_how_long_we_are_blocked() {
    with_each!(shows_that_it_is_blocked: wire, typed, codec, whole_frames);
}

async fn shows_that_it_is_blocked<S, C>(by: &str, make: impl FnOnce(Scripted) -> Heartbeat<S, C>)
where
    C: Transport<S, Message: From<Vec<u8>>>,
{
    let (mut ours, script) = met(make).await;
    script.take_only(0);
    ours.feed(vec![7; 100].into()).await.unwrap();
    // No ping is due before. A sink may keep that, and it then counts as taken.
    assert!(timeout(ms(190), ours.flush()).await.is_err(), "{by}");
    assert_eq!(ours.status().blocked_for, ms(190), "{by}");
}

#[tokio::test(start_paused = true)]
async fn a_sender_over_a_codec_waits_while_8_kib_are_queued() {
    let (mut ours, script) = met(codec).await;
    script.take_only(0);
    let message = Bytes::from(vec![7; 1024 - 5]);
    let mut fed = 0;
    while ours.feed(message.clone()).now_or_never().is_some() {
        fed += 1;
    }
    assert_eq!(fed, 8);
}

// ---- the end -----------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn the_answer_to_a_goodbye_replaces_messages_that_wait() {
    with_each!(answers_instead: wire, typed, whole_frames);
}

async fn answers_instead<S, C>(by: &str, make: impl FnOnce(Scripted) -> Heartbeat<S, C>)
where
    C: Transport<S, Message: From<Vec<u8>>>,
{
    let (mut ours, script) = met(make).await;
    for _ in 0..3 {
        ours.feed(vec![7; 100].into()).await.unwrap();
    }
    let goodbye = Control::Goodbye(GoodbyeCode::LEAVING);
    script.give([Read::Bytes(control_frame(goodbye).into()), Read::End]);
    let ended = timeout(secs(1), async { while ours.next().await.is_some() {} });
    ended.await.unwrap();
    let sent = frames(&script.sent());
    assert_eq!(messages(&sent), [] as [Bytes; 0], "{by}");
    let last = sent.last().map(|(_, frame)| frame);
    assert_eq!(last, Some(&OnWire::Control(RECEIVED)), "{by}");
}

const RECEIVED: Control = Control::Goodbye(GoodbyeCode::RECEIVED);

/// The peer waits for that, and we keep the heartbeat.
#[tokio::test(start_paused = true)]
async fn our_direction_ends_behind_a_goodbye_that_was_confirmed() {
    let (ours, theirs) = duplex(1024);
    ends_first("wire", wire(ours), theirs).await;
    let (ours, theirs) = duplex(1024);
    ends_first("typed", typed(ours), theirs).await;
    let (ours, theirs) = duplex(1024);
    ends_first("codec", codec(ours), theirs).await;
    let (ours, theirs) = duplex(1024);
    ends_first("whole_frames", whole_frames(ours), theirs).await;
}

async fn ends_first<S, C: Transport<S>>(by: &str, mut ours: Heartbeat<S, C>, theirs: DuplexStream) {
    let mut raw = RawPeer::new(theirs);
    raw.greet(quick()).await;
    let peer = async {
        let goodbye = Some(Control::Goodbye(GoodbyeCode::LEAVING));
        while raw.read_control().await != goodbye {}
        raw.send_control(RECEIVED).await;
        let end = timeout(ms(100), raw.read_frame()).await;
        assert_eq!(end, Ok(None), "{by}");
        drop(raw);
    };
    let (closed, ()) = tokio::join!(ours.close(), peer);
    assert_eq!(closed, Ok(()), "{by}");
}

/// What it goes on sending is read, so that its kernel can end the stream, and not kept.
#[test]
fn a_peer_that_goes_on_sending_after_our_goodbye_takes_little_memory() {
    for (by, taken) in [
        ("wire", taken_after_our_goodbye(wire)),
        ("typed", taken_after_our_goodbye(typed)),
        ("codec", taken_after_our_goodbye(codec)),
        ("whole_frames", taken_after_our_goodbye(whole_frames)),
    ] {
        assert!(taken < 1 << 20, "{by}: {taken} bytes");
    }
}

fn taken_after_our_goodbye<S, C>(make: impl FnOnce(Scripted) -> Heartbeat<S, C>) -> u64
where
    C: Transport<S>,
{
    let runtime = runtime();
    let (mut ours, script) = runtime.block_on(met(make));
    script.record_nothing();
    runtime.block_on(async {
        assert!(poll_immediate(ours.close()).await.is_none());
        script.give_bytes(control_frame(RECEIVED));
        script.give_bytes(data_frame(&message(60_000)).repeat(60));
    });
    let measured = allocation_counter::measure(|| {
        runtime.block_on(async {
            for _ in 0..4 {
                let _ = poll_immediate(ours.close()).await;
            }
        });
    });
    measured.bytes_max
}
