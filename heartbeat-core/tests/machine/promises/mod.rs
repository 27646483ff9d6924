//! The promises of a `Monitor`, each one as properties with its number.
//!
//! Every property runs 4,000 cases, or 10,000 with `HEARTBEAT_FULL`, the same each time, or as
//! many others as the environment variable `HEARTBEAT_CASES` says. Bounds are tested one
//! microsecond before and at the deadline. Properties that need one monitor drive it bare, with
//! `Rig` or `Script` in `support`; those that need two peers use the testkit.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

mod detection;
mod ending;
mod hello;
mod leaving;
mod robustness;
mod stalls;
mod strangers;
mod support;
mod traffic;
mod writing;
