//! A gateway: holds clients over TCP and WebSockets, and keeps their presence.
//!
//! This module decides which end of a connection is a goodbye, and what a page is shown.
//! Copy [`serve`].

use std::{error::Error, net::SocketAddr, sync::Arc, time::Duration};

use axum::extract::{ConnectInfo, ws::WebSocket};
use clap::Args;
use heartbeat_examples::process;
use heartbeat_tokio::{
    CloseReason, Config, Driver, GoodbyeCode, Heartbeat, PeerEvent, Receiver,
    websocket::{OwnFrames, TcpSocket},
};
use metrics::gauge;
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Timings,
    message::{Message, News, View, promises},
    presence::{Fleet, Presence, Terms},
    web,
};

/// How often a page is shown something new.
const EACH: Duration = Duration::from_millis(500);

/// The most announcements that a page lists, the latest first.
const NEWS: usize = 30;

/// How long a graceful end may take: of the connections, and then of the lease.
const CLOSES_WITHIN: Duration = Duration::from_secs(10);

/// The longest name of a user, in characters.
const LONGEST_NAME: usize = 60;

/// The goodbye to a client without a valid name.
const NO_NAME: GoodbyeCode = GoodbyeCode(64);

#[derive(Args, Clone)]
pub struct Options {
    /// Where Redis is
    #[arg(long, value_name = "URL", default_value = "redis://127.0.0.1/")]
    redis: String,
    /// What the fleet calls this gateway
    #[arg(long)]
    name: String,
    /// Where clients connect
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    tcp: SocketAddr,
    /// Where the page and the metrics are
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    http: SocketAddr,
    #[command(flatten)]
    timings: Timings,
    /// Talks to a program
    #[arg(long, hide = true)]
    json: bool,
}

/// What every connection needs.
#[derive(Clone)]
pub struct Gateway {
    pub config: Config,
    name: String,
    presence: Presence,
    /// What pages show; each has a receiver.
    view: Arc<watch::Sender<View>>,
    /// When the gateway is about to end.
    closing: CancellationToken,
    /// The connections.
    pub tasks: TaskTracker,
}

pub async fn run(options: Options) -> Result<(), Box<dyn Error>> {
    if options.json {
        process::end_with_parent();
    }
    let config = options.timings.config()?;
    let metrics = web::metrics(config.detection_time())?;
    let clients = TcpListener::bind(options.tcp).await?;
    let pages = TcpListener::bind(options.http).await?;

    let store = redis::Client::open(&*options.redis)?;
    let terms = options.timings.terms();
    let presence = Presence::start(store.clone(), &options.name, terms);
    let view = View {
        gateway: options.name.clone(),
        promises: promises(terms),
        ..View::default()
    };
    let gateway = Gateway {
        config,
        name: options.name.clone(),
        presence: presence.clone(),
        view: Arc::new(watch::Sender::new(view)),
        closing: CancellationToken::new(),
        tasks: TaskTracker::new(),
    };
    News::Listens {
        gateway: options.name.clone(),
        tcp: clients.local_addr()?,
        http: pages.local_addr()?,
        clock: std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(0, |time| time.as_secs()),
    }
    .tell(options.json);

    let app = web::app(gateway.clone(), metrics);
    let terminate = async {
        tokio::select! {
            served = axum::serve(pages, app) => served,
            () = accept(clients, &gateway) => Ok(()),
            () = report(&options, &presence, store.clone()) => Ok(()),
            () = look(&gateway, terms, store.clone()) => Ok(()),
            interrupted = process::interrupted() => interrupted,
        }
    };
    terminate.await?;
    // Nobody connects any more. Clients that are told to come back go to other gateways.
    gateway.closing.cancel();
    gateway.tasks.close();
    let _ = timeout(CLOSES_WITHIN, gateway.tasks.wait()).await;
    let _ = timeout(CLOSES_WITHIN, presence.close()).await;
    Ok(())
}

async fn accept(listener: TcpListener, gateway: &Gateway) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                let peer = Heartbeat::typed(stream, gateway.config).spawn();
                gateway.tasks.spawn(serve(gateway.clone(), peer));
            }
            // There may be no file descriptors left; somebody will give one back.
            Err(_) => sleep(Duration::from_millis(200)).await,
        }
    }
}

/// A page's connection. How a WebSocket comes to a heartbeat is decided here alone.
pub fn page(socket: (WebSocket, ConnectInfo<TcpSocket>), config: Config) -> Driver<Message> {
    Heartbeat::websocket_with(socket, OwnFrames::typed(), config).spawn()
}

