//! One end of a connection: a judged monitor and a driver that reads, looks at
//! the clock, writes and drains, in that order.

use heartbeat_core::{Control, Event, Nonce};

use crate::{
    judge::{Judge, Violation},
    ops::{Answer, Call, Op, Script},
    tally::Tally,
};

#[derive(Clone, Debug)]
pub(crate) struct Side {
    pub(crate) judge: Judge,
    pub(crate) script: Script,
    /// Frames that were handed out and aren't flushed yet.
    pub(crate) unsent: Vec<Control>,
    /// The terminal event, and whatever came before it.
    pub(crate) events: Vec<Event>,
}

fn number(nonce: Nonce) -> u64 {
    u64::from_be_bytes(nonce.0)
}

impl Side {
    pub(crate) fn new(script: Script) -> Self {
        Self {
            judge: Judge::new(&script),
            script,
            unsent: Vec::new(),
            events: Vec::new(),
        }
    }

    pub(crate) fn call(&mut self, now: u64, op: Op, tally: &mut Tally) -> Result<(), Violation> {
        let call = Call { now, op };
        self.script.calls.push(call);
        self.judge.call(call, tally)
    }

    /// A frame arrived.
    pub(crate) fn read(
        &mut self,
        frame: Control,
        now: u64,
        tally: &mut Tally,
    ) -> Result<(), Violation> {
        let op = match frame {
            Control::Hello(hello) => Op::Hello(hello),
            Control::Ping(nonce) => Op::Ping(number(nonce)),
            Control::Pong(nonce) => {
                let sent = &self.judge.pings;
                let known = sent.iter().rposition(|&ping| ping == nonce);
                Op::Pong(known.map_or(Answer::Nobody(number(nonce)), Answer::Ping))
            }
            Control::Alive => Op::Alive,
            Control::Fin => Op::Fin,
            Control::Goodbye(code) => Op::Goodbye(code.0),
            _ => Op::Reserved,
        };
        self.call(now, op, tally)
    }

    /// Serves the deadline if it is due.
    pub(crate) fn look_at_the_clock(
        &mut self,
        now: u64,
        tally: &mut Tally,
    ) -> Result<(), Violation> {
        if self.judge.seen.deadline.is_some_and(|at| at <= now) {
            self.call(now, Op::Timeout, tally)?;
        }
        Ok(())
    }

    /// Takes all frames.
    pub(crate) fn hand_out(&mut self, now: u64, tally: &mut Tally) -> Result<(), Violation> {
        while let Some(&frame) = self.judge.seen.frames.first() {
            self.call(now, Op::Transmit, tally)?;
            self.unsent.push(frame);
        }
        Ok(())
    }

    /// All of them left. Returns them.
    pub(crate) fn flush(&mut self, now: u64, tally: &mut Tally) -> Result<Vec<Control>, Violation> {
        if self.unsent.is_empty() {
            return Ok(Vec::new());
        }
        self.call(now, Op::Flushed, tally)?;
        Ok(std::mem::take(&mut self.unsent))
    }

    pub(crate) fn drain(&mut self, now: u64, tally: &mut Tally) -> Result<(), Violation> {
        while let Some(&event) = self.judge.seen.events.first() {
            self.call(now, Op::Event, tally)?;
            self.events.push(event);
        }
        Ok(())
    }
}
