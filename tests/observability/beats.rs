//! What a beat costs, and what it costs more when it is watched.
//!
//! ```text
//! cargo bench -p heartbeat-tests --bench beats
//! cargo bench -p heartbeat-tests --bench beats --no-default-features
//! ```
//!
//! The second is without the features `metrics` and `tracing`. A beat is a probe
//! over a stream in memory, with both ends in one thread: asked, answered, told.
//! With both ends, everything that is counted or logged is so twice or more.

#![allow(clippy::unwrap_used, reason = "a benchmark that fails has to stop")]

use std::{
    fs,
    sync::LazyLock,
    time::{Duration, Instant},
};

use futures::StreamExt;
use heartbeat_tokio::{Config, Heartbeat, PeerEvent};
use tokio::{net::TcpStream, runtime::Builder};

const BEATS: u32 = 20_000;
const ROUNDS: usize = 15;

fn main() {
    println!(
        "size of a Heartbeat: {} bytes",
        size_of::<Heartbeat<TcpStream>>()
    );
    report("nobody listens");
    #[cfg(feature = "observability")]
    watched::all();
}

fn report(who: &str) {
    let mut rounds: Vec<_> = (0..ROUNDS).map(|_| round()).collect();
    rounds.sort_unstable();
    let nanos = |time: Duration| time.as_nanos() / u128::from(BEATS);
    let (median, best) = (rounds.get(ROUNDS / 2), rounds.first());
    println!(
        "{who:<40} {:>6} ns a beat, at best {:>6}",
        nanos(*median.unwrap()),
        nanos(*best.unwrap()),
    );
}

fn round() -> Duration {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (ours, theirs) = tokio::io::duplex(1024);
        // As fast as the peer answers.
        let config = Config::lan()
            .to_builder()
            .min_interval(Duration::from_micros(1));
        let config = config.build().unwrap();
        let (mut asks, mut answers) =
            (Heartbeat::new(ours, config), Heartbeat::new(theirs, config));
        tokio::spawn(async move { while answers.next().await.is_some() {} });
        let mut beats = 0;
        let began = used();
        asks.probe();
        while beats < BEATS {
            let event = asks.next().await.unwrap();
            assert!(!event.is_terminal(), "{event}");
            if let PeerEvent::Beat { .. } = event {
                beats += 1;
                asks.probe();
            }
        }
        used() - began
    })
}

/// The processor's time that this thread has used, which others don't add to;
/// where the system doesn't say, the time that has passed.
fn used() -> Duration {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    let scheduled = fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = scheduled.and_then(|text| text.split(' ').next()?.parse().ok());
    nanos.map_or_else(|| BEGAN.elapsed(), Duration::from_nanos)
}

#[cfg(feature = "observability")]
mod watched {
    use std::io;

    use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
    use tracing::Level;

    use super::report;

    pub(super) fn all() {
        metered(|| report("metrics, for Prometheus"));
        for level in [Level::INFO, Level::DEBUG, Level::TRACE] {
            logged(level, || report(&format!("log at {level}, thrown away")));
        }
        metered(|| logged(Level::INFO, || report("metrics, and log at INFO")));
    }

    fn metered(run: impl FnOnce()) {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Prefix("heartbeat_".into()), &[0.001, 0.1, 1.0])
            .unwrap()
            .build_recorder();
        metrics::with_local_recorder(&recorder, run);
    }

    fn logged(level: Level, run: impl FnOnce()) {
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_writer(io::sink)
            .finish();
        tracing::subscriber::with_default(subscriber, run);
    }
}
