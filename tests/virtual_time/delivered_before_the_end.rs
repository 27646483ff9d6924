//! Everything that was received before the end is delivered before the
//! terminal event, whatever the end is, however the bytes came, and whatever
//! the application was doing meanwhile. In virtual time; the last one over
//! real sockets.
//!
//! ```text
//!  bytes of the peer   Hello  message ... message | goodbye, FIN, RST, rubbish,
//!                                                 | a flood, nothing any more
//!  the application     message ... message  Closed or Dead  None
//! ```

use std::{
    io,
    pin::Pin,
    sync::mpsc as told,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use heartbeat_core::{Cause, Control, GoodbyeCode, NoDetail, Nonce};
use heartbeat_tests::{
    all_events, by_peer, data_frame,
    drive::{Command, Drive, Inline, Spawned},
    framed, is_cut_off, ms, quick,
    scripted::filler,
    secs,
};
use heartbeat_tokio::{Config, Evidence, Heartbeat, PeerEvent, ProtocolError, safety_net};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    runtime::Builder,
    sync::mpsc,
    time::{Sleep, sleep, timeout},
};

#[test]
fn whatever_the_end_inline() {
    whatever_the_end(Inline);
}

#[test]
fn whatever_the_end_spawned() {
    whatever_the_end(Spawned);
}

#[test]
fn a_reset_behind_unread_data_inline() {
    a_reset_behind_unread_data(Inline);
}

#[test]
fn a_reset_behind_unread_data_spawned() {
    a_reset_behind_unread_data(Spawned);
}

/// Every end, every way to arrive, every kind of evidence, reading or sending.
fn whatever_the_end(drive: impl Drive) {
    let mut cases = 0;
    for end in ENDS {
        for sizes in [
            &[][..],
            &[0],
            &[5; 200],
            &[70_000, 3, 100_000],
            &[1024, 1025, 8],
        ] {
            for chunk in [7, 1000, usize::MAX] {
                for pause in [Duration::ZERO, ms(1)] {
                    for evidence in [Evidence::AnyBytes, Evidence::Frame, Evidence::Echo] {
                        for sending in [false, true] {
                            let long =
                                sizes.iter().sum::<usize>() > 10_000 || matches!(end, End::Flood);
                            // Where a write fails, all bytes to read have arrived.
                            let broken = matches!(end, End::WriteError(..));
                            // Slower than the detection time, or slow to test.
                            let slow = long && (chunk == 7 || evidence == Evidence::Echo);
                            if !pause.is_zero() && (broken || slow) || long && chunk == 7 {
                                continue;
                            }
                            let case = Case {
                                end,
                                sizes,
                                chunk,
                                pause,
                                evidence,
                                sending,
                            };
                            case.check(drive);
                            cases += 1;
                        }
                    }
                }
            }
        }
    }
    println!("{cases} cases");
    assert!(cases > 1000);
}

/// A kernel that has both a message and a reset for us.
fn a_reset_behind_unread_data(drive: impl Drive) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let events = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        let mut theirs = theirs.unwrap().0;
        theirs.write_all(&bytes_of(&[5; 200], &[])).await.unwrap();
        socket2::SockRef::from(&theirs)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(theirs);
        // Both have arrived before the first poll.
        sleep(ms(50)).await;
        let (_commands, inbox) = mpsc::channel(1);
        let (tell, told) = told::channel();
        let driving = drive.drive(ours.unwrap(), quick(), inbox, move |event| {
            tell.send(event).unwrap();
        });
        timeout(secs(20), driving).await.expect("it ends");
        told.into_iter().collect::<Vec<_>>()
    });
    let (last, before) = events.split_last().unwrap();
    // The first write after the reset may be what learns of it.
    let PeerEvent::Dead(death) = last else {
        panic!("{last:?}")
    };
    assert!(is_cut_off(&death.cause), "{death}");
    assert_eq!(messages_of(before).len(), 200);
}

