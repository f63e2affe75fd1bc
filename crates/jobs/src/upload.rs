//! The upload area: files that wait for their jobs.
//!
//! * What comes is written as it comes, unpacked, by a thread that may wait for the disk. The request
//!   is read no faster than that.
//! * A file that did not arrive whole is removed. One that did is on the disk, whatever happens to the
//!   machine, before anybody is told of a job.
//! * The limit holds for what comes and for what it unpacks to, so a small bomb is a large upload.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use flate2::write::MultiGzDecoder;
use futures::{Stream, StreamExt};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::JobSettings;

/// Pieces that wait for the disk.
const PIECES_IN_FLIGHT: usize = 4;
/// Longest silence within an upload.
pub const SILENCE: Duration = Duration::from_secs(30);
/// Bytes between two looks at the disk's free space.
const LOOK_EVERY: u64 = 8 * 1024 * 1024;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// How names of uploads end.
pub const SUFFIX: &str = ".rows";

/// Why an upload was not taken.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The rest did not come.
    #[error("the upload broke off")]
    BrokenOff,
    /// Nothing came for a while.
    #[error("the upload fell silent")]
    TooSlow,
    /// It is too large, packed or unpacked.
    #[error("the upload has more than {limit} bytes, or unpacks to more")]
    TooLarge {
        /// Bytes.
        limit: u64,
    },
    /// The disk is full, or would be.
    #[error("there is no room for the upload")]
    DiskFull,
    /// It begins as gzip does, and goes on otherwise.
    #[error("the upload is no valid gzip data")]
    Gzip,
    /// The upload area cannot be written.
    #[error("the upload area cannot be written")]
    Io(#[from] io::Error),
}

/// A file in the upload area; removed when dropped, unless it is kept.
#[derive(Debug)]
pub struct Upload {
    path: PathBuf,
    /// Its name within the area.
    pub name: String,
    /// Its size, unpacked.
    pub bytes: u64,
    /// SHA-256 of what came.
    pub hash: [u8; 32],
    is_kept: bool,
}

impl Upload {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A job has it now.
    pub fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.is_kept {
            remove(&self.path);
        }
    }
}

/// Removes a file that nobody needs any more; one that stays behind is found by maintenance.
pub fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "an upload stays behind");
    }
}

enum Piece {
    Data(bytes::Bytes),
    End,
}

/// Writes a body into the upload area.
pub async fn receive<E>(
    settings: &JobSettings,
    mut body: impl Stream<Item = Result<bytes::Bytes, E>> + Unpin,
) -> Result<Upload, UploadError> {
    let name = format!("{:032x}{SUFFIX}", rand::random::<u128>());
    let path = settings.upload_dir.join(&name);
    let (sender, receiver) = mpsc::channel(PIECES_IN_FLIGHT);
    let limits = settings.clone();
    let upload = Upload { path, name, bytes: 0, hash: [0; 32], is_kept: false };
    // The thread owns the upload, so a request that is dropped meanwhile leaves no file.
    let writer = tokio::task::spawn_blocking(move || write(upload, receiver, &limits));
    let fed = feed(&mut body, sender).await;
    let written = writer.await.map_err(io::Error::other)?;
    // What went wrong with the disk ends the feeding, too, and says more.
    match (written, fed) {
        (Err(UploadError::BrokenOff), Err(error)) => Err(error),
        (written, _) => written,
    }
}

async fn feed<E>(
    body: &mut (impl Stream<Item = Result<bytes::Bytes, E>> + Unpin),
    sender: mpsc::Sender<Piece>,
) -> Result<(), UploadError> {
    loop {
        let piece = match tokio::time::timeout(SILENCE, body.next()).await {
            Err(_) => return Err(UploadError::TooSlow),
            Ok(Some(Err(_))) => return Err(UploadError::BrokenOff),
            Ok(Some(Ok(bytes))) => Piece::Data(bytes),
            Ok(None) => Piece::End,
        };
        let is_end = matches!(piece, Piece::End);
        // The writer has given up.
        if sender.send(piece).await.is_err() || is_end {
            return Ok(());
        }
    }
}

