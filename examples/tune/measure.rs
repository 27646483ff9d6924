//! What a network is like, from the round trips of beats: a file of them, or
//! those of a peer that is asked.
//!
//! A round trip that took at least 200 ms longer than the usual one wasn't slow:
//! something was lost, and TCP has repeated it. The others tell the delay.

use std::{fs, path::Path, time::Duration};

use futures::StreamExt;
use heartbeat_examples::arguments::duration;
use heartbeat_tokio::{Config, Heartbeat, PeerEvent};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::{net::TcpStream, runtime::Builder, time::timeout};

/// The shortest time after which TCP repeats something, above the round trip.
const REPEATED: Duration = Duration::from_millis(200);

/// How long to wait for a connection, or for one more answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What round trips tell of a network.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    pub rtt: Duration,
    pub jitter: Duration,
    pub loss: f64,
}

impl Found {
    /// Of none it is a perfect one.
    pub fn in_round_trips(round_trips: &[Duration]) -> Self {
        let mut ordered = round_trips.to_vec();
        ordered.sort();
        let usual = ordered.get(ordered.len() / 2).copied().unwrap_or_default();
        let whole = ordered.partition_point(|time| *time < usual + REPEATED);
        let shortest = ordered.first().copied().unwrap_or_default();
        let longest = ordered[..whole].last().copied().unwrap_or_default();
        let repeated = (ordered.len() - whole) as f64 / ordered.len().max(1) as f64;
        Self {
            rtt: shortest,
            // There and back.
            jitter: (longest - shortest) / 2,
            // That neither of the two was lost.
            loss: 1.0 - (1.0 - repeated).sqrt(),
        }
    }
}

/// One round trip a line. Empty lines and those that begin with # don't count.
pub fn read(path: &Path) -> Result<Vec<Duration>, String> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = fs::read_to_string(path).map_err(|error| named(&error))?;
    let lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let round_trips = lines.map(|(number, line)| {
        duration(line).map_err(|error| named(&format!("line {number}: {error}")))
    });
    let round_trips = round_trips.collect::<Result<Vec<_>, _>>()?;
    match round_trips.len() {
        0 | 1 => Err(named(&"at least two round trips are needed, one a line")),
        _ => Ok(round_trips),
    }
}

/// Measures this number of round trips to a peer that runs this crate.
pub fn ask(peer: &str, samples: u32) -> Result<Vec<Duration>, String> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let asked = runtime
        .map_err(|error| error.to_string())?
        .block_on(beats(peer, samples));
    asked.map_err(|error| format!("{peer}: {error}"))
}

async fn beats(peer: &str, samples: u32) -> Result<Vec<Duration>, String> {
    let connected = timeout(PATIENCE, TcpStream::connect(peer)).await;
    let connected = connected.map_err(|_| format!("no connection within {PATIENCE:?}"))?;
    let stream = connected.map_err(|error| error.to_string())?;
    let set = stream.set_nodelay(true);
    set.map_err(|error| error.to_string())?;
    // We ask as often as the peer accepts.
    let config = Config::builder()
        .interval(Duration::from_millis(10))
        .timeout(PATIENCE)
        .jitter(0.0)
        .build()
        .map_err(|error| error.to_string())?;
    let style = ProgressStyle::with_template("{msg:>12} {wide_bar} {pos}/{len}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(samples.into()).with_style(style);
    bar.set_message("round trips");

    let mut heartbeat = Heartbeat::new(stream, config);
    let mut round_trips = Vec::new();
    while round_trips.len() < samples as usize {
        let event = timeout(PATIENCE, heartbeat.next()).await;
        match event.map_err(|_| format!("no beat within {PATIENCE:?}"))? {
            Some(PeerEvent::Connected { .. }) => heartbeat.probe(),
            Some(PeerEvent::Beat { rtt }) => {
                bar.inc(1);
                round_trips.push(rtt);
                heartbeat.probe();
            }
            Some(PeerEvent::Dead(death)) => return Err(format!("the peer is {death}")),
            Some(PeerEvent::Closed { .. }) | None => return Err("the peer hung up".into()),
            _ => {}
        }
    }
    bar.finish_and_clear();
    Ok(round_trips)
}
