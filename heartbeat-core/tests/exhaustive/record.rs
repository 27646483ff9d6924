//! What docs/state-machine.md says that a monitor must do.
//!
//! A [`Record`] follows one monitor from outside: it is told the same inputs,
//! and says of each what must come of it. It is written from that page, without
//! jitter, and knows nothing of the monitor but its deadlines, by which the page
//! says what a stall is. All times are ticks.

use heartbeat_core::{Cause, CloseReason, Config, Evidence, Nonce};

/// One side's timings in ticks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timings {
    pub(super) interval: u64,
    pub(super) timeout: u64,
    pub(super) misses: u64,
    pub(super) min_interval: u64,
    pub(super) tolerance: u64,
    pub(super) write_stall: Option<u64>,
    /// With `adaptive`.
    pub(super) floor: Option<u64>,
    pub(super) by_echo: bool,
    /// No keepalive pings closer together than this.
    shortest_keepalive: u64,
}

impl Timings {
    /// With a tick of so many microseconds.
    pub(super) fn new(config: &Config, tick: u64) -> Self {
        let ticks = |time| in_ticks(time, tick);
        Self {
            interval: ticks(config.interval()),
            timeout: ticks(config.timeout()),
            misses: config.max_missed().into(),
            min_interval: ticks(config.min_interval()),
            tolerance: ticks(config.stall_tolerance()),
            write_stall: config.write_stall().map(ticks),
            floor: config.adaptive().then(|| ticks(config.adaptive_floor())),
            by_echo: config.evidence() == Evidence::Echo,
            shortest_keepalive: 20_000_u64.div_ceil(tick),
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
        keepalive_at: Option<u64>,
        probe: bool,
    },
    Leaving {
        until: u64,
    },
    Ended,
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
    Goodbye,
    /// After a frame.
    Backlog,
    Eof,
    Timeout,
    Flushed,
    Blocked,
    Paused,
    Resumed,
    Probe,
    Close,
}

/// What must come of an input.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Expected {
    pub(super) ping: bool,
    pub(super) connected: bool,
    /// How late we were.
    pub(super) stall: Option<u64>,
    /// The silence that ended.
    pub(super) recovered: Option<u64>,
    pub(super) beat: Beat,
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

impl Record {
    pub(super) const fn new() -> Self {
        Self {
            phase: Phase::Idle { probe_waits: false },
            heard_at: 0,
            first: true,
            met: false,
            on_its_way: None,
            left_at: None,
            timed: false,
            pings: 0,
            answered: 0,
            asked: 0,
            stalls: 0,
            excused_until: None,
            suspected: false,
            blocked: None,
            owed: None,
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    pub(super) const fn is_leaving(&self) -> bool {
        matches!(self.phase, Phase::Leaving { .. })
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

    /// When the peer accepts another ping.
    fn next_accepted(&self, peer: &Timings) -> u64 {
        self.left_at.map_or(0, |left| left + self.min_gap(peer))
    }

    fn keepalive_interval(&self, own: &Timings, peer: &Timings) -> u64 {
        let ours = self.interval(own, peer);
        let needed = match self.met {
            true => ours.min(peer.interval).min(peer.budget()),
            false => ours,
        };
        needed.max(own.shortest_keepalive).max(self.min_gap(peer))
    }

    /// The deadline; the early suspicion of a round isn't foreseen.
    pub(super) fn deadline(&self, own: &Timings, peer: &Timings) -> Option<u64> {
        let end = self.heard_at + self.interval(own, peer);
        let deadline = match self.phase {
            Phase::Idle { probe_waits: true } => Some(end.min(self.next_accepted(peer))),
            Phase::Idle { probe_waits: false } => Some(end),
            Phase::Round(round) => Some(round.step),
            Phase::Paused { keepalive_at, .. } => keepalive_at,
            Phase::Leaving { until } => Some(until),
            Phase::Ended => None,
        };
        let blocked = self.blocked.map(|blocked| blocked.until);
        deadline.into_iter().chain(blocked).min()
    }

    /// Follows one input at `now`. The monitor's deadline was `deadline`.
    pub(super) fn follow(
        &mut self,
        input: Input,
        [own, peer]: [&Timings; 2],
        deadline: Option<u64>,
        now: u64,
    ) -> Expected {
        let watching = !self.is_leaving() && !self.has_ended();
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
        match input {
            Input::Timeout if lateness.is_none() => {}
            Input::Timeout => step.timeout(),
            Input::Flushed => step.flushed(),
            Input::Blocked => step.blocked(),
            Input::Paused => step.paused(),
            Input::Resumed => step.resumed(),
            Input::Probe => step.probe(),
            Input::Close => step.close(),
            Input::Eof => step.eof(),
            Input::Backlog => step.backlog(),
            frame => step.arrived(frame),
        }
        step.expected
    }
}

// ---- arrivals ------------------------------------------------------------

impl Step<'_> {
    fn arrived(&mut self, frame: Input) {
        // The bytes first, then the frame in them.
        if !self.own.by_echo {
            self.heard();
            // The frame ends the round that an overdue probe began.
            if matches!(self.record.phase, Phase::Round(_)) {
                self.enter_idle();
            }
        } else if self.forgive() {
            self.late = None;
        }
        match frame {
            Input::Goodbye => self.end(Ending::Closed(CloseReason::Peer)),
            _ if self.record.is_leaving() => {}
            Input::Pong(count) => self.pong(count),
            Input::Ping(nonce, count) => self.record.owed = Some((nonce, count)),
            Input::Hello => self.hello(),
            _ => {}
        }
    }

    /// Evidence came.
    fn heard(&mut self) {
        let record = &mut *self.record;
        match record.phase {
            Phase::Leaving { .. } | Phase::Ended => return,
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

    fn pong(&mut self, count: u32) {
        let record = &mut *self.record;
        let is_recent = u64::from(record.pings - count) < 2 * self.own.misses;
        if count <= record.answered || !is_recent {
            return;
        }
        record.answered = count;
        self.expected.beat = match record.left_at {
            _ if count < record.pings => Beat::Perhaps,
            Some(left) if record.timed && record.on_its_way.is_none() => Beat::Of(self.now - left),
            _ => Beat::None,
        };
        // One that is wanted only since this input isn't the latest yet.
        if count == record.pings && record.on_its_way.is_some() && !self.expected.ping {
            // It has left, whatever the driver says.
            record.on_its_way = None;
            record.left_at = Some(self.now);
            record.first = false;
        }
        if self.own.by_echo {
            self.heard();
        }
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
        if self.forgive() {
            return;
        }
        let keepalive = self.record.keepalive_interval(self.own, self.peer);
        let is_due = self
            .record
            .left_at
            .is_none_or(|left| left + keepalive <= self.now);
        if is_due && self.record.phase == (Phase::Idle { probe_waits: false }) {
            self.want(Purpose::Keepalive);
        }
    }
}

// ---- rounds --------------------------------------------------------------

impl Step<'_> {
    /// The earliest base of a round that nobody asked for.
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
        let interval = self.record.interval(self.own, self.peer);
        let gap = self.record.min_gap(self.peer);
        let base = base.max(self.earliest_base());
        if self.is_probe_due() {
            self.round(base.min(self.now));
            return self.want_for_probe();
        }
        // Less than max(m′, I*·¾) ago.
        let lately = left_at.is_some_and(|left| {
            let ago = self.now - left;
            left > heard_at && (ago < gap || 4 * ago < 3 * interval)
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
        if self.record.is_leaving() {
            return self.end(Ending::Closed(CloseReason::Local));
        }
        // A ping that is only wanted since this input hasn't left.
        if self.expected.ping {
            return;
        }
        let Some(purpose) = self.record.on_its_way.take() else {
            return;
        };
        self.record.left_at = Some(self.now);
        self.record.timed = true;
        let keepalive = self.record.keepalive_interval(self.own, self.peer);
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
            Phase::Paused {
                keepalive_at,
                probe,
                ..
            } => {
                *keepalive_at = Some(self.now + keepalive);
                *probe = false;
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
    }

    fn serve(&mut self) {
        match self.record.phase {
            Phase::Idle { .. } => self.serve_idle(),
            Phase::Round(round) => self.step_of(round),
            Phase::Paused { .. } => self.keepalive_if_due(),
            Phase::Leaving { until } if until <= self.now => {
                self.end(Ending::Closed(CloseReason::Local));
            }
            Phase::Leaving { .. } | Phase::Ended => {}
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
            Phase::Paused { since, .. } => {
                self.pause(since, true);
            }
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
        let keepalive = self.record.keepalive_interval(self.own, self.peer);
        let regular = self
            .record
            .left_at
            .map_or(self.now, |left| left + keepalive);
        let accepted = self.record.next_accepted(self.peer);
        let due = if probe {
            regular.min(accepted)
        } else {
            regular
        };
        let idle = self.record.on_its_way.is_none();
        self.record.phase = Phase::Paused {
            since,
            keepalive_at: idle.then_some(due.max(self.now)),
            probe,
        };
        self.keepalive_if_due();
    }

    fn keepalive_if_due(&mut self) {
        if let Phase::Paused { keepalive_at, .. } = &mut self.record.phase {
            if keepalive_at.is_some_and(|at| at <= self.now) {
                *keepalive_at = None;
                self.want(Purpose::Keepalive);
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

    fn close(&mut self) {
        if !self.record.is_leaving() {
            self.record.phase = Phase::Leaving {
                until: self.now + self.own.budget(),
            };
            self.record.blocked = None;
            self.record.owed = None;
        }
    }

    fn eof(&mut self) {
        let missed = self.record.missed();
        self.end(match self.record.phase {
            Phase::Leaving { .. } => Ending::Closed(CloseReason::Local),
            _ => Ending::Dead {
                cause: Cause::Eof,
                missed,
            },
        });
    }

    fn end(&mut self, ending: Ending) {
        if !self.record.has_ended() {
            self.record.phase = Phase::Ended;
            self.expected.ping = false;
            self.expected.end = Some(ending);
        }
    }
}
