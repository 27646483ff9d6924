//! Weeks and years of connections through the real adapter, in virtual time.
//!
//! Each connection lives on a line of its own. Messages and faults come at random. A fault
//! that a connection has to survive must not end it. Any other one must be reported on
//! both sides, in time and as what it is. Then the next connection begins.
//!
//! ```text
//! HEARTBEAT_CONNECTIONS=1000 HEARTBEAT_DAYS=7 cargo test --workspace --release \
//!     --test virtual_time -- --nocapture long_runs
//! ```

use std::{collections::BTreeMap, env, time::Duration};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use heartbeat_tests::{few_or_all, ms, scripted::runtime, secs};
use heartbeat_tokio::{
    Cause, CloseReason, Config, GoodbyeCode, Heartbeat, PeerEvent,
    testkit::{Line, LineEnd, Side},
};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout_at},
};

/// How long each way takes at most.
const SLOWEST: Duration = ms(200);

/// How long a connection lives on average before it has its last fault.
const LIFE: Duration = secs(4 * 3600);

#[test]
fn nobody_is_given_up_who_lives_and_every_death_is_known_on_both_sides() {
    let connections: u64 = knob("HEARTBEAT_CONNECTIONS", 20);
    let days: f64 = knob("HEARTBEAT_DAYS", few_or_all(0.05, 0.4));
    let length = secs(86_400).mul_f64(days);
    let mut tally = BTreeMap::new();
    runtime().block_on(async {
        let until = Instant::now() + length;
        let mut all = JoinSet::new();
        for seed in 0..connections {
            all.spawn(lives(seed, until));
        }
        while let Some(seen) = all.join_next().await {
            for (what, count) in seen.expect("every rule holds") {
                *tally.entry(what).or_insert(0_u64) += count;
            }
        }
    });
    println!("{connections} connections, {days} days: {tally:?}");
    let faults = Fault::ALL.map(|fault| tally.get(fault.name()).copied().unwrap_or(0));
    let expected = length.as_secs() / LIFE.as_secs() * connections / 40;
    assert!(faults.iter().all(|&count| count >= expected), "{tally:?}");
}

fn knob<T: std::str::FromStr<Err: std::fmt::Debug>>(name: &str, default: T) -> T {
    env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

type Tally = BTreeMap<&'static str, u64>;

/// One connection after the other.
async fn lives(seed: u64, until: Instant) -> Tally {
    let mut dice = SmallRng::seed_from_u64(seed);
    let mut tally = Tally::new();
    while Instant::now() < until {
        live(&mut dice, &mut tally).await;
    }
    tally
}

async fn live(dice: &mut SmallRng, tally: &mut Tally) {
    let config = Config::default();
    let (left, right, line) = Line::pair();
    for side in Side::BOTH {
        line.delay(side, SLOWEST.mul_f64(dice.random()));
    }
    let mut left = End::start(left, config, dice.random());
    let mut right = End::start(right, config, dice.random());
    let end = Instant::now() + LIFE.mul_f64(2.0 * dice.random::<f64>());
    while Instant::now() < end {
        sleep(secs(3600).mul_f64(dice.random())).await;
        nuisance(&line, config, dice, tally).await;
        for end in [&mut left, &mut right] {
            let early = timeout_at(Instant::now(), &mut end.outcome).await;
            assert!(early.is_err(), "it lives: {early:?}");
        }
    }
    let fault = Fault::ALL[dice.random_range(0..Fault::ALL.len())];
    *tally.entry(fault.name()).or_insert(0) += 1;
    let since = Instant::now();
    let expected = fault.happen(&line, &mut left);
    let limit = since + config.detection_time() + 4 * SLOWEST + ms(1);
    for (end, expected) in [left, right].into_iter().zip(expected) {
        let Some(expected) = expected else {
            end.task.abort();
            continue;
        };
        let outcome = timeout_at(limit, end.outcome).await;
        let Ok(Ok(outcome)) = outcome else {
            panic!("{fault:?}: nothing after {:?}", since.elapsed());
        };
        assert!(expected(&outcome), "{fault:?}: {outcome:?}");
    }
}

/// What every connection survives: an outage that is shorter than N·W, less a round
/// trip, or a line that gets slower or faster.
async fn nuisance(line: &Line, config: Config, dice: &mut SmallRng, tally: &mut Tally) {
    let survives = config.max_missed() * config.timeout() - 4 * SLOWEST;
    let length = survives.mul_f64(dice.random());
    let sides: &[Side] = match dice.random_range(0..3) {
        0 => &[Side::Left],
        1 => &[Side::Right],
        _ => &Side::BOTH,
    };
    let sides = || sides.iter().copied();
    let what = match dice.random_range(0..3) {
        0 => {
            line.cut(sides());
            sleep(length).await;
            line.mend(sides());
            "outage"
        }
        1 => {
            line.limit_rate(sides(), dice.random_range(200..10_000));
            sleep(10 * length).await;
            line.limit_rate(sides(), 0);
            "slow line"
        }
        _ => {
            line.delay(sides(), SLOWEST.mul_f64(dice.random()));
            "other delay"
        }
    };
    *tally.entry(what).or_insert(0) += 1;
}

/// What ends a connection.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Cut,
    CutOneWay,
    Freeze,
    Reset,
    Killed,
    TimedOut,
    Goodbye,
}

