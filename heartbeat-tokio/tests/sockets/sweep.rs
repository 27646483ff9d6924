//! 10,000 sockets in one call: how long it takes, and that nothing is taken.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "how a test fails")]

use std::{
    io::{ErrorKind, Write},
    net,
    time::{Duration, Instant},
};

use heartbeat_tokio::safety_net::{Liveness, sweep};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::SockRef;
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    time::{sleep, timeout},
};

/// Sockets that are looked at.
const ALL: usize = 10_000;
/// Of each kind that is gone, and of those with data to read.
const SOME: usize = 10;

/// What the peer has done.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Quiet,
    Sent,
    Closed,
    SentAndClosed,
    Reset,
    SentAndReset,
}

#[tokio::test]
async fn ten_thousand_sockets_are_looked_at_within_100_ms() {
    if !allow_files(ALL as u64 + 200) {
        eprintln!("SKIPPED ten_thousand_sockets: this process may not open as many files");
        return;
    }
    let gone = [
        Fate::Closed,
        Fate::SentAndClosed,
        Fate::Reset,
        Fate::SentAndReset,
    ];
    let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut connections = Vec::new();
    for fate in gone {
        for _ in 0..SOME {
            let (ours, mut peer) = pair(&listener);
            if matches!(fate, Fate::SentAndClosed | Fate::SentAndReset) {
                peer.write_all(b"ab").unwrap();
            }
            if matches!(fate, Fate::Reset | Fate::SentAndReset) {
                let linger = Some(Duration::ZERO);
                SockRef::from(&peer).set_linger(linger).unwrap();
            }
            connections.push((fate, ours));
        }
    }
    // Of these both ends are looked at.
    while connections.len() < ALL {
        let (ours, mut peer) = pair(&listener);
        let quiet = connections.len() >= (gone.len() + 2) * SOME;
        let fate = if quiet { Fate::Quiet } else { Fate::Sent };
        if !quiet {
            peer.write_all(b"ab").unwrap();
        }
        connections.extend([(fate, ours), (Fate::Quiet, peer)]);
    }
    let mut connections: Vec<_> = connections.into_iter().map(registered).collect();
    assert_eq!(connections.len(), ALL);

    let swept = || {
        let all = connections.iter().map(|(fate, stream)| (*fate, stream));
        sweep(all).unwrap()
    };
    let arrived = async {
        while swept().len() < gone.len() * SOME {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(10), arrived).await.unwrap();

    // The best of some: others use this machine too.
    let times = (0..10).map(|_| {
        let begun = Instant::now();
        let found = swept();
        let took = begun.elapsed();
        assert_eq!(found.len(), gone.len() * SOME);
        for (fate, why) in found {
            let expected = match fate {
                Fate::Closed => Liveness::Closed,
                Fate::SentAndClosed => Liveness::HalfClosed,
                _ => Liveness::Reset(None),
            };
            assert!(gone.contains(&fate));
            assert_eq!(why, expected, "{fate:?}");
        }
        took
    });
    let best = times.min().unwrap();
    println!("{ALL} sockets in {best:?}");
    assert!(best < Duration::from_millis(100), "{best:?}");

    for (fate, stream) in &mut connections {
        let mut read = Vec::new();
        let sent = matches!(fate, Fate::Sent | Fate::SentAndClosed | Fate::SentAndReset);
        if sent {
            let mut two = [0; 2];
            stream.read_exact(&mut two).await.unwrap();
            assert_eq!(&two, b"ab");
        }
        match fate {
            Fate::Quiet | Fate::Sent => {
                let error = stream.try_read(&mut [0; 1]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
            }
            Fate::Closed | Fate::SentAndClosed => {
                assert_eq!(stream.read_to_end(&mut read).await.unwrap(), 0);
            }
            Fate::Reset | Fate::SentAndReset => {
                let error = stream.read_to_end(&mut read).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            }
        }
    }
}

fn pair(listener: &net::TcpListener) -> (net::TcpStream, net::TcpStream) {
    let ours = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (ours, listener.accept().unwrap().0)
}

fn registered<K>((key, stream): (K, net::TcpStream)) -> (K, TcpStream) {
    stream.set_nonblocking(true).unwrap();
    (key, TcpStream::from_std(stream).unwrap())
}

fn allow_files(wanted: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= wanted);
    if enough(limit.current) {
        return true;
    }
    let current = Some(wanted);
    let maximum = limit.maximum;
    enough(maximum) && setrlimit(Resource::Nofile, Rlimit { current, maximum }).is_ok()
}
