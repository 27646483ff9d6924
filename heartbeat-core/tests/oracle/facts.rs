//! What happened, as far as it follows from the calls alone.
//!
//! Time, evidence, Hellos, pings and their answers, round trips and the flood
//! limit need no knowledge of what the monitor is doing, except whether it
//! reads, and whether it still judges at all: that its status shows.

use std::time::Duration;

use heartbeat_core::{Config, Evidence, State};

use crate::{
    flood::Flood,
    ops::{Allowed, Answer, Op},
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
    /// If a round was under way, which is hidden.
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
    /// Whether we didn't read before the call, and don't after it.
    pub(crate) paused: [bool; 2],
    pub(crate) heard: Option<Heard>,
    /// The Hello says something new, or the interval that is set is another one.
    pub(crate) news: bool,
    /// The Hello or the interval is.
    pub(crate) refused: bool,
    pub(crate) flood: bool,
    pub(crate) sample: Sample,
    /// A pong answered a ping whose flush wasn't reported.
    pub(crate) answered_in_flight: bool,
    /// Since when the peer is silent, this call included.
    pub(crate) last: u64,
    /// When a ping of ours last left.
    pub(crate) left: Option<u64>,
    /// Whether the latest ping was answered, or none was sent.
    pub(crate) settled: bool,
    /// Whether a ping that left is unanswered.
    pub(crate) awaits: bool,
    /// When we last spoke, as of before the call and after it.
    pub(crate) spoke: [u64; 2],
    /// What the protocol allowed before the call, and what after it.
    pub(crate) allowed: [Allowed; 2],
    /// The peer is judged afresh, as if it had just been heard.
    pub(crate) afresh: bool,
    pub(crate) rto: Option<Span>,
}

impl World {
    /// Whether silence counts after the call.
    pub(crate) fn judging(&self) -> bool {
        self.judging_as(self.allowed[1])
    }

    /// Whether silence counts, if this is what the protocol allows: a ping may leave, or
    /// one is unanswered that a kernel can't have answered.
    pub(crate) fn judging_as(&self, allowed: Allowed) -> bool {
        let asked = !self.settled && self.terms.evidence != Evidence::Acknowledgement;
        allowed.answer && (allowed.ping || asked)
    }
}

/// A ping that a round trip can be measured with.
#[derive(Clone, Copy, Debug)]
struct Timed {
    number: u64,
    left: u64,
    /// Whether it can is hidden.
    perhaps: bool,
}

/// Whether a ping left in a round that had asked before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Asked {
    No,
    Yes,
    Perhaps,
}

#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) config: Config,
    pub(crate) terms: Terms,
    pub(crate) now: u64,
    pub(crate) last: u64,
    /// We don't read, or a direction has ended.
    pub(crate) paused: bool,
    half_closed: bool,
    /// Our Fin was handed out, and its flush wasn't reported.
    fin_in_flight: bool,
    pub(crate) rtt: RoundTrips,
    pub(crate) flood: Flood,
    pub(crate) sent: u64,
    pub(crate) pongs: u32,
    answered: u64,
    /// The latest ping was handed out, and its flush wasn't reported.
    in_flight: bool,
    /// When a ping last left.
    left: Option<u64>,
    /// The latest ping that left, and the first of its round.
    latest: Option<Timed>,
    first: Option<Timed>,
    /// When a Hello last came, or an interval was set.
    changed: Option<u64>,
    /// How late the calls were lately.
    lateness: u64,
    spoke: u64,
    pub(crate) allowed: Allowed,
}

impl Facts {
    pub(crate) fn new(config: &Config, hello: bool, now: u64) -> Self {
        let terms = Terms::new(config, !hello);
        Self {
            config: *config,
            terms,
            now,
            last: now,
            paused: false,
            half_closed: false,
            fin_in_flight: false,
            rtt: RoundTrips::default(),
            flood: Flood::new(hello, terms.min_interval, now),
            sent: 0,
            pongs: 0,
            answered: 0,
            in_flight: false,
            left: None,
            latest: None,
            first: None,
            changed: None,
            lateness: 0,
            spoke: now,
            allowed: Allowed::ALL,
        }
    }

    pub(crate) fn transmitted(&mut self) {
        self.sent += 1;
        self.in_flight = true;
    }

    /// Our Fin was handed out.
    pub(crate) const fn finished(&mut self) {
        self.fin_in_flight = true;
    }

    /// Pings that aren't answered and still may be.
    pub(crate) fn unanswered(&self) -> u64 {
        self.sent - self.answered
    }

    fn awaits(&self) -> bool {
        self.unanswered() > u64::from(self.in_flight)
    }

