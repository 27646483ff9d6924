//! What a monitor says, and whether it may.

use std::sync::{
    Arc,
    atomic::{AtomicU16, Ordering},
};

use super::{
    model::{Frame, Message, Rules, World},
    record::{Beat, Ending, Expected, Input, Phase, Record, in_ticks},
};
use heartbeat_core::{
    Cause, CloseReason, Control, Death, End, Event, GoodbyeCode, Instant, Monitor, Nonce, State,
};

/// A promise that wasn't kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Broken {
    FalseDead,
    MissedDead,
    EchoStorm,
    Rate,
    MissedSign,
    Terminal,
    Goodbye,
    Suspicion,
    Stall,
    Negotiation,
    Beat,
    Deadline,
    Zeno,
}

/// What must have happened somewhere, lest a scenario prove nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Dead,
    WriteStalled,
    GivenUp,
    ClosedByPeer,
    Confirmed,
    Unconfirmed,
    BothFinished,
    Recovered,
    LocalStall,
    Beat,
}

impl Broken {
    pub(super) const fn promise(self) -> &'static str {
        match self {
            Self::FalseDead => "never dead while it is heard often enough",
            Self::MissedDead => "dead in time once it is silent",
            Self::EchoStorm => "one pong for one ping, the latest",
            Self::Rate => "as many pings as beats, no more",
            Self::MissedSign => "a sign of life when it is due",
            Self::Terminal => "one terminal event, then silence",
            Self::Goodbye => "a goodbye is answered, is no death, and ends",
            Self::Suspicion => "suspect for a beat that is late, until evidence comes",
            Self::Stall => "a stall is told, and nothing else is",
            Self::Negotiation => "the slower interval wins",
            Self::Beat => "a round trip is that of one ping",
            Self::Deadline => "the deadline is when something is due",
            Self::Zeno => "the next deadline is later",
        }
    }
}

/// What was seen anywhere in a search, one bit each. It is no part of a state, or
/// states would be told apart by how they were reached.
#[derive(Clone, Debug, Default)]
pub(super) struct Sightings(Arc<AtomicU16>);

impl Sightings {
    fn note(&self, seen: Seen) {
        if !self.include(seen) {
            self.0.fetch_or(1 << seen as u16, Ordering::Relaxed);
        }
    }

    pub(super) fn include(&self, seen: Seen) -> bool {
        self.0.load(Ordering::Relaxed) & (1 << seen as u16) != 0
    }
}

impl World {
    /// Takes what the monitor gives, and compares it with what must come.
    pub(super) fn judge(
        &mut self,
        rules: &Rules,
        who: usize,
        input: Input,
        before: &Record,
        expected: &Expected,
    ) -> Result<(), Broken> {
        let pings = self.sides[who].record.pings;
        self.take_frames(rules, who, expected)?;
        if u32::from(expected.ping) != self.sides[who].record.pings - pings {
            return Err(Broken::Rate);
        }
        self.take_events(rules, who, before, *expected)?;
        self.judge_status(rules, who)?;
        let has_come = self
            .deadline(rules, who)
            .is_some_and(|deadline| deadline <= self.now);
        if input == Input::Timeout && has_come {
            return Err(Broken::Zeno);
        }
        Ok(())
    }

