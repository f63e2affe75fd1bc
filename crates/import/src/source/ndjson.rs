//! Splits newline-delimited JSON into lines. Blank lines are skipped.

use std::io::{Read, Seek};

use memchr::memchr;

use super::{
    Columns, SourceError,
    header::Names,
    input::Input,
    object::{ObjectReader, is_blank},
};

/// Reads lines.
pub(super) struct LineReader {
    pub(super) objects: ObjectReader,
}

impl LineReader {
    /// Skips to the first object.
    pub(super) fn open<R: Read + Seek>(
        input: &mut Input<R>,
        columns: &Columns,
    ) -> Result<Self, SourceError> {
        if !input.skip_while(is_blank)? {
            return Err(SourceError::Empty);
        }
        Ok(Self { objects: ObjectReader::new(columns) })
    }

    /// Reads the next object; `false` at the end of the file.
    pub(super) fn read<R: Read + Seek>(
        &mut self,
        input: &mut Input<R>,
        names: &mut Names,
    ) -> Result<bool, SourceError> {
        if !input.skip_while(is_blank)? {
            return Ok(false);
        }
        self.objects.line = input.place().line;
        self.objects.text.clear();
        loop {
            let bytes = input.fill()?;
            let end = memchr(b'\n', bytes);
            let line = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
            self.objects.text.push(line);
            let is_last = end.is_some() || bytes.is_empty();
            let taken = line.len() + usize::from(end.is_some());
            input.take(taken);
            if is_last {
                break;
            }
        }
        self.objects.text.trim_end();
        self.objects.read(names);
        Ok(true)
    }
}
