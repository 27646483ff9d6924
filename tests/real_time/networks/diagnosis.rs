//! The diagnosis of a silence from the kernel's counters at the verdict.
//! `real_time/processes.rs` shows that a stopped process is `AppHung`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "how a test fails")]

use std::{io, net::SocketAddr, os::fd::AsFd, thread, time::Duration};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use heartbeat_core::Control;
use heartbeat_tests::{
    data_frame, framed, ms,
    network::{Hook, LEFT, Network, RIGHT},
    quick, secs,
};
use heartbeat_tokio::{
    Cause, Config, Death, Diagnosis, Evidence, Heartbeat, PeerEvent, safety_net::TcpInfo,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpSocket, TcpStream},
    time::{Instant, interval, sleep, timeout},
};

/// More than buffers hold.
const MUCH: usize = 64 << 20;

// ===== on loopback =====

#[test]
fn a_peer_that_sends_nothing_and_whose_kernel_answers_is_hung() {
    run(async {
        let (ours, _peer) = loopback().await;
        let mut heartbeat = Heartbeat::new(ours, quick());
        let death = dead(&mut heartbeat).await;
        assert_eq!(death.cause, Cause::Silent);
        assert_eq!(death.diagnosis, Diagnosis::AppHung, "{death}");
        assert!(!death.was_heard, "{death}");
        let words = ", nothing ever arrived: only its kernel answers";
        assert!(death.to_string().ends_with(words), "{death}");
    });
}

#[test]
fn a_peer_without_room_for_what_we_send_doesnt_read() {
    run(async {
        let (ours, _peer) = loopback().await;
        // The verdict closes ours.
        let same = ours.as_fd().try_clone_to_owned().unwrap();
        let mut heartbeat = Heartbeat::new(ours, quick());
        let death = dead_while_sending(&mut heartbeat).await;
        assert_eq!(death.diagnosis, Diagnosis::PeerNotReading, "{death}");

        let info = TcpInfo::of(&same).unwrap();
        assert!(info.is_window_closed(), "{info:?}");
        assert!(info.unsent > Some(0), "{info:?}");
    });
}

#[test]
fn a_death_that_isnt_silence_needs_no_diagnosis() {
    run(async {
        let (ours, peer) = loopback().await;
        let mut heartbeat = Heartbeat::new(ours, quick());
        drop(peer);
        let death = dead(&mut heartbeat).await;
        assert!(matches!(death.cause, Cause::Eof | Cause::Reset), "{death}");
        assert_eq!(death.diagnosis, Diagnosis::Unknown);
    });
}

#[tokio::test]
async fn without_a_socket_there_is_no_diagnosis() {
    let (ours, _peer) = tokio::io::duplex(1024);
    let mut heartbeat = Heartbeat::new(ours, quick());
    let death = dead(&mut heartbeat).await;
    assert_eq!(death.cause, Cause::Silent);
    assert_eq!(death.diagnosis, Diagnosis::Unknown);
}

#[test]
fn an_acknowledgement_of_the_kernel_is_seen() {
    run(async {
        let (mut ours, _peer) = loopback().await;
        sleep(ms(300)).await;
        let before = TcpInfo::of(&ours).unwrap();
        assert!(before.last_ack_received >= ms(250), "{before:?}");

        ours.write_all(b"are you there?").await.unwrap();
        let acknowledged = async {
            loop {
                let info = TcpInfo::of(&ours).unwrap();
                if !info.has_unacknowledged() {
                    return info;
                }
                sleep(ms(1)).await;
            }
        };
        let after = timeout(secs(10), acknowledged).await.unwrap();
        assert!(after.last_ack_received < before.last_ack_received);
        // Whatever the peer's application does: it doesn't read.
        assert!(after.last_data_sent < before.last_ack_received);
        assert!(after.last_data_received >= before.last_data_received);
        assert_eq!(after.unsent, Some(0));
        assert!(after.send_window > Some(0));
    });
}

#[test]
fn only_a_tcp_socket_has_notes() {
    run(async {
        let (unix, _peer) = tokio::net::UnixStream::pair().unwrap();
        assert!(TcpInfo::of(&unix).is_err());
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(TcpInfo::of(&file).is_err());
    });
}

