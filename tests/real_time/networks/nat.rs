//! A router that masquerades, with a real kernel's connection tracking: how long it keeps
//! an idle connection is learned, beside clients that don't learn.
//!
//! Its times are two seconds here. Those of real routers take a quarter of an hour:
//!
//! ```text
//! HEARTBEAT_NAT=20,45,90 cargo test --workspace --test real_time networks::nat -- --nocapture
//! ```
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "how a test fails")]

use std::{
    env, io,
    net::SocketAddr,
    sync::{
        atomic::{AtomicU32, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use futures::StreamExt;
use heartbeat_core::{IntervalSearch, SearchOutcome};
use heartbeat_tests::{ms, network::Network, network::RIGHT, secs};
use heartbeat_tokio::{
    Backoff, Config, Heartbeat, IdleMeter, Learner, Metered, PeerEvent, Prober, Reconnect, Role,
};
use tokio::net::{TcpListener, TcpStream};

/// The timeouts of the routers.
fn timeouts() -> Vec<u64> {
    let asked = env::var("HEARTBEAT_NAT").unwrap_or("2".into());
    asked.split(',').map(|text| text.parse().unwrap()).collect()
}

/// Timings for a router that forgets connections after this time.
fn config(nat: Duration) -> Config {
    Config::builder()
        .interval(nat / 5)
        .timeout((nat / 4).clamp(ms(500), secs(3)))
        .max_missed(2)
        .min_interval(ms(100))
        .jitter(0.0)
        .build()
        .unwrap()
}

fn search(nat: Duration) -> IntervalSearch {
    IntervalSearch::new(nat / 5..=nat * 4).unwrap()
}

fn backoff() -> Backoff {
    Backoff::default().loss_spread(ms(10))
}

/// Listens on the right host, and leaves its connections idle for as long as their
/// clients do.
fn start_server(network: &Network, config: Config) -> SocketAddr {
    let host = network.right.try_clone().unwrap();
    let (tell, told) = mpsc::channel();
    let config = config.to_builder().role(Role::Passive).build().unwrap();
    // It ends with the test's process.
    thread::spawn(move || {
        host.move_in().unwrap();
        run(async {
            let listener = TcpListener::bind((RIGHT, 0)).await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    stream.set_nodelay(true).unwrap();
                    let mut peer = Heartbeat::new(stream, config);
                    while let Some(event) = peer.next().await {
                        if let PeerEvent::Connected { peer: client } = event {
                            peer.set_interval(client.interval * 5 / 4).unwrap();
                        }
                    }
                });
            }
        });
    });
    told.recv().unwrap()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(future)
}

async fn connect(
    server: SocketAddr,
    meter: IdleMeter,
    config: Config,
) -> io::Result<Heartbeat<Metered<TcpStream>>> {
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let peer = Heartbeat::new(meter.over(stream), config);
    Ok(peer.with_socket(|stream| Some(stream.get_ref())))
}

/// What a client's connections cost.
#[derive(Debug, Default)]
struct Cost {
    lost: AtomicU32,
    /// Pings of all connections that are over, and of the present one.
    over: AtomicU32,
    present: AtomicU32,
}

impl Cost {
    fn beats(&self) -> u32 {
        self.over.load(Relaxed) + self.present.load(Relaxed)
    }
}

/// One connection after the other, with the interval that is known to be safe.
async fn application(server: SocketAddr, learner: &Learner, config: &Config, cost: &Cost) {
    let mut connecting = Reconnect::new(backoff(), || {
        connect(server, learner.meter(), learner.config(config))
    })
    .learning(learner.clone());
    loop {
        let mut peer = connecting.connect().await;
        while let Some(event) = peer.next().await {
            connecting.note(&event);
            peer.set_interval(learner.interval()).unwrap();
            cost.present.store(peer.status().peer.pings, Relaxed);
            if event.is_terminal() {
                cost.lost.fetch_add(1, Relaxed);
            }
        }
        let last = cost.present.swap(0, Relaxed);
        cost.over.fetch_add(last, Relaxed);
    }
}

/// A client that learns nothing.
async fn fixed(server: SocketAddr, interval: Duration, config: &Config, cost: &Cost) {
    let learner = Learner::new(IntervalSearch::new(interval..=interval).unwrap());
    application(server, &learner, config, cost).await;
}

/// Tries until nothing is left to try; how many connections that took, and how many of
/// them were lost.
async fn probe(server: SocketAddr, learner: &Learner, config: &Config) -> (u32, u32) {
    let mut prober = Prober::new(learner.clone(), *config, backoff());
    let (mut attempts, mut lost) = (0, 0);
    while learner.search().next().is_some() {
        let attempt = prober.attempt(|meter, config| connect(server, meter, config));
        let probe = attempt.await;
        attempts += 1;
        lost += u32::from(matches!(probe.outcome, SearchOutcome::Lost { .. }));
        eprintln!("    {:?}: {:?}", probe.interval, probe.outcome);
    }
    (attempts, lost)
}

