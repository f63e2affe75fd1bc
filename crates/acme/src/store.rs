//! The files: certificates for nginx, and the account's key and the state for this process.
//!
//! ```text
//! ROOT/v-7/cert.pem, key.pem     a chain and its key, 0640
//! ROOT/v-7/directory             the URL of the CA's directory; absent in a placeholder
//! ROOT/v-7/hsts                  present if browsers trust the CA: nginx then sends HSTS
//! ROOT/live -> v-7               the certificate in use
//! ROOT/private/                  account keys and state, 0700
//! ```
//!
//! Invariants:
//! - `live` leads to a complete folder at any time, also after a power failure: every file and folder is synced before
//!   the rename, and the rename is atomic.
//! - A failed installation leaves `live` as it was, and removes what it wrote.
//! - Files are readable by the folder's group, in which nginx's worker processes are.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::certificate::{Certificate, CertificateError};

const LIVE: &str = "live";
const NEXT: &str = ".next";
const CHAIN: &str = "cert.pem";
const KEY: &str = "key.pem";
const DIRECTORY: &str = "directory";
const HSTS: &str = "hsts";
const PRIVATE: &str = "private";
const LOCK: &str = "lock";
/// More than an account, a chain with its key and the state need, in bytes.
const ROOM_BYTES: usize = 64 * 1024;
/// Older folders stay for workers of nginx that opened `live` just before the swap.
const KEPT_VERSIONS: usize = 3;

/// Why the files cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or folder cannot be read or written.
    #[error("{}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of this process has other content than it writes.
    #[error("{} has unexpected content", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

impl StoreError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// A certificate to install.
pub struct Issued {
    /// The certificate and its issuers, in PEM format.
    pub chain: String,
    /// The key, in PEM format.
    pub key: String,
    /// The public key, in DER format.
    pub public_key: Vec<u8>,
    /// The URL of the CA's directory; `None` for a placeholder.
    pub directory: Option<String>,
    /// Whether browsers trust the CA.
    pub is_trusted: bool,
}

/// The certificate in use.
#[derive(Debug, Clone)]
pub struct Installed {
    /// The number of its folder.
    pub version: u64,
    /// The URL of the CA's directory; `None` for a placeholder.
    pub directory: Option<String>,
    /// Whether browsers trust the CA.
    pub is_trusted: bool,
    /// The certificate, or why it cannot be parsed.
    pub certificate: Result<Certificate, std::sync::Arc<CertificateError>>,
}

