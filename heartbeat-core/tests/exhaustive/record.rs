//! What docs/state-machine.md says that a monitor must do.
//!
//! A [`Record`] follows one monitor from outside: it is told the same inputs,
//! and says of each what must come of it. It is written from that page, without
//! jitter, and knows nothing of the monitor but its deadlines, by which the page
//! says what a stall is. All times are ticks.

use heartbeat_core::{Cause, CloseReason, Config, Evidence, GoodbyeCode, NoDetail, Nonce};

/// One side's timings in ticks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timings {
    pub(super) interval: u64,
    pub(super) timeout: u64,
    pub(super) misses: u64,
    pub(super) min_interval: u64,
    pub(super) linger: u64,
    pub(super) tolerance: u64,
    pub(super) write_stall: Option<u64>,
    pub(super) speak_within: Option<u64>,
    /// With `adaptive`.
    pub(super) floor: Option<u64>,
    pub(super) by_echo: bool,
    /// No signs of life closer together than this.
    shortest_sign: u64,
}

impl Timings {
    /// With a tick of this many microseconds.
    pub(super) fn new(config: &Config, tick: u64) -> Self {
        let ticks = |time| in_ticks(time, tick);
        Self {
            interval: ticks(config.interval()),
            timeout: ticks(config.timeout()),
            misses: config.max_missed().into(),
            min_interval: ticks(config.min_interval()),
            linger: ticks(config.linger()),
            tolerance: ticks(config.stall_tolerance()),
            write_stall: config.write_stall().map(ticks),
            speak_within: config.speak_within().map(ticks),
            floor: config.adaptive().then(|| ticks(config.adaptive_floor())),
            by_echo: config.evidence() == Evidence::Echo,
            shortest_sign: 20_000_u64.div_ceil(tick),
        }
    }

    /// N·W.
    pub(super) const fn budget(&self) -> u64 {
        self.misses * self.timeout
    }
}

/// Whole ticks: no scenario has times that are finer.
pub(super) fn in_ticks(time: std::time::Duration, tick: u64) -> u64 {
    let micros = u64::try_from(time.as_micros()).unwrap();
    assert_eq!(micros % tick, 0, "{time:?} is between two ticks");
    micros / tick
}

/// What one monitor was told, and what follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Record {
    pub(super) phase: Phase,
    pub(super) heard_at: u64,
    /// Whether the interval is the connection's first.
    pub(super) first: bool,
    /// Whether the peer's Hello came.
    pub(super) met: bool,
    /// The ping that was handed out and hasn't left, as far as the monitor was
    /// told.
    pub(super) on_its_way: Option<Purpose>,
    /// When the last ping left.
    pub(super) left_at: Option<u64>,
    /// Whether its round trip can be measured.
    pub(super) timed: bool,
    /// Whether an Alive was handed out and hasn't left, likewise.
    pub(super) alive_on_its_way: bool,
    /// When the last one left.
    pub(super) alive_left_at: Option<u64>,
    /// When something of ours last left.
    pub(super) spoke_at: u64,
    /// How many pings were handed out, and the latest that was answered.
    pub(super) pings: u32,
    pub(super) answered: u32,
    /// Pings handed out and stalls told since the last evidence.
    pub(super) asked: u64,
    pub(super) stalls: u64,
    /// How long the last stall of those gives the peer, if it was forgiven.
    pub(super) excused_until: Option<u64>,
    /// Whether `Suspect` was given.
    pub(super) suspected: bool,
    pub(super) blocked: Option<Blocked>,
    pub(super) parting: Parting,
    /// The ping that may be answered once.
    pub(super) owed: Option<(Nonce, u32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    Idle {
        probe_waits: bool,
    },
    Round(Round),
    Paused {
        since: u64,
        sign_at: Option<u64>,
        probe: bool,
    },
    Ended,
}

