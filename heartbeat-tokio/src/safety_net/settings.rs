//! The settings of a safety net, and their setters.
//!
//! `bounds.rs` decides the bounds, `derived.rs` the values that follow from a heartbeat's
//! timings, `apply.rs` how they reach a socket, and `serialized.rs` their spelling in a file.

use std::time::Duration;

#[cfg(feature = "serde")]
use super::serialized::{SafetyNetOverrides, Settings};
use super::{
    SafetyNetError,
    bounds::{milliseconds, probes, retransmit_limit, seconds, unsent},
};

/// The settings of the kernel's checks: TCP keepalive, the retransmission limit, the limit of
/// unsent bytes, the interval of checks during a pause, and optionally the TCP user timeout.
///
/// Derived from a heartbeat's timings, the kernel's verdict comes after the
/// heartbeat's own:
///
/// ```
/// use heartbeat_core::Config;
/// use heartbeat_tokio::safety_net::SafetyNet;
///
/// let config = Config::default(); // dead within 14 s
/// let net = SafetyNet::from(&config);
/// assert!(net.detection_time() > config.detection_time());
/// ```
///
/// It can also be set by hand. Kernels count in whole seconds; fractions are rounded up, so
/// that no verdict comes too early:
///
/// ```
/// use std::time::Duration;
/// use heartbeat_tokio::safety_net::SafetyNet;
///
/// let (idle, interval) = (Duration::from_millis(9_500), Duration::from_secs(3));
/// let net = SafetyNet::new(idle, interval, 4)?;
/// assert_eq!(net.idle(), Duration::from_secs(10));
/// assert_eq!(net.detection_time(), Duration::from_secs(22));
///
/// let error = net.with_retries(200).unwrap_err();
/// assert_eq!(error.to_string(), "retries = 200: must be from 1 to 127");
/// # Ok::<(), heartbeat_tokio::safety_net::SafetyNetError>(())
/// ```
///
/// With the feature `serde` (on by default) it is read from configuration files, with
/// durations as people write them. A missing key has the value derived from
/// [`Config::default`](crate::Config::default), and an unknown key is refused. (If the file
/// has timings too, read [`SafetyNetOverrides`]: missing keys then follow those.)
///
/// ```
/// # #[cfg(feature = "serde")] {
/// use std::time::Duration;
/// use heartbeat_tokio::safety_net::SafetyNet;
///
/// let net: SafetyNet = toml::from_str(
///     r#"
///     idle = "1m 30s"
///     interval = "10s"
///     retries = 4
///     user_timeout = "2m"
///     "#,
/// )?;
/// assert_eq!(net.detection_time(), Duration::from_secs(130));
///
/// let error = toml::from_str::<SafetyNet>("retries = 200").unwrap_err();
/// assert!(error.to_string().contains("retries = 200: must be from 1 to 127"));
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// [`apply`](Self::apply) sets it on a socket. The [module's
/// table](super#what-can-be-set-where) lists the options of each system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(from = "SafetyNetOverrides", into = "Settings")
)]
pub struct SafetyNet {
    // Seconds, from 1 to `MAX_SECONDS`.
    pub(super) idle: u16,
    pub(super) interval: u16,
    /// From 1 to `MAX_RETRIES`.
    pub(super) retries: u8,
    /// Whole milliseconds, as all that follow.
    pub(super) user_timeout: Option<Duration>,
    /// Within `RETRANSMIT_LIMITS`.
    pub(super) max_retransmit_timeout: Option<Duration>,
    /// Bytes, at least one.
    pub(super) max_unsent: Option<u32>,
    /// At least a millisecond.
    pub(super) peek_interval: Duration,
}

