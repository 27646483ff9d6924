//! Honest peers beside others that flood the same program.
//!
//! A server with two workers serves 100 honest peers and 200 that send small frames as
//! fast as it takes them. Each honest peer sends a message each 100 ms and waits for its
//! echo; the lag is how late that comes. The same bytes go to a plain `Framed`.
//!
//! Each flood is measured by itself. Attacks that cost little are measured together, and
//! by themselves with `--only`, which takes the name of any attack.

use std::{
    fs,
    io::{self, Write},
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{Sink, SinkExt, Stream, StreamExt};
use heartbeat_tokio::{Config, Driver, Heartbeat, PeerEvent};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::{
    attack::{ENDED, FLOODS, HOLDS, Target, attack},
    process::{Arguments, Child, runtime, tell_parent},
    table::{Limit, Row},
};

const HONEST: usize = 100;
const FLOODING: usize = 200;
const EACH: Duration = Duration::from_millis(100);

/// What plain `Framed` takes, too.
const MOST_LAG: f64 = 1.5;

/// Less, in milliseconds, is as good as none, and differs as much between two measurements.
const NO_LAG: f64 = 5.0;

/// Shorter than a measurement: who is given up by mistake is so within it.
const DETECTION: Duration = Duration::from_secs(5);

pub(crate) fn rows(arguments: &Arguments, found: &mut dyn FnMut(Row)) -> io::Result<()> {
    let subjects: &[&str] = arguments.quick_or_full(&["inline"], &["inline", "spawned"]);
    let lasts = Duration::from_secs(arguments.quick_or_full(4, 7));
    for kinds in rounds(arguments) {
        let name = match kinds.as_slice() {
            [kind] => kind,
            kinds if kinds == HOLDS => "all that hold",
            _ => "all that end",
        };
        let plain = measure("framed", &kinds, lasts)?;
        for subject in subjects {
            let ours = measure(subject, &kinds, lasts)?;
            let row = |what, unit, plain, ours, at_most| Row {
                input: format!("flood {name}, {subject}: {what}"),
                unit,
                plain: Some(plain),
                ours,
                at_most,
            };
            let most = Limit::TimesPlain(MOST_LAG, NO_LAG);
            found(row("lag, 99 %", "ms", plain.p99, ours.p99, most));
            found(row("lag, longest", "ms", plain.longest, ours.longest, most));
            let (theirs, dead) = (plain.dead as f64, ours.dead as f64);
            found(row("honest dead", "", theirs, dead, Limit::Figure(0.0)));
            let most = Limit::Figure(f64::INFINITY);
            found(row("processor", "s", plain.processor, ours.processor, most));
            found(row("memory", "MB", plain.memory, ours.memory, most));
            found(row("opened", "", plain.opened, ours.opened, most));
        }
    }
    Ok(())
}

/// Attacks that are measured at the same time.
fn rounds(arguments: &Arguments) -> Vec<Vec<&'static str>> {
    let each = |kinds: &[&'static str]| kinds.iter().map(|&kind| vec![kind]).collect::<Vec<_>>();
    match arguments.value("--only") {
        None if arguments.has("--quick") => each(&["pongs"]),
        None => [each(FLOODS), vec![HOLDS.to_vec(), ENDED.to_vec()]].concat(),
        Some(_) => {
            let mut all = each(&[FLOODS, HOLDS, ENDED].concat());
            all.retain(|kinds| arguments.wants(&format!("flood {}", kinds.concat())));
            all
        }
    }
}

fn config() -> Config {
    Config::detect_within(DETECTION).expect("valid timings")
}

/// Milliseconds, how many were given up on either side, and what it cost the server.
struct Figures {
    p99: f64,
    longest: f64,
    dead: usize,
    /// Seconds of processor time.
    processor: f64,
    /// The most that was resident, in MB.
    memory: f64,
    /// Hostile connections, one after the other.
    opened: f64,
}

fn measure(subject: &str, kinds: &[&str], lasts: Duration) -> io::Result<Figures> {
    let mut server = Child::start("flooded", &[("--subject", subject.to_owned())])?;
    let ports = server.numbers::<u16>()?;
    let &[honest, flooded] = ports.as_slice() else {
        return Err(io::Error::other("two ports"));
    };
    let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let seen = Arc::<Seen>::default();
    let runtime = runtime(1)?;
    for nth in 0..HONEST {
        let stream = runtime.block_on(TcpStream::connect(address(honest)))?;
        let delay = EACH.mul_f64(nth as f64 / HONEST as f64);
        let peer = be_honest(subject == "framed", stream, delay, seen.clone());
        drop(runtime.spawn(peer));
    }
    let mut flood = Child::start(
        "flooding",
        &[
            ("--to", address(flooded).to_string()),
            ("--kinds", kinds.join(",")),
        ],
    )?;
    thread::sleep(Duration::from_secs(1));
    seen.forget();
    thread::sleep(lasts);
    let (mut lags, dead) = seen.so_far();
    let found = server.found::<f64>()?;
    let &[theirs, processor, memory] = found.as_slice() else {
        return Err(io::Error::other("three figures"));
    };
    let opened = flood.found::<f64>()?.into_iter().sum();
    drop((flood, server, runtime));
    lags.sort_by(f64::total_cmp);
    let figure = |part: f64| {
        let at = (lags.len() as f64 * part) as usize;
        lags.get(at.min(lags.len().saturating_sub(1)))
            .copied()
            .unwrap_or(f64::NAN)
    };
    Ok(Figures {
        p99: figure(0.99),
        longest: figure(1.0),
        dead: dead + theirs as usize,
        processor,
        memory,
        opened,
    })
}

// ---- the honest -----------------------------------------------------------

/// What honest peers have seen.
#[derive(Default)]
struct Seen {
    lags: Mutex<Vec<f64>>,
    /// When what each waits for was sent.
    waiting: Mutex<Vec<Option<Instant>>>,
    dead: AtomicUsize,
}

impl Seen {
    fn forget(&self) {
        lock(&self.lags).clear();
    }

    /// Lags in milliseconds, those among them that still last; and the dead.
    fn so_far(&self) -> (Vec<f64>, usize) {
        let mut lags = lock(&self.lags).clone();
        let waiting = lock(&self.waiting);
        lags.extend(waiting.iter().flatten().map(millis_since));
        (lags, self.dead.load(Relaxed))
    }
}

fn millis_since(then: &Instant) -> f64 {
    then.elapsed().as_secs_f64() * 1e3
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn be_honest(plain: bool, stream: TcpStream, delay: Duration, seen: Arc<Seen>) {
    tokio::time::sleep(delay).await;
    let _ = stream.set_nodelay(true);
    if plain {
        let framed = Framed::new(stream, LengthDelimitedCodec::new());
        let echoes = framed.filter_map(async |frame| frame.ok().map(|_| Echo::Came));
        ask(std::pin::pin!(echoes), &seen).await;
    } else {
        let events = Heartbeat::new(stream, config());
        let echoes = events.filter_map(async |event| match event {
            PeerEvent::Message(_) => Some(Echo::Came),
            PeerEvent::Dead(_) => Some(Echo::Never),
            _ => None,
        });
        ask(std::pin::pin!(echoes), &seen).await;
    }
}

enum Echo {
    Came,
    Never,
}

/// Sends a message each 100 ms, unless the last one's echo is still missing.
async fn ask(mut peer: impl Stream<Item = Echo> + Sink<Bytes> + Unpin, seen: &Seen) {
    let me = {
        let mut waiting = lock(&seen.waiting);
        waiting.push(None);
        waiting.len() - 1
    };
    let note = |since: Option<Instant>| {
        let mut waiting = lock(&seen.waiting);
        waiting
            .get_mut(me)
            .and_then(|slot| std::mem::replace(slot, since))
    };
    let mut ticks = tokio::time::interval(EACH);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        note(Some(Instant::now()));
        if peer.send(Bytes::from_static(&[7; 16])).await.is_err() {
            break;
        }
        match peer.next().await {
            Some(Echo::Came) => {
                if let Some(since) = note(None) {
                    lock(&seen.lags).push(millis_since(&since));
                }
            }
            Some(Echo::Never) | None => break,
        }
    }
    seen.dead.fetch_add(1, Relaxed);
}

// ---- the server -----------------------------------------------------------

/// Serves honest peers on one port, and what may come on another.
pub(crate) fn be_the_server(arguments: &Arguments) -> io::Result<()> {
    static DEAD: AtomicUsize = AtomicUsize::new(0);
    let subject: String = arguments.get("--subject");
    let runtime = runtime(2)?;
    let mut ports = Vec::new();
    for counts in [true, false] {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        ports.push(listener.local_addr()?.port().to_string());
        let subject = subject.clone();
        drop(runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let subject = subject.clone();
                drop(tokio::spawn(async move {
                    let died = serve(&subject, stream).await;
                    if died && counts {
                        DEAD.fetch_add(1, Relaxed);
                    }
                }));
            }
        }));
    }
    println!("{}", ports.join(" "));
    io::stdout().flush()?;
    tell_parent(|| {
        let (processor, memory) = cost().unwrap_or((f64::NAN, f64::NAN));
        format!("{} {processor} {memory}", DEAD.load(Relaxed))
    })
}