/// What each side has said of leaving. What is due is handed out at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Parting {
    fin: Said,
    /// We leave, and linger until then.
    until: Option<u64>,
    confirmed: bool,
    their_fin: bool,
    /// The peer leaves too, and our answer.
    heard: bool,
    answer: Said,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Said {
    #[default]
    Nothing,
    InFlight,
    Left,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Round {
    pub(super) verdict: u64,
    pub(super) step: u64,
    /// Whether a ping of this round left.
    pub(super) asked: bool,
    pub(super) missed: u64,
    pub(super) forgiven: u64,
    /// Whether this beat's lateness was reported.
    pub(super) reported: bool,
    /// Whether the ping on its way follows a stall.
    pub(super) fresh: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    Round,
    Probe,
    Keepalive,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Blocked {
    until: u64,
    excused: u64,
}

/// What the monitor is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    Hello,
    Ping(Nonce, u32),
    Pong(u32),
    Alive,
    Goodbye(GoodbyeCode),
    Fin,
    /// After a frame.
    Backlog,
    Eof,
    Timeout,
    Flushed,
    Blocked,
    Paused,
    Resumed,
    Probe,
    Finish,
    Close,
}

/// What must come of an input.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Expected {
    pub(super) ping: bool,
    pub(super) alive: bool,
    pub(super) fin: bool,
    /// A goodbye that is no verdict.
    pub(super) goodbye: Option<GoodbyeCode>,
    pub(super) connected: bool,
    /// How late we were.
    pub(super) stall: Option<u64>,
    /// The silence that ended.
    pub(super) recovered: Option<u64>,
    pub(super) beat: Beat,
    pub(super) finished: bool,
    /// Beats missed.
    pub(super) suspect: Option<u64>,
    pub(super) end: Option<Ending>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Beat {
    #[default]
    None,
    Of(u64),
    /// The pong is for a ping before the last.
    Perhaps,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Closed(CloseReason),
    Dead { cause: Cause, missed: u64 },
}

/// One input, while its consequences are worked out.
struct Step<'a> {
    record: &'a mut Record,
    own: &'a Timings,
    peer: &'a Timings,
    now: u64,
    /// How late the input is, if it shows a stall.
    late: Option<u64>,
    expected: Expected,
}

impl Blocked {
    /// With `age` of each instant in its place.
    pub(super) fn aged(self, age: impl Fn(u64) -> u64) -> Self {
        let Self { until, excused } = self;
        let until = age(until);
        Self { until, excused }
    }
}

impl Parting {
    /// With `age` of each instant in its place.
    pub(super) fn aged(self, age: impl Fn(u64) -> u64) -> Self {
        let until = self.until.map(age);
        Self { until, ..self }
    }

    /// Everything that was handed out has left.
    fn flushed(&mut self) {
        for said in [&mut self.fin, &mut self.answer] {
            if *said == Said::InFlight {
                *said = Said::Left;
            }
        }
    }

    /// How it ends, if nothing is missing.
    fn is_over(&self) -> Option<CloseReason> {
        if self.confirmed && self.answer != Said::InFlight {
            Some(CloseReason::Local)
        } else if self.fin == Said::Left && self.their_fin && !self.heard {
            Some(CloseReason::Finished)
        } else {
            None
        }
    }

    /// What any other end comes to.
    fn instead_of_death(&self) -> Option<CloseReason> {
        match (self.confirmed, self.heard) {
            (true, _) => Some(CloseReason::Local),
            (false, true) => Some(CloseReason::Peer {
                code: GoodbyeCode::LEAVING,
                detail: NoDetail,
            }),
            (false, false) => None,
        }
    }
}

