//! Log lines on standard error, in the format of Linnet's other processes: one JSON object a line.

use std::io::Write;

use serde_json::{Map, Value};

/// How much a line matters.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Level {
    Info,
    Warn,
    Error,
}

/// Writes one line: a constant message, and the data as fields.
pub(crate) fn log(level: Level, message: &str, fields: &[(&str, Value)]) {
    let mut line = Map::new();
    let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    let level = match level {
        Level::Info => "INFO",
        Level::Warn => "WARN",
        Level::Error => "ERROR",
    };
    line.insert("timestamp".to_owned(), now.into());
    line.insert("level".to_owned(), level.into());
    line.insert("message".to_owned(), message.into());
    line.insert("target".to_owned(), "linnet_backup".into());
    for (name, value) in fields {
        line.insert((*name).to_owned(), value.clone());
    }
    // A log that cannot be written must not stop a backup.
    drop(writeln!(std::io::stderr(), "{}", Value::Object(line)));
}
