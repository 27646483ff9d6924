//! The server: listens for terminals and for pages, and ends politely.

use std::{error::Error, io, time::Duration};

use heartbeat_examples::process;
use metrics::{describe_counter, describe_gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::{
    net::TcpListener,
    time::{interval, sleep},
};

use crate::{ServerOptions, config, member, room::Room, web};

pub async fn run(options: ServerOptions) -> Result<(), Box<dyn Error>> {
    let config = config(options.detect_within)?;
    // Before the first connection, so that nothing goes uncounted.
    let metrics = count(config.detection_time())?;

    let terminals = TcpListener::bind(options.tcp).await?;
    let pages = TcpListener::bind(options.http).await?;
    let address = terminals.local_addr()?;
    println!("http://{}/", pages.local_addr()?);
    println!("cargo run -p chat -- client --server {address} --name YOURS");

    let room = Room::new(config, address, options.quiet);
    for _ in 0..options.bots {
        room.add_bot()?;
    }
    let app = web::app(room.clone(), metrics.clone());
    let tidy_up = async {
        let mut each = interval(Duration::from_secs(5));
        loop {
            each.tick().await;
            metrics.run_upkeep();
        }
    };
    tokio::select! {
        served = axum::serve(pages, app) => served?,
        () = accept(terminals, &room) => {}
        () = room.show() => {}
        () = tidy_up => {}
        interrupted = process::interrupted() => interrupted?,
    }
    room.close().await;
    Ok(())
}

/// What `/metrics` shows: of every heartbeat, and of the chat. Nothing listens.
fn count(detection_time: Duration) -> Result<PrometheusHandle, BuildError> {
    let seconds = [
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    ];
    let limit = detection_time.as_secs_f64();
    let longer = [0.25, 0.5, 0.75, 1.0, 1.25].map(|part| part * limit);
    let mut buckets = [&seconds[..], &longer[..]].concat();
    buckets.sort_by(f64::total_cmp);
    buckets.dedup();
    let metrics = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Prefix("heartbeat_".into()), &buckets)?
        .install_recorder()?;
    heartbeat_tokio::describe_metrics();
    describe_gauge!("chat_members", "Who is in the room.");
    describe_counter!("chat_messages_total", "Lines that were said.");
    describe_counter!("chat_departures_total", "Members that have left, and how.");
    describe_counter!(
        "chat_refused_total",
        "Connections that didn't say who they are."
    );
    describe_counter!(
        "chat_unsent_total",
        "What a member that doesn't read has missed."
    );
    Ok(metrics)
}

async fn accept(listener: TcpListener, room: &Room) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                let peer = member::terminal(stream, room.config());
                tokio::spawn(member::serve(room.clone(), peer, false));
            }
            Err(error) => pause_after(&error).await,
        }
    }
}

/// File descriptors may be exhausted; one will be freed.
async fn pause_after(error: &io::Error) {
    eprintln!("{error}");
    sleep(Duration::from_millis(200)).await;
}
