//! Several layers of a configuration, one on top of the other.
//!
//! This module decides which layer counts for each knob, and which configuration
//! follows. `serialized.rs` decides the spelling of one layer.

use core::time::Duration;

use serde::Deserialize;

use super::{Config, ConfigBuilder, ConfigError, Evidence, Role, error::Rule, serialized};

/// The knobs that one layer of a configuration names: a file, or the environment
/// on top of it.
///
/// It has the keys of a [`Config`] in a configuration file, and any may be left
/// out. Each value is checked by itself when it is read; values that contradict
/// each other are an error when all layers become a `Config`.
///
/// ```
/// use core::time::Duration;
/// use heartbeat_core::{Config, ConfigLayer};
///
/// let file: ConfigLayer = toml::from_str("preset = 'lan'\nmax_frame = 1000").unwrap();
/// let environment: ConfigLayer = toml::from_str("detect_within = '6s'").unwrap();
///
/// let config = Config::try_from(environment.on_top_of(file))?;
/// assert_eq!(config.detection_time(), Duration::from_secs(6));
/// assert_eq!(config.max_frame(), 1000);
/// # Ok::<(), heartbeat_core::ConfigError>(())
/// ```
///
/// The value `"default"`, for any key, takes back what the layers below say: the
/// key is as if it were left out in all of them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a map of knobs")]
pub struct ConfigLayer {
    #[serde(deserialize_with = "serialized::read::preset")]
    pub(super) preset: Setting<Preset>,
    #[serde(deserialize_with = "serialized::read::detect_within")]
    pub(super) detect_within: Setting<Duration>,
    #[serde(deserialize_with = "serialized::read::interval")]
    pub(super) interval: Setting<Duration>,
    #[serde(deserialize_with = "serialized::read::timeout")]
    pub(super) timeout: Setting<Duration>,
    #[serde(deserialize_with = "serialized::read::max_missed")]
    pub(super) max_missed: Setting<u32>,
    #[serde(deserialize_with = "serialized::read::jitter")]
    pub(super) jitter: Setting<f64>,
    #[serde(deserialize_with = "serialized::read::adaptive")]
    pub(super) adaptive: Setting<bool>,
    #[serde(deserialize_with = "serialized::read::adaptive_floor")]
    pub(super) adaptive_floor: Setting<Duration>,
    #[serde(deserialize_with = "serialized::read::evidence")]
    pub(super) evidence: Setting<Evidence>,
    #[serde(deserialize_with = "serialized::read::role")]
    pub(super) role: Setting<Role>,
    #[serde(deserialize_with = "serialized::read::min_interval")]
    pub(super) min_interval: Setting<Duration>,
    #[serde(deserialize_with = "serialized::read::stall_tolerance")]
    pub(super) stall_tolerance: Setting<Duration>,
    #[serde(deserialize_with = "serialized::read::write_stall")]
    pub(super) write_stall: Setting<Option<Duration>>,
    #[serde(deserialize_with = "serialized::read::max_frame")]
    pub(super) max_frame: Setting<usize>,
    #[serde(deserialize_with = "serialized::read::min_rate")]
    pub(super) min_rate: Setting<u32>,
    #[serde(deserialize_with = "serialized::read::max_stretch")]
    pub(super) max_stretch: Setting<u32>,
    #[serde(deserialize_with = "serialized::read::max_pause")]
    pub(super) max_pause: Setting<Option<Duration>>,
    #[serde(deserialize_with = "serialized::read::speak_within")]
    pub(super) speak_within: Setting<Option<Duration>>,
    #[serde(deserialize_with = "serialized::read::linger")]
    pub(super) linger: Setting<Duration>,
    #[serde(deserialize_with = "serialized::read::beat_events")]
    pub(super) beat_events: Setting<bool>,
}

