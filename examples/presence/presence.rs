//! The users of all gateways, kept in Redis. To copy, with the folder `presence/`.
//!
//! This module decides when a gateway may say that a user is present, and what it says when
//! others may have taken it for dead. It doesn't judge connections: a heartbeat does,
//! and the owner of the connection drops its [`Entry`].
//!
//! * A gateway has a **lease**, a key whose TTL follows from the heartbeat's detection
//!   time ([`Terms`]). It refreshes it at a third of the TTL. When the lease has ended,
//!   the first gateway to notice removes all of its entries and announces that once.
//! * An **incarnation** is a process (a random number) and its **epoch**. All that a
//!   gateway tells the store names both, and the store refuses every epoch but that of
//!   the lease. Within an epoch there is one connection to the store, and so one order.
//!   When that connection fails a new epoch begins: a script of the old one that is late
//!   changes nothing, and all entries are told again.
//! * A user is **present** with at least one entry, on any gateway. Without one the user
//!   has a **grace period** to come back, and has left after it. A goodbye needs none.
//! * [`Standing`] says what others may think of this gateway. It is told by this machine's
//!   monotonic clock and the time at which the last refresh was *sent*, so it is never
//!   later than the store. No other clock of a gateway matters.
//! * Every change is one script, so each announcement is made once. A store that is new
//!   counts as one that lost its data: for a lease it announces no user, and then those only
//!   that weren't announced before.

mod fleet;
mod keeper;
pub(crate) mod local; // a model of the tests has it too

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use metrics::{counter, gauge};
use redis::{
    AsyncConnectionConfig, Client, ErrorKind, RedisError, RedisResult, ServerError,
    aio::MultiplexedConnection,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout_at},
};

pub use fleet::{Announcement, Fleet, Kind, Roster};
use keeper::Keeper;
use local::{Ending, Local};

/// All keys begin with it. The braces keep them in one slot of a cluster.
const PREFIX: &str = "{presence}:";

/// What the script says to a gateway whose lease isn't its own any more.
const FENCED: &str = "FENCED";

const SCRIPT: &str = include_str!("presence/presence.lua");

/// What is counted.
const METRICS: [&str; 4] = [
    "presence_fenced_total",
    "presence_ghosts_total",
    "presence_late_refreshes_total",
    "presence_store_errors_total",
];

/// The range of what a lease follows from. Redis counts in milliseconds.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a lease is, and what follows for the whole fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    detection_time: Duration,
    grace: Duration,
}

impl Terms {
    /// From the heartbeats' `Config::detection_time`, D, and how long a client may take to
    /// connect again: the longest wait before its first attempt, and what that takes. D counts
    /// as 100 ms at least, and both count as a day at most. All gateways need the same terms.
    #[must_use]
    pub fn new(detection_time: Duration, grace: Duration) -> Self {
        Self {
            detection_time: detection_time.clamp(SHORTEST, LONGEST),
            grace: grace.min(LONGEST),
        }
    }

    /// The TTL of a gateway's lease: 3/2 · D, in whole milliseconds. A gateway that freezes has
    /// refreshed it at most a third ago, so it holds for D at least. By then the gateway's own
    /// clients have found it dead, and are on their way to others.
    #[must_use]
    pub fn lease(&self) -> Duration {
        Duration::from_millis(millis(self.detection_time * 3 / 2))
    }

    /// A lease is refreshed this often: D / 2. A connection to the store that is silent for
    /// as long is given up, so one refresh may be lost.
    #[must_use]
    pub fn refresh(&self) -> Duration {
        self.lease() / 3
    }

    /// How long a user may be without a connection and hasn't left.
    #[must_use]
    pub const fn grace(&self) -> Duration {
        self.grace
    }

    /// The least time between two looks at the store: an end is announced at most this much
    /// late, plus two round trips to the store.
    #[must_use]
    pub fn look(&self) -> Duration {
        self.refresh() / 8
    }

    /// From a client's death to the announcement, at most: D + grace + look.
    #[must_use]
    pub fn client_offline(&self) -> Duration {
        self.detection_time + self.grace() + self.look()
    }

    /// From a gateway's death to its announcement, at most: lease + look.
    #[must_use]
    pub fn gateway_lost(&self) -> Duration {
        self.lease() + self.look()
    }

    /// From a gateway's death to the announcement of clients that didn't come back, at
    /// most: lease + grace + 2 · look.
    #[must_use]
    pub fn gateway_offline(&self) -> Duration {
        self.gateway_lost() + self.grace() + self.look()
    }
}

/// What others may think of this gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There was no lease yet.
    Starting,
    /// The lease holds, and the store is up to date.
    Held,
    /// The lease holds. The store can't be reached, and doesn't know what happens here.
    Stale,
    /// The lease may have ended, and others may have announced this gateway as lost.
    Fenced,
    /// The lease was given up.
    Closed,
}

/// A gateway's part in the presence of the fleet. Its clones are the same.
#[derive(Clone, Debug)]
pub struct Presence {
    shared: Arc<Shared>,
}

