//! The values of metrics and readiness, shared between the renewal task and the admin listener.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use chrono::{DateTime, Utc};
use linnet_platform::lock::MutexExt as _;

use crate::{certificate::Certificate, failure::Reason, state::State};

/// The values of metrics and readiness.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// Whether nginx has a certificate, if only a placeholder.
    pub(crate) is_installed: bool,
    /// Why the files cannot be read.
    pub(crate) storage_error: Option<String>,
    /// Whether a CA issued the certificate in use.
    pub(crate) is_trusted: bool,
    /// The certificate in use, if a CA issued it.
    pub(crate) certificate: Option<Certificate>,
    /// Wanted names that it does not have.
    pub(crate) missing_names: usize,
    /// When it is renewed.
    pub(crate) renewal: Option<DateTime<Utc>>,
    /// Failures, and the CA's suggestion.
    pub(crate) state: State,
    /// Certificates installed since the start.
    pub(crate) orders: u64,
    /// Failures since the start.
    pub(crate) failures: BTreeMap<Reason, u64>,
}

/// A snapshot that the renewal task replaces and the admin listener reads.
#[derive(Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<Snapshot>>);

impl Shared {
    /// Reads or changes the snapshot.
    pub(crate) fn with<T>(&self, use_it: impl FnOnce(&mut Snapshot) -> T) -> T {
        use_it(&mut self.0.lock_ignoring_poison())
    }
}