// ===== on a network =====

#[test]
fn a_path_that_is_cut_in_any_direction_is_dead() {
    let Some(network) = Network::or_skip("a_path_that_is_cut_in_any_direction_is_dead") else {
        return;
    };
    for towards in [&[RIGHT][..], &[LEFT], &[LEFT, RIGHT]] {
        let death = across(&network, Peer::Beats, async |mut heartbeat| {
            beat(&mut heartbeat).await;
            cut(&network, towards);
            dead(&mut heartbeat).await
        });
        mend(&network, towards);
        assert_eq!(death.cause, Cause::Silent, "cut towards {towards:?}");
        let diagnosis = death.diagnosis;
        assert_eq!(diagnosis, Diagnosis::PathDead, "cut towards {towards:?}");
    }
}

#[test]
fn a_path_that_is_cut_while_we_send_is_dead() {
    let Some(network) = Network::or_skip("a_path_that_is_cut_while_we_send_is_dead") else {
        return;
    };
    for towards in [&[RIGHT][..], &[LEFT], &[LEFT, RIGHT]] {
        let diagnosis = (0..10).find_map(|_| {
            let mut cut_after = Duration::MAX;
            let death = across(&network, Peer::Beats, async |mut heartbeat| {
                beat(&mut heartbeat).await;
                let beaten = Instant::now();
                let cutting = async {
                    sleep(ms(100)).await;
                    cut(&network, towards);
                    cut_after = beaten.elapsed();
                };
                // Not as fast as it goes: the queues on the way would overflow,
                // and a path that loses packets isn't called dead.
                let sending = dead_while_sending_each(ms(1), &mut heartbeat);
                let (death, ()) = tokio::join!(sending, cutting);
                death
            });
            mend(&network, towards);
            // What the kernel acknowledged until then says nothing, if that is
            // a good part of the silence. Another attempt.
            let is_timely = cut_after < quick().detection_time() / 4 - ms(20);
            is_timely.then_some(death.diagnosis)
        });
        assert_eq!(
            diagnosis,
            Some(Diagnosis::PathDead),
            "cut towards {towards:?}"
        );
    }
}

#[test]
fn a_path_that_is_cut_when_the_peer_had_stopped_reading_is_dead() {
    let test = "a_path_that_is_cut_when_the_peer_had_stopped_reading_is_dead";
    let Some(network) = Network::or_skip(test) else {
        return;
    };
    let both = [LEFT, RIGHT];
    let death = across(&network, Peer::OnlySends, async |mut heartbeat| {
        let cutting = async {
            // The buffers are full long before.
            sleep(ms(500)).await;
            cut(&network, &both);
        };
        let (death, ()) = tokio::join!(dead_while_sending(&mut heartbeat), cutting);
        death
    });
    assert_eq!(death.diagnosis, Diagnosis::PathDead, "{death}");
}

#[test]
fn a_hung_peer_across_a_network_is_hung() {
    let Some(network) = Network::or_skip("a_hung_peer_across_a_network_is_hung") else {
        return;
    };
    let death = across(&network, Peer::Hangs, async |mut heartbeat| {
        dead(&mut heartbeat).await
    });
    assert_eq!(death.diagnosis, Diagnosis::AppHung, "{death}");
    let death = across(&network, Peer::Hangs, async |mut heartbeat| {
        dead_while_sending(&mut heartbeat).await
    });
    assert_eq!(death.diagnosis, Diagnosis::PeerNotReading, "{death}");
}

// ===== where the kernel's notes mislead =====

/// As many connections at the same time: each is a case of its own.
const CASES: usize = 12;

/// The kernel takes what our own firewall drops for congestion: data waits
/// unsent and probes go unanswered, as with a peer that has no room.
#[test]
fn a_firewall_of_our_own_isnt_blamed_on_the_peer() {
    let Some(network) =
        Network::with_filters_or_skip("a_firewall_of_our_own_isnt_blamed_on_the_peer")
    else {
        return;
    };
    for sending in [false, true] {
        let deaths = many(
            &network,
            quick(),
            Peer::Beats,
            async |mut heartbeat, strike| {
                beat(&mut heartbeat).await;
                strike
                    .by(|| network.left.filter(Hook::Output, "drop"))
                    .await;
                match sending {
                    true => dead_while_sending(&mut heartbeat).await,
                    false => dead(&mut heartbeat).await,
                }
            },
        );
        network.left.filter(Hook::Output, "").unwrap();
        assert_each(&deaths, &[Diagnosis::Unknown, Diagnosis::PathDead]);
    }
}