impl ConfigLayer {
    /// Combines two layers: a key that this one leaves out has the value of `below`.
    ///
    /// `preset` and `detect_within` set all timings. So a layer with either of them
    /// replaces both, and `interval`, `timeout` and `max_missed`, of the layers
    /// below. What a preset or budget has replaced stays replaced, also if a third layer
    /// takes it back with `"default"`. So put layers on top of each other from the top
    /// down: `top.on_top_of(middle).on_top_of(bottom)`.
    #[must_use]
    pub fn on_top_of(self, below: Self) -> Self {
        let replaces = self.preset.is_given() || self.detect_within.is_given();
        let below = match replaces {
            true => below.without_timings(),
            false => below,
        };
        serialized::read::each_on_top_of(self, below)
    }

    fn without_timings(self) -> Self {
        Self {
            preset: Setting::Absent,
            detect_within: Setting::Absent,
            interval: Setting::Absent,
            timeout: Setting::Absent,
            max_missed: Setting::Absent,
            ..self
        }
    }

    /// The timings that are named as a whole, or the defaults.
    fn base(&self) -> Result<Config, ConfigError> {
        if let Setting::Given(budget) = self.detect_within {
            let others = [
                ("preset", self.preset.is_given()),
                ("interval", self.interval.is_given()),
                ("timeout", self.timeout.is_given()),
                ("max_missed", self.max_missed.is_given()),
            ];
            if let Some((other, _)) = others.into_iter().find(|(_, given)| *given) {
                let rule = Rule::Alone(other);
                return Err(ConfigError::new("detect_within", budget, rule));
            }
            return Config::detect_within(budget);
        }
        Ok(match self.preset.given() {
            Some(Preset::Lan) => Config::lan(),
            Some(Preset::Mobile) => Config::mobile(),
            Some(Preset::Wan) => Config::wan(),
            None => Config::default(),
        })
    }
}

impl TryFrom<ConfigLayer> for Config {
    type Error = ConfigError;

    /// # Errors
    ///
    /// A [`ConfigError`] that names the first knob which breaks a rule, its value
    /// and the rule.
    fn try_from(layer: ConfigLayer) -> Result<Self, ConfigError> {
        let base = layer.base()?.to_builder();
        ConfigBuilder {
            interval: layer.interval.or(base.interval),
            timeout: layer.timeout.or(base.timeout),
            max_missed: layer.max_missed.or(base.max_missed),
            jitter: layer.jitter.or(base.jitter),
            adaptive: layer.adaptive.or(base.adaptive),
            // This and two below follow other knobs unless they are given.
            adaptive_floor: layer.adaptive_floor.given(),
            evidence: layer.evidence.or(base.evidence),
            role: layer.role.or(base.role),
            min_interval: layer.min_interval.given(),
            stall_tolerance: layer.stall_tolerance.given(),
            write_stall: layer.write_stall.or(base.write_stall),
            max_frame: layer.max_frame.or(base.max_frame),
            min_rate: layer.min_rate.or(base.min_rate),
            max_stretch: layer.max_stretch.or(base.max_stretch),
            max_pause: layer.max_pause.or(base.max_pause),
            speak_within: layer.speak_within.or(base.speak_within),
            linger: layer.linger.or(base.linger),
            beat_events: layer.beat_events.or(base.beat_events),
        }
        .build()
    }
}

/// One knob in one layer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Setting<T> {
    /// Left out: the layers below count.
    #[default]
    Absent,
    /// `"default"`: the layers below don't count.
    Unset,
    Given(T),
}

impl<T: Copy> Setting<T> {
    pub(super) fn on_top_of(self, below: Self) -> Self {
        match self {
            Self::Absent => below,
            Self::Unset | Self::Given(_) => self,
        }
    }

    fn given(self) -> Option<T> {
        match self {
            Self::Given(value) => Some(value),
            Self::Absent | Self::Unset => None,
        }
    }

    fn is_given(self) -> bool {
        self.given().is_some()
    }

    fn or(self, default: T) -> T {
        self.given().unwrap_or(default)
    }
}

/// Timings that have a name.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Preset {
    Lan,
    Wan,
    Mobile,
}
