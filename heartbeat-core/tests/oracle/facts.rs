//! What happened, as far as it follows from the calls alone.
//!
//! Time, evidence, Hellos, pings and their answers, round trips and the flood
//! limit need no knowledge of what the monitor is doing, except whether it
//! reads, and whether it still judges at all: that its status shows.

use std::collections::VecDeque;

use heartbeat_core::{Config, Evidence, State};

use crate::{
    flood::Flood,
    ops::{Answer, Op},
    rtt::RoundTrips,
    span::Span,
    terms::Terms,
};

/// Evidence of life, as one call brings it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Heard {
    /// When it is from.
    pub(crate) at: u64,
    /// The silence that it ends.
    pub(crate) silence: u64,
}

/// What a pong measures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Sample {
    No,
    Yes(u64),
    /// The documents leave open whether it counts.
    Maybe(u64),
}

/// What one call means, for all that is known without the state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct World {
    pub(crate) terms: Terms,
    /// Before a Hello changed them.
    pub(crate) former: Terms,
    pub(crate) now: u64,
    /// How long after the deadline the call comes.
    pub(crate) late: u64,
    pub(crate) stall: bool,
    /// The deadline had come before the call changed anything.
    pub(crate) due: bool,
    pub(crate) heard: Option<Heard>,
    /// The Hello says something new.
    pub(crate) news: bool,
    pub(crate) refused: bool,
    pub(crate) flood: bool,
    pub(crate) sample: Sample,
    /// Since when the peer is silent, this call included.
    pub(crate) last: u64,
    /// When a ping of ours last left, and whether after the last evidence.
    pub(crate) left: Option<(u64, Order)>,
    pub(crate) sent: u64,
    /// Pings with a lower number are answered.
    pub(crate) answered: u64,
    pub(crate) rto: Option<Span>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Order {
    Before,
    /// At the same time.
    Same,
    After,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    number: u64,
    left: Option<u64>,
    timed: Timed,
}

/// Whether a ping can measure a round trip.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Timed {
    Yes,
    /// A pause began after it had left, or it left in one.
    Paused,
    No,
}

#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) terms: Terms,
    pub(crate) now: u64,
    pub(crate) last: u64,
    pub(crate) rtt: RoundTrips,
    pub(crate) flood: Flood,
    pub(crate) sent: u64,
    /// `status().pongs`, which may count an answer once or for each ping that
    /// it answers.
    pub(crate) pongs: Span,
    answered: u64,
    pings: VecDeque<Sent>,
    left: Option<(u64, Order)>,
    /// When a Hello last came.
    changed: Option<u64>,
}

impl Facts {
    pub(crate) fn new(config: &Config, hello: bool, now: u64) -> Self {
        let terms = Terms::new(config);
        Self {
            terms,
            now,
            last: now,
            rtt: RoundTrips::default(),
            flood: Flood::new(hello, terms.min_interval, now),
            sent: 0,
            pongs: Span::exactly(0),
            answered: 0,
            pings: VecDeque::new(),
            left: None,
            changed: None,
        }
    }

    pub(crate) fn transmitted(&mut self) {
        self.pings.push_back(Sent {
            number: self.sent,
            left: None,
            timed: Timed::Yes,
        });
        self.sent += 1;
        if self.pings.len() as u64 > 2 * u64::from(self.terms.misses) + 4 {
            self.pings.pop_front();
        }
    }

    /// Pings that aren't answered and still may be.
    pub(crate) fn unanswered(&self) -> u64 {
        self.sent - self.answered
    }

    fn look(&self, state: State, deadline: Option<u64>) -> (u64, bool) {
        let late = deadline.map_or(0, |deadline| self.now.saturating_sub(deadline));
        let asleep = late > self.terms.tolerance || late > 0 && late >= self.terms.budget();
        (
            late,
            asleep && matches!(state, State::Alive | State::Suspect | State::Paused),
        )
    }

    /// What a call means. `state` and `deadline` are those before it.
    pub(crate) fn take(&mut self, op: Op, now: u64, state: State, deadline: Option<u64>) -> World {
        self.now = self.now.max(now);
        let (late, mut stall) = self.look(state, deadline);
        let paused = state == State::Paused;
        if paused {
            stall &= matches!(op, Op::Timeout | Op::Resumed);
        }
        if stall {
            self.untime(Timed::No);
        }
        let mut world = World {
            late,
            stall,
            due: deadline.is_some_and(|deadline| deadline <= self.now),
            ..self.idle_world()
        };
        if matches!(state, State::Alive | State::Suspect | State::Paused) {
            self.judge(op, paused, &mut world);
        }
        world.terms = self.terms;
        world.last = self.last;
        world.left = self.left;
        world.answered = self.answered;
        if op == Op::Flushed {
            self.flushed(paused);
        }
        world.rto = self.rtt.timeout(&self.terms);
        world
    }

