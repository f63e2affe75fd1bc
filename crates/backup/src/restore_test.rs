//! The restore test: restores into a scratch folder and checks what a restore would give.
//!
//! It replays all WAL, so that it also checks that segments reach the repository. Each check is an error with its
//! reason; the result is stored for the metrics.

use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::{
    BackupError, archive,
    info::Backups,
    instance::{self, Archive, Instance},
    process, resolve_check, restore,
    settings::Settings,
    state::TestResult,
    time::{Seconds, now},
    tool::Tool,
};

/// Longest wait until the segment that the test closes has been pushed.
const PUSH_LIMIT: Duration = Duration::from_mins(3);
/// Rows that may be deleted or created while the test reads the live database.
const SLACK_ROWS: u64 = 200;

/// Rows, and the time of the newest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Content {
    links: u64,
    users: u64,
    keys: u64,
    newest: Seconds,
}

/// Each row of events and links has a growing id, so the newest row is found without reading the table.
const CONTENT: &str = "SELECT (SELECT count(*) FROM urls), (SELECT count(*) FROM users), (SELECT count(*) FROM api_keys), \
    COALESCE(extract(epoch FROM greatest((SELECT timestamp FROM events ORDER BY id DESC LIMIT 1), \
    (SELECT created_at FROM urls ORDER BY id DESC LIMIT 1)))::bigint, 0)";

impl Content {
    fn of(row: &[String]) -> Result<Self, BackupError> {
        let number = |index: usize| row.get(index).and_then(|text| text.parse::<u64>().ok());
        match (number(0), number(1), number(2), row.get(3).and_then(|text| text.parse().ok())) {
            (Some(links), Some(users), Some(keys), Some(newest)) => {
                Ok(Self { links, users, keys, newest })
            }
            _ => Err(BackupError::Unreadable { what: "the count of rows", reason: row.join(", ") }),
        }
    }

    /// Fails if the restored content misses more than what the live database may have changed meanwhile.
    fn compare(&self, live: &Self) -> Result<(), BackupError> {
        for (name, restored, live) in [
            ("links", self.links, live.links),
            ("users", self.users, live.users),
            ("API keys", self.keys, live.keys),
        ] {
            if restored.abs_diff(live) > SLACK_ROWS.max(live / 100) {
                return Err(BackupError::Check(format!(
                    "the restored database has {restored} {name}, the live one {live}"
                )));
            }
        }
        if self.newest < live.newest {
            return Err(BackupError::Check(format!(
                "the newest restored row is {} s older than the newest row of the live database, although its WAL was pushed",
                live.newest - self.newest
            )));
        }
        Ok(())
    }
}

/// Runs the test and stores its result. The caller holds the lock of jobs, and some process pushes WAL.
pub(crate) fn run(settings: &Settings, tool: &Tool) -> Result<TestResult, BackupError> {
    let started = Instant::now();
    let mut result =
        TestResult { succeeded: TestResult::load(settings).succeeded, ..TestResult::default() };
    let outcome = check(settings, tool, &mut result);
    let cleaned = clean(settings);
    result.ended = now();
    result.duration_s = started.elapsed().as_secs();
    match &outcome {
        Ok(()) => result.succeeded = result.ended,
        Err(error) => result.failure = error.to_string(),
    }
    result.store(settings)?;
    outcome.and(cleaned).map(|()| result)
}

fn check(settings: &Settings, tool: &Tool, result: &mut TestResult) -> Result<(), BackupError> {
    clean(settings)?;
    let folder = settings.scratch();
    let data = folder.join("data");
    fs::create_dir_all(&data).map_err(BackupError::file(&data))?;
    // This is the database's disk too: a test that fills it would stop PostgreSQL.
    restore::require_room(&settings.state, Backups::read(tool)?.require_before(None)?)?;
    let live = Content::of(&instance::query_row(settings, &settings.socket, CONTENT)?)?;
    wait_for_push(settings)?;
    let newest_segment = Backups::read(tool)?.newest_segment;
    restore::files(settings, tool, &data, &["--archive-mode=off"])?;
    let instance = Instance::start(settings, tool, &data, Archive::Off, "shared_buffers=8MB")?;
    let restored = Content::of(&instance.query_row(CONTENT)?)?;
    instance.require_recovered_to(newest_segment.as_deref())?;
    result.newest_row = restored.newest;
    result.lag_s = u64::try_from(live.newest - restored.newest).unwrap_or_default();
    restored.compare(&live)?;
    amcheck(settings, &instance)?;
    result.resolved_links = resolve_check::run(settings, &instance)?;
    if result.resolved_links == 0 && restored.links > SLACK_ROWS {
        return Err(BackupError::Check("the restored database has no active link".to_owned()));
    }
    instance.stop()
}

/// Closes the current WAL segment, and waits until it and all before it are in the repository.
fn wait_for_push(settings: &Settings) -> Result<(), BackupError> {
    instance::query(settings, &settings.socket, "SELECT pg_switch_wal()")?;
    let deadline = Instant::now() + PUSH_LIMIT;
    loop {
        let backlog = archive::backlog(settings)?;
        if backlog.segments.is_empty() && backlog.not_archived == 0 {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(BackupError::Check(format!(
                "{} WAL segment(s) did not reach the repository within {} s",
                u64::try_from(backlog.segments.len()).unwrap_or_default() + backlog.not_archived,
                PUSH_LIMIT.as_secs()
            )));
        }
        // The pushing process may be in another container; the deadline bounds this.
        thread::sleep(Duration::from_millis(200));
    }
}

/// Checks the structure of all tables and B-trees.
fn amcheck(settings: &Settings, instance: &Instance<'_>) -> Result<(), BackupError> {
    let mut command = Command::new(settings.postgres_bin.join("pg_amcheck"));
    command
        .args(["--install-missing", "--no-password", "--username=postgres"])
        .arg(format!("--host={}", instance.socket.display()))
        .arg(format!("--database={}", instance::DATABASE));
    process::run_checked("pg_amcheck", &mut command, settings.job_limit).map(drop)
}

/// Removes the scratch folder, also of a test that was killed.
fn clean(settings: &Settings) -> Result<(), BackupError> {
    let folder = settings.scratch();
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(BackupError::file(folder)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(links: u64, newest: Seconds) -> Content {
        Content { links, users: 1, keys: 1, newest }
    }

    #[test]
    fn missing_rows_and_old_rows_fail() {
        let live = content(1_000_000, 500);
        assert!(content(1_000_000, 500).compare(&live).is_ok());
        assert!(content(995_000, 510).compare(&live).is_ok(), "within 1 %");
        assert!(
            content(980_000, 500).compare(&live).unwrap_err().to_string().contains("980000 links")
        );
        assert!(
            content(1_000_000, 440).compare(&live).unwrap_err().to_string().contains("60 s older")
        );
    }

    #[test]
    fn small_database_may_change_by_the_slack() {
        assert!(content(0, 0).compare(&content(SLACK_ROWS, 0)).is_ok());
        assert!(content(0, 0).compare(&content(SLACK_ROWS + 1, 0)).is_err());
    }

    #[test]
    fn result_of_another_form_is_unreadable() {
        assert!(Content::of(&["1".into(), "2".into()]).is_err());
        let row: Vec<String> = ["3", "2", "1", "0"].map(String::from).to_vec();
        assert_eq!(Content::of(&row).unwrap(), Content { links: 3, users: 2, keys: 1, newest: 0 });
    }
}