    /// What a call means. `state` and `deadline` are those before it.
    pub(crate) fn take(
        &mut self,
        op: Op,
        now: u64,
        state: State,
        deadline: Option<u64>,
        asked: Asked,
    ) -> World {
        if op == Op::Discarded {
            return self.idle_world();
        }
        if matches!(op, Op::SetInterval(interval) if self.with_interval(interval).is_none()) {
            // Nothing changes, not even the time.
            let refused = true;
            return World {
                refused,
                ..self.idle_world()
            };
        }
        self.now = self.now.max(now);
        let judges = !matches!(state, State::Closed | State::Dead);
        let paused = self.paused;
        let late = deadline.map_or(0, |deadline| self.now.saturating_sub(deadline));
        if op == Op::Timeout && deadline.is_some_and(|deadline| deadline <= self.now) {
            self.lateness -= self.lateness.div_ceil(32);
        }
        self.lateness = self.lateness.max(late.min(self.terms.timeout));
        let slept = late > self.terms.tolerance || late > 0 && late >= self.terms.budget();
        if slept && judges {
            self.untime();
        }
        let shows = match op {
            Op::End(_) | Op::NotReading | Op::HalfClose => false,
            Op::Timeout => true,
            Op::Resumed => paused && !self.half_closed,
            _ => !paused,
        };
        let (allowed, spoke) = (self.allowed, self.spoke);
        let mut world = World {
            late,
            stall: slept && judges && shows,
            ..self.idle_world()
        };
        if judges {
            self.judge(op, paused, &mut world);
            self.half_closed |= op == Op::HalfClose;
            let paused = (paused || op == Op::Paused) && op != Op::Resumed;
            self.paused = paused || self.half_closed;
        }
        world.terms = self.terms;
        world.last = self.last;
        world.allowed = [allowed, self.allowed];
        if matches!(op, Op::Flushed | Op::Progress | Op::Sent) || world.answered_in_flight {
            self.spoke = self.now;
        }
        world.spoke = [spoke, self.spoke];
        if op == Op::Flushed && self.in_flight {
            self.flushed(asked);
        }
        let fin_left = op == Op::Flushed && std::mem::take(&mut self.fin_in_flight);
        if fin_left && self.terms.foreign && judges {
            self.untime();
            (self.half_closed, self.paused) = (true, true);
        }
        world.paused = [paused, self.paused];
        world.left = self.left;
        world.settled = self.unanswered() == 0;
        world.awaits = self.awaits();
        // Beside that, the peer may be late as we are.
        let patience = self.lateness.saturating_mul(8);
        world.rto = self.rtt.timeout(&self.terms, patience);
        world
    }

    /// No ping that has left is timed any more.
    fn untime(&mut self) {
        (self.latest, self.first) = (None, None);
    }

    fn judge(&mut self, op: Op, paused: bool, world: &mut World) {
        let now = self.now;
        let grade = self.terms.evidence;
        let of_bytes = matches!(grade, Evidence::Acknowledgement | Evidence::AnyBytes);
        let of_frames = grade != Evidence::Echo;
        let pong = match op {
            Op::Pong(Answer::Ping(number)) => Some(number as u64),
            Op::UnnumberedPong => Some(self.oldest()),
            _ => None,
        };
        let pong = pong.filter(|number| (self.oldest()..self.sent).contains(number));
        let heard = match op {
            Op::Bytes if of_bytes => Some(now),
            Op::Acknowledged(at) if grade == Evidence::Acknowledgement => {
                Some(at.min(now)).filter(|&at| at > self.last)
            }
            Op::Taken(at) if of_bytes && self.terms.foreign => {
                Some(at.min(now)).filter(|&at| at > self.last)
            }
            Op::Message | Op::Hello(_) | Op::OwnHello(_) | Op::Goodbye(_) if of_frames => Some(now),
            Op::Alive | Op::Fin | Op::Reserved if of_frames => Some(now),
            // A question is no answer, unless nothing else shows life.
            Op::Ping(_) if of_frames && self.terms.foreign => Some(now),
            Op::Pong(_) | Op::UnnumberedPong if of_frames || pong.is_some() => Some(now),
            _ => None,
        };
        if let Some(at) = heard {
            world.heard = Some(Heard {
                at,
                silence: at - self.last,
            });
            self.last = at;
        }
        match op {
            Op::Hello(hello) => {
                world.refused = self.terms.refuses(&hello);
                world.news = self.terms.peer != Some(hello) && !world.refused;
                if world.news {
                    self.terms.peer = Some(hello);
                    (self.terms.beats, self.allowed.beats) = (0, 0);
                    self.changed = Some(now);
                    self.flood.hello(&hello);
                }
            }
            Op::Ping(_) => world.flood = self.flood.ping(now),
            Op::Paused if !paused => self.untime(),
            Op::HalfClose => self.untime(),
            Op::Resumed if paused && !self.half_closed => {
                self.untime();
                self.last = now;
                world.afresh = true;
            }
            Op::Dialogue(allowed) if !self.half_closed => self.change(allowed, paused, world),
            Op::SetInterval(interval) => self.set_interval(interval, world),
            _ => {}
        }
        if let Some(number) = pong {
            self.answer(number, world);
        }
    }

