//! Presence across a fleet (`examples/presence`): every fault is tried with real gateways,
//! clients and a real redis-server of its own, and no user is a ghost, lost or announced
//! twice.
//!
//! It runs `presence faults`, which judges, and reads what it found. All faults are tried at
//! the same time. `HEARTBEAT_AWAY=20s` keeps Redis away for longer.
#![cfg(target_os = "linux")]

use std::{
    env,
    process::{Command, Output},
};

use heartbeat_tests::{example, needs};

#[test]
fn a_fleet_keeps_its_promises_under_every_fault() {
    if !needs("redis-server") || !needs("faketime") {
        return;
    }
    let away = env::var("HEARTBEAT_AWAY").unwrap_or_else(|_| "6s".into());
    // What a loaded machine is late by, at worst.
    let (output, said) = faults(&["--tolerance", "2s", "--away", &away]);
    assert!(output.status.success(), "{said}");
    for fault in [
        "a gateway is killed",
        "a gateway stands still for longer than its lease",
        "each gateway is restarted",
        "clients freeze, are killed, say goodbye and move",
        "Redis is killed, and restarted empty",
        "Redis stands still for longer than a lease",
        "a gateway's clock is an hour ahead",
    ] {
        assert!(said.contains(&format!("ok       {fault}\n")), "{said}");
    }
    let cut = "the network between a gateway and Redis is cut";
    if env::var("HEARTBEAT_NAMESPACES").is_ok_and(|word| word == "required") {
        assert!(said.contains(&format!("ok       {cut}\n")), "{said}");
    }
}

/// What is wrong is found: a machine may be late by nothing, and a gateway that is killed
/// is announced later than that.
#[test]
fn what_comes_too_late_is_amiss() {
    if !needs("redis-server") {
        return;
    }
    let only = ["--tolerance", "0s", "--only", "say goodbye"];
    let (output, said) = faults(&only);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("AMISS"), "{said}");
}

fn faults(options: &[&str]) -> (Output, String) {
    let mut program = Command::new(example("presence"));
    let output = program.arg("faults").args(options).output();
    let output = output.expect("the program starts");
    let said = [&output.stdout[..], &output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    if let Some(skipped) = said.lines().find(|line| line.starts_with("SKIPPED")) {
        eprintln!("{skipped}");
    }
    (output, said)
}
