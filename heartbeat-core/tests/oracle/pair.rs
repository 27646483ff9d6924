//! Two monitors over a link that holds what travels, lets it go in bunches,
//! and loses it, in each direction by itself.
//!
//! Besides the judge's rules: two monitors never flood each other, whatever
//! the link does, and don't find each other dead, nor suspect, over a link
//! that is fast enough; and there each goodbye is confirmed.

use std::{collections::VecDeque, time::Duration};

use heartbeat_core::{Cause, CloseReason, Control, Event};

use crate::{
    api,
    dice::{self, Dice, Scale},
    judge::{Failure, Violation, failure},
    ops::{Op, Script},
    side::Side,
    tally::Tally,
    terms::micros,
};

/// What travels in one direction.
#[derive(Clone, Debug, Default)]
struct Link {
    delay: u64,
    /// Nothing arrives before this.
    held_until: u64,
    /// Percent.
    loses: u64,
    queue: VecDeque<(u64, Control)>,
}

impl Link {
    fn send(&mut self, frames: Vec<Control>, now: u64, dice: &mut Dice) {
        for frame in frames {
            // Nothing gets through before the Hello, which says how often to ping.
            let is_hello = matches!(frame, Control::Hello(_));
            if is_hello || !dice.chance(self.loses) {
                self.queue.push_back((now + self.delay, frame));
            }
        }
    }

