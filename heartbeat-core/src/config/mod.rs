//! The knobs of a [`Monitor`](crate::Monitor).
//!
//! This module decides which timings are valid, and refuses all others when a [`Config`]
//! is built. So the monitor can trust every value in it. Which timings suit a network is
//! the subject of `docs/timings.md`.

use core::time::Duration;

use crate::{
    frame::Hello,
    packed::{Packed, PackedMicros},
};

mod builder;
mod choices;
mod error;
mod jitter;
#[cfg(feature = "serde")]
mod layer;
mod refusal;
#[cfg(feature = "serde")]
mod serialized;

pub use builder::ConfigBuilder;
pub(crate) use builder::checked;
use choices::Choices;
pub use choices::{Evidence, Role};
pub use error::ConfigError;
pub(crate) use error::Rule;
use jitter::grid;
#[cfg(feature = "serde")]
pub use layer::ConfigLayer;
pub use refusal::Refusal;

/// The longest duration that any knob takes: 365 days.
pub(crate) const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The shortest [`Config::speak_within`], which is also the shortest time between two
/// signs of life.
pub(crate) const SHORTEST_SIGN_INTERVAL: u64 = 20_000;

/// The largest [`Config::max_missed`].
pub(crate) const MAX_MISSED: u32 = 255;

/// The largest [`Config::max_frame`], in bytes.
pub(crate) const MAX_FRAME: u32 = u32::MAX - 1;

/// One whole, in the unit that jitter is kept in.
pub(crate) const MILLION: u32 = 1_000_000;

/// Validated timings.
///
/// With `interval` I, `timeout` W and `max_missed` N, a peer that falls silent is dead
/// after I + N·W at the latest ([`Config::detection_time`]), and never while the gaps
/// between its bytes are shorter than I·(1 − `jitter`) + N·W.
///
/// Times have a resolution of one microsecond. Fractions are cut off.
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
/// // Or start from the detection time.
/// let config = Config::detect_within(Duration::from_secs(3))?;
/// assert_eq!(config.detection_time(), Duration::from_secs(3));
///
/// // Invalid values are refused when the configuration is built.
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
/// Several layers, such as a file and the environment on top of it, are read as
/// `ConfigLayer`s. The value `"default"` has the same effect as leaving the key out.
///
/// An error names the knob. If the format has lines, the error has the line of the wrong
/// value. Values that contradict each other are an error of the map that contains them. A
/// written `Config` has all its knobs and neither of the two keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "ConfigLayer", into = "serialized::Knobs")
)]
pub struct Config {
    interval: PackedMicros,
    timeout: PackedMicros,
    min_interval: PackedMicros,
    stall_tolerance: PackedMicros,
    adaptive_floor: PackedMicros,
    /// Zero: no limit.
    write_stall: PackedMicros,
    /// Zero: no limit.
    max_pause: PackedMicros,
    /// Zero: no limit on our own silence.
    speak_within: PackedMicros,
    linger: PackedMicros,
    /// Millionths.
    jitter: Packed<3>,
    max_frame: Packed<4>,
    min_rate: Packed<4>,
    max_missed: u8,
    max_stretch: u8,
    /// The logarithm of the grid of intervals' ends.
    grid: u8,
    choices: Choices,
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
            adaptive: self.adaptive(),
            adaptive_floor: Some(self.adaptive_floor()),
            evidence: self.evidence(),
            role: self.role(),
            min_interval: Some(self.min_interval()),
            stall_tolerance: Some(self.stall_tolerance()),
            write_stall: self.write_stall(),
            max_frame: self.max_frame(),
            min_rate: self.min_rate(),
            max_stretch: self.max_stretch(),
            max_pause: self.max_pause(),
            speak_within: self.speak_within(),
            linger: self.linger(),
            beat_events: self.beat_events(),
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
    /// Few wake-ups of the radio, and a silence of half a minute ends no connection.
    #[must_use]
    pub fn mobile() -> Self {
        Self::timings(30_000_000, 10_000_000, 3)
    }

    /// Derives every knob from a detection time.
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

    /// The same with another interval, and with `min_interval` lowered to it if necessary.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if the interval isn't from 1 µs to 365 days.
    pub fn with_interval(&self, interval: Duration) -> Result<Self, ConfigError> {
        let min_interval = self.min_interval().min(interval);
        let builder = self.to_builder().interval(interval);
        builder.min_interval(min_interval).build()
    }

    /// A valid configuration from timings that are known to be valid.
    fn timings(interval: u64, timeout: u64, max_missed: u8) -> Self {
        Self {
            interval: PackedMicros::new(interval),
            timeout: PackedMicros::new(timeout),
            min_interval: PackedMicros::new(default_min_interval(
                interval,
                probe_budget(timeout, max_missed),
            )),
            stall_tolerance: PackedMicros::new(timeout),
            adaptive_floor: PackedMicros::new(default_adaptive_floor(timeout)),
            write_stall: PackedMicros::new(0),
            max_pause: PackedMicros::new(0),
            speak_within: PackedMicros::new(0),
            linger: PackedMicros::new(30_000_000),
            jitter: Packed::new(u64::from(MILLION) / 4),
            max_frame: Packed::new(8 << 20),
            min_rate: Packed::new(100),
            max_missed,
            max_stretch: 4,
            grid: grid(interval, MILLION / 4),
            choices: Choices::new(true, true, Evidence::AnyBytes, Role::Both),
        }
    }

