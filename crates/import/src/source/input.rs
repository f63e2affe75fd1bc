//! Reads a file in blocks and counts its lines.

use std::io::{self, Read, Seek, SeekFrom};

use memchr::memchr2_iter;

use super::Position;

/// Bytes of one read.
const BLOCK_BYTES: usize = 128 * 1024;

/// The unread rest of a file. Lines end with LF, CRLF or a CR alone.
pub(super) struct Input<R> {
    source: R,
    block: Box<[u8]>,
    /// The part of the block that has not been consumed.
    unread: std::ops::Range<usize>,
    /// The position at which the unread part begins.
    place: Position,
    /// Whether the last consumed byte was a CR, so that a following LF belongs to the same line end.
    after_cr: bool,
}

impl<R: Read + Seek> Input<R> {
    /// Begins with the source's first byte.
    pub(super) fn new(mut source: R) -> io::Result<Self> {
        source.rewind()?;
        Ok(Self {
            source,
            block: vec![0; BLOCK_BYTES].into_boxed_slice(),
            unread: 0..0,
            place: Position { offset: 0, line: 1 },
            after_cr: false,
        })
    }

    /// The position of the next byte.
    pub(super) fn place(&self) -> Position {
        self.place
    }

    /// The next bytes: at least one, or none at the end of the file.
    pub(super) fn fill(&mut self) -> io::Result<&[u8]> {
        if self.unread.is_empty() {
            self.fill_to(1)?;
        }
        Ok(self.block.get(self.unread.clone()).unwrap_or_default())
    }

    /// The next bytes: at least `least`, up to a block, unless the file ends.
    pub(super) fn fill_to(&mut self, least: usize) -> io::Result<&[u8]> {
        if self.unread.len() < least {
            self.block.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        while self.unread.len() < least {
            let free = self.block.get_mut(self.unread.end..).unwrap_or_default();
            match self.source.read(free) {
                Ok(0) => break,
                Ok(read) => self.unread.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.block.get(self.unread.clone()).unwrap_or_default())
    }

    /// Consumes bytes that [`fill`](Self::fill) returned.
    pub(super) fn take(&mut self, count: usize) {
        let end = self.unread.end.min(self.unread.start + count);
        let taken = self.block.get(self.unread.start..end).unwrap_or_default();
        let mut swallowed = self.after_cr.then_some(0);
        for at in memchr2_iter(b'\r', b'\n', taken) {
            if taken.get(at) == Some(&b'\r') {
                self.place.line += 1;
                swallowed = Some(at + 1);
            } else if swallowed != Some(at) {
                self.place.line += 1;
            }
        }
        self.after_cr = swallowed == Some(taken.len());
        self.place.offset += taken.len() as u64;
        self.unread.start = end;
    }

    /// Consumes the LF of a CRLF whose CR was consumed.
    pub(super) fn finish_line_end(&mut self) -> io::Result<()> {
        if self.after_cr && self.fill()?.first() == Some(&b'\n') {
            self.take(1);
        }
        self.after_cr = false;
        Ok(())
    }

    /// Consumes bytes while `is_skipped` accepts them. Returns `false` if the file ends.
    pub(super) fn skip_while(&mut self, is_skipped: impl Fn(u8) -> bool) -> io::Result<bool> {
        loop {
            let bytes = self.fill()?;
            if bytes.is_empty() {
                return Ok(false);
            }
            let count = bytes.iter().position(|byte| !is_skipped(*byte));
            let all = bytes.len();
            self.take(count.unwrap_or(all));
            if count.is_some() {
                return Ok(true);
            }
        }
    }

    /// Seeks to a position. Returns `false` if the file ends before it.
    pub(super) fn seek(&mut self, to: Position) -> io::Result<bool> {
        if self.source.seek(SeekFrom::End(0))? < to.offset {
            return Ok(false);
        }
        self.source.seek(SeekFrom::Start(to.offset))?;
        self.unread = 0..0;
        self.place = to;
        self.after_cr = false;
        Ok(true)
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.block.len()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A file that returns one byte per read, and counts the reads.
    struct Counting {
        file: Cursor<&'static [u8]>,
        reads: usize,
        is_interrupted: bool,
    }

    impl Read for Counting {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if std::mem::take(&mut self.is_interrupted) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            self.reads += 1;
            let count = buffer.len().min(1);
            self.file.read(&mut buffer[..count])
        }
    }

    impl Seek for Counting {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.file.seek(to)
        }
    }

    #[test]
    fn no_more_is_read_than_is_needed() {
        let file = Counting { file: Cursor::new(&b"abcde"[..]), reads: 0, is_interrupted: true };
        let mut input = Input::new(file).unwrap();
        for (least, unread, reads) in [(1, 1, 1), (1, 1, 1), (3, 3, 3), (2, 3, 3), (9, 5, 6)] {
            assert_eq!(input.fill_to(least).unwrap().len(), unread, "{least}");
            assert_eq!(input.source.reads, reads, "{least}");
        }
        assert_eq!(input.fill().unwrap(), b"abcde");
    }

    fn lines_after(text: &str, pieces: usize) -> Vec<u64> {
        let mut input = Input::new(Cursor::new(text.as_bytes())).unwrap();
        let mut lines = Vec::new();
        while !input.fill().unwrap().is_empty() {
            input.take(pieces);
            lines.push(input.place().line);
        }
        lines
    }

    #[test]
    fn lf_crlf_and_cr_end_lines() {
        assert_eq!(
            lines_after("a\nb\r\nc\rd\n\n\r\r\n\r", 1),
            [1, 2, 2, 3, 3, 3, 4, 4, 5, 6, 7, 8, 8, 9]
        );
        for pieces in 2..20 {
            let lines = lines_after("a\nb\r\nc\rd\n\n\r\r\n\r", pieces);
            assert_eq!(lines.last(), Some(&9), "{pieces} at a time");
        }
    }

    #[test]
    fn a_crlf_is_not_split() {
        let mut input = Input::new(Cursor::new("\r\n\r\na")).unwrap();
        input.fill().unwrap();
        input.take(1);
        input.finish_line_end().unwrap();
        assert_eq!(input.place(), Position { offset: 2, line: 2 });
        input.finish_line_end().unwrap();
        assert_eq!(input.place(), Position { offset: 2, line: 2 }, "an LF alone remains");
    }

    #[test]
    fn seeking_past_the_end_is_rejected() {
        let mut input = Input::new(Cursor::new("abc")).unwrap();
        assert!(input.seek(Position { offset: 3, line: 1 }).unwrap());
        assert!(input.fill().unwrap().is_empty());
        assert!(!input.seek(Position { offset: 4, line: 1 }).unwrap());
    }
}
