//! Somebody else's server, in a process and on a port of its own.

use std::{net::SocketAddr, process::Command};

use tokio::{
    net::TcpStream,
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
            // Somebody else was faster to take the port.
        }
        panic!("the server doesn't listen");
    }

    /// The same on a port of which it is known that nobody has it. `None` if
    /// somebody does.
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
}

/// Waits until it does, or has ended.
async fn listens(process: &mut PeerProcess, address: SocketAddr) -> bool {
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
