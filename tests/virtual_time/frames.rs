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
use futures::{FutureExt, Sink, SinkExt, Stream};
use heartbeat_tests::{Watched, ms, quick, secs};
use heartbeat_tokio::{Dialect, Frame, Heartbeat};
use tokio::{sync::mpsc, time::Instant};

/// What has left, in its order, and whether something may.
#[derive(Default)]
struct Gate {
    is_open: bool,
    left: Vec<(Instant, Frame<Bytes>)>,
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
    let mut gate = gate.lock().unwrap();
    gate.is_open = true;
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
        match gate.is_open {
            true => Poll::Ready(Ok(())),
            false => {
                gate.waiting = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn start_send(self: Pin<&mut Self>, frame: Frame<Bytes>) -> io::Result<()> {
        let mut gate = self.gate.lock().unwrap();
        gate.left.push((Instant::now(), frame));
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
