//! The safety net of a `Heartbeat` over a socket: that it is spread, and follows the
//! times that the peer's Hello asks for.

use std::future::IntoFuture;

use axum::{
    Router,
    extract::{ConnectInfo, ws::WebSocketUpgrade},
    routing::any,
};
use heartbeat_tests::{secs, wrapped};
use heartbeat_tokio::{
    Config, Heartbeat, NetStatus, SafetyNet, safety_net::Outcome, websocket::TcpSocket,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc::unbounded_channel,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, client_async, tungstenite::protocol::Role,
};

#[tokio::test]
async fn a_plain_tcp_stream_has_its_safety_net_and_others_say_that_they_have_none() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let heartbeat = Heartbeat::new(stream, Config::default());
    let NetStatus::Applied(applied) = heartbeat.status().safety_net else {
        panic!("{:?}", heartbeat.status())
    };
    assert!(applied.is_complete(), "{applied:?}");

    let (heartbeat, _peer) = wrapped(Config::default());
    assert!(matches!(heartbeat.status().safety_net, NetStatus::NoSocket));
}

#[tokio::test]
async fn the_socket_below_a_websocket_is_found() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connect = || TcpStream::connect(listener.local_addr().unwrap());
    let plain = connect().await.unwrap();
    let plain = WebSocketStream::from_raw_socket(plain, Role::Client, None).await;
    let plain = Heartbeat::websocket(plain, Config::default());
    assert!(matches!(plain.status().safety_net, NetStatus::Applied(_)));

    let perhaps_tls = MaybeTlsStream::Plain(connect().await.unwrap());
    let perhaps_tls = WebSocketStream::from_raw_socket(perhaps_tls, Role::Client, None).await;
    let perhaps_tls = Heartbeat::websocket(perhaps_tls, Config::default());
    let net = perhaps_tls.status().safety_net;
    assert!(matches!(net, NetStatus::Applied(_)));
}

#[tokio::test]
async fn the_socket_below_axum_is_that_of_the_client() {
    let (tell, mut opened) = unbounded_channel();
    let open = move |upgrade: WebSocketUpgrade, socket: ConnectInfo<TcpSocket>| {
        let tell = tell.clone();
        async move { upgrade.on_upgrade(async move |ws| drop(tell.send((ws, socket)))) }
    };
    let app = Router::new().route("/", any(open));
    let app = app.into_make_service_with_connect_info::<TcpSocket>();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, app).into_future());
    let stream = TcpStream::connect(address).await.unwrap();
    let client = stream.local_addr().unwrap();
    let url = format!("ws://{address}/");
    let (_client, _) = client_async(url, stream).await.unwrap();

    let (ws, socket) = opened.recv().await.unwrap();
    let peer = |socket: &TcpStream| socket.peer_addr().unwrap();
    assert_eq!(socket.get().map(peer), Some(client));
    let reference = socket.downgrade().upgrade();
    assert_eq!(reference.as_deref().map(peer), Some(client));
    let ours = Heartbeat::websocket((ws, socket), Config::default());
    assert!(matches!(ours.status().safety_net, NetStatus::Applied(_)));
}

/// Both are in the same process, which keeps the most usual report once.
#[tokio::test]
async fn each_connection_has_a_report_of_its_own() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
    let config = Config::default();
    let timeout = SafetyNet::from(&config).with_user_timeout(secs(77));
    let derived = Heartbeat::new(ours.unwrap(), config);
    let chosen = Heartbeat::new(theirs.unwrap().0, config).with_safety_net(&timeout.unwrap());
    let user_timeout = |heartbeat: &Heartbeat<TcpStream>| match heartbeat.status().safety_net {
        NetStatus::Applied(applied) => applied.user_timeout,
        other => panic!("{other:?}"),
    };
    assert_eq!(user_timeout(&derived), Outcome::NotAsked);
    let has_it = cfg!(any(target_os = "linux", target_os = "android"));
    assert_eq!(user_timeout(&chosen) == Outcome::Set, has_it);
}

