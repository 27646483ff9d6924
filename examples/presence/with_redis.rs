//! Gateways in this process, with a real redis-server that forgets, or answers slowly.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    Redis,
    ear::{Ear, TOLERANCE},
    presence::{Kind, Presence, Standing, Terms},
};

fn terms() -> Terms {
    Terms::new(Duration::from_secs(2), Duration::from_secs(1))
}

#[tokio::test]
async fn a_user_who_opens_another_connection_while_an_emptied_store_is_told_joins_once() {
    let Some(redis) = Redis::start() else { return };
    let mut ear = Ear::of(&redis).await;
    let a = Presence::start(redis.client.clone(), "a", terms());
    let b = Presence::start(redis.client.clone(), "b", terms());
    let first = a.enter("user");
    ear.until(Kind::Joined, "user", terms().lease()).await;
    assert_eq!(ear.of_user("user"), [Kind::Joined]);

    redis.tell(&["FLUSHALL"]);
    // This gateway finds out first, and the other one hasn't told its entries.
    let second = b.enter("user");
    let _other = b.enter("other");
    ear.until(Kind::Joined, "other", terms().lease() + terms().look())
        .await;
    assert_eq!(ear.of_user("user"), []);
    second.left("said goodbye");
    sleep(terms().refresh() + terms().grace()).await;
    first.left("said goodbye");
    ear.until(Kind::Left, "user", Duration::ZERO).await;
    assert_eq!(ear.of_user("user"), [Kind::Left]);
    a.close().await;
    ear.until(Kind::GatewayClosed, "a", Duration::ZERO).await;
    let users = vec!["other".to_owned()];
    assert_eq!(ear.roster().await, [("b".to_owned(), users)]);
}

/// What it confirmed before is of no use then: it hadn't announced anybody.
#[tokio::test]
async fn a_user_who_joins_a_store_that_loses_its_data_twice_within_a_lease_is_announced() {
    let Some(redis) = Redis::start() else { return };
    let mut ear = Ear::of(&redis).await;
    let a = Presence::start(redis.client.clone(), "a", terms());
    let _entry = a.enter("user");
    ear.until(Kind::GatewayUp, "a", Duration::ZERO).await;
    sleep(terms().refresh() / 2).await;
    redis.tell(&["FLUSHALL"]);
    ear.until(
        Kind::Joined,
        "user",
        terms().lease() + 2 * terms().refresh(),
    )
    .await;
    assert_eq!(ear.of_user("user"), [Kind::Joined]);
}

#[tokio::test]
async fn a_store_that_has_forgotten_the_script_is_taught_it() {
    let Some(redis) = Redis::start() else { return };
    let mut ear = Ear::of(&redis).await;
    let a = Presence::start(redis.client.clone(), "a", terms());
    let _first = a.enter("first");
    ear.until(Kind::Joined, "first", terms().lease()).await;
    redis.tell(&["SCRIPT", "FLUSH"]);
    let _second = a.enter("second");
    ear.until(Kind::Joined, "second", 2 * terms().look()).await;
    assert_eq!(*a.standing().borrow(), Standing::Held);
    assert_eq!(ear.of_user("first"), [Kind::Joined]);
    let users = vec!["first".to_owned(), "second".to_owned()];
    assert_eq!(ear.roster().await, [("a".to_owned(), users)]);
}

#[tokio::test]
async fn a_gateway_whose_store_is_slow_is_fenced_only_when_replies_take_longer_than_a_refresh() {
    let Some(redis) = Redis::start() else { return };
    let mut ear = Ear::of(&redis).await;
    let _b = Presence::start(redis.client.clone(), "b", terms());
    let (late, delay) = watch::channel(terms().refresh() * 3 / 4);
    let slow = slow(redis.address, delay).await;
    let store = redis::Client::open(format!("redis://{slow}/")).unwrap();
    let a = Presence::start(store, "a", terms());
    let _entry = a.enter("user");
    ear.until(Kind::Joined, "user", terms().lease() + terms().refresh())
        .await;
    let mut standing = a.standing();
    standing.mark_unchanged();
    sleep(2 * terms().refresh()).await;
    assert!(!standing.has_changed().unwrap(), "{:?}", *standing.borrow());

    late.send_replace(terms().refresh() * 5 / 4);
    ear.until(Kind::GatewayLost, "a", 2 * terms().lease()).await;
    // It knew no later than the fleet.
    assert_eq!(*standing.borrow(), Standing::Fenced);
    ear.until(Kind::Left, "user", terms().grace() + terms().look())
        .await;

    late.send_replace(Duration::ZERO);
    ear.until(Kind::Joined, "user", terms().refresh()).await;
    assert_eq!(*standing.borrow(), Standing::Held);
    assert_eq!(
        ear.of_user("user"),
        [Kind::Joined, Kind::Left, Kind::Joined]
    );
    ear.roster().await;
}

