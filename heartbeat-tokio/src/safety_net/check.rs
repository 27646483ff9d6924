//! What a socket tells without being read from.

use std::{
    fmt, io,
    mem::MaybeUninit,
    pin::pin,
    task::{Context, Poll, Waker},
};

use heartbeat_core::End;
use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream};

use super::end_of;

/// Looks at a socket without taking anything from it.
///
/// Never waits, and takes no data: what is there is still read afterwards, and
/// tasks that wait for the socket are still woken. From another task, the
/// halves of a [split](TcpStream::into_split) stream give the socket with
/// `as_ref()`.
///
/// An error of the connection is another matter. **The kernel tells it once**,
/// and if that is to [`check`], the next read gives 0, as if the peer had closed
/// in good order. So this function is for connections that are thrown away when
/// they are gone, as in a pool. If you go on reading, use a [`Latch`].
///
/// Unread data hides the end that lies behind it. That a FIN has arrived is
/// known all the same, from the runtime's poller, once that has run; on a
/// current-thread runtime that means: after the next `await` that waits.
///
/// ```
/// # use heartbeat_tokio::safety_net::{self, Liveness};
/// # use tokio::net::{TcpListener, TcpStream};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// # let listener = TcpListener::bind("127.0.0.1:0").await?;
/// # let pooled = TcpStream::connect(listener.local_addr()?).await?;
/// # let (peer, _) = listener.accept().await?;
/// // Before a pooled connection is used again: nothing may have happened to it.
/// assert_eq!(safety_net::check(&pooled)?, Liveness::Idle);
///
/// drop(peer);
/// # pooled.readable().await?;
/// assert!(safety_net::check(&pooled)?.is_gone());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// If the socket can't be asked, such as when its runtime has shut down. An
/// error of the connection itself is [`Liveness::Reset`].
pub fn check(socket: &TcpStream) -> io::Result<Liveness> {
    // Past tokio's readiness, which so can neither be out of date nor be
    // cleared behind the back of a task that waits for it.
    let peeked = loop {
        match SockRef::from(socket).peek(&mut [MaybeUninit::uninit()]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            peeked => break peeked,
        }
    };
    let seen = match peeked {
        Ok(0) => return Ok(Liveness::Closed),
        Ok(_) => Liveness::DataPending,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Liveness::Idle,
        // The arguments are in order, so an error is the connection's own.
        Err(error) => return error.raw_os_error().map(Liveness::Reset).ok_or(error),
    };
    Ok(if is_read_closed(socket)? {
        Liveness::Closed
    } else {
        seen
    })
}

/// Whether the poller has seen that the peer won't send any more.
fn is_read_closed(socket: &TcpStream) -> io::Result<bool> {
    // `ready`, and not `poll_read_ready`, which would replace the waker of the
    // task that reads.
    let ready = pin!(socket.ready(Interest::READABLE));
    match ready.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(ready) => Ok(ready?.is_read_closed()),
        Poll::Pending => Ok(false),
    }
}

/// What a look at a socket shows.
///
/// None of it says that the peer's application is well, nor that the network
/// still carries anything: a peer that lost power is [`Idle`](Self::Idle) until
/// somebody asks it something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive] // some systems could tell more
pub enum Liveness {
    /// Nothing to read, and no end in sight.
    Idle,
    /// There are bytes to read. Under TLS they needn't be the application's:
    /// tickets and alerts look the same.
    DataPending,
    /// The peer won't send any more: it closed, was killed, or shut down its
    /// sending side and still reads; these look alike.
    ///
    /// Data may be left to read, and behind it an error that can't be seen yet.
    /// Reading to the end tells.
    Closed,
    /// The connection is gone, with this error code: `ECONNRESET` mostly, or
    /// `ETIMEDOUT` and the like if keepalive or the user timeout gave it up.
    ///
    /// The error has been used up: a read gives 0 now, unless a [`Latch`]
    /// restores it. [`io::Error::from_raw_os_error`] turns the code back into
    /// the error.
    Reset(i32),
}

impl Liveness {
    /// Whether nothing more will arrive, once the data that is there has been
    /// read.
    #[must_use]
    pub const fn is_gone(&self) -> bool {
        matches!(self, Self::Closed | Self::Reset(_))
    }

    /// The end that it means, if any: what to tell
    /// [`Monitor::handle_end`](heartbeat_core::Monitor::handle_end).
    #[must_use]
    pub fn end(&self) -> Option<End> {
        match *self {
            Self::Idle | Self::DataPending => None,
            Self::Closed => Some(End::Eof),
            Self::Reset(errno) => Some(end_of(&io::Error::from_raw_os_error(errno))),
        }
    }
}

impl fmt::Display for Liveness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Idle => f.write_str("idle"),
            Self::DataPending => f.write_str("data to read"),
            Self::Closed => f.write_str("closed by the peer"),
            Self::Reset(errno) => io::Error::from_raw_os_error(errno).fmt(f),
        }
    }
}

/// Keeps the error that a [`check`] uses up, for the one who reads.
///
/// The kernel tells the error of a connection once. Whoever looks first gets
/// it, and a read after that gives 0: a reset would pass for a good end, and
/// half a message for a whole one. So a connection that is both looked at and
/// read from has one of these beside it, which sees both.
///
/// ```
/// # use heartbeat_tokio::safety_net::Latch;
/// # use tokio::{io::AsyncReadExt, net::{TcpListener, TcpStream}};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// # let listener = TcpListener::bind("127.0.0.1:0").await?;
/// # let mut stream = TcpStream::connect(listener.local_addr()?).await?;
/// # let (peer, _) = listener.accept().await?;
/// # socket2::SockRef::from(&peer).set_linger(Some(std::time::Duration::ZERO))?;
/// # drop(peer);
/// # stream.readable().await?;
/// let mut latch = Latch::new();
/// assert!(latch.check(&stream)?.is_gone()); // the peer has reset it
///
/// let read = latch.after_read(stream.read(&mut [0; 64]).await);
/// assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Latch {
    errno: Option<i32>,
    handed_on: bool,
}

impl Latch {
    /// For one connection, of which nothing is known yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            errno: None,
            handed_on: false,
        }
    }

    /// As the function [`check`], and remembers an error: from then on each
    /// look says [`Reset`](Liveness::Reset).
    ///
    /// # Errors
    ///
    /// As [`check`].
    pub fn check(&mut self, socket: &TcpStream) -> io::Result<Liveness> {
        if let Some(errno) = self.errno {
            return Ok(Liveness::Reset(errno));
        }
        let liveness = check(socket)?;
        if let Liveness::Reset(errno) = liveness {
            self.errno = Some(errno);
        }
        Ok(liveness)
    }

    /// What a read would have given without the look: pass each result through
    /// here.
    ///
    /// The first 0 becomes the error that was used up; later ones stay 0, as
    /// with the kernel. The read must have been into a buffer that isn't empty,
    /// else its 0 means nothing.
    ///
    /// # Errors
    ///
    /// The one that was used up, or the read's own.
    pub fn after_read(&mut self, read: io::Result<usize>) -> io::Result<usize> {
        match (read, self.errno) {
            (Ok(0), Some(errno)) if !self.handed_on => {
                self.handed_on = true;
                Err(io::Error::from_raw_os_error(errno))
            }
            (read, _) => read,
        }
    }

    /// The error that was used up, if any was.
    #[must_use]
    pub fn error(&self) -> Option<io::Error> {
        self.errno.map(io::Error::from_raw_os_error)
    }
}
