//! How much one task reads in one poll from a peer that sends without end, before other tasks
//! have a turn. Counted, and compared with a plain `Framed` over the same stream, which
//! charges the runtime's budget as tokio's sockets do.

use std::{
    collections::HashMap,
    future::poll_fn,
    io, mem,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::StreamExt;
use heartbeat_core::{Control, Nonce};
use heartbeat_tests::{data_frame, framed, scripted::control_frame};
use heartbeat_tokio::{Config, Driver, Heartbeat};
use tokio::{
    io::{AsyncRead, Join, ReadBuf, Sink, join, sink},
    runtime::{Builder, Runtime},
    task::{self, coop},
};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

#[test]
fn takes_in_at_most_twice_as_much_as_a_plain_codec() {
    let pong = control_frame(Control::Pong(Nonce([9; 8])));
    let kinds = [
        ("pongs", pong),
        ("reserved frames", framed(&[0x41])),
        ("empty messages", data_frame(&[])),
        ("16 B", data_frame(&[7; 16])),
        ("1,000 B", data_frame(&[7; 1000])),
        ("64 KiB", data_frame(&[7; 65_536])),
    ];
    let mut behind = Vec::new();
    for (name, frame) in kinds {
        let plain = most_in_a_turn(&frame, plain, usize::MAX);
        for (how, serve) in [("inline", inline as Serve), ("spawned", spawned)] {
            let ours = most_in_a_turn(&frame, serve, 2 * plain);
            if ours > 2 * plain {
                let frames = (ours / frame.len(), plain / frame.len());
                behind.push(format!(
                    "{name}, {how}: {ours} B, plain {plain} B; frames {frames:?}"
                ));
            }
        }
    }
    assert!(behind.is_empty(), "{behind:#?}");
}

/// A plain codec takes in a megabyte of them. What is read last in a turn is decoded in the next.
#[test]
fn takes_in_few_frames_that_cost_more_than_their_bytes() {
    let config = Config::default();
    let hello = config.hello([7; 8]);
    let mut slow = hello;
    slow.min_interval = 2 * config.detection_time();
    let [hello, slow] = [hello, slow].map(|hello| control_frame(Control::Hello(hello)));
    let kinds = [
        ("pongs", control_frame(Control::Pong(Nonce([9; 8])))),
        ("alives", control_frame(Control::Alive)),
        ("hellos", hello.clone()),
        ("changing hellos", [slow, hello].concat()),
        ("empty messages", data_frame(&[])),
    ];
    for (name, frame) in kinds {
        for (how, serve) in [("inline", inline as Serve), ("spawned", spawned)] {
            let taken = most_in_a_turn(&frame, serve, usize::MAX);
            println!("{name}, {how}: {taken} B");
            assert!(taken <= 2 * 72 * 1024, "{name}, {how}: {taken} B");
        }
    }
}

type Serve = fn(&Runtime, Join<Endless, Sink>);

fn plain(runtime: &Runtime, stream: Join<Endless, Sink>) {
    let mut framed = Framed::new(stream, LengthDelimitedCodec::new());
    runtime.spawn(async move { while framed.next().await.is_some() {} });
}

fn inline(runtime: &Runtime, stream: Join<Endless, Sink>) {
    runtime.spawn(async move {
        let mut peer = Heartbeat::new(stream, Config::default());
        while peer.next().await.is_some() {}
    });
}

fn spawned(runtime: &Runtime, stream: Join<Endless, Sink>) {
    runtime.spawn(async move {
        let Driver {
            sender,
            mut receiver,
            ..
        } = Heartbeat::new(stream, Config::default()).spawn();
        while receiver.next().await.is_some() {}
        drop(sender);
    });
}

/// The most bytes that one task takes in in one poll, whichever it is. Ends with the first poll
/// above the limit, because an unbounded one takes minutes.
fn most_in_a_turn(frame: &[u8], serve: Serve, limit: usize) -> usize {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let taken = Arc::<Mutex<HashMap<task::Id, usize>>>::default();
    serve(&runtime, join(Endless::of(frame, &taken), sink()));
    let (mut most, mut turns) = (0, 20);
    // Tasks are polled in the order in which they were woken, so none is polled twice
    // between two turns of this one. Before its first turn they may be.
    let mut is_first = true;
    let watching = runtime.spawn(poll_fn(move |cx| {
        let taken = mem::take(&mut *taken.lock().unwrap());
        let taken = taken.into_values().max();
        if let (Some(taken), false) = (taken, mem::take(&mut is_first)) {
            most = most.max(taken);
            turns -= 1;
        }
        if turns == 0 || most > limit {
            return Poll::Ready(most);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }));
    runtime.block_on(watching).unwrap()
}

/// A peer that says Hello, and then the same for ever.
struct Endless {
    hello: Bytes,
    frames: Bytes,
    /// How much of them was read, in bytes.
    at: usize,
    taken: Arc<Mutex<HashMap<task::Id, usize>>>,
}

impl Endless {
    fn of(frame: &[u8], taken: &Arc<Mutex<HashMap<task::Id, usize>>>) -> Self {
        let hello = Control::Hello(Config::default().hello([7; 8]));
        Self {
            hello: control_frame(hello).into(),
            frames: frame.repeat(256 * 1024 / frame.len() + 1).into(),
            at: 0,
            taken: taken.clone(),
        }
    }
}

impl AsyncRead for Endless {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(coop::poll_proceed(cx)).made_progress();
        let hello = mem::take(&mut self.hello);
        buf.put_slice(&hello);
        let room = if hello.is_empty() { buf.remaining() } else { 0 };
        let mut left = room;
        while left > 0 {
            let from = self.at % self.frames.len();
            let end = self.frames.len().min(from + left);
            buf.put_slice(&self.frames[from..end]);
            self.at += end - from;
            left -= end - from;
        }
        *self.taken.lock().unwrap().entry(task::id()).or_default() += room;
        Poll::Ready(Ok(()))
    }
}