/// It begins while what we sent is in flight, so that repetitions are dropped.
#[test]
fn a_firewall_of_our_own_that_begins_while_we_send_isnt_blamed_on_the_peer() {
    let test = "a_firewall_of_our_own_that_begins_while_we_send_isnt_blamed_on_the_peer";
    let Some(network) = Network::with_filters_or_skip(test) else {
        return;
    };
    let deaths = many(
        &network,
        quick(),
        Peer::Beats,
        async |mut heartbeat, strike| {
            beat(&mut heartbeat).await;
            let striking = async {
                sleep(ms(100)).await;
                strike
                    .by(|| network.left.filter(Hook::Output, "drop"))
                    .await;
            };
            let (death, ()) = tokio::join!(dead_while_sending(&mut heartbeat), striking);
            death
        },
    );
    network.left.filter(Hook::Output, "").unwrap();
    assert_each(&deaths, &[Diagnosis::Unknown, Diagnosis::PathDead]);
}

/// Ours vanish: the path is dead for what we send.
#[test]
fn large_packets_that_vanish_on_their_way_to_the_peer_arent_blamed_on_it() {
    let test = "large_packets_that_vanish_on_their_way_to_the_peer_arent_blamed_on_it";
    let Some(network) = Network::with_filters_or_skip(test) else {
        return;
    };
    hole_towards(&network, RIGHT);
    for length in [8_000, 64 * 1024, 4 << 20] {
        let deaths = many(
            &network,
            quick(),
            Peer::Beats,
            async |mut heartbeat, strike| {
                beat(&mut heartbeat).await;
                strike.by(|| Ok(())).await;
                let message = Bytes::from(vec![0; length]);
                // It may not even be written.
                let sent = timeout(ms(100), heartbeat.send(message)).await;
                drop(sent);
                dead(&mut heartbeat).await
            },
        );
        assert_each(&deaths, &[Diagnosis::Unknown, Diagnosis::PathDead]);
    }
}

/// Theirs vanish, and its pongs wait behind them, while its kernel goes on
/// acknowledging. The end of the message arrives, and shows that it was sent.
#[test]
fn large_packets_that_vanish_on_their_way_to_us_arent_blamed_on_the_peer() {
    let test = "large_packets_that_vanish_on_their_way_to_us_arent_blamed_on_the_peer";
    let Some(network) = Network::with_filters_or_skip(test) else {
        return;
    };
    hole_towards(&network, LEFT);
    let deaths = many(
        &network,
        quick(),
        Peer::Sends(8_000),
        async |mut heartbeat, strike| {
            beat(&mut heartbeat).await;
            strike.by(|| Ok(())).await;
            heartbeat.send("now".into()).await.unwrap();
            dead(&mut heartbeat).await
        },
    );
    assert_each(&deaths, &[Diagnosis::Unknown]);
}

/// The same in the middle of a message.
#[test]
fn a_message_that_breaks_off_isnt_blamed_on_the_peer() {
    let Some(network) =
        Network::with_filters_or_skip("a_message_that_breaks_off_isnt_blamed_on_the_peer")
    else {
        return;
    };
    let length = 64 << 20;
    let config = quick().to_builder().max_frame(length).build().unwrap();
    let endless = Peer::Sends(length);
    let deaths = many(&network, config, endless, async |mut heartbeat, strike| {
        beat(&mut heartbeat).await;
        let heard = heartbeat.status().peer.last_heard;
        heartbeat.send("now".into()).await.unwrap();
        // From when it has begun to arrive nothing is read, so it can't be whole
        // before all are ready for the fault.
        while heartbeat.status().peer.last_heard == heard {
            let event = timeout(ms(5), heartbeat.next()).await;
            assert!(event.is_err(), "{event:?}");
        }
        strike
            .by(|| {
                hole_towards(&network, LEFT);
                Ok(())
            })
            .await;
        dead(&mut heartbeat).await
    });
    assert_each(&deaths, &[Diagnosis::Unknown]);
}

