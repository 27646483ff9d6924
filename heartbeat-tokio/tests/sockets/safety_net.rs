//! The safety net over loopback: what a look at a socket tells, what is set on
//! one, and what an error means.

#![expect(clippy::unwrap_used, clippy::panic, reason = "how a test fails")]

use std::{
    io::{self, ErrorKind},
    time::Duration,
};

use heartbeat_core::{Cause, Config, Death, Diagnosis, End, ProtocolError};
use heartbeat_tokio::safety_net::{
    Latch, Liveness, Outcome, SafetyNet, SafetyNetError, TcpInfo, check, diagnose, end_of, sweep,
};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

const SOON: Duration = Duration::from_secs(10);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The two ends of a connection over loopback.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (ours.unwrap(), accepted.unwrap().0)
}

/// Closes with a RST instead of a FIN.
fn reset(peer: TcpStream) {
    SockRef::from(&peer).set_linger(Some(secs(0))).unwrap();
    drop(peer);
}

/// Looks until something other than `before` is seen.
async fn next(before: Liveness, mut look: impl FnMut() -> io::Result<Liveness>) -> Liveness {
    let seen = async {
        loop {
            let liveness = look().unwrap();
            if liveness != before {
                return liveness;
            }
            sleep(ms(1)).await;
        }
    };
    let told = timeout(SOON, seen).await;
    told.unwrap_or_else(|_| panic!("still {before:?} after {SOON:?}"))
}

// ===== check =====

#[tokio::test]
async fn a_quiet_connection_is_idle() {
    let (ours, _peer) = pair().await;
    assert_eq!(check(&ours).unwrap(), Liveness::Idle);
    sleep(ms(20)).await;
    assert_eq!(check(&ours).unwrap(), Liveness::Idle);
    assert!(!Liveness::Idle.is_gone());
    assert_eq!(Liveness::Idle.end(), None);
}

#[tokio::test]
async fn pending_data_is_seen_and_not_taken() {
    let (mut ours, mut peer) = pair().await;
    peer.write_all(b"ab").await.unwrap();
    let seen = next(Liveness::Idle, || check(&ours)).await;
    assert_eq!(seen, Liveness::DataPending);
    for _ in 0..100 {
        assert_eq!(check(&ours).unwrap(), Liveness::DataPending);
    }

    let mut read = [0; 2];
    timeout(SOON, ours.read_exact(&mut read))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&read, b"ab");
    assert_eq!(check(&ours).unwrap(), Liveness::Idle);
}

#[tokio::test]
async fn a_look_leaves_the_sockets_readiness_alone() {
    let (ours, mut peer) = pair().await;
    peer.write_all(b"a").await.unwrap();
    ours.readable().await.unwrap();

    // With two bytes of room tokio clears its readiness after the short read;
    // the looks before it must not have.
    assert_eq!(check(&ours).unwrap(), Liveness::DataPending);
    assert_eq!(ours.try_read(&mut [0; 1]).unwrap(), 1);
    // Stale from here: tokio still has the socket as readable.
    assert_eq!(check(&ours).unwrap(), Liveness::Idle);

    peer.write_all(b"b").await.unwrap();
    timeout(SOON, async {
        while check(&ours).unwrap() == Liveness::Idle {
            sleep(ms(1)).await;
        }
        ours.readable().await.unwrap();
    })
    .await
    .expect("the byte that was looked at still makes the socket readable");
    assert_eq!(ours.try_read(&mut [0; 1]).unwrap(), 1);
}

#[tokio::test]
async fn a_look_from_another_task_doesnt_steal_the_readers_wake_up() {
    let (ours, mut peer) = pair().await;
    let (mut reader, writer) = ours.into_split();
    let reading = tokio::spawn(async move {
        let mut read = [0; 1];
        reader.read_exact(&mut read).await.map(|_| read)
    });
    sleep(ms(20)).await; // the reader is waiting now

    for _ in 0..10 {
        assert_eq!(check(writer.as_ref()).unwrap(), Liveness::Idle);
    }
    peer.write_all(b"a").await.unwrap();
    let read = timeout(SOON, reading).await.expect("the reader wakes up");
    assert_eq!(&read.unwrap().unwrap(), b"a");
}

#[tokio::test]
async fn a_closed_peer_is_seen() {
    let (mut ours, peer) = pair().await;
    drop(peer);
    let seen = next(Liveness::Idle, || check(&ours)).await;
    assert_eq!(seen, Liveness::Closed);
    assert!(seen.is_gone());
    assert_eq!(seen.end(), Some(End::Eof));
    assert_eq!(ours.read(&mut [0; 1]).await.unwrap(), 0);
    assert_eq!(check(&ours).unwrap(), Liveness::Closed);
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[tokio::test]
async fn a_close_is_seen_even_before_the_poller_has_run() {
    let (ours, peer) = pair().await;
    drop(peer);
    // Never gives the poller, which is on this thread, a turn.
    let deadline = std::time::Instant::now() + SOON;
    while check(&ours).unwrap() != Liveness::Closed {
        assert!(std::time::Instant::now() < deadline);
    }
}

#[tokio::test]
async fn a_close_behind_unread_data_is_seen() {
    let (mut ours, mut peer) = pair().await;
    peer.write_all(b"last words").await.unwrap();
    let seen = next(Liveness::Idle, || check(&ours)).await;
    assert_eq!(seen, Liveness::DataPending);

    peer.shutdown().await.unwrap();
    let seen = next(Liveness::DataPending, || check(&ours)).await;
    assert_eq!(seen, Liveness::HalfClosed);
    assert!(seen.is_gone());
    assert_eq!(seen.end(), Some(End::Eof));

    let mut read = Vec::new();
    ours.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"last words");
    assert_eq!(check(&ours).unwrap(), Liveness::Closed);
}

