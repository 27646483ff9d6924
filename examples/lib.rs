//! Programs to run and to copy from; see the examples beside this file. What
//! several of them use is in here, the larger parts behind features.

#[cfg(feature = "arguments")]
pub mod arguments;
#[cfg(all(feature = "network", target_os = "linux"))]
pub mod network;
pub mod process;
#[cfg(all(feature = "network", target_os = "linux"))]
pub mod relay;
pub mod witness;
