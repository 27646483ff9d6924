//! `examples/chat` with real browsers, real bots and real terminals: a member that is killed,
//! frozen or cut off leaves with its cause, the page detects a dead server by itself, and
//! nothing that a stranger sends harms other members.
//!
//! Real processes, real TCP, real time. What is measured may be late by `SLACK`;
//! what must not happen is waited for much longer than it would take.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "how a test fails"
)]

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use heartbeat_core::{Config, Control, Goodbye, GoodbyeCode, Nonce};
use heartbeat_tests::{example, ms, process::PeerProcess, secs, server::Server};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{ChildStdin, ChildStdout},
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest,
        error::ProtocolError,
        http::StatusCode,
        protocol::frame::{
            Frame,
            coding::{Data, OpCode},
        },
    },
};

use super::{devtools::Browser, starts};

const GUARD: &str = env!("CARGO_BIN_EXE_heartbeat-test-guard");

/// What the server is told, and what the page tells itself.
const DETECT_WITHIN: Duration = secs(4);

/// How late processes may be on a machine under load.
const SLACK: Duration = secs(8);

/// The most time for anything that should happen at once.
const SOON: Duration = secs(20);

// ---- the page ---------------------------------------------------------------

#[tokio::test]
async fn a_frozen_bot_turns_suspect_and_leaves_with_the_cause() {
    let server = Chat::start(&["--bots", "2"]).await;
    let Some(mut page) = server.visit("Ann").await else {
        return;
    };
    page.until(&format!("{} && {}", alive("Bob"), alive("Carol")), SOON)
        .await;
    // So that the page has something to show.
    let beats = |name| format!("{}.querySelector('polyline') !== null", row(name));
    page.until(&format!("{} && {}", beats("Bob"), beats("Carol")), SOON)
        .await;

    page.press(&button("Bob", "Freeze")).await;
    let frozen = Instant::now();
    page.until(&has_state("Bob", "suspect"), DETECT_WITHIN + SLACK)
        .await;
    page.picture("suspect").await;
    page.until(&is_gone("Bob"), DETECT_WITHIN + SLACK).await;
    let measured = frozen.elapsed();
    assert!(measured <= DETECT_WITHIN + SLACK, "{measured:?}: too late");

    let how = page.value(&format!("{}.innerText", departed("Bob"))).await;
    let how = how.as_str().unwrap().to_owned();
    let silence = how
        .split("hung: no beat for ")
        .nth(1)
        .unwrap_or_else(|| panic!("{how}"));
    let silence: f64 = silence.split(' ').next().unwrap().parse().unwrap();
    // Its last interval may have been a quarter shorter.
    assert!((3.5..4.0 + SLACK.as_secs_f64()).contains(&silence), "{how}");
    assert_eq!(
        page.value(&format!("{}.dataset.cause", departed("Bob")))
            .await,
        "silent"
    );
    page.until(&was_told("Bob has left (hung: no beat for"), SOON)
        .await;
    page.picture("frozen").await;
    assert_eq!(
        page.value(&alive("Carol")).await,
        true,
        "nothing happened to her"
    );

    // Its process is still there, and comes back when it is thawed.
    page.press(&button("Bob", "Thaw")).await;
    page.until(&alive("Bob"), SOON).await;
    page.until(&was_told("Bob has joined"), SOON).await;

    // Frozen for less than it takes to die.
    page.press(&button("Carol", "Freeze")).await;
    page.until(&has_state("Carol", "suspect"), DETECT_WITHIN + SLACK)
        .await;
    page.press(&button("Carol", "Thaw")).await;
    page.until(&format!("{} || {}", alive("Carol"), is_gone("Carol")), SOON)
        .await;
    page.until(&alive("Carol"), SOON).await;
    page.assert_content();
}

#[tokio::test]
async fn check_connections_removes_a_killed_one() {
    let server = Chat::start(&["--bots", "3"]).await;
    let Some(mut page) = server.visit("Ann").await else {
        return;
    };
    for name in ["Bob", "Carol", "Dave"] {
        page.until(&alive(name), SOON).await;
    }

    // A bot that is killed while its connection is read leaves without a sweep.
    page.press(&button("Carol", "Kill")).await;
    page.until(&is_gone("Carol"), SOON).await;
    page.until(
        &was_told("Carol has left (cut off: closed without a goodbye)"),
        SOON,
    )
    .await;

    page.press(&button("Bob", "Hold")).await;
    page.until(&has_state("Bob", "held"), SOON).await;
    page.press(&button("Bob", "Kill")).await;
    // The connection isn't read, so its end isn't noticed: twice the detection time.
    sleep(2 * DETECT_WITHIN).await;
    assert_eq!(
        page.value(&has_state("Bob", "held")).await,
        true,
        "who told?"
    );

    page.press("#check").await;
    page.until(&is_gone("Bob"), SOON).await;
    page.until(
        &was_told("Bob has left (found by a check: closed without a goodbye)"),
        SOON,
    )
    .await;
    let checked = "document.getElementById('checked').textContent";
    let said = page.value(checked).await;
    let said = said.as_str().unwrap();
    // Ann, Bob and Dave.
    assert!(
        said.starts_with("Asked the kernel about 3 connections: Bob is gone ("),
        "{said}"
    );
    assert!(said.ends_with(" 2 were asked for a beat."), "{said}");
    page.picture("checked").await;

    // Living members stay, and so do those that aren't read.
    page.press(&button("Dave", "Hold")).await;
    page.until(&has_state("Dave", "held"), SOON).await;
    page.press("#check").await;
    page.until(&format!("{checked}.includes('none is gone')"), SOON)
        .await;
    page.press(&button("Dave", "ReadOn")).await;
    page.until(&alive("Dave"), SOON).await;

    // A polite end is none that has to be found.
    page.press(&button("Dave", "HangUp")).await;
    page.until(&was_told("Dave has left (said goodbye)"), SOON)
        .await;
    page.assert_content();
}

#[tokio::test]
async fn two_browsers_and_a_terminal_exchange_messages() {
    let server = Chat::start(&["--bots", "0"]).await;
    let mut tom = Terminal::start(&server, "Tom");
    tom.until("* you are in the room, as Tom").await;
    let (Some(mut ann), Some(mut zoe)) = (server.visit("Ann").await, server.visit("Zoë").await)
    else {
        return;
    };
    for page in [&mut ann, &mut zoe] {
        for name in ["Ann", "Zoë", "Tom"] {
            page.until(&alive(name), SOON).await;
        }
    }
    say(&mut ann, "good morning").await;
    zoe.until(&said("Ann", "good morning"), SOON).await;
    tom.until("Ann: good morning").await;
    tom.say("hello from a terminal").await;
    ann.until(&said("Tom", "hello from a terminal"), SOON).await;

    // Text, whatever it looks like.
    let evil = "<img src=x onerror='window.hacked = true'><b>bold</b>";
    say(&mut zoe, evil).await;
    ann.until(&said("Zoë", evil), SOON).await;
    assert_eq!(
        ann.value("document.querySelector('#log img, #log li > b + b')")
            .await,
        Value::Null
    );
    assert_eq!(ann.value("window.hacked ?? null").await, Value::Null);

    let mut counted = server.metrics().await;
    for line in [
        "chat_messages_total{kind=\"browser\"} 2",
        "chat_messages_total{kind=\"terminal\"} 1",
        "chat_members{kind=\"browser\"} 2",
        "heartbeat_opened_total 3",
    ] {
        assert!(counted.contains(line), "{line}\n{counted}");
    }
    // A round trip is counted with the first beat, which needs a member that is silent for
    // an interval.
    let began = Instant::now();
    while !counted.contains("# TYPE heartbeat_round_trip_seconds histogram") {
        assert!(began.elapsed() < SOON, "no beat\n{counted}");
        sleep(ms(50)).await;
        counted = server.metrics().await;
    }

    // A page that is left says goodbye.
    zoe.value("location = 'about:blank'").await;
    ann.until(&was_told("Zoë has left (said goodbye)"), SOON)
        .await;
    tom.until("* Zoë has left (said goodbye)").await;
    // And a browser that hangs is found.
    zoe.process.kill().unwrap();
    ann.process.stop().unwrap();
    tom.until("* Ann has left (hung: no beat for").await;
    ann.process.go_on().unwrap();
    ann.until(&alive("Ann"), SOON).await;
    ann.assert_content();
}

