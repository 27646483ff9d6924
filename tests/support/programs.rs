//! Programs that tests talk to, and that a machine may lack.
//!
//! This module decides when a test that needs one is skipped: never silently,
//! and not at all where `HEARTBEAT_REQUIRE` is set, as `.ci/run` does.

use std::{
    env,
    io::{self, Write as _},
    process::{Command, Stdio},
};

/// Whether `program` is installed. If not the test that asks returns at once,
/// and whoever runs it is told so.
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

/// The first of `programs` that is installed, as [`needs`].
///
/// # Panics
///
/// If there is none and `HEARTBEAT_REQUIRE` is set.
#[must_use]
pub fn needs_one_of<'p>(programs: &[&'p str]) -> Option<&'p str> {
    let mut programs_there = programs
        .iter()
        .filter(|program| succeeds(program, &["--version"]));
    let found = programs_there.next().copied();
    if found.is_none() {
        skip(&programs.join(" or "));
    }
    found
}

/// A Python that can import `module`, as [`needs`]: the one in the path, or the
/// operating system's, which is another where somebody has installed one.
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
