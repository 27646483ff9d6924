//! The testkit itself: what it simulates, what it asserts, and what it draws.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic too")]

use core::{ops::Bound, time::Duration};

use crate::common::LEFT;
use heartbeat_core::{
    Cause, CloseReason, Config, ConfigBuilder, ConfigError, Control, Death, Event, Evidence,
    GoodbyeCode, Hello, Instant, Monitor, NoDetail, Status,
    testkit::{Direction, Link, Report, Side, Simulation, hours, minutes, ms, secs, us},
};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

/// No randomness in the timings: dead after 14 s.
fn steady() -> Config {
    Config::builder().jitter(0.0).build().unwrap()
}

/// Never heard of anything but messages: a ping comes after an hour.
fn quiet(evidence: Evidence) -> Config {
    let hours = Config::builder().interval(hours(1)).timeout(hours(1));
    hours.jitter(0.0).evidence(evidence).build().unwrap()
}

fn last_heard(report: &Report, side: Side) -> Duration {
    report
        .status(side)
        .last_heard
        .saturating_duration_since(Instant::ORIGIN)
}

/// When `side` told the first event like this.
fn told_at(report: &Report, side: Side, like: impl Fn(&Event) -> bool) -> Duration {
    let mut events = report.events(side);
    events.find(|(_, event)| like(event)).unwrap().0
}