    /// The time from the last evidence of life to the verdict, at most:
    /// interval + `max_missed` · timeout.
    #[must_use]
    pub const fn detection_time(&self) -> Duration {
        Duration::from_micros(self.interval.get() + self.probe_budget())
    }

    /// See [`ConfigBuilder::interval`].
    #[must_use]
    pub const fn interval(&self) -> Duration {
        Duration::from_micros(self.interval.get())
    }

    /// See [`ConfigBuilder::timeout`].
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        Duration::from_micros(self.timeout.get())
    }

    /// See [`ConfigBuilder::max_missed`].
    #[must_use]
    pub const fn max_missed(&self) -> u32 {
        self.max_missed as u32
    }

    /// See [`ConfigBuilder::jitter`].
    #[must_use]
    pub fn jitter(&self) -> f64 {
        f64::from(self.jitter_millionths()) / f64::from(MILLION)
    }

    /// See [`ConfigBuilder::adaptive`].
    #[must_use]
    pub const fn adaptive(&self) -> bool {
        self.choices.adaptive()
    }

    /// See [`ConfigBuilder::adaptive_floor`].
    #[must_use]
    pub const fn adaptive_floor(&self) -> Duration {
        Duration::from_micros(self.adaptive_floor.get())
    }

    /// See [`ConfigBuilder::evidence`].
    #[must_use]
    pub const fn evidence(&self) -> Evidence {
        self.choices.evidence()
    }

    /// See [`ConfigBuilder::role`].
    #[must_use]
    pub const fn role(&self) -> Role {
        self.choices.role()
    }

    /// See [`ConfigBuilder::min_interval`].
    #[must_use]
    pub const fn min_interval(&self) -> Duration {
        Duration::from_micros(self.min_interval.get())
    }

    /// See [`ConfigBuilder::stall_tolerance`].
    #[must_use]
    pub const fn stall_tolerance(&self) -> Duration {
        Duration::from_micros(self.stall_tolerance.get())
    }

    /// See [`ConfigBuilder::write_stall`].
    #[must_use]
    pub const fn write_stall(&self) -> Option<Duration> {
        limit(self.write_stall)
    }

    /// See [`ConfigBuilder::max_frame`].
    #[must_use]
    pub const fn max_frame(&self) -> usize {
        small(self.max_frame) as usize
    }

    /// See [`ConfigBuilder::min_rate`].
    #[must_use]
    pub const fn min_rate(&self) -> u32 {
        small(self.min_rate)
    }

    /// See [`ConfigBuilder::max_stretch`].
    #[must_use]
    pub const fn max_stretch(&self) -> u32 {
        self.max_stretch as u32
    }

    /// See [`ConfigBuilder::max_pause`].
    #[must_use]
    pub const fn max_pause(&self) -> Option<Duration> {
        limit(self.max_pause)
    }

    /// See [`ConfigBuilder::speak_within`].
    #[must_use]
    pub const fn speak_within(&self) -> Option<Duration> {
        limit(self.speak_within)
    }

    /// See [`ConfigBuilder::linger`].
    #[must_use]
    pub const fn linger(&self) -> Duration {
        Duration::from_micros(self.linger.get())
    }

    /// See [`ConfigBuilder::beat_events`].
    #[must_use]
    pub const fn beat_events(&self) -> bool {
        self.choices.beat_events()
    }

    /// What a side with this configuration announces, with its `instance`.
    #[must_use]
    pub const fn hello(&self, instance: [u8; 8]) -> Hello {
        Hello {
            interval: self.interval(),
            detection_time: self.detection_time(),
            min_interval: self.min_interval(),
            max_missed: self.max_missed(),
            max_frame: small(self.max_frame),
            instance,
        }
    }

    /// The probe budget N·W, in microseconds: how long a ping and its
    /// repetitions may go unanswered.
    #[inline]
    pub(crate) const fn probe_budget(&self) -> u64 {
        probe_budget(self.timeout.get(), self.max_missed)
    }
}

/// A duration, or none for zero.
const fn limit(micros: PackedMicros) -> Option<Duration> {
    match micros.get() {
        0 => None,
        micros => Some(Duration::from_micros(micros)),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "four bytes")]
const fn small(number: Packed<4>) -> u32 {
    number.get() as u32
}

const fn probe_budget(timeout: u64, max_missed: u8) -> u64 {
    max_missed as u64 * timeout
}

fn default_min_interval(interval: u64, probe_budget: u64) -> u64 {
    (interval / 2).clamp(1, 1_000_000).min(probe_budget)
}

fn default_adaptive_floor(timeout: u64) -> u64 {
    timeout.min(200_000)
}
