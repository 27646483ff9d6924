//! The order of events, from the first process to the last.
//!
//! ```text
//! started      opened                 frozen                found
//!   |------------|----------------------|---------------------|
//!    memory: none  all     all, after beats
//!                  processor time, beats  sightings of the frozen
//!    any other sighting is a false alarm
//! ```
//!
//! What it all means is said in `report.rs`.

use std::{
    error::Error,
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr},
    process::ExitCode,
    time::Duration,
};

use futures::future::join_all;
use heartbeat_examples::{process::interrupted, witness::Witness};
use heartbeat_tokio::Config;
use indicatif::{HumanBytes, HumanCount};
use tokio::{
    runtime::Builder,
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::{Instant, timeout_at},
};

use crate::{
    children::Member,
    display::Display,
    measure::{KernelMemory, UserMemory, machine_time, processor_time},
    options::Options,
    plan::{Limits, Plan},
    report::Report,
    words::{Assignment, Count, News, Order, Role, Sighting, now},
};

/// The period of progress reports.
const SECOND: Duration = Duration::from_secs(1);

/// How long a member may take to answer, or none of them to open a connection.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

/// The time beyond the promise during which we still look for false alarms.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// All that was measured and seen.
#[derive(Debug)]
pub struct Observed {
    pub opened_in: Duration,
    pub before: Memory,
    pub opened: Memory,
    pub after_beats: Memory,
    /// When the measurement of beats began, and how long it took.
    pub measured_from: u64,
    pub measured_for: Duration,
    pub beats: u64,
    /// Seconds.
    pub processor_time: f64,
    pub machine_time: f64,
    pub machine_late: Duration,
    /// Before the first no process was stopped; after the second all were that should be.
    pub frozen: (u64, u64),
    /// By how much this machine was late from then on.
    pub frozen_late: Duration,
    pub stalls: u64,
    pub seen: Vec<Seen>,
}

#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub user: UserMemory,
    pub kernel: KernelMemory,
}

/// What one end of a connection said of the other.
#[derive(Clone, Debug)]
pub struct Seen {
    pub by_server: bool,
    pub sighting: Sighting,
}

/// The whole program, but for a member's.
pub fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let config = options.config()?;
    let limits = Limits::read()?;
    let planned = Plan::new(
        options.connections,
        options.freeze,
        options.workers,
        &limits,
    );
    let plan = match planned {
        Ok(plan) => plan,
        Err(refusals) => {
            let connections = HumanCount(options.connections);
            eprintln!("{connections} connections are more than this machine holds:");
            for refusal in refusals {
                eprintln!("  {refusal}");
            }
            return Ok(ExitCode::from(2));
        }
    };
    // One thread: the members end with the one that started them.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            result = conduct(options, config, plan) => result.or_else(|error| {
                eprintln!("It couldn't be done: {error}");
                Ok(ExitCode::from(2))
            }),
            _ = interrupted() => Ok(ExitCode::from(130)),
        }
    })
}

