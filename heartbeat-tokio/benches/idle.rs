//! What an idle connection costs, and how soon its end is known.
//!
//! ```text
//! cargo bench -p heartbeat-tokio --bench idle -- [--quick] [--turns N] [--json FILE]
//!     [--aligned]
//! ```
//!
//! This process holds one end of 10,000 connections over loopback, a task each,
//! and a child the others. Measured are the memory of an end (what the
//! allocator gave, after beats), the processor's time for each beat on either
//! side (the kernel's figure for the whole process), and, when the child is
//! stopped with SIGSTOP, when the deaths of all connections are known. The
//! other side of each comparison is what people write: a `Framed` and an
//! timer for each connection: an unaligned one, or with `--aligned` one on the
//! same grid as ours, which shows what else there is.
//!
//! A beat proves both directions to both sides, because pings are piggybacked on
//! pongs. What that costs both ends together is compared with beats of which
//! one side only answers, and with two of those: what both ends would cost if each
//! asked for itself. `same-calls` is the same by hand on the same grid: a ping, an answer that
//! asks too, and its answer.

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
        env, fs,
        future::Future,
        io,
        net::SocketAddr,
        os::fd::AsRawFd,
        process::{Child, Command, Stdio},
        sync::{
            Mutex, OnceLock, PoisonError,
            atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
        },
        thread,
        time::{Duration, Instant},
    };

    use bytes::Bytes;
    use futures::{SinkExt, StreamExt};
    use heartbeat_tokio::{Cause, Config, Heartbeat, PeerEvent, Role};
    use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
    use tokio::{
        net::{TcpListener, TcpStream},
        runtime::Runtime,
        time::{Instant as TokioInstant, sleep_until},
    };
    use tokio_util::codec::{Framed, LengthDelimitedCodec};

    const INTERVAL: Duration = Duration::from_secs(5);

    pub(super) fn main() -> io::Result<()> {
        let arguments: Vec<String> = env::args().collect();
        let value = |name: &str| {
            let at = arguments.iter().position(|argument| argument == name)?;
            arguments.get(at + 1).cloned()
        };
        raise_limit();
        if let (Some(address), Some(kind)) = (value("--peers-of"), value("--kind")) {
            let address = address.parse().expect("an address");
            return be_the_peers(address, count(&value("--count")), &kind);
        }
        let quick = arguments.iter().any(|argument| argument == "--quick");
        let mut bench = match quick {
            true => Bench {
                connections: 2_000,
                turns: 1,
                watched: Duration::from_secs(10),
            },
            false => Bench {
                connections: 10_000,
                turns: 7,
                watched: Duration::from_secs(15),
            },
        };
        if arguments.iter().any(|argument| argument == "--aligned") {
            ALIGNED.store(true, Relaxed);
        }
        if value("--turns").is_some() {
            bench.turns = count(&value("--turns")).max(1);
        }
        let rows = bench.run()?;
        if let Some(file) = value("--json") {
            let rows: Vec<String> = rows.iter().map(Row::json).collect();
            fs::write(file, format!("{{\"rows\":[{}]}}\n", rows.join(",")))?;
        }
        Ok(())
    }

    fn count(argument: &Option<String>) -> usize {
        let argument = argument.as_deref().expect("how many");
        argument.parse().expect("a number")
    }

    struct Bench {
        connections: usize,
        turns: usize,
        watched: Duration,
    }

    /// A figure, and what it is to stay below.
    struct Row {
        work: &'static str,
        unit: &'static str,
        theirs: Option<f64>,
        ours: f64,
        ratio: f64,
        at_most: f64,
    }

    impl Bench {
        fn run(&self) -> io::Result<Vec<Row>> {
            println!(
                "{} connections, a ping each {:?}, 2 workers; medians of {}",
                self.connections, INTERVAL, self.turns
            );
            let (mut theirs, mut ours, mut one_sided) = (Vec::new(), Vec::new(), Vec::new());
            let mut same_calls = Vec::new();
            for _ in 0..self.turns {
                theirs.push(self.watch("plain")?);
                ours.push(self.watch("heartbeat")?);
                one_sided.push(self.watch("one-sided")?);
                same_calls.push(self.watch("same-calls")?);
            }
            let figure =
                |runs: &[Cost], of: fn(&Cost) -> f64| median(runs.iter().map(of).collect());
            let compared = |work, unit, of: fn(&Cost) -> f64, at_most: Option<f64>, ratio: f64| {
                let (theirs, ours) = (figure(&theirs, of), figure(&ours, of));
                Row {
                    work,
                    unit,
                    theirs: Some(theirs),
                    ours,
                    ratio: at_most.map_or(ours / theirs, |at_most| ours / at_most),
                    at_most: ratio,
                }
            };
            let mut rows = vec![
                compared("memory", "B", |cost| cost.memory, Some(1400.0), 1.0),
                compared("beat-prober", "µs", |cost| cost.prober, None, 0.33),
                compared("beat-answerer", "µs", |cost| cost.answerer, None, 0.5),
            ];
            let both = |cost: &Cost| cost.prober + cost.answerer;
            let (asks_along, answers) = (figure(&ours, both), figure(&one_sided, both));
            for (work, theirs, at_most) in [
                ("beat-over-one-sided", answers, 1.4),
                ("beat-over-two", 2.0 * answers, 0.75),
                ("beat-over-same-calls", figure(&same_calls, both), 1.25),
            ] {
                rows.push(Row {
                    work,
                    unit: "µs",
                    theirs: Some(theirs),
                    ours: asks_along,
                    ratio: asks_along / theirs,
                    at_most,
                });
            }
            for (work, jitter) in [("late-without-jitter", 0.0), ("late", 0.25)] {
                rows.push(self.cut(work, jitter)?);
            }
            println!(
                "{:<20} {:>10} {:>10}  {:>6} {:>8}",
                "work", "plain", "heartbeat", "ratio", "at most"
            );
            for row in &rows {
                println!("{}", row.line());
            }
            Ok(rows)
        }

        /// What idle connections cost.
        fn watch(&self, kind: &'static str) -> io::Result<Cost> {
            let runtime = runtime()?;
            let before = ALLOCATED.load(Relaxed);
            let peers = self.open(&runtime, kind, config(0.25))?;
            // Beats of every connection, and of some a second one.
            thread::sleep(INTERVAL + Duration::from_secs(1));
            let begun = Instant::now();
            let counters = || -> io::Result<_> {
                let beats = BEATS.load(Relaxed);
                Ok((beats, time_of("self")?, time_of(&peers.id())?))
            };
            let (beats, prober, answerer) = counters()?;
            thread::sleep(self.watched.saturating_sub(begun.elapsed()));
            let after = counters()?;
            let memory = ALLOCATED.load(Relaxed).saturating_sub(before);

            let beats = (after.0 - beats) as f64;
            assert!(beats > self.connections as f64, "too few beats");
            let each = |time: Duration| time.as_secs_f64() * 1e6 / beats;
            Ok(Cost {
                memory: memory as f64 / self.connections as f64,
                prober: each(after.1 - prober),
                answerer: each(after.2 - answerer),
            })
        }

        /// How late, in milliseconds, the death of each connection is known
        /// when all peers are stopped at once.
        fn cut(&self, work: &'static str, jitter: f64) -> io::Result<Row> {
            let runtime = runtime()?;
            let config = config(jitter);
            let peers = self.open(&runtime, "heartbeat", config)?;
            thread::sleep(INTERVAL + Duration::from_secs(1));
            assert!(deaths().is_empty(), "a false alarm");
            kill_process(peers.pid(), Signal::STOP)?;
            thread::sleep(config.detection_time() + Duration::from_secs(1));

            let silences = std::mem::take(&mut *deaths());
            assert_eq!(silences.len(), self.connections, "all are found");
            let bound = config.detection_time();
            let earliest = bound - config.interval().mul_f64(jitter);
            let early = silences.iter().filter(|&&silent| silent < earliest);
            assert_eq!(early.count(), 0, "none is early");
            let mut late: Vec<f64> = silences
                .iter()
                .map(|silent| silent.saturating_sub(bound).as_secs_f64() * 1e3)
                .collect();
            late.sort_by(f64::total_cmp);
            let p99 = late.get(late.len() * 99 / 100).copied().unwrap_or(0.0);
            Ok(Row {
                work,
                unit: "ms, p99",
                theirs: None,
                ours: p99,
                ratio: p99 / 20.0,
                at_most: 1.0,
            })
        }

        fn open(&self, runtime: &Runtime, kind: &'static str, config: Config) -> io::Result<Peers> {
            let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
            let child = Command::new(env::current_exe()?)
                .args(["--peers-of", &listener.local_addr()?.to_string()])
                .args(["--count", &self.connections.to_string(), "--kind", kind])
                .stdin(Stdio::piped())
                .spawn()?;
            let peers = Peers(child);
            for nth in 0..self.connections {
                let (stream, _) = runtime.block_on(listener.accept())?;
                match kind {
                    "plain" | "same-calls" => spawn(runtime, probe_plain(stream, nth, kind)),
                    _ => {
                        let _runtime = runtime.enter();
                        spawn(runtime, probe(Heartbeat::new(stream, config)));
                    }
                }
            }
            Ok(peers)
        }
    }

    /// For one connection.
    struct Cost {
        /// Bytes.
        memory: f64,
        /// Microseconds of the processor for each beat.
        prober: f64,
        answerer: f64,
    }

    fn runtime() -> io::Result<Runtime> {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
    }

    fn config(jitter: f64) -> Config {
        Config::builder()
            .interval(INTERVAL)
            .timeout(Duration::from_secs(1))
            .jitter(jitter)
            .build()
            .expect("it is valid")
    }

    impl Row {
        fn line(&self) -> String {
            let missed = match self.ratio > self.at_most {
                true => "  missed",
                false => "",
            };
            let theirs = self
                .theirs
                .map_or(String::new(), |theirs| format!("{theirs:.1}"));
            format!(
                "{:<20} {theirs:>10} {:>10.1}  {:>6.2} {:>8.2}  {}{missed}",
                self.work, self.ours, self.ratio, self.at_most, self.unit
            )
        }

        fn json(&self) -> String {
            format!(
                r#"{{"work":"{}","io":"tcp","ours":{:.1},"unit":"{}","ratio":{:.3},"at_most":{}}}"#,
                self.work, self.ours, self.unit, self.ratio, self.at_most
            )
        }
    }

    fn median(mut figures: Vec<f64>) -> f64 {
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
    }

    // ---- this process ---------------------------------------------------

    static BEATS: AtomicUsize = AtomicUsize::new(0);
    static ALIGNED: AtomicBool = AtomicBool::new(false);
    static DEATHS: Mutex<Vec<Duration>> = Mutex::new(Vec::new());

    fn deaths() -> std::sync::MutexGuard<'static, Vec<Duration>> {
        DEATHS.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[expect(
        clippy::manual_async_fn,
        reason = "the future of an `async fn` has room for its argument twice"
    )]
    fn probe(mut peer: Heartbeat<TcpStream>) -> impl Future<Output = ()> {
        async move {
            while let Some(event) = peer.next().await {
                match event {
                    PeerEvent::Beat { .. } => {
                        BEATS.fetch_add(1, Relaxed);
                    }
                    // Others end when their child does.
                    PeerEvent::Dead(death) if death.cause == Cause::Silent => {
                        deaths().push(death.silent_for);
                    }
                    _ => {}
                }
            }
        }
    }

    /// The same by hand, with the same intervals.
    async fn probe_plain(stream: TcpStream, nth: usize, kind: &str) {
        let is_asked = kind == "same-calls";
        let is_aligned = is_asked || ALIGNED.load(Relaxed);
        let mut framed = Framed::new(stream, LengthDelimitedCodec::new());
        // Connections are spread over the interval, and each is shortened by
        // up to a quarter: multiples of the golden ratio look random enough.
        let mut dice = nth as f64 * 0.618_034 % 1.0;
        let sleep = sleep_until(TokioInstant::now() + INTERVAL.mul_f64(dice));
        tokio::pin!(sleep);
        loop {
            tokio::select! {
                frame = framed.next() => match frame {
                    Some(Ok(_)) => {
                        BEATS.fetch_add(1, Relaxed);
                        if is_asked {
                            acknowledge(framed.get_ref());
                            if framed.send(PONG).await.is_err() {
                                return;
                            }
                        }
                    }
                    _ => return,
                },
                () = &mut sleep => {
                    if framed.send(PING).await.is_err() {
                        return;
                    }
                    dice = (dice + 0.618_034) % 1.0;
                    let next = TokioInstant::now() + INTERVAL.mul_f64(1.0 - dice / 4.0);
                    let early = if is_aligned { beyond_the_grid(next) } else { Duration::ZERO };
                    sleep.as_mut().reset(next - early);
                }
            };
        }
    }

    const PING: Bytes = Bytes::from_static(b"ping12345");
    const PONG: Bytes = Bytes::from_static(b"pong12345");

    /// The option that a heartbeat sets after a pong: see `acknowledge` in
    /// `safety_net/apply.rs`.
    fn acknowledge(stream: &TcpStream) {
        let now: libc::c_int = 2;
        // SAFETY: the value is an `int`, and the descriptor is open.
        #[allow(unsafe_code, reason = "no library has this value")]
        let failed = unsafe {
            libc::setsockopt(
                stream.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_QUICKACK,
                (&raw const now).cast(),
                size_of_val(&now) as libc::socklen_t,
            )
        };
        assert_eq!(failed, 0, "the kernel has the option");
    }

    /// By how much a moment is after one on a grid of 131 ms.
    fn beyond_the_grid(at: TokioInstant) -> Duration {
        static ORIGIN: OnceLock<TokioInstant> = OnceLock::new();
        let origin = *ORIGIN.get_or_init(TokioInstant::now);
        Duration::from_micros((at - origin).as_micros() as u64 % (1 << 17))
    }

    // ---- the child ------------------------------------------------------

    /// Answers on this number of connections until its parent is gone.
    fn be_the_peers(address: SocketAddr, connections: usize, kind: &str) -> io::Result<()> {
        let runtime = runtime()?;
        for _ in 0..connections {
            let stream = runtime.block_on(TcpStream::connect(address))?;
            match kind {
                "plain" | "same-calls" => spawn(&runtime, answer_plain(stream)),
                // It has no reason to ask.
                "one-sided" => spawn(&runtime, answer(stream, Duration::from_secs(86_400))),
                _ => spawn(&runtime, answer(stream, INTERVAL)),
            }
        }
        io::copy(&mut io::stdin(), &mut io::sink())?;
        Ok(())
    }

    fn spawn(runtime: &Runtime, task: impl Future<Output = ()> + Send + 'static) {
        drop(runtime.spawn(task));
    }

    async fn answer(stream: TcpStream, interval: Duration) {
        let config = Config::builder()
            .interval(interval)
            .role(Role::Passive)
            .build()
            .expect("it is valid");
        let mut peer = Heartbeat::new(stream, config);
        while peer.next().await.is_some() {}
    }

    async fn answer_plain(stream: TcpStream) {
        let mut framed = Framed::new(stream, LengthDelimitedCodec::new());
        let patience = INTERVAL * 3;
        let sleep = sleep_until(TokioInstant::now() + patience);
        tokio::pin!(sleep);
        loop {
            tokio::select! {
                frame = framed.next() => match frame {
                    Some(Ok(frame)) => {
                        sleep.as_mut().reset(TokioInstant::now() + patience);
                        if frame == PING && framed.send(frame.freeze()).await.is_err() {
                            return;
                        }
                    }
                    _ => return,
                },
                () = &mut sleep => return,
            }
        }
    }

    /// They end with us: their input does.
    struct Peers(Child);

    impl Peers {
        fn pid(&self) -> Pid {
            Pid::from_child(&self.0)
        }

        fn id(&self) -> String {
            self.0.id().to_string()
        }
    }

    impl Drop for Peers {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    // ---- what the system says -------------------------------------------

    fn raise_limit() {
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        let Rlimit { current, maximum } = limit;
        setrlimit(Resource::Nofile, Rlimit { current, maximum }).expect("up to the hard limit");
    }

    /// The processor's time that all threads of a process have used.
    fn time_of(process: &str) -> io::Result<Duration> {
        let mut nanos = 0;
        for task in fs::read_dir(format!("/proc/{process}/task"))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            let first = text.split(' ').next().unwrap_or_default();
            nanos += first.parse::<u64>().map_err(io::Error::other)?;
        }
        Ok(Duration::from_nanos(nanos))
    }

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
