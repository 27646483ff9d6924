//! The first chapter of the guide, as a newcomer does it: its programs are those
//! of `examples/getting_started`, and they print what it says.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use heartbeat_tests::{example, ms, process::PeerProcess, secs};

const PAGE: &str = include_str!("../../docs/guide/getting-started.md");
const SERVER: &str = include_str!("../../examples/getting_started/server.rs");
const CLIENT: &str = include_str!("../../examples/getting_started/client.rs");

/// Much longer than anything takes.
const PATIENCE: Duration = secs(30);

#[test]
fn the_programs_on_the_page_are_the_examples() {
    assert_eq!(blocks("rust,no_run"), [SERVER, CLIENT]);
}

#[test]
fn the_dependencies_on_the_page_are_those_of_this_version() {
    let manifest: toml::Table = toml::from_str(blocks("toml")[0]).unwrap();
    let dependencies = manifest["dependencies"].as_table().unwrap();
    let names: Vec<_> = dependencies.keys().collect();
    assert_eq!(names, ["futures", "heartbeat-tokio", "tokio"]);
    let path = dependencies["heartbeat-tokio"]["path"].as_str().unwrap();
    assert_eq!(path, "../heartbeat/heartbeat-tokio");
    let (minor, _) = env!("CARGO_PKG_VERSION").rsplit_once('.').unwrap();
    let published = format!("`heartbeat-tokio = \"{minor}\"`");
    assert!(PAGE.contains(&published), "{published}");
}

#[test]
fn what_is_printed_is_what_the_page_says() {
    let mut server = Running::start("getting_started_server", &["127.0.0.1:0"]);
    let listening = server.wait_for("listening at ");
    let (_, address) = listening.rsplit_once(' ').unwrap();
    let connected = || {
        let mut client = Running::start("getting_started_client", &[address]);
        client.wait_for("the server says");
        client
    };

    let mut hangs = connected();
    hangs.process.stop().unwrap();
    server.wait_for("the peer's application hangs");
    hangs.process.go_on().unwrap();
    hangs.wait_for("our own process was");
    hangs.wait_for("dead: ");
    assert!(hangs.process.wait().unwrap().success());

    let killed = connected();
    killed.process.stop().unwrap();
    killed.process.kill().unwrap();
    server.wait_for("dead: ");

    let mut leaves = connected();
    thread::sleep(ms(200)); // it listens to signals by then
    leaves.process.interrupt().unwrap();
    server.wait_for("the peer said goodbye");
    leaves.wait_for("closed: we said goodbye");
    assert!(leaves.process.wait().unwrap().success());

    let shown = ["text", "console"].into_iter().flat_map(blocks);
    let shown: Vec<_> = shown.flat_map(str::lines).map(kind).collect();
    for line in [server, hangs, killed, leaves]
        .into_iter()
        .flat_map(|program| program.printed)
    {
        let kind = kind(&line);
        assert!(
            shown.contains(&kind),
            "{line:?} isn't on the page: {shown:#?}"
        );
    }
}

/// The code blocks of this language.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    let rest = PAGE.split(&fence).skip(1);
    rest.map(|rest| rest.split_once("```").unwrap().0).collect()
}

/// The constant part of a printed line: without addresses, times and numbers, and without
/// anything that depends on the side that pinged first.
fn kind(line: &str) -> String {
    let line = match line.split_once(", last round trip ") {
        None => line.to_owned(),
        Some((before, after)) => {
            let after = after
                .split_once(": ")
                .map(|(_, after)| format!(": {after}"));
            format!("{before}{}", after.unwrap_or_default())
        }
    };
    // Whose line it is.
    let line = match line.split_once(' ') {
        Some((client, line)) if client.parse::<SocketAddr>().is_ok() => line,
        _ => &line,
    };
    let words = line.split(' ').map(|word| {
        let number = word.starts_with(|first: char| first.is_ascii_digit());
        match word.strip_suffix([',', ':']) {
            _ if !number => word.to_owned(),
            None => "…".to_owned(),
            Some(_) => format!("…{}", &word[word.len() - 1..]),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// One of the programs, and what it has printed.
struct Running {
    process: PeerProcess,
    output: Receiver<String>,
    printed: Vec<String>,
}

impl Running {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(example(name));
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = PeerProcess::spawn(&mut command).unwrap();
        let (_, stdout) = process.take_pipes().unwrap();
        let (lines, output) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                if line.is_ok_and(|line| lines.send(line).is_err()) {
                    break;
                }
            }
        });
        Self {
            process,
            output,
            printed: Vec::new(),
        }
    }

    /// The next line that has these words in it.
    fn wait_for(&mut self, words: &str) -> String {
        loop {
            let line = self.output.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("no {words:?} after {:?}", self.printed));
            self.printed.push(line.clone());
            if line.contains(words) {
                return line;
            }
        }
    }
}
