//! What a heartbeat costs a stream of messages.
//!
//! ```text
//! cargo bench -p heartbeat-tokio --bench throughput -- [--quick] [--only TEXT] [--json FILE]
//! cargo bench -p heartbeat-tokio --bench throughput -- --only TEXT --alone inline
//! ```
//!
//! Every row is a ratio within one run: messages per second through a
//! [`Heartbeat`](heartbeat_tokio::Heartbeat), over messages per second through
//! what people have without one, a `Framed<_, LengthDelimitedCodec>` (plus a
//! far `Sleep`, because any timer at all costs a few per cent). The last rows
//! compare a spawned heartbeat with one that isn't and with a task that owns a `Framed`
//! and has a channel each way, and an inline one with what the stream
//! allows by itself. The two take turns, and the medians are compared. Payloads
//! are compared with what was sent.
//!
//! `--only` chooses the rows that begin with a text such as `feed tcp`.
//! `--at-least 0.8` fails if a row in memory and on one thread is below 0.8 of
//! its target, or of what is reached where the target is out of reach. With `--quick`
//! the other rows then run only once.
//! `--alone` compares nothing: it runs one of the two for five seconds, for a
//! profiler to look at.

mod harness;

use std::io;

use harness::{
    Arguments,
    Io::{Duplex, Tcp},
    Subject, Target,
    Work::{self, Echo, Feed, Send},
    Workers,
};

const PLAIN: Subject = subject!("framed", harness::plain);
const INLINE: Subject = subject!("inline", harness::inline);
const SPAWNED: Subject = subject!("spawned", harness::spawned);
const TASKED: Subject = subject!("tasked", harness::tasked);

/// Bytes, and nothing else.
const BARE: Subject = Subject {
    name: "bare",
    run: |job| {
        Box::pin(async move {
            match job.io {
                Duplex => {
                    let (ours, theirs) = harness::duplex();
                    harness::carry_bytes(job, ours, theirs).await
                }
                Tcp => {
                    let (ours, theirs) = harness::tcp().await;
                    harness::carry_bytes(job, ours, theirs).await
                }
            }
        })
    },
};

/// Both ends on one thread, against the plain codec.
const fn row(name: &'static str, work: Work, io: harness::Io, ratios: [f64; 5]) -> Target {
    Target {
        name,
        work,
        io,
        ratios,
        reached: ratios,
        workers: Workers::One,
        ours: INLINE,
        theirs: PLAIN,
    }
}

/// Targets that are out of reach; `docs/performance.md` says why.
const fn reaching(reached: [f64; 5], target: Target) -> Target {
    Target { reached, ..target }
}

const fn on_two_workers(target: Target) -> Target {
    Target {
        workers: Workers::Two,
        ..target
    }
}

const fn spawned(target: Target) -> Target {
    Target {
        ours: SPAWNED,
        theirs: INLINE,
        ..target
    }
}

/// What a driver is to gain over a task that owns a `Framed`.
const ACTOR: [f64; 5] = [1.5, 1.5, 1.5, 1.1, 1.1];

/// Against what people write instead.
const fn over_a_task(target: Target) -> Target {
    Target {
        ours: SPAWNED,
        theirs: TASKED,
        ..target
    }
}

/// Of small messages most of the time isn't the stream's.
const LIMIT: [f64; 5] = [0.60, 0.60, 0.60, 0.90, 0.90];

/// Against the same bytes without a heartbeat: in batches with one pass over the headers of
/// small messages, in large pieces, or there and back.
const fn of_the_limit(target: Target) -> Target {
    Target {
        theirs: BARE,
        ..target
    }
}

/// What is to be reached.
const TARGETS: [Target; 25] = [
    reaching(
        [1.20, 1.20, 1.10, 1.45, 1.30],
        row("feed", Feed, Duplex, [1.20, 1.20, 1.10, 1.45, 1.80]),
    ),
    row("feed", Feed, Tcp, [1.30, 1.50, 2.5, 3.5, 3.3]),
    reaching(
        [1.25, 1.25, 1.20, 1.45, 1.30],
        row("send", Send, Duplex, [1.25, 1.25, 1.20, 1.45, 1.80]),
    ),
    row("send", Send, Tcp, [1.05; 5]),
    reaching(
        [0.95, 0.95, 0.98, 1.25, 1.20],
        row("echo", Echo, Duplex, [1.05, 1.05, 1.12, 1.35, 1.65]),
    ),
    row("echo", Echo, Tcp, [1.00; 5]),
    on_two_workers(row("feed-on-two-workers", Feed, Duplex, [1.0; 5])),
    on_two_workers(row("feed-on-two-workers", Feed, Tcp, [1.0; 5])),
    on_two_workers(row("echo-on-two-workers", Echo, Duplex, [1.0; 5])),
    on_two_workers(row("echo-on-two-workers", Echo, Tcp, [1.0; 5])),
    reaching(
        [0.75, 0.75, 0.85, 0.85, 0.85],
        spawned(row(
            "feed-spawned",
            Feed,
            Duplex,
            [0.80, 0.80, 0.80, 0.85, 0.85],
        )),
    ),
    spawned(row("feed-spawned", Feed, Tcp, [0.85; 5])),
    reaching(
        [0.40, 0.40, 0.40, 0.70, 0.80],
        spawned(row(
            "echo-spawned",
            Echo,
            Duplex,
            [0.70, 0.70, 0.70, 0.85, 0.85],
        )),
    ),
    spawned(row("echo-spawned", Echo, Tcp, [0.85; 5])),
    reaching(
        [1.0, 1.0, 1.0, 0.80, 0.80],
        over_a_task(row("feed-over-a-task", Feed, Duplex, ACTOR)),
    ),
    over_a_task(row("feed-over-a-task", Feed, Tcp, ACTOR)),
    reaching(
        [1.0; 5],
        over_a_task(row("echo-over-a-task", Echo, Duplex, ACTOR)),
    ),
    over_a_task(row("echo-over-a-task", Echo, Tcp, ACTOR)),
    on_two_workers(over_a_task(row("feed-over-a-task-2", Feed, Duplex, ACTOR))),
    on_two_workers(over_a_task(row("feed-over-a-task-2", Feed, Tcp, ACTOR))),
    on_two_workers(over_a_task(row("echo-over-a-task-2", Echo, Duplex, ACTOR))),
    on_two_workers(over_a_task(row("echo-over-a-task-2", Echo, Tcp, ACTOR))),
    reaching(
        [0.04, 0.07, 0.33, 0.70, 0.66],
        of_the_limit(row("feed-of-the-limit", Feed, Duplex, LIMIT)),
    ),
    of_the_limit(row("feed-of-the-limit", Feed, Tcp, LIMIT)),
    of_the_limit(row("echo-of-the-limit", Echo, Tcp, [0.95; 5])),
];

fn main() -> io::Result<()> {
    harness::table(&TARGETS, &Arguments::parse())
}
