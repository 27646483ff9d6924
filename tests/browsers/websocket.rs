//! A heartbeat in a WebSocket, with a Python client and with a real browser.
//!
//! Real processes, real TCP, real time. What is measured may be late by
//! `SLACK`; what must not happen is far from the times that it could happen at.

#[path = "../../examples/websocket/http.rs"]
pub mod http;

use std::{
    fmt::Debug,
    fs,
    net::SocketAddr,
    process::Command,
    time::{Duration, Instant},
};

use axum::{Router, extract::ws::WebSocketUpgrade, response::Html, routing::any};
use bytes::Bytes;
use futures::SinkExt;
use heartbeat_tests::{
    Watched, is_cut_off, ms, needs_browser, needs_python_with, patient, process::PeerProcess,
    quick, secs, throttled,
};
use heartbeat_tokio::{
    Cause, CloseReason, Config, GoodbyeCode, Heartbeat, NetStatus, PeerEvent,
    websocket::{Beats, Connection, Message, Messages, Pings},
};
use rustix::process::{Pid, Signal, getpgid, kill_process};
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::{RwLockReadGuard, mpsc},
    time::timeout,
};
use tokio_tungstenite::{WebSocketStream, accept_async};

use super::{measures, starts};

/// How late a process may be on a machine under load.
const SLACK: Duration = ms(1500);

const GUARD: &str = env!("CARGO_BIN_EXE_heartbeat-test-guard");

/// Whether it is the peer's goodbye.
fn is_left<M>(event: &PeerEvent<M>) -> bool {
    let reason = match event {
        PeerEvent::Closed { reason } => reason,
        _ => return false,
    };
    matches!(
        reason,
        CloseReason::Peer {
            code: GoodbyeCode::LEAVING,
            ..
        }
    )
}

// ---- a client in Python ----------------------------------------------------

#[tokio::test]
async fn messages_go_both_ways_while_beats_go_on() {
    let _measures = measures().await;
    let Some((_visitor, mut client)) = visit::<Pings>(patient(), &[]).await else {
        return;
    };
    let large = Bytes::from(vec![0xa5; 1_000_000]);
    for round in 0..10 {
        for message in [
            text(&format!("round {round}")),
            text(""),
            Message::Binary(Bytes::new()),
            Message::Binary(large.clone()),
        ] {
            client.peer.probe();
            client.peer.send(message.clone()).await.unwrap();
            assert!(client.message().await == message, "round {round}");
        }
    }
    let status = client.peer.status();
    assert!(status.peer.pongs >= 10, "{status:?}");
    // The socket below was named.
    assert!(matches!(status.safety_net, NetStatus::Applied(_)));
    client.assert_alive();
}

#[tokio::test]
async fn an_idle_client_beats() {
    let _measures = measures().await;
    let Some((_visitor, mut client)) = visit::<Pings>(patient(), &[]).await else {
        return;
    };
    client.go_on_for(secs(3)).await;
    // An interval is 200 ms.
    assert!((5..=16).contains(&client.beats()), "{:?}", client.events);
    client.assert_alive();
}

#[tokio::test]
async fn a_clients_pings_are_answered() {
    let _measures = measures().await;
    let Some((_visitor, mut client)) = visit::<Pings>(patient(), &[]).await else {
        return;
    };
    client.peer.send(text("ping us")).await.unwrap();
    assert_eq!(client.message().await, text("we were answered"));
}

#[cfg(target_os = "linux")] // whose kernel tells what arrives
#[tokio::test]
async fn a_message_that_arrives_slowly_is_no_silence() {
    let near = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let Some(_visitor) = visitor(near.local_addr().unwrap(), &[]) else {
        return;
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (client, _) = near.accept().await.unwrap();
        let mut server = TcpStream::connect(address).await.unwrap();
        // It ends as the client does.
        let _ = copy_bidirectional(&mut throttled(client, 1_000_000), &mut server).await;
    });
    let mut client = serve::<Pings>(&listener, patient()).await;
    let began = Instant::now();
    client.peer.send(text("slowly")).await.unwrap();
    let large = client.message().await;
    assert!(began.elapsed() > secs(5), "not slow enough");
    assert!(large == Message::Binary(vec![0; 6_000_000].into()));
    client.assert_alive();
}

