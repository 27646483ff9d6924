//! Test your own timings before your network does.
//!
//! Two [`Monitor`](crate::Monitor)s (the real ones) judge each other over a
//! simulated [`Link`] in virtual time: an hour takes a few milliseconds. The
//! link delays, loses and retransmits like TCP, and fails for a while; a
//! [`Simulation`] can also let one side hang, stall, stop reading, flood or be
//! cut off. The result is a [`Report`].
//!
//! A property with [proptest](https://docs.rs/proptest) then says what a
//! configuration must survive:
//!
//! ```
//! use heartbeat_core::{Config, testkit::{Link, Simulation, hours, ms, secs}};
//! use proptest::prelude::*;
//!
//! fn my_config() -> Config {
//!     Config::mobile()
//! }
//!
//! # // Without a test harness `#[test]` would remove the function.
//! # macro_rules! proptest {
//! #     (#[test] $($function:tt)*) => { ::proptest::proptest! { $($function)* } };
//! # }
//! proptest! {
//!     #[test]
//!     fn my_timings_survive_my_network(
//!         link in Link::strategy().rtt(ms(20)..=ms(300)).loss(0.0..=0.05).outage(..=secs(2)),
//!         seed: u64,
//!     ) {
//!         Simulation::new(my_config(), link, seed).run_for(hours(1)).assert_no_false_alarm()?;
//!     }
//! }
//! # my_timings_survive_my_network();
//! ```
//!
//! When it fails, the error shows what both sides did up to that moment:
//!
//! ```text
//! b gave a up, but a was alive: silent for 13.932622s, 3 beats missed, last round trip 20ms
//!   Link { rtt: 20ms, .. }, seed 1077296612782604322
//!
//!   ... 1206 earlier entries
//!     770.000000s  --- b to a partitioned for 7.5s ---
//!     772.729352s  a sends Ping 90ee
//!     773.777609s                                              b sends Ping 0619
//!     773.977609s                                              b ** Suspect, 0 missed, silent for 5.132622s
//! ```
//!
//! The other half is that a death is detected in time:
//!
//! ```
//! use heartbeat_core::{Config, testkit::{Link, Side, Simulation, minutes, ms, secs}};
//!
//! let config = Config::lan();
//! let link = Link::new().rtt(ms(20));
//! let report = Simulation::new(config, link, 7).hang(Side::B, secs(60)).run_for(minutes(2));
//! report.assert_no_false_alarm()?;
//! report.assert_detects_within(config.detection_time() + ms(10))?;
//! # Ok::<(), heartbeat_core::testkit::Failure>(())
//! ```
//!
//! All public types of this crate implement proptest's `Arbitrary`.
//!
//! It doesn't simulate your machine's scheduling, a kernel that gives up a connection,
//! bandwidth, or congestion. [`docs/timings.md`] compares its predictions with real kernels.
//!
#![doc = concat!("[`docs/timings.md`]: ", env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/timings.md")]

mod arbitrary;
mod cuts;
mod dice;
mod link;
mod network;
mod peer;
mod pipe;
mod report;
mod simulation;
mod snapshot;
mod tcp;
mod timeline;

use core::time::Duration;
use std::collections::VecDeque;

pub use link::{Link, LinkStrategy};
pub use report::{Failure, Report};
pub use simulation::{Direction, Side, Simulation};
pub(crate) use snapshot::Facts;
#[doc(hidden)]
pub use snapshot::Snapshot;
pub use timeline::Timeline;

/// A duration of this many microseconds.
#[must_use]
pub const fn us(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

/// A duration of this many milliseconds.
#[must_use]
pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A duration of this many seconds.
#[must_use]
pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A duration of this many minutes.
#[must_use]
pub const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes.saturating_mul(60))
}

/// A duration of this many hours.
#[must_use]
pub const fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours.saturating_mul(60 * 60))
}

/// Takes the front of a queue if it satisfies the condition.
fn pop_front_if<T>(queue: &mut VecDeque<T>, wanted: impl FnOnce(&T) -> bool) -> Option<T> {
    let front = queue.front()?;
    if wanted(front) {
        queue.pop_front()
    } else {
        None
    }
}
