//! What Redis does to a fleet: it loses connections and leases, refuses, is full, is set back
//! in time, or comes back with older data.

use std::{net::TcpListener, time::Duration};

use redis::Value;
use tokio::time::{sleep, timeout};

use crate::{
    Redis,
    ear::{Ear, TOLERANCE},
    presence::{Kind, Presence, Standing, Terms},
};

fn terms() -> Terms {
    Terms::new(Duration::from_secs(1), Duration::from_millis(500))
}

#[tokio::test]
async fn a_lost_connection_to_the_store_costs_no_user_even_without_a_grace_period() {
    let Some(redis) = Redis::start_settled() else {
        return;
    };
    let mut ear = Ear::of(&redis).await;
    let terms = Terms::new(Duration::from_secs(2), Duration::ZERO);
    let a = Presence::start(redis.client.clone(), "a", terms);
    let _users: Vec<_> = (0..1200).map(|it| a.enter(&format!("user{it}"))).collect();
    ear.until(Kind::Joined, "user1199", Duration::ZERO).await;
    ear.heard.clear();
    redis.tell(&["CLIENT", "KILL", "TYPE", "normal"]);
    ear.until(Kind::GatewayUp, "a", terms.refresh()).await;
    let _last = a.enter("last");
    ear.until(Kind::Joined, "last", terms.look()).await;
    sleep(terms.refresh() + terms.look()).await;
    // Whatever was to be told of the others was told before this.
    let _very_last = a.enter("very last");
    ear.until(Kind::Joined, "very last", Duration::ZERO).await;
    let told = [(Kind::Joined, "last"), (Kind::Joined, "very last")];
    assert_eq!(
        ear.of_users(),
        told.map(|(kind, who)| (kind, who.to_owned()))
    );
}

/// It learns so from the reply to a whole pipeline.
#[tokio::test]
async fn a_gateway_whose_lease_the_store_has_ended_says_that_it_is_fenced() {
    let Some(redis) = Redis::start_settled() else {
        return;
    };
    let mut ear = Ear::of(&redis).await;
    let a = Presence::start(redis.client.clone(), "a", terms());
    let _first = a.enter("first");
    ear.until(Kind::Joined, "first", terms().lease()).await;
    let mut standing = a.standing();
    redis.tell(&["DEL", &lease(&redis)]);
    let _others = [a.enter("second"), a.enter("third")];
    let fenced = standing.wait_for(|it| *it == Standing::Fenced);
    timeout(TOLERANCE, fenced)
        .await
        .expect("it says so")
        .unwrap();
    ear.until(Kind::Joined, "third", terms().refresh()).await;
    assert_eq!(*a.standing().borrow(), Standing::Held);
    assert_eq!(ear.of_user("first"), [Kind::Joined]);
}

#[tokio::test]
async fn no_user_is_offline_because_the_store_is_full() {
    let Some(redis) = Redis::start_settled() else {
        return;
    };
    let mut ear = Ear::of(&redis).await;
    let a = Presence::start(redis.client.clone(), "a", terms());
    let first = a.enter("first");
    ear.until(Kind::Joined, "first", terms().lease()).await;
    redis.tell(&["CONFIG", "SET", "maxmemory", "1"]);
    let mut connection = redis.client.get_connection().unwrap();
    let refused = redis::cmd("SET")
        .arg(&["key", "value"])
        .query::<Value>(&mut connection);
    assert_eq!(refused.unwrap_err().code(), Some("OOM"));

    let _second = a.enter("second");
    ear.until(Kind::Joined, "second", Duration::ZERO).await;
    redis.tell(&["CLIENT", "KILL", "TYPE", "normal"]);
    ear.until(Kind::GatewayUp, "a", terms().refresh()).await;
    first.left("said goodbye");
    ear.until(Kind::Left, "first", terms().grace()).await;
    assert_eq!(ear.of_user("second"), [Kind::Joined]);
    assert_eq!(
        ear.roster().await,
        [("a".to_owned(), vec!["second".to_owned()])]
    );
}

#[tokio::test]
async fn whatever_the_store_refuses_is_said_and_tried_again() {
    let Some(redis) = Redis::start_settled() else {
        return;
    };
    let mut ear = Ear::of(&redis).await;
    redis.tell(&["CONFIG", "SET", "requirepass", "secret"]);
    let locked = Presence::start(redis.client.clone(), "locked", terms());
    says(&locked, Standing::Starting, "unauthenticated").await;
    let wrong = redis::Client::open(format!("redis://:wrong@{}/", redis.address)).unwrap();
    let wrong = Presence::start(wrong, "wrong", terms());
    says(&wrong, Standing::Starting, "assword").await;
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let mute = redis::Client::open(format!("redis://{}/", mute.local_addr().unwrap())).unwrap();
    let mute = Presence::start(mute, "mute", terms());
    says(
        &mute,
        Standing::Starting,
        "the store doesn't answer in time",
    )
    .await;

    let url = format!("redis://:secret@{}/", redis.address);
    let allowed = redis::Client::open(url).unwrap();
    let command = |words: &[&str]| {
        let mut connection = allowed.get_connection().unwrap();
        let (name, arguments) = words.split_first().unwrap();
        let _: Value = redis::cmd(name)
            .arg(arguments)
            .query(&mut connection)
            .unwrap();
    };
    command(&["CONFIG", "SET", "requirepass", ""]);
    says(&locked, Standing::Held, "").await;
    let _entry = locked.enter("user");
    ear.until(Kind::Joined, "user", terms().lease()).await;
    redis.tell(&["REPLICAOF", "127.0.0.1", "1"]);
    says(&locked, Standing::Stale, "read only replica").await;
    says(&locked, Standing::Fenced, "read only replica").await;
    redis.tell(&["REPLICAOF", "NO", "ONE"]);
    says(&locked, Standing::Held, "").await;
    assert_eq!(ear.roster().await.len(), 1);
}