#[tokio::test]
async fn a_peer_that_has_finished_sending_may_still_read() {
    let (mut ours, mut peer) = pair().await;
    peer.shutdown().await.unwrap();
    let seen = next(Liveness::Idle, || check(&ours)).await;
    assert_eq!(seen, Liveness::Closed, "it looks like a close");

    ours.write_all(b"a").await.unwrap();
    assert_eq!(peer.read_u8().await.unwrap(), b'a');
    drop(peer); // everything was read, so there is nothing new
    ours.shutdown().await.unwrap();
    assert_eq!(check(&ours).unwrap(), Liveness::Closed);
}

#[tokio::test]
async fn a_reset_is_seen_and_left_to_the_reader() {
    let (mut ours, mut peer) = pair().await;
    peer.write_all(b"ab").await.unwrap();
    next(Liveness::Idle, || check(&ours)).await;
    reset(peer);
    // Unread data doesn't hide it.
    let seen = next(Liveness::DataPending, || check(&ours)).await;
    assert_eq!(seen, Liveness::Reset(None));
    assert!(seen.is_gone());
    assert_eq!(seen.end(), Some(End::Reset));
    for _ in 0..100 {
        assert_eq!(check(&ours).unwrap(), seen);
    }

    let mut read = [0; 2];
    ours.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"ab");
    assert_eq!(check(&ours).unwrap(), seen);
    let error = ours.read(&mut read).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(check(&ours).unwrap().is_gone());
    assert_eq!(ours.read(&mut read).await.unwrap(), 0);
}

#[tokio::test]
async fn a_reset_behind_a_close_is_seen() {
    let (mut ours, peer) = pair().await;
    drop(peer);
    let seen = next(Liveness::Idle, || check(&ours)).await;
    assert_eq!(seen, Liveness::Closed);
    ours.write_all(b"anybody there?").await.unwrap();
    let seen = next(Liveness::Closed, || check(&ours)).await;
    assert_eq!(seen, Liveness::Reset(None));
    let error = ours.write_all(b"?").await.unwrap_err();
    // WSAECONNRESET there: Windows has no EPIPE for sockets.
    let expected = match cfg!(windows) {
        true => (ErrorKind::ConnectionReset, End::Reset),
        false => (ErrorKind::BrokenPipe, End::Eof),
    };
    assert_eq!((error.kind(), end_of(&error)), expected);
}

#[tokio::test]
async fn a_sweep_says_which_are_gone_and_why() {
    let (idle, _peer) = pair().await;
    let (busy, mut sender) = pair().await;
    let (closed, closing) = pair().await;
    let (ending, mut ended) = pair().await;
    let (broken, breaking) = pair().await;
    sender.write_all(b"a").await.unwrap();
    ended.write_all(b"last words").await.unwrap();
    drop((closing, ended));
    reset(breaking);

    let all = [&idle, &busy, &closed, &ending, &broken];
    let swept = || sweep(all.into_iter().enumerate()).unwrap();
    timeout(SOON, async {
        while swept().len() < 3 {
            sleep(ms(1)).await;
        }
    })
    .await
    .unwrap();
    let gone = [
        (2, Liveness::Closed),
        (3, Liveness::HalfClosed),
        (4, Liveness::Reset(None)),
    ];
    assert_eq!(swept(), gone);
    assert_eq!(swept(), gone, "nothing was used up");
    assert_eq!(sweep(std::iter::empty::<((), _)>()).unwrap(), []);
}

#[tokio::test]
async fn a_latch_keeps_the_error_for_the_reader() {
    let (mut ours, peer) = pair().await;
    let mut latch = Latch::new();
    reset(peer);
    let seen = next(Liveness::Idle, || latch.check(&ours)).await;
    assert_eq!(seen.end(), Some(End::Reset));

    // Each later look says the same, though the kernel has forgotten.
    for _ in 0..3 {
        assert_eq!(latch.check(&ours).unwrap(), seen);
    }
    let kept = latch.error().expect("it was used up").kind();
    assert_eq!(kept, ErrorKind::ConnectionReset);

    let mut buffer = [0; 8];
    let first = latch.after_read(ours.read(&mut buffer).await);
    assert_eq!(first.unwrap_err().kind(), ErrorKind::ConnectionReset);
    #[cfg(unix)] // Windows reports a reset to each reader
    {
        let second = latch.after_read(ours.read(&mut buffer).await);
        assert_eq!(second.unwrap(), 0, "once, as the kernel does it");
    }
    assert_eq!(latch.check(&ours).unwrap(), seen);
}

#[tokio::test]
async fn a_latch_gives_the_error_back_behind_the_data() {
    let (mut ours, mut peer) = pair().await;
    let mut latch = Latch::new();
    peer.write_all(b"a").await.unwrap();
    next(Liveness::Idle, || latch.check(&ours)).await;
    assert!(latch.error().is_none());
    reset(peer);
    let seen = next(Liveness::DataPending, || latch.check(&ours)).await;
    let Liveness::Reset(Some(errno)) = seen else {
        panic!("{seen:?} is no reset");
    };
    let error = io::Error::from_raw_os_error(errno);
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(seen.to_string(), error.to_string());
    #[cfg(any(target_os = "linux", target_os = "android"))] // pollers remember
    assert_eq!(check(&ours).unwrap(), Liveness::HalfClosed, "it was taken");

    let mut buffer = [0; 8];
    let mut read = async || latch.after_read(ours.read(&mut buffer).await);
    assert_eq!(read().await.unwrap(), 1);
    let error = read().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    #[cfg(unix)] // Windows reports a reset to each reader
    assert_eq!(read().await.unwrap(), 0);
}

