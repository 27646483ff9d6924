//! A second connection that tries longer intervals.
//!
//! This module decides when an attempt begins, and its outcome. The search decides the
//! interval, and the application how to connect.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    time::Duration,
};

use futures_core::Stream;
use heartbeat_core::{Config, SearchOutcome};
use tokio::time::{Instant, sleep_until};

use super::{IdleMeter, Learner, idle_before, suspicious, trying};
use crate::{Backoff, PeerEvent};

/// Answers without a sufficient idle time before an attempt ends: the peer doesn't leave the
/// connection idle.
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
    /// Consecutive attempts that taught nothing.
    failures: u32,
    next_at: Instant,
}

/// An attempt of a [`Prober`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive] // there may be more to tell
pub struct Probe {
    /// The interval under test.
    pub interval: Duration,
    /// The outcome, which the learner has already. An answer after a much shorter idle time
    /// means that the peer pings more often itself.
    pub outcome: SearchOutcome,
    /// How long the attempt took.
    pub took: Duration,
}

impl Prober {
    /// Takes the timings of the application's connection; the interval is replaced. The
    /// backoff is for attempts that taught nothing.
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

    /// The next attempt. Waits until the search has an interval to try.
    ///
    /// `connect` makes a connection like the application's, over a stream that the meter
    /// [measures](IdleMeter::over), with the given timings. It is called again after a loss.
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
            // The learner holds the sender, so this doesn't happen.
            None => self.learner.interval(),
        };
        let began_at = Instant::now();
        let config = trying(&self.config, interval);
        let suspicious = suspicious(interval, &self.learner.search());
        let meter = IdleMeter::new();
        let attempt = async {
            let Ok(connection) = connect(meter.clone(), config).await else {
                return SearchOutcome::Unrelated;
            };
            match watch(connection, &meter, interval, suspicious).await {
                Ok(idle) => SearchOutcome::Answered { idle },
                // A loss counts only if the network works.
                Err(Some(idle)) if connect(IdleMeter::new(), config).await.is_ok() => {
                    SearchOutcome::Lost { idle }
                }
                Err(_) => SearchOutcome::Unrelated,
            }
        };
        let outcome = self.learner.unless_changed(attempt).await;
        self.plan(interval, outcome);
        self.learner.learn(outcome);
        Probe {
            interval,
            outcome,
            took: began_at.elapsed(),
        }
    }

    /// When the next attempt may begin.
    fn plan(&mut self, interval: Duration, outcome: SearchOutcome) {
        let teaches = match outcome {
            SearchOutcome::Unrelated => false,
            // The peer pings more often itself.
            SearchOutcome::Answered { idle } => idle >= enough(interval),
            _ => true,
        };
        self.failures = match teaches {
            true => 0,
            false => self.failures.saturating_add(1),
        };
        self.next_at = match self.failures {
            0 => Instant::now(),
            failures => self.backoff.after_failures(failures),
        };
    }
}

/// The idle time that is as good as this interval: we may have written after the last
/// arrival, which shortens it.
fn enough(interval: Duration) -> Duration {
    interval - interval / 20
}

/// Leaves a connection idle until its ping is answered. Returns the idle time that it
/// survived, or the one that it may have died of.
async fn watch<C, M>(
    connection: C,
    meter: &IdleMeter,
    interval: Duration,
    suspicious: Duration,
) -> Result<Duration, Option<Duration>>
where
    C: Stream<Item = PeerEvent<M>>,
{
    let enough = enough(interval);
    let mut connection = pin!(connection);
    let mut longest = Duration::ZERO;
    let mut answers = 0;
    loop {
        match poll_fn(|cx| connection.as_mut().poll_next(cx)).await {
            Some(PeerEvent::Dead(death)) => {
                return Err(idle_before(&death.cause, meter, suspicious));
            }
            // A stall of ours hides the idle time.
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
