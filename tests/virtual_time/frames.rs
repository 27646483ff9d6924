//! A transport of whole frames that is written here: how much is queued for it, what goes
//! ahead of that, and that its state is asked after each message.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic too")]

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use futures::{FutureExt, Sink, SinkExt, Stream, StreamExt, future::poll_immediate};
use heartbeat_tests::{Watched, ms, quick, secs};
use heartbeat_tokio::{Cause, Dialect, Frame, Heartbeat, Nonce, PeerEvent};
use tokio::{
    sync::mpsc,
    task::yield_now,
    time::{Instant, sleep},
};

/// What has left, in its order, and how many more frames may.
#[derive(Default)]
struct Gate {
    room: usize,
    left: Vec<(Instant, Frame<Bytes>)>,
    /// How many frames had left at each flush.
    flushes: Vec<usize>,
    waiting: Option<Waker>,
}

/// Frames come from a channel, and leave while the gate is open. No ping may leave before
/// a message `WELCOME` has come.
struct Transport {
    incoming: mpsc::UnboundedReceiver<Frame<Bytes>>,
    gate: Arc<Mutex<Gate>>,
    is_welcome: bool,
}

type Incoming = mpsc::UnboundedSender<Frame<Bytes>>;

fn transport(is_welcome: bool) -> (Transport, Incoming, Arc<Mutex<Gate>>) {
    let (tell, incoming) = mpsc::unbounded_channel();
    let gate = Arc::new(Mutex::new(Gate::default()));
    let transport = Transport {
        incoming,
        gate: gate.clone(),
        is_welcome,
    };
    (transport, tell, gate)
}

fn open(gate: &Mutex<Gate>) {
    open_for(gate, usize::MAX);
}

/// Lets this many frames leave.
fn open_for(gate: &Mutex<Gate>, room: usize) {
    let mut gate = gate.lock().unwrap();
    gate.room = room;
    gate.waiting.take().into_iter().for_each(Waker::wake);
}

impl Dialect for Transport {
    type Message = Bytes;

    fn may_ping(&self) -> bool {
        self.is_welcome
    }

    fn weight(message: &Bytes) -> usize {
        message.len()
    }
}

impl Stream for Transport {
    type Item = io::Result<Frame<Bytes>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let frame = self.incoming.poll_recv(cx);
        if let Poll::Ready(Some(Frame::Data(message))) = &frame {
            self.is_welcome |= message == "WELCOME";
        }
        frame.map(|frame| frame.map(Ok))
    }
}

impl Sink<Frame<Bytes>> for Transport {
    type Error = io::Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gate = self.gate.lock().unwrap();
        match gate.room {
            0 => {
                gate.waiting = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(Ok(())),
        }
    }

