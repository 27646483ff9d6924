//! A fleet to be harmed: its processes, and what is seen of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    net::SocketAddr,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::AbortHandle,
    time::{Instant, sleep, sleep_until},
};

use super::{Options, Row};
use crate::{
    Timings,
    children::{Log, Member, Redis, STARTS_WITHIN},
    demo,
    message::News,
    presence::{Announcement, Fleet, Kind},
};

pub type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Redis, gateways and clients. An observer of its own notes the announcements.
pub struct Stage {
    pub redis: Redis,
    pub gateways: Vec<Gateway>,
    pub clients: Vec<Member>,
    pub options: Options,
    pub row: Row,
    begun: Instant,
    store: redis::Client,
    heard: Log,
    observer: AbortHandle,
}

pub struct Gateway {
    pub name: String,
    pub process: Member,
    pub tcp: SocketAddr,
    pub http: SocketAddr,
    pub clock: u64,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.observer.abort();
    }
}

impl Stage {
    /// Three gateways, whose commands begin with `through`, and no clients yet.
    pub async fn new(fault: &'static str, options: &Options) -> Outcome<Self> {
        let mut stage = Self::around(fault, options, Redis::start().await?)?;
        for number in 0..3 {
            stage.add_gateway(number, &[], None).await?;
        }
        Ok(stage)
    }

    pub fn around(fault: &'static str, options: &Options, redis: Redis) -> Outcome<Self> {
        let begun = Instant::now();
        let store = redis::Client::open(redis.url())?;
        let heard = Log::default();
        let (mut fleet, log) = (Fleet::new(store.clone()), heard.clone());
        let observer = tokio::spawn(async move {
            loop {
                if let Ok(announcement) = fleet.next().await {
                    log.add(News::Heard(announcement));
                }
            }
        });
        Ok(Self {
            redis,
            gateways: Vec::new(),
            clients: Vec::new(),
            options: options.clone(),
            row: Row {
                fault,
                ..Row::default()
            },
            begun,
            store,
            heard,
            observer: observer.abort_handle(),
        })
    }

    pub async fn add_gateway(
        &mut self,
        number: usize,
        through: &[&str],
        at: Option<[SocketAddr; 2]>,
    ) -> Outcome {
        let name = demo::gateway_name(number);
        let (redis, timings) = (self.redis.url(), self.timings());
        let process = demo::gateway(through, &redis, &name, timings, at)?;
        let (tcp, http, clock) = process.listens().await?;
        let gateway = Gateway {
            name,
            process,
            tcp,
            http,
            clock,
        };
        // In the place of one that has ended.
        match self.gateways.get_mut(number) {
            Some(place) => *place = gateway,
            None => self.gateways.push(gateway),
        }
        Ok(())
    }

    /// Users who try these gateways, in a process of their own. Returns its number.
    pub fn add_clients(&mut self, at: &[usize], prefix: &str, users: usize) -> Outcome<usize> {
        let addresses: Vec<_> = at.iter().map(|number| self.gateways[*number].tcp).collect();
        let clients = demo::users(&addresses, false, prefix, users, self.timings())?;
        self.clients.push(clients);
        Ok(self.clients.len() - 1)
    }

    /// The same over WebSockets.
    pub fn add_pages(&mut self, at: &[usize], prefix: &str, users: usize) -> Outcome<usize> {
        let addresses: Vec<_> = at
            .iter()
            .map(|number| self.gateways[*number].http)
            .collect();
        let clients = demo::users(&addresses, true, prefix, users, self.timings())?;
        self.clients.push(clients);
        Ok(self.clients.len() - 1)
    }

    pub fn timings(&self) -> Timings {
        self.options.timings()
    }

    // ---- what is seen

