//! What every gateway sees: who is present where, and what was announced.
//!
//! This module decides where in the announcements a reader is, also after the store was
//! away or has lost them. It changes nothing in the store.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use redis::{Client, RedisResult, Script, aio::MultiplexedConnection};
use serde::{Deserialize, Serialize};
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
    waiting: VecDeque<Announcement>,
}

/// Of an announcement: milliseconds of the store's clock, and a number within one.
type Id = (u64, u64);

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

/// Who is where, at one instant.
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
            waiting: VecDeque::new(),
        }
    }

    /// Who is where. Each [`next`](Self::next) from here on is later than this.
    ///
    /// # Errors
    ///
    /// If the store can't be reached or doesn't answer in time. Ask again.
    pub async fn roster(&mut self) -> RedisResult<Roster> {
        type Reply = (String, Vec<(String, i64, Vec<String>)>, Vec<String>);
        let (last, gateways, leaving): Reply = self.ask("roster").await?;
        self.last = Some(id(&last));
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
    /// As [`roster`](Self::roster). Nothing is skipped, unless the store has lost it.
    pub async fn next(&mut self) -> RedisResult<Announcement> {
        type Entries = Vec<(String, HashMap<String, String>)>;
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
                self.waiting.extend(announcement(fields));
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
        let mut command = redis::cmd("XREVRANGE");
        command.arg(format!("{PREFIX}events")).arg("+").arg("-");
        command.arg("COUNT").arg(1);
        let asked = command.query_async(&mut connection);
        let newest: Vec<(String, HashMap<String, String>)> = answer(PATIENCE, asked).await?;
        let newest = newest.first().map_or((0, 0), |(at, _)| id(at));
        // The store has lost what we have read, and its clock was set back.
        self.last = Some(match self.last {
            Some(last) if last > newest => (0, 0),
            Some(last) => last,
            None => newest,
        });
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
fn announcement(mut fields: HashMap<String, String>) -> Option<Announcement> {
    let kind = match &*fields.remove("kind")? {
        "joined" => Kind::Joined,
        "left" => Kind::Left,
        "gateway up" => Kind::GatewayUp,
        "gateway lost" => Kind::GatewayLost,
        "gateway closed" => Kind::GatewayClosed,
        "store empty" => Kind::StoreEmpty,
        _ => return None,
    };
    Some(Announcement {
        kind,
        who: fields.remove("who")?,
        why: fields.remove("why")?,
    })
}
