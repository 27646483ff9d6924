//! A [`Config`] as a map of its knobs, durations as people write them.
//!
//! This module decides the spelling, and where an error comes: a value that is
//! wrong by itself is refused while it is read, so that a format which knows
//! lines can say on which one it stands. What makes sense is decided by the
//! same checks as for a configuration made in code.

use core::{fmt, time::Duration};

use jiff::SignedDuration;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{
        self, DeserializeOwned, IntoDeserializer, Unexpected, Visitor,
        value::{self, StrDeserializer},
    },
};

use super::{
    Config, ConfigBuilder, ConfigError, Evidence, Role,
    builder::{checked, checked_count, checked_frame, checked_jitter},
    error::{Rule, Value},
};

/// How a limit is spelled that there isn't.
const OFF: &str = "off";

/// The knobs that a file may have, and the two ways to set several at once.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a map of knobs")]
pub(super) struct Given {
    #[serde(deserialize_with = "read::preset")]
    preset: Option<Preset>,
    #[serde(deserialize_with = "read::detect_within")]
    detect_within: Option<Duration>,
    #[serde(deserialize_with = "read::interval")]
    interval: Option<Duration>,
    #[serde(deserialize_with = "read::timeout")]
    timeout: Option<Duration>,
    #[serde(deserialize_with = "read::max_missed")]
    max_missed: Option<u32>,
    #[serde(deserialize_with = "read::jitter")]
    jitter: Option<f64>,
    #[serde(deserialize_with = "read::adaptive")]
    adaptive: Option<bool>,
    #[serde(deserialize_with = "read::adaptive_floor")]
    adaptive_floor: Option<Duration>,
    #[serde(deserialize_with = "read::evidence")]
    evidence: Option<Evidence>,
    #[serde(deserialize_with = "read::role")]
    role: Option<Role>,
    #[serde(deserialize_with = "read::min_interval")]
    min_interval: Option<Duration>,
    #[serde(deserialize_with = "read::stall_tolerance")]
    stall_tolerance: Option<Duration>,
    #[serde(deserialize_with = "read::write_stall")]
    write_stall: Option<Option<Duration>>,
    #[serde(deserialize_with = "read::max_frame")]
    max_frame: Option<usize>,
    #[serde(deserialize_with = "read::min_rate")]
    min_rate: Option<u32>,
    #[serde(deserialize_with = "read::max_stretch")]
    max_stretch: Option<u32>,
    #[serde(deserialize_with = "read::max_pause")]
    max_pause: Option<Option<Duration>>,
    #[serde(deserialize_with = "read::linger")]
    linger: Option<Duration>,
    #[serde(deserialize_with = "read::beat_events")]
    beat_events: Option<bool>,
}

impl Given {
    /// The timings that the file names as a whole, or the defaults.
    fn base(&self) -> Result<Config, ConfigError> {
        if let Some(budget) = self.detect_within {
            let others = [
                ("preset", self.preset.is_some()),
                ("interval", self.interval.is_some()),
                ("timeout", self.timeout.is_some()),
                ("max_missed", self.max_missed.is_some()),
            ];
            if let Some((other, _)) = others.into_iter().find(|(_, given)| *given) {
                let rule = Rule::Alone(other);
                return Err(ConfigError::new("detect_within", budget, rule));
            }
            return Config::detect_within(budget);
        }
        Ok(match self.preset {
            Some(Preset::Lan) => Config::lan(),
            Some(Preset::Mobile) => Config::mobile(),
            Some(Preset::Wan) => Config::wan(),
            None => Config::default(),
        })
    }
}

impl TryFrom<Given> for Config {
    type Error = ConfigError;

    fn try_from(given: Given) -> Result<Self, ConfigError> {
        let base = given.base()?.to_builder();
        ConfigBuilder {
            interval: given.interval.unwrap_or(base.interval),
            timeout: given.timeout.unwrap_or(base.timeout),
            max_missed: given.max_missed.unwrap_or(base.max_missed),
            jitter: given.jitter.unwrap_or(base.jitter),
            adaptive: given.adaptive.unwrap_or(base.adaptive),
            // This and two below follow others unless they are given.
            adaptive_floor: given.adaptive_floor,
            evidence: given.evidence.unwrap_or(base.evidence),
            role: given.role.unwrap_or(base.role),
            min_interval: given.min_interval,
            stall_tolerance: given.stall_tolerance,
            write_stall: given.write_stall.flatten(),
            max_frame: given.max_frame.unwrap_or(base.max_frame),
            min_rate: given.min_rate.unwrap_or(base.min_rate),
            max_stretch: given.max_stretch.unwrap_or(base.max_stretch),
            max_pause: given.max_pause.flatten(),
            linger: given.linger.unwrap_or(base.linger),
            beat_events: given.beat_events.unwrap_or(base.beat_events),
        }
        .build()
    }
}