impl SafetyNet {
    /// Keepalive with these settings, a peek interval as long as `idle`, no user timeout, and the
    /// kernel's own values for everything else.
    ///
    /// # Errors
    ///
    /// As [`with_idle`](Self::with_idle), [`with_interval`](Self::with_interval)
    /// and [`with_retries`](Self::with_retries).
    pub fn new(idle: Duration, interval: Duration, retries: u32) -> Result<Self, SafetyNetError> {
        let seconds_idle = seconds("idle", idle)?;
        Ok(Self {
            idle: seconds_idle,
            interval: seconds("interval", interval)?,
            retries: probes(retries.into())?,
            user_timeout: None,
            max_retransmit_timeout: None,
            max_unsent: None,
            peek_interval: Duration::from_secs(seconds_idle.into()),
        })
    }

    /// Silence on the connection after which the kernel sends its first probe.
    /// Above zero and up to 32,767 s; rounded up to whole seconds.
    ///
    /// # Errors
    ///
    /// A [`SafetyNetError`] if it is zero or too long.
    pub fn with_idle(mut self, idle: Duration) -> Result<Self, SafetyNetError> {
        self.idle = seconds("idle", idle)?;
        Ok(self)
    }

    /// The time between two probes, and after the last one. Above zero and up
    /// to 32,767 s; rounded up to whole seconds.
    ///
    /// # Errors
    ///
    /// A [`SafetyNetError`] if it is zero or too long.
    pub fn with_interval(mut self, interval: Duration) -> Result<Self, SafetyNetError> {
        self.interval = seconds("interval", interval)?;
        Ok(self)
    }

    /// How many probes in a row may go unanswered until the kernel gives the
    /// connection up. From 1 to 127.
    ///
    /// # Errors
    ///
    /// A [`SafetyNetError`] if it is zero or too many.
    pub fn with_retries(mut self, retries: u32) -> Result<Self, SafetyNetError> {
        self.retries = probes(retries.into())?;
        Ok(self)
    }

