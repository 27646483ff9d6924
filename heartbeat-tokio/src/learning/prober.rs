//! A second connection that tries what the first isn't to be lost for.
//!
//! This module decides when an attempt begins and what came of it. Which interval is
//! tried is decided by the search, and what a connection is by the application.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    time::Duration,
};

use futures_core::Stream;
use heartbeat_core::{Config, SearchOutcome};
use tokio::time::{Instant, sleep_until};

use super::{IdleMeter, Learner, idle_before, trying};
use crate::{Backoff, PeerEvent};

/// After so many answers without an idle time that is long enough, it is the peer who
/// doesn't leave the connection idle.
const PATIENCE: u32 = 3;

/// Tries intervals on connections of its own; see [`Learner`].
///
/// An attempt connects, waits for the interval, and asks. If it isn't answered, another
/// connection says whether the network is there at all.
#[derive(Debug)]
pub struct Prober {
    learner: Learner,
    config: Config,
    backoff: Backoff,
    /// Attempts to connect that failed in a row.
    failures: u32,
    next_at: Instant,
}

/// An attempt of a [`Prober`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive] // there may be more to tell
pub struct Probe {
    /// The interval that was tried.
    pub interval: Duration,
    /// What came of it; the learner knows already. An answer after an idle time that is
    /// much shorter than the interval comes of a peer that asks more often itself.
    pub outcome: SearchOutcome,
    /// How long the attempt took.
    pub took: Duration,
}

impl Prober {
    /// With the timings of the application's connection, but for the interval; how long
    /// to wait after an attempt to connect that failed is the backoff's to say.
    #[must_use]
    pub fn new(learner: Learner, config: Config, backoff: Backoff) -> Self {
        Self {
            learner,
            config,
            backoff,
            failures: 0,
            next_at: Instant::now(),
        }
    }

    /// The next attempt, as soon as there is something to try.
    ///
    /// `connect` makes a connection like the application's, over a stream that the meter
    /// [measures](IdleMeter::over), with the given timings.
    ///
    /// Cancel safe. If the future is dropped, nothing was learned.
    pub async fn attempt<F, A, C, M, E>(&mut self, mut connect: F) -> Probe
    where
        F: FnMut(IdleMeter, Config) -> A,
        A: Future<Output = Result<C, E>>,
        C: Stream<Item = PeerEvent<M>>,
    {
        sleep_until(self.next_at).await;
        let interval = match self.learner.next().await {
            Some(interval) => interval,
            // The learner's sender is ours too, and isn't closed.
            None => self.learner.interval(),
        };
        let began_at = Instant::now();
        let config = trying(&self.config, interval);
        let meter = IdleMeter::new();
        let outcome = match connect(meter.clone(), config).await {
            Ok(connection) => match watch(connection, &meter, interval).await {
                Ok(idle) => SearchOutcome::Answered { idle },
                // Only a network that is there says something about it.
                Err(Some(idle)) if connect(IdleMeter::new(), config).await.is_ok() => {
                    SearchOutcome::Lost { idle }
                }
                Err(_) => SearchOutcome::Unrelated,
            },
            Err(_) => SearchOutcome::Unrelated,
        };
        self.plan(outcome);
        self.learner.learn(outcome);
        Probe {
            interval,
            outcome,
            took: began_at.elapsed(),
        }
    }

    /// When the next attempt may begin.
    fn plan(&mut self, outcome: SearchOutcome) {
        self.failures = match outcome {
            SearchOutcome::Unrelated => self.failures.saturating_add(1),
            _ => 0,
        };
        self.next_at = match self.failures {
            0 => Instant::now(),
            failures => self.backoff.after_failures(failures),
        };
    }
}

/// Leaves a connection idle, and asks: for how long it was idle and survived that, or
/// of how long an idle time it may have died.
async fn watch<C, M>(
    connection: C,
    meter: &IdleMeter,
    interval: Duration,
) -> Result<Duration, Option<Duration>>
where
    C: Stream<Item = PeerEvent<M>>,
{
    // The ping leaves an interval after the last arrival, behind which we may have sent.
    let enough = interval - interval / 20;
    let mut connection = pin!(connection);
    let mut longest = Duration::ZERO;
    let mut answers = 0;
    loop {
        match poll_fn(|cx| connection.as_mut().poll_next(cx)).await {
            Some(PeerEvent::Dead(death)) => {
                return Err(idle_before(&death.cause, meter, interval));
            }
            // An idle time in which we were asleep is none.
            Some(PeerEvent::Closed { .. } | PeerEvent::LocalStall { .. }) | None => {
                return Err(None);
            }
            Some(PeerEvent::Suspect { .. }) => continue,
            Some(_) => {}
        }
        if let Some(survived) = meter.take_survived() {
            longest = longest.max(survived);
            answers += 1;
        }
        if longest >= enough || answers >= PATIENCE {
            return Ok(longest);
        }
    }
}
