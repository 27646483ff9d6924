//! A peer that keeps to docs/protocol.md, is no `Monitor`, and pings as often
//! as it may, over a path that holds its frames for however long and lets
//! only enough through for the gaps between answers, or other signs of life, to stay
//! below the bound.
//!
//! Such a peer is never dead and never floods.
//!
//! What it may do: a group of pings begins at least m after the last ping of
//! the group before had left; it has at most 2·N pings, W apart, of which N
//! follow a stall and may come at once.

use std::collections::VecDeque;

use heartbeat_core::{Control, Event, Evidence, GoodbyeCode, Hello};

use crate::{
    dice::{self, Dice, Scale},
    judge::{Failure, Violation, failure},
    ops::{Op, Script, announced, nonce},
    side::Side,
    tally::Tally,
    terms::{Terms, micros},
};

#[derive(Clone, Debug)]
struct Peer {
    hello: Hello,
    timeout: u64,
    min_interval: u64,
    /// The longest `min_interval` that it may announce.
    slowest: u64,
    /// Pings of this group that are still to come.
    left: u32,
    next_at: u64,
    pings: u64,
}

#[derive(Debug)]
struct Scene {
    side: Side,
    peer: Peer,
    path: VecDeque<Control>,
    /// Until when the path is slow.
    slow_until: u64,
    /// How often it lets a frame through while it is.
    trickle: u64,
    trickled: u64,
    lateness: u64,
    now: u64,
}

pub(crate) fn play(seed: u64, tally: &mut Tally) -> Result<(), Failure> {
    let mut dice = Dice::new(seed);
    let mut scene = Scene::new(&mut dice);
    for _ in 0..dice.within(20, 120) {
        if scene.side.judge.has_ended() {
            break;
        }
        if let Err(violation) = scene.turn(&mut dice, tally) {
            return Err(failure(&scene.side.script, violation));
        }
    }
    Ok(())
}

impl Peer {
    fn new(dice: &mut Dice, terms: &Terms) -> Self {
        let (min_interval, slowest) = (terms.min_interval, terms.slowest());
        let mut peer = Self {
            hello: announced([1, 2, 1, 1]),
            timeout: 1,
            slowest,
            min_interval,
            left: 0,
            next_at: 0,
            pings: 0,
        };
        peer.announce(dice);
        peer
    }

    /// Other timings, between two groups.
    fn announce(&mut self, dice: &mut Dice) {
        let misses: u32 = dice.one(&[1, 1, 2, 3, 40, 255]);
        self.timeout = dice.one(&[1, 10, 1_000, 100_000]);
        let interval = dice.one(&[100_000, 1_000_000]);
        let detection = interval + self.timeout * u64::from(misses);
        let min_interval = dice.one(&[1, 1_000]).min(self.slowest);
        self.hello = announced([interval, detection, min_interval, misses.into()]);
    }

    /// One ping leaves.
    fn ping(&mut self, now: u64) -> Control {
        let misses = self.hello.max_missed;
        if self.left == 0 {
            self.left = 2 * misses;
        }
        self.left -= 1;
        self.pings += 1;
        self.next_at = if self.left == 0 {
            now + self.min_interval
        } else if self.left >= misses {
            // A stall, and a fresh ping.
            now
        } else {
            now + self.timeout
        };
        Control::Ping(nonce(self.pings))
    }
}

impl Scene {
    fn new(dice: &mut Dice) -> Self {
        let scale = dice.one(&[Scale::Few, Scale::Millis, Scale::Millis]);
        let config = loop {
            let config = dice::config(dice, scale);
            let fits = matches!(config.evidence(), Evidence::AnyBytes | Evidence::Frame);
            if fits && config.write_stall().is_none() {
                break config;
            }
        };
        let script = Script {
            config,
            seed: dice.number(),
            start: 0,
            hello: true,
            sent: 0,
            calls: Vec::new(),
        };
        let side = Side::new(script);
        let peer = Peer::new(dice, &side.judge.facts.terms);
        let mut path = VecDeque::new();
        path.push_back(Control::Hello(peer.hello));
        Self {
            side,
            peer,
            path,
            slow_until: 0,
            trickle: 1,
            trickled: 0,
            lateness: dice.one(&[0, 0, 10, 3_000_000]),
            now: 0,
        }
    }

