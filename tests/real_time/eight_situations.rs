//! Eight situations in which heartbeats written by hand fail: real sockets, real
//! processes, a runtime that is really blocked. Ping after 1 s, dead 3 s after
//! that.
//!
//! | situation | what must come of it |
//! |---|---|
//! | a process is stopped while nothing is said | dead within 4 s |
//! | a process is stopped while we send to it | dead within 4 s, and the `send` ends |
//! | one message of 64 MiB (without `HEARTBEAT_FULL`: of 24) arrives at 2 MiB/s | both sides live |
//! | one such message leaves at 2 MiB/s | both sides live |
//! | our runtime is blocked for 5 s, round trip near 0 | `LocalStall`, both sides live |
//! | our runtime is blocked for 5 s, round trip 800 ms | `LocalStall`, both sides live |
//! | the peer doesn't read for 8 s, and says nothing | dead within 4 s |
//! | the peer doesn't read for 8 s, and sends | both sides live |
//!
//! All of them run at once, each as often as chance asks for.
#![cfg(unix)]

use std::{
    future::Future,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{StreamExt, future::try_join_all};
use heartbeat_core::Control;
use heartbeat_tests::{
    RawPeer, by_peer,
    drive::{Command, Drive, Inline, Spawned},
    few_or_all, lateness, ms,
    process::PeerProcess,
    secs, throttled,
};
use heartbeat_tokio::{
    Cause, CloseReason, Config, Death, Diagnosis, Heartbeat, PeerEvent,
    testkit::{Line, Side},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional},
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::Builder,
    sync::mpsc,
    task::{JoinHandle, LocalSet},
    time::{sleep, timeout},
};

#[test]
fn all_eight_inline() {
    all_eight(Inline);
}

#[test]
fn all_eight_spawned() {
    all_eight(Spawned);
}

/// The bound: I + N·W.
const DETECTION: Duration = secs(4);
/// The silence that is tolerated: I·(1 − J) + N·W.
const TOLERATED: Duration = ms(3_750);
/// How late we may be woken; a machine that is under load may add to it.
const SCHEDULING: Duration = ms(100);

const MIB: usize = 1 << 20;

/// The size of a message that takes much longer than the bound.
fn large() -> usize {
    few_or_all(24, 64) * MIB
}

/// How long it takes at 2 MiB/s.
fn slowly() -> Duration {
    secs(large() as u64 / (2 * MIB as u64))
}

fn config() -> Config {
    Config::builder()
        .interval(secs(1))
        .timeout(secs(1))
        .max_missed(3)
        .jitter(0.25)
        .max_frame(64 * MIB)
        .build()
        .unwrap()
}

/// So patient that only our side can give up; it is asked, and answers.
fn patient() -> Config {
    let builder = config().to_builder().timeout(secs(30));
    builder.build().unwrap()
}

fn all_eight(drive: impl Drive) {
    let done = AtomicBool::new(false);
    let slowly = format!("{} MiB at 2 MiB/s", large() / MIB);
    let (receiver, sender) = (format!("{slowly}, receiver"), format!("{slowly}, sender"));
    let reports = thread::scope(|scope| {
        let witness = scope.spawn(|| lateness(&done));
        let situations: [(_, Situation<_>); 8] = [
            ("stopped, idle", stopped_idle),
            ("stopped while we send", stopped_while_we_send),
            (&receiver, a_large_message_arrives_slowly),
            (&sender, a_large_message_leaves_slowly),
            ("blocked for 5 s, round trip near 0", blocked_near),
            ("blocked for 5 s, round trip 800 ms", blocked_far),
            ("peer doesn't read, silent", not_read_and_silent),
            ("peer doesn't read, sends", not_read_and_sending),
        ];
        let running = situations.map(|(name, run)| {
            let named = thread::Builder::new().name(name.into());
            (name, named.spawn_scoped(scope, move || run(drive)).unwrap())
        });
        // All of them to their end, so that no process and no thread is left.
        let reports = running.map(|(name, run)| (name, run.join()));
        done.store(true, Ordering::Relaxed);
        let machine = witness.join().unwrap();
        println!("the machine was late by up to {machine:.1?}");
        reports.map(|(name, outcomes)| (name, outcomes.unwrap(), machine))
    });
    for (name, outcomes, machine) in reports {
        let limit = DETECTION + SCHEDULING + machine;
        let found = outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::Found(after) => Some(*after),
            Outcome::Lived => None,
        });
        let found: Vec<_> = found.collect();
        match (found.iter().min(), found.iter().max()) {
            (Some(least), Some(most)) => {
                println!(
                    "{name}: {} found, after {least:.2?} to {most:.2?}",
                    found.len()
                );
                assert!(*most <= limit, "{name}: {most:?}, not {limit:?}");
            }
            _ => println!("{name}: {} lived", outcomes.len()),
        }
    }
}

