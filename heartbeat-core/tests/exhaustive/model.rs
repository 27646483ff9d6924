//! Two monitors, two queues between them, and all that may happen to them.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    fmt,
    hash::{Hash, Hasher},
};

use ahash::RandomState;
use heartbeat_core::{Config, ConfigBuilder, Control, End, GoodbyeCode, Instant, Monitor, Nonce};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use stateright::{Checker, Model, Property};

use super::{
    deeper,
    key::Key,
    record::{Expected, Input, Phase, Record, Timings},
    verdicts::{Broken, Seen, Sightings},
};

/// What may happen in a world. Times are in ticks.
#[derive(Clone)]
pub(super) struct Rules {
    /// In microseconds.
    pub(super) tick: u64,
    pub(super) configs: [Config; 2],
    pub(super) timings: [Timings; 2],
    /// The longest that a message is on its way.
    pub(super) delay: u64,
    /// The latest that a timer is served by a driver that isn't asleep.
    pub(super) lateness: u64,
    /// The longest that a frame of each side waits to be written.
    pub(super) write_delay: [u64; 2],
    /// The longest from there until the monitor is told.
    pub(super) flush_delay: u64,
    /// How many faults there may be in one run.
    pub(super) faults: u8,
    /// How many stalls there may be in one run, and how long each.
    pub(super) stalls: u8,
    pub(super) longest_stall: u64,
    /// How many probes.
    pub(super) probes: u8,
    /// How many pauses, and how long each.
    pub(super) pauses: u8,
    pub(super) longest_pause: u64,
    /// How often each Hello arrives. More than once: at any time, in any
    /// order with the other frames.
    pub(super) greetings: u8,
    /// More is always coming than was read.
    pub(super) backlog: bool,
    /// The most ticks by which the second side begins after the first.
    pub(super) phases: u64,
    /// The only fault is that one direction fails, whichever.
    pub(super) cuts: bool,
    /// There are no faults, but either side leaves or finishes.
    pub(super) partings: bool,
    /// Delays are short enough that no side may die.
    pub(super) calm: bool,
    pub(super) sightings: Sightings,
}

