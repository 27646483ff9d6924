//! Asks the runtime's poller for the end of a connection, and the socket for
//! unread data. Not with a peek, which on most systems would use an error up.

use std::{
    io,
    pin::pin,
    task::{Context, Poll, Waker},
};

use tokio::{
    io::{Interest, Ready},
    net::TcpStream,
};

use super::Liveness;

pub(super) fn check(socket: &TcpStream) -> io::Result<Liveness> {
    let ready = readiness(socket)?;
    // Windows' poller reports an aborted connection as closed both ways.
    let aborted = cfg!(windows) && ready.is_read_closed() && ready.is_write_closed();
    if ready.is_error() || aborted {
        return Ok(Liveness::Reset(None));
    }
    Ok(match (unread(socket)?, ready.is_read_closed()) {
        (true, true) => Liveness::HalfClosed,
        (true, false) => Liveness::DataPending,
        (false, true) => Liveness::Closed,
        (false, false) => Liveness::Idle,
    })
}

pub(super) fn sweep<'a, K>(
    connections: impl Iterator<Item = (K, &'a TcpStream)>,
) -> io::Result<Vec<(K, Liveness)>> {
    let looked = connections.map(|(key, socket)| Ok((key, check(socket)?)));
    let gone = |looked: &io::Result<(K, Liveness)>| match looked {
        Ok((_, seen)) => seen.is_gone(),
        Err(_) => true,
    };
    looked.filter(gone).collect()
}

/// What the poller has seen so far.
fn readiness(socket: &TcpStream) -> io::Result<Ready> {
    // `ready`, and not `poll_read_ready`, which would replace the waker of the
    // task that reads.
    let ready = pin!(socket.ready(Interest::READABLE | Interest::WRITABLE | Interest::ERROR));
    match ready.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(ready) => ready,
        Poll::Pending => Ok(Ready::EMPTY),
    }
}

#[cfg(unix)]
fn unread(socket: &TcpStream) -> io::Result<bool> {
    Ok(rustix::io::ioctl_fionread(socket)? > 0)
}

/// Windows goes on telling an error, so a peek is fine. What it says of an end
/// the poller will say too.
#[cfg(not(unix))]
fn unread(socket: &TcpStream) -> io::Result<bool> {
    let peeked = socket2::SockRef::from(socket).peek(&mut [std::mem::MaybeUninit::uninit()]);
    Ok(peeked.is_ok_and(|length| length > 0))
}
