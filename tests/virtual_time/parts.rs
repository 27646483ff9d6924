//! Messages above 64 KiB travel in parts: however they are cut into parts, reads
//! and writes, what comes out is what went in; control frames go between them;
//! and memory follows what has arrived. In virtual time.

use bytes::Bytes;
use futures::{SinkExt, StreamExt, future::poll_immediate};
use heartbeat_core::{Control, Nonce, PART};
use heartbeat_tests::{
    data_frame, few_or_all, for_each, framed, ms, parts, quick,
    scripted::{
        OnWire, Read, Script, Scripted, control_frame, filler, frames, greeted, greeted_by,
        messages, runtime,
    },
    secs, slow_line,
};
use heartbeat_tokio::{Cause, Config, Evidence, Heartbeat, PeerEvent, SendError};
use proptest::{collection::vec, prelude::*};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep},
};
use tokio_util::codec::Framed;

use super::own_frames::{OwnCodec, OwnFrames};

// ---- what arrives ------------------------------------------------------------

/// Cut around every boundary, with control frames of each kind between the parts.
#[test]
fn cuts_around_every_boundary_of_a_message_in_parts() {
    let runtime = runtime();
    for sizes in [
        &[PART, 1][..],
        &[1, PART],
        &[PART, PART],
        &[30_000, 40_000, 5],
    ] {
        let stream = Stream::of(&[Piece::Parts(sizes.to_vec(), true), Piece::Whole(7)]);
        let begins = frames(&stream.bytes).into_iter().map(|(begin, _)| begin);
        for begin in begins.chain([stream.bytes.len()]) {
            for at in begin.saturating_sub(3)..begin + 16 {
                for more in [1, 5, 1030, 2058, 65_541] {
                    let cuts = [at, at + more].into_iter();
                    let cuts = cuts.filter(|&at| at > 0 && at < stream.bytes.len());
                    runtime.block_on(stream.arrives(cuts, (at + more) % 2 == 0));
                }
            }
        }
    }
}

#[test]
fn every_split_of_the_headers_of_two_parts() {
    let runtime = runtime();
    let stream = Stream::of(&[Piece::Parts(vec![PART, 1], true)]);
    let begins: Vec<usize> = frames(&stream.bytes).iter().map(|frame| frame.0).collect();
    // The headers in front and at the end; the body is read as it comes.
    let last = *begins.last().unwrap();
    for cuts in 0..1_u32 << 11 {
        let front = (1..9).filter(|at| cuts & (1 << (at - 1)) != 0);
        let back = (0..3).filter(|at| cuts & (1 << (8 + at)) != 0);
        let back = back.map(|at| last + 1 + 2 * at);
        let cuts: Vec<usize> = front.chain(back).collect();
        let pauses = cuts.len() % 2 == 0;
        runtime.block_on(stream.arrives(cuts, pauses));
    }
}

#[test]
fn any_parts_in_any_reads() {
    let runtime = runtime();
    for_each(
        few_or_all(20, 60),
        (vec(piece(), 1..4), splits()),
        |(pieces, splits)| {
            let stream = Stream::of(&pieces);
            let cuts = splits.iter().scan(0, |at, cut| {
                *at += cut.0;
                Some(*at)
            });
            let cuts: Vec<_> = cuts.take_while(|&at| at < stream.bytes.len()).collect();
            let pauses = splits.iter().any(|cut| cut.1);
            runtime.block_on(stream.arrives(cuts, pauses));
        },
    );
}

