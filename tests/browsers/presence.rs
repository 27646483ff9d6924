//! The page of `examples/presence`, which is a client over a WebSocket too: it shows the
//! fleet, and what happens to it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "how a test fails")]

use std::process::Stdio;

use heartbeat_tests::{example, needs, secs};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{ChildStdout, Command},
};

use super::devtools::Browser;

#[tokio::test]
async fn a_page_shows_the_fleet_and_a_gateway_that_is_lost() {
    if !needs("redis-server") {
        return;
    }
    let options = "demo --gateways 2 --users 3 --detect-within 3s --grace 2s";
    let mut demo = Command::new(example("presence"))
        .args(options.split(' '))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let (url, _) = gateway(&mut lines, "a: ").await;
    let (_, other) = gateway(&mut lines, "b: ").await;
    let guard = env!("CARGO_BIN_EXE_heartbeat-test-guard");
    let Some(mut page) = Browser::open(guard, &url).await else {
        return;
    };
    // Its own user is one of them.
    let present = "document.querySelector('#present')?.textContent === '7'";
    page.until(present, secs(20)).await;
    let mine = "document.querySelector('#users').textContent.includes('page-')";
    page.until(mine, secs(5)).await;

    kill_process(other, Signal::KILL).unwrap();
    let lost = "document.querySelector('#news').textContent.includes('gateway b is lost')";
    page.until(lost, secs(20)).await;
    let one = "document.querySelectorAll('#gateways tr').length === 1";
    page.until(one, secs(5)).await;
    page.until(present, secs(5)).await;
    page.assert_content();
}

/// Its page and its process.
async fn gateway(lines: &mut Lines<BufReader<ChildStdout>>, name: &str) -> (String, Pid) {
    loop {
        let line = lines.next_line().await.unwrap().expect("it starts");
        if let Some(rest) = line.strip_prefix(name) {
            let (url, process) = rest.split_once(", process ").expect("as demo.rs prints it");
            return (url.into(), Pid::from_raw(process.parse().unwrap()).unwrap());
        }
    }
}