#[tokio::test]
async fn a_store_restored_from_an_older_snapshot_tells_later_changes_again_and_no_others() {
    let Some(mut redis) = Redis::start_settled() else {
        return;
    };
    let mut ear = Ear::of(&redis).await;
    let a = Presence::start(redis.client.clone(), "a", terms());
    let (first, gone) = (a.enter("first"), a.enter("gone"));
    ear.until(Kind::Joined, "gone", terms().lease()).await;
    redis.tell(&["SAVE"]);
    gone.left("said goodbye");
    let _later = a.enter("later");
    ear.until(Kind::Left, "gone", Duration::ZERO).await;
    ear.heard.clear();
    redis.restart();
    ear.until(Kind::Left, "gone", terms().refresh() + terms().grace())
        .await;
    let told = [(Kind::Joined, "later"), (Kind::Left, "gone")];
    assert_eq!(
        ear.of_users(),
        told.map(|(kind, who)| (kind, who.to_owned()))
    );

    // With all its data nothing is told again.
    redis.tell(&["SAVE"]);
    redis.restart();
    first.left("said goodbye");
    ear.heard.clear();
    ear.until(Kind::Left, "first", terms().refresh() + terms().grace())
        .await;
    let told = [(Kind::Left, "first")];
    assert_eq!(
        ear.of_users(),
        told.map(|(kind, who)| (kind, who.to_owned()))
    );
    assert_eq!(
        ear.roster().await,
        [("a".to_owned(), vec!["later".to_owned()])]
    );
}

/// Redis keeps ends as times of its wall clock, so an hour back is an hour more of each.
#[tokio::test]
async fn a_store_whose_clock_is_set_back_an_hour_is_late_by_a_lease_at_most() {
    let Some(redis) = Redis::start() else { return };
    let mut ear = Ear::of(&redis).await;
    let killed = tokio::runtime::Runtime::new().unwrap();
    let inside = killed.enter();
    let a = Presence::start(redis.client.clone(), "a", terms());
    drop(inside);
    let _lost = a.enter("lost");
    ear.until(Kind::GatewayUp, "a", Duration::ZERO).await;
    let hour = "3600000";
    redis.tell(&["PEXPIRE", "{presence}:settling", hour]);
    let lease = lease(&redis);
    let b = Presence::start(redis.client.clone(), "b", terms());
    let (gone, _stays) = (b.enter("gone"), b.enter("stays"));
    let settled = terms().refresh() + terms().lease();
    ear.until(Kind::Joined, "stays", settled).await;

    killed.shutdown_background();
    redis.tell(&["PEXPIRE", &lease, hour]);
    gone.lost("frozen");
    sleep(terms().look()).await;
    redis.tell(&["ZINCRBY", "{presence}:leaving", hour, "gone"]);
    let late = terms().refresh() + terms().lease();
    ear.until(Kind::Left, "gone", late).await;
    ear.until(Kind::Left, "lost", late + terms().grace()).await;
    assert_eq!(ear.of_user("stays"), [Kind::Joined]);
    let users = vec!["stays".to_owned()];
    assert_eq!(ear.roster().await, [("b".to_owned(), users)]);
}

/// The key of the only gateway's.
fn lease(redis: &Redis) -> String {
    let keys = redis.tell(&["KEYS", "{presence}:lease:*"]);
    let mut keys: Vec<String> = redis::from_redis_value(keys).unwrap();
    assert_eq!(keys.len(), 1);
    keys.remove(0)
}

/// This, with the store's words.
async fn says(presence: &Presence, standing: Standing, words: &str) {
    let mut now = presence.standing();
    let is_so = now.wait_for(|it| *it == standing);
    let reached = timeout(terms().lease() + TOLERANCE, is_so).await;
    reached
        .unwrap_or_else(|_| panic!("not {standing:?}"))
        .unwrap();
    let mut trouble = presence.trouble();
    let is_said = trouble.wait_for(|it| it.contains(words) && it.is_empty() == words.is_empty());
    let said = timeout(TOLERANCE, is_said).await;
    said.unwrap_or_else(|_| panic!("not {words:?}: {:?}", *presence.trouble().borrow()))
        .unwrap();
}
