//! Real processes over a real connection: each way to go is recognised as what
//! it is, and in time.
//!
//! ```text
//! last sign of life      stop
//!        |--- silence ----|----------------- measured ------------------|
//!        |------ I = 200 ------|--- W = 200 ---|--- 200 ---|--- 200 ---|
//!                              ping                                   Dead
//! ```
//!
//! The last sign of life is from 0 to I before the stop, so that 600 to 800 ms
//! are measured, plus what the machine is late by.
#![cfg(unix)]

use std::{
    future::Future,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{SinkExt, StreamExt, future::try_join_all};
use heartbeat_tests::{by_peer, lateness, process::PeerProcess, quick};
#[cfg(target_os = "linux")]
use heartbeat_tokio::Diagnosis;
use heartbeat_tokio::{Cause, Heartbeat, PeerEvent, SendError};
use tokio::{
    net::{TcpSocket, TcpStream},
    runtime::Builder,
    task::LocalSet,
    time::{sleep, timeout},
};

/// How often each way to go is tried.
const RUNS: u32 = 20;
/// The same for those that keep a processor busy.
const BUSY_RUNS: u32 = 4;

/// How late we may be woken; a machine that is under load may add to it.
const SCHEDULING: Duration = ms(50);

#[test]
fn a_stopped_process_is_found_silent_in_time() {
    let measured = runs(RUNS, async |phase| {
        let mut peer = Peer::start().await;
        peer.watch_for(phase).await;
        let silent_before = peer.heartbeat.status().silent_for;

        let stopped = Instant::now();
        peer.process.stop().unwrap();
        let end = peer.end().await;
        let measured = stopped.elapsed();

        let PeerEvent::Dead(death) = end else {
            panic!("{end:?}");
        };
        assert_eq!(death.cause, Cause::Silent);
        assert_eq!(death.missed, 3);
        #[cfg(target_os = "linux")]
        assert_eq!(death.diagnosis, Diagnosis::AppHung, "its kernel answers");
        assert!(measured >= ms(600), "{measured:?}: too early");
        assert!(death.silent_for >= ms(800), "{death}: too early");
        // More is measured if bytes were on their way when it was stopped.
        assert!(silent_before + measured >= ms(800));
        (measured, peer)
    });
    assert_within(ms(800), "stopped", &measured);
}

#[test]
fn a_killed_process_is_found_at_once() {
    let measured = runs(RUNS, async |phase| {
        let mut peer = Peer::start().await;
        peer.watch_for(phase).await;

        let killed = Instant::now();
        peer.process.kill().unwrap();
        let end = peer.end().await;
        let measured = killed.elapsed();

        let PeerEvent::Dead(death) = end else {
            panic!("{end:?}");
        };
        assert!(matches!(death.cause, Cause::Eof | Cause::Reset), "{death}");
        (measured, peer)
    });
    assert_within(ms(0), "killed", &measured);
}

#[test]
fn a_goodbye_is_no_death() {
    runs(RUNS, async |phase| {
        let mut peer = Peer::start().await;
        peer.watch_for(phase).await;

        peer.heartbeat.send("leave".into()).await.unwrap();
        let end = peer.end().await;

        let reason = by_peer();
        assert_eq!(end, PeerEvent::Closed { reason });
        // The process saw it as a goodbye of its own.
        assert!(peer.process.wait().unwrap().success());
        (Duration::ZERO, peer)
    });
}

#[test]
fn a_process_that_is_stopped_while_we_send_is_found_in_time() {
    let measured = runs(BUSY_RUNS, async |phase| {
        let mut peer = Peer::start().await;
        let process = &peer.process;
        let heartbeat = &mut peer.heartbeat;

        let stop = async {
            sleep(phase).await;
            let stopped = Instant::now();
            process.stop().unwrap();
            stopped
        };
        // Only the `send` that waits polls it, so that has to keep the time.
        let flood = async {
            let message = Bytes::from(vec![0; 64 * 1024]);
            loop {
                let begun = Instant::now();
                if let Err(error) = heartbeat.send(message.clone()).await {
                    return (begun, error);
                }
            }
        };
        let (stopped, (begun, error)) = tokio::join!(stop, flood);
        let measured = stopped.elapsed();

        let SendError::Dead(death) = error else {
            panic!("{error}");
        };
        assert!(death.silent_for >= ms(800), "{death}: too early");
        assert!(begun.elapsed() >= ms(500), "the send was never stuck");
        #[cfg(target_os = "linux")]
        assert_eq!(death.diagnosis, Diagnosis::PeerNotReading, "{death}");
        assert_eq!(peer.end().await, PeerEvent::Dead(death));
        (measured, peer)
    });
    assert_within(ms(800), "stopped while we send", &measured);
}

/// One connection to a process of its own.
struct Peer {
    heartbeat: Heartbeat<TcpStream>,
    process: PeerProcess,
}

impl Peer {
    async fn start() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        // Small, as the peer's, so that a send is soon stuck. What the kernel
        // takes when it may choose is megabytes, and half a second's worth.
        socket.set_send_buffer_size(64 * 1024).unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let listener = socket.listen(1).unwrap();
        let peer = env!("CARGO_BIN_EXE_heartbeat-test-peer");
        let process = PeerProcess::start(peer, listener.local_addr().unwrap(), ms(800)).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let heartbeat = Heartbeat::new(stream, quick());
        Self { heartbeat, process }
    }

    /// Waits for a beat, and from there for a part of an interval, so that the
    /// runs meet every phase of it.
    async fn watch_for(&mut self, phase: Duration) {
        self.heartbeat.probe();
        while !matches!(self.next().await, PeerEvent::Beat { .. }) {}
        let early = timeout(phase, self.end()).await;
        assert!(early.is_err(), "{early:?}");
    }

    /// How it ended. Nothing comes after that.
    async fn end(&mut self) -> PeerEvent<Bytes> {
        loop {
            let event = self.next().await;
            if event.is_terminal() {
                assert_eq!(self.heartbeat.next().await, None);
                return event;
            }
        }
    }

    async fn next(&mut self) -> PeerEvent<Bytes> {
        self.heartbeat.next().await.unwrap()
    }
}

