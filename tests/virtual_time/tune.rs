//! `examples/tune`: what it recommends can be pasted and keeps its promise, what
//! it predicts comes true, and what can't be is told. (With a real peer, and on
//! a real network: `real_time/networks/tune.rs`.)
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "how a test fails"
)]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
    time::Duration,
};

use heartbeat_core::{
    Event, IntervalSearch, SearchOutcome,
    testkit::{Direction, Link, Side, Simulation, minutes},
};
use heartbeat_tests::{example, free_address, ms, secs};
use heartbeat_tokio::{Config, IntervalFile, SafetyNet};
use serde_json::Value;

const WIDE: &str = "--rtt 80ms --jitter 20ms --loss 2% --outage 2s --detect-within 6s";

// ---- what it recommends -----------------------------------------------------

#[test]
fn what_it_prints_is_a_configuration_that_keeps_its_promise() {
    let found = Found::of(&format!("{WIDE} --connections 50000"));
    let config: Config = toml::from_str(&found.text).unwrap();
    assert_eq!(config.detection_time(), secs(6));
    assert_eq!(found.value["bound"], 6.0);
    for words in [
        "# A death is detected within 6s: promised.",
        "simulated deaths, half within",
        "a day for 50000.",
        "bytes with their headers",
        "s of one core",
    ] {
        assert!(found.text.contains(words), "{words}: {}", found.text);
    }

    // It survives an outage of 2 s, which TCP makes 4 of, and a round trip.
    assert!(config.timeout() * config.max_missed() >= secs(4) + ms(120));
    assert!(config.timeout() >= ms(120));
    // What the knobs in the other file say is the same.
    let knobs = toml::to_string(&found.value["config"]).unwrap();
    assert_eq!(toml::from_str::<Config>(&knobs).unwrap(), config);
}

#[test]
fn detection_times_lie_below_the_bound_and_what_was_on_its_way() {
    let found = Found::of(WIDE);
    let detection = &found.value["detection"];
    let at = |name: &str| detection[name].as_f64().unwrap();
    assert!(detection["deaths"].as_u64() > Some(1000));
    assert!(at("p50") <= at("p90") && at("p90") <= at("p99") && at("p99") <= at("max"));
    assert!(at("p50") > 4.0);
    // Half a round trip and the jitter.
    assert!(at("max") <= 6.0 + 0.06);
}

#[test]
fn limits_of_a_rate_are_where_chance_puts_them() {
    // The sum of the Poisson distribution up to, but without, `count`.
    let below = |count: u64, expected: f64| -> f64 {
        // By their logarithms, because the first of many are too small.
        let terms = (0..count).scan(-expected, |term, index| {
            let this = *term;
            *term += (expected / (index + 1) as f64).ln();
            Some(this.exp())
        });
        terms.sum()
    };
    let mut counts = Vec::new();
    let networks = [WIDE, "--rtt 80ms --loss 20% --detect-within 4s"].map(Found::of);
    let tried = networks.iter().map(|found| &found.value["candidates"]);
    for tried in tried.flat_map(|tried| tried.as_array().unwrap()) {
        let alarms = &tried["false_alarms"];
        let count = alarms["count"].as_u64().unwrap();
        let days = alarms["simulated_days"].as_f64().unwrap();
        let limit = |name: &str| alarms["of_one"][name].as_f64().unwrap() * days;
        counts.push(count);
        let found = below(count + 1, limit("high"));
        // Of many, the inverse is found to fewer digits.
        let digits = if count < 100 { 1e-6 } else { 1e-3 };
        assert!((found - 0.025).abs() < digits, "{found}, {count}");
        match count {
            0 => assert_eq!(limit("low"), 0.0),
            _ => {
                let found = 1.0 - below(count, limit("low"));
                assert!((found - 0.025).abs() < digits, "{found}, {count}");
            }
        }
    }
    counts.sort();
    assert!(
        counts.first() == Some(&0) && counts.last() > Some(&50),
        "{counts:?}"
    );
}