/// The peer answers each time, and now and then all of it is lost: its pongs
/// while its acknowledgements arrive, or our pings. That the path carries
/// nothing at all any more is true meanwhile, and looks like a cut.
#[test]
fn lost_packets_arent_blamed_on_the_peer() {
    let Some(network) = Network::with_filters_or_skip("lost_packets_arent_blamed_on_the_peer")
    else {
        return;
    };
    let deaths = many(
        &network,
        quick(),
        Peer::Beats,
        async |mut heartbeat, strike| {
            beat(&mut heartbeat).await;
            let fifth = "numgen random mod 100 < 20 drop";
            strike
                .by(|| network.router.filter(Hook::Forward, fifth))
                .await;
            // The kernel learns what path it is. It can't where only what the peer sends is
            // lost, which takes luck here.
            for sent in 0..200 {
                if sent >= 20 && has_repeated(&heartbeat) {
                    break;
                }
                // These losses may end it before that.
                if heartbeat.send("on".into()).await.is_err() {
                    break;
                }
                sleep(ms(20)).await;
            }
            within(secs(120), &mut heartbeat).await
        },
    );
    assert_eq!(deaths.len(), CASES);
    for death in &deaths {
        // Either side may be the first to give up.
        let is_right = match death.cause {
            Cause::Silent | Cause::WriteStalled => true,
            Cause::GivenUp { code, .. } => [
                heartbeat_core::GoodbyeCode::SILENT,
                heartbeat_core::GoodbyeCode::WRITE_STALLED,
            ]
            .contains(&code),
            _ => false,
        };
        assert!(is_right, "{death}");
    }
    let right = [Diagnosis::Unknown, Diagnosis::PathDead];
    let wrong = deaths
        .iter()
        .filter(|death| !right.contains(&death.diagnosis));
    assert_eq!(wrong.collect::<Vec<_>>(), Vec::<&Death>::new());
}

/// Whether anything of ours was sent again.
fn has_repeated(heartbeat: &Heartbeat<TcpStream>) -> bool {
    let info = heartbeat.get_ref().map(TcpInfo::of);
    info.is_some_and(|info| info.unwrap().total_repeated > 0)
}

fn hole_towards(network: &Network, host: std::net::IpAddr) {
    let large = format!("ip daddr {host} ip length > 1000 drop");
    network.router.filter(Hook::Forward, &large).unwrap();
}

fn assert_each(deaths: &[Death], right: &[Diagnosis]) {
    assert_eq!(deaths.len(), CASES);
    for death in deaths {
        assert!(
            matches!(death.cause, Cause::Silent | Cause::WriteStalled),
            "{death}"
        );
    }
    let wrong = deaths
        .iter()
        .filter(|death| !right.contains(&death.diagnosis));
    let wrong: Vec<_> = wrong.collect();
    assert!(wrong.is_empty(), "{} of {CASES}: {wrong:#?}", wrong.len());
}

// ===== where the kernel's word counts =====

/// Dead after 3 s, or not while the peer's kernel acknowledges.
fn patient(evidence: Evidence) -> Config {
    let config = Config::detect_within(secs(3)).unwrap();
    config.to_builder().evidence(evidence).build().unwrap()
}

/// Sends until the buffers are full and beyond; the peer reads nothing and says
/// nothing.
async fn lives_for(heartbeat: &mut Heartbeat<TcpStream>, time: Duration) -> Result<(), Death> {
    let message = Bytes::from(vec![0; 1 << 16]);
    let sending = async {
        loop {
            if heartbeat.send(message.clone()).await.is_err() {
                return;
            }
        }
    };
    match timeout(time, sending).await {
        Err(_) => Ok(()),
        Ok(()) => Err(dead(heartbeat).await),
    }
}

#[test]
fn a_slow_reader_lives_while_its_kernel_acknowledges_if_that_is_asked_for() {
    let lives = |evidence| {
        run(async move {
            let (ours, mut peer) = loopback().await;
            peer.write_all(&greeting(quick())).await.unwrap();
            let mut heartbeat = Heartbeat::new(ours, patient(evidence));
            lives_for(&mut heartbeat, secs(8)).await
        })
    };
    let death = lives(Evidence::AnyBytes).unwrap_err();
    assert_eq!(death.diagnosis, Diagnosis::PeerNotReading, "{death}");
    lives(Evidence::Acknowledgement).unwrap();
}

