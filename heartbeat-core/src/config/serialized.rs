//! A [`Config`] as a map of its knobs, durations as people write them.
//!
//! This module decides the spelling and the position of errors: a value that is invalid by
//! itself is refused while it is read, so a format with lines can name the line. The
//! checks are those of a configuration made in code. `layer.rs` decides which of several
//! layers counts.

use core::{fmt, time::Duration};

use jiff::SignedDuration;
use serde::{
    Deserializer, Serialize, Serializer,
    de::{
        self, DeserializeOwned, IntoDeserializer, Unexpected, Visitor,
        value::{self, StrDeserializer},
    },
};

use super::{
    Config, ConfigError, Evidence, Role,
    builder::{checked, checked_count, checked_frame, checked_jitter, checked_speech},
    error::{Rule, Value},
    layer::{Preset, Setting},
};

/// The spelling of "no limit".
const OFF: &str = "off";

/// The spelling of a value that cancels the layers below.
const DEFAULT: &str = "default";

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
    speak_within: Limit,
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
            speak_within: Limit(config.speak_within()),
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

// ---- reading one knob -----------------------------------------------------

/// One function for each knob: serde doesn't tell which key it reads, and an error has to
/// name it.
pub(super) mod read {
    use super::{Deserializer, Duration, Evidence, Preset, Role, Setting};
    use crate::config::ConfigLayer;

    macro_rules! knobs {
        ($($name:ident: $kind:ident -> $value:ty;)*) => {
            $(
                pub(in crate::config) fn $name<'de, D: Deserializer<'de>>(
                    deserializer: D,
                ) -> Result<Setting<$value>, D::Error> {
                    super::$kind(stringify!($name)).read(deserializer)
                }
            )*

            /// `layer`, or the one below where it leaves the key out.
            pub(in crate::config) fn each_on_top_of(
                layer: ConfigLayer,
                below: ConfigLayer,
            ) -> ConfigLayer {
                ConfigLayer { $($name: layer.$name.on_top_of(below.$name),)* }
            }
        };
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
        speak_within: speech -> Option<Duration>;
        linger: time -> Duration;
        beat_events: flag -> bool;
    }
}

fn time(name: &'static str) -> Knob<Duration> {
    Knob {
        name,
        expected: "a duration with its unit, such as \"1.5s\" or \"250ms\"",
        check: |name, found| checked_text(name, text(found)?),
    }
}

fn limit(name: &'static str) -> Knob<Option<Duration>> {
    Knob {
        name,
        expected: "a duration with its unit, such as \"1.5s\", or \"off\"",
        check: |name, found| match text(found)? {
            OFF => Some(Ok(None)),
            text => Some(checked_text(name, text)?.map(Some)),
        },
    }
}

/// A limit that has a least value of its own.
fn speech(name: &'static str) -> Knob<Option<Duration>> {
    Knob {
        check: |name, found| {
            let checked = (limit(name).check)(name, found)?;
            Some(checked.and_then(|within| checked_speech(within).map(|_| within)))
        },
        ..limit(name)
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
        check: |name, found| Some(checked_count(name, whole(found)?).map(u32::from)),
    }
}

fn rate(name: &'static str) -> Knob<u32> {
    Knob {
        name,
        expected: "a number of bytes a second from 0 to 4294967295",
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
        check: |_, found| {
            let ratio = match found {
                Unexpected::Float(ratio) => ratio,
                Unexpected::Str(text) => text.parse().ok()?,
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
        check: |_, found| match found {
            Unexpected::Bool(flag) => Some(Ok(flag)),
            Unexpected::Str("true" | "on") => Some(Ok(true)),
            Unexpected::Str("false" | "off") => Some(Ok(false)),
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
    word(name, "both or passive")
}

fn word<T: DeserializeOwned>(name: &'static str, expected: &'static str) -> Knob<T> {
    Knob {
        name,
        expected,
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
        Unexpected::Str(text) => text.parse().ok(),
        _ => None,
    }
}

/// A knob that is being read, or `null`, as if it were left out.
struct Knob<T> {
    name: &'static str,
    expected: &'static str,
    /// `None` if it isn't of this kind; an error if it breaks a rule.
    check: fn(&'static str, Unexpected<'_>) -> Option<Result<T, ConfigError>>,
}

impl<T> Knob<T> {
    fn read<'de, D: Deserializer<'de>>(self, deserializer: D) -> Result<Setting<T>, D::Error> {
        deserializer.deserialize_option(self)
    }

    fn take<E: de::Error>(self, found: Unexpected<'_>) -> Result<Setting<T>, E> {
        if text(found) == Some(DEFAULT) {
            return Ok(Setting::Unset);
        }
        match (self.check)(self.name, found) {
            Some(Ok(value)) => Ok(Setting::Given(value)),
            Some(Err(error)) => Err(E::custom(error)),
            None => Err(E::invalid_value(found, &self)),
        }
    }
}

impl<'de, T> Visitor<'de> for Knob<T> {
    type Value = Setting<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, expected, .. } = self;
        write!(f, "{name} to be {expected}")
    }

    /// Of any type: a format such as the environment has only strings.
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Setting<T>, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_none<E>(self) -> Result<Setting<T>, E> {
        Ok(Setting::Absent)
    }

    fn visit_unit<E>(self) -> Result<Setting<T>, E> {
        Ok(Setting::Absent)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Setting<T>, E> {
        self.take(Unexpected::Str(text))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Setting<T>, E> {
        self.take(Unexpected::Signed(number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Setting<T>, E> {
        self.take(Unexpected::Unsigned(number))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Setting<T>, E> {
        self.take(Unexpected::Float(number))
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Setting<T>, E> {
        self.take(Unexpected::Bool(flag))
    }
}
