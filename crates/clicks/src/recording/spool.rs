//! Where batches wait while Redis does not take them: files that only grow at their end and are
//! removed when they have been read.
//!
//! * A process has a folder of its own below the configured one, held by a lock for as long as it
//!   lives. It takes the first free one, so what a process left behind is published by the next.
//! * A frame is its length, its number of clicks, a checksum, and the batch. A file that was cut in
//!   the middle of a frame gives everything before it.
//! * Frames are read again after a crash that came between publishing and removing; a batch that was
//!   published twice is counted once, by its id.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// A file is closed and a new one begun at this size.
const SEGMENT_BYTES: u64 = 4 * 1024 * 1024;
/// Folders that processes may share the configured one in.
const MAX_SLOTS: u32 = 64;
const HEAD: usize = 12;
/// A frame that claims to be longer is damaged.
const MAX_FRAME: u32 = 32 * 1024 * 1024;
const LOCK: &str = "lock";
const SUFFIX: &str = "spool";

/// A frame that was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpoolError {
    /// The spool has its size.
    #[error("the spool is full")]
    Full,
    /// The file system refuses.
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
    limit: u64,
    /// Oldest first; the last one is being written.
    segments: VecDeque<Segment>,
    next_number: u64,
    writing: Option<File>,
    reading: Option<Reading>,
    bytes: u64,
}

#[derive(Debug)]
struct Reading {
    file: File,
    /// Where the next frame begins.
    at: u64,
}

impl Spool {
    /// Takes a free folder below `folder`, with what is left in it.
    pub(super) fn open(folder: &Path, limit: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        for slot in 0..MAX_SLOTS {
            let folder = folder.join(slot.to_string());
            fs::create_dir_all(&folder)?;
            let lock =
                File::options().create(true).write(true).truncate(false).open(folder.join(LOCK))?;
            if lock.try_lock().is_ok() {
                return Self::with_lock(folder, lock, limit);
            }
        }
        Err(io::Error::other(format!("{MAX_SLOTS} processes use {} already", folder.display())))
    }

    fn with_lock(folder: PathBuf, lock: File, limit: u64) -> io::Result<Self> {
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
            limit,
            segments,
            next_number,
            writing: None,
            reading: None,
            bytes,
        })
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Bytes that wait, about: frames of a file that is being read count until all are.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends a batch of so many clicks.
    pub(super) fn append(&mut self, batch: &[u8], clicks: u32) -> Result<(), SpoolError> {
        let length = u32::try_from(batch.len()).map_err(io::Error::other)?;
        let size = HEAD as u64 + u64::from(length);
        if self.bytes + size > self.limit {
            return Err(SpoolError::Full);
        }
        let full = self.segments.back().is_none_or(|segment| segment.bytes >= SEGMENT_BYTES);
        if full || self.writing.is_none() {
            self.begin_segment()?;
        }
        let mut frame = Vec::with_capacity(HEAD + batch.len());
        frame.extend_from_slice(&length.to_le_bytes());
        frame.extend_from_slice(&clicks.to_le_bytes());
        frame.extend_from_slice(&crc32fast::hash(batch).to_le_bytes());
        frame.extend_from_slice(batch);
        let written = self.writing.as_mut().map(|file| file.write_all(&frame));
        if let Some(Err(error)) = written {
            // Half a frame may be there: what comes next begins a file of its own.
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
        let file = File::options().create_new(true).append(true).open(&path)?;
        self.next_number += 1;
        self.segments.push_back(Segment { path, bytes: 0 });
        self.writing = Some(file);
        Ok(())
    }

    /// Makes the file system keep what was appended. Without it a power cut may take the last file;
    /// the end of the process takes nothing.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.writing.as_ref().map_or(Ok(()), File::sync_data)
    }

    /// The oldest batch that waits, and its clicks. It stays until [`Spool::advance`].
    pub(super) fn peek(&mut self) -> io::Result<Option<(Vec<u8>, u32)>> {
        loop {
            let Some(segment) = self.segments.front() else { return Ok(None) };
            if self.reading.is_none() {
                self.reading = Some(Reading { file: File::open(&segment.path)?, at: 0 });
            }
            let Some(reading) = &mut self.reading else { return Ok(None) };
            match reading.frame()? {
                Some(frame) => return Ok(Some(frame)),
                None => self.remove_front()?,
            }
        }
    }

    /// Passes over the batch that [`Spool::peek`] gave.
    pub(super) fn advance(&mut self, batch: &[u8]) -> io::Result<()> {
        if let Some(reading) = &mut self.reading {
            reading.at += (HEAD + batch.len()) as u64;
            let is_read = self.segments.front().is_some_and(|front| reading.at >= front.bytes);
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

impl Reading {
    /// The frame that begins here; `None` at the end, and where a frame is damaged.
    fn frame(&mut self) -> io::Result<Option<(Vec<u8>, u32)>> {
        self.file.seek(SeekFrom::Start(self.at))?;
        let Some(length) = self.number()? else { return Ok(None) };
        let Some(clicks) = self.number()? else { return Ok(None) };
        let Some(checksum) = self.number()? else { return Ok(None) };
        if length > MAX_FRAME {
            return Ok(None);
        }
        let mut batch = Vec::new();
        (&mut self.file).take(length.into()).read_to_end(&mut batch)?;
        let whole = batch.len() == length as usize && crc32fast::hash(&batch) == checksum;
        if !whole {
            tracing::warn!(at = self.at, "a spooled batch is damaged: its file ends here");
        }
        Ok(whole.then_some((batch, clicks)))
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
    fn what_is_appended_is_read_in_order_over_files_and_processes() {
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
        assert!(other.is_empty(), "a folder in use is not taken");
        other.append(&[1], 1).unwrap();
        drop(spool);
        let mut next = Spool::open(folder.path(), 64 * 1024 * 1024).unwrap();
        // The first is given again: it was passed over in a file that was not read to its end.
        assert_eq!(read_all(&mut next), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
        assert!(next.is_empty());
        assert_eq!(next.bytes(), 0);
        next.append(&[12], 12).unwrap();
        assert_eq!(read_all(&mut next), [12], "an emptied spool is used again");
    }

    #[test]
    fn a_full_spool_refuses_and_has_room_again_once_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(folder.path(), 100).unwrap();
        spool.append(&[1; 50], 1).unwrap();
        assert!(matches!(spool.append(&[2; 50], 2), Err(SpoolError::Full)));
        assert_eq!(read_all(&mut spool), [1]);
        spool.append(&[2; 50], 2).unwrap();
    }

    #[test]
    fn a_frame_that_was_cut_or_damaged_ends_its_file_only() {
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
