//! Test helpers that several programs share.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::settings::{Settings, known_keys};

/// Compares `docs/CONFIGURATION.md` with the keys of `T` and their defaults.
///
/// `secrets` are the keys whose defaults are redacted in the output, with those defaults. `elsewhere` are the sections of
/// the document that only other processes read.
///
/// # Panics
/// When they differ.
#[expect(clippy::expect_used, reason = "a test fails by panicking")]
pub fn assert_documented<T: Settings>(secrets: &[(&str, &SecretString)], elsewhere: &[&str]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/CONFIGURATION.md");
    let document = fs::read_to_string(path).expect("docs/CONFIGURATION.md");
    let mut expected: BTreeMap<String, String> = known_keys::<T>()
        .into_iter()
        .map(|(key, json)| (key, typed(&serde_json::from_str(&json).expect("JSON"))))
        .collect();
    for (key, secret) in secrets {
        let shown = typed(&secret.expose_secret().into());
        assert_eq!(expected.insert((*key).into(), shown).as_deref(), Some("[redacted]"), "{key}");
    }

    let sections: Vec<&str> = expected.keys().filter_map(|key| key.split('.').next()).collect();
    let mut found = BTreeMap::new();
    for (section, key, variable, default) in documented(&document) {
        assert_eq!(variable, format!("LINNET__{}", key.to_uppercase().replace('.', "__")));
        if sections.contains(&section) {
            assert!(found.insert(key.to_owned(), default.to_owned()).is_none(), "{key} twice");
        } else {
            assert!(elsewhere.contains(&section), "no process reads `{key}`");
        }
    }
    let keys: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    let differences: Vec<_> = keys
        .into_iter()
        .map(|key| (key, found.get(key), expected.get(key)))
        .filter(|(_, documented, coded)| documented != coded)
        .collect();
    assert!(differences.is_empty(), "key, in the document, in the code: {differences:#?}");
}

/// Section, key, variable and default of each row of the document that describes a key.
fn documented(document: &str) -> Vec<(&str, &str, &str, &str)> {
    let row = |line| -> Option<_> {
        let mut cells = str::split(line, '|').map(|cell| cell.trim().trim_matches('`')).skip(1);
        let (key, variable, default) = (cells.next()?, cells.next()?, cells.next()?);
        let (section, _) = key.split_once('.')?;
        let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._".contains(c);
        let is_key = line.starts_with("| `") && key.chars().all(is_word);
        is_key.then_some((section, key, variable, default))
    };
    document.lines().filter_map(row).collect()
}

/// The value as the document shows it: as in the environment, or a dash if it is empty.
fn typed(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(typed).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    };
    if text.is_empty() { "—".into() } else { text }
}

/// The numbers that `deploy/compose.yaml` sets for Linnet's processes, by variable.
pub fn container_numbers() -> std::collections::BTreeMap<String, String> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/compose.yaml");
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let numbers = text.lines().filter_map(|line| {
        let (name, value) = line.trim().split_once(": ")?;
        let value = value.strip_prefix('"')?.strip_suffix('"')?;
        let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        (name.starts_with("LINNET__") && is_number).then(|| (name.to_owned(), value.to_owned()))
    });
    numbers.collect()
}
