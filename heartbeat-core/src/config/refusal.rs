//! The Hellos that we refuse.
//!
//! This module decides the bounds, from our own configuration. It doesn't decide the
//! consequences for a refused peer.

use core::time::Duration;

use super::Config;
use crate::{frame::Hello, time::micros};

/// The shortest detection time that a peer may announce, unless ours is as short.
const SHORTEST_DETECTION: Duration = Duration::from_millis(100);

/// Why a [`Hello`] is refused. Its text fits into the detail of a goodbye.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive] // later versions may refuse more
pub enum Refusal {
    /// The peer's detection time is so short that we would have to send without pause.
    #[error("a detection time of {announced:?}, at least {least:?} is accepted")]
    DetectionTime {
        /// The peer's detection time.
        announced: Duration,
        /// The shortest that we accept.
        least: Duration,
    },
    /// The peer accepts so few pings that our detection time would be longer
    /// than [`max_stretch`](crate::ConfigBuilder::max_stretch) allows.
    #[error("a min_interval of {announced:?}, at most {most:?} is accepted")]
    MinInterval {
        /// The peer's `min_interval`.
        announced: Duration,
        /// The longest that we accept.
        most: Duration,
    },
}

impl Config {
    /// Why a side with this configuration refuses a peer that announces `hello`;
    /// `None` if it doesn't.
    ///
    /// A detection time below 100 ms is refused unless our own is as short, and a
    /// `min_interval` m if max(I, m) + N·W is longer than `max_stretch` · D.
    #[must_use]
    pub fn refusal(&self, hello: &Hello) -> Option<Refusal> {
        let announced = hello.detection_time.max(hello.interval);
        if let Some(refusal) = is_hasty(announced, self.detection_time()) {
            return Some(refusal);
        }
        let longest = micros(self.detection_time()) * u64::from(self.max_stretch);
        let most = Duration::from_micros(longest - self.probe_budget());
        let announced = hello.min_interval;
        (announced > most).then_some(Refusal::MinInterval { announced, most })
    }

    /// Why a peer that announced `hello` refuses a side with this configuration, as far as
    /// that Hello tells.
    pub(crate) fn refusal_by(&self, hello: &Hello) -> Option<Refusal> {
        is_hasty(
            self.detection_time(),
            hello.detection_time.max(hello.interval),
        )
    }
}

/// Refuses a detection time that is too short for a side whose own is `own`.
fn is_hasty(announced: Duration, own: Duration) -> Option<Refusal> {
    let least = SHORTEST_DETECTION;
    let is_hasty = announced < least && own >= least;
    is_hasty.then_some(Refusal::DetectionTime { announced, least })
}
