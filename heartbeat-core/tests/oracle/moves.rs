//! How each call changes the state, as the table of docs/state-machine.md has
//! it. Rounds and stalls are in `rounds.rs`.

use heartbeat_core::{Cause, CloseReason, GoodbyeCode, NoDetail, ProtocolError};

use crate::{
    after::After,
    facts::{Heard, Sample, World},
    fork::Fork,
    life::{Candidate, Flight, Life, Ping, Round, soonest},
    ops::{Op, nonce},
    parting::{Answered, Parting},
    rounds::Why,
    span::{LAST, NEVER, Span, due},
    told::Ending,
};

impl Candidate {
    /// One call.
    pub(crate) fn take(&mut self, op: Op, world: &World, fork: &mut Fork) {
        if self.has_ended() {
            return;
        }
        // A Hello changes what comes after it.
        let before = World {
            terms: world.former,
            allowed: [world.allowed[0]; 2],
            spoke: [world.spoke[0]; 2],
            ..*world
        };
        let former = self.life;
        self.answered(&before, fork);
        let mut served = false;
        if let Some(heard) = world.heard {
            self.evidence(heard, &before, fork);
        } else if world.stall {
            served = self.stalled(op, &before, fork);
        }
        match op {
            Op::Bytes | Op::Message | Op::Acknowledged(_) | Op::Taken(_) => {}
            Op::Pong(_) | Op::UnnumberedPong | Op::Transmit | Op::Event => {}
            Op::Alive | Op::Reserved => {}
            Op::Fin => {
                self.pending.finished |= self.parting.hear_fin();
                self.part_if_all_is_said(world);
            }
            Op::OwnHello(_) => self.die(Some(Cause::Protocol(ProtocolError::Loop)), world),
            Op::Hello(_) if world.refused => self.die(None, world),
            Op::Hello(peer) if world.news => {
                self.pending.connected = Some(peer);
                self.renegotiated(world, fork);
            }
            Op::Hello(_) => {}
            Op::Ping(_) if world.flood => self.die(Some(Cause::PingFlood), world),
            Op::Ping(_) if self.life == Life::HalfClosed => {}
            Op::Ping(number) => {
                self.pong = Some(nonce(number));
                self.ask_along(world, fork);
            }
            Op::Goodbye(code) => self.goodbye(GoodbyeCode(code), world),
            Op::Backlog => self.backlog(world),
            Op::Flushed => self.flushed(world, fork),
            Op::Progress => {
                self.limit_moves = 0;
                self.limit = self.limit.and_then(|_| limit(world));
            }
            Op::Blocked => self.limit = self.limit.or_else(|| limit(world)),
            Op::Timeout => self.timeout(served, world, fork),
            Op::End(end) => self.die(Some(end.into()), world),
            Op::HalfClose => {
                self.half_close();
                self.pending.finished |= self.parting.hear_fin();
                self.part_if_all_is_said(world);
            }
            Op::Paused => self.paused(world),
            Op::Resumed => self.resumed(world, fork),
            Op::Probe => self.probe(world, fork),
            Op::NotReading => self.die(Some(Cause::NotReading), world),
            Op::Finish => self.parting.finish(),
            Op::Close(code) => {
                let until = world.now.saturating_add(world.terms.linger);
                let code = GoodbyeCode(match code {
                    2..64 | 128.. => 0,
                    code => code,
                });
                self.parting.close(code, until.min(LAST));
            }
            Op::Discarded => self.parting.discard(),
            Op::Sent => {}
            Op::SetInterval(_) if world.news => {
                self.hello |= !world.terms.foreign;
                self.renegotiated(world, fork);
            }
            Op::SetInterval(_) => {}
            Op::Dialogue(_) if allows_news(world) => self.dialogue(world, fork),
            Op::Dialogue(_) => {}
        }
        self.speak(op, former, world);
    }

    /// Something leaves, if nothing has for too long and this call serves that.
    fn speak(&mut self, op: Op, former: Life, world: &World) {
        let was_in_round = matches!(former, Life::Round(_));
        let was_judged = was_in_round || matches!(former, Life::Idle { .. });
        let is_served = match op {
            _ if world.heard.is_some() && (was_in_round || was_judged && world.stall) => true,
            Op::Timeout => true,
            Op::Paused => was_judged,
            Op::Resumed => matches!(former, Life::Paused { .. }),
            Op::Hello(_) | Op::SetInterval(_) => world.news,
            Op::Dialogue(_) => allows_news(world),
            _ => false,
        };
        if !is_served || !due(self.speech(&world.terms, world), world.now) {
            return;
        }
        match world.terms.foreign {
            true => self.want(Ping::Speech),
            false => self.alive = Some(Flight::Due),
        }
        if let Life::Paused { sign, .. } = &mut self.life {
            *sign = None;
        }
    }

