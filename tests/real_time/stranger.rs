//! A peer that was written from `docs/protocol.md` alone, in another language:
//! `support/stranger.py`. What the page says is enough to live with us, and
//! each side notices in time what becomes of the other.
//!
//! Real processes, real TCP, real time. What is measured may be late by
//! `SLACK`; what must not happen is far from the times that it could happen at.
#![cfg(unix)]

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use heartbeat_tests::{ms, needs, patient, process::PeerProcess, quick, secs};
use heartbeat_tokio::{
    Cause, CloseReason, Config, Detail, Evidence, GoodbyeCode, Heartbeat, PeerEvent,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{TcpListener, TcpStream},
    process::{ChildStdin, ChildStdout},
    time::{sleep, timeout},
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/support/stranger.py");
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md");

/// How late a process may be on a machine under load.
const SLACK: Duration = ms(1500);

/// The stranger's times in seconds: those of `quick()`.
const QUICK: [&str; 4] = ["--interval=0.2", "--timeout=0.2", "--missed=3", "--min=0.1"];

// ---- what it understands -------------------------------------------------

#[test]
fn it_understands_every_vector_of_the_page() {
    if !needs("python3") {
        return;
    }
    let output = Command::new("python3")
        .args([SCRIPT, "--self-test", PAGE])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
    let vectors = include_str!("../../docs/protocol.md")
        .split("```vectors")
        .skip(1)
        .map(|block| block.lines().skip(1).take_while(|line| *line != "```"))
        .map(Iterator::count);
    let counted: Vec<usize> = told
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(_, count)| count.parse().unwrap())
        .collect();
    assert_eq!(counted, vectors.collect::<Vec<_>>());
}

// ---- living together -----------------------------------------------------

#[tokio::test]
async fn it_greets_us_talks_with_us_and_beats() {
    let config = patient().to_builder().jitter(0.25).build().unwrap();
    let Some(mut meeting) = Meeting::start(config, &PATIENT).await else {
        return;
    };
    meeting.until_connected().await;
    let PeerEvent::Connected { peer } = meeting.events[0] else {
        panic!("{:?}", meeting.events);
    };
    assert_eq!(peer, config.hello(peer.instance));
    let announced = "connected interval=200000 detection=3200000 min=100000 missed=3 \
        frame=8388608 instance=";
    assert!(
        meeting.stranger.lines[0].starts_with(announced),
        "{:?}",
        meeting.stranger.lines
    );

    let large = Bytes::from(vec![0xa5; 65_536]);
    for message in [Bytes::from_static(b"hi"), Bytes::new(), large.clone()] {
        let line = format!("data {}", hex(&message));
        meeting.ours.send(message.clone()).await.unwrap();
        meeting.until_line(&line).await;

        meeting.stranger.say(&message).await;
        let event = PeerEvent::Message(message);
        meeting.until(|seen| seen.events.contains(&event)).await;
    }

    // Idle. Either side may ping first, so only the sum is certain.
    let before = meeting.beats();
    meeting.go_on_for(secs(4)).await;
    let beats = meeting.beats() - before;
    assert!(beats >= 8, "{beats} beats in 4 s");
    meeting.assert_undisturbed();
}

#[tokio::test]
async fn long_messages_travel_in_parts_both_ways() {
    let Some(mut meeting) = Meeting::start(patient(), &PATIENT).await else {
        return;
    };
    meeting.until_connected().await;
    for length in [65_537, 131_072, 1_000_000, 8 << 20] {
        let message = Bytes::from(vec![b'm'; length]);
        meeting.ours.send(message.clone()).await.unwrap();
        meeting.until_line(&format!("data {length}*")).await;
        meeting.stranger.tell(&format!("say-much {length}")).await;
        let event = PeerEvent::Message(message);
        meeting.until(|seen| seen.events.contains(&event)).await;
        meeting.events.clear();
    }
    meeting.assert_undisturbed();
}

