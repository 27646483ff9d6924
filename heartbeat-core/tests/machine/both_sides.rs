//! Two sides over a link of which one direction fails: both know in time, however
//! their phases lie. And what it costs them while it works.
//!
//! A search at the level of messages: timings, delay, phases and the moment of the
//! cut are drawn. `HEARTBEAT_FULL=1` draws 200,000 cases and prints the worst:
//!
//! ```text
//! HEARTBEAT_FULL=1 cargo test -p heartbeat-core --test machine both_sides -- --nocapture
//! ```

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use core::fmt;
use std::collections::VecDeque;

use heartbeat_core::{
    Cause, Config, Control, Event, Evidence, GoodbyeCode, Instant, Monitor, Role,
};
use rand::{Rng, SeedableRng, rngs::SmallRng, seq::IndexedRandom};

use crate::common::us;

const NEVER: u64 = u64::MAX;

/// Times in microseconds.
#[derive(Clone, Copy, Debug)]
struct Case {
    config: Config,
    seed: u64,
    delay: u64,
    /// How long after A does B begin.
    phase: u64,
    /// What B's clock shows when A's shows nothing: their grids differ.
    origin: u64,
    /// From then on what this side sends is lost.
    cut: Option<(usize, u64)>,
    /// How often each side sends a message.
    messages: [Option<u64>; 2],
    /// Whether a verdict reaches the other side.
    tells: bool,
    /// This side doesn't read for a while.
    pause: Option<(usize, u64, u64)>,
}

enum Frame {
    Control(Control),
    Message,
}

struct Side {
    monitor: Monitor,
    inbox: VecDeque<(u64, Frame)>,
    begins: u64,
    has_begun: bool,
    next_message: u64,
    paused_until: u64,
    has_resumed: bool,
    /// How often it wrote.
    writes: u64,
    pings: Vec<u64>,
    /// The last arrival that the configuration counts, or the start. A ping is none.
    last_heard: u64,
    /// Whether one came since the last ping.
    heard: bool,
    end: Option<End>,
}

#[derive(Clone, Copy, Debug)]
struct End {
    at: u64,
    cause: Cause,
    last_heard: u64,
}

/// What came of a case.
struct Run {
    case: Case,
    sides: [Side; 2],
    now: u64,
}

impl Case {
    fn run_until(self, end: u64) -> Run {
        let side = |who: usize| {
            let begins = if who == 0 { 0 } else { self.phase };
            let at = self.instant(who, begins);
            Side {
                monitor: Monitor::new(self.config, self.seed + who as u64, at),
                inbox: VecDeque::new(),
                begins,
                has_begun: false,
                next_message: self.messages[who].map_or(NEVER, |every| begins + every),
                paused_until: 0,
                has_resumed: false,
                writes: 0,
                pings: Vec::new(),
                last_heard: begins,
                heard: true,
                end: None,
            }
        };
        let mut run = Run {
            case: self,
            sides: [side(0), side(1)],
            now: 0,
        };
        run.play(end);
        run
    }

    const fn origin(&self, who: usize) -> u64 {
        if who == 0 { 0 } else { self.origin }
    }

    const fn instant(&self, who: usize, at: u64) -> Instant {
        Instant::from_micros(at + self.origin(who))
    }

    /// Max(m, I·(1 − max(J, ¼))).
    fn spacing(&self) -> u64 {
        let interval = micros(self.config.interval());
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 0 to 1,000,000"
        )]
        let jitter = (self.config.jitter() * 1e6).round() as u64;
        let shortest = interval - interval * jitter.max(250_000) / 1_000_000;
        shortest.max(micros(self.config.min_interval()))
    }

    fn detection_time(&self) -> u64 {
        micros(self.config.detection_time())
    }
}

impl Run {
    fn play(&mut self, end: u64) {
        loop {
            let next = [self.next(0), self.next(1)];
            self.now = next[0].min(next[1]).max(self.now);
            if self.now > end || next == [NEVER; 2] {
                return;
            }
            for (who, at) in next.into_iter().enumerate() {
                if at <= self.now {
                    self.wake(who);
                }
            }
        }
    }

