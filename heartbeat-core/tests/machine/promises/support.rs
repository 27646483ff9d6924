//! Drivers for one bare monitor.

use std::{collections::VecDeque, env, time::Duration};

use crate::common::{GOODBYE, RECEIVED, leave};
use heartbeat_core::{
    Config, Control, Death, End, Event, Evidence, GoodbyeCode, Hello, Instant, Monitor, Nonce,
};
use proptest::{option, prelude::*, test_runner::RngSeed};

/// How often each property is tried: 4,000 cases that are the same each time, or 10,000 with
/// `HEARTBEAT_FULL`, or as many as `HEARTBEAT_CASES` says, other ones each time.
pub(crate) fn cases() -> ProptestConfig {
    let asked = env::var("HEARTBEAT_CASES").map(|cases| cases.parse().unwrap());
    let usual = match env::var_os("HEARTBEAT_FULL") {
        Some(_) => 10_000,
        None => 4_000,
    };
    ProptestConfig {
        rng_seed: match asked {
            Ok(_) => RngSeed::Random,
            Err(_) => RngSeed::Fixed(16),
        },
        cases: asked.unwrap_or(usual),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

pub(crate) const MICROSECOND: Duration = Duration::from_micros(1);

// ---- what is drawn ---------------------------------------------------------
//
// Boxed, or each property would compile all of it anew.

/// Any configuration without randomness in its timings.
pub(crate) fn steady() -> BoxedStrategy<Config> {
    any::<Config>()
        .prop_map(|config| config.to_builder().jitter(0.0).build().unwrap())
        .boxed()
}

/// Any configuration whose pings can be missed without dying of the first.
pub(crate) fn patient() -> BoxedStrategy<Config> {
    any::<Config>()
        .prop_map(|config| {
            let missed = config.max_missed().max(2);
            config.to_builder().max_missed(missed).build().unwrap()
        })
        .boxed()
}

/// Any configuration that lets writes stall for ever while bytes arrive.
pub(crate) fn lenient(config: Config) -> Config {
    config.to_builder().write_stall(None).build().unwrap()
}

/// When a run starts. Early enough that no sum of a configuration's times
/// reaches the end of time.
pub(crate) fn start() -> BoxedStrategy<Instant> {
    prop_oneof![Just(0), 0..=1_u64 << 62]
        .prop_map(Instant::from_micros)
        .boxed()
}

/// The Hello of a peer that says anything, or none.
pub(crate) fn hello() -> BoxedStrategy<Option<Hello>> {
    option::of(any::<Hello>()).boxed()
}

/// From a microsecond to a year, evenly over the orders of magnitude.
pub(crate) fn time() -> BoxedStrategy<Duration> {
    (0..45_u32, any::<u64>())
        .prop_map(|(bits, random)| {
            let micros = random & ((1 << bits) - 1);
            Duration::from_micros(micros.clamp(1, 365 * 86_400 * 1_000_000))
        })
        .boxed()
}

/// A part of something, both bounds often.
pub(crate) fn part() -> BoxedStrategy<f64> {
    prop_oneof![4 => 0.0..1.0, 1 => Just(0.0), 1 => Just(1.0)].boxed()
}

/// A fraction of a duration, in whole microseconds.
pub(crate) fn share(whole: Duration, part: f64) -> Duration {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "durations of tests are far below 2^52 microseconds, or needn't be exact"
    )]
    let micros = (micros(whole) as f64 * part) as u64;
    Duration::from_micros(micros).min(whole)
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap()
}

/// I·(1 − J), rounded up: gaps shorter than this plus N·W are harmless.
pub(crate) fn shortest(interval: Duration, config: &Config) -> Duration {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to 1,000,000"
    )]
    let kept = 1_000_000 - (config.jitter() * 1e6).round() as u128;
    let product = interval.as_micros() * kept;
    Duration::from_micros(u64::try_from(product.div_ceil(1_000_000)).unwrap())
}

/// Whether this peer's timings are accepted by a side with this configuration.
pub(crate) fn is_accepted(config: &Config, hello: &Hello) -> bool {
    let least = Duration::from_millis(100);
    let ours = config.detection_time();
    let stretched = config.interval().max(hello.min_interval) + budget(config);
    let fits = stretched <= ours * config.max_stretch();
    fits && (hello.detection_time >= least || ours < least)
}

/// How late a call may be that isn't a stall of ours.
pub(crate) fn tolerated(config: &Config) -> Duration {
    config.stall_tolerance().min(budget(config) - MICROSECOND)
}

