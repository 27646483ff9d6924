//! The knobs of a [`Monitor`](crate::Monitor).
//!
//! This module decides which timings make sense and refuses the others when a
//! [`Config`] is built, so that the monitor can trust every value that it
//! holds. It doesn't decide what your network needs: `docs/timings.md` helps
//! with that.

use core::{fmt, time::Duration};

use crate::{Instant, frame::Hello, time::micros};

#[cfg(feature = "serde")]
mod serialized;

/// The longest duration that any knob takes: 365 days.
pub(crate) const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The largest [`Config::max_missed`].
pub(crate) const MAX_MISSED: u32 = 255;

/// One whole, in the unit that jitter is kept in.
const MILLION: u32 = 1_000_000;

/// Validated timings.
///
/// With `interval` I, `timeout` W and `max_missed` N, a peer that falls silent
/// is found dead after I + N·W ([`Config::detection_time`]) and never while
/// the gaps between its bytes are shorter than I·(1 − `jitter`) + N·W.
///
/// Times have a resolution of one microsecond; what is finer is cut off.
///
/// ```
/// use core::time::Duration;
/// use heartbeat_core::Config;
///
/// let config = Config::builder()
///     .interval(Duration::from_secs(2))
///     .timeout(Duration::from_millis(500))
///     .max_missed(4)
///     .build()?;
/// assert_eq!(config.detection_time(), Duration::from_secs(4));
///
/// // Or the other way round: say how soon you must know.
/// let config = Config::detect_within(Duration::from_secs(3))?;
/// assert_eq!(config.detection_time(), Duration::from_secs(3));
///
/// // What makes no sense is refused when it is built.
/// let error = Config::builder().interval(Duration::ZERO).build().unwrap_err();
/// assert_eq!(error.to_string(), "interval = 0ns: must be at least 1µs");
/// # Ok::<(), heartbeat_core::ConfigError>(())
/// ```
///
/// # In a configuration file
///
/// With the feature `serde` (on by default) a `Config` is a map of its knobs,
/// durations as people write them. A knob that is left out has its default,
/// one that doesn't exist is refused:
///
/// ```
/// # #[cfg(feature = "serde")] {
/// # use core::time::Duration;
/// # use heartbeat_core::Config;
/// let config: Config = toml::from_str(r#"
///     interval = "1.5s"
///     timeout = "250ms"
///     max_missed = 2
/// "#).unwrap();
/// assert_eq!(config.detection_time(), Duration::from_secs(2));
/// # }
/// ```
///
/// Two more keys set `interval`, `timeout` and `max_missed` together:
/// `detect_within = "6s"` as [`Config::detect_within`] does, and
/// `preset = "lan"`, `"wan"` or `"mobile"` as the constructors of that name. A
/// preset's timings may be changed one by one; `detect_within` stands without
/// them, or it would no longer be true.
///
/// An error names the knob. Where the format knows lines it comes at the line
/// of the value that is wrong; values that contradict each other are an error
/// of the map that they are in. A written `Config` has all its knobs and
/// neither of the two keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "serialized::Given", into = "serialized::Knobs")
)]
pub struct Config {
    // Microseconds.
    interval: u64,
    timeout: u64,
    min_interval: u64,
    stall_tolerance: u64,
    adaptive_floor: u64,
    /// Zero: no limit.
    write_stall: u64,
    /// Millionths.
    jitter: u32,
    max_frame: u32,
    max_missed: u8,
    /// The logarithm of `grid`, which is asked for at every step.
    grid: u8,
    adaptive: bool,
    beat_events: bool,
    evidence: Evidence,
    role: Role,
}

/// What counts as a sign of life from the peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[expect(
    clippy::exhaustive_enums,
    reason = "acknowledgements, bytes, frames and answers are all that a peer's host can send"
)]
pub enum Evidence {
    /// Any byte, and also a fresh acknowledgement of the peer's kernel: that
    /// its host and the network are there. It says nothing of its application:
    /// a process that is stopped or hangs is never found, as long as its
    /// kernel acknowledges. For those who serve slow readers that send
    /// nothing; only adapters that can ask the kernel know it
    /// ([`Monitor::handle_acknowledged`](crate::Monitor::handle_acknowledged)).
    Acknowledgement,
    /// Any byte, also in the middle of a frame. Right for nearly everybody: a
    /// peer that sends is alive, whatever else may be late.
    #[default]
    AnyBytes,
    /// A whole frame. A peer that trickles one byte a minute into an endless
    /// frame is found; one large frame over a slow network must fit into the
    /// detection time.
    Frame,
    /// Only a pong that answers one of our pings. Bytes that lay in a buffer
    /// while this machine was suspended prove nothing then. We ping once an
    /// interval, whatever else arrives.
    Echo,
}