/// Taken apart anywhere, what was put together is there as parts that say the same.
#[test]
fn what_was_read_of_a_message_is_in_the_parts() {
    let runtime = runtime();
    let stream = Stream::of(&[
        Piece::Parts(vec![PART, PART, 10], true),
        Piece::Parts(vec![100, 50_000, PART, 7], false),
    ]);
    let begins = frames(&stream.bytes).into_iter().map(|(begin, _)| begin);
    let cuts = begins.flat_map(|begin| begin.saturating_sub(2)..begin + 12);
    for cut in cuts.chain((0..stream.bytes.len()).step_by(9973)) {
        let (arrived, rest) = stream.bytes.split_at(cut.min(stream.bytes.len()));
        let again = runtime.block_on(async {
            let (mut heartbeat, script) = greeted(quick()).await;
            script.give((!arrived.is_empty()).then(|| Read::Bytes(arrived.to_vec().into())));
            let mut again = Vec::new();
            while let Some(Some(event)) = poll_immediate(heartbeat.next()).await {
                match event {
                    PeerEvent::Message(message) => again.extend(data_frame(&message)),
                    event => panic!("{event:?}"),
                }
            }
            again.extend(heartbeat.into_parts().read);
            again
        });
        let whole = [&again, rest].concat();
        assert!(messages(&frames(&whole)) == stream.messages, "at {cut}");
    }
}

// ---- signs of life -----------------------------------------------------------

/// In the middle of a message, too.
#[test]
fn half_a_ping_between_two_parts_is_no_sign_of_life() {
    runtime().block_on(async {
        let (mut heartbeat, script) = greeted(quick()).await;
        let first = parts(&filler(0, PART + 1), PART);
        script.give_bytes(first[..first.len() - 6].to_vec());
        let began = Instant::now();
        let halves = async {
            loop {
                let ping = control_frame(Control::Ping(Nonce([1; 8])));
                for half in [&ping[..4], &ping[4..5], &ping[5..9], &ping[9..]] {
                    script.give_bytes(half.to_vec());
                    sleep(ms(50)).await;
                }
            }
        };
        let death = tokio::select! {
            death = death(&mut heartbeat) => death,
            () = halves => unreachable!(),
        };
        assert_eq!(death.cause, Cause::Silent);
        assert_eq!(began.elapsed(), quick().detection_time());
    });
}

#[test]
fn each_part_shows_life_where_only_whole_frames_do() {
    for (evidence, lives) in [
        (Evidence::AnyBytes, true),
        (Evidence::Frame, true),
        (Evidence::Echo, false),
    ] {
        let config = quick().to_builder().evidence(evidence).build().unwrap();
        runtime().block_on(async {
            let (mut heartbeat, script) = greeted(config).await;
            let message = filler(3, 20 * PART);
            let wire = parts(&message, PART);
            let slowly = async {
                for part in wire.chunks(PART / 2) {
                    script.give_bytes(part.to_vec());
                    sleep(config.detection_time() / 4).await;
                }
                std::future::pending::<()>().await;
            };
            let event = async {
                loop {
                    match heartbeat.next().await {
                        Some(PeerEvent::Message(message)) => break Some(message),
                        Some(PeerEvent::Dead(_)) => break None,
                        Some(_) => {}
                        None => unreachable!(),
                    }
                }
            };
            let arrived = tokio::select! {
                arrived = event => arrived,
                () = slowly => unreachable!(),
            };
            assert_eq!(arrived, lives.then_some(message), "{evidence:?}");
        });
    }
}

/// A transport of whole frames tells of a part as of something that isn't a message yet.
#[test]
fn while_parts_arrive_as_frames_we_show_that_we_live() {
    runtime().block_on(async {
        let as_frames = |stream| {
            let framed = OwnFrames(Framed::new(stream, OwnCodec));
            Heartbeat::with_frames(framed, quick())
        };
        let (mut heartbeat, script) = greeted_by(quick(), as_frames).await;
        let slowly = async {
            for _ in 0..50 {
                // A reserved frame, in the place of a part.
                script.give_bytes(framed(&[0x40]));
                sleep(quick().interval() / 2).await;
            }
        };
        tokio::select! {
            event = heartbeat.next() => panic!("{event:?}"),
            () = slowly => {}
        }
        let signs = signs_of_life(&script);
        assert!((24..=25).contains(&signs), "{signs} in 25 intervals");
    });
}