/// N·W.
pub(crate) fn budget(config: &Config) -> Duration {
    config.timeout() * config.max_missed()
}

// ---- a rig -----------------------------------------------------------------

/// A faithful driver: on time unless told otherwise, and its writes leave at
/// once unless told otherwise.
pub(crate) struct Rig {
    pub(crate) monitor: Monitor,
    pub(crate) now: Instant,
    /// Whether what is handed out leaves at once.
    pub(crate) flushes: bool,
    /// Every ping, and when it was handed out.
    pub(crate) pings: Vec<(Instant, Nonce)>,
    /// When each `Alive` was.
    pub(crate) signs: Vec<Instant>,
    /// How many of the pings are older than the last one that was answered,
    /// or are that one.
    pub(crate) answered: usize,
    pub(crate) events: VecDeque<(Instant, Event)>,
}

impl Rig {
    pub(crate) fn new(config: Config, seed: u64, start: Instant) -> Self {
        Self::of(Monitor::new(config, seed, start), start)
    }

    pub(crate) fn of(monitor: Monitor, start: Instant) -> Self {
        let mut rig = Self {
            monitor,
            now: start,
            flushes: true,
            pings: Vec::new(),
            signs: Vec::new(),
            answered: 0,
            events: VecDeque::new(),
        };
        rig.settle();
        rig
    }

    pub(crate) fn config(&self) -> Config {
        *self.monitor.config()
    }

    /// The bound of promise 1, as negotiated.
    pub(crate) fn detection_time(&self) -> Duration {
        self.monitor.status().detection_time
    }

    /// The peer says this, unless it would be refused.
    pub(crate) fn meet(&mut self, hello: Option<Hello>) {
        let config = self.config();
        if let Some(hello) = hello.filter(|hello| is_accepted(&config, hello)) {
            self.monitor.handle_frame(Control::Hello(hello), self.now);
            self.settle();
        }
    }

    /// Takes what the monitor has to say.
    pub(crate) fn settle(&mut self) {
        let mut handed_out = false;
        while let Some(control) = self.monitor.poll_transmit() {
            handed_out = true;
            match control {
                Control::Ping(nonce) => self.pings.push((self.now, nonce)),
                Control::Alive => self.signs.push(self.now),
                _ => {}
            }
        }
        if handed_out && self.flushes {
            self.monitor.handle_flushed(self.now);
        }
        while let Some(event) = self.monitor.poll_event() {
            self.events.push_back((self.now, event));
        }
    }

    pub(crate) fn flush(&mut self) {
        self.monitor.handle_flushed(self.now);
        self.settle();
    }

    /// Wakes up at `at`, whatever the deadline is.
    pub(crate) fn wake(&mut self, at: Instant) {
        self.now = at;
        self.monitor.handle_timeout(at);
        self.settle();
    }

    /// Serves the next deadline on time.
    pub(crate) fn wake_on_time(&mut self) {
        let deadline = self.monitor.poll_timeout().unwrap();
        self.wake(deadline.max(self.now));
    }

    /// Serves every deadline up to and including `until` on time.
    pub(crate) fn run_until(&mut self, until: Instant) {
        for _ in 0..100_000 {
            match self.monitor.poll_timeout() {
                Some(deadline) if deadline <= until => self.wake(deadline.max(self.now)),
                _ => {
                    self.now = self.now.max(until);
                    return;
                }
            }
        }
        panic!("the monitor never sleeps");
    }

    /// Whether there is a ping that a pong could answer.
    pub(crate) fn can_live(&self) -> bool {
        self.config().evidence() != Evidence::Echo || self.answered < self.pings.len()
    }

    /// The least evidence of life that the configuration accepts. With `Echo`
    /// there must be an unanswered ping.
    pub(crate) fn live(&mut self) {
        assert!(self.can_live());
        match self.config().evidence() {
            Evidence::Acknowledgement if self.now > self.last_heard() => {
                self.monitor.handle_acknowledged(self.now, self.now);
            }
            Evidence::Acknowledgement | Evidence::AnyBytes => self.monitor.handle_bytes(self.now),
            Evidence::Frame => self.monitor.handle_message(self.now),
            Evidence::Echo => self.pong(),
        }
        self.settle();
    }

    /// As [`live`](Self::live), if there can be evidence.
    pub(crate) fn live_if_possible(&mut self) {
        if self.can_live() {
            self.live();
        }
    }

