//! Users with odd names, with many connections, and always on the move; and several gateways
//! that are gone at once.

use std::time::Duration;

use tokio::{
    runtime::Runtime,
    time::{Instant, sleep},
};

use crate::{
    Redis,
    ear::Ear,
    presence::{Kind, Presence, Terms},
};

fn terms() -> Terms {
    Terms::new(Duration::from_secs(1), Duration::from_millis(500))
}

#[tokio::test]
async fn a_user_who_moves_ten_times_a_second_or_has_500_connections_joins_and_leaves_once() {
    let Some(redis) = Redis::start_settled() else {
        return;
    };
    let mut ear = Ear::of(&redis).await;
    let [a, b] = ["a", "b"].map(|name| Presence::start(redis.client.clone(), name, terms()));
    let mut many: Vec<_> = (0..250)
        .flat_map(|_| [a.enter("many"), b.enter("many")])
        .collect();
    let mut moving = a.enter("moving");
    ear.until(Kind::Joined, "moving", terms().lease()).await;
    for number in 0..30 {
        let gateway = [&b, &a][number % 2];
        // Half of the time it is on neither for a moment.
        if number % 4 < 2 {
            moving.lost("moves");
            sleep(Duration::from_millis(50)).await;
            moving = gateway.enter("moving");
        } else {
            moving = gateway.enter("moving");
            sleep(Duration::from_millis(50)).await;
        }
        sleep(Duration::from_millis(50)).await;
        many.truncate(500 - 16 * number);
    }
    many.truncate(1);
    sleep(terms().grace() + terms().look()).await;
    drop((many, moving));
    ear.until(Kind::Left, "moving", terms().grace() + terms().look())
        .await;
    sleep(terms().look() * 2).await;
    let _last = a.enter("last");
    ear.until(Kind::Joined, "last", Duration::ZERO).await;
    let once = [Kind::Joined, Kind::Left];
    let moving = ear.heard.iter().filter(|(_, who)| who == "moving");
    assert_eq!(moving.map(|(kind, _)| *kind).collect::<Vec<_>>(), once);
    assert_eq!(ear.of_user("many"), once);
    let users = vec!["last".to_owned()];
    let rosters = [("a".to_owned(), users), ("b".to_owned(), vec![])];
    assert_eq!(ear.roster().await, rosters);
}

#[tokio::test]
async fn names_of_any_bytes_are_kept() {
    let Some(redis) = Redis::start_settled() else {
        return;
    };
    let mut ear = Ear::of(&redis).await;
    let gateway = "{a}:\n\0\"";
    let a = Presence::start(redis.client.clone(), gateway, terms());
    let long = "ü".repeat(500_000);
    let mut names = [
        "",
        "a\nb",
        "a:b",
        "{}",
        "{presence}:users",
        "\0",
        "*",
        "-1",
        &long,
    ];
    let entries = names.map(|name| a.enter(name));
    ear.until(Kind::Joined, &long, terms().lease()).await;
    ear.heard.retain(|(kind, _)| *kind == Kind::Joined);
    let (_, users) = ear.roster().await.remove(0);
    names.sort_unstable();
    assert_eq!(users, names);
    for entry in entries {
        entry.left("said\r\ngoodbye");
    }
    ear.until(Kind::Left, &long, Duration::ZERO).await;
    for name in names {
        assert_eq!(
            ear.heard.iter().filter(|(_, who)| who == name).count(),
            2,
            "{name:?}"
        );
    }
    assert_eq!(ear.roster().await, [(gateway.to_owned(), vec![])]);
}

#[tokio::test]
async fn two_fleets_share_a_store_in_databases_of_their_own() {
    let Some(redis) = Redis::start() else { return };
    let url = |number| format!("redis://{}/{number}", redis.address);
    let stores = [0, 1].map(|number| redis::Client::open(url(number)).unwrap());
    let [zero, one] = stores
        .clone()
        .map(|store| Presence::start(store, "a", terms()));
    let [mut at_zero, mut at_one] = [
        Ear::at(stores[0].clone()).await,
        Ear::at(stores[1].clone()).await,
    ];
    let (first, _second) = (zero.enter("user"), one.enter("user"));
    at_zero.until(Kind::Joined, "user", terms().lease()).await;
    at_one.until(Kind::Joined, "user", terms().lease()).await;
    first.left("said goodbye");
    at_zero.until(Kind::Left, "user", Duration::ZERO).await;
    zero.close().await;
    at_zero
        .until(Kind::GatewayClosed, "a", Duration::ZERO)
        .await;
    assert_eq!(at_zero.roster().await, []);
    assert_eq!(
        at_one.roster().await,
        [("a".to_owned(), vec!["user".to_owned()])]
    );
    assert_eq!(at_one.of_user("user"), [Kind::Joined]);
}

/// The one that announced the loss among them.
#[tokio::test]
async fn gateways_that_are_killed_at_once_or_while_they_clean_up_are_each_announced_once() {
    let Some(redis) = Redis::start_settled() else {
        return;
    };
    let mut ear = Ear::of(&redis).await;
    let start = |name| {
        let runtime = Runtime::new().unwrap();
        let inside = runtime.enter();
        let presence = Presence::start(redis.client.clone(), name, terms());
        drop(inside);
        let entries = [
            presence.enter(&format!("at {name}")),
            presence.enter("everywhere"),
        ];
        (runtime, entries)
    };
    let [(a, _at_a), (b, _at_b), (c, _at_c), (d, _at_d)] = ["a", "b", "c", "d"].map(start);
    ear.until(Kind::Joined, "everywhere", terms().lease()).await;
    sleep(terms().refresh()).await;
    let killed = Instant::now();
    a.shutdown_background();
    b.shutdown_background();
    let mut lost = Vec::new();
    while lost.len() < 2 {
        let told = ear.fleet.next().await.unwrap();
        if told.kind == Kind::GatewayLost {
            lost.push(told.who.clone());
        }
        ear.heard.push((told.kind, told.who));
    }
    assert!(killed.elapsed() < terms().gateway_lost() + crate::ear::TOLERANCE);
    // One of these has just announced it; the other one does the rest.
    c.shutdown_background();
    ear.until(Kind::GatewayLost, "c", terms().gateway_lost())
        .await;
    ear.until(Kind::Left, "at c", terms().grace() + terms().look())
        .await;
    for name in ["a", "b", "c"] {
        let user = format!("at {name}");
        let of = |who: &str, kind| {
            ear.heard
                .iter()
                .filter(|it| **it == (kind, who.to_owned()))
                .count()
        };
        assert_eq!(
            (of(name, Kind::GatewayLost), of(&user, Kind::Left)),
            (1, 1),
            "{:?}",
            ear.heard
        );
    }
    assert_eq!(ear.of_user("everywhere"), [Kind::Joined]);
    let users = ["at d", "everywhere"].map(str::to_owned).to_vec();
    assert_eq!(ear.roster().await, [("d".to_owned(), users)]);
    d.shutdown_background();
}