#[tokio::test]
async fn the_page_and_the_terminal_recover_when_the_server_restarts() {
    let server = Chat::start(&["--bots", "1"]).await;
    let mut tom = Terminal::start(&server, "Tom");
    let Some(mut page) = server.visit("Ann").await else {
        return;
    };
    page.until(&alive("Bob"), SOON).await;
    assert_eq!(page.value(&banner()).await, "");

    // A server that hangs: its kernel keeps every socket open.
    let stopped = Instant::now();
    server.0.process.stop().unwrap();
    page.until(
        &warns("The server has not answered for "),
        DETECT_WITHIN + SLACK,
    )
    .await;
    page.picture("silent").await;
    server.0.process.go_on().unwrap();
    page.until(&format!("{} === ''", banner()), SOON).await;
    page.until(&alive("Ann"), SOON).await;

    // For good, that is a death; a second attempt hangs too.
    let stopped = stopped.max(Instant::now());
    server.0.process.stop().unwrap();
    page.until(
        &warns("The server is gone: no answer for "),
        DETECT_WITHIN + SLACK,
    )
    .await;
    let measured = stopped.elapsed();
    assert!(
        measured >= DETECT_WITHIN - secs(1),
        "{measured:?}: too early"
    );
    page.picture("dead").await;

    // Another server in its place. All members reconnect by themselves.
    let server = server.restart(&["--bots", "1"]).await;
    page.until(&format!("{} === ''", banner()), secs(60)).await;
    page.until(&format!("{} && {}", alive("Ann"), alive("Bob")), SOON)
        .await;
    page.until(&alive("Tom"), secs(60)).await;
    say(&mut page, "still here").await;
    page.until(&said("Ann", "still here"), SOON).await;
    tom.until("Ann: still here").await;

    // One that ends politely says so.
    let address = server.0.address;
    kill_process(server.0.process.group(), Signal::TERM).unwrap();
    page.until(&warns("The server said goodbye"), SOON).await;
    drop(server);
    let _server = Chat::at(address, &["--bots", "0"]).await;
    page.until(&format!("{} === ''", banner()), secs(60)).await;
    page.assert_content();
}

#[tokio::test]
async fn an_outage_leaves_one_connection_whatever_happens_meanwhile() {
    let server = Chat::start(&["--bots", "0"]).await;
    let Some(mut page) = server.visit("Ann").await else {
        return;
    };
    let address = server.0.address;
    drop(server);
    page.until(&warns("The server is gone"), SOON).await;
    for number in 0..4 {
        let rename = format!(
            "(() => {{ const name = document.getElementById('name'); name.value = 'Ann {number}'; \
             name.dispatchEvent(new Event('change')) }})()"
        );
        page.value(&rename).await;
        sleep(ms(200)).await;
    }
    for _ in 0..3 {
        page.value(
            "for (const type of ['pagehide', 'pageshow']) \
             dispatchEvent(new PageTransitionEvent(type, { persisted: true }))",
        )
        .await;
        sleep(ms(200)).await;
    }
    let server = Chat::at(address, &["--bots", "0"]).await;
    page.until(&alive("Ann 3"), SOON).await;
    // Longer than any wait before another attempt.
    sleep(secs(6)).await;
    let rows = "document.querySelectorAll('#members li').length";
    assert_eq!(page.value(rows).await, 1);
    let counted = server.metrics().await;
    for line in [
        "chat_members{kind=\"browser\"} 1\n",
        "heartbeat_opened_total 1\n",
    ] {
        assert!(counted.contains(line), "{line}\n{counted}");
    }

    // A name that changes while there is a connection.
    page.value(
        "(() => { const name = document.getElementById('name'); name.value = 'Zoë'; \
         name.dispatchEvent(new Event('change')) })()",
    )
    .await;
    page.until(&alive("Zoë"), SOON).await;
    assert_eq!(page.value(rows).await, 1);
    page.assert_content();
}

#[tokio::test]
async fn an_outage_is_seen_on_a_phone_and_takes_nothing_that_was_typed() {
    let server = Chat::start(&["--bots", "1"]).await;
    let Some(mut page) = server.visit("Ann").await else {
        return;
    };
    page.until(&alive("Bob"), SOON).await;
    let small = "[...document.querySelectorAll('button, input')].filter((control) => { \
        const { width, height } = control.getBoundingClientRect(); \
        return width < 44 || height < 44; \
    }).map(({ outerHTML }) => outerHTML)";
    assert_eq!(page.value(small).await, json!([]));
    page.resize(375, 667).await;
    assert_eq!(page.value(small).await, json!([]));
    let enabled = "document.querySelectorAll('button:enabled').length";
    assert!(page.value(enabled).await.as_u64().unwrap() > 3);

    // It takes the line, and dies before any member receives it.
    server.0.process.stop().unwrap();
    page.value("document.getElementById('text').scrollIntoView({ block: 'end' })")
        .await;
    say(&mut page, "hello?").await;
    let typed = "document.getElementById('text').value";
    assert_eq!(page.value(typed).await, "");
    page.value("document.getElementById('text').value = 'anybody?'")
        .await;
    page.value("document.getElementById('text').focus()").await;
    page.until(&warns("The server is gone"), DETECT_WITHIN + SLACK)
        .await;
    assert_eq!(page.value(typed).await, "hello? anybody?");
    assert_eq!(page.value(enabled).await, 0);

    let seen = |id| {
        format!(
            "((it) => {{ const {{ top, bottom, left, right }} = it.getBoundingClientRect(); \
             return top >= 0 && bottom <= innerHeight && \
             it.contains(document.elementFromPoint((left + right) / 2, (top + bottom) / 2)) \
             }})(document.getElementById('{id}'))"
        )
    };
    assert_eq!(page.value("innerWidth").await, 375);
    assert_eq!(page.value("scrollY > 0").await, true);
    for id in ["banner", "text"] {
        assert_eq!(page.value(&seen(id)).await, true, "{id} isn't seen");
    }
    page.picture("phone").await;
    // Not even by trying.
    page.value("document.getElementById('say').requestSubmit()")
        .await;
    assert_eq!(page.value(typed).await, "hello? anybody?");

    let _server = server.restart(&["--bots", "0"]).await;
    page.until(&format!("{} === ''", banner()), secs(60)).await;
    page.until(&alive("Ann"), SOON).await;
    assert_eq!(page.value(typed).await, "hello? anybody?");
    page.value("document.getElementById('say').requestSubmit()")
        .await;
    page.until(&said("Ann", "hello? anybody?"), SOON).await;
    assert_eq!(page.value(typed).await, "");
    page.assert_content();
}

