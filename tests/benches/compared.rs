//! What carrying messages costs with a heartbeat, and with what people have
//! instead of it.
//!
//! ```text
//! cargo bench -p heartbeat-tests --bench compared -- [--quick] [--only TEXT] [--json FILE]
//! cargo bench -p heartbeat-tests --bench compared -- --only TEXT --alone yamux
//! ```
//!
//! Every row is a ratio within one run: messages per second through a
//! [`Heartbeat`](heartbeat_tokio::Heartbeat), over messages per second through
//! one of the [`peers`], which look after their connection too, each in its own
//! way. Both ends are on one thread and take turns; the harness, and what its
//! arguments mean, is that of `heartbeat-tokio`'s benchmark `throughput`.

#[path = "../../heartbeat-tokio/benches/harness/mod.rs"]
mod harness;
mod peers;

use std::io;

use harness::{
    Arguments,
    Io::{Duplex, Tcp},
    Subject, Target,
    Work::{self, Echo, Feed},
    Workers,
};

const INLINE: Subject = subject!("inline", harness::inline);

const PASTED: Subject = subject!("pasted", peers::hand::pasted);
const TAGGED: Subject = subject!("tagged", peers::hand::tagged);
const YAMUX: Subject = subject!("yamux", peers::yamux::stream);
const WEBSOCKET: Subject = subject!("websocket", peers::websocket::large_reads);
const WEBSOCKET_ECHO: Subject = subject!("websocket", peers::websocket::small_reads);
const H2: Subject = subject!("h2", peers::http2::bodies);

const fn row(name: &'static str, work: Work, io: harness::Io, theirs: Subject) -> Target {
    Target {
        name,
        work,
        io,
        theirs,
        workers: Workers::One,
        ours: INLINE,
        ratios: [1.0; 5],
        reached: [1.0; 5],
    }
}

const TARGETS: [Target; 20] = [
    row("feed-vs-pasted", Feed, Duplex, PASTED),
    row("feed-vs-pasted", Feed, Tcp, PASTED),
    row("echo-vs-pasted", Echo, Duplex, PASTED),
    row("echo-vs-pasted", Echo, Tcp, PASTED),
    row("feed-vs-tagged", Feed, Duplex, TAGGED),
    row("feed-vs-tagged", Feed, Tcp, TAGGED),
    row("echo-vs-tagged", Echo, Duplex, TAGGED),
    row("echo-vs-tagged", Echo, Tcp, TAGGED),
    row("feed-vs-yamux", Feed, Duplex, YAMUX),
    row("feed-vs-yamux", Feed, Tcp, YAMUX),
    row("echo-vs-yamux", Echo, Duplex, YAMUX),
    row("echo-vs-yamux", Echo, Tcp, YAMUX),
    row("feed-vs-websocket", Feed, Duplex, WEBSOCKET),
    row("feed-vs-websocket", Feed, Tcp, WEBSOCKET),
    row("echo-vs-websocket", Echo, Duplex, WEBSOCKET_ECHO),
    row("echo-vs-websocket", Echo, Tcp, WEBSOCKET_ECHO),
    row("feed-vs-h2", Feed, Duplex, H2),
    row("feed-vs-h2", Feed, Tcp, H2),
    row("echo-vs-h2", Echo, Duplex, H2),
    row("echo-vs-h2", Echo, Tcp, H2),
];

fn main() -> io::Result<()> {
    harness::table(&TARGETS, &Arguments::parse())
}
