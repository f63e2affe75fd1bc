//! The upload area: where uploads wait for their jobs.

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures::Stream;
use linnet_domain::{UploadName, UserId};
use linnet_import::{OpenFile, RowFile};
use linnet_store::Store;
use tokio::{runtime::Handle, sync::Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{JobSettings, UploadStore};

use super::{SUFFIX, Upload, UploadError, pieces::PieceFile, receive_into, remove};

/// The process deletes the pieces of one discarded upload at a time, so that requests keep the connections.
static DELETIONS: Semaphore = Semaphore::const_new(1);
/// Deletions that are in progress or wait for it. The maintenance task `uploads` does further ones.
static WAITING_DELETIONS: Semaphore = Semaphore::const_new(64);

/// The uploads of an installation, in files and in the database. The setting decides where a new one is stored; the others
/// are found by their names.
#[derive(Debug, Clone)]
pub struct UploadArea {
    pub(super) settings: Arc<JobSettings>,
    pub(super) store: Store,
}

impl UploadArea {
    /// Waits for the database on connections of `store`.
    pub fn new(settings: Arc<JobSettings>, store: Store) -> Self {
        Self { settings, store }
    }

    /// Section `jobs`.
    pub fn settings(&self) -> &JobSettings {
        &self.settings
    }

    /// Stores a body. The upload is removed when the result is dropped, unless it is kept.
    pub async fn receive<E>(
        &self,
        owner: Option<UserId>,
        body: impl Stream<Item = Result<bytes::Bytes, E>> + Unpin,
    ) -> Result<Upload, UploadError> {
        let name = match self.settings.upload_store {
            UploadStore::Directory => {
                UploadName::File(format!("{:032x}{SUFFIX}", rand::random::<u128>()))
            }
            UploadStore::Postgres => UploadName::Pieces(self.store.create_upload(owner).await?),
        };
        receive_into(Upload::new(self.clone(), name), body).await
    }

    /// The upload with this name, for one read of it. Needs a runtime.
    pub fn file(&self, name: &UploadName) -> UploadFile {
        self.patient_file(name, Duration::ZERO, CancellationToken::new())
    }

    /// As [`Self::file`], but reads are repeated for `retry_for` while the database is unavailable. They fail once `stop` is
    /// cancelled.
    pub fn patient_file(
        &self,
        name: &UploadName,
        retry_for: Duration,
        stop: CancellationToken,
    ) -> UploadFile {
        UploadFile(match name {
            UploadName::File(name) => Place::File(self.settings.upload_dir.join(name)),
            UploadName::Pieces(id) => Place::Pieces(PieceFile {
                store: self.store.clone(),
                runtime: Handle::current(),
                id: *id,
                retry_for,
                stop,
            }),
        })
    }

    /// Removes an upload that no job needs, as [`Self::remove`] does, and does not wait for the deletion of its pieces, which
    /// takes seconds for a gigabyte. They count no longer against their owner.
    pub async fn discard(&self, name: &UploadName) {
        let UploadName::Pieces(id) = name else { return self.remove(name).await };
        if let Err(error) = self.store.mark_upload_removed(*id).await {
            tracing::warn!(%error, "upload not removed");
            return;
        }
        if let Ok(place) = WAITING_DELETIONS.try_acquire() {
            let (area, name) = (self.clone(), name.clone());
            tokio::spawn(async move {
                let _place = place;
                // The semaphore is never closed.
                if let Ok(_turn) = DELETIONS.acquire().await {
                    area.remove(&name).await;
                }
            });
        }
    }

    /// Removes an upload that no job needs. The maintenance task `uploads` removes those for which this fails.
    pub async fn remove(&self, name: &UploadName) {
        match name {
            UploadName::File(name) => {
                let path = self.settings.upload_dir.join(name);
                // It fails only if the process ends.
                let _ = tokio::task::spawn_blocking(move || remove(&path)).await;
            }
            UploadName::Pieces(id) => {
                if let Err(error) = self.store.delete_upload(*id).await {
                    tracing::warn!(%error, "upload not removed");
                }
            }
        }
    }
}

/// An upload that can be read.
#[derive(Debug)]
pub struct UploadFile(Place);

#[derive(Debug)]
enum Place {
    File(PathBuf),
    Pieces(PieceFile),
}

impl RowFile for UploadFile {
    fn open(&self) -> std::io::Result<OpenFile> {
        match &self.0 {
            Place::File(path) => path.open(),
            Place::Pieces(pieces) => pieces.open(),
        }
    }
}
