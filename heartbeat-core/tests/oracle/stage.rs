//! A small driver for scenes: times in milliseconds, deadlines in time.

use std::time::Duration;

use heartbeat_core::{Config, ConfigBuilder, State};

use crate::{
    api,
    judge::Violation,
    ops::{Op, Script, announced},
    side::Side,
    tally::Tally,
};

pub(crate) type Played = Result<(), Violation>;

pub(crate) struct Stage {
    pub(crate) side: Side,
    pub(crate) tally: Tally,
}

pub(crate) fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// I = 10 s, W = 2 s, N = 3, without jitter.
pub(crate) fn usual() -> ConfigBuilder {
    Config::builder()
        .interval(ms(10_000))
        .timeout(ms(2_000))
        .max_missed(3)
        .jitter(0.0)
        .adaptive(false)
}

pub(crate) fn stage(builder: ConfigBuilder) -> Stage {
    stage_from(builder, 0)
}

pub(crate) fn stage_from(builder: ConfigBuilder, start: u64) -> Stage {
    built(builder, start, true)
}

/// A protocol without Hello and Alive.
pub(crate) fn foreign(builder: ConfigBuilder) -> Stage {
    built(builder, 0, false)
}

fn built(builder: ConfigBuilder, start: u64, hello: bool) -> Stage {
    let script = Script {
        config: api::build(builder),
        seed: 7,
        start,
        hello,
        sent: 0,
        calls: Vec::new(),
    };
    Stage {
        side: Side::new(script),
        tally: Tally::default(),
    }
}

impl Stage {
    pub(crate) fn call(&mut self, at: u64, op: Op) -> Played {
        self.side.call(at * 1_000, op, &mut self.tally)
    }

    /// Hands out, flushes, drains.
    pub(crate) fn write(&mut self, at: u64) -> Played {
        self.side.hand_out(at * 1_000, &mut self.tally)?;
        self.side.flush(at * 1_000, &mut self.tally)?;
        self.drain(at)
    }

    pub(crate) fn drain(&mut self, at: u64) -> Played {
        self.side.drain(at * 1_000, &mut self.tally)
    }

    pub(crate) fn then(&mut self, at: u64, op: Op) -> Played {
        self.call(at, op)?;
        self.write(at)
    }

    /// Serves every deadline up to `at` in time; writes if `writes`.
    pub(crate) fn until(&mut self, at: u64, writes: bool) -> Played {
        for _ in 0..1_000 {
            let Some(deadline) = self.side.judge.seen.deadline else {
                break;
            };
            if deadline > at * 1_000 {
                break;
            }
            let now = deadline.max(self.side.judge.facts.now);
            self.side.call(now, Op::Timeout, &mut self.tally)?;
            if writes {
                self.side.hand_out(now, &mut self.tally)?;
                self.side.flush(now, &mut self.tally)?;
            }
            self.side.drain(now, &mut self.tally)?;
        }
        Ok(())
    }

    pub(crate) fn is(&self, right: bool, what: &str) -> Played {
        if right {
            return Ok(());
        }
        let detail = format!("{:?}\n{:?}", self.side.judge.seen, self.side.events);
        Err(Violation::new(what, detail))
    }

    pub(crate) fn dies_at(&mut self, at: u64, writes: bool) -> Played {
        self.until(at - 1, writes)?;
        self.is(!self.side.judge.has_ended(), "alive until then")?;
        self.until(at, writes)?;
        self.is(self.side.judge.state() == State::Dead, "dead at that time")
    }

    pub(crate) fn hello(
        &mut self,
        at: u64,
        [interval, detection, min, misses]: [u64; 4],
    ) -> Played {
        let fields = [interval * 1_000, detection * 1_000, min * 1_000, misses];
        self.call(at, Op::Hello(announced(fields)))
    }
}
