//! A reader that notes what the fleet is told.

use std::time::Duration;

use redis::Client;
use tokio::time::{Instant, timeout_at};

use crate::{
    Redis,
    presence::{Announcement, Fleet, Kind, Roster},
};

/// What a busy machine is late by, at worst.
pub const TOLERANCE: Duration = Duration::from_secs(4);

/// What the fleet is told.
pub struct Ear {
    store: Client,
    pub fleet: Fleet,
    pub heard: Vec<(Kind, String)>,
}

impl Ear {
    pub async fn of(redis: &Redis) -> Self {
        Self::at(redis.client.clone()).await
    }

    pub async fn at(store: Client) -> Self {
        let mut fleet = Fleet::new(store.clone());
        fleet.roster().await.unwrap();
        Self {
            store,
            fleet,
            heard: Vec::new(),
        }
    }

    /// All that is told until this is, which must be in time.
    pub async fn until(&mut self, kind: Kind, who: &str, within: Duration) {
        let wanted = (kind, who.to_owned());
        let end = Instant::now() + within + TOLERANCE;
        while self.heard.last() != Some(&wanted) {
            let told = timeout_at(end, self.fleet.next()).await;
            let told = told.unwrap_or_else(|_| panic!("{wanted:?} isn't among {:?}", self.heard));
            self.heard
                .extend(told.ok().map(|Announcement { kind, who, .. }| (kind, who)));
        }
    }

    /// What was told of this user since the last call.
    pub fn of_user(&mut self, user: &str) -> Vec<Kind> {
        let of_user = |(kind, who): (Kind, String)| (who == user).then_some(kind);
        std::mem::take(&mut self.heard)
            .into_iter()
            .filter_map(of_user)
            .collect()
    }

    /// What was told of users since the last call.
    pub fn of_users(&mut self) -> Vec<(Kind, String)> {
        let mut heard = std::mem::take(&mut self.heard);
        heard.retain(|(kind, _)| matches!(kind, Kind::Joined | Kind::Left));
        heard
    }

    /// Each gateway and its users.
    pub async fn roster(&self) -> Vec<(String, Vec<String>)> {
        let mut fleet = Fleet::new(self.store.clone());
        let Roster { gateways, .. } = fleet.roster().await.unwrap();
        assert_eq!(fleet.ghosts().await.unwrap(), 0);
        let mut all: Vec<_> = gateways.into_iter().map(|it| (it.name, it.users)).collect();
        all.iter_mut().for_each(|(_, users)| users.sort());
        all.sort();
        all
    }
}
