//! What monitoring and logs show of a connection is what its application was
//! told, and nothing is left of it afterwards, whichever way it goes.

// A socket that refuses every option is easy to have there only.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

mod documented;
mod ends;
mod promql;
mod seen;

use futures::{FutureExt, SinkExt, StreamExt, future::join_all};
use heartbeat_core::Control;
use heartbeat_tests::{for_each, ms, quick, secs, wrapped};
use heartbeat_tokio::{Heartbeat, NetStatus, PeerEvent};
use proptest::{collection::vec, sample::select};
use tokio::time::{advance, sleep, timeout};
use tracing::{Instrument, Level, info_span};

use ends::{ENDS, End};
use seen::{Metrics, Seen, logged, watched, watched_in_real_time};

// ---- ends ---------------------------------------------------------------

#[test]
fn every_end_counts_once_and_leaves_no_gauge_behind() {
    for end in ENDS {
        let Seen { metrics, .. } = watched(|_| (end.run)());
        let name = end.name;
        assert_eq!(metrics.get("heartbeat_opened_total"), 1.0, "{name}");
        assert_eq!(metrics.get(end.counted), 1.0, "{name}: {metrics:#?}");
        assert_eq!(metrics.ends(), 1.0, "{name}: {metrics:#?}");
        all_gone(name, &metrics);
    }
}

#[test]
fn every_end_is_the_last_line_of_its_span_and_the_only_one_of_its_kind() {
    for end in ENDS {
        let Seen { log, .. } = watched(|_| (end.run)());
        let name = end.name;
        assert_eq!(log.spans.len(), 1, "{name}");
        assert!(log.spans[0].closed && !log.spans[0].entered, "{name}");
        let (message, field) = logged_as(end);
        let ends = ["closed", "dead", "dropped"].map(|end| log.of(end).len());
        assert_eq!(ends.iter().sum::<usize>(), 1, "{name}: {log:#?}");
        let last = log.events.last().unwrap();
        assert_eq!(last.message, message, "{name}");
        if let Some((key, value)) = field {
            assert_eq!(last.fields[key], value, "{name}");
        }
        if message == "dead" {
            assert!(last.fields.contains_key("silent_for"), "{name}: {last:?}");
            assert_eq!(last.level, Level::INFO);
        }
        let in_span = |line: &seen::Line| line.span == Some(0);
        assert!(log.events.iter().all(in_span), "{name}: {log:#?}");
    }
}

/// Any of them at once, in one runtime. While they come and go, those that are
/// open are those that were opened and haven't ended.
#[test]
fn however_many_go_however_the_sums_are_right() {
    for_each(64, vec(select(ENDS), 1..40), |ends| {
        let Seen { metrics, log, .. } = watched(async |scraper| {
            let watch = async {
                loop {
                    let now = scraper.scrape();
                    let open = now.get("heartbeat_opened_total") - now.ends();
                    assert_eq!(now.sum("heartbeat_connections"), open, "{now:#?}");
                    sleep(ms(37)).await;
                }
            };
            let all = join_all(ends.iter().map(|end| (end.run)()));
            tokio::select! { _ = all => {}, () = watch => {} }
        });
        let made = ends.len() as f64;
        assert_eq!(metrics.get("heartbeat_opened_total"), made);
        assert_eq!(metrics.ends(), made);
        for end in &ends {
            let alike = ends.iter().filter(|other| other.counted == end.counted);
            assert_eq!(metrics.get(end.counted), alike.count() as f64);
        }
        all_gone("together", &metrics);
        assert!(log.spans.iter().all(|span| span.closed));
    });
}

/// How the log says what is counted there.
fn logged_as(end: &End) -> (&'static str, Option<(&'static str, &'static str)>) {
    let (metric, labels) = end.counted.split_once('{').unwrap_or((end.counted, ""));
    let message = match metric {
        "heartbeat_closed_total" => "closed",
        "heartbeat_deaths_total" => "dead",
        _ => "dropped",
    };
    let field = labels.split_once("=\"").map(|(label, rest)| {
        let (value, _) = rest.split_once('"').unwrap();
        (label, value)
    });
    (message, field)
}

