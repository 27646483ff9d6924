//! A peer's process, as the lab sees it: how it is started, told what to do and
//! signalled, and how none is left behind.

use std::{env, ffi::OsString, io, net::SocketAddr, process::Stdio, time::Duration};

use clap::Args;
use heartbeat_examples::process;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::scenarios::Fault;

/// What a peer has to know.
#[derive(Clone, Copy, Debug, Args)]
pub struct Assignment {
    /// What it will be asked to do.
    pub fault: Fault,
    /// Detect a death within this time, in milliseconds.
    pub budget: u64,
    /// Where to connect to, once for each detector.
    pub address: SocketAddr,
}

impl Assignment {
    pub fn new(fault: Fault, budget: Duration, address: SocketAddr) -> Self {
        let budget = u64::try_from(budget.as_millis()).unwrap_or(u64::MAX);
        Self {
            fault,
            budget,
            address,
        }
    }

    fn arguments(&self) -> [OsString; 4] {
        [
            "peer".into(),
            self.fault.name().into(),
            self.budget.to_string().into(),
            self.address.to_string().into(),
        ]
    }
}

/// This program once more, as the other end. It ends with this value, however
/// that ends: when it is dropped, with the thread that started it (on Linux),
/// or when its standard input is closed.
pub struct PeerProcess {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl PeerProcess {
    /// In the network namespace of the calling thread. That thread has to stay
    /// for as long as the peer is wanted.
    pub fn start(assignment: Assignment) -> io::Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .args(assignment.arguments())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (orders, answers) = (child.stdin.take())
            .zip(child.stdout.take())
            .ok_or(io::ErrorKind::BrokenPipe)?;
        let answers = BufReader::new(answers).lines();
        Ok(Self {
            child,
            orders,
            answers,
        })
    }

    /// Returns when it is all set.
    pub async fn prepare(&mut self) -> io::Result<()> {
        self.order("prepare").await?;
        match self.answers.next_line().await? {
            Some(_) => Ok(()),
            None => Err(io::Error::other("the peer ended")),
        }
    }

    /// Has it do what its fault is.
    pub async fn act(&mut self) -> io::Result<()> {
        self.order("act").await
    }

    async fn order(&mut self, word: &str) -> io::Result<()> {
        self.orders.write_all(format!("{word}\n").as_bytes()).await
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.start_kill()
    }

    /// SIGSTOP.
    pub fn stop(&self) -> io::Result<()> {
        process::stop(&self.child)
    }

    /// SIGCONT.
    pub fn go_on(&self) -> io::Result<()> {
        process::go_on(&self.child)
    }
}
