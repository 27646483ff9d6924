//! A judge of `heartbeat_core::Monitor`, written from docs/state-machine.md
//! and docs/timings.md alone.
//!
//! It sees a monitor's inputs and outputs and nothing of its internals. From
//! the history it computes which deadlines, frames, events and values are
//! allowed after each call, and compares. What is random is a range, narrowed
//! by what is shown.
//!
//! `HEARTBEAT_STEPS` sets how many calls are judged, `HEARTBEAT_SEED` which.
//! With `HEARTBEAT_SURVEY` all broken rules are listed, with one script for
//! each whose name contains its value.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

mod after;
mod api;
mod dice;
mod facts;
mod flood;
mod fork;
mod judge;
mod life;
mod moves;
mod one;
mod ops;
mod pair;
mod parting;
mod peer;
mod promises;
mod rounds;
mod rtt;
mod scenes;
mod seen;
mod shrink;
mod side;
mod span;
mod stage;
mod tally;
mod terms;
mod told;

use std::collections::BTreeMap;

use judge::{Failure, Violation};
use ops::Script;
use tally::Tally;

/// Plays one script with a seed.
type Driver = fn(u64, &mut Tally) -> Result<(), Failure>;

fn knob(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => default,
    }
}

/// Plays scripts until `percent` of all steps are made.
fn run(name: &str, percent: u64, driver: Driver, wanted: &[&str]) {
    let steps = knob("HEARTBEAT_STEPS", 2_000_000) / 100 * percent;
    let seed = knob("HEARTBEAT_SEED", 1).wrapping_shl(40);
    let survey = std::env::var("HEARTBEAT_SURVEY").ok();
    let mut tally = Tally::default();
    let mut scripts = 0;
    let mut found: BTreeMap<String, (u64, Script, Violation)> = BTreeMap::new();
    while tally.0.get("steps").copied().unwrap_or(0) < steps {
        let played = driver(seed.wrapping_add(scripts), &mut tally);
        scripts += 1;
        let Err(failure) = played else {
            continue;
        };
        let (script, violation) = *failure;
        if survey.is_none() {
            panic!(
                "{name}, script {scripts}: {}",
                shrink::report(script, violation)
            );
        }
        let rule = violation.rule.clone();
        let known = found
            .entry(rule)
            .or_insert_with(|| (0, script.clone(), violation.clone()));
        known.0 += 1;
        if script.calls.len() < known.1.calls.len() {
            (known.1, known.2) = (script, violation);
        }
    }
    println!("{name}: {scripts} scripts: {}", tally.line());
    let Some(only) = survey else {
        tally.require(wanted);
        return;
    };
    let mut found: Vec<_> = found.into_values().collect();
    found.sort_by_key(|(count, ..)| std::cmp::Reverse(*count));
    for (count, _, violation) in &found {
        println!("{count:8} {}", violation.rule);
    }
    for (_, script, violation) in found.clone() {
        if !only.is_empty() && violation.rule.contains(&only) {
            println!("\n{}", shrink::report(script, violation));
        }
    }
    assert!(found.is_empty(), "{} rules are broken", found.len());
}

#[test]
fn one_monitor_under_an_arbitrary_driver() {
    run(
        "one monitor",
        60,
        one::play,
        &[
            "stalls",
            "stalls with evidence",
            "stalls in a pause",
            "late calls",
            "calls 1 us early",
            "pauses",
            "probes",
            "probes in a pause",
            "half-closes",
            "Hellos that change I*",
            "intervals that are set",
            "intervals that are refused",
            "backlogs",
            "changes of what is allowed",
            "occupied",
            "speaks",
            "acknowledgements",
            "old acknowledgements",
            "old acknowledgements after a stall",
            "answers before the flush",
            "pings",
            "pongs",
            "asks along",
            "signs of life",
            "Fins",
            "goodbyes",
            "answers",
            "refused answers",
            "verdicts",
            "stalls while leaving",
            "pauses while leaving",
            "deaths while leaving",
            "Connected",
            "Beat",
            "Finished",
            "Suspect (early)",
            "Suspect",
            "Recovered",
            "LocalStall",
            "Closed(Local)",
            "Closed(Peer)",
            "Closed(Unconfirmed)",
            "Closed(Finished)",
            "Dead(Silent)",
            "Dead(WriteStalled)",
            "Dead(Refused)",
            "Dead(NotReading)",
            "Dead(Loop)",
            "Dead(end)",
            "Dead(PingFlood)",
            "Dead(GivenUp)",
        ],
    );
}

#[test]
fn two_monitors_over_a_link_that_holds_and_loses() {
    run(
        "two monitors",
        25,
        pair::play,
        &[
            "stalls",
            "stalls with evidence",
            "late calls",
            "pauses",
            "probes",
            "backlogs",
            "pings",
            "pongs",
            "asks along",
            "signs of life",
            "Fins",
            "goodbyes",
            "answers",
            "verdicts",
            "both leave",
            "Connected",
            "Beat",
            "Finished",
            "Suspect",
            "Recovered",
            "LocalStall",
            "Closed(Local)",
            "Closed(Peer)",
            "Closed(Unconfirmed)",
            "Closed(Finished)",
            "Dead(Silent)",
            "Dead(WriteStalled)",
            "Dead(GivenUp)",
            "holds",
            "blocked flushes",
        ],
    );
}

#[test]
fn a_compliant_peer_that_pings_as_fast_as_it_may() {
    run(
        "a compliant peer",
        15,
        peer::play,
        &[
            "pings",
            "pongs",
            "asks along",
            "signs of life",
            "Connected",
            "Beat",
            "stalls with evidence",
            "holds",
            "bursts above 100",
            "goodbyes",
            "Closed(Local)",
        ],
    );
}
