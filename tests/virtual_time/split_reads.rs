//! However a stream of frames is cut into reads, what comes out is what went
//! in, in order and byte for byte, and each ping among it is answered. In
//! virtual time.

use bytes::Bytes;
use futures::StreamExt;
use heartbeat_core::{Control, GoodbyeCode, Nonce};
use heartbeat_tests::{
    data_frame, for_each, quick,
    scripted::{OnWire, Read, control_frame, filler, frames, greeted, runtime},
    secs,
};
use heartbeat_tokio::{Cause, PeerEvent};
use proptest::{collection::vec, prelude::*};
use tokio::runtime::Runtime;

// ---- every split -------------------------------------------------------------

#[test]
fn every_split_of_a_short_stream() {
    let streams: [&[Piece]; 5] = [
        &[Piece::Message(0), Piece::Message(4)],
        &[Piece::Message(3), Piece::Message(1)],
        &[Piece::Ping],
        &[Piece::Message(9)],
        &[Piece::Message(0), Piece::Message(0)],
    ];
    let runtime = runtime();
    for pieces in streams {
        let stream = Stream::of(pieces);
        let bytes = stream.bytes.len();
        assert!(bytes <= 14);
        for cuts in 0..1_u32 << (bytes - 1) {
            let cuts = (1..bytes).filter(|at| cuts & (1 << (at - 1)) != 0);
            stream.arrives(&runtime, cuts.clone(), false);
            stream.arrives(&runtime, cuts, true);
        }
    }
}

#[test]
fn every_three_cuts_of_a_stream_with_pings_in_it() {
    let stream = Stream::of(&[
        Piece::Message(2),
        Piece::Ping,
        Piece::Message(0),
        Piece::Pong,
        Piece::Message(1),
    ]);
    let runtime = runtime();
    let all = 1..stream.bytes.len();
    for first in all.clone() {
        for second in first + 1..all.end {
            for third in second + 1..all.end {
                stream.arrives(&runtime, [first, second, third], third % 2 == 0);
            }
        }
    }
}

/// The sizes at which something else is done, cut around every boundary.
#[test]
fn cuts_around_every_boundary_of_messages_of_every_kind_of_size() {
    let runtime = runtime();
    for size in sizes() {
        let stream = Stream::of(&[
            Piece::Message(1),
            Piece::Message(size),
            Piece::Ping,
            Piece::Message(size),
            Piece::Message(0),
        ]);
        let boundaries = frames(&stream.bytes).into_iter().map(|(begin, _)| begin);
        for boundary in boundaries.chain([stream.bytes.len()]) {
            for at in boundary.saturating_sub(6)..boundary + 7 {
                let cuts = [at, at + 1030].into_iter();
                let cuts = cuts.filter(|&at| at > 0 && at < stream.bytes.len());
                stream.arrives(&runtime, cuts, at % 2 == 0);
            }
        }
    }
}

fn sizes() -> Vec<usize> {
    let mut sizes = vec![0, 1, 255, 256, 4095, 4096, 4097];
    sizes.extend(1018..=1031);
    sizes.extend(2046..=2060);
    sizes.extend([16_379, 16_384, 65_530, 65_531, 65_536, 65_542]);
    sizes.extend([66 * 1024 - 6, 66 * 1024 - 5, 66 * 1024 - 4, 66 * 1024]);
    sizes
}

// ---- any split ---------------------------------------------------------------

#[test]
fn any_split_of_a_long_stream() {
    let runtime = runtime();
    for_each(150, (vec(piece(), 1..40), splits()), |(pieces, splits)| {
        let stream = Stream::of(&pieces);
        let cuts = splits.iter().scan(0, |at, cut| {
            *at += cut.0;
            Some(*at)
        });
        let cuts: Vec<_> = cuts.take_while(|&at| at < stream.bytes.len()).collect();
        let pauses = splits.iter().any(|cut| cut.1);
        stream.arrives(&runtime, cuts, pauses);
    });
}

#[test]
fn a_frame_larger_than_everything_in_reads_of_any_size() {
    let runtime = runtime();
    let stream = Stream::of(&[
        Piece::Message(10),
        Piece::Message((1 << 20) + 1),
        Piece::Ping,
        Piece::Message(3 << 20),
        Piece::Message(1000),
        Piece::Message(0),
    ]);
    for step in [1000, 1029, 1030, 5000, 16_384, 65_536, 67_584, 1 << 20] {
        let cuts = (step..stream.bytes.len()).step_by(step);
        stream.arrives(&runtime, cuts.clone(), false);
        stream.arrives(&runtime, cuts, true);
    }
}

fn piece() -> impl Strategy<Value = Piece> {
    let sizes = sizes();
    prop_oneof![
        6 => (0..64_usize).prop_map(Piece::Message),
        4 => (0..5000_usize).prop_map(Piece::Message),
        4 => prop::sample::select(sizes).prop_map(Piece::Message),
        1 => (65_000..300_000_usize).prop_map(Piece::Message),
        1 => Just(Piece::Ping),
        2 => Just(Piece::Pong),
    ]
}

/// How long each read is, and whether it takes a while.
fn splits() -> impl Strategy<Value = Vec<(usize, bool)>> {
    let length = prop_oneof![
        1..20_usize,
        900..1200_usize,
        1..5000_usize,
        1..100_000_usize
    ];
    vec((length, prop::bool::weighted(0.1)), 0..300)
}

