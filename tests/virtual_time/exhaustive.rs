//! Every state that two monitors can get into.
//!
//! Other tests pick their schedules by hand or by dice. This one lets a model
//! checker ([stateright](https://docs.rs/stateright)) try all of them: two
//! real `Monitor`s talk over two queues, the clock advances tick by tick (one
//! tick is a microsecond), and at every tick each message may arrive or be
//! held back, each timer may be served or be late, each write may leave or
//! wait, a side may fall asleep and wake up, hang, jam, be cut off, or say
//! goodbye. What the monitors say is compared with what really happened, of
//! which the model keeps its own record.
//!
//! # There is no horizon
//!
//! The search has no depth limit: it ends when there is no new state. That
//! works because two states count as one if they differ only in
//!
//! - *what time it is*: every instant is replaced by its age. The core
//!   compares and subtracts instants and does nothing else with them. An age
//!   beyond [`LONG_AGO`] ticks counts as that: it is more than twice the
//!   longest time that any rule adds to an instant, so no rule can tell.
//! - *how many pings there were*: a nonce is replaced by how many pings ago
//!   it was handed out, and likewise the monitor's indices. Nonces are only
//!   compared for equality, and without jitter (J = 0 everywhere here)
//!   nothing else depends on the count.
//! - fields that are written before they are read again, because the outputs
//!   are drained after each input: what the next event would say, and the
//!   nonce of a pong that was sent. The measured round trip counts as one of
//!   them where `adaptive` is off.
//! - how much credit the flood limiter gives after a stall: it can be told
//!   only by a peer that floods, and these don't.
//!
//! The fields are taken from the monitor's `Debug` output, all that there
//! are. One that is added later tells states apart until somebody says here
//! that it needn't: a forgotten field costs time and no rigour. And no state
//! is made up: were this projection to merge too much, the search would see
//! less, but it would never blame a monitor that is right.
//!
//! # Figures
//!
//! All interleavings of the scenarios below; "depth" is the longest of the
//! shortest ways to a state, in actions.
//!
//! ```text
//! HEARTBEAT_FULL=1 cargo test -p heartbeat-tests --test virtual_time exhaustive:: -- --nocapture --test-threads 1
//!
//!          one fault:    204560 states, depth  69
//! stall, slow writes:    228134 states, depth  95
//!          greetings:    217875 states, depth  80
//!               late:    142373 states, depth  71
//!             delays:    319894 states, depth  76
//!             stalls:     81648 states, depth  81
//!           adaptive:     84143 states, depth  92
//!         two faults:    377360 states, depth  67
//!               calm:     26752 states, depth  61
//! ```
//!
//! The states are always as many; the depth varies a little, as two threads
//! share the work. That is with `HEARTBEAT_FULL`, as in `.ci/run`; without, a
//! search ends after [`NEAREST`] steps, the shortest ways first. With `HEARTBEAT_EXHAUSTIVE=1` (and `--release`) delays are
//! longer, and there are more stalls and more faults in one run.

use std::{
    collections::VecDeque,
    fmt::Write,
    hash::{Hash, Hasher},
    time::Duration,
};

use heartbeat_core::{
    Cause, CloseReason, Config, ConfigBuilder, Control, Death, End, Event, Instant, Monitor, Nonce,
};
use heartbeat_tests::few_or_all;
use stateright::{Checker, Model, Property};

// ---- scenarios -----------------------------------------------------------

/// I = 3, W = 2, N = 2, J = 0: dead after 7 ticks.
fn timings() -> ConfigBuilder {
    Config::builder()
        .interval(ticks(3))
        .timeout(ticks(2))
        .max_missed(2)
        .jitter(0.0)
        .adaptive(false)
}

#[test]
fn without_faults_nobody_dies() {
    let world = Rules {
        delay: 1,
        lateness: 1,
        calm: true,
        ..Rules::new(timings())
    };
    world.check("calm", &[]);
}

#[test]
fn a_fault_is_found_in_time_and_nothing_else_is() {
    let world = Rules {
        delay: 1,
        lateness: 1,
        faults: deeper(1, 2),
        ..Rules::new(timings())
    };
    world.check("one fault", &[Seen::Dead, Seen::ClosedByPeer]);
}

#[test]
fn two_faults_are_no_worse_than_one() {
    let world = Rules {
        delay: 1,
        faults: 2,
        ..Rules::new(timings())
    };
    world.check("two faults", &[Seen::Dead, Seen::ClosedByPeer]);
}