    pub(super) fn take_frames(
        &mut self,
        rules: &Rules,
        who: usize,
        expected: &Expected,
    ) -> Result<(), Broken> {
        let mut alive = expected.alive;
        let mut fin = expected.fin;
        let mut goodbye = expected.last_word().or(expected.goodbye);
        let [own, peer] = [&rules.timings[who], &rules.timings[1 - who]];
        let side = &mut self.sides[who];
        let record = &mut side.record;
        while let Some(control) = side.monitor.poll_transmit() {
            let frame = match control {
                Control::Ping(nonce) => {
                    let gap = record.min_gap(peer);
                    let is_soon = record.left_at.is_some_and(|left| self.now < left + gap);
                    let most = own.misses + record.stalls;
                    // One for each beat, and one more for each stall; after
                    // evidence no sooner than the peer accepts another, and unless
                    // it was asked for no sooner than three quarters of I.
                    let is_one_too_many = record.asked >= most;
                    let is_idle = rules.probes == 0 && rules.stalls == 0;
                    let is_recent = is_idle
                        && record
                            .left_at
                            .is_some_and(|left| record.is_recent(self.now - left, own, peer));
                    if is_one_too_many || (record.asked == 0 && (is_soon || is_recent)) {
                        return Err(Broken::Rate);
                    }
                    record.pings += 1;
                    record.asked += 1;
                    Frame::Ping(nonce, record.pings)
                }
                Control::Pong(nonce) => match record.owed.take() {
                    Some((owed, count)) if owed == nonce => Frame::Pong(nonce, count),
                    _ => return Err(Broken::EchoStorm),
                },
                Control::Goodbye(code) => {
                    if goodbye.take() != Some(code) {
                        return Err(Broken::Goodbye);
                    }
                    Frame::Other(control)
                }
                Control::Fin => {
                    if !std::mem::take(&mut fin) {
                        return Err(Broken::Goodbye);
                    }
                    Frame::Other(control)
                }
                Control::Alive => {
                    if !std::mem::take(&mut alive) {
                        return Err(Broken::Rate);
                    }
                    Frame::Other(control)
                }
                other => Frame::Other(other),
            };
            side.outbox.push(Message {
                frame,
                since: self.now,
            });
        }
        match record.owed.take() {
            Some(_) if expected.end.is_none() => Err(Broken::EchoStorm),
            _ if goodbye.is_some() || fin => Err(Broken::Goodbye),
            _ if alive => Err(Broken::MissedSign),
            _ => Ok(()),
        }
    }

    /// Takes the events: those that are expected, and no others.
    fn take_events(
        &mut self,
        rules: &Rules,
        who: usize,
        before: &Record,
        mut expected: Expected,
    ) -> Result<(), Broken> {
        let now = self.now;
        let ticks = |time| in_ticks(time, rules.tick);
        let silence = now - before.heard_at;
        let mut ended = false;
        while let Some(event) = self.sides[who].monitor.poll_event() {
            if ended {
                return Err(Broken::Terminal);
            }
            match event {
                Event::Connected { peer } => {
                    let right = peer == rules.configs[1 - who].hello(peer.instance);
                    if !std::mem::take(&mut expected.connected) || !right {
                        return Err(Broken::Negotiation);
                    }
                }
                Event::LocalStall { late } => {
                    if expected.stall.take() != Some(ticks(late)) {
                        return Err(Broken::Stall);
                    }
                    rules.sightings.note(Seen::LocalStall);
                }
                Event::Recovered { silent_for } => {
                    if expected.recovered.take() != Some(ticks(silent_for)) {
                        return Err(Broken::Suspicion);
                    }
                    rules.sightings.note(Seen::Recovered);
                }
                Event::Beat { rtt } => {
                    match std::mem::take(&mut expected.beat) {
                        Beat::Perhaps => {}
                        Beat::Of(time) if time == ticks(rtt) => {}
                        _ => return Err(Broken::Beat),
                    }
                    rules.sightings.note(Seen::Beat);
                }
                Event::Suspect { missed, silent_for } => {
                    let missed = u64::from(missed);
                    let foreseen = expected.suspect.take() == Some(missed);
                    if ticks(silent_for) != silence
                        || !(foreseen || self.is_late(rules, who, missed))
                        || !self.is_unanswered(who)
                    {
                        return Err(Broken::Suspicion);
                    }
                }
                Event::Closed { reason } => {
                    ended = true;
                    let is_unconfirmed = reason == CloseReason::Unconfirmed;
                    if expected.end.take() != Some(Ending::Closed(reason))
                        || rules.calm && is_unconfirmed
                    {
                        return Err(Broken::Goodbye);
                    }
                    rules.sightings.note(match reason {
                        CloseReason::Peer { .. } => Seen::ClosedByPeer,
                        CloseReason::Local => Seen::Confirmed,
                        CloseReason::Unconfirmed => Seen::Unconfirmed,
                        CloseReason::Finished => Seen::BothFinished,
                    });
                }
                Event::Finished => {
                    if !std::mem::take(&mut expected.finished) {
                        return Err(Broken::Goodbye);
                    }
                }
                Event::Dead(death) => {
                    ended = true;
                    // The peer's verdict is evidence like any frame.
                    let silence = now - self.sides[who].record.heard_at;
                    self.judge_dead(rules, who, expected.end.take(), death, silence)?;
                }
                _ => return Err(Broken::Terminal),
            }
        }
        match expected {
            Expected {
                end: Some(Ending::Dead { .. }),
                ..
            } => Err(Broken::MissedDead),
            Expected {
                end: Some(Ending::Closed(_)),
                ..
            }
            | Expected { finished: true, .. } => Err(Broken::Goodbye),
            Expected {
                connected: true, ..
            } => Err(Broken::Negotiation),
            Expected { stall: Some(_), .. } => Err(Broken::Stall),
            Expected {
                recovered: Some(_), ..
            }
            | Expected {
                suspect: Some(_), ..
            } => Err(Broken::Suspicion),
            Expected {
                beat: Beat::Of(_), ..
            } => Err(Broken::Beat),
            _ => Ok(()),
        }
    }