/// Only a failure is a warning. Under Wine two options are missing.
#[cfg(feature = "observability")]
#[test]
fn options_that_the_system_lacks_are_neither_counted_nor_logged() {
    use std::sync::{Arc, Mutex};

    use futures::StreamExt;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tokio::runtime::Builder;
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

    /// The number of warnings.
    #[derive(Clone, Default)]
    struct Warnings(Arc<Mutex<u32>>);

    impl<S: tracing::Subscriber> Layer<S> for Warnings {
        fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
            if *event.metadata().level() <= tracing::Level::WARN {
                *self.0.lock().unwrap() += 1;
            }
        }
    }

    let warnings = Warnings::default();
    let recorder = PrometheusBuilder::new().build_recorder();
    let recording = metrics::set_default_local_recorder(&recorder);
    let logging = tracing_subscriber::registry().with(warnings.clone());
    let logging = tracing::subscriber::set_default(logging);
    heartbeat_tokio::describe_metrics();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        let mut a = Heartbeat::new(ours.unwrap(), Config::default());
        let mut b = Heartbeat::new(theirs.unwrap().0, Config::default());
        let NetStatus::Applied(applied) = a.status().safety_net else {
            panic!("{:?}", a.status())
        };
        let has_all = cfg!(any(target_os = "linux", target_os = "android"));
        assert_eq!(applied.missing().count() == 0, has_all, "{applied}");
        tokio::join!(a.next(), b.next());
    });
    drop((recording, logging));

    let page = recorder.handle().render();
    assert!(page.contains("heartbeat_opened_total 2"), "{page}");
    let unset = |line: &&str| line.starts_with("heartbeat_unset_options_total");
    let counts: Vec<_> = page.lines().filter(unset).collect();
    assert_eq!(counts.len(), 7, "{page}");
    assert!(counts.iter().all(|line| line.ends_with(" 0")), "{page}");
    assert_eq!(*warnings.0.lock().unwrap(), 0);
}

// On Windows socket2 reads no keepalive back.
#[cfg(not(windows))]
mod read_back {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use futures::{StreamExt, future::poll_immediate};
    use heartbeat_core::Control;
    use heartbeat_tests::{RawPeer, data_frame, ms, scripted::control_frame, secs};
    use heartbeat_tokio::{Config, Heartbeat, PeerEvent, SafetyNet};
    use tokio::{
        io::BufStream,
        net::{TcpListener, TcpStream},
    };

    /// A configuration that lets its peer slow it down far.
    fn tolerant() -> Config {
        let lan = Config::lan().to_builder();
        lan.max_stretch(255).build().unwrap()
    }

    /// When the kernel's first probe comes, the others, and how many there are.
    fn keepalive(socket: &socket2::Socket) -> (std::time::Duration, std::time::Duration, u32) {
        (
            socket.tcp_keepalive_time().unwrap(),
            socket.tcp_keepalive_interval().unwrap(),
            socket.tcp_keepalive_retries().unwrap(),
        )
    }