    fn next(&self, who: usize) -> u64 {
        let side = &self.sides[who];
        if side.end.is_some() {
            return NEVER;
        }
        if !side.has_begun {
            return side.begins;
        }
        let origin = self.case.origin(who);
        let deadline = side.monitor.poll_timeout();
        let deadline = deadline.map_or(NEVER, |at| at.as_micros() - origin);
        let arrival = side.inbox.front().map_or(NEVER, |&(at, _)| at);
        let arrival = arrival.max(side.paused_until);
        let mut next = deadline.min(arrival).min(side.next_message);
        if let Some((paused, from, until)) = self.case.pause {
            if paused == who && !side.has_resumed {
                let is_paused = side.paused_until > 0;
                next = next.min(if is_paused { until } else { from });
            }
        }
        next
    }

    fn wake(&mut self, who: usize) {
        let now = self.now;
        let at = self.case.instant(who, now);
        let side = &mut self.sides[who];
        side.has_begun = true;
        if let Some((paused, from, until)) = self.case.pause {
            if paused == who && side.paused_until == 0 && from <= now {
                side.paused_until = until;
                side.monitor.handle_paused(at);
            }
            if paused == who && until <= now && !side.has_resumed {
                side.has_resumed = true;
                side.monitor.handle_resumed(at);
                (side.last_heard, side.heard) = (now, true);
            }
        }
        while side.paused_until <= now
            && side
                .inbox
                .front()
                .is_some_and(|&(arrives, _)| arrives <= now)
        {
            let Some((_, frame)) = side.inbox.pop_front() else {
                break;
            };
            let answered = side.monitor.status().pongs;
            match frame {
                Frame::Control(control) => side.monitor.handle_frame(control, at),
                Frame::Message => side.monitor.handle_message(at),
            }
            let is_evidence = match self.case.config.evidence() {
                Evidence::Echo => side.monitor.status().pongs > answered,
                _ => !matches!(frame, Frame::Control(Control::Ping(_))),
            };
            if is_evidence {
                (side.last_heard, side.heard) = (now, true);
            }
        }
        side.monitor.handle_timeout(at);
        self.write(who);
        self.tell(who);
    }

    fn write(&mut self, who: usize) {
        let (now, case) = (self.now, self.case);
        let is_cut = case
            .cut
            .is_some_and(|(cut, from)| cut == who && from <= now);
        let (side, peer) = both(&mut self.sides, who);
        let mut frames = Vec::new();
        if side.next_message <= now {
            side.next_message = now + case.messages[who].unwrap_or(NEVER - now);
            frames.push(Frame::Message);
        }
        while let Some(control) = side.monitor.poll_transmit() {
            if let Control::Ping(_) = control {
                let heard = core::mem::take(&mut side.heard);
                if let Some(last) = side.pings.last() {
                    let least = match heard {
                        true => case.spacing(),
                        false => micros(case.config.timeout()),
                    };
                    assert!(
                        now - last + 1 >= least,
                        "{last} and {now}, not {least}: {case:?}"
                    );
                }
                side.pings.push(now);
            }
            frames.push(Frame::Control(control));
        }
        if frames.is_empty() {
            return;
        }
        side.writes += 1;
        side.monitor.handle_flushed(case.instant(who, now));
        if !case.tells {
            frames.retain(|frame| !matches!(frame, Frame::Control(Control::Goodbye(_))));
        }
        if !is_cut {
            let arrives = now + case.delay;
            peer.inbox
                .extend(frames.into_iter().map(|frame| (arrives, frame)));
        }
    }

    fn tell(&mut self, who: usize) {
        let side = &mut self.sides[who];
        while let Some(event) = side.monitor.poll_event() {
            match event {
                Event::Dead(death) => {
                    side.end = Some(End {
                        at: self.now,
                        cause: death.cause,
                        last_heard: side.last_heard,
                    });
                }
                Event::LocalStall { .. } | Event::Closed { .. } => {
                    panic!("{event:?}: {:?}", self.case)
                }
                _ => {}
            }
        }
    }
}

fn both(sides: &mut [Side; 2], who: usize) -> (&mut Side, &mut Side) {
    let [a, b] = sides;
    if who == 0 { (a, b) } else { (b, a) }
}

fn micros(time: core::time::Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap()
}

// ---- what is drawn ---------------------------------------------------------