#[cfg(unix)] // Windows reports a reset to each reader
#[tokio::test]
async fn a_latch_adds_nothing_to_what_was_read_before_it_looked() {
    let (mut ours, peer) = pair().await;
    reset(peer);
    let mut latch = Latch::new();
    let error = latch.after_read(ours.read(&mut [0; 1]).await).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(latch.check(&ours).unwrap(), Liveness::Closed);
    assert_eq!(latch.after_read(ours.read(&mut [0; 1]).await).unwrap(), 0);
}

#[test]
fn a_latch_hands_data_and_other_errors_through() {
    let mut latch = Latch::new();
    assert_eq!(latch.after_read(Ok(7)).unwrap(), 7);
    assert_eq!(latch.after_read(Ok(0)).unwrap(), 0);
    let error = latch.after_read(Err(ErrorKind::TimedOut.into()));
    assert_eq!(error.unwrap_err().kind(), ErrorKind::TimedOut);
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[test]
fn a_socket_whose_runtime_is_gone_can_be_asked_all_the_same() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (ours, peer) = runtime.block_on(pair());
    drop(runtime);
    assert_eq!(check(&ours).unwrap(), Liveness::Idle);
    drop(peer);
    let deadline = std::time::Instant::now() + SOON;
    while check(&ours).unwrap() != Liveness::Closed {
        assert!(std::time::Instant::now() < deadline);
    }
}

// ===== keepalive =====

#[test]
fn the_kernels_verdict_comes_after_the_heartbeats() {
    let day = secs(24 * 60 * 60);
    let times = [
        Duration::from_micros(1),
        ms(1),
        ms(333),
        ms(999),
        secs(1),
        ms(1001),
        ms(2500),
        secs(3),
        secs(5),
        secs(59),
        secs(3600),
        day / 2,
        day,
    ];
    for interval in times {
        for timeout in times {
            for misses in [1, 2, 3, 4, 40, 126, 127, 128, 254, 255] {
                let config = Config::builder()
                    .interval(interval)
                    .timeout(timeout)
                    .max_missed(misses)
                    .build()
                    .unwrap();
                if config.detection_time() > 47 * day {
                    continue;
                }
                let net = SafetyNet::from(&config);
                let by_hand = SafetyNet::new(net.idle(), net.interval(), net.retries())
                    .and_then(|hand| hand.with_max_retransmit_timeout(net.max_retransmit_timeout()))
                    .and_then(|hand| hand.with_max_unsent(net.max_unsent()))
                    .and_then(|hand| hand.with_peek_interval(net.peek_interval()));
                assert_eq!(by_hand, Ok(net), "a kernel takes it");
                let verdict = config.detection_time() + timeout;
                assert_eq!(net.max_retransmit_timeout(), None, "it kills who is heard");
                if verdict < secs(840) {
                    let limit = SafetyNet::retransmit_timeout_while_suspect(&config);
                    assert!(retransmission_gives_up(limit) >= verdict, "{limit:?}");
                    assert!(limit <= timeout.max(verdict / 6) + secs(1), "{limit:?}");
                }
                assert!(net.retries() >= 3, "one lost probe decides nothing");
                assert!(
                    net.detection_time() >= config.detection_time() + timeout,
                    "{net:?} of {config:?}"
                );
                // Nothing is sent while beats are answered.
                let beat = interval + timeout;
                assert!(
                    net.idle() >= beat.min(secs(32_767)),
                    "{net:?} of {config:?}"
                );
                // Nor much later: rounding, and three probes where fewer would do.
                let slack = timeout * 3 + config.detection_time() / 100 + secs(6);
                assert!(
                    net.detection_time() <= config.detection_time() + timeout + slack,
                    "{net:?} of {config:?}"
                );
            }
        }
    }
}

/// As Linux computes it for `tcp_retries2` = 15 (`tcp_model_timeout`).
fn retransmission_gives_up(limit: Duration) -> Duration {
    let base = ms(200);
    let doublings = (limit.as_millis() / base.as_millis()).ilog2();
    base * ((2 << doublings) - 1) + limit * (15 - doublings)
}

#[test]
fn the_presets_give_these_settings() {
    let derived = |config: Config| {
        let net = SafetyNet::from(&config);
        assert_eq!(net.user_timeout(), None);
        assert_eq!(net.peek_interval(), config.interval());
        let (idle, interval) = (net.idle().as_secs(), net.interval().as_secs());
        let limit = SafetyNet::retransmit_timeout_while_suspect(&config);
        (idle, interval, net.retries(), limit)
    };
    let (one, three, twelve) = (secs(1), secs(3), ms(11_667));
    assert_eq!(derived(Config::wan()), (8, 3, 3, three)); // 17 s after 14
    assert_eq!(derived(Config::lan()), (2, 1, 3, one)); // 5 s after 2.5
    assert_eq!(derived(Config::mobile()), (40, 10, 3, twelve)); // 70 s after 60
    assert_eq!(SafetyNet::default(), SafetyNet::from(&Config::default()));
}

#[test]
fn times_that_kernels_cant_count_to_become_the_longest() {
    let year = secs(365 * 24 * 60 * 60);
    let config = Config::builder().interval(year).timeout(year);
    let net = SafetyNet::from(&config.max_missed(255).build().unwrap());
    assert_eq!(net.idle(), secs(32_767));
    assert_eq!(net.interval(), secs(32_767));
    assert_eq!(net.retries(), 127);
}

