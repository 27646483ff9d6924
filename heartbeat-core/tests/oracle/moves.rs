//! How each call changes the state, as the table of docs/state-machine.md has
//! it. Rounds and stalls are in `rounds.rs`.

use heartbeat_core::{Cause, CloseReason};

use crate::{
    after::After,
    facts::{Heard, Sample, World},
    fork::{Fork, Open},
    life::{Candidate, Ending, Goodbye, Keep, Kind, Life, Ping},
    ops::{Op, nonce},
    rounds::Why,
    span::{NEVER, Span, due},
};

impl Candidate {
    /// One call.
    pub(crate) fn take(&mut self, op: Op, world: &World, fork: &mut Fork) {
        match self.life {
            Life::Closed | Life::Dead { .. } => return,
            Life::Leaving { .. } => return self.leaving(op, world, fork),
            Life::Idle { .. } | Life::Round(_) | Life::Paused { .. } => {}
        }
        let served = world.stall && self.stalled(op, world, fork);
        if let Some(heard) = world.heard {
            self.heard(heard, world, fork);
            if world.stall && !self.is_paused() {
                self.excused(world, fork);
            }
            if heard.at < world.now && !self.is_paused() {
                self.catch_up(world, fork);
            }
        }
        match op {
            Op::Bytes | Op::Message | Op::Acknowledged(_) => {}
            Op::Pong(_) | Op::UnnumberedPong => self.answered(world, fork),
            Op::Hello(peer) => {
                if !world.refused {
                    self.renegotiated(world, fork);
                }
                if world.news && (!world.refused || fork.first(Open::RefusedTold)) {
                    self.pending.connected = Some(peer);
                }
                if world.refused {
                    self.die(None, 0, world, fork);
                }
            }
            Op::Ping(number) => {
                self.pong = Some(nonce(number));
                if world.flood {
                    self.die(Some(Cause::PingFlood), 0, world, fork);
                }
            }
            Op::Goodbye => self.end(Life::Closed, Ending::Closed(CloseReason::Peer), fork),
            Op::Backlog => self.backlog(world, fork),
            Op::Flushed => self.flushed(world, fork),
            Op::Progress => self.progress(world, fork),
            Op::Blocked => {
                let limit = world.terms.write_stall;
                let at = limit.map(|limit| world.now.saturating_add(limit));
                self.limit = self.limit.or(at.filter(|&at| at < NEVER));
            }
            Op::Timeout if !served => self.timeout(world, fork),
            Op::Timeout => {}
            Op::End(end) => self.die(Some(end.into()), 0, world, fork),
            Op::Paused => self.paused(world, fork),
            Op::Resumed => self.resumed(world, fork),
            Op::Probe => self.probe(world, fork),
            Op::Close => self.close(world, fork),
            Op::Transmit | Op::Event => {}
        }
    }

    pub(crate) fn is_paused(&self) -> bool {
        matches!(self.life, Life::Paused { .. })
    }

    /// Evidence of life.
    fn heard(&mut self, heard: Heard, world: &World, fork: &mut Fork) {
        self.pending.suspect = None;
        if self.suspected {
            self.suspected = false;
            self.pending.recovered = Some(heard.silence);
        }
        if !matches!(self.life, Life::Round(_)) {
            return;
        }
        let mut probe_at = None;
        if let Some(ping) = self.due {
            let readings = if ping.probe {
                fork.pick(Open::ProbeKept, 3)
            } else if ping.kind == Kind::Merged {
                fork.pick(Open::MergedKept, 2)
            } else {
                1
            };
            if readings == 0 {
                let kind = if ping.probe {
                    Kind::Overtaken
                } else {
                    Kind::Keepalive
                };
                self.due = Some(Ping { kind, ..ping });
            } else {
                self.due = None;
            }
            if readings == 2 {
                probe_at = Some(world.now);
            }
        }
        if let Some(flight) = &mut self.flying {
            flight.kind = Kind::Overtaken;
        }
        self.life = Life::Idle { probe_at };
        self.after = After::draw(&world.former, false);
    }

    fn answered(&mut self, world: &World, fork: &mut Fork) {
        let told = match world.sample {
            Sample::Yes(rtt) => Some(rtt),
            Sample::Maybe(rtt) if fork.first(Open::OldSample) => Some(rtt),
            Sample::No | Sample::Maybe(_) => None,
        };
        if let Some(rtt) = told.filter(|_| world.terms.beat_events) {
            self.pending.beat = Some(rtt);
        }
    }