/// The peer's pings may wait behind a message, also behind one of which little comes at a time.
#[test]
fn while_a_message_arrives_slowly_in_parts_we_show_that_we_live() {
    runtime().block_on(async {
        let (mut heartbeat, script) = greeted(quick()).await;
        let wire = Bytes::from(parts(&filler(0, 1 << 20), PART));
        let slowly = async {
            // In the middle of the first part, and from its end into the second.
            let pieces = (0..40_000)
                .step_by(1000)
                .chain((40_000..80_000).step_by(4000));
            for from in pieces {
                let to = from + if from < 40_000 { 1000 } else { 4000 };
                script.give_bytes(wire.slice(from..to));
                sleep(quick().interval() / 2).await;
            }
        };
        tokio::select! {
            event = heartbeat.next() => panic!("{event:?}"),
            () = slowly => {}
        }
        let signs = signs_of_life(&script);
        assert!((24..=25).contains(&signs), "{signs} in 25 intervals");
    });
}

fn signs_of_life(script: &Script) -> usize {
    let sent = frames(&script.sent());
    let is_alive = |frame: &&(usize, OnWire)| matches!(frame.1, OnWire::Control(Control::Alive));
    sent.iter().filter(is_alive).count()
}

async fn death(heartbeat: &mut Heartbeat<Scripted>) -> heartbeat_tokio::Death {
    loop {
        match heartbeat.next().await {
            Some(PeerEvent::Dead(death)) => break death,
            Some(_) => {}
            None => panic!("no verdict"),
        }
    }
}

// ---- what leaves -------------------------------------------------------------

#[test]
fn a_message_of_64_kib_is_one_frame_and_a_longer_one_is_parts() {
    for (size, expected) in [
        (PART, vec![PART]),
        (PART + 1, vec![PART, 1]),
        (2 * PART, vec![PART, PART]),
        (3 * PART + 5, vec![PART, PART, PART, 5]),
    ] {
        let sent = sent(&[size], |_| {});
        let sizes: Vec<usize> = (sent.iter())
            .filter_map(|(_, frame)| match frame {
                OnWire::Data(bytes) | OnWire::Part { bytes, .. } => Some(bytes.len()),
                OnWire::Control(_) => None,
            })
            .collect();
        assert_eq!(sizes, expected);
        assert_eq!(messages(&sent), [filler(0, size)]);
    }
}

#[test]
fn any_message_in_any_writes() {
    let size = prop_oneof![0..10_000_usize, PART - 2..PART + 3, 0..400_000_usize];
    let take = prop_oneof![1..100_usize, 1..10_000_usize, 1..200_000_usize];
    let case = (vec(size, 1..6), vec(take, 1..6), any::<bool>());
    for_each(60, case, |(sizes, mut takes, vectored)| {
        takes.push(20_000);
        let sent = sent(&sizes, |script| {
            script.take_each(takes);
            script.set_vectored(vectored);
        });
        let expected: Vec<Bytes> = (0..sizes.len()).map(|n| filler(n, sizes[n])).collect();
        assert!(messages(&sent) == expected, "{sizes:?}");
    });
}

/// What is on the wire after such messages were sent.
fn sent(sizes: &[usize], prepare: impl FnOnce(&Script)) -> Vec<(usize, OnWire)> {
    runtime().block_on(async {
        let (mut heartbeat, script) = greeted(calm()).await;
        heartbeat.flush().await.unwrap();
        prepare(&script);
        for (nth, &size) in sizes.iter().enumerate() {
            heartbeat.feed(filler(nth, size)).await.unwrap();
        }
        heartbeat.flush().await.unwrap();
        frames(&script.sent())
    })
}