impl Record {
    pub(super) const fn new(now: u64) -> Self {
        Self {
            phase: Phase::Idle { probe_waits: false },
            heard_at: now,
            first: true,
            met: false,
            on_its_way: None,
            left_at: None,
            timed: false,
            alive_on_its_way: false,
            alive_left_at: None,
            spoke_at: now,
            pings: 0,
            answered: 0,
            asked: 0,
            stalls: 0,
            excused_until: None,
            suspected: false,
            blocked: None,
            parting: Parting {
                fin: Said::Nothing,
                until: None,
                confirmed: false,
                their_fin: false,
                heard: false,
                answer: Said::Nothing,
            },
            owed: None,
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    pub(super) const fn is_leaving(&self) -> bool {
        self.parting.until.is_some()
    }

    /// When linger is over.
    pub(super) const fn lingers_until(&self) -> Option<u64> {
        self.parting.until
    }

    pub(super) const fn is_paused(&self) -> bool {
        matches!(self.phase, Phase::Paused { .. })
    }

    pub(super) const fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    pub(super) const fn missed(&self) -> u64 {
        match self.phase {
            Phase::Round(round) => round.missed,
            _ => 0,
        }
    }

    /// I*.
    pub(super) fn interval(&self, own: &Timings, peer: &Timings) -> u64 {
        own.interval.max(self.min_gap(peer))
    }

    /// m′.
    pub(super) const fn min_gap(&self, peer: &Timings) -> u64 {
        if self.met { peer.min_interval } else { 0 }
    }

    /// Whether a ping that left this long ago is too recent for another: less than
    /// max(m′, I*·¾) ago.
    pub(super) fn is_recent(&self, ago: u64, own: &Timings, peer: &Timings) -> bool {
        ago < self.min_gap(peer) || 4 * ago < 3 * self.interval(own, peer)
    }

    /// When the peer accepts another ping.
    fn next_accepted(&self, peer: &Timings) -> u64 {
        self.left_at.map_or(0, |left| left + self.min_gap(peer))
    }

    /// The sign interval.
    fn sign_interval(&self, own: &Timings, peer: &Timings) -> u64 {
        let needed = match self.met {
            true => own.interval.min(peer.interval).min(peer.budget()),
            false => own.interval,
        };
        needed.max(own.shortest_sign)
    }

    /// When something must leave so that the peer hears us.
    fn speaks_at(&self, own: &Timings) -> Option<u64> {
        let is_on_its_way = self.on_its_way.is_some() || self.alive_on_its_way;
        let within = own
            .speak_within
            .filter(|_| !is_on_its_way && !self.has_ended());
        within.map(|within| self.spoke_at + within)
    }

    /// The deadline; the early suspicion of a round isn't foreseen.
    pub(super) fn deadline(&self, own: &Timings, peer: &Timings) -> Option<u64> {
        let end = self.heard_at + self.interval(own, peer);
        let deadline = match self.phase {
            Phase::Idle { probe_waits: true } => Some(end.min(self.next_accepted(peer))),
            Phase::Idle { probe_waits: false } => Some(end),
            Phase::Round(round) => Some(round.step),
            Phase::Paused { sign_at, .. } => sign_at,
            Phase::Ended => None,
        };
        let blocked = self.blocked.map(|blocked| blocked.until);
        let others = blocked.into_iter().chain(self.parting.until);
        let others = others.chain(self.speaks_at(own));
        deadline.into_iter().chain(others).min()
    }

    /// Follows one input at `now`. The monitor's deadline was `deadline`.
    pub(super) fn follow(
        &mut self,
        input: Input,
        [own, peer]: [&Timings; 2],
        deadline: Option<u64>,
        now: u64,
    ) -> Expected {
        let watching = !self.has_ended();
        let lateness = deadline.and_then(|deadline| now.checked_sub(deadline));
        let slept = |late: &u64| watching && (*late > own.tolerance || *late >= own.budget());
        let mut step = Step {
            record: self,
            own,
            peer,
            now,
            late: lateness.filter(slept),
            expected: Expected::default(),
        };
        if step.late.is_some() {
            step.record.timed = false;
        }
        let former = step.record.phase;
        let met = step.record.met;
        match input {
            Input::Timeout if lateness.is_none() => {}
            Input::Timeout => step.timeout(),
            Input::Flushed => step.flushed(),
            Input::Blocked => step.blocked(),
            Input::Paused => step.paused(),
            Input::Resumed => step.resumed(),
            Input::Probe => step.probe(),
            Input::Finish => step.finish(),
            Input::Close => step.close(),
            Input::Eof => step.eof(),
            Input::Backlog => step.backlog(),
            frame => step.arrived(frame),
        }
        let judged = matches!(former, Phase::Idle { .. } | Phase::Round(_));
        let has_heard = step.record.heard_at == now && !matches!(former, Phase::Paused { .. });
        let speaks = match input {
            Input::Timeout => lateness.is_some(),
            Input::Paused => judged,
            Input::Resumed => matches!(former, Phase::Paused { .. }),
            Input::Hello if step.record.met != met => true,
            Input::Hello
            | Input::Ping(..)
            | Input::Pong(_)
            | Input::Alive
            | Input::Fin
            | Input::Goodbye(_) => {
                let ends_round = matches!(former, Phase::Round(_));
                has_heard && (ends_round || step.expected.stall.is_some())
            }
            _ => false,
        };
        if speaks {
            step.speak();
        }
        step.expected
    }
}

// ---- arrivals ------------------------------------------------------------

impl Step<'_> {
    fn arrived(&mut self, frame: Input) {
        let is_evidence = match frame {
            Input::Pong(count) => self.pong(count) || !self.own.by_echo,
            // A question is no answer.
            Input::Ping(..) => false,
            _ => !self.own.by_echo,
        };
        if is_evidence {
            self.heard();
        } else if self.forgive() {
            self.late = None;
        }
        match frame {
            Input::Goodbye(code) => self.goodbye(code),
            Input::Fin => self.fin(),
            Input::Ping(nonce, count) => {
                self.record.owed = Some((nonce, count));
                self.ask_along();
            }
            Input::Hello => self.hello(),
            _ => {}
        }
    }

    fn goodbye(&mut self, code: GoodbyeCode) {
        let detail = NoDetail;
        let is_answer = code == GoodbyeCode::RECEIVED;
        let answer = (!is_answer).then_some(GoodbyeCode::RECEIVED);
        if (2..=7).contains(&code.0) {
            let missed = self.record.missed();
            let cause = Cause::GivenUp { code, detail };
            self.end(Ending::Dead { cause, missed });
        } else if !self.record.is_leaving() {
            self.end(Ending::Closed(CloseReason::Peer { code, detail }));
            self.expected.goodbye = answer;
        } else if is_answer {
            self.record.parting.confirmed = true;
            self.part_if_all_is_said();
        } else if !std::mem::replace(&mut self.record.parting.heard, true) {
            self.record.parting.answer = Said::InFlight;
            self.expected.goodbye = answer;
        }
    }

    fn fin(&mut self) {
        let parting = &mut self.record.parting;
        let known = std::mem::replace(&mut parting.their_fin, true);
        self.expected.finished = !known && !parting.heard;
        self.part_if_all_is_said();
    }

    fn part_if_all_is_said(&mut self) {
        if let Some(reason) = self.record.parting.is_over() {
            self.end(Ending::Closed(reason));
        }
    }

    /// The peer asks: so do we, if none of our pings waits for its answer and the
    /// last one left long enough ago.
    fn ask_along(&mut self) {
        let record = &*self.record;
        let ago = record.left_at.map(|left| self.now - left);
        let waits = record.answered < record.pings && ago.is_some_and(|ago| ago < self.own.timeout);
        let is_idle = matches!(record.phase, Phase::Idle { .. });
        let is_recent = ago.is_some_and(|ago| record.is_recent(ago, self.own, self.peer));
        if !is_idle || record.on_its_way.is_some() || waits || is_recent {
            return;
        }
        let end = self.earliest_base();
        if self.is_probe_due() {
            self.round(end.min(self.now));
            self.want_for_probe();
        } else {
            // Without jitter that is later than now, or overdue.
            self.round(end);
            self.want(Purpose::Round);
        }
    }

    /// Evidence came.
    fn heard(&mut self) {
        let record = &mut *self.record;
        match record.phase {
            Phase::Ended => return,
            Phase::Idle { .. } | Phase::Paused { .. } => {}
            Phase::Round(_) => self.enter_idle(),
        }
        let record = &mut *self.record;
        if record.suspected {
            self.expected.recovered = Some(self.now - record.heard_at);
        }
        record.suspected = false;
        record.heard_at = self.now;
        record.asked = 0;
        record.stalls = 0;
        record.excused_until = None;
        if let Some(late) = self.late.take() {
            self.tell_stall(late);
            if matches!(self.record.phase, Phase::Idle { .. }) {
                self.ask_after_stall();
            }
        }
    }

    /// Whether writes were blocked for too long.
    fn is_limit_over(&self) -> bool {
        let blocked = self.record.blocked;
        blocked.is_some_and(|blocked| blocked.until <= self.now)
    }

    fn ask_after_stall(&mut self) {
        if self.is_probe_due() {
            self.begin_asked_for();
        } else if self.record.next_accepted(self.peer) <= self.now {
            self.want(Purpose::Keepalive);
        }
    }

    /// Whether a probe waits, and may leave or is served by a ping that leaves.
    fn is_probe_due(&self) -> bool {
        let may_leave = self.record.next_accepted(self.peer) <= self.now;
        self.record.phase == (Phase::Idle { probe_waits: true })
            && (self.record.on_its_way.is_some() || may_leave)
    }

    fn enter_idle(&mut self) {
        let is_fresh = matches!(self.record.phase, Phase::Round(Round { fresh: true, .. }));
        let asks_on = is_fresh && self.record.next_accepted(self.peer) <= self.now;
        self.record.first = false;
        self.record.phase = Phase::Idle { probe_waits: false };
        if self.record.on_its_way != Some(Purpose::Round) {
            return;
        }
        if self.expected.ping && !asks_on {
            // It wasn't handed out, and isn't sent.
            self.expected.ping = false;
            self.record.on_its_way = None;
        } else {
            self.record.on_its_way = Some(Purpose::Keepalive);
        }
    }

    /// Whether it answers a ping of ours.
    fn pong(&mut self, count: u32) -> bool {
        let record = &mut *self.record;
        let is_recent = u64::from(record.pings - count) < 2 * self.own.misses;
        if count <= record.answered || !is_recent {
            return false;
        }
        record.answered = count;
        self.expected.beat = match record.left_at {
            _ if count < record.pings => Beat::Perhaps,
            Some(left) if record.timed && record.on_its_way.is_none() => Beat::Of(self.now - left),
            _ => Beat::None,
        };
        if count == record.pings && record.on_its_way.is_some() {
            // It has left, whatever the driver says.
            record.on_its_way = None;
            record.left_at = Some(self.now);
            record.spoke_at = self.now;
            record.first = false;
        }
        true
    }

    fn hello(&mut self) {
        if self.record.met {
            return;
        }
        let old_end = self.record.heard_at + self.record.interval(self.own, self.peer);
        self.record.met = true;
        self.expected.connected = true;
        let end = self.record.heard_at + self.record.interval(self.own, self.peer);
        if matches!(self.record.phase, Phase::Idle { .. }) {
            if end <= self.now {
                self.begin_when_silent(old_end.min(self.now));
            }
            self.serve_idle();
        }
    }

    fn backlog(&mut self) {
        self.forgive();
        let is_due = self.next_sign().is_some_and(|at| at <= self.now);
        if is_due && matches!(self.record.phase, Phase::Idle { .. } | Phase::Round(_)) {
            self.show_life();
        }
    }

    /// An Alive leaves if nothing has for too long.
    fn speak(&mut self) {
        let due = self.record.speaks_at(self.own);
        if due.is_some_and(|at| at <= self.now) {
            self.show_life();
            if let Phase::Paused { sign_at, .. } = &mut self.record.phase {
                *sign_at = None;
            }
        }
    }

    /// When a sign of life is due, unless one is on its way.
    fn next_sign(&self) -> Option<u64> {
        let every = self.record.sign_interval(self.own, self.peer);
        let due = self.record.alive_left_at.map_or(0, |left| left + every);
        (!self.record.alive_on_its_way).then_some(due)
    }

    fn show_life(&mut self) {
        self.record.alive_on_its_way = true;
        self.expected.alive = true;
    }
}

// ---- rounds --------------------------------------------------------------

impl Step<'_> {
    /// The earliest base of a round that no probe began.
    fn earliest_base(&self) -> u64 {
        self.record.heard_at + self.record.interval(self.own, self.peer)
    }

