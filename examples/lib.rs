//! Programs to run and to copy from; see the examples beside this file. What
//! they share is in here, and nothing in it is about heartbeats.

pub mod process;