/// Who of the two asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[expect(clippy::exhaustive_enums, reason = "we ask, the peer asks, or both do")]
pub enum Role {
    /// Both sides ping when they hear nothing.
    #[default]
    Both,
    /// We ping when we hear nothing, and the peer is expected not to: the
    /// counterpart of [`Passive`](Self::Passive). Our own judgement is the
    /// same as with [`Both`](Self::Both).
    Active,
    /// The peer is expected to ping, at the interval that it announced. We
    /// ping only when its pings stop coming. For servers with many
    /// connections, which then send nothing of their own accord.
    ///
    /// Its interval takes the place of ours if it is the longer one. The ping
    /// that the peer owes us takes the place of our first one: it has
    /// `timeout` to come, and its absence is the first miss, so the detection
    /// time is the same as with [`Both`](Self::Both).
    ///
    /// With `max_missed` of 1 there is no beat to spare, and with
    /// [`Evidence::Echo`] the peer's pings are no evidence: in both cases this
    /// is the same as [`Both`](Self::Both).
    Passive,
}

impl Default for Config {
    /// Interval 5 s, timeout 3 s, 3 misses: dead within 14 s.
    fn default() -> Self {
        Self::timings(5_000_000, 3_000_000, 3)
    }
}

impl Config {
    /// Starts from the defaults.
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder::default()
    }

    /// A builder that holds all values of this configuration, also those that
    /// were derived from others when it was built.
    pub fn to_builder(self) -> ConfigBuilder {
        ConfigBuilder {
            interval: self.interval(),
            timeout: self.timeout(),
            max_missed: self.max_missed(),
            jitter: self.jitter(),
            adaptive: self.adaptive,
            adaptive_floor: Some(self.adaptive_floor()),
            evidence: self.evidence,
            role: self.role,
            min_interval: Some(self.min_interval()),
            stall_tolerance: Some(self.stall_tolerance()),
            write_stall: self.write_stall(),
            max_frame: self.max_frame(),
            beat_events: self.beat_events,
        }
    }

    /// For machines in one building: interval 1 s, timeout 500 ms, 3 misses,
    /// dead within 2.5 s.
    #[must_use]
    pub fn lan() -> Self {
        Self::timings(1_000_000, 500_000, 3)
    }

    /// For the public internet: the defaults, dead within 14 s.
    #[must_use]
    pub fn wan() -> Self {
        Self::default()
    }

    /// For phones: interval 30 s, timeout 10 s, 3 misses, dead within 60 s.
    /// Few wake-ups of the radio, and outages of half a minute survive.
    #[must_use]
    pub fn mobile() -> Self {
        Self::timings(30_000_000, 10_000_000, 3)
    }

    /// Derives every knob from the time within which a death must be known.
    ///
    /// [`detection_time`](Self::detection_time) of the result is exactly
    /// `budget`: three misses, and interval to timeout about as 5 to 3, as in
    /// the defaults.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if the budget is shorter than 5 µs or longer than 365
    /// days.
    pub fn detect_within(budget: Duration) -> Result<Self, ConfigError> {
        const FIELD: &str = "detect_within";
        let total = checked(FIELD, budget)?;
        let timeout = total.saturating_mul(3) / 14;
        if timeout == 0 {
            return Err(ConfigError::new(FIELD, budget, Rule::BudgetTooShort));
        }
        Ok(Self::timings(total - 3 * timeout, timeout, 3))
    }

    /// A valid configuration from timings that are known to be valid.
    fn timings(interval: u64, timeout: u64, max_missed: u8) -> Self {
        Self {
            interval,
            timeout,
            min_interval: default_min_interval(interval),
            stall_tolerance: timeout,
            adaptive_floor: default_adaptive_floor(timeout),
            write_stall: 0,
            jitter: MILLION / 4,
            max_frame: 8 << 20,
            max_missed,
            grid: grid(interval, MILLION / 4),
            adaptive: true,
            beat_events: true,
            evidence: Evidence::AnyBytes,
            role: Role::Both,
        }
    }

    /// The time from the last evidence of life to the verdict, at most:
    /// interval + `max_missed` · timeout.
    #[must_use]
    pub const fn detection_time(&self) -> Duration {
        Duration::from_micros(self.interval + self.budget())
    }

    /// See [`ConfigBuilder::interval`].
    #[must_use]
    pub const fn interval(&self) -> Duration {
        Duration::from_micros(self.interval)
    }

    /// See [`ConfigBuilder::timeout`].
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        Duration::from_micros(self.timeout)
    }

    /// See [`ConfigBuilder::max_missed`].
    #[must_use]
    pub const fn max_missed(&self) -> u32 {
        self.max_missed as u32
    }

    /// See [`ConfigBuilder::jitter`].
    #[must_use]
    pub fn jitter(&self) -> f64 {
        f64::from(self.jitter) / f64::from(MILLION)
    }

    /// See [`ConfigBuilder::adaptive`].
    #[must_use]
    pub const fn adaptive(&self) -> bool {
        self.adaptive
    }

    /// See [`ConfigBuilder::adaptive_floor`].
    #[must_use]
    pub const fn adaptive_floor(&self) -> Duration {
        Duration::from_micros(self.adaptive_floor)
    }

    /// See [`ConfigBuilder::evidence`].
    #[must_use]
    pub const fn evidence(&self) -> Evidence {
        self.evidence
    }

    /// See [`ConfigBuilder::role`].
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// See [`ConfigBuilder::min_interval`].
    #[must_use]
    pub const fn min_interval(&self) -> Duration {
        Duration::from_micros(self.min_interval)
    }

    /// See [`ConfigBuilder::stall_tolerance`].
    #[must_use]
    pub const fn stall_tolerance(&self) -> Duration {
        Duration::from_micros(self.stall_tolerance)
    }

    /// See [`ConfigBuilder::write_stall`].
    #[must_use]
    pub const fn write_stall(&self) -> Option<Duration> {
        match self.write_stall {
            0 => None,
            limit => Some(Duration::from_micros(limit)),
        }
    }

    /// See [`ConfigBuilder::max_frame`].
    #[must_use]
    pub const fn max_frame(&self) -> usize {
        self.max_frame as usize
    }

    /// See [`ConfigBuilder::beat_events`].
    #[must_use]
    pub const fn beat_events(&self) -> bool {
        self.beat_events
    }

    /// What a side with this configuration announces.
    #[must_use]
    pub const fn hello(&self) -> Hello {
        Hello {
            interval: self.interval(),
            detection_time: self.detection_time(),
            min_interval: self.min_interval(),
            max_missed: self.max_missed(),
        }
    }

    /// N·W in microseconds: how long a ping and its repetitions may go
    /// unanswered.
    pub(crate) const fn budget(&self) -> u64 {
        self.max_missed as u64 * self.timeout
    }

    /// How much earlier than it happened an arrival may be reported without
    /// breaking a promise: a sixteenth of `jitter · interval`, zero without
    /// jitter. So a busy connection needn't ask the clock at each read.
    #[must_use]
    pub const fn arrival_slack(&self) -> Duration {
        Duration::from_micros(eighth(self.interval, self.jitter) / 2)
    }

    /// `interval` shortened by the fraction `random / 2^32` of three quarters
    /// of the jitter. The rest is for the grid and for arrivals that are
    /// reported too early.
    pub(crate) const fn shortened(&self, interval: u64, random: u32) -> u64 {
        // 52 bits at most of jitter and random together, and durations of 45
        // bits: one product needs more than 64.
        let part = self.jitter as u128 * random as u128;
        let most = (interval as u128 * part / MILLION as u128) >> 32;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "never more than `interval`"
        )]
        let most = most as u64;
        at_least_one(interval.saturating_sub(most - most / 4))
    }

    /// I·(1 − J) in microseconds: no interval is shortened below it.
    pub(crate) const fn shortest(&self, interval: u64) -> u64 {
        let cut = interval as u128 * self.jitter as u128 / MILLION as u128;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "never more than `interval`"
        )]
        let cut = cut as u64;
        at_least_one(interval.saturating_sub(cut))
    }

    /// `instant`, or up to an eighth of the jitter earlier: on a grid that all
    /// monitors with such an interval share, so that whoever drives many of
    /// them wakes up once for several. Its width is a power of two.
    #[inline]
    pub(crate) const fn on_grid(&self, instant: Instant) -> Instant {
        instant.rounded_down(self.grid)
    }
}