#[test]
fn a_kernel_that_is_gone_acknowledges_nothing() {
    let Some(network) = Network::or_skip("a_kernel_that_is_gone_acknowledges_nothing") else {
        return;
    };
    let config = patient(Evidence::Acknowledgement);
    for towards in [&[RIGHT][..], &[LEFT], &[LEFT, RIGHT]] {
        let mut took = Duration::ZERO;
        let death = across_with(config, &network, Peer::Hangs, async |mut heartbeat| {
            // It hangs for longer than is tolerated, but for its kernel.
            let events = async { while heartbeat.next().await.is_some() {} };
            assert!(timeout(secs(4), events).await.is_err(), "it died");
            cut(&network, towards);
            let began = Instant::now();
            let death = dead(&mut heartbeat).await;
            took = began.elapsed();
            death
        });
        mend(&network, towards);
        // The kernel's ticks, and what a busy machine takes.
        assert!(
            took < secs(3) + ms(500),
            "cut towards {towards:?}: {took:?}"
        );
        assert_eq!(death.diagnosis, Diagnosis::PathDead, "{death}");
    }
}

// ===== helpers =====

/// What the right host does with the connection.
#[derive(Clone, Copy)]
enum Peer {
    Beats,
    Hangs,
    OnlySends,
    /// Sends a message of this size when it receives one, and beats.
    Sends(usize),
}

/// The Hello of such a peer.
fn greeting(config: Config) -> Vec<u8> {
    let mut buffer = [0; Control::MAX_ENCODED];
    let hello = Control::Hello(config.hello([7; 8]));
    framed(hello.encode(&mut buffer).unwrap())
}

impl Peer {
    async fn serve(self, mut stream: TcpStream) {
        match self {
            // For longer than we do: the first verdict is ours.
            Self::Beats => {
                let mut patient = Heartbeat::new(stream, Config::mobile());
                while patient.next().await.is_some() {}
            }
            Self::Hangs => {
                stream.write_all(&greeting(quick())).await.unwrap();
                std::future::pending().await
            }
            Self::Sends(length) => {
                let patient = Config::mobile().to_builder().max_frame(length);
                let mut patient = Heartbeat::new(stream, patient.build().unwrap());
                while let Some(event) = patient.next().await {
                    if let PeerEvent::Message(_) = event {
                        // Beats are answered while it waits.
                        let _ = patient.send(vec![0; length].into()).await;
                    }
                }
            }
            Self::OnlySends => {
                stream.write_all(&greeting(Config::mobile())).await.unwrap();
                let mut often = interval(ms(20));
                while stream.write_all(&data_frame(b"on")).await.is_ok() {
                    often.tick().await;
                }
            }
        }
    }
}

/// Runs `test` on the left host, with a connection to the right one.
fn across(
    network: &Network,
    peer: Peer,
    test: impl AsyncFnOnce(Heartbeat<TcpStream>) -> Death + Send,
) -> Death {
    across_with(quick(), network, peer, test)
}

fn across_with(
    config: Config,
    network: &Network,
    peer: Peer,
    test: impl AsyncFnOnce(Heartbeat<TcpStream>) -> Death + Send,
) -> Death {
    let (send_address, address) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    thread::scope(|scope| {
        let left = scope.spawn(|| {
            network.left.enter(|| {
                run(async {
                    let listener = TcpListener::bind((LEFT, 0)).await?;
                    send_address.send(listener.local_addr()?).unwrap();
                    let (stream, _) = listener.accept().await?;
                    let death = test(Heartbeat::new(stream, config)).await;
                    drop(stop);
                    io::Result::Ok(death)
                })
            })
        });
        let address: SocketAddr = address.recv().unwrap();
        network
            .right
            .enter(|| {
                run(async {
                    let stream = TcpStream::connect(address).await?;
                    tokio::select! {
                        () = peer.serve(stream) => {}
                        _ = stopped => {}
                    }
                    io::Result::Ok(())
                })
            })
            .unwrap();
        left.join().unwrap().unwrap()
    })
}

