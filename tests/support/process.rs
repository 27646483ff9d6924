//! A peer in a process of its own, which no test can leave behind.

use std::{
    io,
    net::SocketAddr,
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// Is killed and reaped when it is dropped, by a failed test too.
#[derive(Debug)]
pub struct PeerProcess {
    child: Child,
    /// It may have children: they are in a process group of their own, and
    /// signals are for all of them.
    group: bool,
}

impl PeerProcess {
    /// Starts the program `peer`, which connects to `address`, and gives us up after this
    /// silence.
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

    /// The same, with a peer that waits for a minute and asks once in an
    /// `interval`, shortened at random.
    ///
    /// # Errors
    ///
    /// If it can't be started.
    pub fn start_with(peer: &str, address: SocketAddr, interval: Duration) -> io::Result<Self> {
        let mut command = Command::new(peer);
        command.arg(address.to_string()).arg("60000");
        command.arg(interval.as_millis().to_string());
        Self::spawn(&mut command)
    }

    /// Starts any other command.
    ///
    /// # Errors
    ///
    /// If it can't be started.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        Ok(Self {
            child: command.spawn()?,
            group: false,
        })
    }

    /// Starts a program that isn't ours, under `guard`
    /// (`CARGO_BIN_EXE_heartbeat-test-guard`) and in a process group of its
    /// own: it goes with this process, however that ends.
    ///
    /// # Errors
    ///
    /// If it can't be started.
    pub fn guarded(guard: &str, command: &Command) -> io::Result<Self> {
        // What its children leave behind is ours to reap.
        #[cfg(target_os = "linux")]
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let mut guarded = Command::new(guard);
        guarded
            .arg(command.get_program())
            .args(command.get_args())
            .envs(
                command
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        Ok(Self {
            child: guarded.spawn()?,
            group: true,
        })
    }

    /// The process group that it leads if it is `guarded`.
    #[must_use]
    pub fn group(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Whether it has ended by itself.
    ///
    /// # Errors
    ///
    /// As [`Child::try_wait`].
    pub fn has_ended(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Its standard input and output, once, if they are pipes.
    pub fn take_pipes(&mut self) -> Option<(ChildStdin, ChildStdout)> {
        self.child.stdin.take().zip(self.child.stdout.take())
    }

    /// SIGSTOP: it hangs, and its kernel goes on acknowledging.
    ///
    /// # Errors
    ///
    /// If it has ended already.
    pub fn stop(&self) -> io::Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT: it goes on.
    ///
    /// # Errors
    ///
    /// If it has ended already.
    pub fn go_on(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    /// SIGINT: what Ctrl-C sends.
    ///
    /// # Errors
    ///
    /// If it has ended already.
    pub fn interrupt(&self) -> io::Result<()> {
        self.signal(Signal::INT)
    }

    /// SIGKILL.
    ///
    /// # Errors
    ///
    /// If it has ended already.
    pub fn kill(&self) -> io::Result<()> {
        self.signal(Signal::KILL)
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    ///
    /// As [`Child::wait`].
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let id = Pid::from_child(&self.child);
        match self.group {
            true => kill_process_group(id, signal)?,
            false => kill_process(id, signal)?,
        }
        Ok(())
    }
}

impl Drop for PeerProcess {
    fn drop(&mut self) {
        // Of a group some may live on. Otherwise, once it has been reaped its
        // number may belong to another process.
        if self.group || matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.kill();
        }
        let _ = self.child.wait();
        #[cfg(target_os = "linux")]
        if self.group {
            use rustix::process::{WaitOptions, waitpgid};
            while waitpgid(self.group(), WaitOptions::empty()).is_ok() {}
        }
    }
}
