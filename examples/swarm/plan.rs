//! Plans a swarm: the number of processes, the connections of each, and whether the machine
//! can hold them. Nothing is started here.

use std::{fmt, fs, io, ops::RangeInclusive, time::Duration};

use indicatif::{HumanBytes, HumanCount};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::words::Group;

/// More in one process would need more source addresses than one.
const MOST_IN_A_PROCESS: u64 = 18_000;

/// Standard streams, the runtime's, a listener.
const OTHER_DESCRIPTORS: u64 = 64;

/// The pipes to and from a member, and one while it is started.
const DESCRIPTORS_FOR_A_MEMBER: u64 = 3;

/// About 10 KiB in the kernel and 2 KiB in the process for each end, and a
/// little air.
const MEMORY_OF_A_CONNECTION: u64 = 16 * 1024;

const MEMORY_OF_A_PROCESS: u64 = 8 * 1024 * 1024;

/// Beside the runtime's.
const OTHER_THREADS: u64 = 2;

/// How many connections may wait to be accepted.
const BACKLOG: u64 = 4096;

/// Which process opens which connections.
#[derive(Debug)]
pub struct Plan {
    pub connections: u64,
    pub servers: u64,
    pub groups: Vec<Group>,
    /// How many connections may wait at a server.
    pub backlog: u32,
}

/// What this machine has.
#[derive(Debug)]
pub struct Limits {
    /// File descriptors in one process.
    descriptors_each: u64,
    /// Unused file descriptors.
    descriptors: u64,
    /// Bytes.
    memory: u64,
    threads: u64,
    /// For each source address.
    ports: u64,
    /// Connections that the firewall can go on to remember, if it does.
    tracked: Option<u64>,
    backlog: u64,
}

/// Why a swarm can't be so large.
#[derive(Debug)]
pub struct Refusal {
    what: &'static str,
    needed: String,
    there: String,
    /// Where the limit stands.
    limit: &'static str,
}

impl Plan {
    /// # Errors
    ///
    /// All that this machine hasn't enough of.
    pub fn new(
        connections: u64,
        share: f64,
        workers: u16,
        limits: &Limits,
    ) -> Result<Self, Vec<Refusal>> {
        let for_servers = limits.descriptors_each.saturating_sub(OTHER_DESCRIPTORS);
        let for_servers = for_servers.min(MOST_IN_A_PROCESS);
        let for_peers = for_servers.min(limits.ports);
        if for_peers == 0 {
            return Err(vec![Refusal {
                what: "file descriptors or ports in a process",
                needed: format!("more than {OTHER_DESCRIPTORS}, and a port"),
                there: format!("{} and {}", limits.descriptors_each, limits.ports),
                limit: "ulimit -Hn, net.ipv4.ip_local_port_range",
            }]);
        }
        let frozen = part(connections, share);
        let servers = connections.div_ceil(for_servers);
        let living = connections - frozen;
        let processes = servers + living.div_ceil(for_peers) + frozen.div_ceil(for_peers);

        let refusals = limits.refusals(connections, processes, workers);
        if !refusals.is_empty() {
            return Err(refusals);
        }
        let mut groups = Vec::new();
        for (connections, freezes) in [(living, false), (frozen, true)] {
            add_groups(&mut groups, connections, for_peers, freezes);
        }
        Ok(Self {
            connections,
            servers,
            groups,
            backlog: u32::try_from(limits.backlog.min(BACKLOG)).unwrap_or(u32::MAX),
        })
    }

    /// How many connections are to be lost.
    pub fn frozen(&self) -> u64 {
        let frozen = self.groups.iter().filter(|group| group.freezes);
        frozen.map(|group| group.connections).sum()
    }

    /// How many connections a group opens at once, and how often, so that all together open
    /// `rate` in a second. They always fit into a server's backlog.
    pub fn pace(&self, group: &Group, rate: u32) -> (usize, Duration) {
        let each = part(
            u64::from(rate),
            fraction(group.connections, self.connections),
        );
        let groups = u64::try_from(self.groups.len()).unwrap_or(u64::MAX).max(1);
        let room = (u64::from(self.backlog) / groups).max(1);
        let at_once = each.div_ceil(50).min(room);
        let every = Duration::from_secs(1).mul_f64(fraction(at_once, each));
        (usize::try_from(at_once).unwrap_or(usize::MAX), every)
    }
}

/// Never none.
fn part(of: u64, share: f64) -> u64 {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a whole, rounded"
    )]
    let part = (of as f64 * share).round() as u64;
    part.clamp(1, of)
}

#[expect(clippy::cast_precision_loss, reason = "a ratio")]
fn fraction(part: u64, of: u64) -> f64 {
    part as f64 / of.max(1) as f64
}

/// As few as possible, about equal.
fn add_groups(groups: &mut Vec<Group>, connections: u64, most: u64, freezes: bool) {
    let first = groups
        .last()
        .map_or(0, |group| group.first + group.connections);
    let count = connections.div_ceil(most);
    let beginning = |index: u64| first + connections * index / count;
    for index in 0..count {
        groups.push(Group {
            // From one: an address that ends in zeros may be a network's.
            number: u16::try_from(groups.len() + 1).unwrap_or(u16::MAX),
            first: beginning(index),
            connections: beginning(index + 1) - beginning(index),
            freezes,
        });
    }
}