    /// Our configuration with another I, and with m up to that; none if it is refused.
    fn with_interval(&self, interval: u64) -> Option<Config> {
        let interval = Duration::from_micros(interval);
        let shortened = self.config.min_interval().min(interval);
        let builder = self.config.to_builder().interval(interval);
        let config = builder.min_interval(shortened).build().ok()?;
        let terms = Terms::new(&config, self.terms.foreign);
        let refuses = self.terms.peer.is_some_and(|peer| terms.refuses(&peer));
        let becomes_hasty = self.terms.peer.is_some_and(|peer| {
            let hasty = |terms: &Terms| terms.is_hasty_for(&peer);
            hasty(&terms) && !hasty(&self.terms)
        });
        (!refuses && !becomes_hasty).then_some(config)
    }

    fn set_interval(&mut self, interval: u64, world: &mut World) {
        let config = self.with_interval(interval);
        let Some(config) = config.filter(|&config| config != self.config) else {
            return;
        };
        world.news = true;
        self.config = config;
        self.terms = Terms {
            peer: self.terms.peer,
            beats: self.terms.beats,
            ..Terms::new(&config, self.terms.foreign)
        };
        self.changed = Some(self.now);
        self.flood.accept(self.terms.min_interval);
    }

    /// The protocol's state changed.
    fn change(&mut self, allowed: Allowed, paused: bool, world: &mut World) {
        // A Hello counts for more.
        let beats = match self.terms.peer {
            Some(_) => 0,
            None => allowed.beats,
        };
        let allowed = Allowed { beats, ..allowed };
        let former = std::mem::replace(&mut self.allowed, allowed);
        self.terms.beats = beats;
        if former.beats != beats {
            self.changed = Some(self.now);
        }
        world.afresh = !paused && !former.answer && allowed.answer;
        if world.afresh {
            self.last = self.now;
        }
        if former.answer != allowed.answer {
            self.untime();
        }
    }

    /// The oldest ping that is unanswered, of those that are remembered.
    fn oldest(&self) -> u64 {
        let remembered = self.terms.remembered();
        self.answered.max(self.sent.saturating_sub(remembered))
    }

    fn answer(&mut self, number: u64, world: &mut World) {
        self.pongs = self.pongs.wrapping_add(1);
        self.answered = number + 1;
        if self.in_flight && self.answered == self.sent {
            // It must have left.
            world.answered_in_flight = true;
            self.in_flight = false;
            self.left = Some(self.now);
            self.untime();
            return;
        }
        let timed = [self.latest, self.first].into_iter().flatten();
        world.sample = match timed.clone().find(|ping| ping.number == number) {
            None => Sample::No,
            Some(ping) if ping.perhaps => Sample::Maybe(self.now - ping.left),
            Some(ping) => Sample::Yes(self.now - ping.left),
        };
    }

    fn flushed(&mut self, asked: Asked) {
        self.in_flight = false;
        self.left = Some(self.now);
        let first = self.first.or(self.latest);
        self.first = match asked {
            Asked::No => None,
            Asked::Yes => first,
            Asked::Perhaps => first.map(|ping| Timed {
                perhaps: true,
                ..ping
            }),
        };
        self.latest = Some(Timed {
            number: self.sent - 1,
            left: self.now,
            perhaps: false,
        });
    }

    /// What a poll means: nothing.
    pub(crate) fn idle_world(&self) -> World {
        World {
            terms: self.terms,
            former: self.terms,
            now: self.now,
            late: 0,
            stall: false,
            paused: [self.paused; 2],
            heard: None,
            news: false,
            refused: false,
            flood: false,
            sample: Sample::No,
            answered_in_flight: false,
            last: self.last,
            left: self.left,
            settled: self.unanswered() == 0,
            awaits: self.awaits(),
            spoke: [self.spoke; 2],
            allowed: [self.allowed; 2],
            afresh: false,
            rto: None,
        }
    }

    /// When a ping of ours last left.
    pub(crate) fn left_at(&self) -> Option<u64> {
        self.left
    }

    /// Whether a Hello came since then, or at that time, or an interval was set.
    pub(crate) fn changed_terms(&self, since: u64) -> bool {
        self.changed.is_some_and(|changed| changed >= since)
    }
}
