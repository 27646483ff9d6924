//! The fleet in a terminal: a picture where there is one, and lines elsewhere.

use std::{
    error::Error,
    io::{IsTerminal, stdout},
    pin::pin,
    time::Duration,
};

use clap::Args;
use futures::{StreamExt, stream};
use heartbeat_examples::process;
use tokio::time::interval;

use crate::{
    Timings,
    message::{View, promises},
    presence::Fleet,
};

#[derive(Args, Clone)]
pub struct Options {
    /// Where Redis is
    #[arg(long, value_name = "URL", default_value = "redis://127.0.0.1/")]
    redis: String,
    #[command(flatten)]
    timings: Timings,
}

pub async fn run(options: Options) -> Result<(), Box<dyn Error>> {
    let store = redis::Client::open(&*options.redis)?;
    let promises = promises(options.timings.terms());
    tokio::select! {
        () = show(store, promises) => Ok(()),
        interrupted = process::interrupted() => Ok(interrupted?),
    }
}

/// Never ends.
pub async fn show(store: redis::Client, promises: Vec<String>) {
    if !stdout().is_terminal() {
        let (mut fleet, mut said) = (Fleet::new(store), String::new());
        loop {
            let line = match fleet.next().await {
                Ok(announcement) => announcement.to_string(),
                Err(error) => format!("* the store can't be asked: {error}"),
            };
            // An error comes again until it is over; no announcement does.
            if line != said || !line.starts_with('*') {
                println!("{line}");
            }
            said = line;
        }
    }
    let mut view = View {
        promises,
        ..View::default()
    };
    let mut rosters = Fleet::new(store.clone());
    // As a stream, so that a tick doesn't interrupt what waits for news.
    let mut news = pin!(stream::unfold(Fleet::new(store), async |mut fleet| {
        Some((fleet.next().await, fleet))
    }));
    let mut each = interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            Some(told) = news.next() => if let Ok(told) = told {
                view.news.insert(0, told.to_string());
                view.news.truncate(12);
            },
            _ = each.tick() => {
                view.standing = match rosters.roster().await {
                    Ok(roster) => {
                        view.show(&roster);
                        String::new()
                    }
                    Err(error) => format!("STALE: {error}"),
                };
                print!("\x1b[2J\x1b[H{}", picture(&view));
            }
        }
    }
}

fn picture(view: &View) -> String {
    let mut lines = view.promises.clone();
    lines.push(format!(
        "\n{} users are present {}",
        view.present, view.standing
    ));
    for place in &view.gateways {
        let Some(bar) = place.connections.checked_div(10) else {
            continue;
        };
        let (name, lease) = (&place.name, place.lease_ms);
        let bar = "#".repeat(bar.min(40));
        lines.push(format!(
            "  {name:10} lease {lease:6} ms  {:6} {bar}",
            place.connections
        ));
    }
    let away = view.users.iter().filter(|user| user.at.is_empty()).count();
    lines.push(format!("  {:10} {away:25}\n", "away"));
    lines.extend(view.news.iter().cloned());
    lines.join("\n") + "\n"
}