    /// Whether a beat may be reported as later than round trips let expect.
    fn is_late(&mut self, rules: &Rules, who: usize, missed: u64) -> bool {
        let record = &mut self.sides[who].record;
        let (Phase::Round(round), Some(floor), Some(left)) =
            (&mut record.phase, rules.timings[who].floor, record.left_at)
        else {
            return false;
        };
        let late = record.on_its_way.is_none() && left + floor <= self.now;
        let right = late && round.asked && !round.reported && round.missed == missed;
        round.reported = true;
        record.suspected = true;
        right
    }

    /// Whether the last ping was sent, and not answered.
    fn is_unanswered(&self, who: usize) -> bool {
        let record = &self.sides[who].record;
        record.answered < record.pings
    }

    fn judge_dead(
        &mut self,
        rules: &Rules,
        who: usize,
        expected: Option<Ending>,
        death: Death,
        silence: u64,
    ) -> Result<(), Broken> {
        let own = &rules.timings[who];
        let ending = Ending::Dead {
            cause: death.cause,
            missed: death.missed.into(),
        };
        if expected != Some(ending) || in_ticks(death.silent_for, rules.tick) != silence {
            return Err(Broken::FalseDead);
        }
        let seen = match death.cause {
            Cause::Eof if !rules.calm => return Ok(()),
            Cause::GivenUp { .. } => Seen::GivenUp,
            Cause::WriteStalled => Seen::WriteStalled,
            _ => Seen::Dead,
        };
        rules.sightings.note(seen);
        if seen == Seen::GivenUp {
            return Ok(());
        }
        // Whatever the rules of rounds make of it: the promise.
        let record = &self.sides[who].record;
        let shortest = match rules.probes {
            0 => record.interval(own, &rules.timings[1 - who]) + own.budget(),
            _ => own.budget(),
        };
        let is_limit = death.cause == Cause::WriteStalled && own.write_stall.is_some();
        if rules.calm || (silence < shortest && !is_limit) {
            return Err(Broken::FalseDead);
        }
        match death.cause {
            Cause::Silent if !self.is_unanswered(who) => Err(Broken::FalseDead),
            _ => Ok(()),
        }
    }

    /// Whether it may still be silent, awake, and not dead.
    pub(super) fn judge_silence(&self, rules: &Rules, who: usize) -> Result<(), Broken> {
        let record = &self.sides[who].record;
        let own = &rules.timings[who];
        let is_late = |latest: u64| self.now > latest + rules.lateness;
        if record.lingers_until().is_some_and(is_late) {
            return Err(Broken::Goodbye);
        }
        match record.phase {
            Phase::Paused { .. } | Phase::Ended => Ok(()),
            Phase::Idle { .. } | Phase::Round(_) => {
                let interval = record.interval(own, &rules.timings[1 - who]);
                let latest = record.heard_at + interval + own.budget();
                let latest = record
                    .excused_until
                    .map_or(latest, |until| latest.max(until));
                match is_late(latest) {
                    true => Err(Broken::MissedDead),
                    false => Ok(()),
                }
            }
        }
    }