type Expected = fn(&PeerEvent<Bytes>) -> bool;

impl Fault {
    const ALL: [Self; 7] = [
        Self::Cut,
        Self::CutOneWay,
        Self::Freeze,
        Self::Reset,
        Self::Killed,
        Self::TimedOut,
        Self::Goodbye,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::CutOneWay => "cut one way",
            Self::Freeze => "freeze",
            Self::Reset => "reset",
            Self::Killed => "killed",
            Self::TimedOut => "timed out",
            Self::Goodbye => "goodbye",
        }
    }

    /// Makes it happen on the left. Says what each side has to report.
    fn happen(self, line: &Line, left: &mut End) -> [Option<Expected>; 2] {
        let silent: Expected = |event| died(event, |cause| matches!(cause, Cause::Silent));
        let given_up: Expected = |event| {
            died(event, |cause| {
                matches!(cause, Cause::Silent | Cause::GivenUp { .. } | Cause::Reset)
            })
        };
        let stuck: Expected = |event| {
            died(event, |cause| {
                matches!(cause, Cause::Silent | Cause::WriteStalled)
            })
        };
        let reset: Expected = |event| died(event, |cause| matches!(cause, Cause::Reset));
        let gone: Expected =
            |event| died(event, |cause| matches!(cause, Cause::Eof | Cause::Reset));
        let timed_out: Expected = |event| died(event, |cause| matches!(cause, Cause::TimedOut));
        let left_in_order: Expected = |event| {
            let reason = |reason: &CloseReason| *reason == CloseReason::Local;
            matches!(event, PeerEvent::Closed { reason: why } if reason(why))
        };
        let told: Expected = |event| {
            matches!(
                event,
                PeerEvent::Closed {
                    reason: CloseReason::Peer {
                        code: GoodbyeCode::LEAVING,
                        ..
                    }
                }
            )
        };
        match self {
            Self::Cut => {
                line.cut(Side::BOTH);
                [Some(silent), Some(silent)]
            }
            Self::CutOneWay => {
                line.cut(Side::Left);
                [Some(given_up), Some(silent)]
            }
            Self::Freeze => {
                line.freeze(Side::Left);
                [Some(stuck), Some(silent)]
            }
            Self::Reset => {
                line.reset();
                [Some(reset), Some(reset)]
            }
            Self::Killed => {
                left.task.abort();
                [None, Some(gone)]
            }
            Self::TimedOut => {
                line.fail(Side::Left, std::io::ErrorKind::TimedOut);
                // That kernel doesn't tell the other side, whose next ping gets no answer.
                [Some(timed_out), Some(|event| died(event, |_| true))]
            }
            Self::Goodbye => {
                let leave = left.leave.take().expect("once");
                leave.send(()).expect("it lives");
                [Some(left_in_order), Some(told)]
            }
        }
    }
}

fn died(event: &PeerEvent<Bytes>, cause: impl Fn(&Cause) -> bool) -> bool {
    matches!(event, PeerEvent::Dead(death) if cause(&death.cause))
}

/// One end of a connection, in a task of its own.
struct End {
    task: tokio::task::JoinHandle<()>,
    outcome: oneshot::Receiver<PeerEvent<Bytes>>,
    leave: Option<oneshot::Sender<()>>,
}

impl End {
    fn start(stream: LineEnd, config: Config, seed: u64) -> Self {
        let (report, outcome) = oneshot::channel();
        let (leave, leaves) = oneshot::channel();
        let task = tokio::spawn(async move {
            let heartbeat = Heartbeat::new(stream, config);
            let last = converse(heartbeat, leaves, SmallRng::seed_from_u64(seed)).await;
            let _ = report.send(last);
        });
        let leave = Some(leave);
        Self {
            task,
            outcome,
            leave,
        }
    }
}

/// Sends numbered messages now and then, expects the peer's in order, and gives the last
/// event.
async fn converse(
    mut heartbeat: Heartbeat<LineEnd>,
    mut leaves: oneshot::Receiver<()>,
    mut dice: SmallRng,
) -> PeerEvent<Bytes> {
    let (mut sent, mut received) = (0_u64, 0_u64);
    let mut next = Instant::now();
    let mut may_leave = true;
    loop {
        tokio::select! {
            event = heartbeat.next() => match event.expect("a last event") {
                PeerEvent::Message(message) => {
                    assert_eq!(message[..8], received.to_be_bytes(), "in order");
                    received += 1;
                }
                last if last.is_terminal() => {
                    assert!(heartbeat.next().await.is_none(), "nothing follows");
                    return last;
                }
                PeerEvent::LocalStall { late } => panic!("a punctual runtime: {late:?}"),
                _ => {}
            },
            () = sleep_until(next) => {
                let size = if dice.random_ratio(1, 50) { 2_000 } else { 8 };
                let mut message = sent.to_be_bytes().to_vec();
                message.resize(size, 0);
                if heartbeat.send(message.into()).await.is_ok() {
                    sent += 1;
                }
                next = Instant::now() + secs(600).mul_f64(dice.random::<f64>().powi(3));
            }
            order = &mut leaves, if may_leave => {
                may_leave = false;
                if order.is_ok() {
                    heartbeat.close().await.expect("the peer confirms it");
                }
            }
        }
    }
}