/// All knobs, in the order of the documentation: what is written.
#[derive(Serialize)]
pub(super) struct Knobs {
    interval: Human,
    timeout: Human,
    max_missed: u32,
    jitter: f64,
    adaptive: bool,
    adaptive_floor: Human,
    evidence: Evidence,
    role: Role,
    min_interval: Human,
    stall_tolerance: Human,
    write_stall: Limit,
    max_frame: usize,
    min_rate: u32,
    max_stretch: u32,
    max_pause: Limit,
    linger: Human,
    beat_events: bool,
}

impl From<Config> for Knobs {
    fn from(config: Config) -> Self {
        Self {
            interval: Human(config.interval()),
            timeout: Human(config.timeout()),
            max_missed: config.max_missed(),
            jitter: config.jitter(),
            adaptive: config.adaptive(),
            adaptive_floor: Human(config.adaptive_floor()),
            evidence: config.evidence(),
            role: config.role(),
            min_interval: Human(config.min_interval()),
            stall_tolerance: Human(config.stall_tolerance()),
            write_stall: Limit(config.write_stall()),
            max_frame: config.max_frame(),
            min_rate: config.min_rate(),
            max_stretch: config.max_stretch(),
            max_pause: Limit(config.max_pause()),
            linger: Human(config.linger()),
            beat_events: config.beat_events(),
        }
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

/// A duration, or none.
struct Limit(Option<Duration>);

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(limit) => Human(limit).serialize(serializer),
            None => serializer.serialize_str(OFF),
        }
    }
}

/// Timings that have a name.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Preset {
    Lan,
    Wan,
    Mobile,
}

// ---- reading one knob -----------------------------------------------------

/// A function for each knob: serde doesn't say which one it reads, and an error
/// has to.
mod read {
    use super::{Deserializer, Duration, Evidence, Preset, Role};

    macro_rules! knobs {
        ($($name:ident: $kind:ident -> $value:ty;)*) => {$(
            pub(super) fn $name<'de, D: Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Option<$value>, D::Error> {
                super::$kind(stringify!($name)).read(deserializer)
            }
        )*};
    }

    knobs! {
        preset: preset -> Preset;
        detect_within: time -> Duration;
        interval: time -> Duration;
        timeout: time -> Duration;
        max_missed: count -> u32;
        jitter: ratio -> f64;
        adaptive: flag -> bool;
        adaptive_floor: time -> Duration;
        evidence: evidence -> Evidence;
        role: role -> Role;
        min_interval: time -> Duration;
        stall_tolerance: time -> Duration;
        write_stall: limit -> Option<Duration>;
        max_frame: bytes -> usize;
        min_rate: rate -> u32;
        max_stretch: count -> u32;
        max_pause: limit -> Option<Duration>;
        linger: time -> Duration;
        beat_events: flag -> bool;
    }
}

fn time(name: &'static str) -> Knob<Duration> {
    Knob {
        name,
        expected: "a duration with its unit, such as \"1.5s\" or \"250ms\"",
        hint: Hint::Text,
        check: |name, found| checked_text(name, text(found)?),
    }
}

fn limit(name: &'static str) -> Knob<Option<Duration>> {
    Knob {
        name,
        expected: "a duration with its unit, such as \"1.5s\", or \"off\"",
        hint: Hint::Text,
        check: |name, found| match text(found)? {
            OFF => Some(Ok(None)),
            text => Some(checked_text(name, text)?.map(Some)),
        },
    }
}

fn checked_text(name: &'static str, text: &str) -> Option<Result<Duration, ConfigError>> {
    let signed: SignedDuration = text.parse().ok()?;
    let time = Duration::try_from(signed).ok()?;
    Some(checked(name, time).map(|_| time))
}

fn count(name: &'static str) -> Knob<u32> {
    Knob {
        name,
        expected: "a whole number from 1 to 255",
        hint: Hint::Whole,
        check: |name, found| Some(checked_count(name, whole(found)?).map(u32::from)),
    }
}