#[tokio::test]
async fn a_client_that_hangs_is_found_silent_in_time() {
    let _measures = measures().await;
    let Some((visitor, mut client)) = visit::<Pings>(quick(), &[]).await else {
        return;
    };
    client.until_beat().await;
    let stopped = Instant::now();
    visitor.stop().unwrap();
    assert_silent_in_time(&mut client, stopped).await;
}

#[tokio::test]
async fn a_client_that_is_killed_is_found_at_once() {
    let _measures = measures().await;
    let Some((visitor, mut client)) = visit::<Pings>(seldom(), &[]).await else {
        return;
    };
    client.peer.send(text("hello")).await.unwrap();
    client.message().await;
    let killed = Instant::now();
    visitor.kill().unwrap();
    assert_cut_off_at_once(&mut client, killed).await;
}

#[tokio::test]
async fn a_client_that_leaves_is_no_death_and_is_answered() {
    let _measures = measures().await;
    let Some((mut visitor, mut client)) = visit::<Pings>(patient(), &[]).await else {
        return;
    };
    client.peer.send(text("leave")).await.unwrap();
    let end = client.until_ended().await;
    assert!(is_left(&end), "{end:?}");
    drop(client);
    assert!(visitor.wait().unwrap().success(), "it saw no clean end");
}

#[tokio::test]
async fn our_goodbye_is_a_clean_end_for_the_client() {
    let _measures = measures().await;
    let Some((mut visitor, mut client)) = visit::<Pings>(patient(), &[]).await else {
        return;
    };
    client.peer.feed(text("the last word")).await.unwrap();
    let closed = timeout(secs(20), client.peer.close()).await;
    closed.expect("in time").unwrap();
    drop(client);
    assert!(visitor.wait().unwrap().success(), "it saw no clean end");
}

#[tokio::test]
async fn our_goodbye_is_a_clean_end_for_a_client_that_goes_on_sending() {
    let _measures = measures().await;
    let Some((mut visitor, mut client)) = visit::<Pings>(patient(), &[]).await else {
        return;
    };
    client.peer.send(text("flood")).await.unwrap();
    client.message().await;
    let closed = timeout(secs(20), client.peer.close()).await;
    closed.expect("in time").unwrap();
    drop(client);
    assert!(visitor.wait().unwrap().success(), "it saw no clean end");
}

#[tokio::test]
async fn lesson_53_beats_may_travel_as_ordinary_frames() {
    let _measures = measures().await;
    // Pings don't get through to it, and it lives.
    let swallowed = &["--no-pings"];
    let Some((_visitor, mut client)) = visit::<Pings>(quick(), swallowed).await else {
        return;
    };
    let death = client.until_dead().await;
    assert_eq!(death.cause, Cause::Silent);

    let visit = visit::<Messages>(patient(), swallowed).await;
    let (_visitor, mut client) = visit.expect("it was there before");
    client.go_on_for(secs(4)).await;
    assert!(client.beats() >= 5, "{:?}", client.events);
    client.peer.send("hello".into()).await.unwrap();
    assert_eq!(client.message().await.as_str(), "hello");
    client.assert_alive();
}

// ---- a browser -------------------------------------------------------------

