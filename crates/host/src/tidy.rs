//! Removes folders, images and records that nothing needs any more, after a deployment.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    docker, files, paths,
    record::{Images, Record},
    state::State,
    unit::{self, Lock},
};

/// How many records stay.
const RECORDS: usize = 200;

/// Removes what neither the current release, nor the one before, nor one that is being deployed needs. Failures do not
/// matter: the next deployment removes the rest, and the check of its disk notices what stays.
pub fn tidy(state: &State) {
    // Images that a `deploy` is fetching have no record yet.
    let Ok(_lock) = unit::lock(Lock::Prepare) else { return };
    let Ok(Some(current)) = state.current() else { return };
    let Ok(records) = files::records() else { return };
    // A container that was not recreated since has files of its own release mounted, and needs them at its next start.
    let Ok(mounts) = docker::mounts() else { return };
    let kept = kept(&current, &records);
    let folders: Vec<PathBuf> = kept
        .iter()
        .map(|record| Path::new(paths::RELEASES).join(&record.id))
        .chain(mounts.into_iter().map(|mount| mount.source.into()))
        .collect();
    let needed: BTreeSet<PathBuf> = folders
        .iter()
        .flat_map(|path| [Some(path.clone()), fs::canonicalize(path).ok()])
        .flatten()
        .collect();
    let Ok(entries) = fs::read_dir(paths::RELEASES) else { return };
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| !is_needed(path, &needed))
    {
        let _ = if path.is_symlink() { fs::remove_file(&path) } else { fs::remove_dir_all(&path) };
    }
    let images: Vec<&Images> = kept.iter().map(|record| &record.images).collect();
    let others: Vec<String> = kept
        .iter()
        .filter_map(|record| state.compose(&record.id).images().ok())
        .flatten()
        .collect();
    docker::prune(&images, &others);
    let kept: Vec<&str> = kept.iter().map(|record| record.id.as_str()).collect();
    for id in old_records(&records, &kept) {
        let _ = fs::remove_file(files::record_path(id));
    }
}

/// The releases whose folders and images stay: the current one, the one before, and the newest without an outcome, whose
/// deployment waits for the end of this one or is running.
fn kept<'a>(current: &'a Record, records: &'a [Record]) -> Vec<&'a Record> {
    let previous = records.iter().find(|record| Some(&record.id) == current.previous.as_ref());
    let pending = records.iter().max_by_key(|record| record.started);
    let pending = pending.filter(|record| record.outcome.is_none());
    std::iter::once(current).chain(previous).chain(pending).collect()
}

/// Whether one of the paths is the folder or in it.
fn is_needed(folder: &Path, needed: &BTreeSet<PathBuf>) -> bool {
    needed.iter().any(|path| path.starts_with(folder))
}

/// Records beyond the newest ones, except those that are `kept`. `records` are in the order of their start.
fn old_records<'a>(records: &'a [Record], kept: &[&str]) -> impl Iterator<Item = &'a str> {
    let old = records.iter().take(records.len().saturating_sub(RECORDS));
    old.map(|record| record.id.as_str()).filter(|id| !kept.contains(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Outcome, tests::record};

    fn ended(id: &str, previous: Option<&str>, started: u64) -> Record {
        let mut record = Record {
            id: id.to_owned(),
            previous: previous.map(str::to_owned),
            started,
            ..record(&[])
        };
        record.finish(Outcome::Succeeded, started + 1);
        record
    }

    fn ids(current: &Record, records: &[Record]) -> Vec<String> {
        kept(current, records).into_iter().map(|record| record.id.clone()).collect()
    }

    #[test]
    fn release_that_waits_for_the_end_of_a_warm_one_is_kept() {
        let current = ended("v2", Some("v1"), 20);
        let mut next = Record { id: "v3".to_owned(), ..ended("", None, 30) };
        next.outcome = None;
        let records = [ended("v0", None, 1), ended("v1", Some("v0"), 10), current.clone(), next];
        assert_eq!(ids(&current, &records), ["v2", "v1", "v3"]);
        assert_eq!(ids(&current, &records[..3]), ["v2", "v1"]);
    }

    #[test]
    fn release_that_was_never_started_is_not_kept_for_ever() {
        let current = ended("v2", Some("v1"), 20);
        let never = Record { outcome: None, ..ended("v1.5", None, 15) };
        assert_eq!(ids(&current, &[never, current.clone()]), ["v2"]);
    }

    #[test]
    fn folder_with_a_mounted_file_is_needed() {
        let needed = ["/r/v1/nginx/slots.sh", "/r/v3"].into_iter().map(PathBuf::from).collect();
        assert!(is_needed(Path::new("/r/v1"), &needed));
        assert!(is_needed(Path::new("/r/v3"), &needed));
        assert!(!is_needed(Path::new("/r/v2"), &needed));
        // The name of one folder may begin with that of another.
        assert!(!is_needed(Path::new("/r/v"), &needed));
    }

    #[test]
    fn two_hundred_records_stay() {
        let records: Vec<Record> =
            (0..203).map(|index| ended(&format!("r{index}"), None, index)).collect();
        assert_eq!(old_records(&records, &["r1"]).collect::<Vec<_>>(), ["r0", "r2"]);
        assert_eq!(old_records(&records[..200], &[]).count(), 0);
    }
}
