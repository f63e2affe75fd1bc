//! WAL segments between PostgreSQL and the repository.
//!
//! PostgreSQL has no route out, so its `archive_command` (`deploy/backup/archive.sh`) only copies each segment into a
//! shared folder, under its name once the copy is on the disk. The sidecar pushes and then removes it.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use crate::{BackupError, settings::Settings, tool::Tool};

/// Longest time for one segment. Its upload takes about a second.
const PUSH_LIMIT: Duration = Duration::from_mins(2);

/// A segment that waits.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    /// Bytes that it occupies on the disk: a segment that PostgreSQL closed early has a hole at its end.
    pub(crate) bytes: u64,
    /// Time since PostgreSQL archived it.
    pub(crate) age: Duration,
}

/// The segments that wait in the archive folder, and before it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Backlog {
    /// In the order in which PostgreSQL wrote them.
    pub(crate) segments: Vec<Segment>,
    /// Segments that PostgreSQL has closed but not archived.
    pub(crate) not_archived: u64,
}

impl Backlog {
    /// Age of the oldest segment that waits, 0 if none does.
    pub(crate) fn oldest(&self) -> Duration {
        self.segments.iter().map(|segment| segment.age).max().unwrap_or_default()
    }

    /// Bytes on the disk of all segments that wait.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }
}

/// Whether PostgreSQL gives files of this name to its `archive_command`: a segment, the end of a timeline, the label of
/// a backup, the history of a timeline.
fn is_wal_name(name: &str) -> bool {
    let is_hex = |text: &str, length: usize| {
        text.len() == length
            && text.bytes().all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte))
    };
    match name.split_once('.') {
        None => is_hex(name, 24),
        Some((timeline, "history")) => is_hex(timeline, 8),
        Some((segment, "partial")) => is_hex(segment, 24),
        Some((segment, label)) => {
            is_hex(segment, 24)
                && label.strip_suffix(".backup").is_some_and(|offset| is_hex(offset, 8))
        }
    }
}

/// Lists what waits.
pub(crate) fn backlog(settings: &Settings) -> Result<Backlog, BackupError> {
    let now = SystemTime::now();
    let mut segments = Vec::new();
    for entry in fs::read_dir(&settings.archive).map_err(BackupError::file(&settings.archive))? {
        let entry = entry.map_err(BackupError::file(&settings.archive))?;
        if !entry.file_name().to_str().is_some_and(is_wal_name) {
            continue;
        }
        // A one-off container may have pushed it meanwhile.
        let Ok(metadata) = entry.metadata() else { continue };
        let age = metadata
            .modified()
            .ok()
            .and_then(|time| now.duration_since(time).ok())
            .unwrap_or_default();
        segments.push(Segment { path: entry.path(), bytes: metadata.blocks() * 512, age });
    }
    segments.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(Backlog { segments, not_archived: not_archived(&settings.data) })
}

/// Counts PostgreSQL's marks for segments that its archiver has not processed. Without a database there are none.
fn not_archived(data: &Path) -> u64 {
    let Ok(marks) = fs::read_dir(data.join("pg_wal/archive_status")) else { return 0 };
    let ready = marks
        .filter_map(Result::ok)
        .filter(|mark| mark.path().extension().is_some_and(|name| name == "ready"));
    u64::try_from(ready.count()).unwrap_or(u64::MAX)
}

/// Pushes one segment and removes it.
pub(crate) fn push(tool: &Tool, segment: &Segment) -> Result<(), BackupError> {
    tool.run("archive-push", &[&segment.path.to_string_lossy()], PUSH_LIMIT)?;
    fs::remove_file(&segment.path).map_err(BackupError::file(&segment.path))
}

/// The empty folder into which a database that is being restored archives. It is on the disk of the archive folder.
pub(crate) fn prepared(settings: &Settings) -> Result<PathBuf, BackupError> {
    let folder = settings.archive.join("restored");
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(BackupError::file(&folder))?;
    }
    fs::create_dir(&folder).map_err(BackupError::file(&folder))?;
    Ok(folder)
}

/// Segments of a database that is about to replace the present one.
fn accepted(settings: &Settings) -> PathBuf {
    settings.archive.join("accepted")
}

/// Keeps the segments of [`prepared`] for [`settle`]: the database that wrote them will replace the present one.
pub(crate) fn accept(settings: &Settings, folder: &Path) -> Result<(), BackupError> {
    let accepted = accepted(settings);
    if accepted.exists() {
        fs::remove_dir_all(&accepted).map_err(BackupError::file(&accepted))?;
    }
    fs::rename(folder, &accepted).map_err(BackupError::file(folder))
}

/// Whether [`settle`] has work, after a restore that was interrupted.
pub(crate) fn is_unsettled(settings: &Settings) -> bool {
    accepted(settings).exists()
}

