//! A private PostgreSQL on a restored folder, and queries to it and to the live one.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::{BackupError, config, process, settings::Settings, tool::Tool};

/// Longest time of a query. The counts read whole tables.
const QUERY_LIMIT: Duration = Duration::from_mins(10);
/// Name of the database in the cluster.
pub(crate) const DATABASE: &str = "linnet";

/// Runs one statement through a socket folder, and returns its rows; fields are separated by tabs.
pub(crate) fn query(
    settings: &Settings,
    socket: &Path,
    sql: &str,
) -> Result<Vec<String>, BackupError> {
    let mut command = Command::new(settings.postgres_bin.join("psql"));
    command
        .args(["--no-psqlrc", "--no-align", "--tuples-only", "--quiet", "--field-separator=\t"])
        .args(["--set=ON_ERROR_STOP=1", "--username=postgres", "--no-password"])
        .arg(format!("--host={}", socket.display()))
        .arg(format!("--dbname={DATABASE}"))
        .arg(format!("--command={sql}"))
        .env("PGCONNECT_TIMEOUT", "5")
        .env("PGAPPNAME", "linnet-backup");
    let output = process::run_checked("psql", &mut command, QUERY_LIMIT)?;
    Ok(output.lines().map(str::to_owned).collect())
}

/// The first row of a query.
pub(crate) fn query_row(
    settings: &Settings,
    socket: &Path,
    sql: &str,
) -> Result<Vec<String>, BackupError> {
    let rows = query(settings, socket, sql)?;
    let row = rows.first().ok_or(BackupError::Unreadable {
        what: "a query's result",
        reason: "it is empty".to_owned(),
    })?;
    Ok(row.split('\t').map(str::to_owned).collect())
}

/// A running PostgreSQL that recovered a restored folder. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Instance<'a> {
    settings: &'a Settings,
    data: PathBuf,
    /// Folder of its socket.
    pub(crate) socket: PathBuf,
}

/// Where WAL of the recovered database goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Archive<'a> {
    /// Nowhere: the copy of a restore test must not write to the repository.
    Off,
    /// Into this folder: the timeline that begins with the restore must reach the repository.
    Into(&'a Path),
}

impl<'a> Instance<'a> {
    /// Starts PostgreSQL on `data`, and waits until recovery has ended and it accepts statements.
    pub(crate) fn start(
        settings: &'a Settings,
        tool: &Tool,
        data: &Path,
        archive: Archive<'_>,
        memory: &str,
    ) -> Result<Self, BackupError> {
        let socket = std::env::temp_dir().join(format!("linnet-pg-{}", std::process::id()));
        fs::create_dir_all(&socket).map_err(BackupError::file(&socket))?;
        // Segments that another restore fetched may be of another timeline.
        drop(fs::remove_dir_all(settings.spool()));
        fs::create_dir_all(settings.spool()).map_err(BackupError::file(settings.spool()))?;
        // A stop that failed left it; the process is of another container or gone.
        drop(fs::remove_file(data.join("postmaster.pid")));
        // `hot_standby=off`: statements are accepted only after recovery, and recovery does not compare
        // `max_connections` and others with the server that wrote the WAL.
        let fetch = write_restore_command(tool, data, &socket)?;
        let mut options = format!(
            "-c listen_addresses= -c unix_socket_directories={} -c hot_standby=off -c {memory} -c jit=off \
             -c dynamic_shared_memory_type=mmap -c max_connections=20 -c autovacuum=off -c logging_collector=off",
            socket.display()
        );
        // Overrides the command of pgBackRest's restore.
        let _ = write!(options, " -c 'restore_command=/bin/sh {} %f %p'", fetch.display());
        match archive {
            Archive::Off => options.push_str(" -c archive_mode=off"),
            Archive::Into(_) => options.push_str(
                " -c archive_mode=on -c 'archive_command=/archive.sh %p %f # pgbackrest'",
            ),
        }
        let log = socket.join("log");
        drop(fs::remove_file(&log));
        let limit = settings.job_limit;
        let mut command = Command::new(settings.postgres_bin.join("pg_ctl"));
        command
            .args(["start", "--wait", "--silent"])
            .arg(format!("--timeout={}", limit.as_secs()))
            .arg(format!("--pgdata={}", data.display()))
            .arg(format!("--log={}", log.display()))
            .arg(format!("--options={options}"));
        if let Archive::Into(folder) = archive {
            command.env("LINNET_ARCHIVE_DIR", folder);
        }
        let instance = Self { settings, data: data.to_owned(), socket };
        let outcome =
            process::run_checked("pg_ctl start", &mut command, limit + Duration::from_secs(30))
                .and_then(|_| instance.wait_for_recovery());
        match outcome {
            Ok(()) => Ok(instance),
            Err(error) => {
                let text = fs::read_to_string(&log).unwrap_or_default();
                Err(recovery_error(&text).unwrap_or(error))
            }
        }
    }

    /// `pg_ctl` returns when recovery has begun.
    fn wait_for_recovery(&self) -> Result<(), BackupError> {
        let deadline = Instant::now() + self.settings.job_limit;
        loop {
            match self.query("SELECT 1") {
                Ok(_) => return Ok(()),
                // PostgreSQL removes the file when it exits.
                Err(error)
                    if Instant::now() > deadline || !self.data.join("postmaster.pid").exists() =>
                {
                    return Err(error);
                }
                // Recovery gives no signal when it has ended; the deadline bounds this.
                Err(_) => thread::sleep(Duration::from_millis(200)),
            }
        }
    }