#[tokio::test]
async fn an_idle_page_says_nothing_to_a_screen_reader() {
    let server = Chat::start(&["--bots", "1"]).await;
    let Some(mut page) = server.visit("Ann").await else {
        return;
    };
    let beats = format!("{}.querySelector('polyline') !== null", row("Bob"));
    page.until(&format!("{} && {beats}", alive("Bob")), SOON)
        .await;
    let changes = page
        .value(
            "(async () => {
                 const live = [...document.querySelectorAll('[role=status], [role=alert], [role=log], [aria-live]')];
                 const changes = [];
                 const observer = new MutationObserver((records) => changes.push(...records));
                 const all = { attributes: true, characterData: true, childList: true, subtree: true };
                 for (const region of live) observer.observe(region, all);
                 await new Promise((resolve) => setTimeout(resolve, 10_000));
                 return [live.length, changes.map(({ type, target }) => `${type} ${target.textContent}`)];
             })()",
        )
        .await;
    assert_eq!(changes, json!([4, []]));

    // Each trouble is said once, and so is its end.
    let regions = "globalThis.spoken = []; \
        new MutationObserver(() => spoken.push(document.getElementById('warning').textContent)) \
        .observe(document.getElementById('warning'), { childList: true })";
    page.value(regions).await;
    server.0.process.stop().unwrap();
    page.until(
        &warns("The server has not answered for "),
        DETECT_WITHIN + SLACK,
    )
    .await;
    sleep(ms(500)).await;
    server.0.process.go_on().unwrap();
    page.until(&format!("{} === ''", banner()), SOON).await;
    let spoken = page.value("spoken").await;
    assert_eq!(spoken, json!(["The server has not answered", ""]));
    page.assert_content();
}

#[tokio::test]
async fn names_are_isolated_and_the_focus_stays_when_a_row_goes() {
    let server = Chat::start(&["--bots", "2"]).await;
    let Some(mut page) = server.visit("Ann").await else {
        return;
    };
    page.until(&format!("{} && {}", alive("Bob"), alive("Carol")), SOON)
        .await;
    // What turns the words around it, and what can't be seen.
    let mallory = Stranger::join(&server, "\u{202e}Mal\u{200b}lory\u{2066}\u{e0041}").await;
    page.until(&alive("Mallory"), SOON).await;
    let tag = format!("{}.querySelector('.called').tagName", row("Mallory"));
    assert_eq!(page.value(&tag).await, "BDI");
    say(&mut page, "\u{202e}turned").await;
    page.until(&said("Ann", "\u{202e}turned"), SOON).await;
    let bare = "[...document.querySelectorAll('#log li')].filter((line) => \
        [...line.childNodes].some((node) => node.nodeType === 3 && /turned|Mallory/.test(node.data))).length";
    assert_eq!(page.value(bare).await, 0);
    drop(mallory);

    page.press(&button("Bob", "Kill")).await;
    page.until(&is_gone("Bob"), SOON).await;
    let focused = "document.activeElement.getAttribute('aria-label')";
    assert_eq!(page.value(focused).await, "freeze: Carol");
    // None is left.
    page.press(&button("Carol", "Kill")).await;
    page.until(&is_gone("Carol"), SOON).await;
    assert_eq!(
        page.value("document.activeElement.id").await,
        "people-title"
    );
    page.assert_content();
}

// ---- heartbeat.js -------------------------------------------------------------

#[tokio::test]
async fn heartbeat_js_reads_and_writes_what_the_page_of_the_protocol_says() {
    let server = Chat::start(&["--bots", "0"]).await;
    let Some(mut page) = server.visit("Ann").await else {
        return;
    };
    for (kind, reads, writes) in [
        ("vectors", true, true),
        ("vectors-read", true, false),
        ("vectors-refused", true, false),
    ] {
        let vectors = vectors(kind);
        assert!(vectors.len() >= 4, "{kind}");
        for [name, bytes, meaning] in vectors {
            let check = words(&format!("check({})", json!(bytes)));
            let found = page.value(&check).await;
            let [read, written] = [&found["read"], &found["written"]];
            assert_eq!(*read == meaning.as_str(), reads, "{name}: {read}");
            assert_eq!(*written == bytes.as_str(), writes, "{name}: {written}");
        }
    }
    // What it refuses for its length, and before the Hello.
    for (bytes, options, meaning) in [
        ("00 68 69", "{ greeted: false }", "HelloExpected tag=0x00"),
        ("08", "{ greeted: false }", "HelloExpected tag=0x08"),
        ("00 31 32 33", "{ maxFrame: 3 }", "data 313233"),
        (
            "00 31 32 33",
            "{ maxFrame: 2 }",
            "FrameTooLong length=4 max=3",
        ),
        ("00", "{}", "data"),
    ] {
        let read = words(&format!("reads({}, {options})", json!(bytes)));
        assert_eq!(page.value(&read).await, meaning);
    }
    for (length, options, meaning) in [
        (257, "{ greeted: false }", "FrameTooLong length=257 max=256"),
        (300, "{ maxFrame: 298 }", "FrameTooLong length=300 max=299"),
        (65_538, "{}", "FrameTooLong length=65538 max=65537"),
        (65_543, "{}", "FrameTooLong length=65543 max=65542"),
    ] {
        let bytes = "00 ".repeat(length);
        let read = words(&format!("reads({}, {options})", json!(bytes.trim())));
        assert_eq!(page.value(&read).await, meaning);
    }
    // Whole streams, as far as they are whole frames.
    for (kind, max_frame) in [("vectors-stream", 16), ("vectors-parts", 100_000)] {
        let vectors = vectors(kind);
        assert!(vectors.len() >= 20, "{kind}");
        for [name, bytes, meaning] in vectors {
            let stream = words(&format!("stream({}, {max_frame})", json!(bytes)));
            let seen = page.value(&stream).await;
            let seen = seen.as_str().unwrap();
            // What it finds by a header alone needs a whole frame here.
            let is_whole = seen == meaning;
            let (before, _) = meaning.rsplit_once("; ").unwrap_or(("", ""));
            assert!(is_whole || seen == before, "{name}: {seen}");
        }
    }
    page.assert_content();
}