    /// How long after `since` the first such announcement was made; none within the limit
    /// is amiss.
    pub async fn until(
        &mut self,
        since: Instant,
        what: &'static str,
        promised: Duration,
        kind: Kind,
        who: &str,
    ) -> Outcome {
        let is_it = |news: &News| {
            matches!(news, News::Heard(it) if it.kind == kind && it.who == who).then_some(())
        };
        let limit = promised + self.options.tolerance + Duration::from_secs(2);
        while since.elapsed() < limit {
            if let Some((at, ())) = self.heard.since(since, is_it).first() {
                self.row.measured.push((what, promised, *at - since));
                return Ok(());
            }
            sleep(Duration::from_millis(20)).await;
        }
        self.amiss(format!("{what}: not within {limit:?}"));
        Ok(())
    }

    /// Waits until this number of users is present, each with one entry, and announced.
    pub async fn until_present(
        &mut self,
        since: Instant,
        what: &'static str,
        promised: Duration,
        users: usize,
    ) -> Outcome {
        self.until_roster(since, what, promised, users, true).await
    }

    /// Waits until this number of users is present, each with one entry. A new store announces
    /// them later.
    pub async fn until_listed(
        &mut self,
        since: Instant,
        what: &'static str,
        promised: Duration,
        users: usize,
    ) -> Outcome {
        self.until_roster(since, what, promised, users, false).await
    }

    async fn until_roster(
        &mut self,
        since: Instant,
        what: &'static str,
        promised: Duration,
        users: usize,
        announced_too: bool,
    ) -> Outcome {
        let mut fleet = Fleet::new(self.store.clone());
        let limit = promised + self.options.tolerance + STARTS_WITHIN;
        let mut problem = String::new();
        while since.elapsed() < limit {
            match fleet.roster().await {
                Ok(roster) => {
                    let entries = roster.gateways.iter().flat_map(|gateway| &gateway.users);
                    let mut counts = BTreeMap::<_, usize>::new();
                    entries.for_each(|user| *counts.entry(user).or_default() += 1);
                    let twice = counts.values().filter(|count| **count > 1).count();
                    // The announcements say the same; they may arrive a little later.
                    let (announced, _) = self.present();
                    let is_there =
                        |user| counts.contains_key(user) || roster.leaving.contains(user);
                    let agrees = announced.iter().all(is_there)
                        && counts.keys().all(|user| announced.contains(*user));
                    if counts.len() == users && twice == 0 && (agrees || !announced_too) {
                        self.row.measured.push((what, promised, since.elapsed()));
                        return Ok(());
                    }
                    let (now, away) = (counts.len(), roster.leaving.len());
                    problem =
                        format!("{now} present, {twice} twice, {away} away, agrees: {agrees}");
                }
                Err(error) => problem = error.to_string(),
            }
            sleep(Duration::from_millis(50)).await;
        }
        self.amiss(format!("{what}: {users} users expected, {problem}"));
        Ok(())
    }

    /// The fleet is there, with this number of users.
    pub async fn settle(&mut self, users: usize) -> Outcome {
        self.until_present(
            Instant::now(),
            "all users are present",
            STARTS_WITHIN,
            users,
        )
        .await
    }

    /// The users that were announced as present, and those that were announced twice alike.
    fn present(&self) -> (BTreeSet<String>, Vec<String>) {
        let (mut present, mut twice) = (BTreeSet::new(), Vec::new());
        let users = |news: &News| match news {
            News::Heard(it) if !it.is_of_gateway() => Some((it.kind, it.who.clone())),
            _ => None,
        };
        for (_, (kind, who)) in self.heard.since(self.begun, users) {
            let is_new = match kind {
                Kind::Joined => present.insert(who.clone()),
                _ => present.remove(&who),
            };
            if !is_new {
                twice.push(format!("{who}: {kind:?}"));
            }
        }
        (present, twice)
    }

