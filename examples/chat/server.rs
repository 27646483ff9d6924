//! The server: listens for terminals and for pages, and ends politely.

use std::{error::Error, io, time::Duration};

use heartbeat_examples::process;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::{
    net::TcpListener,
    time::{interval, sleep},
};

use crate::{ServerOptions, config, member, room::Room, web};

pub async fn run(options: ServerOptions) -> Result<(), Box<dyn Error>> {
    let config = config(options.detect_within)?;
    // Before the first connection, so that nothing goes uncounted.
    let metrics = PrometheusBuilder::new().install_recorder()?;

    let terminals = TcpListener::bind(options.tcp).await?;
    let pages = TcpListener::bind(options.http).await?;
    let address = terminals.local_addr()?;
    println!("http://{}/", pages.local_addr()?);
    println!("cargo run --example chat -- client --server {address} --name YOURS");

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

/// There may be no file descriptors left; somebody will give one back.
async fn pause_after(error: &io::Error) {
    eprintln!("{error}");
    sleep(Duration::from_millis(200)).await;
}