async fn conduct(
    options: &Options,
    config: Config,
    plan: Plan,
) -> Result<ExitCode, Box<dyn Error>> {
    let display = Display::new();
    let mut swarm = Swarm::start(options, config, plan, display).await?;
    let observed = swarm.observe(options.measure_for).await?;
    let report = Report::new(options, &swarm.config, &swarm.plan, &observed);
    swarm.end().await;
    print!("\n{report}");
    if let Some(path) = &options.json {
        serde_json::to_writer_pretty(File::create(path)?, &report)?;
    }
    Ok(match report.complaints() {
        [] => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

struct Swarm {
    config: Config,
    plan: Plan,
    display: Display,
    /// The servers first.
    members: Vec<Member>,
    news: UnboundedReceiver<(usize, Option<News>)>,
    /// The latest report of each member, and the members that still owe one.
    counts: Vec<Count>,
    awaited: usize,
    addresses: Vec<std::net::SocketAddr>,
    frozen: bool,
    seen: Vec<Seen>,
}

impl Swarm {
    /// All processes are there, and the servers listen.
    async fn start(
        options: &Options,
        config: Config,
        plan: Plan,
        display: Display,
    ) -> io::Result<Self> {
        let servers = usize::try_from(plan.servers).map_err(io::Error::other)?;
        let all = servers + plan.groups.len();
        display.print(&format!(
            "{} connections. Processes of servers: {servers}, of peers: {}, of which {} will freeze.\n\
             An interval of {:?} and {} timeouts of {:?}: dead within {:?}.\n",
            HumanCount(plan.connections),
            plan.groups.len(),
            plan.groups.iter().filter(|group| group.freezes).count(),
            config.interval(),
            config.max_missed(),
            config.timeout(),
            config.detection_time(),
        ));
        let (sender, news) = unbounded_channel();
        let mut swarm = Self {
            config,
            plan,
            display,
            members: Vec::new(),
            news,
            counts: vec![Count::default(); all],
            awaited: 0,
            addresses: Vec::new(),
            frozen: false,
            seen: Vec::new(),
        };
        for number in 0..all {
            swarm.members.push(Member::start(number, sender.clone())?);
        }
        swarm.awaited = all;
        swarm.answers().await?;

        let workers = options.workers;
        let backlog = swarm.plan.backlog;
        for server in &mut swarm.members[..servers] {
            let role = Role::Server { backlog };
            server
                .order(&Order::Be(Assignment {
                    config,
                    workers,
                    role,
                }))
                .await?;
        }
        swarm.awaited = servers;
        swarm.answers().await?;

        // Another network each time: ports of the last swarm may wait yet.
        let network = fastrand::u8(1..=254);
        let peers = swarm.members[servers..].iter_mut();
        for (peer, group) in peers.zip(&swarm.plan.groups) {
            let [high, low] = group.number.to_be_bytes();
            let role = Role::Peer {
                group: *group,
                source: IpAddr::V4(Ipv4Addr::new(127, network, high, low)),
                servers: swarm.addresses.clone(),
                pace: swarm.plan.pace(group, options.open_rate),
            };
            peer.order(&Order::Be(Assignment {
                config,
                workers,
                role,
            }))
            .await?;
        }
        Ok(swarm)
    }

    async fn observe(&mut self, measure_for: Duration) -> io::Result<Observed> {
        // Every member has its orders.
        self.count().await?;
        let before = self.memory()?;
        let opening = Instant::now();
        self.open().await?;
        let opened_in = opening.elapsed();
        let opened = self.memory()?;

        let witness = Witness::start();
        let (measured_from, measuring) = (now(), Instant::now());
        let (first, processor, machine) =
            (self.count().await?, self.processor_time()?, machine_time()?);
        let last = self.beat(measuring + measure_for, first).await?;
        let measured_for = measuring.elapsed();
        let processor_time = self.processor_time()? - processor;
        let machine_time = machine_time()? - machine;
        let after_beats = self.memory()?;
        let machine_late = witness.late();

        let witness = Witness::start();
        let frozen = self.freeze()?;
        let stalls = self.watch().await?.stalls;
        Ok(Observed {
            opened_in,
            before,
            opened,
            after_beats,
            measured_from,
            measured_for,
            beats: last.beats - first.beats,
            processor_time,
            machine_time,
            machine_late,
            frozen,
            frozen_late: witness.late(),
            stalls,
            seen: self.seen.clone(),
        })
    }

    async fn open(&mut self) -> io::Result<()> {
        for member in &mut self.members {
            member.order(&Order::Open).await?;
        }
        let both_ends = 2 * self.plan.connections;
        let mut open = 0;
        let mut grew = Instant::now();
        while open < both_ends {
            self.listen(Instant::now() + SECOND).await?;
            let count = self.count().await?;
            if count.open > open {
                grew = Instant::now();
            }
            open = count.open;
            self.display.show(format!(
                "opening: {} of {} connections, false alarms: {}",
                HumanCount(open / 2),
                HumanCount(self.plan.connections),
                self.seen.len(),
            ));
            if grew.elapsed() > GIVE_UP_AFTER {
                return Err(io::Error::other(format!(
                    "connections don't open any more; last seen: {:?}",
                    self.seen.last()
                )));
            }
        }
        Ok(())
    }

    /// Returns what was counted last.
    async fn beat(&mut self, until: Instant, first: Count) -> io::Result<Count> {
        let began = Instant::now();
        let (mut before, mut worked, mut told) = (first, self.processor_time()?, began);
        loop {
            self.listen(until.min(told + SECOND)).await?;
            let (count, processor_time) = (self.count().await?, self.processor_time()?);
            let passed = told.elapsed();
            told = Instant::now();
            let UserMemory { pss, .. } = self.memory()?.user;
            self.display.show(format!(
                "{:4.0} s: {} connections, {:.0} beats/s, processors {:.2}, memory of the \
                 processes {}, false alarms: {}",
                began.elapsed().as_secs_f64(),
                HumanCount(count.open / 2),
                rate(count.beats - before.beats, passed),
                (processor_time - worked) / passed.as_secs_f64(),
                HumanBytes(pss),
                self.seen.len(),
            ));
            (before, worked) = (count, processor_time);
            if told >= until {
                return Ok(count);
            }
        }
    }

    /// Stops the chosen processes. Returns the times before the first and after the last.
    fn freeze(&mut self) -> io::Result<(u64, u64)> {
        self.frozen = true;
        let from = now();
        for peer in self.freezing() {
            peer.stop()?;
        }
        for peer in self.freezing() {
            peer.stands_still()?;
        }
        Ok((from, now()))
    }

    /// Waits until the servers should have found them, and as long again if
    /// they haven't.
    async fn watch(&mut self) -> io::Result<Count> {
        let frozen = self.plan.frozen();
        let began = Instant::now();
        let promised = self.config.detection_time() + AFTERWARDS;
        loop {
            self.listen(Instant::now() + SECOND).await?;
            let count = self.count().await?;
            let found = self.seen.iter().filter(|seen| self.is_find(seen)).count();
            self.display.show(format!(
                "{:4.0} s after the freeze: {} of {} found",
                began.elapsed().as_secs_f64(),
                HumanCount(u64::try_from(found).unwrap_or(u64::MAX)),
                HumanCount(frozen),
            ));
            let all = u64::try_from(found).is_ok_and(|found| found >= frozen);
            if began.elapsed() > if all { promised } else { 2 * promised } {
                return Ok(count);
            }
        }
    }

    fn is_find(&self, seen: &Seen) -> bool {
        let number = seen.sighting.group;
        let group = self.plan.groups.iter().find(|group| group.number == number);
        seen.by_server && seen.sighting.is_end() && group.is_some_and(|group| group.freezes)
    }

    /// Takes all processes down, and waits until they are gone.
    async fn end(mut self) {
        self.display.end();
        for member in &mut self.members {
            member.kill();
        }
        join_all(self.members.iter_mut().map(Member::gone)).await;
    }

    // ---- what members tell ---------------------------------------------

    /// Asks all members that can answer.
    async fn count(&mut self) -> io::Result<Count> {
        let servers = self.members.len() - self.plan.groups.len();
        self.awaited = 0;
        for (number, member) in self.members.iter_mut().enumerate() {
            let group = number.checked_sub(servers);
            let group = group.and_then(|group| self.plan.groups.get(group));
            if self.frozen && group.is_some_and(|group| group.freezes) {
                continue;
            }
            member.order(&Order::Tell).await?;
            self.awaited += 1;
        }
        self.answers().await?;
        let mut sum = Count::default();
        for count in &self.counts {
            sum.open += count.open;
            sum.beats += count.beats;
            sum.stalls += count.stalls;
        }
        Ok(sum)
    }

    async fn answers(&mut self) -> io::Result<()> {
        let until = Instant::now() + GIVE_UP_AFTER;
        while self.awaited > 0 {
            match timeout_at(until, self.news.recv()).await {
                Ok(Some((number, news))) => self.note(number, news)?,
                _ => return Err(io::Error::other("a process doesn't answer")),
            }
        }
        Ok(())
    }

    async fn listen(&mut self, until: Instant) -> io::Result<()> {
        while let Ok(Some((number, news))) = timeout_at(until, self.news.recv()).await {
            self.note(number, news)?;
        }
        Ok(())
    }

    fn note(&mut self, number: usize, news: Option<News>) -> io::Result<()> {
        let servers = self.members.len() - self.plan.groups.len();
        match news {
            Some(News::Ready) => self.awaited -= 1,
            Some(News::Listening(address)) => {
                self.addresses.push(address);
                self.awaited -= 1;
            }
            Some(News::Count(count)) => {
                self.counts[number] = count;
                self.awaited -= 1;
            }
            Some(News::Sighting(sighting)) => self.seen.push(Seen {
                by_server: number < servers,
                sighting,
            }),
            Some(News::Failed(why)) => return Err(io::Error::other(why)),
            None => return Err(io::Error::other("a process has ended")),
        }
        Ok(())
    }

    // ---- what the kernel tells -----------------------------------------

    fn memory(&self) -> io::Result<Memory> {
        Ok(Memory {
            user: UserMemory::of(self.members.iter().map(Member::id))?,
            kernel: KernelMemory::now()?,
        })
    }

    fn processor_time(&self) -> io::Result<f64> {
        processor_time(self.members.iter().map(Member::id))
    }

    fn freezing(&self) -> impl Iterator<Item = &Member> {
        let servers = self.members.len() - self.plan.groups.len();
        let peers = self.members.iter().skip(servers);
        let peers = peers.zip(&self.plan.groups);
        peers
            .filter(|(_, group)| group.freezes)
            .map(|(peer, _)| peer)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn rate(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}
