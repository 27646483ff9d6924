//! Idle connections on a machine that has other things to do.
//!
//! 4,000 connections with the default timings, a task each, between two processes of low
//! priority, beside threads of higher priority that compute. All peers live, so each
//! suspicion is a false one, and each death more so. What it is compared with suspects a
//! peer as RFC 6298 says.
//!
//! The niceness decides what is measured. With 11 and 13 the processes get 1.2 % and 0.8 % of
//! each processor, which their beats just fit into. With 15 and more they get less than the
//! beats take: answers then come later each time, and with 19 later than the detection time.
//!
//! With 13, in the first 2 minutes: 33 suspicions a minute, and 372 in the first edition of the
//! library, where only round trips counted. Nobody was dead in either.

use std::{
    io::{self, Write},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use futures::StreamExt;
use heartbeat_tokio::{Config, Heartbeat, PeerEvent};
use tokio::net::{TcpListener, TcpStream};

use crate::{
    process::{Arguments, Child, runtime, tell_parent},
    table::{Limit, Row},
};

/// In a minute, of 4,000 connections: a tenth of what an estimate without our own lateness
/// gave, in 2 minutes on 2 cores.
const SUSPICIONS: f64 = 37.0;

pub(crate) fn rows(arguments: &Arguments, found: &mut dyn FnMut(Row)) -> io::Result<()> {
    if !arguments.wants("starved") || arguments.has("--quick") {
        return Ok(());
    }
    let count = |name: &str, usual: usize| {
        let given = arguments.value(name).and_then(|value| value.parse().ok());
        given.unwrap_or(usual)
    };
    let connections = count("--connections", 4_000);
    let lasts = Duration::from_secs(count("--seconds", 120) as u64);
    let threads = count("--hogs", 14);
    let low = count("--nice", 13).to_string();
    let mut starved = Child::start(
        "starved",
        &[
            ("--count", connections.to_string()),
            ("--nice", low.clone()),
        ],
    )?;
    let [port] = starved.numbers::<u16>()?[..] else {
        return Err(io::Error::other("a port"));
    };
    let mut peers = Child::start(
        "starved-peers",
        &[
            ("--to", SocketAddr::from(([127, 0, 0, 1], port)).to_string()),
            ("--count", connections.to_string()),
            ("--nice", low),
        ],
    )?;
    // All are there.
    let _ = peers.numbers::<u64>()?;
    let hogs = Hogs::start(threads);
    thread::sleep(lasts);
    drop(hogs);
    let found_here = starved.found::<u64>()?;
    let found_there = peers.found::<u64>()?;
    let &[suspected, dead, late] = found_here.as_slice() else {
        return Err(io::Error::other("three numbers"));
    };
    let &[theirs, died, later] = found_there.as_slice() else {
        return Err(io::Error::other("three numbers"));
    };
    let minutes = lasts.as_secs_f64() / 60.0;
    let row = |what, unit, ours, at_most| Row {
        input: format!("starved, {connections} idle: {what}"),
        unit,
        plain: None,
        ours,
        at_most,
    };
    let suspected = (suspected + theirs) as f64 / minutes;
    found(row(
        "suspicions",
        "a minute",
        suspected,
        Limit::Figure(SUSPICIONS),
    ));
    found(row("dead", "", (dead + died) as f64, Limit::Figure(0.0)));
    // How starved they were.
    let any = Limit::Figure(f64::INFINITY);
    found(row("a wake-up late", "ms", late.max(later) as f64, any));
    Ok(())
}

/// Threads that compute.
struct Hogs(Arc<AtomicBool>);

impl Hogs {
    fn start(threads: usize) -> Self {
        let done = Arc::<AtomicBool>::default();
        for _ in 0..threads {
            let done = done.clone();
            thread::spawn(move || {
                while !done.load(Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(done)
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

pub(crate) fn be_the_starved(arguments: &Arguments) -> io::Result<()> {
    let runtime = runtime(2)?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    println!("{}", listener.local_addr()?.port());
    io::stdout().flush()?;
    for _ in 0..arguments.get("--count") {
        let (stream, _) = runtime.block_on(listener.accept())?;
        drop(runtime.spawn(watch(stream)));
    }
    tell_what_was_seen(arguments.get("--nice"))
}

pub(crate) fn be_the_peers(arguments: &Arguments) -> io::Result<()> {
    let to: SocketAddr = arguments.get("--to");
    let runtime = runtime(2)?;
    for _ in 0..arguments.get("--count") {
        let stream = runtime.block_on(TcpStream::connect(to))?;
        drop(runtime.spawn(watch(stream)));
    }
    println!("0");
    io::stdout().flush()?;
    tell_what_was_seen(arguments.get("--nice"))
}

static SUSPECTED: AtomicU64 = AtomicU64::new(0);
static DEAD: AtomicUsize = AtomicUsize::new(0);
/// By how many milliseconds a thread woke up too late that only sleeps.
static LATE: AtomicU64 = AtomicU64::new(0);

async fn watch(stream: TcpStream) {
    let mut peer = Heartbeat::new(stream, Config::default());
    while let Some(event) = peer.next().await {
        match event {
            PeerEvent::Suspect { .. } => {
                SUSPECTED.fetch_add(1, Relaxed);
            }
            PeerEvent::Dead(_) => {
                DEAD.fetch_add(1, Relaxed);
            }
            _ => {}
        }
    }
}

/// From here on with a low priority, until the parent asks.
fn tell_what_was_seen(low: i32) -> ! {
    lower_all_threads(low);
    thread::spawn(|| {
        let nap = Duration::from_millis(10);
        loop {
            let asleep = Instant::now();
            thread::sleep(nap);
            let late = asleep.elapsed().saturating_sub(nap).as_millis() as u64;
            LATE.fetch_max(late, Relaxed);
        }
    });
    tell_parent(|| {
        let [suspected, late] = [&SUSPECTED, &LATE].map(|number| number.load(Relaxed));
        format!("{suspected} {} {late}", DEAD.load(Relaxed))
    })
}

/// Each thread has a priority of its own.
fn lower_all_threads(low: i32) {
    let threads = std::fs::read_dir("/proc/self/task").expect("our threads");
    for thread in threads.flatten() {
        let id = thread.file_name().to_string_lossy().parse().ok();
        let id = id.and_then(rustix::process::Pid::from_raw);
        rustix::process::setpriority_process(id, low).expect("lower is allowed");
    }
}