/// The lines of a timeline with these words, their times before them.
fn lines(report: &Report, words: &str) -> Vec<String> {
    let timeline = report.timeline().to_string();
    let lines = timeline.lines().filter(|line| line.contains(words));
    lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

// ---- what is simulated ----------------------------------------------------

#[test]
fn units_are_what_they_are_called() {
    assert_eq!(us(7), Duration::from_nanos(7_000));
    assert_eq!(ms(7), Duration::from_nanos(7_000_000));
    assert_eq!(secs(7), Duration::from_millis(7_000));
    assert_eq!(minutes(7), Duration::from_secs(420));
    assert_eq!(hours(7), Duration::from_secs(25_200));
}

#[test]
fn a_link_is_as_bad_as_it_is_told_to_be() {
    let link = Link::new()
        .rtt(ms(1))
        .jitter(ms(2))
        .loss(0.3)
        .outage(ms(4))
        .outage_every(ms(5))
        .retransmit_within(ms(600))
        .window(7_000);
    assert_eq!(
        format!("{link:?}"),
        "Link { rtt: 1ms, jitter: 2ms, loss: 0.3, outage: 4ms, outage_every: 5ms, \
         retransmit_within: 600ms, window: 7000 }"
    );
}

#[test]
fn a_link_is_no_worse_than_it_can_be() {
    let day = secs(86_400);
    let link = Link::new;
    assert_eq!(link().rtt(Duration::MAX), link().rtt(day));
    assert_ne!(link().rtt(day - us(1)), link().rtt(day));
    assert_eq!(
        link().rtt(us(1) + Duration::from_nanos(999)),
        link().rtt(us(1))
    );
    assert_eq!(link().outage_every(us(1)), link().outage_every(ms(1)));
    assert_eq!(
        link().retransmit_within(us(1)),
        link().retransmit_within(ms(200))
    );
    assert_eq!(link().window(0), link().window(1024));
    assert_eq!(link().loss(1.0), link().loss(0.9));
    for nothing in [0.0, -0.5, f64::NAN, f64::NEG_INFINITY] {
        assert_eq!(link().loss(nothing), link());
    }
}

#[test]
fn a_message_arrives_piece_by_piece_as_the_window_opens() {
    // A window of 10,000 bytes each two seconds, a Hello of 13 at first.
    let sent = |evidence, bytes, end| {
        let link = Link::new().rtt(secs(2)).window(10_000);
        let report = Simulation::new(quiet(evidence), link, 7)
            .messages(Side::A, hours(2), bytes)
            .run_for(secs(end));
        last_heard(&report, Side::B)
    };
    // The pieces arrive after 1, 3, 5 ... s.
    let cases = [
        (9_987, 2, 1),
        (9_988, 2, 1),
        (9_988, 4, 3),
        // The first part of 65,536 bytes is whole after 13 s.
        (99_987, 12, 1),
        (99_987, 18, 13),
        (99_987, 20, 19),
        (99_988, 20, 13),
        (99_988, 22, 21),
    ];
    for (bytes, end, whole_at) in cases {
        assert_eq!(sent(Evidence::Frame, bytes, end), secs(whole_at), "{bytes}");
        // Before it is whole there are bytes all the same.
        let last_piece = end - 1;
        let heard = sent(Evidence::AnyBytes, bytes, end);
        assert_eq!(heard, secs(last_piece), "{bytes}");
    }
}

#[test]
fn a_goodbye_comes_when_all_messages_have_left() {
    let link = Link::new().rtt(secs(2)).window(10_000);
    let report = Simulation::new(quiet(Evidence::AnyBytes), link, 7)
        .messages(Side::A, hours(2), 99_975)
        .close(Side::A, secs(5))
        .run_for(minutes(1));
    let closed = |side| told_at(&report, side, |event| matches!(event, Event::Closed { .. }));
    assert_eq!(closed(Side::B), secs(21));
    // Its answer is on its way for a second.
    assert_eq!(closed(Side::A), secs(22));
    assert_eq!(report.lasted(), secs(22));
    let reasons = [Side::A, Side::B].map(|side| report.events(side).last().unwrap().1);
    assert_eq!(
        reasons,
        [CloseReason::Local, LEFT].map(|reason| Event::Closed { reason })
    );
    assert_eq!(lines(&report, "closes"), ["5.000000s a closes"]);
}

#[test]
fn a_side_that_is_killed_or_hangs_at_the_start_says_nothing() {
    let simulation = Simulation::new(steady(), Link::new().rtt(ms(10)), 1);
    for report in [
        simulation.clone().kill(Side::A, secs(0)).run_for(hours(1)),
        simulation.hang(Side::A, secs(0)).run_for(hours(1)),
    ] {
        assert_eq!(lines(&report, "a sends"), [""; 0]);
        assert_eq!(report.events(Side::A).count(), 0);
        assert!(report.death(Side::B).is_some());
    }
}

#[test]
fn a_side_that_stalls_does_nothing_until_it_is_over_and_then_all_of_it() {
    let report = Simulation::new(steady(), Link::new().rtt(ms(10)), 1)
        .stall(Side::A, secs(0), secs(3))
        .probe(Side::A, secs(1))
        .run_for(secs(4));
    assert_eq!(lines(&report, "stalls"), ["0.000000s a stalls for 3s"]);
    assert_eq!(lines(&report, "a probes"), ["3.000000s a probes"]);
    // And the answer to B's piggybacked ping.
    let sends = lines(&report, "a sends");
    let sends: Vec<_> = sends.iter().filter_map(|line| line.get(..22)).collect();
    let expected = [
        "3.000000s a sends Hell",
        "3.000000s a sends Ping",
        "3.010000s a sends Pong",
    ];
    assert_eq!(sends, expected);
    assert_eq!(told_at(&report, Side::B, |_| true), secs(3) + ms(5));
    assert_eq!(told_at(&report, Side::A, |_| true), secs(3));
}

#[test]
fn a_side_that_pauses_hears_nothing_until_it_reads_again() {
    let run = |end| {
        Simulation::new(steady(), Link::new().rtt(ms(10)), 1)
            .messages(Side::A, ms(100), 10)
            .pause_reading(Side::B, secs(10), secs(20))
            .pause_reading(Side::B, secs(12), secs(2))
            .run_for(end)
    };
    let paused = run(secs(30) - us(1));
    assert_eq!(last_heard(&paused, Side::B), secs(9) + ms(905));
    assert_eq!(lines(&paused, "b reads again"), [""; 0]);
    let resumed = run(secs(30));
    assert_eq!(last_heard(&resumed, Side::B), secs(30));
    assert_eq!(lines(&resumed, "b reads"), ["30.000000s b reads again"]);
    assert_eq!(
        lines(&resumed, "stops reading"),
        [
            "10.000000s b stops reading for 20s",
            "12.000000s b stops reading for 2s"
        ]
    );
}

#[test]
fn a_late_timer_is_late_whatever_else_wakes_its_side() {
    let latest = |lateness| {
        let report = Simulation::new(steady(), Link::new(), 1)
            .lateness(Side::A, lateness)
            .messages(Side::A, ms(10), 10)
            .hang(Side::B, secs(0))
            .run_for(minutes(1));
        told_at(&report, Side::A, |event| matches!(event, Event::Dead(_)))
    };
    // Three timers at least, each by up to a second.
    assert_eq!(latest(secs(0)), secs(14));
    let late = latest(secs(1));
    assert!((secs(14) + ms(200)..secs(18)).contains(&late), "{late:?}");
}

#[test]
fn a_ping_that_waits_for_the_window_was_not_sent() {
    // B reads nothing any more, and what A writes fills the window.
    let link = Link::new().rtt(ms(10)).window(10_000);
    let full = Simulation::new(steady(), link, 1)
        .messages(Side::A, secs(1), 100_000)
        .hang(Side::B, secs(1));
    let report = full.run_for(minutes(1));
    let death = report.death(Side::A).unwrap();
    assert_eq!(death.cause, Cause::WriteStalled);
}

#[test]
fn writes_stall_while_the_peer_does_not_read() {
    let limited = Config::builder().jitter(0.0).write_stall(secs(30));
    let link = Link::new().rtt(ms(10)).window(10_000);
    let report = Simulation::new(limited.build().unwrap(), link, 1)
        .messages(Side::A, minutes(10), 100_000)
        .pause_reading(Side::B, ms(1), minutes(10))
        .run_for(minutes(5));
    let death = report.death(Side::A).unwrap();
    assert_eq!(death.cause, Cause::WriteStalled);
    // The window was full at once, and B's beats kept on coming.
    let dead = told_at(&report, Side::A, |event| matches!(event, Event::Dead(_)));
    assert_eq!(dead, secs(30));
    assert!(death.silent_for < secs(10), "{death}");
}

#[test]
fn a_flood_is_a_fault_that_is_found() {
    let report = Simulation::new(steady(), Link::new().rtt(ms(10)), 1)
        .flood(Side::B, secs(10), ms(1))
        .run_for(minutes(1));
    report.assert_no_false_alarm().unwrap();
    assert_eq!(report.death(Side::A).unwrap().cause, Cause::PingFlood);
    let floods = lines(&report, "floods");
    assert!(floods.is_empty() || floods == ["10.000000s b floods, a ping each 1ms"]);
}

#[test]
fn what_is_due_at_the_very_end_still_happens() {
    let probing = Simulation::new(steady(), Link::new(), 1).probe(Side::A, secs(2));
    let before = probing.clone().run_for(secs(2) - us(1));
    assert_eq!(before.pings_sent(Side::A), 0);
    assert_eq!(before.lasted(), secs(2) - us(1));
    let at_the_end = probing.run_for(secs(2));
    assert_eq!(lines(&at_the_end, "a probes"), ["2.000000s a probes"]);
    assert_eq!(at_the_end.pings_sent(Side::A), 1);
}

#[test]
fn a_run_without_an_end_ends_with_the_last_side() {
    let report = Simulation::new(steady(), Link::new().rtt(ms(10)), 1)
        .kill(Side::A, secs(60))
        .run_for(Duration::MAX);
    assert_eq!(report.lasted(), secs(60) + ms(5));
    assert_eq!(report.detection_time(Side::B), Some(ms(5)));
    assert_eq!(report.detection_time(Side::A), None);
}

#[test]
fn a_healthy_hour_has_beats_and_nothing_else() {
    let report = Simulation::new(steady(), Link::new().rtt(ms(40)), 1).run_for(hours(1));
    report.assert_no_false_alarm().unwrap();
    assert_eq!(report.lasted(), hours(1));
    for side in [Side::A, Side::B] {
        assert!(report.beats(side) > 700, "{}", report.beats(side));
        assert_eq!(report.pings_sent(side), report.beats(side));
        assert_eq!(report.suspicions(side), 0);
        let events: Vec<_> = report.events(side).map(|(_, event)| event).collect();
        assert!(
            matches!(events[..], [Event::Connected { .. }]),
            "{events:?}"
        );
    }
}

#[test]
fn a_hung_peer_is_found_and_that_is_no_mistake() {
    let report = Simulation::new(steady(), Link::new(), 1)
        .hang(Side::B, secs(60))
        .run_for(minutes(2));
    report.assert_no_false_alarm().unwrap();
    report
        .assert_detects_within(steady().detection_time())
        .unwrap();
    let too_soon = report.assert_detects_within(secs(8)).unwrap_err();
    assert!(
        too_soon.to_string().starts_with("a knew after "),
        "{too_soon}"
    );
    assert_eq!(report.death(Side::A).unwrap().cause, Cause::Silent);
    assert_eq!(report.death(Side::B), None);
}

#[test]
fn a_cut_is_found_by_both_sides() {
    for direction in [Direction::Both, Direction::AToB, Direction::BToA] {
        let report = Simulation::new(steady(), Link::new().rtt(ms(10)), 1)
            .cut(direction, secs(60))
            .run_for(minutes(3));
        report.assert_no_false_alarm().unwrap();
        // What was under way still arrives, and its answer where that isn't cut.
        report
            .assert_detects_within(steady().detection_time() + ms(10))
            .unwrap();
        assert!(report.detection_time(Side::A).is_some());
        assert!(report.detection_time(Side::B).is_some());
    }
}

#[test]
fn a_killed_peer_is_found_when_its_end_arrives() {
    let report = Simulation::new(steady(), Link::new().rtt(ms(10)), 1)
        .kill(Side::A, secs(60))
        .run_for(minutes(2));
    report.assert_detects_within(ms(5)).unwrap();
    assert_eq!(report.death(Side::B).unwrap().cause, Cause::Eof);
}

#[test]
fn a_partition_that_is_too_long_is_a_false_alarm_with_a_timeline() {
    let report = Simulation::new(steady(), Link::new().rtt(ms(20)), 7)
        .partition(Direction::Both, secs(60), secs(30))
        .run_for(minutes(2));
    let (_, death) = report.mistake().unwrap();
    assert_eq!(death.cause, Cause::Silent);
    let failure = report.assert_no_false_alarm().unwrap_err();
    // As an `unwrap` shows it, it can be read too.
    assert_eq!(format!("{failure:?}"), failure.to_string());
    let failure = failure.to_string();
    for part in [
        "was alive: silent for 14s",
        "rtt: 20ms",
        "seed 7",
        "partitioned for 30s",
        "** Dead",
    ] {
        assert!(failure.contains(part), "{part} is missing in:\n{failure}");
    }
}

#[test]
fn nothing_is_shown_by_a_run_without_a_fault_or_one_that_is_too_short() {
    let healthy = Simulation::new(steady(), Link::new(), 1);
    let error = healthy
        .clone()
        .run_for(secs(60))
        .assert_detects_within(secs(60));
    assert!(
        error
            .unwrap_err()
            .to_string()
            .starts_with("there was no fault")
    );
    let error = healthy
        .hang(Side::B, secs(60))
        .run_for(secs(65))
        .assert_detects_within(secs(60));
    assert!(
        error
            .unwrap_err()
            .to_string()
            .starts_with("the run ended before")
    );
}

// ---- what is asserted -----------------------------------------------------

#[test]
fn a_bound_is_kept_to_the_microsecond() {
    let simulation = Simulation::new(steady(), Link::new(), 1).hang(Side::B, secs(60));
    let report = simulation.clone().run_for(minutes(2));
    let took = report.detection_time(Side::A).unwrap();
    // The last pong came at 55 s, when nothing had been heard for 5 s.
    assert_eq!(took, secs(9));
    report.assert_detects_within(took).unwrap();
    report.assert_detects_within(took - us(1)).unwrap_err();

    // As long as the bound isn't over nothing is shown, and then it's too late.
    let short = simulation.run_for(secs(65));
    for (bound, begins) in [
        (secs(5), "a never knew of the fault at 60s"),
        (secs(5) + us(1), "the run ended before 5.000001s had passed"),
    ] {
        let error = short.assert_detects_within(bound).unwrap_err().to_string();
        assert!(error.starts_with(begins), "{error}");
    }
}

#[test]
fn a_faulty_side_need_not_detect_the_others_fault() {
    let report = Simulation::new(steady(), Link::new(), 1)
        .hang(Side::B, secs(30))
        .hang(Side::A, secs(60))
        .run_for(minutes(2));
    report
        .assert_detects_within(steady().detection_time())
        .unwrap();
}

#[test]
fn a_side_that_has_ended_need_not_detect_a_fault() {
    let report = Simulation::new(steady(), Link::new(), 1)
        .close(Side::A, secs(30))
        .cut(Direction::Both, secs(60))
        .run_for(minutes(2));
    let error = report.assert_detects_within(minutes(1)).unwrap_err();
    assert!(error.to_string().starts_with("there was no fault"));
}

#[test]
fn a_fault_excuses_no_verdict_that_came_before_it() {
    let report = Simulation::new(steady(), Link::new(), 1)
        .partition(Direction::Both, secs(60), secs(30))
        .cut(Direction::Both, secs(100))
        .run_for(minutes(3));
    // Both were wrong at the same time, which excuses neither.
    let dead = |side| told_at(&report, side, |event| matches!(event, Event::Dead(_)));
    assert_eq!(dead(Side::A), dead(Side::B));
    let (side, death) = report.mistake().unwrap();
    assert_eq!(side, Side::A);
    assert_eq!(Some(death), report.death(Side::A));
}

#[test]
fn the_first_mistake_is_the_one_that_counts() {
    for hasty in [Side::A, Side::B] {
        let configs = [Config::wan(), Config::lan()];
        let [a, b] = match hasty {
            Side::A => [configs[1], configs[0]],
            Side::B => configs,
        };
        let report = Simulation::between(a, b, Link::new().rtt(ms(10)), 1)
            .partition(Direction::Both, secs(60), secs(4))
            .run_for(minutes(3));
        // The other one is told, which is right.
        assert_eq!(report.mistake().unwrap().0, hasty);
        assert_eq!(report.death(hasty).unwrap().cause, Cause::Silent);
        let given_up = Cause::GivenUp {
            code: GoodbyeCode::SILENT,
            detail: NoDetail,
        };
        assert_eq!(report.death(hasty.other()).unwrap().cause, given_up);
    }
}

#[test]
fn a_fault_of_its_own_excuses_nobody() {
    // A ping an hour is a fault, but a harmless one.
    let simulation = Simulation::between(Config::wan(), Config::lan(), Link::new(), 1).partition(
        Direction::Both,
        secs(60),
        secs(7),
    );
    for (faulty, mistake) in [(Side::A, None), (Side::B, Some(Side::B))] {
        let report = simulation
            .clone()
            .flood(faulty, secs(1), hours(1))
            .run_for(minutes(3));
        assert_eq!(report.mistake().map(|(side, _)| side), mistake);
    }
}

#[test]
fn suspicions_and_what_came_of_them_are_told() {
    let report = Simulation::new(steady(), Link::new().rtt(ms(20)), 7)
        .partition(Direction::Both, secs(58), secs(6))
        .run_for(minutes(2));
    report.assert_no_false_alarm().unwrap();
    let of = |side, like: fn(&Event) -> bool| {
        let events = report.events(side);
        events.filter(|(_, event)| like(event)).count()
    };
    for side in [Side::A, Side::B] {
        let suspects = of(side, |event| matches!(event, Event::Suspect { .. }));
        let recovered = of(side, |event| matches!(event, Event::Recovered { .. }));
        assert_eq!(report.suspicions(side), suspects);
        assert!(suspects >= recovered && recovered == 1, "{side:?}");
    }
}

// ---- what is shown --------------------------------------------------------

#[test]
fn a_short_run_is_shown_from_its_start() {
    let report = Simulation::new(steady(), Link::new().rtt(ms(10)), 1)
        .partition(Direction::BToA, ms(1_500), ms(1))
        .probe(Side::A, secs(2))
        .cut(Direction::AToB, ms(2_006))
        .hang(Side::B, secs(3))
        .kill(Side::A, secs(4))
        .run_for(secs(5));
    let shown = report.timeline().to_string();
    // Nonces are random, but the same all the way there and back.
    let nonce = |side: &str| {
        let sends = format!("{side} sends Ping ");
        let (_, nonce) = shown.split_once(&sends).unwrap();
        let nonce = nonce.get(..4).unwrap();
        assert!(nonce.bytes().all(|digit| digit.is_ascii_hexdigit()));
        nonce
    };
    let (nonce, other) = (nonce("a"), nonce("b"));
    let indent = " ".repeat(44);
    let expected = [
        "      0.000000s  a sends Hello",
        "      0.000000s  {indent}b sends Hello",
        "      0.005000s  a receives Hello",
        "      0.005000s  a ** Connected",
        "      0.005000s  {indent}b receives Hello",
        "      0.005000s  {indent}b ** Connected",
        "      1.500000s  --- b to a partitioned for 1ms ---",
        "      2.000000s  a probes",
        "      2.000000s  a sends Ping {nonce}",
        "      2.005000s  {indent}b receives Ping {nonce}",
        "      2.005000s  {indent}b sends Pong {nonce}",
        "      2.005000s  {indent}b sends Ping {other}",
        "      2.006000s  --- a to b cut ---",
        "      2.010000s  a receives Pong {nonce}",
        "      2.010000s  a receives Ping {other}",
        "      2.010000s  a sends Pong {other}",
        "      2.010000s  a ** Beat, round trip 10ms",
        "      3.000000s  {indent}b hangs",
        "      4.000000s  a is killed",
    ];
    let expected = expected.map(|line| {
        let line = line.replace("{indent}", &indent);
        let line = line.replace("{other}", other);
        line.replace("{nonce}", nonce) + "\n"
    });
    assert_eq!(shown, expected.concat());
}

#[test]
fn the_end_of_a_long_run_is_shown() {
    let report = Simulation::new(steady(), Link::new().rtt(ms(10)), 1).run_for(hours(1));
    let shown = report.timeline().to_string();
    let (first, rest) = shown.split_once('\n').unwrap();
    assert_eq!(rest.lines().count(), 120);
    // Each beat has a line for each ping and pong, sent and received, and one
    // for itself; two Hellos have six.
    let beats = report.beats(Side::A) + report.beats(Side::B);
    let earlier = 6 + 5 * beats - 120;
    assert_eq!(first, format!("  ... {earlier} earlier entries"));
    let last = rest.lines().last().unwrap().trim_start();
    assert!(last.starts_with("359"), "{last}");
}

#[test]
fn a_reader_that_pauses_is_neither_given_up_nor_gives_up() {
    let report = Simulation::new(steady(), Link::new().rtt(ms(20)), 7)
        .messages(Side::A, secs(1), 100_000)
        .pause_reading(Side::B, secs(60), minutes(10))
        .run_for(minutes(20));
    report.assert_no_false_alarm().unwrap();
}

/// A part is a sign of life of a whole frame, and questions go between the parts.
#[test]
fn a_message_of_many_parts_keeps_nobody_from_hearing_and_asking() {
    let config = steady().to_builder().evidence(Evidence::Frame).build();
    let report = Simulation::new(config.unwrap(), Link::new().rtt(secs(1)).window(65_549), 7)
        .messages(Side::A, secs(60), 4_000_000)
        .probe(Side::A, secs(30))
        .run_for(secs(50));
    report.assert_no_false_alarm().unwrap();
    assert_eq!(report.suspicions(Side::B), 0);
    // Behind the part that had been begun, and not behind the whole message.
    assert!(report.beats(Side::A) >= 1, "{}", report.timeline());
}

#[test]
fn a_message_larger_than_the_window_arrives_in_pieces() {
    // Ten round trips of a second each: longer than the detection time.
    let report = Simulation::new(steady(), Link::new().rtt(secs(2)).window(10_000), 7)
        .messages(Side::A, minutes(2), 100_000)
        .run_for(minutes(20));
    report.assert_no_false_alarm().unwrap();
}

/// Two round trips for each message, which is less than the limit for blocked
/// writes; all of them together are more.
#[test]
fn writes_that_are_blocked_now_and_then_are_not_stalled() {
    let config = steady().to_builder().write_stall(secs(30)).build().unwrap();
    let report = Simulation::new(config, Link::new().rtt(secs(1)).window(10_000), 7)
        .messages(Side::A, secs(10), 15_000)
        .run_for(minutes(20));
    report.assert_no_false_alarm().unwrap();
}

#[test]
fn a_write_that_is_blocked_for_the_limit_is_stalled() {
    let config = steady().to_builder().write_stall(secs(5)).build().unwrap();
    let report = Simulation::new(config, Link::new().rtt(ms(20)).window(10_000), 7)
        .messages(Side::A, secs(1), 15_000)
        .messages(Side::B, secs(1), 100)
        .pause_reading(Side::B, secs(30), secs(20))
        .run_for(minutes(2));
    let (side, death) = report.mistake().unwrap();
    assert_eq!((side, death.cause), (Side::A, Cause::WriteStalled));
    let (when, _) = report.events(Side::A).last().unwrap();
    assert!((secs(35)..secs(37)).contains(&when), "{when:?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let link = Link::new()
        .rtt(ms(50))
        .jitter(ms(50))
        .loss(0.1)
        .outage(secs(5));
    let run = |seed| {
        let simulation = Simulation::new(Config::wan(), link.clone(), seed);
        simulation
            .lateness(Side::A, ms(20))
            .run_for(hours(1))
            .timeline()
            .to_string()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_configs_are_what_a_builder_accepts(config: Config) {
        prop_assert_eq!(config.to_builder().build(), Ok(config));
    }

    #[test]
    fn builders_never_panic_and_errors_name_a_knob(builder: ConfigBuilder, error: ConfigError) {
        let _ = builder.build();
        prop_assert!(!error.field().is_empty());
    }

    #[test]
    fn arbitrary_frames_are_what_a_decoder_accepts(control: Control, hello: Hello) {
        for control in [control, Control::Hello(hello)] {
            let mut buffer = [0; Control::MAX_ENCODED];
            let bytes = control.encode(&mut buffer).unwrap();
            prop_assert_eq!(Control::decode(bytes), Ok(control));
        }
    }

    #[test]
    fn everything_else_can_be_drawn_and_printed(
        event: Event,
        death: Death,
        status: Status,
        monitor: Monitor,
        link: Link,
    ) {
        let printed = format!("{event:?} {death} {status:?} {monitor:?} {link:?}");
        prop_assert!(!printed.is_empty());
        prop_assert!(!monitor.has_ended());
    }

    #[test]
    fn what_is_drawn_is_what_can_be(
        builder: ConfigBuilder,
        status: Status,
    ) {
        // Its times may be anything, its largest frame is always fine.
        if let Err(error) = builder.build() {
            prop_assert_ne!(error.field(), "max_frame");
        }
        // A monitor can tell these apart from none.
        let most = us(u64::from(u32::MAX) - 1);
        prop_assert!(status.last_rtt <= Some(most), "{:?}", status.last_rtt);
    }

    #[test]
    fn every_knob_of_a_link_has_its_range(
        link in Link::strategy()
            .rtt(ms(1)..=ms(1))
            .jitter((Bound::Excluded(ms(2)), Bound::Excluded(ms(2) + us(2))))
            .loss(0.25..=0.25)
            .outage(secs(86_400)..)
            .outage_every(ms(5)..=ms(5))
            .retransmit_within(ms(600)..=ms(600)),
    ) {
        let expected = Link::new()
            .rtt(ms(1))
            .jitter(ms(2) + us(1))
            .loss(0.25)
            .outage(secs(86_400))
            .outage_every(ms(5))
            .retransmit_within(ms(600));
        prop_assert_eq!(link, expected);
    }

    #[test]
    fn links_are_drawn_from_their_ranges(
        link in Link::strategy().rtt(ms(20)..=ms(20)).loss(..=0.0).outage(secs(1)..secs(1)),
    ) {
        prop_assert_eq!(link, Link::new().rtt(ms(20)).outage(secs(1)));
    }
}

#[test]
fn instants_are_drawn_evenly_over_the_orders_of_magnitude() {
    let mut runner = TestRunner::deterministic();
    let instants = any::<Instant>();
    let drawn = (0..2_000).map(|_| instants.new_tree(&mut runner).unwrap().current());
    let short = drawn
        .filter(|instant| instant.as_micros() < 1 << 20)
        .count();
    // 20 of 64 bits, and the origin itself.
    assert!((500..900).contains(&short), "{short}");
}