#[test]
fn a_ping_leaves_after_the_part_that_was_begun() {
    let runtime = runtime();
    let all = data_frame(&filler(0, 3 * PART + 9)).len();
    let boundaries = [0, PART + 8, 2 * PART + 13, 3 * PART + 18];
    let near = boundaries
        .iter()
        .flat_map(|at| at.saturating_sub(9)..at + 10);
    for stuck in near.chain((0..all).step_by(7001)).filter(|&at| at <= all) {
        let (begun, sent) = runtime.block_on(async {
            let (mut heartbeat, script) = greeted(calm()).await;
            heartbeat.flush().await.unwrap();
            heartbeat.feed(filler(0, 3 * PART + 9)).await.unwrap();
            script.take_only(stuck);
            let _ = poll_immediate(heartbeat.flush()).await;
            let begun = script.taken();
            heartbeat.probe();
            let _ = poll_immediate(heartbeat.next()).await;
            script.take_only(usize::MAX);
            heartbeat.flush().await.unwrap();
            let _ = poll_immediate(heartbeat.next()).await;
            heartbeat.flush().await.unwrap();
            (begun, script.sent())
        });
        let frames = frames(&sent);
        let is_ping = |frame: &OnWire| matches!(frame, OnWire::Control(Control::Ping(_)));
        let ping = frames.iter().find(|(_, frame)| is_ping(frame));
        let boundary = frames.iter().find(|&&(begin, _)| begin >= begun);
        assert_eq!(ping, boundary, "{stuck}");
        assert_eq!(messages(&frames), [filler(0, 3 * PART + 9)]);
    }
}

#[test]
fn a_ping_behind_64_mib_waits_for_one_part() {
    runtime().block_on(async {
        let config = calm().to_builder().max_frame(64 << 20).build().unwrap();
        let (mut heartbeat, script) = greeted(config).await;
        heartbeat.flush().await.unwrap();
        heartbeat.feed(vec![7; 64 << 20].into()).await.unwrap();
        script.take_only(1000);
        assert!(poll_immediate(heartbeat.flush()).await.is_none());
        let begun = script.taken();
        heartbeat.probe();
        assert!(poll_immediate(heartbeat.next()).await.is_none());
        script.take_only(PART + 100);
        assert!(poll_immediate(heartbeat.next()).await.is_none());
        let sent = script.sent();
        // The rest of the first part, and a ping.
        let ping = &sent[begun - 1000 + 9 + PART..][..5];
        assert_eq!(ping, [0, 0, 0, 9, 2]);
    });
}

/// What the peer accepts is known from its Hello; before that, what we do.
#[test]
fn a_message_that_the_peer_would_refuse_is_refused_here() {
    let peer = calm().to_builder().max_frame(100_000).build().unwrap();
    let wider = calm().to_builder().max_frame(200_000).build().unwrap();
    let narrower = calm().to_builder().max_frame(10).build().unwrap();
    runtime().block_on(async {
        let (mut heartbeat, script) = greeted(peer).await;
        assert_eq!(longest(&mut heartbeat).await, 100_000);
        heartbeat.send(filler(0, 100_000)).await.unwrap();
        for (hello, expected) in [(wider, 200_000), (narrower, 200_000)] {
            script.give_bytes(control_frame(Control::Hello(hello.hello([1; 8]))));
            let news = heartbeat.next().await;
            assert!(matches!(news, Some(PeerEvent::Connected { .. })));
            assert_eq!(longest(&mut heartbeat).await, expected);
        }
        let (ours, _theirs) = tokio::io::duplex(1);
        let mut alone = Heartbeat::new(ours, narrower);
        assert_eq!(longest(&mut alone).await, 10);
    });
}

async fn longest<S>(heartbeat: &mut Heartbeat<S>) -> usize
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    match heartbeat.send(vec![0; 9 << 20].into()).await {
        Err(SendError::TooLong { max, .. }) => max,
        other => panic!("{other:?}"),
    }
}

// ---- memory ------------------------------------------------------------------

#[test]
fn a_thousand_peers_that_send_a_little_of_a_lot_cost_little() {
    let runtime = runtime();
    let _guard = runtime.enter();
    let begun = Bytes::from(parts(&vec![0; 8 << 20], PART)).slice(..17_000);
    let mut connections = Vec::new();
    for _ in 0..1000 {
        let (heartbeat, script) = runtime.block_on(greeted(calm()));
        script.give_bytes(begun.clone());
        connections.push(heartbeat);
    }
    let measured = allocation_counter::measure(|| {
        runtime.block_on(async {
            for heartbeat in &mut connections {
                assert!(poll_immediate(heartbeat.next()).await.is_none());
                assert!(poll_immediate(heartbeat.next()).await.is_none());
            }
        });
    });
    // Twice what arrived, and 64 KiB.
    let each = measured.bytes_max / 1000;
    println!("{each} bytes each");
    assert!(each <= 2 * 17_000 + 65_536, "{each} bytes each");
}

