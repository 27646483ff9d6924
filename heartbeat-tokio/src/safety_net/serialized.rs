//! A [`SafetyNet`] as a map of its settings, durations as people write them:
//! `"1.5s"`, `"2m 30s"`.
//!
//! This module decides the spelling. Whether the values make sense is decided
//! by the setters, as for settings made in code.

use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact::{optional, required};
use serde::{Deserialize, Serialize};

use super::{SafetyNet, SafetyNetError};

/// The settings in the order of the documentation.
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Settings {
    #[serde(with = "required")]
    idle: Duration,
    #[serde(with = "required")]
    interval: Duration,
    retries: u32,
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    user_timeout: Option<Duration>,
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    max_retransmit_timeout: Option<Duration>,
    #[serde(with = "required")]
    peek_interval: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        SafetyNet::default().into()
    }
}

impl From<SafetyNet> for Settings {
    fn from(net: SafetyNet) -> Self {
        Self {
            idle: net.idle(),
            interval: net.interval(),
            retries: net.retries(),
            user_timeout: net.user_timeout(),
            max_retransmit_timeout: net.max_retransmit_timeout(),
            peek_interval: net.peek_interval(),
        }
    }
}

impl TryFrom<Settings> for SafetyNet {
    type Error = SafetyNetError;

    fn try_from(settings: Settings) -> Result<Self, SafetyNetError> {
        Self::new(settings.idle, settings.interval, settings.retries)?
            .with_user_timeout(settings.user_timeout)?
            .with_max_retransmit_timeout(settings.max_retransmit_timeout)?
            .with_peek_interval(settings.peek_interval)
    }
}
