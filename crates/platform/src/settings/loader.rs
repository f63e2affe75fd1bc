//! Reads the layers of the configuration and collects every problem.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive, path::Path};

use config::{Config, File, FileFormat, Map, Value, ValueKind};
use serde::{Serialize, de::DeserializeOwned};

const PREFIX: &str = "LINNET__";

/// The sections of all Linnet processes. Each process ignores those that it does not read.
const ALL_SECTIONS: &[&str] = &[
    "acme",
    "auth",
    "cache",
    "clicks",
    "cors",
    "gateway",
    "jobs",
    "limits",
    "links",
    "postgres",
    "public",
    "redis",
    "resolve",
    "service",
    "shortener",
    "shutdown",
    "telemetry",
    "upstream",
    "worker",
];

/// A process's settings: a struct with one field for each section it reads.
pub trait Settings: Default + Serialize + DeserializeOwned {
    /// Derives settings from those of other sections, before they are checked.
    fn derive(&mut self) {}

    /// Checks ranges, and values that depend on each other.
    fn validate(&self, problems: &mut Problems);
}

/// The problems of a configuration, key by key.
#[derive(Debug, Default)]
pub struct Problems(Vec<(String, String)>);

impl Problems {
    /// The keys with a problem, as `section.key`.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_str())
    }

    /// Adds a problem with `key` (`section.key`).
    pub fn add(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.0.push((key.into(), message.into()));
    }

    /// Whether there is no problem.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a problem unless `condition` holds.
    pub fn require(&mut self, condition: bool, key: &str, message: &str) {
        if !condition {
            self.add(key, message);
        }
    }

    /// Adds a problem unless `value` is in `range`.
    pub fn require_within<N: Copy + PartialOrd + fmt::Display>(
        &mut self,
        key: &str,
        value: N,
        range: RangeInclusive<N>,
    ) {
        if !range.contains(&value) {
            self.add(key, format!("must be from {} to {}", range.start(), range.end()));
        }
    }
}

impl Problems {
    /// An error with all problems, if there are any.
    pub fn into_result(self) -> Result<(), SettingsError> {
        if self.0.is_empty() { Ok(()) } else { Err(SettingsError { problems: self.0 }) }
    }
}

/// All problems of a configuration; the process exits with [`BAD_CONFIGURATION`](crate::exit_code::BAD_CONFIGURATION).
#[derive(Debug, thiserror::Error)]
pub struct SettingsError {
    problems: Vec<(String, String)>,
}

impl SettingsError {
    /// The keys with a problem, as `section.key`.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.problems.iter().map(|(key, _)| key.as_str())
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} problem(s)", self.problems.len())?;
        for (key, message) in &self.problems {
            write!(f, "\n  {key} ({}): {message}", variable_name(key))?;
        }
        Ok(())
    }
}

fn variable_name(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase().replace('.', "__"))
}

/// Loads settings from the process's environment and an optional TOML file.
pub fn load<T: Settings>(file: Option<&Path>) -> Result<T, SettingsError> {
    let mut problems = Problems::default();
    let mut environment = BTreeMap::new();
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        match value.into_string() {
            Ok(value) => {
                environment.insert(name.to_owned(), value);
            }
            Err(_) => problems.add(key_of(name), "must be valid UTF-8"),
        }
    }
    load_layers(file, &environment, problems)
}

/// The same as [`load`], with the given environment instead of that of the process.
pub fn load_from<T: Settings>(
    file: Option<&Path>,
    environment: &BTreeMap<String, String>,
) -> Result<T, SettingsError> {
    load_layers(file, environment, Problems::default())
}

/// Every key of `T` with its default, as `section.key` and JSON text. A test compares `docs/CONFIGURATION.md` with it.
pub fn known_keys<T: Settings>() -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    if let Ok(serde_json::Value::Object(sections)) = serde_json::to_value(T::default()) {
        for (section, values) in sections {
            let serde_json::Value::Object(values) = values else { continue };
            for (key, value) in values {
                keys.insert(format!("{section}.{key}"), value.to_string());
            }
        }
    }
    keys
}

fn key_of(variable: &str) -> String {
    variable.trim_start_matches(PREFIX).to_lowercase().replace("__", ".")
}

fn load_layers<T: Settings>(
    file: Option<&Path>,
    environment: &BTreeMap<String, String>,
    mut problems: Problems,
) -> Result<T, SettingsError> {
    let known = known_keys::<T>();
    let mut layers = Layers { known: &known, values: BTreeMap::new() };
    if let Some(path) = file {
        layers.add_file(path, &mut problems);
    }
    layers.add_environment(environment, &mut problems);

    let mut settings: T = deserialize(layers.values, &mut problems);
    settings.derive();
    settings.validate(&mut problems);
    problems.into_result().map(|()| settings)
}

/// Values by `section.key`; a later layer overwrites an earlier one.
struct Layers<'a> {
    known: &'a BTreeMap<String, String>,
    values: BTreeMap<String, Value>,
}

