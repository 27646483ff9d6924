//! What a run has met. A situation that never came up wasn't judged.

use std::collections::BTreeMap;

use heartbeat_core::{CloseReason, Control, Event, GoodbyeCode, State};

use crate::{facts::World, ops::Op, seen::Seen};

#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(pub(crate) BTreeMap<&'static str, u64>);

impl Tally {
    pub(crate) fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub(crate) fn call(&mut self, op: Op, world: &World, before: State, seen: &Seen) {
        self.count("steps");
        let [paused, _] = world.paused;
        let judged = !paused && !matches!(before, State::Closed | State::Dead);
        if before == State::Closing {
            self.leaving(op, world, seen);
        }
        if world.stall && paused {
            self.count("stalls in a pause");
        } else if world.stall {
            self.count(if world.heard.is_some() {
                "stalls with evidence"
            } else {
                "stalls"
            });
        } else if world.late > 0 {
            self.count("late calls");
        } else if judged
            && seen
                .deadline
                .is_some_and(|at| at == world.now.saturating_add(1))
        {
            self.count("calls 1 us early");
        }
        match op {
            Op::Paused if judged => self.count("pauses"),
            Op::HalfClose if judged => self.count("half-closes"),
            Op::Probe if judged => self.count("probes"),
            Op::Probe if paused => self.count("probes in a pause"),
            Op::Hello(_) if judged && world.former.star() != world.terms.star() => {
                self.count("Hellos that change I*");
            }
            Op::SetInterval(_) if world.news => self.count("intervals that are set"),
            Op::SetInterval(_) if world.refused => self.count("intervals that are refused"),
            Op::Backlog if judged => self.count("backlogs"),
            Op::Dialogue(_) if judged && world.allowed[0] != world.allowed[1] => {
                self.count("changes of what is allowed");
            }
            Op::Acknowledged(_) if world.heard.is_some() => self.count("acknowledgements"),
            Op::Goodbye(_) if seen.status.state == State::Closed => {
                let refusal = Control::Goodbye(GoodbyeCode::LEAVING);
                if seen.frames.contains(&refusal) {
                    self.count("refused answers");
                }
            }
            _ => {}
        }
        if seen.status.state == State::Occupied {
            self.count("occupied");
        }
        if world.spoke[1] == world.now && world.terms.speak.is_some() {
            self.count("speaks");
        }
        let is_old = world.heard.is_some_and(|heard| heard.at < world.now);
        if is_old && world.stall {
            self.count("old acknowledgements after a stall");
        } else if is_old {
            self.count("old acknowledgements");
        }
        if world.answered_in_flight {
            self.count("answers before the flush");
        }
    }

    /// A call while we leave.
    fn leaving(&mut self, op: Op, world: &World, seen: &Seen) {
        if world.stall {
            self.count("stalls while leaving");
        }
        match op {
            Op::Paused => self.count("pauses while leaving"),
            Op::Goodbye(code) if code < 2 && seen.status.state == State::Closing => {
                self.count("both leave");
            }
            _ => {}
        }
        if seen.status.state == State::Dead {
            self.count("deaths while leaving");
        }
    }

    pub(crate) fn frame(&mut self, frame: Option<Control>) {
        match frame {
            Some(Control::Ping(_)) => self.count("pings"),
            Some(Control::Pong(_)) => self.count("pongs"),
            Some(Control::Alive) => self.count("signs of life"),
            Some(Control::Goodbye(code)) if code.is_verdict() => self.count("verdicts"),
            Some(Control::Goodbye(GoodbyeCode(8))) => self.count("answers"),
            Some(Control::Goodbye(_)) => self.count("goodbyes"),
            Some(Control::Fin) => self.count("Fins"),
            _ => {}
        }
    }

    pub(crate) fn event(&mut self, event: Option<Event>) {
        self.count(match event {
            Some(Event::Connected { .. }) => "Connected",
            Some(Event::Beat { .. }) => "Beat",
            Some(Event::Suspect { missed: 0, .. }) => "Suspect (early)",
            Some(Event::Suspect { .. }) => "Suspect",
            Some(Event::Recovered { .. }) => "Recovered",
            Some(Event::LocalStall { .. }) => "LocalStall",
            Some(Event::Closed {
                reason: CloseReason::Local,
            }) => "Closed(Local)",
            Some(Event::Closed {
                reason: CloseReason::Unconfirmed,
            }) => "Closed(Unconfirmed)",
            Some(Event::Closed {
                reason: CloseReason::Finished,
            }) => "Closed(Finished)",
            Some(Event::Closed { .. }) => "Closed(Peer)",
            Some(Event::Finished) => "Finished",
            Some(Event::Dead(death)) => match format!("{:?}", death.cause).as_str() {
                "Silent" => "Dead(Silent)",
                "WriteStalled" => "Dead(WriteStalled)",
                "PingFlood" => "Dead(PingFlood)",
                "Refused" => "Dead(Refused)",
                "NotReading" => "Dead(NotReading)",
                "Protocol(Loop)" => "Dead(Loop)",
                cause if cause.starts_with("GivenUp") => "Dead(GivenUp)",
                _ => "Dead(end)",
            },
            _ => return,
        });
    }

    pub(crate) fn require(&self, wanted: &[&str]) {
        for what in wanted {
            assert!(self.0.contains_key(what), "never met: {what}\n{:?}", self.0);
        }
    }

    pub(crate) fn line(&self) -> String {
        let all: Vec<_> = self
            .0
            .iter()
            .map(|(what, count)| format!("{what} {count}"))
            .collect();
        all.join(", ")
    }
}
