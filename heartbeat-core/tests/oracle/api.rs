//! The few points in which the core's public API changes with the rebuild.
//!
//! Everything else in this judge uses the API that both have in common.

use std::time::Duration;

use heartbeat_core::{Cause, Config, ConfigBuilder, Monitor};

/// Whether this core knows what the rebuild adds.
pub(crate) const REBUILT: bool = true;

/// Whether `cause` is the refusal of a Hello.
pub(crate) fn is_refusal(cause: Cause) -> bool {
    format!("{cause:?}") == "Refused"
}

/// Lets the counter of pings begin at `sent`. False: this core can't.
pub(crate) fn set_pings_sent(monitor: &mut Monitor, sent: u32) -> bool {
    monitor.set_pings_sent(sent);
    true
}

/// A configuration as the contract wants it: `min_interval` at most I and N·W.
pub(crate) fn build(builder: ConfigBuilder) -> Config {
    builder.clone().build().unwrap_or_else(|_| {
        let shortest = builder.clone().min_interval(Duration::from_micros(1));
        let config = shortest.build().expect("the generators draw valid knobs");
        let budget = config.timeout() * config.max_missed();
        let most = config.interval().min(budget);
        let clamped = builder.min_interval(most).build();
        clamped.expect("the longest min_interval is valid")
    })
}
