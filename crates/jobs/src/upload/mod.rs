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
mod tests {
    use std::{
        io::{Read as _, Write as _},
        sync::Arc,
    };

    use flate2::{Compression, write::GzEncoder};
    use futures::stream;
    use linnet_import::RowFile as _;
    use linnet_store::Store;
    use sha2::{Digest as _, Sha256};
    use sqlx::postgres::PgPoolOptions;

    use super::{writer::GZIP_MAGIC, *};
    use crate::JobSettings;

    /// An area in files, with a database that does not exist.
    fn area(settings: &JobSettings) -> UploadArea {
        let pool = PgPoolOptions::new().connect_lazy("postgres://127.0.0.1:1/none").unwrap();
        UploadArea::new(Arc::new(settings.clone()), Store::new(pool))
    }

    fn settings(dir: &Path) -> JobSettings {
        JobSettings {
            upload_dir: dir.join("uploads"),
            upload_bytes: 10_000,
            free_bytes: 0,
            ..JobSettings::default()
        }
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn files(settings: &JobSettings) -> usize {
        fs::read_dir(&settings.upload_dir).map_or(0, Iterator::count)
    }

    /// Receives a body in parts of `size` bytes. Returns the content of the file and the upload.
    async fn receive_parts(
        settings: &JobSettings,
        body: &[u8],
        size: usize,
    ) -> Result<(Vec<u8>, Upload), UploadError> {
        let parts: Vec<Result<_, io::Error>> =
            body.chunks(size).map(|part| Ok(bytes::Bytes::copy_from_slice(part))).collect();
        let upload = area(settings).receive(None, stream::iter(parts)).await?;
        let mut content = Vec::new();
        upload.file().open().unwrap().read_to_end(&mut content).unwrap();
        Ok((content, upload))
    }

    #[tokio::test]
    async fn body_is_decompressed_in_parts_of_any_size() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        let text = b"short_code,original_url\nabc,https://example.com/\n".repeat(20);
        let packed = gzip(&text);
        let parts = [gzip(&text[..7]), gzip(b""), gzip(&text[7..])].concat();
        for (body, content) in [
            (text.clone(), text.as_slice()),
            (packed, &text),
            (parts, &text),
            (gzip(b""), b""),
            (b"".to_vec(), b""),
            (b"a".to_vec(), b"a"),
            (vec![GZIP_MAGIC[0]], &GZIP_MAGIC[..1]),
        ] {
            for size in [1, 2, 3, 10, 100_000] {
                let (found, upload) = receive_parts(&settings, &body, size).await.unwrap();
                assert_eq!(found, content, "{size}");
                assert_eq!(upload.bytes, content.len() as u64);
                assert_eq!(upload.hash, <[u8; 32]>::from(Sha256::digest(&body)));
            }
        }
        assert_eq!(files(&settings), 0, "dropped uploads are removed");
        let (_, mut kept) = receive_parts(&settings, &text, 10).await.unwrap();
        kept.keep(true);
        drop(kept);
        assert_eq!(files(&settings), 1);
    }

