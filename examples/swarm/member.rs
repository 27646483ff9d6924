//! What a server and a peer do: each connection is a task, and its events are
//! counted or told. Nothing is judged here.

use std::{
    error::Error,
    io::{self, BufRead, Write},
    net::{IpAddr, SocketAddr},
    ops::Range,
    process::{self, ExitCode},
    sync::{
        Arc,
        atomic::{
            AtomicU16, AtomicU64,
            Ordering::{self, Relaxed},
        },
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use futures::{StreamExt, future::try_join_all};
use heartbeat_examples::process::end_with_parent;
use heartbeat_tokio::{Config, Heartbeat, PeerEvent};
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::{Builder, Runtime},
    time::{Instant, sleep, timeout},
};

use crate::words::{Assignment, Count, Group, News, Order, Role, Sighting, What, now};

/// The number of attempts for a connection that can't be made, ...
const ATTEMPTS: u32 = 8;

/// ... after this wait, and twice as long each time.
const FIRST_WAIT: Duration = Duration::from_millis(20);

/// How long a server may take to accept and greet.
const GREETED_WITHIN: Duration = Duration::from_secs(20);

/// Serves until the conductor is gone.
pub fn run() -> Result<ExitCode, Box<dyn Error>> {
    end_with_parent();
    let (news, told) = channel();
    thread::spawn(move || tell(&told));
    let ledger = Arc::new(Ledger::new(news));
    ledger.say(News::Ready);

    let mut member = None;
    for line in io::stdin().lock().lines() {
        match (serde_json::from_str(&line?)?, &member) {
            (Order::Be(assignment), None) => {
                member = Some(Member::new(assignment, ledger.clone())?);
            }
            (Order::Open, Some(member)) => member.open(),
            (Order::Tell, _) => ledger.say(News::Count(ledger.count())),
            (order, _) => return Err(format!("{order:?} makes no sense now").into()),
        }
    }
    // Not by leaving `main`: to take thousands of tasks down takes time.
    process::exit(0);
}

/// Prints reports in a thread of its own, because the pipe may block.
fn tell(news: &Receiver<News>) {
    let mut output = io::stdout().lock();
    for news in news {
        let line = serde_json::to_string(&news).unwrap_or_default();
        let written = writeln!(output, "{line}").and_then(|()| output.flush());
        if written.is_err() {
            process::exit(0);
        }
    }
}

struct Member {
    assignment: Assignment,
    ledger: Arc<Ledger>,
    runtime: Runtime,
}

impl Member {
    /// A server listens from here on.
    fn new(assignment: Assignment, ledger: Arc<Ledger>) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(assignment.workers.into())
            .enable_all()
            .build()?;
        if let Role::Server { backlog } = assignment.role {
            let _inside = runtime.enter();
            let listener = listen(backlog)?;
            ledger.say(News::Listening(listener.local_addr()?));
            runtime.spawn(serve(listener, assignment.config, ledger.clone()));
        }
        Ok(Self {
            assignment,
            ledger,
            runtime,
        })
    }

    /// Only peers have something to open.
    fn open(&self) {
        if let Role::Peer {
            group,
            source,
            servers,
            pace,
        } = self.assignment.role.clone()
        {
            let opener = Opener {
                config: self.assignment.config,
                group,
                source,
                servers,
                ports: AtomicU16::new(0),
                ledger: self.ledger.clone(),
            };
            self.runtime.spawn(async move {
                if let Err(error) = opener.open_all(pace).await {
                    opener.ledger.say(News::Failed(error.to_string()));
                }
            });
        }
    }
}

fn listen(backlog: u32) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    socket.listen(backlog)
}

async fn serve(listener: TcpListener, config: Config, ledger: Arc<Ledger>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // So that there is no TIME_WAIT for each of them afterwards.
                let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                let heartbeat = Heartbeat::new(stream, config);
                tokio::spawn(watch(heartbeat, group_of(peer.ip()), ledger.clone()));
            }
            Err(error) => return ledger.say(News::Failed(format!("accept: {error}"))),
        }
    }
}

/// The last two numbers of the address that a peer connects from.
fn group_of(peer: IpAddr) -> u16 {
    match peer {
        IpAddr::V4(peer) => {
            let [_, _, high, low] = peer.octets();
            u16::from_be_bytes([high, low])
        }
        IpAddr::V6(_) => u16::MAX,
    }
}

/// A task for each connection, and all that it needs.
async fn watch(mut heartbeat: Heartbeat<TcpStream>, group: u16, ledger: Arc<Ledger>) {
    while let Some(event) = heartbeat.next().await {
        ledger.note(group, &event);
    }
}