fn write(
    mut upload: Upload,
    mut pieces: mpsc::Receiver<Piece>,
    settings: &JobSettings,
) -> Result<Upload, UploadError> {
    fs::create_dir_all(&settings.upload_dir)?;
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&upload.path)?;
    let output = Bounded {
        file: BufWriter::with_capacity(256 * 1024, file),
        dir: settings.upload_dir.clone(),
        written: 0,
        limit: settings.upload_bytes,
        keep_free: settings.free_bytes,
        looked_at: None,
    };
    let mut sink = Sink::Undecided(Vec::new(), output);
    let mut hash = Sha256::new();
    let mut came = 0_u64;
    loop {
        match pieces.blocking_recv() {
            None => return Err(UploadError::BrokenOff),
            Some(Piece::End) => break,
            Some(Piece::Data(bytes)) => {
                came += bytes.len() as u64;
                if came > settings.upload_bytes {
                    return Err(UploadError::TooLarge { limit: settings.upload_bytes });
                }
                hash.update(&bytes);
                sink = sink.write(&bytes).map_err(upload_error)?;
            }
        }
    }
    let (file, bytes) = sink.finish().map_err(upload_error)?;
    file.sync_data()?;
    File::open(&settings.upload_dir)?.sync_all()?;
    upload.bytes = bytes;
    upload.hash = hash.finalize().into();
    Ok(upload)
}

/// Where the bytes go, once the first two have told whether they are packed.
enum Sink {
    Undecided(Vec<u8>, Bounded),
    Plain(Bounded),
    Gzip(Box<MultiGzDecoder<Bounded>>),
}

impl Sink {
    fn write(self, bytes: &[u8]) -> io::Result<Self> {
        match self {
            Self::Undecided(mut first, output) => {
                first.extend_from_slice(bytes);
                if first.len() < GZIP_MAGIC.len() {
                    return Ok(Self::Undecided(first, output));
                }
                Self::decide(&first, output)
            }
            Self::Plain(mut output) => {
                output.write_all(bytes)?;
                Ok(Self::Plain(output))
            }
            Self::Gzip(mut decoder) => {
                decoder.write_all(bytes)?;
                Ok(Self::Gzip(decoder))
            }
        }
    }

    fn decide(first: &[u8], output: Bounded) -> io::Result<Self> {
        if first.starts_with(&GZIP_MAGIC) {
            Self::Gzip(Box::new(MultiGzDecoder::new(output))).write(first)
        } else {
            Self::Plain(output).write(first)
        }
    }

    fn finish(self) -> io::Result<(File, u64)> {
        let output = match self {
            Self::Undecided(first, mut output) => {
                output.write_all(&first)?;
                output
            }
            Self::Plain(output) => output,
            Self::Gzip(decoder) => decoder.finish()?,
        };
        let written = output.written;
        let file = output.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok((file, written))
    }
}

/// A file with a largest size, on a disk that must not become full.
struct Bounded {
    file: BufWriter<File>,
    dir: PathBuf,
    written: u64,
    limit: u64,
    keep_free: u64,
    looked_at: Option<u64>,
}

/// Errors of [`Bounded`], on their way through the decoder.
#[derive(Debug, thiserror::Error)]
enum BoundError {
    #[error("too large")]
    TooLarge(u64),
    #[error("the disk is full")]
    DiskFull,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written + bytes.len() as u64 > self.limit {
            return Err(io::Error::other(BoundError::TooLarge(self.limit)));
        }
        if self.looked_at.is_none_or(|looked_at| self.written - looked_at >= LOOK_EVERY) {
            let disk = rustix::fs::statvfs(&self.dir)?;
            if disk.f_bavail.saturating_mul(disk.f_frsize) < self.keep_free {
                return Err(io::Error::other(BoundError::DiskFull));
            }
            self.looked_at = Some(self.written);
        }
        let count = self.file.write(bytes)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn upload_error(error: io::Error) -> UploadError {
    use io::ErrorKind::{
        FileTooLarge, InvalidData, InvalidInput, QuotaExceeded, StorageFull, UnexpectedEof,
    };
    match error.get_ref().and_then(|inner| inner.downcast_ref::<BoundError>()) {
        Some(BoundError::TooLarge(limit)) => return UploadError::TooLarge { limit: *limit },
        Some(BoundError::DiskFull) => return UploadError::DiskFull,
        None => {}
    }
    match error.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => UploadError::DiskFull,
        // The decoder's words for damaged and for cut-off data.
        InvalidInput | InvalidData | UnexpectedEof => UploadError::Gzip,
        _ => UploadError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compression, write::GzEncoder};
    use futures::stream;