#[tokio::test]
async fn heartbeat_js_finds_silence_and_excuses_its_own_stalls() {
    let server = Chat::start(&["--bots", "0"]).await;
    let Some(mut page) = server.visit("Ann").await else {
        return;
    };
    let lives = |script: &str| format!("(async () => {{ {FAKE} {script} }})()");

    // A server that says nothing at all. The first interval may be a quarter
    // shorter for the verdict, and much shorter for the first ping.
    let told = page
        .value(&lives("return await told(fake(() => {}), 3000)"))
        .await;
    let told: Vec<&str> = told
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap())
        .collect();
    let last = told.last().unwrap();
    assert!(!told.contains(&"suspect 4"), "{told:?}");
    assert!(
        told.iter().any(|word| word.starts_with("suspect")),
        "{told:?}"
    );
    let silence: f64 = last.strip_prefix("dead silent ").unwrap().parse().unwrap();
    assert!((1270.0..1400.0 + 2000.0).contains(&silence), "{told:?}");

    // One that doesn't even open the socket: its kernel took the connection.
    let told = page
        .value(&lives(
            "return await told(fake(() => {}, false, WebSocket.CONNECTING), 3000)",
        ))
        .await;
    assert_eq!(told.as_array().unwrap().len(), 1, "{told}");
    let end = told[0].as_str().unwrap();
    assert!(end.starts_with("dead silent 1"), "{told}");

    // One that greets and answers, for three times as long.
    let told = page
        .value(&lives("return await told(fake(answers), 4500)"))
        .await;
    let told = told.to_string();
    assert!(
        told.contains("connected") && told.contains("beat"),
        "{told}"
    );
    assert!(
        !told.contains("dead") && !told.contains("suspect 2"),
        "{told}"
    );

    // The page hangs for longer than the detection time: no side is blamed.
    let told = page
        .value(&lives("return await told(fake(answers), 4500, 2500)"))
        .await;
    let told = told.to_string();
    assert!(told.contains("stall"), "{told}");
    assert!(!told.contains("dead"), "{told}");

    // The one of the protocol's ends.
    for (frame, end) in [
        (
            "{ type: 'goodbye', code: 1, detail: 'at noon' }",
            "closed peer 1 at noon",
        ),
        (
            "{ type: 'goodbye', code: 2, detail: 'silent for 3s' }",
            "dead given up 2 silent for 3s",
        ),
        (
            "{ type: 'ping', nonce: new Uint8Array(7) }",
            "dead protocol Malformed tag=0x02",
        ),
    ] {
        let script = format!("return await told(fake((socket) => says(socket, {frame})), 700)");
        let told = page.value(&lives(&script)).await;
        assert_eq!(told.as_array().unwrap().last().unwrap(), end);
    }
    // Its first word is a Hello; another protocol isn't listened to.
    let script = "return await told(fake((socket) => says(socket, { type: 'data', body: [1] }), false), 700)";
    let told = page.value(&lives(script)).await;
    assert_eq!(told, json!(["dead protocol HelloExpected tag=0x00"]));
    page.assert_content();
}

#[tokio::test]
async fn heartbeat_js_asks_along_shows_life_and_tells_its_verdict() {
    let server = Chat::start(&["--bots", "0"]).await;
    let Some(mut page) = server.visit("Ann").await else {
        return;
    };
    let lives = |script: &str| format!("(async () => {{ {FAKE} {script} }})()");

    // A server that asks and never answers: its questions are no signs of life.
    let told = page
        .value(&lives(
            "const sent = [];
             const socket = fake((socket, frame) => sent.push(frame.type), true);
             setInterval(() => says(socket, { type: 'ping', nonce: new Uint8Array(8) }), 100);
             const words = await told(socket, 3500);
             return [words.at(-1), sent.at(-1), sent.slice(0, 2).join()];",
        ))
        .await;
    let end = told[0].as_str().unwrap();
    assert!(end.starts_with("dead silent 1"), "{told}");
    assert_eq!(told[1], "goodbye", "the verdict is told");

    // A server that sends back what it receives.
    let told = page
        .value(&lives(
            "const sent = [];
             const socket = fake((socket, frame) => { sent.push(frame); says(socket, frame); }, false);
             const words = await told(socket, 3500);
             const { type, code, detail } = sent.at(-1);
             return [words, sent.length, type, code, detail];",
        ))
        .await;
    let looped = json!([["dead protocol Loop"], 2, "goodbye", 4, "Loop"]);
    assert_eq!(told, looped);

    // The answer and our own question leave together, the first time.
    let together = page
        .value(&lives(
            "const sent = [];
             const socket = fake((socket, frame) => sent.push(frame.type), true);
             const server = new Heartbeat(socket, { interval: 3_600_000, timeout: 1000, maxMissed: 3 });
             setTimeout(() => says(socket, { type: 'ping', nonce: new Uint8Array(8) }), 100);
             await new Promise((resolve) => setTimeout(resolve, 400));
             says(socket, { type: 'ping', nonce: new Uint8Array(8) });
             await new Promise((resolve) => setTimeout(resolve, 100));
             server.close();
             return sent.join();",
        ))
        .await;
    assert_eq!(together, "hello,pong,ping,pong,goodbye");

    // Messages in parts, and an Alive while one arrives.
    let parts = page
        .value(&lives(
            "const sent = [];
             const socket = fake((socket, frame) => sent.push(frame), true);
             const server = new Heartbeat(socket, { interval: 3_600_000, timeout: 1000, maxMissed: 3 });
             const arrived = [];
             server.addEventListener('message', ({ detail }) => arrived.push(detail));
             await new Promise((resolve) => setTimeout(resolve, 100));
             const message = new Uint8Array(150_000).map((_, index) => index * 7);
             server.send(message);
             const parts = sent.filter(({ type }) => type === 'part');
             for (const part of parts) says(socket, part);
             await new Promise((resolve) => setTimeout(resolve, 100));
             server.close();
             return [
                 parts.map(({ length, body }) => `${length ?? ''}:${body.length}`).join(),
                 arrived.length,
                 arrived[0]?.length === 150_000 && arrived[0].every((byte, at) => byte === message[at]),
                 sent.filter(({ type }) => type === 'alive').length,
             ];",
        ))
        .await;
    let expected = json!(["150000:65536,:65536,:18928", 1, true, 1]);
    assert_eq!(parts, expected);
    page.assert_content();
}

#[tokio::test]
async fn heartbeat_js_leaves_and_finishes_in_order() {
    let server = Chat::start(&["--bots", "0"]).await;
    let Some(mut page) = server.visit("Ann").await else {
        return;
    };
    for (what, script, expected) in LEAVING {
        let script = format!("(async () => {{ {FAKE} {LEAVES} {script} }})()");
        let told = page.value(&script).await;
        assert_eq!(told, json!(expected), "{what}");
    }
    page.assert_content();
}

