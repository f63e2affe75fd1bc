//! Uploads: files that wait for their jobs.
//!
//! - A thread decompresses the body and stores it as it arrives, in a file or in pieces in the database. The request is
//!   read no faster than the thread writes.
//! - An upload is durable before its job exists. An incomplete upload is removed.
//! - The size limit applies to the body and to the decompressed content, which the body's size limits too: no bombs.

mod area;
mod pieces;
mod writer;

use std::{fs, io, path::Path, time::Duration};

use futures::{Stream, StreamExt};
use linnet_domain::UploadName;
use linnet_store::StoreError;
use tokio::{runtime::Handle, sync::mpsc};

use writer::write_upload;

pub use area::{UploadArea, UploadFile};
pub use pieces::{READER_BYTES, WRITER_BYTES};
pub use writer::Unpacker;

/// The maximum number of parts of a body that wait for the disk or the database.
const PARTS_IN_FLIGHT: usize = 4;
/// Longest time without data within an upload.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Suffix of file names in the upload area.
pub const SUFFIX: &str = ".rows";

/// Why an upload was rejected.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The connection ended before the body.
    #[error("the upload is incomplete: the connection ended before the body")]
    Incomplete,
    /// No data arrived for [`IDLE_TIMEOUT`].
    #[error("the upload sent no data for {} s", IDLE_TIMEOUT.as_secs())]
    TimedOut,
    /// The body arrives more slowly than its minimum rate.
    #[error("the upload sent less than {bytes_per_s} bytes/s for {window_s} s")]
    TooSlow {
        /// The minimum rate, in bytes per second.
        bytes_per_s: u64,
        /// The time over which it is measured, in seconds.
        window_s: u64,
    },
    /// The body or its decompressed content is too large.
    #[error("the upload or its decompressed content exceeds {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The decompressed content is too large for the body.
    #[error("the upload expands to more than {factor} times its size")]
    Expands {
        /// `jobs.expansion`.
        factor: u64,
    },
    /// The disk of the upload area has less than `jobs.free_bytes` free.
    #[error("the disk of the upload area has too little free space")]
    DiskFull,
    /// The body begins like gzip data but is damaged.
    #[error("must be valid gzip data, because it begins like gzip data")]
    InvalidGzip,
    /// The uploads in the database have reached `jobs.upload_total_bytes`.
    #[error("the uploads that wait for their jobs have reached their maximum size")]
    StoreFull,
    /// The user's uploads in the database have reached `jobs.bytes_per_user`.
    #[error("the user's uploads that wait for their jobs have reached their maximum size")]
    UserFull,
    /// The database has lost a part of the upload in a failover.
    #[error("a part of the upload was lost")]
    Lost,
    /// The database has not stored the upload.
    #[error("the database has not stored the upload")]
    Store(#[from] StoreError),
    /// The upload area is not writable.
    #[error("the upload area cannot be written")]
    Io(#[from] io::Error),
}

/// An upload in the upload area. It is removed when this is dropped, unless it is kept.
#[derive(Debug)]
pub struct Upload {
    area: UploadArea,
    runtime: Handle,
    /// Its name.
    pub name: UploadName,
    /// Size of the decompressed content, in bytes.
    pub bytes: u64,
    /// SHA-256 of the body.
    pub hash: [u8; 32],
    is_kept: bool,
}

impl Upload {
    fn new(area: UploadArea, name: UploadName) -> Self {
        Self { area, runtime: Handle::current(), name, bytes: 0, hash: [0; 32], is_kept: false }
    }

    /// The content.
    pub fn file(&self) -> UploadFile {
        self.area.file(&self.name)
    }

    /// Whether the upload is kept when this is dropped, because a job may own it.
    pub fn keep(&mut self, is_kept: bool) {
        self.is_kept = is_kept;
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        match &self.name {
            UploadName::File(name) => remove(&self.area.settings.upload_dir.join(name)),
            UploadName::Pieces(_) => {
                let (area, name) = (self.area.clone(), self.name.clone());
                self.runtime.spawn(async move { area.remove(&name).await });
            }
        }
    }
}

/// Removes a file that no job needs. The maintenance task `uploads` removes files for which this fails.
pub fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "upload not removed");
    }
}

enum Part {
    Data(bytes::Bytes),
    End,
}

/// Writes a body into an upload without content.
async fn receive_into<E>(
    upload: Upload,
    mut body: impl Stream<Item = Result<bytes::Bytes, E>> + Unpin,
) -> Result<Upload, UploadError> {
    let (sender, receiver) = mpsc::channel(PARTS_IN_FLIGHT);
    // The thread owns the upload and drops it on an error, so an aborted request leaves no upload.
    let writer = tokio::task::spawn_blocking(move || write_upload(upload, receiver));
    let sent = send_parts(&mut body, sender).await;
    // The error of the task would quote the panic message, and so perhaps a part of the upload.
    let written =
        writer.await.map_err(|_| io::Error::other("the writer of the upload panicked"))?;
    match (written, sent) {
        // The writer only detects that the body is incomplete; `sent` has the reason.
        (Err(UploadError::Incomplete), Err(error)) => Err(error),
        (written, _) => written,
    }
}

async fn send_parts<E>(
    body: &mut (impl Stream<Item = Result<bytes::Bytes, E>> + Unpin),
    sender: mpsc::Sender<Part>,
) -> Result<(), UploadError> {
    loop {
        let next = tokio::select! {
            // The writer has returned an error. The client may send nothing more until it sees the response.
            () = sender.closed() => return Ok(()),
            next = tokio::time::timeout(IDLE_TIMEOUT, body.next()) => next,
        };
        let part = match next {
            Err(_) => return Err(UploadError::TimedOut),
            Ok(Some(Err(_))) => return Err(UploadError::Incomplete),
            Ok(Some(Ok(bytes))) => Part::Data(bytes),
            Ok(None) => Part::End,
        };
        let is_end = matches!(part, Part::End);
        // Sending fails once the writer has returned an error.
        if sender.send(part).await.is_err() || is_end {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests;