/// Runs `test` with as many connections as there are cases, at the same time.
/// The fault strikes once, when all are ready for it.
fn many(
    network: &Network,
    config: Config,
    peer: Peer,
    test: impl AsyncFn(Heartbeat<TcpStream>, &Strike) -> Death + Sync,
) -> Vec<Death> {
    let (send_address, address) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    thread::scope(|scope| {
        let left = scope.spawn(|| {
            network.left.enter(|| {
                run(async {
                    let listener = TcpListener::bind((LEFT, 0)).await?;
                    send_address.send(listener.local_addr()?).unwrap();
                    let strike = Strike::default();
                    let mut cases = Vec::new();
                    for _ in 0..CASES {
                        let (stream, _) = listener.accept().await?;
                        cases.push(test(Heartbeat::new(stream, config), &strike));
                    }
                    let deaths = futures::future::join_all(cases).await;
                    drop(stop);
                    io::Result::Ok(deaths)
                })
            })
        });
        let address: SocketAddr = address.recv().unwrap();
        let serve = || {
            run(async {
                let mut peers = Vec::new();
                for _ in 0..CASES {
                    peers.push(peer.serve(TcpStream::connect(address).await?));
                }
                tokio::select! {
                    _ = futures::future::join_all(peers) => {}
                    _ = stopped => {}
                }
                io::Result::Ok(())
            })
        };
        network.right.enter(serve).unwrap();
        left.join().unwrap().unwrap()
    })
}

/// What happens to all connections at once.
#[derive(Default)]
struct Strike {
    ready: std::cell::Cell<usize>,
    struck: tokio::sync::Notify,
}

impl Strike {
    /// Waits until all are here; the last one does it.
    async fn by(&self, fault: impl FnOnce() -> io::Result<()>) {
        let struck = self.struck.notified();
        self.ready.set(self.ready.get() + 1);
        if self.ready.get() < CASES {
            return struck.await;
        }
        fault().unwrap();
        self.struck.notify_waiters();
    }
}

fn cut(network: &Network, towards: &[std::net::IpAddr]) {
    for host in towards {
        network.cut_towards(*host).unwrap();
    }
}

fn mend(network: &Network, towards: &[std::net::IpAddr]) {
    for host in towards {
        network.mend_towards(*host).unwrap();
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().unwrap();
    runtime.block_on(test)
}

/// With a small buffer on the other side, so that it is soon full.
async fn loopback() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    let address = listener.local_addr().unwrap();
    let (peer, accepted) = tokio::join!(socket.connect(address), listener.accept());
    (accepted.unwrap().0, peer.unwrap())
}

async fn beat(heartbeat: &mut Heartbeat<TcpStream>) {
    heartbeat.probe();
    let beaten = async {
        loop {
            match heartbeat.next().await {
                Some(PeerEvent::Beat { .. }) => return,
                Some(event) => assert!(!event.is_terminal(), "{event}"),
                None => panic!("it ended"),
            }
        }
    };
    timeout(secs(10), beaten).await.unwrap();
}

async fn dead<S>(heartbeat: &mut Heartbeat<S>) -> Death
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    within(secs(30), heartbeat).await
}

async fn within<S>(limit: Duration, heartbeat: &mut Heartbeat<S>) -> Death
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    let dead = async {
        loop {
            if let PeerEvent::Dead(death) = heartbeat.next().await.unwrap() {
                return death;
            }
        }
    };
    timeout(limit, dead).await.unwrap()
}

async fn dead_while_sending(heartbeat: &mut Heartbeat<TcpStream>) -> Death {
    dead_while_sending_each(Duration::ZERO, heartbeat).await
}

/// With a pause after each 64 KiB.
async fn dead_while_sending_each(pause: Duration, heartbeat: &mut Heartbeat<TcpStream>) -> Death {
    let message = Bytes::from(vec![0; 1 << 16]);
    for _ in 0..MUCH >> 16 {
        if timeout(Duration::from_secs(30), heartbeat.send(message.clone()))
            .await
            .unwrap()
            .is_err()
        {
            break;
        }
        if !pause.is_zero() {
            sleep(pause).await;
        }
    }
    dead(heartbeat).await
}
