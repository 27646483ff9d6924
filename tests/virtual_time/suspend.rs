//! A machine that sleeps while tokio's clock stands still: the peer is pinged when it wakes
//! up, and isn't blamed for the sleep.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may panic too"
)]

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use heartbeat_tests::{ms, secs};
use heartbeat_tokio::{
    Cause, Config, Evidence, Heartbeat, PeerEvent,
    testkit::{Line, LineEnd, Machine, Side},
};
use tokio::time::{Instant, sleep, timeout};

const HOUR: Duration = secs(3600);

fn config() -> Config {
    Config::builder().jitter(0.0).build().unwrap()
}

/// A program on a laptop, connected and idle, and its peer elsewhere.
struct Laptop {
    machine: Machine,
    program: Heartbeat<LineEnd>,
    peer: heartbeat_tokio::Driver<Bytes>,
    line: Line,
}

impl Laptop {
    async fn open(config: Config) -> Self {
        let (ours, theirs, line) = Line::pair();
        let machine = Machine::new();
        let mut program = Heartbeat::new(ours, config).on_machine(machine);
        let peer = Heartbeat::new(theirs, config).spawn();
        while !matches!(program.next().await, Some(PeerEvent::Beat { .. })) {}
        Self {
            machine,
            program,
            peer,
            line,
        }
    }

    /// All events in this time.
    async fn goes_on_for(&mut self, time: Duration) -> Vec<PeerEvent<Bytes>> {
        let mut events = Vec::new();
        let all = async {
            while let Some(event) = self.program.next().await {
                events.push(event);
            }
        };
        let _ = timeout(time, all).await;
        events
    }
}

#[tokio::test(start_paused = true)]
async fn lesson_73_a_peer_that_lives_is_asked_at_once_and_not_blamed() {
    let mut laptop = Laptop::open(config()).await;
    laptop.goes_on_for(secs(1)).await;
    let pings = laptop.program.status().peer.pings;
    laptop.machine.sleep(HOUR);
    let events = laptop.goes_on_for(ms(1)).await;
    let [PeerEvent::LocalStall { late }, PeerEvent::Beat { .. }] = &*events else {
        panic!("{events:?}");
    };
    assert!(
        (HOUR - config().interval()..HOUR).contains(late),
        "{late:?}"
    );
    assert_eq!(
        laptop.program.status().peer.pings,
        pings + 1,
        "and never a burst"
    );
    let events = laptop.goes_on_for(secs(60)).await;
    assert!(!events.iter().any(PeerEvent::is_terminal), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn a_program_that_waits_is_woken_and_learns_of_a_peer_that_is_gone_without_an_interval() {
    for spawned in [false, true] {
        let laptop = Laptop::open(config()).await;
        laptop.line.cut(Side::BOTH);
        let mut death = tokio::spawn(async move {
            let mut events = match spawned {
                true => laptop.program.spawn().receiver.boxed(),
                false => laptop.program.boxed(),
            };
            while let Some(event) = events.next().await {
                if let PeerEvent::Dead(death) = event {
                    return death;
                }
            }
            unreachable!()
        });
        sleep(secs(1)).await;
        laptop.machine.sleep(HOUR);
        let woke = Instant::now();
        let bound = config().max_missed() * config().timeout();
        let death = timeout(bound + ms(5), &mut death).await.unwrap().unwrap();
        assert_eq!(death.cause, Cause::Silent);
        assert!(woke.elapsed() >= config().timeout(), "{:?}", woke.elapsed());
        assert!(death.silent_for > HOUR, "{:?}", death.silent_for);
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_that_lay_there_while_it_slept_keep_nobody_from_asking() {
    for evidence in [Evidence::AnyBytes, Evidence::Echo] {
        let asks = config().to_builder().evidence(evidence).build().unwrap();
        let mut laptop = Laptop::open(asks).await;
        laptop.peer.sender.send("before".into()).await.unwrap();
        laptop.peer.sender.flush().await.unwrap();
        sleep(ms(1)).await;
        laptop.line.cut(Side::BOTH);
        laptop.machine.sleep(HOUR);
        let pings = laptop.program.status().peer.pings;
        let events = laptop.goes_on_for(ms(1)).await;
        assert!(
            events.contains(&PeerEvent::Message("before".into())),
            "{events:?}"
        );
        assert_eq!(
            laptop.program.status().peer.pings,
            pings + 1,
            "{evidence:?}"
        );
        let events = laptop.goes_on_for(config().detection_time()).await;
        assert!(
            matches!(events.last(), Some(PeerEvent::Dead(_))),
            "{events:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn short_naps_and_other_machines_cost_nothing() {
    let mut laptop = Laptop::open(config()).await;
    Machine::new().sleep(HOUR);
    laptop.line.cut(Side::Right); // nothing else arrives
    let status = laptop.program.status().peer;
    for _ in 0..4 {
        laptop.machine.sleep(ms(300));
        let events = laptop.goes_on_for(ms(10)).await;
        assert_eq!(events, []);
    }
    assert_eq!(laptop.program.status().peer.pings, status.pings);
    // But they count: the interval is over sooner by as much.
    let silent_for = laptop.program.status().silent_for;
    assert!(silent_for >= ms(1200), "{silent_for:?}");
    let left = config().interval() - silent_for;
    laptop.goes_on_for(left - ms(5)).await;
    assert_eq!(laptop.program.status().peer.pings, status.pings);
    laptop.goes_on_for(ms(7)).await;
    assert_eq!(laptop.program.status().peer.pings, status.pings + 1);
}

#[tokio::test(start_paused = true)]
async fn it_may_sleep_again_and_again() {
    let mut laptop = Laptop::open(config()).await;
    for _ in 0..20 {
        laptop.machine.sleep(HOUR);
        let events = laptop.goes_on_for(secs(20)).await;
        assert!(
            matches!(&*events, [PeerEvent::LocalStall { .. }, ..]),
            "{events:?}"
        );
        assert!(!events.iter().any(PeerEvent::is_terminal), "{events:?}");
    }
}
