//! Uploads in the database: writes and reads a file as compressed pieces.
//!
//! Writer and reader run on blocking threads, as for files, and wait there for the database.

use std::{
    io::{self, Read, Seek, SeekFrom, Write},
    time::Duration,
};

use flate2::{Compression, read::ZlibDecoder, write::ZlibEncoder};
use linnet_domain::UploadId;
use linnet_import::{OpenFile, RowFile};
use linnet_platform::backoff::Backoff;
use linnet_store::{NewPiece, PieceRefusal, Store, StoreError, UploadLimits};
use tokio::{
    runtime::Handle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::UploadError;

/// Bytes of the content of a piece; the last one has fewer.
const PIECE_BYTES: usize = 256 * 1024;
/// The maximum content of a stored piece, in bytes. It leaves later releases a choice.
const MAX_PIECE_BYTES: u64 = 1024 * 1024;
/// Time after which content becomes a piece although it is short. An upload that adds no piece for 5 min counts as one
/// whose process has died, and a client may send slowly.
const MAX_PIECE_AGE: Duration = Duration::from_mins(1);
/// The number of pieces of which one is checked against the limits, since that reads all uploads. An upload in progress may
/// exceed them by the others.
const PIECES_PER_CHECK: u32 = 16;
/// Longest wait for one statement. It is longer than the timeouts of `postgres`, which usually end it.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);

/// Memory of an upload that is being written, in bytes: the content of a piece, the piece compressed, as a parameter and in
/// the connection's buffer, and the state of the compression.
pub const WRITER_BYTES: u64 = 4 * PIECE_BYTES as u64 + 320 * 1024;
/// Memory of an upload that is being read, in bytes: a piece in the connection's buffer, compressed, and its content.
pub const READER_BYTES: u64 = 3 * PIECE_BYTES as u64 + 64 * 1024;

/// Writes the content of an upload. After an error it writes nothing more.
pub(super) struct PieceWriter {
    pub(super) store: Store,
    pub(super) runtime: Handle,
    pub(super) limits: UploadLimits,
    pub(super) id: UploadId,
    /// Bytes of the content before the piece in progress.
    starts_at: i64,
    content: Vec<u8>,
    pieces: u32,
    last_added: std::time::Instant,
    has_failed: bool,
}

/// Whether content of this size, which began at most this long ago, becomes a piece.
const fn is_piece(bytes: usize, age: Duration) -> bool {
    bytes == PIECE_BYTES || (bytes > 0 && age.as_secs() >= MAX_PIECE_AGE.as_secs())
}

impl PieceWriter {
    pub(super) fn new(store: Store, runtime: Handle, limits: UploadLimits, id: UploadId) -> Self {
        Self {
            store,
            runtime,
            limits,
            id,
            starts_at: 0,
            content: Vec::with_capacity(PIECE_BYTES),
            pieces: 0,
            last_added: std::time::Instant::now(),
            has_failed: false,
        }
    }

    /// Adds the last piece.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if self.content.is_empty() { Ok(()) } else { self.add_piece(true) }
    }

    fn add_piece(&mut self, is_last: bool) -> io::Result<()> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&self.content)?;
        let stored = encoder.finish()?;
        let content_bytes = i64::try_from(self.content.len()).unwrap_or(i64::MAX);
        let piece = NewPiece { starts_at: self.starts_at, content_bytes, stored: &stored };
        let is_checked = is_last || self.pieces.is_multiple_of(PIECES_PER_CHECK);
        let limits = is_checked.then_some(self.limits);
        let adding = self.store.add_upload_piece(self.id, piece, limits);
        // The timer must be created within the runtime.
        let added = self.runtime.block_on(async { timeout(STATEMENT_TIMEOUT, adding).await });
        let error = match added {
            Ok(Ok(Ok(()))) => {
                self.starts_at += content_bytes;
                self.pieces += 1;
                self.last_added = std::time::Instant::now();
                self.content.clear();
                return Ok(());
            }
            Ok(Ok(Err(PieceRefusal::Full))) => UploadError::StoreFull,
            Ok(Ok(Err(PieceRefusal::UserFull))) => UploadError::UserFull,
            Ok(Ok(Err(PieceRefusal::DiskFull))) => UploadError::RemovedFull,
            Ok(Ok(Err(PieceRefusal::UserDiskFull))) => UploadError::UserRemovedFull,
            Ok(Ok(Err(PieceRefusal::Lost))) => UploadError::Lost,
            Ok(Err(error)) => UploadError::Store(error),
            Err(_) => UploadError::Store(StoreError::timed_out()),
        };
        self.has_failed = true;
        Err(io::Error::other(error))
    }
}

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A decoder that is dropped writes the rest of its content.
        if self.has_failed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let count = bytes.len().min(PIECE_BYTES - self.content.len());
        self.content.extend(bytes.iter().take(count));
        if is_piece(self.content.len(), self.last_added.elapsed()) {
            self.add_piece(false)?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An upload in the database.
#[derive(Debug, Clone)]
pub(super) struct PieceFile {
    pub(super) store: Store,
    pub(super) runtime: Handle,
    pub(super) id: UploadId,
    /// Time for which a read is repeated while the database is unavailable.
    pub(super) retry_for: Duration,
    /// Ends all reads.
    pub(super) stop: CancellationToken,
}

impl PieceFile {
    /// Runs a query, again while the database is unavailable. An error of the database is an [`UploadError`].
    fn query<T>(&self, query: &impl AsyncFn(&Store) -> Result<T, StoreError>) -> io::Result<T> {
        self.runtime.block_on(async {
            let end = Instant::now() + self.retry_for;
            let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
            loop {
                let stopped = || io::Error::other("reading was stopped");
                let ran =
                    self.stop.run_until_cancelled(timeout(STATEMENT_TIMEOUT, query(&self.store)));
                let error = match ran.await.ok_or_else(stopped)? {
                    Ok(Ok(found)) => return Ok(found),
                    Ok(Err(error @ (StoreError::Unavailable(_) | StoreError::Locked(_)))) => error,
                    Ok(Err(error)) => return Err(io::Error::other(UploadError::Store(error))),
                    Err(_) => StoreError::timed_out(),
                };
                if Instant::now() >= end {
                    return Err(io::Error::other(UploadError::Store(error)));
                }
                tracing::debug!(%error, "piece of an upload not read; retrying");
                if backoff.wait_unless_cancelled(&self.stop).await.is_break() {
                    return Err(stopped());
                }
            }
        })
    }
}

impl RowFile for PieceFile {
    fn open(&self) -> io::Result<OpenFile> {
        let bytes = self.query(&async |store: &Store| store.upload_bytes(self.id).await)?;
        let bytes = bytes.ok_or_else(missing)?;
        let size = u64::try_from(bytes).unwrap_or(0);
        let file = self.clone();
        Ok(Box::new(PieceReader { file, size, position: 0, starts_at: 0, content: Vec::new() }))
    }
}

/// Reads the content of an upload.
struct PieceReader {
    file: PieceFile,
    size: u64,
    position: u64,
    /// Bytes of the upload before `content`.
    starts_at: u64,
    /// The content of the piece that was read last.
    content: Vec<u8>,
}

impl PieceReader {
    /// The rest of the content from the position on.
    fn rest(&self) -> Option<&[u8]> {
        let from = self.position.checked_sub(self.starts_at)?;
        let rest = self.content.get(usize::try_from(from).ok()?..)?;
        (!rest.is_empty()).then_some(rest)
    }

    /// Reads the piece at the position. A piece that is not there is an error: the end of the content would look like the end
    /// of the file, and rows would be left out.
    fn load(&mut self) -> io::Result<()> {
        let offset = i64::try_from(self.position).map_err(io::Error::other)?;
        let id = self.file.id;
        let piece = self.file.query(&async |store: &Store| store.upload_piece(id, offset).await)?;
        let piece = piece.ok_or_else(missing)?;
        self.content.clear();
        let mut decoder = ZlibDecoder::new(piece.stored.as_slice()).take(MAX_PIECE_BYTES);
        decoder.read_to_end(&mut self.content)?;
        self.starts_at = u64::try_from(piece.starts_at).map_err(io::Error::other)?;
        if self.rest().is_some() { Ok(()) } else { Err(missing()) }
    }
}

fn missing() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, UploadError::Lost)
}

