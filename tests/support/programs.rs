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
    let found = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        assert!(
            env::var_os("HEARTBEAT_REQUIRE").is_none(),
            "`{program}` isn't installed, and HEARTBEAT_REQUIRE is set"
        );
        // Not `eprintln`, which is captured: a skipped test passes.
        let _ = writeln!(io::stderr(), "SKIPPED: `{program}` isn't installed");
    }
    found
}