// ---- taken apart ---------------------------------------------------------------

/// What was read and not handed out is all there when it is taken apart, also
/// what came while it was being closed, in reads of its own.
#[test]
fn whatever_came_after_our_goodbye_is_there_in_the_parts() {
    let sizes = [[5, 5, 5], [1000, 0, 7], [2, 3000, 4], [70_000, 1, 1]];
    for sizes in sizes {
        let sent: Vec<Vec<u8>> = (0..3).map(|n| data_frame(&filler(n, sizes[n]))).collect();
        let parts = runtime().block_on(async {
            let (mut heartbeat, script) = greeted(quick()).await;
            let closing = async {
                heartbeat.close().await.unwrap();
                heartbeat.into_parts()
            };
            let talking = async {
                // Until the goodbye has left.
                tokio::time::sleep(quick().timeout() / 2).await;
                for frame in &sent {
                    script.give_bytes(frame.clone());
                    tokio::task::yield_now().await;
                }
                script.give_bytes(control_frame(Control::Goodbye(GoodbyeCode::RECEIVED)));
                script.give([Read::End]);
            };
            tokio::join!(closing, talking).0
        });
        let messages: Vec<u8> = (parts.events.iter())
            .filter_map(|event| match event {
                PeerEvent::Message(message) => Some(data_frame(message)),
                _ => None,
            })
            .flatten()
            .collect();
        assert!([messages, parts.read.to_vec()].concat() == sent.concat());
    }
}

/// Nobody decodes it. Frames are taken out again only once they are more than an inbox holds.
#[test]
fn whatever_came_after_the_peers_answer_to_our_goodbye_is_there_in_the_parts() {
    let small = data_frame(&filler(1, 100));
    let mut all = Vec::new();
    for nth in 0..8 {
        // So that buffers begin at different places of a page.
        let apart = vec![0_u8; 700 * nth];
        let parts = runtime().block_on(async {
            let (mut heartbeat, script) = greeted(quick()).await;
            // The next one is probably as long.
            script.give_bytes(data_frame(&filler(0, 60_000)));
            assert!(heartbeat.next().await.is_some());
            let closing = async {
                heartbeat.close().await.unwrap();
                heartbeat.into_parts()
            };
            let talking = async {
                tokio::time::sleep(quick().timeout() / 2).await;
                script.give_bytes(control_frame(Control::Goodbye(GoodbyeCode::RECEIVED)));
                script.give((0..2000).map(|_| Read::Bytes(small.clone().into())));
                script.give([Read::End]);
            };
            tokio::join!(closing, talking).0
        });
        assert!(
            parts.read == small.repeat(2000),
            "{} bytes",
            parts.read.len()
        );
        all.push((parts, apart));
    }
}

// ---- how it is tried -----------------------------------------------------------

#[derive(Clone, Copy, Debug)]
enum Piece {
    Message(usize),
    Ping,
    Pong,
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
            let nonce = Nonce([nth.to_le_bytes()[0]; 8]);
            match *piece {
                Piece::Message(size) => {
                    messages.push(filler(nth, size));
                    bytes.extend(data_frame(&filler(nth, size)));
                }
                // More of them at once would be a flood.
                Piece::Ping if pings.len() < 4 => {
                    pings.push(nonce);
                    bytes.extend(control_frame(Control::Ping(nonce)));
                }
                Piece::Ping | Piece::Pong => bytes.extend(control_frame(Control::Pong(nonce))),
            }
        }
        Self {
            bytes: bytes.into(),
            messages,
            pings,
        }
    }

    /// Cut so, with or without a pause after each read, it arrives whole.
    fn arrives(&self, runtime: &Runtime, cuts: impl IntoIterator<Item = usize>, pauses: bool) {
        let mut rest = self.bytes.clone();
        let mut reads = Vec::new();
        for cut in cuts.into_iter().chain([self.bytes.len()]) {
            let at = cut - (self.bytes.len() - rest.len());
            reads.push(Read::Bytes(rest.split_to(at)));
            if pauses {
                reads.push(Read::Pause);
            }
        }
        reads.retain(|read| !matches!(read, Read::Bytes(bytes) if bytes.is_empty()));
        reads.push(Read::End);

        let (events, sent) = runtime.block_on(async {
            let (heartbeat, script) = greeted(quick()).await;
            script.give(reads);
            let events = tokio::time::timeout(secs(60), heartbeat.collect::<Vec<_>>());
            (events.await.expect("it ends"), script.sent())
        });
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
        let lengths = |messages: &[&Bytes]| messages.iter().map(|m| m.len()).collect::<Vec<_>>();
        let expected: Vec<&Bytes> = self.messages.iter().collect();
        assert_eq!(lengths(&arrived), lengths(&expected));
        assert!(arrived == expected, "other bytes");
        let answered: Vec<Nonce> = (frames(&sent).into_iter())
            .filter_map(|(_, frame)| match frame {
                OnWire::Control(Control::Pong(nonce)) => Some(nonce),
                _ => None,
            })
            .collect();
        // Of pings that come one behind the other the last one is answered.
        let mut asked = self.pings.iter();
        let in_order = answered.iter().all(|pong| asked.any(|ping| ping == pong));
        assert!(in_order, "{answered:?} to {:?}", self.pings);
        assert_eq!(answered.last(), self.pings.last());
    }
}
