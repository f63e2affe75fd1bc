//! Files of rows: their decompression, their formats, and the rules of their columns.

use std::{
    io::{self, Cursor, Read, Seek, SeekFrom},
    sync::LazyLock,
};

use flate2::read::MultiGzDecoder;
use linnet_domain::{RowFormat, UserId};
use linnet_import::{
    ImportRow, RowRules,
    source::{
        Columns, MAX_CELL_BYTES, MAX_COLUMNS, MAX_NAME_CHARS, MAX_UNKNOWN_COLUMNS, Position, Rows,
        SourceError, format_of,
    },
};
use linnet_jobs::upload::{Unpacker, UploadError};
use linnet_store::{ImportEvent, ImportLink, ImportUser};

use super::{assert_is_rule, bodies::now, links::POLICIES};
use crate::memory::bounded;

/// Memory of a reader that is independent of the file: a block of the file, a record, and the ends of its fields.
const READER_BYTES: usize = 320 * 1024;

/// Bytes that the harness stores for each byte of a file: a row of two bytes has a report of several hundred bytes.
const SEEN_FACTOR: usize = 600;

/// The rows of a file: for each its line, its cells, and the columns and codes of its problems.
type Seen = Vec<(u64, Vec<String>, Vec<(String, String)>)>;

/// A file of rows after two bytes. The first byte selects the format and the kind of rows. The second one selects the
/// size of the pieces in which the file is read, and the row after which reading continues: neither changes the result.
pub(super) fn import_rows(input: &[u8]) {
    let [how, pieces, file @ ..] = input else { return };
    let format = match how % 4 {
        0 => RowFormat::Csv,
        1 => RowFormat::Json,
        2 => RowFormat::NdJson,
        _ => format_of("rows", file),
    };
    assert_eq!(format_of("rows.CSV.gz", file), RowFormat::Csv);
    let by_admin = how & 0x10 != 0;
    match how / 4 % 3 {
        0 => all::<ImportLink>(file, format, *pieces, by_admin),
        1 => all::<ImportUser>(file, format, *pieces, by_admin),
        _ => all::<ImportEvent>(file, format, *pieces, by_admin),
    }
}

fn all<T: ImportRow>(file: &[u8], format: RowFormat, pieces: u8, by_admin: bool) {
    static RULES: LazyLock<RowRules> = LazyLock::new(|| RowRules {
        targets: POLICIES[0].clone(),
        by_admin: false,
        owner: UserId::new(7),
        null_columns: vec!["title".to_owned()],
        now: now(),
    });
    let columns = T::columns();
    let rules = RowRules { by_admin, ..RULES.clone() };
    let read = |size, from| {
        bounded(file, READER_BYTES, SEEN_FACTOR, || {
            read::<T>(Pieces { file: Cursor::new(file), size }, format, &columns, &rules, from)
        })
    };
    let whole = read(usize::MAX, None);
    let (seen, position) = match &whole {
        Ok((seen, positions)) => (seen, positions.get(usize::from(pieces) % 8)),
        Err(error) => {
            assert!(!error.code().is_empty() && !matches!(error, SourceError::Io(_)));
            let in_pieces = read(usize::from(pieces).max(1), None);
            let other = in_pieces.err().map(|error| error.to_string());
            return assert_eq!(other, Some(error.to_string()));
        }
    };
    assert_eq!(&read(usize::from(pieces).max(1), None).expect("the same file").0, seen);
    if let Some((count, position)) = position {
        let rest = read(usize::MAX, Some(*position)).expect("the same file").0;
        assert_eq!(rest, seen[*count..]);
    }
}

/// The rows, and the position after each with the number of rows before it.
type Found = (Seen, Vec<(usize, Position)>);

