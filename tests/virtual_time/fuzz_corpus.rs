//! What the adapter's fuzz targets check, without a fuzzer: on the inputs in
//! `heartbeat-tokio/fuzz/corpus`, and on what dice make of them. `HEARTBEAT_CASES` says of
//! how many for each target.

#[path = "../../heartbeat-tokio/fuzz/src/lib.rs"]
mod checks;

use std::{fs, panic, path::Path};

use heartbeat_tests::few_or_all;
use rand::{Rng, SeedableRng, rngs::SmallRng};

const CORPUS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../heartbeat-tokio/fuzz/corpus"
);

type Check = fn(&[u8]);

const TARGETS: [(&str, Check); 4] = [
    ("reader", checks::reader),
    ("writer", checks::writer),
    ("codecs", checks::codecs),
    ("configuration", checks::configuration),
];

#[test]
fn saved_inputs_hold() {
    for (target, check) in TARGETS {
        for (name, input) in saved(target) {
            println!("{target}/{name}");
            check(&input);
        }
    }
}

#[test]
fn changed_inputs_hold() {
    let cases = std::env::var("HEARTBEAT_CASES").map_or(few_or_all(200, 1_000), |text| {
        text.parse().expect("a number")
    });
    let mut dice = SmallRng::seed_from_u64(1);
    for (target, check) in TARGETS {
        let saved = saved(target);
        for _ in 0..cases {
            let input = changed(&saved, &mut dice);
            let held = panic::catch_unwind(|| check(&input));
            assert!(held.is_ok(), "{target}: {input:?}");
        }
    }
}

fn saved(target: &str) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(Path::new(CORPUS).join(target)).expect("a folder");
    let mut saved: Vec<_> = files
        .map(|file| {
            let path = file.expect("a file").path();
            let name = path.file_name().expect("a name").to_string_lossy();
            (name.into_owned(), fs::read(&path).expect("a file"))
        })
        .collect();
    saved.sort();
    assert!(!saved.is_empty());
    saved
}

/// The beginning of one with the end of another, and some bytes changed.
fn changed(saved: &[(String, Vec<u8>)], dice: &mut SmallRng) -> Vec<u8> {
    let mut input = saved[dice.random_range(0..saved.len())].1.clone();
    if dice.random_ratio(1, 3) {
        let other = &saved[dice.random_range(0..saved.len())].1;
        input.truncate(dice.random_range(0..=input.len()));
        input.extend(&other[dice.random_range(0..=other.len())..]);
    }
    for _ in 0..dice.random_range(0..6) {
        let at = dice.random_range(0..=input.len());
        match dice.random_range(0..4) {
            0 => input.insert(at, dice.random()),
            _ if at == input.len() => {}
            1 => drop(input.remove(at)),
            2 => input[at] ^= 1 << dice.random_range(0..8),
            _ => input[at] = dice.random(),
        }
    }
    input
}
