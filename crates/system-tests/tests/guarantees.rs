//! `docs/GUARANTEES.md` names every `must_NN_` test in the row of its number, and no test that does not exist.
//!
//! A name may contain several numbers (`must_03_must_04_…`); the test is then in each of these rows. The checks of
//! `scripts/test-backup.d` are tests too.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Test names by the number of the guarantee that they test.
type TestsByGuarantee = BTreeMap<u8, BTreeSet<String>>;

/// The third cell of a row without a test.
const NOT_PROMISED: &str = "not yet promised";

#[test]
fn guarantees_document_lists_exactly_the_must_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = root.join("docs/GUARANTEES.md");
    let document = fs::read_to_string(&path).expect("docs/GUARANTEES.md is readable");
    let documented = documented_tests(&document);
    let actual = tests_in_sources(&[root.join("crates"), root.join("scripts/test-backup.d")]);

    let mut problems = Vec::new();
    for (number, tests) in &actual {
        match documented.get(number) {
            None => problems.push(format!("row {number:02} is missing; its tests: {tests:?}")),
            Some(listed) => problems.extend(
                tests.difference(listed).map(|test| format!("row {number:02} must name `{test}`")),
            ),
        }
    }
    let none = BTreeSet::new();
    for (number, listed) in &documented {
        let tests = actual.get(number).unwrap_or(&none);
        problems.extend(
            listed
                .difference(tests)
                .map(|test| format!("row {number:02} names `{test}`, which does not exist")),
        );
    }
    assert!(problems.is_empty(), "docs/GUARANTEES.md:\n  {}", problems.join("\n  "));
}

#[test]
fn guarantee_numbers_are_read_from_test_names() {
    assert_eq!(guarantee_numbers("must_07_a_change_is_seen"), [7]);
    assert_eq!(guarantee_numbers("must_03_must_21_links_obey"), [3, 21]);
    assert_eq!(guarantee_numbers("must_have"), []);
}

#[test]
fn must_tests_are_found_by_their_attribute() {
    let source =
        "#[tokio::test]\n    async fn must_05_limits() {\n// fn must_06_codes()\nfn helper() {";
    assert_eq!(must_tests(source), ["must_05_limits"]);
}

#[test]
#[should_panic(expected = "must_05_limits has no test attribute")]
fn must_function_without_a_test_attribute_is_reported() {
    must_tests("#[test]\nfn other() {}\nfn must_05_limits() {}");
}

/// The rows of the table, in the form `| NN | promise | tests |`.
fn documented_tests(document: &str) -> TestsByGuarantee {
    let mut rows = TestsByGuarantee::new();
    for line in document.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [number, promise, tests] = cells.as_slice() else { continue };
        let Ok(number) = number.parse::<u8>() else { continue };
        assert!(!promise.is_empty(), "row {number:02} has no promise");
        let tests = if *tests == NOT_PROMISED {
            BTreeSet::new()
        } else {
            tests.split(", ").map(|name| unquoted(number, name)).collect()
        };
        assert!(rows.insert(number, tests).is_none(), "row {number:02} appears twice");
    }
    assert!(!rows.is_empty(), "no row has the form `| NN | promise | tests |`");
    let numbers: Vec<u8> = rows.keys().copied().collect();
    let expected: Vec<u8> = (1..).take(numbers.len()).collect();
    assert_eq!(numbers, expected, "rows are numbered from 01 without a gap");
    rows
}

fn unquoted(row: u8, name: &str) -> String {
    name.strip_prefix('`')
        .and_then(|name| name.strip_suffix('`'))
        .unwrap_or_else(|| panic!("row {row:02}: {name:?} must be a test name in backticks"))
        .to_owned()
}

fn tests_in_sources(folders: &[PathBuf]) -> TestsByGuarantee {
    let mut found = TestsByGuarantee::new();
    for file in folders.iter().flat_map(|folder| source_files(folder)) {
        let source = fs::read_to_string(&file).expect("a source file is readable");
        let is_rust = file.extension().is_some_and(|extension| extension == "rs");
        for name in if is_rust { must_tests(&source) } else { must_checks(&source) } {
            for number in guarantee_numbers(name) {
                found.entry(number).or_default().insert(name.to_owned());
            }
        }
    }
    assert!(!found.is_empty(), "no test in {folders:?} begins with must_NN_");
    found
}

/// The Rust and Python files of a folder.
fn source_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder is readable") {
        let path = entry.expect("an entry is readable").path();
        if path.is_dir() {
            files.extend(source_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "py") {
            files.push(path);
        }
    }
    files
}

/// The names of the `must_` checks in a Python file.
fn must_checks(source: &str) -> Vec<&str> {
    let names = source.lines().filter_map(|line| line.strip_prefix("def ")?.split('(').next());
    names.filter(|name| !guarantee_numbers(name).is_empty()).collect()
}

/// The names of the `must_` tests in a source file. Panics at a `must_` function that is no test.
fn must_tests(source: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim_start) {
        if line.starts_with("#[") {
            is_test |= line.contains("test");
        } else if let Some(name) = function_name(line) {
            if !guarantee_numbers(name).is_empty() {
                assert!(is_test, "{name} has no test attribute");
                names.push(name);
            }
            is_test = false;
        }
    }
    names
}

/// The name of the function that the line declares.
fn function_name(line: &str) -> Option<&str> {
    line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?.split('(').next()
}

/// The numbers at the beginning of a test's name.
fn guarantee_numbers(name: &str) -> Vec<u8> {
    let mut numbers = Vec::new();
    let mut rest = name;
    while let Some(after) = rest.strip_prefix("must_") {
        let Some((number, tail)) = after.split_once('_') else { break };
        let Ok(number) = number.parse() else { break };
        numbers.push(number);
        rest = tail;
    }
    numbers
}