    /// Fails if recovery ended before the newest segment of the repository: PostgreSQL ends it where one is missing.
    pub(crate) fn require_recovered_to(&self, newest: Option<&str>) -> Result<(), BackupError> {
        let row = self.query_row("SELECT pg_walfile_name(pg_current_wal_lsn())")?;
        let end = row.first().map(String::as_str).unwrap_or_default();
        match newest {
            Some(newest) if is_before(end, newest) => Err(BackupError::Check(format!(
                "recovery ended at WAL segment {end}, and the repository has segments up to {newest}: one between them is \
                 damaged or missing; restore to a time before it with --to"
            ))),
            _ => Ok(()),
        }
    }

    /// Runs one statement.
    pub(crate) fn query(&self, sql: &str) -> Result<Vec<String>, BackupError> {
        query(self.settings, &self.socket, sql)
    }

    /// The first row of a query.
    pub(crate) fn query_row(&self, sql: &str) -> Result<Vec<String>, BackupError> {
        query_row(self.settings, &self.socket, sql)
    }

    /// Stops it after a checkpoint; with an archive, also its last segment is archived.
    pub(crate) fn stop(&self) -> Result<(), BackupError> {
        self.control("fast")
    }

    fn control(&self, mode: &str) -> Result<(), BackupError> {
        let mut command = Command::new(self.settings.postgres_bin.join("pg_ctl"));
        command
            .args(["stop", "--wait", "--silent", "--timeout=300"])
            .arg(format!("--mode={mode}"))
            .arg(format!("--pgdata={}", self.data.display()));
        process::run_checked("pg_ctl stop", &mut command, Duration::from_secs(330)).map(drop)
    }
}

impl Drop for Instance<'_> {
    fn drop(&mut self) {
        if self.data.join("postmaster.pid").exists() {
            drop(self.control("immediate"));
        }
        drop(fs::remove_dir_all(&self.socket));
        drop(fs::remove_dir_all(self.settings.spool()));
    }
}

/// Whether one segment comes before another, of whatever timelines: their names begin with 8 digits of the timeline.
fn is_before(one: &str, other: &str) -> bool {
    one.get(8..) < other.get(8..)
}

/// Writes PostgreSQL's `restore_command`, and returns its path.
///
/// PostgreSQL takes any exit code up to 125 for "there is no such segment", ends recovery, and opens the database: an
/// unreachable repository or a damaged segment would silently lose all later changes. pgBackRest returns 1 if there is
/// no such segment, and other codes for errors. These become 255, which ends PostgreSQL.
fn write_restore_command(tool: &Tool, data: &Path, folder: &Path) -> Result<PathBuf, BackupError> {
    let path = folder.join("restore-command.sh");
    let text = format!(
        "pgbackrest --config={} --stanza={} --pg1-path={} archive-get \"$1\" \"$2\"\ncode=$?\n[ $code -le 1 ] || exit 255\nexit $code\n",
        tool.config().display(),
        config::STANZA,
        data.display()
    );
    fs::write(&path, text).map_err(BackupError::file(&path))?;
    Ok(path)
}

/// Why recovery failed, from PostgreSQL's log.
fn recovery_error(log: &str) -> Option<BackupError> {
    let line = log.lines().rfind(|line| line.contains("FATAL:") || line.contains("PANIC:"))?;
    let text = line
        .split_once("FATAL:")
        .or(line.split_once("PANIC:"))
        .map_or(line, |(_, after)| after)
        .trim();
    if text.contains("recovery ended before configured recovery target was reached") {
        return Some(BackupError::NoBackup(
            "the repository has no WAL up to the target time; choose an earlier time, or omit --to for the newest state"
                .to_owned(),
        ));
    }
    let tool = log.lines().rfind(|line| line.contains("ERROR: [")).map(str::trim);
    let hint = tool.map(|line| format!(" ({line})")).unwrap_or_default();
    Some(BackupError::Check(format!("PostgreSQL cannot recover the restored files: {text}{hint}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_after_the_last_segment_is_explained() {
        let log = "LOG:  a\nFATAL:  recovery ended before configured recovery target was reached\nLOG:  startup process exited";
        assert!(recovery_error(log).unwrap().to_string().contains("choose an earlier time"));
        assert!(recovery_error("LOG:  fine").is_none());
    }

    #[test]
    fn segments_are_compared_without_their_timelines() {
        assert!(is_before("0000000A0000000000000031", "000000090000000000000032"));
        assert!(!is_before("0000000A0000000000000032", "000000090000000000000032"));
        assert!(!is_before("0000000A0000000100000000", "000000090000000000000032"));
    }

    #[test]
    fn damaged_segment_is_named() {
        let log = "ERROR: [026]: checksum of 0001 differs\nFATAL:  could not restore file \"0001\" from archive";
        let text = recovery_error(log).unwrap().to_string();
        assert!(text.contains("could not restore file") && text.contains("[026]"), "{text}");
    }
}
