//! The judge: makes a call, works out what may follow, and compares.
//!
//! It keeps every history that fits what was shown so far. When none is left
//! the monitor has broken a rule.

use std::{
    fmt::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
};

use heartbeat_core::{Control, Event, Monitor, Nonce, State};

use crate::{
    facts::{Asked, Facts, Sample, World},
    fork::Fork,
    life::{Candidate, Life, Mismatch},
    ops::{Call, Op, Script, instant},
    promises::Promises,
    seen::Seen,
    tally::Tally,
};

/// Histories that are kept at once.
const MOST: usize = 512;

/// A broken rule.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Violation {
    /// Its kind, the same for the same fault.
    pub(crate) rule: String,
    pub(crate) detail: String,
}

impl Violation {
    pub(crate) fn new(rule: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            rule: rule.into(),
            detail: detail.into(),
        }
    }
}

/// A script, and the rule that it breaks.
pub(crate) type Failure = Box<(Script, Violation)>;

pub(crate) fn failure(script: &Script, violation: Violation) -> Failure {
    Box::new((script.clone(), violation))
}

#[derive(Clone, Debug)]
pub(crate) struct Judge {
    pub(crate) monitor: Monitor,
    /// The same monitor once more, with some scripts: promise 16.
    twin: Option<Monitor>,
    pub(crate) facts: Facts,
    pub(crate) seen: Seen,
    pub(crate) pings: Vec<Nonce>,
    candidates: Vec<Candidate>,
    next: Vec<Candidate>,
    promises: Promises,
    first_ping: u32,
}

impl Judge {
    pub(crate) fn new(script: &Script) -> Self {
        let monitor = script.monitor();
        let facts = Facts::new(&script.config, script.hello, script.start);
        let seen = Seen::of(&monitor);
        let mut first = Candidate::new(&facts.terms, script.hello);
        // What doesn't fit now won't fit after the first call either.
        let _ = first.fits(&facts, &facts.idle_world(), &seen);
        Self {
            seen,
            promises: Promises::new(&facts),
            twin: (script.seed % 16 == 0).then(|| script.monitor()),
            monitor,
            facts,
            candidates: vec![first],
            pings: Vec::new(),
            next: Vec::new(),
            first_ping: script.sent,
        }
    }

