//! One possible history of the monitor's state, as docs/state-machine.md has
//! it: what it holds, and what it shows. `moves.rs` says how calls change it.

use std::time::Duration;

use heartbeat_core::{Cause, CloseReason, Control, Event, Hello, Nonce, State};

use crate::{
    after::After,
    facts::{Facts, World},
    fork::{Fork, Open},
    rtt,
    seen::Seen,
    span::{NEVER, Span},
    terms::Terms,
};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Life {
    Idle { probe_at: Option<u64> },
    Round(Round),
    Paused { keep: Keep, probe: bool },
    Leaving { until: u64, goodbye: Goodbye },
    Closed,
    Dead { missed: Span },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Round {
    pub(crate) verdict: Span,
    pub(crate) step: u64,
    pub(crate) early: Option<Span>,
    pub(crate) missed: u32,
    pub(crate) forgiven: u32,
    /// A ping of this round left.
    pub(crate) any_left: bool,
    /// When the latest one left, if it has.
    pub(crate) left: Option<u64>,
    /// The lateness of this beat was reported.
    pub(crate) told: bool,
}

/// When the next keepalive ping of a pause is due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Keep {
    At(u64),
    /// One waits to leave; until then the documents don't say.
    Unsent(Option<u64>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goodbye {
    Due,
    InFlight,
}

/// What a ping is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Round,
    /// Of a round, and before that it was a keepalive ping.
    Merged,
    Fresh,
    Keepalive,
    /// For a round that is over.
    Overtaken,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ping {
    pub(crate) kind: Kind,
    pub(crate) probe: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Flight {
    pub(crate) kind: Kind,
    /// The number of the probe's ping.
    pub(crate) probe: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Pending {
    pub(crate) connected: Option<Hello>,
    pub(crate) stall: Option<u64>,
    pub(crate) recovered: Option<u64>,
    pub(crate) beat: Option<u64>,
    /// Misses and silence.
    pub(crate) suspect: Option<(u32, u64)>,
    pub(crate) end: Option<Ending>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Ending {
    Closed(CloseReason),
    Dead {
        /// `None`: a Hello was refused.
        cause: Option<Cause>,
        missed: Span,
        silence: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) life: Life,
    pub(crate) after: After,
    pub(crate) due: Option<Ping>,
    pub(crate) flying: Option<Flight>,
    pub(crate) hello: bool,
    pub(crate) pong: Option<Nonce>,
    /// A `Suspect` was given and not taken back.
    pub(crate) suspected: bool,
    pub(crate) pending: Pending,
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
    Missed,
}

impl Candidate {
    pub(crate) fn new(terms: &Terms, hello: bool) -> Self {
        Self {
            life: Life::Idle { probe_at: None },
            after: After::draw(terms, true),
            due: None,
            flying: None,
            hello,
            pong: None,
            suspected: false,
            pending: Pending::default(),
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
        timeout: bool,
    ) -> Result<(), Mismatch> {
        self.state_fits(seen)?;
        self.events_fit(facts, seen)?;
        self.frames_fit(seen)?;
        self.deadline_fits(&facts.terms, world, seen.deadline, timeout)
    }

    fn state_fits(&self, seen: &Seen) -> Result<(), Mismatch> {
        let told = self.suspected || self.pending.suspect.is_some();
        let (state, missed) = match self.life {
            Life::Idle { .. } | Life::Round(_) => {
                let missed = match self.life {
                    Life::Round(round) => round.missed,
                    _ => 0,
                };
                let state = if told { State::Suspect } else { State::Alive };
                (state, Span::exactly(missed.into()))
            }
            Life::Paused { .. } => (State::Paused, Span::exactly(0)),
            Life::Leaving { .. } => (State::Closing, Span::new(0, NEVER)),
            Life::Closed => (State::Closed, Span::new(0, NEVER)),
            Life::Dead { missed } => (State::Dead, missed),
        };
        if seen.status.state != state {
            return Err(Mismatch::State(state));
        }
        if !missed.contains(seen.status.missed.into()) {
            return Err(Mismatch::Missed);
        }
        Ok(())
    }

    fn events_fit(&self, facts: &Facts, seen: &Seen) -> Result<(), Mismatch> {
        let mut events = seen.events.iter().copied();
        let pending = &self.pending;
        let duration = Duration::from_micros;
        if let Some(peer) = pending.connected {
            if events.next() != Some(Event::Connected { peer }) {
                return Err(Mismatch::Events("Connected"));
            }
        }
        if let Some(late) = pending.stall {
            let late = duration(late);
            if events.next() != Some(Event::LocalStall { late }) {
                return Err(Mismatch::Events("LocalStall"));
            }
        }
        if let Some(silence) = pending.recovered {
            let silent_for = duration(silence);
            if events.next() != Some(Event::Recovered { silent_for }) {
                return Err(Mismatch::Events("Recovered"));
            }
        }
        if let Some(exact) = pending.beat {
            match events.next() {
                Some(Event::Beat { rtt }) if rtt::is(exact, rtt) => {}
                _ => return Err(Mismatch::Events("Beat")),
            }
        }
        if let Some((missed, silence)) = pending.suspect {
            let silent_for = duration(silence);
            if events.next() != Some(Event::Suspect { missed, silent_for }) {
                return Err(Mismatch::Events("Suspect"));
            }
        }
        if let Some(end) = pending.end {
            end.fits(facts, events.next())?;
        }
        match events.next() {
            None => Ok(()),
            Some(Event::Connected { .. }) => Err(Mismatch::Events("unexpected Connected")),
            Some(Event::LocalStall { .. }) => Err(Mismatch::Events("unexpected LocalStall")),
            Some(Event::Recovered { .. }) => Err(Mismatch::Events("unexpected Recovered")),
            Some(Event::Beat { .. }) => Err(Mismatch::Events("unexpected Beat")),
            Some(Event::Suspect { .. }) => Err(Mismatch::Events("unexpected Suspect")),
            Some(_) => Err(Mismatch::Events("unexpected end")),
        }
    }

    fn frames_fit(&self, seen: &Seen) -> Result<(), Mismatch> {
        let mut frames = seen.frames.iter();
        let mut next = |expected: bool, matches: &dyn Fn(&Control) -> bool| {
            !expected || frames.next().is_some_and(matches)
        };
        let goodbye = matches!(
            self.life,
            Life::Leaving {
                goodbye: Goodbye::Due,
                ..
            }
        );
        let fits = next(self.hello, &|frame| matches!(frame, Control::Hello(_)))
            && next(self.pong.is_some(), &|frame| {
                self.pong
                    .is_some_and(|nonce| *frame == Control::Pong(nonce))
            })
            && next(self.due.is_some(), &|frame| {
                matches!(frame, Control::Ping(_))
            })
            && next(goodbye, &|frame| matches!(frame, Control::Goodbye));
        if fits && frames.next().is_none() {
            Ok(())
        } else {
            Err(Mismatch::Frames)
        }
    }

    fn deadline_fits(
        &mut self,
        terms: &Terms,
        world: &World,
        seen: Option<u64>,
        timeout: bool,
    ) -> Result<(), Mismatch> {
        let limit = self.limit.unwrap_or(NEVER);
        let at = seen.unwrap_or(NEVER);
        let wrong = |span: Span| Err(Mismatch::Deadline((span.lo < NEVER).then_some(span)));
        match &mut self.life {
            Life::Closed | Life::Dead { .. } => match seen {
                None => Ok(()),
                Some(_) => Err(Mismatch::Deadline(None)),
            },
            Life::Leaving { until, .. } => {
                let expected = Span::exactly(*until);
                if seen == Some(*until) {
                    Ok(())
                } else {
                    wrong(expected)
                }
            }
            Life::Idle { probe_at } => {
                let others = limit.min(probe_at.unwrap_or(NEVER));
                let ends = self.after.ends(terms, world.last);
                let fits = if at < others || ends.hi <= at {
                    at <= others && self.after.ended_at(terms, world.last, at)
                } else {
                    at == others && self.after.not_before(terms, world.last, at)
                };
                if fits {
                    Ok(())
                } else {
                    wrong(ends.at_most(others))
                }
            }
            Life::Round(round) => {
                let fixed = round.step.min(limit);
                let early = round.early.unwrap_or(Span::exactly(NEVER));
                let span = Span::new(
                    fixed.min(round.verdict.lo).min(early.lo),
                    fixed.min(round.verdict.hi).min(early.hi),
                );
                if !span.contains(at) {
                    return wrong(span);
                }
                round.verdict = round.verdict.at_least(at);
                if round.early.is_some() {
                    round.early = Some(early.at_least(at));
                }
                // Below everything else, it is the only one that can be so early.
                let verdict = round.verdict;
                if at < fixed && at < early.lo {
                    round.verdict = Span::exactly(at);
                } else if at < fixed && at < verdict.lo {
                    round.early = Some(Span::exactly(at));
                }
                Ok(())
            }
            Life::Paused {
                keep: Keep::At(due),
                ..
            } => {
                let expected = limit.min(*due);
                if at == expected {
                    Ok(())
                } else {
                    wrong(Span::exactly(expected))
                }
            }
            Life::Paused {
                keep: Keep::Unsent(due),
                ..
            } => {
                if at > limit || timeout && at <= world.now {
                    return wrong(Span::new(world.now.saturating_add(1), limit));
                }
                *due = seen.filter(|&at| at < limit).or(*due);
                Ok(())
            }
        }
    }

    /// `poll_transmit` gave its first frame, which was the one expected.
    pub(crate) fn transmitted(&mut self, number: u64) {
        if self.hello {
            self.hello = false;
        } else if self.pong.is_some() {
            self.pong = None;
        } else if let Some(ping) = self.due.take() {
            let before = self.flying.and_then(|flight| flight.probe);
            self.flying = Some(Flight {
                kind: ping.kind,
                probe: before.or(ping.probe.then_some(number)),
            });
        } else if let Life::Leaving { goodbye, .. } = &mut self.life {
            *goodbye = Goodbye::InFlight;
        }
    }

    /// `poll_event` gave its first event, which was the one expected.
    pub(crate) fn drained(&mut self) {
        let pending = &mut self.pending;
        if pending.connected.take().is_some()
            || pending.stall.take().is_some()
            || pending.recovered.take().is_some()
            || pending.beat.take().is_some()
        {
            return;
        }
        if pending.suspect.take().is_some() {
            self.suspected = true;
        } else {
            pending.end = None;
        }
    }

    /// Whether a probe waits, or a probe's ping hasn't left.
    pub(crate) fn probing(&self) -> bool {
        let waits = matches!(
            self.life,
            Life::Idle { probe_at: Some(_) } | Life::Paused { probe: true, .. }
        );
        waits
            || self.due.is_some_and(|ping| ping.probe)
            || self.flying.is_some_and(|flight| flight.probe.is_some())
    }

    /// Whether the interval in force at `now`. Where that is hidden,
    /// both are followed.
    pub(crate) fn is_over(&mut self, world: &World, fork: &mut Fork) -> bool {
        let now = world.now.min(NEVER - 1);
        let ends = self.after.ends(&world.terms, world.last);
        if ends.lo > now {
            false
        } else if ends.hi <= now {
            true
        } else if fork.first(Open::Hidden) {
            self.after.not_after(&world.terms, world.last, now)
        } else {
            self.after.not_before(&world.terms, world.last, now + 1);
            false
        }
    }
}

impl Ending {
    fn fits(self, facts: &Facts, event: Option<Event>) -> Result<(), Mismatch> {
        let fits = match (self, event) {
            (Self::Closed(reason), Some(Event::Closed { reason: told })) => reason == told,
            (
                Self::Dead {
                    cause,
                    missed,
                    silence,
                },
                Some(Event::Dead(death)),
            ) => {
                let caused = match cause {
                    Some(cause) => death.cause == cause,
                    None => crate::api::is_refusal(death.cause),
                };
                if !caused {
                    return Err(Mismatch::Events("the cause of death"));
                }
                if death.silent_for != Duration::from_micros(silence) {
                    return Err(Mismatch::Events("the silence before death"));
                }
                if !missed.contains(death.missed.into()) {
                    return Err(Mismatch::Events("the misses before death"));
                }
                match (facts.rtt.last, death.last_rtt) {
                    (None, None) => true,
                    (Some(exact), Some(told)) => rtt::is(exact, told),
                    _ => return Err(Mismatch::Events("the last round trip before death")),
                }
            }
            _ => return Err(Mismatch::Events("the terminal event")),
        };
        if fits {
            Ok(())
        } else {
            Err(Mismatch::Events("the terminal event"))
        }
    }
}
