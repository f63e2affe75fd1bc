//! Restores the database into PostgreSQL's folder.
//!
//! PostgreSQL's container has neither pgBackRest nor a route to the repository. Therefore this program also recovers:
//! it starts PostgreSQL on the restored files, waits until WAL has been replayed, and stops it.
//!
//! The database is prepared in a folder beside the present one, on the same disk, and replaces it by renames at the end.
//! Until then, any failure leaves the present database as it was.

use std::{fs, path::Path, time::Duration};

use chrono::{DateTime, Utc};

use crate::{
    BackupError, archive,
    info::{Backup, Backups},
    instance::{self, Archive, Instance},
    lock, process, push,
    settings::Settings,
    time::{self, Seconds, readable},
    tool::Tool,
};

/// Folder of the replaced database until the restored one is complete.
const REPLACED: &str = "linnet-replaced";

/// Processes that fit the memory of the container.
const MOST_PROCESSES: usize = 4;

/// More numbers than a sequence can give out while its last value is not yet in the repository.
const SKIPPED_NUMBERS: u32 = 1_000_000;

/// The state to restore, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    /// Point in time; without one, the newest state.
    time: Option<DateTime<Utc>>,
    /// Timeline to follow: a number, `current` (of the backup) or, by default, the latest.
    timeline: Option<String>,
    /// Gives up WAL segments that have not reached the repository.
    is_without_newest: bool,
    /// Deletes the present database first, for disks without room for both.
    is_delete_first: bool,
}

impl Target {
    /// Reads the options of `restore` and `check`.
    pub(crate) fn parse(options: &[&str]) -> Result<Self, BackupError> {
        let mut target = Self::default();
        let mut words = options.iter();
        while let Some(word) = words.next() {
            match *word {
                "--to" => {
                    let time = time::parse(words.next().copied().unwrap_or_default())?;
                    if time.timestamp() > time::now() {
                        return Err(BackupError::Usage(
                            "--to must not be in the future".to_owned(),
                        ));
                    }
                    target.time = Some(time);
                }

                "--timeline" => {
                    let text = words.next().copied().unwrap_or_default();
                    if text != "current" && !(1..=8).contains(&text.len())
                        || !text.bytes().all(|byte| byte.is_ascii_alphanumeric())
                    {
                        return Err(BackupError::Usage(format!(
                            "--timeline must be a number or `current`, not `{text}`"
                        )));
                    }
                    target.timeline = Some(text.to_owned());
                }
                "--without-newest" => target.is_without_newest = true,
                "--delete-first" => target.is_delete_first = true,
                other => return Err(BackupError::Usage(format!("unknown option `{other}`"))),
            }
        }
        Ok(target)
    }

    fn seconds(&self) -> Option<Seconds> {
        self.time.map(|time| time.timestamp())
    }

    fn options(&self) -> Vec<String> {
        let mut options = Vec::new();
        if let Some(time) = self.time {
            options.push("--type=time".to_owned());
            options.push(format!("--target={}", time.format("%Y-%m-%d %H:%M:%S%.6f+00")));
            options.push("--target-action=promote".to_owned());
        }
        if let Some(timeline) = &self.timeline {
            options.push(format!("--target-timeline={timeline}"));
        }
        options
    }
}

/// Opens the repository and fails unless a backup fits. Prints which one.
pub(crate) fn check(settings: &Settings, target: &Target) -> Result<(), BackupError> {
    fitting(settings, &Tool::new(settings)?, target)
}

fn fitting(settings: &Settings, tool: &Tool, target: &Target) -> Result<(), BackupError> {
    let backups = Backups::read(tool)?;
    let backup = backups.require_before(target.seconds())?;
    println!(
        "backup {} of {} fits; the database had {} MiB",
        backup.label,
        readable(backup.stopped),
        backup.database_bytes >> 20
    );
    if settings.data.exists() && !target.is_delete_first {
        require_room(&settings.data, backup)?;
    }
    Ok(())
}