    fn round(&mut self, base: u64) -> &mut Round {
        let verdict = base + self.own.budget();
        self.record.phase = Phase::Round(Round {
            verdict,
            step: verdict.min(base.max(self.now) + self.own.timeout),
            asked: false,
            missed: 0,
            forgiven: 0,
            reported: false,
            fresh: false,
        });
        match &mut self.record.phase {
            Phase::Round(round) => round,
            _ => unreachable!(),
        }
    }

    /// The interval is over.
    fn begin_when_silent(&mut self, base: u64) {
        let Record {
            heard_at, left_at, ..
        } = *self.record;
        let base = base.max(self.earliest_base());
        if self.is_probe_due() {
            self.round(base.min(self.now));
            return self.want_for_probe();
        }
        let lately = left_at.is_some_and(|left| {
            left > heard_at && self.record.is_recent(self.now - left, self.own, self.peer)
        });
        self.round(base).asked = lately;
        if !lately {
            self.want(Purpose::Round);
        }
    }

    fn begin_asked_for(&mut self) {
        self.round(self.now);
        self.want_for_probe();
    }

    fn serve_idle(&mut self) {
        let end = self.earliest_base();
        if end <= self.now && matches!(self.record.phase, Phase::Idle { .. }) {
            self.begin_when_silent(end);
        }
        if self.is_probe_due() {
            self.begin_asked_for();
        }
    }