fn rate(name: &'static str) -> Knob<u32> {
    Knob {
        name,
        expected: "a number of bytes a second from 0 to 4294967295",
        hint: Hint::Whole,
        check: |name, found| {
            let rate = whole(found)?;
            let checked = u32::try_from(rate);
            Some(checked.map_err(|_| ConfigError::new(name, Value::Count(rate), Rule::Rate)))
        },
    }
}

fn bytes(name: &'static str) -> Knob<usize> {
    Knob {
        name,
        expected: "a number of bytes from 1 to 4294967294",
        hint: Hint::Whole,
        check: |_, found| {
            let bytes = whole(found)?;
            let size = usize::try_from(bytes).ok()?;
            Some(checked_frame(bytes).map(|_| size))
        },
    }
}

fn ratio(name: &'static str) -> Knob<f64> {
    Knob {
        name,
        expected: "a number from 0 to 1",
        hint: Hint::Ratio,
        check: |_, found| {
            let ratio = match found {
                Unexpected::Float(ratio) => ratio,
                other => u32::try_from(whole(other)?).ok()?.into(),
            };
            Some(checked_jitter(ratio).map(|_| ratio))
        },
    }
}

fn flag(name: &'static str) -> Knob<bool> {
    Knob {
        name,
        expected: "true or false",
        hint: Hint::Flag,
        check: |_, found| match found {
            Unexpected::Bool(flag) => Some(Ok(flag)),
            _ => None,
        },
    }
}

fn preset(name: &'static str) -> Knob<Preset> {
    word(name, "lan, wan or mobile")
}

fn evidence(name: &'static str) -> Knob<Evidence> {
    word(name, "any_bytes, frame, echo or acknowledgement")
}

fn role(name: &'static str) -> Knob<Role> {
    word(name, "both, active or passive")
}

fn word<T: DeserializeOwned>(name: &'static str, expected: &'static str) -> Knob<T> {
    Knob {
        name,
        expected,
        hint: Hint::Text,
        check: |_, found| {
            let word: StrDeserializer<'_, value::Error> = text(found)?.into_deserializer();
            T::deserialize(word).ok().map(Ok)
        },
    }
}

fn text(found: Unexpected<'_>) -> Option<&str> {
    match found {
        Unexpected::Str(text) => Some(text),
        _ => None,
    }
}

fn whole(found: Unexpected<'_>) -> Option<u64> {
    match found {
        Unexpected::Unsigned(number) => Some(number),
        Unexpected::Signed(number) => number.try_into().ok(),
        _ => None,
    }
}

/// A knob that is being read, or `null`, as if it were left out.
struct Knob<T> {
    name: &'static str,
    expected: &'static str,
    hint: Hint,
    /// `None` if it isn't of this kind; an error if it breaks a rule.
    check: fn(&'static str, Unexpected<'_>) -> Option<Result<T, ConfigError>>,
}

/// What a format is asked for. One that has only strings, such as the
/// environment, learns so what to make of them.
enum Hint {
    Text,
    Whole,
    Ratio,
    Flag,
}

impl<T> Knob<T> {
    fn read<'de, D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<T>, D::Error> {
        deserializer.deserialize_option(self)
    }

    fn take<E: de::Error>(self, found: Unexpected<'_>) -> Result<Option<T>, E> {
        match (self.check)(self.name, found) {
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(error)) => Err(E::custom(error)),
            None => Err(E::invalid_value(found, &self)),
        }
    }
}

impl<'de, T> Visitor<'de> for Knob<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, expected, .. } = self;
        write!(f, "{name} to be {expected}")
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<T>, D::Error> {
        match self.hint {
            Hint::Text => deserializer.deserialize_str(self),
            Hint::Whole => deserializer.deserialize_i64(self),
            Hint::Ratio => deserializer.deserialize_f64(self),
            Hint::Flag => deserializer.deserialize_bool(self),
        }
    }

    fn visit_none<E>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Option<T>, E> {
        self.take(Unexpected::Str(text))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Option<T>, E> {
        self.take(Unexpected::Signed(number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Option<T>, E> {
        self.take(Unexpected::Unsigned(number))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Option<T>, E> {
        self.take(Unexpected::Float(number))
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Option<T>, E> {
        self.take(Unexpected::Bool(flag))
    }
}
