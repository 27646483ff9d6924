//! `docs/observability.md` lists all metrics and log lines, and `docs/grafana.json` uses no
//! others.

use std::collections::{BTreeMap, BTreeSet};

use futures::{FutureExt, StreamExt};
use heartbeat_core::Control;
use heartbeat_tests::{ms, quick, secs, wrapped};
use heartbeat_tokio::{Heartbeat, PeerEvent};
use serde_json::Value;
use tokio::time::{advance, sleep};

use crate::{
    ends::ENDS,
    no_tcp,
    promql::{Series, asked},
    seen::{Log, Metrics, Seen, watched},
};

const PAGE: &str = include_str!("../../docs/observability.md");
const DASHBOARD: &str = include_str!("../../docs/grafana.json");

/// A metric as the page lists it.
#[derive(Debug)]
struct Listed {
    kind: &'static str,
    /// Its labels and their values.
    labels: BTreeMap<&'static str, BTreeSet<&'static str>>,
}

#[test]
fn the_page_lists_every_metric_and_no_other() {
    let (metrics, _) = everything();
    let listed = listed();
    let kinds = listed.iter().map(|(name, listed)| (*name, listed.kind));
    let emitted = metrics.kinds.iter();
    assert_eq!(
        kinds.collect::<BTreeMap<_, _>>(),
        emitted.map(|(name, kind)| (&**name, &**kind)).collect()
    );
    for (name, Listed { kind, .. }) in &listed {
        assert!(metrics.helps[*name].ends_with('.'), "{name}");
        assert_eq!(*kind == "counter", name.ends_with("_total"), "{name}");
        assert_eq!(*kind == "histogram", name.ends_with("_seconds"), "{name}");
    }
    for series in metrics.samples.keys() {
        let series = &asked(series).series[0];
        let mine = &listed[base(series, &listed)].labels;
        for (label, values) in series.labels.iter().filter(|(label, _)| *label != "le") {
            let mine = mine.get(&**label);
            assert!(
                mine.is_some_and(|mine| mine.contains(&*values[0])),
                "{series:?}"
            );
        }
        let labels = series.labels.keys().filter(|label| *label != "le");
        assert_eq!(labels.count(), mine.len(), "{series:?}");
    }
}

#[test]
fn the_page_lists_every_event_with_its_level_and_fields() {
    let (_, log) = everything();
    let mut logged = BTreeMap::<_, BTreeSet<&str>>::new();
    for line in &log.events {
        let fields = logged
            .entry((&*line.message, line.level.as_str()))
            .or_default();
        fields.extend(line.fields.keys());
    }
    let mut listed = BTreeMap::new();
    for [level, kind, names, fields, ..] in rows() {
        if kind == "event" {
            for name in quoted(names) {
                listed.insert((name, level), quoted(fields).collect::<BTreeSet<_>>());
            }
        }
    }
    assert_eq!(listed, logged);
    assert!(log.spans.iter().all(|span| span.name == "heartbeat"));
}

#[test]
fn the_dashboard_and_the_alerts_ask_for_what_there_is() {
    let listed = listed();
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut shown = BTreeSet::new();
    let mut panels = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        panels += 1;
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{panel}");
        for target in targets {
            let expression = target["expr"].as_str().unwrap();
            shown.extend(check(expression, &listed));
            // Only what was chosen at its top.
            for Series { labels, .. } in asked(expression).series {
                assert_eq!(labels["job"], ["$job"], "{expression}");
                assert_eq!(labels["instance"], ["$instance"], "{expression}");
            }
        }
    }
    assert!(panels >= 12);
    assert_eq!(shown, listed.keys().copied().collect(), "all are shown");

    let alerts = PAGE.split("```promql\n").skip(1);
    let alerts: Vec<_> = alerts
        .map(|rest| rest.split_once("```").unwrap().0)
        .collect();
    assert!(alerts.len() >= 10);
    for alert in alerts {
        check(alert, &listed);
    }
}

/// As Grafana needs it: panels that don't overlap, with ids of their own, and a
/// data source that is chosen when it is imported.
#[test]
fn the_dashboard_can_be_imported_anywhere() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    assert!(dashboard["id"].is_null());
    assert!(
        dashboard["schemaVersion"].as_u64() >= Some(38),
        "of Grafana 10"
    );
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let variables: Vec<_> = variables
        .iter()
        .map(|v| v["name"].as_str().unwrap())
        .collect();
    assert_eq!(variables, ["datasource", "job", "instance"]);
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        assert!(!panel["description"].as_str().unwrap().is_empty());
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(x < 24 && taken.insert((x, y)), "{panel}");
            }
        }
        let sources = panel["targets"].as_array().unwrap().iter().chain([panel]);
        for source in sources {
            assert_eq!(source["datasource"]["uid"], "${datasource}");
        }
    }
}

