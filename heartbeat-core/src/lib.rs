#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

//! A heartbeat that does no I/O.
//!
//! A TCP connection whose peer lost power, hangs, or is behind a cut cable
//! looks connected for hours. [`Monitor`] is the state machine that detects this: it
//! decides when to ping, counts missed beats, and gives its verdict within a documented
//! and tested [bound](Config::detection_time). It reads no clock, opens no socket,
//! allocates nothing and needs no `std`: its driver tells it what happened and when.
//!
//! With tokio, use the crate `heartbeat-tokio`, which drives this one over
//! any stream. This crate is for other runtimes, for simulations, and for
//! tests of your own timings.
//!
//! # A complete driver
//!
//! Two monitors that are connected by two queues, in virtual time. A real driver has a
//! socket where this one has a queue, and sleeps until the deadline where this one jumps
//! to it.
//!
//! ```
//! use std::collections::VecDeque;
//! use heartbeat_core::{Cause, Config, Control, End, Event, Instant, Monitor};
//!
//! /// One side: its monitor, and the bytes that travel towards it.
//! struct Side {
//!     monitor: Monitor,
//!     inbox: VecDeque<Vec<u8>>,
//! }
//!
//! /// What a driver does whenever it wakes up.
//! fn drive(side: &mut Side, outbox: &mut VecDeque<Vec<u8>>, now: Instant) -> Vec<Event> {
//!     let monitor = &mut side.monitor;
//!
//!     // 1. Read everything that has arrived.
//!     for frame in side.inbox.drain(..) {
//!         match Control::decode(&frame) {
//!             Ok(control) => monitor.handle_frame(control, now),
//!             Err(error) => monitor.handle_end(End::Protocol(error), now),
//!         }
//!     }
//!
//!     // 2. Then compare the clock with the deadline.
//!     if monitor.poll_timeout().is_some_and(|deadline| deadline <= now) {
//!         monitor.handle_timeout(now);
//!     }
//!
//!     // 3. Write, and report when everything has left.
//!     let mut buffer = [0; Control::MAX_ENCODED];
//!     if monitor.has_transmit() {
//!         while let Some(control) = monitor.poll_transmit() {
//!             let frame = control.encode(&mut buffer).expect("the buffer is long enough");
//!             outbox.push_back(frame.to_vec());
//!         }
//!         monitor.handle_flushed(now);
//!     }
//!
//!     // 4. Hand out the events.
//!     std::iter::from_fn(|| monitor.poll_event()).collect()
//! }
//!
//! let config = Config::builder().jitter(0.0).build()?;
//! let side = |seed| Side {
//!     monitor: Monitor::new(config, seed, Instant::ORIGIN),
//!     inbox: VecDeque::new(),
//! };
//! let (mut a, mut b) = (side(1), side(2));
//! let mut now = Instant::ORIGIN;
//! let hangs_at = Instant::from_micros(60_000_000);
//!
//! let death = loop {
//!     let to_a = &mut a.inbox;
//!     if now < hangs_at {
//!         drive(&mut b, to_a, now);
//!     }
//!     let events = drive(&mut a, &mut b.inbox, now);
//!     if let Some(Event::Dead(death)) = events.last() {
//!         break *death;
//!     }
//!
//!     // 5. Sleep until the next deadline, unless something arrives first.
//!     let awake = if now < hangs_at { vec![&a, &b] } else { vec![&a] };
//!     if awake.iter().all(|side| side.inbox.is_empty()) {
//!         let deadlines = awake.iter().filter_map(|side| side.monitor.poll_timeout());
//!         now = deadlines.min().expect("a living monitor has a deadline");
//!     }
//! };
//!
//! assert_eq!(death.cause, Cause::Silent);
//! assert_eq!(death.silent_for, config.detection_time());
//! # Ok::<(), heartbeat_core::ConfigError>(())
//! ```

#[cfg(any(test, feature = "std", feature = "testkit"))]
extern crate std;

mod config;
mod event;
mod frame;
#[cfg(feature = "std")]
mod io;
mod limiter;
mod monitor;
mod packed;
mod random;
mod rtt;
mod search;
mod status;
#[cfg(feature = "testkit")]
#[cfg_attr(docsrs, doc(cfg(feature = "testkit")))]
pub mod testkit;
mod time;

#[cfg(feature = "serde")]
pub use config::ConfigLayer;
pub use config::{Config, ConfigBuilder, ConfigError, Evidence, Refusal, Role};
pub use event::{Cause, CloseReason, Death, Diagnosis, End, Event, NoDetail};
pub use frame::{
    BufferTooShort, Control, Goodbye, GoodbyeCode, Hello, Nonce, PART, ProtocolError, Tag,
};
pub use monitor::{Dialogue, Monitor};
pub use search::{IdleGauge, IntervalSearch, SearchMethod, SearchOutcome};
pub use status::{State, Status};
pub use time::Instant;
