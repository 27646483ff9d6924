//! What beats cost on idle connections. Busy ones send none.

use serde::Serialize;

/// What a ping or a pong is on the wire.
const FRAME: f64 = 13.0;
/// IPv4, TCP, and its timestamps.
const HEADERS: f64 = 20.0 + 20.0 + 12.0;

/// A ping, a pong with the acknowledgement of the ping, and that of the pong.
const PACKETS: f64 = 3.0;
const BYTES: f64 = 3.0 * HEADERS + 2.0 * FRAME;

/// Seconds of a core for a beat that this end asks for, and it costs less to
/// answer one; docs/timings.md says how it was measured.
pub const CPU: f64 = 31e-6;

/// Of all connections together, a second.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Costs {
    /// Of both ends.
    pub beats: f64,
    /// In both directions.
    pub packets: f64,
    pub bytes: f64,
    /// Of one core of this end, if it asks each time.
    pub cpu_seconds: f64,
}

impl Costs {
    /// For a number of connections, each with a number of beats a second.
    pub fn of(beats: f64, connections: u64) -> Self {
        let beats = beats * connections as f64;
        Self {
            beats,
            packets: beats * PACKETS,
            bytes: beats * BYTES,
            cpu_seconds: beats * CPU,
        }
    }
}
