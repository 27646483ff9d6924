//! The search for the longest interval, on networks that are steady, that change
//! their mind, and that report whatever comes to mind.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic too")]

use core::time::Duration;

use heartbeat_core::{IdleGauge, Instant, IntervalSearch, SearchMethod, SearchOutcome};
use proptest::prelude::*;

use crate::common::{YEAR, ms, secs, us};

const METHODS: [SearchMethod; 4] = [
    SearchMethod::Binary,
    SearchMethod::Exponential,
    SearchMethod::Composite,
    SearchMethod::Step(secs(60)),
];

const fn minutes(minutes: u64) -> Duration {
    secs(60 * minutes)
}

const fn hours(hours: u64) -> Duration {
    minutes(60 * hours)
}

fn search() -> IntervalSearch {
    IntervalSearch::new(secs(30)..=hours(2)).unwrap()
}

/// The effect of a network that forgets a connection after this time on an idle one.
fn on_network(timeout: Duration, idle: Duration) -> SearchOutcome {
    match idle < timeout {
        true => SearchOutcome::Answered { idle },
        false => SearchOutcome::Lost { idle },
    }
}

/// Searches until it has settled; how many attempts it took, and how many
/// connections.
fn settle(search: &mut IntervalSearch, timeout: Duration) -> (u32, u32) {
    let (mut attempts, mut lost) = (0, 0);
    while let Some(idle) = search.next() {
        let outcome = on_network(timeout, idle);
        attempts += 1;
        lost += u32::from(matches!(outcome, SearchOutcome::Lost { .. }));
        search.learn(outcome);
        assert!(attempts < 10_000, "{search:?}");
    }
    (attempts, lost)
}

/// A real connection is idle for somewhat longer than the interval that it tries.
#[test]
fn a_loss_at_the_largest_interval_counts_though_it_comes_a_little_later() {
    for method in METHODS {
        let mut search = search().method(method);
        let (mut attempts, timeout) = (0, minutes(100));
        while let Some(interval) = search.next() {
            let idle = interval + ms(1);
            search.learn(match interval < timeout {
                true => SearchOutcome::Answered { idle },
                false => SearchOutcome::Lost { idle },
            });
            attempts += 1;
            assert!(attempts < 1_000, "{search:?}");
        }
        assert!(search.lost().is_some(), "{search:?}");
    }
}

/// Uses the safe interval for this many beats, and tries intervals when one is due.
fn live(search: &mut IntervalSearch, timeout: Duration, beats: u32) {
    for _ in 0..beats {
        search.learn(on_network(timeout, search.safe()));
        if let Some(idle) = search.next() {
            search.learn(on_network(timeout, idle));
        }
    }
}

#[test]
fn composite_doubles_until_one_is_lost_and_halves_from_there_on() {
    let mut search = search();
    let mut tried = Vec::new();
    while let Some(idle) = search.next() {
        tried.push(idle.as_secs_f64() / 60.0);
        search.learn(on_network(minutes(5), idle));
    }
    assert_eq!(tried, [1.0, 2.0, 4.0, 8.0, 6.0, 5.0, 4.5, 4.75]);
    // Of 4.75 min, answered, a twentieth is the margin.
    assert_eq!(search.safe(), us(270_750_000));
    assert_eq!(search.lost(), Some(minutes(5)));
}

#[test]
fn each_method_ends_where_it_says() {
    let found = METHODS.map(|method| {
        let mut search = search().method(method).margin(0.0);
        let (_, lost) = settle(&mut search, minutes(17));
        (search.safe().as_secs_f64() / 60.0, lost)
    });
    let [binary, exponential, composite, step] = found;
    assert!((16.15..17.0).contains(&binary.0), "{found:?}");
    assert_eq!(exponential, (16.0, 1));
    assert!((16.15..17.0).contains(&composite.0), "{found:?}");
    assert_eq!(step, (16.5, 1));
}

#[test]
fn a_network_that_keeps_everything_is_searched_to_the_end_of_the_range() {
    for method in METHODS {
        let mut search = search().method(method).margin(0.0);
        assert_eq!(settle(&mut search, YEAR).1, 0);
        assert!(search.safe() >= minutes(114), "{search:?}");
        live(&mut search, YEAR, 100);
        assert_eq!(search.next(), None);
    }
}