#[test]
fn a_configuration_that_is_given_is_judged_and_not_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.toml");
    let mine =
        "interval = \"1s\"\ntimeout = \"500ms\"\nmax_missed = 4\njitter = 0.0\nrole = \"both\"\n";
    fs::write(&path, mine).unwrap();
    let found = Found::of(&format!("--rtt 10ms --loss 1% --config {}", path.display()));
    let config: Config = toml::from_str(mine).unwrap();
    assert_eq!(toml::from_str::<Config>(&found.text).unwrap(), config);
    // Only what isn't usual is said.
    assert!(!found.text.contains("max_frame"));

    fs::write(&path, "interval = \"1s\"\nintervall = \"2s\"\n").unwrap();
    let error = refused(&format!("--rtt 10ms --config {}", path.display()));
    assert!(
        error.contains("mine.toml") && error.contains("intervall"),
        "{error}"
    );
}

#[test]
fn the_same_seed_gives_the_same_answer_and_another_one_another() {
    let run = |seed: u32| {
        let found =
            Found::of(&format!("{WIDE} --loss 10% --seed {seed}").replace("--loss 2% ", ""));
        (found.text, found.value)
    };
    let first = run(7);
    assert_eq!(first, run(7));
    assert_ne!(first.1["candidates"], run(8).1["candidates"]);
}

#[test]
fn the_picture_shows_every_candidate() {
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("tune.svg");
    let found = Found::of(&format!("{WIDE} --svg {}", picture.display()));
    let drawn = fs::read_to_string(picture).unwrap();
    assert!(drawn.starts_with("<svg "));
    let marks = drawn.matches("<circle").count() + drawn.matches("<polygon").count();
    assert_eq!(marks, found.value["candidates"].as_array().unwrap().len());
    // The recommendation, and its label.
    assert!(drawn.contains("#FF0000"));
    let chosen = usize::try_from(found.value["chosen"].as_u64().unwrap()).unwrap();
    let interval = &found.value["candidates"][chosen]["interval"];
    assert!(drawn.contains(&format!("{interval} s + ")), "{interval}");
}

// ---- what can't be ----------------------------------------------------------

#[test]
fn wishes_that_contradict_each_other_are_named_with_what_would_do() {
    let cases = [
        (
            "--rtt 80ms --outage 8s --detect-within 6s",
            "an outage of 8s and a detection within 6s contradict each other",
            &["--detect-within", "--outage"][..],
        ),
        (
            "--rtt 2s --jitter 1s --detect-within 3s",
            "a round trip of up to 4s and a detection within 3s contradict each other",
            &["--detect-within"],
        ),
        (
            "--rtt 80ms --loss 5% --detect-within 400ms",
            "a loss of 5 % and a detection within 400ms contradict each other",
            &["--detect-within"],
        ),
    ];
    for (wishes, words, ways) in cases {
        let output = tune(wishes);
        assert_eq!(output.status.code(), Some(1), "{wishes}");
        assert!(output.stdout.is_empty());
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(words), "{error}");
        for way in ways {
            // What would do, does.
            let advice = error.split_once(&format!("{way} ")).unwrap().1;
            let advice = advice.split_whitespace().next().unwrap();
            let (before, after) = wishes.split_once(way).unwrap();
            let after = after
                .trim_start()
                .split_once(' ')
                .map_or("", |(_, rest)| rest);
            let changed = format!("{before}{way} {advice} {after}");
            assert!(tune(&changed).status.success(), "{wishes}: {changed}");
        }
    }
}

#[test]
fn a_kernel_that_repeats_often_needs_less_time_after_an_outage() {
    let wishes = "--rtt 20ms --outage 8s --detect-within 15s";
    assert_eq!(tune(wishes).status.code(), Some(1));
    let found = Found::of(&format!("{wishes} --linux-6-15"));
    assert_eq!(found.value["bound"], 15.0);
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    for (arguments, words) in [
        ("--detect-within 6s", "--rtt"),
        ("--rtt 80ms", "--detect-within"),
        ("--rtt soon --detect-within 6s", "--rtt"),
        ("--rtt -1s --detect-within 6s", "-1"),
        ("--rtt 80ms --loss 60% --detect-within 6s", "from 0% to 50%"),
        ("--rtt 80ms --detect-within 0s", "--detect-within"),
        ("--rtt 2d --detect-within 6s", "--rtt"),
        ("--rtt 48h --detect-within 6s", "at most a day"),
        (
            "--rtt 80ms --outage 2s --outage-every 1s --detect-within 6s",
            "contradict",
        ),
        (
            "--rtt 80ms --detect-within 6s --connections 0",
            "--connections",
        ),
        ("--rtt 80ms --config missing.toml", "missing.toml"),
        ("--measured missing.txt --detect-within 6s", "missing.txt"),
        ("--rtt 80ms --detect-within 6s --try-connections 5", "--try"),
    ] {
        let error = refused(arguments);
        assert!(error.contains(words), "{arguments}: {error}");
    }
}

