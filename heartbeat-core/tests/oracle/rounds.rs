//! Rounds and stalls: how a round begins, its steps, its verdict, and what
//! happens when it is we who were late.

use heartbeat_core::Cause;

use crate::{
    facts::{Order, World},
    fork::{Fork, Open},
    life::{Candidate, Flight, Kind, Life, Ping, Round},
    ops::Op,
    span::{NEVER, Span, due},
};

/// Why a round begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Why {
    /// The interval is over.
    Interval,
    /// A Hello made it so.
    Hello,
    Probe,
    /// A probe's ping left that evidence had overtaken.
    ProbeLeft,
    /// A stall of our own.
    Stall,
}

impl Candidate {
    /// A round begins.
    pub(crate) fn begin(&mut self, world: &World, why: Why, probe: bool, fork: &mut Fork) {
        let (terms, now) = (&world.terms, world.now);
        let least = world.last.saturating_add(terms.least_base());
        let base = match why {
            Why::Interval => self
                .after
                .ends(terms, world.last)
                .at_most(now)
                .at_least(least),
            Why::Hello | Why::Stall => Span::exactly(now.max(least)),
            Why::Probe | Why::ProbeLeft => Span::exactly(now),
        };
        let mut round = Round {
            verdict: base.plus(terms.budget()),
            step: base.hi.max(now).saturating_add(terms.timeout),
            early: None,
            missed: 0,
            forgiven: u32::from(why == Why::Stall),
            any_left: false,
            left: None,
            told: false,
        };
        let adopted = match why {
            Why::Stall => None,
            Why::ProbeLeft => Some(now),
            Why::Interval | Why::Hello | Why::Probe => self.adopted(world, why, fork),
        };
        if let Some(left) = adopted {
            round.any_left = true;
            round.left = Some(left);
            self.life = Life::Round(round);
            self.watch(left, world, fork);
            return;
        }
        self.life = Life::Round(round);
        let kind = match (why, self.due) {
            (Why::Stall, _) => Kind::Fresh,
            (_, Some(ping)) if ping.kind == Kind::Keepalive => Kind::Merged,
            _ => Kind::Round,
        };
        let question = if why == Why::Stall {
            !fork_fresh(self.flying.is_some(), fork)
        } else {
            self.due.is_none() && self.flying.is_some() && fork.first(Open::FlightServes)
        };
        match &mut self.flying {
            Some(flight) if question => {
                flight.kind = kind;
                if probe && flight.probe.is_none() {
                    flight.probe = Some(world.sent.saturating_sub(1));
                }
            }
            _ => {
                let probe = probe || self.due.is_some_and(|ping| ping.probe);
                self.due = Some(Ping { kind, probe });
            }
        }
    }

    /// When a ping left that serves as the first of the round.
    fn adopted(&self, world: &World, why: Why, fork: &mut Fork) -> Option<u64> {
        let (left, order) = world.left?;
        let recent = world.terms.is_recent(world.now - left);
        let recent = recent.unwrap_or_else(|| fork.first(Open::Hidden));
        let after = match order {
            Order::After => true,
            Order::Before => false,
            Order::Same => recent && fork.first(Open::LeftAtOnce),
        };
        let adopts = recent && after && (why != Why::Probe || fork.first(Open::ProbeAdopts));
        adopts.then_some(left)
    }

    /// The round's ping left at `left`: from when it is suspicious.
    fn watch(&mut self, left: u64, world: &World, fork: &mut Fork) {
        let Life::Round(round) = &mut self.life else {
            return;
        };
        // "Exceeds" may mean one microsecond more.
        let Some(early) = world.rto.map(|rto| Span::new(rto.lo, rto.hi + 1)) else {
            return;
        };
        let early = early.plus(left);
        if early.lo > world.now {
            round.early = Some(early);
            return;
        }
        match fork.pick(Open::AdoptedLate, 3) {
            0 => self.suspect(0, world),
            1 => round.early = Some(early.at_least(world.now).plus(world.now - left)),
            _ => round.told = true,
        }
    }

    fn suspect(&mut self, missed: u32, world: &World) {
        self.pending.suspect = Some((missed, world.now - world.last));
        if let Life::Round(round) = &mut self.life {
            round.told = true;
            round.early = None;
        }
    }

    /// A flush while a round is under way.
    pub(crate) fn left(&mut self, flight: Flight, world: &World, fork: &mut Fork) {
        let Life::Round(round) = &mut self.life else {
            return;
        };
        let (now, timeout) = (world.now, world.terms.timeout);
        round.step = round.step.max(now.saturating_add(timeout));
        round.any_left |= matches!(flight.kind, Kind::Round | Kind::Merged | Kind::Fresh);
        if self.due.is_some() {
            // It isn't the round's latest.
            return;
        }
        round.any_left = true;
        round.left = Some(now);
        if flight.kind == Kind::Fresh {
            let verdict = round.verdict.hi;
            let before = now < verdict || now == verdict && fork.first(Open::FlushAtVerdict);
            if before {
                round.verdict = round.verdict.at_least(now.saturating_add(timeout));
            }
        }
        round.told = false;
        self.watch(now, world, fork);
    }