#[test]
fn a_network_that_keeps_nothing_ends_at_the_smallest() {
    for method in METHODS {
        let mut search = search().method(method);
        settle(&mut search, secs(1));
        assert_eq!(search.safe(), secs(30));
    }
}

#[test]
fn a_timeout_that_gets_shorter_costs_one_connection() {
    let mut search = search();
    settle(&mut search, hours(1));
    let before = search.safe();
    assert!(before > minutes(50));
    // The safe interval is lost once, and another connection does the rest.
    search.learn(SearchOutcome::Lost { idle: before });
    assert_eq!(search.safe(), secs(30));
    let mut lost = 0;
    while let Some(idle) = search.next() {
        assert!(idle < before);
        let timeout = minutes(10);
        assert!(search.safe() < timeout);
        let outcome = on_network(timeout, idle);
        lost += u32::from(matches!(outcome, SearchOutcome::Lost { .. }));
        search.learn(outcome);
    }
    assert!(search.safe() > minutes(9) && search.safe() < minutes(10));
    assert!(lost <= 6, "{lost}");
}

#[test]
fn a_timeout_that_gets_longer_is_found_by_trying_again_what_was_lost() {
    let mut search = search();
    settle(&mut search, minutes(10));
    live(&mut search, hours(1), 15);
    assert!(search.safe() < minutes(10));
    live(&mut search, hours(1), 30);
    assert!(search.safe() > minutes(54), "{search:?}");
}

#[test]
fn what_is_lost_again_is_tried_less_and_less_often() {
    let mut search = search();
    settle(&mut search, minutes(10));
    let mut tried_after = Vec::new();
    for beat in 1..3_100 {
        search.learn(on_network(minutes(10), search.safe()));
        if let Some(idle) = search.next() {
            tried_after.push(beat);
            search.learn(on_network(minutes(10), idle));
        }
    }
    assert_eq!(tried_after, [16, 48, 112, 240, 496, 1008, 2032, 3056]);
}

#[test]
fn a_shorter_timeout_is_retried_as_soon_as_the_first() {
    let mut search = search();
    settle(&mut search, minutes(10));
    live(&mut search, minutes(10), 100);
    settle_again(&mut search, minutes(5));
    let beats = (1..100).find(|_| {
        search.learn(on_network(minutes(5), search.safe()));
        search.next().is_some()
    });
    assert_eq!(beats, Some(16));
}

/// Loses the safe interval first.
fn settle_again(search: &mut IntervalSearch, timeout: Duration) {
    search.learn(on_network(timeout, search.safe()));
    settle(search, timeout);
}

#[test]
fn what_is_lost_while_nothing_is_tried_is_retried_after_16_answers() {
    let mut search = search().method(SearchMethod::Binary);
    settle(&mut search, YEAR);
    live(&mut search, YEAR, 100);
    let idle = hours(2);
    search.learn(SearchOutcome::Lost { idle });
    assert_eq!(search.next(), None);
    let beats = (1..100).find(|_| {
        search.learn(on_network(idle, search.safe()));
        search.next().is_some()
    });
    assert_eq!((beats, search.next()), (Some(16), Some(idle)));
}

#[test]
fn the_shortest_loss_counts_and_none_beyond_the_range() {
    let mut search = search();
    for idle in [hours(3), minutes(10), minutes(20)] {
        search.learn(SearchOutcome::Lost { idle });
    }
    assert_eq!(search.lost(), Some(minutes(10)));
    search = self::search();
    search.learn(SearchOutcome::Lost { idle: hours(3) });
    assert_eq!(search, self::search());
}

#[test]
fn a_loss_is_within_the_range_if_it_is_a_twentieth_later() {
    let twentieth = hours(2) / 20;
    let mut search = search();
    search.learn(SearchOutcome::Lost {
        idle: hours(2) + twentieth + us(1),
    });
    assert_eq!(search.lost(), None);
    search.learn(SearchOutcome::Lost {
        idle: hours(2) + twentieth,
    });
    assert_eq!(search.lost(), Some(hours(2)));
}

#[test]
fn an_answer_after_the_lost_interval_itself_takes_the_loss_back() {
    let mut search = search();
    let idle = minutes(10);
    search.learn(SearchOutcome::Lost { idle });
    search.learn(SearchOutcome::Answered { idle });
    assert_eq!(search.lost(), None);
    assert_eq!(search.next(), Some(minutes(20)));
}

