//! A peer in a process of its own, which no test can leave behind.

use std::{
    io,
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

/// Is killed and reaped when it is dropped, by a failed test too.
#[derive(Debug)]
pub struct PeerProcess(Child);

impl PeerProcess {
    /// Starts the program `peer`, which connects to `address`, and gives us up
    /// after so long a silence.
    ///
    /// # Errors
    ///
    /// If it can't be started.
    pub fn start(peer: &str, address: SocketAddr, patience: Duration) -> io::Result<Self> {
        let mut command = Command::new(peer);
        command.arg(address.to_string());
        command.arg(patience.as_millis().to_string());
        Self::spawn(&mut command)
    }

    /// Starts any other command.
    ///
    /// # Errors
    ///
    /// If it can't be started.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        Ok(Self(command.spawn()?))
    }

    /// Its standard input and output, once, if they are pipes.
    pub fn take_pipes(&mut self) -> Option<(ChildStdin, ChildStdout)> {
        self.0.stdin.take().zip(self.0.stdout.take())
    }

    /// SIGSTOP: it hangs, and its kernel goes on acknowledging.
    ///
    /// # Errors
    ///
    /// If it has ended already.
    pub fn stop(&self) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.0), Signal::STOP)?)
    }

    /// SIGCONT: it goes on.
    ///
    /// # Errors
    ///
    /// If it has ended already.
    pub fn go_on(&self) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.0), Signal::CONT)?)
    }

    /// SIGKILL.
    ///
    /// # Errors
    ///
    /// As [`Child::kill`].
    pub fn kill(&mut self) -> io::Result<()> {
        self.0.kill()
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    ///
    /// As [`Child::wait`].
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.0.wait()
    }
}

impl Drop for PeerProcess {
    fn drop(&mut self) {
        // Both fail only if it has been reaped already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
