//! `examples/heartbeat-js` in a real Chromium, and its own tests in node: a page that is
//! blocked, hidden, or put away; many pages whose server restarts.
//!
//! Real processes, real TCP, real time. What is measured may be late by `SLACK`.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::StreamExt;
use heartbeat_tests::{ms, needs, needs_node, secs};
use heartbeat_tokio::{Config, Heartbeat, PeerEvent, websocket::OwnFrames};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_tungstenite::accept_async;

use super::{devtools::Browser, measures, starts, websocket::http};

const GUARD: &str = env!("CARGO_BIN_EXE_heartbeat-test-guard");

/// How late a process may be on a machine under load.
const SLACK: Duration = ms(1500);

/// The most time for anything that should happen at once.
const SOON: Duration = secs(20);

const MODULE: &str = include_str!("../../examples/heartbeat-js/heartbeat.js");

const PAGE: &str = concat!(
    "<!doctype html><title>Heartbeat</title><body><script type=\"module\">",
    include_str!("../support/heartbeat_js.js"),
    "</script>"
);

/// In node, without a browser. What they need from npm is in the folder that
/// `HEARTBEAT_NPM` names.
#[test]
fn the_modules_own_tests_pass_in_node() {
    if !(needs_node() && needs("npm")) {
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/heartbeat-js/test");
    let files = folder.read_dir().unwrap().map(|file| file.unwrap().path());
    let tests: Vec<_> = files
        .filter(|path| path.to_string_lossy().ends_with(".test.js"))
        .collect();
    assert!(tests.len() >= 4, "{tests:?}");
    let mut node = Command::new("node");
    node.args(["--test", "--test-force-exit", "--test-timeout=600000"]);
    node.arg("--test-reporter=tap");
    let ran = node.args(tests).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}");
    if said.contains("# SKIP") {
        // Not `eprintln`, which is captured.
        let words = "SKIPPED: some tests in node, because HEARTBEAT_NPM names no folder";
        let _ = writeln!(io::stderr(), "{words}");
    }
}

#[tokio::test]
async fn a_page_that_is_blocked_while_its_socket_opens_blames_nobody() {
    let site = Site::start().await;
    let Some(mut page) = site.visit().await else {
        return;
    };
    let _measures = measures().await;
    // Hardly longer than a death takes, and much longer.
    for time in [1020, 1100, 1250, 1500, 2000, 4000] {
        let told = page.value(&format!("blocked({time})")).await;
        assert_eq!(told, "connected", "blocked for {time} ms");
    }
    page.assert_content();
}

#[tokio::test]
async fn a_page_that_is_put_away_has_no_socket_and_one_when_it_is_back() {
    let site = Site::start().await;
    let Some(mut page) = site.visit().await else {
        return;
    };
    page.value("keep()").await;
    page.until("server.state === 'alive'", SOON).await;
    page.value("void (location = '/elsewhere')").await;
    page.until("location.pathname === '/elsewhere'", SOON).await;
    // Longer than any wait before another attempt.
    sleep(secs(3)).await;
    let (opened, living) = site.counts();
    assert_eq!((opened, living), (1, 0), "{:#?}", site.ends());
    assert_eq!(site.ends(), ["the peer said goodbye"]);

    page.value("history.back()").await;
    page.until("globalThis.server?.state === 'alive'", SOON)
        .await;
    assert_eq!(
        page.value("shown").await,
        json!([true]),
        "it was loaded anew"
    );
    sleep(secs(2)).await;
    assert_eq!(site.counts(), (2, 1), "{:#?}", site.ends());
    page.assert_content();
}

