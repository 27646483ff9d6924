//! Every fault against every way of finding out: the heartbeat sees each death
//! in time and as what it is, and raises no false alarm; every other detector
//! has its blind spots, and they are where docs/faults.md says.
//!
//! It runs `examples/fault_lab`, which makes the faults, and reads its report.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "how a test fails"
)]

use std::{
    fs,
    path::PathBuf,
    process::{Command, ExitStatus},
    sync::OnceLock,
};

use serde_json::Value;

/// All but the heartbeat.
const OTHERS: [&str; 7] = [
    "hand_written",
    "keepalive",
    "user_timeout",
    "write",
    "read",
    "peek",
    "poll",
];

#[test]
fn between_two_processes_only_the_heartbeat_sees_everything() {
    let report = Report::of(&["--network", "loopback"]);
    report.has(&[
        "goodbye",
        "close",
        "close_unread",
        "half_close",
        "sigkill",
        "sigstop",
        "hang",
        "reset",
        "stops_reading",
        "slow_peer",
        "busy_peer",
    ]);
    assert_eq!(report.value["network"], "loopback");
    report.heartbeat_is_right();

    // The kernel of a peer that hangs goes on acknowledging.
    for fault in ["sigstop", "hang"] {
        for detector in ["keepalive", "user_timeout", "write", "read", "peek", "poll"] {
            report.never(fault, detector);
        }
    }
    for detector in ["hand_written", "keepalive", "write", "read", "peek", "poll"] {
        report.never("stops_reading", detector);
    }
    report.never("half_close", "write");
    // It takes a full window for a dead peer.
    report.false_alarm("slow_peer", "user_timeout");
    // It reads and works in one loop.
    report.false_alarm("busy_peer", "hand_written");
    report.nobody_else_sees_everything();
}

#[test]
#[cfg(target_os = "linux")]
fn on_a_network_the_heartbeat_sees_everything() {
    // These only know what the kernel says of itself.
    const PASSIVE: [&str; 3] = ["read", "peek", "poll"];

    let test = "on_a_network_the_heartbeat_sees_everything";
    if heartbeat_tests::network::Network::or_skip(test).is_none() {
        return;
    }
    let cuts = [
        "cable_cut",
        "drop_outbound",
        "drop_inbound",
        "carrier_lost",
        "router_rejects",
        "host_asleep",
    ];
    let faults = [&cuts[..], &["host_reboot", "delay", "loss"]].concat();
    let required = std::env::var("HEARTBEAT_NAMESPACES").is_ok_and(|word| word == "required");
    let network = if required { "namespaces" } else { "auto" };
    let report = Report::of(&["--network", network, "--only", &faults.join(",")]);
    // The last two take a TUN device, too.
    match required || report.rows().len() > 7 {
        true => report.has(&faults),
        false => report.has(&faults[..7]),
    }
    assert_eq!(report.value["network"], "namespaces");
    report.heartbeat_is_right();

    for fault in cuts.iter().chain(&["host_reboot"]) {
        for detector in PASSIVE {
            report.never(fault, detector);
        }
    }
    for fault in cuts {
        // The kernel repeats what was written for a quarter of an hour.
        report.never(fault, "write");
    }
}

/// Most of a minute: a detector that is fooled has raised its alarm by then.
#[test]
#[cfg(target_os = "linux")]
fn a_host_that_sleeps_survives_where_the_budget_allows() {
    let test = "a_host_that_sleeps_survives_where_the_budget_allows";
    if heartbeat_tests::network::Network::or_skip(test).is_none() {
        return;
    }
    let report = Report::of(&["--only", "host_asleep", "--detect-within", "25s"]);
    assert_eq!(report.row("host_asleep")["alive"], true);
    report.heartbeat_is_right();
}

/// A round trip of 400 ms is more than such a heartbeat waits for.
#[test]
#[cfg(target_os = "linux")]
fn a_heartbeat_that_raises_a_false_alarm_fails_the_lab() {
    let test = "a_heartbeat_that_raises_a_false_alarm_fails_the_lab";
    if heartbeat_tests::network::Network::or_skip(test).is_none() {
        return;
    }
    let (status, report) = run(&["--only", "delay", "--detect-within", "300ms"]);
    if report.rows().is_empty() {
        return; // There is no TUN device; the test above fails if it is required.
    }
    assert_eq!(status.code(), Some(1));
    report.false_alarm("delay", "heartbeat");
}