#[tokio::test]
async fn a_gateway_that_is_killed_and_restarted_under_its_name_keeps_its_users() {
    let Some(redis) = Redis::start() else { return };
    let mut ear = Ear::of(&redis).await;
    let killed = tokio::runtime::Runtime::new().unwrap();
    let inside = killed.enter();
    let before = Presence::start(redis.client.clone(), "a", terms());
    drop(inside);
    let _entered = before.enter("user");
    ear.until(Kind::Joined, "user", terms().lease()).await;
    killed.shutdown_background();
    let again = Presence::start(redis.client.clone(), "a", terms());
    let _back = again.enter("user");
    ear.until(Kind::GatewayLost, "a", terms().gateway_lost())
        .await;
    sleep(terms().grace() + terms().look()).await;
    // Whatever was to be told of the user was told before this.
    let _last = again.enter("last");
    ear.until(Kind::Joined, "last", Duration::ZERO).await;
    assert_eq!(ear.of_user("user"), [Kind::Joined]);
    let users = vec!["last".to_owned(), "user".to_owned()];
    assert_eq!(ear.roster().await, [("a".to_owned(), users)]);
}

/// However many they are, nobody is served later for it.
#[tokio::test]
async fn a_crowd_that_waits_for_a_new_store_is_announced_in_several_scripts() {
    let Some(redis) = Redis::start() else { return };
    let mut ear = Ear::of(&redis).await;
    let a = Presence::start(redis.client.clone(), "a", terms());
    let crowd: Vec<_> = (0..3_000)
        .map(|number| a.enter(&format!("user{number}")))
        .collect();
    sleep(terms().refresh()).await;
    crowd.into_iter().for_each(|entry| entry.lost("gone"));
    ear.until(Kind::GatewayUp, "a", Duration::ZERO).await;
    // It takes many round trips, each of which a busy machine delays.
    let end = Instant::now() + terms().lease() + terms().grace() + 4 * TOLERANCE;
    let told = |ear: &Ear, wanted| ear.heard.iter().filter(|(kind, _)| *kind == wanted).count();
    while told(&ear, Kind::Left) < 3_000 {
        let next = timeout_at(end, ear.fleet.next()).await;
        let next = next.expect("all of them are announced").unwrap();
        ear.heard.push((next.kind, next.who));
    }
    assert_eq!(told(&ear, Kind::Joined), 3_000);
    // In three scripts, and two looks are between them.
    let mut connection = redis.client.get_connection().unwrap();
    let mut events = redis::cmd("XRANGE");
    events.arg("{presence}:events").arg("-").arg("+");
    let events: Vec<(String, BTreeMap<String, String>)> = events.query(&mut connection).unwrap();
    let joined = events.iter().filter(|(_, it)| it["kind"] == "joined");
    let times = joined.map(|(id, _)| id.split_once('-').unwrap().0.parse::<u64>().unwrap());
    let times: Vec<_> = times.collect();
    let took = Duration::from_millis(times[2_999] - times[0]);
    assert!(took >= 2 * terms().look(), "{took:?}");
    let mut users = BTreeSet::new();
    for (kind, who) in ear.heard {
        match kind {
            Kind::Joined => assert!(users.insert(who.clone()), "{who} joined twice"),
            Kind::Left => assert!(users.remove(&who), "{who} left first"),
            _ => {}
        }
    }
}

#[test]
fn the_terms_of_every_detection_time_can_be_kept() {
    let times =
        [0, 1, 333, 99_999, 100_001, 333_333, 6_000_000, u64::MAX].map(Duration::from_micros);
    for detection_time in times.into_iter().chain([Duration::MAX]) {
        for grace in [Duration::ZERO, Duration::from_secs(3), Duration::MAX] {
            let terms = Terms::new(detection_time, grace);
            // The store counts in milliseconds. Were its lease shorter than ours, it would end
            // before we know.
            assert_eq!(terms.lease().subsec_nanos() % 1_000_000, 0);
            assert!(terms.lease() >= Duration::from_millis(150));
            assert!(terms.refresh() * 3 <= terms.lease());
            assert!(terms.look() >= Duration::from_millis(6));
            assert!(terms.client_offline() > terms.grace());
            assert!(terms.gateway_lost() > terms.lease());
            assert!(terms.gateway_offline() > terms.gateway_lost());
        }
    }
}

// ---- a store that is slow ------------------------------------------------------

/// A way to the store on which replies are late.
async fn slow(store: SocketAddr, delay: watch::Receiver<Duration>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(store).await.unwrap();
            let delay = delay.clone();
            tokio::spawn(async move {
                let ((mut asks, mut hears), (mut replies, mut asked)) =
                    (near.into_split(), far.into_split());
                let there = copy(&mut asks, &mut asked);
                let back = async {
                    let mut bytes = vec![0; 65_536];
                    while let Ok(read @ 1..) = replies.read(&mut bytes).await {
                        let late = *delay.borrow();
                        sleep(late).await;
                        if hears.write_all(&bytes[..read]).await.is_err() {
                            break;
                        }
                    }
                };
                tokio::select! {
                    _ = there => {}
                    () = back => {}
                }
            });
        }
    });
    address
}