impl Limits {
    /// Asks the kernel, and takes as many file descriptors as it gives to this
    /// process and its children.
    pub fn read() -> io::Result<Self> {
        let mut files = getrlimit(Resource::Nofile);
        files.current = files.maximum;
        setrlimit(Resource::Nofile, files)?;
        let ports = ports()?;
        Ok(Self {
            descriptors_each: files.maximum.unwrap_or(u64::MAX),
            descriptors: {
                let open = numbers("/proc/sys/fs/file-nr")?;
                let limit = open.last().copied().unwrap_or(u64::MAX);
                limit.saturating_sub(open.first().copied().unwrap_or_default())
            },
            memory: memory()?,
            threads: threads()?,
            ports: ports.end().saturating_sub(*ports.start()).saturating_add(1),
            tracked: tracked(),
            backlog: number("/proc/sys/net/core/somaxconn")?,
        })
    }

    fn refusals(&self, connections: u64, processes: u64, workers: u16) -> Vec<Refusal> {
        let threads = processes.saturating_mul(OTHER_THREADS + u64::from(workers));
        let descriptors = connections
            .saturating_mul(2)
            .saturating_add(processes.saturating_mul(OTHER_DESCRIPTORS));
        let pipes = processes
            .saturating_mul(DESCRIPTORS_FOR_A_MEMBER)
            .saturating_add(OTHER_DESCRIPTORS);
        let memory = connections
            .saturating_mul(MEMORY_OF_A_CONNECTION)
            .saturating_add(processes.saturating_mul(MEMORY_OF_A_PROCESS));
        let count = |number| HumanCount(number).to_string();
        let bytes = |number| HumanBytes(number).to_string();
        let mut refusals = Vec::new();
        let mut check = |what, needed, there, limit, show: &dyn Fn(u64) -> String| {
            if needed > there {
                refusals.push(Refusal {
                    what,
                    needed: show(needed),
                    there: show(there),
                    limit,
                });
            }
        };
        check(
            "memory",
            memory,
            self.memory,
            "MemAvailable, memory.max",
            &bytes,
        );
        check(
            "file descriptors",
            descriptors,
            self.descriptors,
            "fs.file-max",
            &count,
        );
        check(
            "file descriptors of this process",
            pipes,
            self.descriptors_each,
            "ulimit -Hn",
            &count,
        );
        check(
            "threads",
            threads,
            self.threads,
            "ulimit -Hu, pids.max, kernel.threads-max",
            &count,
        );
        check(
            "peers with an address of their own",
            processes,
            u64::from(u16::MAX) - 1,
            "127.0.0.0/8",
            &count,
        );
        if let Some(tracked) = self.tracked {
            check(
                "connections that the firewall remembers",
                connections,
                tracked,
                "net.netfilter.nf_conntrack_max",
                &count,
            );
        }
        refusals
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            needed,
            there,
            limit,
        } = self;
        write!(f, "{what}: {needed} needed, {there} there ({limit})")
    }
}

/// Of what is there a tenth is left for others.
fn memory() -> io::Result<u64> {
    let available = meminfo("MemAvailable")?;
    // Inside of a container.
    let group = match (
        number("/sys/fs/cgroup/memory.max"),
        number("/sys/fs/cgroup/memory.current"),
    ) {
        (Ok(most), Ok(used)) => most.saturating_sub(used),
        _ => u64::MAX,
    };
    Ok(available.min(group) / 10 * 9)
}

/// Bytes.
pub fn meminfo(name: &str) -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let words = line.and_then(|line| line.split_whitespace().next());
    let kib: Option<u64> = words.and_then(|word| word.parse().ok());
    kib.map(|kib| kib * 1024)
        .ok_or_else(|| unreadable("/proc/meminfo"))
}

/// Threads that may be made yet.
fn threads() -> io::Result<u64> {
    let running = fs::read_to_string("/proc/loadavg")?;
    let running = running.split(['/', ' ']).nth(4);
    let running: u64 = running
        .and_then(|word| word.parse().ok())
        .unwrap_or_default();
    let ours = getrlimit(Resource::Nproc).maximum.unwrap_or(u64::MAX);
    let group = number("/sys/fs/cgroup/pids.max").unwrap_or(u64::MAX);
    let all = number("/proc/sys/kernel/threads-max")?;
    Ok(ours.min(group).min(all).saturating_sub(running))
}

fn ports() -> io::Result<RangeInclusive<u64>> {
    const PATH: &str = "/proc/sys/net/ipv4/ip_local_port_range";
    match numbers(PATH)?.as_slice() {
        [first, last] => Ok(*first..=*last),
        _ => Err(unreadable(PATH)),
    }
}

/// `None` where nothing is remembered so far: then loopback isn't.
fn tracked() -> Option<u64> {
    let count = number("/proc/sys/net/netfilter/nf_conntrack_count").ok()?;
    let most = number("/proc/sys/net/netfilter/nf_conntrack_max").ok()?;
    (count > 0).then(|| most.saturating_sub(count))
}

fn number(path: &str) -> io::Result<u64> {
    let numbers = numbers(path)?;
    numbers.first().copied().ok_or_else(|| unreadable(path))
}

fn numbers(path: &str) -> io::Result<Vec<u64>> {
    let text = fs::read_to_string(path)?;
    Ok(text
        .split_whitespace()
        .map_while(|word| word.parse().ok())
        .collect())
}

fn unreadable(path: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{path} isn't as it was"),
    )
}
