//! The bounds of each setting in kernels, its rounding, and the error for a value outside
//! of them.

use std::{fmt, ops::RangeInclusive, time::Duration};

/// The largest idle time and interval that Linux takes, in seconds.
pub(super) const MAX_SECONDS: u16 = 32_767;

/// The largest number of probes that Linux takes.
pub(super) const MAX_RETRIES: u8 = 127;

/// The longest time that is kept in milliseconds: Linux has the user timeout as
/// a signed number.
pub(super) const MAX_MILLISECONDS: Duration = Duration::from_millis(i32::MAX as u64);

/// The longest and the shortest limit that Linux takes for the time between
/// two retransmissions. The longest is also what it uses by itself.
pub(super) const RETRANSMIT_LIMITS: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(120);

/// Rounded up.
pub(super) fn whole_seconds(time: Duration) -> u64 {
    let fraction = u64::from(time.subsec_nanos() > 0);
    time.as_secs().saturating_add(fraction)
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
pub(super) fn whole_milliseconds(time: Duration) -> Duration {
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

/// A setting of the [`SafetyNet`](super::SafetyNet) that no kernel would take. Nothing was set.
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

    /// The refused value.
    #[must_use]
    pub fn value(&self) -> impl fmt::Display + use<> {
        self.value
    }

    /// The rule, as the end of the sentence "it must be …".
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
