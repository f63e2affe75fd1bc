//! Reads the rows of untrusted files: CSV, a JSON array, or newline-delimited JSON.
//!
//! * [`Rows`] reads a file in constant memory: one block, and one row of at most [`MAX_ROW_BYTES`]. Longer rows are
//!   skipped without being stored.
//! * Reading can continue from a [`Position`] between two rows, also in another process, with the same rows and lines.
//! * A [`Row`] is not validated. A bad row has a [`RowDefect`] and its cells, and the rows after it are correct. If
//!   the bounds of later rows are uncertain, reading ends with a [`SourceError`].

mod bounded_text;
mod cells;
mod csv;
mod error;
mod header;
mod input;
mod json;
mod ndjson;
mod object;
mod row;
mod sniff;
#[cfg(test)]
mod tests;

use std::io::{Read, Seek};

use linnet_domain::RowFormat as Format;

use self::{csv::CsvReader, header::Names, input::Input, json::ArrayReader, ndjson::LineReader};

pub use error::{RowDefect, SourceError};
pub use row::Row;
pub use sniff::{format_of, format_of_file, format_of_media_type};

/// The maximum size of a row in the file, in bytes without its line end. A longer row is a defect.
pub const MAX_ROW_BYTES: usize = 1024 * 1024;
/// The maximum number of fields of a CSV record. More are a defect.
pub const MAX_COLUMNS: usize = 1_000;
/// The maximum number of unknown columns that are reported.
pub const MAX_UNKNOWN_COLUMNS: usize = 100;
/// The maximum size of a file's column names together, in bytes of UTF-8. They are stored with the job.
pub const MAX_HEADER_BYTES: usize = 8 * 1024;
/// The maximum number of characters of a column's name that are reported.
pub const MAX_NAME_CHARS: usize = 100;
/// The maximum size of the cells of a row that are reported, in bytes of their JSON text.
pub const MAX_CELL_BYTES: usize = 8 * 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A position between two rows where reading can continue. The default is before the first row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The number of bytes of the file before the position.
    pub offset: u64,
    /// The line of the position, counted from 1.
    pub line: u64,
}

/// The known columns of a kind of row, in lower case.
#[derive(Clone, Copy, Debug, Default)]
pub struct Columns {
    /// Required columns. A CSV file without one cannot be read; a JSON object without one is a bad row.
    pub required: &'static [&'static str],
    /// Optional columns.
    pub optional: &'static [&'static str],
    /// Columns that are ignored and not reported as unknown.
    pub ignored: &'static [&'static str],
    /// The required or optional columns whose value may be a JSON object, which is returned as its text.
    pub objects: &'static [&'static str],
}

impl Columns {
    fn with_values(&self) -> impl Iterator<Item = &'static str> {
        self.required.iter().chain(self.optional).copied()
    }
}

enum Reader {
    Csv(Box<CsvReader>),
    Json(ArrayReader),
    NdJson(LineReader),
}

/// The rows of a file, in order.
pub struct Rows<R> {
    input: Input<R>,
    reader: Reader,
    names: Names,
    /// The position before the first row.
    start: Position,
    position: Position,
    /// Whether the input is at another position than `position`.
    needs_seek: bool,
}

impl<R: Read + Seek> Rows<R> {
    /// Reads a CSV header, or checks that JSON begins correctly. Reading begins with the first byte of the source.
    pub fn open(source: R, format: Format, columns: &Columns) -> Result<Self, SourceError> {
        let mut input = Input::new(source)?;
        skip_byte_order_mark(&mut input)?;
        let (reader, names) = match format {
            Format::Csv => {
                let (reader, names) = CsvReader::open(&mut input, columns)?;
                (Reader::Csv(Box::new(reader)), names)
            }
            Format::Json => {
                let reader = ArrayReader::open(&mut input, columns)?;
                (Reader::Json(reader), Names::of_objects(columns))
            }
            Format::NdJson => {
                let reader = LineReader::open(&mut input, columns)?;
                (Reader::NdJson(reader), Names::of_objects(columns))
            }
        };
        let start = input.place();
        Ok(Self { input, reader, names, start, position: start, needs_seek: false })
    }

