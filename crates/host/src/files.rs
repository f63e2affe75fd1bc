//! Files that survive a crash: each is written beside its place, flushed, and renamed.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{error::HostError, paths, record::Record};

/// Reads a file; `None` if there is none.
pub fn read(path: impl AsRef<Path>) -> Result<Option<String>, HostError> {
    let path = path.as_ref();
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(HostError::File(path.to_owned(), error)),
    }
}

/// Replaces a file at once: a reader sees the old or the new content, also after a loss of power.
pub fn write(path: impl AsRef<Path>, text: &str) -> Result<(), HostError> {
    let path = path.as_ref();
    let failed = |error| HostError::File(path.to_owned(), error);
    let new = path.with_extension("new");
    let mut file = File::create(&new).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    fs::rename(&new, path).map_err(failed)?;
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

/// Points a link to `target` at once.
pub fn link(path: impl AsRef<Path>, target: impl AsRef<Path>) -> Result<(), HostError> {
    let path = path.as_ref();
    let failed = |error| HostError::File(path.to_owned(), error);
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    symlink(target, &new).map_err(failed)?;
    fs::rename(&new, path).map_err(failed)
}

/// Points the links `current` and `previous` in the folder to releases, or removes them.
pub fn link_releases(
    links: impl AsRef<Path>,
    current: Option<&str>,
    previous: Option<&str>,
) -> Result<(), HostError> {
    // The release before first, so that the other is never alone.
    for (name, release) in [("previous", previous), ("current", current)] {
        let path = links.as_ref().join(name);
        match (release, fs::symlink_metadata(&path)) {
            (Some(release), _) => link(&path, links.as_ref().join("releases").join(release))?,
            (None, Ok(_)) => {
                fs::remove_file(&path).map_err(|error| HostError::File(path, error))?;
            }
            (None, Err(_)) => {}
        }
    }
    Ok(())
}

/// Points a link to the folder to which `target` leads in the end, so that it needs no link in between.
pub fn link_folder(path: impl AsRef<Path>, target: impl AsRef<Path>) -> Result<(), HostError> {
    let folder = fs::canonicalize(&target)
        .map_err(|error| HostError::File(target.as_ref().to_owned(), error))?;
    link(path, folder)
}

/// Reads a JSON file; `None` if there is none.
pub fn read_json<T: DeserializeOwned>(path: impl AsRef<Path>) -> Result<Option<T>, HostError> {
    let path = path.as_ref();
    let Some(text) = read(path)? else { return Ok(None) };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| HostError::Damaged(path.to_owned(), error))
}

/// Writes a JSON file.
pub fn write_json(path: impl AsRef<Path>, value: &impl Serialize) -> Result<(), HostError> {
    let path = path.as_ref();
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| HostError::Damaged(path.to_owned(), error))?;
    write(path, &(text + "\n"))
}

/// The file of a record.
pub fn record_path(id: &str) -> PathBuf {
    Path::new(paths::RECORDS).join(format!("{id}.json"))
}

/// Reads a record; `None` if there is none.
pub fn read_record(id: &str) -> Result<Option<Record>, HostError> {
    read_json(record_path(id))
}

/// All records, in the order of their start. One that cannot be read is left out, so that it does not end a deployment.
pub fn records() -> Result<Vec<Record>, HostError> {
    let folder = Path::new(paths::RECORDS);
    let entries =
        fs::read_dir(folder).map_err(|error| HostError::File(folder.to_owned(), error))?;
    let files = entries.flatten().map(|entry| entry.path());
    let mut records: Vec<Record> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .filter_map(|path| read_json(path).ok().flatten())
        .collect();
    records.sort_by(|a, b| (a.started, &a.id).cmp(&(b.started, &b.id)));
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_is_replaced_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        assert_eq!(read(&path).unwrap(), None);
        write_json(&path, &vec![1, 2]).unwrap();
        write_json(&path, &vec![3]).unwrap();
        assert_eq!(read_json::<Vec<u8>>(&path).unwrap(), Some(vec![3]));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        write(&path, "{").unwrap();
        let error = read_json::<Vec<u8>>(&path).unwrap_err().to_string();
        assert!(error.contains("is damaged"), "{error}");
    }

    #[test]
    fn links_follow_a_release_and_its_return_and_the_failed_first_release_leaves_none() {
        let folder = tempfile::tempdir().unwrap();
        let lead_to = |name| {
            let target = fs::read_link(folder.path().join(name)).ok()?;
            Some(target.file_name()?.to_str()?.to_owned())
        };
        link_releases(&folder, Some("v1"), None).unwrap();
        assert_eq!((lead_to("current").as_deref(), lead_to("previous")), (Some("v1"), None));
        link_releases(&folder, Some("v2"), Some("v1")).unwrap();
        assert_eq!(lead_to("previous").as_deref(), Some("v1"));
        link_releases(&folder, Some("v1"), None).unwrap();
        assert_eq!((lead_to("current").as_deref(), lead_to("previous")), (Some("v1"), None));
        link_releases(&folder, None, None).unwrap();
        assert_eq!(lead_to("current"), None);
    }

    #[test]
    fn link_is_replaced_even_after_an_interrupted_attempt() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("current");
        link(&path, "a").unwrap();
        symlink("left over", folder.path().join("current.new")).unwrap();
        link(&path, "b").unwrap();
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("b"));
    }
}
