//! Stores batches in append-only files while Redis does not accept them.
//!
//! - A process locks one folder below `clicks.spool_dir` for its lifetime. It takes the first free one, so the next process
//!   publishes the batches of a killed one.
//! - A frame is the batch with its length, number of clicks and checksum. A file that is truncated within a frame yields the
//!   frames before it.
//! - A file is removed once all its frames are read. After a crash in between, frames are published twice; batch ids make
//!   that harmless.

use std::{
    collections::VecDeque,
    fs::{self, DirBuilder, File},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// Size at which a new file begins, in bytes.
const SEGMENT_BYTES: u64 = 4 * 1024 * 1024;
/// The maximum number of processes that share `clicks.spool_dir`.
const MAX_SLOTS: u32 = 64;
/// Length, number of clicks and checksum, in bytes.
const HEADER_LEN: usize = 12;
/// Longest valid batch, in bytes.
const MAX_FRAME: u32 = 32 * 1024 * 1024;
/// Denies access to other users of the machine, because the files contain user agents.
const FILE_MODE: u32 = 0o640;
const DIRECTORY_MODE: u32 = 0o750;
const LOCK: &str = "lock";
const SUFFIX: &str = "spool";

/// Why a batch was not appended.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpoolError {
    /// The spool has reached its capacity.
    #[error("the spool is full")]
    Full,
    /// The file system returned an error.
    #[error("the spool cannot be written")]
    Io(#[from] io::Error),
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    bytes: u64,
}

/// One process's spool.
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
    _lock: File,
    capacity: u64,
    /// Oldest first; the last one may be open for writing.
    segments: VecDeque<Segment>,
    next_number: u64,
    writing: Option<File>,
    reading: Option<FrameReader>,
    bytes: u64,
}

#[derive(Debug)]
struct FrameReader {
    file: File,
    /// Offset of the next frame.
    offset: u64,
}

impl Spool {
    /// Locks a free folder below `folder`, with the batches in it. `capacity` is in bytes.
    pub(super) fn open(folder: &Path, capacity: u64) -> io::Result<Self> {
        let mut directories = DirBuilder::new();
        directories.recursive(true).mode(DIRECTORY_MODE);
        directories.create(folder)?;
        for slot in 0..MAX_SLOTS {
            let folder = folder.join(slot.to_string());
            directories.create(&folder)?;
            let lock = File::options()
                .create(true)
                .write(true)
                .truncate(false)
                .mode(FILE_MODE)
                .open(folder.join(LOCK))?;
            if lock.try_lock().is_ok() {
                return Self::with_lock(folder, lock, capacity);
            }
        }
        Err(io::Error::other(format!("{MAX_SLOTS} processes already use {}", folder.display())))
    }

    fn with_lock(folder: PathBuf, lock: File, capacity: u64) -> io::Result<Self> {
        let mut found: Vec<(u64, Segment)> = Vec::new();
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            if path.extension().is_some_and(|suffix| suffix == SUFFIX)
                && let Some(number) = number
            {
                let bytes = fs::metadata(&path)?.len();
                found.push((number, Segment { path, bytes }));
            }
        }
        found.sort_by_key(|(number, _)| *number);
        let next_number = found.last().map_or(0, |(number, _)| number + 1);
        let segments: VecDeque<Segment> = found.into_iter().map(|(_, segment)| segment).collect();
        let bytes = segments.iter().map(|segment| segment.bytes).sum();
        Ok(Self {
            folder,
            _lock: lock,
            capacity,
            segments,
            next_number,
            writing: None,
            reading: None,
            bytes,
        })
    }

    /// Whether the spool has no batch.
    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Size of all files, in bytes, including frames of the first file that are already read.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends a batch. The number of clicks is stored for metrics.
    pub(super) fn append(&mut self, batch: &[u8], clicks: u32) -> Result<(), SpoolError> {
        let length = u32::try_from(batch.len()).map_err(io::Error::other)?;
        let size = HEADER_LEN as u64 + u64::from(length);
        if self.bytes + size > self.capacity {
            return Err(SpoolError::Full);
        }
        let is_segment_full =
            self.segments.back().is_none_or(|segment| segment.bytes >= SEGMENT_BYTES);
        if is_segment_full || self.writing.is_none() {
            self.begin_segment()?;
        }
        let mut frame = Vec::with_capacity(HEADER_LEN + batch.len());
        frame.extend_from_slice(&length.to_le_bytes());
        frame.extend_from_slice(&clicks.to_le_bytes());
        frame.extend_from_slice(&crc32fast::hash(batch).to_le_bytes());
        frame.extend_from_slice(batch);
        let written = self.writing.as_mut().map(|file| file.write_all(&frame));
        if let Some(Err(error)) = written {
            // The file may end within a frame, so the next frame begins a new file.
            self.writing = None;
            return Err(error.into());
        }
        if let Some(segment) = self.segments.back_mut() {
            segment.bytes += size;
        }
        self.bytes += size;
        Ok(())
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        self.sync()?;
        let path = self.folder.join(format!("{:016}.{SUFFIX}", self.next_number));
        let file = File::options().create_new(true).append(true).mode(FILE_MODE).open(&path)?;
        self.next_number += 1;
        self.segments.push_back(Segment { path, bytes: 0 });
        self.writing = Some(file);
        Ok(())
    }

    /// Syncs the current file to disk, so that it survives a power failure. The end of the process alone loses no data.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.writing.as_ref().map_or(Ok(()), File::sync_data)
    }

    /// The oldest batch and its number of clicks. It stays until [`Spool::advance`].
    pub(super) fn peek(&mut self) -> io::Result<Option<(Vec<u8>, u32)>> {
        loop {
            let Some(segment) = self.segments.front() else { return Ok(None) };
            if self.reading.is_none() {
                self.reading = Some(FrameReader { file: File::open(&segment.path)?, offset: 0 });
            }
            let Some(reading) = &mut self.reading else { return Ok(None) };
            match reading.read_frame()? {
                Some(frame) => return Ok(Some(frame)),
                None => self.remove_front()?,
            }
        }
    }

    /// Removes the batch that [`Spool::peek`] returned.
    pub(super) fn advance(&mut self, batch: &[u8]) -> io::Result<()> {
        if let Some(reading) = &mut self.reading {
            reading.offset += (HEADER_LEN + batch.len()) as u64;
            let is_read = self.segments.front().is_some_and(|front| reading.offset >= front.bytes);
            if is_read {
                self.remove_front()?;
            }
        }
        Ok(())
    }

    fn remove_front(&mut self) -> io::Result<()> {
        self.reading = None;
        if self.segments.len() == 1 {
            self.writing = None;
        }
        if let Some(segment) = self.segments.pop_front() {
            self.bytes = self.bytes.saturating_sub(segment.bytes);
            fs::remove_file(&segment.path)?;
        }
        Ok(())
    }
}

