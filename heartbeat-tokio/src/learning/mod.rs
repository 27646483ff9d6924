//! Learns the longest interval for which a network keeps an idle connection.
//!
//! This module decides what an event means for the search, and the interval of the
//! application's connection. `meter` measures idle times, `prober` tries intervals on a
//! second connection, and `file` remembers results. [`IntervalSearch`] decides what
//! follows from an outcome.

use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration};

use heartbeat_core::{Config, IntervalSearch, SearchOutcome};
use tokio::sync::watch;

use crate::{Cause, PeerEvent};

#[cfg(feature = "interval-file")]
mod file;
mod meter;
mod prober;

#[cfg(feature = "interval-file")]
pub use file::{IntervalFile, IntervalFileError};
pub use meter::{IdleMeter, Metered};
pub use prober::{Probe, Prober};

/// Learns the longest interval for which the network keeps an idle connection. Clones share
/// one state.
///
/// The application's connection uses the safe interval, and a [`Prober`] tries longer ones
/// on connections of its own. With [`on_own_connection`](Self::on_own_connection) the
/// application's connection tries them itself.
///
/// ```
/// use futures::StreamExt;
/// use heartbeat_tokio::heartbeat_core::IntervalSearch;
/// use heartbeat_tokio::{Backoff, Config, Heartbeat, Learner, Prober, Reconnect};
/// use std::{io, time::Duration};
/// use tokio::net::TcpStream;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let minute = Duration::from_secs(60);
/// let learner = Learner::new(IntervalSearch::new(minute / 2..=120 * minute)?);
/// let config = Config::mobile();
///
/// let mut prober = Prober::new(learner.clone(), config, Backoff::default());
/// tokio::spawn(async move {
///     loop {
///         let probe = prober.attempt(async |meter, config| {
///             let stream = TcpStream::connect("server.example:7000").await?;
///             Ok::<_, io::Error>(Heartbeat::new(meter.over(stream), config))
///         });
///         println!("{:?}", probe.await);
///     }
/// });
///
/// let mut server = Reconnect::new(Backoff::default(), async || {
///     let stream = TcpStream::connect("server.example:7000").await?;
///     let stream = learner.meter().over(stream);
///     let peer = Heartbeat::new(stream, learner.config(&config));
///     Ok::<_, io::Error>(peer.with_socket(|stream| Some(stream.get_ref())))
/// })
/// .learning(learner.clone());
/// loop {
///     let mut peer = server.connect().await;
///     while let Some(event) = peer.next().await {
///         server.note(&event); // the learner learns of it too
///         peer.set_interval(learner.interval())?;
///     }
/// }
/// # }
/// ```
///
/// The server must leave its connections idle for as long: see "Batteries and NATs" in the
/// guide.
#[derive(Clone, Debug)]
pub struct Learner {
    state: Arc<watch::Sender<State>>,
}

#[derive(Debug)]
struct State {
    search: IntervalSearch,
    /// How often the network has changed.
    changes: u64,
    probes: Probes,
    /// The application's connection.
    in_use: Option<InUse>,
    /// The idle time after which the previous connection was lost. If the next attempt to
    /// connect succeeds, the idle time was too long.
    lost: Option<Duration>,
}

/// Which connection tries longer intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probes {
    Second,
    Own,
}

#[derive(Debug)]
struct InUse {
    meter: IdleMeter,
    /// We stalled since the last sign of life, so the idle time isn't known.
    slept: bool,
}

impl Learner {
    /// Continues this search, such as one from an `IntervalFile`.
    #[must_use]
    pub fn new(search: IntervalSearch) -> Self {
        let state = State {
            search,
            changes: 0,
            probes: Probes::Second,
            in_use: None,
            lost: None,
        };
        Self {
            state: Arc::new(watch::Sender::new(state)),
        }
    }

    /// The application's connection tries longer intervals itself. It needs no second
    /// connection, and is lost each time that an interval is too long.
    #[must_use]
    pub fn on_own_connection(self) -> Self {
        self.state.send_modify(|state| state.probes = Probes::Own);
        self
    }

