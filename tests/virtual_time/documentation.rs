//! The pages in Markdown: what they link to is there, the guide is whole, and
//! the messages in its FAQ are those that people see.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    panic::catch_unwind,
    path::{Component, Path, PathBuf},
};

use futures::{SinkExt, StreamExt};
use heartbeat_core::{Control, Goodbye, GoodbyeCode};
use heartbeat_tests::{RawPeer, ms, secs, wrapped};
use heartbeat_tokio::{Config, ConfigError, Diagnosis, Heartbeat, PeerEvent, Postcard};
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};
use tokio::{
    runtime,
    time::{advance, sleep},
};

const GUIDE: &str = "docs/guide";

// ---- links ------------------------------------------------------------------

#[test]
fn every_link_leads_to_something_that_is_there() {
    let pages = pages();
    assert!(pages.len() > 15, "{:?}", pages.keys());
    let mut followed = 0;
    for (page, Page { links, .. }) in &pages {
        for link in links.iter().filter(|link| !link.contains("://")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => page.clone(),
                path => normal(&page.parent().unwrap().join(path)),
            };
            assert!(root().join(&target).exists(), "{page:?}: {link}");
            if !anchor.is_empty() {
                let there = &pages[&target].anchors;
                assert!(there.contains(anchor), "{page:?}: {link}, of {there:?}");
            }
            followed += 1;
        }
    }
    assert!(followed > 100, "{followed}");
}

/// In rustdoc a page isn't beside the others. `guide.rs` says where its links lead there.
#[test]
fn each_link_of_a_page_in_rustdoc_leads_somewhere_in_rustdoc() {
    let guide = root().join("heartbeat-tokio/src/guide.rs");
    let guide = fs::read_to_string(guide).unwrap();
    let folder = root().join("heartbeat-tokio/src/guide");
    let mut found = 0;
    for page in fs::read_dir(folder).unwrap() {
        let page = page.unwrap().path();
        let text = fs::read_to_string(&page).unwrap();
        let name = page.file_name().unwrap().to_str().unwrap();
        let (before, _) = guide.split_once(&format!("\"guide/{name}\"")).unwrap();
        let (_, definitions) = before.rsplit_once(';').unwrap_or(("", before));
        for (_, target) in text
            .match_indices("](")
            .map(|(at, _)| text.split_at(at + 2))
        {
            let is_elsewhere = target.starts_with("https://") || target.starts_with('#');
            assert!(is_elsewhere, "{name}: {:?}", target.lines().next());
        }
        for line in text.lines().filter(|line| line.starts_with('[')) {
            let Some((key, _)) = line.split_once("]: ") else {
                continue;
            };
            found += 1;
            assert!(
                definitions.contains(&format!("{key}]: crate::")),
                "{name}: {key}]"
            );
        }
    }
    assert!(found > 10, "{found}");
}

/// `.ci/book.py` builds the book and follows its links.
#[test]
fn the_book_has_every_page_of_docs_and_no_other() {
    let pages = pages();
    let mut written: BTreeSet<_> = pages
        .keys()
        .filter(|page| page.starts_with("docs"))
        .collect();
    let summary = Path::new("docs/SUMMARY.md");
    assert!(written.remove(&summary.to_owned()), "{written:?}");
    let listed: Vec<_> = pages[summary]
        .links
        .iter()
        .map(|link| Path::new("docs").join(link))
        .collect();
    assert_eq!(listed.iter().collect::<BTreeSet<_>>(), written);

    // The guide's first page has a row for each chapter, in the same order.
    let first = Path::new(GUIDE).join("README.md");
    let chapters = listed
        .iter()
        .filter(|page| page.starts_with(GUIDE) && **page != first);
    let rows = pages[&first]
        .links
        .iter()
        .map(|link| Path::new(GUIDE).join(link));
    let rows: Vec<_> = rows.filter(|page| listed.contains(page)).collect();
    assert_eq!(rows, chapters.cloned().collect::<Vec<_>>());

    let book: toml::Table = toml::from_str(&read(Path::new("docs/book.toml"))).unwrap();
    assert_eq!(book["book"]["src"].as_str(), Some("."));
}