#[test]
#[cfg(target_os = "linux")]
fn nothing_is_left_behind_however_it_ends() {
    use std::{
        os::unix::process::ExitStatusExt,
        process::Stdio,
        thread::sleep,
        time::{Duration, Instant},
    };

    use heartbeat_tests::living;
    use rustix::process::{Pid, Signal, kill_process};

    let networks = named_networks();
    for signal in [Signal::TERM, Signal::INT, Signal::KILL] {
        // By which its children are told from those of other tests. (In a
        // process group of their own the kernel would end them.)
        let mark = format!("{}-{}", std::process::id(), signal.as_raw());
        let mut lab = Command::new(lab())
            .env("FAULT_LAB_TEST", &mark)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mark = format!("FAULT_LAB_TEST={mark}");
        let wait_for = |what: &str, enough: &dyn Fn(usize) -> bool| {
            let begun = Instant::now();
            while !enough(living(&mark).len()) {
                assert!(begun.elapsed().as_secs() < 20, "{signal:?}: {what}");
                sleep(Duration::from_millis(20));
            }
        };
        // Each fault on loopback has a peer.
        wait_for("no peers", &|living| living > 11);
        sleep(Duration::from_secs(2));
        assert!(living(&mark).len() > 5, "the lab was over already");

        kill_process(Pid::from_child(&lab), signal).unwrap();
        let status = lab.wait().unwrap();
        match signal {
            Signal::KILL => assert_eq!(status.signal(), Some(9)),
            _ => assert_eq!(status.code(), Some(130), "{signal:?}"),
        }
        wait_for("processes are left", &|living| living == 0);
        assert_eq!(named_networks(), networks, "{signal:?}");
    }
}

/// What `ip netns list` shows.
#[cfg(target_os = "linux")]
fn named_networks() -> Vec<PathBuf> {
    let names = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let mut names: Vec<_> = names.map(|name| name.path()).collect();
    names.sort();
    names
}

/// What the lab wrote down.
struct Report {
    value: Value,
}

impl Report {
    /// Of a run in which the heartbeat was right.
    fn of(arguments: &[&str]) -> Self {
        let (status, report) = run(arguments);
        assert!(status.success(), "{status}: {:#}", report.value);
        report
    }

    fn rows(&self) -> &[Value] {
        self.value["faults"].as_array().unwrap()
    }

    fn row(&self, fault: &str) -> &Value {
        let row = self.rows().iter().find(|row| row["fault"] == fault);
        row.unwrap_or_else(|| panic!("{fault} is missing"))
    }

    fn has(&self, faults: &[&str]) {
        for fault in faults {
            self.row(fault);
        }
        assert_eq!(self.rows().len(), faults.len());
    }

    fn config(&self, name: &str) -> f64 {
        self.value["config"][name].as_f64().unwrap()
    }

    /// What the lab judges too, by rules of our own.
    fn heartbeat_is_right(&self) {
        let limit = self.config("detect_within") + 0.1 + self.config("machine_late");
        for row in self.rows() {
            let heartbeat = &row["detectors"]["heartbeat"];
            if row["alive"] == true {
                assert!(heartbeat["seconds"].is_null(), "{row:#}");
                continue;
            }
            assert!(heartbeat["seconds"].as_f64().unwrap() <= limit, "{row:#}");
            let verdict = heartbeat["verdict"].as_str().unwrap();
            let diagnosis = heartbeat["diagnosis"].as_str();
            match row["fault"].as_str().unwrap() {
                "goodbye" => assert_eq!(verdict, "Closed"),
                "half_close" => assert_eq!(verdict, "Eof"),
                "close" | "sigkill" => assert!(matches!(verdict, "Eof" | "Reset"), "{row:#}"),
                "close_unread" | "reset" | "host_reboot" => assert_eq!(verdict, "Reset"),
                "sigstop" | "hang" => {
                    assert_eq!((verdict, diagnosis), ("Silent", Some("AppHung")));
                }
                "stops_reading" => {
                    assert!(matches!(verdict, "Silent" | "WriteStalled"), "{row:#}");
                    assert_eq!(diagnosis, Some("PeerNotReading"));
                }
                "carrier_lost" => {
                    assert_eq!(verdict, "Silent");
                    assert!(matches!(diagnosis, Some("PathDead" | "Unknown")), "{row:#}");
                }
                _ => assert_eq!(
                    (verdict, diagnosis),
                    ("Silent", Some("PathDead")),
                    "{row:#}"
                ),
            }
        }
    }

    fn never(&self, fault: &str, detector: &str) {
        let row = self.row(fault);
        assert!(row["detectors"][detector]["seconds"].is_null(), "{row:#}");
        // It was waited for.
        assert!(row["observed_for"].as_f64() > Some(2.0 * self.config("detect_within")));
    }

    fn false_alarm(&self, fault: &str, detector: &str) {
        let row = self.row(fault);
        assert_eq!(row["alive"], true);
        assert!(row["detectors"][detector]["seconds"].is_f64(), "{row:#}");
    }

    fn nobody_else_sees_everything(&self) {
        let limit = self.config("detect_within") + 0.1;
        for detector in OTHERS {
            let right = self.rows().iter().all(|row| {
                let seconds = row["detectors"][detector]["seconds"].as_f64();
                match row["alive"] == true {
                    true => seconds.is_none(),
                    false => seconds.is_some_and(|seconds| seconds <= limit),
                }
            });
            assert!(!right, "{detector} has a full column");
        }
    }
}

/// Runs the lab and reads its report.
fn run(arguments: &[&str]) -> (ExitStatus, Report) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("found.json");
    let mut lab = Command::new(lab());
    let status = lab
        .args(arguments)
        .arg("--json")
        .arg(&path)
        .status()
        .unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let value = serde_json::from_str(&text).unwrap();
    (status, Report { value })
}

/// The program.
fn lab() -> &'static PathBuf {
    static LAB: OnceLock<PathBuf> = OnceLock::new();
    LAB.get_or_init(|| heartbeat_tests::example("fault_lab"))
}