    /// Answers the latest ping.
    pub(crate) fn pong(&mut self) {
        let &(_, nonce) = self.pings.last().unwrap();
        self.answered = self.pings.len();
        self.monitor.handle_frame(Control::Pong(nonce), self.now);
    }

    /// Frames and bytes that the configuration doesn't take for life.
    pub(crate) fn noise(&mut self, kind: u8) {
        let now = self.now;
        let nonce = Nonce([kind; 8]);
        match (self.config().evidence(), kind % 4) {
            (_, 2) => self.monitor.handle_frame(Control::Ping(nonce), now),
            (Evidence::Acknowledgement, _) => {
                self.monitor.handle_acknowledged(self.last_heard(), now);
            }
            (Evidence::AnyBytes, _) => self.monitor.handle_acknowledged(now, now),
            (Evidence::Frame, _) | (Evidence::Echo, 0) => self.monitor.handle_bytes(now),
            (Evidence::Echo, 1) => self.monitor.handle_message(now),
            (Evidence::Echo, _) => self.monitor.handle_frame(Control::Pong(nonce), now),
        }
        self.settle();
    }

    /// The peer lives on: for each part, this fraction of the harmless silence passes, and then
    /// there is evidence.
    pub(crate) fn prelude(&mut self, parts: &[f64]) {
        let config = self.config();
        let harmless = shortest(config.interval(), &config) + budget(&config) - MICROSECOND;
        for &part in parts {
            let silence = share(harmless, part);
            self.run_until(self.last_heard() + silence);
            self.live_if_possible();
        }
    }

    pub(crate) fn death(&self) -> Option<(Instant, Death)> {
        self.events.iter().find_map(|&(at, event)| match event {
            Event::Dead(death) => Some((at, death)),
            _ => None,
        })
    }

    /// Events from here on are new ones.
    pub(crate) fn forget_events(&mut self) {
        self.events.clear();
    }

    pub(crate) fn last_heard(&self) -> Instant {
        self.monitor.status().last_heard
    }
}

/// Lives through a short history: a few silences, each ended by evidence.
pub(crate) fn history() -> BoxedStrategy<Vec<f64>> {
    proptest::collection::vec(part(), 0..4).boxed()
}

// ---- a script --------------------------------------------------------------

/// Any call of a monitor's, at any time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) when: When,
    pub(crate) what: What,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    Same,
    Later(Duration),
    Earlier(Duration),
    /// At the deadline, or this many microseconds beside it.
    Deadline(i8),
    /// This long after the deadline.
    Late(Duration),
    /// The clock shows anything.
    Shows(Instant),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    Bytes,
    Backlog,
    Message,
    Frame(Control),
    /// The pong of the ping this many before the latest.
    Answer(u8),
    Flushed,
    Progress,
    Blocked,
    Timeout,
    End(End),
    Paused,
    Resumed,
    Probe,
    Finish,
    Close,
    Discarded,
    /// This many frames are taken.
    Transmit(u8),
    Events,
}

pub(crate) fn step() -> BoxedStrategy<Step> {
    let when = prop_oneof![
        4 => Just(When::Same),
        4 => time().prop_map(When::Later),
        8 => (-1..=1_i8).prop_map(When::Deadline),
        3 => time().prop_map(When::Late),
        1 => time().prop_map(When::Earlier),
        1 => any::<Instant>().prop_map(When::Shows),
    ];
    (when, what())
        .prop_map(|(when, what)| Step { when, what })
        .boxed()
}

/// As [`step`], with a clock that goes forward.
pub(crate) fn forward_step() -> BoxedStrategy<Step> {
    let when = prop_oneof![
        4 => Just(When::Same),
        3 => time().prop_map(When::Later),
        8 => (-1..=1_i8).prop_map(When::Deadline),
        2 => time().prop_map(When::Late),
    ];
    (when, what())
        .prop_map(|(when, what)| Step { when, what })
        .boxed()
}

