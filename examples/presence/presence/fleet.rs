//! What every gateway sees: the users, their gateways, and what was announced.
//!
//! This module decides where in the announcements a reader is, also after the store was
//! away or has lost them. It changes nothing in the store.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use redis::{Client, RedisResult, Script, aio::MultiplexedConnection};
use serde::{
    Deserialize, Serialize,
    de::value::{Error, MapDeserializer},
};
use tokio::time::{Instant, sleep};

use super::{PREFIX, SCRIPT, open, within};

/// How long the store may take to answer, and how long it waits for news.
const PATIENCE: Duration = Duration::from_secs(2);

/// A reader of the fleet's presence, with a connection of its own.
pub struct Fleet {
    store: Client,
    connection: Option<MultiplexedConnection>,
    /// The last announcement that was read; `None` before the first connection.
    last: Option<Id>,
    /// The number of the store that made it, if it had one.
    number: Option<String>,
    waiting: VecDeque<Announcement>,
}

/// Of an announcement: milliseconds of the store's clock, and a number within one.
type Id = (u64, u64);

/// Announcements by their ids.
type Entries = Vec<(String, HashMap<String, String>)>;

/// Something that the whole fleet is told, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// What happened.
    pub kind: Kind,
    /// The user, or the gateway's name.
    pub who: String,
    /// For people.
    pub why: String,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A user is present, and wasn't.
    Joined,
    /// A user isn't present any more.
    Left,
    /// A gateway has a lease, in a new epoch.
    GatewayUp,
    /// A gateway's lease has ended. Another process may have its name by now.
    GatewayLost,
    /// A gateway has given its lease up.
    GatewayClosed,
    /// The store is new, or has lost its data. For a lease it announces no user. Take the
    /// [`Roster`] when a lease and the grace period have passed: users whose gateway died
    /// with the data aren't announced as `Left`.
    StoreEmpty,
}

/// The users of each gateway, at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// The gateways that have a lease, or had and weren't announced as lost yet.
    pub gateways: Vec<Gateway>,
    /// Users without a connection whose grace period runs. They are present.
    pub leaving: Vec<String>,
}

/// A gateway and the users of its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Its name.
    pub name: String,
    /// What is left of its lease; zero if it has ended.
    pub lease: Duration,
    /// One for each connection.
    pub users: Vec<String>,
}

impl Fleet {
    /// Connects when it is asked something.
    #[must_use]
    pub const fn new(store: Client) -> Self {
        Self {
            store,
            connection: None,
            last: None,
            number: None,
            waiting: VecDeque::new(),
        }
    }

    /// The users of each gateway. Each [`next`](Self::next) from here on is later than this.
    ///
    /// # Errors
    ///
    /// If the store can't be reached or doesn't answer in time. Ask again.
    pub async fn roster(&mut self) -> RedisResult<Roster> {
        type Gateways = Vec<(String, i64, Vec<String>)>;
        type Reply = (Option<String>, String, Gateways, Vec<String>);
        let (number, last, gateways, leaving): Reply = self.ask("roster").await?;
        (self.number, self.last) = (number, Some(id(&last)));
        self.waiting.clear();
        let gateways = gateways.into_iter().map(|(name, lease, users)| Gateway {
            name,
            lease: Duration::from_millis(u64::try_from(lease).unwrap_or(0)),
            users,
        });
        let gateways = gateways.collect();
        Ok(Roster { gateways, leaving })
    }

    /// Entries that are counted and that no gateway has: zero, or there is a bug.
    ///
    /// # Errors
    ///
    /// As [`roster`](Self::roster).
    pub async fn ghosts(&mut self) -> RedisResult<i32> {
        self.ask("ghosts").await
    }

    /// The next announcement, of those since this reader connected first. Waits for it; to
    /// drop the future loses nothing.
    ///
    /// # Errors
    ///
    /// As [`roster`](Self::roster). Nothing is skipped, unless the store has lost it or has
    /// made more than 10,000 announcements since the last one that was read.
    pub async fn next(&mut self) -> RedisResult<Announcement> {
        loop {
            if let Some(next) = self.waiting.pop_front() {
                return Ok(next);
            }
            let mut store = self.connected().await?;
            let (time, number) = self.last.unwrap_or_default();
            let mut command = redis::cmd("XREAD");
            command.arg("COUNT").arg(1000).arg("BLOCK");
            command.arg(PATIENCE.as_millis().to_string());
            command.arg("STREAMS").arg(format!("{PREFIX}events"));
            command.arg(format!("{time}-{number}"));
            let asked = command.query_async(&mut store);
            let read: Option<Vec<(String, Entries)>> = answer(2 * PATIENCE, asked).await?;
            self.connection = Some(store);
            for (at, fields) in read.into_iter().flatten().flat_map(|(_, entries)| entries) {
                self.last = Some(id(&at));
                let announcement = announcement(fields);
                if announcement.as_ref().map(|it| it.kind) == Some(Kind::StoreEmpty) {
                    // Of another store, while the connection held.
                    self.number = None;
                }
                self.waiting.extend(announcement);
            }
        }
    }

    async fn ask<T: redis::FromRedisValue>(&mut self, operation: &str) -> RedisResult<T> {
        let mut store = self.connected().await?;
        let script = Script::new(SCRIPT);
        let mut question = script.key(PREFIX);
        question.arg(operation).arg("").arg("");
        let reply = answer(PATIENCE, question.invoke_async(&mut store)).await?;
        self.connection = Some(store);
        Ok(reply)
    }

    /// A connection, at a place that exists: announcements before it are lost, or read.
    /// After an answer it is put back. One on which an answer is still due never is.
    async fn connected(&mut self) -> RedisResult<MultiplexedConnection> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        let opened = open(&self.store, Instant::now() + PATIENCE);
        let mut connection = answer(PATIENCE, opened).await?;
        let mut commands = redis::pipe();
        commands.cmd("GET").arg(format!("{PREFIX}store"));
        let newest = commands.cmd("XREVRANGE").arg(format!("{PREFIX}events"));
        newest.arg("+").arg("-").arg("COUNT").arg(1);
        let asked = commands.query_async(&mut connection);
        let (number, newest): (Option<String>, Entries) = answer(PATIENCE, asked).await?;
        let newest = newest.first().map_or((0, 0), |(at, _)| id(at));
        let is_another = self.number.is_some() && self.number != number;
        self.last = Some(match self.last {
            Some(_) if is_another => (0, 0),
            // It may have been restored from an older snapshot.
            Some(last) => last.min(newest),
            None => newest,
        });
        self.number = number;
        Ok(connection)
    }
}

/// After an error there is a pause.
async fn answer<T>(
    patience: Duration,
    asked: impl Future<Output = RedisResult<T>>,
) -> RedisResult<T> {
    let answer = within(Instant::now() + patience, asked).await;
    if answer.is_err() {
        sleep(PATIENCE / 20).await;
    }
    answer
}

fn id(text: &str) -> Id {
    let (time, number) = text.split_once('-').unwrap_or((text, ""));
    (time.parse().unwrap_or(0), number.parse().unwrap_or(0))
}

/// `None` if it is of a kind that a later version of this module makes.
fn announcement(fields: HashMap<String, String>) -> Option<Announcement> {
    Announcement::deserialize(MapDeserializer::<_, Error>::new(fields.into_iter())).ok()
}
