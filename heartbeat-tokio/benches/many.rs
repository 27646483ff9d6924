//! What many connections cost in one stream of events: a `Group`, and what people write
//! instead.
//!
//! ```text
//! cargo bench -p heartbeat-tokio --bench many -- [--connections N] [--interval MS]
//!     [--watch SECONDS] [--rounds N] [--turns N] [--only NAME]
//! ```
//!
//! This process holds one end of 10,000 connections over loopback, and a child the
//! others. All events of all connections reach one loop, and that loop can send to each
//! of them. Measured are the memory of a connection (what the allocator gave, after
//! beats), the processor's time and the allocations of this process for each beat, and how
//! many of the living were taken for dead. Then the loop sends a message to each
//! connection, whose peer sends it back, and waits for all: the processor's time and the
//! allocations of one message there and back.
//!
//! | name | |
//! |---|---|
//! | group | `Group` over `spawn` |
//! | mpsc | a task for each connection, a channel from all of them, and one to each |
//! | unordered | `SelectAll`, which is a `FuturesUnordered`, of the connections themselves |
//! | stream-map | `StreamMap` of the connections themselves |
//!
//! The last two can't send. With `--turns`, group and mpsc are measured so often, in turns,
//! and the ratio of their medians is printed with its target.

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
        env, fs,
        future::Future,
        io::{self, Write},
        net::SocketAddr,
        ops::Sub,
        process::{Command, Stdio},
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
        time::{Duration, Instant},
    };

    use bytes::Bytes;
    use futures::{SinkExt, Stream, StreamExt, stream::SelectAll};
    use heartbeat_tokio::{Config, Group, Heartbeat, PeerEvent, Role, Slow};
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use tokio::{
        net::{TcpListener, TcpStream},
        runtime::Runtime,
        sync::mpsc,
    };
    use tokio_stream::StreamMap;

    type Event = (usize, PeerEvent<Bytes>);

    /// What `group` may cost, of what `mpsc` does.
    const TARGET: f64 = 1.0;

    /// What to measure.
    #[derive(Clone, Copy)]
    struct Plan {
        connections: usize,
        interval: Duration,
        /// For how long beats are counted.
        watch: Duration,
        /// How often a message goes to each connection and back.
        rounds: usize,
    }

    pub(super) fn main() -> io::Result<()> {
        let arguments: Vec<String> = env::args().collect();
        let value = |name: &str| {
            let at = arguments.iter().position(|argument| argument == name)?;
            arguments.get(at + 1).cloned()
        };
        let number = |name, default: usize| {
            value(name).map_or(default, |number| number.parse().expect("a number"))
        };
        let plan = Plan {
            connections: number("--connections", 10_000),
            interval: Duration::from_millis(number("--interval", 5000) as u64),
            watch: Duration::from_secs(number("--watch", 15) as u64),
            rounds: number("--rounds", 20),
        };
        raise_limit();
        if let Some(address) = value("--peers-of") {
            return be_the_peers(address.parse().expect("an address"), plan);
        }
        println!(
            "{} connections, a ping each {:?}, 2 workers",
            plan.connections, plan.interval
        );
        println!(
            "{:<12} {:>10} {:>12} {:>12} {:>14} {:>12} {:>6}",
            "", "memory, B", "a beat, µs", "allocations", "a message, µs", "allocations", "dead"
        );
        let (turns, names) = match number("--turns", 0) {
            0 => (1, &["group", "mpsc", "unordered", "stream-map"][..]),
            turns => (turns, &["group", "mpsc"][..]),
        };
        let is_wanted = |name: &&str| value("--only").is_none_or(|only| only == *name);
        let mut found = HashMap::<_, Vec<_>>::new();
        for _ in 0..turns {
            for name in names.iter().copied().filter(is_wanted) {
                found.entry(name).or_default().push(measure(name, plan)?);
            }
        }
        compare(&found);
        Ok(())
    }

    /// The rows with a target.
    fn compare(found: &HashMap<&str, Vec<Found>>) {
        let (Some(ours), Some(theirs)) = (found.get("group"), found.get("mpsc")) else {
            return;
        };
        type Figure = fn(&Found) -> f64;
        let rows: [(_, Figure); 2] = [
            ("a beat", |found| found.beat.micros),
            ("a message there and back", |found| found.message.micros),
        ];
        for (name, figure) in rows {
            let ratio = median(ours.iter().map(figure)) / median(theirs.iter().map(figure));
            let missed = if ratio > TARGET { "  missed" } else { "" };
            println!("{name:<25} group over mpsc: {ratio:.2}, target {TARGET:.2}{missed}");
        }
    }

    fn median(figures: impl Iterator<Item = f64>) -> f64 {
        let mut figures: Vec<f64> = figures.collect();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
    }

    struct Found {
        memory: usize,
        beat: Each,
        message: Each,
        dead: usize,
    }

    /// What one of many costs this process.
    #[derive(Clone, Copy)]
    struct Each {
        micros: f64,
        allocations: f64,
    }

    fn measure(name: &'static str, plan: Plan) -> io::Result<Found> {
        let runtime = runtime()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let mut child = Command::new(env::current_exe()?)
            .args(["--peers-of", &listener.local_addr()?.to_string()])
            .args(["--connections", &plan.connections.to_string()])
            .args(["--interval", &plan.interval.as_millis().to_string()])
            .stdin(Stdio::piped())
            .spawn()?;
        let accepted = (0..plan.connections).map(|_| Ok(runtime.block_on(listener.accept())?.0));
        let accepted = accepted.collect::<io::Result<Vec<_>>>()?;
        let before = ALLOCATED.load(Relaxed);
        let running = runtime.spawn(async move {
            let wrap = |stream| Heartbeat::new(stream, config(Role::Both, plan.interval));
            let streams = accepted.into_iter().map(wrap).enumerate();
            match name {
                "group" => run(grouped(streams), plan, before).await,
                "mpsc" => run(channelled(streams), plan, before).await,
                "unordered" => run(Streamed(unordered(streams)), plan, before).await,
                _ => run(Streamed(mapped(streams)), plan, before).await,
            }
        });
        let found = runtime.block_on(running).map_err(io::Error::other)??;
        println!(
            "{name:<12} {:>10} {:>12.1} {:>12.2} {:>14.1} {:>12.2} {:>6}",
            found.memory,
            found.beat.micros,
            found.beat.allocations,
            found.message.micros,
            found.message.allocations,
            found.dead
        );
        io::stdout().flush()?;
        // Before the peers end, which would count as deaths.
        runtime.shutdown_timeout(Duration::from_secs(30));
        child.kill()?;
        child.wait()?;
        Ok(found)
    }

    fn config(role: Role, interval: Duration) -> Config {
        let config = Config::builder().interval(interval).role(role);
        config.build().expect("it is valid")
    }

    /// The loop of the application.
    async fn run(mut events: impl Events, plan: Plan, before: usize) -> io::Result<Found> {
        let mut dead = 0;
        let settled = plan.interval + Duration::from_secs(1);
        count_beats(&mut events, settled, &mut dead).await;
        let begun = Cost::now()?;
        let beats = count_beats(&mut events, plan.watch, &mut dead).await;
        let beat = (Cost::now()? - begun).each(beats);
        let memory = ALLOCATED.load(Relaxed).saturating_sub(before) / plan.connections;
        let mut rounds = Vec::new();
        for _ in 0..plan.rounds {
            let begun = Cost::now()?;
            if !events.send_to_all(b"to each, and back"[..].into()).await {
                break;
            }
            count_messages(&mut events, plan.connections, &mut dead).await;
            rounds.push((Cost::now()? - begun).each(plan.connections));
        }
        let message = Each {
            micros: median(rounds.iter().map(|each| each.micros)),
            allocations: median(rounds.iter().map(|each| each.allocations)),
        };
        Ok(Found {
            memory,
            beat,
            message,
            dead,
        })
    }

    async fn count_beats(events: &mut impl Events, time: Duration, dead: &mut usize) -> usize {
        let (until, mut beats) = (Instant::now() + time, 0);
        while Instant::now() < until {
            match events.next().await {
                Some((_, PeerEvent::Beat { .. })) => beats += 1,
                Some((_, PeerEvent::Dead(_))) => *dead += 1,
                Some(_) => {}
                None => break,
            }
        }
        beats
    }

    async fn count_messages(events: &mut impl Events, expected: usize, dead: &mut usize) {
        let mut messages = 0;
        while messages < expected {
            match events.next().await {
                Some((_, PeerEvent::Message(_))) => messages += 1,
                Some((_, PeerEvent::Dead(_))) => *dead += 1,
                Some(_) => {}
                None => break,
            }
        }
    }

    /// All connections, as the application's loop sees them.
    trait Events: Send {
        fn next(&mut self) -> impl Future<Output = Option<Event>> + Send;

        /// Says whether it can.
        fn send_to_all(&mut self, message: Bytes) -> impl Future<Output = bool> + Send {
            drop(message);
            async { false }
        }
    }

    impl Events for Group<usize, Bytes> {
        fn next(&mut self) -> impl Future<Output = Option<Event>> + Send {
            self.recv()
        }

        async fn send_to_all(&mut self, message: Bytes) -> bool {
            let all = self.broadcast(message, Slow::Wait).await;
            all.sent == self.len()
        }
    }

    /// One channel from all tasks, and one to each.
    struct Channels {
        taken: mpsc::Receiver<Event>,
        members: HashMap<usize, mpsc::Sender<Bytes>>,
    }

    impl Events for Channels {
        fn next(&mut self) -> impl Future<Output = Option<Event>> + Send {
            self.taken.recv()
        }

        async fn send_to_all(&mut self, message: Bytes) -> bool {
            for member in self.members.values() {
                if member.send(message.clone()).await.is_err() {
                    return false;
                }
            }
            true
        }
    }

    struct Streamed<S>(S);

    impl<S: Stream<Item = Event> + Unpin + Send> Events for Streamed<S> {
        fn next(&mut self) -> impl Future<Output = Option<Event>> + Send {
            self.0.next()
        }
    }

    fn grouped(
        streams: impl Iterator<Item = (usize, Heartbeat<TcpStream>)>,
    ) -> Group<usize, Bytes> {
        let mut group = Group::new();
        for (key, peer) in streams {
            group.insert(key, peer.spawn());
        }
        group
    }

    fn channelled(streams: impl Iterator<Item = (usize, Heartbeat<TcpStream>)>) -> Channels {
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
        Channels { taken, members }
    }

    fn unordered(
        streams: impl Iterator<Item = (usize, Heartbeat<TcpStream>)>,
    ) -> impl Stream<Item = Event> + Unpin + Send {
        streams
            .map(|(key, peer)| peer.map(move |event| (key, event)))
            .collect::<SelectAll<_>>()
    }

    fn mapped(
        streams: impl Iterator<Item = (usize, Heartbeat<TcpStream>)>,
    ) -> impl Stream<Item = Event> + Unpin + Send {
        streams.collect::<StreamMap<_, _>>()
    }

    /// Answers on all connections until its parent is gone.
    fn be_the_peers(address: SocketAddr, plan: Plan) -> io::Result<()> {
        let runtime = runtime()?;
        for _ in 0..plan.connections {
            let stream = runtime.block_on(TcpStream::connect(address))?;
            runtime.spawn(async move {
                let mut peer = Heartbeat::new(stream, config(Role::Passive, plan.interval));
                while let Some(event) = peer.next().await {
                    if let PeerEvent::Message(message) = event {
                        let _ = peer.send(message).await; // its parent is gone
                    }
                }
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

    /// What this process has used so far.
    struct Cost {
        processor: Duration,
        allocations: usize,
    }

    impl Cost {
        fn now() -> io::Result<Self> {
            let mut nanos = 0;
            for task in fs::read_dir("/proc/self/task")? {
                let text = fs::read_to_string(task?.path().join("schedstat"))?;
                let first = text.split(' ').next().unwrap_or_default();
                nanos += first.parse::<u64>().map_err(io::Error::other)?;
            }
            Ok(Self {
                processor: Duration::from_nanos(nanos),
                allocations: ALLOCATIONS.load(Relaxed),
            })
        }

        fn each(self, number: usize) -> Each {
            Each {
                micros: self.processor.as_secs_f64() * 1e6 / number as f64,
                allocations: self.allocations as f64 / number as f64,
            }
        }
    }

    impl Sub for Cost {
        type Output = Self;

        fn sub(self, before: Self) -> Self {
            Self {
                processor: self.processor.saturating_sub(before.processor),
                allocations: self.allocations - before.allocations,
            }
        }
    }

    static ALLOCATED: AtomicUsize = AtomicUsize::new(0);
    static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

    /// Counts allocations, and the bytes that are in use.
    struct Counting;

    #[global_allocator]
    static COUNTING: Counting = Counting;

    // SAFETY: it hands on to the system's allocator what it was given.
    #[allow(unsafe_code, reason = "an allocator is")]
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            ALLOCATED.fetch_add(layout.size(), Relaxed);
            ALLOCATIONS.fetch_add(1, Relaxed);
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