    /// Seeks to an earlier [`Rows::position`] of the same file; the default is its first row.
    pub fn seek(&mut self, to: Position) -> Result<(), SourceError> {
        let to = if to.offset <= self.start.offset { self.start } else { to };
        self.needs_seek = true;
        if to.line == 0 || !self.input.seek(to)? {
            return Err(SourceError::Position { offset: to.offset });
        }
        match &mut self.reader {
            Reader::Csv(reader) => reader.forget(),
            Reader::Json(reader) => reader.is_first = to == self.start,
            Reader::NdJson(_) => {}
        }
        self.position = to;
        self.needs_seek = false;
        Ok(())
    }

    /// The position after the last row that was returned; initially before the first row.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The file's columns, trimmed, in lower case, each cut to [`MAX_NAME_CHARS`]; for JSON the known columns.
    pub fn header(&self) -> &[String] {
        &self.names.header
    }

    /// Unknown columns, which are ignored, once each, at most [`MAX_UNKNOWN_COLUMNS`]; for JSON those seen so far.
    pub fn unknown_columns(&self) -> &[String] {
        self.names.unknown.as_slice()
    }

    /// Whether the header has this known column; for JSON every known column.
    pub fn has_column(&self, name: &str) -> bool {
        let index = self.names.index(name);
        index.is_some_and(|index| match &self.reader {
            Reader::Csv(reader) => reader.has(index),
            Reader::Json(_) | Reader::NdJson(_) => true,
        })
    }

    /// The next row; `None` at the end of the file. After an error, the next call retries after the last returned row.
    #[expect(clippy::should_implement_trait, reason = "the row borrows from the reader")]
    pub fn next(&mut self) -> Result<Option<Row<'_>>, SourceError> {
        if self.needs_seek {
            self.seek(self.position)?;
        }
        self.needs_seek = true;
        let found = match &mut self.reader {
            Reader::Csv(reader) => reader.read(&mut self.input)?,
            Reader::Json(reader) => reader.read(&mut self.input, &mut self.names)?,
            Reader::NdJson(reader) => reader.read(&mut self.input, &mut self.names)?,
        };
        if !found {
            return Ok(None);
        }
        self.needs_seek = false;
        self.position = self.input.place();
        let names = &self.names;
        Ok(Some(match &self.reader {
            Reader::Csv(reader) => Row::of_record(reader, names),
            Reader::Json(reader) => Row::of_object(&reader.objects, names),
            Reader::NdJson(reader) => Row::of_object(&reader.objects, names),
        }))
    }

    /// Allocated bytes.
    #[cfg(test)]
    fn capacity(&self) -> usize {
        self.input.capacity()
            + match &self.reader {
                Reader::Csv(reader) => reader.capacity(),
                Reader::Json(reader) => reader.objects.capacity(),
                Reader::NdJson(reader) => reader.objects.capacity(),
            }
    }
}

/// Skips a UTF-8 byte order mark, and rejects other encodings by their first bytes.
fn skip_byte_order_mark<R: Read + Seek>(input: &mut Input<R>) -> Result<(), SourceError> {
    let mut first = input.fill_to(sniff::MARK_BYTES)?;
    if sniff::is_archive(first) {
        first = input.fill_to(sniff::FORMAT_BYTES)?;
    }
    if let Some(name) = sniff::other_format(first) {
        return Err(SourceError::OtherFormat(name));
    }
    // UTF-16 without a mark has a NUL in these bytes. No supported format has one.
    let is_wide = first.starts_with(b"\xff\xfe")
        || first.starts_with(b"\xfe\xff")
        || first.iter().take(2).any(|byte| *byte == 0);
    if is_wide {
        return Err(SourceError::WideEncoding);
    }
    if first.starts_with(BYTE_ORDER_MARK) {
        input.take(BYTE_ORDER_MARK.len());
    }
    Ok(())
}
