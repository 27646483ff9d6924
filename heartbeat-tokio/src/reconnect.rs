//! Another connection, when one has died.
//!
//! This module decides how long to wait before the next attempt, so that a
//! server which comes back isn't overrun by all its clients at once. How to
//! connect, and what to do with a connection, is the application's to say.

use std::{
    fmt,
    future::Future,
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use tokio::time::{Instant, sleep};

/// How long to wait between two attempts.
///
/// Exponential with full jitter: before attempt n the wait is drawn evenly
/// from zero to `first · 2ⁿ`, or to `max` if that is less. Nothing spreads many
/// clients better (Brooker, "Exponential Backoff And Jitter", 2015).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    lasting: Duration,
}

impl Default for Backoff {
    /// From 100 ms to 30 s; a connection that lasted 30 s starts it anew.
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            max: Duration::from_secs(30),
            lasting: Duration::from_secs(30),
        }
    }
}

impl Backoff {
    /// The longest that the first wait may be. Default 100 ms. Zero doesn't
    /// wait at all.
    #[must_use]
    pub const fn first(mut self, first: Duration) -> Self {
        self.first = first;
        self
    }

    /// The longest that any wait may be. Default 30 s.
    #[must_use]
    pub const fn max(mut self, max: Duration) -> Self {
        self.max = max;
        self
    }

    /// A connection that was in use for so long makes the next wait a first
    /// one again. Default 30 s. One that is shorter counts as a failure, so
    /// that a server which accepts and closes at once isn't run over.
    #[must_use]
    pub const fn lasting(mut self, lasting: Duration) -> Self {
        self.lasting = lasting;
        self
    }

    /// The longest wait after so many failures.
    fn ceiling(&self, failures: u32) -> Duration {
        let doubled = 1_u32.checked_shl(failures).unwrap_or(u32::MAX);
        self.first.saturating_mul(doubled).min(self.max)
    }
}

/// Makes one connection after the other.
///
/// `connect` is called for each attempt, and gives the connection as the
/// application wants it: a [`Heartbeat`](crate::Heartbeat), or one that is
/// [spawned](crate::Heartbeat::spawn).
///
/// ```
/// use futures::StreamExt;
/// use heartbeat_tokio::{Backoff, Config, Heartbeat, PeerEvent, Reconnect};
/// use std::io;
/// use tokio::net::TcpStream;
///
/// # async fn example() {
/// let mut server = Reconnect::new(Backoff::default(), || async {
///     let stream = TcpStream::connect("localhost:7000").await?;
///     Ok::<_, io::Error>(Heartbeat::new(stream, Config::default()))
/// });
/// loop {
///     let mut peer = server.connect().await; // as long as it takes
///     while let Some(event) = peer.next().await {
///         match event {
///             PeerEvent::Message(bytes) => println!("{bytes:?}"),
///             PeerEvent::Dead(death) => println!("{death}; connecting again"),
///             PeerEvent::Closed { .. } => return,
///             _ => {}
///         }
///     }
/// }
/// # }
/// ```
pub struct Reconnect<F> {
    backoff: Backoff,
    connect: F,
    /// Attempts that failed, and connections that didn't last, in a row.
    failures: u32,
    /// When the last connection was given out.
    connected: Option<Instant>,
    /// The first attempt waits for nothing.
    tried: bool,
}

impl<F, T, E, A> Reconnect<F>
where
    F: FnMut() -> A,
    A: Future<Output = Result<T, E>>,
{
    /// Nothing is connected yet.
    pub const fn new(backoff: Backoff, connect: F) -> Self {
        Self {
            backoff,
            connect,
            failures: 0,
            connected: None,
            tried: false,
        }
    }

    /// A new connection, after as many attempts as it takes. What they fail of
    /// isn't told: [`attempt`](Self::attempt) does.
    ///
    /// Cancel safe: dropping the future gives the attempt under way up, and the
    /// next one waits as if that had failed.
    pub async fn connect(&mut self) -> T {
        loop {
            if let Ok(connection) = self.attempt().await {
                return connection;
            }
        }
    }

    /// One attempt, after the wait that is due.
    ///
    /// # Errors
    ///
    /// What `connect` fails of. The next attempt waits longer.
    pub async fn attempt(&mut self) -> Result<T, E> {
        if let Some(connected) = self.connected.take() {
            if connected.elapsed() >= self.backoff.lasting {
                self.failures = 0;
            }
        }
        if self.tried {
            sleep(self.wait()).await;
        }
        self.tried = true;
        // Also if it is dropped.
        self.failures = self.failures.saturating_add(1);
        let connection = (self.connect)().await?;
        self.connected = Some(Instant::now());
        Ok(connection)
    }

    /// How many attempts have failed in a row, connections that didn't last
    /// included.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    fn wait(&self) -> Duration {
        let ceiling = self.backoff.ceiling(self.failures.saturating_sub(1));
        // Keyed by the operating system's randomness, and evenly spread.
        let dice = RandomState::new().hash_one(self.failures) >> 32;
        let nanos = (ceiling.as_nanos() * u128::from(dice)) >> 32;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl<F> fmt::Debug for Reconnect<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconnect")
            .field("backoff", &self.backoff)
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}
