//! Many connections at once: only frozen peers are detected as dead, and in time; a swarm that
//! the machine can't hold is refused; and no process is left behind.
//!
//! It runs `examples/swarm` with few connections, and reads its report.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "how a test fails"
)]

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
    thread::sleep,
    time::{Duration, Instant},
};

use heartbeat_tests::living;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// What a loaded machine is late by, at worst.
const TOLERANCE: &str = "1s";

#[test]
fn of_many_connections_only_the_frozen_are_lost_and_in_time() {
    let report = found(
        Command::new(swarm())
            .args(["--connections", "200", "--for", "3s"])
            .args(["--detect-within", "3s", "--tolerance", TOLERANCE]),
    );
    assert_eq!(report["connections"], 200);
    assert_eq!(report["config"]["detection_time"], 3.0);
    // One end pings within 643 ms, and what it sends is heard by both.
    let beats = report["beats_a_second"].as_f64().unwrap();
    assert!((150.0..800.0).contains(&beats), "{beats} beats a second");
    // Not `an_end`: that memory is shared with other processes of the program, and shrinks if
    // another test starts it.
    let memory = &report["user_memory"];
    let resident = |when: &str| memory[when]["rss"].as_f64().unwrap();
    let an_end = (resident("after_beats") - resident("before")) / 400.0;
    assert!((100.0..100_000.0).contains(&an_end), "{memory:#}");
    assert!(report["processor_time"].as_f64() > Some(0.0));

    let freeze = &report["freeze"];
    assert_eq!(freeze["frozen"], 10);
    assert_eq!(freeze["verdicts"]["Silent, AppHung"], 10, "{freeze:#}");
    // What the example judges too, by rules of our own.
    let late = 1.0 + freeze["machine_late"].as_f64().unwrap();
    let after = |what: &str, which: &str| freeze[what][which].as_f64().unwrap();
    assert!(after("after_the_freeze", "max") <= 3.0 + late);
    assert!(after("after_the_freeze", "p50") > 1.9, "{freeze:#}");
    assert!(after("after_the_last_data", "min") > 3.0 - 0.25 * 1.08);
}

#[test]
fn where_file_descriptors_are_few_there_are_more_processes() {
    let report = found(
        swarm_with_descriptors(64 + 70)
            .args(["--connections", "200", "--for", "1s", "--freeze", "50%"])
            .args(["--detect-within", "3s", "--tolerance", TOLERANCE]),
    );
    assert_eq!(report["servers"], 3);
    assert_eq!(report["peers"], 4);
    assert_eq!(report["freeze"]["verdicts"]["Silent, AppHung"], 100);
}

#[test]
fn what_the_machine_can_not_hold_is_refused_with_the_reason() {
    let refused = refusal(Command::new(swarm()).args(["--connections", "100000000"]));
    assert!(refused.contains("100,000,000 connections"), "{refused}");
    // 16 KiB each, and 8 MiB for each process.
    let memory = "memory: 1.57 TiB needed";
    assert!(refused.contains(memory), "{refused}");
    assert!(refused.contains("MemAvailable"), "{refused}");

    let refused = refusal(swarm_with_descriptors(40).args(["--connections", "200"]));
    assert!(refused.contains("file descriptors"), "{refused}");
    assert!(refused.contains("ulimit -Hn"), "{refused}");
}

#[test]
fn no_process_is_left_behind_however_it_ends() {
    for (signal, frozen) in [
        (Signal::TERM, false),
        (Signal::INT, false),
        (Signal::KILL, false),
        (Signal::KILL, true),
    ] {
        // By which its members are told from those of other tests.
        let mark = format!("{}-{}-{frozen}", std::process::id(), signal.as_raw());
        let measure_for = if frozen { "0s" } else { "1h" };
        let mut conductor = Command::new(swarm())
            .env("SWARM_TEST", &mark)
            .args(["--connections", "50", "--freeze", "50%"])
            .args(["--for", measure_for, "--detect-within", "1h"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mark = format!("SWARM_TEST={mark}");
        let wait_for = |what: &str, enough: &dyn Fn() -> bool| {
            let begun = Instant::now();
            while !enough() {
                assert!(begun.elapsed().as_secs() < 60, "{signal:?}: {what}");
                sleep(Duration::from_millis(20));
            }
        };
        // The conductor, a server and two peers.
        wait_for("no members", &|| living(&mark).len() == 4);
        match frozen {
            true => wait_for("nobody freezes", &|| {
                living(&mark).iter().any(|process| is_stopped(process))
            }),
            false => sleep(Duration::from_secs(1)),
        }
        assert_eq!(living(&mark).len(), 4, "it was over already");

        kill_process(Pid::from_child(&conductor), signal).unwrap();
        let status = conductor.wait().unwrap();
        match signal {
            Signal::KILL => assert_eq!(status.signal(), Some(9)),
            _ => assert_eq!(status.code(), Some(130), "{signal:?}"),
        }
        wait_for("processes are left", &|| living(&mark).is_empty());
    }
}

fn is_stopped(process: &Path) -> bool {
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    status.contains("State:\tT (stopped)")
}

/// The report of a run in which nothing was amiss.
fn found(command: &mut Command) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("found.json");
    let output = command.arg("--json").arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let report: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(report["complaints"], serde_json::json!([]), "{report:#}");
    for when in ["opening", "measuring", "after_the_freeze"] {
        assert_eq!(report["false_alarms"][when]["dead"], 0, "{report:#}");
    }
    report
}

/// Why it wasn't even tried.
fn refusal(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(output.stdout.is_empty(), "{}", said(&output));
    String::from_utf8(output.stderr).unwrap()
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    format!("{}: {}", output.status, String::from_utf8_lossy(&text))
}

/// The program, with a hard limit of file descriptors.
fn swarm_with_descriptors(most: u64) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", r#"ulimit -n "$0" && exec "$@""#]);
    command.arg(most.to_string()).arg(swarm());
    command
}

/// The program.
fn swarm() -> &'static PathBuf {
    static SWARM: OnceLock<PathBuf> = OnceLock::new();
    SWARM.get_or_init(|| heartbeat_tests::example("swarm"))
}
