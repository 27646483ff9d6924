//! Rounds and stalls: how a round begins, its steps, its verdict, and the effect of our own
//! lateness.

use heartbeat_core::Cause;

use crate::{
    facts::World,
    fork::Fork,
    life::{Candidate, Life, Ping, Round, soonest},
    ops::Op,
    span::{Span, due},
};

/// Why a round begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Why {
    /// The interval is over, and perhaps a probe is due too.
    Over {
        ended: Span,
        probes: bool,
    },
    Probe,
    /// A probe's ping left that evidence had overtaken.
    ProbeLeft {
        ended: Span,
    },
    /// The peer asks, and our ping leaves with the answer.
    Along {
        /// When the interval did, or now if that comes first.
        ended: Span,
    },
    /// A stall of our own, from when on it may be counted.
    Stall(Span),
}

impl Candidate {
    /// A round begins.
    pub(crate) fn begin(&mut self, world: &World, why: Why, fork: &mut Fork) {
        let (terms, now) = (&world.terms, world.now);
        let least = world.last.saturating_add(terms.least_base());
        let probe_waits = matches!(self.life, Life::Idle { probe_waits: true });
        let base = match why {
            Why::Over { ended, probes } => {
                let base = ended.at_most(now).at_least(least);
                if probes { base.at_most(now) } else { base }
            }
            Why::Along { ended } => ended.at_most(now).at_least(least),
            Why::Stall(base) => base.at_least(least),
            Why::Probe => Span::exactly(now),
            Why::ProbeLeft { ended } => ended.at_least(least).at_most(now),
        };
        let stalled = matches!(why, Why::Stall(_));
        let step = base.at_least(now).plus(terms.timeout);
        let verdict = base.plus(terms.budget());
        // No other ping may leave: it asks for them all.
        let asked = world.awaits && !world.allowed[1].ping;
        self.life = Life::Round(Round {
            verdict: if stalled {
                verdict.later(step)
            } else {
                verdict
            },
            step,
            early: None,
            missed: 0,
            forgiven: u32::from(stalled),
            asked,
            fresh: stalled,
            excused: false,
            reported: false,
        });
        match why {
            Why::ProbeLeft { .. } => self.left(world),
            Why::Over { .. } | Why::Probe if asked => {}
            Why::Over { probes: false, .. } => self.ask(world, fork),
            Why::Along { .. } => self.want(Ping::Round),
            Why::Stall(_) if !probe_waits => self.want(Ping::Round),
            Why::Over { .. } | Why::Probe | Why::Stall(_) => self.want(Ping::Probe),
        }
    }

    /// Asks, unless a ping left so lately that it serves as the round's first.
    fn ask(&mut self, world: &World, fork: &mut Fork) {
        let lately = world.left.is_some_and(|left| {
            let recent = world.terms.is_recent(world.now - left);
            left > world.last && recent.unwrap_or_else(|| fork.either())
        });
        if let Life::Round(round) = &mut self.life {
            round.asked = lately;
        }
        if !lately {
            self.want(Ping::Round);
        }
    }

    /// The round's ping left.
    pub(crate) fn left(&mut self, world: &World) {
        let Life::Round(round) = &mut self.life else {
            return;
        };
        let step = world.now.saturating_add(world.terms.timeout);
        round.step = round.step.at_least(step);
        round.asked = true;
        if std::mem::take(&mut round.fresh) {
            round.verdict = round.verdict.at_least(step);
        }
        (round.reported, round.excused) = (false, false);
        // "Exceeds" may mean one microsecond more.
        round.early = world
            .rto
            .map(|rto| Span::new(rto.lo, rto.hi + 1).plus(world.now));
    }