/// What happens; what a page and its server do; and what the page sent, told, and said
/// of its `close`.
const LEAVING: &[(&str, &str, &str)] = &[
    (
        "the server confirms, behind a ping",
        "server.send(Uint8Array.of(1)); server.close(64, 'home');
         const late = server.send(Uint8Array.of(2));
         await says_soon(ping); await says_soon(goodbye(8));
         return await all(late);",
        "data, goodbye 64 home, pong | closed local 64 home | true | false",
    ),
    (
        "no message goes in front of what the browser holds",
        "socket.bufferedAmount = 100_000;
         server.send(new Uint8Array(70_000)); server.close();
         await says_soon(ping);
         const before = sent.includes('part');
         socket.bufferedAmount = 0;
         await until(() => sent.at(-1) === 'goodbye 0'); await says_soon(goodbye(8));
         return await all(before);",
        "pong, part, part, goodbye 0 | closed local 0 | true | false",
    ),
    (
        "a living server doesn't confirm",
        "server.close();
         for (let round = 0; round < 5; round++) await says_soon({ type: 'alive' });
         return await all();",
        "goodbye 0 | closed unconfirmed 0 | false",
    ),
    (
        "a server that doesn't confirm dies",
        "server.close();
         socket.dispatchEvent(new CloseEvent('close', { code: 1006 }));
         return await all();",
        "goodbye 0 | dead eof | false",
    ),
    (
        "the server gives us up while we leave",
        "server.close(); await says_soon(goodbye(7)); return await all();",
        "goodbye 0 | dead given up | false",
    ),
    (
        "the server leaves: what waits is given up",
        "socket.bufferedAmount = 100_000; server.send(Uint8Array.of(1));
         await says_soon(goodbye(64)); return await all();",
        "goodbye 8 | closed peer 64 | false",
    ),
    (
        "the server leaves with a code that nobody knows",
        "await says_soon(goodbye(200)); return await all();",
        "goodbye 8 | closed peer 200 | false",
    ),
    (
        "a confirmation of nothing",
        "await says_soon(goodbye(8)); return await all();",
        " | closed peer 8 | false",
    ),
    (
        "both leave, and both confirm",
        "server.close(); await says_soon(goodbye(65)); await says_soon(goodbye(8));
         return await all();",
        "goodbye 0, goodbye 8 | closed local 0 | true",
    ),
    (
        "both leave, and the answer is behind our own goodbye",
        "socket.bufferedAmount = 100_000;
         server.close(); await says_soon(goodbye(65));
         socket.bufferedAmount = 0;
         await until(() => sent.at(-1) === 'goodbye 8'); await says_soon(goodbye(8));
         return await all();",
        "goodbye 0, goodbye 8 | closed local 0 | true",
    ),
    (
        "both leave, and our answer waits",
        "server.close(); socket.bufferedAmount = 100_000;
         await says_soon(goodbye(65)); await says_soon(goodbye(8));
         const early = events.length;
         socket.bufferedAmount = 0;
         return await all(early);",
        "goodbye 0, goodbye 8 | closed local 0 | true | 0",
    ),
    (
        "a confirmation of what wasn't said",
        "socket.bufferedAmount = 100_000; server.close(); await says_soon(goodbye(8));
         socket.bufferedAmount = 0;
         await until(() => sent.at(-1) === 'goodbye 0');
         socket.dispatchEvent(new CloseEvent('close', { code: 1000 }));
         return await all();",
        "goodbye 0 | closed peer 8 | false",
    ),
    (
        "both leave, and the server is gone before it has our answer",
        "server.close(); socket.bufferedAmount = 100_000;
         await says_soon(goodbye(65)); await says_soon(goodbye(8));
         socket.dispatchEvent(new CloseEvent('close', { code: 1006 }));
         return await all();",
        "goodbye 0 | closed local 0 | true",
    ),
    (
        "the server leaves and doesn't confirm",
        "server.close(); await says_soon(goodbye(1));
         socket.dispatchEvent(new CloseEvent('close', { code: 1000 }));
         return await all();",
        "goodbye 0, goodbye 8 | closed peer 1 | false",
    ),
    (
        "both finish, and messages come in between",
        "server.finish();
         const late = server.send(Uint8Array.of(2));
         await says_soon({ type: 'data', body: Uint8Array.of(3) });
         await says_soon({ type: 'fin' });
         return await all(late);",
        "fin | message 3, finished, closed finished 0 | false | false",
    ),
    (
        "the server finishes, twice, and takes messages",
        "await says_soon({ type: 'fin' }); await says_soon({ type: 'fin' });
         server.send(Uint8Array.of(1)); server.close(); await says_soon(goodbye(8));
         return await all();",
        "data, goodbye 0 | finished, closed local 0 | true",
    ),
    (
        "a message after the last one",
        "await says_soon({ type: 'fin' });
         await says_soon({ type: 'data', body: Uint8Array.of(3) });
         return await all();",
        "goodbye 4 AfterFin | finished, dead protocol | false",
    ),
];

/// What `LEAVING` is written with. No side is silent for long enough to be pinged.
const LEAVES: &str = r"
    const sent = [];
    const events = [];
    const socket = fake((_, { type, code, detail }) => {
        sent.push([type, code, detail].filter((word) => word !== undefined).join(' ').trim());
    }, true);
    const server = new Heartbeat(socket, {
        interval: 60_000, timeout: 1000, maxMissed: 3, linger: 400,
    });
    const listen = (type, say) => server.addEventListener(type, ({ detail }) =>
        events.push(`${type} ${say(detail)}`.trim()));
    listen('message', (body) => body.join());
    listen('finished', () => '');
    listen('closed', ({ reason, code, detail }) => `${reason} ${code} ${detail}`);
    listen('dead', ({ cause }) => cause);
    const ping = { type: 'ping', nonce: new Uint8Array(8) };
    const goodbye = (code) => ({ type: 'goodbye', code, detail: '' });
    const wait = (time) => new Promise((resolve) => setTimeout(resolve, time));
    const until = async (done) => { while (!done()) await wait(5); };
    const says_soon = async (frame) => { says(socket, frame); await wait(20); };
    const all = async (...more) => {
        await until(() => events.some((word) => /^(closed|dead)/.test(word)));
        const confirmed = await server.close();
        // Nothing comes behind.
        await says_soon(ping);
        const frames = sent.filter((word) => !['hello', 'ping'].includes(word)).join(', ');
        return [frames, events.join(', '), confirmed, ...more].join(' | ');
    };
    // The first ping comes early, or with the answer to one.
    await until(() => server.status.peer !== null);
";

// ---- strangers ----------------------------------------------------------------

