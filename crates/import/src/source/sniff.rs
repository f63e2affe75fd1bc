//! Recognizes the format of a file by its name and its first bytes, and the delimiter of a CSV file by its header.

use std::io::{self, Read, Seek};

use linnet_domain::RowFormat as Format;

use super::{BYTE_ORDER_MARK, Columns, input::Input, object::is_blank};
use crate::row_file::RowFile;

/// The number of first bytes that [`format_of`] needs at most.
pub(super) const FORMAT_BYTES: usize = 4 * 1024;

/// The delimiters, in the order in which an ambiguous header selects one.
const DELIMITERS: [u8; 3] = [b',', b';', b'\t'];

/// The format that a media type without parameters names; `None` if it names none, such as
/// `application/octet-stream`.
pub fn format_of_media_type(media_type: &str) -> Option<Format> {
    Some(match media_type.trim().to_ascii_lowercase().as_str() {
        "text/csv"
        | "text/tab-separated-values"
        | "application/csv"
        | "application/vnd.ms-excel" => Format::Csv,
        "application/json" => Format::Json,
        "application/x-ndjson"
        | "application/ndjson"
        | "application/jsonl"
        | "application/x-jsonlines" => Format::NdJson,
        _ => return None,
    })
}

/// The format of a file, by its name and its first bytes, unless its sender has named the format. Every import, of the
/// API and of the command line, decides here.
pub fn format_of_file(
    file: &impl RowFile,
    name: &str,
    named: Option<Format>,
) -> io::Result<Format> {
    if let Some(format) = named {
        return Ok(format);
    }
    let mut first = Vec::new();
    file.open()?.take(FORMAT_BYTES as u64).read_to_end(&mut first)?;
    Ok(format_of(name, &first))
}

/// The format of a file whose sender has not named it. A name that ends in `.csv` or `.tsv` decides. Otherwise the
/// first character does: `[` is JSON, and `{` is NDJSON. For other characters, the ending decides; the default is CSV.
pub fn format_of(name: &str, first: &[u8]) -> Format {
    let name = name.to_ascii_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    let has_ending = |ending: &[&str]| ending.iter().any(|ending| name.ends_with(ending));
    if has_ending(&[".csv", ".tsv"]) {
        return Format::Csv;
    }
    let first = first.strip_prefix(BYTE_ORDER_MARK).unwrap_or(first);
    match first.iter().find(|byte| !is_blank(**byte)) {
        Some(b'[') => Format::Json,
        Some(b'{') => Format::NdJson,
        _ if has_ending(&[".json"]) => Format::Json,
        _ if has_ending(&[".ndjson", ".jsonl"]) => Format::NdJson,
        _ => Format::Csv,
    }
}

/// The number of first bytes that distinguish the formats other than those in a ZIP archive.
pub(super) const MARK_BYTES: usize = 5;

/// Whether the file is a ZIP archive, as an Excel workbook is.
pub(super) fn is_archive(first: &[u8]) -> bool {
    first.starts_with(b"PK\x03\x04") || first.starts_with(b"PK\x05\x06")
}

/// The beginning of the file up to the end of its first line that is not blank, and what was read with it. Reads no
/// more than that, up to [`FORMAT_BYTES`].
pub(super) fn first_line<R: Read + Seek>(input: &mut Input<R>) -> io::Result<&[u8]> {
    let mut needed = 1;
    loop {
        let bytes = input.fill_to(needed)?;
        let text = bytes.trim_ascii_start();
        let is_whole = memchr::memchr2(b'\r', b'\n', text).is_some();
        if is_whole || bytes.len() < needed || needed >= FORMAT_BYTES {
            break;
        }
        needed = bytes.len() + 1;
    }
    input.fill()
}