    /// The peer asks: so do we, if ours was due soon.
    pub(crate) fn ask_along(&mut self, world: &World, fork: &mut Fork) {
        let (terms, now) = (&world.terms, world.now);
        let is_idle = matches!(self.life, Life::Idle { .. });
        if terms.foreign || !is_idle || self.on_its_way().is_some() {
            return;
        }
        if let Some(ago) = world.left.map(|left| now - left) {
            let waits = !world.settled && ago < terms.timeout;
            if waits || terms.is_recent(ago).unwrap_or_else(|| fork.either()) {
                return;
            }
        }
        let ended = if self.is_over(world, fork) {
            self.after.ends(terms, world.last)
        } else {
            Span::exactly(now)
        };
        let why = match self.waiting_probe_is_due(world) {
            true => Why::Over {
                ended,
                probes: true,
            },
            false => Why::Along { ended },
        };
        self.begin(world, why, fork);
    }

    fn suspect(&mut self, missed: u32, world: &World) {
        self.pending.suspect = Some((missed, world.now - world.last));
    }

    /// `handle_timeout` in a round.
    pub(crate) fn round_timeout(&mut self, world: &World, fork: &mut Fork) {
        let on_its_way = self.on_its_way().is_some_and(|ping| ping != Ping::Speech);
        let Life::Round(round) = &mut self.life else {
            return;
        };
        let now = world.now;
        if is_due(round.verdict, now, fork) {
            let cause = if round.asked {
                Cause::Silent
            } else {
                Cause::WriteStalled
            };
            return self.die(Some(cause), world);
        }
        round.verdict = round.verdict.at_least(now.saturating_add(1));
        if is_due(round.step, now, fork) {
            round.step = Span::exactly(now).plus(world.terms.timeout);
            if on_its_way {
                return;
            }
            round.missed += 1;
            let (missed, reported) = (round.missed, round.reported);
            (round.reported, round.excused, round.early) = (false, false, None);
            if !reported {
                self.suspect(missed, world);
            }
            self.want(Ping::Round);
            return;
        }
        round.step = round.step.at_least(now.saturating_add(1));
        if let Some(early) = round.early {
            if is_due(early, now, fork) {
                let is_first = !std::mem::replace(&mut round.excused, true);
                if let Some(later) = later(early, world, fork).filter(|_| is_first) {
                    round.early = Some(later);
                    return;
                }
                let missed = round.missed;
                (round.reported, round.early) = (true, None);
                self.suspect(missed, world);
            } else {
                round.early = Some(early.at_least(now.saturating_add(1)));
            }
        }
    }

    /// Evidence from long ago left the end of the interval in the past.
    pub(crate) fn catch_up(&mut self, world: &World, former: Life, fork: &mut Fork) {
        if !matches!(self.life, Life::Idle { .. }) || !self.is_over(world, fork) {
            return;
        }
        let ended = self.after.ends(&world.terms, world.last);
        let probes = self.waiting_probe_is_due(world);
        self.begin(world, Why::Over { ended, probes }, fork);
        if let Life::Round(former) = former {
            self.last_as_long_as(former);
        }
        let is_over = |round: Round| round.verdict.lo <= world.now;
        if matches!(self.life, Life::Round(round) if is_over(round)) {
            self.round_timeout(world, fork);
        }
    }

    /// A round that begins because evidence is old takes nothing away from the
    /// one before.
    fn last_as_long_as(&mut self, former: Round) {
        let Life::Round(round) = &mut self.life else {
            return;
        };
        round.verdict = round.verdict.later(former.verdict);
        round.fresh |= former.fresh;
        if round.fresh {
            self.want(Ping::Round);
        }
    }