/// Seconds of processor time and the most memory, in MB, of this process.
fn cost() -> Option<(f64, f64)> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |nth: usize| fields.get(nth)?.parse::<f64>().ok();
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = peak.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(((ticks(11)? + ticks(12)?) / 100.0, kib * 1024.0 / 1e6))
}

/// Echoes what isn't empty. Says whether the peer was found dead.
async fn serve(subject: &str, stream: TcpStream) -> bool {
    match subject {
        "framed" => {
            let mut framed = Framed::new(stream, LengthDelimitedCodec::new());
            while let Some(Ok(message)) = framed.next().await {
                if message.len() == 16 && framed.send(message.freeze()).await.is_err() {
                    break;
                }
            }
            false
        }
        "inline" => {
            let mut peer = Heartbeat::new(stream, config());
            while let Some(event) = peer.next().await {
                match event {
                    PeerEvent::Message(message) if !message.is_empty() => {
                        let _ = peer.send(message).await;
                    }
                    PeerEvent::Dead(_) => return true,
                    _ => {}
                }
            }
            false
        }
        _ => {
            let Driver {
                sender,
                mut receiver,
                ..
            } = Heartbeat::new(stream, config()).spawn();
            while let Some(event) = receiver.next().await {
                match event {
                    PeerEvent::Message(message) if !message.is_empty() => {
                        let _ = sender.send(message).await;
                    }
                    PeerEvent::Dead(_) => return true,
                    _ => {}
                }
            }
            false
        }
    }
}

// ---- the flood ------------------------------------------------------------

/// Attacks from many connections.
pub(crate) fn be_the_flood(arguments: &Arguments) -> io::Result<()> {
    let to: SocketAddr = arguments.get("--to");
    let kinds: String = arguments.get("--kinds");
    static OPENED: AtomicUsize = AtomicUsize::new(0);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let target = Target {
        to,
        config: config(),
        pause: Duration::ZERO,
    };
    for kind in kinds.split(',').cycle().take(FLOODING) {
        let kind = kind.to_owned();
        drop(runtime.spawn(async move {
            let opened = || {
                OPENED.fetch_add(1, Relaxed);
            };
            attack(&kind, target, opened).await
        }));
    }
    thread::spawn(|| tell_parent(|| OPENED.load(Relaxed).to_string()));
    runtime.block_on(std::future::pending())
}
