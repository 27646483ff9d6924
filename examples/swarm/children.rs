//! The members' processes, as the conductor sees them: how they are started,
//! told something and stopped, and how none is left behind.

use std::{
    env, io,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use heartbeat_examples::process;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    sync::mpsc::UnboundedSender,
};

use crate::words::{News, Order};

/// How long a process may take to stand still.
const STOPS_WITHIN: Duration = Duration::from_secs(5);

/// This program once more, as a member. It ends with this value, however that
/// ends: when it is dropped, with the thread that started it, or when its
/// standard input is closed.
pub struct Member {
    child: Child,
    pid: Pid,
    orders: ChildStdin,
}

impl Member {
    /// What it tells goes to `news`, with its `number`; `None` is its end.
    ///
    /// The calling thread has to stay for as long as the member is wanted.
    pub fn start(number: usize, news: UnboundedSender<(usize, Option<News>)>) -> io::Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .arg("member")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A terminal's Ctrl-C is for the conductor.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let (orders, told) = (child.stdin.take())
            .zip(child.stdout.take())
            .ok_or(io::ErrorKind::BrokenPipe)?;
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        let pid = id.and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
        tokio::spawn(async move {
            let mut lines = BufReader::new(told).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let told = serde_json::from_str(&line);
                let told = told.unwrap_or_else(|error| News::Failed(format!("{line}: {error}")));
                let _ = news.send((number, Some(told)));
            }
            let _ = news.send((number, None));
        });
        Ok(Self { child, pid, orders })
    }

    pub fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    pub async fn order(&mut self, order: &Order) -> io::Result<()> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        self.orders.write_all(&line).await
    }

    /// SIGSTOP, which takes effect when [`stands_still`](Self::stands_still)
    /// returns.
    pub fn stop(&self) -> io::Result<()> {
        process::stop(&self.child)
    }

    /// Returns when none of its threads runs any more.
    pub fn stands_still(&self) -> io::Result<()> {
        let begun = Instant::now();
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        while waitid(WaitId::Pid(self.pid), options)?.is_none() {
            if begun.elapsed() > STOPS_WITHIN {
                return Err(io::Error::other("a process can't be stopped"));
            }
            thread::sleep(Duration::from_micros(100));
        }
        Ok(())
    }

    /// SIGKILL. To be waited for with [`gone`](Self::gone).
    pub fn kill(&mut self) {
        // It may have ended already.
        let _ = self.child.start_kill();
    }

    pub async fn gone(&mut self) {
        let _ = self.child.wait().await;
    }
}