    /// A Hello changed m′, and perhaps I*.
    fn renegotiated(&mut self, world: &World, fork: &mut Fork) {
        let now = world.now;
        let soonest = self.soonest(world);
        self.after.rescale(&world.former, &world.terms);
        match &mut self.life {
            Life::Idle { probe_at } => {
                if probe_at.is_some() {
                    *probe_at = Some(soonest);
                }
                let probes = probe_at.is_some();
                let changed = world.former.star() != world.terms.star();
                let over = changed && self.is_over(world, fork);
                let ends = self.after.ends(&world.terms, world.last);
                let open = world.due || ends.hi == now;
                if over && (!open || fork.first(Open::HelloServes)) {
                    self.begin(world, Why::Hello, probes, fork);
                } else if probes && soonest <= now && fork.first(Open::ProbeNow) {
                    self.begin(world, Why::Probe, true, fork);
                }
            }
            Life::Paused { keep, probe } => {
                let probe = *probe;
                if let Keep::At(at) = keep {
                    *at = match world.left {
                        Some((left, _)) => left.saturating_add(world.terms.keepalive()),
                        None => *at,
                    };
                    if probe {
                        *at = (*at).min(soonest);
                    }
                }
                self.keep_now(world, fork);
            }
            _ => {}
        }
    }

    /// When m′ after the last ping is over.
    pub(crate) fn soonest(&self, world: &World) -> u64 {
        let over = world
            .left
            .map_or(0, |(left, _)| left.saturating_add(world.terms.peers_min()));
        over.max(world.now)
    }

    /// A keepalive ping of a pause that is due by now.
    fn keep_now(&mut self, world: &World, fork: &mut Fork) {
        let Life::Paused { keep, .. } = &mut self.life else {
            return;
        };
        let Keep::At(at) = keep else { return };
        // What is due at the end of time itself may come or not.
        if *at > world.now {
            return;
        }
        if fork.first(Open::DueNow) {
            *keep = Keep::Unsent(None);
            self.due = Some(Ping {
                kind: Kind::Keepalive,
                probe: false,
            });
        } else {
            *at = world.now;
        }
    }

    fn backlog(&mut self, world: &World, fork: &mut Fork) {
        if !matches!(self.life, Life::Idle { .. }) || self.due.is_some() {
            return;
        }
        let long_ago = match world.left {
            None => true,
            Some((left, _)) => world.now - left >= world.terms.keepalive(),
        };
        let behind = self.flying.is_none() || !fork.first(Open::FlightServes);
        if long_ago && behind && (world.now < NEVER || fork.first(Open::Hidden)) {
            self.due = Some(Ping {
                kind: Kind::Keepalive,
                probe: false,
            });
        }
    }

    fn flushed(&mut self, world: &World, fork: &mut Fork) {
        self.limit = None;
        self.limit_moves = 0;
        let Some(flight) = self.flying.take() else {
            return;
        };
        match &mut self.life {
            Life::Idle { .. } => {
                let unanswered = flight.probe.is_some_and(|probe| probe >= world.answered);
                if unanswered {
                    self.begin(world, Why::ProbeLeft, false, fork);
                }
            }
            Life::Round(_) => self.left(flight, world, fork),
            Life::Paused { keep, probe } => {
                *keep = if self.due.is_some() {
                    Keep::Unsent(None)
                } else {
                    Keep::At(world.now.saturating_add(world.terms.keepalive()))
                };
                *probe = false;
            }
            _ => {}
        }
    }

    fn progress(&mut self, world: &World, fork: &mut Fork) {
        self.limit_moves = 0;
        if self.limit.is_some() {
            let again = world
                .terms
                .write_stall
                .filter(|_| fork.first(Open::ProgressRestarts));
            self.limit = again.map(|limit| world.now.saturating_add(limit));
        }
    }

    fn timeout(&mut self, world: &World, fork: &mut Fork) {
        let now = world.now;
        let blocked = self.limit.is_some_and(|limit| due(limit, now));
        match self.life {
            Life::Round(_) => self.round_timeout(blocked, world, fork),
            _ if blocked => self.die(Some(Cause::WriteStalled), 0, world, fork),
            Life::Idle { probe_at } => {
                let probes = probe_at.is_some_and(|at| due(at, now));
                if self.is_over(world, fork) {
                    let probe = probes && fork.first(Open::ProbeJoins);
                    self.begin(world, Why::Interval, probe, fork);
                } else if probes {
                    self.begin(world, Why::Probe, true, fork);
                }
            }
            Life::Paused { keep, probe } => {
                let at = match keep {
                    Keep::At(at) => Some(at),
                    Keep::Unsent(at) => at,
                };
                if at.is_some_and(|at| due(at, now)) {
                    let waits = self.due.is_some() || self.flying.is_some();
                    if !waits || self.due.is_none() && !fork.first(Open::FlightServes) {
                        self.due = Some(Ping {
                            kind: Kind::Keepalive,
                            probe: false,
                        });
                    }
                    self.life = Life::Paused {
                        keep: Keep::Unsent(None),
                        probe,
                    };
                }
            }
            _ => {}
        }
    }