#[tokio::test]
async fn rubbish_ends_only_the_connection_that_it_came_on() {
    let server = Chat::start(&["--bots", "1"]).await;
    let mut witness = Stranger::join(&server, "Witness").await;
    let binary = |bytes: &[u8]| Message::Binary(Bytes::copy_from_slice(bytes));
    let rubbish = [
        ("a text message", Message::text("hello"), "a text message"),
        ("nothing", binary(b""), "a frame of no bytes"),
        ("an unknown tag", binary(b"\x09"), "unknown frame tag 0x09"),
        (
            "a short ping",
            binary(b"\x021234567"),
            "the body of a frame with tag 0x02 is malformed",
        ),
        (
            "half a goodbye",
            binary(b"\x04 "),
            "the body of a frame with tag 0x04 is malformed",
        ),
        (
            "a hello of another kind",
            binary(b"\x01HBX\0\x01\x01\x02\x01\x01"),
            "the hello's magic is wrong",
        ),
        (
            "a hello without times",
            binary(b"\x01HBT\0\x01"),
            "the body of a frame with tag 0x01 is malformed",
        ),
        ("no JSON", binary(b"\x00{\"Say\":"), "EOF while parsing"),
        (
            "no message",
            binary(b"\x00{\"Shout\":{}}"),
            "unknown variant `Shout`",
        ),
        ("no text", binary(b"\x00\"\xff\xfe\""), "invalid unicode"),
        (
            "a deep array",
            binary(&[b"\x00".as_slice(), &[b'['; 5000]].concat()),
            "",
        ),
        (
            "a long control frame",
            binary(&[3; 300]),
            "a frame of 300 bytes, at most 256 are accepted",
        ),
        ("a long message", binary(&[0; 100_000]), "Message too long"),
        (
            "a message in parts that is too long",
            binary(b"\x07\xff\xff\x7f{"),
            "at most",
        ),
        (
            "a message in parts that is too short",
            binary(b"\x07\x01{"),
            "parts that make no message",
        ),
        (
            "a reserved opcode",
            Message::Frame(Frame::message(
                vec![1],
                OpCode::Data(Data::Reserved(3)),
                true,
            )),
            "",
        ),
    ];
    let mut sent = 0;
    for (what, message, words) in rubbish {
        let name = format!("Mallory {sent}");
        let mut mallory = Stranger::join(&server, &name).await;
        mallory.send(message).await;
        let verdict = mallory.until_ended(what).await;
        if let Some((code, detail)) = verdict {
            assert_eq!(code, GoodbyeCode::PROTOCOL, "{what}");
            // What the application's codec says of it is told to us only.
            let by_codec = detail == "the codec can't read it";
            assert!(by_codec || detail.contains(words), "{what}: {detail}");
        }
        let told = witness
            .told(&format!("{name} has left (broke the protocol: "))
            .await;
        assert!(told.contains(words), "{what}: {told}");
        sent += 1;
    }
    // Of which each is counted, and the others talk on.
    let counted = server.metrics().await;
    let line = format!("chat_departures_total{{cause=\"protocol\"}} {sent}\n");
    assert!(counted.contains(&line), "{counted}");
    witness
        .say(&json!({ "Say": { "text": "anybody hurt?" } }))
        .await;
    witness.hears("anybody hurt?").await;
    witness.has_row("Bob").await;

    // Too many pings are none of a protocol's errors, but they end it too.
    let mut mallory = Stranger::join(&server, "Mallory").await;
    for count in 0_u64..5000 {
        let ping = Control::Ping(Nonce(count.to_be_bytes()));
        if mallory.try_send(control(ping)).await.is_err() {
            break;
        }
    }
    witness.told("Mallory has left (ping flood)").await;
}

#[tokio::test]
async fn a_stranger_without_a_name_is_no_member_and_is_not_waited_for() {
    let server = Chat::start(&["--bots", "0"]).await;
    let mut witness = Stranger::join(&server, "Witness").await;
    // Not one of them speaks as it should.
    let mut silent = Stranger::connect(&server).await;
    let mut rude = Stranger::connect(&server).await;
    rude.send(control(Control::Goodbye(GoodbyeCode::LEAVING)))
        .await;
    let mut hasty = Stranger::connect(&server).await;
    hasty.greet().await;
    hasty.say(&json!({ "Say": { "text": "me first" } })).await;
    let mut nameless = Stranger::connect(&server).await;
    let join = json!({ "Join": { "name": "Nobody", "badge": null } });
    nameless.say(&join).await;
    rude.until_ended("a goodbye first").await;
    nameless.until_ended("no hello").await;
    hasty.until_ended("no name").await;
    silent.until_ended("silence").await;

    // Over plain TCP too.
    let mut garbage = TcpStream::connect(server.terminals()).await.unwrap();
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let read = timeout(SOON, garbage.read_to_end(&mut answer)).await;
    // However it was closed.
    let _ = read.expect("in time");

    witness.has_no_row_but("Witness").await;
}

#[tokio::test]
async fn a_page_from_elsewhere_may_not_open_a_socket() {
    let server = Chat::start(&["--bots", "0"]).await;
    let address = server.0.address;
    let own = format!("http://{address}");
    for (origin, host, welcome) in [
        (Some(&*own), None, true),
        (None, None, true),
        (Some("http://example.org"), None, false),
        (Some("null"), None, false),
        (Some("https://127.0.0.1"), None, false),
        // A name that an attacker has pointed at this machine.
        (
            Some("http://evil.example:80"),
            Some("evil.example:80"),
            false,
        ),
    ] {
        let mut request = format!("ws://{address}/socket")
            .into_client_request()
            .unwrap();
        if let Some(origin) = origin {
            request
                .headers_mut()
                .insert("origin", origin.parse().unwrap());
        }
        if let Some(host) = host {
            request.headers_mut().insert("host", host.parse().unwrap());
        }
        let stream = TcpStream::connect(address).await.unwrap();
        match client_async(request, stream).await {
            Ok(_) => assert!(welcome, "{origin:?} was let in"),
            Err(Error::Http(response)) => {
                assert!(!welcome, "{origin:?} wasn't let in");
                assert_eq!(response.status(), StatusCode::FORBIDDEN);
            }
            Err(error) => panic!("{origin:?}: {error}"),
        }
    }
}

#[tokio::test]
async fn no_bot_outlives_a_server_that_is_killed() {
    let server = Chat::start(&["--bots", "3"]).await;
    let mut witness = Stranger::join(&server, "Witness").await;
    for name in ["Bob", "Carol", "Dave"] {
        witness.has_row(name).await;
    }
    let row = witness.has_row("Bob").await;
    let bot = row["bot"]["number"].as_u64().unwrap();
    // Not even one that stands still.
    witness
        .say(&json!({ "Ask": { "Do": { "bot": bot, "deed": "Freeze" } } }))
        .await;
    let bots = witness.processes().await;
    assert_eq!(bots.len(), 3);
    // Only the server itself.
    kill_process(server.0.process.group(), Signal::KILL).unwrap();
    let gone = async {
        while bots.iter().any(|process| lives(*process)) {
            sleep(ms(50)).await;
        }
    };
    timeout(SOON, gone).await.expect("they end with it");
}

/// One that is dead and only not reaped yet doesn't count.
fn lives(process: u64) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let state = status
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

// ---- what a page shows --------------------------------------------------------

fn row(name: &str) -> String {
    format!("document.querySelector('#members [data-name=\"{name}\"]')")
}

fn departed(name: &str) -> String {
    format!("document.querySelector('#left [data-name=\"{name}\"]')")
}

fn has_state(name: &str, state: &str) -> String {
    format!("{}?.dataset.state === '{state}'", row(name))
}

fn alive(name: &str) -> String {
    has_state(name, "alive")
}

/// It isn't listed, but as one that has left.
fn is_gone(name: &str) -> String {
    format!("{} === null && {} !== null", row(name), departed(name))
}

fn button(name: &str, deed: &str) -> String {
    format!("[data-name=\"{name}\"] [data-deed=\"{deed}\"]")
}

fn was_told(words: &str) -> String {
    let words = json!(words);
    format!(
        "[...document.querySelectorAll('#log .notice')].some((line) => line.textContent.startsWith({words}))"
    )
}

fn said(name: &str, text: &str) -> String {
    let line = json!(format!("{name}{text}"));
    format!("[...document.querySelectorAll('#log li')].some((line) => line.textContent === {line})")
}