/// As likely between 1 and 2 as between 1,000 and 2,000.
fn magnitude(dice: &mut SmallRng, least: u64, most: u64) -> u64 {
    let bits = dice.random_range(0..64_u32);
    let scaled = dice.random_range(0..=(most - least) >> (bits % 12));
    least + scaled
}

fn draw(dice: &mut SmallRng) -> Case {
    let interval = magnitude(dice, 20_000, 60_000_000);
    let timeout = magnitude(dice, interval / 20 + 1, interval * 2);
    let max_missed = dice.random_range(1..=5_u32);
    let jitter: f64 = *[0.0, 0.0, 0.1, 0.25, 0.25, 0.5, 1.0].choose(dice).unwrap();
    let evidence = [Evidence::AnyBytes, Evidence::Frame, Evidence::Echo];
    let role = [Role::Both, Role::Both, Role::Both, Role::Passive];
    let config = Config::builder()
        .interval(us(interval))
        .timeout(us(timeout))
        .max_missed(max_missed)
        .jitter(jitter)
        .evidence(*evidence.choose(dice).unwrap())
        .role(*role.choose(dice).unwrap())
        .build()
        .unwrap();
    // No answer takes longer than is tolerated, and none waits for B to begin.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "far below 2^52"
    )]
    let shortened = (interval as f64 * jitter) as u64;
    let tolerated = timeout * u64::from(max_missed);
    let delay = magnitude(dice, 0, (tolerated / 2).saturating_sub(1));
    let latest = interval - shortened + tolerated - delay;
    let phase = dice.random_range(0..interval.min(latest));
    let every = |dice: &mut SmallRng| {
        let every = dice.random_range(interval / 8..interval * 2);
        dice.random_bool(0.25).then_some(every)
    };
    let messages = [every(dice), every(dice)];
    let period = interval + 2 * delay;
    let cut_at = phase + delay + dice.random_range(0..6 * period);
    Case {
        config,
        seed: dice.random(),
        delay,
        phase,
        origin: dice.random_range(0..interval),
        cut: Some((dice.random_range(0..2), cut_at)),
        messages,
        tells: true,
        pause: None,
    }
}

// ---- one direction fails ---------------------------------------------------

/// The worst of all cases, in parts of D, and what was the case.
#[derive(Default)]
struct Worst(Option<(u64, u64, Case)>);

impl Worst {
    /// `took` of what is allowed, both in microseconds.
    #[track_caller]
    fn take(&mut self, took: u64, allowed: u64, run: &Run) {
        let Run { case, sides, .. } = run;
        let ends = [sides[0].end, sides[1].end];
        assert!(took <= allowed, "{took} of {allowed}: {case:?} {ends:?}");
        let is_worse = |&(worst, of, _): &(u64, u64, Case)| {
            u128::from(took) * u128::from(of) > u128::from(worst) * u128::from(allowed)
        };
        if self.0.as_ref().is_none_or(is_worse) {
            self.0 = Some((took, allowed, *case));
        }
    }
}

impl fmt::Display for Worst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((took, allowed, case)) = self.0 else {
            return f.write_str("none");
        };
        let Case {
            config,
            delay,
            phase,
            cut,
            ..
        } = case;
        write!(
            f,
            "{:?} of {:?} (I {:?}, W {:?}, N {}, J {}, delay {:?}, phase {:?}, cut {cut:?})",
            us(took),
            us(allowed),
            config.interval(),
            config.timeout(),
            config.max_missed(),
            config.jitter(),
            us(delay),
            us(phase),
        )
    }
}

fn cases(few: u64, many: u64) -> u64 {
    match std::env::var_os("HEARTBEAT_FULL") {
        Some(_) => many,
        None => few,
    }
}