/// Consumes the lines before the header that have no text: blank ones, and rows of empty cells such as `,,`. The
/// delimiter is not known yet, so each line may have its own.
pub(super) fn skip_blank_lines<R: Read + Seek>(input: &mut Input<R>) -> io::Result<()> {
    while input.skip_while(|byte| matches!(byte, b'\r' | b'\n'))? {
        let mut bytes = input.fill()?;
        let mut end = memchr::memchr2(b'\r', b'\n', bytes);
        while end.is_none() && bytes.len() < FORMAT_BYTES {
            let known = bytes.len();
            bytes = input.fill_to(known + 1)?;
            if bytes.len() == known {
                break;
            }
            end = memchr::memchr2(b'\r', b'\n', bytes);
        }
        let line = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
        // Of a longer line, perhaps only a part has been read.
        if line.len() >= FORMAT_BYTES || !has_only_empty_cells(line) {
            break;
        }
        let length = line.len();
        input.take(length);
    }
    Ok(())
}

/// Whether all cells of the line are empty, with one of the delimiters.
fn has_only_empty_cells(line: &[u8]) -> bool {
    let is_empty = |cell: &[u8]| matches!(cell.trim_ascii(), b"" | b"\"\"");
    DELIMITERS.iter().any(|delimiter| line.split(|byte| byte == delimiter).all(is_empty))
}

/// The name of an unsupported format, with a hint; `None` if the first bytes do not identify one.
pub(super) fn other_format(first: &[u8]) -> Option<&'static str> {
    let contains = |text: &[u8]| memchr::memmem::find(first, text).is_some();
    if is_archive(first) {
        let is_workbook = contains(b"xl/") || contains(b"[Content_Types].xml");
        return Some(if is_workbook {
            "an Excel workbook; save it as CSV"
        } else {
            "a ZIP archive; send the file that is in it"
        });
    }
    [
        (&b"\x1f\x8b"[..], "compressed with gzip more than once"),
        (b"\xd0\xcf\x11\xe0", "an old Excel workbook; save it as CSV"),
        (b"BZh", "compressed with bzip2; use gzip"),
        (b"\xfd7zXZ", "compressed with xz; use gzip"),
        (b"\x28\xb5\x2f\xfd", "compressed with zstd; use gzip"),
        (b"%PDF", "a PDF document"),
    ]
    .into_iter()
    .find(|(mark, _)| first.starts_with(mark))
    .map(|(_, name)| name)
}

/// The delimiter with which the header has the most known columns, and the length of a line `sep=;` before the header,
/// which Excel writes.
pub(super) fn delimiter(first: &[u8], columns: &Columns) -> (u8, usize) {
    let blank = first.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let text = first.get(blank..).unwrap_or_default();
    if let [b's' | b'S', b'e' | b'E', b'p' | b'P', b'=', delimiter, b'\r' | b'\n', ..] = text
        && DELIMITERS.contains(delimiter)
    {
        return (*delimiter, blank + b"sep=;".len());
    }
    let known: Vec<&str> = columns.with_values().chain(columns.ignored.iter().copied()).collect();
    let score = |delimiter: u8| {
        let mut reader = csv_core::ReaderBuilder::new().delimiter(delimiter).build();
        let (mut fields, mut ends) = (vec![0; text.len().min(MAX_HEADER_BYTES)], vec![0; 1_000]);
        let text = text.get(..MAX_HEADER_BYTES).unwrap_or(text);
        let (_, _, written, mut count) = reader.read_record(text, &mut fields, &mut ends);
        // A header without a line end has its last field in the output, without its end.
        if let Some(end) = ends.get_mut(count)
            && written > 0
        {
            *end = written;
            count += 1;
        }
        let mut begin = 0;
        let cells = ends.iter().take(count).map(|end| {
            let cell = fields.get(begin..*end).unwrap_or_default();
            begin = *end;
            String::from_utf8_lossy(cell).trim().to_lowercase()
        });
        cells.filter(|cell| known.contains(&cell.as_str())).count()
    };
    let best = DELIMITERS.map(|delimiter| (score(delimiter), delimiter));
    // Of equal scores, the first delimiter wins.
    let best = best.into_iter().reduce(|best, next| if next.0 > best.0 { next } else { best });
    (best.map_or(b',', |(_, delimiter)| delimiter), 0)
}

