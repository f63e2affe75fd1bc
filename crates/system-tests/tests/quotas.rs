//! The table of quotas in `docs/OPERATIONS.md` lists every limit for each user, with the default of
//! `docs/CONFIGURATION.md`.

use std::{collections::BTreeMap, fs, path::Path};

fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn cells(row: &str) -> Vec<&str> {
    row.trim_matches('|').split('|').map(str::trim).collect()
}

/// The texts in backticks.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The defaults by setting or variable, from the tables of CONFIGURATION. A row may have several variables.
fn defaults() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for row in document("CONFIGURATION.md").lines().filter(|line| line.starts_with("| `")) {
        let cells = cells(row);
        let names = quoted(cells[0]);
        let mut values = cells.iter().skip(1).map(|cell| quoted(cell));
        // The default follows the environment variable, if the row has a column for it.
        let default = values.find(|texts| !texts.iter().any(|t| t.starts_with("LINNET__")));
        found.extend(names.into_iter().zip(default.unwrap_or_default()));
    }
    found
}

/// The settings of the table of quotas with their defaults.
fn quotas() -> BTreeMap<String, String> {
    let operations = document("OPERATIONS.md");
    let section = operations.split("### Quotas and how to change them").nth(1).expect("a section");
    let rows = section.lines().skip_while(|line| !line.starts_with("| of one user"));
    let mut found = BTreeMap::new();
    for row in rows.skip(2).take_while(|line| line.starts_with('|')) {
        let cells = cells(row);
        let (settings, defaults) = (quoted(cells[1]), quoted(cells[2]));
        assert_eq!(settings.len(), defaults.len(), "one default for each setting: {row}");
        assert!(!cells[3].is_empty(), "what is beyond the limit: {row}");
        found.extend(settings.into_iter().zip(defaults));
    }
    found
}

#[test]
fn table_of_quotas_states_the_defaults() {
    let defaults = defaults();
    let quotas = quotas();
    assert!(quotas.len() > 20, "{quotas:?}");
    for (setting, default) in &quotas {
        assert_eq!(defaults.get(setting), Some(default), "{setting}");
    }
}

#[test]
fn table_of_quotas_lists_every_limit_of_a_user() {
    let quotas = quotas();
    for setting in defaults().keys() {
        let name = setting.to_lowercase();
        let is_quota =
            ["per_user", "per_address", "_per_site", ".user_", ".key_", ".address_", ".misses_"]
                .iter()
                .any(|part| name.contains(part));
        assert!(!is_quota || quotas.contains_key(setting), "{setting} is missing");
    }
}

/// The bounds of a process for all users together, each with the limit of one user.
#[test]
fn must_26_every_bound_of_a_process_has_a_share_for_each_user() {
    let defaults = defaults();
    let quotas = quotas();
    for (bound, share) in [
        ("shortener.live_streams", "shortener.live_streams_per_user"),
        ("shortener.job_streams", "shortener.job_streams_per_user"),
        ("shortener.exports", "shortener.exports_per_user"),
        ("jobs.uploads", "jobs.uploads_per_user"),
        ("jobs.active", "jobs.active_per_user"),
    ] {
        let number = |setting: &str| -> u64 {
            let text = defaults.get(setting).unwrap_or_else(|| panic!("no setting {setting}"));
            text.parse().unwrap_or_else(|_| panic!("{setting}: {text}"))
        };
        assert!(quotas.contains_key(share), "{share} is not in the table of quotas");
        assert!(number(share) <= number(bound) / 2, "{share} leaves less than half of {bound}");
    }
}
