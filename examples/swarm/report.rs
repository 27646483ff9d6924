//! What was found: the judgement, the table, and the file for other programs.

use std::{collections::BTreeMap, fmt, time::Duration};

use heartbeat_tokio::Config;
use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

use crate::{
    conductor::{Memory, Observed, Seen},
    measure::{KernelMemory, UserMemory},
    options::Options,
    plan::Plan,
    words::What,
};

/// The kernel says when data came last in ticks of up to 10 ms.
const TICK: f64 = 0.010;

/// For other programs. Times in seconds, memory in bytes.
#[derive(Debug, Serialize)]
pub struct Report {
    connections: u64,
    servers: u64,
    peers: usize,
    workers: u16,
    processors: usize,
    config: Settings,
    opened_in: f64,
    measured_for: f64,
    user_memory: Users,
    kernel_memory: Kernels,
    beats: u64,
    beats_a_second: f64,
    /// User and kernel mode, of all processes.
    processor_time: f64,
    /// Of everything that ran on this machine.
    machine_time: f64,
    /// Microseconds.
    processor_time_a_beat: f64,
    /// By how much this machine was late while beats were measured.
    machine_late: f64,
    /// How often a process was asleep itself.
    stalls: u64,
    false_alarms: FalseAlarms,
    freeze: Freeze,
    complaints: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Settings {
    interval: f64,
    timeout: f64,
    max_missed: u32,
    jitter: f64,
    detection_time: f64,
    tolerance: f64,
}

/// Of all processes.
#[derive(Debug, Serialize)]
struct Users {
    before: UserMemory,
    opened: UserMemory,
    after_beats: UserMemory,
    /// One end of a connection, its task included: by `pss`, what there was
    /// before left out.
    an_end: f64,
}

/// Of the whole machine.
#[derive(Debug, Serialize)]
struct Kernels {
    before: KernelMemory,
    opened: KernelMemory,
    after_beats: KernelMemory,
    /// Both ends, what there was before left out. Whatever else happened on
    /// this machine is in it.
    a_connection: f64,
}

/// About peers that lived.
#[derive(Debug, Default, Serialize)]
struct FalseAlarms {
    opening: Alarms,
    measuring: Alarms,
    after_the_freeze: Alarms,
}

#[derive(Debug, Default, Serialize)]
struct Alarms {
    suspect: u64,
    dead: u64,
    closed: u64,
}

#[derive(Debug, Serialize)]
struct Freeze {
    frozen: u64,
    found: usize,
    /// How long it took to stop them all.
    took: f64,
    /// From the freeze to the verdict.
    after_the_freeze: Option<Distribution>,
    /// From the last data to the verdict, by the kernel's account.
    after_the_last_data: Option<Distribution>,
    /// What `after_the_last_data` is beyond what was promised; zero if it isn't.
    beyond_the_bound: Option<Distribution>,
    /// No silence may be shorter.
    earliest: f64,
    early: usize,
    /// After the freeze, more than promised and tolerated.
    late: usize,
    /// By how much this machine was late from the freeze on.
    machine_late: f64,
    verdicts: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Distribution {
    min: f64,
    p50: f64,
    p99: f64,
    max: f64,
}

impl Report {
    pub fn new(options: &Options, config: &Config, plan: &Plan, observed: &Observed) -> Self {
        let measured_for = observed.measured_for.as_secs_f64();
        let beats = real(observed.beats);
        let false_alarms = FalseAlarms::new(plan, observed);
        let freeze = Freeze::new(options, config, plan, observed);
        let mut complaints = Vec::new();
        for (when, alarms) in false_alarms.each() {
            alarms.complain(when, &mut complaints);
        }
        freeze.complain(&mut complaints);
        Self {
            connections: plan.connections,
            servers: plan.servers,
            peers: plan.groups.len(),
            workers: options.workers,
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            config: Settings {
                interval: config.interval().as_secs_f64(),
                timeout: config.timeout().as_secs_f64(),
                max_missed: config.max_missed(),
                jitter: config.jitter(),
                detection_time: config.detection_time().as_secs_f64(),
                tolerance: options.tolerance.as_secs_f64(),
            },
            opened_in: observed.opened_in.as_secs_f64(),
            measured_for,
            user_memory: Users::new(plan, observed),
            kernel_memory: Kernels::new(plan, observed),
            beats: observed.beats,
            beats_a_second: beats / measured_for,
            processor_time: observed.processor_time,
            machine_time: observed.machine_time,
            processor_time_a_beat: observed.processor_time / beats.max(1.0) * 1e6,
            machine_late: observed.machine_late.as_secs_f64(),
            stalls: observed.stalls,
            false_alarms,
            freeze,
            complaints,
        }
    }

