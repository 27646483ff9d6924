//! Random faults of a network between two hosts, one after the other, and many
//! connections across it.
//!
//! Every end of a connection is judged by what the documents promise of sockets:
//!
//! - no peer is given up that was heard within I·(1 − J) + N·W, nor while nothing is wrong;
//! - while a direction is cut for longer than the detection time, none of its connections
//!   survives; while a host stands still, a connection survives only as long as its kernel
//!   sends what was written before;
//! - a peer that gives us up says why, in words that fit;
//! - messages arrive in order, each once;
//! - once all is well, `close` is confirmed.
//!
//! `HEARTBEAT_CHAOS` says for how many seconds, `HEARTBEAT_SEED` which faults, and
//! `HEARTBEAT_CONNECTIONS` how many connections of each load.

#![cfg(target_os = "linux")]

use std::{
    env, fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{StreamExt, future::join_all};
use heartbeat_tests::{
    few_or_all, lateness, ms,
    network::{Hook, LEFT, Network, RIGHT},
    secs,
};
use heartbeat_tokio::{
    Cause, CloseReason, Config, Driver, GoodbyeCode, Heartbeat, PeerEvent, Receiver, Sender,
    safety_net::TcpInfo,
};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

const DETECTION: Duration = secs(3);

/// How late a verdict may be; a machine that is under load adds to it.
const SCHEDULING: Duration = ms(150);

/// The time after a fault in which TCP may still wait to retransmit.
const AFTERMATH: Duration = secs(9);

const PORT: u16 = 7000;

#[test]
fn whatever_the_network_does_the_promises_hold() {
    let test = "whatever_the_network_does_the_promises_hold";
    let Some(network) = Network::with_filters_or_skip(test) else {
        return;
    };
    let seed = knob("HEARTBEAT_SEED", 1);
    let world = World {
        length: secs(knob("HEARTBEAT_CHAOS", few_or_all(15, 25))),
        connections: knob("HEARTBEAT_CONNECTIONS", 10) as usize,
        ..World::default()
    };
    let done = AtomicBool::new(false);
    let machine = thread::scope(|scope| {
        let witness = scope.spawn(|| lateness(&done));
        let left = scope.spawn(|| network.left.enter(|| run(side(&world, true))));
        let right = scope.spawn(|| network.right.enter(|| run(side(&world, false))));
        torment(&network, &world, SmallRng::seed_from_u64(seed));
        for side in [left, right] {
            side.join().unwrap().unwrap();
        }
        done.store(true, Relaxed);
        witness.join().unwrap()
    });
    println!("seed {seed}: {world} (the machine was late by up to {machine:.1?})");
    let broken = lock(&world.broken);
    assert!(broken.is_empty(), "seed {seed}: {broken:#?}");
    let enough = [
        &world.ended,
        &world.opened,
        &world.messages,
        &world.confirmed,
    ];
    assert!(
        enough.iter().all(|count| count.load(Relaxed) > 0),
        "{world}"
    );
}

fn knob(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn run<T>(task: impl Future<Output = T>) -> io::Result<T> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    Ok(builder.enable_all().build()?.block_on(task))
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

// ---- what happens ---------------------------------------------------------------

/// What both hosts and the network know.
#[derive(Default)]
struct World {
    length: Duration,
    connections: usize,
    /// The faults so far. The last one may still last.
    faults: Mutex<Vec<(Fault, Instant, Option<Instant>)>>,
    /// The ends that are open.
    open: Mutex<Vec<Option<Open>>>,
    /// How long the left and the right host are to stand still.
    stalls: [Mutex<Option<Duration>>; 2],
    /// No more faults, and no more connections.
    over: AtomicBool,
    /// What is against the rules.
    broken: Mutex<Vec<String>>,
    opened: AtomicU64,
    ended: AtomicU64,
    messages: AtomicU64,
    confirmed: AtomicU64,
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} faults, {} connections opened, {} ends, {} messages, {} confirmed goodbyes",
            lock(&self.faults).len(),
            self.opened.load(Relaxed),
            self.ended.load(Relaxed),
            self.messages.load(Relaxed),
            self.confirmed.load(Relaxed),
        )
    }
}

/// One end of a connection.
struct Open {
    is_left: bool,
    since: Instant,
    /// The same socket once more.
    socket: std::net::TcpStream,
}