/// Moves the accepted segments to where they are pushed if their database has replaced the present one, and otherwise
/// removes them: in the repository, they would lead later restores to a database that never served.
///
/// Segments of earlier timelines that wait were given up by the restore. Those of the new timeline stay: the restored
/// database may have started.
pub(crate) fn settle(settings: &Settings) -> Result<(), BackupError> {
    let accepted = accepted(settings);
    if !accepted.exists() {
        return Ok(());
    }
    // `PG_VERSION` is the last file that moves.
    if !settings.prepared().join("PG_VERSION").exists() {
        let newest = timelines(&accepted)?.max();
        for segment in backlog(settings)?.segments {
            if timeline(&segment.path) < newest {
                fs::remove_file(&segment.path).map_err(BackupError::file(&segment.path))?;
            }
        }
        move_segments(&accepted, &settings.archive)?;
    }
    fs::remove_dir_all(&accepted).map_err(BackupError::file(&accepted))
}

fn timelines(folder: &Path) -> Result<impl Iterator<Item = String>, BackupError> {
    let entries = fs::read_dir(folder).map_err(BackupError::file(folder))?;
    Ok(entries.filter_map(|entry| timeline(&entry.ok()?.path())))
}

/// The timeline of a segment: the first eight digits of its name, which sort as numbers.
fn timeline(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str().filter(|name| is_wal_name(name))?;
    name.get(..8).map(ToOwned::to_owned)
}

fn move_segments(from: &Path, to: &Path) -> Result<(), BackupError> {
    for entry in fs::read_dir(from).map_err(BackupError::file(from))?.filter_map(Result::ok) {
        if entry.file_name().to_str().is_some_and(is_wal_name) {
            fs::rename(entry.path(), to.join(entry.file_name()))
                .map_err(BackupError::file(entry.path()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::below;

    #[test]
    fn accepts_only_names_of_postgresql() {
        for name in [
            "000000010000000000000042",
            "000000010000000000000042.partial",
            "000000010000000000000042.00000028.backup",
            "00000002.history",
        ] {
            assert!(is_wal_name(name), "{name}");
        }
        for name in [
            "",
            ".000000010000000000000042.part",
            "00000001000000000000004",
            "00000001000000000000004g",
            "a.history",
        ] {
            assert!(!is_wal_name(name), "{name}");
        }
    }

    #[test]
    fn lists_segments_in_order_and_ignores_unfinished_copies() {
        let root = tempfile::tempdir().unwrap();
        let settings = below(root.path());
        for name in [
            "000000010000000000000002",
            ".000000010000000000000003.part",
            "000000010000000000000001",
            "00000002.history",
        ] {
            fs::write(settings.archive.join(name), [1; 4_096]).unwrap();
        }
        fs::create_dir_all(settings.data.join("pg_wal/archive_status")).unwrap();
        for name in ["000000010000000000000004.ready", "000000010000000000000001.done"] {
            fs::write(settings.data.join("pg_wal/archive_status").join(name), "").unwrap();
        }
        let backlog = backlog(&settings).unwrap();
        let names: Vec<_> = backlog
            .segments
            .iter()
            .map(|one| one.path.file_name().unwrap().to_str().unwrap())
            .collect();
        assert_eq!(
            names,
            ["000000010000000000000001", "000000010000000000000002", "00000002.history"]
        );
        assert_eq!(backlog.not_archived, 1);
        assert!(backlog.bytes() >= 3 * 4_096);
    }

    #[test]
    fn segments_of_the_restored_database_replace_those_that_were_given_up() {
        let root = tempfile::tempdir().unwrap();
        let settings = below(root.path());
        for name in ["000000010000000000000001", "000000010000000000000002"] {
            fs::write(settings.archive.join(name), "given up").unwrap();
        }
        let folder = prepared(&settings).unwrap();
        fs::write(folder.join("000000010000000000000001"), "restored").unwrap();
        fs::write(folder.join("00000002.history"), "restored").unwrap();
        fs::write(settings.archive.join("000000020000000000000003"), "restored").unwrap();
        accept(&settings, &folder).unwrap();
        settle(&settings).unwrap();
        assert!(!is_unsettled(&settings));
        let waiting = backlog(&settings).unwrap().segments;
        assert_eq!(waiting.len(), 3);
        assert!(waiting.iter().all(|one| fs::read_to_string(&one.path).unwrap() == "restored"));
    }

    #[test]
    fn segments_of_a_database_that_did_not_replace_the_present_one_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let settings = below(root.path());
        fs::write(settings.archive.join("000000010000000000000002"), "present").unwrap();
        let folder = prepared(&settings).unwrap();
        fs::write(folder.join("00000002.history"), "restored").unwrap();
        accept(&settings, &folder).unwrap();
        fs::create_dir_all(settings.prepared()).unwrap();
        fs::write(settings.prepared().join("PG_VERSION"), "17").unwrap();
        settle(&settings).unwrap();
        assert!(!is_unsettled(&settings));
        let waiting = backlog(&settings).unwrap().segments;
        assert_eq!(waiting.len(), 1);
        assert_eq!(fs::read_to_string(&waiting[0].path).unwrap(), "present");
    }
}
