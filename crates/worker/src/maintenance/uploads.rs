//! The task `uploads`: removes uploads that no job needs.

use std::{
    fs, io,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use linnet_domain::UploadName;
use linnet_jobs::upload::{self, UploadArea};
use linnet_store::Store;

use super::{MaintenanceContext, Report, RunError};

/// Age from which an upload that is a file is removed. The job of a younger one may not exist yet.
const MIN_AGE: Duration = Duration::from_hours(1);
/// The maximum number of names in one query.
const NAMES_PER_QUERY: usize = 1_000;

/// Removes the uploads of killed processes, of jobs that ended with their keys, and of jobs that were deleted with their
/// user.
pub(super) async fn remove_orphans(context: &MaintenanceContext) -> Result<Report, RunError> {
    let listed = context.settings.jobs.upload_dir.clone();
    let now = context.clock.now().into();
    let names = tokio::task::spawn_blocking(move || old_files(&listed, now))
        .await
        .map_err(io::Error::other)??;
    let area = UploadArea::new(Arc::new(context.settings.jobs.clone()), context.store.clone());
    let files: Vec<_> = names.into_iter().map(UploadName::File).collect();
    let mut removed = 0;
    for names in files.chunks(NAMES_PER_QUERY) {
        let needed = context.store.needed_uploads(names).await?;
        for name in names.iter().filter(|name| !needed.contains(*name)) {
            area.remove(name).await;
            removed += 1;
        }
    }
    removed += remove_pieces(&context.store).await?;
    Ok(Report::of(removed, "upload(s) removed"))
}

/// Removes the uploads in the database that no job needs, and returns their number.
async fn remove_pieces(store: &Store) -> Result<u64, RunError> {
    let (mut last, mut removed) = (None, 0);
    loop {
        let ids = store.unneeded_uploads(last).await?;
        last = ids.last().copied();
        if last.is_none() {
            break;
        }
        let names: Vec<_> = ids.iter().copied().map(UploadName::Pieces).collect();
        let needed = store.needed_uploads(&names).await?;
        for id in ids.into_iter().filter(|id| !needed.contains(&UploadName::Pieces(*id))) {
            removed += u64::from(store.delete_unneeded_upload(id).await?);
        }
    }
    store.forget_removed_upload_bytes().await?;
    Ok(removed)
}

/// Names of uploads of at least [`MIN_AGE`]; none if the upload area does not exist.
fn old_files(area: &Path, now: SystemTime) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(area) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let age = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .map(|time| now.duration_since(time).unwrap_or_default());
        let name = entry.file_name().into_string().ok();
        if let (Ok(age), Some(name)) = (age, name)
            && age >= MIN_AGE
            && name.ends_with(upload::SUFFIX)
        {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn only_old_uploads_are_candidates() {
        let now = SystemTime::UNIX_EPOCH + 100 * MIN_AGE;
        let area = tempfile::tempdir().unwrap();
        assert!(old_files(&area.path().join("absent"), now).unwrap().is_empty());
        for (name, age) in
            [("old.rows", 2 * MIN_AGE), ("new.rows", Duration::ZERO), ("old.txt", 2 * MIN_AGE)]
        {
            let file = File::create(area.path().join(name)).unwrap();
            file.set_modified(now - age).unwrap();
        }
        assert_eq!(old_files(area.path(), now).unwrap(), ["old.rows"]);
    }
}