#[tokio::test]
async fn a_side_that_is_pinged_piggybacks_a_ping() {
    // It wouldn't ask for long by itself.
    let Some(mut meeting) = Meeting::start(patient(), &ONLY_ASKED).await else {
        return;
    };
    meeting.until_connected().await;
    meeting.until_line("along").await;
    meeting.until_line("beat").await;

    // Nor would we.
    let seldom = patient().to_builder().interval(secs(100)).jitter(0.0);
    let seldom = seldom.min_interval(ms(100)).build().unwrap();
    let Some(mut meeting) = Meeting::start(seldom, &PATIENT).await else {
        return;
    };
    meeting.until_connected().await;
    let is_beat = |event: &PeerEvent<_>| matches!(event, PeerEvent::Beat { .. });
    meeting.until(|seen| seen.events.iter().any(is_beat)).await;
    meeting.assert_undisturbed();
}

#[tokio::test]
async fn while_it_does_not_read_it_shows_that_it_lives() {
    let Some(mut meeting) = Meeting::start(quick(), &QUICK).await else {
        return;
    };
    meeting.until_connected().await;
    meeting.stranger.tell("hold").await;
    meeting.go_on_for(3 * quick().detection_time()).await;
    meeting.assert_undisturbed();
    meeting.stranger.tell("read-on").await;
    meeting.ours.send("awake?".into()).await.unwrap();
    meeting
        .until_line(&format!("data {}", hex(b"awake?")))
        .await;
    meeting.assert_undisturbed();

    // That is no answer.
    let strict = quick().to_builder().evidence(Evidence::Echo).build();
    let Some(mut meeting) = Meeting::start(strict.unwrap(), &QUICK).await else {
        return;
    };
    meeting.until_connected().await;
    meeting.stranger.tell("hold").await;
    meeting.until_ended().await;
    assert_eq!(meeting.cause(), Cause::Silent);
}

#[tokio::test]
async fn it_slows_down_to_what_we_accept() {
    let accept = patient().to_builder().interval(secs(30)).jitter(0.0);
    let config = accept.min_interval(ms(500)).build().unwrap();
    let Some(mut meeting) = Meeting::start(config, &PATIENT).await else {
        return;
    };
    meeting.until_connected().await;
    meeting.go_on_for(secs(4)).await;
    let beats = meeting.stranger.count("beat");
    assert!((3..=9).contains(&beats), "{beats} beats in 4 s");
    meeting.assert_undisturbed();
}

#[tokio::test]
async fn we_slow_down_to_what_it_accepts() {
    let options = [&ONLY_ASKED[..], &["--min=0.5"]].concat();
    let Some(mut meeting) = Meeting::start(patient(), &options).await else {
        return;
    };
    meeting.until_connected().await;
    meeting.go_on_for(secs(4)).await;
    let asked = meeting.stranger.count("asked");
    assert!((3..=9).contains(&asked), "asked {asked} times in 4 s");
    let answered = meeting.events.iter();
    let answered = answered.filter(|event| matches!(event, PeerEvent::Beat { .. }));
    assert!(answered.count() >= 3);
    meeting.assert_undisturbed();
}

#[tokio::test]
async fn it_asks_again_when_it_was_asleep_itself() {
    // We ask nothing meanwhile, so that it finds nothing when it wakes up.
    let silent = quick().to_builder().interval(secs(30));
    let config = silent.min_interval(ms(100)).build().unwrap();
    let Some(mut meeting) = Meeting::start(config, &QUICK).await else {
        return;
    };
    meeting.until_connected().await;
    meeting.stranger.process.stop().unwrap();
    meeting.go_on_for(secs(2)).await;
    meeting.stranger.process.go_on().unwrap();

    meeting
        .until(|seen| seen.stranger.any_starts_with("stalled"))
        .await;
    meeting.stranger.say(b"awake").await;
    let awake = PeerEvent::Message("awake".into());
    meeting.until(|seen| seen.events.contains(&awake)).await;
    meeting.assert_undisturbed();
}

// ---- what becomes of it --------------------------------------------------

#[tokio::test]
async fn when_it_is_frozen_it_is_silent() {
    let Some(mut meeting) = Meeting::start(quick(), &QUICK).await else {
        return;
    };
    meeting.until_connected().await;
    let stopped = Instant::now();
    meeting.stranger.process.stop().unwrap();
    meeting.until_ended().await;
    let measured = stopped.elapsed();

    assert_eq!(meeting.cause(), Cause::Silent);
    assert!(measured >= ms(600), "{measured:?}: too early");
    assert!(measured <= ms(800) + SLACK, "{measured:?}: too late");

    // When it is thawed it is told.
    meeting.stranger.process.go_on().unwrap();
    let end = meeting.leave().await;
    assert!(end.starts_with("given-up 2 silent for "), "{end}");
}

