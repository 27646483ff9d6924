//! A foreign server, in a process and on a port of its own.

use std::{ffi::OsStr, net::SocketAddr, process::Command, time::Duration};

use rustix::process::geteuid;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use crate::{free_address, ms, process::PeerProcess, secs};

/// A server that is gone when this is dropped.
#[derive(Debug)]
pub struct Server {
    /// Its process, to be stopped and killed.
    pub process: PeerProcess,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Starts the server whose command for a given port is `command`, and waits
    /// until it listens. `guard` is as for [`PeerProcess::guarded`].
    ///
    /// # Panics
    ///
    /// If it doesn't start.
    pub async fn start(guard: &str, command: impl Fn(u16) -> Command) -> Self {
        for _ in 0..5 {
            let address = free_address().expect("a free port");
            if let Some(server) = Self::start_at(address, guard, &command).await {
                return server;
            }
            // Another process was faster to take the port.
        }
        panic!("the server doesn't listen");
    }

    /// The same on a given port. `None` if another process has it.
    ///
    /// # Panics
    ///
    /// If it doesn't start.
    pub async fn start_at(
        address: SocketAddr,
        guard: &str,
        command: &impl Fn(u16) -> Command,
    ) -> Option<Self> {
        let started = PeerProcess::guarded(guard, &command(address.port()));
        let mut process = started.expect("it starts");
        let listens = listens(&mut process, address).await;
        listens.then_some(Self { process, address })
    }

    /// A new connection to it.
    ///
    /// # Panics
    ///
    /// If it doesn't accept one.
    pub async fn connect(&self) -> TcpStream {
        let connected = timeout(secs(20), TcpStream::connect(self.address)).await;
        connected.expect("in time").expect("it listens")
    }

    /// A new connection to it, over a line with this rate in bytes a second.
    ///
    /// # Panics
    ///
    /// As [`connect`](Self::connect).
    pub async fn connect_slowly(&self, bytes_per_second: u32) -> TcpStream {
        slow_line_to(self.connect().await, bytes_per_second).await
    }
}

/// Runs a program that refuses to be root as `user`, if we are.
#[must_use]
pub fn not_as_root(user: &str, program: impl AsRef<OsStr>) -> Command {
    if !geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--regid", user, "--clear-groups"]);
    // What the guard has asked for is forgotten with the user.
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// The near end of a line with this rate in bytes a second, whose kernel holds little.
/// It ends as `far` does, and says back at once what that says.
///
/// # Panics
///
/// If there are no more sockets.
pub async fn slow_line_to(far: TcpStream, bytes_per_second: u32) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    // The listener's sockets inherit it.
    let buffer = SockRef::from(&listener).set_recv_buffer_size(16 * 1024);
    buffer.expect("a size");
    let address = listener.local_addr().expect("its own");
    let near = TcpStream::connect(address).await.expect("it listens");
    let (line, _) = listener.accept().await.expect("it was made");
    tokio::spawn(async move {
        let (mut from_near, mut to_near) = line.into_split();
        let (mut from_far, mut to_far) = far.into_split();
        let back = tokio::spawn(async move { copy(&mut from_far, &mut to_near).await });
        let mut piece = vec![0; bytes_per_second as usize / 100];
        while let Ok(read @ 1..) = from_near.read(&mut piece).await {
            if to_far
                .write_all(piece.get(..read).unwrap_or_default())
                .await
                .is_err()
            {
                break;
            }
            sleep(Duration::from_secs_f64(
                read as f64 / f64::from(bytes_per_second),
            ))
            .await;
        }
        back.abort();
    });
    near
}

/// Waits until this server listens there; `false` if it has ended.
pub async fn listens(process: &mut PeerProcess, address: SocketAddr) -> bool {
    let listening = async {
        while TcpStream::connect(address).await.is_err() {
            if process.has_ended().unwrap_or(true) {
                return false;
            }
            sleep(ms(20)).await;
        }
        true
    };
    timeout(secs(120), listening).await.unwrap_or(false)
}