/// A writer that meets the end first, and a reader that has nothing to say of it: the
/// error means what it means everywhere else.
#[tokio::test(start_paused = true)]
async fn a_broken_pipe_means_the_same_by_every_path() {
    let (silent, _peer) = tokio::io::duplex(64);
    let mut heartbeat = Heartbeat::new(tokio::io::join(silent, Broken), Config::default());
    let events = all_events(&mut heartbeat).await;
    let Some(PeerEvent::Dead(death)) = events.last() else {
        panic!("{events:?}")
    };
    assert_eq!(death.cause, Cause::Eof);
    let error = io::ErrorKind::BrokenPipe.into();
    assert_eq!(safety_net::end_of(&error), heartbeat_core::End::Eof);
}

/// As with a process that slept: a write fails before the reactor has had a turn, in which
/// it tells of what had arrived.
#[tokio::test(start_paused = true)]
async fn what_the_reactor_tells_of_after_a_write_has_failed_is_delivered() {
    let (silent, mut peer) = tokio::io::duplex(4096);
    let mut heartbeat = Heartbeat::new(tokio::io::join(silent, Broken), quick());
    // Its turn comes when ours is over.
    let other = tokio::spawn(async move {
        peer.write_all(&bytes_of(&[5], &[])).await.unwrap();
        peer
    });
    let events = all_events(&mut heartbeat).await;
    assert_eq!(messages_of(&events).len(), 1, "{events:?}");
    drop(other);
}

/// Takes nothing.
struct Broken;

impl AsyncWrite for Broken {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

// ---- cases -----------------------------------------------------------------

/// One way to end, and what it is to be called.
#[derive(Clone, Copy, Debug)]
enum End {
    Goodbye,
    Eof,
    EofWithinAFrame,
    Error(io::ErrorKind, Cause),
    /// What a writer sees first, while there is still something to read.
    WriteError(io::ErrorKind, Cause),
    Rubbish,
    Flood,
    Silence,
    /// Neither reads nor sends.
    Stuck,
}

const ENDS: [End; 14] = [
    End::Goodbye,
    End::Eof,
    End::EofWithinAFrame,
    End::Error(io::ErrorKind::ConnectionReset, Cause::Reset),
    End::Error(io::ErrorKind::TimedOut, Cause::TimedOut),
    End::Error(io::ErrorKind::HostUnreachable, Cause::Unreachable),
    End::Error(io::ErrorKind::Other, Cause::Io),
    // The same as to a writer.
    End::Error(io::ErrorKind::BrokenPipe, Cause::Eof),
    End::WriteError(io::ErrorKind::BrokenPipe, Cause::Eof),
    End::WriteError(io::ErrorKind::ConnectionReset, Cause::Reset),
    End::Rubbish,
    End::Flood,
    End::Silence,
    End::Stuck,
];

#[derive(Clone, Copy, Debug)]
struct Case {
    end: End,
    /// Of the messages.
    sizes: &'static [usize],
    /// Bytes that one read gives at most.
    chunk: usize,
    /// Between two reads.
    pause: Duration,
    evidence: Evidence,
    /// Whether the application is in a `send` that takes long.
    sending: bool,
}

impl Case {
    fn check(self, drive: impl Drive) {
        let events = self.run(drive);
        let (last, before) = events.split_last().expect("it ended");
        assert!(
            before.iter().all(|event| !event.is_terminal()),
            "{self:?}: {before:?}"
        );
        match last {
            PeerEvent::Closed { reason } => {
                assert!(matches!(self.end, End::Goodbye), "{self:?}");
                assert_eq!(*reason, by_peer(), "{self:?}");
            }
            PeerEvent::Dead(death) => {
                let cause = death.cause.clone().with_detail(NoDetail);
                assert_eq!(Some(cause), self.cause(), "{self:?}");
            }
            other => panic!("{self:?}: {other:?}"),
        }
        let received = messages_of(before);
        assert_eq!(received.len(), self.sizes.len(), "{self:?}");
        for (number, (received, &size)) in received.iter().zip(self.sizes).enumerate() {
            assert!(
                **received == message(number, size),
                "{self:?}: message {number} differs"
            );
        }
    }