/// The folder of certificates.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens the folder, and creates what is missing.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let private = root.join(PRIVATE);
        if !private.is_dir() {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o750).create(root).map_err(StoreError::io(root))?;
            let mut builder = DirBuilder::new();
            builder.mode(0o700).create(&private).map_err(StoreError::io(&private))?;
        }
        Ok(Self { root: root.to_owned() })
    }

    /// Locks the folder for this process, until the returned file is closed. `None` if another process has it.
    pub fn lock(&self) -> Result<Option<File>, StoreError> {
        let path = self.root.join(PRIVATE).join(LOCK);
        let mut options = OpenOptions::new();
        let file = options.create(true).write(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(StoreError::io(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(StoreError::io(&path)(error)),
        }
    }

    /// The certificate in use; `None` if there is none yet.
    pub fn current(&self) -> Result<Option<Installed>, StoreError> {
        let live = self.root.join(LIVE);
        let target = match fs::read_link(&live) {
            Ok(target) => target,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io(&live)(error)),
        };
        let folder = self.root.join(&target);
        let path = folder.join(CHAIN);
        let chain = fs::read(&path).map_err(StoreError::io(&path))?;
        Ok(Some(Installed {
            version: version_of(&target).unwrap_or(0),
            directory: fs::read_to_string(folder.join(DIRECTORY)).ok(),
            is_trusted: folder.join(HSTS).exists(),
            certificate: Certificate::parse(&chain).map_err(std::sync::Arc::new),
        }))
    }

    /// Writes a certificate to a new folder and moves `live` to it. Returns the folder's number.
    pub fn install(&self, issued: &Issued) -> Result<u64, StoreError> {
        let versions = self.versions()?;
        let version = versions.last().map_or(0, |last| last + 1);
        let folder = self.root.join(format!("v-{version}"));
        let installed = self.write_version(&folder, issued);
        if let Err(error) = installed {
            // A folder that remains is harmless: the next one has a higher number.
            let _ = fs::remove_dir_all(&folder);
            return Err(error);
        }
        let old = versions.len().saturating_sub(KEPT_VERSIONS - 1);
        for version in versions.into_iter().take(old) {
            let _ = fs::remove_dir_all(self.root.join(format!("v-{version}")));
        }
        Ok(version)
    }

    fn write_version(&self, folder: &Path, issued: &Issued) -> Result<(), StoreError> {
        DirBuilder::new().mode(0o750).create(folder).map_err(StoreError::io(folder))?;
        write_synced(&folder.join(CHAIN), issued.chain.as_bytes(), 0o640)?;
        write_synced(&folder.join(KEY), issued.key.as_bytes(), 0o640)?;
        if let Some(url) = &issued.directory {
            write_synced(&folder.join(DIRECTORY), url.as_bytes(), 0o640)?;
        }
        if issued.is_trusted {
            write_synced(&folder.join(HSTS), b"", 0o640)?;
        }
        sync_folder(folder)?;
        sync_folder(&self.root)?;
        let next = self.root.join(NEXT);
        // Left by a process that was killed here.
        let _ = fs::remove_file(&next);
        let name = folder.file_name().map(PathBuf::from).unwrap_or_default();
        symlink(name, &next).map_err(StoreError::io(&next))?;
        let live = self.root.join(LIVE);
        fs::rename(&next, &live).map_err(StoreError::io(&live))?;
        // The swap is done. After a power failure, an unsynced rename may be undone, which leaves the previous one.
        let _ = sync_folder(&self.root);
        Ok(())
    }

    /// Checks that there is room for an account, a certificate and the state, so that nothing is ordered that cannot be
    /// stored.
    pub(crate) fn check_room(&self) -> Result<(), StoreError> {
        let path = self.root.join(PRIVATE).join("room");
        let written = write_synced(&path, &vec![0; ROOM_BYTES], 0o600);
        let _ = fs::remove_file(&path);
        written
    }

    /// The numbers of all folders, in ascending order.
    fn versions(&self) -> Result<Vec<u64>, StoreError> {
        let entries = fs::read_dir(&self.root).map_err(StoreError::io(&self.root))?;
        let mut versions: Vec<u64> = entries
            .filter_map(Result::ok)
            .filter_map(|entry| version_of(Path::new(&entry.file_name())))
            .collect();
        versions.sort_unstable();
        Ok(versions)
    }

    /// Reads a file of this process; `None` if it does not exist.
    pub(crate) fn read_private<T: DeserializeOwned>(
        &self,
        name: &str,
    ) -> Result<Option<T>, StoreError> {
        let path = self.root.join(PRIVATE).join(name);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| StoreError::Content { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io(&path)(error)),
        }
    }

    /// Replaces a file of this process, atomically.
    pub(crate) fn write_private(
        &self,
        name: &str,
        value: &impl Serialize,
    ) -> Result<(), StoreError> {
        let folder = self.root.join(PRIVATE);
        let path = folder.join(name);
        let bytes = serde_json::to_vec_pretty(value)
            .map_err(|source| StoreError::Content { path: path.clone(), source })?;
        let next = folder.join(format!("{name}{NEXT}"));
        let written = write_synced(&next, &bytes, 0o600)
            .and_then(|()| fs::rename(&next, &path).map_err(StoreError::io(&path)));
        if written.is_err() {
            let _ = fs::remove_file(&next);
        }
        written.and_then(|()| sync_folder(&folder))
    }

    /// Removes a file of this process.
    pub(crate) fn remove_private(&self, name: &str) -> Result<(), StoreError> {
        let path = self.root.join(PRIVATE).join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io(&path)(error))
            }
            _ => Ok(()),
        }
    }
}

