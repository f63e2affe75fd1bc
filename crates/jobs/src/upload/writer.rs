//! Writes an upload to disk: decompresses it, bounds its size, and syncs it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

use flate2::write::MultiGzDecoder;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::JobSettings;

use super::{Piece, Upload, UploadError};

/// Bytes between two checks of the free space.
const CHECK_SPACE_EVERY: u64 = 8 * 1024 * 1024;
/// Content that an upload of any size may have, in bytes.
const FREE_EXPANSION: u64 = 1024 * 1024;
pub(super) const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Blocks until the last piece is written and synced to disk.
pub(super) fn write_upload(
    mut upload: Upload,
    mut pieces: mpsc::Receiver<Piece>,
    settings: &JobSettings,
) -> Result<Upload, UploadError> {
    fs::create_dir_all(&settings.upload_dir)?;
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&upload.path)?;
    let output = BoundedFile {
        file: BufWriter::with_capacity(256 * 1024, file),
        dir: settings.upload_dir.clone(),
        written: 0,
        limit: settings.upload_bytes,
        expansion: settings.expansion,
        allowed: u64::MAX,
        keep_free: settings.free_bytes,
        space_checked_at: None,
    };
    let mut sink = UploadSink::Undecided(Vec::new(), output);
    let mut hash = Sha256::new();
    let mut received = 0_u64;
    loop {
        match pieces.blocking_recv() {
            None => return Err(UploadError::Incomplete),
            Some(Piece::End) => break,
            Some(Piece::Data(bytes)) => {
                received += bytes.len() as u64;
                if received > settings.upload_bytes {
                    return Err(UploadError::TooLarge { limit: settings.upload_bytes });
                }
                hash.update(&bytes);
                let allowed = received.saturating_mul(settings.expansion);
                sink = sink
                    .write(&bytes, allowed.saturating_add(FREE_EXPANSION))
                    .map_err(upload_error)?;
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

/// Decompresses the body if its first two bytes are those of gzip, and writes it unchanged otherwise.
enum UploadSink {
    Undecided(Vec<u8>, BoundedFile),
    Plain(BoundedFile),
    Gzip(Box<MultiGzDecoder<BoundedFile>>),
}

impl UploadSink {
    /// Writes a piece. `allowed` is the most content of the body so far, if it is compressed.
    fn write(self, bytes: &[u8], allowed: u64) -> io::Result<Self> {
        match self {
            Self::Undecided(mut first, output) => {
                first.extend_from_slice(bytes);
                if first.len() < GZIP_MAGIC.len() {
                    return Ok(Self::Undecided(first, output));
                }
                Self::decide(&first, output, allowed)
            }
            Self::Plain(mut output) => {
                output.write_all(bytes)?;
                Ok(Self::Plain(output))
            }
            Self::Gzip(mut decoder) => {
                decoder.get_mut().allowed = allowed;
                decoder.write_all(bytes)?;
                Ok(Self::Gzip(decoder))
            }
        }
    }

    fn decide(first: &[u8], output: BoundedFile, allowed: u64) -> io::Result<Self> {
        if first.starts_with(&GZIP_MAGIC) {
            Self::Gzip(Box::new(MultiGzDecoder::new(output))).write(first, allowed)
        } else {
            Self::Plain(output).write(first, allowed)
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

/// A file of bounded size, on a disk that keeps some space free.
struct BoundedFile {
    file: BufWriter<File>,
    dir: PathBuf,
    written: u64,
    limit: u64,
    expansion: u64,
    /// Most bytes for the compressed body so far.
    allowed: u64,
    keep_free: u64,
    /// Size at which the free space was last checked.
    space_checked_at: Option<u64>,
}

/// Errors of [`BoundedFile`], inside an [`io::Error`] because the decoder only passes those on.
#[derive(Debug, thiserror::Error)]
enum BoundError {
    #[error("too large")]
    TooLarge(u64),
    #[error("expands too much")]
    Expands(u64),
    #[error("the disk is full")]
    DiskFull,
}

impl Write for BoundedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written + bytes.len() as u64 > self.limit {
            return Err(io::Error::other(BoundError::TooLarge(self.limit)));
        }
        if self.written + bytes.len() as u64 > self.allowed {
            return Err(io::Error::other(BoundError::Expands(self.expansion)));
        }
        let is_check_due =
            self.space_checked_at.is_none_or(|at| self.written - at >= CHECK_SPACE_EVERY);
        if is_check_due {
            let disk = rustix::fs::statvfs(&self.dir)?;
            if disk.f_bavail.saturating_mul(disk.f_frsize) < self.keep_free {
                return Err(io::Error::other(BoundError::DiskFull));
            }
            self.space_checked_at = Some(self.written);
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
        Some(BoundError::Expands(factor)) => return UploadError::Expands { factor: *factor },
        Some(BoundError::DiskFull) => return UploadError::DiskFull,
        None => {}
    }
    match error.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => UploadError::DiskFull,
        // The gzip decoder returns these for damaged and truncated data.
        InvalidInput | InvalidData | UnexpectedEof => UploadError::InvalidGzip,
        _ => UploadError::Io(error),
    }
}
