//! CSV after RFC 4180, as widely as spreadsheets write it: records end with LF, CRLF or a CR alone,
//! blank lines are passed over, and quotes may stand anywhere.
//!
//! The parser's own count of lines and its marks of bytes are not used: it ends a record at the CR of
//! a CRLF, and takes the LF for the beginning of the next one. Here the line end is taken whole and
//! blank lines are skipped before a record begins, so every record begins where it seems to.

use std::io::{Read, Seek};

use csv_core::ReadRecordResult;

use super::{
    Columns, MAX_COLUMNS, MAX_ROW_BYTES, RowDefect, SourceError,
    cells::Cells,
    header::Names,
    input::Input,
    row::{Content, Row},
};
use linnet_domain::formula::unescape_formula;

const TOO_MANY_FIELDS: &str = "too_many_fields";
/// Bytes that are held for a record at first; a longer one makes them more.
const FIRST_BYTES: usize = 16 * 1024;

/// Reads records.
pub(super) struct CsvReader {
    parser: csv_core::Reader,
    /// The record's fields, unquoted, one behind the other.
    fields: Vec<u8>,
    /// Where in `fields` each one ends.
    ends: Vec<usize>,
    /// How many of `ends` are the record's.
    count: usize,
    line: u64,
    defect: Option<RowDefect>,
    /// Where in a record each known column is.
    places: Vec<Option<usize>>,
    /// Fields of the header.
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
    /// Bytes in the file, without the end of the line.
    length: u64,
    /// The file ends inside quotes.
    is_unclosed: bool,
}

impl CsvReader {
    /// Reads the header.
    pub(super) fn open<R: Read + Seek>(
        input: &mut Input<R>,
        columns: &Columns,
    ) -> Result<(Self, Names), SourceError> {
        let mut reader = Self {
            parser: csv_core::Reader::new(),
            fields: vec![0; FIRST_BYTES],
            ends: vec![0; MAX_COLUMNS + 1],
            count: 0,
            line: 0,
            defect: None,
            places: Vec::new(),
            width: 0,
        };
        reader.forget();
        if !reader.parse(input)? {
            return Err(SourceError::Empty);
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

    /// Makes ready for a record at another place.
    pub(super) fn forget(&mut self) {
        self.parser.reset();
        // It would take a byte order mark away from a record; after its first call it does not.
        self.parser.read_record(&[], &mut [], &mut []);
    }

    /// Reads the next record; `false` at the end of the file.
    pub(super) fn read<R: Read + Seek>(
        &mut self,
        input: &mut Input<R>,
    ) -> Result<bool, SourceError> {
        if !self.parse(input)? {
            return Ok(false);
        }
        if self.defect.is_none() && self.count != self.width {
            let message = format!("has {} fields, the header {}", self.count, self.width);
            self.defect = Some(RowDefect::of_row("field_count", message));
        }
        Ok(true)
    }

    /// Reads a record, whatever its width; `false` at the end of the file.
    fn parse<R: Read + Seek>(&mut self, input: &mut Input<R>) -> Result<bool, SourceError> {
        if !input.skip_while(|byte| matches!(byte, b'\r' | b'\n'))? {
            return Ok(false);
        }
        self.line = input.place().line;
        let Extent { length, is_unclosed } = self.collect(input)?;
        input.finish_line_end()?;
        self.defect = if is_unclosed {
            Some(RowDefect::of_row("unclosed_quote", "has a quote that is never closed"))
        } else if length > MAX_ROW_BYTES as u64 {
            Some(RowDefect::too_long())
        } else if self.count > MAX_COLUMNS {
            let message = format!("has more than {MAX_COLUMNS} fields");
            Some(RowDefect::of_row(TOO_MANY_FIELDS, message))
        } else {
            None
        };
        Ok(true)
    }

    /// Takes the bytes of a record, and keeps its fields as far as they are bounded.
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
        // The field that the file's end or the dropping cut off.
        if (!is_ended || is_dropped)
            && let Some(end) = self.ends.get_mut(self.count)
        {
            *end = written;
            self.count += 1;
        }
        let length = input.place().offset - start - u64::from(is_ended);
        Ok(Extent { length, is_unclosed: !is_ended && self.is_in_quotes() })
    }

    /// Whether the parser is between quotes; makes it forget that.
    fn is_in_quotes(&mut self) -> bool {
        // A line end ends a record everywhere else.
        let (result, _) = drop_bytes(&mut self.parser, b"\n");
        self.forget();
        result == ReadRecordResult::InputEmpty
    }

    /// Makes room for a longer record. Fields need no more bytes than their record has in the file,
    /// so one more than the longest may have is always free.
    fn grow(&mut self) {
        let size = (self.fields.len() * 2).min(MAX_ROW_BYTES + 1);
        self.fields.reserve_exact(size - self.fields.len());
        self.fields.resize(size, 0);
    }

    /// The record that was read last.
    pub(super) fn row<'a>(&'a self, names: &'a Names) -> Row<'a> {
        let content = Content::Record(self.record());
        Row { line: self.line, defect: self.defect.as_ref(), names, content }
    }

    fn record(&self) -> Record<'_> {
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

/// Takes bytes of a record without keeping any.
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

    fn place(&self, column: usize) -> Option<usize> {
        self.places.get(column).copied().flatten()
    }

    /// Whether the header has the known column.
    pub(super) fn has(&self, column: usize) -> bool {
        self.place(column).is_some()
    }

    /// The text of a known column; an empty field is none.
    pub(super) fn value(
        &self,
        column: usize,
        name: &'static str,
    ) -> Result<Option<&'a str>, RowDefect> {
        let field = self.place(column).and_then(|at| self.field(at)).unwrap_or_default();
        if field.is_empty() {
            return Ok(None);
        }
        match std::str::from_utf8(field) {
            Ok(text) => Ok(Some(unescape_formula(text))),
            Err(_) => Err(RowDefect::of_value(name, "encoding", "is not valid UTF-8")),
        }
    }

    /// Gives the fields back.
    pub(super) fn write_cells(&self, cells: &mut Cells) {
        for field in self.fields() {
            // Whoever writes the cell protects it again.
            let cell =
                std::str::from_utf8(field).map_or(field, |text| unescape_formula(text).as_bytes());
            if !cells.push(cell) {
                break;
            }
        }
    }
}