/// Restores. PostgreSQL must be stopped.
pub(crate) fn run(settings: &Settings, target: &Target) -> Result<(), BackupError> {
    let _lock = lock::job(settings)?;
    let tool = Tool::new(settings)?;
    archive::settle(settings)?;
    if instance::query(settings, &settings.socket, "SELECT 1").is_ok() {
        return Err(BackupError::Refused("PostgreSQL runs; stop it first".to_owned()));
    }
    fitting(settings, &tool, target)?;
    if !target.is_without_newest {
        push_newest(settings)?;
    }
    if target.is_delete_first {
        replace(&settings.data, None)?;
    }
    let prepared = settings.prepared();
    // Segments of the restored database must not reach the repository unless it replaces the present one: later
    // restores would follow its timeline.
    let archived = archive::prepared(settings)?;
    let outcome = prepare(settings, &tool, &prepared, &archived, target);
    if outcome.is_err() {
        drop(fs::remove_dir_all(&prepared));
        drop(fs::remove_dir_all(&archived));
        return outcome;
    }
    archive::accept(settings, &archived)?;
    replace(&settings.data, Some(&prepared))?;
    // If this fails, the sidecar repeats it.
    archive::settle(settings)
}

/// Pushes what the present or lost database archived. A segment that cannot be pushed is an error, for it would be lost.
fn push_newest(settings: &Settings) -> Result<(), BackupError> {
    push::push_all(settings)?;
    let backlog = archive::backlog(settings)?;
    if backlog.not_archived > 0 {
        return Err(BackupError::Refused(format!(
            "{} WAL segment(s) of the present database were not archived; start PostgreSQL and stop it again, or give \
             them up with --without-newest",
            backlog.not_archived
        )));
    }
    Ok(())
}

fn prepare(
    settings: &Settings,
    tool: &Tool,
    prepared: &Path,
    archived: &Path,
    target: &Target,
) -> Result<(), BackupError> {
    if prepared.exists() {
        fs::remove_dir_all(prepared).map_err(BackupError::file(prepared))?;
    }
    fs::create_dir(prepared).map_err(BackupError::file(prepared))?;
    let options = target.options();
    let processes = processes();
    let mut all: Vec<&str> = options.iter().map(String::as_str).collect();
    all.push(&processes);
    let newest_segment = Backups::read(tool)?.newest_segment;
    files(settings, tool, prepared, &all)?;
    println!("files restored; replaying WAL");
    let instance =
        Instance::start(settings, tool, prepared, Archive::Into(archived), "shared_buffers=96MB")?;
    if options.is_empty() {
        instance.require_recovered_to(newest_segment.as_deref())?;
    }
    let newest = instance.query_row(
        "SELECT COALESCE(extract(epoch FROM (SELECT timestamp FROM events ORDER BY id DESC LIMIT 1))::bigint, 0)",
    )?;
    // The live server has no pgBackRest, and none of these holds for it.
    for setting in [
        "restore_command",
        "recovery_target_time",
        "recovery_target_action",
        "recovery_target_timeline",
    ] {
        instance.query(&format!("ALTER SYSTEM RESET {setting}"))?;
    }
    // A number that was given out after the restored time is not given out again: clicks in transit and cached links
    // still carry it.
    instance.query(&format!(
        "SELECT setval(format('%I.%I', schemaname, sequencename), COALESCE(last_value, 0) + {SKIPPED_NUMBERS}) \
         FROM pg_sequences WHERE data_type = 'bigint'::regtype"
    ))?;
    instance.stop()?;
    let newest = newest.first().and_then(|text| text.parse().ok()).unwrap_or_default();
    println!("WAL replayed; the newest event is of {}", readable(newest));
    Ok(())
}

/// pgBackRest's option for its number of processes. The service is stopped, so that a restore may use all processors; each
/// process has its own connection to the repository and about 20 MiB.
fn processes() -> String {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    format!("--process-max={}", count.min(MOST_PROCESSES))
}

/// Restores the files into an empty folder.
pub(crate) fn files(
    settings: &Settings,
    tool: &Tool,
    data: &Path,
    options: &[&str],
) -> Result<(), BackupError> {
    close_to_others(data)?;
    let path = format!("--pg1-path={}", data.display());
    let mut all = vec![path.as_str()];
    all.extend(options);
    tool.run("restore", &all, settings.job_limit).map(drop)
}

/// Removes the present database and moves the prepared one, if any, to its place.
fn replace(data: &Path, prepared: Option<&Path>) -> Result<(), BackupError> {
    let replaced = data.join(REPLACED);
    // Left by a restore that was killed here.
    if replaced.exists() {
        fs::remove_dir_all(&replaced).map_err(BackupError::file(&replaced))?;
    }
    fs::create_dir(&replaced).map_err(BackupError::file(&replaced))?;
    let keep =
        |path: &Path| path == replaced || Some(path) == prepared || path.ends_with("lost+found");
    move_all(data, &replaced, keep)?;
    if let Some(prepared) = prepared {
        // The folder of a new volume is open.
        close_to_others(data)?;
        move_all(prepared, data, |_| false)?;
        fs::remove_dir(prepared).map_err(BackupError::file(prepared))?;
    }
    fs::File::open(data).and_then(|folder| folder.sync_all()).map_err(BackupError::file(data))?;
    fs::remove_dir_all(&replaced).map_err(BackupError::file(&replaced))
}