impl Presence {
    /// Starts a task that keeps the lease until [`close`](Self::close). Needs a runtime.
    #[must_use]
    pub fn start(store: Client, name: &str, terms: Terms) -> Self {
        // What never happens is shown as zero.
        for metric in METRICS {
            counter!(metric).absolute(0);
        }
        gauge!("presence_lease").set(0);
        let shared = Arc::new(Shared {
            local: Mutex::default(),
            changed: Notify::new(),
            standing: watch::Sender::new(Standing::Starting),
            trouble: watch::Sender::default(),
            lease: watch::Sender::new(None),
        });
        let keeper = Keeper::new(store, name.to_owned(), terms, shared.clone());
        tokio::spawn(keeper.keep());
        Self { shared }
    }

    /// The user has a connection here, until the entry is dropped. Never waits: while the
    /// store can't be reached it is told later.
    pub fn enter(&self, user: &str) -> Entry {
        let connection = self.shared.local().enter(user);
        self.shared.changed.notify_one();
        Entry {
            shared: self.shared.clone(),
            connection,
            ending: Ending {
                at_once: false,
                why: "gone".into(),
            },
        }
    }

    /// What others may think of this gateway, now and from now on.
    #[must_use]
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.shared.standing.subscribe()
    }

    /// The last error of the store, for people; empty while the lease is held. A store that
    /// refuses a password or a write is tried again like one that can't be reached.
    #[must_use]
    pub fn trouble(&self) -> watch::Receiver<String> {
        self.shared.trouble.subscribe()
    }

    /// Gives the lease up when all that is known has been told. Users that are still here
    /// have the grace period to appear elsewhere. Put a limit of your own on the wait: it
    /// takes as long as the store can't be reached.
    pub async fn close(self) {
        self.shared.local().close();
        self.shared.changed.notify_one();
        let closed = |standing: &Standing| *standing == Standing::Closed;
        let _ = self.standing().wait_for(closed).await;
    }
}

/// A user's connection to this gateway, from [`Presence::enter`]. Dropped, it is lost: the
/// user has the grace period to come back.
#[derive(Debug)]
#[must_use = "the user is present for as long as this lives"]
pub struct Entry {
    shared: Arc<Shared>,
    connection: u64,
    ending: Ending,
}

impl Entry {
    /// The connection was lost, and how. The user has the grace period to come back.
    pub fn lost(mut self, why: &str) {
        self.ending.why = why.into();
    }

    /// The user said goodbye, and has left at once if this was the last connection.
    pub fn left(mut self, why: &str) {
        self.ending = Ending {
            at_once: true,
            why: why.into(),
        };
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.shared.local().end(self.connection, &self.ending);
        self.shared.changed.notify_one();
    }
}

// ---- what is shared between the handles and the task ------------------------

#[derive(Debug)]
struct Shared {
    local: Mutex<Local>,
    changed: Notify,
    standing: watch::Sender<Standing>,
    trouble: watch::Sender<String>,
    /// Until when the lease holds, whatever happens; `None` before there is one.
    lease: watch::Sender<Option<Instant>>,
}

impl Shared {
    fn local(&self) -> MutexGuard<'_, Local> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says so when the lease isn't refreshed in time.
    async fn watch_lease(&self) {
        let mut lease = self.lease.subscribe();
        loop {
            let until = *lease.borrow_and_update();
            if let Some(until) = until {
                tokio::select! {
                    _ = lease.changed() => continue,
                    () = sleep_until(until) => {}
                }
                gauge!("presence_lease").set(0);
                if replace(&self.standing, Standing::Fenced) {
                    counter!("presence_fenced_total").increment(1);
                }
            }
            let _ = lease.changed().await;
        }
    }
}

// ---- the store ----------------------------------------------------------------

/// A connection of our own, which never connects again by itself.
async fn open(store: &Client, until: Instant) -> RedisResult<MultiplexedConnection> {
    // How long we wait is decided here.
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None);
    within(
        until,
        store.get_multiplexed_async_connection_with_config(&config),
    )
    .await
}

async fn within<T>(until: Instant, asked: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    let late = || RedisError::from((ErrorKind::Io, "the store doesn't answer in time"));
    let reply = timeout_at(until, asked).await.map_err(|_| late())?;
    // If we stood still, both the reply and the end are there.
    match Instant::now() < until {
        true => reply,
        false => Err(late()),
    }
}

/// What the store has refused; of a pipeline, the first refusal.
fn refusal(error: &RedisError) -> Option<ServerError> {
    let all = error.clone().into_server_errors()?;
    all.first().map(|(_, refusal)| refusal.clone())
}

/// Says whether it was another one.
fn replace<T: PartialEq>(value: &watch::Sender<T>, new: T) -> bool {
    value.send_if_modified(|old| std::mem::replace(old, new) != *old)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A number that nobody else has.
fn random() -> String {
    // Keyed by the operating system's randomness.
    format!("{:016x}", RandomState::new().hash_one(()))
}