#[test]
fn fractions_are_rounded_up() {
    let nano = Duration::from_nanos(1);
    let net = SafetyNet::new(ms(400), secs(2) + nano, 5).unwrap();
    assert_eq!(net.idle(), secs(1));
    assert_eq!(net.interval(), secs(3));
    assert_eq!(net.detection_time(), secs(16));

    let net = net.with_user_timeout(nano).unwrap();
    assert_eq!(net.user_timeout(), Some(ms(1)));
    let net = net.with_user_timeout(ms(1999) + nano).unwrap();
    assert_eq!(net.user_timeout(), Some(secs(2)));
    assert_eq!(net.with_user_timeout(None).unwrap().user_timeout(), None);

    assert_eq!(net.peek_interval(), secs(1), "as idle");
    let net = net.with_peek_interval(nano).unwrap();
    assert_eq!(net.peek_interval(), ms(1));
    assert_eq!(net.max_retransmit_timeout(), None);
    let net = net.with_max_retransmit_timeout(ms(1500) + nano).unwrap();
    assert_eq!(net.max_retransmit_timeout(), Some(ms(1501)));
}

#[test]
fn what_no_kernel_takes_is_refused_with_field_value_and_rule() {
    let net = SafetyNet::new(secs(32_767), ms(32_766_001), 127).unwrap();
    assert_eq!(net.detection_time(), secs(32_767 * 128));
    let most = Duration::from_millis(2_147_483_647);
    assert_eq!(
        net.with_user_timeout(most).unwrap().user_timeout(),
        Some(most)
    );

    let refused = |result: Result<SafetyNet, SafetyNetError>| result.unwrap_err().to_string();
    let cases = [
        (
            net.with_idle(ms(32_767_001)),
            "idle = 32767.001s: must be at most 32767s",
        ),
        (net.with_idle(secs(0)), "idle = 0ns: must be above zero"),
        (
            net.with_idle(secs(65_536 + 9)),
            "idle = 65545s: must be at most 32767s",
        ),
        (
            net.with_interval(secs(40_000)),
            "interval = 40000s: must be at most 32767s",
        ),
        (
            net.with_interval(secs(0)),
            "interval = 0ns: must be above zero",
        ),
        (
            net.with_retries(128),
            "retries = 128: must be from 1 to 127",
        ),
        (net.with_retries(0), "retries = 0: must be from 1 to 127"),
        (
            net.with_retries(257),
            "retries = 257: must be from 1 to 127",
        ),
        (
            net.with_user_timeout(secs(0)),
            "user_timeout = 0ns: must be above zero",
        ),
        (
            net.with_user_timeout(most + Duration::from_nanos(1)),
            "user_timeout = 2147483.647000001s: must be at most 2147483647ms",
        ),
        (
            net.with_peek_interval(secs(0)),
            "peek_interval = 0ns: must be above zero",
        ),
        (
            net.with_max_retransmit_timeout(ms(999)),
            "max_retransmit_timeout = 999ms: must be from 1s to 120s",
        ),
        (
            net.with_max_retransmit_timeout(ms(120_001)),
            "max_retransmit_timeout = 120.001s: must be from 1s to 120s",
        ),
        (
            SafetyNet::new(secs(0), secs(1), 1),
            "idle = 0ns: must be above zero",
        ),
        (
            SafetyNet::new(secs(1), Duration::MAX, 1),
            "interval = 18446744073709551615.999999999s: must be at most 32767s",
        ),
        (
            SafetyNet::new(secs(1), secs(1), 0),
            "retries = 0: must be from 1 to 127",
        ),
    ];
    for (result, message) in cases {
        assert_eq!(refused(result), message);
    }

    let error = net.with_retries(0).unwrap_err();
    assert_eq!(error.field(), "retries");
    assert_eq!(error.value().to_string(), "0");
    assert_eq!(error.rule().to_string(), "from 1 to 127");
}

