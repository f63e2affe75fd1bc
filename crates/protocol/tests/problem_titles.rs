//! Compares the table of problem codes with its snapshot, with `docs/API.md` and with nginx.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::{collections::BTreeMap, fs, path::Path};

use linnet_protocol::problem_code::ProblemCode;

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Titles are part of the API: a changed title needs a changed snapshot and an entry in the changelog.
#[test]
fn codes_statuses_and_titles_match_the_snapshot() {
    let table: Vec<_> = ProblemCode::ALL
        .iter()
        .map(|code| format!("{} {} {}", code.status().as_u16(), code.as_str(), code.title()))
        .collect();
    let snapshot = read("crates/protocol/tests/problem_titles.txt");
    assert_eq!(table, snapshot.lines().collect::<Vec<_>>());
}

/// Skips rows whose column *by* has neither gateway (`g`) nor shortener (`s`): only nginx returns these codes.
#[test]
fn api_md_lists_exactly_these_codes_with_their_statuses() {
    let document = read("docs/API.md");
    let (_, section) = document.split_once("### Status codes and codes").expect("the section");
    let (section, _) = section.split_once("\n### ").expect("the next section");
    let mut documented: Vec<_> = section.lines().filter_map(documented_code).collect();
    let mut expected: Vec<_> = ProblemCode::ALL
        .iter()
        .map(|code| (code.status().as_u16(), code.as_str().to_owned()))
        .collect();
    documented.sort();
    expected.sort();
    assert_eq!(documented, expected);
}

/// The pages of the gateway have the same text.
#[test]
fn api_md_states_when_each_problem_occurs() {
    let document = read("docs/API.md");
    for code in ProblemCode::ALL {
        let is_row = |line: &&str| {
            documented_code(line).is_some_and(|(_, documented)| documented == code.as_str())
        };
        let row = document.lines().find(is_row).expect("a row");
        assert_eq!(row.split('|').nth(4).map(str::trim), Some(code.when()), "{}", code.as_str());
    }
}

/// Status and code of a row with the columns status, code, by and when; `None` if only nginx returns the code.
fn documented_code(line: &str) -> Option<(u16, String)> {
    let mut cells = line.split('|').skip(1).map(str::trim);
    let (status, code, by) = (cells.next()?, cells.next()?, cells.next()?);
    let is_ours = by.split(' ').any(|party| party == "g" || party == "s");
    is_ours.then_some(())?;
    Some((status.parse().ok()?, code.trim_matches('`').to_owned()))
}

#[test]
fn nginx_has_the_same_title_for_a_shared_code() {
    let template = read("nginx/linnet.conf.template");
    let codes = nginx_map(&template, "$status $linnet_error_code");
    let titles = nginx_map(&template, "$status $linnet_error_title");
    let mut shared = 0;
    for (status, code) in &codes {
        let Some(known) = ProblemCode::ALL.iter().find(|known| known.as_str() == code) else {
            continue;
        };
        assert_eq!(titles.get(status).map(String::as_str), Some(known.title()), "{status} {code}");
        shared += 1;
    }
    assert!(shared >= 4, "{codes:?}");
}

/// The entries of the block `map ARGUMENTS { … }`.
fn nginx_map(template: &str, arguments: &str) -> BTreeMap<String, String> {
    let (_, block) = template.split_once(&format!("map {arguments} {{")).expect("the map");
    let (block, _) = block.split_once('}').unwrap();
    let entry = |line: &str| {
        let (key, value) = line.trim().trim_end_matches(';').split_once(' ')?;
        Some((key.to_owned(), value.trim().trim_matches('"').to_owned()))
    };
    block.lines().filter_map(entry).collect()
}
