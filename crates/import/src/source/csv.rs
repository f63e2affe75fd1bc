//! Reads CSV (RFC 4180) in the variants that spreadsheets write.
//!
//! * Records end with LF, CRLF or a CR alone. Blank lines are skipped, and quotes may appear anywhere.
//! * Fields are separated by commas, semicolons or tabs; the header decides.
//! * The reader counts lines and bytes itself: the parser ends a record at the CR of a CRLF, and treats the LF as
//!   part of the next record.

use std::{
    borrow::Cow,
    io::{Read, Seek},
};

use csv_core::ReadRecordResult;

use super::{
    Columns, MAX_COLUMNS, MAX_ROW_BYTES, RowDefect, SourceError, cells::Cells, header::Names,
    input::Input, sniff,
};
use linnet_domain::formula::unescape_formula;

const TOO_MANY_FIELDS: &str = "too_many_fields";
/// The initial size of the buffer for a record, in bytes. A longer record doubles it.
const FIRST_BYTES: usize = 16 * 1024;

/// Reads records.
pub(super) struct CsvReader {
    parser: csv_core::Reader,
    /// The record's fields, unquoted, concatenated.
    fields: Vec<u8>,
    /// The end of each field in `fields`.
    ends: Vec<usize>,
    /// The number of `ends` that belong to the record.
    count: usize,
    line: u64,
    defect: Option<RowDefect>,
    /// The index in a record of each known column.
    places: Vec<Option<usize>>,
    /// The number of fields of the header.
    width: usize,
}

/// A record's fields.
#[derive(Clone, Copy)]
pub(super) struct Record<'a> {
    fields: &'a [u8],
    ends: &'a [usize],
    places: &'a [Option<usize>],
}

struct Extent {
    /// Bytes in the file, without the line end.
    length: u64,
    /// Whether the file ends inside quotes.
    is_unclosed: bool,
}

impl CsvReader {
    /// Reads the header.
    pub(super) fn open<R: Read + Seek>(
        input: &mut Input<R>,
        columns: &Columns,
    ) -> Result<(Self, Names), SourceError> {
        sniff::skip_blank_lines(input)?;
        let (delimiter, skipped) = sniff::delimiter(sniff::first_line(input)?, columns);
        input.take(skipped);
        let mut reader = Self {
            parser: csv_core::ReaderBuilder::new().delimiter(delimiter).build(),
            fields: vec![0; FIRST_BYTES],
            ends: vec![0; MAX_COLUMNS + 1],
            count: 0,
            line: 0,
            defect: None,
            places: Vec::new(),
            width: 0,
        };
        reader.forget();
        // After a line `sep=;`, lines without text may follow too.
        loop {
            if !reader.parse(input)? {
                return Err(SourceError::Empty);
            }
            if reader.has_content() {
                break;
            }
        }
        match reader.defect.as_ref().map(|defect| defect.code) {
            None => {}
            Some(RowDefect::TOO_LONG) => return Err(SourceError::HeaderTooLong),
            Some(TOO_MANY_FIELDS) => return Err(SourceError::TooManyColumns),
            Some(_) => return Err(SourceError::HeaderQuote),
        }
        let (names, places) = Names::of_header(reader.record().fields(), columns)?;
        reader.width = reader.count;
        reader.places = places;
        Ok((reader, names))
    }

    /// Whether the header has the known column.
    pub(super) fn has(&self, column: usize) -> bool {
        self.places.get(column).is_some_and(Option::is_some)
    }

    /// Resets the parser for a record at another position.
    pub(super) fn forget(&mut self) {
        self.parser.reset();
        // The parser removes a byte order mark in its first call. This empty call keeps the marks of records.
        self.parser.read_record(&[], &mut [], &mut []);
    }

    /// Reads the next record; `false` at the end of the file. Spreadsheets write a blank row as `,,`, so a record without
    /// text is skipped like a blank line.
    pub(super) fn read<R: Read + Seek>(
        &mut self,
        input: &mut Input<R>,
    ) -> Result<bool, SourceError> {
        loop {
            if !self.parse(input)? {
                return Ok(false);
            }
            if self.has_content() {
                break;
            }
        }
        if self.defect.is_none() && self.count != self.width {
            let message = format!("must have {} fields, not {}", self.width, self.count);
            self.defect = Some(RowDefect::of_row("field_count", message));
        }
        Ok(true)
    }

    /// Whether the last record has text or a defect.
    fn has_content(&self) -> bool {
        self.defect.is_some() || self.record().ends.last().is_some_and(|end| *end > 0)
    }

    /// Reads a record with any number of fields; `false` at the end of the file.
    fn parse<R: Read + Seek>(&mut self, input: &mut Input<R>) -> Result<bool, SourceError> {
        if !input.skip_while(|byte| matches!(byte, b'\r' | b'\n'))? {
            return Ok(false);
        }
        self.line = input.place().line;
        let Extent { length, is_unclosed } = self.collect(input)?;
        input.finish_line_end()?;
        self.defect = if is_unclosed {
            Some(RowDefect::of_row("unclosed_quote", "must close every quote"))
        } else if length > MAX_ROW_BYTES as u64 {
            Some(RowDefect::too_long())
        } else if self.count > MAX_COLUMNS {
            let message = format!("must have at most {MAX_COLUMNS} fields");
            Some(RowDefect::of_row(TOO_MANY_FIELDS, message))
        } else {
            None
        };
        Ok(true)
    }

