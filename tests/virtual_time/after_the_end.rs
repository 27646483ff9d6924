//! A stream of frames that has ended is never polled again, and neither is a sink that
//! was closed or has failed: `Stream` and `Sink` allow them to panic then.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{Sink, SinkExt, Stream, StreamExt};
use heartbeat_tests::{ms, quick, secs};
use heartbeat_tokio::{
    Dialect, Frame, Heartbeat, PeerEvent,
    testkit::{Line, LineEnd, Side},
};
use tokio::{io::AsyncWriteExt, time::sleep};
use tokio_util::codec::Framed;

use crate::own_frames::{OwnCodec, OwnFrames};

/// Panics if it is used after its end.
struct Strict {
    frames: OwnFrames<LineEnd>,
    has_ended: bool,
    is_closed: bool,
}

impl Dialect for Strict {
    type Message = Bytes;
    const HELLO: bool = true;
    const GOODBYE: bool = true;
}

impl Stream for Strict {
    type Item = io::Result<Frame<Bytes>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        assert!(!self.has_ended, "a stream that has ended is polled");
        let next = self.frames.poll_next_unpin(cx);
        self.has_ended = matches!(next, Poll::Ready(None | Some(Err(_))));
        next
    }
}

impl Strict {
    fn check(&self) {
        assert!(!self.is_closed, "a sink that is closed is used");
    }

    fn note(&mut self, result: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        self.is_closed = matches!(result, Poll::Ready(Err(_)));
        result
    }
}

impl Sink<Frame<Bytes>> for Strict {
    type Error = io::Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check();
        let result = self.frames.poll_ready_unpin(cx);
        self.note(result)
    }

    fn start_send(mut self: Pin<&mut Self>, frame: Frame<Bytes>) -> io::Result<()> {
        self.check();
        self.frames.start_send_unpin(frame)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check();
        let result = self.frames.poll_flush_unpin(cx);
        self.note(result)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check();
        let result = self.frames.poll_close_unpin(cx);
        self.is_closed = result.is_ready();
        result
    }
}

/// How it ends.
#[derive(Clone, Copy, Debug)]
enum End {
    PeerDrops,
    PeerLeaves,
    PeerFinishes,
    PeerBreaksTheProtocol,
    WeLeave,
    BothFinish,
    Reset,
    Silence,
}

#[tokio::test(start_paused = true)]
async fn lesson_77_nothing_is_polled_after_its_end() {
    for end in [
        End::PeerDrops,
        End::PeerLeaves,
        End::PeerFinishes,
        End::PeerBreaksTheProtocol,
        End::WeLeave,
        End::BothFinish,
        End::Reset,
        End::Silence,
    ] {
        for spawned in [false, true] {
            let (ours, theirs, line) = Line::pair();
            let heartbeat = Heartbeat::with_frames(
                Strict {
                    frames: OwnFrames(Framed::new(ours, OwnCodec)),
                    has_ended: false,
                    is_closed: false,
                },
                quick(),
            );
            let peer = tokio::spawn(be_the_peer(theirs, line, end));
            if spawned {
                let mut driver = heartbeat.spawn();
                driver.sender.send("hello".into()).await.unwrap();
                match end {
                    End::WeLeave => drop(driver.sender.close().await.unwrap()),
                    End::BothFinish => driver.sender.finish().await.unwrap(),
                    _ => {}
                }
                while driver.receiver.next().await.is_some() {}
                assert!(driver.receiver.next().await.is_none());
                driver.task.await.unwrap();
            } else {
                let mut heartbeat = heartbeat;
                heartbeat.send("hello".into()).await.unwrap();
                match end {
                    End::WeLeave => heartbeat.close().await.unwrap(),
                    End::BothFinish => heartbeat.finish().await.unwrap(),
                    _ => {}
                }
                let mut last = None;
                while let Some(event) = heartbeat.next().await {
                    last = Some(event);
                }
                assert!(
                    last.as_ref().is_some_and(PeerEvent::is_terminal),
                    "{end:?}: {last:?}"
                );
                for _ in 0..3 {
                    assert!(heartbeat.next().await.is_none());
                    let _ = heartbeat.send("late".into()).await;
                    let _ = heartbeat.flush().await;
                    let _ = heartbeat.close().await;
                }
            }
            peer.await.unwrap();
        }
    }
}

/// Talks for a while, and then ends it.
async fn be_the_peer(mut stream: LineEnd, line: Line, end: End) {
    if matches!(end, End::PeerBreaksTheProtocol) {
        stream.write_all(&[0, 0, 0, 1, 0xee]).await.unwrap();
        sleep(secs(5)).await;
        return;
    }
    let mut peer = Heartbeat::new(stream, quick());
    peer.next().await.unwrap();
    peer.send("hello".into()).await.unwrap();
    let talking = async { while peer.next().await.is_some() {} };
    let _ = tokio::time::timeout(ms(500), talking).await;
    match end {
        End::PeerDrops => return,
        End::PeerLeaves => drop(peer.close().await),
        End::PeerFinishes | End::BothFinish => peer.finish().await.unwrap_or_default(),
        End::Reset => line.reset(),
        End::Silence => line.cut(Side::BOTH),
        End::WeLeave | End::PeerBreaksTheProtocol => {}
    }
    let rest = async { while peer.next().await.is_some() {} };
    let _ = tokio::time::timeout(secs(2), rest).await;
}
