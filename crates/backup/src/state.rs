//! The result of the last restore test, in a file that all containers share.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use crate::{BackupError, settings::Settings, time::Seconds};

/// The findings of a restore test.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TestResult {
    /// End of the last test.
    pub(crate) ended: Seconds,
    /// End of the last test that succeeded, 0 if none has.
    pub(crate) succeeded: Seconds,
    /// Time of the last test, in seconds.
    pub(crate) duration_s: u64,
    /// When the newest row in the restored database was written, 0 if unknown.
    pub(crate) newest_row: Seconds,
    /// How much newer the newest row of the live database was when the test began, in seconds.
    pub(crate) lag_s: u64,
    /// Links that the restored database resolved.
    pub(crate) resolved_links: u64,
    /// Why it failed. Empty: it succeeded.
    pub(crate) failure: String,
}

fn path(settings: &Settings) -> PathBuf {
    settings.state.join("restore-test.json")
}

impl TestResult {
    /// Reads the file. Without a readable file no test has run.
    pub(crate) fn load(settings: &Settings) -> Self {
        let text = fs::read_to_string(path(settings)).unwrap_or_default();
        let document: Value = serde_json::from_str(&text).unwrap_or_default();
        let signed = |name: &str| document.get(name).and_then(Value::as_i64).unwrap_or_default();
        let unsigned = |name: &str| document.get(name).and_then(Value::as_u64).unwrap_or_default();
        Self {
            ended: signed("ended"),
            succeeded: signed("succeeded"),
            duration_s: unsigned("duration_s"),
            newest_row: signed("newest_row"),
            lag_s: unsigned("lag_s"),
            resolved_links: unsigned("resolved_links"),
            failure: document.get("failure").and_then(Value::as_str).unwrap_or_default().to_owned(),
        }
    }

    /// Replaces the file.
    pub(crate) fn store(&self, settings: &Settings) -> Result<(), BackupError> {
        let document = json!({
            "ended": self.ended, "succeeded": self.succeeded, "duration_s": self.duration_s,
            "newest_row": self.newest_row, "lag_s": self.lag_s, "resolved_links": self.resolved_links,
            "failure": self.failure,
        });
        let (path, new) = (path(settings), settings.state.join("restore-test.json.new"));
        fs::write(&new, document.to_string()).map_err(BackupError::file(&new))?;
        fs::rename(&new, &path).map_err(BackupError::file(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::below;

    #[test]
    fn survives_a_restart_and_a_damaged_file() {
        let root = tempfile::tempdir().unwrap();
        let settings = below(root.path());
        assert_eq!(TestResult::load(&settings), TestResult::default());
        let result = TestResult {
            ended: 9,
            succeeded: 8,
            duration_s: 7,
            newest_row: 6,
            lag_s: 5,
            resolved_links: 4,
            failure: "x".into(),
        };
        result.store(&settings).unwrap();
        assert_eq!(TestResult::load(&settings), result);
        fs::write(path(&settings), "{").unwrap();
        assert_eq!(TestResult::load(&settings), TestResult::default());
    }
}