impl Read for PieceReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.size || out.is_empty() {
            return Ok(0);
        }
        if self.rest().is_none() {
            self.load()?;
        }
        let mut rest = self.rest().unwrap_or_default();
        let count = rest.read(out)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for PieceReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.size.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use sqlx::postgres::PgPoolOptions;

    use super::*;

    /// A reader of an upload of 10 bytes that has read its second piece, `fghi`. Its database does not exist.
    fn reader() -> PieceReader {
        let pool = PgPoolOptions::new().connect_lazy("postgres://127.0.0.1:1/none").unwrap();
        let file = PieceFile {
            store: Store::new(pool),
            runtime: Handle::current(),
            id: UploadId::MIN,
            retry_for: Duration::ZERO,
            stop: CancellationToken::new(),
        };
        PieceReader { file, size: 10, position: 5, starts_at: 5, content: b"fghi".to_vec() }
    }

    #[tokio::test]
    async fn position_is_counted_from_the_start_the_end_or_the_position() {
        let mut reader = reader();
        for (to, position) in [
            (SeekFrom::Start(7), 7),
            (SeekFrom::Current(-3), 4),
            (SeekFrom::Current(4), 8),
            (SeekFrom::End(-1), 9),
            (SeekFrom::End(5), 15),
        ] {
            assert_eq!(reader.seek(to).unwrap(), position, "{to:?}");
            assert_eq!(reader.stream_position().unwrap(), position);
        }
        for to in [SeekFrom::Current(-16), SeekFrom::End(-11)] {
            assert_eq!(reader.seek(to).unwrap_err().kind(), io::ErrorKind::InvalidInput);
            assert_eq!(reader.position, 15, "unchanged");
        }
    }

    #[tokio::test]
    async fn bytes_of_the_last_piece_are_read_without_the_database() {
        let mut reader = reader();
        for (position, rest) in
            [(4, None), (5, Some(&b"fghi"[..])), (8, Some(b"i")), (9, None), (u64::MAX, None)]
        {
            reader.position = position;
            assert_eq!(reader.rest(), rest, "{position}");
        }
        let mut out = [0; 3];
        reader.position = 5;
        assert_eq!((reader.read(&mut out).unwrap(), &out), (3, b"fgh"));
        assert_eq!((reader.read(&mut out).unwrap(), out[0]), (1, b'i'));
        assert_eq!(reader.position, 9);
        // The tenth byte is in the next piece, and the content has no eleventh.
        assert_eq!(reader.read(&mut []).unwrap(), 0);
        for end in [10, 11] {
            reader.position = end;
            assert_eq!(reader.read(&mut out).unwrap(), 0, "{end}");
        }
    }

    #[test]
    fn slow_upload_adds_a_piece_each_minute() {
        let minute = Duration::from_mins(1);
        assert!(is_piece(PIECE_BYTES, Duration::ZERO));
        assert!(!is_piece(PIECE_BYTES - 1, Duration::from_millis(59_999)));
        assert!(is_piece(1, minute));
        assert!(!is_piece(0, minute), "a piece is not empty");
    }
}
