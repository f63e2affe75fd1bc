//! Stores an upload: decompresses it, bounds its size, and makes it durable.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

use flate2::write::MultiGzDecoder;
use linnet_domain::UploadName;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::JobSettings;

use super::{Part, Upload, UploadError, pieces::PieceWriter};

/// Bytes between two checks of the free space.
const CHECK_SPACE_EVERY: u64 = 8 * 1024 * 1024;
/// Content that a compressed upload may have in addition to `expansion` times its size, in bytes.
const FREE_EXPANSION: u64 = 1024 * 1024;
pub(super) const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Blocks until the last part is stored.
pub(super) fn write_upload(
    mut upload: Upload,
    mut parts: mpsc::Receiver<Part>,
) -> Result<Upload, UploadError> {
    let settings = &upload.area.settings;
    let output = match &upload.name {
        UploadName::File(name) => Output::File(SpaceChecked::create(name, settings)?),
        UploadName::Pieces(id) => {
            let (store, limits) = (upload.area.store.clone(), settings.upload_limits());
            Output::Pieces(PieceWriter::new(store, upload.runtime.clone(), limits, *id))
        }
    };
    let mut unpacker = Unpacker::new(output, settings.upload_bytes, settings.expansion);
    let mut hash = Sha256::new();
    loop {
        match parts.blocking_recv() {
            None => return Err(UploadError::Incomplete),
            Some(Part::End) => break,
            Some(Part::Data(bytes)) => {
                hash.update(&bytes);
                unpacker = unpacker.write(&bytes)?;
            }
        }
    }
    let (output, bytes) = unpacker.finish()?;
    output.finish().map_err(upload_error)?;
    upload.bytes = bytes;
    upload.hash = hash.finalize().into();
    Ok(upload)
}

/// Where the content is written.
enum Output {
    File(SpaceChecked),
    Pieces(PieceWriter),
}

impl Output {
    fn finish(self) -> io::Result<()> {
        match self {
            Self::File(file) => file.sync(),
            Self::Pieces(pieces) => pieces.finish(),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Pieces(pieces) => pieces.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Pieces(pieces) => pieces.flush(),
        }
    }
}

/// Decompresses an upload, and bounds both its size and that of its content.
pub struct Unpacker<W: Write> {
    sink: Sink<W>,
    received: u64,
    max_bytes: u64,
    expansion: u64,
}

impl<W: Write> Unpacker<W> {
    /// Writes the content to `output`. Both the upload and its content have at most `max_bytes`, and the content has
    /// at most `expansion` times the bytes of the upload and a MiB.
    pub fn new(output: W, max_bytes: u64, expansion: u64) -> Self {
        let output = Bounded { output, written: 0, limit: max_bytes, expansion, allowed: u64::MAX };
        Self { sink: Sink::Undecided(Vec::new(), output), received: 0, max_bytes, expansion }
    }

    /// Writes a part of the upload.
    pub fn write(self, bytes: &[u8]) -> Result<Self, UploadError> {
        let received = self.received + bytes.len() as u64;
        if received > self.max_bytes {
            return Err(UploadError::TooLarge { limit: self.max_bytes });
        }
        let allowed = received.saturating_mul(self.expansion).saturating_add(FREE_EXPANSION);
        let sink = self.sink.write(bytes, allowed).map_err(upload_error)?;
        Ok(Self { sink, received, ..self })
    }

    /// Ends the upload. Returns the output and the bytes of the content.
    pub fn finish(self) -> Result<(W, u64), UploadError> {
        self.sink.finish().map_err(upload_error)
    }
}

/// Decompresses the body if its first two bytes are those of gzip, and writes it unchanged otherwise.
enum Sink<W: Write> {
    Undecided(Vec<u8>, Bounded<W>),
    Plain(Bounded<W>),
    Gzip(Box<MultiGzDecoder<Bounded<W>>>),
}

impl<W: Write> Sink<W> {
    /// Writes a part. `allowed` is the maximum content of the body so far, in bytes, if it is compressed.
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

    fn decide(first: &[u8], output: Bounded<W>, allowed: u64) -> io::Result<Self> {
        if first.starts_with(&GZIP_MAGIC) {
            Self::Gzip(Box::new(MultiGzDecoder::new(output))).write(first, allowed)
        } else {
            Self::Plain(output).write(first, allowed)
        }
    }

    fn finish(self) -> io::Result<(W, u64)> {
        let output = match self {
            Self::Undecided(first, mut output) => {
                output.write_all(&first)?;
                output
            }
            Self::Plain(output) => output,
            Self::Gzip(decoder) => decoder.finish()?,
        };
        Ok((output.output, output.written))
    }
}

/// An output of bounded size.
struct Bounded<W> {
    output: W,
    written: u64,
    limit: u64,
    expansion: u64,
    /// The maximum content of the compressed body so far, in bytes.
    allowed: u64,
}

impl<W: Write> Write for Bounded<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written + bytes.len() as u64 > self.limit {
            return Err(io::Error::other(UploadError::TooLarge { limit: self.limit }));
        }
        if self.written + bytes.len() as u64 > self.allowed {
            return Err(io::Error::other(UploadError::Expands { factor: self.expansion }));
        }
        let count = self.output.write(bytes)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

/// A file on a disk that keeps some space free.
struct SpaceChecked {
    file: BufWriter<File>,
    dir: PathBuf,
    written: u64,
    keep_free: u64,
    /// Size at which the free space was last checked.
    checked_at: Option<u64>,
}