/// The part of a header that decides its delimiter, in bytes.
const MAX_HEADER_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_is_recognized_by_name_and_first_bytes() {
        for (name, first, format) in [
            ("links.json", "[{}]", Format::Json),
            ("links.json.gz", " \n[", Format::Json),
            ("links.json", "{\"a\":1}\n{}", Format::NdJson),
            ("links.ndjson", "x", Format::NdJson),
            ("LINKS.JSONL", "", Format::NdJson),
            ("links.json", "x", Format::Json),
            ("links.json", "", Format::Json),
            ("links.csv", "[a],b", Format::Csv),
            ("links", "\u{feff}[", Format::Json),
            ("", "\u{feff}{", Format::NdJson),
            ("", "original_url\n", Format::Csv),
            ("links.txt", "original_url;title", Format::Csv),
            ("", "", Format::Csv),
        ] {
            assert_eq!(format_of(name, first.as_bytes()), format, "{name} {first}");
        }
    }

    #[test]
    fn a_media_type_names_a_format_or_leaves_it_open() {
        for (media_type, format) in [
            ("text/csv", Some(Format::Csv)),
            (" Text/CSV ", Some(Format::Csv)),
            ("text/tab-separated-values", Some(Format::Csv)),
            ("application/csv", Some(Format::Csv)),
            ("application/vnd.ms-excel", Some(Format::Csv)),
            ("application/json", Some(Format::Json)),
            ("application/x-ndjson", Some(Format::NdJson)),
            ("application/ndjson", Some(Format::NdJson)),
            ("application/jsonl", Some(Format::NdJson)),
            ("application/x-jsonlines", Some(Format::NdJson)),
            ("application/octet-stream", None),
            ("text/plain", None),
            ("", None),
        ] {
            assert_eq!(format_of_media_type(media_type), format, "{media_type}");
        }
    }

    #[test]
    fn a_named_format_overrides_the_file() {
        let file = std::env::temp_dir().join(format!("linnet-format-{}", std::process::id()));
        std::fs::write(&file, "[{}]").unwrap();
        let format = |named| format_of_file(&file, "links", named).unwrap();
        let formats = (format(None), format(Some(Format::NdJson)));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(formats, (Format::Json, Format::NdJson));
        assert!(format_of_file(&file, "links", None).is_err());
    }

    #[test]
    fn delimiter_is_the_one_with_the_most_known_columns() {
        let columns = Columns {
            required: &["original_url"],
            optional: &["title", "short_code"],
            ..Columns::default()
        };
        for (header, expected) in [
            ("original_url,title\n", (b',', 0)),
            ("original_url;title\n", (b';', 0)),
            ("original_url\ttitle", (b'\t', 0)),
            ("Title;\"original_url\";note, more\r\n", (b';', 0)),
            ("\"a;b\",original_url,title\n", (b',', 0)),
            ("original_url\n", (b',', 0)),
            ("a;b\n", (b',', 0)),
            // The last cell decides, even without a line end.
            ("note\toriginal_url", (b'\t', 0)),
            ("sep=;\r\na;b\n", (b';', 5)),
            ("\nsep=\t\na\tb\n", (b'\t', 6)),
            ("sep=|\n", (b',', 0)),
            ("", (b',', 0)),
        ] {
            assert_eq!(delimiter(header.as_bytes(), &columns), expected, "{header:?}");
        }
    }

    #[test]
    fn other_formats_are_named() {
        for (first, name) in [
            (&b"PK\x03\x04....[Content_Types].xml"[..], "Excel"),
            (b"PK\x03\x04....links.csv", "ZIP"),
            (b"\x1f\x8b\x08", "gzip"),
            (b"\xd0\xcf\x11\xe0\xa1", "Excel"),
        ] {
            assert!(other_format(first).is_some_and(|found| found.contains(name)), "{name}");
        }
        for first in [&b""[..], b"PK,original_url", b"original_url", b"[", b"\xef\xbb\xbf"] {
            assert_eq!(other_format(first), None);
        }
    }
}