    /// The longest that the path may say nothing.
    fn bound(&self) -> u64 {
        // The next Hello may announce any min_interval.
        let terms = Terms {
            peer: None,
            ..self.side.judge.facts.terms
        };
        terms.shortest() + terms.budget()
    }

    fn turn(&mut self, dice: &mut Dice, tally: &mut Tally) -> Result<(), Violation> {
        let slow = self.slow_until > self.now;
        if !slow && dice.chance(20) {
            let bound = self.bound();
            self.slow_until = self.now + dice.one(&[1, 10, 100, 1_000]) * self.peer.min_interval;
            self.trickle = if dice.chance(50) {
                bound - 1
            } else {
                (bound / 2).max(1)
            };
            tally.count("holds");
        }
        let deadline = self.side.judge.seen.deadline.unwrap_or(u64::MAX);
        let trickles = if slow {
            self.trickled + self.trickle
        } else {
            self.now
        };
        let mut next = self.peer.next_at.min(deadline);
        if slow || !self.path.is_empty() {
            next = next.min(trickles);
        }
        self.now = next.max(self.now);
        let mut burst = 0;
        while self.peer.next_at <= self.now && burst < 200 {
            let ping = self.peer.ping(self.peer.next_at);
            self.path.push_back(ping);
            burst += 1;
            if self.peer.left == 0 && dice.chance(10) {
                self.peer.announce(dice);
                self.path.push_back(Control::Hello(self.peer.hello));
            }
        }
        self.deliver(trickles, tally)?;
        self.serve(dice, tally)
    }

    fn deliver(&mut self, trickles: u64, tally: &mut Tally) -> Result<(), Violation> {
        let now = self.now;
        let slow = self.slow_until > now;
        if slow && trickles > now {
            return Ok(());
        }
        if slow && !self.path.iter().any(is_evidence) {
            self.path.push_back(Control::Alive);
        }
        let mut delivered = 0;
        while let Some(frame) = self.path.pop_front() {
            self.side.read(frame, now, tally)?;
            delivered += 1;
            if is_evidence(&frame) {
                self.trickled = now;
                if slow {
                    break;
                }
            }
        }
        if delivered > 100 {
            tally.count("bursts above 100");
        }
        Ok(())
    }

    fn serve(&mut self, dice: &mut Dice, tally: &mut Tally) -> Result<(), Violation> {
        let now = self.now;
        let side = &mut self.side;
        if side.judge.seen.deadline.is_some_and(|at| at <= now) {
            side.look_at_the_clock(now, tally)?;
        }
        if dice.chance(1) {
            side.call(now, dice.one(&[Op::Close(0), Op::Finish]), tally)?;
        }
        side.hand_out(now, tally)?;
        for frame in side.flush(now, tally)? {
            match frame {
                Control::Ping(nonce) => self.path.push_back(Control::Pong(nonce)),
                Control::Hello(hello) => self.peer.min_interval = micros(hello.min_interval),
                Control::Goodbye(_) => {
                    let received = Control::Goodbye(GoodbyeCode::RECEIVED);
                    self.path.push_back(received);
                }
                _ => {}
            }
        }
        if dice.chance(5) {
            side.call(now, Op::Backlog, tally)?;
        }
        side.drain(now, tally)?;
        if self.lateness > 0 && dice.chance(10) {
            // We sleep. What the peer does meanwhile waits.
            self.now = now + dice.below(self.lateness);
            match self.path.pop_front() {
                Some(frame) if is_evidence(&frame) => self.side.read(frame, self.now, tally)?,
                waited => {
                    self.side.call(self.now, Op::Message, tally)?;
                    if let Some(frame) = waited {
                        self.path.push_front(frame);
                    }
                }
            }
            self.trickled = self.now;
        }
        match self.side.events.iter().find(|event| event.is_terminal()) {
            Some(Event::Dead(death)) => {
                let what = format!("promise 9: a compliant peer is dead, {}", death.cause);
                Err(Violation::new(what, format!("{death:?}\n{:?}", self.peer)))
            }
            _ => Ok(()),
        }
    }
}

/// A question is none.
fn is_evidence(frame: &Control) -> bool {
    !matches!(frame, Control::Ping(_))
}