/// Serves a connection to its end: the user is present for as long.
pub async fn serve(gateway: Gateway, peer: Driver<Message>) {
    let Driver {
        sender,
        mut receiver,
        ..
    } = peer;
    // A client that doesn't introduce itself in time is dropped.
    let patience = gateway.config.detection_time();
    let Ok(Some((user, shows))) = timeout(patience, introduction(&mut receiver)).await else {
        return;
    };
    if !is_name(&user) {
        let detail = format!("a name has 1 to {LONGEST_NAME} visible characters");
        let _ = sender.close_with(NO_NAME, detail.as_str().into()).await;
        return;
    }
    let entry = gateway.presence.enter(&user);
    // A client that doesn't read is the heartbeat's business.
    let _ = sender.try_send(Message::Welcome {
        gateway: gateway.name.clone(),
    });
    let mut view = shows.then(|| gateway.view.subscribe());
    loop {
        tokio::select! {
            event = receiver.recv() => match event {
                Some(PeerEvent::Closed { reason }) => return match reason {
                    CloseReason::Peer { code, .. } if code != GoodbyeCode::RESTARTING => {
                        entry.left("said goodbye");
                    }
                    reason => entry.lost(&reason.to_string()),
                },
                Some(PeerEvent::Dead(death)) => return entry.lost(&death.to_string()),
                Some(_) => {}
                None => return entry.lost("gone"),
            },
            () = gateway.closing.cancelled() => {
                let said = sender.close_with(GoodbyeCode::RESTARTING, "come back".into());
                let _ = said.await;
                return entry.lost("its gateway restarts");
            }
            view = next_view(&mut view) => {
                let _ = sender.try_send(Message::Fleet(view));
            }
        }
    }
}

/// The first message, if it is what it has to be.
async fn introduction(receiver: &mut Receiver<Message>) -> Option<(String, bool)> {
    while let Some(event) = receiver.recv().await {
        match event {
            PeerEvent::Message(Message::Join { user, shows }) => return Some((user, shows)),
            PeerEvent::Message(_) => return None,
            _ => {}
        }
    }
    None
}

/// It is shown in terminals, so it has no control characters.
fn is_name(user: &str) -> bool {
    (1..=LONGEST_NAME).contains(&user.chars().count()) && !user.chars().any(char::is_control)
}

/// What others may think of us, and why.
fn standing(presence: &Presence) -> String {
    let standing = *presence.standing().borrow();
    match presence.trouble().borrow().as_str() {
        "" => standing.to_string(),
        trouble => format!("{standing} ({trouble})"),
    }
}

/// Says what others may think of us, and what the fleet is told about gateways.
async fn report(options: &Options, presence: &Presence, store: redis::Client) {
    let heard = async {
        let mut fleet = Fleet::new(store);
        loop {
            if let Ok(announcement) = fleet.next().await {
                if announcement.is_of_gateway() {
                    News::Heard(announcement).tell(options.json);
                }
            }
        }
    };
    let ours = async {
        let (mut changes, mut troubles) = (presence.standing(), presence.trouble());
        let mut said = String::new();
        loop {
            let now = standing(presence);
            if now != said {
                News::Standing(now.clone()).tell(options.json);
                said = now;
            }
            tokio::select! {
                Ok(()) = changes.changed() => {}
                Ok(()) = troubles.changed() => {}
                else => return,
            }
        }
    };
    tokio::join!(heard, ours);
}

/// Keeps what pages show up to date, while there are any, and looks for ghosts.
async fn look(gateway: &Gateway, terms: Terms, store: redis::Client) {
    let ghosts = async {
        let mut fleet = Fleet::new(store.clone());
        loop {
            sleep(terms.lease()).await;
            if let Ok(ghosts) = fleet.ghosts().await {
                gauge!("presence_ghosts").set(f64::from(ghosts));
                gateway.view.send_modify(|view| view.ghosts = ghosts);
            }
        }
    };
    let news = async {
        let mut fleet = Fleet::new(store.clone());
        loop {
            if let Ok(announcement) = fleet.next().await {
                gateway.view.send_modify(|view| {
                    view.news.insert(0, announcement.to_string());
                    view.news.truncate(NEWS);
                });
            }
        }
    };
    let roster = async {
        let mut fleet = Fleet::new(store.clone());
        let mut asked = Instant::now();
        loop {
            sleep(EACH).await;
            if gateway.view.receiver_count() == 0 {
                continue;
            }
            let roster = fleet.roster().await.ok();
            gateway.view.send_modify(|view| {
                if let Some(roster) = &roster {
                    asked = Instant::now();
                    view.show(roster);
                }
                view.standing = standing(&gateway.presence);
                view.age_ms = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
            });
        }
    };
    tokio::join!(ghosts, news, roster);
}

/// The next picture for a page; never for a client that isn't one.
async fn next_view(view: &mut Option<watch::Receiver<View>>) -> View {
    if let Some(view) = view {
        if view.changed().await.is_ok() {
            return view.borrow_and_update().clone();
        }
    }
    std::future::pending().await
}
