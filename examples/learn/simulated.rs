//! A network that forgets connections after a certain time, without any network.

use std::time::Duration;

use heartbeat_tokio::{
    Config,
    heartbeat_core::{IntervalSearch, SearchOutcome},
};

use crate::report::Attempt;

/// Searches until nothing is left to try, and tells of each attempt.
pub fn run(mut search: IntervalSearch, timeout: Duration, mut tell: impl FnMut(Attempt)) {
    let config = Config::mobile();
    let until_lost = config.timeout() * config.max_missed();
    let mut now = Duration::ZERO;
    while let Some(idle) = search.next() {
        now += idle;
        let outcome = match idle < timeout {
            true => SearchOutcome::Answered { idle },
            false => {
                now += until_lost;
                SearchOutcome::Lost { idle }
            }
        };
        search.learn(outcome);
        tell(Attempt {
            ended_at: now,
            interval: idle,
            outcome,
            search,
        });
    }
}