    /// What isn't as it should be.
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }
}

impl Users {
    fn new(plan: &Plan, observed: &Observed) -> Self {
        let pss = |memory: Memory| real(memory.user.pss);
        let grown = pss(observed.after_beats) - pss(observed.before);
        Self {
            before: observed.before.user,
            opened: observed.opened.user,
            after_beats: observed.after_beats.user,
            an_end: grown / real(2 * plan.connections),
        }
    }
}

impl Kernels {
    fn new(plan: &Plan, observed: &Observed) -> Self {
        let total = |memory: Memory| real(memory.kernel.total());
        let grown = total(observed.after_beats) - total(observed.before);
        Self {
            before: observed.before.kernel,
            opened: observed.opened.kernel,
            after_beats: observed.after_beats.kernel,
            a_connection: grown / real(plan.connections),
        }
    }
}

impl FalseAlarms {
    fn new(plan: &Plan, observed: &Observed) -> Self {
        let mut alarms = Self::default();
        for seen in &observed.seen {
            let at = seen.sighting.at;
            let when = match at {
                _ if at < observed.measured_from => &mut alarms.opening,
                _ if at < observed.frozen.0 => &mut alarms.measuring,
                _ if is_frozen(plan, seen) => continue,
                _ => &mut alarms.after_the_freeze,
            };
            match seen.sighting.what {
                What::Suspect => when.suspect += 1,
                What::Closed => when.closed += 1,
                What::Dead { .. } => when.dead += 1,
            }
        }
        alarms
    }

    fn each(&self) -> [(&'static str, &Alarms); 3] {
        [
            ("opening", &self.opening),
            ("measuring", &self.measuring),
            ("after the freeze", &self.after_the_freeze),
        ]
    }
}

/// Whether a server said it of a peer that was frozen, or at least going to be.
fn is_frozen(plan: &Plan, seen: &Seen) -> bool {
    let number = seen.sighting.group;
    let group = plan.groups.iter().find(|group| group.number == number);
    seen.by_server && group.is_some_and(|group| group.freezes)
}

impl Alarms {
    fn complain(&self, when: &str, complaints: &mut Vec<String>) {
        for (count, what) in [
            (self.suspect, "suspected"),
            (self.dead, "found dead"),
            (self.closed, "told to have said goodbye"),
        ] {
            if count > 0 {
                complaints.push(format!("{when}: a living peer was {what}, {count} times"));
            }
        }
    }

    fn sum(&self) -> u64 {
        self.suspect + self.dead + self.closed
    }
}

impl Freeze {
    fn new(options: &Options, config: &Config, plan: &Plan, observed: &Observed) -> Self {
        let (from, by) = observed.frozen;
        let bound = config.detection_time().as_secs_f64();
        let earliest = bound - config.interval().as_secs_f64() * config.jitter();
        let limit = bound + (options.tolerance + observed.frozen_late).as_secs_f64();

        let mut after_freeze = Vec::new();
        let mut silences = Vec::new();
        let mut verdicts = BTreeMap::<_, u64>::new();
        for seen in &observed.seen {
            let sighting = &seen.sighting;
            if sighting.at < from || !sighting.is_end() || !is_frozen(plan, seen) {
                continue;
            }
            // Until here a member may have shown a sign of life.
            let after = Duration::from_micros(sighting.at.saturating_sub(by));
            after_freeze.push(after.as_secs_f64());
            let verdict = match &sighting.what {
                What::Dead {
                    cause,
                    diagnosis,
                    silent_for,
                } => {
                    silences.push(silent_for.as_secs_f64());
                    format!("{cause}, {diagnosis}")
                }
                What::Closed | What::Suspect => "Closed".into(),
            };
            *verdicts.entry(verdict).or_default() += 1;
        }
        let beyond = silences.iter().map(|silence| (silence - bound).max(0.0));
        Self {
            frozen: plan.frozen(),
            found: after_freeze.len(),
            took: Duration::from_micros(by - from).as_secs_f64(),
            beyond_the_bound: Distribution::of(beyond.collect()),
            earliest,
            early: (silences.iter())
                .filter(|silence| **silence < earliest - TICK)
                .count(),
            late: after_freeze.iter().filter(|after| **after > limit).count(),
            after_the_freeze: Distribution::of(after_freeze),
            after_the_last_data: Distribution::of(silences),
            machine_late: observed.frozen_late.as_secs_f64(),
            verdicts,
        }
    }