fn all_gone(name: &str, metrics: &Metrics) {
    for state in ["alive", "suspect", "paused", "closing", "other"] {
        assert_eq!(metrics.connections(state), 0.0, "{name}: {state}");
    }
}

// ---- transitions --------------------------------------------------------

/// A peer that answers, is late, comes back, and dies.
#[test]
fn what_is_counted_and_logged_is_what_was_told() {
    for beat_events in [true, false] {
        let config = quick().to_builder().beat_events(beat_events).build();
        let Seen {
            value: (told, pings),
            metrics,
            log,
        } = watched(async |_| {
            let (mut heartbeat, mut peer) = wrapped(config.unwrap());
            let peer = tokio::spawn(async move {
                peer.greet(quick()).await;
                peer.answer_for(secs(2)).await;
                let mut pings = 0;
                // Late twice.
                while pings < 2 {
                    let control = peer.read_control().await;
                    pings += u32::from(matches!(control, Some(Control::Ping(_))));
                }
                sleep(ms(50)).await;
                peer.send_data(b"here I am").await;
                peer.answer_for(secs(1)).await;
                sleep(secs(3)).await;
            });
            let mut told = Vec::new();
            while let Some(event) = heartbeat.next().await {
                told.push(event);
            }
            let pings = heartbeat.status().peer.pings;
            peer.abort();
            (told, pings)
        });
        let PeerEvent::Dead(death) = told.last().unwrap() else {
            panic!("{told:?}")
        };
        let number = |kind: fn(&PeerEvent<_>) -> bool| told.iter().filter(|e| kind(e)).count();
        let suspects = number(|event| matches!(event, PeerEvent::Suspect { .. }));
        let beats = log.of("beat").len();
        assert!(beats > 10);
        if beat_events {
            assert_eq!(
                number(|event| matches!(event, PeerEvent::Beat { .. })),
                beats
            );
        }
        assert_eq!(log.of("suspect").len(), suspects);
        for (series, expected) in [
            ("heartbeat_pings_sent_total", f64::from(pings)),
            ("heartbeat_beats_total", beats as f64),
            ("heartbeat_round_trip_seconds_count", beats as f64),
            ("heartbeat_suspicions_total", 2.0),
            ("heartbeat_recoveries_total", 1.0),
            ("heartbeat_recovered_silence_seconds_count", 1.0),
            // One before it came back, and those of the verdict.
            (
                "heartbeat_missed_beats_total",
                1.0 + f64::from(death.missed),
            ),
            (
                "heartbeat_deaths_total{cause=\"silent\",diagnosis=\"unknown\"}",
                1.0,
            ),
            ("heartbeat_detection_seconds_count{cause=\"silent\"}", 1.0),
            (
                "heartbeat_detection_seconds_sum{cause=\"silent\"}",
                death.silent_for.as_secs_f64(),
            ),
            ("heartbeat_local_stalls_total", 0.0),
        ] {
            assert_eq!(metrics.get(series), expected, "{series}: {metrics:#?}");
        }
        let [recovered] = *log.of("recovered") else {
            panic!("{log:?}")
        };
        let silence = told.iter().find_map(|event| match event {
            PeerEvent::Recovered { silent_for } => Some(silent_for),
            _ => None,
        });
        assert_eq!(
            recovered.fields["silent_for"],
            format!("{:?}", silence.unwrap())
        );
        let [dead] = *log.of("dead") else {
            panic!("{log:?}")
        };
        assert_eq!(dead.fields["silent_for"], format!("{:?}", death.silent_for));
        assert_eq!(dead.fields["missed"], "3");
        assert_eq!(dead.fields["diagnosis"], "unknown");
        assert_eq!(log.of("connected").len(), 1);
    }
}

