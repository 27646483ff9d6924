//! How mistakes and detection times are counted: in the testkit's virtual time,
//! by real monitors, on all cores.
//!
//! A connection lives until one of its two ends gives the other one up, which
//! is a false alarm, because both live; then the next one is opened. Deaths are
//! counted on other connections: the network goes at a moment of no
//! significance, and nothing of what is sent from there on arrives.

use std::{
    num::NonZeroUsize,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use heartbeat_core::testkit::{Direction, Link, Side, Simulation};
use heartbeat_tokio::Config;

use crate::{candidates::Candidate, statistics::Rate, wishes::Wishes};

/// How much of a simulation is one piece of work.
const INTERVALS_AT_ONCE: u32 = 2_000;
const DEATHS_AT_ONCE: u32 = 100;

const DAY: f64 = 86_400.0;

/// How much to simulate of each candidate.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    pieces_of_life: u32,
    pieces_of_death: u32,
}

impl Amount {
    /// Of each candidate, and of the one that is recommended.
    pub fn of(quick: bool) -> (Self, Self) {
        let amount = |pieces_of_life, pieces_of_death| Self {
            pieces_of_life,
            pieces_of_death,
        };
        match quick {
            false => (amount(40, 5), amount(3_000, 100)),
            true => (amount(1, 1), amount(10, 10)),
        }
    }

    /// The least number of days, if given.
    pub fn lasting(mut self, days: Option<f64>, config: &Config) -> Self {
        if let Some(days) = days {
            let piece = (config.interval() * INTERVALS_AT_ONCE).as_secs_f64();
            // Saturates, and is limited by the days that can be asked for.
            self.pieces_of_life = (days * DAY / piece).ceil() as u32;
        }
        self
    }
}

/// What came of one candidate.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub alarms: Alarms,
    /// From the death to the verdict, in order.
    pub detections: Vec<Duration>,
}

/// What happened on connections whose peers both live.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alarms {
    pub count: u64,
    pub seconds: f64,
    /// Of both ends.
    pub pings: u64,
    pub suspicions: u64,
}

impl Alarms {
    pub fn days(&self) -> f64 {
        self.seconds / DAY
    }

    /// Each connection's.
    pub fn rate(&self) -> Rate {
        Rate::of(self.count, self.days())
    }

    /// Of both ends, a second.
    pub fn beats(&self) -> f64 {
        self.pings as f64 / self.seconds
    }
}

/// A piece of work.
#[derive(Clone, Debug)]
pub struct Task {
    candidate: usize,
    config: Config,
    link: Link,
    seed: u64,
    of_death: bool,
}

impl Task {
    /// The total work.
    pub fn all(candidates: &[Candidate], wishes: &Wishes, amount: Amount, seed: u64) -> Vec<Self> {
        let mut seeds = fastrand::Rng::with_seed(seed);
        let mut tasks = Vec::new();
        for (candidate, Candidate { config, .. }) in candidates.iter().enumerate() {
            for piece in 0..amount.pieces_of_life + amount.pieces_of_death {
                tasks.push(Self {
                    candidate,
                    config: *config,
                    link: wishes.path.link(config),
                    seed: seeds.u64(..),
                    of_death: piece < amount.pieces_of_death,
                });
            }
        }
        tasks
    }

    fn run(&self) -> Outcome {
        match self.of_death {
            false => Outcome {
                alarms: live(self),
                ..Outcome::default()
            },
            true => Outcome {
                detections: die(self),
                ..Outcome::default()
            },
        }
    }
}

/// Does all of it, and says when a piece is done. What comes of it doesn't
/// depend on the number of cores.
pub fn run(tasks: &[Task], candidates: usize, done: impl Fn() + Sync) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let pieces = Mutex::new(vec![Outcome::default(); tasks.len()]);
    let work = || {
        while let Some((index, task)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            tasks.get(index).map(|task| (index, task))
        } {
            let outcome = task.run();
            pieces.lock().unwrap_or_else(PoisonError::into_inner)[index] = outcome;
            done();
        }
    };
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });

    let mut outcomes = vec![Outcome::default(); candidates];
    let pieces = pieces.into_inner().unwrap_or_else(PoisonError::into_inner);
    for (task, piece) in tasks.iter().zip(pieces) {
        let whole = &mut outcomes[task.candidate];
        whole.alarms.count += piece.alarms.count;
        whole.alarms.seconds += piece.alarms.seconds;
        whole.alarms.pings += piece.alarms.pings;
        whole.alarms.suspicions += piece.alarms.suspicions;
        whole.detections.extend(piece.detections);
    }
    for outcome in &mut outcomes {
        outcome.detections.sort();
    }
    outcomes
}

fn live(task: &Task) -> Alarms {
    let mut seeds = fastrand::Rng::with_seed(task.seed);
    let mut left = task.config.interval() * INTERVALS_AT_ONCE;
    let mut alarms = Alarms::default();
    while !left.is_zero() {
        let simulation = Simulation::new(task.config, task.link.clone(), seeds.u64(..));
        let report = simulation.run_for(left);
        // What comes after the first verdict is its consequence.
        let ended = [Side::A, Side::B].into_iter().filter_map(|side| {
            let mut events = report.events(side);
            events
                .find(|(_, event)| event.is_terminal())
                .map(|(at, _)| at)
        });
        let lived = ended.min().unwrap_or(report.lasted());
        alarms.count += u64::from(report.mistake().is_some());
        alarms.seconds += lived.as_secs_f64();
        for side in [Side::A, Side::B] {
            alarms.pings += u64::from(report.pings_sent(side));
            alarms.suspicions += report.suspicions(side) as u64;
        }
        left = left.saturating_sub(lived.max(Duration::from_micros(1)));
    }
    alarms
}

fn die(task: &Task) -> Vec<Duration> {
    let mut dice = fastrand::Rng::with_seed(task.seed);
    let config = &task.config;
    let bound = config.detection_time();
    let mut detections = Vec::new();
    for _ in 0..DEATHS_AT_ONCE {
        // The first interval is shorter than the others.
        let at = bound + (config.interval() * 3).mul_f64(dice.f64());
        let simulation = Simulation::new(*config, task.link.clone(), dice.u64(..));
        // What is under way at that moment still arrives. It ends with the
        // second verdict.
        let report = simulation.cut(Direction::Both, at).run_for(Duration::MAX);
        if report.mistake().is_none() {
            let took = [Side::A, Side::B].map(|side| report.detection_time(side));
            detections.extend(took.into_iter().flatten());
        }
    }
    detections
}
