//! The command `status`: what an operator wants to know, as text.

use crate::{
    BackupError, archive,
    info::Backups,
    settings::Settings,
    state::TestResult,
    time::{now, readable},
    tool::Tool,
};

/// Prints the backups, what waits, and the last restore test.
pub(crate) fn print(settings: &Settings) -> Result<(), BackupError> {
    let backlog = archive::backlog(settings)?;
    println!(
        "WAL that waits: {} segment(s), {} KiB, the oldest for {} s; {} not archived",
        backlog.segments.len(),
        backlog.bytes() >> 10,
        backlog.oldest().as_secs(),
        backlog.not_archived
    );
    let test = TestResult::load(settings);
    match (test.ended, test.failure.as_str()) {
        (0, _) => println!("restore test: none yet"),
        (ended, "") => println!(
            "restore test: succeeded at {} in {} s, {} links resolved, newest row of {}",
            readable(ended),
            test.duration_s,
            test.resolved_links,
            readable(test.newest_row)
        ),
        (ended, failure) => println!("restore test: FAILED at {}: {failure}", readable(ended)),
    }
    let backups = Backups::read(&Tool::new(settings)?)?;
    println!(
        "newest WAL segment in the repository: {}",
        backups.newest_segment.as_deref().unwrap_or("none")
    );
    println!(
        "{:<34} {:<12} {:<21} {:>9} {:>10} {:>10}",
        "BACKUP", "KIND", "ENDED", "AGE h", "SIZE MiB", "ADDED KiB"
    );
    for backup in &backups.all {
        println!(
            "{:<34} {:<12} {:<21} {:>9} {:>10} {:>10}{}",
            backup.label,
            if backup.is_full { "full" } else { "differential" },
            readable(backup.stopped),
            (now() - backup.stopped) / 3_600,
            backup.database_bytes >> 20,
            backup.repository_bytes >> 10,
            if backup.has_errors { "  DAMAGED PAGES" } else { "" }
        );
    }
    Ok(())
}