/// Rust is compiled by `support/lib.rs` or stands in a test, JavaScript is run by the tests
/// in node, and what is neither says so.
#[test]
fn every_block_of_code_in_the_guide_is_compiled_or_is_none() {
    let doctests = read(Path::new("tests/support/lib.rs"));
    let compared = read(Path::new("tests/virtual_time/your_program.rs"));
    let compiled = [doctests, compared].concat();
    let javascript = read(Path::new("examples/heartbeat-js/test/package.test.js"));
    for (page, Page { blocks, .. }) in pages() {
        if !page.starts_with(GUIDE) {
            continue;
        }
        // As a page is written, whatever the system puts between folders.
        let page = page.display().to_string().replace('\\', "/");
        let include = format!("include_str!(\"../../{page}\")");
        for (language, block) in blocks {
            match &*language {
                "rust" | "rust,no_run" => assert!(compiled.contains(&include), "{page:?}"),
                "js" => assert!(javascript.contains(&page), "{page:?}"),
                "toml" => drop(toml::from_str::<toml::Table>(&block).expect("valid TOML")),
                "text" | "console" | "sh" => {}
                other => panic!("{page:?}: {other:?}"),
            }
        }
    }
}

// ---- tests --------------------------------------------------------------------

/// Each line of what a hostile peer can cost has a test, and each test that a page names
/// is there.
#[test]
fn each_test_that_a_page_names_is_there() {
    let tests = names_of_tests();
    let (mut named, mut missing) = (0, Vec::new());
    for page in ["SECURITY.md", "docs/testing.md"] {
        // Rows of what is measured have figures instead of tests.
        let mut is_measured = false;
        for row in read(Path::new(page)).lines() {
            if !row.starts_with("| ") {
                is_measured &= row.starts_with("|-");
                continue;
            }
            is_measured |= row.starts_with("| attack |");
            let spans = row.split('`').skip(1).step_by(2);
            let words = |span: &&str| {
                let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
                span.chars().all(is_word) && span.matches('_').count() > 1
            };
            let named_here: Vec<_> = spans.filter(words).collect();
            named += named_here.len();
            missing.extend(
                named_here
                    .iter()
                    .filter(|test| !tests.contains(**test))
                    .map(|test| format!("{page}: {test}")),
            );
            if page == "SECURITY.md" {
                let head = row.starts_with("| it tries");
                let is_right = head || is_measured || !named_here.is_empty();
                assert!(is_right, "no test: {row}");
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(named > 200, "{named}");
}

/// Of every function and module in the tests, and beside the code.
fn names_of_tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let folders = ["tests", "heartbeat-core", "heartbeat-tokio", "examples"];
    let mut folders: Vec<_> = folders
        .into_iter()
        .map(|folder| root().join(folder))
        .collect();
    while let Some(folder) = folders.pop() {
        for file in fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                names.extend(
                    path.file_stem()
                        .map(|stem| stem.to_string_lossy().into_owned()),
                );
                let source = fs::read_to_string(path).unwrap();
                let functions = source.split("fn ").skip(1);
                let name = |rest: &str| rest.split(['(', '<']).next().map(str::to_owned);
                names.extend(functions.filter_map(name));
            }
        }
    }
    names
}

// ---- the FAQ ------------------------------------------------------------------

/// To the letter, and no other.
#[test]
fn the_messages_in_the_faq_are_those_that_people_see() {
    let faq = &pages()[&Path::new(GUIDE).join("faq.md")];
    let blocks = faq.blocks.iter().filter(|(language, _)| language == "text");
    let lines = blocks.flat_map(|(_, block)| block.lines());
    let shown: BTreeSet<_> = lines.map(str::to_owned).collect();

    let mut said: BTreeSet<_> = refused().map(|error| error.to_string()).into();
    said.extend(panics());
    let runtime = runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    said.extend(runtime.block_on(told()));
    assert_eq!(shown, said);
}

fn refused() -> [ConfigError; 9] {
    let builder = Config::builder;
    [
        builder().timeout(secs(0)).build(),
        builder().interval(secs(366 * 24 * 60 * 60)).build(),
        Config::detect_within(std::time::Duration::from_micros(2)),
        builder().max_missed(0).build(),
        builder().jitter(25.0).build(),
        builder().adaptive_floor(secs(5)).build(),
        builder().min_interval(secs(6)).build(),
        builder().timeout(secs(1)).min_interval(secs(4)).build(),
        builder().max_frame(0).build(),
    ]
    .map(Result::unwrap_err)
}