    /// What the protocol allows changes.
    fn dialogue(&mut self, world: &World, fork: &mut Fork) {
        let [former, allowed] = world.allowed;
        let before = self.after;
        self.after.rescale(&world.former, &world.terms);
        match self.life {
            Life::Idle { .. } | Life::Round(_) if former.answer && !allowed.answer => {
                self.stop_judging(world);
            }
            Life::Round(round) if !round.asked && self.due.is_some() && !allowed.ping => {
                match world.judging() {
                    true => {
                        self.life = Life::Round(Round {
                            asked: true,
                            ..round
                        });
                    }
                    false => self.stop_judging(world),
                }
            }
            Life::Idle { .. } if !former.answer && allowed.answer => {
                self.after = After::draw(&world.terms, false);
            }
            _ => {}
        }
        if !matches!(self.life, Life::Idle { .. }) {
            return;
        }
        if self.is_over(world, fork) {
            let ended = match world.judging_as(former) {
                true => before.ends(&world.former, world.last),
                false => Span::exactly(world.now),
            };
            self.begin_anew(ended, world, fork);
        } else if self.waiting_probe_is_due(world) {
            self.begin(world, Why::Probe, fork);
        }
    }

    /// The peer isn't judged, and a probe waits.
    fn stop_judging(&mut self, world: &World) {
        let waits = matches!(self.life, Life::Idle { probe_waits: true });
        let probe_waits = waits || self.on_its_way() == Some(Ping::Probe);
        self.life = Life::Idle { probe_waits };
        self.after = After::draw(&world.terms, false);
        self.due = None;
        self.in_flight = self.in_flight.map(|_| Ping::Keepalive);
    }

    /// The peer leaves, gave us up, or confirms that we leave.
    fn goodbye(&mut self, code: GoodbyeCode, world: &World) {
        let detail = NoDetail;
        if (2..=7).contains(&code.0) {
            return self.die(Some(Cause::GivenUp { code, detail }), world);
        }
        match self.parting.hear_goodbye(code, world.terms.foreign) {
            Answered::Later => self.part_if_all_is_said(world),
            Answered::Now(answer) => {
                let reason = CloseReason::Peer { code, detail };
                self.end(Life::Closed { answer }, Ending::Closed(reason));
            }
        }
    }

    fn part_if_all_is_said(&mut self, world: &World) {
        if let Some(reason) = self.parting.is_over(world.terms.foreign) {
            self.closed(reason);
        }
    }

    /// It ends in order, and nothing is left to say.
    fn closed(&mut self, reason: CloseReason) {
        self.end(Life::Closed { answer: None }, Ending::Closed(reason));
    }

    /// Evidence of life.
    fn evidence(&mut self, heard: Heard, world: &World, fork: &mut Fork) {
        let former = self.life;
        self.pending.suspect = None;
        if self.suspected {
            self.suspected = false;
            self.pending.recovered = Some(heard.silence);
        }
        if let Life::Round(round) = self.life {
            self.life = Life::Idle { probe_waits: false };
            self.after = After::draw(&world.terms, false);
            let accepted = due(soonest(&world.terms, world.left), world.now);
            if self.due == Some(Ping::Round) {
                self.due = (round.fresh && accepted).then_some(Ping::Keepalive);
            }
            if self.in_flight == Some(Ping::Round) {
                self.in_flight = Some(Ping::Keepalive);
            }
        }
        if world.stall {
            self.excused(world, former, fork);
        } else if heard.at < world.now {
            self.catch_up(world, former, fork);
        }
    }

    /// A pong that answers a ping of ours.
    fn answered(&mut self, world: &World, fork: &mut Fork) {
        if world.answered_in_flight {
            self.in_flight = None;
            self.keepalive_left(world);
        }
        let measured = match world.sample {
            Sample::No => None,
            Sample::Yes(rtt) => Some(rtt),
            Sample::Maybe(rtt) => fork.either().then_some(rtt),
        };
        if let Some(rtt) = measured.filter(|_| world.terms.beat_events) {
            self.pending.beat = Some(rtt);
        }
    }

    /// The timings of one side change.
    fn renegotiated(&mut self, world: &World, fork: &mut Fork) {
        let before = self.after;
        self.after.rescale(&world.former, &world.terms);
        match self.life {
            Life::Idle { .. } => {
                if self.is_over(world, fork) {
                    self.begin_anew(before.ends(&world.former, world.last), world, fork);
                } else if self.waiting_probe_is_due(world) {
                    self.begin(world, Why::Probe, fork);
                }
            }
            Life::Paused { .. } => self.plan_sign(world),
            _ => {}
        }
    }