    fn complain(&self, complaints: &mut Vec<String>) {
        let found = u64::try_from(self.found).unwrap_or(u64::MAX);
        if found != self.frozen {
            let frozen = self.frozen;
            complaints.push(format!("{frozen} were frozen, and {found} were found"));
        }
        if self.late > 0 {
            complaints.push(format!("{} were found late", self.late));
        }
        if self.early > 0 {
            complaints.push(format!("{} were given up too early", self.early));
        }
        for (verdict, count) in &self.verdicts {
            // A process that is stopped: its kernel goes on acknowledging.
            if !verdict.starts_with("Silent") {
                complaints.push(format!("{count} of the frozen were taken for: {verdict}"));
            }
        }
    }
}

impl Distribution {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        // The nearest rank.
        let rank = |percent: usize| {
            let rank = (values.len() * percent).div_ceil(100).max(1);
            values.get(rank - 1).copied()
        };
        Some(Self {
            min: rank(0)?,
            p50: rank(50)?,
            p99: rank(99)?,
            max: rank(100)?,
        })
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min, p50, p99, max } = self;
        write!(
            f,
            "p50 {p50:.3} s, p99 {p99:.3} s, max {max:.3} s (min {min:.3} s)"
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, value: String| writeln!(f, "{name:<24}{value}");
        let Self { config, freeze, .. } = self;
        line(
            "connections",
            format!(
                "{}, opened in {:.1} s; processes of servers: {}, of peers: {}",
                HumanCount(self.connections),
                self.opened_in,
                self.servers,
                self.peers
            ),
        )?;
        line(
            "timings",
            format!(
                "interval {} s, {} timeouts of {} s, jitter {}; both ends",
                config.interval, config.max_missed, config.timeout, config.jitter
            ),
        )?;
        line(
            "machine",
            format!(
                "{} processors to run on, {} thread(s) of each runtime",
                self.processors, self.workers
            ),
        )?;
        line("measured for", format!("{:.1} s", self.measured_for))?;
        let user = &self.user_memory;
        line(
            "user memory",
            format!(
                "{:.0} bytes an end; {} in all, after opening {}, before {} (Pss)",
                user.an_end,
                HumanBytes(user.after_beats.pss),
                HumanBytes(user.opened.pss),
                HumanBytes(user.before.pss),
            ),
        )?;
        let kernel = &self.kernel_memory;
        line(
            "kernel memory",
            format!(
                "{:.0} bytes a connection; {} in all, after opening {}, before {}; TCP buffers {}",
                kernel.a_connection,
                HumanBytes(kernel.after_beats.total()),
                HumanBytes(kernel.opened.total()),
                HumanBytes(kernel.before.total()),
                HumanBytes(kernel.after_beats.tcp),
            ),
        )?;
        line("beats", format!("{:.0} a second", self.beats_a_second))?;
        line(
            "processor time",
            format!(
                "{:.1} µs a beat, both ends; {:.2} processors; everything on this machine {:.2}",
                self.processor_time_a_beat,
                self.processor_time / self.measured_for,
                self.machine_time / self.measured_for,
            ),
        )?;
        let alarms = self.false_alarms.each();
        let alarms = alarms.map(|(when, alarms)| format!("{when} {}", alarms.sum()));
        line("false alarms", alarms.join(", "))?;
        line(
            "frozen",
            format!(
                "{}, within {:.3} s; {} found",
                HumanCount(freeze.frozen),
                freeze.took,
                HumanCount(u64::try_from(freeze.found).unwrap_or(u64::MAX)),
            ),
        )?;
        let show = |distribution: &Option<Distribution>| {
            distribution.map_or("-".into(), |found| found.to_string())
        };
        line("found after the freeze", show(&freeze.after_the_freeze))?;
        line("  after the last data", show(&freeze.after_the_last_data))?;
        line(
            "  promised",
            format!(
                "{:.3} s at most, {:.3} s at least, after the last data",
                config.detection_time, freeze.earliest
            ),
        )?;
        line("  beyond the bound", show(&freeze.beyond_the_bound))?;
        line(
            "  too early, too late",
            format!("{}, {}", freeze.early, freeze.late),
        )?;
        let verdicts: Vec<_> = (freeze.verdicts.iter())
            .map(|(verdict, count)| format!("{verdict}: {}", HumanCount(*count)))
            .collect();
        line("  verdicts", verdicts.join("; "))?;
        line(
            "this machine was late",
            format!(
                "by {:.1} ms at most, after the freeze {:.1} ms; stalls of our own: {}",
                self.machine_late * 1e3,
                freeze.machine_late * 1e3,
                self.stalls
            ),
        )?;
        for complaint in &self.complaints {
            writeln!(f, "NOT AS EXPECTED: {complaint}")?;
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn real(number: u64) -> f64 {
    number as f64
}