/// An eighth of jitter (in millionths) times interval.
const fn eighth(interval: u64, jitter: u32) -> u64 {
    // 42 bits and 20.
    interval / 8 * jitter as u64 / MILLION as u64
}

/// The logarithm of the widest grid that fits into an eighth of the jitter.
fn grid(interval: u64, jitter: u32) -> u8 {
    let bits = eighth(interval, jitter).checked_ilog2();
    bits.and_then(|bits| u8::try_from(bits).ok()).unwrap_or(0)
}

const fn at_least_one(micros: u64) -> u64 {
    if micros == 0 { 1 } else { micros }
}

fn default_min_interval(interval: u64) -> u64 {
    (interval / 2).clamp(1, 1_000_000)
}

fn default_adaptive_floor(timeout: u64) -> u64 {
    timeout.min(200_000)
}

/// Collects the knobs of a [`Config`]; [`build`](Self::build) checks them.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct ConfigBuilder {
    interval: Duration,
    timeout: Duration,
    max_missed: u32,
    jitter: f64,
    adaptive: bool,
    adaptive_floor: Option<Duration>,
    evidence: Evidence,
    role: Role,
    min_interval: Option<Duration>,
    stall_tolerance: Option<Duration>,
    write_stall: Option<Duration>,
    max_frame: usize,
    beat_events: bool,
}

