mod csv;
mod hostile;
mod json;
mod seek;

use std::{
    borrow::Cow,
    io::{self, Cursor, Read, Seek, SeekFrom},
};

use super::*;

const COLUMNS: Columns = Columns {
    required: &["id", "name"],
    optional: &["note", "details"],
    ignored: &["clicks"],
    objects: &["details"],
};

/// A row as it was read: line, code of the defect (empty without one), cells.
type Seen = (u64, &'static str, Vec<String>);

fn open(text: impl AsRef<[u8]>, format: Format) -> Result<Rows<Cursor<Vec<u8>>>, SourceError> {
    Rows::open(Cursor::new(text.as_ref().to_vec()), format, &COLUMNS)
}

fn refusal(text: impl AsRef<[u8]>, format: Format) -> SourceError {
    match open(text, format) {
        Ok(_) => panic!("the file was accepted"),
        Err(error) => error,
    }
}

fn seen(row: &Row<'_>) -> Seen {
    (row.line(), row.defect().map_or("", |defect| defect.code), row.cells().to_vec())
}

fn read_on<R: Read + Seek>(rows: &mut Rows<R>) -> Vec<Seen> {
    let mut all = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        all.push(seen(&row));
    }
    assert!(rows.next().unwrap().is_none(), "no row follows the end");
    all
}

fn read(text: impl AsRef<[u8]>, format: Format) -> Vec<Seen> {
    read_on(&mut open(text, format).unwrap())
}

fn row(line: u64, defect: &'static str, cells: &[&str]) -> Seen {
    (line, defect, cells.iter().map(ToString::to_string).collect())
}

/// The defects of the values in the only row's column.
fn value(
    text: impl AsRef<[u8]>,
    format: Format,
    column: &str,
) -> Result<Option<String>, RowDefect> {
    let mut rows = open(text, format).unwrap();
    let row = rows.next().unwrap().unwrap();
    row.value(column).map(|text| text.map(Cow::into_owned))
}

/// A file that returns few bytes per read, so that a block ends at every position.
struct Pieces<R> {
    file: R,
    size: usize,
}

impl<R: Read> Read for Pieces<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.size.min(buffer.len());
        self.file.read(&mut buffer[..size])
    }
}

impl<R: Seek> Seek for Pieces<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

#[test]
fn formats_have_names() {
    for format in [Format::Csv, Format::Json, Format::NdJson] {
        assert_eq!(Format::parse(format.as_str()), Some(format));
    }
    assert_eq!(Format::parse("CSV"), None);
}

#[test]
fn other_encodings_than_utf_8_are_rejected() {
    for format in [Format::Csv, Format::Json, Format::NdJson] {
        for text in ["id,name\n1,a\n", "[{\"id\":1}]"] {
            let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
            let marked = [b"\xff\xfe".to_vec(), little.clone()].concat();
            for bytes in [little, [b"\xfe\xff".to_vec(), big.clone()].concat(), big, marked] {
                let error = refusal(&bytes, format);
                assert!(matches!(error, SourceError::WideEncoding), "{error}");
                assert_eq!((error.code(), error.field()), ("encoding", "file"));
                assert!(error.to_string().contains("UTF-16"));
            }
        }
    }
}

#[test]
fn a_blank_file_is_empty() {
    for format in [Format::Csv, Format::Json, Format::NdJson] {
        for text in ["", "\u{feff}", "\r\n\r\n\n", "\u{feff}\n"] {
            let error = refusal(text, format);
            assert!(matches!(error, SourceError::Empty), "{text:?}: {error}");
            assert_eq!((error.code(), error.field()), ("empty_file", "file"));
        }
    }
}

/// Fails once, after this number of reads.
struct Failing {
    file: Cursor<&'static [u8]>,
    reads_before: usize,
}

impl Read for Failing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.reads_before == 0 {
            self.reads_before = usize::MAX;
            return Err(io::Error::other("torn"));
        }
        self.reads_before -= 1;
        self.file.read(&mut buffer[..1])
    }
}

impl Seek for Failing {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

#[test]
fn reading_continues_after_a_failure() {
    for (format, text) in [
        (Format::Csv, &b"id,name\n1,\"a\nb\"\r\n2,c\n"[..]),
        (Format::Json, b"[{\"id\":1,\"name\":\"a\"} , {\"id\":2,\"name\":\"c\"}]"),
        (Format::NdJson, b"{\"id\":1,\"name\":\"a\"}\n{\"id\":2,\"name\":\"c\"}\r\n"),
    ] {
        let expected = read(text, format);
        assert_eq!(expected.len(), 2);
        for reads_before in 12..=text.len() {
            let file = Failing { file: Cursor::new(text), reads_before };
            let mut rows = Rows::open(file, format, &COLUMNS).unwrap();
            let (mut all, mut failures) = (Vec::new(), 0);
            loop {
                match rows.next() {
                    Ok(Some(row)) => all.push(seen(&row)),
                    Ok(None) => break,
                    Err(error) => {
                        assert_eq!(error.code(), "io");
                        failures += 1;
                    }
                }
            }
            assert_eq!((all, failures), (expected.clone(), 1), "{format:?} {reads_before}");
        }
    }
}
