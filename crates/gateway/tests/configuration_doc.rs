//! `docs/CONFIGURATION.md` lists exactly the keys that the gateway reads, with their defaults.
//!
//! The shortener's keys are compared by the shortener's test of the same name.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use linnet_gateway::config::Settings;
use linnet_platform::settings::known_keys;
use secrecy::ExposeSecret;
use serde_json::Value;

/// Sections of the document that only the shortener reads.
const SHORTENER_SECTIONS: [&str; 4] = ["cache", "postgres", "resolve", "shortener"];

/// Section, key, variable and default of each row that describes a key.
fn documented(document: &str) -> Vec<(&str, &str, &str, &str)> {
    let row = |line| -> Option<_> {
        let mut cells = str::split(line, '|').map(|cell| cell.trim().trim_matches('`')).skip(1);
        let (key, variable, default) = (cells.next()?, cells.next()?, cells.next()?);
        let (section, _) = key.split_once('.')?;
        let is_word = |c: char| c.is_ascii_lowercase() || "._".contains(c);
        let is_key = line.starts_with("| `") && key.chars().all(is_word);
        is_key.then_some((section, key, variable, default))
    };
    document.lines().filter_map(row).collect()
}

/// A value as a person types it into the environment; nothing is a dash.
fn typed(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(typed).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    };
    if text.is_empty() { "—".into() } else { text }
}

#[test]
fn the_document_has_every_key_with_its_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/CONFIGURATION.md");
    let document = fs::read_to_string(path).unwrap();
    let mut expected: BTreeMap<String, String> = known_keys::<Settings>()
        .into_iter()
        .map(|(key, json)| (key, typed(&serde_json::from_str(&json).unwrap())))
        .collect();
    // Secrets are redacted when they are shown; their defaults are none.
    let settings = Settings::default();
    for (key, secret) in
        [("redis.url", &settings.redis.url), ("service.token", &settings.service.token)]
    {
        let shown = typed(&secret.expose_secret().into());
        assert_eq!(expected.insert(key.into(), shown).as_deref(), Some("[redacted]"), "{key}");
    }

    let sections: Vec<&str> = expected.keys().filter_map(|key| key.split('.').next()).collect();
    let mut found = BTreeMap::new();
    for (section, key, variable, default) in documented(&document) {
        assert_eq!(variable, format!("LINNET__{}", key.to_uppercase().replace('.', "__")));
        if sections.contains(&section) {
            assert!(found.insert(key.to_owned(), default.to_owned()).is_none(), "{key} twice");
        } else {
            assert!(SHORTENER_SECTIONS.contains(&section), "nobody reads `{key}`");
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
