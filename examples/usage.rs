//! The command lines in the pages are valid: the program parses each of them.
//! `--help` at their end keeps it from running.
//!
//! Each package below `examples/` has this file as its test. It also makes
//! `cargo test` build the program before it runs the tests that start it: cargo
//! builds a binary for an integration test of its package only.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const NAME: &str = env!("CARGO_PKG_NAME");
const PROGRAM: &str = env!(concat!("CARGO_BIN_EXE_", env!("CARGO_PKG_NAME")));
const FOLDER: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn every_command_line_in_the_pages_is_understood() {
    let mut understood = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let moved = format!("--example {NAME}");
        assert!(!text.contains(&moved), "{page:?} says {moved}");
        for command in commands(&text) {
            let (cargo, arguments) = command.split_once(" -- ").unwrap_or((&command, ""));
            if !cargo.ends_with(&format!(" -p {NAME}")) {
                continue;
            }
            let read = Command::new(PROGRAM)
                .args(arguments.split_whitespace())
                .arg("--help")
                .output()
                .unwrap();
            let complaint = String::from_utf8_lossy(&read.stderr);
            assert!(read.status.success(), "{page:?}: {command}\n{complaint}");
            understood += 1;
        }
    }
    assert!(understood > 0, "no page says how to start it");
}

fn pages() -> Vec<PathBuf> {
    let root = Path::new(FOLDER).join("../..");
    let mut pages = vec![Path::new(FOLDER).join("main.rs")];
    for folder in ["", "docs", "docs/guide"] {
        let entries = fs::read_dir(root.join(folder)).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        pages.extend(paths.filter(|path| path.extension().is_some_and(|it| it == "md")));
    }
    pages
}

/// From `cargo run` to the end of the line, which a backslash continues; or to
/// that of the code in a sentence, to a comment or to a redirection.
fn commands(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.trim_start_matches("//!"));
    let text = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let begun = text.match_indices("cargo run").map(|(at, _)| &text[at..]);
    let whole = begun.filter_map(|text| text.split(['\n', '`', '#', '>']).next());
    whole
        .map(|command| command.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}