fn version_of(name: &Path) -> Option<u64> {
    name.to_str()?.strip_prefix("v-")?.parse().ok()
}

/// Writes a file with exactly this mode, whatever the umask is, and syncs it.
fn write_synced(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options.create(true).write(true).truncate(true).mode(0o600).open(path)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(StoreError::io(path))
}

fn sync_folder(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(StoreError::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{names::Names, placeholder::placeholder};

    fn issued() -> Issued {
        let names = Names::from(["go.example.com".parse().unwrap()]);
        Issued {
            directory: Some("https://ca/".into()),
            is_trusted: true,
            ..placeholder(&names).unwrap()
        }
    }

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("certificates")).unwrap();
        (folder, store)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn live_leads_to_the_newest_complete_version() {
        let (_folder, store) = store();
        assert!(store.current().unwrap().is_none());
        let names = Names::from(["go.example.com".parse().unwrap()]);
        assert_eq!(store.install(&placeholder(&names).unwrap()).unwrap(), 0);
        let first = store.current().unwrap().unwrap();
        assert!(!first.is_trusted && first.directory.is_none());
        assert_eq!(store.install(&issued()).unwrap(), 1);
        let second = store.current().unwrap().unwrap();
        assert!(second.is_trusted && second.version == 1);
        assert_eq!(second.directory.as_deref(), Some("https://ca/"));
        assert_eq!(second.certificate.unwrap().names, names);
        let live = store.root.join(LIVE);
        assert_eq!(mode(&live.join(KEY)), 0o640);
        assert_eq!(mode(&live.join(CHAIN)), 0o640);
        assert_eq!(mode(&store.root.join(PRIVATE)), 0o700);
    }

    #[test]
    fn only_the_last_versions_stay() {
        let (_folder, store) = store();
        for _ in 0..6 {
            store.install(&issued()).unwrap();
        }
        assert_eq!(store.versions().unwrap(), [3, 4, 5]);
        assert_eq!(store.current().unwrap().unwrap().version, 5);
    }

    #[test]
    fn a_failed_installation_keeps_the_certificate_in_use() {
        let (_folder, store) = store();
        store.install(&issued()).unwrap();
        // `live` cannot be replaced by a rename if it is a folder.
        let live = store.root.join(LIVE);
        fs::remove_file(&live).unwrap();
        fs::create_dir(&live).unwrap();
        fs::write(live.join("x"), "").unwrap();
        assert!(store.install(&issued()).is_err());
        assert!(live.join("x").exists());
        assert_eq!(store.versions().unwrap(), [0], "what was written is removed");
    }

    #[test]
    fn a_link_that_a_killed_process_left_is_replaced() {
        let (_folder, store) = store();
        symlink("v-9", store.root.join(NEXT)).unwrap();
        fs::create_dir(store.root.join("v-4")).unwrap();
        assert_eq!(store.install(&issued()).unwrap(), 5, "a partial folder is not used again");
        assert!(!store.root.join(NEXT).exists());
    }

    #[test]
    fn private_files_are_for_this_process_only() {
        let (_folder, store) = store();
        assert!(store.read_private::<String>("state.json").unwrap().is_none());
        store.write_private("state.json", &"a").unwrap();
        store.write_private("state.json", &"b").unwrap();
        assert_eq!(store.read_private::<String>("state.json").unwrap().as_deref(), Some("b"));
        assert_eq!(mode(&store.root.join("private/state.json")), 0o600);
        fs::write(store.root.join("private/state.json"), "{").unwrap();
        let error = store.read_private::<String>("state.json").unwrap_err();
        assert!(matches!(error, StoreError::Content { .. }));
        store.remove_private("state.json").unwrap();
        store.remove_private("state.json").unwrap();
    }

    #[test]
    fn only_one_process_has_the_lock() {
        let (_folder, store) = store();
        let held = store.lock().unwrap();
        assert!(held.is_some());
        assert!(store.lock().unwrap().is_none());
        drop(held);
        assert!(store.lock().unwrap().is_some());
    }
}
