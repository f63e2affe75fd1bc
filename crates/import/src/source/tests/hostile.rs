//! Files that are made to exhaust the memory of a reader.

use super::*;

const MANY: u64 = 100_000_000;
/// Bytes of a file that exceeds every limit many times.
const SOME: u64 = 5_000_000;

/// The limit for the memory of a reader: a block of the file and a row. The text of an object grows by doubling, so it may
/// have twice the bytes of a row.
fn most_bytes(format: Format) -> usize {
    let row = if format == Format::Csv { MAX_ROW_BYTES } else { 2 * MAX_ROW_BYTES };
    row + MAX_ROW_BYTES / 4
}

/// A file that is generated while it is read: a beginning, a text that is repeated, and an end.
struct Endless {
    begin: &'static [u8],
    /// The text, repeated so often that one read returns many bytes.
    again: Vec<u8>,
    middle_bytes: u64,
    end: &'static [u8],
    at: u64,
}

impl Endless {
    fn new(begin: &'static str, again: &'static str, middle_bytes: u64, end: &'static str) -> Self {
        let middle_bytes = middle_bytes / again.len() as u64 * again.len() as u64;
        let again = again.repeat(64 * 1024).into_bytes();
        Self { begin: begin.as_bytes(), again, middle_bytes, end: end.as_bytes(), at: 0 }
    }

    fn size(&self) -> u64 {
        self.begin.len() as u64 + self.middle_bytes + self.end.len() as u64
    }
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let begin = self.begin.len() as u64;
        let middle_end = begin + self.middle_bytes;
        let (part, within, left) = if self.at < begin {
            (self.begin, self.at, begin - self.at)
        } else if self.at < middle_end {
            let within = (self.at - begin) % self.again.len() as u64;
            (&*self.again, within, middle_end - self.at)
        } else {
            (self.end, self.at - middle_end, self.size() - self.at)
        };
        let part = &part[usize::try_from(within).unwrap()..];
        let count = usize::try_from(left).unwrap().min(part.len()).min(buffer.len());
        buffer[..count].copy_from_slice(&part[..count]);
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Endless {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::End(_) => self.size(),
            SeekFrom::Current(_) => self.at,
        };
        Ok(self.at)
    }
}

/// Reads the whole file within the limits. Returns the line and the code of the defect of each row.
fn endless(format: Format, file: Endless) -> Result<Vec<(u64, &'static str)>, SourceError> {
    let mut rows = Rows::open(file, format, &COLUMNS)?;
    let mut all = Vec::new();
    loop {
        let Some(row) = rows.next()? else { return Ok(all) };
        let (line, code, cells) = seen(&row);
        all.push((line, code));
        assert!(cells.concat().len() <= MAX_CELL_BYTES && cells.len() <= MAX_COLUMNS + 1);
        let text = row.cells();
        assert!(text.as_json().len() <= MAX_CELL_BYTES);
        if code == "too_long" {
            assert!(text.as_json().len() > MAX_CELL_BYTES - 8, "the first cells are reported");
            assert!(cells.last().unwrap().ends_with('…'));
        }
        let capacity = rows.capacity();
        assert!(capacity < most_bytes(format), "the reader has allocated {capacity} bytes");
    }
}

#[test]
fn long_rows_are_skipped() {
    let file = Endless::new("id,name\n1,", "x", MANY, "\n2,b\n");
    assert_eq!(endless(Format::Csv, file).unwrap(), [(2, "too_long"), (3, "")]);
    for (begin, again, end) in
        [("id,name\n1,\"", "x\"\"", "\"\n2,b\n"), ("id,name\n1,\"", "☃,", "\"\r\n2,b\r\n")]
    {
        let rows = endless(Format::Csv, Endless::new(begin, again, SOME, end)).unwrap();
        assert_eq!(rows, [(2, "too_long"), (3, "")], "{again:?}");
    }
    let file = Endless::new("id,name\n1,\"", "\r\n", SOME, "\"\n2,b\n");
    let rows = endless(Format::Csv, file).unwrap();
    assert_eq!(rows, [(2, "too_long"), (SOME / 2 + 3, "")]);
    let file = Endless::new("{\"name\":\"", "x", MANY, "\"}\n{\"id\":2}\n");
    assert_eq!(endless(Format::NdJson, file).unwrap(), [(1, "too_long"), (2, "")]);
    for (begin, again, end) in [
        ("[{\"name\":\"", "]}\\\"\\\\", "\"},\n{\"id\":2}]"),
        ("[", "1", ",\n{}]"),
        ("[{\"x\":[0", ",[{}]", "]},\n{}]"),
    ] {
        let rows = endless(Format::Json, Endless::new(begin, again, SOME, end)).unwrap();
        assert_eq!(rows, [(1, "too_long"), (2, "")], "{again:?}");
    }
}

