//! Which values the socket options get: validated when set by hand, and
//! derived from a heartbeat's timings. How they reach a socket is decided in
//! `apply.rs`, and how they are spelled in a file in `serialized.rs`.

use std::{fmt, ops::RangeInclusive, time::Duration};

use heartbeat_core::Config;

#[cfg(feature = "serde")]
use super::serialized::{SafetyNetOverrides, Settings};

/// The largest idle time and interval that Linux takes, in seconds.
const MAX_SECONDS: u16 = 32_767;

/// The largest number of probes that Linux takes.
const MAX_RETRIES: u8 = 127;

/// The fewest probes that are derived. Nobody repeats a lost probe, whereas a
/// lost ping is repeated by TCP.
const MIN_DERIVED_RETRIES: u8 = 3;

/// The longest time that is kept in milliseconds: Linux has the user timeout as
/// a signed number.
const MAX_MILLISECONDS: Duration = Duration::from_millis(i32::MAX as u64);

/// The longest and the shortest limit that Linux takes for the time between
/// two retransmissions. The longest is also what it uses by itself.
const RETRANSMIT_LIMITS: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(120);

/// How much waits unsent in our own kernel, if nothing else is said: a ping
/// waits behind that much. Less costs throughput.
const DERIVED_MAX_UNSENT: u32 = 128 * 1024;

/// TCP keepalive, how often lost data is repeated, how much waits unsent, how
/// often to look at a socket that nobody reads, and the TCP user timeout if it
/// is wanted.
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
/// Or set by hand. Kernels count in whole seconds; fractions are rounded up,
/// so that nothing comes sooner than was asked for:
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
/// With the feature `serde` (on by default) it is read from configuration
/// files, durations as people write them; what is left out is as derived from
/// [`Config::default`], and unknown keys are refused. (If the file has timings
/// too, read [`SafetyNetOverrides`]: what is left out then follows them.)
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
/// [`apply`](Self::apply) sets it on a socket. Which system has which option
/// stands in the [module's table](super#what-can-be-set-where).
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

impl Default for SafetyNet {
    /// As derived from [`Config::default`].
    fn default() -> Self {
        Self::from(&Config::default())
    }
}

impl From<&Config> for SafetyNet {
    /// Keepalive whose verdict comes at least one `timeout` after the
    /// heartbeat's [`detection_time`](Config::detection_time); no user timeout.
    ///
    /// The first probe waits for `interval` + `timeout`, so that none is sent
    /// while beats are answered. Then come as many probes, one `timeout` apart,
    /// as cover the rest, but three at least: nobody repeats a lost probe,
    /// whereas TCP repeats a lost ping. All is rounded up to whole seconds.
    ///
    /// Lost data is repeated at least once in a `timeout`, so that a connection
    /// comes back as soon after an outage; but not so often that the kernel's
    /// attempts (15 by default) are used up before the same verdict. (For
    /// verdicts after more than a quarter of an hour they are, whatever is set
    /// here: `tcp_retries2` of the whole system is too low then.)
    ///
    /// Up to 128 KiB wait unsent in our own kernel. While nobody reads, the
    /// socket is looked at once an `interval`.
    ///
    /// For detection times beyond 48 days, which kernels can't count to, it is
    /// the longest keepalive there is.
    fn from(config: &Config) -> Self {
        let timeout = config.timeout();
        let verdict = whole_seconds(config.detection_time().saturating_add(timeout));

        let idle = limited(whole_seconds(config.interval().saturating_add(timeout)));
        let rest = verdict.saturating_sub(idle.into());

        let interval = whole_seconds(timeout).max(rest.div_ceil(MAX_RETRIES.into()));
        let interval = limited(interval);
        let retries = rest.div_ceil(interval.into());
        let retries = u8::try_from(retries).unwrap_or(MAX_RETRIES);

        // The first retransmissions come 200 ms, 400 ms, 800 ms ... apart, the
        // rest of fifteen as far apart as this limit. However long it is, seven
        // times as long pass until the kernel gives up.
        let attempts = Duration::from_secs(verdict) / 6;
        let max_retransmit_timeout = timeout
            .max(attempts)
            .clamp(*RETRANSMIT_LIMITS.start(), *RETRANSMIT_LIMITS.end());

        Self {
            idle,
            interval,
            retries: retries.clamp(MIN_DERIVED_RETRIES, MAX_RETRIES),
            user_timeout: None,
            max_retransmit_timeout: Some(whole_milliseconds(max_retransmit_timeout)),
            max_unsent: Some(DERIVED_MAX_UNSENT),
            peek_interval: whole_milliseconds(config.interval().min(MAX_MILLISECONDS)),
        }
    }
}

