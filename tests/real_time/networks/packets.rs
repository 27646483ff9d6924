//! What an idle beat costs on the network, counted by both kernels.
//!
//! ```text
//! one side asks     ping, pong, acknowledgement
//! both know         ping, pong + ping, pong, acknowledgement
//! ```

#![cfg(target_os = "linux")]

use std::{fs, io, net::SocketAddr, sync::mpsc, thread, time::Duration};

use futures::StreamExt;
use heartbeat_tests::{
    ms,
    network::{Host, LEFT, Network},
    process::PeerProcess,
    quick, secs,
};
use heartbeat_tokio::{Heartbeat, PeerEvent};
use tokio::{net::TcpListener, time::timeout};

const DAY: Duration = secs(86_400);
/// How many are counted at a time.
const BEATS: u32 = 20;
/// Longer than Linux delays an acknowledgement, and shorter than the least interval.
const ACKNOWLEDGED: Duration = ms(90);

#[test]
fn a_beat_that_proves_both_directions_takes_four_packets() {
    let test = "a_beat_that_proves_both_directions_takes_four_packets";
    let Some(network) = Network::or_skip(test) else {
        return;
    };
    let one_sided = packets_per_beat(&network, DAY, 3.2);
    let both = packets_per_beat(&network, quick().interval(), 4.2);
    println!("packets per beat: one side asks {one_sided:.2}, both know {both:.2}");
    // Now and then both ask at once, or an acknowledgement is late.
    assert!((2.9..3.2).contains(&one_sided), "{one_sided}");
    assert!((3.8..4.2).contains(&both), "{both}");
}

/// With a peer of this interval. A busy machine acknowledges by itself what is answered too
/// late. So a few beats at a time are counted, until a count isn't above `most`.
fn packets_per_beat(network: &Network, interval: Duration, most: f64) -> f64 {
    let (send_address, address) = mpsc::channel();
    let (counted, is_counted) = mpsc::channel::<()>();
    thread::scope(|scope| {
        // It ends with the thread that started it.
        scope.spawn(move || {
            network.right.enter(move || {
                let address = address.recv().map_err(io::Error::other)?;
                let program = env!("CARGO_BIN_EXE_heartbeat-test-peer");
                let _peer = PeerProcess::start_with(program, address, interval)?;
                let _ = is_counted.recv();
                Ok(())
            })
        });
        let packets = network.left.enter(|| {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().build()?;
            Ok(runtime.block_on(count(network, &send_address, most)))
        });
        drop(counted);
        packets.unwrap()
    })
}

async fn count(network: &Network, address: &mpsc::Sender<SocketAddr>, most: f64) -> f64 {
    let config = quick().to_builder().jitter(0.25).build().unwrap();
    let listener = TcpListener::bind((LEFT, 0)).await.unwrap();
    address.send(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let mut heartbeat = Heartbeat::new(stream, config);
    // Until this many beats are over, the last acknowledgement included.
    let mut beats = async |count| {
        for _ in 0..count {
            loop {
                let event = heartbeat.next().await.unwrap();
                assert!(!event.is_terminal(), "{event}");
                if let PeerEvent::Beat { .. } = event {
                    break;
                }
            }
        }
        let more = timeout(ACKNOWLEDGED, heartbeat.next()).await;
        assert!(more.is_err(), "{more:?}");
    };
    beats(10).await;
    let mut least = f64::INFINITY;
    for _ in 0..10 {
        let packets = sent_by(&network.left) + sent_by(&network.right);
        beats(BEATS).await;
        let packets = sent_by(&network.left) + sent_by(&network.right) - packets;
        least = least.min(f64::from(packets) / f64::from(BEATS));
        if least < most {
            break;
        }
    }
    least
}

/// Packets of TCP that this host has sent.
fn sent_by(host: &Host) -> u32 {
    let text = host.enter(|| fs::read_to_string("/proc/thread-self/net/snmp"));
    let text = text.unwrap();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.split(' ').position(|name| name == "OutSegs").unwrap();
    values.split(' ').nth(at).unwrap().parse().unwrap()
}