/// What the runs of one test measured.
struct Measured {
    times: Vec<Duration>,
    /// How late the machine was meanwhile, in a thread that only sleeps.
    machine: Duration,
}

/// Runs it for `count` phases of an interval, all at once, in a task each. The peers are
/// kept until all have measured: to wait for the end of a process blocks the runtime.
fn runs<F>(count: u32, run: impl Fn(Duration) -> F) -> Measured
where
    F: Future<Output = (Duration, Peer)> + 'static,
{
    let _alone = alone();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let tasks = LocalSet::new();
    // Short of a whole interval: then a beat is on its way.
    let phases = (0..count).map(|run| ms(180) * run / count);
    let runs: Vec<_> = phases.map(|phase| tasks.spawn_local(run(phase))).collect();
    let all = async { timeout(ms(10_000), try_join_all(runs)).await };

    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let witness = scope.spawn(|| lateness(&done));
        let ended = tasks.block_on(&runtime, all);
        done.store(true, Ordering::Relaxed);
        let (times, _peers): (_, Vec<Peer>) = ended.unwrap().unwrap().into_iter().unzip();
        Measured {
            times,
            machine: witness.join().unwrap(),
        }
    })
}

fn assert_within(promised: Duration, what: &str, measured: &Measured) {
    let Measured { times, machine } = measured;
    let shown: Vec<_> = times.iter().map(|time| format!("{time:.1?}")).collect();
    let shown = shown.join(", ");
    println!("{what}: dead after {shown} (the machine was late by up to {machine:.1?})");
    let limit = promised + SCHEDULING + *machine;
    assert!(times.iter().all(|time| *time <= limit), "{what}: too late");
}

/// Tests that measure don't run at the same time as others here.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
