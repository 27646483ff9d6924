//! Asks the kernel with `poll`, which reports an error without taking it, and a FIN behind
//! unread data.

use std::io;

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{ioctl_fionread, retry_on_intr},
};
use tokio::net::TcpStream;

use super::Liveness;

/// The number of sockets in one system call. The kernel accepts no more than the process may
/// open.
const AT_ONCE: usize = 512;

pub(super) fn check(socket: &TcpStream) -> io::Result<Liveness> {
    let mut asked = [ask(socket)];
    poll_now(&mut asked)?;
    let [asked] = asked;
    interpret(socket, asked.revents())
}

pub(super) fn sweep<'a, K>(
    mut connections: impl Iterator<Item = (K, &'a TcpStream)>,
) -> io::Result<Vec<(K, Liveness)>> {
    let mut gone = Vec::new();
    loop {
        let some: Vec<_> = connections.by_ref().take(AT_ONCE).collect();
        if some.is_empty() {
            return Ok(gone);
        }
        let mut asked: Vec<_> = some.iter().map(|(_, socket)| ask(socket)).collect();
        poll_now(&mut asked)?;
        let answers: Vec<_> = asked.iter().map(PollFd::revents).collect();
        for ((key, socket), answer) in some.into_iter().zip(answers) {
            let seen = interpret(socket, answer)?;
            if seen.is_gone() {
                gone.push((key, seen));
            }
        }
    }
}

fn ask(socket: &TcpStream) -> PollFd<'_> {
    PollFd::new(socket, PollFlags::IN | PollFlags::RDHUP)
}

fn poll_now(asked: &mut [PollFd<'_>]) -> io::Result<()> {
    retry_on_intr(|| poll(asked, Some(&Timespec::default())))?;
    Ok(())
}

fn interpret(socket: &TcpStream, answer: PollFlags) -> io::Result<Liveness> {
    Ok(if answer.contains(PollFlags::ERR) {
        Liveness::Reset(None)
    } else if answer.intersects(PollFlags::RDHUP | PollFlags::HUP) {
        match ioctl_fionread(socket)? {
            0 => Liveness::Closed,
            _ => Liveness::HalfClosed,
        }
    } else if answer.contains(PollFlags::IN) {
        Liveness::DataPending
    } else {
        Liveness::Idle
    })
}