#[tokio::test]
async fn when_it_is_killed_we_know_at_once() {
    // Nothing is written that could fail.
    let config = patient().to_builder().interval(secs(30)).build().unwrap();
    let Some(mut meeting) = Meeting::start(config, &PATIENT).await else {
        return;
    };
    meeting.until_connected().await;
    // With nothing unread it is an end of the stream and no reset.
    meeting.go_on_for(ms(100)).await;
    let killed = Instant::now();
    meeting.stranger.process.kill().unwrap();
    meeting.until_ended().await;
    let measured = killed.elapsed();

    let cause = meeting.cause();
    assert!(matches!(cause, Cause::Eof | Cause::Reset), "{cause}");
    assert!(measured <= SLACK, "{measured:?}: too late");
}

#[tokio::test]
async fn when_it_says_goodbye_it_is_no_death() {
    let Some(mut meeting) = Meeting::start(quick(), &QUICK).await else {
        return;
    };
    meeting.until_connected().await;
    // At once, so that both are queued.
    let last_word = hex(b"the last word");
    let commands = format!("say {last_word}\ngoodbye 64 enough for today");
    meeting.stranger.tell(&commands).await;
    meeting.until_ended().await;
    let reason = CloseReason::Peer {
        code: GoodbyeCode(64),
        detail: Detail::from("enough for today"),
    };
    let end = [
        PeerEvent::Message("the last word".into()),
        PeerEvent::Closed { reason },
    ];
    assert!(meeting.events.ends_with(&end), "{:?}", meeting.events);
    assert_eq!(meeting.leave().await, "left");
}

#[tokio::test]
async fn when_it_floods_us_we_end_it() {
    let Some(mut meeting) = Meeting::start(quick(), &["--rude=flood"]).await else {
        return;
    };
    let begun = Instant::now();
    meeting.until_ended().await;
    let measured = begun.elapsed();
    assert_eq!(meeting.cause(), Cause::PingFlood);
    assert!(measured <= secs(5), "{measured:?}: too late");
    meeting.assert_told("given-up 5").await;
}

#[tokio::test]
async fn when_its_timings_are_too_hasty_we_refuse_it() {
    let Some(mut meeting) = Meeting::start(quick(), &["--rude=hasty-hello"]).await else {
        return;
    };
    meeting.until_ended().await;
    assert_eq!(meeting.cause(), Cause::Refused);
    meeting
        .assert_told("given-up 6 a detection time of 99ms, at least 100ms is accepted")
        .await;
}

#[tokio::test]
async fn when_it_would_be_asked_once_a_year_we_refuse_it() {
    let Some(mut meeting) = Meeting::start(quick(), &["--rude=slow-hello"]).await else {
        return;
    };
    meeting.until_ended().await;
    assert_eq!(meeting.cause(), Cause::Refused);
    meeting
        .assert_told("given-up 6 a min_interval of 31536000s, at most 2.6s is accepted")
        .await;
}