    #[tokio::test]
    async fn incomplete_or_damaged_upload_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        let packed = gzip(&b"abc,https://example.com/\n".repeat(50));
        let mut damaged = packed.clone();
        damaged[packed.len() / 2] ^= 0xff;
        let behind = [packed.as_slice(), b"trailing bytes that are not gzip data"].concat();
        for body in [&packed[..packed.len() - 1], &packed[..5], &GZIP_MAGIC, &damaged, &behind] {
            for size in [1, 7, 100_000] {
                let refused = receive_parts(&settings, body, size).await;
                assert!(matches!(refused, Err(UploadError::InvalidGzip)), "{refused:?}");
            }
        }
        let broken = [Ok(bytes::Bytes::from_static(b"abc")), Err(io::Error::other("gone"))];
        let refused = area(&settings).receive(None, stream::iter(broken)).await;
        assert!(matches!(refused, Err(UploadError::Incomplete)), "{refused:?}");
        assert_eq!(files(&settings), 0);
    }

    #[tokio::test]
    async fn size_limit_applies_compressed_and_decompressed() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        for body in [vec![b'a'; 10_000], gzip(&[b'a'; 10_000])] {
            assert_eq!(receive_parts(&settings, &body, 1_000).await.unwrap().1.bytes, 10_000);
        }
        let bomb = gzip(&vec![b'a'; 10_000_000]);
        let stored = gzip(b"a").repeat(2_000);
        for body in [vec![b'a'; 10_001], gzip(&[b'a'; 10_001]), bomb, stored] {
            for size in [1_000, 1_000_000] {
                let refused = receive_parts(&settings, &body, size).await;
                assert!(matches!(refused, Err(UploadError::TooLarge { limit: 10_000 })));
            }
        }
        assert_eq!(files(&settings), 0);
    }

    #[tokio::test]
    async fn must_26_content_is_limited_by_the_size_of_the_body() {
        let dir = tempfile::tempdir().unwrap();
        let settings = JobSettings { upload_bytes: 1 << 30, ..settings(dir.path()) };
        let bomb = gzip(&vec![b'a'; 20_000_000]);
        let nested = gzip(&vec![b'a'; 1_000_000]).repeat(20);
        for body in [bomb, nested] {
            for size in [1_000, 1_000_000] {
                let refused = receive_parts(&settings, &body, size).await;
                assert!(
                    matches!(refused, Err(UploadError::Expands { factor: 100 })),
                    "{refused:?}"
                );
            }
        }
        // The first MiB may be of any content, and text does not expand by a hundred.
        let lines: Vec<_> =
            (0..200_000).map(|n| format!("code{n},https://example.com/{n}\n")).collect();
        for content in [vec![b'a'; 1_000_000], lines.concat().into_bytes()] {
            assert!(receive_parts(&settings, &gzip(&content), 1_000).await.is_ok());
        }
        assert_eq!(files(&settings), 0);
    }

    #[tokio::test]
    async fn rejection_does_not_wait_for_more_of_the_body() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        let large = stream::iter([Ok::<_, io::Error>(bytes::Bytes::from(vec![b'a'; 10_001]))]);
        let area = area(&settings);
        let received = area.receive(None, large.chain(stream::pending()));
        let refused = tokio::time::timeout(IDLE_TIMEOUT / 2, received).await.expect("a response");
        assert!(matches!(refused, Err(UploadError::TooLarge { limit: 10_000 })));
    }

    #[tokio::test]
    async fn upload_is_rejected_when_the_disk_has_too_little_space() {
        let dir = tempfile::tempdir().unwrap();
        let settings = JobSettings { free_bytes: u64::MAX, ..settings(dir.path()) };
        let refused = receive_parts(&settings, b"abc", 10).await;
        assert!(matches!(refused, Err(UploadError::DiskFull)), "{refused:?}");
        assert_eq!(files(&settings), 0);
    }

    #[tokio::test]
    async fn dropped_request_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        let first = stream::iter([Ok::<_, io::Error>(bytes::Bytes::from_static(b"abc"))]);
        let mut body = first.chain(stream::pending());
        {
            let area = area(&settings);
            let mut receiving = std::pin::pin!(area.receive(None, &mut body));
            while files(&settings) == 0 {
                assert!(futures::poll!(&mut receiving).is_pending());
                tokio::task::yield_now().await;
            }
        }
        let removed = async {
            while files(&settings) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), removed).await.expect("the file is removed");
    }

    #[test]
    fn only_an_upload_that_cannot_be_removed_is_logged() {
        let dir = tempfile::tempdir().unwrap();
        let logs = linnet_telemetry::testing::capture_logs();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        remove(&file);
        remove(&file);
        assert!(!file.exists());
        assert!(logs.lines().is_empty(), "{:?}", logs.lines());
        remove(dir.path());
        assert_eq!(logs.lines().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn must_26_body_without_data_is_given_up() {
        let (sender, mut receiver) = mpsc::channel(PARTS_IN_FLIGHT);
        let first = stream::iter([Ok::<_, io::Error>(bytes::Bytes::from_static(b"abc"))]);
        let mut body = first.chain(stream::pending());
        let sent = send_parts(&mut body, sender).await;
        assert!(matches!(sent, Err(UploadError::TimedOut)), "{sent:?}");
        assert!(matches!(receiver.recv().await, Some(Part::Data(bytes)) if bytes == "abc"));
        assert!(receiver.recv().await.is_none(), "no end");
    }
}