    /// A call that brings no evidence, and so late that we were asleep. True:
    /// that is all that happens at `handle_timeout`.
    pub(crate) fn stalled(&mut self, op: Op, world: &World, fork: &mut Fork) -> bool {
        let limited = self.was_for_another(world);
        let forgives = match self.life {
            Life::Paused { .. } | Life::HalfClosed => false,
            Life::Round(round) => round.forgiven < world.terms.misses,
            Life::Idle { .. } => world.judging(),
            _ => true,
        } && op != Op::Paused;
        let tells = forgives || matches!(op, Op::Timeout | Op::Paused | Op::Resumed);
        if tells {
            self.tell_stall(world);
        }
        if forgives {
            if let Life::Round(round) = &mut self.life {
                round.forgive(limited, world);
                self.want(Ping::Round);
            } else if self.waiting_probe_is_due(world) || self.is_over(world, fork) {
                self.begin(world, Why::Stall(Span::exactly(world.now)), fork);
            }
        }
        forgives
    }

    /// Whether the deadline that we were late for was that of blocked writes, of leaving,
    /// or of speech.
    fn was_for_another(&self, world: &World) -> bool {
        let missed = Some(world.now - world.late);
        let speech = self.speech(&world.terms, world);
        self.limit == missed || self.parting.until() == missed || Some(speech) == missed
    }

    fn tell_stall(&mut self, world: &World) {
        let longest = self.pending.stall.unwrap_or(0).max(world.late);
        self.pending.stall = Some(longest);
        self.parting.slept(world.now);
        if let Some(limit) = &mut self.limit {
            if self.limit_moves < world.terms.misses {
                self.limit_moves += 1;
                *limit = (*limit).max(world.now.saturating_add(world.terms.timeout));
            }
        }
    }

    /// Evidence that comes after a stall: it may have lain in a buffer.
    pub(crate) fn excused(&mut self, world: &World, former: Life, fork: &mut Fork) {
        if !matches!(self.life, Life::Idle { .. }) {
            return;
        }
        let accepted = due(soonest(&world.terms, world.left), world.now);
        let limited = self.was_for_another(world);
        self.tell_stall(world);
        let asking = world.allowed[1].asking();
        if self.waiting_probe_is_due(world) {
            self.begin(world, Why::Probe, fork);
        } else if self.is_over(world, fork) {
            let ended = self.after.ends(&world.terms, world.last);
            let base = ended.plus(world.late).at_most(world.now);
            self.begin(world, Why::Stall(base), fork);
            if let Life::Round(mut former) = former {
                if former.forgiven < world.terms.misses {
                    former.forgive(limited, world);
                }
                self.last_as_long_as(former);
            }
        } else if accepted && asking {
            self.want(Ping::Keepalive);
        }
    }
}

impl Round {
    /// A stall. What the round slept through isn't counted.
    fn forgive(&mut self, limited: bool, world: &World) {
        let (now, missed) = (world.now, world.now - world.late);
        let deadline = if limited {
            self.deadline().at_least(missed).at_most(now)
        } else {
            Span::exactly(missed)
        };
        let least = now.saturating_add(world.terms.timeout);
        let moved = |span: Span| {
            let lo = span.lo.saturating_add(now - deadline.hi);
            let hi = span.hi.saturating_add(now - deadline.lo);
            Span::new(lo, hi).at_least(least)
        };
        self.verdict = moved(self.verdict);
        self.step = moved(self.step);
        self.forgiven += 1;
        self.fresh = true;
        (self.early, self.excused, self.reported) = (None, false, false);
    }
}

/// Whether a point in time has come. Where that is hidden, both are followed.
fn is_due(at: Span, now: u64, fork: &mut Fork) -> bool {
    due(at.hi, now) || due(at.lo, now) && fork.either()
}

/// When a beat becomes suspicious that was so at `early`, if we are late for that ourselves.
fn later(early: Span, world: &World, fork: &mut Fork) -> Option<Span> {
    let [last, first] = [early.hi.min(world.now), early.lo];
    let [least, most] = [last, first].map(|early| (world.now - early).saturating_mul(8));
    let floor = world.terms.floor;
    let is_late = least > floor || most > floor && fork.either();
    is_late.then(|| Span::new(last.saturating_add(least), first.saturating_add(most)))
}