// ---- what it measures -------------------------------------------------------

#[test]
fn round_trips_in_a_file_tell_what_the_network_is_like() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("round_trips.txt");
    // One of a hundred was repeated.
    let usual = (0..99).map(|index| format!("{}ms\n", 80 + index % 41));
    let text = format!("# a comment\n\n{}500ms\n", usual.collect::<String>());
    fs::write(&path, &text).unwrap();
    let found = Found::of(&format!("--measured {} --detect-within 6s", path.display()));
    let network = &found.value["network"];
    assert_eq!(network["rtt"], 0.08);
    assert_eq!(network["jitter"], 0.02);
    let loss = network["loss"].as_f64().unwrap();
    assert!((1.0 - (1.0 - loss).powi(2) - 0.01).abs() < 1e-9, "{loss}");
    assert_eq!(network["samples"], 100);
    // What is said counts for more.
    let said = Found::of(&format!(
        "--measured {} --loss 3% --detect-within 6s",
        path.display()
    ));
    assert_eq!(said.value["network"]["loss"], 0.03);

    fs::write(&path, format!("{text}80 parsecs\n")).unwrap();
    let error = refused(&format!("--measured {} --detect-within 6s", path.display()));
    assert!(error.contains("round_trips.txt: line 103"), "{error}");
    fs::write(&path, "# nothing\n").unwrap();
    let error = refused(&format!("--measured {} --detect-within 6s", path.display()));
    assert!(error.contains("at least two"), "{error}");
}

#[test]
fn no_interval_is_longer_than_what_was_learned_of_the_network() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("intervals.json");
    let mut learned = IntervalSearch::new(ms(500)..=secs(60)).unwrap();
    learned.learn(SearchOutcome::Answered { idle: secs(1) });
    let mut file = IntervalFile::empty(&path);
    file.remember("home", learned);
    file.write().unwrap();
    let learned = format!("{WIDE} --learned {} --network", path.display());
    let (output, found) = run(&format!("{learned} home"));
    assert!(output.status.success(), "{output:?}");
    let candidates = found.unwrap()["candidates"].as_array().unwrap().clone();
    let intervals = candidates
        .iter()
        .map(|tried| tried["interval"].as_f64().unwrap());
    assert_eq!(intervals.fold(0.0, f64::max), 0.95);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("# (Learned: an interval of 950ms is safe there.)"),
        "{text}"
    );
    let error = refused(&format!("{learned} work"));
    assert!(error.contains("nothing was learned in \"work\""), "{error}");
}

#[test]
fn a_peer_that_is_not_there_is_told() {
    let address = free_address().unwrap().to_string();
    let error = refused(&format!("--measure {address} --detect-within 2s"));
    assert!(error.contains(&address), "{error}");
}

// ---- what comes true --------------------------------------------------------