    fn want(&mut self, purpose: Purpose) {
        if self.record.on_its_way.is_none() {
            self.record.on_its_way = Some(purpose);
            self.expected.ping = true;
        }
    }

    /// A ping that is on its way serves the probe.
    fn want_for_probe(&mut self) {
        self.want(Purpose::Probe);
        self.record.on_its_way = Some(Purpose::Probe);
    }

    fn flushed(&mut self) {
        self.forgive();
        self.record.blocked = None;
        self.record.spoke_at = self.now;
        if self.record.alive_on_its_way {
            self.record.alive_on_its_way = false;
            self.record.alive_left_at = Some(self.now);
            let every = self.record.sign_interval(self.own, self.peer);
            if let Phase::Paused { sign_at, .. } = &mut self.record.phase {
                *sign_at = Some(self.now + every);
            }
        }
        self.ping_flushed();
        self.record.parting.flushed();
        self.part_if_all_is_said();
    }

    fn ping_flushed(&mut self) {
        // A ping that is only wanted since this input hasn't left.
        if self.expected.ping {
            return;
        }
        let Some(purpose) = self.record.on_its_way.take() else {
            return;
        };
        self.record.left_at = Some(self.now);
        self.record.timed = true;
        let end_of_step = self.now + self.own.timeout;
        let base = self.earliest_base().min(self.now);
        match &mut self.record.phase {
            Phase::Idle { .. } if purpose == Purpose::Probe => {
                self.round(base).asked = true;
            }
            Phase::Round(round) => {
                if std::mem::take(&mut round.fresh) {
                    round.verdict = round.verdict.max(end_of_step);
                    self.record.excused_until = self.record.excused_until.max(Some(end_of_step));
                }
                round.step = round.step.max(end_of_step).min(round.verdict);
                round.asked = true;
                round.reported = false;
            }
            // The first interval is drawn anew.
            Phase::Idle { .. } if std::mem::take(&mut self.record.first) => {
                let end = self.earliest_base();
                if end <= self.now {
                    self.begin_when_silent(end);
                }
            }
            _ => {}
        }
    }