/// What tokio says where it isn't as the library needs it.
fn panics() -> [String; 2] {
    let message = |panic: Box<dyn std::any::Any + Send>| *panic.downcast::<String>().unwrap();
    let outside = catch_unwind(|| drop(wrapped(exact()).0.spawn()));
    let without_time = catch_unwind(|| {
        let runtime = runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async { wrapped(exact()).0.next().await });
    });
    [outside.unwrap_err(), without_time.unwrap_err()].map(message)
}

/// Events, and errors of senders.
async fn told() -> Vec<String> {
    let mut said = Vec::new();

    let (mut silent, _peer) = wrapped(exact());
    let PeerEvent::Dead(mut death) = silent.next_terminal().await else {
        panic!("it isn't dead")
    };
    said.push(
        silent
            .send("too late".into())
            .await
            .unwrap_err()
            .to_string(),
    );
    for diagnosis in [
        Diagnosis::AppHung,
        Diagnosis::PathDead,
        Diagnosis::PeerNotReading,
    ] {
        death.diagnosis = diagnosis;
        said.push(PeerEvent::<()>::Dead(death.clone()).to_string());
    }
    (death.diagnosis, death.was_heard) = (Diagnosis::AppHung, false);
    said.push(PeerEvent::<()>::Dead(death.clone()).to_string());
    (death.diagnosis, death.was_heard) = (Diagnosis::Unknown, true);

    let (mut left, mut peer) = wrapped(exact());
    peer.send_control(Control::Hello(exact().hello([7; 8])))
        .await;
    peer.send_control(Control::Goodbye(GoodbyeCode::LEAVING))
        .await;
    left.next_terminal().await;
    said.push(left.send("too late".into()).await.unwrap_err().to_string());

    let (mut left_alone, mut peer) = wrapped(exact());
    peer.send_control(Control::Hello(exact().hello([7; 8])))
        .await;
    let mut buffer = [0; Goodbye::MAX_ENCODED];
    let verdict = Goodbye::new(GoodbyeCode::SILENT, "silent for 14s");
    peer.send_raw(&heartbeat_tests::framed(
        verdict.encode(&mut buffer).unwrap(),
    ))
    .await;
    said.push(left_alone.next_terminal().await.to_string());

    let (mut talks, _peer) = wrapped(exact());
    let large = vec![0; 10_000_000];
    said.push(talks.send(large.into()).await.unwrap_err().to_string());

    // A peer that says this first, or after a greeting.
    let mut hello = framed(Control::Hello(exact().hello([7; 8])));
    let mut pings = hello.clone();
    for number in 0..200 {
        pings.extend(framed(Control::Ping(heartbeat_core::Nonce([number; 8]))));
    }
    // The first part of a message, which says how long that is.
    let mut too_long = hello.clone();
    too_long.extend(65_541_u32.to_be_bytes());
    too_long.push(7);
    too_long.extend(heartbeat_tests::varint(10_000_000));
    // Behind the length, the tag and the magic.
    hello[4 + 1 + 4] = 2;
    for bytes in [
        b"HTTP/1.1 400 Bad Request\r\n",
        &b"\0\0\0\x05hello"[..],
        &hello,
        &too_long,
        &pings,
    ] {
        let (mut confused, mut peer) = wrapped(exact());
        peer.send_raw(bytes).await;
        said.push(confused.next_terminal().await.to_string());
    }

    let (ours, theirs) = tokio::io::duplex(1 << 10);
    let mut typed = Heartbeat::<_, Postcard<u32>>::typed(ours, exact());
    let mut peer = RawPeer::new(theirs);
    peer.send_control(Control::Hello(exact().hello([7; 8])))
        .await;
    peer.send_raw(b"\0\0\0\x02\0\xff").await;
    said.push(
        typed
            .by_ref()
            .collect::<Vec<_>>()
            .await
            .pop()
            .unwrap()
            .to_string(),
    );

    let (mut unwilling, mut peer) = wrapped(exact());
    let hasty = Config::detect_within(ms(50)).unwrap();
    peer.send_control(Control::Hello(hasty.hello([7; 8]))).await;
    said.push(unwilling.next_terminal().await.to_string());

    let (mut mirrored, peer) = wrapped(exact());
    let (mut from, mut to) = tokio::io::split(peer.stream);
    let echo = tokio::spawn(async move { tokio::io::copy(&mut from, &mut to).await });
    said.push(mirrored.next_terminal().await.to_string());
    echo.abort();

    let hangs = exact().to_builder().max_pause(secs(1)).build().unwrap();
    let (hangs, mut peer) = wrapped(hangs);
    let driver = hangs.spawn();
    peer.greet(exact()).await;
    sleep(secs(1)).await;
    peer.send_raw(b"\0\0\0\x02\0!").await;
    driver.task.await.unwrap();
    let events = driver.receiver.collect::<Vec<_>>().await;
    said.push(events.last().unwrap().to_string());

    let (mut killed, peer) = wrapped(exact());
    drop(peer);
    let PeerEvent::Dead(mut death) = killed.next_terminal().await else {
        panic!("it isn't dead")
    };
    said.push(PeerEvent::<()>::Dead(death.clone()).to_string());
    death.was_heard = false;
    said.push(PeerEvent::<()>::Dead(death).to_string());

    // The other end doesn't read.
    let (ours, _theirs) = tokio::io::duplex(1 << 10);
    let mut stuck = Heartbeat::new(ours, exact());
    let _ = stuck.send(vec![0; 1 << 20].into()).await;
    said.push(stuck.next_terminal().await.to_string());

    let (mut asleep, mut peer) = wrapped(exact());
    peer.send_control(Control::Hello(exact().hello([7; 8])))
        .await;
    asleep.next().await;
    advance(secs(10)).await;
    said.push(asleep.next().await.unwrap().to_string());

    let (probed, mut peer) = wrapped(exact());
    let driver = probed.spawn();
    peer.send_control(Control::Hello(exact().hello([7; 8])))
        .await;
    let talk = async {
        loop {
            peer.send_raw(b"\0\0\0\x02\0!").await;
            sleep(secs(1)).await;
        }
    };
    tokio::select! {
        () = talk => {}
        answer = driver.sender.probe() => said.push(answer.unwrap_err().to_string()),
    }
    said
}