#[test]
fn late_timers_and_writes_that_wait_cost_no_more_than_they_are() {
    let world = Rules {
        delay: 1,
        lateness: 1,
        write_delay: [1, deeper(0, 1)],
        faults: deeper(0, 1),
        ..Rules::new(timings())
    };
    world.check("late", &[]);
}

#[test]
fn long_delays_kill_only_who_was_silent_for_long_enough() {
    let world = Rules {
        delay: deeper(3, 4),
        ..Rules::new(timings())
    };
    world.check("delays", &[Seen::Dead, Seen::Recovered]);
}

#[test]
fn stalls_of_our_own_are_not_the_peers_fault() {
    let world = Rules {
        delay: 1,
        stalls: deeper(1, 2),
        longest_stall: deeper(8, 12),
        ..Rules::new(timings())
    };
    world.check("stalls", &[Seen::LocalStall]);
}

#[test]
fn a_ping_that_follows_a_stall_has_its_whole_timeout_once_it_was_written() {
    let world = Rules {
        delay: deeper(0, 1),
        write_delay: [deeper(1, 2), 0],
        stalls: 1,
        longest_stall: deeper(4, 6),
        faults: 1,
        ..Rules::new(timings())
    };
    world.check("stall, slow writes", &[Seen::LocalStall, Seen::Dead]);
}

#[test]
fn suspicion_that_follows_round_trips_is_taken_back() {
    let world = Rules {
        delay: 1,
        faults: deeper(0, 1),
        ..Rules::new(timings().adaptive(true).adaptive_floor(ticks(1)))
    };
    world.check("adaptive", &[Seen::Recovered]);
}

#[test]
fn greetings_that_come_late_or_twice_settle_on_the_slower_interval() {
    let fast = timings().interval(ticks(1)).min_interval(ticks(1));
    let slow = timings().interval(ticks(3)).min_interval(ticks(2));
    let world = Rules {
        delay: 1,
        calm: true,
        greetings: deeper(2, 3),
        configs: [build(fast), build(slow)],
        ..Rules::new(timings())
    };
    world.check("greetings", &[]);
}

/// The first without, the second with `HEARTBEAT_EXHAUSTIVE=1`.
fn deeper<T>(usual: T, deep: T) -> T {
    match std::env::var_os("HEARTBEAT_EXHAUSTIVE") {
        Some(_) => deep,
        None => usual,
    }
}

/// How many steps a search makes that isn't to find every state.
const NEAREST: usize = 80_000;

fn ticks(count: u64) -> Duration {
    Duration::from_micros(count)
}

fn build(config: ConfigBuilder) -> Config {
    config.build().unwrap()
}

// ---- the model -----------------------------------------------------------

/// What may happen in a world.
#[derive(Clone)]
struct Rules {
    configs: [Config; 2],
    /// The longest that a message is on its way.
    delay: u64,
    /// The latest that a timer is served by a driver that isn't asleep.
    lateness: u64,
    /// The longest that a frame of each side waits to be written.
    write_delay: [u64; 2],
    /// How many faults there may be in one run.
    faults: u8,
    /// How many stalls there may be in one run, and how long each.
    stalls: u8,
    longest_stall: u64,
    /// How often each Hello arrives. More than once: at any time, in any
    /// order with the other frames.
    greetings: u8,
    /// Delays are so short that nobody may die.
    calm: bool,
}

/// Beyond this, an instant is long ago. Detection takes 7 ticks at most, and
/// a flood limiter refills within 11.
const LONG_AGO: i64 = 24;