#[test]
fn whichever_direction_fails_both_sides_know_within_d_and_one_delay() {
    let mut dice = SmallRng::seed_from_u64(14);
    let mut own = Worst::default();
    let mut told = Worst::default();
    let mut since_the_cut = Worst::default();
    let [mut silent, mut given_up] = [0, 0];
    let cases = cases(10_000, 200_000);
    for _ in 0..cases {
        let case = draw(&mut dice);
        let (detection, delay) = (case.detection_time(), case.delay);
        let (mute, cut_at) = case.cut.unwrap();
        let run = case.run_until(cut_at + 3 * (detection + delay));
        let [Some(a), Some(b)] = [run.sides[0].end, run.sides[1].end] else {
            panic!("a side never knew: {case:?}");
        };
        let [deaf, other] = if mute == 0 { [b, a] } else { [a, b] };
        for end in [deaf, other] {
            assert!(end.at >= cut_at, "dead before the cut: {case:?} {end:?}");
            match end.cause {
                Cause::Silent => {
                    silent += 1;
                    own.take(end.at - end.last_heard, detection, &run);
                }
                Cause::GivenUp { code, .. } => {
                    given_up += 1;
                    assert_eq!(code, GoodbyeCode::SILENT);
                }
                cause => panic!("{cause:?}: {case:?}"),
            }
        }
        // It hears nothing, so nothing tells it.
        assert_eq!(deaf.cause, Cause::Silent, "{case:?}");
        let last = a.at.max(b.at);
        told.take(last - deaf.last_heard, detection + delay, &run);
        // What was under way still arrives, and with it the last answer.
        since_the_cut.take(last - cut_at, detection + 2 * delay, &run);
    }
    println!("{cases} cases, {silent} silent, {given_up} given up");
    println!("from its own last arrival, of D: {own}");
    println!("both, from the last arrival on the deaf side, of D + delay: {told}");
    println!("both, from the cut, of D + 2 · delay: {since_the_cut}");
    assert!(silent > cases && given_up > cases / 100);
}

/// Not because it is told: a peer that asks on hears nothing, and that is found
/// without it.
#[test]
fn where_verdicts_are_lost_too_each_side_knows_within_d_of_its_last_arrival() {
    let mut dice = SmallRng::seed_from_u64(17);
    let mut own = Worst::default();
    let mut since_the_cut = Worst::default();
    for _ in 0..cases(5_000, 100_000) {
        let mut case = draw(&mut dice);
        (case.tells, case.messages) = (false, [None, None]);
        let (detection, delay) = (case.detection_time(), case.delay);
        let (_, cut_at) = case.cut.unwrap();
        let run = case.run_until(cut_at + 3 * (detection + delay));
        for side in &run.sides {
            let Some(end) = side.end else {
                panic!("a side never knew: {case:?}");
            };
            assert!(end.at >= cut_at, "dead before the cut: {case:?} {end:?}");
            assert_eq!(end.cause, Cause::Silent, "{case:?}");
            own.take(end.at - end.last_heard, detection, &run);
            since_the_cut.take(end.at - cut_at, detection + 2 * delay, &run);
        }
    }
    println!("untold, from its own last arrival, of D: {own}");
    println!("untold, from the cut, of D + 2 · delay: {since_the_cut}");
}

/// The paused side shows life while it can, and learns it when it reads again.
#[test]
fn while_one_side_does_not_read_the_other_knows_within_d_and_one_delay() {
    let mut dice = SmallRng::seed_from_u64(15);
    let mut other_side = Worst::default();
    let mut paused_side = Worst::default();
    let mut told = Worst::default();
    for _ in 0..cases(5_000, 100_000) {
        let mut case = draw(&mut dice);
        // What only answers can refute is refuted by a pause.
        let evidence = [Evidence::AnyBytes, Evidence::Frame];
        let builder = case.config.to_builder().jitter(0.0);
        let builder = builder.evidence(*evidence.choose(&mut dice).unwrap());
        case.config = builder.build().unwrap();
        let (detection, delay) = (case.detection_time(), case.delay);
        let (mute, cut_at) = case.cut.unwrap();
        let paused = dice.random_range(0..2);
        let from = cut_at.saturating_sub(dice.random_range(0..2 * detection));
        let from = from.max(case.phase + delay);
        let until = cut_at + dice.random_range(1..3 * detection);
        case.pause = Some((paused, from, until));
        let run = case.run_until(until + 3 * (detection + delay));
        let [Some(a), Some(b)] = [run.sides[0].end, run.sides[1].end] else {
            panic!("a side never knew: {case:?}");
        };
        let [reads, other] = if paused == 0 { [b, a] } else { [a, b] };
        assert!(
            reads.at >= cut_at,
            "dead before the cut: {case:?} {reads:?}"
        );
        assert!(
            other.at >= cut_at,
            "dead before the cut: {case:?} {other:?}"
        );
        let under_way = (cut_at + 2 * delay).saturating_sub(until);
        if paused == mute {
            other_side.take(reads.at - cut_at, detection + delay, &run);
        } else {
            // It hears signs of life until the other reads, finds out and says so.
            let late = reads.at.saturating_sub(until);
            told.take(late, detection + under_way + delay, &run);
        }
        paused_side.take(other.at.saturating_sub(until), detection + under_way, &run);
    }
    println!("who reads, from the cut, of D + delay: {other_side}");
    println!("who paused, from its resuming, of D: {paused_side}");
    println!("who heard it in the pause, from its resuming, of D + delay: {told}");
}