async fn say(page: &mut Browser, text: &str) {
    let text = json!(text);
    let submit = format!(
        "document.getElementById('text').value = {text}; \
         document.getElementById('say').requestSubmit()"
    );
    page.value(&submit).await;
}

/// What the banner says; nothing while it is hidden.
fn banner() -> String {
    "((it) => it.hidden ? '' : it.textContent)(document.getElementById('banner'))".into()
}

fn warns(words: &str) -> String {
    format!("{}.startsWith({})", banner(), json!(words))
}

fn words(expression: &str) -> String {
    format!("(async () => {{ {WORDS} return {expression}; }})()")
}

/// Says what a frame means in the words of the vectors, and writes it again.
const WORDS: &str = r"
    const { encode, decode } = await import('/heartbeat.js');
    const hex = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, '0'));
    const words = (frame) => {
        switch (frame.type) {
            case 'hello':
                return `hello interval=${frame.interval} detection=${frame.detectionTime} ` +
                    `min=${frame.minInterval} missed=${frame.maxMissed} ` +
                    `frame=${frame.maxFrame} instance=${hex(frame.instance).join('')}`;
            case 'goodbye': {
                const detail = hex(new TextEncoder().encode(frame.detail)).join('');
                return `goodbye code=${frame.code}${detail && ` detail=${detail}`}`;
            }
            case 'data': return data(frame.body);
            case 'ping':
            case 'pong': return `${frame.type} nonce=${hex(frame.nonce).join('')}`;
            default: return frame.type;
        }
    };
    // A long message as runs of the same byte.
    const data = (body) => {
        if (body.length < 100) return `data ${hex(body).join('')}`.trim();
        const runs = [];
        for (let at = 0; at < body.length; ) {
            const end = body.findIndex((byte, index) => index > at && byte !== body[at]);
            const count = (end < 0 ? body.length : end) - at;
            runs.push(hex([body[at]])[0] + (count > 1 ? `*${count}` : ''));
            at += count;
        }
        return `data ${runs.join(' ')}`;
    };
    const bytesOf = (text) => Uint8Array.from(text.split(' ').filter(Boolean).flatMap((run) => {
        const [byte, count] = run.split('*');
        return Array(Number(count ?? 1)).fill(parseInt(byte, 16));
    }));
    const stream = (text, maxFrame) => {
        const bytes = bytesOf(text);
        const seen = [];
        let [at, greeted, missing, parts, finished] = [0, false, 0, [], false];
        while (at + 4 <= bytes.length) {
            const end = at + 4 + new DataView(bytes.buffer).getUint32(at);
            if (end > bytes.length) break;
            try {
                const options = { greeted, maxFrame, missing, finished };
                const frame = decode(bytes.subarray(at + 4, end), options);
                finished ||= frame.type === 'fin' || frame.type === 'goodbye';
                if (frame.type !== 'part') {
                    seen.push(words(frame));
                } else {
                    missing = (frame.length ?? missing) - frame.body.length;
                    parts.push(...frame.body);
                    seen.push(missing > 0 ? 'part' : data(Uint8Array.from(parts.splice(0))));
                }
            } catch (error) {
                seen.push(error.message);
                break;
            }
            [at, greeted] = [end, true];
        }
        return seen.join('; ');
    };
    const reads = (text, options) => {
        try { return words(decode(bytesOf(text), options)); } catch (error) { return error.message; }
    };
    const check = (text) => {
        const read = reads(text);
        try { return { read, written: hex(encode(decode(bytesOf(text)))).join(' ') }; }
        catch { return { read, written: null }; }
    };";

/// A socket whose other end is a function, and what a heartbeat tells of it.
/// Dead after 1.4 s: an interval of 500 ms, and three timeouts of 300 ms.
const FAKE: &str = r"
    const { Heartbeat, encode, decode } = await import('/heartbeat.js');
    const says = (socket, frame) => socket.arrives(encode(frame));
    const answers = (socket, frame) => {
        if (frame.type === 'ping') says(socket, { type: 'pong', nonce: frame.nonce });
    };
    const hello = {
        type: 'hello', interval: 5e6, detectionTime: 14e6, minInterval: 1e5, maxMissed: 3,
        maxFrame: 8 << 20, instance: new Uint8Array(8),
    };
    const fake = (other, greets = other.length > 0, readyState = WebSocket.OPEN) => {
        const socket = new EventTarget();
        socket.readyState = readyState;
        socket.bufferedAmount = 0;
        socket.close = () => {};
        socket.arrives = (bytes) => setTimeout(() => {
            socket.dispatchEvent(new MessageEvent('message', { data: bytes.buffer }));
        });
        let missing = 0;
        socket.send = (bytes) => {
            const frame = decode(bytes, { missing });
            if (frame.type === 'part') missing = (frame.length ?? missing) - frame.body.length;
            if (frame.type === 'hello' && greets) says(socket, hello);
            if (frame.type !== 'hello' || other !== answers) other(socket, frame);
        };
        return socket;
    };
    const told = async (socket, wait, hang = 0) => {
        const words = [];
        const server = new Heartbeat(socket, { interval: 500, timeout: 300, maxMissed: 3 });
        const listen = (type, say) => server.addEventListener(type, ({ detail }) =>
            words.push(`${type} ${say(detail)}`.trim()));
        listen('connected', () => '');
        listen('beat', () => '');
        listen('suspect', ({ missed }) => missed);
        listen('stall', () => '');
        listen('closed', ({ reason, code, detail }) => `${reason} ${code} ${detail}`);
        listen('dead', ({ cause, silentFor, error, code, detail }) =>
            `${cause} ${error ? error.message : code ? `${code} ${detail}` : silentFor}`);
        await new Promise((resolve) => setTimeout(resolve, 700));
        const until = performance.now() + hang;
        while (performance.now() < until);
        await new Promise((resolve) => setTimeout(resolve, Math.max(0, wait - 700)));
        server.close();
        return words.filter((word) => !word.startsWith('closed local'));
    };";

/// Name, bytes and meaning of each of them.
fn vectors(kind: &str) -> Vec<[String; 3]> {
    let page = include_str!("../../docs/protocol.md");
    let mut vectors = Vec::new();
    for block in page.split(&format!("```{kind}\n")).skip(1) {
        let block = block.split("```").next().unwrap();
        for line in block.lines() {
            let parts: Vec<&str> = line.split('|').map(str::trim).collect();
            vectors.push([parts[0], parts[1], parts[2]].map(str::to_owned));
        }
    }
    vectors
}

// ---- the server -----------------------------------------------------------------

fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| example("chat"))
}

/// The example's server and its bots. All of them are gone when this is dropped.
struct Chat(Server);

impl Chat {
    async fn start(options: &[&str]) -> Self {
        let server = Server::start(GUARD, |port| command(port, options)).await;
        Self(server)
    }

    async fn at(address: SocketAddr, options: &[&str]) -> Self {
        let command = |port| command(port, options);
        let started = Server::start_at(address, GUARD, &command).await;
        Self(started.expect("nobody has taken its port"))
    }

    /// Kills it, and starts another one in its place.
    async fn restart(self, options: &[&str]) -> Self {
        let address = self.0.address;
        drop(self);
        Self::at(address, options).await
    }