#[derive(Clone, Debug)]
struct World {
    now: u64,
    sides: [Side; 2],
    faults: u8,
    stalls: u8,
    broken: Option<Broken>,
    seen: Option<Seen>,
    /// All of the above, as far as the future depends on it.
    key: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Side {
    monitor: Monitor,
    /// Handed out by the monitor, not yet written.
    outbox: Vec<Message>,
    /// On their way to this side.
    inbox: VecDeque<Message>,
    /// Greetings that come when they like.
    greetings: Vec<Control>,
    asleep_since: Option<u64>,
    /// Will never do anything again, and nobody is told.
    hung: bool,
    /// Can't write any more.
    jammed: bool,
    /// Nothing arrives any more.
    deaf: bool,
    record: Record,
}

/// What really happened to one side.
#[derive(Clone, Copy, Debug)]
struct Record {
    heard_at: u64,
    /// Since then: pings handed out, stalls that were told.
    asked: u32,
    stalls: u32,
    /// The last stall that was forgiven, and when the ping that follows it
    /// was written.
    excused_at: Option<u64>,
    fresh: Fresh,
    /// The ping that may be answered once.
    owed: Option<(Nonce, u32)>,
    pings: u32,
    met: bool,
    suspected: bool,
    closing_since: Option<u64>,
    ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fresh {
    No,
    Wanted,
    WrittenAt(u64),
}

#[derive(Clone, Copy, Debug)]
struct Message {
    frame: Frame,
    since: u64,
}

#[derive(Clone, Copy, Debug)]
enum Frame {
    /// With the ping's number, by which its nonce is told.
    Ping(Nonce, u32),
    Pong(Nonce, u32),
    Other(Control),
    /// The connection was closed.
    Eof,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Tick,
    Arrive(usize),
    Greet(usize),
    Timeout(usize),
    Write(usize),
    FallAsleep(usize),
    WakeUp(usize),
    Fault(usize, Fault),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Hang,
    /// What is sent to this side is lost from now on.
    Deafen,
    /// This side can't write from now on.
    Jam,
    /// No fault: it says goodbye.
    Close,
}

/// A promise that wasn't kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Broken {
    FalseDead,
    MissedDead,
    EchoStorm,
    Rate,
    Terminal,
    Goodbye,
    Suspicion,
    Stall,
    Negotiation,
    Zeno,
}

/// What must have happened somewhere, lest a scenario prove nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Seen {
    Dead,
    ClosedByPeer,
    Recovered,
    LocalStall,
}

impl Rules {
    fn new(config: ConfigBuilder) -> Self {
        let config = build(config);
        Self {
            configs: [config, config],
            delay: 0,
            lateness: 0,
            write_delay: [0, 0],
            faults: 0,
            stalls: 0,
            longest_stall: 0,
            greetings: 1,
            calm: false,
        }
    }

    fn check(self, name: &str, expected: &[Seen]) {
        let began = std::time::Instant::now();
        let mut checker = self.checker().threads(2);
        if !few_or_all(false, true) {
            checker = checker.target_state_count(NEAREST);
        }
        let checker = checker.spawn_bfs().join();
        println!(
            "{name:>18}: {:>9} states, depth {:>3}, {:.1?}",
            checker.unique_state_count(),
            checker.max_depth(),
            began.elapsed()
        );
        for property in checker.model().properties() {
            match property.expectation {
                stateright::Expectation::Sometimes => {}
                _ => checker.assert_no_discovery(property.name),
            }
        }
        for seen in expected {
            assert!(
                checker.discovery(seen.name()).is_some(),
                "{name}: never {seen:?}"
            );
        }
    }
}

impl Seen {
    const fn name(self) -> &'static str {
        match self {
            Self::Dead => "a peer is found dead",
            Self::ClosedByPeer => "a goodbye arrives",
            Self::Recovered => "a suspicion is taken back",
            Self::LocalStall => "a stall of our own is noticed",
        }
    }
}