/// Panics if it asks for something that isn't listed; the metrics otherwise.
fn check(expression: &str, listed: &BTreeMap<&'static str, Listed>) -> Vec<&'static str> {
    let asked = asked(expression);
    let mut bases = Vec::new();
    let mut known = BTreeSet::from(["job", "instance"]);
    for series in &asked.series {
        let base = base(series, listed);
        let Listed { kind, labels } = &listed[base];
        assert_eq!(*kind == "histogram", series.name != base, "{expression}");
        for (label, values) in &series.labels {
            if label == "job" || label == "instance" {
                continue;
            }
            let mine = labels.get(&**label).expect(expression);
            assert!(
                values.iter().all(|value| mine.contains(&**value)),
                "{expression}"
            );
        }
        known.extend(labels.keys());
        known.extend(series.name.ends_with("_bucket").then_some("le"));
        bases.push(base);
    }
    assert!(!bases.is_empty(), "{expression}");
    assert!(
        asked.by.iter().all(|label| known.contains(&**label)),
        "{expression}"
    );
    bases
}

/// The metric that a series belongs to.
fn base(series: &Series, listed: &BTreeMap<&'static str, Listed>) -> &'static str {
    let name = ["_bucket", "_sum", "_count"]
        .iter()
        .find_map(|suffix| series.name.strip_suffix(suffix))
        .unwrap_or(&series.name);
    let found = listed.keys().find(|listed| **listed == name);
    found.unwrap_or_else(|| panic!("{name} isn't listed"))
}

fn listed() -> BTreeMap<&'static str, Listed> {
    let mut all = BTreeMap::new();
    for [name, kind, labels, ..] in rows() {
        let Some(name) = quoted(name).find(|name| name.starts_with("heartbeat_")) else {
            continue;
        };
        let labels = labels.split("; ").filter(|label| !label.is_empty());
        let labels = labels.map(|label| {
            let mut words = quoted(label);
            (words.next().unwrap(), words.collect::<BTreeSet<_>>())
        });
        all.insert(
            name,
            Listed {
                kind,
                labels: labels.collect(),
            },
        );
    }
    assert!(all.len() > 15);
    // "as above"
    let causes = all["heartbeat_deaths_total"].labels["cause"].clone();
    let detection = all.get_mut("heartbeat_detection_seconds").unwrap();
    detection.labels.insert("cause", causes);
    all
}

/// The tables' rows.
fn rows() -> impl Iterator<Item = [&'static str; 5]> {
    PAGE.lines()
        .filter(|line| line.starts_with('|'))
        .map(|line| {
            let mut cells = [""; 5];
            let inner = line.trim_start_matches("| ").trim_end_matches('|');
            for (cell, text) in cells.iter_mut().zip(inner.split('|')) {
                *cell = text.trim();
            }
            cells
        })
}

/// What stands between backticks.
fn quoted(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.split('`').skip(1).step_by(2)
}

/// All that can happen.
fn everything() -> (Metrics, Log) {
    let Seen { metrics, log, .. } = watched(async |_| {
        for end in ENDS {
            (end.run)().await;
        }
        comes_back().await;
        a_pause().await;
        stalls().await;
        refused().await;
    });
    (metrics, log)
}

async fn comes_back() {
    let (mut heartbeat, mut peer) = wrapped(quick());
    peer.greet(quick()).await;
    tokio::spawn(async move {
        peer.answer_for(secs(2)).await;
        sleep(ms(550)).await;
        let ping = Control::Ping(heartbeat_core::Nonce([1; 8]));
        peer.send_control(ping).await;
        peer.answer_for(secs(1)).await;
    });
    let mut recovered = false;
    while let Some(event) = heartbeat.next().await {
        recovered |= matches!(event, PeerEvent::Recovered { .. });
    }
    assert!(recovered);
}

async fn a_pause() {
    let (heartbeat, mut peer) = wrapped(quick());
    let mut driver = heartbeat.spawn();
    peer.greet(quick()).await;
    peer.send_raw(&heartbeat_tests::data_frame(&[0; 1000]).repeat(600))
        .await;
    sleep(ms(10)).await;
    while driver.receiver.next().now_or_never().is_some() {}
    sleep(ms(10)).await;
}

async fn stalls() {
    let (mut heartbeat, _peer) = wrapped(quick());
    while heartbeat.next().now_or_never().is_some() {}
    advance(secs(5)).await;
    heartbeat.next().await;
}

/// The kernel refuses the options of the safety net, and has never heard of one.
async fn refused() {
    let (ours, _theirs) = no_tcp();
    let mut heartbeat = Heartbeat::new(ours, quick());
    assert!(heartbeat.next().now_or_never().is_none());
}