    /// All pings that have left aren't timed any more, or only perhaps.
    fn untime(&mut self, timed: Timed) {
        for ping in &mut self.pings {
            if ping.left.is_some() && ping.timed != Timed::No {
                ping.timed = timed;
            }
        }
    }

    fn judge(&mut self, op: Op, paused: bool, world: &mut World) {
        let now = self.now;
        let grade = self.terms.evidence;
        let of_bytes = matches!(grade, Evidence::Acknowledgement | Evidence::AnyBytes);
        let of_frames = grade != Evidence::Echo;
        let pong = match op {
            Op::Pong(Answer::Ping(number)) => self.find(number as u64),
            Op::UnnumberedPong => self.find(self.answered.max(self.oldest())),
            _ => None,
        };
        let heard = match op {
            Op::Bytes if of_bytes => Some(now),
            Op::Acknowledged(at) if grade == Evidence::Acknowledgement => {
                Some(at.min(now)).filter(|&at| at > self.last)
            }
            Op::Message | Op::Hello(_) | Op::Ping(_) | Op::Goodbye if of_frames => Some(now),
            Op::Pong(_) | Op::UnnumberedPong if of_frames || pong.is_some() => Some(now),
            _ => None,
        };
        if let Some(at) = heard {
            world.heard = Some(Heard {
                at,
                silence: at - self.last,
            });
            self.hear(at);
        }
        match op {
            Op::Hello(hello) => {
                world.news = self.terms.peer != Some(hello);
                world.refused = self.terms.refuses(&hello);
                self.terms.peer = Some(hello);
                self.changed = Some(now);
                self.flood.hello(&hello, now);
            }
            Op::Ping(_) => world.flood = self.flood.ping(now),
            Op::Pong(_) | Op::UnnumberedPong => {
                if let Some(ping) = pong {
                    world.sample = self.answer(ping);
                }
            }
            Op::Paused if !paused => self.untime(Timed::Paused),
            Op::Resumed if paused => {
                self.untime(Timed::No);
                self.hear(now);
            }
            _ => {}
        }
    }

    fn hear(&mut self, at: u64) {
        self.last = at;
        if let Some((left, order)) = &mut self.left {
            *order = match (*left).cmp(&at) {
                std::cmp::Ordering::Less => Order::Before,
                std::cmp::Ordering::Equal => Order::Same,
                std::cmp::Ordering::Greater => Order::After,
            };
        }
    }

    /// The oldest ping whose answer is still known: the last 2·N are.
    fn oldest(&self) -> u64 {
        self.sent.saturating_sub(2 * u64::from(self.terms.misses))
    }

    /// A ping of ours that is unanswered.
    fn find(&self, number: u64) -> Option<Sent> {
        if number < self.answered.max(self.oldest()) {
            return None;
        }
        self.pings
            .iter()
            .rev()
            .find(|ping| ping.number == number)
            .copied()
    }

    fn answer(&mut self, ping: Sent) -> Sample {
        let count = ping.number + 1 - self.answered;
        self.pongs = Span::new(self.pongs.lo + 1, self.pongs.hi + count);
        self.answered = ping.number + 1;
        let Some(left) = ping.left else {
            return Sample::No;
        };
        let rtt = self.now - left;
        let latest = ping.number + 1 == self.sent;
        match ping.timed {
            Timed::No => Sample::No,
            Timed::Yes if latest => Sample::Yes(rtt),
            Timed::Yes | Timed::Paused => Sample::Maybe(rtt),
        }
    }

    fn flushed(&mut self, paused: bool) {
        let mut any = false;
        for ping in self.pings.iter_mut().filter(|ping| ping.left.is_none()) {
            ping.left = Some(self.now);
            ping.timed = if paused { Timed::Paused } else { Timed::Yes };
            any = true;
        }
        if any {
            let order = if self.now > self.last {
                Order::After
            } else {
                Order::Same
            };
            self.left = Some((self.now, order));
        }
    }

    /// What a poll means: nothing.
    pub(crate) fn idle_world(&self) -> World {
        World {
            terms: self.terms,
            former: self.terms,
            now: self.now,
            late: 0,
            stall: false,
            due: false,
            heard: None,
            news: false,
            refused: false,
            flood: false,
            sample: Sample::No,
            last: self.last,
            left: self.left,
            sent: self.sent,
            answered: self.answered,
            rto: None,
        }
    }

    /// When a ping of ours last left.
    pub(crate) fn left_at(&self) -> Option<u64> {
        self.left.map(|(left, _)| left)
    }

    /// Whether a Hello came since then, or at that time.
    pub(crate) fn changed_terms(&self, since: u64) -> bool {
        self.changed.is_some_and(|changed| changed >= since)
    }
}
