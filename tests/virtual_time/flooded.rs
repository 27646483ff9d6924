//! Our own work beside a peer that sends without end: what leaves, and how soon.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::{Future, Stream, StreamExt};
use heartbeat_core::{Control, Nonce};
use heartbeat_tests::{
    data_frame,
    scripted::{control_frame, runtime},
};
use heartbeat_tokio::{Config, Driver, Heartbeat, PeerEvent};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::{self, coop, yield_now},
    time::sleep,
};

/// Whatever frames are sent, and however many bytes each read gives.
#[test]
fn a_posted_message_leaves_beside_a_peer_that_sends_without_end() {
    let kinds = [
        control_frame(Control::Pong(Nonce([9; 8]))),
        control_frame(Control::Alive),
        data_frame(&[]),
        data_frame(&[7; 65_536]),
    ];
    for frame in kinds {
        for most in [64, 1024, 16 * 1024, usize::MAX] {
            let turns = runtime().block_on(turns_until_posted(&frame, most));
            assert!(turns <= 2, "{:?}, {most}: {turns}", &frame[..5]);
        }
    }
}

async fn turns_until_posted(frame: &[u8], most: usize) -> u32 {
    let written = Written::default();
    let frames = frame.repeat(256 * 1024 / frame.len() + 1);
    let stream = Flood::new(frames, &written);
    let stream = Flood {
        most,
        is_endless: true,
        ..stream
    };
    let Driver {
        sender,
        mut receiver,
        ..
    } = Heartbeat::new(stream, Config::default()).spawn();
    let reader = task::spawn(async move { while receiver.next().await.is_some() {} });
    for _ in 0..5 {
        yield_now().await;
    }
    sender.send("posted".into()).await.unwrap();
    let mut turns = 0;
    while turns < 100 && !written.has(b"posted") {
        yield_now().await;
        turns += 1;
    }
    reader.abort();
    turns
}

/// The timer has fired, and the task has used up most of its budget before.
#[test]
fn a_ping_behind_messages_is_answered_before_more_of_them_are_handed_out() {
    for left in [0, 1, 2, 5, 10, 20, 127] {
        let handed_out = runtime().block_on(handed_out_before_the_pong(left));
        assert!(handed_out <= 1, "{left}: {handed_out}");
    }
}

async fn handed_out_before_the_pong(budget: u32) -> u32 {
    let written = Written::default();
    // Within the first read, so that the ping waits as long as they do.
    let mut frames = data_frame(&[]).repeat(380);
    frames.extend(control_frame(Control::Ping(Nonce(*b"question"))));
    frames.extend(data_frame(&[]).repeat(10));
    let mut peer = Heartbeat::new(Flood::new(frames, &written), Config::default());
    while !matches!(peer.next().await, Some(PeerEvent::Message(_))) {}
    sleep(Config::default().interval() * 3 / 4).await;
    yield_now().await;
    let mut handed_out = 0;
    poll_fn(|cx| {
        // Of 128 units.
        for _ in budget..128 {
            let _ = pin!(coop::consume_budget()).poll(cx);
        }
        while !written.has(b"question") {
            match pin!(&mut peer).poll_next(cx) {
                Poll::Ready(Some(PeerEvent::Message(_))) => handed_out += 1,
                Poll::Ready(_) => {}
                Poll::Pending => break,
            }
        }
        Poll::Ready(())
    })
    .await;
    assert!(written.has(b"question"), "{budget}");
    handed_out
}

/// New timings cost more than other control frames, because the socket's options follow.
#[test]
fn few_new_timings_are_taken_in_by_a_poll() {
    let config = Config::default();
    let mut slow = config.hello([7; 8]);
    slow.min_interval = 2 * config.detection_time();
    let hellos = [config.hello([7; 8]), slow].map(|hello| control_frame(Control::Hello(hello)));
    let frames = hellos.concat().repeat(1000);
    let most = runtime().block_on(async {
        let mut peer = Heartbeat::new(Flood::new(frames, &Written::default()), config);
        let mut most = 0;
        for _ in 0..4 {
            let mut connected = 0;
            poll_fn(|cx| {
                while let Poll::Ready(event) = pin!(&mut peer).poll_next(cx) {
                    connected += u32::from(matches!(event, Some(PeerEvent::Connected { .. })));
                }
                Poll::Ready(())
            })
            .await;
            most = most.max(connected);
            yield_now().await;
        }
        most
    });
    assert!((16..=40).contains(&most), "{most}");
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    fn has(&self, bytes: &[u8]) -> bool {
        let written = self.0.lock().unwrap();
        written.windows(bytes.len()).any(|part| part == bytes)
    }
}

/// Says Hello, and then these frames.
struct Flood {
    hello: Bytes,
    frames: Bytes,
    /// How much of them was read, in bytes.
    at: usize,
    /// The most bytes that a read gives.
    most: usize,
    /// Whether they begin again at their end.
    is_endless: bool,
    written: Written,
}

impl Flood {
    fn new(frames: Vec<u8>, written: &Written) -> Self {
        Self {
            hello: control_frame(Control::Hello(Config::default().hello([7; 8]))).into(),
            frames: frames.into(),
            at: 0,
            most: usize::MAX,
            is_endless: false,
            written: written.clone(),
        }
    }
}

impl AsyncRead for Flood {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let budget = ready!(coop::poll_proceed(cx));
        let hello = std::mem::take(&mut self.hello);
        if !hello.is_empty() {
            buf.put_slice(&hello);
        } else {
            let most = buf.remaining().min(self.most);
            let end = self.frames.len().min(self.at + most);
            if self.at == end {
                return Poll::Pending;
            }
            buf.put_slice(&self.frames[self.at..end]);
            self.at = end;
            if self.is_endless && end == self.frames.len() {
                self.at = 0;
            }
        }
        budget.made_progress();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Flood {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(coop::poll_proceed(cx)).made_progress();
        self.written.0.lock().unwrap().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
