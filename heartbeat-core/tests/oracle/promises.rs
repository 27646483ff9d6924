//! The promises of the design, straight from the history: coarser than the
//! rules of the state machine, and independent of how those are read.

use heartbeat_core::{Cause, CloseReason, Event, State};

use crate::{
    facts::{Facts, World},
    judge::Violation,
    ops::Op,
    seen::Seen,
};

/// A stall of ours since the last arrival.
#[derive(Clone, Copy, Debug)]
struct Stall {
    at: u64,
    late: u64,
    /// When the ping after it left.
    left: Option<u64>,
    /// Whether it must have been forgiven.
    sure: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Promises {
    /// The last arrival, or what counts as one, and before it those since which
    /// every later one was told late.
    arrivals: Vec<u64>,
    /// The longest and the shortest I* since then.
    longest: u64,
    shortest: u64,
    stalls: Vec<Stall>,
    /// How many of them may have been forgiven since evidence was reported, and
    /// how many at least.
    forgiven: (u32, u32),
    probed: Option<u64>,
    ended: bool,
    told_end: bool,
    /// Whether a suspicion was told that wasn't taken back.
    suspected: bool,
    beats_left: bool,
    pings_received: u64,
    pongs_sent: u64,
    flushed: Option<u64>,
    asked: bool,
    /// A ping was handed out and isn't flushed.
    handed: bool,
    stalled_since_flush: bool,
    /// Until when we linger.
    until: Option<u64>,
    /// A goodbye of ours was handed out, and the peer confirmed it after that.
    said_goodbye: bool,
    confirmed: bool,
    /// The peer left.
    left: bool,
    told_finished: bool,
    /// When we could ask again, since the last arrival that was told in time.
    asking_since: Option<u64>,
}

fn broken(number: u8, what: &str, detail: String) -> Violation {
    Violation::new(format!("promise {number}: {what}"), detail)
}

impl Promises {
    pub(crate) fn new(facts: &Facts) -> Self {
        Self {
            arrivals: vec![facts.now],
            longest: facts.terms.star(),
            shortest: facts.terms.shortest(),
            stalls: Vec::new(),
            forgiven: (0, 0),
            probed: None,
            ended: false,
            told_end: false,
            suspected: false,
            beats_left: false,
            pings_received: 0,
            pongs_sent: 0,
            flushed: None,
            asked: false,
            handed: false,
            stalled_since_flush: false,
            until: None,
            said_goodbye: false,
            confirmed: false,
            left: false,
            told_finished: false,
            asking_since: None,
        }
    }

    /// A call was made.
    pub(crate) fn after(
        &mut self,
        op: Op,
        world: &World,
        seen: &Seen,
        probing: bool,
    ) -> Result<(), Violation> {
        let state = seen.status.state;
        // One that waits is still to be sent.
        self.asked |= probing;
        if world.answered_in_flight {
            self.handed = false;
            self.left(world.now);
        }
        let [former, allowed] = world.allowed;
        // A late report of old evidence says nothing about what came after it.
        let is_old = world.heard.is_some_and(|heard| heard.at < world.now);
        if world.heard.is_some() || world.afresh {
            if !is_old {
                self.asking_since = None;
                self.arrivals.clear();
                self.longest = world.terms.star();
                self.shortest = world.terms.shortest();
            }
            self.arrivals.push(world.last);
            self.stalls.retain(|_| is_old);
            for stall in &mut self.stalls {
                // Evidence ends what it left to do.
                stall.sure = false;
            }
            self.forgiven = (0, 0);
            // A probe that is still open begins its round after this.
            self.probed = probing.then_some(world.now);
            self.beats_left = false;
        }
        if !former.asking() && allowed.asking() {
            // The round that forgave may have ended as in a pause; the next one counts anew.
            self.asking_since = Some(world.now);
            self.forgiven.1 = 0;
        }
        self.longest = self.longest.max(world.terms.star());
        self.shortest = self.shortest.min(world.terms.shortest());
        self.stalled_since_flush |= world.stall;
        if world.stall && !world.paused[0] {
            let forgives = (world.heard.is_none() || is_old) && op != Op::Paused;
            // Before that it may be late for something else, and nothing is missed.
            let since = self.arrivals.last().copied().unwrap_or(0);
            let is_over = world.now >= since.saturating_add(world.former.star());
            // Old evidence may begin a round, in which it counts as forgiven.
            if forgives && self.forgiven.1 < world.terms.misses {
                let asks = is_over && former.asking();
                let sure = self.forgiven.0 < world.terms.misses && asks;
                self.forgiven.0 += 1;
                self.forgiven.1 += u32::from(!is_old && asks);
                self.stalls.push(Stall {
                    at: world.now,
                    late: world.late,
                    left: None,
                    sure: sure && !is_old,
                });
            }
        }
        match op {
            Op::Probe => {
                self.probed = self.probed.or(Some(world.now));
                self.asked = true;
            }
            Op::Flushed if std::mem::take(&mut self.handed) => self.left(world.now),
            Op::Ping(_) => self.pings_received += 1,
            Op::Close(_) if !self.ended => {
                let until = world.now.saturating_add(world.terms.linger);
                self.until = self.until.or(Some(until));
            }
            Op::Goodbye(8) if self.said_goodbye => self.confirmed = true,
            Op::Goodbye(code) if !self.ended => self.left |= !(2..=7).contains(&code),
            _ => {}
        }
        self.linger(op, world, seen)?;
        self.deadline(op, world, seen)?;
        if state == State::Dead && !self.ended {
            self.death(op, world, seen)?;
        }
        if matches!(state, State::Dead | State::Closed) {
            self.ended = true;
        } else if self.ended {
            return Err(broken(6, "alive after the end", format!("{state:?}")));
        }
        Ok(())
    }