/// Chromium lets the timers of a page that was hidden for long run once a minute, but not
/// those that an event of the network has set, nor those of a Worker. Only the Worker's
/// bound is promised.
#[tokio::test]
async fn a_hidden_page_finds_a_dead_server_at_last_and_its_worker_in_time() {
    let site = Site::start().await;
    let url = format!("http://{}/", site.address);
    let soon = ["--enable-features=IntensiveWakeUpThrottling:grace_period_seconds/1"];
    let page = {
        let _starts = starts().await;
        Browser::open_with(GUARD, &url, &soon).await
    };
    let Some(mut page) = page else { return };
    page.until("globalThis.watch !== undefined", SOON).await;
    page.value("watch()").await;
    page.until("told.page.connected && told.worker.connected", SOON)
        .await;
    page.hide().await;
    page.until("document.visibilityState === 'hidden'", SOON)
        .await;
    sleep(secs(5)).await;
    let ticks = page.value("ticks = 0").await;
    assert_eq!(ticks, 0);
    sleep(secs(5)).await;
    let ticks = page.value("ticks").await.as_u64().unwrap();
    println!("in 5 s an interval of 100 ms ran {ticks} times");
    assert!(ticks <= 6, "it isn't throttled: {ticks}");
    let began = Instant::now();
    page.value("upload(20 * 65_536)").await;
    page.until("uploading.buffered === 0", secs(120)).await;
    println!("20 parts left after {:?}", began.elapsed());
    assert!(began.elapsed() < secs(60), "they wait for timers");

    // No browser starts until the Worker knows.
    let measures = measures().await;
    let hung = Instant::now();
    site.hang();
    page.until("told.worker.dead === 'silent'", secs(60)).await;
    let measured = hung.elapsed();
    println!("worker: {measured:?}");
    assert!(measured <= WATCHED + SLACK, "{measured:?}: too late");
    drop(measures);
    // Usually seconds.
    page.until("told.page.dead === 'silent'", MINUTES + SLACK)
        .await;
    println!("page: {:?}", hung.elapsed());
    page.assert_content();
}

/// What the page and its Worker are told to find a death within.
const WATCHED: Duration = secs(4);

/// A hidden page's timers run once a minute at worst: that of the interval, three steps,
/// and the look before a late verdict.
const MINUTES: Duration = secs(5 * 60);

#[tokio::test]
async fn forty_pages_come_back_to_a_server_that_restarts_once_each_and_spread() {
    const PAGES: usize = 40;
    let mut site = Site::start().await;
    let Some(mut page) = site.visit().await else {
        return;
    };
    page.value(&format!("open({PAGES})")).await;
    page.until(&format!("alive() === {PAGES}"), secs(60)).await;
    assert_eq!(site.counts(), (PAGES, PAGES));

    site.stop().await;
    page.until("alive() === 0", SOON).await;
    // The first attempts are made in vain, and hardly more.
    sleep(secs(1)).await;
    site.start_again().await;
    let began = Instant::now();
    page.until(&format!("alive() === {PAGES}"), secs(60)).await;
    println!("all are back after {:?}", began.elapsed());
    sleep(secs(3)).await;
    assert_eq!(page.value("alive()").await, PAGES);
    let (opened, living) = site.counts();
    let sockets = site.sockets();
    assert_eq!((opened, living), (2 * PAGES, PAGES), "one each: {sockets}");
    for (id, most) in site.most_at_once() {
        assert_eq!(most, 1, "{id} had {most} sockets at once");
    }

    // Full jitter over 500 ms: a tenth of that has a tenth of the attempts.
    let first = page.value("firstAttempts()").await;
    let first: Vec<f64> = (first.as_array().unwrap().iter())
        .map(|at| at.as_f64().unwrap())
        .collect();
    assert_eq!(first.len(), PAGES);
    let mut tenths = [0; 10];
    for at in &first {
        assert!((0.0..1500.0).contains(at), "{at} ms after its end");
        tenths[((at / 50.0) as usize).min(9)] += 1;
    }
    println!("first attempts in each 50 ms: {tenths:?}");
    let most = tenths[..9].iter().max().unwrap();
    assert!(*most <= PAGES / 3, "not spread: {tenths:?}");
    page.assert_content();
}

// ---- a site --------------------------------------------------------------------

/// A page, its module, and a server for its sockets.
struct Site {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    hangs: watch::Sender<bool>,
    /// Of the connections that there are, too.
    serving: Option<tokio::task::JoinHandle<()>>,
}

/// A socket.
struct Seen {
    /// The page's.
    id: String,
    end: Option<String>,
    /// Of the same page, when this one was opened.
    others: usize,
}

