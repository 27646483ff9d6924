//! Checks a socket without reading from it.
//!
//! This module decides when a connection counts as gone. It takes neither data nor errors;
//! both are left to the reader.

use std::{fmt, io};

use heartbeat_core::End;
use socket2::SockRef;
use tokio::net::TcpStream;

use super::end_of;

#[cfg(any(target_os = "android", target_os = "linux"))]
mod kernel;
// Its reasoning is tested on every system.
#[cfg(any(test, not(any(target_os = "android", target_os = "linux"))))]
#[cfg_attr(
    any(target_os = "android", target_os = "linux"),
    expect(dead_code, reason = "only its reasoning is tested here")
)]
mod poller;

#[cfg(any(target_os = "android", target_os = "linux"))]
use kernel as system;
#[cfg(not(any(target_os = "android", target_os = "linux")))]
use poller as system;

/// Checks a socket without taking anything from it.
///
/// It never waits. It takes neither data nor an error: both can still be read afterwards, and
/// tasks that wait for the socket are still woken. In another task, the halves of a
/// [split](TcpStream::into_split) stream return the socket from `as_ref()`.
///
/// On Linux and Android unread data hides nothing. Elsewhere an end behind unread data shows
/// once the runtime's poller has run: on a current-thread runtime after the next `await` that
/// waits.
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
/// If the socket can't be asked: the kernel has no memory, or on systems other
/// than Linux and Android its runtime has shut down. An error of the connection
/// itself is [`Liveness::Reset`].
pub fn check(socket: &TcpStream) -> io::Result<Liveness> {
    system::check(socket)
}

/// Checks many connections at once, and returns those that are [gone](Liveness::is_gone).
///
/// Like [`check`], it never waits and takes nothing. It is for tens of thousands of
/// connections in one call; on Linux 512 of them cost one system call. Each has a key of your
/// choice.
///
/// ```
/// # use std::collections::HashMap;
/// # use heartbeat_tokio::safety_net;
/// # use tokio::net::{TcpListener, TcpStream};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// # let listener = TcpListener::bind("127.0.0.1:0").await?;
/// # let mut pool = HashMap::new();
/// # let mut peers = Vec::new();
/// # for name in ["a", "b"] {
/// #     pool.insert(name, TcpStream::connect(listener.local_addr()?).await?);
/// #     peers.push(listener.accept().await?.0);
/// # }
/// # drop(peers.pop());
/// # pool["b"].readable().await?;
/// let connections = pool.iter().map(|(name, stream)| (*name, stream));
/// for (name, why) in safety_net::sweep(connections)? {
///     println!("{name} is gone: {why}");
///     pool.remove(name);
/// }
/// # assert_eq!(pool.len(), 1);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// As [`check`].
pub fn sweep<'a, K>(
    connections: impl IntoIterator<Item = (K, &'a TcpStream)>,
) -> io::Result<Vec<(K, Liveness)>> {
    system::sweep(connections.into_iter())
}

/// The state of a socket.
///
/// No variant proves that the peer's application or the network works: a peer that lost power
/// is [`Idle`](Self::Idle) until something is sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive] // some systems could tell more
pub enum Liveness {
    /// There is nothing to read, and no end.
    Idle,
    /// There are bytes to read. Under TLS they needn't be the application's:
    /// tickets and alerts look the same.
    DataPending,
    /// As [`Closed`](Self::Closed), with bytes to read before the end.
    HalfClosed,
    /// The peer won't send any more, and nothing is left to read: the next
    /// read gives 0.
    ///
    /// It closed, was killed, or shut down its sending side and still reads. Only a write can
    /// tell these apart.
    Closed,
    /// The connection has failed: usually the peer reset it, or keepalive or the user timeout
    /// gave it up. Data may be left to read.
    ///
    /// `None` from [`check`] and [`sweep`]: they leave the error to the next read,
    /// because the kernel reports it only once. `Some` from a [`Latch`], which takes it
    /// and gives it back; [`io::Error::from_raw_os_error`] turns the code into the error.
    Reset(Option<i32>),
}

