//! The backups in the repository, as `pgbackrest info` prints them.

use std::time::Duration;

use serde_json::Value;

use crate::{
    BackupError,
    time::{Seconds, readable},
    tool::Tool,
};

/// Longest time for reading the list.
const INFO_LIMIT: Duration = Duration::from_mins(2);

/// One backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backup {
    pub(crate) label: String,
    pub(crate) is_full: bool,
    pub(crate) started: Seconds,
    pub(crate) stopped: Seconds,
    /// Size of the database, in bytes.
    pub(crate) database_bytes: u64,
    /// Size of what this backup added to the repository, in bytes.
    pub(crate) repository_bytes: u64,
    /// Whether pgBackRest found a damaged page while it copied.
    pub(crate) has_errors: bool,
}

/// All backups, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backups {
    pub(crate) all: Vec<Backup>,
    /// The last WAL segment in the repository.
    pub(crate) newest_segment: Option<String>,
}

impl Backups {
    /// Reads the list from the repository.
    pub(crate) fn read(tool: &Tool) -> Result<Self, BackupError> {
        parse(&tool.run(
            "info",
            &["--output=json", "--log-level-console=off", "--log-level-stderr=error"],
            INFO_LIMIT,
        )?)
    }

    /// End of the last full backup.
    pub(crate) fn last_full(&self) -> Option<&Backup> {
        self.all.iter().rfind(|backup| backup.is_full)
    }

    /// The last backup of any kind.
    pub(crate) fn last(&self) -> Option<&Backup> {
        self.all.last()
    }

    /// Fails unless a backup ended before the target time, or, without one, unless there is a backup.
    pub(crate) fn require_before(&self, target: Option<Seconds>) -> Result<&Backup, BackupError> {
        let Some(first) = self.all.first() else {
            return Err(BackupError::NoBackup(
                "the repository holds no backup; check LINNET_BACKUP_REPOSITORY".to_owned(),
            ));
        };
        let fitting =
            self.all.iter().rfind(|backup| target.is_none_or(|target| backup.stopped <= target));
        fitting.ok_or_else(|| {
            BackupError::NoBackup(format!(
                "the oldest backup ended at {}; choose a later time",
                readable(first.stopped)
            ))
        })
    }
}

fn parse(text: &str) -> Result<Backups, BackupError> {
    let unreadable =
        |reason: String| BackupError::Unreadable { what: "the list of backups", reason };
    // pgBackRest copies line breaks of its messages into the strings, which JSON forbids.
    let text = text.replace(char::is_control, " ");
    let document: Value =
        serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
    let Some(stanza) = document.get(0) else { return Ok(Backups::default()) };
    // 0: fine. 1 to 3: no stanza or no backup yet. 4: different stanzas. 6, 99: it cannot be opened.
    let code = stanza.pointer("/status/code").and_then(Value::as_i64).unwrap_or(99);
    if code > 3 {
        let message =
            stanza.pointer("/repo/0/status/message").or(stanza.pointer("/status/message"));
        let message = message.and_then(Value::as_str).unwrap_or("no message");
        return Err(unreadable(crate::error::explain(code_in(message), message)));
    }
    let all = stanza.get("backup").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut backups: Vec<Backup> = all.iter().filter_map(backup).collect();
    backups.sort_by_key(|backup| backup.stopped);
    let newest_segment = stanza
        .get("archive")
        .and_then(Value::as_array)
        .and_then(|archives| {
            archives.iter().rev().find_map(|archive| archive.get("max").and_then(Value::as_str))
        })
        .map(str::to_owned);
    Ok(Backups { all: backups, newest_segment })
}

/// The error code in a message such as `[CryptoError] …`; pgBackRest prints it as a name.
fn code_in(message: &str) -> i32 {
    if message.contains("CryptoError") { 95 } else { 0 }
}

fn backup(value: &Value) -> Option<Backup> {
    let number = |pointer: &str| value.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    Some(Backup {
        label: value.get("label")?.as_str()?.to_owned(),
        is_full: value.get("type")?.as_str()? == "full",
        started: value.pointer("/timestamp/start")?.as_i64()?,
        stopped: value.pointer("/timestamp/stop")?.as_i64()?,
        database_bytes: number("/info/size"),
        repository_bytes: number("/info/repository/delta"),
        has_errors: value.get("error").and_then(Value::as_bool).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r#"[{"archive":[{"database":{"id":1},"max":"000000010000000000000009","min":"1"}],"backup":[
        {"label":"20261127-000000F","type":"full","error":false,"timestamp":{"start":100,"stop":110},"info":{"size":5,"repository":{"delta":2}}},
        {"label":"20261127-000000F_20261128-000000D","type":"diff","timestamp":{"start":200,"stop":210},"info":{"size":6,"repository":{"delta":1}}}],
        "status":{"code":0,"message":"ok"}}]"#;

    #[test]
    fn lists_backups_and_finds_the_last_of_each_kind() {
        let backups = parse(TWO).unwrap();
        assert_eq!(backups.last_full().unwrap().stopped, 110);
        assert_eq!(backups.last().unwrap().stopped, 210);
        assert_eq!(backups.last().unwrap().database_bytes, 6);
        assert_eq!(backups.newest_segment.as_deref(), Some("000000010000000000000009"));
    }

    #[test]
    fn target_before_the_first_backup_is_refused() {
        let backups = parse(TWO).unwrap();
        assert_eq!(backups.require_before(Some(150)).unwrap().stopped, 110);
        assert_eq!(backups.require_before(None).unwrap().stopped, 210);
        assert!(
            backups
                .require_before(Some(109))
                .unwrap_err()
                .to_string()
                .contains("choose a later time")
        );
    }

    #[test]
    fn empty_repository_has_no_backup() {
        for text in ["[]", r#"[{"backup":[],"status":{"code":2}}]"#, r#"[{"status":{"code":1}}]"#] {
            let backups = parse(text).unwrap();
            assert!(backups.last().is_none(), "{text}");
            assert!(backups.require_before(None).is_err());
        }
    }

    #[test]
    fn repository_that_does_not_open_is_an_error() {
        let broken = "[{\"repo\":[{\"status\":{\"code\":99,\"message\":\"[CryptoError] a\nHINT: b\"}}],\"status\":{\"code\":99}}]";
        assert!(parse(broken).unwrap_err().to_string().contains("backup_passphrase"));
        let text = r#"[{"backup":[],"repo":[{"status":{"code":99,"message":"[CryptoError] unable to load info file"}}],"status":{"code":99,"message":"other"}}]"#;
        assert!(parse(text).unwrap_err().to_string().contains("backup_passphrase"));
        assert!(parse("{").is_err());
    }
}
