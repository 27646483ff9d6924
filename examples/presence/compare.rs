//! What the module costs beside the same commands, pipelined by hand.
//!
//! Both sides take turns on one Redis server, and medians are compared: of the time for an
//! entry, and of this thread's processor time for a refresh. Redis does the same for both.

use std::{convert::Infallible, error::Error, fs, io, time::Duration};

use clap::Args;
use futures::future::join_all;
use redis::{
    AsyncConnectionConfig, Client, Cmd, Pipeline, RedisResult, Script, aio::MultiplexedConnection,
};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use crate::{
    children::Redis,
    load,
    presence::{Presence, Standing, Terms},
};

/// As many as the module tells at once.
const BATCH: usize = 500;

#[derive(Args, Clone)]
pub struct Options {
    /// Entries that a gateway tells in a turn
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000)]
    entries: usize,
    /// Gateways that refresh their leases, each 4 times a second
    #[arg(long, value_name = "NUMBER", default_value_t = 50)]
    gateways: usize,
    /// Turns of each side
    #[arg(long, value_name = "NUMBER", default_value_t = 7)]
    turns: usize,
}

pub async fn run(options: Options) -> Result<(), Box<dyn Error>> {
    let redis = Redis::start().await?;
    let store = Client::open(redis.url())?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..options.turns.max(1) {
        ours.push(entries(&store, options.entries).await?);
        theirs.push(entries_by_hand(&store, options.entries).await?);
    }
    print("entries told", ours, theirs);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..options.turns.max(1) {
        ours.push(refreshes(&store, options.gateways).await?);
        theirs.push(refreshes_by_hand(&store, options.gateways).await?);
    }
    print("refreshes", ours, theirs);
    Ok(())
}

/// Both in microseconds.
fn print(what: &str, mut ours: Vec<f64>, mut theirs: Vec<f64>) {
    ours.sort_by(f64::total_cmp);
    theirs.sort_by(f64::total_cmp);
    let (ours, theirs) = (ours[ours.len() / 2], theirs[theirs.len() / 2]);
    let ratio = theirs / ours;
    println!("{what}: {ratio:.2} of the same commands by hand, target 0.9");
    println!("         {ours:.1} µs each, by hand {theirs:.1}");
}

// ---- entries: a gateway tells them, and gives its lease up --------------------------

fn terms() -> Terms {
    Terms::new(Duration::from_secs(60), Duration::ZERO)
}

async fn entries(store: &Client, number: usize) -> Result<f64, Box<dyn Error>> {
    let _ = empty(store).await?;
    let presence = Presence::start(store.clone(), "a", terms());
    held(&presence).await?;
    let begun = Instant::now();
    let users = (0..number).map(|number| presence.enter(&format!("user-{number}")));
    let users: Vec<_> = users.collect();
    presence.close().await;
    let took = begun.elapsed();
    drop(users);
    Ok(took.as_secs_f64() * 1e6 / number as f64)
}

async fn entries_by_hand(store: &Client, number: usize) -> Result<f64, Box<dyn Error>> {
    let mut connection = empty(store).await?;
    let script = register(&mut connection, "a", terms()).await?;
    let begun = Instant::now();
    let users: Vec<_> = (0..number).map(|number| format!("user-{number}")).collect();
    for (batch, users) in users.chunks(BATCH).enumerate() {
        let mut orders = Pipeline::new();
        for (number, user) in users.iter().enumerate() {
            let mut enter = order(&script, "enter", "a");
            enter.arg(batch * BATCH + number).arg(user).arg(0);
            orders.add_command(enter).ignore();
        }
        let () = orders.query_async(&mut connection).await?;
    }
    let mut close = order(&script, "close", "a");
    let () = close.arg(0).arg("a").query_async(&mut connection).await?;
    Ok(begun.elapsed().as_secs_f64() * 1e6 / number as f64)
}

// ---- refreshes: of many gateways, for a second --------------------------------------

/// Each refreshes its lease 4 times a second.
fn short_terms() -> Terms {
    Terms::new(Duration::from_millis(500), Duration::ZERO)
}

