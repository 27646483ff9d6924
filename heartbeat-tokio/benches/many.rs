//! What idle connections cost in one stream of events: a `Group`, and what people write
//! instead.
//!
//! ```text
//! cargo bench -p heartbeat-tokio --bench many -- [--connections N] [--interval MS] [--only NAME]
//! ```
//!
//! This process holds one end of 10,000 connections over loopback, and a child the
//! others. All events of all connections reach one loop, and that loop can send to each
//! of them. Measured are the memory of a connection (what the allocator gave, after
//! beats), the processor's time of this process for each beat, and how many of the
//! living were taken for dead.
//!
//! | name | |
//! |---|---|
//! | group | `Group` over `spawn` |
//! | mpsc | a task for each connection, a channel from all of them, and one to each |
//! | unordered | `SelectAll`, which is a `FuturesUnordered`, of the connections themselves |
//! | stream-map | `StreamMap` of the connections themselves |

#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    reason = "a benchmark that fails has to stop"
)]

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("It reads Linux' files about processes: there is nothing to see here.");
}

#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    linux::main()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        alloc::{GlobalAlloc, Layout, System},
        collections::HashMap,
        env, fs, io,
        net::SocketAddr,
        process::{Command, Stdio},
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
        thread,
        time::Duration,
    };

    use bytes::Bytes;
    use futures::{SinkExt, Stream, StreamExt, stream::SelectAll};
    use heartbeat_tokio::{Config, Group, Heartbeat, PeerEvent, Role};
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use tokio::{
        net::{TcpListener, TcpStream},
        runtime::Runtime,
        sync::mpsc,
    };
    use tokio_stream::StreamMap;

    const WATCHED: Duration = Duration::from_secs(15);

    type Event = (usize, PeerEvent<Bytes>);

    pub(super) fn main() -> io::Result<()> {
        let arguments: Vec<String> = env::args().collect();
        let value = |name: &str| {
            let at = arguments.iter().position(|argument| argument == name)?;
            arguments.get(at + 1).cloned()
        };
        let connections = value("--connections").map_or(10_000, |n| n.parse().expect("a number"));
        let interval = value("--interval").map_or(5000, |n| n.parse().expect("a number"));
        let interval = Duration::from_millis(interval);
        raise_limit();
        if let Some(address) = value("--peers-of") {
            return be_the_peers(address.parse().expect("an address"), connections, interval);
        }
        println!("{connections} connections, a ping each {interval:?}, 2 workers");
        println!(
            "{:<12} {:>10} {:>12} {:>6}",
            "", "memory, B", "a beat, µs", "dead"
        );
        for name in ["group", "mpsc", "unordered", "stream-map"] {
            if value("--only").is_none_or(|only| only == name) {
                measure(name, connections, interval)?;
            }
        }
        Ok(())
    }

    fn measure(name: &'static str, connections: usize, interval: Duration) -> io::Result<()> {
        let runtime = runtime()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let mut child = Command::new(env::current_exe()?)
            .args(["--peers-of", &listener.local_addr()?.to_string()])
            .args(["--connections", &connections.to_string()])
            .args(["--interval", &interval.as_millis().to_string()])
            .stdin(Stdio::piped())
            .spawn()?;
        let accepted = (0..connections).map(|_| Ok(runtime.block_on(listener.accept())?.0));
        let accepted = accepted.collect::<io::Result<Vec<_>>>()?;
        let before = (ALLOCATED.load(Relaxed), DEAD.load(Relaxed));
        runtime.spawn(async move {
            let wrap = |stream| Heartbeat::new(stream, config(Role::Both, interval));
            let streams = accepted.into_iter().map(wrap).enumerate();
            match name {
                "group" => take(grouped(streams)).await,
                "mpsc" => take(channelled(streams)).await,
                "unordered" => take(unordered(streams)).await,
                _ => take(mapped(streams)).await,
            }
        });
        thread::sleep(interval + Duration::from_secs(1));
        let begun = (BEATS.load(Relaxed), time()?);
        thread::sleep(WATCHED);
        let beats = (BEATS.load(Relaxed) - begun.0) as f64;
        let each = (time()? - begun.1).as_secs_f64() * 1e6 / beats;
        let memory = ALLOCATED.load(Relaxed).saturating_sub(before.0) / connections;
        let dead = DEAD.load(Relaxed) - before.1;
        println!("{name:<12} {memory:>10} {each:>12.1} {dead:>6}");
        // Before the peers end, which would count as deaths.
        runtime.shutdown_timeout(Duration::from_secs(30));
        child.kill()?;
        child.wait().map(drop)
    }

    fn config(role: Role, interval: Duration) -> Config {
        let config = Config::builder().interval(interval).role(role);
        config.build().expect("it is valid")
    }

    /// The loop of the application.
    async fn take(mut events: impl Stream<Item = Event> + Unpin) {
        while let Some((_, event)) = events.next().await {
            match event {
                PeerEvent::Beat { .. } => BEATS.fetch_add(1, Relaxed),
                PeerEvent::Dead(_) => DEAD.fetch_add(1, Relaxed),
                _ => 0,
            };
        }
    }

    fn grouped(
        streams: impl Iterator<Item = (usize, Heartbeat<TcpStream>)>,
    ) -> impl Stream<Item = Event> + Unpin {
        let mut group = Group::new();
        for (key, peer) in streams {
            group.insert(key, peer.spawn());
        }
        group
    }

    fn channelled(
        streams: impl Iterator<Item = (usize, Heartbeat<TcpStream>)>,
    ) -> impl Stream<Item = Event> + Unpin {
        let (events, taken) = mpsc::channel(64);
        let mut members = HashMap::new();
        for (key, mut peer) in streams {
            let events = events.clone();
            let (sender, mut messages) = mpsc::channel::<Bytes>(16);
            members.insert(key, sender);
            tokio::spawn(async move {
                loop {
                    tokio::select! {
                        event = peer.next() => {
                            let Some(event) = event else { return };
                            if events.send((key, event)).await.is_err() {
                                return;
                            }
                        }
                        Some(message) = messages.recv() => drop(peer.send(message).await),
                    }
                }
            });
        }
        let parts = (taken, members);
        Box::pin(futures::stream::unfold(
            parts,
            async |(mut taken, members)| Some((taken.recv().await?, (taken, members))),
        ))
    }

    fn unordered(
        streams: impl Iterator<Item = (usize, Heartbeat<TcpStream>)>,
    ) -> impl Stream<Item = Event> + Unpin {
        streams
            .map(|(key, peer)| peer.map(move |event| (key, event)))
            .collect::<SelectAll<_>>()
    }

    fn mapped(
        streams: impl Iterator<Item = (usize, Heartbeat<TcpStream>)>,
    ) -> impl Stream<Item = Event> + Unpin {
        streams.collect::<StreamMap<_, _>>()
    }

    /// Answers on all connections until its parent is gone.
    fn be_the_peers(address: SocketAddr, connections: usize, interval: Duration) -> io::Result<()> {
        let runtime = runtime()?;
        for _ in 0..connections {
            let stream = runtime.block_on(TcpStream::connect(address))?;
            runtime.spawn(async move {
                let mut peer = Heartbeat::new(stream, config(Role::Passive, interval));
                while peer.next().await.is_some() {}
            });
        }
        io::copy(&mut io::stdin(), &mut io::sink()).map(drop)
    }

    fn runtime() -> io::Result<Runtime> {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
    }

    fn raise_limit() {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let limit = Rlimit {
            current: maximum,
            maximum,
        };
        setrlimit(Resource::Nofile, limit).expect("up to the hard limit");
    }

    /// The processor's time that this process has used.
    fn time() -> io::Result<Duration> {
        let mut nanos = 0;
        for task in fs::read_dir("/proc/self/task")? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            let first = text.split(' ').next().unwrap_or_default();
            nanos += first.parse::<u64>().map_err(io::Error::other)?;
        }
        Ok(Duration::from_nanos(nanos))
    }

    static BEATS: AtomicUsize = AtomicUsize::new(0);
    static DEAD: AtomicUsize = AtomicUsize::new(0);
    static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

    /// Counts the bytes that are in use.
    struct Counting;

    #[global_allocator]
    static COUNTING: Counting = Counting;

    // SAFETY: it hands on to the system's allocator what it was given.
    #[allow(unsafe_code, reason = "an allocator is")]
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            ALLOCATED.fetch_add(layout.size(), Relaxed);
            // SAFETY: as above.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
            ALLOCATED.fetch_sub(layout.size(), Relaxed);
            // SAFETY: as above.
            unsafe { System.dealloc(memory, layout) }
        }
    }
}
