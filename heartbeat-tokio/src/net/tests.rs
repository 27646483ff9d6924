//! When the options of a real socket change, and to what.

use futures::StreamExt;
use tokio::net::TcpListener;

use super::*;
use crate::{
    PeerEvent,
    safety_net::switch::{MaxRetransmitTimeout, MaxUnsent, UserTimeout},
};

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (ours.unwrap(), accepted.unwrap().0)
}

/// The options that can be switched off. The second one is `None` before Linux 6.15.
fn options(socket: &TcpStream) -> (i32, Option<i32>, i32) {
    (
        UserTimeout::read(socket).unwrap(),
        MaxRetransmitTimeout::read(socket),
        MaxUnsent::read(socket).unwrap(),
    )
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test]
async fn what_is_switched_off_becomes_what_the_socket_had() {
    let (stream, _peer) = pair().await;
    SockRef::from(&stream)
        .set_tcp_user_timeout(Some(secs(33)))
        .unwrap();
    let own = options(&stream);
    assert_eq!(own.0, 33_000);

    let config = Config::default();
    let mut net = Net::derived(itself, &stream, &config);
    let derived = SafetyNet::from(&config);
    // Twice: what a first net has set isn't the socket's own.
    for time in [secs(7), secs(8)] {
        let on = derived
            .with_user_timeout(time)
            .and_then(|net| net.with_max_retransmit_timeout(time))
            .and_then(|net| net.with_max_unsent(1000));
        net.replace(&stream, &config, &on.unwrap());
        let millis = i32::try_from(time.as_millis()).unwrap();
        assert_eq!(options(&stream), (millis, own.1.map(|_| millis), 1000));
    }
    let off = derived
        .with_user_timeout(None)
        .and_then(|net| net.with_max_retransmit_timeout(None))
        .and_then(|net| net.with_max_unsent(None));
    net.replace(&stream, &config, &off.unwrap());
    assert_eq!(options(&stream), own);
}

/// Of a pair of sockets it is below the one that was named last.
#[tokio::test]
async fn a_socket_that_is_left_gets_back_what_it_had() {
    let both = pair().await;
    let own = options(&both.0);
    let config = Config::default();
    let mut net = Net::derived(
        |both: &(TcpStream, TcpStream)| Some(&both.0),
        &both,
        &config,
    );
    assert_ne!(options(&both.0), own);
    net.move_to(|both| Some(&both.1), &both, &config);
    assert_eq!(options(&both.0), own);
    assert_ne!(options(&both.1), own);
}

#[tokio::test]
async fn only_a_suspect_is_asked_more_often() {
    let (stream, _peer) = pair().await;
    let Some(own) = MaxRetransmitTimeout::read(&stream) else {
        eprintln!("SKIPPED only_a_suspect_is_asked_more_often: it needs Linux 6.15");
        return;
    };
    let config = Config::default();
    let mut net = Net::derived(itself, &stream, &config);
    let limit = || MaxRetransmitTimeout::read(&stream).unwrap();
    assert_eq!(limit(), own, "a peer that is heard is left to the kernel");
    net.note_suspicion(&stream);
    assert_eq!(limit(), 3000);
    net.forget_suspicion(&stream);
    assert_eq!(limit(), own);

    // Nor one without a listener.
    net.note_suspicion(&stream);
    assert_eq!(limit(), 3000);
    net.begin_looking(&stream, Instant::ORIGIN);
    assert_eq!(limit(), own);

    // One behind the pause or behind another net is a new one.
    net.note_suspicion(&stream);
    assert_eq!(limit(), 3000);
    net.end_looking();
    assert!(net.suspected.is_none());
    net.spread(&stream, &config);
    assert_eq!(limit(), own);
    net.note_suspicion(&stream);
    assert_eq!(limit(), 3000);
    net.spread(&stream, &config);
    net.note_suspicion(&stream);
    assert_eq!(limit(), 3000);

    // The stream is given back as it was.
    net.calm(&stream);
    assert_eq!(limit(), own);

    // What was chosen by hand stays.
    let chosen = SafetyNet::default().with_max_retransmit_timeout(secs(50));
    net.replace(&stream, &config, &chosen.unwrap());
    net.note_suspicion(&stream);
    assert_eq!(limit(), 50_000);
    net.forget_suspicion(&stream);
    assert_eq!(limit(), 50_000);
}