    fn judge_status(&self, rules: &Rules, who: usize) -> Result<(), Broken> {
        let side = &self.sides[who];
        let record = &side.record;
        let [own, peer] = [&rules.timings[who], &rules.timings[1 - who]];
        if record.has_ended() {
            return judge_ended(&side.monitor, rules, self.now);
        }
        let status = side.monitor.status();
        let state = match record.phase {
            _ if record.is_leaving() => State::Closing,
            Phase::Idle { .. } | Phase::Round(_) if record.suspected => State::Suspect,
            Phase::Idle { .. } | Phase::Round(_) => State::Alive,
            Phase::Paused { .. } | Phase::Ended => State::Paused,
        };
        let last_heard = rules.instant(record.heard_at);
        if status.state != state
            || u64::from(status.missed) != record.missed()
            || status.last_heard != last_heard
        {
            return Err(Broken::Suspicion);
        }
        let interval = record.interval(own, peer);
        if in_ticks(status.interval, rules.tick) != interval
            || in_ticks(status.detection_time, rules.tick) != interval + own.budget()
        {
            return Err(Broken::Negotiation);
        }
        let deadline = self.deadline(rules, who);
        let latest = record.deadline(own, peer);
        let may_be_earlier = own.floor.is_some() && matches!(record.phase, Phase::Round(_));
        match (deadline, latest) {
            (Some(deadline), Some(latest)) if may_be_earlier && deadline <= latest => Ok(()),
            _ if deadline == latest => Ok(()),
            _ => Err(Broken::Deadline),
        }
    }
}

impl Expected {
    /// What the peer is told of a verdict of ours.
    fn last_word(&self) -> Option<GoodbyeCode> {
        match self.end {
            Some(Ending::Dead { cause, .. }) => verdict(cause),
            _ => None,
        }
    }

    /// Whether the last goodbye that was handed out tells the peer of the end.
    pub(super) fn tells_the_end(&self) -> bool {
        self.end.is_some() && (self.goodbye.is_some() || self.last_word().is_some())
    }
}

/// The code of a verdict of ours.
fn verdict(cause: Cause) -> Option<GoodbyeCode> {
    match cause {
        Cause::Silent => Some(GoodbyeCode::SILENT),
        Cause::WriteStalled => Some(GoodbyeCode::WRITE_STALLED),
        _ => None,
    }
}

/// After the end every input is ignored, and every output is `None`.
fn judge_ended(monitor: &Monitor, rules: &Rules, now: u64) -> Result<(), Broken> {
    let state = monitor.status().state;
    if !matches!(state, State::Closed | State::Dead) {
        return Err(Broken::Terminal);
    }
    for later in [0, 1, 50] {
        let now: Instant = rules.instant(now + later);
        let monitor = &mut monitor.clone();
        monitor.handle_bytes(now);
        monitor.handle_frame(Control::Ping(Nonce([7; 8])), now);
        monitor.handle_blocked(now);
        monitor.handle_progress(now);
        monitor.handle_flushed(now);
        monitor.handle_timeout(now);
        monitor.probe(now);
        monitor.handle_backlog(now);
        monitor.handle_paused(now);
        monitor.handle_resumed(now);
        monitor.handle_frame(Control::Goodbye(GoodbyeCode::SILENT), now);
        monitor.handle_end(End::Reset, now);
        monitor.handle_frame(Control::Goodbye(GoodbyeCode::LEAVING), now);
        monitor.handle_frame(Control::Fin, now);
        monitor.finish(now);
        monitor.close(GoodbyeCode::LEAVING, now);
        if monitor.poll_transmit().is_some()
            || monitor.poll_event().is_some()
            || monitor.poll_timeout().is_some()
            || monitor.status().state != state
        {
            return Err(Broken::Terminal);
        }
    }
    Ok(())
}