impl Layers<'_> {
    fn add_file(&mut self, path: &Path, problems: &mut Problems) {
        let source = File::from(path).format(FileFormat::Toml);
        let tree = Config::builder()
            .add_source(source)
            .build()
            .and_then(Config::try_deserialize::<Map<String, Value>>);
        match tree {
            Err(error) => problems.add("file", format!("{}: {error}", path.display())),
            Ok(sections) => {
                for (section, value) in sections {
                    match value.into_table() {
                        Ok(table) => {
                            for (key, value) in table {
                                self.set(&format!("{section}.{key}"), value, problems);
                            }
                        }
                        Err(_) => problems.add(section, "must be a section"),
                    }
                }
            }
        }
    }

    fn add_environment(&mut self, environment: &BTreeMap<String, String>, problems: &mut Problems) {
        for (name, text) in environment {
            let key = key_of(name);
            let as_file = key.strip_suffix("_file").filter(|_| !self.known.contains_key(&key));
            match as_file {
                None => self.set(&key, Value::new(None, text.as_str()), problems),
                Some(key) if self.is_foreign(key) => {}
                Some(key) => match std::fs::read_to_string(text) {
                    Ok(content) => {
                        let content = content.trim_end_matches(['\r', '\n']);
                        self.set(key, Value::new(None, content), problems);
                    }
                    Err(error) => {
                        problems.add(format!("{key}_file"), format!("cannot read {text}: {error}"));
                    }
                },
            }
        }
    }

    /// Whether only other processes read the key's section.
    fn is_foreign(&self, key: &str) -> bool {
        let section = key.split('.').next().unwrap_or(key);
        let prefix = format!("{section}.");
        ALL_SECTIONS.contains(&section) && !self.known.keys().any(|k| k.starts_with(&prefix))
    }

    fn set(&mut self, key: &str, value: Value, problems: &mut Problems) {
        if self.known.contains_key(key) {
            self.values.insert(key.to_owned(), value);
        } else if !self.is_foreign(key) {
            problems.add(key, "must be a known key");
        }
    }
}

/// Deserializes the values. A bad value is reported and dropped, and deserialization starts again, so that one bad value
/// does not hide the next.
fn deserialize<T: Settings>(mut values: BTreeMap<String, Value>, problems: &mut Problems) -> T {
    loop {
        let error = match serde_path_to_error::deserialize::<_, T>(tree_of(&values)) {
            Ok(settings) => return settings,
            Err(error) => error,
        };
        let path = error.path().to_string();
        // A list item is reported as `section.key[0]`.
        let key = path.split('[').next().unwrap_or(&path).to_owned();
        problems.add(key.clone(), error.into_inner().to_string());
        if values.remove(&key).is_none() {
            return T::default();
        }
    }
}

fn tree_of(values: &BTreeMap<String, Value>) -> Value {
    let mut sections: Map<String, Map<String, Value>> = Map::new();
    for (path, value) in values {
        if let Some((section, key)) = path.split_once('.') {
            sections.entry(section.into()).or_default().insert(key.into(), value.clone());
        }
    }
    let sections: Map<String, Value> = sections
        .into_iter()
        .map(|(section, table)| (section, Value::new(None, ValueKind::Table(table))))
        .collect();
    Value::new(None, ValueKind::Table(sections))
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::{ExposeSecret as _, SecretString};
    use serde::Deserialize;

    use crate::settings::{RedisSettings, redacted};

    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct ServiceSettings {
        #[serde(serialize_with = "redacted")]
        token: SecretString,
    }

    impl ServiceSettings {
        fn validate(&self, problems: &mut Problems) {
            let is_long = self.token.expose_secret().len() >= 32;
            problems.require(is_long, "service.token", "must be at least 32 characters");
        }
    }

    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Example {
        redis: RedisSettings,
        service: ServiceSettings,
    }

    impl Settings for Example {
        fn validate(&self, problems: &mut Problems) {
            self.redis.validate(problems);
            self.service.validate(problems);
        }
    }

    fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    const TOKEN: (&str, &str) = ("LINNET__SERVICE__TOKEN", "0123456789abcdef0123456789abcdef");

    #[test]
    fn environment_overrides_file_and_file_overrides_default() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("linnet.toml");
        std::fs::write(&path, "[redis]\nconnect_timeout_ms = 7\nresponse_timeout_ms = 8\n")
            .unwrap();
        let env = environment(&[TOKEN, ("LINNET__REDIS__CONNECT_TIMEOUT_MS", "9")]);
        let settings: Example = load_from(Some(&path), &env).unwrap();
        assert_eq!(settings.redis.connect_timeout_ms, 9);
        assert_eq!(settings.redis.response_timeout_ms, 8);
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let env = environment(&[
            ("LINNET__SERVICE__TOKEN", "short"),
            ("LINNET__REDIS__CONNECT_TIMEOUT_MS", "soon"),
            ("LINNET__REDIS__RESPONSE_TIMEOUT_MS", "-1"),
            ("LINNET__REDIS__NO_SUCH_KEY", "1"),
            ("LINNET__NO_SUCH_SECTION__KEY", "1"),
        ]);
        let error = load_from::<Example>(None, &env).unwrap_err();
        let mut keys: Vec<_> = error.keys().collect();
        keys.sort_unstable();
        assert_eq!(
            keys,
            [
                "no_such_section.key",
                "redis.connect_timeout_ms",
                "redis.no_such_key",
                "redis.response_timeout_ms",
                "service.token",
            ]
        );
    }

    #[test]
    fn sections_of_other_processes_are_ignored() {
        let env = environment(&[TOKEN, ("LINNET__POSTGRES__URL", "postgres://x")]);
        assert!(load_from::<Example>(None, &env).is_ok());
    }

    #[test]
    fn a_secret_is_read_from_a_file_and_never_displayed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, format!("{}\n", TOKEN.1)).unwrap();
        let env = environment(&[("LINNET__SERVICE__TOKEN_FILE", path.to_str().unwrap())]);
        let settings: Example = load_from(None, &env).unwrap();
        assert_eq!(settings.service.token.expose_secret(), TOKEN.1);
        assert!(!format!("{settings:?}").contains(TOKEN.1));
        assert!(!serde_json::to_string(&settings).unwrap().contains(TOKEN.1));

        let missing = environment(&[("LINNET__SERVICE__TOKEN_FILE", "/nonexistent/token")]);
        let error = load_from::<Example>(None, &missing).unwrap_err();
        assert!(error.keys().any(|key| key == "service.token_file"));
    }
}
