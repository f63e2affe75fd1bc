//! Runs every target over its corpus, without libFuzzer.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use linnet_fuzz::{TARGETS, find};

/// The maximum size of all corpora together, in bytes.
const MAX_BYTES: usize = 2 * 1024 * 1024;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn names_in(path: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(path).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

// One test, because memory is measured for the whole process.
#[test]
fn must_23_must_25_every_input_of_the_corpora_keeps_its_properties() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names_in(&folder("corpus")), targets, "a folder for each target");
    let mut bytes = 0;
    for name in &targets {
        let target = find(name).unwrap();
        // Builds the tables and caches that are built once, so that their memory does not count for an input.
        (target.run)(b"");
        for file in names_in(&folder("corpus").join(name)) {
            let input = fs::read(folder("corpus").join(name).join(&file)).unwrap();
            println!("{name}/{file}");
            bytes += input.len();
            (target.run)(&input);
        }
    }
    assert!(bytes <= MAX_BYTES, "{bytes} bytes of corpora");
}

#[test]
fn every_target_has_a_row_in_the_document() {
    let document = fs::read_to_string(folder("../../docs/FUZZING.md")).unwrap();
    for target in TARGETS {
        assert!(document.contains(&format!("\n| `{}` |", target.name)), "{}", target.name);
    }
}