impl Open {
    /// Whether bytes have arrived within the detection time.
    fn was_heard(&self) -> bool {
        let info = TcpInfo::of(&self.socket);
        info.is_ok_and(|info| info.last_data_received < DETECTION + SCHEDULING)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// Nothing reaches this host, or none.
    Cut(Option<IpAddr>),
    /// A percentage of the packets that vanish on the way to the left, and to the right.
    Loss(u32, u32),
    /// Kilobits a second, with a deep queue.
    Slow(u32),
    /// Large packets vanish.
    Hole,
    /// One in this many packets is answered with a reset.
    Resets(u32),
    /// A percentage of the packets that wait for a line of some kilobits a second, and
    /// the others overtake them.
    Reorder(u32, u32),
    /// A percentage of the packets that come twice.
    Duplicate(u32),
    /// The router has forgotten the connections that there are, and drops what belongs to
    /// none that it knows.
    Forget,
    /// The left host stands still, or the right one.
    Stall(bool),
}

impl Fault {
    fn random(dice: &mut SmallRng) -> Self {
        match dice.random_range(0..16) {
            0 => Self::Cut(None),
            1 | 2 => Self::Cut(Some(LEFT)),
            3 | 4 => Self::Cut(Some(RIGHT)),
            5 | 6 => Self::Loss(dice.random_range(0..31), dice.random_range(0..31)),
            7 | 8 => Self::Slow(dice.random_range(64..2_000)),
            9 => Self::Hole,
            10 => Self::Resets(dice.random_range(20..200)),
            11 | 12 => Self::Reorder(dice.random_range(1..16), dice.random_range(500..4_000)),
            13 => Self::Duplicate(dice.random_range(1..60)),
            14 => Self::Forget,
            _ => Self::Stall(dice.random()),
        }
    }

    /// The side without any connection after the detection time.
    const fn ends(self) -> Option<[bool; 2]> {
        match self {
            Self::Cut(_) | Self::Forget => Some([true, true]),
            Self::Stall(is_left) => Some([!is_left, is_left]),
            _ => None,
        }
    }

    fn begin(self, network: &Network, world: &World, length: Duration) -> io::Result<()> {
        match self {
            Self::Cut(None) => {
                network.cut_towards(LEFT)?;
                network.cut_towards(RIGHT)
            }
            Self::Cut(Some(host)) => network.cut_towards(host),
            Self::Loss(left, right) => {
                let lose =
                    |host, part| format!("ip daddr {host} numgen random mod 100 < {part} drop\n");
                let rules = lose(LEFT, left) + &lose(RIGHT, right);
                network.router.filter(Hook::Forward, &rules)
            }
            Self::Slow(rate) => {
                let shape = |port| {
                    format!(
                        "qdisc replace dev to{port} root tbf rate {rate}kbit burst 8kb limit 200kb"
                    )
                };
                network.router.tc(&[&shape(0), &shape(1)])
            }
            Self::Hole => network
                .router
                .filter(Hook::Forward, "ip length > 1000 drop"),
            Self::Resets(one_in) => {
                let rule =
                    format!("tcp dport > 0 numgen random mod {one_in} == 0 reject with tcp reset");
                network.router.filter(Hook::Forward, &rule)
            }
            Self::Reorder(part, rate) => {
                network.router.tc(&[&delayed(0, rate), &delayed(1, rate)])?;
                let rule = format!("numgen random mod 100 < {part} meta priority set 1:2");
                network.router.filter(Hook::Forward, &rule)
            }
            Self::Duplicate(part) => {
                let twice = |host, port| {
                    format!(
                        "ip daddr {host} numgen random mod 100 < {part} \
                         dup to {host} device to{port}\n"
                    )
                };
                let rules = twice(LEFT, 0) + &twice(RIGHT, 1);
                network.router.filter(Hook::Forward, &rules)
            }
            Self::Forget => {
                // While a rule asks for it, the kernel tracks connections.
                let router = &network.router;
                router.filter(Hook::Forward, "ct state invalid drop")?;
                router.takes_up_nothing_in_the_middle()?;
                router.forget_connections()
            }
            Self::Stall(is_left) => {
                *lock(&world.stalls[usize::from(!is_left)]) = Some(length);
                Ok(())
            }
        }
    }