#[cfg(feature = "serde")]
#[test]
fn a_file_says_it_as_people_do() {
    let net: SafetyNet = toml::from_str(
        r#"
        idle = "400ms"
        interval = "2m 30s"
        retries = 5
        user_timeout = "1.5s"
        max_retransmit_timeout = "4s"
        max_unsent = 16384
        peek_interval = "250ms"
        "#,
    )
    .unwrap();
    let by_hand = SafetyNet::new(ms(400), secs(150), 5)
        .and_then(|net| net.with_user_timeout(ms(1500)))
        .and_then(|net| net.with_max_retransmit_timeout(secs(4)))
        .and_then(|net| net.with_max_unsent(16_384))
        .and_then(|net| net.with_peek_interval(ms(250)));
    assert_eq!(Ok(net), by_hand);
    let written = toml::to_string(&net).unwrap();
    assert!(written.contains(r#"interval = "2m 30s""#), "{written}");
    assert_eq!(toml::from_str(&written), Ok(net));

    // What is off stays off, although it would be derived otherwise.
    let off = net.with_max_retransmit_timeout(None).unwrap();
    let written = toml::to_string(&off).unwrap();
    assert!(written.contains(r#"max_retransmit_timeout = "off""#));
    assert_eq!(toml::from_str(&written), Ok(off));

    assert_eq!(toml::from_str(""), Ok(SafetyNet::default()));
    for (file, complaint) in [
        ("retries = 128", "retries = 128: must be from 1 to 127"),
        (r#"idle = "10h""#, "idle = 36000s: must be at most 32767s"),
        (r#"idle = "0s""#, "idle = 0ns: must be above zero"),
        ("probes = 3", "unknown field `probes`"),
        ("idle = 3", "expected idle to be a duration"),
        (r#"idle = "3""#, "expected idle to be a duration"),
        (r#"idle = "-3s""#, "expected idle to be a duration"),
        ("retries = 3.0", "expected retries to be a whole number"),
        (r#"user_timeout = "never""#, r#"or "off""#),
    ] {
        let error = toml::from_str::<SafetyNet>(file).unwrap_err().to_string();
        assert!(error.contains(complaint), "{file}: {error}");
    }
}

#[cfg(feature = "serde")]
#[test]
fn what_a_file_leaves_out_follows_the_heartbeat() {
    use heartbeat_tokio::safety_net::SafetyNetOverrides;

    // Nothing in it is as in the defaults.
    let base = SafetyNet::from(&Config::mobile())
        .with_retries(7)
        .and_then(|base| base.with_max_retransmit_timeout(secs(30)))
        .unwrap();
    let over = |file| {
        toml::from_str::<SafetyNetOverrides>(file)
            .unwrap()
            .over(base)
    };
    assert_eq!(over(""), base);
    for (file, by_hand) in [
        ("idle = '9s'", base.with_idle(secs(9))),
        ("interval = '9s'", base.with_interval(secs(9))),
        ("retries = 99", base.with_retries(99)),
        ("user_timeout = '9s'", base.with_user_timeout(secs(9))),
        (
            "max_retransmit_timeout = '9s'",
            base.with_max_retransmit_timeout(secs(9)),
        ),
        (
            "max_retransmit_timeout = 'off'",
            base.with_max_retransmit_timeout(None),
        ),
        ("peek_interval = '9s'", base.with_peek_interval(secs(9))),
    ] {
        let by_hand = by_hand.unwrap();
        assert_ne!(by_hand, base);
        assert_eq!(over(file), by_hand, "{file}");
    }

    // What is off already can be switched off, and on.
    let on = base.with_user_timeout(secs(9)).unwrap();
    let off: SafetyNetOverrides = toml::from_str("user_timeout = 'off'").unwrap();
    assert_eq!(off.over(on), base);
}

// ===== apply =====

/// What a system doesn't have is no failure: else each connection would be one there.
#[tokio::test]
async fn the_derived_net_is_complete_on_every_system() {
    let (ours, peer) = pair().await;
    let peer = peer.into_std().unwrap();
    let longest = SafetyNet::new(secs(32_767), secs(32_767), 127).unwrap();
    for net in [SafetyNet::from(&Config::default()), longest] {
        for applied in [net.apply(&ours), net.apply(&peer)] {
            assert!(applied.is_complete(), "{applied}");
            assert_eq!(applied.keepalive, Outcome::Set);
            assert!(!matches!(applied.retries, Outcome::NotAsked));
        }
    }
    assert!(SockRef::from(&ours).keepalive().unwrap());
}

/// One option has both times there, and the retries need it.
#[cfg(windows)]
#[tokio::test]
async fn windows_has_the_times_of_keepalive_and_perhaps_the_retries() {
    let (ours, _peer) = pair().await;
    let net = SafetyNet::from(&Config::default());
    let applied = net.with_user_timeout(secs(20)).unwrap().apply(&ours);
    assert_eq!([applied.idle, applied.interval], [Outcome::Set; 2]);
    // Not before Windows 10, version 1703.
    let retries = [Outcome::Set, Outcome::NotSupported];
    assert!(retries.contains(&applied.retries), "{applied}");
    let lacking = [applied.user_timeout, applied.max_unsent];
    assert_eq!(lacking, [Outcome::NotSupported; 2]);
    assert!(applied.is_complete(), "{applied}");
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[tokio::test]
async fn the_socket_has_what_was_derived() {
    let (ours, peer) = pair().await;
    let net = SafetyNet::from(&Config::detect_within(ms(22_700)).unwrap());
    let applied = net.apply(&ours);
    assert!(applied.is_complete(), "{applied}");
    assert_eq!(applied.to_string(), "all is set");
    assert_eq!(applied.user_timeout, Outcome::NotAsked);
    assert_eq!(applied.max_retransmit_timeout, Outcome::NotAsked);

    let socket = SockRef::from(&ours);
    assert!(socket.keepalive().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap(), net.idle());
    assert_eq!(socket.tcp_keepalive_interval().unwrap(), net.interval());
    assert_eq!(socket.tcp_keepalive_retries().unwrap(), net.retries());
    assert_eq!(socket.tcp_user_timeout().unwrap(), None);

    // To the last value that is accepted; and the standard library's streams.
    let net = SafetyNet::new(secs(32_767), secs(32_767), 127).unwrap();
    let peer = peer.into_std().unwrap();
    assert!(net.apply(&peer).is_complete());
    let socket = SockRef::from(&peer);
    assert_eq!(socket.tcp_keepalive_time().unwrap(), secs(32_767));
    assert_eq!(socket.tcp_keepalive_interval().unwrap(), secs(32_767));
    assert_eq!(socket.tcp_keepalive_retries().unwrap(), 127);
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[tokio::test]
async fn the_user_timeout_is_set_only_when_asked_for() {
    let (ours, _peer) = pair().await;
    let socket = SockRef::from(&ours);
    let most = ms(2_147_483_647);
    for timeout in [ms(1), ms(12_345), most] {
        let net = SafetyNet::from(&Config::default())
            .with_user_timeout(timeout)
            .unwrap();
        assert_eq!(net.apply(&ours).user_timeout, Outcome::Set);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(timeout));
    }

    // An option that other code has set stays.
    let applied = SafetyNet::from(&Config::default()).apply(&ours);
    assert_eq!(applied.user_timeout, Outcome::NotAsked);
    assert_eq!(socket.tcp_user_timeout().unwrap(), Some(most));
}

#[cfg(unix)]
#[tokio::test]
async fn an_option_that_fails_is_reported_and_doesnt_prevent_the_rest() {
    let (ours, _peer) = tokio::net::UnixStream::pair().unwrap();
    let net = SafetyNet::from(&Config::default())
        .with_user_timeout(secs(20))
        .unwrap();
    let applied = net.apply(&ours);
    assert_eq!(applied.keepalive, Outcome::Set);
    assert!(SockRef::from(&ours).keepalive().unwrap());
    assert!(matches!(applied.idle, Outcome::Failed(errno) if errno != 0));
    assert!(!applied.is_complete());
    let missing: Vec<_> = applied.missing().map(|(name, _)| name).collect();
    let options = ["idle", "interval", "retries", "user_timeout"];
    assert_eq!(missing[..4], options);
    assert_eq!(missing[4..], ["max_unsent"]);

    let text = applied.to_string();
    assert!(text.starts_with("idle: "), "{text}");
    assert!(text.contains("; interval: "), "{text}");
    assert!(text.contains("(os error "), "{text}");
}

#[cfg(unix)]
#[test]
fn nothing_is_set_on_what_is_no_socket() {
    let file = std::fs::File::open("/dev/null").unwrap();
    let applied = SafetyNet::from(&Config::default()).apply(&file);
    assert!(matches!(applied.keepalive, Outcome::Failed(_)));
    assert_eq!(applied.missing().count(), 5, "{applied}");
}

// ===== diagnosis =====

/// What the kernel notes of a connection whose pings all were acknowledged,
/// the last one half a second ago; changed by `change`.
fn notes(change: impl FnOnce(&mut TcpInfo)) -> TcpInfo {
    let mut info = TcpInfo::default();
    info.last_data_sent = ms(500);
    info.last_ack_received = ms(499);
    info.last_data_received = secs(4);
    info.data_segments_sent = Some(1000);
    info.bytes_acknowledged = Some(100_000);
    info.out_of_order = Some(0);
    info.unsent = Some(0);
    info.send_window = Some(65_536);
    info.segment_size = 1448;
    change(&mut info);
    info
}

fn noted(change: impl FnOnce(&mut TcpInfo)) -> Diagnosis {
    notes(change).diagnose(secs(4))
}

#[test]
fn what_was_asked_and_acknowledged_is_a_hung_application() {
    assert_eq!(noted(|_| {}), Diagnosis::AppHung);
    // Older kernels tell less, and what they don't tell proves nothing.
    assert_eq!(noted(|info| info.send_window = None), Diagnosis::AppHung);
    assert_eq!(noted(|info| info.unsent = None), Diagnosis::Unknown);
    assert_eq!(noted(|info| info.out_of_order = None), Diagnosis::Unknown);
    // Of several pings it is unknown which are acknowledged.
    assert_eq!(noted(|info| info.unacknowledged = 1), Diagnosis::Unknown);
}

#[test]
fn where_packets_get_lost_the_answer_may_be_among_them() {
    assert_eq!(noted(|info| info.total_repeated = 1), Diagnosis::Unknown);
    assert_eq!(
        noted(|info| info.out_of_order = Some(1)),
        Diagnosis::Unknown
    );

    // What was lost before the first late beat doesn't matter if it is little.
    let before = |lost| {
        notes(|info| {
            info.total_repeated = lost;
            info.out_of_order = Some(lost);
            info.bytes_acknowledged = Some(99_974);
        })
    };
    let since = |suspected: &TcpInfo, change: fn(&mut TcpInfo)| {
        let info = notes(|info| {
            info.total_repeated = suspected.total_repeated;
            info.out_of_order = suspected.out_of_order;
            change(info);
        });
        info.diagnose_since(Some(suspected), secs(4))
    };
    let healthy = before(10);
    assert_eq!(since(&healthy, |_| {}), Diagnosis::AppHung);
    for disturbed in [
        |info: &mut TcpInfo| info.total_repeated += 1,
        |info: &mut TcpInfo| info.out_of_order = Some(11),
        // No ping was acknowledged since.
        |info: &mut TcpInfo| info.bytes_acknowledged = Some(99_974),
    ] {
        assert_eq!(since(&healthy, disturbed), Diagnosis::Unknown);
    }
    let lossy = before(11);
    assert_eq!(since(&lossy, |_| {}), Diagnosis::Unknown);
    // Losses of one direction are enough.
    for loses in [
        |info: &mut TcpInfo| info.total_repeated = 11,
        |info: &mut TcpInfo| info.out_of_order = Some(11),
    ] {
        let mut lossy = healthy;
        loses(&mut lossy);
        assert_eq!(since(&lossy, |_| {}), Diagnosis::Unknown);
    }
}

/// On Linux they are the kernel's own, of a peer that was asked and says nothing.
#[tokio::test]
async fn what_the_kernel_notes_explains_a_silence_and_no_other_end() {
    let (mut ours, _peer) = pair().await;
    ours.write_all(b"ping").await.unwrap();
    if cfg!(any(target_os = "linux", target_os = "android")) {
        while TcpInfo::of(&ours).unwrap().has_unacknowledged() {
            sleep(ms(1)).await;
        }
    }
    let found = |cause: Cause, missed| {
        let mut death = Death::new(cause);
        (death.silent_for, death.missed) = (secs(60), missed);
        diagnose(&death, &ours)
    };
    let hung = match cfg!(any(target_os = "linux", target_os = "android")) {
        true => Diagnosis::AppHung,
        false => Diagnosis::Unknown,
    };
    for silence in [Cause::Silent, Cause::WriteStalled] {
        assert_eq!(found(silence, 2), hung);
        // A single answer may have been lost.
        assert_eq!(found(silence, 1), Diagnosis::Unknown);
    }
    for explained in [Cause::Eof, Cause::Reset, Cause::TimedOut] {
        assert_eq!(found(explained, 2), Diagnosis::Unknown);
    }
}

/// It looks as if the peer had no room: something waits, and nothing is in
/// flight.
#[test]
fn what_never_left_this_host_says_nothing_of_the_peer() {
    let fenced_in = |info: &mut TcpInfo| {
        info.unsent = Some(39);
        info.probes = 3;
        info.backoff = 3;
        info.last_ack_received = secs(4);
    };
    assert_eq!(noted(fenced_in), Diagnosis::Unknown);
    // What the peer repeats still arrives.
    assert_eq!(
        noted(|info| {
            fenced_in(info);
            info.last_ack_received = ms(100);
        }),
        Diagnosis::Unknown
    );
    // It was in flight already, and can't be repeated.
    assert_eq!(
        noted(|info| {
            fenced_in(info);
            info.unacknowledged = 1;
            info.retransmits = 7;
        }),
        Diagnosis::Unknown
    );
}

#[test]
fn what_was_repeated_in_vain_is_a_dead_path() {
    let lost = |info: &mut TcpInfo| {
        info.unacknowledged = 1;
        info.repeated = 1;
        info.retransmits = 2;
        info.total_repeated = 3;
        info.backoff = 2;
        info.last_ack_received = secs(4);
    };
    assert_eq!(noted(lost), Diagnosis::PathDead);
    // An acknowledgement is newer: by a path that is cut in one direction, or
    // that loses packets. After this many repetitions it is the former.
    let one_way = |info: &mut TcpInfo| {
        lost(info);
        info.last_ack_received = ms(10);
    };
    assert_eq!(noted(one_way), Diagnosis::Unknown);
    assert_eq!(
        noted(|info| {
            one_way(info);
            info.retransmits = 6;
        }),
        Diagnosis::PathDead
    );
    // So it is if that acknowledged nothing of what was sent in the silence: these are the
    // peer's own repetitions.
    let since = |suspected: TcpInfo| notes(one_way).diagnose_since(Some(&suspected), secs(4));
    let unmoved = notes(|info| info.unacknowledged = 1);
    assert_eq!(since(unmoved), Diagnosis::PathDead);
    let mut moved = unmoved;
    moved.bytes_acknowledged = Some(99_974);
    assert_eq!(since(moved), Diagnosis::Unknown);
    let idle = notes(|_| {});
    assert_eq!(since(idle), Diagnosis::Unknown, "there was nothing to move");
    // The same where packets were lost before.
    let lossy = |info: &mut TcpInfo| {
        lost(info);
        info.total_repeated = 14;
    };
    assert_eq!(noted(lossy), Diagnosis::Unknown);
    assert_eq!(
        noted(|info| {
            lossy(info);
            info.retransmits = 6;
            info.total_repeated += 4; // as many were lost before
        }),
        Diagnosis::PathDead
    );
    // Before there was time to repeat it, the cause is unknown.
    assert_eq!(
        noted(|info| {
            info.unacknowledged = 1;
            info.last_ack_received = secs(4);
        }),
        Diagnosis::Unknown
    );
    // Unanswered probes of keepalive. A single one may be on its way.
    assert_eq!(noted(|info| info.probes = 2), Diagnosis::PathDead);
    assert_eq!(noted(|info| info.probes = 1), Diagnosis::AppHung);
}

#[test]
fn a_closed_window_is_a_peer_that_doesnt_read_until_probes_go_unanswered() {
    let full = |info: &mut TcpInfo| {
        info.unsent = Some(1 << 20);
        info.send_window = Some(0);
        info.backoff = 3; // probes that are answered count too
        info.last_ack_received = secs(2);
    };
    assert_eq!(noted(full), Diagnosis::PeerNotReading);
    // Less than we send at once is no room either.
    assert_eq!(
        noted(|info| {
            full(info);
            info.send_window = Some(1447);
        }),
        Diagnosis::PeerNotReading
    );
    // As much is, and where nothing waits none is needed.
    assert!(
        !notes(|info| {
            full(info);
            info.send_window = Some(1448);
        })
        .is_window_closed()
    );
    assert!(
        !notes(|info| {
            full(info);
            info.unsent = Some(0);
        })
        .is_window_closed()
    );
    // A kernel that doesn't tell proves nothing.
    let older = |info: &mut TcpInfo| {
        full(info);
        info.send_window = None;
    };
    assert_eq!(noted(older), Diagnosis::Unknown);
    // The next probe is on its way.
    let probing = |info: &mut TcpInfo| {
        full(info);
        info.probes = 1;
    };
    assert_eq!(noted(probing), Diagnosis::PeerNotReading);
    // None was due yet: that it had no room was before the silence.
    let waiting = |info: &mut TcpInfo| {
        full(info);
        info.last_ack_received = secs(4);
    };
    assert_eq!(noted(waiting), Diagnosis::Unknown);
    let unanswered = |info: &mut TcpInfo| {
        waiting(info);
        info.probes = 2;
    };
    assert_eq!(noted(unanswered), Diagnosis::PathDead);
}

#[test]
fn where_nothing_was_asked_nothing_is_known() {
    assert_eq!(
        noted(|info| {
            info.last_data_sent = secs(5);
            info.last_ack_received = secs(4);
        }),
        Diagnosis::Unknown
    );
    // What was sent last is what ended the silence before.
    assert_eq!(
        noted(|info| info.last_data_sent = secs(4)),
        Diagnosis::Unknown
    );
}

/// An acknowledgement may follow the last data of a path that is cut right then.
#[test]
fn an_acknowledgement_counts_a_quarter_into_the_silence() {
    let acknowledged = |ago| noted(|info| info.last_ack_received = ago);
    assert_eq!(acknowledged(ms(2999)), Diagnosis::AppHung);
    assert_eq!(acknowledged(secs(3)), Diagnosis::Unknown);
}

// ===== end_of =====

#[test]
fn errors_mean_these_ends() {
    let cases = [
        (ErrorKind::ConnectionReset, End::Reset),
        (ErrorKind::ConnectionAborted, End::Reset),
        (ErrorKind::BrokenPipe, End::Eof),
        (ErrorKind::NotConnected, End::Reset),
        (ErrorKind::TimedOut, End::TimedOut),
        (ErrorKind::HostUnreachable, End::Unreachable),
        (ErrorKind::NetworkUnreachable, End::Unreachable),
        (ErrorKind::NetworkDown, End::Unreachable),
        (ErrorKind::UnexpectedEof, End::Eof),
        (
            ErrorKind::InvalidData,
            End::Protocol(ProtocolError::Undecodable),
        ),
        (ErrorKind::WriteZero, End::Io),
        (ErrorKind::PermissionDenied, End::Io),
    ];
    for (kind, end) in cases {
        assert_eq!(end_of(&kind.into()), end, "{kind:?}");
        assert_eq!(end_of(&io::Error::new(kind, "in a wrapper")), end);
    }
}

/// The kernel's own codes, and not only the kinds that they are mapped to.
#[cfg(target_os = "linux")]
#[test]
fn linux_error_codes_mean_these_ends() {
    let cases = [
        (104, End::Reset),       // ECONNRESET
        (103, End::Reset),       // ECONNABORTED
        (32, End::Eof),          // EPIPE
        (107, End::Reset),       // ENOTCONN
        (110, End::TimedOut),    // ETIMEDOUT
        (113, End::Unreachable), // EHOSTUNREACH
        (101, End::Unreachable), // ENETUNREACH
        (100, End::Unreachable), // ENETDOWN
        (112, End::Unreachable), // EHOSTDOWN
        (102, End::TimedOut),    // ENETRESET
        (5, End::Io),            // EIO
    ];
    for (errno, end) in cases {
        assert_eq!(end_of(&io::Error::from_raw_os_error(errno)), end, "{errno}");
        assert_eq!(Liveness::Reset(Some(errno)).end(), Some(end));
    }
}

#[cfg(windows)]
#[test]
fn windows_error_codes_mean_these_ends() {
    let cases = [
        (10_054, End::Reset),       // WSAECONNRESET
        (10_053, End::Reset),       // WSAECONNABORTED
        (10_057, End::Reset),       // WSAENOTCONN
        (10_058, End::Reset),       // WSAESHUTDOWN
        (10_060, End::TimedOut),    // WSAETIMEDOUT
        (10_052, End::TimedOut),    // WSAENETRESET
        (10_065, End::Unreachable), // WSAEHOSTUNREACH
        (10_064, End::Unreachable), // WSAEHOSTDOWN
        (10_051, End::Unreachable), // WSAENETUNREACH
        (10_050, End::Unreachable), // WSAENETDOWN
        (10_014, End::Io),          // WSAEFAULT
    ];
    for (code, end) in cases {
        assert_eq!(end_of(&io::Error::from_raw_os_error(code)), end, "{code}");
    }
}

/// A real one: the second write after the peer has gone.
#[tokio::test]
async fn a_broken_pipe_is_the_end_that_a_reader_would_have_met() {
    let (mut ours, peer) = pair().await;
    drop(peer);
    let writing = async {
        loop {
            if let Err(error) = ours.write_all(b"anybody there?").await {
                return error;
            }
            sleep(ms(1)).await;
        }
    };
    let error = timeout(SOON, writing).await.unwrap();
    // The first write may meet the reset itself.
    let expected = match error.kind() {
        ErrorKind::BrokenPipe => End::Eof,
        _ => End::Reset,
    };
    assert_eq!(end_of(&error), expected, "{error}");
    assert_eq!(ours.read(&mut [0; 1]).await.unwrap(), 0);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_waits_unsent_is_limited_or_left_alone() {
    let (ours, _peer) = pair().await;
    let socket = SockRef::from(&ours);
    let before = socket.tcp_notsent_lowat().unwrap();
    let net = SafetyNet::from(&Config::default());
    let unlimited = net.with_max_unsent(None).unwrap();
    assert_eq!(unlimited.apply(&ours).max_unsent, Outcome::NotAsked);
    assert_eq!(socket.tcp_notsent_lowat().unwrap(), before);
    assert_eq!(net.apply(&ours).max_unsent, Outcome::Set);
    assert_eq!(socket.tcp_notsent_lowat().unwrap(), 128 * 1024);

    for wrong in [0, u32::MAX] {
        let error = net.with_max_unsent(wrong).unwrap_err();
        let words = format!("max_unsent = {wrong}: must be from 1 to 2147483647 bytes");
        assert_eq!(error.to_string(), words);
    }
    for off in [r#"max_unsent = "off""#, "max_unsent = 7"] {
        let net: SafetyNet = toml::from_str(off).unwrap();
        let written = toml::to_string(&net).unwrap();
        assert!(written.contains(off), "{written}");
    }
    for wrong in [
        "max_unsent = 0",
        "max_unsent = -1",
        r#"max_unsent = "many""#,
        "max_unsent = 1.5",
    ] {
        toml::from_str::<SafetyNet>(wrong).unwrap_err();
    }
}
