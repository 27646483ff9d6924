//! What is said between the conductor and the members of the swarm: lines of
//! JSON on a member's standard input and output. Times are microseconds of the
//! monotonic clock, which is the same in all processes.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use heartbeat_tokio::Config;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// What a member is told.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// The first one. A server listens then.
    Be(Assignment),
    /// For peers: open your connections.
    Open,
    /// Say how you are.
    Tell,
}

/// What a member has to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Assignment {
    pub config: Config,
    /// Threads of its runtime.
    pub workers: u16,
    pub role: Role,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Role {
    Server {
        backlog: u32,
    },
    Peer {
        group: Group,
        /// The address that it connects from, by which servers identify it.
        source: IpAddr,
        servers: Vec<SocketAddr>,
        /// A number of connections, and how often they are opened.
        pace: (usize, Duration),
    },
}

/// The connections of one peer process: with these numbers among all.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Group {
    /// Which process it is.
    pub number: u16,
    pub first: u64,
    pub connections: u64,
    /// Whether it will be stopped.
    pub freezes: bool,
}

/// What a member tells.
#[derive(Debug, Serialize, Deserialize)]
pub enum News {
    /// There is a member.
    Ready,
    /// A server can be connected to.
    Listening(SocketAddr),
    /// The answer to [`Order::Tell`].
    Count(Count),
    /// Something other than a beat.
    Sighting(Sighting),
    /// It can't go on.
    Failed(String),
}

/// How a member is, or all of them.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Count {
    /// Connections that are greeted, and haven't ended.
    pub open: u64,
    /// Pings that were answered, so far.
    pub beats: u64,
    /// How often it was asleep itself, so far.
    pub stalls: u64,
}

/// What one end of a connection says of the other.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sighting {
    pub at: u64,
    /// The group of the connection.
    pub group: u16,
    pub what: What,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum What {
    Suspect,
    Closed,
    Dead {
        cause: String,
        diagnosis: String,
        /// Since the last sign of life.
        silent_for: Duration,
    },
}

impl Sighting {
    /// Whether nothing follows it.
    pub fn is_end(&self) -> bool {
        !matches!(self.what, What::Suspect)
    }
}

/// The monotonic clock.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let micros = i128::from(time.tv_sec) * 1_000_000 + i128::from(time.tv_nsec) / 1000;
    u64::try_from(micros).unwrap_or_default()
}