#[derive(Clone)]
pub(super) struct World {
    pub(super) now: u64,
    pub(super) sides: [Side; 2],
    pub(super) faults: u8,
    pub(super) stalls: u8,
    pub(super) probes: u8,
    pub(super) pauses: u8,
    pub(super) broken: Option<Broken>,
    /// All of the above, as far as the future depends on it, in a number. The checker
    /// tells states apart by such a number too.
    pub(super) key: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Side {
    pub(super) monitor: Monitor,
    /// Handed out by the monitor, not yet written.
    pub(super) outbox: Vec<Message>,
    /// On their way to this side.
    pub(super) inbox: VecDeque<Message>,
    /// Greetings that come when they like.
    pub(super) greetings: Vec<Control>,
    /// Something was written, and the monitor wasn't told.
    pub(super) unreported: Option<u64>,
    pub(super) asleep_since: Option<u64>,
    /// Hangs forever, silently.
    pub(super) hung: bool,
    /// Can't write any more.
    pub(super) jammed: bool,
    /// Nothing arrives any more.
    pub(super) deaf: bool,
    pub(super) record: Record,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Message {
    pub(super) frame: Frame,
    pub(super) since: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Frame {
    /// With the ping's number, by which its nonce is told.
    Ping(Nonce, u32),
    Pong(Nonce, u32),
    Other(Control),
    /// The connection was closed.
    Eof,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Tick,
    Arrive(usize),
    Greet(usize),
    Timeout(usize),
    Write(usize),
    /// What was written is reported.
    Flush(usize),
    FallAsleep(usize),
    WakeUp(usize),
    Probe(usize),
    Pause(usize),
    Resume(usize),
    Fault(usize, Fault),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Hang,
    /// What is sent to this side is lost from now on.
    Deafen,
    /// This side can't write from now on.
    Jam,
    /// No fault: it says goodbye.
    Close,
    /// No fault: it sends no more messages.
    Finish,
}

/// The property of every state.
const KEPT: &str = "every promise is kept";

/// How many states a search visits that isn't to find every one.
const NEAREST: usize = 80_000;

impl Rules {
    /// Nothing but time passes. The tick is in microseconds.
    pub(super) fn new(tick: u64, config: ConfigBuilder) -> Self {
        Self::between(tick, [config.clone(), config])
    }

    pub(super) fn between(tick: u64, configs: [ConfigBuilder; 2]) -> Self {
        let configs = configs.map(|config| config.build().unwrap());
        Self {
            tick,
            configs,
            timings: configs.map(|config| Timings::new(&config, tick)),
            delay: 0,
            lateness: 0,
            write_delay: [0, 0],
            flush_delay: 0,
            faults: 0,
            stalls: 0,
            longest_stall: 0,
            probes: 0,
            pauses: 0,
            longest_pause: 0,
            greetings: 1,
            backlog: false,
            phases: 0,
            cuts: false,
            partings: false,
            calm: false,
            sightings: Sightings::default(),
        }
    }

    pub(super) fn check(self, name: &str, expected: &[Seen]) {
        let began = std::time::Instant::now();
        let mut checker = self.checker().threads(2);
        if std::env::var_os("HEARTBEAT_FULL").is_none() && !deeper(false, true) {
            checker = checker.target_state_count(NEAREST);
        }
        let checker = checker.spawn_bfs().join();
        println!(
            "{name:>18}: {:>9} states, depth {:>3}, {:.1?}",
            checker.unique_state_count(),
            checker.max_depth(),
            began.elapsed()
        );
        checker.assert_no_discovery(KEPT);
        let sightings = &checker.model().sightings;
        for &seen in expected {
            assert!(sightings.include(seen), "{name}: never {seen:?}");
        }
    }

    /// Walks at random, and compares what follows the states that are met
    /// again. Says how many were.
    pub(super) fn compare_what_follows(&self, walks: u64) -> usize {
        let mut known = HashMap::new();
        let mut met_again = 0;
        for seed in 0..walks {
            let mut dice = SmallRng::seed_from_u64(seed);
            let mut world = self.init_states().swap_remove(0);
            for _ in 0..300 {
                let mut actions = Vec::new();
                self.actions(&world, &mut actions);
                let worlds = actions
                    .iter()
                    .map(|&action| self.next_state(&world, action));
                let mut worlds: Vec<_> = worlds.flatten().collect();
                let follows: Vec<_> = worlds.iter().map(|world| world.key).collect();
                match known.entry(world.key) {
                    Entry::Vacant(entry) => {
                        entry.insert((actions, follows));
                    }
                    Entry::Occupied(entry) => {
                        assert_eq!(*entry.get(), (actions, follows), "{world:?}");
                        met_again += 1;
                    }
                }
                if worlds.is_empty() {
                    break;
                }
                let next = dice.random_range(0..worlds.len());
                world = worlds.swap_remove(next);
            }
        }
        met_again
    }

    pub(super) const fn instant(&self, ticks: u64) -> Instant {
        Instant::from_micros(ticks * self.tick)
    }

    /// The tick at which a deadline has come.
    pub(super) const fn tick_of(&self, deadline: Instant) -> u64 {
        deadline.as_micros().div_ceil(self.tick)
    }
}

impl Model for Rules {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        (0..=self.phases).map(|phase| self.begin(phase)).collect()
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let mut sides = world.sides.iter();
        if world.broken.is_some() || !sides.any(Side::is_up) {
            return;
        }
        if (0..2).all(|who| world.may_wait(self, who)) {
            actions.push(Action::Tick);
        }
        for (who, side) in world.sides.iter().enumerate() {
            if side.is_up() {
                self.actions_of(world, who, side, actions);
            }
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Tick => world.tick(self),
            Action::Arrive(who) => world.arrive(self, who),
            Action::Greet(who) => {
                if let Some(hello) = world.sides[who].greetings.pop() {
                    world.hear(self, who, Input::Hello, hello);
                }
            }
            Action::Timeout(who) => world.input(self, who, Input::Timeout),
            Action::Write(who) => world.write(self, who),
            Action::Flush(who) => world.flush(self, who),
            Action::FallAsleep(who) => {
                world.stalls -= 1;
                world.sides[who].asleep_since = Some(world.now);
            }
            Action::WakeUp(who) => world.sides[who].asleep_since = None,
            Action::Probe(who) => {
                world.probes -= 1;
                world.input(self, who, Input::Probe);
            }
            Action::Pause(who) => {
                world.pauses -= 1;
                world.input(self, who, Input::Paused);
            }
            Action::Resume(who) => world.input(self, who, Input::Resumed),
            Action::Fault(who, fault) => world.fault(self, who, fault),
        }
        world.key = hashed(&Key::new(&world, self));
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        // One, as the checker looks each of them up in each state.
        vec![Property::always(KEPT, |_, world: &World| {
            world.broken.is_none()
        })]
    }
}

impl Rules {
    /// The first side has begun `phase` ticks ago.
    fn begin(&self, phase: u64) -> World {
        let side = |index: usize| {
            let began = if index == 0 { 0 } else { phase };
            let began_at = self.instant(began);
            Side {
                monitor: Monitor::new(self.configs[index], index as u64, began_at),
                outbox: Vec::new(),
                inbox: VecDeque::new(),
                greetings: Vec::new(),
                unreported: None,
                asleep_since: None,
                hung: false,
                jammed: false,
                deaf: false,
                record: Record::new(began),
            }
        };
        let mut world = World {
            now: phase,
            sides: [side(0), side(1)],
            faults: self.faults,
            stalls: self.stalls,
            probes: self.probes,
            pauses: self.pauses,
            broken: None,
            key: 0,
        };
        for who in 0..2 {
            let taken = world.take_frames(self, who, &Expected::default());
            world.broken = world.broken.or(taken.err());
            world.settle(self, who);
        }
        world.key = hashed(&Key::new(&world, self));
        world
    }

    fn actions_of(&self, world: &World, who: usize, side: &Side, actions: &mut Vec<Action>) {
        if side.asleep_since.is_some() {
            return actions.push(Action::WakeUp(who));
        }
        let is_paused = side.record.is_paused();
        if !side.inbox.is_empty() && !is_paused {
            actions.push(Action::Arrive(who));
        }
        if !side.greetings.is_empty() && !is_paused {
            actions.push(Action::Greet(who));
        }
        if world.is_due(self, who) {
            actions.push(Action::Timeout(who));
        }
        if !side.outbox.is_empty() && !side.jammed {
            actions.push(Action::Write(who));
        }
        if side.unreported.is_some() && side.outbox.is_empty() {
            actions.push(Action::Flush(who));
        }
        // If only one side stalls or has a fault, it is the first: the sides
        // are alike, or the first is the one that has it harder.
        let may = |left, in_all| left > 0 && (who == 0 || in_all > 1);
        if may(world.stalls, self.stalls) {
            actions.push(Action::FallAsleep(who));
        }
        if may(world.probes, self.probes) {
            actions.push(Action::Probe(who));
        }
        if is_paused {
            actions.push(Action::Resume(who));
        } else if may(world.pauses, self.pauses) {
            actions.push(Action::Pause(who));
        }
        if self.cuts {
            if world.faults > 0 {
                actions.push(Action::Fault(who, Fault::Deafen));
            }
        } else if self.partings {
            if world.faults > 0 {
                let partings = [Fault::Close, Fault::Finish];
                actions.extend(partings.map(|fault| Action::Fault(who, fault)));
            }
        } else if may(world.faults, self.faults) {
            let faults = [Fault::Hang, Fault::Deafen, Fault::Jam, Fault::Close];
            actions.extend(faults.map(|fault| Action::Fault(who, fault)));
        }
    }
}

impl Side {
    pub(super) fn is_up(&self) -> bool {
        !self.hung && !self.record.has_ended()
    }

    fn is_reachable(&self) -> bool {
        self.is_up() && !self.deaf
    }
}

impl World {
    pub(super) fn deadline(&self, rules: &Rules, who: usize) -> Option<u64> {
        let deadline = self.sides[who].monitor.poll_timeout();
        deadline.map(|deadline| rules.tick_of(deadline))
    }

    fn is_due(&self, rules: &Rules, who: usize) -> bool {
        self.deadline(rules, who)
            .is_some_and(|deadline| deadline <= self.now)
    }

    /// Whether nothing that concerns this side has to happen before the next
    /// tick.
    fn may_wait(&self, rules: &Rules, who: usize) -> bool {
        let side = &self.sides[who];
        if !side.is_up() {
            return true;
        }
        if let Some(since) = side.asleep_since {
            return self.now - since < rules.longest_stall;
        }
        let paused_too_long = match side.record.phase {
            Phase::Paused { since, .. } => self.now - since >= rules.longest_pause,
            _ => false,
        };
        let has_arrived = |message: &Message| self.now - message.since >= rules.delay;
        let is_overdue = self
            .deadline(rules, who)
            .is_some_and(|deadline| deadline + rules.lateness <= self.now);
        let is_written = |message: &Message| self.now - message.since >= rules.write_delay[who];
        let is_told = |since| self.now - since >= rules.flush_delay;
        !paused_too_long
            && (side.record.is_paused() || !side.inbox.front().is_some_and(has_arrived))
            && !is_overdue
            && (side.jammed || !side.outbox.first().is_some_and(is_written))
            && !(side.outbox.is_empty() && side.unreported.is_some_and(is_told))
    }

    fn tick(&mut self, rules: &Rules) {
        self.now += 1;
        for who in 0..2 {
            let side = &self.sides[who];
            if side.is_up() && side.asleep_since.is_none() {
                let overdue = self.judge_silence(rules, who);
                self.broken = self.broken.or(overdue.err());
            }
        }
    }

    fn arrive(&mut self, rules: &Rules, who: usize) {
        match self.sides[who]
            .inbox
            .pop_front()
            .map(|message| message.frame)
        {
            Some(Frame::Eof) => self.input(rules, who, Input::Eof),
            Some(Frame::Ping(nonce, count)) => {
                self.hear(rules, who, Input::Ping(nonce, count), Control::Ping(nonce));
            }
            Some(Frame::Pong(nonce, count)) => {
                self.hear(rules, who, Input::Pong(count), Control::Pong(nonce));
            }
            Some(Frame::Other(hello @ Control::Hello(_))) => {
                self.hear(rules, who, Input::Hello, hello);
            }
            Some(Frame::Other(control @ Control::Goodbye(code))) => {
                self.hear(rules, who, Input::Goodbye(code), control);
            }
            Some(Frame::Other(Control::Fin)) => self.hear(rules, who, Input::Fin, Control::Fin),
            Some(Frame::Other(control)) => self.hear(rules, who, Input::Alive, control),
            None => {}
        }
    }

    fn hear(&mut self, rules: &Rules, who: usize, input: Input, control: Control) {
        let now = rules.instant(self.now);
        self.told(rules, who, input, |monitor| {
            monitor.handle_frame(control, now);
        });
        if rules.backlog && self.sides[who].is_up() {
            self.input(rules, who, Input::Backlog);
        }
    }

    /// Any input but a frame.
    pub(super) fn input(&mut self, rules: &Rules, who: usize, input: Input) {
        let now = rules.instant(self.now);
        self.told(rules, who, input, |monitor| match input {
            Input::Backlog => monitor.handle_backlog(now),
            Input::Eof => monitor.handle_end(End::Eof, now),
            Input::Timeout => monitor.handle_timeout(now),
            Input::Flushed => monitor.handle_flushed(now),
            Input::Blocked => monitor.handle_blocked(now),
            Input::Paused => monitor.handle_paused(now),
            Input::Resumed => monitor.handle_resumed(now),
            Input::Probe => monitor.probe(now),
            Input::Finish => monitor.finish(now),
            Input::Close => monitor.close(GoodbyeCode::LEAVING, now),
            Input::Hello | Input::Ping(..) | Input::Pong(_) => {}
            Input::Alive | Input::Fin | Input::Goodbye(_) => {}
        });
    }

    /// Tells the monitor something, and judges what comes of it.
    fn told(&mut self, rules: &Rules, who: usize, input: Input, tell: impl FnOnce(&mut Monitor)) {
        let deadline = self.deadline(rules, who);
        let timings = [&rules.timings[who], &rules.timings[1 - who]];
        let side = &mut self.sides[who];
        let before = side.record;
        let expected = side.record.follow(input, timings, deadline, self.now);
        tell(&mut side.monitor);
        let verdict = self.judge(rules, who, input, &before, &expected);
        self.broken = self.broken.or(verdict.err());
        if self.sides[who].record.has_ended() {
            self.leave(who, expected.tells_the_end());
        } else {
            self.settle(rules, who);
        }
    }

    /// What a driver does after each input: it writes what needn't wait.
    fn settle(&mut self, rules: &Rules, who: usize) {
        let side = &self.sides[who];
        if side.outbox.is_empty() {
            return;
        }
        let limited = rules.timings[who].write_stall.is_some();
        if side.jammed && limited && !side.record.is_blocked() {
            self.input(rules, who, Input::Blocked);
        } else if rules.write_delay[who] == 0 && !side.jammed {
            self.write(rules, who);
        }
    }

    fn write(&mut self, rules: &Rules, who: usize) {
        let (side, peer) = both(&mut self.sides, who);
        for Message { frame, .. } in side.outbox.drain(..) {
            match frame {
                _ if !peer.is_reachable() => {}
                Frame::Other(hello @ Control::Hello(_)) if rules.greetings > 1 => {
                    peer.greetings = vec![hello; rules.greetings.into()];
                }
                _ => peer.inbox.push_back(Message {
                    frame,
                    since: self.now,
                }),
            }
        }
        side.unreported.get_or_insert(self.now);
        if rules.flush_delay == 0 {
            self.flush(rules, who);
        }
    }

    fn flush(&mut self, rules: &Rules, who: usize) {
        self.sides[who].unreported = None;
        self.input(rules, who, Input::Flushed);
    }

    fn fault(&mut self, rules: &Rules, who: usize, fault: Fault) {
        self.faults -= 1;
        let side = &mut self.sides[who];
        match fault {
            Fault::Hang => {
                side.hung = true;
                side.inbox.clear();
                side.outbox.clear();
                side.greetings.clear();
            }
            Fault::Deafen => {
                side.deaf = true;
                side.inbox.clear();
                side.greetings.clear();
            }
            Fault::Jam => {
                side.jammed = true;
                self.settle(rules, who);
            }
            Fault::Close => self.input(rules, who, Input::Close),
            Fault::Finish => self.input(rules, who, Input::Finish),
        }
    }

    /// The driver of a monitor that came to an end drops the connection. What tells
    /// the peer of it is written without waiting, ahead of what waits.
    fn leave(&mut self, who: usize, tells: bool) {
        let (side, peer) = both(&mut self.sides, who);
        let last = side.outbox.pop();
        side.outbox.clear();
        if peer.is_reachable() && !side.jammed {
            peer.inbox.extend(last.filter(|_| tells));
        }
        side.inbox.clear();
        side.greetings.clear();
        side.unreported = None;
        if peer.is_reachable() {
            peer.inbox.push_back(Message {
                frame: Frame::Eof,
                since: self.now,
            });
        }
    }
}

/// With ahash, as in the checker.
fn hashed(key: &Key) -> u64 {
    RandomState::with_seeds(1, 2, 3, 4).hash_one(key)
}

fn both(sides: &mut [Side; 2], who: usize) -> (&mut Side, &mut Side) {
    let [a, b] = sides;
    if who == 0 { (a, b) } else { (b, a) }
}

impl fmt::Debug for World {
    /// What a counterexample ends with.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let promise = self.broken.map(Broken::promise);
        writeln!(f, "broken: {promise:?}, at tick {}", self.now)?;
        for side in &self.sides {
            writeln!(f, "  should be {:?}", side.record)?;
            writeln!(f, "  is {:?}", side.monitor)?;
        }
        Ok(())
    }
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}