    pub(crate) fn state(&self) -> State {
        self.seen.status.state
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state(), State::Closed | State::Dead)
    }

    /// Makes one call.
    pub(crate) fn call(&mut self, call: Call, tally: &mut Tally) -> Result<(), Violation> {
        match call.op {
            Op::Transmit => return self.transmit(call, tally),
            Op::Event => return self.event(call, tally),
            _ => {}
        }
        let (state, deadline) = (self.state(), self.seen.deadline);
        let before = self.seen.status;
        let probing = self.candidates.iter().any(Candidate::probing);
        let asked = self.has_asked();
        let world = self.facts.take(call.op, call.now, state, deadline, asked);
        self.next.clear();
        for &candidate in &self.candidates {
            let mut fork = Fork::default();
            loop {
                let mut next = candidate;
                next.take(call.op, &world, &mut fork);
                self.next.push(next);
                if !fork.advance() {
                    break;
                }
            }
        }
        let had_ping = self.has_ping();
        self.make(call, &world)?;
        self.resolve(&world, before);
        self.compare(call, &world)?;
        tally.call(call.op, &world, state, &self.seen);
        if matches!(call.op, Op::Ping(_)) && !had_ping && self.has_ping() && !world.stall {
            tally.count("asks along");
        }
        self.promises.after(call.op, &world, &self.seen, probing)
    }

    /// Whether a ping waits to be handed out.
    fn has_ping(&self) -> bool {
        let mut frames = self.seen.frames.iter();
        frames.any(|frame| matches!(frame, Control::Ping(_)))
    }

    /// Whether a round is under way that has asked.
    fn has_asked(&self) -> Asked {
        let asked = self.candidates.iter().filter(|one| one.has_asked()).count();
        if asked == 0 {
            Asked::No
        } else if asked == self.candidates.len() {
            Asked::Yes
        } else {
            Asked::Perhaps
        }
    }

    /// Makes the call, on the monitor and on its twin.
    fn make(&mut self, call: Call, world: &World) -> Result<(), Violation> {
        let made = catch_unwind(AssertUnwindSafe(|| {
            let accepted = call.op.call(&mut self.monitor, &self.pings, call.now);
            self.seen.look(&self.monitor);
            accepted
        }));
        match made {
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text =
                    text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
                let rule = format!("{}: panic", name(call.op));
                return Err(Violation::new(rule, text.unwrap_or_default()));
            }
            Ok(accepted) => {
                let is_set = matches!(call.op, Op::SetInterval(_));
                if is_set && accepted == world.refused {
                    let rule = "an interval that is refused";
                    return Err(Violation::new(rule, format!("accepted: {accepted}")));
                }
            }
        }
        if let Some(twin) = &mut self.twin {
            call.op.call(twin, &self.pings, call.now);
            if Seen::of(twin) != self.seen {
                return Err(Violation::new(
                    "promise 16: not the same again",
                    format!("{twin:?}"),
                ));
            }
        }
        Ok(())
    }

    /// Whether a sample counted that may count.
    fn resolve(&mut self, world: &World, before: heartbeat_core::Status) {
        let after = &self.seen.status;
        match world.sample {
            Sample::No => {}
            Sample::Yes(rtt) => self.facts.rtt.sample(rtt),
            Sample::Maybe(rtt) => {
                let beat = |event: &Event| matches!(event, Event::Beat { rtt: told } if crate::rtt::is(rtt, *told));
                let changed =
                    (after.last_rtt, after.smoothed_rtt) != (before.last_rtt, before.smoothed_rtt);
                if changed || self.seen.events.iter().any(beat) {
                    self.facts.rtt.sample(rtt);
                }
            }
        }
    }

    fn compare(&mut self, call: Call, world: &World) -> Result<(), Violation> {
        self.status_fits(call)?;
        let mut wrong = Vec::new();
        self.candidates.clear();
        for mut next in self.next.drain(..) {
            match next.fits(&self.facts, world, &self.seen) {
                Ok(()) if self.candidates.contains(&next) => {}
                Ok(()) => self.candidates.push(next),
                Err(mismatch) => wrong.push((mismatch, next)),
            }
        }
        if self.candidates.is_empty() {
            return Err(self.violation(call, world, &wrong));
        }
        if self.candidates.len() > MOST {
            return Err(Violation::new("judge", "too many histories fit"));
        }
        Ok(())
    }

    /// What follows from the calls alone.
    fn status_fits(&mut self, call: Call) -> Result<(), Violation> {
        let status = self.seen.status;
        let op = name(call.op);
        let fail =
            |what: &str, detail: String| Err(Violation::new(format!("{op}: {what}"), detail));
        let has = (
            !self.seen.frames.is_empty(),
            !self.seen.events.is_empty(),
            self.has_ended(),
        );
        if self.seen.has != has {
            let detail = format!("{:?} instead of {has:?}", self.seen.has);
            return fail("has_transmit, has_event, has_ended", detail);
        }
        if *self.monitor.config() != self.facts.config {
            let detail = format!("{:?}", self.monitor.config());
            return fail("config", detail);
        }
        if self.seen.deadline == Some(u64::MAX) {
            return fail("a deadline at the end of time", String::new());
        }
        let facts = &mut self.facts;
        if status.last_heard.as_micros() != facts.last {
            let detail = format!("{:?} instead of {} µs", status.last_heard, facts.last);
            return fail("status().last_heard", detail);
        }
        let wanted = facts.terms.bytes_wanted(facts.now - facts.last);
        let answer = self.monitor.bytes_wanted(instant(facts.now));
        if answer != wanted {
            return fail("bytes_wanted", format!("{answer} instead of {wanted}"));
        }
        let sent = self
            .first_ping
            .wrapping_add(u32::try_from(self.pings.len()).unwrap_or(0));
        if status.pings != sent {
            return fail(
                "status().pings",
                format!("{} instead of {sent}", status.pings),
            );
        }
        if status.pongs != facts.pongs {
            let detail = format!("{} instead of {}", status.pongs, facts.pongs);
            return fail("status().pongs", detail);
        }
        let last = match (facts.rtt.last, status.last_rtt) {
            (None, None) => true,
            (Some(exact), Some(told)) => crate::rtt::is(exact, told),
            _ => false,
        };
        if !last {
            let detail = format!("{:?} instead of {:?} µs", status.last_rtt, facts.rtt.last);
            return fail("status().last_rtt", detail);
        }
        if !facts.rtt.smoothed_is(status.smoothed_rtt) {
            let detail = format!("{:?}, not as {:?}", status.smoothed_rtt, facts.rtt);
            return fail("status().smoothed_rtt", detail);
        }
        let terms = &facts.terms;
        let interval = crate::terms::micros(status.interval);
        let detection = crate::terms::micros(status.detection_time);
        let ended = matches!(status.state, State::Closed | State::Dead);
        let expected = (terms.star(), terms.star() + terms.budget());
        let speech = status.speak_within.map(crate::terms::micros);
        let said = (interval, detection, speech);
        let expected = (expected.0, expected.1, terms.speech());
        if !ended && (status.peer, said) != (terms.peer, expected) {
            let detail = format!("{status:?}, expected {expected:?} and {:?}", terms.peer);
            return fail(
                "status().peer, interval, detection_time, speak_within",
                detail,
            );
        }
        Ok(())
    }

    fn transmit(&mut self, call: Call, tally: &mut Tally) -> Result<(), Violation> {
        let frame = self.monitor.poll_transmit();
        self.twin.as_mut().map(Monitor::poll_transmit);
        if frame != self.seen.frames.first().copied() {
            let detail = format!("{frame:?} instead of {:?}", self.seen.frames.first());
            return Err(Violation::new("transmit: same state, other frame", detail));
        }
        match frame {
            Some(Control::Ping(nonce)) => {
                if self
                    .pings
                    .iter()
                    .rev()
                    .take(600)
                    .any(|&other| other == nonce)
                {
                    return Err(Violation::new(
                        "transmit: a nonce comes twice",
                        format!("{nonce:?}"),
                    ));
                }
                self.promises.ping(&self.facts)?;
                self.pings.push(nonce);
                self.facts.transmitted();
            }
            Some(Control::Hello(hello)) if hello != self.facts.config.hello(hello.instance) => {
                return Err(Violation::new("transmit: our Hello", format!("{hello:?}")));
            }
            Some(Control::Fin) => self.facts.finished(),
            Some(Control::Pong(_)) => self.promises.pong()?,
            Some(Control::Goodbye(_)) => self.promises.goodbye(),
            _ => {}
        }
        tally.frame(frame);
        let may_ping = self.facts.allowed.ping;
        let transmitted = |next: &mut Candidate| next.transmitted(may_ping);
        self.drained(frame.is_some(), transmitted, call)
    }

    fn event(&mut self, call: Call, tally: &mut Tally) -> Result<(), Violation> {
        let event = self.monitor.poll_event();
        self.twin.as_mut().map(Monitor::poll_event);
        if event != self.seen.events.first().copied() {
            let detail = format!("{event:?} instead of {:?}", self.seen.events.first());
            return Err(Violation::new("event: same state, other event", detail));
        }
        tally.event(event);
        self.promises.event(event, &self.facts)?;
        self.drained(event.is_some(), Candidate::drained, call)
    }

    /// Something was polled; what remains must still fit.
    fn drained(
        &mut self,
        any: bool,
        step: impl Fn(&mut Candidate),
        call: Call,
    ) -> Result<(), Violation> {
        if !any {
            return Ok(());
        }
        let mut world = self.facts.idle_world();
        world.now = self.facts.now;
        self.next.clear();
        for &candidate in &self.candidates {
            let mut next = candidate;
            step(&mut next);
            self.next.push(next);
        }
        let deadline = self.seen.deadline;
        self.seen.look(&self.monitor);
        if deadline != self.seen.deadline {
            let detail = format!("from {deadline:?} to {:?}", self.seen.deadline);
            return Err(Violation::new("a poll moves the deadline", detail));
        }
        self.compare(call, &world)
    }

    fn violation(&self, call: Call, world: &World, wrong: &[(Mismatch, Candidate)]) -> Violation {
        let first = wrong.first().expect("there was a history before the call");
        let rule = match first.0 {
            Mismatch::Deadline(_) => "deadline".to_owned(),
            Mismatch::Frames => "frames".to_owned(),
            Mismatch::Events(what) => what.to_owned(),
            Mismatch::State(state) => format!("state not {state:?}"),
            Mismatch::Missed(_) => "status().missed".to_owned(),
            Mismatch::Idle => "is_idle".to_owned(),
        };
        let life = match first.1.life {
            Life::Idle { .. } => "Idle",
            Life::Round(_) => "Round",
            Life::Paused { .. } => "Paused",
            Life::HalfClosed => "HalfClosed",
            Life::Closed { .. } => "Closed",
            Life::Dead { .. } => "Dead",
        };
        let stall = if world.stall { " late" } else { "" };
        let rule = format!("{}{stall} -> {life}: {rule}", name(call.op));
        let mut detail = format!(
            "at {}, {} late\nshown: {:?}\n",
            world.now, world.late, self.seen
        );
        for (mismatch, candidate) in wrong.iter().take(4) {
            let _ = writeln!(
                detail,
                "a history that fitted before: {mismatch:?}\n  {candidate:?}"
            );
        }
        Violation::new(rule, detail)
    }
}

/// A call without its arguments.
pub(crate) fn name(op: Op) -> String {
    let text = format!("{op:?}");
    text.split(['(', ' ', '{'])
        .next()
        .unwrap_or_default()
        .to_owned()
}
