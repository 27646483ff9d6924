//! The examples that tests run: where they are, and whether anything of them is
//! left.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// The program of an example, built: of a package below `examples/` that has
/// this name, or an example of the package `examples/`. Cargo doesn't tell where
/// another package's program is unless it is asked.
///
/// `cargo test --workspace` has built it already, and it is the same one: the
/// same profile, and the features of all members with their dev-dependencies.
///
/// # Panics
///
/// If it doesn't build.
#[must_use]
pub fn example(name: &str) -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    // What cargo tells a test of the package that it belongs to. Some build
    // scripts would run again for that.
    for (variable, _) in env::vars_os() {
        let words = variable.to_string_lossy();
        if words.starts_with("CARGO_PKG_") || words.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&variable);
        }
    }
    cargo.args(["build", "--workspace", "--profile", "test"]);
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    if packages.join(name).join("Cargo.toml").exists() {
        // The example beside it is any: only where there is one does cargo count
        // the features of dev-dependencies, without which it would build all anew.
        cargo.args(["--bin", name, "--example", "quickstart"]);
    } else {
        cargo.args(["--example", name]);
    }
    let built = cargo
        .arg("--message-format=json-render-diagnostics")
        .output()
        .expect("cargo runs us");
    let complaints = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{complaints}");
    let messages = String::from_utf8(built.stdout).expect("JSON is text");
    let program = messages.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let path = message["executable"].as_str().map(PathBuf::from);
        path.filter(|_| message["target"]["name"] == name)
    });
    program.expect("an example has a program")
}

/// The processes that have `variable` (`NAME=value`) in their environment, by
/// their folders in `/proc`. One that is dead and only counted has none.
///
/// # Panics
///
/// If there is no `/proc`.
#[must_use]
pub fn living(variable: &str) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").expect("this is Linux").flatten();
    let is_marked = |process: &PathBuf| {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0);
        variables.any(|other| other == variable.as_bytes())
    };
    let folders = processes.map(|process| process.path());
    folders.filter(is_marked).collect()
}
