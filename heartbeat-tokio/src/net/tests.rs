//! When the options of a real socket change, and to what; when the kernel is asked, and what
//! its answer means.

use futures::StreamExt;
use heartbeat_core::Cause;
use tokio::{io::AsyncWriteExt, net::TcpListener};

use super::*;
use crate::{
    PeerEvent,
    safety_net::switch::{MaxRetransmitTimeout, MaxUnsent, UserTimeout},
};

/// The two ends of a connection over loopback.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (ours.unwrap(), accepted.unwrap().0)
}

/// Writes until the peer's kernel has no room.
async fn fill(stream: &TcpStream) {
    let full = async {
        while !TcpInfo::of(stream).unwrap().is_window_closed() {
            let _ = stream.try_write(&[0; 1 << 16]);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(secs(20), full).await.unwrap();
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
    fill(&stream).await;
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

/// Its verdict comes too late for the limit to be safe.
#[tokio::test]
async fn a_suspect_whose_verdict_is_an_hour_away_is_left_to_the_kernel() {
    let (stream, _peer) = pair().await;
    let own = MaxRetransmitTimeout::default().set(&stream, Some(33_000));
    let config = Config::detect_within(secs(3600)).unwrap();
    let mut net = Net::derived(itself, &stream, &config);
    net.note_suspicion(&stream);
    let is_known = own == safety_net::Outcome::Set;
    let limit = MaxRetransmitTimeout::read(&stream);
    assert_eq!(limit, is_known.then_some(33_000));
}

#[tokio::test]
async fn an_interval_that_stays_and_one_below_a_chosen_net_change_nothing() {
    let (stream, _peer) = pair().await;
    let config = Config::default();
    let mut net = Net::derived(itself, &stream, &config);
    net.note_suspicion(&stream);
    net.adapt(&stream, &config, config.interval());
    assert!(net.suspected.is_some(), "the silence goes on");

    net.replace(&stream, &config, &SafetyNet::default());
    net.note_suspicion(&stream);
    net.adapt(&stream, &config, secs(50));
    assert!(net.suspected.is_some(), "the silence goes on");
}

// ---- when the socket is looked at ------------------------------------------------

#[tokio::test]
async fn during_a_pause_the_socket_is_looked_at_once_an_interval() {
    let (stream, peer) = pair().await;
    let config = Config::default();
    let mut net = Net::derived(itself, &stream, &config);
    let at = |millis| Instant::ORIGIN + Duration::from_millis(millis);
    assert_eq!(config.interval(), secs(5));
    assert_eq!(net.look_at(), None);
    net.begin_looking(&stream, at(1000));
    assert_eq!(net.look_at(), Some(at(6000)));
    assert!(!net.is_gone(&stream, at(6000)));
    assert_eq!(net.look_at(), Some(at(11_000)));

    drop(peer);
    stream.readable().await.unwrap();
    assert!(!net.is_gone(&stream, at(10_999)));
    assert!(net.is_gone(&stream, at(11_000)));
    net.end_looking();
    assert_eq!(net.look_at(), None);
}

// ---- progress --------------------------------------------------------------------

#[tokio::test]
async fn a_ping_behind_data_is_followed_until_the_peers_kernel_has_it() {
    let (stream, peer) = pair().await;
    let mut net = Net::derived(itself, &stream, &Config::default());
    fill(&stream).await;
    net.note_question(&stream, true, false, 0);
    net.note_asked(&stream);
    let taken = |net: &mut Net<_>| net.taken(&stream, 0).unwrap().0;
    assert_eq!(taken(&mut net), Taken::Nothing);
    let mut seen = Vec::new();
    let followed = async {
        let mut buffer = vec![0; 1 << 16];
        while seen.last() != Some(&Taken::Question) {
            let _ = peer.try_read(&mut buffer);
            seen.push(taken(&mut net));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let followed = tokio::time::timeout(secs(20), followed).await;
    assert!(followed.is_ok(), "{seen:?}");
    assert!(seen.contains(&Taken::Data), "{seen:?}");
    assert_eq!(taken(&mut net), Taken::Nothing);
}

#[repr(C)]
struct Wrapper {
    socket: TcpStream,
    buffered: [u8; 64],
}

#[tokio::test]
async fn bytes_arrive_below_a_wrapper_and_never_below_the_socket_itself() {
    let (socket, mut peer) = pair().await;
    let wrapper = Wrapper {
        socket,
        buffered: [0; 64],
    };
    let config = Config::default();
    let mut net = Net::derived(|wrapper: &Wrapper| Some(&wrapper.socket), &wrapper, &config);
    let mut arrived = || net.arrived_below(&wrapper, 1, 1000).map(|(bytes, _)| bytes);
    assert_eq!(arrived(), Some(0));
    peer.write_all(&wrapper.buffered).await.unwrap();
    wrapper.socket.readable().await.unwrap();
    assert_eq!(arrived(), Some(64));
    let bare = &wrapper.socket;
    let arrived = Net::derived(itself, bare, &config).arrived_below(bare, 1, 1000);
    assert_eq!(arrived, None);
}

/// Otherwise the kernel would wait for some 40 ms for an answer of ours.
#[tokio::test]
async fn a_pong_is_acknowledged_before_the_kernel_would_do_so() {
    let (stream, mut peer) = pair().await;
    let net = Net::derived(itself, &stream, &Config::default());
    let is_unacknowledged = |peer: &TcpStream| TcpInfo::of(peer).unwrap().has_unacknowledged();
    let socket = SockRef::from(&stream);
    // A busy machine may be too slow to see it.
    for _ in 0..50 {
        socket.set_tcp_quickack(false).unwrap();
        let began = std::time::Instant::now();
        peer.write_all(b"pong").await.unwrap();
        stream.readable().await.unwrap();
        stream.try_read(&mut [0; 8]).unwrap();
        let was_delayed = is_unacknowledged(&peer);
        net.acknowledge(&stream);
        while is_unacknowledged(&peer) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if was_delayed && began.elapsed() < Duration::from_millis(20) {
            return;
        }
    }
    panic!("each was acknowledged late");
}

// ---- the end ---------------------------------------------------------------------

#[tokio::test]
async fn a_verdict_leaves_at_once_behind_a_look_and_the_stream_is_reset() {
    let (stream, _peer) = pair().await;
    let mut net = Net::derived(itself, &stream, &Config::default());
    net.prepare_end(&stream);
    assert!(stream.nodelay().unwrap());
    assert!(net.at_end.is_some());
    net.reset(&stream);
    assert_eq!(SockRef::from(&stream).linger().unwrap(), Some(secs(0)));
}

/// What the kernel says of a peer whose application hangs: all pings were acknowledged.
fn hung() -> TcpInfo {
    TcpInfo {
        last_data_sent: Duration::from_millis(500),
        last_ack_received: Duration::from_millis(499),
        data_segments_sent: Some(100),
        bytes_acknowledged: Some(1000),
        bytes_received: Some(50),
        out_of_order: Some(0),
        unsent: Some(0),
        ..TcpInfo::default()
    }
}

fn at_the_verdict(info: TcpInfo) -> Net<()> {
    let mut net = Net::derived(|()| None, &(), &Config::default());
    net.at_end = Some(Box::new(info));
    net
}

fn diagnosis(net: &Net<()>, broken_off: bool) -> Diagnosis {
    let mut death = Death::new(Cause::Silent);
    death.silent_for = secs(4);
    death.missed = 3;
    net.diagnose(Some(&()), &mut death, broken_off);
    assert!(death.was_heard);
    death.diagnosis
}

#[test]
fn an_application_whose_last_frame_is_incomplete_may_not_hang() {
    let mut net = at_the_verdict(hung());
    assert_eq!(diagnosis(&net, false), Diagnosis::AppHung);
    assert_eq!(diagnosis(&net, true), Diagnosis::Unknown);
    net.at_end = None;
    assert_eq!(diagnosis(&net, false), Diagnosis::Unknown);
}

#[test]
fn an_application_behind_kernels_that_go_on_is_not_said_to_hang() {
    let full = TcpInfo {
        unsent: Some(1 << 20),
        send_window: Some(0),
        ..hung()
    };
    let lost = TcpInfo {
        unacknowledged: 1,
        repeated: 1,
        retransmits: 2,
        total_repeated: 3,
        last_ack_received: secs(4),
        ..hung()
    };
    for (info, stopped, goes_on) in [
        (hung(), Diagnosis::AppHung, Diagnosis::Unknown),
        (full, Diagnosis::PeerNotReading, Diagnosis::Unknown),
        (lost, Diagnosis::PathDead, Diagnosis::PathDead),
    ] {
        let mut net = at_the_verdict(info);
        assert_eq!(diagnosis(&net, false), stopped);
        for (received, expected) in [(50, stopped), (49, goes_on)] {
            let before = TcpInfo {
                bytes_received: Some(received),
                ..info
            };
            net.progress().below(&before, 1, 1000);
            assert_eq!(diagnosis(&net, false), expected);
        }
    }
}
