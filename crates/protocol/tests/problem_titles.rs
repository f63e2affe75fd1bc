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

#[test]
fn api_md_lists_exactly_these_codes_with_their_statuses() {
    let mut documented: Vec<_> =
        documented_rows().into_iter().map(|row| (row.status, row.code)).collect();
    // nginx has no connection to the gateway, which is the same problem for the client.
    let mut expected = vec![(502, "unavailable".to_owned())];
    expected.extend(
        ProblemCode::ALL.iter().map(|code| (code.status().as_u16(), code.as_str().to_owned())),
    );
    documented.sort();
    expected.sort();
    assert_eq!(documented, expected);
}

/// The pages of the gateway have the same text.
#[test]
fn api_md_states_when_each_problem_occurs() {
    let rows = documented_rows();
    for code in ProblemCode::ALL {
        let is_row = |row: &&Row| row.status == code.status().as_u16() && row.code == code.as_str();
        let row = rows.iter().find(is_row).expect("a row");
        assert_eq!(row.when, code.when(), "{}", code.as_str());
    }
}

/// A row of the table: status, code, by, when.
struct Row {
    status: u16,
    code: String,
    by: String,
    when: String,
}

fn documented_rows() -> Vec<Row> {
    let document = read("docs/API.md");
    let (_, section) = document.split_once("### Status codes and codes").expect("the section");
    let (section, _) = section.split_once("\n### ").expect("the next section");
    let row = |line: &str| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, status, code, by, when, _] = cells.as_slice() else { return None };
        let (code, by) = (code.trim_matches('`').to_owned(), (*by).to_owned());
        Some(Row { status: status.parse().ok()?, code, by, when: (*when).to_owned() })
    };
    section.lines().filter_map(row).collect()
}

/// Each of nginx's problems has a page of the gateway, the same title, and a row that names nginx.
#[test]
fn nginx_has_the_codes_and_titles_of_the_table() {
    let template = read("nginx/linnet.conf.template");
    let codes = nginx_map(&template, "$status $linnet_error_code");
    let titles = nginx_map(&template, "$status $linnet_error_title");
    let rows = documented_rows();
    for (status, code) in &codes {
        let known = ProblemCode::ALL.iter().find(|known| known.as_str() == code);
        let known = known.unwrap_or_else(|| panic!("{status} {code} is not in the table"));
        assert_eq!(titles.get(status).map(String::as_str), Some(known.title()), "{status} {code}");
        let number = status.parse().unwrap_or_else(|_| known.status().as_u16());
        let is_row = |row: &&Row| row.status == number && row.code == *code;
        let row = rows.iter().find(is_row).unwrap_or_else(|| panic!("{status} {code}: no row"));
        assert!(row.by.contains('n'), "{status} {code}: by {}", row.by);
    }
    for row in rows.iter().filter(|row| row.by.contains('n')) {
        let is_by_nginx = codes.values().any(|code| *code == row.code);
        assert!(is_by_nginx, "nginx never returns {} {}", row.status, row.code);
    }
    assert!(codes.len() >= 12, "{codes:?}");
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