fn what() -> BoxedStrategy<What> {
    prop_oneof![
        4 => Just(What::Bytes),
        2 => Just(What::Backlog),
        2 => Just(What::Message),
        1 => prop_oneof![Just(Control::Alive), Just(Control::Fin), Just(Control::Reserved)]
            .prop_map(What::Frame),
        2 => any::<Nonce>().prop_map(|nonce| What::Frame(Control::Ping(nonce))),
        1 => any::<Nonce>().prop_map(|nonce| What::Frame(Control::Pong(nonce))),
        1 => any::<Hello>().prop_map(|hello| What::Frame(Control::Hello(hello))),
        3 => (0..4_u8).prop_map(What::Answer),
        6 => Just(What::Flushed),
        2 => Just(What::Progress),
        2 => Just(What::Blocked),
        16 => Just(What::Timeout),
        1 => Just(What::Paused),
        1 => Just(What::Resumed),
        1 => Just(What::Probe),
        1 => prop_oneof![Just(What::Finish), Just(What::Discarded)],
        8 => (1..4_u8).prop_map(What::Transmit),
        4 => Just(What::Events),
    ]
    .boxed()
}

/// What ends a connection.
pub(crate) fn ending() -> BoxedStrategy<What> {
    prop_oneof![
        1 => any::<End>().prop_map(What::End),
        1 => any::<GoodbyeCode>().prop_map(|code| What::Frame(Control::Goodbye(code))),
        1 => Just(What::Close),
    ]
    .boxed()
}

/// A driver that does what it is told, however wrong that is.
pub(crate) struct Script {
    pub(crate) monitor: Monitor,
    pub(crate) now: Instant,
    pub(crate) pings: Vec<Nonce>,
    pub(crate) out: Vec<Control>,
    pub(crate) events: Vec<Event>,
    /// We said that we leave, before the end.
    pub(crate) leaving: bool,
    /// Something of the peer's was thrown away.
    discarded: bool,
}

impl Script {
    pub(crate) fn new(config: Config, seed: u64, start: Instant) -> Self {
        Self {
            monitor: Monitor::new(config, seed, start),
            now: start,
            pings: Vec::new(),
            out: Vec::new(),
            events: Vec::new(),
            leaving: false,
            discarded: false,
        }
    }

    /// What the peer's goodbye is answered with.
    pub(crate) const fn answer(&self) -> Control {
        match self.discarded {
            false => RECEIVED,
            true => GOODBYE,
        }
    }

    pub(crate) fn perform(&mut self, step: Step) {
        let deadline = self.monitor.poll_timeout().unwrap_or(self.now);
        self.now = match step.when {
            When::Same => self.now,
            When::Later(time) => self.now + time,
            When::Earlier(time) => self.now - time,
            When::Deadline(beside @ ..0) => {
                deadline - MICROSECOND * u32::from(beside.unsigned_abs())
            }
            When::Deadline(beside) => deadline + MICROSECOND * u32::from(beside.unsigned_abs()),
            When::Late(time) => deadline + time,
            When::Shows(now) => now,
        };
        self.call(step.what);
    }

    pub(crate) fn call(&mut self, what: What) {
        let now = self.now;
        let monitor = &mut self.monitor;
        match what {
            What::Bytes => monitor.handle_bytes(now),
            What::Backlog => monitor.handle_backlog(now),
            What::Message => monitor.handle_message(now),
            What::Frame(control) => monitor.handle_frame(control, now),
            What::Answer(back) => {
                if let Some(&nonce) = self.pings.iter().rev().nth(back.into()) {
                    monitor.handle_frame(Control::Pong(nonce), now);
                }
            }
            What::Flushed => monitor.handle_flushed(now),
            What::Progress => monitor.handle_progress(now),
            What::Blocked => monitor.handle_blocked(now),
            What::Timeout => monitor.handle_timeout(now),
            What::End(end) => monitor.handle_end(end, now),
            What::Paused => monitor.handle_paused(now),
            What::Resumed => monitor.handle_resumed(now),
            What::Probe => monitor.probe(now),
            What::Finish => monitor.finish(now),
            What::Close => {
                self.leaving |= !monitor.has_ended();
                leave(monitor, now);
            }
            What::Discarded => {
                self.discarded = true;
                monitor.handle_discarded();
            }
            What::Transmit(count) => {
                for _ in 0..count {
                    self.transmit();
                }
            }
            What::Events => while self.event().is_some() {},
        }
    }

    pub(crate) fn transmit(&mut self) -> Option<Control> {
        let control = self.monitor.poll_transmit()?;
        if let Control::Ping(nonce) = control {
            self.pings.push(nonce);
        }
        self.out.push(control);
        Some(control)
    }

    pub(crate) fn event(&mut self) -> Option<Event> {
        let event = self.monitor.poll_event()?;
        self.events.push(event);
        Some(event)
    }

    /// Takes all outputs.
    pub(crate) fn drain(&mut self) {
        while self.transmit().is_some() {}
        while self.event().is_some() {}
    }
}