impl Model for Rules {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let side = |index: usize| Side {
            monitor: Monitor::new(self.configs[index], index as u64, Instant::ORIGIN),
            outbox: Vec::new(),
            inbox: VecDeque::new(),
            greetings: Vec::new(),
            asleep_since: None,
            hung: false,
            jammed: false,
            deaf: false,
            record: Record {
                heard_at: 0,
                asked: 0,
                stalls: 0,
                excused_at: None,
                fresh: Fresh::No,
                owed: None,
                pings: 0,
                met: false,
                suspected: false,
                closing_since: None,
                ended: false,
            },
        };
        let mut world = World {
            now: 0,
            sides: [side(0), side(1)],
            faults: self.faults,
            stalls: self.stalls,
            broken: None,
            seen: None,
            key: Vec::new(),
        };
        world.drain(self, 0, Input::Other);
        world.drain(self, 1, Input::Other);
        world.make_key(self);
        vec![world]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let alive = |side: &Side| !side.hung && !side.record.ended;
        if world.broken.is_some() || !world.sides.iter().any(alive) {
            return;
        }
        if world
            .sides
            .iter()
            .enumerate()
            .all(|(who, side)| world.may_wait(self, who, side))
        {
            actions.push(Action::Tick);
        }
        for (who, side) in world.sides.iter().enumerate() {
            if !alive(side) {
                continue;
            }
            if side.asleep_since.is_some() {
                actions.push(Action::WakeUp(who));
                continue;
            }
            if !side.inbox.is_empty() {
                actions.push(Action::Arrive(who));
            }
            if !side.greetings.is_empty() {
                actions.push(Action::Greet(who));
            }
            if world.is_due(side) {
                actions.push(Action::Timeout(who));
            }
            if !side.outbox.is_empty() && !side.jammed {
                actions.push(Action::Write(who));
            }
            // If only one side stalls or has a fault, it is the first: the
            // sides are alike, or the first is the one that has it harder.
            if world.stalls > 0 && (who == 0 || self.stalls > 1) {
                actions.push(Action::FallAsleep(who));
            }
            if world.faults > 0 && (who == 0 || self.faults > 1) {
                let faults = [Fault::Hang, Fault::Deafen, Fault::Jam, Fault::Close];
                actions.extend(faults.map(|fault| Action::Fault(who, fault)));
            }
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        world.seen = None;
        match action {
            Action::Tick => world.tick(self),
            Action::Arrive(who) => world.arrive(self, who),
            Action::Greet(who) => world.greet(self, who),
            Action::Timeout(who) => world.timeout(self, who),
            Action::Write(who) => world.write(self, who),
            Action::FallAsleep(who) => {
                world.stalls -= 1;
                world.sides[who].asleep_since = Some(world.now);
            }
            Action::WakeUp(who) => world.sides[who].asleep_since = None,
            Action::Fault(who, fault) => world.fault(self, who, fault),
        }
        world.make_key(self);
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "never dead while it is heard often enough",
                |_, world: &World| world.broken != Some(Broken::FalseDead),
            ),
            Property::always("dead in time once it is silent", |_, world: &World| {
                world.broken != Some(Broken::MissedDead)
            }),
            Property::always("one pong for one ping, the latest", |_, world: &World| {
                world.broken != Some(Broken::EchoStorm)
            }),
            Property::always("as many pings as beats, no more", |_, world: &World| {
                world.broken != Some(Broken::Rate)
            }),
            Property::always("one terminal event, then silence", |_, world: &World| {
                world.broken != Some(Broken::Terminal)
            }),
            Property::always("a goodbye is no death, and ends", |_, world: &World| {
                world.broken != Some(Broken::Goodbye)
            }),
            Property::always("evidence takes a suspicion back", |_, world: &World| {
                world.broken != Some(Broken::Suspicion)
            }),
            Property::always("after a stall a whole beat", |_, world: &World| {
                world.broken != Some(Broken::Stall)
            }),
            Property::always("the slower interval wins", |_, world: &World| {
                world.broken != Some(Broken::Negotiation)
            }),
            Property::always("the next deadline is later", |_, world: &World| {
                world.broken != Some(Broken::Zeno)
            }),
            Property::sometimes(Seen::Dead.name(), |_, world: &World| {
                world.seen == Some(Seen::Dead)
            }),
            Property::sometimes(Seen::ClosedByPeer.name(), |_, world: &World| {
                world.seen == Some(Seen::ClosedByPeer)
            }),
            Property::sometimes(Seen::Recovered.name(), |_, world: &World| {
                world.seen == Some(Seen::Recovered)
            }),
            Property::sometimes(Seen::LocalStall.name(), |_, world: &World| {
                world.seen == Some(Seen::LocalStall)
            }),
        ]
    }
}

// ---- what happens --------------------------------------------------------

impl World {
    fn instant(&self) -> Instant {
        Instant::from_micros(self.now)
    }

    fn is_due(&self, side: &Side) -> bool {
        side.monitor
            .poll_timeout()
            .is_some_and(|deadline| deadline <= self.instant())
    }

    /// Whether nothing that concerns this side has to happen before the next
    /// tick.
    fn may_wait(&self, rules: &Rules, who: usize, side: &Side) -> bool {
        if side.hung || side.record.ended {
            return true;
        }
        if let Some(since) = side.asleep_since {
            return self.now - since < rules.longest_stall;
        }
        let arrived = |message: &Message| self.now - message.since >= rules.delay;
        let overdue = side
            .monitor
            .poll_timeout()
            .is_some_and(|deadline| deadline.as_micros() + rules.lateness <= self.now);
        let written = |message: &Message| self.now - message.since >= rules.write_delay[who];
        !side.inbox.front().is_some_and(arrived)
            && !overdue
            && (side.jammed || !side.outbox.first().is_some_and(written))
    }

