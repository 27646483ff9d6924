//! A client that learns how long its network keeps an idle connection.

use std::{error::Error, io, path::PathBuf, time::Duration};

use futures::StreamExt;
use heartbeat_examples::{arguments::duration, process};
use heartbeat_tokio::{
    Backoff, Config, Heartbeat, IntervalFile, Learner, Metered, Prober, Reconnect,
};
use tokio::{
    net::TcpStream,
    sync::mpsc,
    time::{Instant, timeout},
};

use crate::{
    SearchOptions,
    report::{Attempt, Report},
};

#[derive(clap::Args, Debug)]
pub struct Options {
    /// The server
    #[arg(value_name = "HOST:PORT")]
    server: String,
    #[command(flatten)]
    search: SearchOptions,
    /// How long one ping may go unanswered
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s")]
    timeout: Duration,
    /// Stop after this time [default: when there is nothing left to try]
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    lasting: Option<Duration>,
    /// Remember what was found in this file
    #[arg(long, value_name = "FILE", requires = "network")]
    file: Option<PathBuf>,
    /// Under this name
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// Draw the attempts into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

pub async fn run(options: Options) -> Result<(), Box<dyn Error>> {
    let config = Config::builder()
        .timeout(options.timeout)
        .min_interval(options.search.smallest.min(options.timeout))
        .build()?;
    let fresh = options.search.search()?;
    let mut file = options.file.as_ref().map(|path| {
        IntervalFile::read(path).unwrap_or_else(|error| {
            eprintln!("{error}");
            IntervalFile::empty(path)
        })
    });
    let network = options.network.unwrap_or_default();
    let search = file
        .as_ref()
        .map_or(fresh, |file| file.recall(&network, fresh));
    let learner = Learner::new(search);
    let mut report = Report::new(search);

    let (attempts, mut told) = mpsc::unbounded_channel();
    let application = tokio::spawn(application(options.server.clone(), learner.clone(), config));
    let probing = tokio::spawn(probe(options.server, learner.clone(), config, attempts));
    let ends_at = options.lasting.map(|lasting| Instant::now() + lasting);
    while options.lasting.is_some() || learner.search().next().is_some() {
        let wait = ends_at.map_or(Duration::MAX, |end| end - Instant::now());
        tokio::select! {
            attempt = timeout(wait, told.recv()) => match attempt {
                Ok(Some(attempt)) => report.add(attempt),
                _ => break,
            },
            interrupted = process::interrupted() => {
                interrupted?;
                break;
            }
        }
        if let Some(file) = &mut file {
            file.remember(&network, learner.search());
            file.write()?;
        }
    }
    application.abort();
    probing.abort();
    report.end(options.svg.as_deref(), None)
}

async fn connect(
    server: &str,
    meter: heartbeat_tokio::IdleMeter,
    config: Config,
) -> io::Result<Heartbeat<Metered<TcpStream>>> {
    let stream = timeout(config.timeout(), TcpStream::connect(server)).await??;
    stream.set_nodelay(true)?;
    let peer = Heartbeat::new(meter.over(stream), config);
    Ok(peer.with_socket(|stream| Some(stream.get_ref())))
}

/// The connection that isn't to be lost.
async fn application(address: String, learner: Learner, config: Config) {
    let mut server = Reconnect::new(Backoff::default(), || {
        connect(&address, learner.meter(), learner.config(&config))
    })
    .learning(learner.clone());
    loop {
        let mut peer = server.connect().await;
        while let Some(event) = peer.next().await {
            server.note(&event);
            // The safe interval is one that the peer goes along with.
            let _ = peer.set_interval(learner.interval());
            if event.is_terminal() {
                println!("the connection itself was lost: {event}");
            }
        }
    }
}

/// The connections that may be lost.
async fn probe(
    address: String,
    learner: Learner,
    config: Config,
    attempts: mpsc::UnboundedSender<Attempt>,
) {
    let began_at = Instant::now();
    let mut prober = Prober::new(learner.clone(), config, Backoff::default());
    loop {
        let probe = prober
            .attempt(|meter, config| connect(&address, meter, config))
            .await;
        let attempt = Attempt {
            ended_at: began_at.elapsed(),
            interval: probe.interval,
            outcome: probe.outcome,
            search: learner.search(),
        };
        if attempts.send(attempt).is_err() {
            return;
        }
    }
}