#[test]
fn memory_follows_what_has_arrived() {
    let runtime = runtime();
    let length = 32 << 20;
    let config = calm().to_builder().max_frame(length).build().unwrap();
    let wire = Bytes::from(parts(&vec![0; length], PART));
    for arrived in [100, 17_000, 70_000, 1_000_000, 5_000_000, length] {
        let (mut heartbeat, script) = runtime.block_on(greeted(config));
        script.give_bytes(wire.slice(..arrived));
        let measured = allocation_counter::measure(|| {
            runtime.block_on(async {
                for _ in 0..200 {
                    assert!(poll_immediate(heartbeat.next()).await.is_none());
                }
            });
        });
        let held = measured.bytes_current;
        // Of what is lent one buffer may be new.
        let most = 2 * i64::try_from(arrived).unwrap() + 64 * 1024 + 70 * 1024;
        println!("{held} bytes for {arrived}, {} at most", measured.bytes_max);
        assert!(held <= most, "{held} bytes for {arrived}");
        let _guard = runtime.enter();
        drop(heartbeat);
    }
}

// ---- how it is tried ---------------------------------------------------------

/// Nothing but what a test does: beats are far away.
fn calm() -> Config {
    let calm = quick().to_builder().interval(secs(3600));
    calm.build().unwrap()
}

#[derive(Clone, Debug)]
enum Piece {
    Whole(usize),
    /// A message in such parts, with or without control frames between them.
    Parts(Vec<usize>, bool),
}

fn piece() -> impl Strategy<Value = Piece> {
    let part = prop_oneof![1..20_usize, 1..PART, Just(PART)];
    let parts = (vec(part, 1..6), any::<bool>());
    prop_oneof![
        1 => (0..PART + 1).prop_map(Piece::Whole),
        3 => parts.prop_filter_map("too short", |(parts, among)| {
            let length: usize = parts.iter().sum();
            (length > PART).then_some(Piece::Parts(parts, among))
        }),
    ]
}

/// How long each read is, and whether it takes a while.
fn splits() -> impl Strategy<Value = Vec<(usize, bool)>> {
    let length = prop_oneof![
        1..20_usize,
        900..2100_usize,
        1..5000_usize,
        1..200_000_usize
    ];
    vec((length, prop::bool::weighted(0.1)), 0..200)
}

struct Stream {
    bytes: Bytes,
    messages: Vec<Bytes>,
    pings: Vec<Nonce>,
}

impl Stream {
    fn of(pieces: &[Piece]) -> Self {
        let (mut bytes, mut messages, mut pings) = (Vec::new(), Vec::new(), Vec::new());
        for (nth, piece) in pieces.iter().enumerate() {
            let (sizes, among) = match piece {
                Piece::Whole(size) => (vec![*size], false),
                Piece::Parts(sizes, among) => (sizes.clone(), *among),
            };
            let message = filler(nth, sizes.iter().sum());
            let mut wire = match message.len() > PART {
                true => in_parts(&message, &sizes),
                false => vec![data_frame(&message)],
            };
            let count = wire.len();
            for (at, part) in wire.iter_mut().enumerate() {
                bytes.append(part);
                if !among || at + 1 == count {
                    continue;
                }
                match at % 4 {
                    // More of them at once would be a flood.
                    0 if pings.len() < 4 => {
                        let nonce = Nonce([pings.len().to_le_bytes()[0]; 8]);
                        pings.push(nonce);
                        bytes.extend(control_frame(Control::Ping(nonce)));
                    }
                    1 => bytes.extend(control_frame(Control::Alive)),
                    2 => bytes.extend(framed(&[0x41; 256])),
                    _ => {
                        bytes.extend(control_frame(Control::Pong(Nonce([9; 8]))));
                        bytes.extend(framed(&[0x7f]));
                    }
                }
            }
            messages.push(message);
        }
        Self {
            bytes: bytes.into(),
            messages,
            pings,
        }
    }

