//! One possible history of the monitor's state, as docs/state-machine.md has
//! it: what it holds, and what it shows. `moves.rs` says how calls change it.

use heartbeat_core::{Control, GoodbyeCode, Nonce, State};

use crate::{
    after::After,
    facts::{Facts, World},
    fork::Fork,
    parting::Parting,
    seen::Seen,
    span::{NEVER, Span},
    terms::Terms,
    told::Pending,
};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Life {
    Idle {
        probe_waits: bool,
    },
    Round(Round),
    Paused {
        /// When the next sign of life is due; `None` while one is on its way.
        sign: Option<u64>,
        probe_waits: bool,
    },
    /// A direction has ended: nothing is asked or judged.
    HalfClosed,
    Closed {
        /// What the peer's goodbye is still to be answered with.
        answer: Option<GoodbyeCode>,
    },
    Dead {
        missed: u32,
        /// What the peer is still to be told.
        goodbye: Option<GoodbyeCode>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Round {
    pub(crate) verdict: Span,
    pub(crate) step: Span,
    /// When the beat becomes suspicious.
    pub(crate) early: Option<Span>,
    pub(crate) missed: u32,
    pub(crate) forgiven: u32,
    /// A ping of this round left.
    pub(crate) asked: bool,
    /// The ping on its way is fresh after a stall.
    pub(crate) fresh: bool,
    /// This beat got more time, because we were late ourselves.
    pub(crate) excused: bool,
    /// The lateness of this beat was reported.
    pub(crate) reported: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Flight {
    Due,
    InFlight,
}

/// What becomes of a ping when evidence overtakes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Ping {
    /// It isn't sent if it wasn't handed out.
    Round,
    /// It leaves, and a round depends on it.
    Probe,
    /// It leaves.
    Keepalive,
    /// It leaves, unless another is wanted: then it becomes that.
    Speech,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) life: Life,
    pub(crate) after: After,
    /// A ping that waits to be handed out.
    pub(crate) due: Option<Ping>,
    /// One that was handed out and hasn't left. Never both.
    pub(crate) in_flight: Option<Ping>,
    pub(crate) hello: bool,
    pub(crate) pong: Option<Nonce>,
    /// The Alive that is on its way to the kernel.
    pub(crate) alive: Option<Flight>,
    /// When the last one left.
    pub(crate) alive_left: Option<u64>,
    /// A `Suspect` was given and not taken back.
    pub(crate) suspected: bool,
    pub(crate) pending: Pending,
    pub(crate) parting: Parting,
    /// When blocked writes end it.
    pub(crate) limit: Option<u64>,
    pub(crate) limit_moves: u32,
}

/// What doesn't fit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mismatch {
    /// `poll_timeout` should be this.
    Deadline(Option<Span>),
    Frames,
    Events(&'static str),
    State(State),
    Missed(u32),
    /// `is_idle` is wrong.
    Idle,
}

impl Candidate {
    pub(crate) fn new(terms: &Terms, hello: bool) -> Self {
        Self {
            life: Life::Idle { probe_waits: false },
            after: After::draw(terms, true),
            due: None,
            in_flight: None,
            hello,
            pong: None,
            alive: None,
            alive_left: None,
            suspected: false,
            pending: Pending::default(),
            parting: Parting::default(),
            limit: None,
            limit_moves: 0,
        }
    }

    /// Compares, and keeps what the answers show.
    pub(crate) fn fits(
        &mut self,
        facts: &Facts,
        world: &World,
        seen: &Seen,
    ) -> Result<(), Mismatch> {
        self.state_fits(facts, seen)?;
        self.pending.fits(facts, &seen.events)?;
        self.frames_fit(facts, seen)?;
        if seen.is_idle != (self.is_quiet() && facts.unanswered() == 0) {
            return Err(Mismatch::Idle);
        }
        self.deadline_fits(&facts.terms, world, seen.deadline)
    }

    fn state_fits(&self, facts: &Facts, seen: &Seen) -> Result<(), Mismatch> {
        let suspect = self.suspected || self.pending.suspect.is_some();
        let judging = match suspect {
            true => State::Suspect,
            false => State::Alive,
        };
        let (state, missed) = match self.life {
            Life::Idle { .. } if !facts.allowed.answer => (State::Occupied, 0),
            Life::Idle { .. } => (judging, 0),
            Life::Round(round) => (judging, round.missed),
            Life::Paused { .. } => (State::Paused, 0),
            Life::HalfClosed => (State::HalfClosed, 0),
            Life::Closed { .. } => (State::Closed, 0),
            Life::Dead { missed, .. } => (State::Dead, missed),
        };
        // It takes the place of what the peer counts as.
        let is_leaving = self.parting.is_leaving() && !self.has_ended();
        let state = if is_leaving { State::Closing } else { state };
        if seen.status.state != state {
            return Err(Mismatch::State(state));
        }
        if seen.status.missed != missed {
            return Err(Mismatch::Missed(missed));
        }
        Ok(())
    }

    fn frames_fit(&self, facts: &Facts, seen: &Seen) -> Result<(), Mismatch> {
        let mut frames = seen.frames.iter();
        let mut next = |expected: bool, matches: &dyn Fn(&Control) -> bool| {
            !expected || frames.next().is_some_and(matches)
        };
        let last_word = self.last_word();
        let fits = next(self.hello, &|frame| matches!(frame, Control::Hello(_)))
            && next(self.pong.is_some(), &|frame| {
                self.pong
                    .is_some_and(|nonce| *frame == Control::Pong(nonce))
            })
            && next(self.due.is_some() && facts.allowed.ping, &|frame| {
                matches!(frame, Control::Ping(_))
            })
            && next(self.alive == Some(Flight::Due), &|frame| {
                *frame == Control::Alive
            })
            && next(last_word.is_some(), &|frame| {
                last_word.is_some_and(|code| *frame == Control::Goodbye(code))
            });
        if fits && frames.copied().eq(self.parting.frames()) {
            Ok(())
        } else {
            Err(Mismatch::Frames)
        }
    }

    pub(crate) const fn has_ended(&self) -> bool {
        matches!(self.life, Life::Closed { .. } | Life::Dead { .. })
    }

    /// What the peer is told of the end.
    pub(crate) const fn last_word(&self) -> Option<GoodbyeCode> {
        match self.life {
            Life::Closed { answer: code } | Life::Dead { goodbye: code, .. } => code,
            _ => None,
        }
    }

    fn deadline_fits(
        &mut self,
        terms: &Terms,
        world: &World,
        seen: Option<u64>,
    ) -> Result<(), Mismatch> {
        let limit = self.limit.unwrap_or(NEVER);
        let limit = limit.min(self.parting.until().unwrap_or(NEVER));
        let limit = limit.min(self.speech(terms, world));
        let at = seen.unwrap_or(NEVER);
        let soonest = soonest(terms, world.left);
        let (fits, expected) = match &mut self.life {
            Life::Idle { .. } if !world.judging() => (at == limit, Span::exactly(limit)),
            Life::Closed { .. } | Life::Dead { .. } => (at == NEVER, Span::exactly(NEVER)),
            Life::Idle { probe_waits } => {
                let probe = if *probe_waits { soonest } else { NEVER };
                let others = limit.min(probe);
                let ends = self.after.ends(terms, world.last);
                let fits = if at < others || ends.hi <= at {
                    at <= others && self.after.ended_at(terms, world.last, at)
                } else {
                    at == others && self.after.not_before(terms, world.last, at)
                };
                (fits, ends.at_most(others))
            }
            Life::Round(round) => {
                let expected = round.deadline().at_most(limit);
                let fits = expected.contains(at);
                if fits {
                    round.shown(at, limit);
                }
                (fits, expected)
            }
            Life::Paused { sign, .. } => {
                let expected = limit.min(sign.unwrap_or(NEVER));
                (at == expected, Span::exactly(expected))
            }
            Life::HalfClosed => (at == limit, Span::exactly(limit)),
        };
        if fits {
            Ok(())
        } else {
            Err(Mismatch::Deadline(
                (expected.lo < NEVER).then_some(expected),
            ))
        }
    }

    /// When something must leave so that the peer hears us.
    pub(crate) fn speech(&self, terms: &Terms, world: &World) -> u64 {
        let speaks = !self.has_ended() && self.life != Life::HalfClosed;
        let is_on_its_way = self.on_its_way().is_some() || self.alive.is_some();
        let Some(within) = terms.speak.filter(|_| speaks && !is_on_its_way) else {
            return NEVER;
        };
        let due = world.spoke[1].saturating_add(within);
        match terms.foreign {
            true => due.max(soonest(terms, world.left)),
            false => due,
        }
    }

    /// `poll_transmit` gave its first frame, which was the one expected.
    pub(crate) fn transmitted(&mut self, may_ping: bool) {
        if self.hello {
            self.hello = false;
        } else if self.pong.is_some() {
            self.pong = None;
        } else if let (true, Some(ping)) = (may_ping, self.due) {
            (self.due, self.in_flight) = (None, Some(ping));
        } else if self.alive == Some(Flight::Due) {
            self.alive = Some(Flight::InFlight);
        } else {
            match &mut self.life {
                Life::Closed { answer: word } | Life::Dead { goodbye: word, .. } => *word = None,
                _ => self.parting.transmitted(),
            }
        }
    }

    /// `poll_event` gave its first event, which was the one expected.
    pub(crate) fn drained(&mut self) {
        self.suspected |= self.pending.drained();
        if self.pending.end.is_none() {
            if let Life::Closed { answer: word } | Life::Dead { goodbye: word, .. } = &mut self.life
            {
                // The stream is dropped.
                (*word, self.hello) = (None, false);
            }
        }
    }

    /// Whether a probe waits, or a probe's ping hasn't left.
    pub(crate) fn probing(&self) -> bool {
        let waits = match self.life {
            Life::Idle { probe_waits } | Life::Paused { probe_waits, .. } => probe_waits,
            _ => false,
        };
        waits || self.on_its_way() == Some(Ping::Probe)
    }

    /// Whether a round is under way of which a ping left.
    pub(crate) fn has_asked(&self) -> bool {
        matches!(self.life, Life::Round(round) if round.asked)
    }

    /// Whether it waits for nothing but silence, as far as the state says.
    pub(crate) fn is_quiet(&self) -> bool {
        matches!(self.life, Life::Idle { .. }) && self.on_its_way().is_none()
    }

    /// The ping that is due or in flight.
    pub(crate) fn on_its_way(&self) -> Option<Ping> {
        self.due.or(self.in_flight)
    }

    /// A ping is to be sent; one that is on its way serves as that. A probe's
    /// ping remains one, whatever it serves.
    pub(crate) fn want(&mut self, ping: Ping) {
        match (&mut self.due, &mut self.in_flight) {
            (Some(other), _) | (None, Some(other))
                if ping == Ping::Probe || *other == Ping::Speech =>
            {
                *other = ping;
            }
            (None, None) => self.due = Some(ping),
            _ => {}
        }
    }

    /// Whether the interval in force is over at `now`. Where that is hidden,
    /// both are followed.
    pub(crate) fn is_over(&mut self, world: &World, fork: &mut Fork) -> bool {
        if !world.judging() {
            return false;
        }
        let now = world.now.min(NEVER - 1);
        let ends = self.after.ends(&world.terms, world.last);
        if ends.lo > now {
            false
        } else if ends.hi <= now {
            true
        } else if fork.either() {
            self.after.not_after(&world.terms, world.last, now)
        } else {
            self.after.not_before(&world.terms, world.last, now + 1);
            false
        }
    }
}

/// When m′ is over after a ping that left at `left`.
pub(crate) fn soonest(terms: &Terms, left: Option<u64>) -> u64 {
    left.map_or(0, |left| left.saturating_add(terms.peers_min()))
}

impl Round {
    /// The early suspicion, the step or the verdict.
    pub(crate) fn deadline(&self) -> Span {
        let early = self.early.unwrap_or(Span::exactly(NEVER));
        self.verdict.sooner(self.step).sooner(early)
    }

    /// The next deadline was shown to be `at`.
    fn shown(&mut self, at: u64, limit: u64) {
        self.verdict = self.verdict.at_least(at);
        self.step = self.step.at_least(at);
        self.early = self.early.map(|early| early.at_least(at));
        let early = self.early.map_or(NEVER, |early| early.lo);
        let others = |one: u64, two: u64| one.min(two).min(limit);
        // Below all others it is the only one that can be so early.
        if at < others(self.step.lo, early) {
            self.verdict = Span::exactly(at);
        } else if at < others(self.verdict.lo, early) {
            self.step = Span::exactly(at);
        } else if at < others(self.verdict.lo, self.step.lo) {
            self.early = Some(Span::exactly(at));
        }
    }
}
