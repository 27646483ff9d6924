//! The state machine in virtual time, one behaviour a module.
//!
//! One program, because each links the core, the testkit and proptest anew.
//!
//! ```text
//! cargo test -p heartbeat-core --test machine lessons::
//! ```

mod arrivals;
mod asking;
mod backlog;
mod both_sides;
mod common;
mod config;
mod events;
mod farewell;
mod foreign;
mod found;
mod frames;
mod fuzz_corpus;
mod hello;
mod interval;
mod kinds;
mod lessons;
mod pauses;
mod probes;
mod promises;
mod roles;
mod round_trips;
mod search;
mod speech;
mod strangers;
mod suspicion;
mod testkit;
mod verdicts;
