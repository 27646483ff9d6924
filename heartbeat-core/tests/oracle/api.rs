//! The few points in which the core's public API changes with the rebuild.
//!
//! Everything else in this judge uses the API that both have in common.

use heartbeat_core::{Cause, Config, ConfigBuilder, Monitor};

/// Whether this core knows what the rebuild adds.
pub(crate) const REBUILT: bool = false;

/// Whether `cause` is the refusal of a Hello.
pub(crate) fn is_refusal(cause: Cause) -> bool {
    format!("{cause:?}") == "Refused"
}

/// Lets the counter of pings begin at `sent`. False: this core can't.
pub(crate) fn set_pings_sent(_monitor: &mut Monitor, sent: u32) -> bool {
    sent == 0
}

/// A configuration as the contract wants it: `min_interval` at most I and N·W.
pub(crate) fn build(builder: ConfigBuilder) -> Config {
    let config = builder
        .clone()
        .build()
        .expect("the generators draw valid knobs");
    let most = config
        .interval()
        .min(config.timeout() * config.max_missed());
    let min_interval = config.min_interval().min(most);
    builder
        .min_interval(min_interval)
        .build()
        .expect("a shorter min_interval is valid")
}
