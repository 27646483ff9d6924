//! `examples/tune` with a real peer, and on a real network. (What it computes:
//! `virtual_time/tune.rs`.)
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "how a test fails"
)]

use std::{
    fs,
    process::{Command, Output},
};

use futures::StreamExt;
use heartbeat_tests::{example, ms};
use heartbeat_tokio::{Config, Heartbeat};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_runs_this_crate_is_measured() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let config = Config::builder().min_interval(ms(20)).build().unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let mut peer = Heartbeat::new(stream, config);
        while peer.next().await.is_some() {}
    });
    let arguments = format!("--measure {address} --samples 10 --detect-within 2s");
    let found = tokio::task::spawn_blocking(move || run(&arguments));
    let (output, value) = found.await.unwrap();
    assert!(output.status.success(), "{output:?}");
    server.await.unwrap();
    let network = &value.unwrap()["network"];
    assert_eq!(network["samples"], 10);
    let rtt = network["rtt"].as_f64().unwrap();
    assert!(rtt > 0.0 && rtt < 0.1, "{rtt}");
}

/// Short, on a line that loses nothing: that it runs and that its deaths are
/// found. docs/timings.md has what came of longer ones.
#[test]
#[cfg(target_os = "linux")]
fn it_tries_what_it_recommends_on_a_real_network() {
    use heartbeat_tests::network::Network;

    let test = "it_tries_what_it_recommends_on_a_real_network";
    if Network::or_skip(test).is_none() {
        return;
    }
    let arguments = "--rtt 20ms --detect-within 3s --try 2s --try-connections 20";
    let (output, value) = run(arguments);
    let error = String::from_utf8(output.stderr).unwrap();
    let required = std::env::var("HEARTBEAT_NAMESPACES").is_ok_and(|word| word == "required");
    if error.contains("TUN") && !required {
        eprintln!("SKIPPED {test}: {error}");
        return;
    }
    assert!(output.status.success(), "{error}");
    let trial = &value.unwrap()["trial"];
    assert_eq!(trial["count"], 0);
    assert_eq!(trial["detection"]["deaths"], 40);
    let max = trial["detection"]["max"].as_f64().unwrap();
    // The bound, half a round trip, and a machine that may be busy.
    assert!((2.0..3.0 + 0.01 + 0.5).contains(&max), "{max}");
}

/// Runs it and reads its report, if there is one.
fn run(arguments: &str) -> (Output, Option<Value>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("found.json");
    let mut tune = Command::new(example("tune"));
    tune.arg("--quick").args(arguments.split_whitespace());
    let output = tune.arg("--json").arg(&path).output().unwrap();
    let value = fs::read_to_string(path).ok();
    let value = value.and_then(|text| serde_json::from_str(&text).ok());
    (output, value)
}