type Peer = crate::Heartbeat<TcpStream>;

/// A side whose peer has hung for a while, that peer, and the limit of the kernel's own. `None`
/// before Linux 6.15.
async fn suspecting() -> Option<(Peer, Peer, i32)> {
    let (stream, peer) = pair().await;
    let Some(own) = MaxRetransmitTimeout::read(&stream) else {
        eprintln!("SKIPPED a test of suspects: it needs Linux 6.15");
        return None;
    };
    let config = Config::detect_within(secs(2)).unwrap();
    let mut heartbeat = crate::Heartbeat::new(stream, config);
    let mut peer = crate::Heartbeat::new(peer, config);
    let both = async { tokio::join!(heartbeat.next(), peer.next()) };
    tokio::time::timeout(secs(20), both).await.unwrap();
    let is_suspect = |event: &PeerEvent<_>| matches!(event, PeerEvent::Suspect { .. });
    while !is_suspect(&heartbeat.next().await.unwrap()) {}
    assert_ne!(limit(heartbeat.get_ref().unwrap()), own);
    Some((heartbeat, peer, own))
}

fn limit(stream: &TcpStream) -> i32 {
    MaxRetransmitTimeout::read(stream).unwrap()
}

#[tokio::test]
async fn a_suspect_that_is_taken_apart_is_left_to_the_kernel() {
    let Some((heartbeat, _peer, own)) = suspecting().await else {
        return;
    };
    assert_eq!(limit(&heartbeat.into_parts().stream.unwrap()), own);
}

#[tokio::test]
async fn a_suspect_that_is_heard_again_is_left_to_the_kernel() {
    let Some((mut heartbeat, mut peer, own)) = suspecting().await else {
        return;
    };
    let heard = async {
        let is_over = |event: &PeerEvent<_>| matches!(event, PeerEvent::Recovered { .. });
        while !is_over(&heartbeat.next().await.unwrap()) {}
    };
    tokio::select! {
        () = heard => {}
        () = async { while peer.next().await.is_some() {} } => panic!("it lives"),
    }
    assert_eq!(limit(heartbeat.get_ref().unwrap()), own);
}

/// Where nothing is in flight, only the question for room is repeated.
#[tokio::test]
async fn a_peer_without_room_is_asked_more_often_while_its_kernels_word_counts() {
    let (stream, peer) = pair().await;
    let Some(own) = MaxRetransmitTimeout::read(&stream) else {
        eprintln!("SKIPPED a_peer_without_room: it needs Linux 6.15");
        return;
    };
    let config = Config::default();
    let mut net = Net::derived(itself, &stream, &config);
    let limit = || MaxRetransmitTimeout::read(&stream).unwrap();
    let mut ask = || net.acknowledged_at(&stream, Instant::ORIGIN, Instant::ORIGIN);
    ask();
    assert_eq!(limit(), own);
    let full = async {
        while !TcpInfo::of(&stream).unwrap().is_window_closed() {
            let _ = stream.try_write(&[0; 1 << 16]);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(secs(20), full).await.unwrap();
    ask();
    assert_eq!(limit(), 3000);
    let emptied = async {
        let mut buffer = vec![0; 1 << 16];
        while TcpInfo::of(&stream).unwrap().unsent != Some(0) {
            let _ = peer.try_read(&mut buffer);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(secs(20), emptied).await.unwrap();
    ask();
    assert_eq!(limit(), own);
}