    fn timeout(&mut self) {
        if !self.forgive() {
            if let Some(late) = self.late {
                self.tell_stall(late);
            }
            self.serve();
        }
        if self.is_limit_over() {
            let missed = self.record.missed();
            self.end(Ending::Dead {
                cause: Cause::WriteStalled,
                missed,
            });
        }
        let parting = self.record.parting;
        if parting.until.is_some_and(|until| until <= self.now) {
            let reason = parting.instead_of_death();
            self.end(Ending::Closed(reason.unwrap_or(CloseReason::Unconfirmed)));
        }
    }

    fn serve(&mut self) {
        match self.record.phase {
            Phase::Idle { .. } => self.serve_idle(),
            Phase::Round(round) => self.step_of(round),
            Phase::Paused { .. } => self.sign_if_due(),
            Phase::Ended => {}
        }
    }

    fn step_of(&mut self, mut round: Round) {
        if round.verdict <= self.now {
            let (cause, missed) = match round.asked {
                true => (Cause::Silent, self.own.misses),
                false => (Cause::WriteStalled, round.missed),
            };
            return self.end(Ending::Dead { cause, missed });
        }
        if round.step > self.now {
            return;
        }
        round.step = round.verdict.min(self.now + self.own.timeout);
        if self.record.on_its_way.is_none() {
            round.missed += 1;
            self.expected.suspect = (!round.reported).then_some(round.missed);
            round.reported = false;
            self.want(Purpose::Round);
        }
        self.record.phase = Phase::Round(round);
        self.record.suspected |= self.expected.suspect.is_some();
    }
}

// ---- stalls --------------------------------------------------------------

