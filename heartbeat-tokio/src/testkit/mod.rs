//! A line for your own tests: two streams in memory, and a handle that injects the faults of
//! networks and processes.
//!
//! This module decides which faults a test can inject. `state.rs` decides what each side
//! sees of them, and `lane.rs` when bytes arrive.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), heartbeat_tokio::ConfigError> {
//! use std::time::Duration;
//!
//! use futures::StreamExt;
//! use heartbeat_tokio::{
//!     Cause, Config, Heartbeat, PeerEvent,
//!     testkit::{Line, Side},
//! };
//!
//! let (ours, theirs, line) = Line::pair();
//! let config = Config::detect_within(Duration::from_millis(300))?;
//! let _peer = Heartbeat::new(theirs, config).spawn();
//! let mut program = Heartbeat::new(ours, config);
//!
//! while let Some(event) = program.next().await {
//!     match event {
//!         PeerEvent::Connected { .. } => line.freeze(Side::Right),
//!         PeerEvent::Dead(death) => assert_eq!(death.cause, Cause::Silent),
//!         _ => {}
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! Time is tokio's. In a test with `start_paused = true` it is virtual: an hour
//! takes no time at all, and every bound is exact to tokio's millisecond. The
//! chapter "Testing your program" of the guide has tests to copy.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

mod lane;
mod machine;
mod state;

use lane::Ending;
pub use machine::Machine;
use state::State;

/// The default limit of bytes in flight in one direction: 64 KiB.
const ROOM: usize = 64 * 1024;

/// One of the two ends of a [`Line`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a line has two ends")]
pub enum Side {
    /// The side of the first stream.
    Left,
    /// The side of the second stream.
    Right,
}

impl Side {
    /// Both, for a fault in both directions.
    pub const BOTH: [Self; 2] = [Self::Left, Self::Right];

    const fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }
}

impl IntoIterator for Side {
    type Item = Self;
    type IntoIter = std::iter::Once<Self>;

    fn into_iter(self) -> Self::IntoIter {
        std::iter::once(self)
    }
}

/// The line between two streams, and the handle that injects faults into it.
///
/// A direction is named by the [`Side`] that sends in it. A method that takes sides takes one,
/// or [`Side::BOTH`]. Clones are handles of the same line.
///
/// | method | simulates |
/// |---|---|
/// | [`freeze`](Self::freeze) | SIGSTOP, a program that hangs, a machine that sleeps |
/// | [`cut`](Self::cut) | a cable, a firewall that drops, a NAT that forgot |
/// | [`delay`](Self::delay), [`limit_rate`](Self::limit_rate) | a slow line |
/// | [`half_close`](Self::half_close) | `shutdown`: no more is sent in one direction |
/// | [`reset`](Self::reset) | a host that rebooted, a proxy that gave up |
/// | [`fail`](Self::fail) | a verdict of one side's kernel |
/// | dropping a stream | a process that ends or is killed |
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use std::time::Duration;
///
/// use heartbeat_tokio::testkit::{Line, Side};
/// use tokio::{io::{AsyncReadExt, AsyncWriteExt}, time::timeout};
///
/// let (mut left, mut right, line) = Line::pair();
/// line.cut(Side::Left); // what the left side sends doesn't arrive
/// left.write_all(b"hello").await?;
/// let mut heard = [0; 5];
/// let reading = timeout(Duration::from_millis(5), right.read_exact(&mut heard)).await;
/// assert!(reading.is_err());
///
/// line.mend(Side::Left);
/// right.read_exact(&mut heard).await?;
/// assert_eq!(&heard, b"hello");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Line(Arc<Mutex<State>>);

impl Line {
    /// Two connected streams, and the line between them, with room for 64 KiB in flight in each
    /// direction.
    #[must_use]
    pub fn pair() -> (LineEnd, LineEnd, Self) {
        Self::with_room(ROOM)
    }

    /// The same with room for `bytes` bytes, at least 1, that were written and not read. A write
    /// without room waits, as for TCP's windows and buffers.
    #[must_use]
    pub fn with_room(bytes: usize) -> (LineEnd, LineEnd, Self) {
        let line = Self(Arc::new(Mutex::new(State::new(bytes.max(1)))));
        let stream = |side| LineEnd {
            line: line.clone(),
            side,
            arrival: None,
            end: None,
        };
        (stream(Side::Left), stream(Side::Right), line)
    }

    /// Stops the side's stream: it neither reads nor writes, and dropping it isn't visible to the
    /// other end. Bytes that it had written still arrive, and bytes sent to it wait, as in its
    /// kernel.
    ///
    /// Unlike SIGSTOP it doesn't stop the program: its timers go on, so a heartbeat there gives up
    /// its peer in time, but can't tell it.
    pub fn freeze(&self, sides: impl IntoIterator<Item = Side>) {
        self.change(sides, State::freeze);
    }