impl Default for ConfigBuilder {
    fn default() -> Self {
        let mut builder = Config::default().to_builder();
        // These follow other knobs unless they are set.
        builder.adaptive_floor = None;
        builder.min_interval = None;
        builder.stall_tolerance = None;
        builder
    }
}

impl ConfigBuilder {
    /// Silence from the peer after which we ping. Default 5 s; from 1 µs to
    /// 365 days.
    ///
    /// Shorter finds a death sooner and costs more pings on idle connections.
    /// Connections with traffic aren't pinged at all.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// How long one ping may go unanswered. Default 3 s; from 1 µs to 365
    /// days.
    ///
    /// `max_missed · timeout` is the outage that a connection survives: an
    /// idle connection is given up only if nothing came through for that
    /// long.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Misses in a row until the peer is dead. Default 3; from 1 to 255.
    ///
    /// Each miss sends one more ping, so that one lost answer decides
    /// nothing.
    pub fn max_missed(mut self, max_missed: u32) -> Self {
        self.max_missed = max_missed;
        self
    }

    /// Each interval is shortened by a random part of it, up to this. Default
    /// 0.25; from 0 to 1.
    ///
    /// Keeps many connections from pinging in step. An eighth of it goes into
    /// rounding the end of an interval down to a grid, so that one wake-up can
    /// serve several connections. The first interval is
    /// shortened by anything up to the whole of it, so that connections which
    /// were opened together spread at once. Zero switches off all randomness:
    /// the detection time is then exact.
    pub fn jitter(mut self, jitter: f64) -> Self {
        self.jitter = jitter;
        self
    }

    /// Whether [`Suspect`](crate::Event::Suspect) follows the measured round
    /// trip. Default on.
    ///
    /// The timer is the one of RFC 6298: smoothed round trip plus four times
    /// its variation. It only makes suspicion come earlier; the verdict keeps
    /// its deadline, which is what a detector with a bound does best (Chen,
    /// Toueg, Aguilera 2002, theorem 5).
    pub fn adaptive(mut self, adaptive: bool) -> Self {
        self.adaptive = adaptive;
        self
    }

