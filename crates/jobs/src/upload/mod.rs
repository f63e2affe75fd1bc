//! Uploads: files that wait for their jobs.
//!
//! - A thread decompresses the body and stores it as it arrives, in a file or in pieces in the database. The request is
//!   read no faster than the thread writes.
//! - An upload is durable before its job exists. An incomplete upload is removed.
//! - The size limit applies to the body and to the decompressed content, which the body's size limits too: no bombs.

mod area;
mod error;
mod pieces;
mod writer;

use std::{fs, io, path::Path, time::Duration};

use futures::{Stream, StreamExt};
use linnet_domain::UploadName;
use tokio::{runtime::Handle, sync::mpsc};

use writer::write_upload;

pub use area::{UploadArea, UploadFile};
pub use error::UploadError;
pub use pieces::{READER_BYTES, WRITER_BYTES};
pub use writer::Unpacker;

/// The maximum number of parts of a body that wait for the disk or the database.
const PARTS_IN_FLIGHT: usize = 4;
/// Longest time without data within an upload.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Suffix of file names in the upload area.
pub const SUFFIX: &str = ".rows";

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
                self.runtime.spawn(async move { area.discard(&name).await });
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