    /// A browser that shows the page.
    async fn visit(&self, name: &str) -> Option<Browser> {
        let url = format!("http://{}/?name={name}", self.0.address);
        let _starts = starts().await;
        let mut page = Browser::open(GUARD, &url).await?;
        let arrived = format!("document.readyState === 'complete' && {}", alive(name));
        page.until(&arrived, secs(60)).await;
        Some(page)
    }

    async fn metrics(&self) -> String {
        let mut stream = self.0.connect().await;
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = timeout(SOON, stream.read_to_string(&mut answer)).await;
        read.expect("in time").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer
    }

    /// Where it listens for terminals: next to the page, in these tests.
    fn terminals(&self) -> SocketAddr {
        let mut address = self.0.address;
        address.set_ip([127, 0, 0, 2].into());
        address
    }
}

fn command(port: u16, options: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.arg("server").arg("--quiet");
    command.args(["--http", &format!("127.0.0.1:{port}")]);
    command.args(["--tcp", &format!("127.0.0.2:{port}")]);
    command.args([
        "--detect-within",
        &format!("{}ms", DETECT_WITHIN.as_millis()),
    ]);
    command.args(options);
    command
}

/// `chat client`, in a process of its own.
struct Terminal {
    input: ChildStdin,
    output: tokio::io::Lines<BufReader<ChildStdout>>,
    _process: PeerProcess,
}

impl Terminal {
    fn start(server: &Chat, name: &str) -> Self {
        let address = server.terminals();
        let mut command = Command::new(GUARD);
        command.arg(program()).args(["client", "--name", name]);
        command.args(["--server", &address.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = PeerProcess::spawn(&mut command).unwrap();
        let (input, output) = process.take_pipes().unwrap();
        Self {
            input: ChildStdin::from_std(input).unwrap(),
            output: BufReader::new(ChildStdout::from_std(output).unwrap()).lines(),
            _process: process,
        }
    }

    async fn say(&mut self, line: &str) {
        self.input
            .write_all(format!("{line}\n").as_bytes())
            .await
            .unwrap();
    }

    /// Waits until it prints a line that begins so.
    async fn until(&mut self, beginning: &str) {
        let mut printed = Vec::new();
        let all = async {
            while let Some(line) = self.output.next_line().await.unwrap() {
                printed.push(line);
                if printed.last().unwrap().starts_with(beginning) {
                    return;
                }
            }
            panic!("it has ended");
        };
        let done = timeout(secs(60), all).await;
        assert!(done.is_ok(), "no {beginning:?}: {printed:#?}");
    }
}

// ---- a stranger -----------------------------------------------------------------

/// A program that speaks WebSocket to the server, and as much of the protocol as
/// a test wants it to.
struct Stranger {
    socket: WebSocketStream<TcpStream>,
    /// The last goodbye.
    verdict: Option<(GoodbyeCode, String)>,
}

impl Stranger {
    async fn connect(server: &Chat) -> Self {
        let stream = server.0.connect().await;
        let address = format!("ws://{}/socket", server.0.address);
        let (socket, _) = client_async(address, stream).await.unwrap();
        let verdict = None;
        Self { socket, verdict }
    }

    async fn join(server: &Chat, name: &str) -> Self {
        let mut stranger = Self::connect(server).await;
        stranger.greet().await;
        let join = json!({ "Join": { "name": name, "badge": null } });
        stranger.say(&join).await;
        stranger.until(|said| !said["Welcome"].is_null()).await;
        stranger
    }

    async fn greet(&mut self) {
        self.send(control(Control::Hello(
            Config::mobile().hello(*b"stranger"),
        )))
        .await;
    }

    async fn say(&mut self, message: &Value) {
        let data = [b"\0", message.to_string().as_bytes()].concat();
        self.send(Message::binary(data)).await;
    }

    async fn send(&mut self, message: Message) {
        self.try_send(message).await.unwrap();
    }

    async fn try_send(&mut self, message: Message) -> Result<(), Error> {
        timeout(SOON, self.socket.send(message))
            .await
            .expect("it is read")
    }

    /// What the server says next; its pings are answered. `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            let message = match self.socket.next().await? {
                Ok(Message::Binary(bytes)) => bytes,
                Ok(_) => continue,
                Err(
                    Error::Io(_) | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake),
                ) => {
                    return None;
                }
                Err(error) => panic!("{error}"),
            };
            if let Some(data) = message.strip_prefix(b"\0") {
                return Some(serde_json::from_slice(data).unwrap());
            }
            match Control::decode(&message).unwrap() {
                Control::Ping(nonce) => {
                    // It may have closed meanwhile.
                    let _ = self.try_send(control(Control::Pong(nonce))).await;
                }
                Control::Goodbye(code) => {
                    let goodbye = Goodbye::decode(&message).unwrap();
                    self.verdict = Some((code, goodbye.detail.to_owned()));
                }
                _ => {}
            }
        }
    }

    async fn until(&mut self, found: impl Fn(&Value) -> bool) -> Value {
        let all = async {
            loop {
                let said = self.next().await.expect("it isn't ended");
                if found(&said) {
                    return said;
                }
            }
        };
        timeout(SOON, all).await.expect("in time")
    }

    /// Says what the server said of it, if that arrived.
    async fn until_ended(&mut self, what: &str) -> Option<(GoodbyeCode, String)> {
        let all = async { while self.next().await.is_some() {} };
        let ended = timeout(SOON, all).await;
        assert!(ended.is_ok(), "{what} doesn't end it");
        self.verdict.take()
    }

    /// A notice that begins so.
    async fn told(&mut self, beginning: &str) -> String {
        let is_it = |said: &Value| {
            let text = said["Notice"]["text"].as_str();
            text.is_some_and(|text| text.starts_with(beginning))
        };
        let said = self.until(is_it).await;
        said["Notice"]["text"].as_str().unwrap().to_owned()
    }

    async fn hears(&mut self, text: &str) {
        self.until(|said| said["Said"]["text"] == text).await;
    }

    async fn has_row(&mut self, name: &str) -> Value {
        let rows = |said: &Value| said["Roster"]["members"].as_array().cloned();
        let named = |row: &Value| row["name"] == name;
        let roster = self
            .until(|said| rows(said).is_some_and(|rows| rows.iter().any(named)))
            .await;
        rows(&roster).unwrap().into_iter().find(named).unwrap()
    }

    async fn has_no_row_but(&mut self, name: &str) {
        let roster = self.until(|said| !said["Roster"].is_null()).await;
        let members = roster["Roster"]["members"].as_array().unwrap();
        assert!(
            members.iter().all(|row| row["name"] == name),
            "{members:#?}"
        );
        assert_eq!(roster["Roster"]["left"], json!([]));
    }

    /// Those of the bots.
    async fn processes(&mut self) -> BTreeSet<u64> {
        let roster = self.until(|said| !said["Roster"].is_null()).await;
        let members = roster["Roster"]["members"].as_array().unwrap();
        members
            .iter()
            .filter_map(|row| row["bot"]["process"].as_u64())
            .collect()
    }
}

/// As it travels.
fn control(control: Control) -> Message {
    let mut buffer = [0; Control::MAX_ENCODED];
    Message::binary(control.encode(&mut buffer).unwrap().to_vec())
}