    fn tick(&mut self, rules: &Rules) {
        self.now += 1;
        for who in 0..2 {
            let side = &self.sides[who];
            if side.hung || side.record.ended || side.asleep_since.is_some() {
                continue;
            }
            if self.now > self.latest_end(rules, who) {
                let promise = match side.record.closing_since {
                    Some(_) => Broken::Goodbye,
                    None => Broken::MissedDead,
                };
                self.broken = Some(promise);
            }
        }
    }

    /// When this side must have come to an end if nothing more arrives.
    fn latest_end(&self, rules: &Rules, who: usize) -> u64 {
        let Side {
            monitor, record, ..
        } = &self.sides[who];
        let timeout = micros(rules.configs[who].timeout());
        let budget = timeout * u64::from(rules.configs[who].max_missed());
        let slack = match rules.stalls {
            0 => rules.lateness,
            _ => micros(rules.configs[who].stall_tolerance()).max(rules.lateness),
        };
        let end = match record.closing_since {
            Some(since) => since + budget,
            None => record.heard_at + micros(monitor.status().detection_time),
        };
        let excused = record
            .excused_at
            .filter(|_| record.closing_since.is_none())
            .map_or(0, |at| at + budget.max(rules.write_delay[who] + timeout));
        end.max(excused) + slack
    }

    fn arrive(&mut self, rules: &Rules, who: usize) {
        let now = self.instant();
        let side = &mut self.sides[who];
        match side.inbox.pop_front().map(|message| message.frame) {
            Some(Frame::Eof) => {
                side.monitor.handle_end(End::Eof, now);
                self.drain(rules, who, Input::Eof);
            }
            Some(Frame::Ping(nonce, count)) => {
                if side.record.closing_since.is_none() {
                    side.record.owed = Some((nonce, count));
                }
                self.hear(rules, who, Control::Ping(nonce));
            }
            Some(Frame::Pong(nonce, _)) => self.hear(rules, who, Control::Pong(nonce)),
            Some(Frame::Other(control)) => self.hear(rules, who, control),
            None => {}
        }
    }

    fn greet(&mut self, rules: &Rules, who: usize) {
        if let Some(hello) = self.sides[who].greetings.pop() {
            self.hear(rules, who, hello);
        }
    }

    fn hear(&mut self, rules: &Rules, who: usize, control: Control) {
        let now = self.instant();
        let Side {
            monitor, record, ..
        } = &mut self.sides[who];
        record.heard_at = self.now;
        record.asked = 0;
        record.stalls = 0;
        record.excused_at = None;
        record.fresh = Fresh::No;
        record.met |= matches!(control, Control::Hello(_));
        monitor.handle_bytes(now);
        monitor.handle_frame(control, now);
        self.drain(rules, who, Input::Heard(control));
    }

    fn timeout(&mut self, rules: &Rules, who: usize) {
        let now = self.instant();
        self.sides[who].monitor.handle_timeout(now);
        if self.is_due(&self.sides[who]) {
            self.broken = Some(Broken::Zeno);
        }
        self.drain(rules, who, Input::Other);
    }

    fn write(&mut self, rules: &Rules, who: usize) {
        let (side, peer) = both(&mut self.sides, who);
        let reachable = !peer.hung && !peer.deaf && !peer.record.ended;
        let mut input = Input::Other;
        for Message { frame, .. } in side.outbox.drain(..) {
            match frame {
                Frame::Ping(..) => {
                    input = Input::PingWritten;
                    if side.record.fresh == Fresh::Wanted {
                        side.record.fresh = Fresh::WrittenAt(self.now);
                    }
                }
                Frame::Other(Control::Goodbye) => input = Input::GoodbyeWritten,
                _ => {}
            }
            match frame {
                _ if !reachable => {}
                Frame::Other(hello @ Control::Hello(_)) if rules.greetings > 1 => {
                    peer.greetings = vec![hello; rules.greetings.into()];
                }
                _ => peer.inbox.push_back(Message {
                    frame,
                    since: self.now,
                }),
            }
        }
        side.monitor.handle_flushed(Instant::from_micros(self.now));
        self.drain(rules, who, input);
    }