impl Step<'_> {
    fn tell_stall(&mut self, late: u64) {
        self.expected.stall = Some(late);
        self.record.stalls += 1;
        let until = &mut self.record.parting.until;
        *until = until.map(|until| until.max(self.now));
        if let Some(blocked) = &mut self.record.blocked {
            if blocked.excused < self.own.misses {
                blocked.excused += 1;
                blocked.until = blocked.until.max(self.now + self.own.timeout);
            }
        }
    }

    /// No evidence came.
    fn forgive(&mut self) -> bool {
        let Some(late) = self.late else { return false };
        let whole_timeout = self.now + self.own.timeout;
        match &mut self.record.phase {
            Phase::Idle { probe_waits } => {
                if *probe_waits {
                    self.want_for_probe();
                } else {
                    self.want(Purpose::Round);
                }
                let base = self.earliest_base().max(self.now);
                let round = self.round(base);
                round.forgiven = 1;
                round.fresh = true;
            }
            Phase::Round(round) if round.forgiven < self.own.misses => {
                // Blocked writes may be later than the round itself.
                let late = self.now.saturating_sub(round.step);
                round.forgiven += 1;
                round.fresh = true;
                round.verdict = whole_timeout.max(round.verdict + late);
                round.step = whole_timeout.max(round.step + late);
                round.reported = false;
                self.want(Purpose::Round);
            }
            _ => return false,
        }
        self.tell_stall(late);
        self.record.excused_until = Some(self.now + self.own.budget());
        true
    }

    fn blocked(&mut self) {
        self.forgive();
        if let (None, Some(limit)) = (self.record.blocked, self.own.write_stall) {
            let until = self.now + limit;
            self.record.blocked = Some(Blocked { until, excused: 0 });
        }
    }
}

// ---- the application's wishes, and ends ----------------------------------

impl Step<'_> {
    fn probe(&mut self) {
        if self.forgive() {
            return;
        }
        match self.record.phase {
            Phase::Idle { .. } => {
                self.record.phase = Phase::Idle { probe_waits: true };
                self.serve_idle();
            }
            Phase::Paused { ref mut probe, .. } => *probe = true,
            _ => {}
        }
    }

    fn paused(&mut self) {
        let waits = self.record.phase == (Phase::Idle { probe_waits: true });
        if let Some(late) = self.late {
            self.tell_stall(late);
        }
        let probe = waits || self.record.on_its_way == Some(Purpose::Probe);
        self.record.on_its_way = self.record.on_its_way.map(|_| Purpose::Keepalive);
        self.record.timed = false;
        self.pause(self.now, probe);
    }

    fn pause(&mut self, since: u64, probe: bool) {
        let sign_at = self.next_sign().map(|at| at.max(self.now));
        self.record.phase = Phase::Paused {
            since,
            sign_at,
            probe,
        };
        self.sign_if_due();
    }

    fn sign_if_due(&mut self) {
        if let Phase::Paused { sign_at, .. } = &mut self.record.phase {
            if sign_at.is_some_and(|at| at <= self.now) {
                *sign_at = None;
                self.show_life();
            }
        }
    }

    fn resumed(&mut self) {
        let Phase::Paused { probe, .. } = self.record.phase else {
            return;
        };
        if let Some(late) = self.late {
            self.tell_stall(late);
        }
        self.record.timed = false;
        self.record.heard_at = self.now;
        self.record.asked = 0;
        self.record.excused_until = None;
        self.record.first = false;
        self.record.phase = Phase::Idle { probe_waits: probe };
        self.serve_idle();
        if !probe && self.late.is_some() {
            self.ask_after_stall();
        }
    }

    fn finish(&mut self) {
        self.forgive();
        let parting = &mut self.record.parting;
        if parting.until.is_none() && parting.fin == Said::Nothing {
            parting.fin = Said::InFlight;
            self.expected.fin = true;
        }
    }

    fn close(&mut self) {
        self.forgive();
        if !self.record.is_leaving() {
            self.record.parting.until = Some(self.now + self.own.linger);
            self.expected.goodbye = Some(GoodbyeCode::LEAVING);
        }
    }

    fn eof(&mut self) {
        let missed = self.record.missed();
        self.end(Ending::Dead {
            cause: Cause::Eof,
            missed,
        });
    }

    fn end(&mut self, ending: Ending) {
        if !self.record.has_ended() {
            let ending = match (ending, self.record.parting.instead_of_death()) {
                (Ending::Dead { .. }, Some(reason)) => Ending::Closed(reason),
                _ => ending,
            };
            self.record.phase = Phase::Ended;
            self.expected.ping = false;
            self.expected.alive = false;
            // The end says it all.
            self.expected.suspect = None;
            self.expected.end = Some(ending);
        }
    }
}