    fn next(&self) -> Option<u64> {
        self.queue.front().map(|&(at, _)| at.max(self.held_until))
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Weather {
    /// Nothing is lost, and round trips are shorter than W.
    Fair,
    Holding,
    Losing,
}

#[derive(Debug)]
struct Pair {
    sides: [Side; 2],
    links: [Link; 2],
    /// How late each driver wakes up, at most.
    lateness: [u64; 2],
    wakes: [u64; 2],
    blocked_until: [u64; 2],
    weather: Weather,
    now: u64,
}

pub(crate) fn play(seed: u64, tally: &mut Tally) -> Result<(), Failure> {
    let mut dice = Dice::new(seed);
    let mut pair = Pair::new(&mut dice);
    let wakes = dice.within(20, 150);
    for _ in 0..wakes {
        let Some(side) = pair.next() else { break };
        if let Err(violation) = pair.wake(side, &mut dice, tally) {
            return Err(failure(&pair.sides[side].script, violation));
        }
        pair.disturb(&mut dice, tally);
    }
    Ok(())
}

fn script(dice: &mut Dice, scale: Scale) -> Script {
    Script {
        config: dice::config(dice, scale),
        seed: dice.number(),
        start: 0,
        hello: true,
        sent: 0,
        calls: Vec::new(),
    }
}

impl Pair {
    fn new(dice: &mut Dice) -> Self {
        let weather = dice.one(&[Weather::Fair, Weather::Holding, Weather::Losing]);
        let scale = dice.one(&[Scale::Few, Scale::Millis, Scale::Millis]);
        let mut one = script(dice, scale);
        let mut other = script(dice, scale);
        if weather == Weather::Fair {
            // A side that is content with pongs only, or with 1 us, is never
            // in fair weather.
            one.config = fair(dice);
            other.config = fair(dice);
        }
        let patience = [&one, &other].map(|script| micros(script.config.timeout()));
        let least = patience[0].min(patience[1]);
        let delay = |dice: &mut Dice| match weather {
            Weather::Fair => dice.below(least / 8),
            _ => dice.below(least),
        };
        let loses = |dice: &mut Dice| match weather {
            Weather::Losing => dice.one(&[0, 10, 50, 100]),
            _ => 0,
        };
        let link = |dice: &mut Dice| Link {
            delay: delay(dice),
            loses: loses(dice),
            ..Link::default()
        };
        let links = [link(dice), link(dice)];
        let late = |dice: &mut Dice, script: &Script| {
            let most = micros(script.config.timeout());
            match weather {
                Weather::Fair => dice.one(&[0, least / 8]),
                _ => dice.one(&[0, 0, most / 4, most * 3]),
            }
        };
        let lateness = [late(dice, &one), late(dice, &other)];
        Self {
            sides: [Side::new(one), Side::new(other)],
            links,
            lateness,
            wakes: [0; 2],
            blocked_until: [0; 2],
            weather,
            now: 0,
        }
    }

    /// Which side wakes up next. Sets the time.
    fn next(&mut self) -> Option<usize> {
        let due = |side: usize| {
            let ended = self.sides[side].judge.has_ended();
            let deadline = self.sides[side].judge.seen.deadline.filter(|_| !ended);
            let arrival = self.links[1 - side].next().filter(|_| !ended);
            let unsent = !self.sides[side].unsent.is_empty();
            let flush = unsent
                .then_some(self.blocked_until[side])
                .filter(|_| !ended);
            let at = [deadline, arrival, flush].into_iter().flatten().min()?;
            Some(at.saturating_add(self.wakes[side]).max(self.now))
        };
        let (at, side) = (0..2).filter_map(|side| Some((due(side)?, side))).min()?;
        if at > 1 << 60 {
            return None;
        }
        self.now = at;
        Some(side)
    }

    fn wake(&mut self, at: usize, dice: &mut Dice, tally: &mut Tally) -> Result<(), Violation> {
        let now = self.now;
        self.wakes[at] = dice.below(self.lateness[at] + 1);
        let side = &mut self.sides[at];
        let link = &mut self.links[1 - at];
        let paused = side.judge.facts.paused;
        if paused && dice.chance(40) {
            side.call(now, Op::Resumed, tally)?;
        }
        let mut read = 0;
        while !paused && link.next().is_some_and(|arrives| arrives <= now) {
            let Some((_, frame)) = link.queue.pop_front() else {
                break;
            };
            side.read(frame, now, tally)?;
            read += 1;
            if read == 4 && dice.chance(20) {
                side.call(now, Op::Backlog, tally)?;
                break;
            }
        }
        if paused && link.next().is_some_and(|arrives| arrives <= now) {
            // What isn't read must not wake this side again and again.
            link.held_until = link
                .held_until
                .max(now + 1 + dice.below(self.lateness[at] + 10));
        }
        side.look_at_the_clock(now, tally)?;
        if self.weather != Weather::Fair && !side.judge.has_ended() {
            match dice.below(60) {
                0 => side.call(now, Op::Probe, tally)?,
                1 if !paused => side.call(now, Op::Paused, tally)?,
                2 => side.call(now, Op::Message, tally)?,
                _ => {}
            }
        }
        if !side.judge.has_ended() && dice.chance(2) {
            let parts = [Op::Close(0), Op::Close(1), Op::Finish, Op::Finish];
            side.call(now, dice.one(&parts), tally)?;
        }
        side.hand_out(now, tally)?;
        if self.blocked_until[at] <= now {
            let frames = side.flush(now, tally)?;
            self.links[at].send(frames, now, dice);
        } else if !side.unsent.is_empty() {
            side.call(now, Op::Blocked, tally)?;
        }
        let told = side.events.len();
        side.drain(now, tally)?;
        check(self.weather, &side.events[told..])
    }

    /// The link and the drivers change.
    fn disturb(&mut self, dice: &mut Dice, tally: &mut Tally) {
        if self.weather == Weather::Fair || !dice.chance(8) {
            return;
        }
        let at = usize::from(dice.chance(50));
        let terms = &self.sides[at].judge.facts.terms;
        let long = dice.one(&[
            terms.timeout,
            terms.budget(),
            terms.interval,
            4 * terms.budget(),
        ]);
        if dice.chance(50) {
            self.links[at].held_until = self.now.saturating_add(long);
            tally.count("holds");
        } else {
            self.blocked_until[at] = self.now.saturating_add(long);
            tally.count("blocked flushes");
        }
    }
}

/// Timings that a link of an eighth of W can't disturb.
fn fair(dice: &mut Dice) -> heartbeat_core::Config {
    let timeout = dice::time(dice, Scale::Millis).max(8_000);
    let builder = heartbeat_core::Config::builder()
        .interval(Duration::from_micros(
            dice::time(dice, Scale::Millis).max(100_000),
        ))
        .timeout(Duration::from_micros(timeout))
        .max_missed(u32::try_from(dice.within(1, 4)).unwrap_or(1))
        .jitter(dice.one(&[0.0, 0.25, 1.0]))
        .adaptive(false)
        .max_stretch(255)
        .evidence(dice.one(&[
            heartbeat_core::Evidence::AnyBytes,
            heartbeat_core::Evidence::Frame,
            heartbeat_core::Evidence::Echo,
        ]))
        .role(dice.one(&[heartbeat_core::Role::Both, heartbeat_core::Role::Passive]));
    api::build(builder)
}

fn check(weather: Weather, told: &[Event]) -> Result<(), Violation> {
    for event in told {
        match event {
            Event::Dead(death) if death.cause == Cause::PingFlood => {
                return Err(Violation::new(
                    "promise 9: a monitor floods another",
                    format!("{death:?}"),
                ));
            }
            Event::Dead(death) if weather == Weather::Fair => {
                return Err(Violation::new(
                    "promise 2: dead in fair weather",
                    format!("{death:?}"),
                ));
            }
            Event::Closed {
                reason: CloseReason::Unconfirmed,
            } if weather == Weather::Fair => {
                return Err(Violation::new(
                    "promise 17: unconfirmed in fair weather",
                    String::new(),
                ));
            }
            Event::Suspect { .. } | Event::LocalStall { .. } if weather == Weather::Fair => {
                return Err(Violation::new(
                    "promise 3: suspect in fair weather",
                    format!("{event:?}"),
                ));
            }
            _ => {}
        }
    }
    Ok(())
}