impl FrameReader {
    /// The next frame; `None` at the end of the file and at a damaged frame.
    fn read_frame(&mut self) -> io::Result<Option<(Vec<u8>, u32)>> {
        self.file.seek(SeekFrom::Start(self.offset))?;
        let Some(length) = self.number()? else { return Ok(None) };
        let Some(clicks) = self.number()? else { return Ok(None) };
        let Some(checksum) = self.number()? else { return Ok(None) };
        if length > MAX_FRAME {
            return Ok(None);
        }
        let mut batch = Vec::new();
        (&mut self.file).take(length.into()).read_to_end(&mut batch)?;
        let is_intact = batch.len() == length as usize && crc32fast::hash(&batch) == checksum;
        if !is_intact {
            tracing::warn!(at = self.offset, "damaged spool frame found; rest of its file skipped");
        }
        Ok(is_intact.then_some((batch, clicks)))
    }

    fn number(&mut self) -> io::Result<Option<u32>> {
        let mut bytes = [0; 4];
        match self.file.read_exact(&mut bytes) {
            Ok(()) => Ok(Some(u32::from_le_bytes(bytes))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(spool: &mut Spool) -> Vec<u8> {
        let mut firsts = Vec::new();
        while let Some((batch, clicks)) = spool.peek().unwrap() {
            assert_eq!(clicks, u32::from(batch[0]));
            firsts.push(batch[0]);
            spool.advance(&batch).unwrap();
        }
        firsts
    }

    #[test]
    fn batches_are_read_in_order_across_files_and_processes() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(folder.path(), 64 * 1024 * 1024).unwrap();
        assert!(spool.is_empty());
        for n in 1..=10_u8 {
            spool.append(&vec![n; 1024 * 1024], n.into()).unwrap();
        }
        let (first, _) = spool.peek().unwrap().unwrap();
        spool.advance(&first).unwrap();
        spool.append(&[11], 11).unwrap();
        let mut other = Spool::open(folder.path(), 1024).unwrap();
        assert!(other.is_empty(), "another process locks another folder");
        other.append(&[1], 1).unwrap();
        drop(spool);
        let mut next = Spool::open(folder.path(), 64 * 1024 * 1024).unwrap();
        // The first batch returns: its file was not read to the end.
        assert_eq!(read_all(&mut next), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
        assert!(next.is_empty());
        assert_eq!(next.bytes(), 0);
        next.append(&[12], 12).unwrap();
        assert_eq!(read_all(&mut next), [12], "an emptied spool accepts batches");
    }

    #[test]
    fn full_spool_rejects_batches_until_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(folder.path(), 100).unwrap();
        spool.append(&[1; 50], 1).unwrap();
        assert!(matches!(spool.append(&[2; 50], 2), Err(SpoolError::Full)));
        assert_eq!(read_all(&mut spool), [1]);
        spool.append(&[2; 50], 2).unwrap();
    }

    #[test]
    fn damaged_frame_ends_only_its_file() {
        let folder = tempfile::tempdir().unwrap();
        for damage in
            [|bytes: &mut Vec<u8>| bytes.truncate(40), |bytes: &mut Vec<u8>| bytes[30] ^= 1]
        {
            let mut spool = Spool::open(folder.path(), 1024).unwrap();
            spool.append(&[1; 10], 1).unwrap();
            spool.append(&[2; 20], 2).unwrap();
            let path = spool.segments[0].path.clone();
            drop(spool);
            let mut bytes = fs::read(&path).unwrap();
            damage(&mut bytes);
            fs::write(&path, bytes).unwrap();
            let mut spool = Spool::open(folder.path(), 1024).unwrap();
            spool.append(&[3; 10], 3).unwrap();
            assert_eq!(read_all(&mut spool), [1, 3]);
        }
    }
}
