//! The waits between attempts.
//!
//! This module decides the range of each wait and draws it at random, so that a restarted
//! server isn't flooded by all its clients at once. Its parent decides what counts as a
//! failure.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

#[cfg(feature = "serde")]
use jiff::fmt::serde::unsigned_duration::friendly::compact::required as human;
use tokio::time::Instant;

/// The longest wait, whatever is configured: every clock can add it.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The waits between attempts.
///
/// | before this attempt came | the wait is drawn evenly from |
/// |---|---|
/// | nothing: it is the first | no wait |
/// | a connection that lasted, or whose peer restarts | zero to `loss_spread` |
/// | n failures in a row | `min_delay` to `min_delay · 2ⁿ` |
/// | n failures, the last of which is a connection that didn't last | `min_delay` to the longer of `min_delay · 2ⁿ` and `loss_spread` |
///
/// No wait is longer than `max_delay`. Jitter over the whole range spreads many clients best
/// (Brooker, "Exponential Backoff And Jitter", 2015). All clients of a server lose it at the
/// same moment, so the first wait after a loss has a range of its own: 10,000 clients
/// reconnect over 5 s.
///
/// # In a configuration file
///
/// With the feature `serde` (on by default) it is a map of these four keys,
/// durations as people write them. A key that is left out has its default, and
/// one that doesn't exist is refused.
///
/// ```
/// # #[cfg(feature = "serde")] {
/// use heartbeat_tokio::Backoff;
/// use std::time::Duration;
///
/// let backoff: Backoff = toml::from_str("max_delay = '1m'\nloss_spread = '10s'").unwrap();
/// let by_hand = Backoff::default()
///     .max_delay(Duration::from_secs(60))
///     .loss_spread(Duration::from_secs(10));
/// assert_eq!(backoff, by_hand);
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields, expecting = "a map of delays")
)]
pub struct Backoff {
    #[cfg_attr(feature = "serde", serde(with = "human"))]
    min_delay: Duration,
    #[cfg_attr(feature = "serde", serde(with = "human"))]
    max_delay: Duration,
    #[cfg_attr(feature = "serde", serde(with = "human"))]
    loss_spread: Duration,
    #[cfg_attr(feature = "serde", serde(with = "human"))]
    reset_after: Duration,
}

impl Default for Backoff {
    /// From 100 ms to 30 s after failures, up to 5 s after a loss. A connection that lasted 30 s
    /// resets the count of failures.
    fn default() -> Self {
        Self {
            min_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(30),
            loss_spread: Duration::from_secs(5),
            reset_after: Duration::from_secs(30),
        }
    }
}

impl Backoff {
    /// The shortest wait after a failure; the longest doubles with each further
    /// one, and begins at twice this. Default 100 ms. Zero doesn't wait at all
    /// after failures.
    #[must_use]
    pub const fn min_delay(mut self, delay: Duration) -> Self {
        self.min_delay = delay;
        self
    }

    /// The longest wait. Default 30 s, and never more than 365 days. It limits the other delays
    /// too.
    #[must_use]
    pub const fn max_delay(mut self, delay: Duration) -> Self {
        self.max_delay = delay;
        self
    }

    /// The range of the first wait after a connection. Default 5 s. A server with more clients
    /// needs a longer one; zero reconnects at once.
    #[must_use]
    pub const fn loss_spread(mut self, width: Duration) -> Self {
        self.loss_spread = width;
        self
    }

    /// How long a connection must last to reset the count of failures. Default 30 s. A shorter
    /// one is a failure itself, so that a server that accepts and closes at once isn't flooded.
    #[must_use]
    pub const fn reset_after(mut self, time: Duration) -> Self {
        self.reset_after = time;
        self
    }

    /// When the next attempt may begin, after `failures` failures in a row.
    pub(crate) fn after_failures(&self, failures: u32) -> Instant {
        self.draw(self.min_delay, self.widened(failures))
    }

    /// The same after a lost connection, which may itself be the last failure.
    pub(super) fn after_loss(&self, failures: u32) -> Instant {
        match failures {
            0 => self.draw(Duration::ZERO, self.loss_spread),
            _ => self.draw(self.min_delay, self.widened(failures).max(self.loss_spread)),
        }
    }

    /// Whether a connection that began then isn't a failure.
    pub(super) fn has_lasted(&self, since: Instant) -> bool {
        since.elapsed() >= self.reset_after
    }

    fn widened(&self, failures: u32) -> Duration {
        let doubled = 1_u32.checked_shl(failures).unwrap_or(u32::MAX);
        self.min_delay.saturating_mul(doubled)
    }

    fn draw(&self, shortest: Duration, longest: Duration) -> Instant {
        let limit = self.max_delay.min(LONGEST);
        let (shortest, longest) = (shortest.min(limit), longest.min(limit));
        // Keyed by the operating system's randomness, and evenly spread.
        let dice = RandomState::new().hash_one(()) >> 32;
        let width = longest.saturating_sub(shortest);
        let nanos = (width.as_nanos() * u128::from(dice)) >> 32;
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        Instant::now() + shortest + Duration::from_nanos(nanos)
    }
}
