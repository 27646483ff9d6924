//! Two peers, their faults, and the clock.
//!
//! This module decides what can be asked of a simulation and in which order
//! things happen. A side's own doings are in `peer`, the link's in `network`.

use core::{mem, time::Duration};
use std::vec::Vec;

use super::{
    Link, Report,
    dice::Dice,
    network::{NEVER, Network},
    peer::{Act, Peer, Wish},
    pipe::Pipe,
    report::Fault,
    timeline::{Timeline, What},
};
use crate::{config::Config, time::micros};

/// One of the two peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a connection has two ends")]
pub enum Side {
    /// The one that is stepped first when both have something to do.
    A,
    /// The other one.
    B,
}

impl Side {
    /// The kind of peer.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// Which segments a partition stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "there is no third direction")]
pub enum Direction {
    /// Those that A sends.
    AToB,
    /// Those that B sends.
    BToA,
    /// All.
    Both,
}

impl Direction {
    /// Whether this is where what `sender` sends goes.
    pub(super) const fn concerns(self, sender: Side) -> bool {
        match self {
            Self::AToB => matches!(sender, Side::A),
            Self::BToA => matches!(sender, Side::B),
            Self::Both => true,
        }
    }
}

/// Two [`Monitor`](crate::Monitor)s that judge each other over a [`Link`].
///
/// Describe what is to happen, then [`run_for`](Self::run_for). The same
/// description gives the same run. Times are offsets from the start, and cut
/// to microseconds.
///
/// Each side is driven as the documentation of [`Monitor`](crate::Monitor)
/// asks for: read what is there, compare the clock with the deadline, write,
/// hand out events. A message of more than 64 KiB travels in parts, and control
/// frames go between them. A side that gives the other one up says so, behind what
/// it has begun to write. A side that has given its terminal event closes its
/// socket; the other side then reads the end of the stream.
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `run_for`"]
pub struct Simulation {
    link: Link,
    seed: u64,
    a: Plan,
    b: Plan,
    cuts: Vec<(Direction, u64, u64)>,
    faults: Vec<Fault>,
}

/// What one side is made of.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) config: Config,
    /// In the order of time, once the simulation runs.
    pub(super) acts: Vec<(u64, Act)>,
    pub(super) lateness: u64,
}

impl Plan {
    const fn new(config: Config) -> Self {
        Self {
            config,
            acts: Vec::new(),
            lateness: 0,
        }
    }
}

impl Simulation {
    /// Two sides with the same timings. The seed determines all random choices of the
    /// link and the monitors.
    pub const fn new(config: Config, link: Link, seed: u64) -> Self {
        Self::between(config, config, link, seed)
    }

    /// Two sides with timings of their own.
    pub const fn between(a: Config, b: Config, link: Link, seed: u64) -> Self {
        Self {
            link,
            seed,
            a: Plan::new(a),
            b: Plan::new(b),
            cuts: Vec::new(),
            faults: Vec::new(),
        }
    }

    // ---- what the two of them live through -----------------------------

    /// `side` writes a message of this size at this interval (at most
    /// once a millisecond), unless its last ones are still to be written.
    pub fn messages(self, side: Side, every: Duration, bytes: u32) -> Self {
        let every = micros(every).max(1000);
        let bytes = bytes.max(1);
        self.act(side, Duration::ZERO, Act::Ask(Wish::Write { every, bytes }))
    }

    /// Each timer of `side` fires late, by a random time up to this.
    pub fn lateness(mut self, side: Side, most: Duration) -> Self {
        self.plan(side).lateness = micros(most);
        self
    }

    /// `side` does nothing for a while: its process is starved, or its machine sleeps.
    /// Its kernel keeps acknowledging.
    pub fn stall(self, side: Side, at: Duration, lasting: Duration) -> Self {
        self.act(side, at, Act::Stall(micros(lasting)))
    }

    /// `side` stops reading for a while, because its application is busy, and tells its
    /// monitor. It keeps writing.
    pub fn pause_reading(self, side: Side, at: Duration, lasting: Duration) -> Self {
        self.act(side, at, Act::Ask(Wish::Pause(micros(lasting))))
    }

    /// Nothing gets through in this direction for a while. What was sent
    /// before `at` arrives; what is lost is sent again.
    pub fn partition(mut self, direction: Direction, at: Duration, lasting: Duration) -> Self {
        let from = micros(at);
        let until = from.saturating_add(micros(lasting));
        self.cuts.push((direction, from, until));
        self
    }

