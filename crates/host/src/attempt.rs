//! The record of the last restore.

use serde::{Deserialize, Serialize};

use crate::{error::HostError, files, paths};

/// The last restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Seconds since 1970.
    pub started: u64,
    /// Seconds since 1970; absent while it runs, or if it was killed.
    pub ended: Option<u64>,
    /// Why it failed.
    pub error: Option<String>,
}

impl Attempt {
    /// Replaces the record.
    pub fn write(&self) -> Result<(), HostError> {
        files::write_json(file(), self)
    }
}

/// Reads the record, if there ever was a restore.
pub fn read() -> Result<Option<Attempt>, HostError> {
    files::read_json(file())
}

/// Whether a restore has begun and has not ended. It may have been killed.
pub fn is_open() -> Result<bool, HostError> {
    Ok(read()?.is_some_and(|attempt| attempt.ended.is_none()))
}

fn file() -> String {
    format!("{}/restore.json", paths::STATE)
}
