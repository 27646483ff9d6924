//! The safety net on real sockets over loopback.

#![expect(clippy::unwrap_used, reason = "how a test fails")]

use std::{
    io::{self, ErrorKind},
    time::Duration,
};

use heartbeat_core::{Config, End};
use heartbeat_tokio::safety_net::{Outcome, SafetyNet, SafetyNetError, end_of};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};

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
                let by_hand = SafetyNet::new(net.idle(), net.interval(), net.retries());
                assert_eq!(by_hand, Ok(net), "a kernel takes it");
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

#[test]
fn the_presets_give_these_settings() {
    let derived = |config: Config| {
        let net = SafetyNet::from(&config);
        assert_eq!(net.user_timeout(), None);
        let (idle, interval) = (net.idle().as_secs(), net.interval().as_secs());
        (idle, interval, net.retries())
    };
    assert_eq!(derived(Config::wan()), (8, 3, 3)); // 17 s after 14
    assert_eq!(derived(Config::lan()), (2, 1, 3)); // 5 s after 2.5
    assert_eq!(derived(Config::mobile()), (40, 10, 3)); // 70 s after 60
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

// ===== apply =====

#[cfg(any(target_os = "linux", target_os = "android"))]
#[tokio::test]
async fn the_socket_has_what_was_derived() {
    let (ours, peer) = pair().await;
    let net = SafetyNet::from(&Config::detect_within(ms(22_700)).unwrap());
    let applied = net.apply(&ours);
    assert!(applied.is_complete(), "{applied}");
    assert_eq!(applied.to_string(), "all is set");
    assert_eq!(applied.user_timeout, Outcome::NotAsked);

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

    // What somebody else has set stays.
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
    assert_eq!(missing, ["idle", "interval", "retries", "user_timeout"]);

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
    assert_eq!(applied.missing().count(), 4, "{applied}");
}

// ===== end_of =====

#[test]
fn errors_mean_these_ends() {
    let cases = [
        (ErrorKind::ConnectionReset, End::Reset),
        (ErrorKind::ConnectionAborted, End::Reset),
        (ErrorKind::BrokenPipe, End::Reset),
        (ErrorKind::NotConnected, End::Reset),
        (ErrorKind::TimedOut, End::TimedOut),
        (ErrorKind::HostUnreachable, End::Unreachable),
        (ErrorKind::NetworkUnreachable, End::Unreachable),
        (ErrorKind::NetworkDown, End::Unreachable),
        (ErrorKind::UnexpectedEof, End::Eof),
        (ErrorKind::InvalidData, End::Io),
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
        (32, End::Reset),        // EPIPE
        (107, End::Reset),       // ENOTCONN
        (110, End::TimedOut),    // ETIMEDOUT
        (113, End::Unreachable), // EHOSTUNREACH
        (101, End::Unreachable), // ENETUNREACH
        (100, End::Unreachable), // ENETDOWN
        (5, End::Io),            // EIO
    ];
    for (errno, end) in cases {
        assert_eq!(end_of(&io::Error::from_raw_os_error(errno)), end, "{errno}");
    }
}