#[test]
fn a_margin_is_a_part_of_the_longest_answered_interval() {
    let mut search = search().margin(0.25);
    search.learn(SearchOutcome::Answered { idle: hours(1) });
    assert_eq!(search.safe(), minutes(45));
}

#[test]
fn what_goes_up_in_steps_goes_on_up_to_a_hundredth_below_a_loss() {
    let next = |method, lost| {
        let mut search = search().method(method);
        search.learn(SearchOutcome::Lost { idle: lost });
        search.next()
    };
    let doubling = |lost| next(SearchMethod::Exponential, lost);
    assert_eq!(doubling(minutes(10)), Some(minutes(1)));
    assert_eq!(doubling(secs(61)), Some(minutes(1)));
    assert_eq!(doubling(minutes(1)), None);
    // 99 s are a hundredth less than 100 s.
    let step = |length| next(SearchMethod::Step(length), secs(100));
    assert_eq!(step(secs(69) - us(1)), Some(secs(99) - us(1)));
    assert_eq!(step(secs(69)), None);
}

#[test]
fn settings_are_compared_without_what_was_learned() {
    let search = search();
    let mut further = search;
    settle(&mut further, minutes(10));
    assert!(search.has_settings_of(&further) && search != further);
    for other in [
        search.margin(0.5),
        search.resolution(0.5),
        search.method(SearchMethod::Binary),
        IntervalSearch::new(secs(30)..=hours(1)).unwrap(),
    ] {
        assert!(!other.has_settings_of(&search), "{other:?}");
    }
}

#[test]
fn composite_never_waits_longer_than_twice_what_was_answered() {
    let mut search = search();
    search.learn(SearchOutcome::Lost { idle: minutes(10) });
    assert_eq!(search.next(), Some(minutes(1)));
}

#[test]
fn a_step_of_nothing_is_the_shortest_step_that_there_is() {
    let search = search().method(SearchMethod::Step(Duration::ZERO));
    assert_eq!(search.next(), Some(secs(30) + us(1)));
}

#[test]
fn a_range_of_one_interval_is_that_interval() {
    let minute = minutes(1);
    let search = IntervalSearch::new(minute..=minute).unwrap();
    assert_eq!((search.safe(), search.next()), (minute, None));
}

#[test]
fn answers_on_a_busy_connection_bring_no_retry_nearer() {
    let mut search = search();
    settle(&mut search, minutes(10));
    let settled = search;
    for _ in 0..100 {
        search.learn(SearchOutcome::Answered { idle: minutes(4) });
    }
    assert_eq!(search, settled);
}

#[test]
fn answers_after_half_of_the_answered_interval_bring_a_retry_nearer() {
    let mut search = search().margin(0.0);
    settle(&mut search, minutes(10));
    let idle = search.safe() / 2;
    for _ in 0..16 {
        assert_eq!(search.next(), None);
        search.learn(SearchOutcome::Answered { idle });
    }
    assert_eq!(search.next(), search.lost());
}

#[test]
fn another_reason_changes_nothing_and_another_network_everything() {
    let mut search = search();
    settle(&mut search, minutes(10));
    let settled = search;
    search.learn(SearchOutcome::Unrelated);
    assert_eq!(search, settled);
    search.learn(SearchOutcome::NetworkChanged);
    assert_eq!(search, self::search());
}

#[test]
fn a_range_that_is_none_is_refused() {
    let refused = |range| IntervalSearch::new(range).unwrap_err().to_string();
    assert_eq!(
        refused(secs(2)..=secs(1)),
        "smallest = 2s: must be at most the largest interval, 1s"
    );
    assert_eq!(
        refused(Duration::ZERO..=secs(1)),
        "smallest = 0ns: must be at least 1µs"
    );
    assert!(IntervalSearch::new(secs(1)..=YEAR + us(1)).is_err());
}

#[test]
fn a_search_comes_back_from_a_file_and_goes_on() {
    let mut search = search();
    for timeout in [minutes(10), secs(1), hours(3)] {
        while let Some(idle) = search.next() {
            let text = serde_json::to_string(&search).unwrap();
            assert_eq!(
                serde_json::from_str::<IntervalSearch>(&text).unwrap(),
                search
            );
            search.learn(on_network(timeout, idle));
        }
        search.learn(SearchOutcome::NetworkChanged);
    }
}

