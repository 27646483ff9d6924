//! Programs to run and to copy from; see the examples beside this file. What
//! several of them use is in here.

pub mod arguments;
#[cfg(target_os = "linux")]
pub mod network;
pub mod process;
#[cfg(target_os = "linux")]
pub mod relay;
#[path = "websocket/websocket.rs"]
pub mod websocket;
pub mod witness;