impl SafetyNet {
    /// Keepalive with these settings, no user timeout, retransmissions and
    /// unsent bytes as the kernel has them by itself, and a peek interval as long
    /// as `idle`.
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
    /// `None` leaves a socket as it is; it doesn't switch off what somebody
    /// else has set.
    ///
    /// It covers what keepalive is blind to: with data in flight no probe is
    /// ever sent, and the kernel's retransmissions give up only after 15
    /// minutes or so. The reasons why it is off:
    ///
    /// - **It kills a live peer that reads slowly.** A full window counts as
    ///   unacknowledged. With 5 s, a peer that went on reading 512 bytes a
    ///   second was given up after 5.3 s.
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
    /// later). From 1 to 120 s, rounded up to whole milliseconds; the kernel's
    /// own is 120 s. `None` leaves a socket as it is.
    ///
    /// Each retransmission waits twice as long as the one before. So after an
    /// outage the silence lasts up to as long again, unless this sets a limit:
    /// measured, an outage of 8 s was over after 14.0 s, and with 1 s after
    /// 8.26 s.
    ///
    /// It also makes the kernel give up sooner, because it counts the
    /// retransmissions: 15 by default, which are 15 minutes with 120 s, and
    /// **15 seconds with 1 s**.
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

    /// How many bytes may wait in our own kernel that it hasn't sent yet
    /// (`TCP_NOTSENT_LOWAT`). From 1 to 2,147,483,647; `None` leaves a socket as it is.
    ///
    /// A kernel takes megabytes that it can't send yet, and a ping or a pong
    /// waits behind all of them. With a limit they wait in the application's
    /// queue instead, which a control frame overtakes. What is on its way in the
    /// network isn't limited, so a fast path stays fast.
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

    /// How often to [`check`](super::check) a socket while nobody reads from
    /// it, and so nobody would see its end. Above zero and up to
    /// 2,147,483,647 ms, rounded up to whole milliseconds.
    ///
    /// No socket option: a driver that has paused its reading goes by it.
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

    /// When keepalive gives up a peer whose kernel has fallen silent:
    /// idle + interval · retries, and a fraction of a second for the kernel's
    /// timers.
    ///
    /// It holds for an idle connection without a user timeout. While our data
    /// is unacknowledged keepalive sends no probe, and has no verdict.
    #[must_use]
    pub const fn detection_time(&self) -> Duration {
        // At most 32,767 + 32,767 · 127.
        Duration::from_secs(self.idle as u64 + self.interval as u64 * self.retries as u64)
    }
}

/// Rounded up.
fn whole_seconds(time: Duration) -> u64 {
    let fraction = u64::from(time.subsec_nanos() > 0);
    time.as_secs().saturating_add(fraction)
}

/// The nearest that a kernel takes.
fn limited(seconds: u64) -> u16 {
    let seconds = u16::try_from(seconds).unwrap_or(MAX_SECONDS);
    seconds.clamp(1, MAX_SECONDS)
}

