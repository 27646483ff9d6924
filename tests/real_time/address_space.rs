//! Peers that each send a little of a lot, to a process that may not take much memory.

#![cfg(target_os = "linux")]

use std::{env, process::Command};

use futures::StreamExt;
use heartbeat_core::{Config, PART};
use heartbeat_tests::{RawPeer, ms, parts};
use heartbeat_tokio::{Driver, Heartbeat, PeerEvent, State};
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::time::{sleep, timeout};

/// Says to this program that it is the process with the limit.
const LIMITED: &str = "HEARTBEAT_TEST_LIMITED";

/// In bytes: a third of what their messages would take.
const ADDRESS_SPACE: u64 = 2_500_000_000;

/// The bytes of its message that each peer sends.
const SENT: usize = 17_000;

/// Without memory a process is aborted, so this one is another.
#[test]
fn a_thousand_peers_that_send_a_little_of_8_mib_fit_into_little_memory() {
    if env::var_os(LIMITED).is_some() {
        return within_the_limit();
    }
    let name = "address_space::a_thousand_peers_that_send_a_little_of_8_mib_fit_into_little_memory";
    let program = env::current_exe().unwrap();
    let output = Command::new(program)
        .args([name, "--exact"])
        .env(LIMITED, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(said.contains("1 passed"), "{said}");
}

#[tokio::main(flavor = "current_thread")]
async fn within_the_limit() {
    let limit = Rlimit {
        current: Some(ADDRESS_SPACE),
        maximum: Some(ADDRESS_SPACE),
    };
    setrlimit(Resource::As, limit).unwrap();
    let begun = parts(&vec![0; 8 << 20], PART)[..SENT].to_vec();
    let (mut inline, mut spawned, mut peers) = (Vec::new(), Vec::new(), Vec::new());
    for nth in 0..1000 {
        let (ours, theirs) = tokio::io::duplex(32 * 1024);
        let mut heartbeat = Heartbeat::new(ours, Config::default());
        let mut peer = RawPeer::new(theirs);
        peer.greet(Config::default()).await;
        peer.send_raw(&begun).await;
        peers.push(peer);
        if nth % 2 == 0 {
            let connected = heartbeat.next().await;
            let is_connected = matches!(connected, Some(PeerEvent::Connected { .. }));
            assert!(is_connected, "{connected:?}");
            inline.push(heartbeat);
        } else {
            spawned.push(heartbeat.spawn());
        }
    }
    sleep(ms(100)).await;
    for Driver { sender, .. } in &spawned {
        assert_ne!(sender.status().peer.state, State::Dead);
    }
    for heartbeat in &mut inline {
        // Nothing but our own lateness, on a busy machine.
        while let Ok(event) = timeout(ms(1), heartbeat.next()).await {
            let lives = matches!(event, Some(PeerEvent::LocalStall { .. }));
            assert!(lives, "{event:?}");
        }
        assert_ne!(heartbeat.status().peer.state, State::Dead);
    }
    for heartbeat in inline {
        let kept = heartbeat.into_parts().read.len();
        assert!(kept >= SENT, "{kept} bytes of {SENT} were read");
    }
}
