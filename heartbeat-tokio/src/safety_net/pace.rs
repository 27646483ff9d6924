//! Limits the time between the kernel's retransmissions while a peer is silent.
//!
//! Each retransmission waits twice as long as the one before, so after an outage a silence
//! can last up to twice the outage. `TCP_RTO_MAX_MS` limits the wait. But the kernel counts
//! retransmissions: with a limit below the round trip it repeats data that isn't lost, and
//! after fifteen repetitions it gives up a peer that is still heard. This module decides the
//! limit, and in which state of a socket the limit can't end the connection before the
//! heartbeat would. `net.rs` decides when it applies.

use std::time::Duration;

use heartbeat_core::Config;

use super::{
    SafetyNet, TcpInfo,
    bounds::{RETRANSMIT_LIMITS, whole_milliseconds, whole_seconds},
};

/// The shortest time that Linux waits for an acknowledgement.
const FIRST: Duration = Duration::from_millis(200);

/// The number of retransmissions after which Linux gives up (`tcp_retries2`).
const REPETITIONS: u32 = 15;

impl SafetyNet {
    /// The longest time between two retransmissions while the peer is suspect. A
    /// [`Heartbeat`](crate::Heartbeat) sets it (`TCP_RTO_MAX_MS`, Linux 6.15 and later)
    /// when a beat is late, and takes it back at the next sign of life.
    ///
    /// From 1 to 120 s: one `timeout`, or a sixth of the time until the net's verdict
    /// if that is longer.
    #[must_use]
    pub fn retransmit_timeout_while_suspect(config: &Config) -> Duration {
        let timeout = config.timeout();
        let verdict = whole_seconds(config.detection_time().saturating_add(timeout));
        // However long the limit is, seven times as long pass until the kernel gives up.
        let limit = timeout.max(Duration::from_secs(verdict) / 6);
        whole_milliseconds(limit.clamp(*RETRANSMIT_LIMITS.start(), *RETRANSMIT_LIMITS.end()))
    }
}

/// The limit of one connection. Milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    limit: u32,
    /// The longest wait before the next retransmission with which the limit is safe.
    calm: u32,
}

impl Pace {
    pub(crate) fn of(config: &Config) -> Self {
        let limit = SafetyNet::retransmit_timeout_while_suspect(config);
        let spare = gives_up_after(limit).saturating_sub(config.detection_time());
        let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        Self {
            limit: millis(limit),
            calm: millis(spare / 2),
        }
    }

    pub(crate) fn limit(self) -> Duration {
        Duration::from_millis(self.limit.into())
    }

    /// Whether the limit, set now, repeats only what is lost, and can't make the kernel
    /// give up within the detection time.
    ///
    /// Waits double, so since the first retransmission at most twice the present wait
    /// has passed.
    pub(crate) fn is_safe(self, info: &TcpInfo) -> bool {
        let calm = Duration::from_millis(self.calm.into());
        info.retransmit_timeout <= calm && info.round_trip * 4 <= self.limit()
    }
}

/// How long Linux goes on from the first retransmission (`tcp_model_timeout`).
fn gives_up_after(limit: Duration) -> Duration {
    let doublings = (limit.as_millis() / FIRST.as_millis()).max(1).ilog2();
    FIRST * ((2 << doublings) - 1) + limit * REPETITIONS.saturating_sub(doublings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(detection: Duration) -> (Config, Pace) {
        let config = Config::detect_within(detection).unwrap();
        (config, Pace::of(&config))
    }

    #[test]
    fn the_kernel_gives_up_when_its_documentation_says() {
        let minutes = gives_up_after(Duration::from_secs(120));
        assert_eq!(minutes, Duration::from_millis(924_600));
    }

    #[test]
    fn the_kernel_gives_up_after_the_heartbeat() {
        for millis in (100..600_000).step_by(997) {
            let (config, pace) = pace(Duration::from_millis(millis));
            let verdict = config.detection_time() + config.timeout();
            assert!(gives_up_after(pace.limit()) >= verdict, "{config:?}");
            // And the limit is in time to be of use.
            let useful = config.timeout().max(verdict / 6) + Duration::from_secs(1);
            assert!(pace.limit() <= useful, "{pace:?} of {config:?}");
        }
    }

    #[test]
    fn a_long_wait_leaves_the_kernel_alone() {
        let (config, pace) = pace(Duration::from_secs(3));
        assert_eq!(pace.limit(), Duration::from_secs(1));
        let waits = |millis| TcpInfo {
            retransmit_timeout: Duration::from_millis(millis),
            ..TcpInfo::default()
        };
        assert!(pace.is_safe(&waits(200)));
        // Two of these have passed at most, and the rest is the heartbeat's.
        let longest = (gives_up_after(pace.limit()) - config.detection_time()) / 2;
        let longest = u64::try_from(longest.as_millis()).unwrap();
        assert!(pace.is_safe(&waits(longest)));
        assert!(!pace.is_safe(&waits(longest + 1)));
        assert!(!pace.is_safe(&waits(30_000)), "a deep queue");

        // So does a long way.
        let far = |millis| TcpInfo {
            round_trip: Duration::from_millis(millis),
            ..waits(1000)
        };
        assert!(pace.is_safe(&far(250)));
        assert!(!pace.is_safe(&far(251)));
    }
}