    fn paused(&mut self, world: &World, fork: &mut Fork) {
        let unsent_probe = self.due.is_some_and(|ping| ping.probe)
            || self
                .flying
                .is_some_and(|flight| flight.probe.is_some_and(|probe| probe >= world.answered));
        let probe = match self.life {
            Life::Paused { .. } => return,
            Life::Idle { probe_at: Some(_) } => true,
            _ => unsent_probe && fork.first(Open::PauseKeepsProbe),
        };
        if let Some(ping) = &mut self.due {
            if ping.kind == Kind::Keepalive || !fork.first(Open::PauseDrops) {
                ping.kind = Kind::Keepalive;
            } else {
                self.due = None;
            }
        }
        if let Some(flight) = &mut self.flying {
            flight.kind = Kind::Overtaken;
        }
        let mut keep = match world.left {
            _ if self.due.is_some() || self.flying.is_some() => Keep::Unsent(None),
            Some((left, _)) => Keep::At(left.saturating_add(world.terms.keepalive())),
            None => Keep::At(world.now),
        };
        if let Keep::At(at) = &mut keep {
            if probe {
                *at = (*at).min(self.soonest(world));
            }
        }
        self.life = Life::Paused { keep, probe };
        self.keep_now(world, fork);
    }

    fn resumed(&mut self, world: &World, fork: &mut Fork) {
        let Life::Paused { probe, .. } = self.life else {
            return;
        };
        self.after = After::draw(&world.terms, false);
        if self.due.is_some() && !fork.first(Open::ResumeKeeps) {
            self.due = None;
        }
        let mut probe_at = probe.then(|| self.soonest(world));
        if let Some(flight) = &mut self.flying {
            // What is in flight may be the probe's.
            if probe && fork.first(Open::FlightServes) {
                flight.probe = Some(world.sent.saturating_sub(1));
                probe_at = None;
            } else if fork.first(Open::PauseKeepsProbe) {
                flight.probe = None;
            }
        }
        self.life = Life::Idle { probe_at };
        if probe_at.is_some_and(|at| due(at, world.now)) && fork.first(Open::ProbeNow) {
            self.begin(world, Why::Probe, true, fork);
        }
    }

    fn probe(&mut self, world: &World, fork: &mut Fork) {
        let now = world.now;
        let soonest = self.soonest(world);
        match &mut self.life {
            Life::Idle { .. } => {
                if self.is_over(world, fork) {
                    let probe = fork.first(Open::ProbeJoins);
                    self.begin(world, Why::Interval, probe, fork);
                } else if soonest > now {
                    self.life = Life::Idle {
                        probe_at: Some(soonest),
                    };
                } else {
                    self.begin(world, Why::Probe, true, fork);
                }
            }
            Life::Paused { keep, probe } => {
                *probe = true;
                if let Keep::At(at) = keep {
                    *at = (*at).min(soonest);
                }
                self.keep_now(world, fork);
            }
            _ => {}
        }
    }

    fn close(&mut self, world: &World, fork: &mut Fork) {
        if self.due.is_some() && fork.first(Open::CloseDropsPing) {
            self.due = None;
        }
        if self.pong.is_some() && !fork.first(Open::CloseKeepsPong) {
            self.pong = None;
        }
        self.limit = None;
        self.life = Life::Leaving {
            until: LAST.min(world.now.saturating_add(world.terms.budget())),
            goodbye: Goodbye::Due,
        };
    }

    fn leaving(&mut self, op: Op, world: &World, fork: &mut Fork) {
        let Life::Leaving { until, goodbye } = &mut self.life else {
            return;
        };
        let anew = world.now.saturating_add(world.terms.budget());
        let over = match op {
            Op::Timeout => *until <= world.now,
            Op::End(_) => true,
            Op::Flushed if *goodbye == Goodbye::InFlight => true,
            Op::Flushed => {
                if fork.first(Open::LeavingFlush) {
                    *until = anew;
                }
                self.flying = None;
                false
            }
            Op::Progress => {
                *until = anew;
                false
            }
            Op::Goodbye => return self.end(Life::Closed, Ending::Closed(CloseReason::Peer), fork),
            _ => false,
        };
        if over {
            self.end(Life::Closed, Ending::Closed(CloseReason::Local), fork);
        }
    }

    /// The verdict, with `more` misses than the round has counted.
    pub(crate) fn die(&mut self, cause: Option<Cause>, more: u64, world: &World, fork: &mut Fork) {
        let missed = match self.life {
            Life::Round(round) => u64::from(round.missed) + more,
            _ => 0,
        };
        let missed = Span::exactly(missed);
        let ending = Ending::Dead {
            cause,
            missed,
            silence: world.now - world.last,
        };
        self.end(Life::Dead { missed }, ending, fork);
    }

    fn end(&mut self, life: Life, ending: Ending, fork: &mut Fork) {
        if self.pending.suspect.is_some() && !fork.first(Open::EndKeepsSuspect) {
            self.pending.suspect = None;
        }
        self.life = life;
        self.pending.end = Some(ending);
        (self.due, self.flying, self.pong, self.hello) = (None, None, None, false);
        self.limit = None;
    }
}
