//! Looks into a monitor, for model checkers.
//!
//! This module decides which facts the future of a monitor depends on. Each part describes
//! its own.

use core::time::Duration;

use super::{Monitor, Protocol};
use crate::{
    testkit::{Facts, Snapshot},
    time::Instant,
};

impl Monitor {
    /// As if this number of pings had been sent and answered: their count wraps at
    /// 2³².
    #[doc(hidden)]
    pub fn set_pings_sent(&mut self, pings: u32) {
        self.ledger.set_sent(pings);
    }

    /// What the future depends on from `now` on, if no later input is earlier.
    /// What is longer ago than `oldest` counts as that old.
    #[doc(hidden)]
    #[must_use]
    pub fn snapshot(&self, now: Instant, oldest: Duration) -> Snapshot {
        let Self {
            timing,
            life,
            outbox,
            ledger,
            notices,
            writes,
            leaving,
            health,
            speech,
            protocol,
            random: _,
            clock,
            last_heard,
        } = self;
        let mut taken = Facts::new(*timing.config(), now.max(*clock), oldest);
        let facts = &mut taken;
        timing.describe(facts);
        life.describe(facts);
        outbox.describe(facts);
        ledger.describe(self.window(), timing.config().adaptive(), facts);
        notices.describe(facts);
        writes.describe(facts);
        leaving.describe(facts);
        if timing.config().adaptive() {
            health.describe(facts);
        }
        speech.describe(facts);
        match protocol {
            Protocol::Ours(limiter) => limiter.describe(facts),
            Protocol::Foreign { answers } => facts.number(*answers),
        }
        facts.instant(*last_heard);
        taken.into_snapshot()
    }
}