/// PostgreSQL does not start on a folder that others can read.
fn close_to_others(folder: &Path) -> Result<(), BackupError> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
        .map_err(BackupError::file(folder))
}

/// Moves what is in a folder, `PG_VERSION` last: without it, PostgreSQL does not start on a folder that is half moved.
fn move_all(from: &Path, to: &Path, keep: impl Fn(&Path) -> bool) -> Result<(), BackupError> {
    let entries = fs::read_dir(from).map_err(BackupError::file(from))?;
    let mut paths: Vec<_> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| !keep(path))
        .collect();
    paths.sort_by_key(|path| path.ends_with("PG_VERSION"));
    for path in paths {
        let Some(name) = path.file_name() else { continue };
        fs::rename(&path, to.join(name)).map_err(BackupError::file(&path))?;
    }
    Ok(())
}

/// Fails unless the disk of a folder has room for a restored backup.
pub(crate) fn require_room(folder: &Path, backup: &Backup) -> Result<(), BackupError> {
    // The newest backup may be larger than the fitting one; a tenth more for WAL.
    require_space(folder, backup.database_bytes + backup.database_bytes / 10 + (256 << 20))
}

fn require_space(folder: &Path, bytes: u64) -> Result<(), BackupError> {
    let mut command = std::process::Command::new("df");
    command.args(["--output=avail", "--block-size=1"]).arg(folder);
    let output = process::run_checked("df", &mut command, Duration::from_secs(10))?;
    let free: u64 =
        output.lines().last().and_then(|line| line.trim().parse().ok()).unwrap_or_default();
    if free < bytes {
        return Err(BackupError::Refused(format!(
            "the disk of {} has {} MiB free, and {} MiB are needed; free space",
            folder.display(),
            free >> 20,
            bytes >> 20
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_time_is_converted_to_utc() {
        let target = Target::parse(&["--to", "2026-11-01T13:00:00.5+01:00"]).unwrap();
        assert_eq!(
            target.options(),
            ["--type=time", "--target=2026-11-01 12:00:00.500000+00", "--target-action=promote"]
        );
        assert!(Target::parse(&[]).unwrap().options().is_empty());
    }

    #[test]
    fn wrong_options_are_refused() {
        for options in [
            &["--to"][..],
            &["--to", "noon"],
            &["--to", "2999-01-01T00:00:00Z"],
            &["--timeline", "1;2"],
            &["--force"],
        ] {
            assert!(matches!(Target::parse(options), Err(BackupError::Usage(_))), "{options:?}");
        }
        assert_eq!(
            Target::parse(&["--timeline", "current"]).unwrap().options(),
            ["--target-timeline=current"]
        );
    }

    #[test]
    fn prepared_database_replaces_the_present_one() {
        let root = tempfile::tempdir().unwrap();
        let data = root.path();
        let prepared = data.join("linnet-restore");
        for (folder, text) in [(data, "old"), (prepared.as_path(), "new")] {
            fs::create_dir_all(folder.join("base")).unwrap();
            fs::write(folder.join("PG_VERSION"), text).unwrap();
            fs::write(folder.join("base").join(text), "").unwrap();
        }
        fs::create_dir(data.join("lost+found")).unwrap();
        // Left by a restore that was killed.
        fs::create_dir_all(data.join(REPLACED).join("base")).unwrap();
        replace(data, Some(&prepared)).unwrap();
        assert_eq!(fs::read_to_string(data.join("PG_VERSION")).unwrap(), "new");
        let mut names: Vec<_> = fs::read_dir(data)
            .unwrap()
            .map(|one| one.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["PG_VERSION", "base", "lost+found"]);
        assert!(data.join("base/new").exists() && !data.join("base/old").exists());
    }

    #[test]
    fn full_disk_is_reported_before_anything_changes() {
        let root = tempfile::tempdir().unwrap();
        assert!(require_space(root.path(), 1).is_ok());
        assert!(
            require_space(root.path(), u64::MAX).unwrap_err().to_string().ends_with("free space")
        );
    }
}