#[tokio::test]
async fn a_browser_answers_talks_and_closes() {
    let Some(mut browser) = Browser::<Pings>::start(patient()).await else {
        return;
    };
    let page = &mut browser.page;
    for message in [text("grüß dich"), Message::Binary(vec![7; 100_000].into())] {
        page.peer.send(message.clone()).await.unwrap();
        assert!(page.message().await == message);
    }
    page.go_on_for(secs(3)).await;
    assert!(page.beats() >= 5, "{:?}", page.events);
    page.assert_alive();

    page.peer.send(text("close")).await.unwrap();
    let end = page.until_ended().await;
    assert!(is_left(&end), "{end:?}");
    assert_eq!(browser.closed().await, "/closed/1000/true");
}

#[tokio::test]
async fn a_page_answers_beats_that_are_ordinary_messages() {
    let Some(mut browser) = Browser::<Messages>::start(patient()).await else {
        return;
    };
    let page = &mut browser.page;
    page.go_on_for(secs(3)).await;
    assert!(page.beats() >= 5, "{:?}", page.events);
    page.peer.send("hello".into()).await.unwrap();
    assert_eq!(page.message().await.as_str(), "hello");
    page.assert_alive();
}

#[tokio::test]
async fn our_goodbye_is_a_clean_end_for_a_page() {
    let Some(mut browser) = Browser::<Pings>::start(patient()).await else {
        return;
    };
    let closed = timeout(secs(20), browser.page.peer.close()).await;
    closed.expect("in time").unwrap();
    assert_eq!(browser.closed().await, "/closed/1000/true");
}

#[tokio::test]
async fn a_page_that_is_left_says_goodbye() {
    let Some(mut browser) = Browser::<Pings>::start(patient()).await else {
        return;
    };
    browser.page.peer.send(text("leave")).await.unwrap();
    let end = browser.page.until_ended().await;
    assert!(is_left(&end), "{end:?}");
}

#[tokio::test]
async fn a_tab_that_is_killed_ends_at_once() {
    let Some(mut browser) = Browser::<Pings>::start_to_measure(seldom()).await else {
        return;
    };
    let killed = Instant::now();
    browser.kill_tabs();
    // The browser itself lives, and may say goodbye for it.
    let end = browser.page.until_ended().await;
    let measured = killed.elapsed();
    match end {
        end @ PeerEvent::Closed { .. } => assert!(is_left(&end), "{end:?}"),
        PeerEvent::Dead(death) => assert!(is_cut_off(&death.cause), "{death}"),
        other => panic!("{other:?}"),
    }
    assert!(measured <= SLACK, "{measured:?}: too late");
}

#[tokio::test]
async fn a_browser_that_is_killed_is_found_at_once() {
    let Some(mut browser) = Browser::<Pings>::start_to_measure(seldom()).await else {
        return;
    };
    let killed = Instant::now();
    browser.process.kill().unwrap();
    assert_cut_off_at_once(&mut browser.page, killed).await;
}

#[tokio::test]
async fn a_browser_that_hangs_is_found_silent_in_time() {
    let Some(mut browser) = Browser::<Pings>::start_to_measure(quick()).await else {
        return;
    };
    browser.page.until_beat().await;
    let stopped = Instant::now();
    browser.process.stop().unwrap();
    assert_silent_in_time(&mut browser.page, stopped).await;
}

#[tokio::test]
async fn a_browser_answers_for_a_script_that_hangs() {
    let Some(mut browser) = Browser::<Pings>::start(patient()).await else {
        return;
    };
    browser.page.peer.send(text("hang")).await.unwrap();
    browser.page.go_on_for(secs(5)).await;
    assert!(browser.page.beats() >= 5, "{:?}", browser.page.events);
    browser.page.assert_alive();
}

#[tokio::test]
async fn ordinary_messages_find_a_script_that_hangs() {
    let Some(mut browser) = Browser::<Messages>::start_to_measure(quick()).await else {
        return;
    };
    browser.page.until_beat().await;
    let hung = Instant::now();
    browser.page.peer.send("hang".into()).await.unwrap();
    assert_silent_in_time(&mut browser.page, hung).await;
}

// ---- over axum -------------------------------------------------------------

