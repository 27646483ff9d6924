//! A page with `heartbeat.js` and a server behind a slow line: a message that takes twice
//! the detection time is life for both sides, and beats go between its parts.
//!
//! A real browser, real TCP, real time.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::StreamExt;
use heartbeat_tests::{scripted::filler, secs, throttled};
use heartbeat_tokio::{
    Config, Driver, Evidence, Heartbeat, PeerEvent, Receiver, websocket::OwnFrames,
};
use serde_json::json;
use socket2::SockRef;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpSocket},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_tungstenite::accept_async;

use super::{devtools::Browser, starts, websocket::http};

const GUARD: &str = env!("CARGO_BIN_EXE_heartbeat-test-guard");

/// What the page sends on a line that carries `rate` bytes each second, in each direction.
#[derive(Clone, Copy)]
struct Upload {
    length: usize,
    rate: u32,
}

/// 8.4 s.
const MESSAGE: Upload = Upload {
    length: 4 << 20,
    rate: 500_000,
};

/// 8.9 s.
const FILE: Upload = Upload {
    length: 40_000_000,
    rate: 4_500_000,
};

/// What the server sends.
const ANSWER: usize = 4 << 20;

/// The server's and, in `slow_line.js`, the page's.
const DETECT_WITHIN: Duration = secs(4);

/// When the browser holds as much of a message as it takes.
const ASKED_AT: Duration = secs(1);

/// What the relay's kernel may hold of what comes. By default it takes a whole message,
/// and the line is slow for the kernel only.
const KERNEL_BUFFER: u32 = 16 * 1024;

/// As on an Ethernet. A kernel's first send buffer is as many segments as there may be,
/// and those of the loopback device have 64 KiB.
const SEGMENT: u32 = 1460;

/// What the browser loads.
const PAGE: &str = concat!(
    "<!doctype html><title>Heartbeat</title><script type=\"module\">",
    include_str!("../../examples/heartbeat-js/heartbeat.js"),
    include_str!("../support/slow_line.js"),
    "</script>"
);

#[tokio::test]
async fn a_large_message_on_a_slow_line_is_life_for_a_page_and_its_server() {
    let mut cases = Vec::new();
    for evidence in [Evidence::AnyBytes, Evidence::Frame] {
        for at_once in [false, true] {
            let served = Served::start(evidence, at_once, MESSAGE).await;
            cases.push((evidence, at_once, MESSAGE, served));
        }
    }
    // An upload of a file, of which the server counts whole frames only.
    let served = Served::start(Evidence::Frame, false, FILE).await;
    cases.push((Evidence::Frame, false, FILE, served));

    let pages = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", pages.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = pages.accept().await {
            tokio::spawn(http::hand_out(stream, PAGE));
        }
    });
    let page = {
        let _starts = starts().await;
        Browser::open(GUARD, &url).await
    };
    let Some(mut page) = page else { return };
    page.until("globalThis.exchange !== undefined", secs(60))
        .await;

    let lines: Vec<_> = (cases.iter())
        .map(|(_, _, upload, served)| json!([served.address.to_string(), upload.length]))
        .collect();
    let told = page.value(&format!("exchange({})", json!(lines))).await;
    for ((evidence, at_once, upload, served), told) in
        cases.into_iter().zip(told.as_array().unwrap())
    {
        let what = format!("{} bytes, {evidence:?}, at once: {at_once}", upload.length);
        println!("{what}: {told}");
        // A machine that others starve makes a suspicion; a verdict is none of its.
        assert_eq!(told["ended"], "closed local", "{what}: {told}");
        assert_eq!(told["same"], true, "{what}: {told}");
        let Took { answer, message } = served.ended().await;
        println!("{what}: {message:?}, an answer {answer:?}");
        let is_slow = message > 2 * DETECT_WITHIN;
        assert!(is_slow, "{what}: {message:?}: the line isn't slow");
        // Behind the message it would come with its last part.
        assert!(answer + secs(1) < message, "{what}: {answer:?}");
    }
    page.assert_content();
    serving.abort();
}

/// A server, and the line to it.
struct Served {
    address: SocketAddr,
    serving: JoinHandle<Took>,
    line: JoinHandle<()>,
}

/// From the beginning of the page's message.
struct Took {
    /// Until a ping was answered that was sent after `ASKED_AT`.
    answer: Duration,
    /// Until the message was whole.
    message: Duration,
}

impl Served {
    async fn start(evidence: Evidence, at_once: bool, upload: Upload) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        let near = socket();
        near.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let near = near.listen(1).unwrap();
        let address = near.local_addr().unwrap();
        let line = tokio::spawn(async move {
            let (page, _) = near.accept().await.unwrap();
            let mut server = socket().connect(server).await.unwrap();
            let mut page = throttled(page, upload.rate);
            // It ends as the page does.
            let _ = copy_bidirectional(&mut page, &mut server).await;
        });
        let serving = tokio::spawn(serve(listener, evidence, at_once, upload.length));
        Self {
            address,
            serving,
            line,
        }
    }

    async fn ended(self) -> Took {
        let ended = timeout(secs(30), self.serving).await.expect("in time");
        self.line.abort();
        ended.unwrap()
    }
}

fn socket() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(KERNEL_BUFFER).unwrap();
    SockRef::from(&socket).set_tcp_mss(SEGMENT).unwrap();
    socket
}

/// Takes the page's message and sends it another, behind that or at once.
async fn serve(listener: TcpListener, evidence: Evidence, at_once: bool, length: usize) -> Took {
    let config = Config::detect_within(DETECT_WITHIN).unwrap();
    // A suspicion by what a round trip usually takes is early.
    let config = (config.to_builder())
        .evidence(evidence)
        .adaptive(false)
        .max_frame(64 << 20);
    let (stream, _) = listener.accept().await.unwrap();
    let socket = accept_async(stream).await.unwrap();
    let page = Heartbeat::websocket_with(socket, OwnFrames::new(), config.build().unwrap());
    let Driver {
        sender,
        mut receiver,
        ..
    } = page.spawn();
    let ours = filler(1, ANSWER);
    if at_once {
        sender.send(ours.clone()).await.unwrap();
    }
    let began = Instant::now();
    let asking = async {
        sleep(ASKED_AT).await;
        let mut status = sender.watch();
        let before = sender.status().peer.pongs;
        // A probe stops to wait after the detection time, and the answer may come later.
        let answered = async {
            status
                .wait_for(|status| status.peer.pongs > before)
                .await
                .expect("it goes on");
            began.elapsed()
        };
        tokio::join!(sender.probe(), answered).1
    };
    let arriving = async {
        let arrived = next(&mut receiver).await;
        let arrived = arrived.unwrap();
        assert_eq!(arrived.len(), length);
        // Not of all, which would block other tasks for a moment.
        let beginning = arrived.slice(..length.min(ANSWER));
        assert!(beginning == filler(0, beginning.len()), "another message");
        began.elapsed()
    };
    let (answer, message) = tokio::join!(asking, arriving);
    if !at_once {
        sender.send(ours).await.unwrap();
    }
    match next(&mut receiver).await {
        Err(PeerEvent::Closed { .. }) => Took { answer, message },
        other => panic!("{other:?}"),
    }
}

/// The next message, or the end.
async fn next(receiver: &mut Receiver<Bytes>) -> Result<Bytes, PeerEvent<Bytes>> {
    loop {
        match receiver.next().await.expect("an end comes first") {
            PeerEvent::Message(message) => return Ok(message),
            end if end.is_terminal() => return Err(end),
            _ => {}
        }
    }
}
