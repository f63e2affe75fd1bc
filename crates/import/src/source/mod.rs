//! Rows from files, whoever wrote them: CSV, a JSON array, or JSON a line each.
//!
//! * [`Rows`] reads a file from front to back in flat memory: a block of it, and one row of at most
//!   [`MAX_ROW_BYTES`]. What is longer is read past without being kept.
//! * A [`Position`] between two rows is all that is needed to go on later, in another process too: the
//!   rows and lines after it are those that reading through gives.
//! * A [`Row`] is not validated. A bad one is a row with a [`RowDefect`], so that its cells can be
//!   given back, and the rows after it are right. Only when they cannot be trusted does reading end,
//!   with a [`SourceError`].

mod cells;
mod csv;
mod error;
mod header;
mod input;
mod json;
mod kept;
mod ndjson;
mod object;
mod row;
#[cfg(test)]
mod tests;

use std::io::{Read, Seek};

use linnet_domain::RowFormat as Format;

use self::{csv::CsvReader, header::Names, input::Input, json::ArrayReader, ndjson::LineReader};

pub use error::{RowDefect, SourceError};
pub use row::Row;

/// Bytes of a row in the file, without the end of its line; a longer one is a defect.
pub const MAX_ROW_BYTES: usize = 1024 * 1024;
/// Fields of a CSV record; more are a defect.
pub const MAX_COLUMNS: usize = 1_000;
/// Unknown columns that are told.
pub const MAX_UNKNOWN_COLUMNS: usize = 100;
/// Characters of a column's name that are told.
pub const MAX_NAME_CHARS: usize = 100;
/// Bytes of a row's cells, all together, that are given back.
pub const MAX_CELL_BYTES: usize = 8 * 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A place between two rows where reading can be taken up. The default is before the first row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Bytes of the file before it.
    pub offset: u64,
    /// The line it is on, counted from 1.
    pub line: u64,
}

/// Columns that a kind of row knows, in lower case.
#[derive(Clone, Copy, Debug, Default)]
pub struct Columns {
    /// A CSV header must have them. Objects say for themselves.
    pub required: &'static [&'static str],
    /// They may be there.
    pub optional: &'static [&'static str],
    /// They are passed over silently.
    pub ignored: &'static [&'static str],
    /// Those of the above whose value may be a JSON object, which is given as its text.
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
    /// Before the first row.
    start: Position,
    position: Position,
    /// The input is not where `position` is.
    is_astray: bool,
}

impl<R: Read + Seek> Rows<R> {
    /// Reads a CSV header, or finds that JSON begins as it must. The source's first byte is the
    /// file's, wherever it stands now.
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
        Ok(Self { input, reader, names, start, position: start, is_astray: false })
    }

    /// Goes to a position that this file gave before, or with the default to its first row.
    pub fn seek(&mut self, to: Position) -> Result<(), SourceError> {
        let to = if to.offset <= self.start.offset { self.start } else { to };
        self.is_astray = true;
        if to.line == 0 || !self.input.seek(to)? {
            return Err(SourceError::Position { offset: to.offset });
        }
        match &mut self.reader {
            Reader::Csv(reader) => reader.forget(),
            Reader::Json(reader) => reader.is_first = to == self.start,
            Reader::NdJson(_) => {}
        }
        self.position = to;
        self.is_astray = false;
        Ok(())
    }

    /// Behind the last row that was given; before the first one at first.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The file's columns, trimmed, in lower case, each cut to [`MAX_NAME_CHARS`]; for JSON the known
    /// ones, without those that are passed over.
    pub fn header(&self) -> &[String] {
        &self.names.header
    }

    /// Columns that are passed over because nobody knows them, once each, at most
    /// [`MAX_UNKNOWN_COLUMNS`]; for JSON those seen so far.
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

    /// The next row; `None` at the end of the file. After an error, the next call tries again behind
    /// the last row that was given.
    #[expect(clippy::should_implement_trait, reason = "the row borrows from the reader")]
    pub fn next(&mut self) -> Result<Option<Row<'_>>, SourceError> {
        if self.is_astray {
            self.seek(self.position)?;
        }
        self.is_astray = true;
        let found = match &mut self.reader {
            Reader::Csv(reader) => reader.read(&mut self.input)?,
            Reader::Json(reader) => reader.read(&mut self.input, &mut self.names)?,
            Reader::NdJson(reader) => reader.read(&mut self.input, &mut self.names)?,
        };
        if !found {
            return Ok(None);
        }
        self.is_astray = false;
        self.position = self.input.place();
        Ok(Some(match &self.reader {
            Reader::Csv(reader) => reader.row(&self.names),
            Reader::Json(reader) => reader.objects.row(&self.names),
            Reader::NdJson(reader) => reader.objects.row(&self.names),
        }))
    }

    /// Bytes that are held for the file.
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

/// Takes a UTF-8 byte order mark away, and tells encodings that are not UTF-8 by their first bytes.
fn skip_byte_order_mark<R: Read + Seek>(input: &mut Input<R>) -> Result<(), SourceError> {
    let first = input.fill_to(BYTE_ORDER_MARK.len())?;
    // No format of ours has a NUL there; UTF-16 without a mark does.
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
