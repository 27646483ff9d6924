//! Derives a safety net from a heartbeat's timings.

use heartbeat_core::Config;

use super::{
    SafetyNet,
    bounds::{MAX_MILLISECONDS, MAX_RETRIES, MAX_SECONDS, whole_milliseconds, whole_seconds},
};

/// The fewest probes that are derived. A lost probe isn't repeated, whereas TCP repeats a
/// lost ping.
const MIN_DERIVED_RETRIES: u8 = 3;

/// The default limit of unsent bytes in our own kernel. A ping waits behind them; a lower
/// limit costs throughput.
const DERIVED_MAX_UNSENT: u32 = 128 * 1024;

impl Default for SafetyNet {
    /// As derived from [`Config::default`].
    fn default() -> Self {
        Self::from(&Config::default())
    }
}

impl From<&Config> for SafetyNet {
    /// Keepalive whose verdict comes at least one `timeout` after the
    /// heartbeat's [`detection_time`](Config::detection_time); no user timeout.
    ///
    /// The first probe waits for `interval` + `timeout`, so that none is sent
    /// while beats are answered. Then come as many probes, one `timeout` apart,
    /// as cover the rest, but three at least: a lost probe isn't repeated, whereas TCP
    /// repeats a lost ping. All is rounded up to whole seconds.
    ///
    /// Retransmissions are left to the kernel: a limit for them can make it give up a
    /// peer that is heard. (For verdicts after more than a quarter of an hour the kernel
    /// comes first all the same, while our data is unacknowledged: `tcp_retries2` of the
    /// whole system is too low then.)
    ///
    /// Up to 128 KiB wait unsent in our own kernel. During a pause the socket is checked
    /// once an `interval`.
    ///
    /// For detection times beyond 48 days, which kernels can't count to, it is
    /// the longest keepalive there is.
    fn from(config: &Config) -> Self {
        let timeout = config.timeout();
        let verdict = whole_seconds(config.detection_time().saturating_add(timeout));

        let idle = limited(whole_seconds(config.interval().saturating_add(timeout)));
        let rest = verdict.saturating_sub(idle.into());

        let interval = whole_seconds(timeout).max(rest.div_ceil(MAX_RETRIES.into()));
        let interval = limited(interval);
        let retries = rest.div_ceil(interval.into());
        let retries = u8::try_from(retries).unwrap_or(MAX_RETRIES);

        Self {
            idle,
            interval,
            retries: retries.clamp(MIN_DERIVED_RETRIES, MAX_RETRIES),
            user_timeout: None,
            max_retransmit_timeout: None,
            max_unsent: Some(DERIVED_MAX_UNSENT),
            peek_interval: whole_milliseconds(config.interval().min(MAX_MILLISECONDS)),
        }
    }
}

/// The nearest that a kernel takes.
fn limited(seconds: u64) -> u16 {
    let seconds = u16::try_from(seconds).unwrap_or(MAX_SECONDS);
    seconds.clamp(1, MAX_SECONDS)
}
