//! Removes folders, images and records that nothing needs any more, after a deployment.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    docker::{self, Mount},
    files, paths,
    record::{Images, Record},
    state::{State, now},
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
    let running: Vec<&str> = state.installation.releases().collect();
    let kept = kept(&current, &records, &running, now());
    let ids: Vec<&str> = kept.iter().map(|record| record.id.as_str()).collect();
    remove_folders(Path::new(paths::RELEASES), &ids, &mounts);
    let images: Vec<&Images> = kept.iter().map(|record| &record.images).collect();
    let others: Vec<String> = kept
        .iter()
        .filter_map(|record| state.compose(&record.id).ok()?.images().ok())
        .flatten()
        .collect();
    docker::prune(&images, &others);
    for id in old_records(&records, &ids) {
        let _ = fs::remove_file(files::record_path(id));
    }
}

/// A release that was prepared and has not ended after this time, in seconds, never will.
const LONGEST_DEPLOYMENT_S: u64 = 6 * 3600;

/// The releases whose folders and images stay: the current one, the one before, those of containers, and those that were
/// prepared and have not ended. Such a deployment fetches its release before it ends this one.
fn kept<'a>(
    current: &'a Record,
    records: &'a [Record],
    running: &[&str],
    now: u64,
) -> Vec<&'a Record> {
    let others = records.iter().filter(|record| {
        record.id != current.id
            && (Some(&record.id) == current.previous.as_ref()
                || running.contains(&record.id.as_str()))
    });
    let pending = records
        .iter()
        .filter(|record| record.outcome.is_none() && record.started + LONGEST_DEPLOYMENT_S > now);
    std::iter::once(current).chain(others).chain(pending).collect()
}

/// Removes the folders and links in `releases` that are neither kept nor lead to a mounted file.
fn remove_folders(releases: &Path, kept: &[&str], mounts: &[Mount]) {
    let needed = kept
        .iter()
        .map(|id| releases.join(id))
        .chain(mounts.iter().map(|mount| PathBuf::from(&mount.source)));
    // A rollback's folder is a link to that of its release.
    let needed: BTreeSet<PathBuf> =
        needed.flat_map(|path| [fs::canonicalize(&path).ok(), Some(path)]).flatten().collect();
    let Ok(entries) = fs::read_dir(releases) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if needed.iter().any(|needed| needed.starts_with(&path)) {
            continue;
        }
        let _ = if path.is_symlink() { fs::remove_file(&path) } else { fs::remove_dir_all(&path) };
    }
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

    fn ids(current: &Record, records: &[Record], now: u64) -> Vec<String> {
        kept(current, records, &["v-1"], now).into_iter().map(|record| record.id.clone()).collect()
    }

    #[test]
    fn release_that_waits_for_the_end_of_a_warm_one_is_kept() {
        let current = ended("v2", Some("v1"), 20);
        let mut next = Record { id: "v3".to_owned(), ..ended("", None, 30) };
        next.outcome = None;
        let records = [ended("v0", None, 1), ended("v1", Some("v0"), 10), current.clone(), next];
        assert_eq!(ids(&current, &records, 40), ["v2", "v1", "v3"]);
        assert_eq!(ids(&current, &records[..3], 40), ["v2", "v1"]);
    }

    #[test]
    fn release_of_a_sidecar_is_kept_after_a_rollback() {
        let current = ended("v1-again-30", Some("v1"), 30);
        let records = [ended("v-1", None, 1), ended("v1", None, 10), current.clone()];
        assert_eq!(ids(&current, &records, 40), ["v1-again-30", "v-1", "v1"]);
    }

    #[test]
    fn release_that_was_never_started_is_not_kept_for_ever() {
        let current = ended("v2", Some("v1"), 20);
        let never = Record { outcome: None, ..ended("v1.5", None, 15) };
        let records = [never, current.clone()];
        assert_eq!(ids(&current, &records, 15 + LONGEST_DEPLOYMENT_S - 1), ["v2", "v1.5"]);
        assert_eq!(ids(&current, &records, 15 + LONGEST_DEPLOYMENT_S), ["v2"]);
    }

    #[test]
    fn folders_of_kept_releases_and_of_mounted_files_stay() {
        let folder = tempfile::tempdir().unwrap();
        let releases = fs::canonicalize(folder.path()).unwrap();
        for id in ["v", "v1", "v2", "v3", "v4", ".v5"] {
            fs::create_dir_all(releases.join(id).join("nginx")).unwrap();
        }
        for (link, target) in
            [("v3-again", "v3"), ("v3-again-again", "v3-again"), ("v2-again", "v2")]
        {
            files::link_folder(releases.join(link), releases.join(target)).unwrap();
        }
        let source = releases.join("v1/nginx").display().to_string();
        let missing = releases.join("v0/nginx").display().to_string();
        let mounts = [source, missing, "/".to_owned()]
            .map(|source| Mount { service: "nginx".to_owned(), source });
        // The link in between is not kept.
        remove_folders(&releases, &["v3-again-again", "v4"], &mounts);
        let mut left: Vec<_> = fs::read_dir(&releases)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["v1", "v3", "v3-again-again", "v4"]);
        assert!(releases.join("v3-again-again/nginx").exists());
    }

    #[test]
    fn two_hundred_records_stay() {
        let records: Vec<Record> =
            (0..203).map(|index| ended(&format!("r{index}"), None, index)).collect();
        assert_eq!(old_records(&records, &["r1"]).collect::<Vec<_>>(), ["r0", "r2"]);
        assert_eq!(old_records(&records[..200], &[]).count(), 0);
    }
}
