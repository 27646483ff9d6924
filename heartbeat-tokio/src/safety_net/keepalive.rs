//! Which values the socket options get: validated when set by hand, and
//! derived from a heartbeat's timings. How they reach a socket is decided in
//! `apply.rs`.

use std::{fmt, time::Duration};

use heartbeat_core::Config;

/// The largest idle time and interval that Linux takes, in seconds.
const MAX_SECONDS: u16 = 32_767;

/// The largest number of probes that Linux takes.
const MAX_RETRIES: u8 = 127;

/// The fewest probes that are derived. Nobody repeats a lost probe, whereas a
/// lost ping is repeated by TCP.
const MIN_DERIVED_RETRIES: u8 = 3;

/// The largest user timeout: Linux keeps it as a signed number of milliseconds.
const MAX_USER_TIMEOUT: Duration = Duration::from_millis(i32::MAX as u64);

/// TCP keepalive, and the TCP user timeout if it is wanted.
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
/// [`apply`](Self::apply) sets it on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SafetyNet {
    // Seconds, from 1 to `MAX_SECONDS`.
    idle: u16,
    interval: u16,
    /// From 1 to `MAX_RETRIES`.
    retries: u8,
    user_timeout: Option<Duration>,
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

        Self {
            idle,
            interval,
            retries: retries.clamp(MIN_DERIVED_RETRIES, MAX_RETRIES),
            user_timeout: None,
        }
    }
}

impl SafetyNet {
    /// Keepalive with these settings, and no user timeout.
    ///
    /// # Errors
    ///
    /// As [`with_idle`](Self::with_idle), [`with_interval`](Self::with_interval)
    /// and [`with_retries`](Self::with_retries).
    pub fn new(idle: Duration, interval: Duration, retries: u32) -> Result<Self, SafetyNetError> {
        Ok(Self {
            idle: seconds("idle", idle)?,
            interval: seconds("interval", interval)?,
            retries: probes(retries)?,
            user_timeout: None,
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
        self.retries = probes(retries)?;
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

fn seconds(field: &'static str, time: Duration) -> Result<u16, SafetyNetError> {
    let rounded = u16::try_from(whole_seconds(time)).unwrap_or(u16::MAX);
    let rule = match rounded {
        0 => Rule::AboveZero,
        1..=MAX_SECONDS => return Ok(rounded),
        _ => Rule::UpToMaxSeconds,
    };
    Err(SafetyNetError::new(field, Value::Time(time), rule))
}

fn milliseconds(field: &'static str, time: Duration) -> Result<Duration, SafetyNetError> {
    let rule = if time.is_zero() {
        Rule::AboveZero
    } else if time > MAX_USER_TIMEOUT {
        Rule::UpToMaxMilliseconds
    } else {
        // The kernel would take what a cut leaves of a microsecond, zero, for
        // "off".
        let fraction = u32::from(time.subsec_nanos() % 1_000_000 > 0);
        let millis = time.subsec_millis() + fraction;
        let whole = Duration::from_secs(time.as_secs());
        return Ok(whole + Duration::from_millis(millis.into()));
    };
    Err(SafetyNetError::new(field, Value::Time(time), rule))
}

fn probes(retries: u32) -> Result<u8, SafetyNetError> {
    u8::try_from(retries)
        .ok()
        .filter(|retries| (1..=MAX_RETRIES).contains(retries))
        .ok_or(SafetyNetError::new(
            "retries",
            Value::Count(retries),
            Rule::OneTo127,
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
    Count(u32),
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
    #[error("at most {}ms", MAX_USER_TIMEOUT.as_millis())]
    UpToMaxMilliseconds,
    #[error("from 1 to {MAX_RETRIES}")]
    OneTo127,
}
