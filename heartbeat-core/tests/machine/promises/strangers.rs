//! Untrusted peers: promise 18.

use heartbeat_core::{Cause, Config, Evidence, Instant};
use proptest::{collection::vec, prelude::*};

use super::support::{
    MICROSECOND, Rig, budget, cases, lenient, micros, part, share, shortest, start, steady,
};

/// Bytes that come, and a driver that tells of them when they are enough.
struct Trickle {
    rig: Rig,
    /// Since the last evidence.
    bytes: u64,
}

impl Trickle {
    fn new(config: Config, seed: u64, start: Instant) -> Self {
        let rig = Rig::new(config, seed, start);
        Self { rig, bytes: 0 }
    }

    /// `bytes` come now. Says whether they were evidence.
    fn arrive(&mut self, bytes: u64) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        let enough = self.bytes >= self.rig.monitor.bytes_wanted(self.rig.now);
        if enough && bytes > 0 {
            self.bytes = 0;
            self.rig.monitor.handle_bytes(self.rig.now);
            self.rig.settle();
        }
        enough && bytes > 0
    }
}

/// Counts any bytes, at this rate at least.
fn at_rate(config: Config, rate: u32) -> Config {
    let config = lenient(config).to_builder();
    let config = config.evidence(Evidence::AnyBytes).min_rate(rate);
    config.build().unwrap()
}

proptest! {
    #![proptest_config(cases())]

    //   start                    I + N·W
    //   |--.-..---.----.-...--.--|      fewer than rate · t by any time t
    #[test]
    fn promise_18_bytes_below_the_rate_are_silence(
        config in steady(), seed: u64, start in start(), rate in 1..=1_000_000_u32,
        gaps in vec(part(), 1..12),
    ) {
        let config = at_rate(config, rate);
        let mut trickle = Trickle::new(config, seed, start);
        let deadline = start + config.detection_time();
        for gap in gaps {
            let left = deadline.saturating_duration_since(trickle.rig.now) - MICROSECOND;
            trickle.rig.run_until(trickle.rig.now + share(left, gap));
            let silence = micros(trickle.rig.now.saturating_duration_since(start));
            let wanted = (u128::from(silence) * u128::from(rate)).div_ceil(1_000_000);
            let most = u64::try_from(wanted.saturating_sub(1)).unwrap();
            let more = most.saturating_sub(trickle.bytes);
            prop_assert!(!trickle.arrive(more));
        }
        trickle.rig.run_until(deadline - MICROSECOND);
        prop_assert!(!trickle.rig.monitor.has_ended(), "too early");
        trickle.rig.run_until(deadline);
        prop_assert_eq!(trickle.rig.death().map(|(_, death)| death.cause), Some(Cause::Silent));
    }

    #[test]
    fn promise_18_bytes_at_the_rate_are_life(
        config: Config, seed: u64, start in start(), rate in 0..=1_000_000_u32, gaps in vec(part(), 1..12),
    ) {
        let config = at_rate(config, rate);
        let mut trickle = Trickle::new(config, seed, start);
        let longest = shortest(config.interval(), &config) + budget(&config) - MICROSECOND;
        for gap in gaps {
            let gap = share(longest, gap);
            trickle.rig.run_until(trickle.rig.now + gap);
            let wanted = (gap.as_micros() * u128::from(rate)).div_ceil(1_000_000).max(1);
            prop_assert!(trickle.arrive(u64::try_from(wanted).unwrap()));
            prop_assert!(!trickle.rig.monitor.has_ended(), "{:?}", trickle.rig.death());
        }
    }
}