    /// `handle_timeout` in a round.
    pub(crate) fn round_timeout(&mut self, blocked: bool, world: &World, fork: &mut Fork) {
        let Life::Round(round) = &mut self.life else {
            return;
        };
        let (now, timeout) = (world.now, world.terms.timeout);
        let over = if due(round.verdict.hi, now) {
            true
        } else {
            due(round.verdict.lo, now) && fork.first(Open::Hidden)
        };
        if blocked && !(over && fork.first(Open::BothOver)) {
            let more = u64::from(over && !fork.first(Open::LastMissed));
            return self.die(Some(Cause::WriteStalled), more, world, fork);
        }
        if over {
            let more = match round.left {
                Some(left) if left.saturating_add(timeout) <= now => 1,
                Some(_) => u64::from(fork.first(Open::LastMissed)),
                None => 0,
            };
            let cause = if round.any_left {
                Cause::Silent
            } else {
                Cause::WriteStalled
            };
            return self.die(Some(cause), more, world, fork);
        }
        round.verdict = round.verdict.at_least(now.saturating_add(1));
        if due(round.step, now) {
            let next = now.saturating_add(timeout);
            let punctual = round.step.saturating_add(timeout);
            round.step = if punctual == next || punctual <= now || fork.first(Open::StepFromNow) {
                next
            } else {
                punctual
            };
            if round.left.take().is_some() {
                round.missed += 1;
                let (missed, told) = (round.missed, round.told);
                if !told {
                    self.suspect(missed, world);
                }
                if let Life::Round(round) = &mut self.life {
                    (round.told, round.early) = (false, None);
                }
                self.due = Some(Ping {
                    kind: Kind::Round,
                    probe: false,
                });
            }
        } else if let Some(early) = round.early {
            if due(early.hi, now) || due(early.lo, now) && fork.first(Open::Hidden) {
                let missed = round.missed;
                self.suspect(missed, world);
            } else {
                round.early = Some(early.at_least(now.saturating_add(1)));
            }
        }
    }

    /// Evidence from long ago left deadlines in the past.
    pub(crate) fn catch_up(&mut self, world: &World, fork: &mut Fork) {
        if !matches!(self.life, Life::Idle { .. }) || !self.is_over(world, fork) {
            return;
        }
        let probe = self.due.is_some_and(|ping| ping.probe);
        self.begin(world, Why::Interval, probe, fork);
        if let Life::Round(round) = self.life {
            if due(round.verdict.lo, world.now) && fork.first(Open::PastVerdict) {
                self.round_timeout(false, world, fork);
            }
        }
    }

    /// A call that comes so late that we were asleep. True: `handle_timeout`
    /// has nothing more to do.
    pub(crate) fn stalled(&mut self, op: Op, world: &World, fork: &mut Fork) -> bool {
        let ends = matches!(op, Op::End(_) | Op::Close | Op::Paused | Op::Goodbye);
        if ends && !fork.first(Open::EndTellsStall) {
            return false;
        }
        if op == Op::Resumed && !self.is_paused() && !fork.first(Open::IdleCallTells) {
            return false;
        }
        let forgives = match self.life {
            Life::Round(round) => round.forgiven < world.terms.misses,
            _ => true,
        };
        if !forgives && world.heard.is_none() && op != Op::Timeout {
            return false;
        }
        let longest = self.pending.stall.unwrap_or(0).max(world.late);
        self.pending.stall = Some(longest);
        self.move_limit(world, fork);
        if world.heard.is_some() || !forgives || self.is_paused() {
            return false;
        }
        if op == Op::Timeout && self.limit.is_some_and(|limit| due(limit, world.now)) {
            return false;
        }
        if matches!(self.life, Life::Round(_)) {
            self.forgive(world, fork);
        } else {
            let probe = matches!(self.life, Life::Idle { probe_at: Some(_) });
            let probe = probe && fork.first(Open::ProbeJoins);
            self.begin(world, Why::Stall, probe, fork);
        }
        true
    }

    fn move_limit(&mut self, world: &World, fork: &mut Fork) {
        let least = world.now.saturating_add(world.terms.timeout);
        let moves = self.limit_moves < world.terms.misses;
        match &mut self.limit {
            Some(limit) if *limit < least && moves => {
                *limit = least;
                self.limit_moves += 1;
                if least == NEVER {
                    self.limit = None;
                }
            }
            Some(_) if moves && !fork.first(Open::IdleMoveCounts) => self.limit_moves += 1,
            _ => {}
        }
    }

    fn forgive(&mut self, world: &World, fork: &mut Fork) {
        let behind = fork_fresh(self.flying.is_some(), fork);
        let Life::Round(round) = &mut self.life else {
            return;
        };
        let least = world.now.saturating_add(world.terms.timeout);
        round.verdict = round.verdict.plus(world.late).at_least(least);
        round.step = least;
        round.forgiven += 1;
        (round.left, round.early, round.told) = (None, None, false);
        match &mut self.flying {
            Some(flight) if !behind => flight.kind = Kind::Fresh,
            _ => {
                let probe = self.due.is_some_and(|ping| ping.probe);
                self.due = Some(Ping {
                    kind: Kind::Fresh,
                    probe,
                });
            }
        }
    }

    /// Evidence that comes after a stall: it may have lain in a buffer.
    pub(crate) fn excused(&mut self, world: &World, fork: &mut Fork) {
        let Life::Idle { probe_at } = self.life else {
            return;
        };
        if probe_at.is_some_and(|at| due(at, world.now)) {
            if fork.first(Open::OverdueProbe) {
                self.begin(world, Why::Probe, true, fork);
            } else {
                self.life = Life::Idle { probe_at: None };
                self.due = Some(Ping {
                    kind: Kind::Overtaken,
                    probe: true,
                });
            }
            return;
        }
        let recent = world
            .left
            .is_some_and(|(left, _)| world.now - left < world.former.peers_min());
        if recent || self.due.is_some() {
            return;
        }
        if self.flying.is_none() || !fork.first(Open::FlightServes) {
            self.due = Some(Ping {
                kind: Kind::Keepalive,
                probe: false,
            });
        }
    }
}

/// Whether a fresh ping goes behind the one in flight, if one is.
fn fork_fresh(in_flight: bool, fork: &mut Fork) -> bool {
    !in_flight || fork.first(Open::FreshBehind)
}