    /// When a sign of life is due; `None` while one is on its way.
    fn next_sign(&self, world: &World) -> Option<u64> {
        let (is_on_its_way, last) = if world.terms.foreign {
            (self.on_its_way().is_some(), world.left)
        } else {
            (self.alive.is_some(), self.alive_left)
        };
        let due = last.map_or(0, |left| left.saturating_add(world.terms.sign()));
        (!is_on_its_way).then_some(due)
    }

    fn show_life(&mut self, world: &World) {
        if world.terms.foreign {
            self.want(Ping::Keepalive);
        } else {
            self.alive = Some(Flight::Due);
        }
    }

    /// When the next sign of life of a pause is due; now, and it is sent.
    fn plan_sign(&mut self, world: &World) {
        let next = self.next_sign(world).map(|at| at.max(world.now));
        if let Life::Paused { sign, .. } = &mut self.life {
            *sign = next;
        }
        self.show_life_if_due(world);
    }

    /// A sign of life of a pause, if it is due.
    fn show_life_if_due(&mut self, world: &World) {
        if let Life::Paused { sign, .. } = &mut self.life {
            if sign.is_some_and(|at| due(at, world.now)) {
                *sign = None;
                self.show_life(world);
            }
        }
    }

    /// A sign of life left.
    fn sign_left(&mut self, world: &World) {
        if let Life::Paused { sign, .. } = &mut self.life {
            *sign = Some(world.now.saturating_add(world.terms.sign()));
        }
    }

    /// A ping left on which no round depends.
    fn keepalive_left(&mut self, world: &World) {
        if world.terms.foreign {
            self.sign_left(world);
        }
        if matches!(self.life, Life::Idle { .. }) && self.after.is_first() {
            self.after = After::draw(&world.terms, false);
        }
    }

    fn backlog(&mut self, world: &World) {
        let foreign = world.terms.foreign;
        let wanted = match self.life {
            Life::Idle { probe_waits } => !foreign || !probe_waits,
            Life::Round(_) => !foreign,
            _ => false,
        };
        if wanted && self.next_sign(world).is_some_and(|at| due(at, world.now)) {
            self.show_life(world);
        }
    }

    fn flushed(&mut self, world: &World, fork: &mut Fork) {
        self.limit = None;
        self.limit_moves = 0;
        self.ping_flushed(world, fork);
        if self.alive == Some(Flight::InFlight) {
            self.alive = None;
            self.alive_left = Some(world.now);
            self.sign_left(world);
        }
        if self.parting.flushed() && world.terms.foreign {
            self.half_close();
            self.pong = None;
        }
        self.part_if_all_is_said(world);
    }

    fn ping_flushed(&mut self, world: &World, fork: &mut Fork) {
        let Some(ping) = self.in_flight.take() else {
            return;
        };
        match self.life {
            Life::Idle { .. } if ping == Ping::Probe => {
                // While we can't judge no interval is over.
                let ended = match world.judging() {
                    true => self.after.ends(&world.terms, world.last),
                    false => Span::exactly(NEVER),
                };
                self.begin(world, Why::ProbeLeft { ended }, fork);
            }
            Life::Round(_) if ping == Ping::Speech => {}
            Life::Round(_) => self.left(world),
            _ => {
                let before = self.after;
                self.keepalive_left(world);
                if before != self.after && self.is_over(world, fork) {
                    self.begin_anew(before.ends(&world.terms, world.last), world, fork);
                }
            }
        }
    }

    /// The interval was drawn anew, and is over by now. By the former draw it
    /// would have `ended`.
    fn begin_anew(&mut self, ended: Span, world: &World, fork: &mut Fork) {
        let probes = self.waiting_probe_is_due(world);
        let ended = ended.at_most(world.now);
        self.begin(world, Why::Over { ended, probes }, fork);
    }

    /// Whether the peer accepts the ping of a probe that waits in `Idle`.
    pub(crate) fn waiting_probe_is_due(&self, world: &World) -> bool {
        let waits = matches!(self.life, Life::Idle { probe_waits: true });
        waits && self.serves_probe(world)
    }

    /// Whether a probe begins its round at once: the peer accepts its ping, or one that is
    /// on its way serves it, or one that is unanswered where no other may leave.
    fn serves_probe(&self, world: &World) -> bool {
        let accepted = due(soonest(&world.terms, world.left), world.now);
        let asking = world.allowed[1].asking();
        world.judging() && (!asking || accepted || self.on_its_way().is_some())
    }

