//! A [`SafetyNet`] as a map of its settings, durations as people write them:
//! `"1.5s"`, `"2m 30s"`.
//!
//! This module decides the spelling and the position of errors: an error belongs to the wrong
//! value, so a format with lines can name the line. The checks are those of settings made in
//! code.

use std::{fmt, time::Duration};

use jiff::{SignedDuration, fmt::serde::unsigned_duration::friendly::compact::required as human};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Unexpected, Visitor},
};

use super::{SafetyNet, SafetyNetError, bounds};

/// The spelling of an option that is left alone.
const OFF: &str = "off";

/// The spelling of a value that cancels the layers below.
const DEFAULT: &str = "default";

/// The settings of a [`SafetyNet`] that a configuration file names. The others
/// follow the heartbeat's timings.
///
/// ```
/// use heartbeat_core::Config;
/// use heartbeat_tokio::safety_net::{SafetyNet, SafetyNetOverrides};
/// use std::time::Duration;
///
/// #[derive(serde::Deserialize)]
/// struct Settings {
///     heartbeat: Config,
///     #[serde(default)]
///     safety_net: SafetyNetOverrides,
/// }
///
/// let settings: Settings = toml::from_str(
///     r#"
///     heartbeat.detect_within = "1m"
///     safety_net.user_timeout = "5m"
///     "#,
/// )?;
/// let derived = SafetyNet::from(&settings.heartbeat);
/// let net = settings.safety_net.over(derived);
/// assert_eq!(net.user_timeout(), Some(Duration::from_secs(300)));
/// assert_eq!(net.detection_time(), derived.detection_time());
/// # Ok::<(), toml::de::Error>(())
/// ```
///
/// It has the keys of a [`SafetyNet`]; unknown ones are refused. `"off"` for
/// `user_timeout`, `max_retransmit_timeout` or `max_unsent` leaves that option of
/// a socket alone. `"default"`, for any key, takes back what the layers below say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a map of settings")]
pub struct SafetyNetOverrides {
    #[serde(deserialize_with = "read::idle")]
    idle: Given<u16>,
    #[serde(deserialize_with = "read::interval")]
    interval: Given<u16>,
    #[serde(deserialize_with = "read::retries")]
    retries: Given<u8>,
    #[serde(deserialize_with = "read::user_timeout")]
    user_timeout: Given<Option<Duration>>,
    #[serde(deserialize_with = "read::max_retransmit_timeout")]
    max_retransmit_timeout: Given<Option<Duration>>,
    #[serde(deserialize_with = "read::max_unsent")]
    max_unsent: Given<Option<u32>>,
    #[serde(deserialize_with = "read::peek_interval")]
    peek_interval: Given<Duration>,
}

impl SafetyNetOverrides {
    /// `net` with these settings replaced.
    #[must_use]
    pub fn over(self, net: SafetyNet) -> SafetyNet {
        SafetyNet {
            idle: self.idle.or(net.idle),
            interval: self.interval.or(net.interval),
            retries: self.retries.or(net.retries),
            user_timeout: self.user_timeout.or(net.user_timeout),
            max_retransmit_timeout: self.max_retransmit_timeout.or(net.max_retransmit_timeout),
            max_unsent: self.max_unsent.or(net.max_unsent),
            peek_interval: self.peek_interval.or(net.peek_interval),
        }
    }

    /// These settings on top of those of the layer `below`, such as the environment on top of a
    /// file.
    #[must_use]
    pub fn on_top_of(self, below: Self) -> Self {
        read::each_on_top_of(self, below)
    }
}

/// One setting in one layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Given<T> {
    /// Left out: the layers below count.
    #[default]
    Absent,
    /// `"default"`: the layers below don't count.
    Unset,
    Value(T),
}

impl<T> Given<T> {
    fn on_top_of(self, below: Self) -> Self {
        match self {
            Self::Absent => below,
            Self::Unset | Self::Value(_) => self,
        }
    }

    fn or(self, default: T) -> T {
        match self {
            Self::Value(value) => value,
            Self::Absent | Self::Unset => default,
        }
    }
}

impl From<SafetyNetOverrides> for SafetyNet {
    fn from(overrides: SafetyNetOverrides) -> Self {
        overrides.over(Self::default())
    }
}

/// All settings, in the order of the documentation: what is written.
#[derive(Serialize)]
pub(super) struct Settings {
    #[serde(with = "human")]
    idle: Duration,
    #[serde(with = "human")]
    interval: Duration,
    retries: u32,
    #[serde(serialize_with = "optional")]
    user_timeout: Option<Duration>,
    #[serde(serialize_with = "optional")]
    max_retransmit_timeout: Option<Duration>,
    #[serde(serialize_with = "optional_bytes")]
    max_unsent: Option<u32>,
    #[serde(with = "human")]
    peek_interval: Duration,
}

impl From<SafetyNet> for Settings {
    fn from(net: SafetyNet) -> Self {
        Self {
            idle: net.idle(),
            interval: net.interval(),
            retries: net.retries(),
            user_timeout: net.user_timeout(),
            max_retransmit_timeout: net.max_retransmit_timeout(),
            max_unsent: net.max_unsent(),
            peek_interval: net.peek_interval(),
        }
    }
}

fn optional<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => human::serialize(time, serializer),
        None => serializer.serialize_str(OFF),
    }
}

