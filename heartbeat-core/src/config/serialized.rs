//! A [`Config`] as a map of its knobs, durations as people write them.
//!
//! This module decides the spelling. Whether the values make sense is decided
//! by [`ConfigBuilder::build`], as for a configuration made in code.

use core::{fmt, time::Duration};

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Config, ConfigBuilder, ConfigError, Evidence, Role};

/// The knobs in the order of the documentation.
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Knobs {
    interval: Human,
    timeout: Human,
    max_missed: u32,
    jitter: f64,
    adaptive: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    adaptive_floor: Option<Human>,
    evidence: Evidence,
    role: Role,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_interval: Option<Human>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stall_tolerance: Option<Human>,
    #[serde(skip_serializing_if = "Option::is_none")]
    write_stall: Option<Human>,
    max_frame: usize,
    beat_events: bool,
}

impl Default for Knobs {
    fn default() -> Self {
        Config::builder().into()
    }
}

impl From<Config> for Knobs {
    fn from(config: Config) -> Self {
        config.to_builder().into()
    }
}

impl From<ConfigBuilder> for Knobs {
    fn from(builder: ConfigBuilder) -> Self {
        Self {
            interval: Human(builder.interval),
            timeout: Human(builder.timeout),
            max_missed: builder.max_missed,
            jitter: builder.jitter,
            adaptive: builder.adaptive,
            adaptive_floor: builder.adaptive_floor.map(Human),
            evidence: builder.evidence,
            role: builder.role,
            min_interval: builder.min_interval.map(Human),
            stall_tolerance: builder.stall_tolerance.map(Human),
            write_stall: builder.write_stall.map(Human),
            max_frame: builder.max_frame,
            beat_events: builder.beat_events,
        }
    }
}

impl TryFrom<Knobs> for Config {
    type Error = ConfigError;

    fn try_from(knobs: Knobs) -> Result<Self, ConfigError> {
        let time = |human: Option<Human>| human.map(|Human(time)| time);
        ConfigBuilder {
            interval: knobs.interval.0,
            timeout: knobs.timeout.0,
            max_missed: knobs.max_missed,
            jitter: knobs.jitter,
            adaptive: knobs.adaptive,
            adaptive_floor: time(knobs.adaptive_floor),
            evidence: knobs.evidence,
            role: knobs.role,
            min_interval: time(knobs.min_interval),
            stall_tolerance: time(knobs.stall_tolerance),
            write_stall: time(knobs.write_stall),
            max_frame: knobs.max_frame,
            beat_events: knobs.beat_events,
        }
        .build()
    }
}

/// A duration as people write it: `"1.5s"`, `"250ms"`, `"2m 30s"`.
struct Human(Duration);

impl Serialize for Human {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match SignedDuration::try_from(self.0) {
            Ok(time) => serializer.collect_str(&format_args!("{time:#}")),
            Err(_) => Err(serde::ser::Error::custom("a duration beyond all bounds")),
        }
    }
}

impl<'de> Deserialize<'de> for Human {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(HumanVisitor)
    }
}

struct HumanVisitor;

impl de::Visitor<'_> for HumanVisitor {
    type Value = Human;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration with its unit, such as \"1.5s\" or \"250ms\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Human, E> {
        text.parse::<SignedDuration>()
            .ok()
            .and_then(|time| Duration::try_from(time).ok())
            .map(Human)
            .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}
