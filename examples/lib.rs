//! Programs to run and to copy from; see the examples beside this file. What
//! they share is in here, and nothing in it is about heartbeats.

pub mod arguments;
#[cfg(target_os = "linux")]
pub mod network;
pub mod process;
#[cfg(target_os = "linux")]
pub mod relay;
pub mod witness;