// ---- while it works --------------------------------------------------------

fn idle(interval: u64, jitter: f64, delay: u64, phase: u64, seed: u64) -> Case {
    let config = Config::builder()
        .interval(us(interval))
        .timeout(us(interval * 2))
        .max_missed(3)
        .jitter(jitter);
    Case {
        config: config.build().unwrap(),
        seed,
        delay,
        phase,
        origin: 7_001,
        cut: None,
        messages: [None, None],
        tells: true,
        pause: None,
    }
}

/// Ping; pong and ping; pong.
#[test]
fn an_idle_beat_costs_three_writes_and_proves_both_directions_to_both_sides() {
    const INTERVAL: u64 = 1_000_000;
    for percent in 0..=37 {
        let delay = INTERVAL * percent / 100;
        for phase in (0..INTERVAL).step_by(7_919) {
            let case = idle(INTERVAL, 0.0, delay, phase, 1);
            let run = case.run_until(100 * INTERVAL);
            let [a, b] = &run.sides;
            assert_eq!((a.end.is_none(), b.end.is_none()), (true, true));
            let [a_pings, b_pings] = [a, b].map(|side| side.pings.len() as u64);
            assert!(a_pings.abs_diff(b_pings) <= 1, "{case:?}");
            // Two Hellos; and if neither hears of the other's question before it
            // asks, both answer by themselves.
            let writes = a.writes + b.writes - 2;
            let each = if phase > delay { 3 } else { 4 };
            if phase != delay {
                assert!(
                    writes.abs_diff(each * a_pings) <= 4,
                    "{writes} of {a_pings}: {case:?}"
                );
            }
            for side in [a, b] {
                let answered = u64::from(side.monitor.status().pongs);
                assert!(answered + 1 >= side.pings.len() as u64, "{case:?}");
            }
        }
    }
}

/// With jitter the sooner question is the one that counts: hardly any cross.
#[test]
fn with_jitter_a_beat_costs_little_more_than_three_writes() {
    const INTERVAL: u64 = 1_000_000;
    for (delay, most) in [(500, 3.05), (10_000, 3.25), (50_000, 3.7)] {
        let [mut writes, mut beats] = [0.0, 0.0];
        for seed in 0..50 {
            let run = idle(INTERVAL, 0.25, delay, seed * 20_011, seed).run_until(100 * INTERVAL);
            for side in &run.sides {
                writes += f64::from(u32::try_from(side.writes).unwrap() - 1);
                beats += f64::from(side.monitor.status().pongs) / 2.0;
            }
        }
        let each = writes / beats;
        println!("delay {:?}: {each:.3} writes a beat", us(delay));
        assert!((2.9..most).contains(&each), "{each} at {delay}");
    }
}

/// Delays below and above the interval. Each ping is checked against the last one
/// of its side when it leaves.
#[test]
fn idle_pings_keep_their_distance_however_long_the_link_is() {
    let mut dice = SmallRng::seed_from_u64(16);
    for _ in 0..cases(2_000, 40_000) {
        let mut case = draw(&mut dice);
        case.cut = None;
        let spacing = case.spacing().min(micros(case.config.timeout()));
        let end = 40 * (micros(case.config.interval()) + 2 * case.delay);
        let run = case.run_until(end);
        for side in &run.sides {
            assert!(side.end.is_none(), "{case:?} {:?}", side.end);
            assert!(side.pings.len() as u64 <= end / spacing + 2, "{case:?}");
        }
    }
}