fn optional_bytes<S: Serializer>(bytes: &Option<u32>, serializer: S) -> Result<S::Ok, S::Error> {
    match bytes {
        Some(bytes) => serializer.serialize_u32(*bytes),
        None => serializer.serialize_str(OFF),
    }
}

// ---- reading one setting --------------------------------------------------

/// One function for each setting: serde doesn't tell which key it reads, and an error has to
/// name it.
mod read {
    use super::{Deserializer, Duration, Given, SafetyNetOverrides};

    macro_rules! settings {
        ($($name:ident: $kind:ident -> $value:ty;)*) => {
            $(
                pub(super) fn $name<'de, D: Deserializer<'de>>(
                    deserializer: D,
                ) -> Result<Given<$value>, D::Error> {
                    deserializer.deserialize_option(super::$kind(stringify!($name)))
                }
            )*

            /// `layer`, or the one below where it leaves the key out.
            pub(super) fn each_on_top_of(
                layer: SafetyNetOverrides,
                below: SafetyNetOverrides,
            ) -> SafetyNetOverrides {
                SafetyNetOverrides { $($name: layer.$name.on_top_of(below.$name),)* }
            }
        };
    }

    settings! {
        idle: seconds -> u16;
        interval: seconds -> u16;
        retries: retries -> u8;
        user_timeout: user_timeout -> Option<Duration>;
        max_retransmit_timeout: max_retransmit_timeout -> Option<Duration>;
        max_unsent: max_unsent -> Option<u32>;
        peek_interval: milliseconds -> Duration;
    }
}

const TIME: &str = "a duration with its unit, such as \"1.5s\" or \"250ms\"";
const TIME_OR_OFF: &str = "a duration with its unit, such as \"1.5s\", or \"off\"";

fn seconds(name: &'static str) -> Setting<u16> {
    Setting {
        name,
        expected: TIME,
        check: |name, found| Some(bounds::seconds(name, time(found)?)),
    }
}

fn milliseconds(name: &'static str) -> Setting<Duration> {
    Setting {
        name,
        expected: TIME,
        check: |name, found| Some(bounds::milliseconds(name, time(found)?)),
    }
}

fn user_timeout(name: &'static str) -> Setting<Option<Duration>> {
    Setting {
        name,
        expected: TIME_OR_OFF,
        check: |name, found| match found {
            Unexpected::Str(OFF) => Some(Ok(None)),
            found => Some(bounds::milliseconds(name, time(found)?).map(Some)),
        },
    }
}

fn max_retransmit_timeout(name: &'static str) -> Setting<Option<Duration>> {
    Setting {
        name,
        expected: TIME_OR_OFF,
        check: |_, found| match found {
            Unexpected::Str(OFF) => Some(Ok(None)),
            found => Some(bounds::retransmit_limit(time(found)?).map(Some)),
        },
    }
}

fn max_unsent(name: &'static str) -> Setting<Option<u32>> {
    Setting {
        name,
        expected: "a number of bytes, from 1 to 2147483647, or \"off\"",
        check: |_, found| match found {
            Unexpected::Str(OFF) => Some(Ok(None)),
            Unexpected::Str(text) => Some(bounds::unsent(text.parse().ok()?).map(Some)),
            Unexpected::Unsigned(number) => Some(bounds::unsent(number).map(Some)),
            Unexpected::Signed(number) => Some(bounds::unsent(number.try_into().ok()?).map(Some)),
            _ => None,
        },
    }
}

fn retries(name: &'static str) -> Setting<u8> {
    Setting {
        name,
        expected: "a whole number from 1 to 127",
        check: |_, found| match found {
            Unexpected::Unsigned(number) => Some(bounds::probes(number)),
            Unexpected::Signed(number) => Some(bounds::probes(number.try_into().ok()?)),
            Unexpected::Str(text) => Some(bounds::probes(text.parse().ok()?)),
            _ => None,
        },
    }
}

fn time(found: Unexpected<'_>) -> Option<Duration> {
    let Unexpected::Str(text) = found else {
        return None;
    };
    let signed: SignedDuration = text.parse().ok()?;
    signed.try_into().ok()
}

/// A setting that is being read, or `null`, as if it were left out.
struct Setting<T> {
    name: &'static str,
    expected: &'static str,
    /// `None` if it isn't of this kind; an error if it breaks a rule.
    check: fn(&'static str, Unexpected<'_>) -> Option<Result<T, SafetyNetError>>,
}

impl<T> Setting<T> {
    fn take<E: de::Error>(self, found: Unexpected<'_>) -> Result<Given<T>, E> {
        if let Unexpected::Str(DEFAULT) = found {
            return Ok(Given::Unset);
        }
        match (self.check)(self.name, found) {
            Some(Ok(value)) => Ok(Given::Value(value)),
            Some(Err(error)) => Err(E::custom(error)),
            None => Err(E::invalid_value(found, &self)),
        }
    }
}

impl<'de, T> Visitor<'de> for Setting<T> {
    type Value = Given<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, expected, .. } = self;
        write!(f, "{name} to be {expected}")
    }

    /// Of any type: a format such as the environment has only strings.
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Given<T>, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_none<E>(self) -> Result<Given<T>, E> {
        Ok(Given::Absent)
    }

    fn visit_unit<E>(self) -> Result<Given<T>, E> {
        Ok(Given::Absent)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Given<T>, E> {
        self.take(Unexpected::Str(text))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Given<T>, E> {
        self.take(Unexpected::Signed(number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Given<T>, E> {
        self.take(Unexpected::Unsigned(number))
    }
}
