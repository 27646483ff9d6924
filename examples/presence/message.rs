//! What travels between a gateway and its clients, and what processes tell each other.

use std::{collections::BTreeMap, fmt, net::SocketAddr, time::Duration};

use bytes::Bytes;
use heartbeat_tokio::websocket::{BoxError, Payload};
use serde::{Deserialize, Serialize};

use crate::presence::{Announcement, Kind, Roster, Standing, Terms};

/// The longest message that is accepted, in bytes as they travel.
pub const MAX_LENGTH: usize = 256 * 1024;

/// The most users whom a page lists.
const LISTED: usize = 600;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Message {
    /// The first one: the user of this connection. `shows` it the fleet.
    Join { user: String, shows: bool },
    /// The client is present, by this gateway.
    Welcome { gateway: String },
    /// What the page shows.
    Fleet(View),
}

/// The fleet as a gateway sees it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct View {
    /// The gateway that shows it, and what others may think of it.
    pub gateway: String,
    pub standing: String,
    /// How old this is, as far as the store could be asked.
    pub age_ms: u64,
    pub gateways: Vec<Place>,
    /// Some of the users; all of them are counted.
    pub users: Vec<User>,
    pub present: usize,
    pub ghosts: i32,
    /// The latest first.
    pub news: Vec<String>,
    /// What is promised.
    pub promises: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Place {
    pub name: String,
    pub lease_ms: u64,
    pub connections: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct User {
    pub name: String,
    /// The gateways of its connections; none while a grace period runs.
    pub at: Vec<String>,
}

impl View {
    /// The gateways, and the users by name; those whose grace period runs among them.
    pub fn show(&mut self, roster: &Roster) {
        let mut users: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for gateway in &roster.gateways {
            for user in &gateway.users {
                users.entry(user).or_default().push(gateway.name.clone());
            }
        }
        for user in &roster.leaving {
            users.entry(user).or_default();
        }
        self.present = users.len();
        let users = users.into_iter().take(LISTED);
        self.users = users
            .map(|(name, at)| User {
                name: name.to_owned(),
                at,
            })
            .collect();
        let places = roster.gateways.iter().map(|gateway| Place {
            name: gateway.name.clone(),
            lease_ms: u64::try_from(gateway.lease.as_millis()).unwrap_or(u64::MAX),
            connections: gateway.users.len(),
        });
        self.gateways = places.collect();
        self.gateways.sort_by(|a, b| a.name.cmp(&b.name));
    }
}

/// What the fleet may rely on, for people.
pub fn promises(terms: Terms) -> Vec<String> {
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    vec![
        format!(
            "lease {}, refreshed each {}",
            seconds(terms.lease()),
            seconds(terms.refresh())
        ),
        format!(
            "a client's death: offline within {}",
            seconds(terms.client_offline())
        ),
        format!(
            "a gateway's death: known within {}",
            seconds(terms.gateway_lost())
        ),
        format!(
            "its clients: offline within {}",
            seconds(terms.gateway_offline())
        ),
    ]
}

/// In a WebSocket it is JSON.
impl Payload for Message {
    fn weight(&self) -> usize {
        match self {
            Self::Fleet(view) => 64 * (view.users.len() + view.news.len()) + 1024,
            _ => 256,
        }
    }

    fn encode(&self) -> Result<Bytes, BoxError> {
        Ok(serde_json::to_vec(self)?.into())
    }

    fn decode(bytes: Bytes) -> Result<Self, BoxError> {
        Ok(serde_json::from_slice(&bytes)?)
    }
}

/// A line of a process: for people, or in JSON for the program that started it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum News {
    /// A gateway can be connected to.
    Listens {
        gateway: String,
        tcp: SocketAddr,
        http: SocketAddr,
        /// Its wall clock, in seconds.
        clock: u64,
    },
    /// What others may think of this gateway.
    Standing(String),
    /// What the fleet was told.
    Heard(Announcement),
    /// A client is present.
    Connected { user: String, gateway: String },
    /// A client's connection has ended.
    Ended { user: String, how: String },
}

impl News {
    pub fn tell(&self, json: bool) {
        match serde_json::to_string(self) {
            Ok(line) if json => println!("{line}"),
            _ => println!("{self}"),
        }
    }
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listens {
                gateway, tcp, http, ..
            } => write!(
                f,
                "gateway {gateway}: clients at {tcp}, page http://{http}/"
            ),
            Self::Standing(standing) => write!(f, "* {standing}"),
            Self::Heard(announcement) => write!(f, "{announcement}"),
            Self::Connected { user, gateway } => write!(f, "{user} is at {gateway}"),
            Self::Ended { user, how } => write!(f, "{user}: {how}"),
        }
    }
}

impl fmt::Display for Announcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, who, why } = self;
        match kind {
            Kind::Joined => write!(f, "{who} has joined"),
            Kind::Left => write!(f, "{who} has left: {why}"),
            Kind::GatewayUp => write!(f, "gateway {who} is up: {why}"),
            Kind::GatewayLost => write!(f, "gateway {who} is lost: {why}"),
            Kind::GatewayClosed => write!(f, "gateway {who} has closed: {why}"),
            Kind::StoreEmpty => f.write_str("the store has no data"),
        }
    }
}

impl Announcement {
    /// Whether it is about a gateway or the store.
    pub fn is_of_gateway(&self) -> bool {
        !matches!(self.kind, Kind::Joined | Kind::Left)
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting: no lease yet",
            Self::Held => "the lease is held",
            Self::Stale => "stale: the store can't be told, the lease still holds",
            Self::Fenced => "fenced: others may take this gateway for dead",
            Self::Closed => "the lease is given up",
        })
    }
}