/// Counted by other code, with other seeds. `HEARTBEAT_TUNE_DAYS` for longer, of
/// the network in `HEARTBEAT_TUNE` (round trip in ms, loss in %):
///
/// ```text
/// HEARTBEAT_TUNE="400 10" HEARTBEAT_TUNE_DAYS=50 \
///     cargo test --release -p heartbeat-tests --test virtual_time prediction -- --nocapture
/// ```
#[test]
fn the_prediction_holds_in_an_independent_simulation() {
    let days = env::var("HEARTBEAT_TUNE_DAYS").map_or(0.5, |days| days.parse().unwrap());
    let network = env::var("HEARTBEAT_TUNE").unwrap_or_else(|_| "80 20".into());
    let (rtt, loss) = network.split_once(' ').unwrap();
    let (rtt, loss): (u64, f64) = (rtt.parse().unwrap(), loss.parse().unwrap());

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.toml");
    fs::write(&path, "interval = \"1s\"\ntimeout = \"667ms\"\n").unwrap();
    let config: Config = toml::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let arguments = format!(
        "--rtt {rtt}ms --loss {loss}% --linux-6-15 --days {days} --config {}",
        path.display()
    );
    let predicted = Found::of(&arguments).value;

    let longest = SafetyNet::retransmit_timeout_while_suspect(&config);
    let link = Link::new().rtt(ms(rtt)).loss(loss / 100.0);
    let link = link.retransmit_within(longest);
    let mut seeds = 0x5eed_0000_0000_u64..;
    let mut lived = Duration::ZERO;
    let mut mistakes = 0_u32;
    while lived.as_secs_f64() < days * 86_400.0 {
        let simulation = Simulation::new(config, link.clone(), seeds.next().unwrap());
        let report = simulation.run_for(minutes(60));
        let over = [Side::A, Side::B].into_iter().filter_map(|side| {
            let mut events = report.events(side);
            events
                .find(|(_, event)| matches!(event, Event::Dead(_)))
                .map(|(at, _)| at)
        });
        lived += over.min().unwrap_or(minutes(60));
        mistakes += u32::from(report.assert_no_false_alarm().is_err());
    }
    let lived = lived.as_secs_f64() / 86_400.0;
    let rate = f64::from(mistakes) / lived;
    let limits = &predicted["false_alarms"]["of_one"];
    println!(
        "false alarms a day: predicted {limits}, and {rate:.1}: {mistakes} in {lived:.2} days"
    );
    // The counts of both vary by their roots; three times that is beyond chance.
    let counts = [
        predicted["false_alarms"]["count"].as_f64().unwrap(),
        f64::from(mistakes),
    ];
    let rates = [limits["a_day"].as_f64().unwrap(), rate];
    let variance = rates[0].powi(2) / counts[0] + rates[1].powi(2) / counts[1];
    assert!(counts[1] > 30.0 && (rates[0] - rates[1]).abs() < 3.0 * variance.sqrt());

    let mut took: Vec<_> = (0..4000)
        .filter_map(|index| {
            let at = secs(20) + ms(index * 7919 % 10_000);
            let simulation = Simulation::new(config, link.clone(), seeds.next().unwrap());
            let report = simulation.cut(Direction::Both, at).run_for(minutes(2));
            report.assert_no_false_alarm().ok()?;
            report.detection_time(Side::B)
        })
        .collect();
    took.sort();
    for (name, part) in [("p50", 50), ("p90", 90), ("p99", 99)] {
        let measured = took[took.len() * part / 100].as_secs_f64();
        let expected = predicted["detection"][name].as_f64().unwrap();
        println!("{name}: predicted {expected:.3} s, and {measured:.3} s");
        assert!(
            (measured - expected).abs() < 0.05,
            "{name}: {expected}, {measured}"
        );
    }
}

// ---- how it is run ----------------------------------------------------------

/// What it says of wishes that can be granted.
struct Found {
    text: String,
    value: Value,
}

impl Found {
    fn of(arguments: &str) -> Self {
        let (output, value) = run(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments}: {error}");
        Self {
            text: String::from_utf8(output.stdout).unwrap(),
            value: value.unwrap(),
        }
    }
}

fn run(arguments: &str) -> (Output, Option<Value>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("found.json");
    let output = tune(&format!("{arguments} --json {}", path.display()));
    let read = |path: &Path| serde_json::from_str(&fs::read_to_string(path).ok()?).ok();
    (output, read(&path))
}

/// The complaint about arguments that it can't use.
fn refused(arguments: &str) -> String {
    let output = tune(arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments}");
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

fn tune(arguments: &str) -> Output {
    static TUNE: OnceLock<PathBuf> = OnceLock::new();
    let program = TUNE.get_or_init(|| example("tune"));
    let mut tune = Command::new(program);
    tune.arg("--quick").args(arguments.split_whitespace());
    tune.output().unwrap()
}