    /// The interval for the application's connection: the safe one, or with
    /// [`on_own_connection`](Self::on_own_connection) the one to try.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.state.borrow().interval()
    }

    /// These timings with [`interval`](Self::interval). A connection that tries intervals
    /// has no jitter, because jitter shortens them, and tells of its beats.
    #[must_use]
    pub fn config(&self, config: &Config) -> Config {
        let state = self.state.borrow();
        match state.probes {
            Probes::Second => with_interval(config, state.interval()),
            Probes::Own => trying(config, state.interval()),
        }
    }

    /// The meter for the application's next connection. It replaces the previous one.
    #[must_use]
    pub fn meter(&self) -> IdleMeter {
        let meter = IdleMeter::new();
        self.state.send_modify(|state| {
            state.in_use = Some(InUse {
                meter: meter.clone(),
                slept: false,
            });
        });
        meter
    }

    /// Learns from an event of the application's connection.
    /// [`Reconnect::note`](crate::Reconnect::note) calls it.
    pub fn note<M>(&self, event: &PeerEvent<M>) {
        self.state.send_modify(|state| state.note(event));
    }

    /// Learns whether an attempt to connect succeeded. If it did, the network works, and the
    /// previous connection was lost because it was idle for too long.
    /// [`Reconnect`](crate::Reconnect::learning) calls it.
    pub fn note_attempt(&self, is_connected: bool) {
        self.state.send_modify(|state| {
            if let Some(idle) = state.lost.take() {
                state.search.learn(match is_connected {
                    true => SearchOutcome::Lost { idle },
                    false => SearchOutcome::Unrelated,
                });
            }
        });
    }

    /// Takes the outcome of another connection.
    /// [`NetworkChanged`](SearchOutcome::NetworkChanged) is
    /// [`change_network`](Self::change_network) to one of which nothing is known.
    pub fn learn(&self, outcome: SearchOutcome) {
        self.state.send_modify(|state| {
            if outcome == SearchOutcome::NetworkChanged {
                state.leave_network();
            }
            state.search.learn(outcome);
        });
    }

    /// The network has changed, and this is what is known of the new one. The connection in
    /// use is no longer measured, and a [`Prober`] abandons its attempt.
    pub fn change_network(&self, search: IntervalSearch) {
        self.state.send_modify(|state| {
            state.leave_network();
            state.search = search;
        });
    }

    /// The state of the search.
    #[must_use]
    pub fn search(&self) -> IntervalSearch {
        self.state.borrow().search
    }

    /// The outcome of an attempt, which is unrelated if the network changes meanwhile.
    async fn unless_changed(&self, attempt: impl Future<Output = SearchOutcome>) -> SearchOutcome {
        let mut states = self.state.subscribe();
        let before = states.borrow().changes;
        let mut changed = pin!(states.wait_for(|state| state.changes != before));
        let mut attempt = pin!(attempt);
        poll_fn(|cx| match changed.as_mut().poll(cx) {
            Poll::Ready(_) => Poll::Ready(SearchOutcome::Unrelated),
            Poll::Pending => attempt.as_mut().poll(cx),
        })
        .await
    }

    /// Waits until there is an interval to try.
    async fn next(&self) -> Option<Duration> {
        let mut changes = self.state.subscribe();
        let has_next = |state: &State| state.search.next().is_some();
        let state = changes.wait_for(has_next).await.ok()?;
        state.search.next()
    }
}

impl State {
    /// Outcomes of one network mean nothing in another.
    fn leave_network(&mut self) {
        self.changes += 1;
        self.in_use = None;
        self.lost = None;
    }

    fn interval(&self) -> Duration {
        let mut search = self.search;
        if let Some(idle) = self.lost {
            // Until the reason is known, assume the worst.
            search.learn(SearchOutcome::Lost { idle });
        }
        let safe = search.safe();
        match self.probes {
            Probes::Second => safe,
            Probes::Own => search.next().unwrap_or(safe),
        }
    }

    fn note<M>(&mut self, event: &PeerEvent<M>) {
        let suspicious = suspicious(self.interval(), &self.search);
        let Some(InUse { meter, slept }) = &mut self.in_use else {
            return;
        };
        match event {
            PeerEvent::LocalStall { .. } => *slept = true,
            PeerEvent::Suspect { .. } => {}
            PeerEvent::Dead(death) => {
                let idle = idle_before(&death.cause, meter, suspicious);
                self.lost = idle.filter(|_| !*slept);
                self.in_use = None;
            }
            PeerEvent::Closed { .. } => self.in_use = None,
            _ => {
                let survived = meter.take_survived().filter(|_| !*slept);
                *slept = false;
                if let Some(idle) = survived {
                    self.search.learn(SearchOutcome::Answered { idle });
                }
            }
        }
    }
}

/// An idle time that a proxy may have ended: more than is known to be safe, or half of the
/// interval. A close before that is the peer's.
fn suspicious(interval: Duration, search: &IntervalSearch) -> Duration {
    search.safe().min(interval / 2)
}

/// The idle time of which a connection may have died.
///
/// A NAT answers a ping on a forgotten connection with silence or a reset. A proxy closes an
/// idle connection.
fn idle_before(cause: &Cause, meter: &IdleMeter, suspicious: Duration) -> Option<Duration> {
    let idle = meter.unanswered();
    let is_possible = match cause {
        Cause::Silent | Cause::TimedOut | Cause::Unreachable => true,
        Cause::Eof | Cause::Reset => idle >= suspicious,
        _ => false,
    };
    (is_possible && !idle.is_zero()).then_some(idle)
}

fn with_interval(config: &Config, interval: Duration) -> Config {
    // The range of a search is valid for a configuration.
    config.with_interval(interval).unwrap_or(*config)
}

/// The timings of a connection that tries this interval. Its beats say that it survived.
fn trying(config: &Config, interval: Duration) -> Config {
    let config = with_interval(config, interval);
    let exact = config.to_builder().jitter(0.0).beat_events(true).build();
    exact.unwrap_or(config)
}
