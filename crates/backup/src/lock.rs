//! Locks between all containers that share the state folder. The kernel releases them when a process ends.

use std::fs::{self, File, TryLockError};

use crate::{BackupError, settings::Settings};

/// Work of one process at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    /// Pushes WAL segments.
    Push,
    /// Runs a backup, a restore or a restore test.
    Job,
}

/// Held until it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    _file: File,
}

/// Takes the lock, or returns `None` if another process holds it.
pub(crate) fn try_lock(settings: &Settings, role: Role) -> Result<Option<Held>, BackupError> {
    let path = settings.state.join(match role {
        Role::Push => "push.lock",
        Role::Job => "job.lock",
    });
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(BackupError::file(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Held { _file: file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(BackupError::file(path)(error)),
    }
}

/// Takes the lock of jobs. That another process holds it is an error.
pub(crate) fn job(settings: &Settings) -> Result<Held, BackupError> {
    try_lock(settings, Role::Job)?.ok_or(BackupError::Busy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::below;

    #[test]
    fn only_one_holder_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let settings = below(root.path());
        let held = job(&settings).unwrap();
        assert!(matches!(job(&settings), Err(BackupError::Busy)));
        assert!(try_lock(&settings, Role::Push).unwrap().is_some());
        drop(held);
        assert!(job(&settings).is_ok());
    }
}