impl Site {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut site = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            hangs: watch::channel(false).0,
            serving: None,
        };
        site.serve(listener);
        site
    }

    async fn start_again(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serve(listener);
    }

    fn serve(&mut self, listener: TcpListener) {
        let seen = self.seen.clone();
        let hangs = self.hangs.subscribe();
        self.serving = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(answer(stream, seen.clone(), hangs.clone()));
            }
        }));
    }

    /// As a process that is killed.
    async fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = serving.await;
        }
        for seen in lock(&self.seen).iter_mut() {
            seen.end.get_or_insert_with(|| "stopped".into());
        }
    }

    /// Its kernel goes on, and nothing else.
    fn hang(&self) {
        self.hangs.send_replace(true);
    }

    async fn visit(&self) -> Option<Browser> {
        let url = format!("http://{}/", self.address);
        let _starts = starts().await;
        let mut page = Browser::open(GUARD, &url).await?;
        page.until("globalThis.watch !== undefined", secs(60)).await;
        Some(page)
    }

    /// The sockets that were opened, and those that are open.
    fn counts(&self) -> (usize, usize) {
        let seen = lock(&self.seen);
        let living = seen.iter().filter(|seen| seen.end.is_none()).count();
        (seen.len(), living)
    }

    fn ends(&self) -> Vec<String> {
        let seen = lock(&self.seen);
        seen.iter().filter_map(|seen| seen.end.clone()).collect()
    }

    /// The page and the end of each.
    fn sockets(&self) -> String {
        let seen = lock(&self.seen);
        let lines = seen
            .iter()
            .map(|Seen { id, end, others }| format!("\n{id} {others} {end:?}"));
        lines.collect()
    }

    fn most_at_once(&self) -> BTreeMap<String, usize> {
        let mut most = BTreeMap::new();
        for Seen { id, others, .. } in lock(&self.seen).iter() {
            let known: &mut usize = most.entry(id.clone()).or_default();
            *known = (*known).max(others + 1);
        }
        most
    }
}

fn lock(seen: &Mutex<Vec<Seen>>) -> std::sync::MutexGuard<'_, Vec<Seen>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(stream: TcpStream, seen: Arc<Mutex<Vec<Seen>>>, hangs: watch::Receiver<bool>) {
    let path = http::path(&stream).await.unwrap_or_default();
    match path.strip_prefix("/socket") {
        Some(id) => serve_socket(stream, id.to_owned(), &seen, hangs).await,
        None => {
            let (kind, text) = match &*path {
                "/heartbeat.js" => ("text/javascript", MODULE),
                "/elsewhere" => ("text/html", "<!doctype html><title>Elsewhere</title>"),
                _ => ("text/html", PAGE),
            };
            // The browser may be gone.
            let _ = hand_out(stream, kind, text).await;
        }
    }
}

/// Unlike that of the example it may be kept for the way back.
async fn hand_out(mut stream: TcpStream, kind: &str, text: &str) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let response = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{text}",
        text.len()
    );
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await
}

async fn serve_socket(
    stream: TcpStream,
    id: String,
    seen: &Mutex<Vec<Seen>>,
    mut hangs: watch::Receiver<bool>,
) {
    stream.set_nodelay(true).unwrap();
    let Ok(Ok(socket)) = timeout(SOON, accept_async(stream)).await else {
        return;
    };
    let index = {
        let mut seen = lock(seen);
        let is_other = |other: &&Seen| other.id == id && other.end.is_none();
        let others = seen.iter().filter(is_other).count();
        let end = None;
        seen.push(Seen { id, end, others });
        seen.len() - 1
    };
    let config = Config::detect_within(secs(10)).unwrap();
    let mut page = Heartbeat::websocket_with(socket, OwnFrames::new(), config);
    loop {
        tokio::select! {
            event = page.next() => match event {
                Some(PeerEvent::Message(_)) => {}
                Some(PeerEvent::Dead(death)) => return end(seen, index, death.to_string()),
                Some(PeerEvent::Closed { reason }) => {
                    return end(seen, index, reason.to_string());
                }
                Some(_) => {}
                None => return,
            },
            Ok(()) = hangs.changed() => break,
        }
    }
    // It hangs, and the socket stays open.
    std::future::pending().await
}

fn end(seen: &Mutex<Vec<Seen>>, index: usize, how: String) {
    lock(seen)[index].end.get_or_insert(how);
}