    use super::*;

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

    /// What becomes of a body that comes in pieces of this size.
    async fn take(
        settings: &JobSettings,
        body: &[u8],
        size: usize,
    ) -> Result<(Vec<u8>, Upload), UploadError> {
        let pieces: Vec<Result<_, io::Error>> =
            body.chunks(size).map(|piece| Ok(bytes::Bytes::copy_from_slice(piece))).collect();
        let upload = receive(settings, stream::iter(pieces)).await?;
        Ok((fs::read(upload.path()).unwrap(), upload))
    }

    #[tokio::test]
    async fn what_comes_is_unpacked_whatever_its_pieces() {
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
                let (found, upload) = take(&settings, &body, size).await.unwrap();
                assert_eq!(found, content, "{size}");
                assert_eq!(upload.bytes, content.len() as u64);
                assert_eq!(upload.hash, <[u8; 32]>::from(Sha256::digest(&body)));
            }
        }
        assert_eq!(files(&settings), 0, "nobody kept them");
        let (_, kept) = take(&settings, &text, 10).await.unwrap();
        kept.keep();
        assert_eq!(files(&settings), 1);
    }

    #[tokio::test]
    async fn what_is_not_whole_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        let packed = gzip(&b"abc,https://example.com/\n".repeat(50));
        let mut damaged = packed.clone();
        damaged[packed.len() / 2] ^= 0xff;
        let behind = [packed.as_slice(), b"something else, that is no gzip data at all"].concat();
        for body in [&packed[..packed.len() - 1], &packed[..5], &GZIP_MAGIC, &damaged, &behind] {
            for size in [1, 7, 100_000] {
                let refused = take(&settings, body, size).await;
                assert!(matches!(refused, Err(UploadError::Gzip)), "{refused:?}");
            }
        }
        let broken = [Ok(bytes::Bytes::from_static(b"abc")), Err(io::Error::other("gone"))];
        let refused = receive(&settings, stream::iter(broken)).await;
        assert!(matches!(refused, Err(UploadError::BrokenOff)), "{refused:?}");
        assert_eq!(files(&settings), 0);
    }

    #[tokio::test]
    async fn the_limit_holds_packed_and_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        for body in [vec![b'a'; 10_000], gzip(&[b'a'; 10_000])] {
            assert_eq!(take(&settings, &body, 1_000).await.unwrap().1.bytes, 10_000);
        }
        let bomb = gzip(&vec![b'a'; 10_000_000]);
        let stored = gzip(b"a").repeat(2_000);
        for body in [vec![b'a'; 10_001], gzip(&[b'a'; 10_001]), bomb, stored] {
            for size in [1_000, 1_000_000] {
                let refused = take(&settings, &body, size).await;
                assert!(matches!(refused, Err(UploadError::TooLarge { limit: 10_000 })));
            }
        }
        assert_eq!(files(&settings), 0);
    }

    #[tokio::test]
    async fn the_reserve_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let settings = JobSettings { free_bytes: u64::MAX, ..settings(dir.path()) };
        let refused = take(&settings, b"abc", 10).await;
        assert!(matches!(refused, Err(UploadError::DiskFull)), "{refused:?}");
        assert_eq!(files(&settings), 0);
    }

    #[tokio::test]
    async fn who_stops_waiting_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        let first = stream::iter([Ok::<_, io::Error>(bytes::Bytes::from_static(b"abc"))]);
        let mut body = first.chain(stream::pending());
        {
            let mut receiving = std::pin::pin!(receive(&settings, &mut body));
            while files(&settings) == 0 {
                assert!(futures::poll!(&mut receiving).is_pending());
                tokio::task::yield_now().await;
            }
        }
        let gone = async {
            while files(&settings) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), gone).await.expect("the file goes");
    }
}