    /// The earliest that a beat is suspicious, however short the round trips
    /// are. Default 200 ms, or `timeout` if that is shorter; from 1 µs to
    /// `timeout`.
    pub fn adaptive_floor(mut self, floor: Duration) -> Self {
        self.adaptive_floor = Some(floor);
        self
    }

    /// What counts as a sign of life. Default [`Evidence::AnyBytes`].
    pub fn evidence(mut self, evidence: Evidence) -> Self {
        self.evidence = evidence;
        self
    }

    /// Who asks. Default [`Role::Both`].
    pub fn role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }

    /// The fastest idle pings that we accept. Default half of `interval`, at
    /// most 1 s; from 1 µs to 365 days.
    ///
    /// It is announced, and a peer with a shorter interval slows down to it.
    /// A peer that pings faster all the same is cut off with
    /// [`PingFlood`](crate::Cause::PingFlood), after a bounded number and
    /// with room for bunched and repeated pings.
    pub fn min_interval(mut self, min_interval: Duration) -> Self {
        self.min_interval = Some(min_interval);
        self
    }

    /// How late a wake-up may be before it is our own stall. Default
    /// `timeout`; from 1 µs to 365 days.
    ///
    /// After a stall the peer isn't blamed for silence that nobody listened
    /// to: it is pinged afresh. A lateness up to this adds to the detection
    /// time instead. If that uses up all of `max_missed · timeout` the peer is
    /// dead without having been asked, so keep the tolerance below it where
    /// wake-ups can be that late. (The default is below it unless
    /// `max_missed` is 1, and is equal to it then.)
    pub fn stall_tolerance(mut self, tolerance: Duration) -> Self {
        self.stall_tolerance = Some(tolerance);
        self
    }

    /// How long writes may make no progress at all while bytes still arrive,
    /// before the peer counts as dead
    /// ([`WriteStalled`](crate::Cause::WriteStalled)). Default: no limit;
    /// from 1 µs to 365 days.
    ///
    /// A peer that sends but doesn't read is alive. Set this if it is of no
    /// use to you all the same.
    pub fn write_stall(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.write_stall = limit.into();
        self
    }

    /// The largest application frame, in bytes, that is accepted or sent.
    /// Default 8 MiB; from 1 byte to 4 GiB − 2 bytes.
    ///
    /// Bounds the memory that a peer can make us hold.
    pub fn max_frame(mut self, bytes: usize) -> Self {
        self.max_frame = bytes;
        self
    }

    /// Whether each pong is reported as [`Beat`](crate::Event::Beat). Default
    /// on.
    pub fn beat_events(mut self, report: bool) -> Self {
        self.beat_events = report;
        self
    }

    /// Checks every knob.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] that names the first knob which breaks a rule, its
    /// value and the rule.
    pub fn build(self) -> Result<Config, ConfigError> {
        let interval = checked("interval", self.interval)?;
        let timeout = checked("timeout", self.timeout)?;
        let or = |field, value: Option<Duration>, default| {
            value.map_or(Ok(default), |value| checked(field, value))
        };

        let max_missed = checked_misses(self.max_missed.into())?;
        let jitter = checked_jitter(self.jitter)?;

        let default_floor = default_adaptive_floor(timeout);
        let adaptive_floor = or("adaptive_floor", self.adaptive_floor, default_floor)?;
        if adaptive_floor > timeout {
            let floor = Duration::from_micros(adaptive_floor);
            let rule = Rule::UpToTimeout(Duration::from_micros(timeout));
            return Err(ConfigError::new("adaptive_floor", floor, rule));
        }
        let max_frame = checked_frame(self.max_frame as u64)?;

        Ok(Config {
            interval,
            timeout,
            min_interval: or(
                "min_interval",
                self.min_interval,
                default_min_interval(interval),
            )?,
            stall_tolerance: or("stall_tolerance", self.stall_tolerance, timeout)?,
            adaptive_floor,
            write_stall: or("write_stall", self.write_stall, 0)?,
            jitter,
            max_frame,
            max_missed,
            grid: grid(interval, jitter),
            adaptive: self.adaptive,
            beat_events: self.beat_events,
            evidence: self.evidence,
            role: self.role,
        })
    }
}