    /// A kernel that gave up first would hide the heartbeat's own verdict.
    #[tokio::test]
    async fn the_safety_net_follows_a_peer_that_slows_us_down() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        let slow = Config::builder()
            .interval(secs(100))
            .timeout(secs(100))
            .min_interval(secs(100));
        let mut a = Heartbeat::new(ours.unwrap(), tolerant());
        let mut b = Heartbeat::new(theirs.unwrap().0, slow.build().unwrap());
        let idle = |heartbeat: &Heartbeat<TcpStream>| {
            let socket = socket2::SockRef::from(heartbeat.get_ref().unwrap());
            socket.tcp_keepalive_time().unwrap()
        };
        assert!(idle(&a) < secs(3));
        tokio::join!(a.next(), b.next());
        assert_eq!(a.status().peer.interval, secs(100));
        assert!(idle(&a) > secs(100));
    }

    /// A peer that asks for as much as is accepted, and takes it back, leaves nothing
    /// behind; nor does one that asks for it again.
    #[tokio::test]
    async fn the_safety_net_goes_back_with_the_peer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        let mut heartbeat = Heartbeat::new(ours.unwrap(), tolerant());
        let mut peer = RawPeer::new(theirs.unwrap().0);
        let options = |heartbeat: &Heartbeat<TcpStream>| {
            keepalive(&socket2::SockRef::from(heartbeat.get_ref().unwrap()))
        };
        let before = options(&heartbeat);
        let normal = Config::lan();
        let most = secs(600);
        let slow = Config::builder().interval(most).timeout(most);
        let slow = slow.min_interval(most).build().unwrap();
        for _ in 0..2 {
            peer.greet(slow).await;
            let told = heartbeat.next().await;
            assert!(matches!(told, Some(PeerEvent::Connected { .. })));
            assert_eq!(heartbeat.status().peer.interval, most);
            let after = options(&heartbeat);
            assert!(after.0 > most, "{after:?}");

            peer.greet(normal).await;
            let told = heartbeat.next().await;
            assert!(matches!(told, Some(PeerEvent::Connected { .. })));
            assert_eq!(heartbeat.detection_time(), normal.detection_time());
            assert_eq!(options(&heartbeat), before);
        }
    }

    /// Each change takes several system calls. A flood of them would cost others their turns.
    #[tokio::test]
    async fn of_many_hellos_in_one_turn_the_safety_net_follows_the_last() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        let ours = Heartbeat::new(BufStream::new(ours.unwrap()), tolerant());
        let mut heartbeat = ours.with_socket(|stream| {
            ASKED.fetch_add(1, Relaxed);
            Some(stream.get_ref())
        });
        let hello = |seconds| {
            let slow = Config::builder().interval(secs(seconds));
            let slow = slow.timeout(secs(100)).min_interval(secs(seconds));
            control_frame(Control::Hello(slow.build().unwrap().hello([7; 8])))
        };
        let mut frames = [hello(100), hello(200)].concat().repeat(100);
        frames.extend(data_frame(b"m"));
        let before = ASKED.load(Relaxed);
        let mut peer = RawPeer::new(theirs.unwrap().0);
        peer.send_raw(&frames).await;
        for _ in 0..200 {
            let told = heartbeat.next().await;
            assert!(matches!(told, Some(PeerEvent::Connected { .. })));
        }
        let told = heartbeat.next().await;
        assert!(matches!(told, Some(PeerEvent::Message(_))));
        assert!(poll_immediate(heartbeat.next()).await.is_none());
        let asked = ASKED.load(Relaxed) - before;
        assert!(asked < 40, "the socket was asked for {asked} times");
        let socket = socket2::SockRef::from(heartbeat.get_ref().unwrap().get_ref());
        assert!(keepalive(&socket).0 > secs(200));
    }

    /// Dead after 2.5 s, so after 10 s at most, and the kernel's verdict comes as soon
    /// after that as after a detection time which was configured.
    #[tokio::test]
    async fn no_hello_makes_the_kernels_verdict_later_than_the_cap() {
        let most = ms(4 * 2_500 - 1_500);
        let cap = Config::lan().to_builder().interval(most).build().unwrap();
        assert_eq!(cap.detection_time(), secs(10));
        let cap = SafetyNet::from(&cap);
        for (accepted, refused) in [(most, false), (most + ms(1), true), (secs(86_400), true)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
            let ours = ours.unwrap().into_std().unwrap();
            // Our stream is dropped with a refusal; this is the same socket.
            let socket = socket2::Socket::from(ours.try_clone().unwrap());
            let ours = TcpStream::from_std(ours).unwrap();
            let mut heartbeat = Heartbeat::new(ours, Config::lan());
            let before = keepalive(&socket);
            let mut peer = RawPeer::new(theirs.unwrap().0);
            let slow = Config::builder().interval(accepted).timeout(accepted);
            peer.greet(slow.min_interval(accepted).build().unwrap())
                .await;
            let told = heartbeat.next().await;
            assert_eq!(
                matches!(told, Some(PeerEvent::Dead(_))),
                refused,
                "{told:?}"
            );
            let after = keepalive(&socket);
            let allowed = match refused {
                true => before,
                false => (cap.idle(), cap.interval(), cap.retries()),
            };
            assert_eq!(after, allowed, "{accepted:?}");
        }
    }

    /// Neither the name of the socket nor what the peer asks for replaces it.
    #[tokio::test]
    async fn a_safety_net_that_was_chosen_by_hand_stays() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        let slow = Config::builder()
            .interval(secs(100))
            .timeout(secs(100))
            .min_interval(secs(100));
        let net = SafetyNet::new(secs(77), secs(7), 7).unwrap();
        let mut a = Heartbeat::new(BufStream::new(ours.unwrap()), tolerant())
            .with_safety_net(&net)
            .with_socket(|stream| Some(stream.get_ref()));
        let mut b = Heartbeat::new(theirs.unwrap().0, slow.build().unwrap());
        let idle = |heartbeat: &Heartbeat<BufStream<TcpStream>>| {
            let socket = socket2::SockRef::from(heartbeat.get_ref().unwrap().get_ref());
            socket.tcp_keepalive_time().unwrap()
        };
        assert_eq!(idle(&a), secs(77));
        tokio::join!(a.next(), b.next());
        assert_eq!(a.status().peer.interval, secs(100));
        assert_eq!(idle(&a), secs(77));
    }
}