    fn end(self, network: &Network) -> io::Result<()> {
        match self {
            Self::Cut(None) => {
                network.mend_towards(LEFT)?;
                network.mend_towards(RIGHT)
            }
            Self::Cut(Some(host)) => network.mend_towards(host),
            Self::Loss(..) | Self::Hole | Self::Resets(_) | Self::Duplicate(_) | Self::Forget => {
                network.router.filter(Hook::Forward, "")
            }
            Self::Reorder(..) => {
                network.router.filter(Hook::Forward, "")?;
                Self::Slow(0).end(network)
            }
            Self::Slow(_) => network
                .router
                .tc(&["qdisc del dev to0 root", "qdisc del dev to1 root"]),
            Self::Stall(_) => Ok(()),
        }
    }
}

/// A port of the router with a second, slow line beside the first.
fn delayed(port: u8, rate: u32) -> String {
    format!(
        "qdisc replace dev to{port} root handle 1: htb default 1\n\
         class add dev to{port} parent 1: classid 1:1 htb rate 1gbit quantum 2000\n\
         class add dev to{port} parent 1: classid 1:2 htb rate {rate}kbit quantum 2000\n\
         qdisc add dev to{port} parent 1:2 bfifo limit 64kb"
    )
}

/// One fault after the other.
fn torment(network: &Network, world: &World, mut dice: SmallRng) {
    let end = Instant::now() + world.length;
    thread::sleep(secs(2));
    while Instant::now() < end {
        let fault = Fault::random(&mut dice);
        // Either short, or long enough for all sides to detect it.
        let long = dice.random_ratio(1, 2);
        let length = match long {
            true => DETECTION + secs(1) + ms(dice.random_range(0..1_000)),
            false => ms(dice.random_range(100..2_500)),
        };
        let since = Instant::now();
        lock(&world.faults).push((fault, since, None));
        fault.begin(network, world, length).unwrap();
        // Once the rules are in place.
        let begun = Instant::now();
        if let (Some(sides), true) = (fault.ends(), long) {
            thread::sleep(DETECTION + SCHEDULING);
            world.expect_none(fault, sides, begun, since);
        }
        thread::sleep(length.saturating_sub(begun.elapsed()));
        fault.end(network).unwrap();
        if let Some(last) = lock(&world.faults).last_mut() {
            last.2 = Some(Instant::now());
        }
        thread::sleep(ms(dice.random_range(0..3_000)));
    }
    // All is well from here on.
    thread::sleep(AFTERMATH);
    world.over.store(true, Relaxed);
}

impl World {
    /// No connection of these sides may survive the fault.
    fn expect_none(&self, fault: Fault, [left, right]: [bool; 2], begun: Instant, since: Instant) {
        // The kernel of a host that stands still repeats what was lost before.
        let may_hear = matches!(fault, Fault::Stall(_));
        let stays = || {
            let open = lock(&self.open);
            let late = open.iter().flatten().filter(|end| {
                let counts = if end.is_left { left } else { right };
                counts && end.since < since && !(may_hear && end.was_heard())
            });
            late.count()
        };
        // A loaded machine may be later.
        for _ in 0..20 {
            if stays() == 0 {
                return;
            }
            thread::sleep(ms(50));
        }
        self.breaks(format!(
            "{fault:?}: {} are open after {:?}",
            stays(),
            begun.elapsed()
        ));
    }

    fn breaks(&self, what: String) {
        lock(&self.broken).push(what);
    }

    /// Whether anything was wrong since then, or not long before.
    fn was_troubled(&self, since: Instant) -> bool {
        lock(&self.faults)
            .iter()
            .any(|(_, _, end)| end.is_none_or(|end| end + AFTERMATH > since))
    }
}

// ---- the hosts ------------------------------------------------------------------

async fn side(world: &World, is_left: bool) {
    let stalls = async {
        while !world.over.load(Relaxed) {
            sleep(ms(10)).await;
            let stall = lock(&world.stalls[usize::from(!is_left)]).take();
            if let Some(length) = stall {
                // As a process that is stopped.
                thread::sleep(length);
            }
        }
    };
    if is_left {
        tokio::join!(stalls, serve(world));
    } else {
        tokio::join!(stalls, connect(world));
    }
}

/// The left host.
async fn serve(world: &World) {
    let listener = TcpListener::bind((LEFT, PORT)).await.unwrap();
    let mut all = futures::stream::FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    all.push(live(world, stream, true, all.len() % 3));
                }
            }
            Some(()) = all.next() => {}
            () = sleep(ms(50)) => if world.over.load(Relaxed) && all.is_empty() {
                return;
            },
        }
    }
}