    fn timeout(&mut self, served: bool, world: &World, fork: &mut Fork) {
        match self.life {
            _ if served => {}
            Life::Round(_) => self.round_timeout(world, fork),
            Life::Idle { .. } => {
                let probes = self.waiting_probe_is_due(world);
                if self.is_over(world, fork) {
                    let ended = self.after.ends(&world.terms, world.last);
                    self.begin(world, Why::Over { ended, probes }, fork);
                } else if probes {
                    self.begin(world, Why::Probe, fork);
                }
            }
            _ => self.show_life_if_due(world),
        }
        if self.limit.is_some_and(|limit| due(limit, world.now)) {
            self.die(Some(Cause::WriteStalled), world);
        }
        let is_over = |until| due(until, world.now);
        if !self.has_ended() && self.parting.until().is_some_and(is_over) {
            let reason = self.parting.instead_of_death();
            self.closed(reason.unwrap_or(CloseReason::Unconfirmed));
        }
    }

    fn paused(&mut self, world: &World) {
        let waits = match self.life {
            Life::Paused { .. } | Life::HalfClosed => return,
            Life::Idle { probe_waits } => probe_waits,
            _ => false,
        };
        self.life = Life::Paused {
            sign: None,
            probe_waits: waits || self.on_its_way() == Some(Ping::Probe),
        };
        self.due = None;
        self.in_flight = self.in_flight.map(|_| Ping::Keepalive);
        self.plan_sign(world);
    }

    /// Nothing is asked or judged any more.
    fn half_close(&mut self) {
        self.life = Life::HalfClosed;
        self.due = None;
        self.in_flight = self.in_flight.map(|_| Ping::Keepalive);
    }

    fn resumed(&mut self, world: &World, fork: &mut Fork) {
        let Life::Paused { probe_waits, .. } = self.life else {
            return;
        };
        self.after = After::draw(&world.terms, false);
        self.life = Life::Idle { probe_waits: false };
        if probe_waits {
            self.probe(world, fork);
        } else if world.stall
            && world.allowed[1].asking()
            && due(soonest(&world.terms, world.left), world.now)
        {
            self.want(Ping::Keepalive);
        }
    }

    fn probe(&mut self, world: &World, fork: &mut Fork) {
        match &mut self.life {
            Life::Idle { .. } => {
                let probes = self.serves_probe(world);
                self.life = Life::Idle { probe_waits: true };
                if self.is_over(world, fork) {
                    let ended = self.after.ends(&world.terms, world.last);
                    self.begin(world, Why::Over { ended, probes }, fork);
                } else if probes {
                    self.begin(world, Why::Probe, fork);
                }
            }
            Life::Paused { probe_waits, .. } => *probe_waits = true,
            _ => {}
        }
    }

    /// The end, with the misses so far.
    pub(crate) fn die(&mut self, cause: Option<Cause>, world: &World) {
        if self.has_ended() {
            return;
        }
        if let Some(reason) = self.parting.instead_of_death() {
            return self.closed(reason);
        }
        let missed = match self.life {
            _ if cause == Some(Cause::Silent) => world.terms.misses,
            Life::Round(round) => round.missed,
            _ => 0,
        };
        let ending = Ending::Dead {
            cause,
            missed,
            silence: world.now - world.last,
        };
        // An end that isn't our verdict isn't told to the peer.
        let goodbye = match cause {
            None => Some(6),
            Some(Cause::Silent) => Some(2),
            Some(Cause::WriteStalled) => Some(3),
            Some(Cause::Protocol(_)) => Some(4),
            Some(Cause::PingFlood) => Some(5),
            Some(Cause::NotReading) => Some(7),
            Some(_) => None,
        };
        let goodbye = goodbye.map(GoodbyeCode);
        self.end(Life::Dead { missed, goodbye }, ending);
    }

    fn end(&mut self, life: Life, ending: Ending) {
        self.life = life;
        self.pending.suspect = None;
        self.pending.end = Some(ending);
        (self.due, self.in_flight, self.pong, self.alive) = (None, None, None, None);
        // Behind the Hello, if that wasn't given.
        self.hello &= self.last_word().is_some();
        self.limit = None;
        self.parting = Parting::default();
    }
}

/// When writes that are blocked from now on end it.
fn limit(world: &World) -> Option<u64> {
    let limit = world.terms.write_stall?;
    Some(world.now.saturating_add(limit))
}

/// Whether the protocol allows something else than before.
fn allows_news(world: &World) -> bool {
    let [former, allowed] = world.allowed;
    former != allowed
}
