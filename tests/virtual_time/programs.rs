//! How much of the programs to copy from is the heartbeat's, and that the guide says so.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use std::{collections::BTreeSet, fs, path::Path};

/// No program has more lines for its heartbeat than this.
const MOST: usize = 60;

/// The server and the client of axum's together, imports aside.
const AXUM: usize = 5;

/// A program, and its files.
const PROGRAMS: [(&str, &[&str]); 8] = [
    ("axum.rs", &["axum.rs"]),
    ("tls.rs", &["tls.rs"]),
    ("login.rs", &["login.rs"]),
    ("tunnel", &["tunnel/main.rs", "tunnel/carry.rs"]),
    ("many.rs", &["many.rs"]),
    ("subscriber.rs", &["subscriber.rs"]),
    ("udp.rs", &["udp.rs"]),
    ("config", &["config/main.rs", "config/settings.rs"]),
];

#[test]
fn a_program_needs_few_lines_for_its_heartbeat_and_the_guide_has_their_number() {
    let guide = read("docs/guide/README.md");
    for (program, files) in PROGRAMS {
        let counts = files
            .iter()
            .map(|file| count(&read(&format!("examples/{file}"))));
        let (lines, ours, imports) = counts.fold((0, 0, 0), |sum, count| {
            (sum.0 + count.0, sum.1 + count.1, sum.2 + count.2)
        });
        assert!(ours + imports <= MOST, "{program}: {ours} + {imports}");
        assert!(program != "axum.rs" || ours <= AXUM, "{program}: {ours}");
        let row = guide
            .lines()
            .find(|row| row.starts_with(&format!("| [{program}]")));
        let figures = format!("| {} of {lines} |", ours + imports);
        let row = row.unwrap_or_else(|| panic!("{program} is in the guide"));
        assert!(row.ends_with(&figures), "{row} should end with {figures}");
    }
}

/// The lines of code, those of them that name something of the library, and those that
/// import it. An `impl` of a trait counts as a whole if one of its lines does.
fn count(text: &str) -> (usize, usize, usize) {
    let lines: Vec<&str> = text.lines().filter(|line| is_code(line)).collect();
    let (mut names, mut importing, mut imports) = (BTreeSet::new(), false, Vec::new());
    for line in &lines {
        importing |= line.trim_start().starts_with("use heartbeat_tokio::");
        imports.push(importing);
        if importing {
            let types = words(line).filter(|word| word.starts_with(char::is_uppercase));
            names.extend(types);
            importing = !line.ends_with(';');
        }
    }
    let is_ours = |at: usize| !imports[at] && words(lines[at]).any(|word| names.contains(word));
    let mut ours: Vec<bool> = (0..lines.len()).map(is_ours).collect();
    for begin in (0..lines.len()).filter(|&at| is_impl(lines[at])) {
        let length = lines[begin..].iter().position(|&line| line == "}").unwrap();
        let block = &mut ours[begin..=begin + length];
        let is_ours = block.contains(&true);
        block.fill(is_ours);
    }
    let number = |marks: &[bool]| marks.iter().filter(|&&mark| mark).count();
    (lines.len(), number(&ours), number(&imports))
}

fn is_code(line: &str) -> bool {
    let line = line.trim_start();
    !line.is_empty() && !line.starts_with("//")
}

fn is_impl(line: &str) -> bool {
    line.starts_with("impl") && line.contains(" for ")
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    let code = line.split(" // ").next().unwrap_or_default();
    code.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
}

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::read_to_string(root.join(path)).unwrap()
}
