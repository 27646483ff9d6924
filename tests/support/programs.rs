//! Programs that tests talk to, and that a machine may lack.
//!
//! This module decides when a test that needs one is skipped: never silently,
//! and not at all where `HEARTBEAT_REQUIRE` is set, as `.ci/run` does.

use std::{
    env,
    ffi::OsString,
    io::{self, Write as _},
    path::Path,
    process::{Command, Stdio},
};

/// Whether `program` is installed. If not, the test returns at once and prints so.
///
/// # Panics
///
/// If it isn't installed and `HEARTBEAT_REQUIRE` is set.
#[must_use]
pub fn needs(program: &str) -> bool {
    let found = succeeds(program, &["--version"]);
    if !found {
        skip(program);
    }
    found
}

/// Node with the options that its tests are started with, as [`needs`].
///
/// # Panics
///
/// If it isn't installed or is older, and `HEARTBEAT_REQUIRE` is set.
#[must_use]
pub fn needs_node() -> bool {
    // One that doesn't know an option ends with an error.
    let found = succeeds("node", &["--test-force-exit", "--version"]);
    if !found {
        skip("node, 20.14 or later,");
    }
    found
}

/// OpenBSD's netcat, which can end one direction of a connection, as [`needs`].
///
/// # Panics
///
/// If it isn't installed and `HEARTBEAT_REQUIRE` is set.
#[must_use]
pub fn needs_netcat() -> bool {
    // It has no version, and its usage is no failure.
    let found = succeeds("nc", &["-h"]);
    if !found {
        skip("nc");
    }
    found
}

/// Chromium or Chrome, as [`needs`]: without a screen and without network traffic but ours.
/// All its files go into the folder `profile`.
///
/// # Panics
///
/// If there is none and `HEARTBEAT_REQUIRE` is set.
#[must_use]
pub fn needs_browser(profile: &Path) -> Option<Command> {
    let found = ["chromium", "google-chrome"]
        .into_iter()
        .find(|program| succeeds(program, &["--version"]));
    let Some(program) = found else {
        skip("chromium");
        return None;
    };
    let mut command = Command::new(program);
    command.args([
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-quic",
        "--no-first-run",
        "--disable-breakpad",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-default-apps",
        "--disable-sync",
        "--disable-extensions",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ]);
    let mut folder = OsString::from("--user-data-dir=");
    folder.push(profile);
    command.arg(folder);
    // It leaves things there when it is killed.
    command.env("TMPDIR", profile);
    Some(command)
}

/// A Python that can import `module`, as [`needs`]: the one in the path, or the operating
/// system's, if that is another one.
///
/// # Panics
///
/// If there is none and `HEARTBEAT_REQUIRE` is set.
#[must_use]
pub fn needs_python_with(module: &str) -> Option<&'static str> {
    let import = format!("import {module}");
    let found = ["python3", "/usr/bin/python3"]
        .into_iter()
        .find(|python| succeeds(python, &["-c", &import]));
    if found.is_none() {
        skip(&format!("Python's {module}"));
    }
    found
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn skip(missing: &str) {
    assert!(
        env::var_os("HEARTBEAT_REQUIRE").is_none(),
        "`{missing}` isn't installed, and HEARTBEAT_REQUIRE is set"
    );
    // Not `eprintln`, which is captured: a skipped test passes.
    let _ = writeln!(io::stderr(), "SKIPPED: `{missing}` isn't installed");
}