pub(super) fn seconds(field: &'static str, time: Duration) -> Result<u16, SafetyNetError> {
    let rounded = u16::try_from(whole_seconds(time)).unwrap_or(u16::MAX);
    let rule = match rounded {
        0 => Rule::AboveZero,
        1..=MAX_SECONDS => return Ok(rounded),
        _ => Rule::UpToMaxSeconds,
    };
    Err(SafetyNetError::new(field, Value::Time(time), rule))
}

pub(super) fn milliseconds(
    field: &'static str,
    time: Duration,
) -> Result<Duration, SafetyNetError> {
    let rule = if time.is_zero() {
        Rule::AboveZero
    } else if time > MAX_MILLISECONDS {
        Rule::UpToMaxMilliseconds
    } else {
        return Ok(whole_milliseconds(time));
    };
    Err(SafetyNetError::new(field, Value::Time(time), rule))
}

pub(super) fn retransmit_limit(time: Duration) -> Result<Duration, SafetyNetError> {
    if RETRANSMIT_LIMITS.contains(&time) {
        return Ok(whole_milliseconds(time));
    }
    let field = "max_retransmit_timeout";
    let rule = Rule::WithinRetransmitLimits;
    Err(SafetyNetError::new(field, Value::Time(time), rule))
}

/// Rounded up: the kernel takes what a cut leaves of a microsecond, zero, for
/// "off".
fn whole_milliseconds(time: Duration) -> Duration {
    let fraction = u32::from(time.subsec_nanos() % 1_000_000 > 0);
    let millis = time.subsec_millis() + fraction;
    let whole = Duration::from_secs(time.as_secs());
    whole.saturating_add(Duration::from_millis(millis.into()))
}

pub(super) fn probes(retries: u64) -> Result<u8, SafetyNetError> {
    u8::try_from(retries)
        .ok()
        .filter(|retries| (1..=MAX_RETRIES).contains(retries))
        .ok_or(SafetyNetError::new(
            "retries",
            Value::Count(retries),
            Rule::OneTo127,
        ))
}

pub(super) fn unsent(bytes: u64) -> Result<u32, SafetyNetError> {
    u32::try_from(bytes)
        .ok()
        .filter(|&bytes| i32::try_from(bytes).is_ok_and(|bytes| bytes > 0))
        .ok_or(SafetyNetError::new(
            "max_unsent",
            Value::Count(bytes),
            Rule::PositiveInt,
        ))
}

/// A setting of the [`SafetyNet`] that no kernel would take. Nothing was set.
///
/// It names the field, its value and the rule:
/// `retries = 200: must be from 1 to 127`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} = {value}: must be {rule}")]
pub struct SafetyNetError {
    field: &'static str,
    value: Value,
    rule: Rule,
}

impl SafetyNetError {
    const fn new(field: &'static str, value: Value, rule: Rule) -> Self {
        Self { field, value, rule }
    }

    /// The setting, by the name of its getter.
    #[must_use]
    pub const fn field(&self) -> &'static str {
        self.field
    }

    /// What it was to be set to.
    #[must_use]
    pub fn value(&self) -> impl fmt::Display + use<> {
        self.value
    }

    /// What it must be, as the end of the sentence "it must be …".
    #[must_use]
    pub fn rule(&self) -> impl fmt::Display + use<> {
        self.rule
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Time(Duration),
    Count(u64),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) => write!(f, "{time:?}"),
            Self::Count(count) => write!(f, "{count}"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Rule {
    #[error("above zero")]
    AboveZero,
    #[error("at most {MAX_SECONDS}s")]
    UpToMaxSeconds,
    #[error("at most {}ms", MAX_MILLISECONDS.as_millis())]
    UpToMaxMilliseconds,
    #[error("from 1 to {MAX_RETRIES}")]
    OneTo127,
    #[error("from 1 to {} bytes", i32::MAX)]
    PositiveInt,
    #[error("from {:?} to {:?}", RETRANSMIT_LIMITS.start(), RETRANSMIT_LIMITS.end())]
    WithinRetransmitLimits,
}