type Situation<D> = fn(D) -> Vec<Outcome>;

/// What came of one trial. That it was what must come of it is asserted there.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// The time from the fault.
    Found(Duration),
    Lived,
}

/// The diagnosis, where the kernel tells.
fn assert_diagnosis(death: &Death, expected: Diagnosis) {
    if cfg!(target_os = "linux") {
        assert_eq!(death.diagnosis, expected, "{death}");
    }
}

// ---- a process is stopped --------------------------------------------------

fn stopped_idle(drive: impl Drive) -> Vec<Outcome> {
    trials(24, move |phase| async move {
        let (process, stream) = peer_process().await;
        let mut connection = Connection::open(drive, stream, config());
        connection.lives_for(secs(1) + phase).await;

        let stopped = Instant::now();
        process.stop().unwrap();
        let (at, death) = connection.death().await;
        assert_eq!(death.cause, Cause::Silent, "{death}");
        assert_diagnosis(&death, Diagnosis::AppHung);
        assert!(death.silent_for >= TOLERATED, "{death}: too early");
        Outcome::Found(at - stopped)
    })
}

fn stopped_while_we_send(drive: impl Drive) -> Vec<Outcome> {
    trials(24, move |phase| async move {
        let (process, stream) = peer_process().await;
        let mut connection = Connection::open(drive, stream, config());
        connection.send_in_bulk();
        connection.lives_for(secs(1) + phase).await;

        let stopped = Instant::now();
        process.stop().unwrap();
        let (at, death) = connection.death().await;
        let expected = matches!(death.cause, Cause::Silent | Cause::WriteStalled);
        assert!(expected, "{death}");
        assert_diagnosis(&death, Diagnosis::PeerNotReading);
        assert!(death.silent_for >= TOLERATED, "{death}: too early");
        Outcome::Found(at - stopped)
    })
}

// ---- one large message -----------------------------------------------------

fn a_large_message_arrives_slowly(drive: impl Drive) -> Vec<Outcome> {
    trials(1, move |_| async move {
        let (ours, theirs) = connected().await;
        let mut receiver = Connection::open(drive, ours, config());
        let slow = throttled(theirs, 2 << 20);
        let mut sender = Connection::open(Inline, slow, config());
        let began = Instant::now();
        sender.tell(Command::Send(vec![1; large()].into())).await;
        sender.tell(Command::Close).await;
        one_large_message_and_goodbye(&mut receiver, &mut sender, began).await;
        Outcome::Lived
    })
}

fn a_large_message_leaves_slowly(drive: impl Drive) -> Vec<Outcome> {
    trials(1, move |_| async move {
        let (ours, theirs) = connected().await;
        let mut sender = Connection::open(drive, ours, config());
        let slow = throttled(theirs, 2 << 20);
        let mut receiver = Connection::open(Inline, slow, config());
        let began = Instant::now();
        sender.tell(Command::Send(vec![1; large()].into())).await;
        // Not at once: the last megabytes wait in the kernel, and only the reader can
        // show that it lives.
        sleep(slowly() + secs(3)).await;
        sender.tell(Command::Close).await;
        one_large_message_and_goodbye(&mut receiver, &mut sender, began).await;
        Outcome::Lived
    })
}

async fn one_large_message_and_goodbye(
    receiver: &mut Connection,
    sender: &mut Connection,
    began: Instant,
) {
    let received = receiver.end().await;
    assert!(began.elapsed() > slowly() - secs(2), "it wasn't slow");
    let closed = |reason| PeerEvent::Closed { reason };
    assert_eq!(received.1, closed(by_peer()));
    assert_eq!(sender.end().await.1, closed(CloseReason::Local));
    let lengths = receiver
        .events()
        .into_iter()
        .filter_map(|(_, event)| match event {
            PeerEvent::Message(message) => Some(message.len()),
            _ => None,
        });
    assert_eq!(lengths.collect::<Vec<_>>(), [large()]);
}

// ---- our own runtime is blocked --------------------------------------------