fn read<T: ImportRow>(
    file: Pieces<'_>,
    format: RowFormat,
    columns: &Columns,
    rules: &RowRules,
    from: Option<Position>,
) -> Result<Found, SourceError> {
    let mut rows = Rows::open(file, format, columns)?;
    if let Some(from) = from {
        rows.seek(from)?;
    }
    let (mut seen, mut positions) = (Vec::new(), Vec::new());
    loop {
        match rows.next() {
            Ok(None) => break,
            Ok(Some(row)) => {
                let problems = match (row.defect(), T::read(&row, rules)) {
                    (Some(defect), result) => {
                        assert!(result.is_err(), "a row with a defect has no values");
                        assert_is_rule(&defect.message);
                        vec![(defect.column.to_owned(), defect.code.to_owned())]
                    }
                    (None, Ok(_)) => Vec::new(),
                    (None, Err(problems)) => {
                        assert!(!problems.is_empty(), "a bad row has a problem");
                        problems.into_iter().map(|problem| named(problem, columns)).collect()
                    }
                };
                let text = row.cells();
                assert!(text.as_json().len() <= MAX_CELL_BYTES);
                let cells: Vec<String> =
                    serde_json::from_str(text.as_json()).expect("a JSON array of texts");
                assert!(cells.len() <= MAX_COLUMNS + 1);
                assert!(!cells.iter().any(|cell| cell.contains('\0')));
                seen.push((row.line(), cells, problems));
            }
            // The bounds of later rows are uncertain, so reading ends. The error is recorded like a row, to be compared
            // too.
            Err(error) => {
                assert!(error.is_of_file(), "{error}");
                assert_is_rule(&error.to_string());
                seen.push((0, vec![error.to_string()], Vec::new()));
                break;
            }
        }
        positions.push((seen.len(), rows.position()));
    }
    assert!(rows.unknown_columns().len() <= MAX_UNKNOWN_COLUMNS);
    let is_short = |name: &String| name.chars().count() <= MAX_NAME_CHARS;
    assert!(rows.header().iter().chain(rows.unknown_columns()).all(is_short));
    Ok((seen, positions))
}

/// Column and code of a problem, whose column is one of the kind of rows.
fn named(problem: linnet_domain::RowProblem, columns: &Columns) -> (String, String) {
    let mut known = columns.required.iter().chain(columns.optional);
    assert!(known.any(|name| *name == problem.column), "{problem:?}");
    assert_is_rule(&problem.message);
    (problem.column, problem.code)
}

/// A file that returns at most `size` bytes per read.
struct Pieces<'a> {
    file: Cursor<&'a [u8]>,
    size: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.size.min(buffer.len());
        self.file.read(&mut buffer[..size])
    }
}

impl Seek for Pieces<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// The limit of uploads and their contents, in bytes. Inputs reach it.
const MAX_UPLOAD: usize = 1_600_000;

/// An upload, plain or gzip: its content is that of another decoder, whatever its pieces, and within its limits.
pub(super) fn upload(input: &[u8]) {
    let Some((pieces, body)) = input.split_first() else { return };
    let expansion = u64::from(pieces % 4);
    let size = usize::from(*pieces).max(1);
    // The window of the decoder, and twice the longest content while the vector grows.
    let limit = 256 * 1024 + 3 * MAX_UPLOAD;
    let whole = bounded(body, limit, 4, || unpack(&[body], expansion));
    let parts: Vec<&[u8]> = body.chunks(size).collect();
    let in_pieces = unpack(&parts, expansion);
    let allowed = body.len() as u64 * expansion + 1024 * 1024;
    let is_gzip = body.starts_with(b"\x1f\x8b");
    match whole {
        Ok(content) => {
            assert!(content.len() <= MAX_UPLOAD && (!is_gzip || content.len() as u64 <= allowed));
            if is_gzip {
                let mut other = Vec::new();
                MultiGzDecoder::new(body).read_to_end(&mut other).expect("valid gzip");
                assert_eq!(content, other);
            } else {
                assert_eq!(content, body);
            }
            // Content that arrives before the bytes that allow it is refused.
            match in_pieces {
                Ok(same) => assert_eq!(same, content),
                Err(error) => assert!(matches!(error, UploadError::Expands { .. }), "{error}"),
            }
        }
        Err(UploadError::InvalidGzip) => assert!(is_gzip && in_pieces.is_err()),
        Err(UploadError::Expands { .. } | UploadError::TooLarge { .. }) => {
            assert!(in_pieces.is_err());
        }
        Err(error) => panic!("{error}"),
    }
}

fn unpack(parts: &[&[u8]], expansion: u64) -> Result<Vec<u8>, UploadError> {
    let mut unpacker = Unpacker::new(Vec::new(), MAX_UPLOAD as u64, expansion);
    for part in parts {
        unpacker = unpacker.write(part)?;
    }
    let (content, bytes) = unpacker.finish()?;
    assert_eq!(content.len() as u64, bytes);
    Ok(content)
}