    /// The side's stream continues.
    pub fn thaw(&self, sides: impl IntoIterator<Item = Side>) {
        self.change(sides, State::thaw);
    }

    /// Nothing that the side sends arrives any more, not even its end. It isn't lost: as TCP
    /// would retransmit it, it arrives when the line is [mended](Self::mend).
    pub fn cut(&self, from: impl IntoIterator<Item = Side>) {
        self.change(from, |state, side| state.from(side).cut());
    }

    /// Undoes a cut. Bytes that were sent meanwhile arrive at once, whereas TCP takes up to as
    /// long again as the outage.
    pub fn mend(&self, from: impl IntoIterator<Item = Side>) {
        self.change(from, |state, side| state.from(side).mend());
    }

    /// Delays bytes that the side sends from now on: half of a round trip. Nothing overtakes
    /// earlier bytes. A delay above 365 days counts as 365 days.
    pub fn delay(&self, from: impl IntoIterator<Item = Side>, time: Duration) {
        self.change(from, |state, side| state.from(side).set_delay(time));
    }

    /// Bytes that the side sends from now on arrive at `bytes_per_second` at most; zero is no
    /// limit. Waiting bytes take room.
    pub fn limit_rate(&self, from: impl IntoIterator<Item = Side>, bytes_per_second: u32) {
        self.change(from, |state, side| {
            state.from(side).set_rate(bytes_per_second);
        });
    }

    /// The side sends no more, as if it had called `shutdown`: the other one reads the remaining
    /// bytes and then the end. The side still receives.
    pub fn half_close(&self, from: impl IntoIterator<Item = Side>) {
        self.change(from, |state, side| state.from(side).close(Ending::End));
    }

    /// Resets the connection for both sides, behind the bytes that have arrived. Bytes in flight
    /// are lost.
    pub fn reset(&self) {
        self.fail(Side::BOTH, io::ErrorKind::ConnectionReset);
    }

    /// The side's kernel gives the connection up, with `TimedOut`, `HostUnreachable` or the like.
    /// The side gets the error once; after that it reads the end and can't write. The other side
    /// gets nothing.
    pub fn fail(&self, sides: impl IntoIterator<Item = Side>, kind: io::ErrorKind) {
        self.change(sides, |state, side| state.fail(side, kind));
    }

    /// The bytes that the side has sent and that weren't read yet.
    #[must_use]
    pub fn under_way(&self, from: Side) -> usize {
        self.state().from(from).under_way()
    }

    fn change(&self, sides: impl IntoIterator<Item = Side>, change: impl Fn(&mut State, Side)) {
        let mut state = self.state();
        for side in sides {
            change(&mut state, side);
        }
        for side in Side::BOTH {
            state.from(side).wake();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = f.debug_struct("Line");
        let mut state = self.state();
        for (name, side) in [("left", Side::Left), ("right", Side::Right)] {
            let under_way = state.from(side).under_way();
            let faults = [
                state.is_frozen(side).then_some("frozen"),
                state.from(side).is_cut().then_some("cut"),
            ];
            line.field(name, &(under_way, faults));
        }
        line.finish()
    }
}

/// One of the two streams of a [`Line`].
///
/// Dropping it ends the connection as the end of a process does: the other side reads the
/// remaining bytes and then the end, or a reset if this side left something unread.
#[derive(Debug)]
pub struct LineEnd {
    line: Line,
    side: Side,
    /// The time of the next arrival, while a read waits for it.
    arrival: Timer,
    /// The time when the other side's end arrives, while a write waits for room.
    end: Timer,
}

type Timer = Option<Pin<Box<Sleep>>>;

/// Polls again at each moment that the result names.
fn poll_at<T>(
    timer: &mut Timer,
    cx: &mut Context<'_>,
    mut ask: impl FnMut(&Context<'_>) -> Result<Poll<T>, Instant>,
) -> Poll<T> {
    loop {
        let at = match ask(cx) {
            Ok(done) => return done,
            Err(at) => at,
        };
        let sleep = timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() != at {
            sleep.as_mut().reset(at);
        }
        ready!(sleep.as_mut().poll(cx));
        *timer = None;
    }
}

impl AsyncRead for LineEnd {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        poll_at(&mut this.arrival, cx, |cx| {
            this.line.state().read(this.side, cx, buffer)
        })
    }
}

impl AsyncWrite for LineEnd {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        poll_at(&mut this.end, cx, |cx| {
            this.line.state().write(this.side, cx, bytes)
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.line.state().shutdown(self.side, cx)
    }
}

impl Drop for LineEnd {
    fn drop(&mut self) {
        self.line.change(self.side, State::drop_stream);
    }
}
