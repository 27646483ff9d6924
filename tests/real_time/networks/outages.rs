//! How soon a connection comes back after an outage, in real time on a network
//! of namespaces.
//!
//! ```text
//! cut, and written                                    mended
//! |--.2--|---.4---|------.8------|---------1.6---------|----3.2---->  by itself
//! |--.2--|---.4---|------.8------|---1 s----|---1 s----|--|           at most 1 s apart
//! ```
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "how a test fails")]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Instant,
};

use heartbeat_tests::{
    ms,
    network::{Network, RIGHT},
    secs,
};
use heartbeat_tokio::{SafetyNet, safety_net::Outcome};

#[test]
fn lost_data_is_repeated_as_often_as_was_asked_for() {
    let Some(network) = Network::or_skip("lost_data_is_repeated_as_often_as_was_asked_for") else {
        return;
    };
    let (send_listening, listening) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        let arrival = scope.spawn(|| {
            let arrived = network.right.enter(|| {
                let listener = TcpListener::bind((RIGHT, 0))?;
                send_listening.send(listener.local_addr()?).unwrap();
                let (mut stream, _) = listener.accept()?;
                stream.read_exact(&mut [0])?;
                Ok(Instant::now())
            });
            arrived.unwrap()
        });
        let address = listening.recv().unwrap();
        let sent = network.left.enter(|| {
            let mut stream = TcpStream::connect(address)?;
            let net = SafetyNet::default().with_max_retransmit_timeout(secs(1));
            let applied = net.unwrap().apply(&stream);
            network.cut_towards(RIGHT)?;
            stream.write_all(b"a")?;
            Ok((stream, applied))
        });
        let (_stream, applied) = sent.unwrap();
        thread::sleep(secs(4));
        let mended = Instant::now();
        network.mend_towards(RIGHT).unwrap();
        let late = arrival.join().unwrap().saturating_duration_since(mended);
        match applied.max_retransmit_timeout {
            Outcome::Set => assert!(late < ms(1500), "{late:?} after it was mended"),
            Outcome::NotSupported => eprintln!("SKIPPED: the kernel is older than 6.15"),
            other => panic!("{other}"),
        }
    });
}
