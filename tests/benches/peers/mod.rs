//! What people have instead of a heartbeat, as streams and sinks of messages.
//!
//! This module decides how each is used: as its documentation says, with the
//! settings that are fastest where it leaves a choice, and with its beats
//! running. They don't promise the same: see each.

#![allow(
    clippy::expect_used,
    reason = "a benchmark that can't begin has to stop"
)]

use std::time::Duration;

pub(crate) mod hand;
pub(crate) mod http2;
pub(crate) mod websocket;
pub(crate) mod yamux;

/// How often each asks its peer, where it can be told: as often as a heartbeat
/// with default timings.
const INTERVAL: Duration = Duration::from_secs(5);

/// After how long it gives a silent peer up, likewise.
const SILENCE: Duration = Duration::from_secs(14);