/// The default timings, without chance.
fn exact() -> Config {
    Config::builder().jitter(0.0).build().unwrap()
}

fn framed(control: Control) -> Vec<u8> {
    let mut buffer = [0; Control::MAX_ENCODED];
    let body = control.encode(&mut buffer).unwrap();
    let length = u32::try_from(body.len()).unwrap();
    [&length.to_be_bytes(), body].concat()
}

trait NextTerminal {
    async fn next_terminal(&mut self) -> PeerEvent<bytes::Bytes>;
}

impl NextTerminal for Heartbeat<tokio::io::DuplexStream> {
    async fn next_terminal(&mut self) -> PeerEvent<bytes::Bytes> {
        self.by_ref().collect::<Vec<_>>().await.pop().unwrap()
    }
}

// ---- reading Markdown -----------------------------------------------------------

/// What a page has.
#[derive(Debug, Default)]
struct Page {
    links: Vec<String>,
    anchors: BTreeSet<String>,
    /// Languages, and what is between the fences.
    blocks: Vec<(String, String)>,
}

/// All of them, by their paths from the root.
fn pages() -> BTreeMap<PathBuf, Page> {
    let mut paths = Vec::new();
    let mut folders = vec![PathBuf::from("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            if root().join(&path).is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                paths.push(path);
            }
        }
    }
    for name in [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
    ] {
        paths.push(name.into());
    }
    let page = |path: PathBuf| (path.clone(), parse(&read(&path)));
    paths.into_iter().map(page).collect()
}

fn parse(text: &str) -> Page {
    let mut page = Page::default();
    let mut heading = None;
    let mut block = None;
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                page.links.push(dest_url.into_string());
            }
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                page.anchors.extend(heading.take().as_deref().map(anchor));
            }
            Event::Start(Tag::CodeBlock(kind)) => {
                let language = match kind {
                    CodeBlockKind::Fenced(language) => language.into_string(),
                    CodeBlockKind::Indented => "text".to_owned(),
                };
                block = Some((language, String::new()));
            }
            Event::End(TagEnd::CodeBlock) => page.blocks.extend(block.take()),
            Event::Text(text) | Event::Code(text) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&text);
                } else if let Some((_, block)) = &mut block {
                    block.push_str(&text);
                }
            }
            _ => {}
        }
    }
    page
}

/// As forges and mdBook make them.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Without `..`.
fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut path, part| {
        match part {
            Component::ParentDir => assert!(path.pop(), "{path:?} leads out of the repository"),
            part => path.push(part),
        }
        path
    })
}
