//! The task `uploads`: removes files from the upload area that no job needs.

use std::{
    fs, io,
    path::Path,
    time::{Duration, SystemTime},
};

use linnet_jobs::upload;

use super::{MaintenanceContext, Report, RunError};

/// Age from which a file is removed. The job of a younger file may not exist yet.
const MIN_AGE: Duration = Duration::from_hours(1);
/// The maximum number of file names in one query.
const NAMES_PER_QUERY: usize = 1_000;

/// Removes the files of killed processes and of jobs that were deleted with their user.
pub(super) async fn remove_orphans(context: &MaintenanceContext) -> Result<Report, RunError> {
    let area = context.settings.jobs.upload_dir.clone();
    let listed = area.clone();
    let now = context.clock.now().into();
    let names = tokio::task::spawn_blocking(move || old_files(&listed, now))
        .await
        .map_err(io::Error::other)??;
    let mut removed = 0;
    for names in names.chunks(NAMES_PER_QUERY) {
        let needed = context.store.needed_uploads(names).await?;
        let orphans: Vec<_> = names
            .iter()
            .filter(|name| !needed.contains(*name))
            .map(|name| area.join(name))
            .collect();
        removed += orphans.len() as u64;
        let removal = move || orphans.iter().for_each(|path| upload::remove(path));
        tokio::task::spawn_blocking(removal).await.map_err(io::Error::other)?;
    }
    Ok(Report::of(removed, "upload(s) removed"))
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