    /// Cut so, with or without a pause after each read, it arrives whole.
    async fn arrives(&self, cuts: impl IntoIterator<Item = usize>, pauses: bool) {
        let mut reads = Vec::new();
        let mut from = 0;
        for cut in cuts.into_iter().chain([self.bytes.len()]) {
            reads.push(Read::Bytes(self.bytes.slice(from..cut)));
            from = cut;
            if pauses {
                reads.push(Read::Pause);
            }
        }
        reads.retain(|read| !matches!(read, Read::Bytes(bytes) if bytes.is_empty()));
        reads.push(Read::End);
        let (heartbeat, script) = greeted(quick()).await;
        script.give(reads);
        let events = tokio::time::timeout(secs(60), heartbeat.collect::<Vec<_>>());
        let events = events.await.expect("it ends");
        let (last, before) = events.split_last().unwrap();
        assert!(
            matches!(last, PeerEvent::Dead(death) if death.cause == Cause::Eof),
            "{last:?}"
        );
        let arrived: Vec<&Bytes> = (before.iter())
            .map(|event| match event {
                PeerEvent::Message(message) => message,
                event => panic!("{event:?}"),
            })
            .collect();
        assert!(
            arrived == self.messages.iter().collect::<Vec<_>>(),
            "other bytes"
        );
        let answered: Vec<Nonce> = (frames(&script.sent()).into_iter())
            .filter_map(|(_, frame)| match frame {
                OnWire::Control(Control::Pong(nonce)) => Some(nonce),
                _ => None,
            })
            .collect();
        // Of several that arrive at once the latest is answered.
        assert_eq!(answered.last(), self.pings.last());
    }
}

/// A message in parts of these sizes, each as it lies on the wire.
fn in_parts(message: &Bytes, sizes: &[usize]) -> Vec<Vec<u8>> {
    let mut rest = message.clone();
    let mut all = Vec::new();
    for (nth, &size) in sizes.iter().enumerate() {
        let part = rest.split_to(size);
        all.push(match nth {
            // The header of the first one says how long the message is.
            0 => {
                let header = parts(message, 1)[5..8].to_vec();
                framed(&[&[7], &*header, &part].concat())
            }
            _ => framed(&[&[7], &*part].concat()),
        });
    }
    all
}

// ---- slow lines ---------------------------------------------------------------

/// 8.4 s for the message, and as long for one the other way.
#[tokio::test(start_paused = true)]
async fn a_large_message_on_a_slow_line_is_life_for_both_sides() {
    const MESSAGE: usize = 4 << 20;
    for (evidence, detection) in [
        (Evidence::AnyBytes, secs(4)),
        (Evidence::Frame, secs(4)),
        (Evidence::Echo, secs(14)),
    ] {
        let config = Config::detect_within(detection).unwrap();
        let config = config.to_builder().evidence(evidence).build().unwrap();
        for both_send in [false, true] {
            let (ours, theirs) = slow_line(64 * 1024, 500_000);
            let spawn = |stream| Heartbeat::new(stream, config).spawn();
            let (ours, theirs) = (spawn(ours), spawn(theirs));
            let began = tokio::time::Instant::now();
            ours.sender.send(filler(0, MESSAGE)).await.unwrap();
            if both_send {
                theirs.sender.send(filler(1, MESSAGE)).await.unwrap();
                assert_eq!(next_message(ours.receiver).await, MESSAGE, "{evidence:?}");
            }
            assert_eq!(next_message(theirs.receiver).await, MESSAGE, "{evidence:?}");
            assert!(began.elapsed() > secs(8), "{:?}", began.elapsed());
        }
    }
}

async fn next_message(mut receiver: heartbeat_tokio::Receiver<Bytes>) -> usize {
    loop {
        match receiver.next().await.unwrap() {
            PeerEvent::Message(message) => return message.len(),
            event => assert!(!event.is_terminal(), "{event}"),
        }
    }
}