    fn fault(&mut self, rules: &Rules, who: usize, fault: Fault) {
        self.faults -= 1;
        let now = self.instant();
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
            Fault::Jam => side.jammed = true,
            Fault::Close => {
                if side.record.closing_since.is_none() {
                    side.record.closing_since = Some(self.now);
                    side.record.owed = None;
                }
                side.monitor.close(now);
                self.drain(rules, who, Input::Other);
            }
        }
    }
}

// ---- what the monitor says, and whether it may ---------------------------

/// What the monitor was told last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    Heard(Control),
    Eof,
    PingWritten,
    GoodbyeWritten,
    Other,
}

impl World {
    /// Drains the outputs after an input, and writes what needn't wait.
    fn drain(&mut self, rules: &Rules, who: usize, input: Input) {
        let verdict = self
            .take_frames(who)
            .and_then(|()| self.take_events(rules, who, input))
            .and_then(|()| self.judge(rules, who, input));
        self.broken = self.broken.or(verdict.err());
        let side = &self.sides[who];
        if rules.write_delay[who] == 0 && !side.outbox.is_empty() && !side.jammed {
            self.write(rules, who);
        }
    }

    fn take_frames(&mut self, who: usize) -> Result<(), Broken> {
        let Side {
            monitor,
            record,
            outbox,
            ..
        } = &mut self.sides[who];
        while let Some(control) = monitor.poll_transmit() {
            let frame = match control {
                Control::Ping(nonce) => {
                    record.pings += 1;
                    record.asked += 1;
                    Frame::Ping(nonce, record.pings)
                }
                Control::Pong(nonce) => match record.owed.take() {
                    Some((owed, count)) if owed == nonce => Frame::Pong(nonce, count),
                    _ => return Err(Broken::EchoStorm),
                },
                other => Frame::Other(other),
            };
            outbox.push(Message {
                frame,
                since: self.now,
            });
        }
        Ok(())
    }

