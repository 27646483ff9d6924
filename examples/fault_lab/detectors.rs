//! The ways in which people find out that a peer is gone, each as it is
//! usually written, on a connection of its own.
//!
//! A detector decides only when to raise an alarm. Whether it was right to is
//! judged in `report.rs`.

use std::{
    convert::Infallible,
    error::Error,
    io,
    mem::MaybeUninit,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{FutureExt, SinkExt, StreamExt, future::pending};
use heartbeat_tokio::{Cause, Config, Heartbeat, PeerEvent, SafetyNet};
use socket2::SockRef;
use tokio::{
    io::Interest,
    net::TcpStream,
    time::{interval, sleep},
};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

/// The size and the period of our messages when we send all the time.
const PORTION: usize = 16 * 1024;
const PORTIONS_EVERY: Duration = Duration::from_millis(10);

/// How to find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detector {
    /// This project's.
    Heartbeat,
    /// The one that people paste.
    HandWritten,
    /// TCP keepalive, and a read that waits.
    Keepalive,
    /// `TCP_USER_TIMEOUT`, with a byte written now and then, and a read that
    /// waits.
    UserTimeout,
    /// A byte written now and then.
    Write,
    /// A read that waits.
    Read,
    /// A periodic peek.
    Peek,
    /// Asking the poller now and then whether the peer has closed.
    Poll,
}

/// Under which circumstances it watches.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// Detect a death within this time.
    pub budget: Duration,
    /// Whether the application sends all the time.
    pub we_send: bool,
}

/// "The peer is gone", says a detector.
#[derive(Clone, Debug)]
pub struct Alarm {
    pub at: Instant,
    /// Why it thinks so.
    pub verdict: String,
    /// Only a heartbeat has one, and only of a death.
    pub diagnosis: Option<String>,
}

type Watched = Result<Infallible, Alarm>;

impl Detector {
    pub const ALL: [Self; 8] = [
        Self::Heartbeat,
        Self::HandWritten,
        Self::Keepalive,
        Self::UserTimeout,
        Self::Write,
        Self::Read,
        Self::Peek,
        Self::Poll,
    ];

    /// As it is written in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Heartbeat => "heartbeat",
            Self::HandWritten => "hand_written",
            Self::Keepalive => "keepalive",
            Self::UserTimeout => "user_timeout",
            Self::Write => "write",
            Self::Read => "read",
            Self::Peek => "peek",
            Self::Poll => "poll",
        }
    }

    /// Watches until it raises an alarm, which may be never.
    pub async fn watch(self, stream: TcpStream, circumstances: Circumstances) -> Alarm {
        let watched = match self {
            Self::Heartbeat => heartbeat(stream, circumstances).await,
            Self::HandWritten => hand_written(stream, circumstances).await,
            Self::Write => write(&stream, circumstances).await,
            Self::UserTimeout => user_timeout(&stream, circumstances).await,
            Self::Keepalive => {
                beside_sending(keepalive(&stream, circumstances), &stream, circumstances).await
            }
            Self::Read => beside_sending(read(&stream), &stream, circumstances).await,
            Self::Peek => {
                beside_sending(peek(&stream, circumstances), &stream, circumstances).await
            }
            Self::Poll => {
                beside_sending(poll(&stream, circumstances), &stream, circumstances).await
            }
        };
        let Err(alarm) = watched;
        alarm
    }
}

impl Circumstances {
    /// The period of detectors that check or write.
    fn now_and_then(self) -> Duration {
        self.budget / 6
    }
}

impl Alarm {
    fn new(verdict: impl Into<String>) -> Self {
        Self {
            at: Instant::now(),
            verdict: verdict.into(),
            diagnosis: None,
        }
    }
}

/// What the standard library calls it.
impl From<io::Error> for Alarm {
    fn from(error: io::Error) -> Self {
        Self::new(format!("{:?}", error.kind()))
    }
}

async fn heartbeat(stream: TcpStream, circumstances: Circumstances) -> Watched {
    let config = Config::detect_within(circumstances.budget)
        .map_err(|error| Alarm::new(error.to_string()))?;
    let (mut outgoing, mut events) = Heartbeat::new(stream, config).split();

    let sending = async {
        let message = Bytes::from(vec![0; PORTION]);
        while circumstances.we_send && outgoing.send(message.clone()).await.is_ok() {
            sleep(PORTIONS_EVERY).await;
        }
        pending().await
    };
    let watching = async {
        while let Some(event) = events.next().await {
            match event {
                PeerEvent::Closed { .. } => return Alarm::new("Closed"),
                PeerEvent::Dead(death) => {
                    let cause = match &death.cause {
                        Cause::GivenUp { .. } => "GivenUp".to_owned(),
                        cause => format!("{cause:?}"),
                    };
                    return Alarm {
                        diagnosis: Some(format!("{:?}", death.diagnosis)),
                        ..Alarm::new(cause)
                    };
                }
                _ => {}
            }
        }
        Alarm::new("the events ended")
    };
    tokio::select! {
        never = sending => never,
        alarm = watching => Err(alarm),
    }
}

