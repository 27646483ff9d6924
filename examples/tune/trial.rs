//! The same on a network of namespaces: real heartbeats, real sockets, two real
//! kernels, and a line between them that delays and loses packets.
//!
//! All connections are made over a line without losses. Then losses begin, and the
//! connections are watched: a side that gives its peer up raises a false alarm. At last the
//! line is cut, and the remaining connections detect that.
//!
//! There are no outages: one would befall all connections at once, and be only
//! one.

use std::time::Duration;

use heartbeat_tokio::Config;
use serde::Serialize;

use crate::{
    statistics::{Rate, Spread},
    wishes::Path,
};

#[cfg(target_os = "linux")]
pub use linux::{available, run};

/// What was seen.
#[derive(Debug, Serialize)]
pub struct Trial {
    pub connections: usize,
    pub seconds: f64,
    pub count: u64,
    pub days: f64,
    pub of_one: Rate,
    pub detection: Spread,
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        collections::HashMap,
        io,
        sync::mpsc::{Sender, channel},
        thread,
        time::Instant,
    };

    use futures::StreamExt;
    use heartbeat_examples::{
        network::{Network, RIGHT},
        process,
        relay::{Line, Relay},
    };
    use heartbeat_tokio::{Heartbeat, PeerEvent};
    use indicatif::{ProgressBar, ProgressStyle};
    use tokio::{
        net::{TcpListener, TcpStream},
        runtime::Builder,
        sync::{oneshot, watch},
        task::JoinSet,
        time::sleep,
    };

    use super::{Config, Duration, Path, Rate, Spread, Trial};

    /// How long all connections may take to be made.
    const GIVE_UP_AFTER: Duration = Duration::from_secs(60);

    const BETWEEN_CONNECTIONS: Duration = Duration::from_millis(10);

    /// What an end of a connection has to tell.
    enum News {
        /// The other one is there.
        Connected,
        Ended(Ended),
    }

    /// It has given its terminal event.
    struct Ended {
        /// Which connection: the port of the one that connected.
        port: u16,
        at: Instant,
    }

    /// Whether there can be such a network. It may start this program anew.
    pub fn available() -> io::Result<()> {
        let network = Network::new().inspect_err(|_| process::become_root())?;
        Relay::is_possible(&network)
    }

    /// Watches a number of connections for a time, or until all are gone.
    pub fn run(
        path: &Path,
        config: &Config,
        connections: usize,
        lasting: Duration,
    ) -> io::Result<Trial> {
        let network = Network::new()?;
        let line = Line {
            delay: path.rtt / 2,
            jitter: path.jitter,
            loss: path.loss,
        };
        let relay = Relay::start(&network, line)?;
        let (tell, news) = channel();
        let (stop, stopped) = watch::channel(false);
        let (left, right) = (network.left.try_clone()?, network.right.try_clone()?);
        let (listening, listens) = oneshot::channel();
        let config = *config;

        let (tell_right, stopped_right) = (tell.clone(), stopped.clone());
        let server = thread::spawn(move || {
            let serving = async move {
                let listener = TcpListener::bind((RIGHT, 0)).await?;
                let _ = listening.send(listener.local_addr()?);
                let mut peers = JoinSet::new();
                for _ in 0..connections {
                    let (stream, peer) = listener.accept().await?;
                    stream.set_nodelay(true)?;
                    peers.spawn(watch_over(stream, peer.port(), config, tell_right.clone()));
                }
                until(stopped_right).await;
                Ok(())
            };
            right.move_in().and_then(|()| on_one_thread(serving))
        });
        let client = thread::spawn(move || {
            let connecting = async move {
                let server = listens.await.map_err(io::Error::other)?;
                let mut peers = JoinSet::new();
                for _ in 0..connections {
                    let tell = tell.clone();
                    peers.spawn(async move {
                        let stream = TcpStream::connect(server).await?;
                        stream.set_nodelay(true)?;
                        let port = stream.local_addr()?.port();
                        watch_over(stream, port, config, tell).await;
                        io::Result::Ok(())
                    });
                    // In a crowd the line would be slow, which TCP remembers.
                    sleep(BETWEEN_CONNECTIONS).await;
                }
                until(stopped).await;
                Ok(())
            };
            left.move_in().and_then(|()| on_one_thread(connecting))
        });
        let deadline = Instant::now() + GIVE_UP_AFTER;
        let mut connected = 0;
        while connected < 2 * connections {
            match news.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(News::Connected) => connected += 1,
                _ => return Err(io::Error::other("not all could be connected")),
            }
        }

        relay.lose();
        let begun = Instant::now();
        wait(lasting, "on a network");
        relay.cut();
        let cut = Instant::now();
        // A late verdict here is a bug, or an overloaded machine.
        wait(
            config.detection_time() * 2 + path.longest_round_trip(),
            "their end",
        );
        stop.send_replace(true);
        for thread in [server, client] {
            thread
                .join()
                .map_err(|_| io::Error::other("an end panicked"))??;
        }

        let mut first = HashMap::new();
        let mut detections = Vec::new();
        let ends = news.try_iter().filter_map(|news| match news {
            News::Ended(ended) => Some(ended),
            News::Connected => None,
        });
        let ends: Vec<_> = ends.collect();
        for Ended { port, at } in &ends {
            let earliest = first.entry(*port).or_insert(*at);
            *earliest = (*earliest).min(*at);
        }
        for Ended { port, at } in &ends {
            if first.get(port).is_some_and(|first| *first >= cut) {
                detections.push(*at - cut);
            }
        }
        detections.sort();
        let alarms: Vec<_> = first.values().filter(|at| **at < cut).collect();
        let whole = (connections - alarms.len()) as f64 * (cut - begun).as_secs_f64();
        let parts = alarms
            .iter()
            .map(|at| at.saturating_duration_since(begun).as_secs_f64());
        let days = (whole + parts.sum::<f64>()) / 86_400.0;
        let count = alarms.len() as u64;
        Ok(Trial {
            connections,
            seconds: (cut - begun).as_secs_f64(),
            count,
            days,
            of_one: Rate::of(count, days),
            detection: Spread::of(&detections),
        })
    }

    async fn watch_over(stream: TcpStream, port: u16, config: Config, tell: Sender<News>) {
        let mut peer = Heartbeat::new(stream, config);
        while let Some(event) = peer.next().await {
            let news = match event {
                PeerEvent::Connected { .. } => News::Connected,
                PeerEvent::Dead(_) | PeerEvent::Closed { .. } => News::Ended(Ended {
                    port,
                    at: Instant::now(),
                }),
                _ => continue,
            };
            let _ = tell.send(news);
        }
    }

    async fn until(mut stopped: watch::Receiver<bool>) {
        let _ = stopped.wait_for(|stop| *stop).await;
    }

    fn on_one_thread(run: impl Future<Output = io::Result<()>>) -> io::Result<()> {
        Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(run)
    }

    /// With a progress bar if it is a terminal.
    fn wait(lasting: Duration, what: &'static str) {
        let style = ProgressStyle::with_template("{msg:>12} {wide_bar} {eta:>4}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(lasting.as_millis() as u64).with_style(style);
        bar.set_message(what);
        let begun = Instant::now();
        while let Some(left) = lasting
            .checked_sub(begun.elapsed())
            .filter(|left| !left.is_zero())
        {
            thread::sleep(left.min(Duration::from_millis(200)));
            bar.set_position(begun.elapsed().as_millis() as u64);
        }
        bar.finish_and_clear();
    }
}

#[cfg(not(target_os = "linux"))]
pub use elsewhere::{available, run};

/// Network namespaces are Linux'.
#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use std::io;

    use super::{Config, Duration, Path, Trial};

    pub fn available() -> io::Result<()> {
        Err(io::Error::other("only Linux has network namespaces"))
    }

    pub fn run(_: &Path, _: &Config, _: usize, _: Duration) -> io::Result<Trial> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