    fn take_events(&mut self, rules: &Rules, who: usize, input: Input) -> Result<(), Broken> {
        let heard = matches!(input, Input::Heard(_));
        let config = &rules.configs[who];
        while let Some(event) = self.sides[who].monitor.poll_event() {
            let record = &mut self.sides[who].record;
            if record.ended {
                return Err(Broken::Terminal);
            }
            match event {
                Event::Suspect { .. } if heard => return Err(Broken::Suspicion),
                Event::Suspect { .. } => record.suspected = true,
                Event::Recovered { .. } if record.suspected && heard => {
                    record.suspected = false;
                    self.seen = Some(Seen::Recovered);
                }
                Event::Recovered { .. } => return Err(Broken::Suspicion),
                Event::LocalStall { late } => {
                    if rules.stalls == 0 || late <= config.stall_tolerance() {
                        return Err(Broken::Stall);
                    }
                    record.stalls += 1;
                    let forgiven = !heard && record.stalls <= config.max_missed();
                    record.excused_at = forgiven.then_some(self.now);
                    record.fresh = match input {
                        _ if !forgiven => Fresh::No,
                        // It was noticed when this one left.
                        Input::PingWritten => Fresh::WrittenAt(self.now),
                        _ => Fresh::Wanted,
                    };
                    self.seen = Some(Seen::LocalStall);
                }
                Event::Closed { reason } => {
                    record.ended = true;
                    self.judge_closed(rules, who, input, reason)?;
                }
                Event::Dead(death) => {
                    record.ended = true;
                    self.judge_dead(rules, who, input, death)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What must hold after any input, when the outputs are drained.
    fn judge(&mut self, rules: &Rules, who: usize, input: Input) -> Result<(), Broken> {
        if self.sides[who].record.ended {
            return self.leave(who);
        }
        let config = &rules.configs[who];
        let Record {
            closing_since,
            suspected,
            met,
            asked,
            stalls,
            ..
        } = self.sides[who].record;
        let status = self.sides[who].monitor.status();
        let own = config.interval();
        let interval = match met {
            true => own.max(rules.configs[1 - who].min_interval()),
            false => own,
        };
        match input {
            Input::Heard(Control::Goodbye) | Input::GoodbyeWritten => Err(Broken::Goodbye),
            Input::Eof => Err(Broken::MissedDead),
            Input::Heard(_) if closing_since.is_none() && (suspected || status.missed > 0) => {
                Err(Broken::Suspicion)
            }
            // One for each beat, and one more for each stall.
            _ if asked > config.max_missed() + stalls => Err(Broken::Rate),
            _ if status.interval != interval
                || status.detection_time != interval + budget(config) =>
            {
                Err(Broken::Negotiation)
            }
            _ => Ok(()),
        }
    }

    fn judge_dead(
        &mut self,
        rules: &Rules,
        who: usize,
        input: Input,
        death: Death,
    ) -> Result<(), Broken> {
        let Side {
            monitor,
            outbox,
            record,
            ..
        } = &self.sides[who];
        if record.closing_since.is_some() {
            return Err(Broken::Goodbye);
        }
        match death.cause {
            Cause::Eof if input == Input::Eof => return Ok(()),
            Cause::WriteStalled if outbox.is_empty() => return Err(Broken::FalseDead),
            Cause::Silent | Cause::WriteStalled => {}
            _ => return Err(Broken::FalseDead),
        }
        let silent_for = ticks(self.now - record.heard_at);
        if rules.calm
            || silent_for < monitor.status().detection_time
            || silent_for != death.silent_for
        {
            return Err(Broken::FalseDead);
        }
        let timeout = micros(rules.configs[who].timeout());
        let whole_beat = match (record.fresh, record.excused_at) {
            (Fresh::WrittenAt(at), _) => self.now >= at + timeout,
            (Fresh::Wanted, Some(at)) => self.now >= at + timeout,
            _ => true,
        };
        self.seen = Some(Seen::Dead);
        if whole_beat {
            Ok(())
        } else {
            Err(Broken::Stall)
        }
    }

    fn judge_closed(
        &mut self,
        rules: &Rules,
        who: usize,
        input: Input,
        reason: CloseReason,
    ) -> Result<(), Broken> {
        let latest = self.sides[who]
            .record
            .closing_since
            .map(|since| since + micros(budget(&rules.configs[who])));
        let right = match (reason, input) {
            (CloseReason::Peer, _) => input == Input::Heard(Control::Goodbye),
            (CloseReason::Local, Input::GoodbyeWritten | Input::Eof) => latest.is_some(),
            (CloseReason::Local, _) => latest.is_some_and(|latest| latest <= self.now),
        };
        if reason == CloseReason::Peer {
            self.seen = Some(Seen::ClosedByPeer);
        }
        if right { Ok(()) } else { Err(Broken::Goodbye) }
    }

    /// The driver of a monitor that came to an end drops the connection.
    fn leave(&mut self, who: usize) -> Result<(), Broken> {
        let (side, peer) = both(&mut self.sides, who);
        side.outbox.clear();
        side.inbox.clear();
        side.greetings.clear();
        if !peer.hung && !peer.deaf && !peer.record.ended {
            peer.inbox.push_back(Message {
                frame: Frame::Eof,
                since: self.now,
            });
        }
        for later in [0, 1, 50] {
            let now = Instant::from_micros(self.now + later);
            let monitor = &mut side.monitor.clone();
            monitor.handle_bytes(now);
            monitor.handle_frame(Control::Ping(Nonce([7; 8])), now);
            monitor.handle_flushed(now);
            monitor.handle_timeout(now);
            monitor.probe(now);
            monitor.handle_paused(now);
            monitor.handle_resumed(now);
            monitor.handle_frame(Control::Goodbye, now);
            monitor.handle_end(End::Reset, now);
            monitor.close(now);
            if monitor.poll_transmit().is_some()
                || monitor.poll_event().is_some()
                || monitor.poll_timeout().is_some()
                || monitor.status().state != side.monitor.status().state
            {
                return Err(Broken::Terminal);
            }
        }
        Ok(())
    }
}

fn both(sides: &mut [Side; 2], who: usize) -> (&mut Side, &mut Side) {
    let [a, b] = sides;
    if who == 0 { (a, b) } else { (b, a) }
}

/// N·W.
fn budget(config: &Config) -> Duration {
    config.timeout() * config.max_missed()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap()
}

// ---- which states are one ------------------------------------------------

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

impl World {
    fn make_key(&mut self, rules: &Rules) {
        let mut key = Key {
            now: self.now,
            text: String::with_capacity(512),
        };
        let World {
            sides,
            faults,
            stalls,
            broken,
            seen,
            ..
        } = &*self;
        key.add(format_args!("{faults} {stalls} {broken:?} {seen:?}"));
        for (who, side) in sides.iter().enumerate() {
            key.side(rules, who, side, &sides[1 - who]);
        }
        self.key = key.text.into_bytes();
    }
}

struct Key {
    now: u64,
    text: String,
}

impl Key {
    fn add(&mut self, value: impl std::fmt::Display) {
        let _ = write!(self.text, "{value} ");
    }

    fn age(&mut self, instant: u64) {
        if instant == u64::MAX {
            return self.add("never");
        }
        let age = i64::try_from(self.now).unwrap() - i64::try_from(instant).unwrap();
        self.add(age.min(LONG_AGO));
    }

    fn side(&mut self, rules: &Rules, who: usize, side: &Side, peer: &Side) {
        let record = side.record;
        if side.hung || record.ended {
            return self.add(format_args!("{} {}", side.hung, record.ended));
        }
        self.add(format_args!(
            "{} {} {} {} {} {} {} {}",
            side.jammed,
            side.deaf,
            side.greetings.len(),
            record.asked,
            record.stalls,
            record.met,
            record.suspected,
            record.owed.is_some(),
        ));
        self.age(record.heard_at);
        self.age(side.asleep_since.unwrap_or(u64::MAX));
        self.age(record.excused_at.unwrap_or(u64::MAX));
        self.age(record.closing_since.unwrap_or(u64::MAX));
        match record.fresh {
            Fresh::WrittenAt(at) => self.age(at),
            other => self.add(format_args!("{other:?}")),
        }
        let counts = [record.pings, peer.record.pings];
        self.messages(side.outbox.iter(), rules.write_delay[who], counts);
        self.messages(side.inbox.iter(), rules.delay, [counts[1], counts[0]]);
        self.monitor(&side.monitor, &rules.configs[who]);
    }

    fn messages<'m>(
        &mut self,
        messages: impl Iterator<Item = &'m Message>,
        limit: u64,
        [sender, receiver]: [u32; 2],
    ) {
        self.text.push('[');
        for Message { frame, since } in messages {
            // Overdue is overdue.
            self.add((self.now - since).min(limit));
            match frame {
                Frame::Ping(_, count) => self.add(format_args!("ping {}", sender - count)),
                Frame::Pong(_, count) => self.add(format_args!("pong {}", receiver - count)),
                Frame::Other(control) => self.add(control.tag().to_byte()),
                Frame::Eof => self.add("eof"),
            }
        }
        self.text.push(']');
    }

    fn monitor(&mut self, monitor: &Monitor, config: &Config) {
        let mut debug = String::with_capacity(1024);
        let _ = write!(debug, "{monitor:?}");
        let sent = monitor.status().pings;
        let recent = 2 * config.max_missed() + 1;
        for (name, value) in fields(&debug) {
            match name {
                "config" | "random" | "told_late" | "told_silence" | "told_cause" | "pong"
                | "pongs" | "sent" => {}
                "rtt" if !config.adaptive() => {}
                "answered" | "round_first" => {
                    let index: u32 = value.parse().unwrap();
                    self.add((sent - index).min(recent));
                }
                "limiter" => {
                    // Credit tells nothing unless there is a flood.
                    let (spent, refilled_at) = value.split_once(", ").unwrap();
                    let debt = !spent.contains('-');
                    self.with_ages(if debt { value } else { refilled_at });
                }
                _ => self.with_ages(value),
            }
        }
    }

    /// `value` with each instant in it replaced by its age.
    fn with_ages(&mut self, mut value: &str) {
        while let Some((before, rest)) = value.split_once("Instant(") {
            let (seconds, after) = rest.split_once("s)").unwrap();
            let micros = seconds
                .bytes()
                .filter(u8::is_ascii_digit)
                .fold(0, |micros, digit| 10 * micros + u64::from(digit - b'0'));
            self.text.push_str(before);
            self.age(micros);
            value = after;
        }
        self.add(value);
    }
}

/// The names and values in the `Debug` output of a struct.
fn fields(debug: &str) -> impl Iterator<Item = (&str, &str)> {
    let inner = debug
        .split_once(" { ")
        .and_then(|(_, rest)| rest.strip_suffix(" }"));
    let mut depth = 0;
    inner
        .unwrap()
        .split(move |symbol| {
            match symbol {
                '{' | '(' | '[' => depth += 1,
                '}' | ')' | ']' => depth -= 1,
                _ => {}
            }
            symbol == ',' && depth == 0
        })
        .map(|field| field.trim_start().split_once(": ").unwrap())
}