#[test]
fn the_gauges_follow_the_state() {
    watched(async |scraper| {
        let state = |expected: &str| {
            let now = scraper.scrape();
            assert_eq!(now.sum("heartbeat_connections"), 1.0, "{now:#?}");
            assert_eq!(now.connections(expected), 1.0, "{expected}: {now:#?}");
        };
        let (mut heartbeat, mut peer) = wrapped(quick());
        peer.greet(quick()).await;
        state("alive");
        while heartbeat.next().await.is_some() {
            if heartbeat.status().peer.state == heartbeat_tokio::State::Suspect {
                break;
            }
        }
        state("suspect");
        peer.send_data(b"here I am").await;
        heartbeat.next().await;
        state("alive");

        let mut driver = heartbeat.spawn();
        peer.send_raw(&heartbeat_tests::data_frame(&[0; 1000]).repeat(600))
            .await;
        sleep(ms(10)).await;
        state("paused");
        while driver.receiver.next().now_or_never().is_some() {}
        sleep(ms(10)).await;
        state("alive");
        let now = scraper.scrape();
        assert!(now.get("heartbeat_pauses_total") >= 1.0);
        let log = logged();
        assert_eq!(log.of("paused").len(), log.of("resumed").len());
        assert_eq!(
            log.of("paused").len() as f64,
            now.get("heartbeat_pauses_total")
        );

        // More than the peer reads.
        driver.sender.send(vec![0; 2 << 20].into()).await.unwrap();
        let closing = driver.sender.close();
        let waited = timeout(ms(100), closing).await;
        assert!(waited.is_err());
        state("closing");
        drop(peer);
        driver.sender.closed().await.unwrap_err();
        assert_eq!(scraper.scrape().sum("heartbeat_connections"), 0.0);
    });
}

#[test]
fn a_stall_of_our_own_is_a_warning_and_counts() {
    let Seen { metrics, log, .. } = watched(async |_| {
        let (mut heartbeat, mut peer) = wrapped(quick());
        peer.greet(quick()).await;
        while heartbeat.next().now_or_never().is_some() {}
        advance(secs(5)).await;
        let event = heartbeat.next().await;
        assert!(
            matches!(event, Some(PeerEvent::LocalStall { .. })),
            "{event:?}"
        );
    });
    let [stall] = *log.of("local stall") else {
        panic!("{log:?}")
    };
    assert_eq!((stall.level, &*stall.fields["late"]), (Level::WARN, "4.8s"));
    assert_eq!(metrics.get("heartbeat_local_stalls_total"), 1.0);
    assert_eq!(metrics.get("heartbeat_local_stall_seconds_sum"), 4.8);
}

#[test]
fn pongs_count_when_they_are_sent() {
    let Seen { metrics, .. } = watched(async |_| {
        let (mut heartbeat, mut peer) = wrapped(quick());
        peer.greet(quick()).await;
        for n in 0..3 {
            let ping = Control::Ping(heartbeat_core::Nonce([n; 8]));
            peer.send_control(ping).await;
            let _ = timeout(ms(50), heartbeat.next()).await;
        }
    });
    assert_eq!(metrics.get("heartbeat_pongs_sent_total"), 3.0);
}

/// Messages aren't observed, and cost nothing.
#[test]
fn of_messages_nothing_is_told() {
    watched(async |scraper| {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let config = heartbeat_tokio::Config::default();
        let (mut a, mut b) = (Heartbeat::new(ours, config), Heartbeat::new(theirs, config));
        a.send("the first".into()).await.unwrap();
        b.send("the first".into()).await.unwrap();
        while a.next().now_or_never().is_some() || b.next().now_or_never().is_some() {}
        let before = (scraper.scrape(), logged());
        let mut received = 0;
        for _ in 0..1000 {
            a.send("another".into()).await.unwrap();
            received += u32::from(matches!(b.next().await, Some(PeerEvent::Message(_))));
        }
        assert_eq!(received, 1000);
        assert!((scraper.scrape(), logged()) == before);
    });
}

/// What was added to no recorder is taken from none.
#[test]
fn a_recorder_that_comes_late_never_counts_below_zero() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let early = runtime.block_on(async { wrapped(quick()) });
    let Seen { metrics, .. } = watched(async |scraper| {
        let (mut heartbeat, mut peer) = early;
        peer.greet(quick()).await;
        peer.send_raw(&heartbeat_tests::data_frame(&[0; 1000]).repeat(600))
            .await;
        drop(heartbeat.next().await);
        assert_eq!(scraper.scrape().sum("heartbeat_connections"), 0.0);
        let mut driver = heartbeat.spawn();
        sleep(ms(10)).await;
        // From its next state on it counts.
        assert_eq!(scraper.scrape().connections("paused"), 1.0);
        while driver.receiver.next().now_or_never().is_some() {}
    });
    all_gone("late", &metrics);
    assert_eq!(metrics.get("heartbeat_opened_total"), 0.0);
}

