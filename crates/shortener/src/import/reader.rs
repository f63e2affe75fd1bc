//! CSV, a row at a time.

use std::collections::BTreeMap;

use csv_async::{AsyncReader, AsyncReaderBuilder, ByteRecord, ErrorKind};
use tokio::io::AsyncRead;

/// What is wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowError {
    /// The line on which the row begins; the header is on line 1.
    pub line: u64,
    /// The column's name; empty for the row as a whole.
    pub column: &'static str,
    /// Stable, snake_case.
    pub code: &'static str,
    /// For a person.
    pub message: String,
}

/// Why a file cannot be read as rows of a kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The file is empty.
    #[error("the file is empty")]
    Empty,
    /// A column that is needed is not there.
    #[error("the column `{0}` is missing")]
    Missing(&'static str),
    /// A column is there twice.
    #[error("the column `{0}` is there twice")]
    Twice(String),
    /// The header is not UTF-8.
    #[error("the header is not valid UTF-8")]
    Encoding,
}

/// Why reading stopped.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The header is not that of this kind of row.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The file could not be read on.
    #[error("the file cannot be read on")]
    Io(#[source] std::io::Error),
}

/// A CSV file whose header has been read.
pub struct CsvReader<R> {
    reader: AsyncReader<R>,
    /// Position of each known column.
    positions: BTreeMap<&'static str, usize>,
    /// Columns that this kind of row does not know; their values are passed over.
    unknown: Vec<String>,
    width: usize,
    /// The parser ends a record at the carriage return and counts the line feed after it to the next
    /// one, so with CRLF its lines are one behind.
    line_offset: u64,
    record: ByteRecord,
}

/// One row, not yet validated.
#[derive(Debug)]
pub struct Row<'a> {
    /// The line on which it begins.
    pub line: u64,
    positions: &'a BTreeMap<&'static str, usize>,
    record: &'a ByteRecord,
}

impl<R: AsyncRead + Unpin + Send> CsvReader<R> {
    /// Reads the header. `required` columns must be there, `optional` ones may.
    pub async fn open(
        source: R,
        required: &[&'static str],
        optional: &[&'static str],
    ) -> Result<Self, ReadError> {
        let mut reader =
            AsyncReaderBuilder::new().has_headers(false).flexible(true).create_reader(source);
        let mut header = ByteRecord::new();
        if !reader.read_byte_record(&mut header).await.map_err(io_error)? {
            return Err(HeaderError::Empty.into());
        }
        let mut positions = BTreeMap::new();
        let mut unknown = Vec::new();
        for (index, name) in header.iter().enumerate() {
            let name = std::str::from_utf8(name).map_err(|_| HeaderError::Encoding)?;
            // Spreadsheets put a byte order mark before the first column.
            let name = name.trim_start_matches('\u{feff}').trim().to_lowercase();
            match required.iter().chain(optional).find(|known| **known == name) {
                Some(known) => {
                    if positions.insert(*known, index).is_some() {
                        return Err(HeaderError::Twice(name).into());
                    }
                }
                None => unknown.push(name),
            }
        }
        if let Some(missing) = required.iter().find(|name| !positions.contains_key(*name)) {
            return Err(HeaderError::Missing(missing).into());
        }
        let width = header.len();
        let within = header.as_slice().split(|byte| *byte == b'\n').count() as u64;
        let line_offset = u64::from(reader.position().line() == within);
        Ok(Self { reader, positions, unknown, width, line_offset, record: ByteRecord::new() })
    }

    /// Columns that are not known.
    pub fn unknown_columns(&self) -> &[String] {
        &self.unknown
    }

    /// Bytes read so far.
    pub fn bytes_read(&self) -> u64 {
        self.reader.position().byte()
    }

    /// The next row; `None` at the end. The inner error is a row that is not like the header; the
    /// next call goes on after it.
    pub async fn next(&mut self) -> Result<Option<Result<Row<'_>, RowError>>, ReadError> {
        if !self.reader.read_byte_record(&mut self.record).await.map_err(io_error)? {
            return Ok(None);
        }
        let line = self.record.position().map_or(0, csv_async::Position::line) + self.line_offset;
        if self.record.len() != self.width {
            let message = format!("has {} fields, the header {}", self.record.len(), self.width);
            return Ok(Some(Err(RowError { line, column: "", code: "field_count", message })));
        }
        Ok(Some(Ok(Row { line, positions: &self.positions, record: &self.record })))
    }
}

fn io_error(error: csv_async::Error) -> ReadError {
    match error.into_kind() {
        ErrorKind::Io(error) => ReadError::Io(error),
        other => ReadError::Io(std::io::Error::other(format!("{other:?}"))),
    }
}

impl<'a> Row<'a> {
    /// The bytes of a column; `None` when the column or the value is not there. CSV knows no null: an
    /// empty field is none.
    pub fn value(&self, column: &'static str) -> Option<&'a [u8]> {
        let index = self.positions.get(column)?;
        self.record.get(*index).filter(|value| !value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn open(text: &str) -> Result<CsvReader<&[u8]>, ReadError> {
        CsvReader::open(text.as_bytes(), &["id", "name"], &["note"]).await
    }

    #[tokio::test]
    async fn columns_come_in_any_order_and_case() {
        let text = "\u{feff}Note, NAME ,extra,iD\r\n\"a\r\nb\",x,y,1\r\n,z,,2\r\n";
        let mut reader = open(text).await.unwrap();
        assert_eq!(reader.unknown_columns(), ["extra"]);
        let row = reader.next().await.unwrap().unwrap().unwrap();
        assert_eq!(row.line, 2);
        assert_eq!(row.value("id"), Some(&b"1"[..]));
        assert_eq!(row.value("note"), Some(&b"a\r\nb"[..]));
        let row = reader.next().await.unwrap().unwrap().unwrap();
        assert_eq!(row.line, 4, "the row before it spans two lines");
        assert_eq!(row.value("note"), None);
        assert!(reader.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_row_of_another_width_is_told_and_passed() {
        let mut reader = open("id,name\n1\n2,b\n").await.unwrap();
        let error = reader.next().await.unwrap().unwrap().unwrap_err();
        assert_eq!((error.line, error.code), (2, "field_count"));
        assert!(reader.next().await.unwrap().unwrap().is_ok());
    }

    #[tokio::test]
    async fn headers_that_do_not_fit_are_refused() {
        let header_error = async |text: &str| match open(text).await {
            Err(ReadError::Header(error)) => error,
            _ => panic!("{text:?} was accepted"),
        };
        assert_eq!(header_error("").await, HeaderError::Empty);
        assert_eq!(header_error("id\n1\n").await, HeaderError::Missing("name"));
        assert_eq!(header_error("id,name,ID\n").await, HeaderError::Twice("id".into()));
    }
}
