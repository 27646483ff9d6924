//! Asks the socket with a peek, and the runtime's poller for an end behind unread data.
//!
//! On these systems a peek doesn't take an error away: the BSDs' `soreceive` keeps `so_error`
//! for a peek, and Windows reports an aborted connection to each caller. (On Linux a peek
//! takes it; see `kernel.rs`.)

use std::{
    io::{self, ErrorKind},
    mem::MaybeUninit,
    pin::pin,
    task::{Context, Poll, Waker},
};

use socket2::SockRef;
use tokio::{
    io::{Interest, Ready},
    net::TcpStream,
};

use super::Liveness;

pub(super) fn check(socket: &TcpStream) -> io::Result<Liveness> {
    let peeked = SockRef::from(socket).peek(&mut [MaybeUninit::uninit()]);
    interpret(peeked, readiness(socket)?)
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

/// Combines a peek and the poller. Only the poller may know of a reset or a close behind
/// unread data, and only the peek sees what came since the poller has run.
fn interpret(peeked: io::Result<usize>, ready: Ready) -> io::Result<Liveness> {
    // Windows' poller reports an aborted connection as closed both ways.
    let aborted = cfg!(windows) && ready.is_read_closed() && ready.is_write_closed();
    if ready.is_error() || aborted {
        return Ok(Liveness::Reset(None));
    }
    match peeked {
        Ok(0) => Ok(Liveness::Closed),
        Ok(_) if ready.is_read_closed() => Ok(Liveness::HalfClosed),
        Ok(_) => Ok(Liveness::DataPending),
        Err(error) => match error.kind() {
            ErrorKind::WouldBlock if ready.is_read_closed() => Ok(Liveness::Closed),
            ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(Liveness::Idle),
            ErrorKind::OutOfMemory => Err(error),
            _ => Ok(Liveness::Reset(None)),
        },
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peek_says_counts_though_the_poller_hasnt_run() {
        let looked = |peeked: io::Result<usize>| interpret(peeked, Ready::EMPTY).unwrap();
        assert_eq!(looked(Ok(0)), Liveness::Closed);
        assert_eq!(looked(Ok(1)), Liveness::DataPending);
        assert_eq!(looked(Err(ErrorKind::WouldBlock.into())), Liveness::Idle);
        for gone in [
            ErrorKind::ConnectionReset,
            ErrorKind::ConnectionAborted,
            ErrorKind::TimedOut,
            ErrorKind::NotConnected,
        ] {
            assert_eq!(looked(Err(gone.into())), Liveness::Reset(None), "{gone}");
        }
    }

    #[test]
    fn what_only_the_poller_knows_counts_too() {
        let looked = |peeked| interpret(peeked, Ready::READ_CLOSED).unwrap();
        assert_eq!(looked(Ok(1)), Liveness::HalfClosed);
        assert_eq!(looked(Err(ErrorKind::WouldBlock.into())), Liveness::Closed);
        let seen = interpret(Ok(1), Ready::READ_CLOSED | Ready::ERROR).unwrap();
        assert_eq!(seen, Liveness::Reset(None));
    }
}
