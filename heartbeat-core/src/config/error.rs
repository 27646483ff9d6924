//! The error of a configuration: the knob, its value and the rule that it breaks.

use core::{fmt, time::Duration};

use super::Refusal;

/// A knob has an invalid value. Nothing was built.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{field} = {value}: must be {rule}")]
pub struct ConfigError {
    field: &'static str,
    value: Value,
    rule: Rule,
}

impl ConfigError {
    pub(crate) fn new(field: &'static str, value: impl Into<Value>, rule: Rule) -> Self {
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
pub(crate) enum Value {
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
pub(crate) enum Rule {
    #[error("at least 1µs")]
    AtLeastAMicrosecond,
    #[error("at least 20ms")]
    AtLeastASign,
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
    #[error("at most the interval, {0:?}")]
    UpToInterval(Duration),
    #[error("at most max_missed · timeout, {0:?}")]
    UpToProbeBudget(Duration),
    #[error("at most the largest interval, {0:?}")]
    UpToLargest(Duration),
    #[error("one with which the peer isn't refused for {0}")]
    FitForPeer(Refusal),
    #[error("one with which the peer doesn't refuse us for {0}")]
    FitForUs(Refusal),
    /// Used for files, in which both keys can occur.
    #[cfg(feature = "serde")]
    #[error("without {0}, because both set the timings")]
    Alone(&'static str),
    #[error("from 1 to 4294967294 bytes")]
    FrameSize,
    /// Used for files; in code the type rules this out.
    #[cfg(feature = "serde")]
    #[error("from 0 to 4294967295 bytes a second")]
    Rate,
}