impl Liveness {
    /// Whether nothing more will arrive after the data that can be read now.
    #[must_use]
    pub const fn is_gone(&self) -> bool {
        matches!(self, Self::HalfClosed | Self::Closed | Self::Reset(_))
    }

    /// The end for [`Monitor::handle_end`](heartbeat_core::Monitor::handle_end), if any. An error
    /// without a code counts as a reset.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        match *self {
            Self::Idle | Self::DataPending => None,
            Self::HalfClosed | Self::Closed => Some(End::Eof),
            Self::Reset(None) => Some(End::Reset),
            Self::Reset(Some(errno)) => Some(end_of(&io::Error::from_raw_os_error(errno))),
        }
    }
}

impl fmt::Display for Liveness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Idle => f.write_str("idle"),
            Self::DataPending => f.write_str("data to read"),
            Self::HalfClosed => f.write_str("closed by the peer, with data to read"),
            Self::Closed => f.write_str("closed by the peer"),
            Self::Reset(None) => f.write_str("connection reset, or given up"),
            Self::Reset(Some(errno)) => io::Error::from_raw_os_error(errno).fmt(f),
        }
    }
}

/// Takes the error of a connection before it is read, and keeps it for the reader.
///
/// The kernel reports the error of a connection once, to the first caller. A read after that
/// gives 0: a reset would look like an orderly end, and half a message like a whole one. So
/// [`check`] doesn't ask for it. To learn the error, keep a latch beside the connection, and
/// use it for both checks and reads.
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
    /// A latch for one connection.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            errno: None,
            handed_on: false,
        }
    }

    /// As the function [`check`], but takes an error and remembers it: from then on each call
    /// returns [`Reset`](Liveness::Reset) with its code. There is no code if the error was read
    /// meanwhile, or if only a read reports it (Windows).
    ///
    /// # Errors
    ///
    /// As [`check`].
    pub fn check(&mut self, socket: &TcpStream) -> io::Result<Liveness> {
        if let Some(errno) = self.errno {
            return Ok(Liveness::Reset(Some(errno)));
        }
        let mut seen = check(socket)?;
        if seen == Liveness::Reset(None) {
            let taken = SockRef::from(socket).take_error()?;
            seen = self.keep(taken.and_then(|error| error.raw_os_error()));
        }
        Ok(seen)
    }

    /// Takes the error of a connection that is reset. There is none if the reader has taken it
    /// meanwhile, or if this system reports it only to readers.
    fn keep(&mut self, errno: Option<i32>) -> Liveness {
        self.errno = errno;
        Liveness::Reset(errno)
    }

    /// The result that a read would have had without [`check`](Self::check). Pass the result of
    /// each read.
    ///
    /// The first 0 becomes the error that was taken; later ones stay 0, as with the kernel. The
    /// read's buffer must not be empty, because its 0 then means nothing.
    ///
    /// # Errors
    ///
    /// The error that was taken, or the read's own.
    pub fn after_read(&mut self, read: io::Result<usize>) -> io::Result<usize> {
        match (read, self.errno) {
            (Ok(0), Some(errno)) if !self.handed_on => {
                self.handed_on = true;
                Err(io::Error::from_raw_os_error(errno))
            }
            (read, _) => read,
        }
    }

    /// The error that was taken, if any.
    #[must_use]
    pub fn error(&self) -> Option<io::Error> {
        self.errno.map(io::Error::from_raw_os_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_without_a_code_stays_a_reset() {
        let mut latch = Latch::new();
        assert_eq!(latch.keep(None), Liveness::Reset(None));
        assert!(latch.error().is_none());
        assert_eq!(latch.after_read(Ok(0)).unwrap(), 0);
        assert_eq!(latch.keep(Some(5)), Liveness::Reset(Some(5)));
        assert_eq!(latch.after_read(Ok(0)).unwrap_err().raw_os_error(), Some(5));
    }
}