    /// How long data may stay unacknowledged, or unsent because the peer's
    /// window is full, until the kernel gives the connection up
    /// (`TCP_USER_TIMEOUT`). Not set unless asked for; above zero and up to
    /// 2,147,483,647 ms (24 days), rounded up to whole milliseconds.
    ///
    /// `None` leaves a socket as it is; it doesn't switch off a value that was set
    /// elsewhere. A [`Heartbeat`](crate::Heartbeat) whose net had one gives the socket
    /// back what it had before.
    ///
    /// It covers what keepalive is blind to: with data in flight no probe is
    /// ever sent, and the kernel's retransmissions give up only after 15
    /// minutes or so. The reasons why it is off:
    ///
    /// - **It kills a live peer that reads slowly.** A full window counts as
    ///   unacknowledged. With 5 s, a peer that kept reading 512 bytes a second was given up
    ///   after 5.3 s.
    /// - It overrides `retries`: an idle connection ends with the first
    ///   keepalive tick after this time that finds a probe unanswered, be that
    ///   sooner or later than [`detection_time`](Self::detection_time).
    ///
    /// # Errors
    ///
    /// A [`SafetyNetError`] if it is zero or too long.
    pub fn with_user_timeout(
        mut self,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Self, SafetyNetError> {
        self.user_timeout = match timeout.into() {
            Some(timeout) => Some(milliseconds("user_timeout", timeout)?),
            None => None,
        };
        Ok(self)
    }

    /// The longest time between two retransmissions of lost data, and between
    /// two probes of a peer that has no room (`TCP_RTO_MAX_MS`, Linux 6.15 and
    /// later), at all times. From 1 to 120 s, rounded up to whole milliseconds; the
    /// kernel's own is 120 s. Not set unless asked for. `None` leaves a socket as it is;
    /// a [`Heartbeat`](crate::Heartbeat) whose net had one gives the socket back what it
    /// had before.
    ///
    /// A `Heartbeat` limits it automatically [while its peer is
    /// suspect](Self::retransmit_timeout_while_suspect), which is when it matters: each
    /// retransmission waits twice as long as the one before, so a silence can last up to twice
    /// the outage. Measured with an outage of 8 s, the silence lasted 14.0 s, and 8.26 s with a
    /// limit of 1 s.
    ///
    /// The reasons why it isn't set at all times:
    ///
    /// - **It kills a peer that is heard** where the round trip is longer than this, as
    ///   behind a deep queue: nothing is lost there, and everything is repeated. With 1 s,
    ///   a peer 30 s away was given up 6 ms after its last bytes.
    /// - The kernel counts retransmissions, 15 by default: 15 minutes with 120 s, and
    ///   15 seconds with 1 s.
    ///
    /// # Errors
    ///
    /// A [`SafetyNetError`] if it is shorter or longer.
    pub fn with_max_retransmit_timeout(
        mut self,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Self, SafetyNetError> {
        self.max_retransmit_timeout = match timeout.into() {
            Some(timeout) => Some(retransmit_limit(timeout)?),
            None => None,
        };
        Ok(self)
    }

    /// How many unsent bytes may wait in our own kernel (`TCP_NOTSENT_LOWAT`). From 1 to
    /// 2,147,483,647; `None` leaves a socket as it is.
    ///
    /// A kernel takes megabytes that it can't send yet, and a ping or a pong waits behind all of
    /// them. With a limit they wait in the application's queue instead, which a control frame
    /// overtakes. Data in flight isn't limited, so a fast path stays fast.
    ///
    /// # Errors
    ///
    /// A [`SafetyNetError`] if it is zero or larger.
    pub fn with_max_unsent(
        mut self,
        bytes: impl Into<Option<u32>>,
    ) -> Result<Self, SafetyNetError> {
        self.max_unsent = match bytes.into() {
            Some(bytes) => Some(unsent(bytes.into())?),
            None => None,
        };
        Ok(self)
    }

    /// How often to [`check`](super::check) a socket while reading is paused, when an end would
    /// go unnoticed. Above zero and up to 2,147,483,647 ms, rounded up to whole milliseconds.
    ///
    /// It is no socket option: a driver uses it.
    ///
    /// # Errors
    ///
    /// A [`SafetyNetError`] if it is zero or too long.
    pub fn with_peek_interval(mut self, interval: Duration) -> Result<Self, SafetyNetError> {
        self.peek_interval = milliseconds("peek_interval", interval)?;
        Ok(self)
    }

    /// See [`with_idle`](Self::with_idle). Whole seconds.
    #[must_use]
    pub const fn idle(&self) -> Duration {
        Duration::from_secs(self.idle as u64)
    }

    /// See [`with_interval`](Self::with_interval). Whole seconds.
    #[must_use]
    pub const fn interval(&self) -> Duration {
        Duration::from_secs(self.interval as u64)
    }

    /// See [`with_retries`](Self::with_retries).
    #[must_use]
    pub const fn retries(&self) -> u32 {
        self.retries as u32
    }

    /// See [`with_user_timeout`](Self::with_user_timeout). Whole milliseconds.
    #[must_use]
    pub const fn user_timeout(&self) -> Option<Duration> {
        self.user_timeout
    }

    /// See [`with_max_retransmit_timeout`](Self::with_max_retransmit_timeout).
    /// Whole milliseconds.
    #[must_use]
    pub const fn max_retransmit_timeout(&self) -> Option<Duration> {
        self.max_retransmit_timeout
    }

    /// See [`with_max_unsent`](Self::with_max_unsent). Bytes.
    #[must_use]
    pub const fn max_unsent(&self) -> Option<u32> {
        self.max_unsent
    }

    /// See [`with_peek_interval`](Self::with_peek_interval). Whole
    /// milliseconds.
    #[must_use]
    pub const fn peek_interval(&self) -> Duration {
        self.peek_interval
    }

    /// The silence after which keepalive gives up a peer whose kernel doesn't answer:
    /// idle + interval · retries, and a fraction of a second for the kernel's timers.
    ///
    /// It holds for an idle connection without a user timeout. While our data is unacknowledged,
    /// keepalive sends no probe and gives no verdict.
    #[must_use]
    pub const fn detection_time(&self) -> Duration {
        // At most 32,767 + 32,767 · 127.
        Duration::from_secs(self.idle as u64 + self.interval as u64 * self.retries as u64)
    }
}