impl SpaceChecked {
    fn create(name: &str, settings: &JobSettings) -> io::Result<Self> {
        let dir = settings.upload_dir.clone();
        fs::create_dir_all(&dir)?;
        let path = dir.join(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let file = BufWriter::with_capacity(256 * 1024, file);
        Ok(Self { file, dir, written: 0, keep_free: settings.free_bytes, checked_at: None })
    }

    /// Syncs the file and its name to disk.
    fn sync(self) -> io::Result<()> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_data()?;
        File::open(&self.dir)?.sync_all()
    }
}

impl Write for SpaceChecked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let is_check_due = self.checked_at.is_none_or(|at| self.written - at >= CHECK_SPACE_EVERY);
        if is_check_due {
            let disk = rustix::fs::statvfs(&self.dir)?;
            if disk.f_bavail.saturating_mul(disk.f_frsize) < self.keep_free {
                return Err(io::Error::other(UploadError::DiskFull));
            }
            self.checked_at = Some(self.written);
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
    // The decoder returns only errors of I/O, so those of the outputs are wrapped in one.
    let error = match error.downcast::<UploadError>() {
        Ok(error) => return error,
        Err(error) => error,
    };
    match error.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => UploadError::DiskFull,
        // The gzip decoder returns these for damaged and truncated data.
        InvalidInput | InvalidData | UnexpectedEof => UploadError::InvalidGzip,
        _ => UploadError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compression, write::GzEncoder};

    use super::*;

    #[test]
    fn must_26_content_may_have_exactly_the_bytes_of_its_limits() {
        let mut bounded =
            Bounded { output: Vec::new(), written: 5, limit: 10, expansion: 2, allowed: 8 };
        bounded.write_all(b"abc").unwrap();
        let error = upload_error(bounded.write_all(b"d").unwrap_err());
        assert!(matches!(error, UploadError::Expands { factor: 2 }), "{error:?}");
        bounded.allowed = u64::MAX;
        bounded.write_all(b"de").unwrap();
        let error = upload_error(bounded.write_all(b"f").unwrap_err());
        assert!(matches!(error, UploadError::TooLarge { limit: 10 }), "{error:?}");
        assert_eq!((bounded.written, bounded.output), (10, b"abcde".to_vec()));
    }

    #[test]
    fn must_26_compressed_content_may_have_a_mebibyte_besides_its_expansion() {
        const MIB: usize = 1_048_576;
        let unpack = |bytes: usize, expansion| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&vec![0; bytes]).unwrap();
            let packed = encoder.finish().unwrap();
            let unpacker = Unpacker::new(io::sink(), u64::MAX, expansion).write(&packed)?;
            unpacker.finish().map(|(_, bytes)| bytes)
        };
        assert_eq!(unpack(MIB, 0).unwrap(), MIB as u64);
        assert!(matches!(unpack(MIB + 1, 0), Err(UploadError::Expands { factor: 0 })));
        assert_eq!(unpack(MIB + 1, 1).unwrap(), MIB as u64 + 1);
    }

    #[test]
    fn free_space_is_checked_every_8_mib() {
        const EVERY: u64 = 8_388_608;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut output = SpaceChecked {
            file: BufWriter::new(File::create(&path).unwrap()),
            dir: dir.path().to_owned(),
            written: 0,
            keep_free: 0,
            checked_at: None,
        };
        for (written, checked_at) in [
            (0, 0),
            (EVERY - 1, 0),
            (EVERY, EVERY),
            (2 * EVERY - 1, EVERY),
            (2 * EVERY + 5, 2 * EVERY + 5),
        ] {
            output.written = written;
            output.write_all(b"x").unwrap();
            assert_eq!((output.written, output.checked_at), (written + 1, Some(checked_at)));
        }
        // A file that grows after its last check is not refused before the next one.
        output.keep_free = u64::MAX;
        output.write_all(b"x").unwrap();
        output.checked_at = None;
        let error = upload_error(output.write_all(b"x").unwrap_err());
        assert!(matches!(error, UploadError::DiskFull), "{error:?}");
        let mut output = Bounded { output, written: 0, limit: 0, expansion: 0, allowed: u64::MAX };
        assert_eq!(fs::read(&path).unwrap().len(), 0, "buffered");
        output.flush().unwrap();
        assert_eq!(fs::read(&path).unwrap().len(), 6);
    }

    /// An output on a disk without space, with one byte in its buffer.
    fn output_on_full_disk() -> Output {
        let file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut output = Output::File(SpaceChecked {
            file: BufWriter::new(file),
            dir: "/dev".into(),
            written: 0,
            keep_free: 0,
            checked_at: None,
        });
        output.write_all(b"x").unwrap();
        output
    }

    #[test]
    fn content_that_reaches_no_disk_is_an_error_of_its_end() {
        let errors = [output_on_full_disk().flush(), output_on_full_disk().finish()];
        for error in errors {
            assert!(matches!(upload_error(error.unwrap_err()), UploadError::DiskFull));
        }
    }

    #[test]
    fn errors_of_the_disk_and_of_the_gzip_data_are_distinguished() {
        use io::ErrorKind::{
            FileTooLarge, InvalidData, InvalidInput, PermissionDenied, QuotaExceeded, StorageFull,
            UnexpectedEof,
        };
        let kind = |kind: io::ErrorKind| upload_error(kind.into());
        for full in [StorageFull, QuotaExceeded, FileTooLarge] {
            assert!(matches!(kind(full), UploadError::DiskFull), "{full}");
        }
        for damaged in [InvalidInput, InvalidData, UnexpectedEof] {
            assert!(matches!(kind(damaged), UploadError::InvalidGzip), "{damaged}");
        }
        assert!(matches!(kind(PermissionDenied), UploadError::Io(_)));
    }
}
