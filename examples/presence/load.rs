//! What a fleet costs: Redis' commands and processor time, with many connections.
//!
//! The connections are held by several processes, for a process has few descriptors.

use std::{error::Error, fs, io, time::Duration};

use clap::Args;
use heartbeat_examples::arguments::duration;
use redis::aio::MultiplexedConnection;
use tokio::time::{Instant, sleep};

use crate::{
    Timings,
    children::{Member, Redis},
    demo,
    presence::Fleet,
};

#[derive(Args, Clone)]
pub struct Options {
    /// Number of gateways
    #[arg(long, value_name = "NUMBER", default_value_t = 10)]
    gateways: usize,
    /// Number of connections
    #[arg(long, value_name = "NUMBER", default_value_t = 20_000)]
    connections: usize,
    /// How long to measure
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = duration)]
    time: Duration,
    /// Processes that hold the clients
    #[arg(long, value_name = "NUMBER", default_value_t = 4)]
    processes: usize,
    #[command(flatten)]
    timings: Timings,
}

/// What Redis has used and done so far.
#[derive(Clone, Copy)]
pub struct Usage {
    at: Instant,
    processor: f64,
    pub commands: f64,
}

pub async fn run(options: Options) -> Result<(), Box<dyn Error>> {
    let redis = Redis::start().await?;
    let client = redis::Client::open(redis.url())?;
    let mut store = client.get_multiplexed_async_connection().await?;
    let threshold = ["SET", "slowlog-log-slower-than", "100"];
    let () = redis::cmd("CONFIG")
        .arg(&threshold)
        .query_async(&mut store)
        .await?;
    let mut gateways = Vec::new();
    let mut addresses = Vec::new();
    for number in 0..options.gateways {
        let name = demo::gateway_name(number);
        let gateway = demo::gateway(&[], &redis.url(), &name, options.timings, None)?;
        addresses.push(gateway.listens().await?.0);
        gateways.push(gateway);
    }
    let began = usage(&mut store).await?;
    let mut clients = Vec::new();
    let each = options.connections.div_ceil(options.processes);
    for number in 0..options.processes {
        let prefix = format!("user-{number}-");
        clients.push(demo::users(
            &addresses,
            false,
            &prefix,
            each,
            options.timings,
        )?);
    }
    let mut fleet = Fleet::new(client);
    let all = each * options.processes;
    wait_for(&mut fleet, all).await?;
    print("opening", began, usage(&mut store).await?);
    println!("         {all} connections of as many users");

    sleep(options.timings.terms().refresh()).await;
    let before = usage(&mut store).await?;
    let worked = processor_times(&gateways)?;
    sleep(options.time).await;
    let after = usage(&mut store).await?;
    print("idle", before, after);
    let took = (after.at - before.at).as_secs_f64();
    let worked = (processor_times(&gateways)? - worked) / took * 100.0;
    println!(
        "         {worked:.1} % of a processor in {} gateways",
        gateways.len()
    );
    println!(
        "         {:.2} refreshes a second are due",
        gateways.len() as f64 / options.timings.terms().refresh().as_secs_f64()
    );
    println!(
        "         {} of memory in Redis",
        info(&mut store, "memory", "used_memory_human").await?
    );

    let before = usage(&mut store).await?;
    if let Some(mut killed) = gateways.pop() {
        killed.kill().await?;
    }
    sleep(options.timings.terms().gateway_offline() + options.timings.grace).await;
    print("a gateway killed", before, usage(&mut store).await?);
    wait_for(&mut fleet, all).await?;
    println!(
        "         {} µs: the longest script",
        slowest(&mut store).await?
    );
    println!("         {} ghosts", fleet.ghosts().await?);
    Ok(())
}

/// Waits until this number of entries is there.
async fn wait_for(fleet: &mut Fleet, entries: usize) -> io::Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(240) {
        // On a busy machine it may be late.
        let roster = fleet.roster().await.unwrap_or_default();
        let users = roster.gateways.iter().map(|gateway| gateway.users.len());
        if users.sum::<usize>() == entries {
            return Ok(());
        }
        sleep(Duration::from_millis(500)).await;
    }
    Err(io::Error::other("some never connect"))
}

fn print(what: &str, before: Usage, after: Usage) {
    let took = (after.at - before.at).as_secs_f64();
    let processor = (after.processor - before.processor) / took * 100.0;
    let commands = (after.commands - before.commands) / took;
    println!("{what}: {took:.1} s");
    println!("         {commands:.1} scripts a second, {processor:.1} % of a processor in Redis");
}

pub async fn usage(store: &mut MultiplexedConnection) -> Result<Usage, Box<dyn Error>> {
    let mut processor = 0.0;
    for field in ["used_cpu_sys", "used_cpu_user"] {
        processor += info(store, "cpu", field).await?.parse::<f64>()?;
    }
    // "calls=10,usec=..."
    let scripts = info(store, "commandstats", "cmdstat_evalsha").await?;
    let calls = scripts
        .split(',')
        .find_map(|word| word.strip_prefix("calls="));
    Ok(Usage {
        at: Instant::now(),
        processor,
        commands: calls.unwrap_or("0").parse()?,
    })
}

/// Of the longest script, in microseconds. Redis serves no other client meanwhile.
async fn slowest(store: &mut MultiplexedConnection) -> Result<u64, Box<dyn Error>> {
    type Entry = (u64, u64, u64, Vec<String>, String, String);
    let log: Vec<Entry> = redis::cmd("SLOWLOG")
        .arg("GET")
        .arg("-1")
        .query_async(store)
        .await?;
    let scripts = log
        .iter()
        .filter(|entry| entry.3.first().is_some_and(|word| word == "EVALSHA"));
    // What we asked for ourselves doesn't count.
    let ours = |entry: &&Entry| {
        entry
            .3
            .iter()
            .any(|word| word == "roster" || word == "ghosts")
    };
    let longest = scripts
        .filter(|entry| !ours(entry))
        .map(|entry| entry.2)
        .max();
    Ok(longest.unwrap_or(0))
}

async fn info(
    store: &mut MultiplexedConnection,
    section: &str,
    field: &str,
) -> Result<String, Box<dyn Error>> {
    let all: String = redis::cmd("INFO").arg(section).query_async(store).await?;
    let line = all
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    Ok(line.unwrap_or("").trim().to_owned())
}

/// Seconds that these processes have worked, together.
fn processor_times(members: &[Member]) -> io::Result<f64> {
    let mut ticks = 0_u32;
    for member in members {
        let stat = fs::read_to_string(format!("/proc/{}/stat", member.id()))?;
        let words = stat.rsplit(')').next().unwrap_or("").split_whitespace();
        ticks += words
            .skip(11)
            .take(2)
            .filter_map(|word| word.parse::<u32>().ok())
            .sum::<u32>();
    }
    Ok(f64::from(ticks) / 100.0)
}