fn blocked_near(drive: impl Drive) -> Vec<Outcome> {
    blocked(drive, Duration::ZERO)
}

fn blocked_far(drive: impl Drive) -> Vec<Outcome> {
    blocked(drive, ms(400))
}

/// 24 threads, each with a runtime of its own that is blocked at another phase
/// of the interval; the peers and the long way to them have their own.
fn blocked(drive: impl Drive, delay: Duration) -> Vec<Outcome> {
    let (elsewhere, address) = peers_far_away(delay);
    let trial = move |phase| {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let stream = TcpStream::connect(address).await.unwrap();
            let mut connection = Connection::open(drive, stream, config());
            connection.lives_for(secs(3) + phase).await;
            thread::sleep(secs(5));
            connection.lives_for(secs(6)).await;
            let stalls = connection.events().into_iter().filter(
                |(_, event)| matches!(event, PeerEvent::LocalStall { late } if *late > secs(2)),
            );
            assert_eq!(stalls.count(), 1, "{:#?}", connection.events());
        });
        Outcome::Lived
    };
    let outcomes = thread::scope(|scope| {
        let running = phases(24).map(|phase| scope.spawn(move || trial(phase)));
        let running: Vec<_> = running.collect();
        running.into_iter().map(|run| run.join().unwrap()).collect()
    });
    drop(elsewhere);
    outcomes
}

/// Peers that answer, behind a relay that takes its time; where to connect to.
fn peers_far_away(delay: Duration) -> (Elsewhere, std::net::SocketAddr) {
    let (tell, told) = std::sync::mpsc::channel();
    let elsewhere = Elsewhere::run(async move {
        let peers = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let behind = peers.local_addr().unwrap();
        tell.send(relay.local_addr().unwrap()).unwrap();
        let answering = async {
            loop {
                let (stream, _) = peers.accept().await.unwrap();
                let mut peer = Heartbeat::new(stream, patient());
                tokio::spawn(async move { while peer.next().await.is_some() {} });
            }
        };
        let relaying = async {
            loop {
                let (near, _) = relay.accept().await.unwrap();
                let far = TcpStream::connect(behind).await.unwrap();
                tokio::spawn(carry(near, far, delay));
            }
        };
        tokio::join!(answering, relaying);
    });
    (elsewhere, told.recv().unwrap())
}

/// Carries bytes both ways, each with this delay.
async fn carry(mut near: TcpStream, mut far: TcpStream, delay: Duration) {
    let (mut ours, mut theirs, line) = Line::pair();
    line.delay(Side::BOTH, delay);
    // They end as the connections do.
    let _ = tokio::join!(
        copy_bidirectional(&mut near, &mut ours),
        copy_bidirectional(&mut theirs, &mut far),
    );
}

/// A runtime in a thread of its own, until it is dropped.
struct Elsewhere {
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Elsewhere {
    fn run(work: impl Future<Output = ()> + Send + 'static) -> Self {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! { () = work => {}, _ = stopped => {} }
            });
        });
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        self.stop = None;
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking());
    }
}

// ---- a peer that doesn't read ----------------------------------------------

/// Its kernel takes what fits, and acknowledges; that is no sign of life.
fn not_read_and_silent(drive: impl Drive) -> Vec<Outcome> {
    trials(24, move |phase| async move {
        let (ours, theirs) = connected().await;
        let mut connection = Connection::open(drive, ours, config());
        connection.send_in_bulk();
        let mut peer = RawPeer::new(theirs);
        peer.greet(config()).await;
        read_and_answer_for(&mut peer, secs(1) + phase).await;

        let stopped = Instant::now();
        let (at, death) = connection.death().await;
        let expected = matches!(death.cause, Cause::Silent | Cause::WriteStalled);
        assert!(expected, "{death}");
        assert_diagnosis(&death, Diagnosis::PeerNotReading);
        assert!(death.silent_for >= TOLERATED, "{death}: too early");
        Outcome::Found(at - stopped)
    })
}

fn not_read_and_sending(drive: impl Drive) -> Vec<Outcome> {
    trials(24, move |phase| async move {
        let (ours, theirs) = connected().await;
        let mut connection = Connection::open(drive, ours, config());
        connection.send_in_bulk();
        let mut peer = RawPeer::new(theirs);
        peer.greet(config()).await;
        read_and_answer_for(&mut peer, secs(1) + phase).await;

        for _ in 0..16 {
            sleep(ms(500)).await;
            peer.send_data(b"I am here").await;
        }
        connection.assert_alive();
        // And when it reads again, everything goes on.
        for _ in 0..12 {
            read_and_answer_for(&mut peer, ms(500)).await;
            peer.send_data(b"and here").await;
        }
        connection.assert_alive();
        Outcome::Lived
    })
}

