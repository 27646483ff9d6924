//! Every attack of `cargo bench -p heartbeat-tokio --bench crowd`, at the same time and on
//! servers of honest peers: how the server ends each, and that no honest peer is given up.

#[path = "../../heartbeat-tokio/benches/crowd/attack.rs"]
mod attack;

use std::{collections::BTreeMap, time::Duration};

use attack::{ENDED, FLOODS, HOLDS, Target, attack};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use heartbeat_core::ProtocolError;
use heartbeat_tests::{ms, secs};
use heartbeat_tokio::{Cause, CloseReason, Config, Driver, Heartbeat, PeerEvent};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, interval, sleep_until, timeout},
};

const DETECTION: Duration = secs(3);

/// Honest peers of each server.
const HONEST: usize = 8;

/// How a hostile connection ended, and after how long.
type End = (&'static str, PeerEvent<Bytes>, Duration);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_attack_ends_as_it_should_and_no_honest_peer_is_given_up() {
    let config = Config::detect_within(DETECTION).unwrap().to_builder();
    // Or a peer that sends much and reads nothing would hold a connection for ever.
    let config = config.write_stall(DETECTION).build().unwrap();
    let (ends, mut ended) = mpsc::unbounded_channel();
    let mut all = JoinSet::new();
    let mut honest = JoinSet::new();
    for is_spawned in [false, true] {
        for kind in [FLOODS, HOLDS, ENDED].concat() {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let to = listener.local_addr().unwrap();
            let ends = ends.clone();
            all.spawn(serve(listener, config, is_spawned, move |event, after| {
                drop(ends.send((kind, event, after)));
            }));
            // Not all that the processors can do: others measure times on them.
            let target = Target {
                to,
                config,
                pause: secs(1),
            };
            all.spawn(async move { attack(kind, target, || {}).await.unwrap() });
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        all.spawn(serve(listener, config, is_spawned, |_, _| {}));
        for _ in 0..HONEST {
            let stream = TcpStream::connect(to).await.unwrap();
            honest.spawn(ask(Heartbeat::new(stream, config)));
        }
    }
    // Longer than a false alarm takes, and until each end was seen.
    let enough = Instant::now() + DETECTION + secs(1);
    let mut seen = Seen::default();
    let complete = async {
        while !seen.is_complete() {
            seen.note(ended.recv().await.expect("a server"));
        }
        sleep_until(enough).await;
    };
    if timeout(secs(40), complete).await.is_err() {
        panic!("missing: {:?}", seen.missing());
    }
    while let Ok(end) = ended.try_recv() {
        seen.note(end);
    }
    println!("{:?}", seen.0);
    assert!(honest.try_join_next().is_none(), "an honest peer is gone");
}

/// How often each attack was ended.
#[derive(Debug, Default)]
struct Seen(BTreeMap<&'static str, usize>);

impl Seen {
    fn note(&mut self, (kind, event, after): End) {
        assert!(is_right(kind, &event), "{kind}: {event:?} after {after:?}");
        if let PeerEvent::Dead(death) = event {
            let takes_time = matches!(death.cause, Cause::Silent | Cause::WriteStalled);
            let in_time = !takes_time || after < 4 * DETECTION;
            assert!(in_time, "{kind}: {death} after {after:?}");
        }
        *self.0.entry(kind).or_insert(0) += 1;
    }

    /// Those of which both servers haven't ended one.
    fn missing(&self) -> Vec<&'static str> {
        let mut all = [FLOODS, HOLDS, ENDED].concat();
        let ended = |kind: &str| self.0.get(kind).is_some_and(|&count| count >= 2);
        all.retain(|kind| !LIVING.contains(kind) && !ended(kind));
        all
    }

    fn is_complete(&self) -> bool {
        self.missing().is_empty()
    }
}

/// They send what a living peer may send.
const LIVING: [&str; 11] = [
    "pongs",
    "hellos",
    "empty",
    "alives",
    "reserved",
    "fins",
    "parts of a byte",
    "changing hellos",
    "dripped frame",
    "reads slowly",
    "pings at the limit",
];

fn is_right(kind: &str, end: &PeerEvent<Bytes>) -> bool {
    let cause = match end {
        PeerEvent::Dead(death) => &death.cause,
        PeerEvent::Closed { reason } => {
            return kind == "goodbyes" && matches!(reason, CloseReason::Peer { .. });
        }
        _ => return false,
    };
    match kind {
        "pings" => *cause == Cause::PingFlood,
        "opens and closes" => matches!(cause, Cause::Eof | Cause::Reset),
        "silent" | "half a hello" | "dripped hello" | "begun frames" => *cause == Cause::Silent,
        // It has no more to say when its message is whole.
        "patient hello" | "parts of a byte" => *cause == Cause::Silent,
        // A kernel opens a window only when there is much room again.
        "never reads" | "reads slowly" => *cause == Cause::WriteStalled,
        "zero window" => matches!(cause, Cause::Silent | Cause::WriteStalled),
        "half-close" => *cause == Cause::Eof,
        "resets in frames" => *cause == Cause::Reset,
        "no frames" | "longer than allowed" | "long control frame" => {
            matches!(cause, Cause::Protocol(_))
        }
        "hasty hello" | "a year of everything" => *cause == Cause::Refused,
        "messages behind a fin" => *cause == Cause::Protocol(ProtocolError::AfterFin),
        "echoes" => *cause == Cause::Protocol(ProtocolError::Loop),
        _ => false,
    }
}

// ---- the servers -----------------------------------------------------------------

async fn serve(
    listener: TcpListener,
    config: Config,
    is_spawned: bool,
    ended: impl Fn(PeerEvent<Bytes>, Duration) + Clone + Send + 'static,
) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (began, ended) = (Instant::now(), ended.clone());
        while connections.try_join_next().is_some() {}
        connections.spawn(async move {
            let heartbeat = Heartbeat::new(stream, config);
            let end = if is_spawned {
                let Driver {
                    sender,
                    mut receiver,
                    ..
                } = heartbeat.spawn();
                loop {
                    match receiver.next().await {
                        Some(PeerEvent::Message(message)) if is_request(&message) => {
                            let _ = sender.send(message).await;
                        }
                        Some(event) if event.is_terminal() => break event,
                        Some(_) => {}
                        None => panic!("no end"),
                    }
                }
            } else {
                answer(heartbeat).await
            };
            ended(end, began.elapsed());
        });
    }
}

fn is_request(message: &Bytes) -> bool {
    message.len() == 16
}

/// Echoes until the end.
async fn answer(mut peer: Heartbeat<TcpStream>) -> PeerEvent<Bytes> {
    loop {
        match peer.next().await {
            Some(PeerEvent::Message(message)) if is_request(&message) => {
                let _ = peer.send(message).await;
            }
            Some(event) if event.is_terminal() => return event,
            Some(_) => {}
            None => panic!("no end"),
        }
    }
}

// ---- the honest ------------------------------------------------------------------

/// Asks each 100 ms, and ends if an answer doesn't come.
async fn ask(mut peer: Heartbeat<TcpStream>) {
    let mut ticks = interval(ms(100));
    loop {
        ticks.tick().await;
        if peer.send(Bytes::from_static(&[7; 16])).await.is_err() {
            return;
        }
        loop {
            match timeout(DETECTION, peer.next()).await {
                Ok(Some(PeerEvent::Message(_))) => break,
                Ok(Some(event)) if !event.is_terminal() => {}
                lost => return println!("honest: {lost:?}"),
            }
        }
    }
}