    fn start_send(self: Pin<&mut Self>, frame: Frame<Bytes>) -> io::Result<()> {
        let mut gate = self.gate.lock().unwrap();
        gate.room -= 1;
        gate.left.push((Instant::now(), frame));
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gate = self.gate.lock().unwrap();
        let left = gate.left.len();
        gate.flushes.push(left);
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_sender_waits_while_128_kib_are_queued_and_a_ping_goes_ahead_of_them() {
    let (transport, _tell, gate) = transport(true);
    let mut ours = Heartbeat::with_frames(transport, quick());
    let message = Bytes::from_static(&[7; 1000]);
    let mut fed = 0;
    while ours.feed(message.clone()).now_or_never().is_some() {
        fed += 1;
    }
    assert!((126..=128).contains(&fed), "{fed} KB");

    // It wants to ask meanwhile.
    let mut ours = Watched::new(ours);
    ours.go_on_for(ms(300)).await;
    open(&gate);
    ours.peer.flush().await.unwrap();
    let gate = gate.lock().unwrap();
    let pings = |(_, frame): &(_, Frame<_>)| matches!(frame, Frame::Ping(_));
    assert_eq!(gate.left.iter().position(pings), Some(0));
    assert_eq!(gate.left.len(), fed + 1);
    // A later ping would wait behind no more than 32 KiB.
    assert!(gate.flushes.len() >= 4, "{:?}", gate.flushes);
}

#[tokio::test(start_paused = true)]
async fn a_message_after_which_a_ping_may_leave_is_enough_for_it_to_leave() {
    let (transport, tell, gate) = transport(false);
    open(&gate);
    let mut ours = Watched::new(Heartbeat::with_frames(transport, quick()));
    ours.go_on_for(secs(10)).await;
    ours.assert_alive();
    assert_eq!(gate.lock().unwrap().left, []);

    let welcome = Instant::now();
    tell.send(Frame::Data("WELCOME".into())).unwrap();
    assert_eq!(ours.message().await, "WELCOME");
    ours.until_dead().await;
    assert_eq!(welcome.elapsed(), quick().detection_time());
    let (first, frame) = gate.lock().unwrap().left.remove(0);
    assert!(matches!(frame, Frame::Ping(_)), "{frame:?}");
    assert_eq!(first - welcome, quick().interval());
}

/// A message costs its own size too: each of these 1 KiB.
#[tokio::test(start_paused = true)]
async fn a_sink_is_flushed_after_each_32_kib_of_the_128_that_may_wait_for_it() {
    let (transport, _tell, gate) = transport(true);
    let mut ours = Heartbeat::with_frames(transport, quick());
    let message = Bytes::from(vec![7; 1024 - size_of::<Bytes>()]);
    let mut fed = 0;
    while ours.feed(message.clone()).now_or_never().is_some() {
        fed += 1;
    }
    assert_eq!(fed, 128);
    open(&gate);
    ours.flush().await.unwrap();
    assert_eq!(gate.lock().unwrap().flushes, [32, 64, 96, 128]);
}

/// The peer lives, and takes a message now and then.
#[tokio::test(start_paused = true)]
async fn the_limit_for_stalled_writes_counts_from_the_last_frame_for_which_there_was_room() {
    let config = quick().to_builder().write_stall(ms(500)).build().unwrap();
    let (transport, tell, gate) = transport(true);
    let driver = Heartbeat::with_frames(transport, config).spawn();
    for _ in 0..20 {
        driver.sender.send("a message".into()).await.unwrap();
    }
    let living = tokio::spawn(async move {
        while tell.send(Frame::Other).is_ok() {
            sleep(ms(100)).await;
        }
    });
    for _ in 0..10 {
        sleep(ms(300)).await;
        open_for(&gate, 1);
    }
    let last = Instant::now();
    let death = driver.sender.closed().await.unwrap_err();
    assert_eq!(death.cause, Cause::WriteStalled);
    assert_eq!(last.elapsed(), ms(500));
    assert_eq!(gate.lock().unwrap().left.len(), 10);
    living.abort();
}

/// The first answer waits for the sink, and the last one for the first.
#[tokio::test(start_paused = true)]
async fn pings_that_come_while_the_sink_takes_nothing_are_answered_once() {
    let (transport, tell, gate) = transport(true);
    let mut ours = Watched::new(Heartbeat::with_frames(transport, quick()));
    for nth in 0..5 {
        tell.send(Frame::Ping(Some(Nonce([nth; 8])))).unwrap();
        ours.go_on_for(ms(1)).await;
    }
    open(&gate);
    ours.go_on_for(ms(1)).await;
    let gate = gate.lock().unwrap();
    let pongs = gate.left.iter().filter_map(|(_, frame)| match frame {
        Frame::Pong(Some(Nonce([nth, ..]))) => Some(*nth),
        _ => None,
    });
    assert_eq!(pongs.collect::<Vec<_>>(), [0, 4]);
}

/// A turn ends behind some frame, whichever that is.
#[tokio::test(start_paused = true)]
async fn a_message_that_was_read_before_it_is_taken_apart_is_among_its_events() {
    let mut read = 0;
    for before in 0..130 {
        yield_now().await; // each gets a turn of its own
        let (transport, tell, _gate) = transport(true);
        for _ in 0..before {
            tell.send(Frame::Other).unwrap();
        }
        tell.send(Frame::Data("a message".into())).unwrap();
        let mut ours = Heartbeat::with_frames(transport, quick());
        if poll_immediate(ours.next()).await.is_some() {
            continue;
        }
        let parts = ours.into_parts();
        if parts.stream.unwrap().incoming.is_empty() {
            assert_eq!(parts.events, [PeerEvent::Message("a message".into())]);
            read += 1;
        }
    }
    assert!(read > 0, "a turn ends elsewhere");
}