#[tokio::test]
async fn when_it_meets_itself_it_ends_it() {
    if !needs("python3") {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut stranger = Stranger::start(&["--connect", &address]);
    let (mut stream, _) = listener.accept().await.unwrap();
    let (mut from, mut to) = stream.split();
    let echo = tokio::io::copy(&mut from, &mut to);
    let (_, end) = tokio::join!(echo, stranger.end());
    assert_eq!(end, "refused Loop");
}

#[tokio::test]
async fn when_it_sends_rubbish_we_say_why_we_end_it() {
    let rubbish = [
        (
            "http",
            "a frame of 1195725856 bytes, at most 256 are accepted",
        ),
        ("empty", "a frame of no bytes"),
        ("ping-first", "the first frame has tag 0x02 and is no hello"),
        ("pong-first", "the first frame has tag 0x03 and is no hello"),
        (
            "goodbye-first",
            "the first frame has tag 0x04 and is no hello",
        ),
        ("data-first", "the first frame has tag 0x00 and is no hello"),
        ("bad-magic", "the hello's magic is wrong"),
        ("bad-version", "the peer speaks version 2, we speak 1"),
        (
            "truncated-hello",
            "the body of a frame with tag 0x01 is malformed",
        ),
        ("impossible-hello", "the hello announces impossible times"),
        ("unknown-tag", "unknown frame tag 0x08"),
        (
            "oversized",
            "a frame of 4294967295 bytes, at most 65542 are accepted",
        ),
        (
            "long-data",
            "a frame of 65538 bytes, at most 65537 are accepted",
        ),
        ("short-parts", "parts that make no message"),
        (
            "large-parts",
            "a frame of 8388609 bytes, at most 8388608 are accepted",
        ),
        ("empty-part", "parts that make no message"),
        ("data-among-parts", "parts that make no message"),
        ("data-after-fin", "a message after the last one"),
        (
            "long-alive",
            "the body of a frame with tag 0x05 is malformed",
        ),
        (
            "oversized-ping",
            "a frame of 257 bytes, at most 256 are accepted",
        ),
        (
            "short-ping",
            "the body of a frame with tag 0x02 is malformed",
        ),
        ("second-hello", "the hello announces impossible times"),
        (
            "short-goodbye",
            "the body of a frame with tag 0x04 is malformed",
        ),
        (
            "goodbye-without-text",
            "the body of a frame with tag 0x04 is malformed",
        ),
    ];
    for (how, why) in rubbish {
        let Some(mut meeting) = Meeting::start(patient(), &[&format!("--rude={how}")]).await else {
            return;
        };
        meeting.until_ended().await;
        let cause = meeting.cause();
        assert!(matches!(cause, Cause::Protocol(_)), "{how}: {cause}");
        assert_eq!(
            cause.to_string(),
            format!("protocol violated: {why}"),
            "{how}"
        );
        meeting.assert_told(&format!("given-up 4 {why}")).await;
    }
}

// ---- what becomes of us, as it sees it -----------------------------------

#[tokio::test]
async fn when_we_say_goodbye_it_knows() {
    let Some(mut meeting) = Meeting::start(quick(), &QUICK).await else {
        return;
    };
    meeting.until_connected().await;
    meeting.ours.feed("the last word".into()).await.unwrap();
    meeting.ours.close().await.unwrap();
    assert_eq!(meeting.leave().await, "goodbye 0");
}

#[tokio::test]
async fn when_both_of_us_leave_both_are_confirmed() {
    let Some(mut meeting) = Meeting::start(quick(), &QUICK).await else {
        return;
    };
    meeting.until_connected().await;
    let length = 1_000_000;
    let message = Bytes::from(vec![b'm'; length]);
    meeting.ours.feed(message).await.unwrap();
    let commands = format!("say-much {length}\ngoodbye 1 back at noon");
    meeting.stranger.tell(&commands).await;
    let Meeting { ours, stranger, .. } = &mut meeting;
    let (closed, end) = tokio::join!(ours.close(), stranger.end());
    closed.unwrap();
    assert_eq!(end, "left");
    assert_eq!(meeting.stranger.count(&format!("data {length}*")), 1);
}

#[tokio::test]
async fn when_it_finishes_it_still_gets_what_we_say() {
    let Some(mut meeting) = Meeting::start(quick(), &QUICK).await else {
        return;
    };
    meeting.until_connected().await;
    let commands = format!("say {}\nfinish", hex(b"a question"));
    meeting.stranger.tell(&commands).await;
    let question = PeerEvent::Message("a question".into());
    meeting.until(|seen| seen.events.contains(&question)).await;
    // Both are judged as before.
    meeting.go_on_for(2 * quick().detection_time()).await;
    meeting.assert_undisturbed();
    meeting.ours.feed(vec![b'm'; 100_000].into()).await.unwrap();
    let Meeting { ours, stranger, .. } = &mut meeting;
    let (closed, end) = tokio::join!(ours.close(), stranger.end());
    closed.unwrap();
    assert_eq!(end, "goodbye 0");
    assert_eq!(meeting.stranger.count("data 100000*"), 1);
}

#[tokio::test]
async fn when_both_of_us_have_finished_it_is_over() {
    for we_are_first in [true, false] {
        let Some(mut meeting) = Meeting::start(quick(), &QUICK).await else {
            return;
        };
        meeting.until_connected().await;
        if we_are_first {
            meeting.ours.finish().await.unwrap();
            meeting.until_line("finished").await;
        }
        let commands = format!("say {}\nfinish", hex(b"the last word"));
        meeting.stranger.tell(&commands).await;
        if !we_are_first {
            let is_told = |seen: &Meeting| seen.events.contains(&PeerEvent::Finished);
            meeting.until(is_told).await;
            meeting.ours.finish().await.unwrap();
        }
        meeting.until_ended().await;
        let end = [
            PeerEvent::Message("the last word".into()),
            PeerEvent::Finished,
            PeerEvent::Closed {
                reason: CloseReason::Finished,
            },
        ];
        let told = meeting.events.iter().filter(|event| end.contains(event));
        assert!(told.eq(&end), "{:?}", meeting.events);
        assert_eq!(meeting.leave().await, "closed");
    }
}

#[tokio::test]
async fn when_we_do_not_read_it_leaves_unconfirmed() {
    let options = [&PATIENT[..], &["--linger=1"]].concat();
    let Some(mut meeting) = Meeting::start(patient(), &options).await else {
        return;
    };
    meeting.until_connected().await;
    let asked = Instant::now();
    meeting.stranger.tell("goodbye 0").await;
    // Our side isn't polled, for less than it takes to be given up.
    assert_eq!(meeting.stranger.end().await, "unconfirmed");
    let measured = asked.elapsed();
    assert!(measured >= secs(1), "{measured:?}: too early");
    assert!(measured <= secs(1) + SLACK, "{measured:?}: too late");
}

#[tokio::test]
async fn when_it_gave_us_up_we_know_why() {
    let Some(mut meeting) = Meeting::start(quick(), &QUICK).await else {
        return;
    };
    meeting.until_connected().await;
    // Our side isn't polled.
    meeting.stranger.end().await;
    meeting.until_ended().await;
    match meeting.cause() {
        Cause::GivenUp { code, detail } => {
            assert_eq!(code, GoodbyeCode::SILENT);
            assert!(detail.starts_with("silent for "), "{detail}");
        }
        cause => panic!("{cause}"),
    }
}

#[tokio::test]
async fn when_our_process_is_frozen_it_gives_us_up_in_time() {
    let Some((mut stranger, ours)) = visit(&QUICK).await else {
        return;
    };
    let stopped = Instant::now();
    ours.stop().unwrap();
    let end = stranger.end().await;
    let measured = stopped.elapsed();

    let silent: f64 = end.strip_prefix("dead ").expect(&end).parse().unwrap();
    // Its interval is up to a quarter shorter than 200 ms.
    assert!(silent >= 0.75, "after {silent} s: too early");
    assert!(measured <= ms(800) + SLACK, "{measured:?}: too late");
}

#[tokio::test]
async fn when_our_process_is_killed_it_knows_at_once() {
    // Nothing is written that could fail.
    let Some((mut stranger, ours)) = visit(&ONLY_ASKED).await else {
        return;
    };
    // With nothing unread it is an end of the stream and no reset.
    sleep(ms(100)).await;
    let killed = Instant::now();
    ours.kill().unwrap();
    let end = stranger.end().await;
    let measured = killed.elapsed();

    assert!(end == "eof" || end == "reset", "{end}");
    assert!(measured <= SLACK, "{measured:?}: too late");
}

#[tokio::test]
async fn when_our_process_leaves_it_knows() {
    let Some((mut stranger, mut ours)) = visit(&QUICK).await else {
        return;
    };
    stranger.say(b"leave").await;
    assert_eq!(stranger.end().await, "goodbye 0");
    assert!(ours.wait().unwrap().success());
}

// ---- two of its kind -----------------------------------------------------

/// What one of two is told to do, and the last words of it that count.
type Parting = (&'static str, &'static [&'static str]);

const PARTINGS: &[(&str, [Parting; 2])] = &[
    (
        "one leaves behind its last message",
        [
            ("say 61\ngoodbye 64 enough", &["left"]),
            ("", &["data 61", "goodbye 64 enough"]),
        ],
    ),
    (
        "both leave at once, with full pipes",
        [
            ("say-much 4000000\ngoodbye 0", &["data 4000000*", "left"]),
            (
                "say-much 4000000\ngoodbye 1 at noon",
                &["data 4000000*", "left"],
            ),
        ],
    ),
    (
        "both finish, one later than the other",
        [
            ("finish", &["data 62", "finished", "closed"]),
            ("say 62\nfinish", &["finished", "closed"]),
        ],
    ),
];

/// So the page is enough for both sides of each way to part.
#[tokio::test]
async fn two_of_its_kind_part_in_order() {
    if !needs("python3") {
        return;
    }
    for (what, partings) in PARTINGS {
        let mut one = Stranger::start(&[&["--listen"], &QUICK[..]].concat());
        one.until(|seen| !seen.lines.is_empty()).await;
        let port = one.lines[0].strip_prefix("listening ").expect("its port");
        let connect = format!("--connect=127.0.0.1:{port}");
        let mut other = Stranger::start(&[&[&*connect], &QUICK[..]].concat());
        let met = |seen: &Stranger| seen.any_starts_with("connected");
        tokio::join!(one.until(met), other.until(met));
        for (stranger, (commands, _)) in [&mut one, &mut other].into_iter().zip(partings) {
            if !commands.is_empty() {
                stranger.tell(commands).await;
            }
        }
        tokio::join!(one.end(), other.end());
        for (stranger, (_, words)) in [&one, &other].into_iter().zip(partings) {
            let told: Vec<&str> = stranger.lines.iter().map(String::as_str).collect();
            let found = told.iter().filter(|line| words.contains(line));
            assert!(found.eq(*words), "{what}: {told:?}");
            assert_eq!(told.last(), words.last(), "{what}: {told:?}");
        }
    }
}

// ---- the two of us -------------------------------------------------------

/// The stranger's times in seconds: those of `patient()`.
const PATIENT: [&str; 4] = ["--interval=0.2", "--timeout=1", "--missed=3", "--min=0.1"];

/// It leaves the first word to us.
const ONLY_ASKED: [&str; 3] = ["--interval=100", "--timeout=1", "--missed=3"];

/// We listen, it connects. Both sides are kept going.
struct Meeting {
    ours: Heartbeat<TcpStream>,
    events: Vec<PeerEvent<Bytes>>,
    stranger: Stranger,
}

impl Meeting {
    async fn start(config: Config, options: &[&str]) -> Option<Self> {
        if !needs("python3") {
            return None;
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connect = format!("--connect={address}");
        let stranger = Stranger::start(&[&[&*connect], options].concat());
        let (stream, _) = timeout(secs(30), listener.accept()).await.unwrap().unwrap();
        Some(Self {
            ours: Heartbeat::new(stream, config),
            events: Vec::new(),
            stranger,
        })
    }

    async fn until_connected(&mut self) {
        self.until(|seen| !seen.events.is_empty() && !seen.stranger.lines.is_empty())
            .await;
    }

    async fn until_line(&mut self, line: &str) {
        self.until(|seen| seen.stranger.count(line) > 0).await;
    }

    async fn until_ended(&mut self) {
        self.until(|seen| seen.events.last().is_some_and(PeerEvent::is_terminal))
            .await;
        assert_eq!(self.ours.next().await, None);
    }

    async fn until(&mut self, done: impl Fn(&Self) -> bool) {
        let all = async {
            while !done(self) {
                self.step().await;
            }
        };
        let in_time = timeout(secs(20), all).await.is_ok();
        assert!(in_time, "{:?}, {:?}", self.events, self.stranger.lines);
    }

    async fn go_on_for(&mut self, time: Duration) {
        let all = async {
            loop {
                self.step().await;
            }
        };
        // It has no end.
        let _ = timeout(time, all).await;
    }

    /// The next thing that either of them tells.
    async fn step(&mut self) {
        tokio::select! {
            event = self.ours.next() => match event {
                Some(event) => self.events.push(event),
                None => panic!("nothing comes any more: {:?}", self.events),
            },
            line = self.stranger.next_line() => match line {
                Some(line) => self.stranger.lines.push(line),
                // It has ended; only we have something to tell.
                None => sleep(ms(5)).await,
            },
        }
    }

    /// Drops our side and says how the stranger ended.
    async fn leave(mut self) -> String {
        drop(self.ours);
        self.stranger.end().await
    }

    /// It was told why, before the connection ended.
    async fn assert_told(mut self, why: &str) {
        drop(self.ours);
        let end = self.stranger.end().await;
        let lines = &self.stranger.lines;
        assert!(end == "eof" || end == "reset", "{lines:?}");
        let told = lines.iter().any(|line| line.starts_with(why));
        assert!(told, "{lines:?} instead of {why}");
    }

    fn cause(&self) -> Cause {
        match self.events.last() {
            Some(PeerEvent::Dead(death)) => death.cause.clone(),
            other => panic!("{other:?}"),
        }
    }

    /// Answers that either side got.
    fn beats(&self) -> usize {
        self.stranger.count("beat") + self.stranger.count("asked")
    }

    fn assert_undisturbed(&self) {
        let ended = self.events.iter().any(PeerEvent::is_terminal);
        assert!(!ended, "{:?}", self.events);
        let ends = [
            "dead",
            "given-up",
            "goodbye",
            "eof",
            "reset",
            "refused",
            "left",
            "unconfirmed",
            "closed",
        ];
        let ended = ends.iter().any(|end| self.stranger.any_starts_with(end));
        assert!(!ended, "{:?}", self.stranger.lines);
    }
}

/// It listens, and a process of ours connects; when both know each other.
async fn visit(options: &[&str]) -> Option<(Stranger, PeerProcess)> {
    if !needs("python3") {
        return None;
    }
    let mut stranger = Stranger::start(&[&["--listen"], options].concat());
    stranger.until(|seen| !seen.lines.is_empty()).await;
    let listening = stranger.lines[0].strip_prefix("listening ");
    let port: u16 = listening.expect("its port").parse().unwrap();
    let address = ([127, 0, 0, 1], port).into();
    let ours = PeerProcess::start(
        env!("CARGO_BIN_EXE_heartbeat-test-peer"),
        address,
        quick().detection_time(),
    )
    .unwrap();
    let beats = |seen: &Stranger| seen.count("beat") + seen.count("asked") > 0;
    stranger.until(beats).await;
    Some((stranger, ours))
}

/// The Python process, and what it told.
struct Stranger {
    process: PeerProcess,
    commands: ChildStdin,
    lines_to_come: Lines<BufReader<ChildStdout>>,
    lines: Vec<String>,
}

impl Stranger {
    fn start(options: &[&str]) -> Self {
        let mut command = Command::new("python3");
        command.arg(SCRIPT).args(options);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = PeerProcess::spawn(&mut command).unwrap();
        let (commands, told) = process.take_pipes().unwrap();
        let told = ChildStdout::from_std(told).unwrap();
        Self {
            process,
            commands: ChildStdin::from_std(commands).unwrap(),
            lines_to_come: BufReader::new(told).lines(),
            lines: Vec::new(),
        }
    }

    async fn say(&mut self, message: &[u8]) {
        self.tell(&format!("say {}", hex(message))).await;
    }

    async fn tell(&mut self, command: &str) {
        let line = format!("{command}\n");
        self.commands.write_all(line.as_bytes()).await.unwrap();
    }

    async fn until(&mut self, done: impl Fn(&Self) -> bool) {
        let all = async {
            while !done(self) {
                let line = self.next_line().await.expect("it goes on");
                self.lines.push(line);
            }
        };
        let in_time = timeout(secs(20), all).await.is_ok();
        assert!(in_time, "{:?}", self.lines);
    }

    /// Its last line.
    async fn end(&mut self) -> String {
        let all = async {
            while let Some(line) = self.next_line().await {
                self.lines.push(line);
            }
        };
        let in_time = timeout(secs(20), all).await.is_ok();
        assert!(in_time, "{:?}", self.lines);
        self.lines.last().cloned().expect("it told something")
    }

    async fn next_line(&mut self) -> Option<String> {
        self.lines_to_come.next_line().await.unwrap()
    }

    fn count(&self, line: &str) -> usize {
        self.lines.iter().filter(|told| *told == line).count()
    }

    fn any_starts_with(&self, word: &str) -> bool {
        self.lines.iter().any(|told| told.starts_with(word))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