// ---- spans --------------------------------------------------------------

/// The span is made within the application's, and isn't entered between two polls.
#[test]
fn the_span_lies_within_the_one_that_the_connection_was_made_in() {
    let Seen { log, .. } = watched(async |_| {
        let made = async { wrapped(quick()) };
        let (mut heartbeat, _peer) = made.instrument(info_span!("session", user = 7)).await;
        while heartbeat.next().await.is_some() {
            assert!(tracing::Span::current().is_none());
        }
    });
    let span = &log.spans[1];
    assert_eq!((span.name, span.within), ("heartbeat", Some("session")));
    assert!(log.events.iter().all(|line| line.span == Some(1)));
}

// ---- sockets ------------------------------------------------------------

/// Its verdict has the peer's address and the diagnosis, in the words of the
/// event.
#[test]
fn over_tcp_the_log_names_the_peer_and_both_name_the_diagnosis() {
    let Seen {
        value: (address, death),
        metrics,
        log,
    } = watched_in_real_time(async |_| {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ours = tokio::net::TcpStream::connect(address).await.unwrap();
        let _silent = listener.accept().await.unwrap();
        let mut heartbeat = Heartbeat::new(ours, quick());
        loop {
            if let PeerEvent::Dead(death) = heartbeat.next().await.unwrap() {
                break (address, death);
            }
        }
    });
    assert_eq!(log.spans[0].fields["peer"], address.to_string());
    let diagnosis = snake_case(&format!("{:?}", death.diagnosis));
    assert_eq!(log.of("dead")[0].fields["diagnosis"], diagnosis);
    let series = format!("heartbeat_deaths_total{{cause=\"silent\",diagnosis=\"{diagnosis}\"}}");
    assert_eq!(metrics.get(&series), 1.0, "{metrics:#?}");
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

/// A failure to set an option never prevents the heartbeat: it is in the status
/// and in the log.
#[test]
fn options_that_cannot_be_set_are_in_the_log_and_the_heartbeat_beats() {
    let Seen { metrics, log, .. } = watched_in_real_time(async |_| {
        let (ours, theirs) = no_tcp();
        let mut heartbeat = Heartbeat::new(ours, quick());
        let mut other = Heartbeat::new(theirs, quick());
        tokio::spawn(async move { while other.next().await.is_some() {} });
        heartbeat.probe();
        let beat =
            async { while !matches!(heartbeat.next().await, Some(PeerEvent::Beat { .. })) {} };
        timeout(secs(20), beat).await.expect("it beats");
        let NetStatus::Applied(applied) = heartbeat.status().safety_net else {
            panic!("{:?}", heartbeat.status())
        };
        assert!(!applied.is_complete());
        let log = logged();
        // The other end has a span of its own.
        let ours = |line: &&&seen::Line| line.span == Some(0);
        let lines = log.of("safety net incomplete");
        let line = lines.iter().find(ours).unwrap();
        assert_eq!(line.level, Level::WARN);
        assert_eq!(line.fields["missing"], applied.to_string());
        heartbeat.close().await.unwrap();
    });
    let failed = "heartbeat_unset_options_total{option=\"idle\"}";
    assert_eq!(metrics.get(failed), 2.0, "{metrics:#?}");
    assert_eq!(log.of("safety net incomplete").len(), 2, "{log:#?}");
}

/// A `TcpStream` that is none, so that no option of TCP can be set.
fn no_tcp() -> (tokio::net::TcpStream, tokio::net::TcpStream) {
    use std::os::{fd::OwnedFd, unix::net::UnixStream};

    let (ours, theirs) = UnixStream::pair().unwrap();
    let disguised = |stream: UnixStream| {
        stream.set_nonblocking(true).unwrap();
        let stream = std::net::TcpStream::from(OwnedFd::from(stream));
        tokio::net::TcpStream::from_std(stream).unwrap()
    };
    (disguised(ours), disguised(theirs))
}