/// The microseconds of a duration that every timer can live with.
fn checked(field: &'static str, value: Duration) -> Result<u64, ConfigError> {
    if value > MAX_DURATION {
        return Err(ConfigError::new(field, value, Rule::AtMostAYear));
    }
    match micros(value) {
        0 => Err(ConfigError::new(field, value, Rule::AtLeastAMicrosecond)),
        micros => Ok(micros),
    }
}

fn checked_misses(misses: u64) -> Result<u8, ConfigError> {
    let value = Value::Count(misses);
    u8::try_from(misses)
        .ok()
        .filter(|&misses| misses > 0)
        .ok_or(ConfigError::new("max_missed", value, Rule::OneTo255))
}

/// In millionths.
fn checked_jitter(jitter: f64) -> Result<u32, ConfigError> {
    // The comparison is false for NaN, which so is refused too.
    if !(0.0..=1.0).contains(&jitter) {
        let value = Value::Ratio(jitter);
        return Err(ConfigError::new("jitter", value, Rule::ZeroToOne));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to 1,000,000, as just checked"
    )]
    let millionths = (jitter * f64::from(MILLION) + 0.5) as u32;
    Ok(millionths)
}

fn checked_frame(bytes: u64) -> Result<u32, ConfigError> {
    let value = Value::Bytes(bytes);
    // Room for the tag within a length of 32 bits.
    u32::try_from(bytes)
        .ok()
        .filter(|bytes| (1..u32::MAX).contains(bytes))
        .ok_or(ConfigError::new("max_frame", value, Rule::FrameSize))
}

/// A knob was set to a value that makes no sense. Nothing was built.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{field} = {value}: must be {rule}")]
pub struct ConfigError {
    field: &'static str,
    value: Value,
    rule: Rule,
}

impl ConfigError {
    fn new(field: &'static str, value: impl Into<Value>, rule: Rule) -> Self {
        Self {
            field,
            value: value.into(),
            rule,
        }
    }

    /// The knob, by the name of its builder method.
    #[must_use]
    pub const fn field(&self) -> &'static str {
        self.field
    }

    /// What it was set to.
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

#[derive(Clone, Copy, Debug, PartialEq)]
enum Value {
    Time(Duration),
    Count(u64),
    Ratio(f64),
    Bytes(u64),
}

impl From<Duration> for Value {
    fn from(time: Duration) -> Self {
        Self::Time(time)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) => write!(f, "{time:?}"),
            Self::Count(count) => write!(f, "{count}"),
            Self::Ratio(ratio) => write!(f, "{ratio}"),
            Self::Bytes(bytes) => write!(f, "{bytes} bytes"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Rule {
    #[error("at least 1µs")]
    AtLeastAMicrosecond,
    #[error("at most 365 days")]
    AtMostAYear,
    #[error("at least 5µs, for an interval and three timeouts")]
    BudgetTooShort,
    #[error("from 1 to 255")]
    OneTo255,
    #[error("from 0 to 1")]
    ZeroToOne,
    #[error("at most the timeout, {0:?}")]
    UpToTimeout(Duration),
    /// In a file, where both can be said.
    #[cfg(feature = "serde")]
    #[error("without {0}, because both set the timings")]
    Alone(&'static str),
    #[error("from 1 to 4294967294 bytes")]
    FrameSize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jittered(jitter: f64) -> Config {
        Config::builder().jitter(jitter).build().unwrap()
    }

    #[test]
    fn an_interval_is_shortened_by_a_part_of_the_jitter() {
        let second = 1_000_000;
        let quarter = jittered(0.25);
        assert_eq!(quarter.shortened(second, 0), second);
        assert_eq!(quarter.shortened(second, 1 << 31), 906_250);
        assert_eq!(quarter.shortened(second, 1 << 30), 953_125);
        assert_eq!(quarter.shortened(second, u32::MAX), 812_500);
        assert_eq!(quarter.shortest(second), 750_000);
        assert_eq!(jittered(0.0).shortest(second), second);
    }

    #[test]
    fn an_interval_is_never_shortened_to_nothing() {
        for interval in [1, 2, 1_000_000, micros(MAX_DURATION)] {
            assert!(jittered(1.0).shortest(interval) > 0);
        }
    }
}