#[tokio::test]
async fn a_browser_talks_to_axum_and_leaves_with_a_code_of_its_own() {
    let profile = tempfile::tempdir().unwrap();
    let Some(mut command) = needs_browser(profile.path()) else {
        return;
    };
    let (opened, mut sockets) = mpsc::unbounded_channel();
    let socket = async |upgrade: WebSocketUpgrade| {
        upgrade.on_upgrade(async move |socket| drop(opened.send(socket)))
    };
    let app = Router::new()
        .route("/socket", any(socket))
        .fallback(async || Html(PAGE));
    let starts = starts().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    command.arg(format!("http://{}/", listener.local_addr().unwrap()));
    let _browser = PeerProcess::guarded(GUARD, &command).unwrap();
    tokio::spawn(axum::serve(listener, app).into_future());
    let socket = timeout(secs(60), sockets.recv()).await.expect("in time");
    drop(starts);

    let page = Heartbeat::websocket(socket.unwrap(), patient());
    let mut page = Watched::new(page);
    page.message().await; // its hello
    for message in [text("grüß dich"), Message::Binary(vec![7; 100_000].into())] {
        page.peer.send(message.clone()).await.unwrap();
        assert!(page.message().await == message);
    }
    page.go_on_for(secs(3)).await;
    assert!(page.beats() >= 5, "{:?}", page.events);
    page.assert_alive();

    page.peer.send(text("lunch")).await.unwrap();
    let end = page.until_ended().await;
    let PeerEvent::Closed {
        reason: CloseReason::Peer { code, detail },
    } = end
    else {
        panic!("{end:?}");
    };
    assert_eq!((code, detail.as_str()), (GoodbyeCode(64), "at noon"));
}

// ---- the two of them -------------------------------------------------------

/// The other end, as the server sees it.
type Client<B> = Watched<Connection<WebSocketStream<TcpStream>, B>, <B as Beats>::Message>;

/// A Python client that has connected.
async fn visit<B>(config: Config, options: &[&str]) -> Option<(PeerProcess, Client<B>)>
where
    B: Beats<Message: Clone + Debug> + Default,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let visitor = visitor(listener.local_addr().unwrap(), options)?;
    Some((visitor, serve(&listener, config).await))
}

/// One that connects to this address.
fn visitor(address: SocketAddr, options: &[&str]) -> Option<PeerProcess> {
    let python = needs_python_with("websockets")?;
    let mut command = Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/support/visitor.py"));
    command.arg(address.to_string()).args(options);
    Some(PeerProcess::guarded(GUARD, &command).unwrap())
}

/// The one that connects here.
async fn serve<B>(listener: &TcpListener, config: Config) -> Client<B>
where
    B: Beats<Message: Clone + Debug> + Default,
{
    let (stream, _) = timeout(secs(30), listener.accept()).await.unwrap().unwrap();
    let socket = timeout(secs(30), accept_async(stream)).await;
    let socket = socket.expect("in time").unwrap();
    Watched::new(Heartbeat::websocket_with(socket, B::default(), config))
}

/// A browser that shows our page.
struct Browser<B: Beats> {
    process: PeerProcess,
    page: Client<B>,
    /// What else it asked for.
    requests: mpsc::UnboundedReceiver<String>,
    /// What it has of its own on the disk.
    _profile: TempDir,
    /// No other one starts.
    measures: Option<RwLockReadGuard<'static, ()>>,
}

impl<B: Page> Browser<B> {
    /// The browser has opened the page, and the page its socket. Others may start, which
    /// a patient configuration takes.
    async fn start(config: Config) -> Option<Self> {
        let mut browser = Self::start_to_measure(config).await?;
        browser.measures = None;
        Some(browser)
    }