    /// A ping left.
    fn left(&mut self, now: u64) {
        self.flushed = Some(now);
        self.beats_left = true;
        self.asked = false;
        self.stalled_since_flush = false;
        for stall in &mut self.stalls {
            stall.left = stall.left.or(Some(now));
        }
    }

    /// 17: a side that leaves doesn't wait for ever.
    fn linger(&self, op: Op, world: &World, seen: &Seen) -> Result<(), Violation> {
        let Some(until) = self.until else {
            return Ok(());
        };
        let has_ended = matches!(seen.status.state, State::Closed | State::Dead);
        if has_ended {
            return Ok(());
        }
        let is_over = op == Op::Timeout && until <= world.now;
        // A stall that is told moves what is over to now.
        let latest = until.max(world.now);
        if is_over || seen.deadline.is_none_or(|deadline| deadline > latest) {
            let detail = format!("until {until}, not {:?}", seen.deadline);
            return Err(broken(17, "linger", detail));
        }
        Ok(())
    }

    /// 1 and 12: the deadline is neither too late nor over already.
    fn deadline(&self, op: Op, world: &World, seen: &Seen) -> Result<(), Violation> {
        let Some(deadline) = seen.deadline else {
            return Ok(());
        };
        if op == Op::Timeout && deadline <= world.now && world.now < u64::MAX {
            return Err(broken(
                12,
                "no Zeno",
                format!("{deadline} at {}", world.now),
            ));
        }
        if world.paused[1] || !world.allowed[1].asking() {
            return Ok(());
        }
        let asking_since = self.asking_since.unwrap_or(0);
        let since = |&since: &u64| self.bound(asking_since.max(since), world);
        let bounds = self.arrivals.iter().map(since);
        let bound = bounds.max().unwrap_or(0);
        if deadline > bound {
            let detail = format!("a deadline at {deadline}, the bound is {bound}");
            return Err(broken(1, "completeness", detail));
        }
        Ok(())
    }

    /// When it is dead at the latest, if the last arrival was at `since`.
    fn bound(&self, since: u64, world: &World) -> u64 {
        let mut bound = since
            .saturating_add(self.longest)
            .saturating_add(world.terms.budget());
        for stall in self.stalls.iter().filter(|stall| stall.at >= since) {
            let waited = stall.left.map_or(0, |left| left - stall.at);
            bound = bound
                .saturating_add(stall.late)
                .saturating_add(world.terms.timeout)
                .saturating_add(waited);
        }
        bound
    }

