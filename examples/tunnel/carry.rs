//! One connection through the tunnel.
//!
//! This module decides what each program is told when the tunnel or the other program
//! fails: its connection is reset, and never ends as if all had arrived.

use std::{
    future::{Future, pending},
    io,
    time::Duration,
};

use heartbeat_tokio::{Config, GoodbyeCode, Heartbeat, Sender};
use socket2::SockRef;
use tokio::{io::copy_bidirectional, net::TcpStream, select};

/// The other program's connection broke.
const BROKEN: GoodbyeCode = GoodbyeCode(64);

/// Carries bytes between a program and the other end, until both directions have ended.
/// Beats go on from the start, also while the program is connected to.
///
/// Returns the bytes that the program sent and received.
pub async fn carry(
    program: impl Future<Output = io::Result<TcpStream>>,
    other_end: TcpStream,
    config: Config,
) -> io::Result<(u64, u64)> {
    other_end.set_nodelay(true)?;
    let mut tunnel = Heartbeat::new(other_end, config).into_io();
    let sender = tunnel.sender().clone();
    let carrying = async {
        let mut program = program.await?;
        program.set_nodelay(true)?;
        // However this ends from here on, it is a reset.
        refuse(&program)?;
        let carried = copy_bidirectional(&mut program, &mut tunnel).await?;
        SockRef::from(&program).set_linger(None)?;
        Ok(carried)
    };
    let carried = select! {
        carried = carrying => carried,
        death = death(&sender) => Err(death),
    };
    if let Err(error) = &carried {
        let reason = error.to_string().as_str().into();
        let _ = sender.close_with(BROKEN, reason).await;
    }
    carried
}

/// The program's connection is reset when it is dropped.
pub fn refuse(program: &TcpStream) -> io::Result<()> {
    SockRef::from(program).set_linger(Some(Duration::ZERO))
}

/// Waits for the verdict. A program that doesn't read is told of it too.
async fn death<M>(sender: &Sender<M>) -> io::Error {
    match sender.closed().await {
        Err(death) => death.into(),
        Ok(_) => pending().await, // the copy sees that end itself
    }
}