async fn read_and_answer_for(peer: &mut RawPeer<TcpStream>, duration: Duration) {
    let until = tokio::time::Instant::now() + duration;
    while tokio::time::Instant::now() < until {
        // A side sends all the time, so this doesn't take long.
        let frame = timeout(secs(20), peer.read_frame()).await.unwrap();
        if let Ok(Control::Ping(nonce)) = Control::decode(&frame.expect("it is open")) {
            peer.send_control(Control::Pong(nonce)).await;
        }
    }
}

// ---- a connection and what became of it ------------------------------------

/// An event, and when it was told.
type Told = (Instant, PeerEvent<Bytes>);

struct Connection {
    commands: mpsc::Sender<Command>,
    events: Arc<Mutex<Vec<Told>>>,
    driving: JoinHandle<()>,
    sending: Option<JoinHandle<()>>,
}

impl Connection {
    fn open<S>(drive: impl Drive, stream: S, config: Config) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (commands, inbox) = mpsc::channel(4);
        let events = Arc::<Mutex<Vec<_>>>::default();
        let told = Arc::clone(&events);
        let tell = move |event| told.lock().unwrap().push((Instant::now(), event));
        Self {
            commands,
            events,
            driving: tokio::spawn(drive.drive(stream, config, inbox, tell)),
            sending: None,
        }
    }

    async fn tell(&self, command: Command) {
        self.commands.send(command).await.unwrap();
    }

    /// Sends more than the peer reads, from now on.
    fn send_in_bulk(&mut self) {
        let commands = self.commands.clone();
        self.sending = Some(tokio::spawn(async move {
            let message = Bytes::from(vec![0; 64 * 1024]);
            while commands.send(Command::Send(message.clone())).await.is_ok() {}
        }));
    }

    fn events(&self) -> Vec<Told> {
        self.events.lock().unwrap().clone()
    }

    #[track_caller]
    fn assert_alive(&self) {
        let events = self.events();
        let last = events.last();
        let alive = last.is_some_and(|(_, event)| !event.is_terminal());
        assert!(alive && !self.driving.is_finished(), "{last:?}");
    }

    async fn lives_for(&mut self, duration: Duration) {
        sleep(duration).await;
        self.assert_alive();
    }

    /// How it ended, and when we were told.
    async fn end(&mut self) -> (Instant, PeerEvent<Bytes>) {
        let ended = timeout(secs(50), &mut self.driving).await;
        ended.expect("it never ends").unwrap();
        self.events().pop().unwrap()
    }

    async fn death(&mut self) -> (Instant, Death) {
        match self.end().await {
            (at, PeerEvent::Dead(death)) => (at, death),
            (_, event) => panic!("{event:?}"),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driving.abort();
        if let Some(sending) = &self.sending {
            sending.abort();
        }
    }
}

// ---- trials ----------------------------------------------------------------

/// This many at once, each in a task, at as many phases of an interval.
fn trials<F>(count: u32, trial: impl Fn(Duration) -> F) -> Vec<Outcome>
where
    F: Future<Output = Outcome> + 'static,
{
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let tasks = LocalSet::new();
    let running: Vec<_> = phases(count)
        .map(|phase| tasks.spawn_local(trial(phase)))
        .collect();
    let outcomes = tasks.block_on(&runtime, try_join_all(running));
    outcomes.unwrap()
}

fn phases(count: u32) -> impl Iterator<Item = Duration> {
    let all: Range<u32> = 0..count;
    all.map(move |trial| secs(1) * trial / count)
}

async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
    (ours.unwrap(), theirs.unwrap().0)
}

/// A process that says nothing and answers.
async fn peer_process() -> (PeerProcess, TcpStream) {
    let socket = TcpSocket::new_v4().unwrap();
    // Small, so that a send is soon stuck.
    socket.set_send_buffer_size(64 * 1024).unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = socket.listen(1).unwrap();
    let peer = env!("CARGO_BIN_EXE_heartbeat-test-peer");
    let process = PeerProcess::start(peer, listener.local_addr().unwrap(), secs(60)).unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    (process, stream)
}