    /// Everything that was announced of users from then on.
    pub fn announced(&self, since: Instant, kind: Kind) -> Vec<String> {
        let of = |news: &News| match news {
            News::Heard(Announcement { kind: it, who, .. }) if *it == kind => Some(who.clone()),
            _ => None,
        };
        let told = self.heard.since(since, of);
        told.into_iter().map(|(_, who)| who).collect()
    }

    /// Any other announcement is amiss.
    pub fn announced_only(&mut self, since: Instant, joined: &[&str], left: &[&str]) {
        for (kind, right) in [(Kind::Joined, joined), (Kind::Left, left)] {
            let mut announced = self.announced(since, kind);
            announced.sort();
            if announced != right {
                self.amiss(format!("{kind:?}: {announced:?} instead of {right:?}"));
            }
        }
    }

    /// Waits until a process' only client is present.
    pub async fn until_connected(&mut self, clients: usize) -> Outcome {
        let connected = |news: &News| matches!(news, News::Connected { .. }).then_some(());
        let begun = Instant::now();
        while begun.elapsed() < STARTS_WITHIN {
            let log = self.clients[clients].news();
            if let Some((at, ())) = log.since(self.begun, connected).first() {
                // The store knows it a moment later.
                sleep_until(*at + Duration::from_millis(500)).await;
                return Ok(());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Err("a client doesn't connect".into())
    }

    /// How connections of these clients have ended.
    pub fn ends(&self, clients: usize, since: Instant) -> Vec<String> {
        let of = |news: &News| match news {
            News::Ended { how, .. } => Some(how.clone()),
            _ => None,
        };
        let ends = self.clients[clients].news().since(since, of);
        ends.into_iter().map(|(_, how)| how).collect()
    }

    /// A gateway has said so of itself, or of the fleet.
    pub async fn gateway_says(&mut self, gateway: usize, since: Instant, what: &str) -> Outcome {
        let says = |news: &News| news.to_string().contains(what).then_some(());
        let begun = Instant::now();
        while begun.elapsed() < STARTS_WITHIN {
            let news = self.gateways[gateway].process.news();
            if !news.since(since, says).is_empty() {
                return Ok(());
            }
            sleep(Duration::from_millis(50)).await;
        }
        let name = &self.gateways[gateway].name;
        let complaint = format!("gateway {name} doesn't say {what:?}");
        self.amiss(complaint);
        Ok(())
    }

    pub fn amiss(&mut self, complaint: String) {
        self.row.amiss.push(complaint);
    }

    /// Joined and left take turns for every user, and there is no ghost.
    pub async fn finish(mut self) -> Outcome<Row> {
        let (_, twice) = self.present();
        if !twice.is_empty() {
            self.amiss(format!("announced twice: {twice:?}"));
        }
        let ghosts = Fleet::new(self.store.clone()).ghosts().await?;
        if ghosts != 0 {
            self.amiss(format!("{ghosts} ghosts in the store"));
        }
        for number in 0..self.gateways.len() {
            let metrics = match self.metrics(number).await {
                Ok(metrics) => metrics,
                // It was killed.
                Err(_) => continue,
            };
            for right in ["presence_ghosts_total 0", "presence_lease 1"] {
                if !metrics.lines().any(|line| line == right) {
                    self.amiss(format!("gateway {number}: not {right}"));
                }
            }
        }
        Ok(std::mem::take(&mut self.row))
    }

    /// What a gateway's metrics say.
    pub async fn counted(&self, gateway: usize, metric: &str) -> Outcome<String> {
        let metrics = self.metrics(gateway).await?;
        let mut lines = metrics.lines().filter_map(|line| line.split_once(' '));
        let found = lines.find(|(name, _)| *name == metric);
        Ok(found.map_or_else(String::new, |(_, value)| value.to_owned()))
    }

    pub async fn metrics(&self, gateway: usize) -> Outcome<String> {
        let mut page = TcpStream::connect(self.gateways[gateway].http).await?;
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        page.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        page.read_to_string(&mut answer).await?;
        Ok(answer)
    }
}