    /// The application of `side` probes now.
    pub fn probe(self, side: Side, at: Duration) -> Self {
        self.act(side, at, Act::Ask(Wish::Probe))
    }

    // ---- what ends it --------------------------------------------------

    /// `side` says goodbye.
    pub fn close(self, side: Side, at: Duration) -> Self {
        self.act(side, at, Act::Ask(Wish::Close))
    }

    /// `side` stops forever, while its kernel still acknowledges. A fault: the other side
    /// is right to give it up from here on.
    pub fn hang(self, side: Side, at: Duration) -> Self {
        self.fault(Some(side), at).act(side, at, Act::Hang)
    }

    /// The process of `side` is killed, and its kernel closes the connection.
    /// A fault.
    pub fn kill(self, side: Side, at: Duration) -> Self {
        self.fault(Some(side), at).act(side, at, Act::Kill)
    }

    /// `side` sends pings of its own as often as this, whatever its monitor
    /// says. A fault.
    pub fn flood(self, side: Side, at: Duration, every: Duration) -> Self {
        let every = micros(every).max(1);
        self.fault(Some(side), at)
            .act(side, at, Act::Ask(Wish::Flood { every }))
    }

    /// Nothing gets through in this direction any more. A fault, of both
    /// directions: without acknowledgements TCP soon stops sending.
    pub fn cut(mut self, direction: Direction, at: Duration) -> Self {
        self.cuts.push((direction, micros(at), NEVER));
        self.fault(None, at)
    }

    // ---- running it ----------------------------------------------------

    /// Runs from the start for this long, or until both sides have ended.
    #[must_use]
    pub fn run_for(mut self, duration: Duration) -> Report {
        let end = micros(duration).min(NEVER - 1);
        let mut dice = Dice::new(self.seed);
        let mut network = Network::new(&self.link, dice.roll());
        let mut timeline = Timeline::new();
        for &(direction, from, until) in &self.cuts {
            network.cut(direction, from, until);
            let lasting = (until < NEVER).then(|| Duration::from_micros(until - from));
            timeline.plan(from, What::Cut(direction, lasting));
        }

        let mut sides = [(Side::A, &mut self.a), (Side::B, &mut self.b)].map(|(side, plan)| {
            plan.acts.sort_by_key(|&(at, _)| at);
            let plan = mem::replace(plan, Plan::new(plan.config));
            (
                Peer::new(side, plan, dice.roll(), dice.roll()),
                Pipe::new(self.link.window),
            )
        });
        let now = drive(&mut sides, &mut network, &mut timeline, end);
        let [(a, _), (b, _)] = sides;
        let outcomes = [a.into_outcome(), b.into_outcome()];
        let lasted = if outcomes.iter().all(|outcome| outcome.over) {
            now
        } else {
            end
        };
        Report::new(
            self.link,
            self.seed,
            outcomes,
            self.faults,
            timeline,
            lasted,
        )
    }

    fn plan(&mut self, side: Side) -> &mut Plan {
        match side {
            Side::A => &mut self.a,
            Side::B => &mut self.b,
        }
    }

    fn act(mut self, side: Side, at: Duration, act: Act) -> Self {
        self.plan(side).acts.push((micros(at), act));
        self
    }

    fn fault(mut self, side: Option<Side>, at: Duration) -> Self {
        self.faults.push(Fault {
            at: micros(at),
            side,
        });
        self
    }
}

/// Lets time pass until `end`, or until both sides have ended. Gives the time of
/// the last thing that happened.
fn drive(
    sides: &mut [(Peer, Pipe); 2],
    network: &mut Network,
    timeline: &mut Timeline,
    end: u64,
) -> u64 {
    let [(a, from_a), (b, from_b)] = sides;
    let mut now = 0;
    loop {
        let a_at = a.wakes_at(now, from_a, from_b, network);
        let b_at = b.wakes_at(now, from_b, from_a, network);
        let next = a_at.min(b_at).min(network.next_event());
        if next > end || a.is_over() && b.is_over() {
            return now;
        }
        // A deadline in the past is due now.
        now = next.max(now);
        // A side reads before it looks at the clock.
        network.step(now);
        if a_at <= now {
            a.step(now, from_a, from_b, network, timeline);
            network.step(now);
        }
        if b_at <= now {
            b.step(now, from_b, from_a, network, timeline);
        }
    }
}