async fn refreshes(store: &Client, gateways: usize) -> Result<f64, Box<dyn Error>> {
    let mut observer = empty(store).await?;
    let mut all = Vec::new();
    for number in 0..gateways {
        let name = format!("gateway-{number}");
        all.push(Presence::start(store.clone(), &name, short_terms()));
        sleep(apart(gateways)).await;
    }
    let took = second(&mut observer).await?;
    join_all(all.into_iter().map(Presence::close)).await;
    Ok(took)
}

async fn refreshes_by_hand(store: &Client, gateways: usize) -> Result<f64, Box<dyn Error>> {
    let mut observer = empty(store).await?;
    let mut tasks = JoinSet::new();
    for number in 0..gateways {
        tasks.spawn(refresh(store.clone(), format!("gateway-{number}")));
        sleep(apart(gateways)).await;
    }
    tokio::select! {
        took = second(&mut observer) => took,
        Some(ended) = tasks.join_next() => match ended?? {},
    }
}

/// Or several of them are served by one wake-up, on either side by chance.
fn apart(gateways: usize) -> Duration {
    short_terms().refresh().div_f64(gateways as f64)
}

/// Until the store doesn't answer in time.
async fn refresh(store: Client, name: String) -> RedisResult<Infallible> {
    let mut connection = connect(&store).await?;
    let script = register(&mut connection, &name, short_terms()).await?;
    let ttl = short_terms().lease().as_millis().to_string();
    let mut each = interval(short_terms().refresh());
    each.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        each.tick().await;
        let mut refresh = order(&script, "refresh", &name);
        refresh.arg(&ttl).arg(0);
        let mut orders = Pipeline::new();
        orders.add_command(refresh);
        let asked = orders.query_async(&mut connection);
        let replies = timeout(short_terms().refresh(), asked).await;
        let late = |_| io::Error::other("Redis is late: this machine is too busy to compare");
        let _: Vec<(usize, i64, bool)> = replies.map_err(late)??;
    }
}

/// This thread's processor time for each script in the next second, in microseconds.
async fn second(store: &mut MultiplexedConnection) -> Result<f64, Box<dyn Error>> {
    sleep(Duration::from_millis(200)).await;
    let (scripts, before) = (load::usage(store).await?.commands, processor_time()?);
    sleep(Duration::from_secs(1)).await;
    let took = processor_time()? - before;
    let scripts = load::usage(store).await?.commands - scripts;
    Ok(took.as_secs_f64() * 1e6 / scripts)
}

fn processor_time() -> io::Result<Duration> {
    let all = fs::read_to_string("/proc/thread-self/schedstat")?;
    let worked = all.split(' ').next().and_then(|word| word.parse().ok());
    worked
        .map(Duration::from_nanos)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

// ---- by hand ------------------------------------------------------------------

async fn held(presence: &Presence) -> Result<(), Box<dyn Error>> {
    let mut standing = presence.standing();
    standing.wait_for(|it| *it == Standing::Held).await?;
    Ok(())
}

/// As the module does: it has timers of its own.
async fn connect(store: &Client) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    store
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

async fn empty(store: &Client) -> RedisResult<MultiplexedConnection> {
    let mut connection = connect(store).await?;
    let () = redis::cmd("FLUSHALL").query_async(&mut connection).await?;
    Ok(connection)
}

/// Takes a lease in the first epoch.
async fn register(
    connection: &mut MultiplexedConnection,
    name: &str,
    terms: Terms,
) -> RedisResult<Script> {
    let script = Script::new(include_str!("presence/presence.lua"));
    let mut register = script.key("{presence}:");
    register.arg("register").arg(name).arg(1);
    register.arg(terms.lease().as_millis().to_string()).arg(0);
    let _: (String, bool) = register.arg(name).arg("1").invoke_async(connection).await?;
    Ok(script)
}

fn order(script: &Script, operation: &str, gateway: &str) -> Cmd {
    let mut order = redis::cmd("EVALSHA");
    order.arg(script.get_hash()).arg(1).arg("{presence}:");
    order.arg(operation).arg(gateway).arg(1);
    order
}