    fn run(self, drive: impl Drive) -> Vec<PeerEvent<Bytes>> {
        let builder = quick().to_builder().evidence(self.evidence);
        let config = builder.build().unwrap();
        let runtime = Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let (commands, inbox) = mpsc::channel(1);
            if self.sending {
                commands
                    .try_send(Command::Send(vec![1; 200_000].into()))
                    .unwrap();
            }
            let (tell, told) = told::channel();
            let driving = drive.drive(self.stream(), config, inbox, move |event| {
                tell.send(event).unwrap();
            });
            let ended = timeout(secs(3600), driving).await;
            assert!(ended.is_ok(), "{self:?}: it never ends");
            told.into_iter().collect()
        })
    }

    fn stream(self) -> Scripted {
        let nonce = |n: u64| Control::Ping(Nonce(n.to_be_bytes()));
        let last = match self.end {
            End::Goodbye => control(Control::Goodbye(GoodbyeCode::LEAVING)),
            End::EofWithinAFrame => data_frame(b"cut short")[..7].to_vec(),
            End::Rubbish => framed(b"\x33???"),
            End::Flood => (0..1000).flat_map(|n| control(nonce(n))).collect(),
            _ => Vec::new(),
        };
        Scripted {
            inbound: bytes_of(self.sizes, &last).into(),
            chunk: self.chunk,
            pause: self.pause,
            until: Box::pin(sleep(Duration::ZERO)),
            end: self.end,
            // Enough for our Hello, so that a send is what gets stuck.
            room: 1000,
        }
    }

    /// `None`: a goodbye.
    fn cause(self) -> Option<Cause> {
        Some(match self.end {
            End::Goodbye => return None,
            End::Eof | End::EofWithinAFrame => Cause::Eof,
            End::Error(_, cause) | End::WriteError(_, cause) => cause,
            End::Rubbish => Cause::Protocol(ProtocolError::UnknownTag { tag: 0x33 }),
            End::Flood => Cause::PingFlood,
            End::Silence => Cause::Silent,
            // A side that doesn't send has room for its pings.
            End::Stuck if self.sending => Cause::WriteStalled,
            End::Stuck => Cause::Silent,
        })
    }
}

fn bytes_of(sizes: &[usize], last: &[u8]) -> Vec<u8> {
    let mut bytes = control(Control::Hello(Config::default().hello([7; 8])));
    for (number, &size) in sizes.iter().enumerate() {
        bytes.extend(data_frame(&message(number, size)));
    }
    bytes.extend(last);
    bytes
}

fn message(number: usize, size: usize) -> Vec<u8> {
    filler(number, size).into()
}

fn control(control: Control) -> Vec<u8> {
    let mut buffer = [0; Control::MAX_ENCODED];
    framed(control.encode(&mut buffer).unwrap())
}

fn messages_of(events: &[PeerEvent<Bytes>]) -> Vec<&Bytes> {
    let messages = events.iter().filter_map(|event| match event {
        PeerEvent::Message(message) => Some(message),
        _ => None,
    });
    messages.collect()
}

/// A stream that gives what it was told to, and ends as it was told to.
struct Scripted {
    inbound: Bytes,
    chunk: usize,
    pause: Duration,
    until: Pin<Box<Sleep>>,
    end: End,
    /// Bytes that it takes before it is stuck, or breaks.
    room: usize,
}

impl AsyncRead for Scripted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        std::task::ready!(self.until.as_mut().poll(cx));
        if self.inbound.is_empty() {
            return match self.end {
                End::Eof | End::EofWithinAFrame => Poll::Ready(Ok(())),
                End::Error(kind, _) => Poll::Ready(Err(kind.into())),
                End::WriteError(io::ErrorKind::BrokenPipe, _) => Poll::Ready(Ok(())),
                End::WriteError(kind, _) => Poll::Ready(Err(kind.into())),
                _ => Poll::Pending,
            };
        }
        let size = self.chunk.min(buf.remaining()).min(self.inbound.len());
        buf.put_slice(&self.inbound[..size]);
        self.inbound.advance(size);
        if !self.pause.is_zero() {
            let until = tokio::time::Instant::now() + self.pause;
            self.until.as_mut().reset(until);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Scripted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.end {
            End::WriteError(kind, _) => Poll::Ready(Err(kind.into())),
            End::Stuck if self.room == 0 => Poll::Pending,
            End::Stuck => {
                let size = buf.len().min(self.room);
                self.room -= size;
                Poll::Ready(Ok(size))
            }
            _ => Poll::Ready(Ok(buf.len())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