    /// 2, 4 and 5: no death before its time.
    fn death(&self, op: Op, world: &World, seen: &Seen) -> Result<(), Violation> {
        let cause = seen.events.iter().find_map(|event| match event {
            Event::Dead(death) => Some(death.cause),
            _ => None,
        });
        let Some(cause @ (Cause::Silent | Cause::WriteStalled)) = cause else {
            return Ok(());
        };
        let terms = &world.terms;
        if cause == Cause::WriteStalled && terms.write_stall.is_some() {
            return Ok(());
        }
        if op != Op::Timeout && !matches!(op, Op::Acknowledged(_) | Op::Taken(_)) {
            return Err(broken(
                2,
                "a verdict without handle_timeout",
                format!("{op:?}"),
            ));
        }
        let (now, budget) = (world.now, terms.budget());
        let since = self.arrivals.last().copied().unwrap_or(0);
        let accurate = since.saturating_add(self.shortest).saturating_add(budget);
        let probed = self.probed.map(|at| at.saturating_add(budget));
        let earliest = probed.map_or(accurate, |probed| probed.min(accurate));
        if now < earliest {
            let detail = format!("dead at {now}, alive until {earliest}");
            return Err(broken(2, "accuracy", detail));
        }
        if let Some(stall) = self.stalls.iter().rfind(|stall| stall.sure) {
            let asked = stall.left.unwrap_or(stall.at).saturating_add(terms.timeout);
            if now < asked {
                let detail = format!("dead at {now}, asked until {asked}");
                return Err(broken(5, "a fresh ping has its whole W", detail));
            }
        }
        if cause == Cause::Silent && !self.beats_left && self.flushed.is_none() {
            return Err(broken(15, "Silent, but no ping ever left", String::new()));
        }
        Ok(())
    }

    /// A ping is handed out. 8: not too soon after the last one.
    pub(crate) fn ping(&mut self, facts: &Facts) -> Result<(), Violation> {
        self.handed = true;
        let Some(flushed) = self.flushed else {
            return Ok(());
        };
        if self.stalled_since_flush || facts.now == u64::MAX {
            return Ok(());
        }
        let terms = &facts.terms;
        if terms.foreign && terms.speak.is_some() {
            // Pings of speech don't count, and can't be told from others here.
            return Ok(());
        }
        let quarter = terms.jitter.max(250_000);
        let idle = u128::from(terms.star()) * (1_000_000 - u128::from(quarter)) / 1_000_000;
        let idle = u64::try_from(idle).unwrap_or(u64::MAX);
        let idle = if self.asked {
            terms.peers_min()
        } else {
            idle.max(terms.peers_min())
        };
        // In a foreign protocol they show life too.
        let signs = if terms.foreign { terms.sign() } else { idle };
        let least = idle.min(signs).min(terms.timeout);
        let gap = facts.now - flushed;
        if gap.saturating_add(1) < least && !facts.changed_terms(flushed) {
            let detail = format!("{gap} after the last one, at least {least}");
            return Err(broken(8, "rate", detail));
        }
        Ok(())
    }

    /// 7: never more pongs than pings.
    pub(crate) fn pong(&mut self) -> Result<(), Violation> {
        self.pongs_sent += 1;
        if self.pongs_sent > self.pings_received {
            return Err(broken(7, "more pongs than pings", String::new()));
        }
        Ok(())
    }

    /// A goodbye or an answer is handed out.
    pub(crate) const fn goodbye(&mut self) {
        self.said_goodbye = true;
    }

    /// 3, 6, 17: what is told is told once, and in order.
    pub(crate) fn event(&mut self, event: Option<Event>, facts: &Facts) -> Result<(), Violation> {
        let Some(event) = event else { return Ok(()) };
        if self.told_end {
            return Err(broken(6, "an event after the end", format!("{event:?}")));
        }
        self.told_end = event.is_terminal();
        match event {
            Event::Suspect { .. } => {
                self.suspected = true;
                if facts.left_at().is_none() {
                    return Err(broken(
                        3,
                        "Suspect for a beat that was never sent",
                        String::new(),
                    ));
                }
            }
            Event::Recovered { .. } => {
                let told = std::mem::take(&mut self.suspected);
                if !told {
                    return Err(broken(3, "Recovered without Suspect", String::new()));
                }
            }
            Event::Finished if std::mem::replace(&mut self.told_finished, true) => {
                return Err(broken(17, "Finished twice", String::new()));
            }
            Event::Dead(_) if self.left => {
                return Err(broken(6, "a goodbye became a death", format!("{event:?}")));
            }
            Event::Closed {
                reason: CloseReason::Local,
            } if !self.confirmed && !facts.terms.foreign => {
                return Err(broken(17, "nobody confirmed it", String::new()));
            }
            _ => {}
        }
        Ok(())
    }
}