    /// The same, and no other one starts until this is dropped.
    async fn start_to_measure(config: Config) -> Option<Self> {
        let profile = tempfile::tempdir().unwrap();
        let mut command = needs_browser(profile.path())?;
        let starts = starts().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let search = B::SEARCH;
        command.arg(format!("http://{address}/{search}"));
        let process = PeerProcess::guarded(GUARD, &command).unwrap();

        let (asked, requests) = mpsc::unbounded_channel();
        let (opened, mut sockets) = mpsc::unbounded_channel();
        tokio::spawn(hand_out(listener, asked, opened));
        let stream = timeout(secs(60), sockets.recv()).await;
        let socket = accept_async(stream.expect("in time").unwrap()).await;
        let page = Heartbeat::websocket_with(socket.unwrap(), B::default(), config);
        let mut page = Watched::new(page);
        page.message().await; // its hello
        Some(Self {
            process,
            page,
            requests,
            _profile: profile,
            measures: Some(starts.downgrade()),
        })
    }

    /// What the page says of the end of its socket.
    async fn closed(&mut self) -> String {
        let closed = async {
            loop {
                let request = self.requests.recv().await.expect("we serve on");
                if request.starts_with("/closed/") {
                    return request;
                }
            }
        };
        timeout(secs(20), closed).await.expect("in time")
    }

    /// Kills the processes in which pages live, and nothing else.
    fn kill_tabs(&self) {
        let mut killed = 0;
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let id = entry.file_name().to_string_lossy().parse().ok();
            let Some(id) = id.and_then(Pid::from_raw) else {
                continue;
            };
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let is_tab = String::from_utf8_lossy(&command).contains("--type=renderer");
            let is_ours = || getpgid(Some(id)).is_ok_and(|group| group == self.process.group());
            if is_tab && is_ours() {
                kill_process(id, Signal::KILL).unwrap();
                killed += 1;
            }
        }
        assert!(killed > 0, "no tab found");
    }
}

/// How a page is told which beats to answer.
trait Page: Beats<Message: Clone + Debug> + Default {
    const SEARCH: &'static str;
}

impl Page for Pings {
    const SEARCH: &'static str = "";
}

impl Page for Messages {
    const SEARCH: &'static str = "?ordinary";
}

/// What the browser loads.
const PAGE: &str = concat!(
    "<!doctype html><title>Heartbeat</title><body><script>",
    include_str!("../../examples/websocket/beats.js"),
    include_str!("../support/browser.js"),
    "</script>"
);

/// Serves the page, and hands its socket over before the handshake.
async fn hand_out(
    listener: TcpListener,
    asked: mpsc::UnboundedSender<String>,
    opened: mpsc::UnboundedSender<TcpStream>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (asked, opened) = (asked.clone(), opened.clone());
        tokio::spawn(async move {
            let path = http::path(&stream).await.unwrap_or_default();
            match &*path {
                // Its receiver may be gone.
                "/socket" => drop(opened.send(stream)),
                _ => {
                    let _ = asked.send(path);
                    let _ = http::hand_out(stream, PAGE).await;
                }
            }
        });
    }
}

async fn assert_silent_in_time<B: Beats<Message: Clone + Debug>>(
    client: &mut Client<B>,
    since: Instant,
) {
    let death = client.until_dead().await;
    let measured = since.elapsed();
    assert_eq!(death.cause, Cause::Silent);
    assert!(measured >= ms(600), "{measured:?}: too early");
    assert!(measured <= ms(800) + SLACK, "{measured:?}: too late");
}

async fn assert_cut_off_at_once<B: Beats<Message: Clone + Debug>>(
    client: &mut Client<B>,
    since: Instant,
) {
    let death = client.until_dead().await;
    let measured = since.elapsed();
    assert!(is_cut_off(&death.cause), "{death}");
    assert!(measured <= SLACK, "{measured:?}: too late");
}

/// Nothing is written that could fail.
fn seldom() -> Config {
    patient().to_builder().interval(secs(30)).build().unwrap()
}

fn text(text: &str) -> Message {
    Message::Text(text.into())
}