#[test]
fn a_search_at_the_limits_of_its_settings_comes_back_from_a_file() {
    let mut at_the_floor = search();
    at_the_floor.learn(SearchOutcome::Lost { idle: secs(1) });
    for search in [at_the_floor, search().margin(1.0), search().resolution(1.0)] {
        let read = serde_json::from_value(serde_json::to_value(search).unwrap());
        assert_eq!(read.ok(), Some(search));
    }
}

#[test]
fn a_file_with_a_loss_at_or_below_an_answered_interval_is_refused() {
    let mut answered = search();
    let idle = minutes(1);
    answered.learn(SearchOutcome::Answered { idle });
    for lost in [minutes(1), secs(30)] {
        let mut bad = serde_json::to_value(answered).unwrap();
        bad["lost"] = u64::try_from(lost.as_micros()).unwrap().into();
        let read = serde_json::from_value::<IntervalSearch>(bad);
        assert!(read.is_err(), "{lost:?}: {read:?}");
    }
}

#[test]
fn a_file_with_a_search_that_cannot_be_is_refused() {
    let good = serde_json::to_value(search()).unwrap();
    for (name, value) in [
        ("smallest", 0.into()),
        ("largest", 1.into()),
        ("answered", 1.into()),
        ("answered", u64::MAX.into()),
        ("lost", 1.into()),
        ("lost", u64::MAX.into()),
        ("margin", 1_000_001.into()),
        ("resolution", 1_000_001.into()),
        ("rest", 0.into()),
        ("rest", u32::MAX.into()),
        ("method", serde_json::Value::from("Guess")),
        ("further", 1.into()),
    ] {
        let mut bad = good.clone();
        bad[name] = value;
        let read = serde_json::from_value::<IntervalSearch>(bad);
        assert!(read.is_err(), "{name}: {read:?}");
    }
}

#[test]
fn an_idle_time_ends_with_what_leaves_and_is_survived_with_what_arrives() {
    let at = |time: Duration| Instant::ORIGIN + time;
    let mut gauge = IdleGauge::new(at(secs(0)));
    // The peer asks after 40 s; the answer ends no idle time.
    gauge.handle_received(at(secs(40)));
    gauge.handle_sent(at(secs(40)));
    assert_eq!(gauge.take_survived(), None);
    // We ask after 60 s more, and again, and are answered then.
    gauge.handle_sent(at(secs(100)));
    gauge.handle_sent(at(secs(103)));
    assert_eq!(gauge.take_survived(), None);
    assert_eq!(gauge.unanswered(at(secs(104))), secs(60));
    gauge.handle_received(at(secs(104)));
    assert_eq!(gauge.take_survived(), Some(secs(60)));
    assert_eq!(gauge.take_survived(), None);
    // Of two, the longer one is told.
    gauge.handle_sent(at(secs(134)));
    gauge.handle_received(at(secs(134)));
    gauge.handle_sent(at(secs(144)));
    gauge.handle_received(at(secs(144)));
    assert_eq!(gauge.take_survived(), Some(secs(30)));
    gauge.handle_received(at(secs(164)));
    gauge.handle_sent(at(secs(224)));
    // A proxy closes it while nothing passes.
    assert_eq!(gauge.unanswered(at(secs(230))), secs(60));
}

#[test]
fn a_clock_that_runs_backwards_makes_no_idle_time() {
    let mut gauge = IdleGauge::new(Instant::from_micros(1_000));
    gauge.handle_sent(Instant::ORIGIN);
    gauge.handle_received(Instant::ORIGIN);
    assert_eq!(gauge.take_survived(), None);
    let at = |time: Duration| Instant::ORIGIN + time;
    gauge.handle_received(at(secs(10)));
    gauge.handle_received(at(secs(5)));
    assert_eq!(gauge.unanswered(at(secs(10))), Duration::ZERO);
    gauge.handle_sent(at(secs(5)));
    assert_eq!(gauge.unanswered(at(secs(10))), Duration::ZERO);
    gauge.handle_sent(Instant::MAX);
    gauge.handle_received(Instant::ORIGIN);
    assert!(gauge.take_survived() > Some(YEAR));
    assert_eq!(gauge.unanswered(Instant::ORIGIN), Duration::ZERO);
}