/// The right host: its connections, each again and again.
async fn connect(world: &World) {
    // It listens by then, or the first attempt fails.
    sleep(ms(100)).await;
    let clients = (0..3 * world.connections).map(async |nth| {
        while !world.over.load(Relaxed) {
            let address = SocketAddr::from((LEFT, PORT));
            if let Ok(Ok(stream)) = timeout(secs(2), TcpStream::connect(address)).await {
                live(world, stream, false, nth % 3).await;
            }
            sleep(ms(50)).await;
        }
    });
    join_all(clients).await;
}

/// One end of a connection, until it is over.
async fn live(world: &World, stream: TcpStream, is_left: bool, load: usize) {
    let _ = stream.set_nodelay(true);
    let config = Config::detect_within(DETECTION).unwrap();
    let stream = stream.into_std().unwrap();
    let place = {
        let mut open = lock(&world.open);
        open.push(Some(Open {
            is_left,
            since: Instant::now(),
            socket: stream.try_clone().unwrap(),
        }));
        open.len() - 1
    };
    world.opened.fetch_add(1, Relaxed);
    let stream = TcpStream::from_std(stream).unwrap();
    let driver = Heartbeat::new(stream, config).spawn();
    let Driver {
        sender, receiver, ..
    } = driver;
    let sends = load == 2 || load == 1 && is_left;
    let (last, ()) = tokio::join!(
        receive(world, receiver),
        send(world, sender, is_left, sends, config)
    );
    lock(&world.open)[place] = None;
    world.ended.fetch_add(1, Relaxed);
    judge(world, config, &last);
}

/// The last event. Messages have numbers.
async fn receive(world: &World, mut receiver: Receiver<Bytes>) -> PeerEvent<Bytes> {
    let mut expected = 0_u64;
    loop {
        match receiver.next().await.expect("a last event") {
            PeerEvent::Message(message) => {
                world.messages.fetch_add(1, Relaxed);
                if message[..8] != expected.to_be_bytes() {
                    world.breaks(format!("message {expected}: {:?}", &message[..8]));
                }
                expected += 1;
            }
            last if last.is_terminal() => return last,
            _ => {}
        }
    }
}

/// Messages until the end; and at the end of it all a goodbye, which is confirmed.
async fn send(world: &World, sender: Sender<Bytes>, is_left: bool, sends: bool, config: Config) {
    let mut number = 0_u64;
    while !world.over.load(Relaxed) && !sender.is_closed() {
        if sends {
            let mut message = vec![0; 4_000];
            message[..8].copy_from_slice(&number.to_be_bytes());
            if sender.send(message.into()).await.is_err() {
                return;
            }
            number += 1;
        }
        sleep(ms(20)).await;
    }
    if is_left && !sender.is_closed() {
        match timeout(config.linger(), sender.close()).await {
            Ok(Ok(_)) => {
                world.confirmed.fetch_add(1, Relaxed);
            }
            other => world.breaks(format!("a goodbye when all is well: {other:?}")),
        }
    }
}

/// Whether it may end like this.
fn judge(world: &World, config: Config, last: &PeerEvent<Bytes>) {
    let death = match last {
        PeerEvent::Dead(death) => death,
        PeerEvent::Closed { reason } => {
            let is_expected = matches!(reason, CloseReason::Local)
                || matches!(
                    reason,
                    CloseReason::Peer {
                        code: GoodbyeCode::LEAVING,
                        ..
                    }
                );
            if !is_expected || !world.over.load(Relaxed) {
                world.breaks(format!("{reason:?}"));
            }
            return;
        }
        other => return world.breaks(format!("the last event is {other:?}")),
    };
    let shortest =
        config.interval().mul_f64(1.0 - config.jitter()) + config.max_missed() * config.timeout();
    let troubled = Instant::now()
        .checked_sub(death.silent_for)
        .is_some_and(|since| world.was_troubled(since));
    let is_right = match &death.cause {
        Cause::Silent | Cause::WriteStalled | Cause::TimedOut => {
            death.silent_for + ms(1) >= shortest
        }
        Cause::GivenUp { code, .. } => {
            [GoodbyeCode::SILENT, GoodbyeCode::WRITE_STALLED].contains(code)
        }
        Cause::Reset => true,
        _ => false,
    };
    if !is_right || !troubled {
        world.breaks(format!("{death:?}, troubled: {troubled}"));
    }
}