fn assert_learned(learner: &Learner, nat: Duration) {
    let safe = learner.interval();
    assert!(safe < nat, "{:?}", learner.search());
    assert!(safe >= nat * 9 / 10, "{:?}", learner.search());
}

#[test]
fn the_time_of_a_router_is_learned_within_a_tenth_and_no_connection_in_use_is_lost() {
    let test = "the_time_of_a_router_is_learned_within_a_tenth_and_no_connection_in_use_is_lost";
    thread::scope(|scope| {
        for seconds in timeouts() {
            scope.spawn(move || learns(test, seconds));
        }
    });
}

fn learns(test: &str, seconds: u64) {
    let Some(network) = Network::masquerading_or_skip(test, seconds) else {
        return;
    };
    let nat = secs(seconds);
    let config = config(nat);
    let server = start_server(&network, config);
    let learner = Learner::new(search(nat));
    let costs: [Cost; 3] = Default::default();
    let [learning, short, long] = &costs;
    let began_at = Instant::now();
    let (attempts, lost) = network
        .left
        .enter(|| {
            Ok(run(async {
                tokio::select! {
                    probed = probe(server, &learner, &config) => probed,
                    () = application(server, &learner, &config, learning) => panic!("it ended"),
                    () = fixed(server, nat / 5, &config, short) => panic!("it ended"),
                    () = fixed(server, nat * 2, &config, long) => panic!("it ended"),
                }
            }))
        })
        .unwrap();
    eprintln!(
        "{seconds} s: {:.1} s, safe {:?}, {attempts} attempts, {lost} of them lost",
        began_at.elapsed().as_secs_f64(),
        learner.interval()
    );
    for (name, cost) in ["learning", "fixed, a fifth", "fixed, twice"]
        .iter()
        .zip(&costs)
    {
        let (beats, lost) = (cost.beats(), cost.lost.load(Relaxed));
        eprintln!("    {name}: {beats} beats, {lost} connections lost");
    }
    assert_learned(&learner, nat);
    assert!(lost <= 6, "{lost}");
    assert_eq!(learning.lost.load(Relaxed), 0);
    assert!(learning.beats() < short.beats(), "{costs:?}");
    // What is too long loses every connection that it has.
    assert!(long.lost.load(Relaxed) >= 3, "{costs:?}");
    assert_eq!(short.lost.load(Relaxed), 0);
}

/// A client that has learned one timeout, on a router that has another one by now: how
/// often its connection was lost until it has learned that.
fn relearns(test: &str, before: u64, after: u64) {
    let Some(network) = Network::masquerading_or_skip(test, before) else {
        return;
    };
    let nat = secs(before);
    let config = config(nat);
    let server = start_server(&network, config);
    let mut search = search(nat);
    let idle = nat * 97 / 100;
    search.learn(SearchOutcome::Answered { idle });
    search.learn(SearchOutcome::Lost { idle: nat });
    // It has been used for long enough that the lost interval is tried again.
    while search.next().is_none() {
        search.learn(SearchOutcome::Answered { idle });
    }
    let learner = Learner::new(search);
    let cost = Cost::default();
    network.forget_after(after).unwrap();
    network
        .left
        .enter(|| {
            run(async {
                tokio::select! {
                    () = async {
                        probe(server, &learner, &config).await;
                        // The loss counts once another connection has succeeded.
                        while after < before && learner.search().next().is_none() {
                            tokio::time::sleep(ms(10)).await;
                        }
                        // Below what was lost.
                        probe(server, &learner, &config).await;
                    } => {}
                    () = application(server, &learner, &config, &cost) => panic!("it ended"),
                }
            });
            Ok(())
        })
        .unwrap();
    eprintln!(
        "{before} to {after} s: {} lost, {:?}",
        cost.lost.load(Relaxed),
        learner.interval()
    );
    assert_learned(&learner, secs(after));
    assert_eq!(cost.lost.load(Relaxed), u32::from(after < before));
}

#[test]
fn a_router_whose_time_gets_shorter_costs_the_connection_in_use_once() {
    let test = "a_router_whose_time_gets_shorter_costs_the_connection_in_use_once";
    for seconds in timeouts().into_iter().take(1) {
        relearns(test, seconds, seconds / 2);
    }
}

#[test]
fn a_router_whose_time_gets_longer_is_learned_without_a_loss() {
    let test = "a_router_whose_time_gets_longer_is_learned_without_a_loss";
    for seconds in timeouts().into_iter().take(1) {
        relearns(test, seconds, seconds * 3 / 2);
    }
}