fn methods() -> impl Strategy<Value = SearchMethod> {
    prop_oneof![
        Just(SearchMethod::Binary),
        Just(SearchMethod::Exponential),
        Just(SearchMethod::Composite),
        (1..600_u64).prop_map(|step| SearchMethod::Step(secs(step))),
    ]
}

/// A search in any range.
fn searches() -> impl Strategy<Value = IntervalSearch> {
    let times = (1..=7_200_000_000_u64, 0..=7_200_000_000_u64);
    (methods(), times, 0.0..=1.0, 0.0..=1.0).prop_map(|(method, (smallest, more), margin, part)| {
        IntervalSearch::new(us(smallest)..=us(smallest + more))
            .unwrap()
            .method(method)
            .margin(margin)
            .resolution(part)
    })
}

/// Any report, also of idle times that no clock can have measured.
fn outcomes() -> impl Strategy<Value = SearchOutcome> {
    let idle = prop_oneof![
        8 => (0..15_000_000_000_u64).prop_map(us),
        1 => Just(Duration::ZERO),
        1 => Just(Duration::MAX),
    ];
    prop_oneof![
        8 => idle.clone().prop_map(|idle| SearchOutcome::Answered { idle }),
        8 => idle.prop_map(|idle| SearchOutcome::Lost { idle }),
        2 => Just(SearchOutcome::Unrelated),
        1 => Just(SearchOutcome::NetworkChanged),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn it_never_leaves_its_range_nor_calls_safe_what_was_lost_since(
        mut search in searches(),
        reports in prop::collection::vec(outcomes(), 0..100),
    ) {
        let range = search.range();
        // Lost, and nothing as long answered since.
        let mut lost: Vec<Duration> = Vec::new();
        for report in reports {
            search.learn(report);
            match report {
                SearchOutcome::Answered { idle } => lost.retain(|lost| *lost > idle),
                SearchOutcome::Lost { idle } => lost.push(idle),
                SearchOutcome::NetworkChanged => lost.clear(),
                _ => {}
            }
            prop_assert!(range.contains(&search.safe()));
            prop_assert!(search.next().is_none_or(|next| range.contains(&next)));
            let is_smallest = search.safe() == *range.start();
            let shortest = lost.iter().min().copied();
            prop_assert!(is_smallest || shortest.is_none_or(|lost| search.safe() < lost));
        }
    }

    #[test]
    fn it_settles_on_every_network_whatever_it_believed_before(
        timeout in (1..20_000_000_000_u64).prop_map(us),
        method in methods(),
        reports in prop::collection::vec(outcomes(), 0..30),
    ) {
        let mut search = search().method(method).margin(0.0);
        for report in reports {
            search.learn(report);
        }
        let most = match method {
            SearchMethod::Step(step) => 7_200 / step.as_secs() + 1,
            _ => 16,
        };
        // What it believes that isn't so costs one connection.
        for _ in 0..2 {
            prop_assert!(u64::from(settle(&mut search, timeout).0) <= most);
            search.learn(on_network(timeout, search.safe()));
        }
        prop_assert!(search.safe() < timeout || search.safe() == secs(30));
    }

    #[test]
    fn on_a_network_whose_timeout_varies_it_stays_below_what_was_kept_last(
        timeouts in prop::collection::vec(30_000_000..7_200_000_000_u64, 1..60),
    ) {
        let mut search = search();
        for timeout in timeouts.into_iter().map(us) {
            // The connection that matters is lost at most once for each change.
            let mut lost = 0;
            for _ in 0..40 {
                let beat = on_network(timeout, search.safe());
                if search.safe() > secs(30) {
                    lost += u32::from(matches!(beat, SearchOutcome::Lost { .. }));
                }
                search.learn(beat);
                if let Some(idle) = search.next() {
                    search.learn(on_network(timeout, idle));
                }
            }
            prop_assert!(lost <= 1, "{lost}");
            prop_assert!(search.safe() < timeout || search.safe() == secs(30));
        }
    }
}

#[test]
fn a_millisecond_is_told_apart_from_the_next_if_asked_for() {
    let mut search = IntervalSearch::new(ms(1)..=hours(1))
        .unwrap()
        .resolution(0.0)
        .margin(0.0);
    settle(&mut search, us(12_345_678));
    assert_eq!(search.safe(), us(12_345_677));
}
