//! Processes of a fleet: Redis, gateways and clients, as the program that starts them sees
//! them.
//!
//! Nothing in here decides anything about presence. All of them end with this process.

use std::{
    env, io,
    net::{SocketAddr, TcpListener},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use crate::message::News;

/// How long a process may take to start or to end.
pub const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// This program once more, in another role.
pub struct Member {
    child: Child,
    news: Log,
}

/// What a process has told, and when.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<(Instant, News)>>>);

impl Log {
    pub fn add(&self, news: News) {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.push((Instant::now(), news));
    }

    /// Everything of this kind that was told from then on.
    pub fn since<T>(&self, then: Instant, of: impl Fn(&News) -> Option<T>) -> Vec<(Instant, T)> {
        let log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let later = log.iter().filter(|(at, _)| *at >= then);
        later
            .filter_map(|(at, news)| Some((*at, of(news)?)))
            .collect()
    }
}

impl Member {
    /// With this role and these arguments. `through` is a command that runs it, if any.
    pub fn start(through: &[&str], arguments: &[String]) -> io::Result<Self> {
        let program = env::current_exe()?.into_os_string();
        let words = through.iter().map(Into::into).chain([program]);
        let words: Vec<_> = words.chain(arguments.iter().map(Into::into)).collect();
        let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let news = Log::default();
        if let Some(told) = child.stdout.take() {
            let news = news.clone();
            tokio::spawn(async move {
                let mut lines = BufReader::new(told).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    if let Ok(told) = serde_json::from_str(&line) {
                        news.add(told);
                    }
                }
            });
        }
        Ok(Self { child, news })
    }

    pub fn id(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// SIGKILL, and waits for the end.
    pub async fn kill(&mut self) -> io::Result<()> {
        self.child.kill().await
    }

    /// Where a gateway listens: for clients, and for pages. And its wall clock.
    pub async fn listens(&self) -> io::Result<(SocketAddr, SocketAddr, u64)> {
        let begun = Instant::now();
        while begun.elapsed() < STARTS_WITHIN {
            let listens = |news: &News| match news {
                News::Listens {
                    tcp, http, clock, ..
                } => Some((*tcp, *http, *clock)),
                _ => None,
            };
            if let Some((_, listens)) = self.news.since(begun - STARTS_WITHIN, listens).first() {
                return Ok(*listens);
            }
            sleep(Duration::from_millis(20)).await;
        }
        Err(io::Error::other("a gateway doesn't start"))
    }
}

/// A Redis server of our own, without data on the disk.
pub struct Redis {
    child: Child,
    address: SocketAddr,
    /// Its working directory, which is removed with it.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "only dropped there")
    )]
    folder: TempDir,
}

impl Redis {
    /// On a port that is free.
    pub async fn start() -> io::Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        Self::start_at(address).await
    }

    pub async fn start_at(address: SocketAddr) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let child = Self::run(address, &folder)?;
        let mut redis = Self {
            child,
            address,
            folder,
        };
        redis.answers().await?;
        Ok(redis)
    }

    pub fn url(&self) -> String {
        format!("redis://{}/", self.address)
    }

    pub fn id(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    fn run(address: SocketAddr, folder: &TempDir) -> io::Result<Child> {
        // The kernel ends it with us, however we end, where there is `setpriv`.
        let guarded = cfg!(target_os = "linux");
        let mut command = Command::new(if guarded { "setpriv" } else { "redis-server" });
        if guarded {
            command.args(["--pdeathsig", "KILL", "redis-server"]);
        }
        command.arg("--port").arg(address.port().to_string());
        command.arg("--bind").arg(address.ip().to_string());
        command.args(["--save", "", "--appendonly", "no", "--maxclients", "500"]);
        // Only we reach these addresses.
        command.args(["--protected-mode", "no"]);
        command.arg("--dir").arg(folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let started = command.kill_on_drop(true).spawn();
        started.map_err(|error| io::Error::new(error.kind(), format!("redis-server: {error}")))
    }

    async fn answers(&mut self) -> io::Result<()> {
        let answers = async {
            while TcpStream::connect(self.address).await.is_err() {
                if self.child.try_wait()?.is_some() {
                    let reason = "redis-server has ended: is Redis 7 or later installed?";
                    return Err(io::Error::other(reason));
                }
                sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        };
        timeout(STARTS_WITHIN, answers).await?
    }
}

/// Stops, kills and restarts these processes. Only the program's faults need this.
#[cfg(target_os = "linux")]
mod faults {
    use heartbeat_examples::process;

    use super::*;

    impl Member {
        pub fn news(&self) -> &Log {
            &self.news
        }

        /// SIGSTOP.
        pub fn stop(&self) -> io::Result<()> {
            process::stop(&self.child)
        }

        /// SIGCONT.
        pub fn go_on(&self) -> io::Result<()> {
            process::go_on(&self.child)
        }

        /// Another signal, by its name.
        pub async fn signal(&self, name: &str) -> io::Result<()> {
            let mut kill = Command::new("kill");
            kill.args(["-s", name, &self.id().to_string()]);
            kill.status().await.map(drop)
        }

        /// SIGTERM, and waits for the end.
        pub async fn terminate(&mut self) -> io::Result<()> {
            self.signal("TERM").await?;
            timeout(STARTS_WITHIN, self.child.wait()).await??;
            Ok(())
        }
    }

    impl Redis {
        /// SIGKILL, and waits for the end.
        pub async fn kill(&mut self) -> io::Result<()> {
            self.child.kill().await
        }

        /// Starts it again, empty, at the same address.
        pub async fn start_again(&mut self) -> io::Result<()> {
            self.child = Self::run(self.address, &self.folder)?;
            self.answers().await
        }

        pub fn stop(&self) -> io::Result<()> {
            process::stop(&self.child)
        }

        pub fn go_on(&self) -> io::Result<()> {
            process::go_on(&self.child)
        }
    }
}