/// What is pasted everywhere: one loop, a tick, and when something was last
/// seen.
async fn hand_written(stream: TcpStream, circumstances: Circumstances) -> Watched {
    let mut framed = Framed::new(stream, LengthDelimitedCodec::new());
    let mut tick = interval(circumstances.budget / 3);
    let mut outgoing = interval(PORTIONS_EVERY);
    let mut last_seen = Instant::now();
    loop {
        tokio::select! {
            frame = framed.next() => match frame {
                Some(frame) => {
                    frame?;
                    last_seen = Instant::now();
                }
                None => return Err(Alarm::new("Eof")),
            },
            _ = tick.tick() => {
                if last_seen.elapsed() > circumstances.budget {
                    return Err(Alarm::new("TimedOut"));
                }
                framed.send(Bytes::from_static(b"ping")).await?;
            }
            _ = outgoing.tick(), if circumstances.we_send => {
                framed.send(Bytes::from(vec![0; PORTION])).await?;
            }
        }
    }
}

/// A third of the budget until the first probe and between two, and two of
/// them: as near to the budget as whole seconds get.
async fn keepalive(stream: &TcpStream, circumstances: Circumstances) -> Watched {
    let third = circumstances.budget / 3;
    set(stream, SafetyNet::new(third, third, 2))?;
    read(stream).await
}

async fn user_timeout(stream: &TcpStream, circumstances: Circumstances) -> Watched {
    SockRef::from(stream).set_keepalive(false)?;
    set_user_timeout(stream, circumstances.budget)?;
    tokio::select! {
        alarm = write(stream, circumstances) => alarm,
        alarm = read(stream) => alarm,
    }
}

/// Kernel defaults: a side that waits for data.
async fn read(stream: &TcpStream) -> Watched {
    let mut buffer = [0; 4096];
    loop {
        stream.readable().await?;
        match stream.try_read(&mut buffer) {
            Ok(0) => return Err(Alarm::new("Eof")),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Kernel defaults: a side that sends and expects no answer.
async fn write(stream: &TcpStream, circumstances: Circumstances) -> Watched {
    let (portion, every) = match circumstances.we_send {
        true => (PORTION, PORTIONS_EVERY),
        false => (1, circumstances.now_and_then()),
    };
    let portion = vec![0; portion];
    loop {
        stream.writable().await?;
        match stream.try_write(&portion) {
            Ok(_) => sleep(every).await,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// `MSG_PEEK` by the clock.
async fn peek(stream: &TcpStream, circumstances: Circumstances) -> Watched {
    let mut tick = interval(circumstances.now_and_then());
    loop {
        tick.tick().await;
        match SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]) {
            Ok(0) => return Err(Alarm::new("Eof")),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The poller's word on the half-close (`EPOLLRDHUP`), by the clock.
async fn poll(stream: &TcpStream, circumstances: Circumstances) -> Watched {
    let mut tick = interval(circumstances.now_and_then());
    loop {
        tick.tick().await;
        let Some(ready) = stream.ready(Interest::READABLE).now_or_never() else {
            continue;
        };
        if ready?.is_read_closed() {
            return Err(match stream.take_error()? {
                Some(error) => error.into(),
                None => Alarm::new("Eof"),
            });
        }
    }
}

/// Sends meanwhile, if the application does. An error that only a write would
/// have seen is none of this detector's.
async fn beside_sending(
    watched: impl Future<Output = Watched>,
    stream: &TcpStream,
    circumstances: Circumstances,
) -> Watched {
    let sending = async {
        if circumstances.we_send {
            let _ = write(stream, circumstances).await;
        }
        pending().await
    };
    tokio::select! {
        never = sending => never,
        alarm = watched => alarm,
    }
}

fn set(stream: &TcpStream, net: Result<SafetyNet, impl Error>) -> Result<(), Alarm> {
    let net = net.map_err(|error| Alarm::new(error.to_string()))?;
    // An option that this system lacks is missing for all detectors.
    let _ = net.apply(stream);
    Ok(())
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn set_user_timeout(stream: &TcpStream, timeout: Duration) -> io::Result<()> {
    SockRef::from(stream).set_tcp_user_timeout(Some(timeout))
}

/// There is none: what is left are the writes.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn set_user_timeout(_: &TcpStream, _: Duration) -> io::Result<()> {
    Ok(())
}