/// Opens the connections of one group.
struct Opener {
    config: Config,
    group: Group,
    source: IpAddr,
    servers: Vec<SocketAddr>,
    /// Ports that were tried.
    ports: AtomicU16,
    ledger: Arc<Ledger>,
}

/// The ports of a source address that a peer process has to itself. It counts
/// them up: a kernel that is asked for a free one searches through all that are
/// taken, and with a hundred thousand that took a third of both processors.
const PORTS: Range<u16> = 2_000..65_000;

impl Opener {
    fn next_port(&self) -> u16 {
        let count = PORTS.end - PORTS.start;
        PORTS.start + self.ports.fetch_add(1, Relaxed) % count
    }

    /// A batch at a time, once a period, and not before the former batch is greeted.
    /// Where that takes long there is as long a break: beats go on meanwhile,
    /// and mustn't be late.
    async fn open_all(&self, (at_once, every): (usize, Duration)) -> io::Result<()> {
        let last = self.group.first + self.group.connections;
        let mut numbers = self.group.first..last;
        while !numbers.is_empty() {
            let begun = Instant::now();
            let some = numbers.by_ref().take(at_once);
            for heartbeat in try_join_all(some.map(|number| self.open(number))).await? {
                tokio::spawn(watch(heartbeat, self.group.number, self.ledger.clone()));
            }
            let took = begun.elapsed();
            sleep(every.saturating_sub(took).max(took)).await;
        }
        Ok(())
    }

    /// Returns when the server has answered.
    async fn open(&self, number: u64) -> io::Result<Heartbeat<TcpStream>> {
        let servers = u64::try_from(self.servers.len()).map_err(io::Error::other)?;
        let turn = number.checked_rem(servers).unwrap_or_default();
        let server = usize::try_from(turn)
            .ok()
            .and_then(|turn| self.servers.get(turn));
        let server = *server.ok_or(io::ErrorKind::AddrNotAvailable)?;

        let mut heartbeat = Heartbeat::new(self.connect(server).await?, self.config);
        let greeted = async {
            while let Some(event) = heartbeat.next().await {
                self.ledger.note(self.group.number, &event);
                if matches!(event, PeerEvent::Connected { .. }) {
                    return Ok(());
                }
            }
            Err(io::Error::other("a connection ended before it was greeted"))
        };
        timeout(GREETED_WITHIN, greeted).await??;
        Ok(heartbeat)
    }

    async fn connect(&self, server: SocketAddr) -> io::Result<TcpStream> {
        let mut wait = FIRST_WAIT;
        let mut attempts = 1;
        loop {
            let socket = TcpSocket::new_v4()?;
            let connected = match socket.bind((self.source, self.next_port()).into()) {
                Ok(()) => socket.connect(server).await,
                Err(error) => Err(error),
            };
            match connected {
                Err(_) if attempts < ATTEMPTS => {}
                result => return result,
            }
            sleep(wait).await;
            wait *= 2;
            attempts += 1;
        }
    }
}

/// What the connections of this process have seen.
struct Ledger {
    open: AtomicU64,
    beats: AtomicU64,
    stalls: AtomicU64,
    news: Sender<News>,
}

impl Ledger {
    fn new(news: Sender<News>) -> Self {
        Self {
            open: AtomicU64::new(0),
            beats: AtomicU64::new(0),
            stalls: AtomicU64::new(0),
            news,
        }
    }

    fn note<M>(&self, group: u16, event: &PeerEvent<M>) {
        let what = match event {
            PeerEvent::Beat { .. } => return add(&self.beats),
            PeerEvent::Connected { .. } => return add(&self.open),
            PeerEvent::LocalStall { .. } => return add(&self.stalls),
            PeerEvent::Suspect { .. } => What::Suspect,
            PeerEvent::Closed { .. } => What::Closed,
            PeerEvent::Dead(death) => What::Dead {
                cause: format!("{:?}", death.cause),
                diagnosis: format!("{:?}", death.diagnosis),
                silent_for: death.silent_for,
            },
            _ => return,
        };
        if event.is_terminal() {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
        let at = now();
        self.say(News::Sighting(Sighting { at, group, what }));
    }

    fn count(&self) -> Count {
        Count {
            open: self.open.load(Ordering::Relaxed),
            beats: self.beats.load(Ordering::Relaxed),
            stalls: self.stalls.load(Ordering::Relaxed),
        }
    }

    fn say(&self, news: News) {
        // The printing thread ends this process when the pipe is closed.
        let _ = self.news.send(news);
    }
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}