#[test]
fn wide_records_are_skipped() {
    for (again, defect) in [(",", "too_many_fields"), ("\"\",", "too_many_fields")] {
        let middle = 1_000_000;
        let file = Endless::new("id,name\n1,", again, middle, "\n2,b\n");
        assert_eq!(endless(Format::Csv, file).unwrap(), [(2, defect), (3, "")]);
    }
    let mut rows = open(format!("id,name\n{}\n", "1,".repeat(5_000)), Format::Csv).unwrap();
    let cells = rows.next().unwrap().unwrap().cells().to_vec();
    assert_eq!(cells.len(), MAX_COLUMNS + 1);
}

#[test]
fn long_headers_are_rejected() {
    let refused = |again, size| {
        endless(Format::Csv, Endless::new("id,name,", again, size, "\n1,a\n")).unwrap_err().code()
    };
    assert_eq!(refused("x", SOME), "header_too_long");
    assert_eq!(refused("x,", 1_000_000), "too_many_columns");
    // The names are stored with the job, so they have a bound of their own.
    let wide = |bytes| format!("id,name,{}\n1,a\n", vec!["n".repeat(bytes); 90].join(","));
    assert!(open(wide(90), Format::Csv).is_ok());
    assert_eq!(refusal(wide(95), Format::Csv).code(), "header_too_long");
    let members: Vec<String> =
        (0..90).map(|n| format!("{{\"id\":1,\"{n:0>3}{}\":1}}", "é".repeat(97))).collect();
    let mut rows = open(members.join("\n"), Format::NdJson).unwrap();
    while rows.next().unwrap().is_some() {}
    let unknown: usize = rows.unknown_columns().iter().map(String::len).sum();
    assert!((MAX_HEADER_BYTES - 400..=MAX_HEADER_BYTES).contains(&unknown), "{unknown}");
}

#[test]
fn missing_ends_are_reported() {
    let rows = endless(Format::Csv, Endless::new("id,name\n1,\"", "x\n", SOME, "")).unwrap();
    assert_eq!(rows, [(2, "unclosed_quote")]);
    let error = endless(Format::Json, Endless::new("[\n", "[", SOME, "")).unwrap_err();
    assert!(matches!(error, SourceError::Syntax { line: 2, .. }), "{error}");
    let error = endless(Format::Json, Endless::new("[\n{\"id\":\"", "]", SOME, "")).unwrap_err();
    assert!(matches!(error, SourceError::Syntax { line: 2, .. }), "{error}");
}

#[test]
fn white_space_is_not_a_row() {
    for blank in ["\n", "\r\n", "\r"] {
        let lines = 300_000 / blank.len() as u64;
        let file = Endless::new("id,name\n1,a\n", blank, 300_000, "2,b\n");
        assert_eq!(endless(Format::Csv, file).unwrap(), [(2, ""), (3 + lines, "")], "{blank:?}");
        let file = Endless::new("{}\n", blank, 300_000, "{}");
        assert_eq!(endless(Format::NdJson, file).unwrap(), [(1, ""), (2 + lines, "")]);
        let file = Endless::new("[{},", blank, 300_000, "{}]");
        assert_eq!(endless(Format::Json, file).unwrap(), [(1, ""), (1 + lines, "")]);
        for format in [Format::Csv, Format::NdJson, Format::Json] {
            let file = Endless::new("", blank, 300_000, "");
            assert_eq!(endless(format, file).unwrap_err().code(), "empty_file");
        }
    }
}

#[test]
fn files_of_nul_are_read_to_the_end() {
    let rows = endless(Format::Csv, Endless::new("id,name\n", "\0", 1_000, "\n1,a\n")).unwrap();
    assert_eq!(rows, [(2, "field_count"), (3, "")]);
    let rows = endless(Format::NdJson, Endless::new("{}\n", "\0", SOME, "\n{}\n")).unwrap();
    assert_eq!(rows, [(1, ""), (2, "too_long"), (3, "")]);
    let rows = endless(Format::Json, Endless::new("[{},", "\0", 1_000, ",{}]")).unwrap();
    assert_eq!(rows, [(1, ""), (1, "malformed_json"), (1, "")]);
}