    /// Consumes the bytes of a record, and keeps its fields up to the limits.
    fn collect<R: Read + Seek>(&mut self, input: &mut Input<R>) -> Result<Extent, SourceError> {
        let start = input.place().offset;
        let mut written = 0;
        let mut is_dropped = false;
        self.count = 0;
        let is_ended = loop {
            is_dropped |= input.place().offset - start > MAX_ROW_BYTES as u64;
            let bytes = input.fill()?;
            if bytes.is_empty() {
                break false;
            }
            let (result, taken) = if is_dropped {
                drop_bytes(&mut self.parser, bytes)
            } else {
                let (result, taken, more, ended) = self.parser.read_record(
                    bytes,
                    self.fields.get_mut(written..).unwrap_or_default(),
                    self.ends.get_mut(self.count..).unwrap_or_default(),
                );
                written += more;
                self.count += ended;
                (result, taken)
            };
            input.take(taken);
            match result {
                ReadRecordResult::Record | ReadRecordResult::End => break true,
                ReadRecordResult::OutputEndsFull => is_dropped = true,
                ReadRecordResult::OutputFull if !is_dropped => self.grow(),
                ReadRecordResult::OutputFull | ReadRecordResult::InputEmpty => {}
            }
        };
        // Keeps the field that the end of the file or a limit cut off.
        if (!is_ended || is_dropped)
            && let Some(end) = self.ends.get_mut(self.count)
        {
            *end = written;
            self.count += 1;
        }
        let length = input.place().offset - start - u64::from(is_ended);
        Ok(Extent { length, is_unclosed: !is_ended && self.is_in_quotes() })
    }

    /// Whether the parser is inside quotes. Resets the parser.
    fn is_in_quotes(&mut self) -> bool {
        // Outside quotes, a line end always ends the record.
        let (result, _) = drop_bytes(&mut self.parser, b"\n");
        self.forget();
        result == ReadRecordResult::InputEmpty
    }

    /// Grows the buffer for a longer record. The fields never need more bytes than their record in the file, so one
    /// byte more than the limit suffices.
    fn grow(&mut self) {
        let size = (self.fields.len() * 2).min(MAX_ROW_BYTES + 1);
        self.fields.reserve_exact(size - self.fields.len());
        self.fields.resize(size, 0);
    }

    /// The line on which the last record begins.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// The defect of the last record.
    pub(super) fn defect(&self) -> Option<&RowDefect> {
        self.defect.as_ref()
    }

    /// The last record.
    pub(super) fn record(&self) -> Record<'_> {
        Record {
            fields: &self.fields,
            ends: self.ends.get(..self.count).unwrap_or_default(),
            places: &self.places,
        }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.fields.capacity() + self.ends.capacity() * size_of::<usize>()
    }
}

/// Consumes bytes of a record without keeping them.
fn drop_bytes(parser: &mut csv_core::Reader, bytes: &[u8]) -> (ReadRecordResult, usize) {
    let (result, taken, ..) = parser.read_record(bytes, &mut [0; 4096], &mut [0; 64]);
    (result, taken)
}

impl<'a> Record<'a> {
    fn field(&self, at: usize) -> Option<&'a [u8]> {
        let begin = match at.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        self.fields.get(begin..*self.ends.get(at)?)
    }

    fn fields(self) -> impl Iterator<Item = &'a [u8]> {
        (0..self.ends.len()).map_while(move |at| self.field(at))
    }

    fn index(&self, column: usize) -> Option<usize> {
        self.places.get(column).copied().flatten()
    }

    /// Whether the header has the known column.
    pub(super) fn has(&self, column: usize) -> bool {
        self.index(column).is_some()
    }

    /// The text of a known column; `None` for an empty field.
    pub(super) fn value(
        &self,
        column: usize,
        name: &'static str,
    ) -> Result<Option<Cow<'a, str>>, RowDefect> {
        let field = self.index(column).and_then(|at| self.field(at)).unwrap_or_default();
        if field.is_empty() {
            return Ok(None);
        }
        match std::str::from_utf8(field) {
            Ok(text) => Ok(Some(unescape_formula(text))),
            Err(_) => Err(RowDefect::of_value(name, "encoding", "must be valid UTF-8")),
        }
    }

    /// Returns the fields as uploaded.
    pub(super) fn write_cells(&self, cells: &mut Cells) {
        for field in self.fields() {
            // The report writer adds the protecting apostrophe again.
            let cell = match std::str::from_utf8(field) {
                Ok(text) => unescape_formula(text),
                Err(_) => String::from_utf8_lossy(field),
            };
            if !cells.push(cell.as_bytes()) {
                break;
            }
        }
    }
}
