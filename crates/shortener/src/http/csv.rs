//! Writes CSV (RFC 4180) that a spreadsheet opens without executing formulas.
//!
//! Text that would be a formula gets a leading apostrophe, see [`linnet_domain::formula`]. Numbers stay numbers.

use std::borrow::Cow;

use actix_web::{
    HttpResponse, HttpResponseBuilder,
    http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS},
};
use csv_async::{AsyncWriter, AsyncWriterBuilder, Terminator};
use linnet_protocol::problem::Problem;
use tokio::io::AsyncWrite;

use linnet_domain::formula::escape_formula;

use super::error::ApiError;

/// The media type of CSV with a header.
pub const CONTENT_TYPE_CSV: &str = "text/csv; charset=utf-8; header=present";

/// One cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell<'a> {
    /// An empty cell.
    Empty,
    /// A number.
    Number(i64),
    /// Untrusted text.
    Text(Cow<'a, str>),
}

impl From<i64> for Cell<'_> {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<Option<i64>> for Cell<'_> {
    fn from(number: Option<i64>) -> Self {
        number.map_or(Self::Empty, Self::Number)
    }
}

impl<'a> From<&'a str> for Cell<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Cell<'_> {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl<'a> Cell<'a> {
    /// The text in the file, before it is quoted.
    fn into_text(self) -> Cow<'a, str> {
        match self {
            Self::Empty => "".into(),
            Self::Number(number) => number.to_string().into(),
            Self::Text(text) => match escape_formula(&text) {
                Cow::Owned(escaped) => escaped.into(),
                Cow::Borrowed(_) => text,
            },
        }
    }
}

/// Writes rows.
pub struct CsvWriter<W: AsyncWrite + Unpin>(AsyncWriter<W>);

impl<W: AsyncWrite + Unpin> CsvWriter<W> {
    /// Creates a writer and writes the header.
    pub async fn new(output: W, names: &[&str]) -> csv_async::Result<Self> {
        let mut writer =
            AsyncWriterBuilder::new().terminator(Terminator::CRLF).create_writer(output);
        writer.write_record(names).await?;
        Ok(Self(writer))
    }

    /// Adds a row with a cell for each name of the header.
    pub async fn row<const N: usize>(&mut self, cells: [Cell<'_>; N]) -> csv_async::Result<()> {
        self.0.write_record(cells.map(|cell| cell.into_text().into_owned())).await
    }

    /// Flushes, and returns the output.
    pub async fn finish(self) -> csv_async::Result<W> {
        self.0.into_inner().await.map_err(Into::into)
    }
}

/// The beginning of a file: empty, or a byte order mark, by which Excel recognizes UTF-8.
pub fn begin(bom: bool) -> Vec<u8> {
    if bom { "\u{feff}".into() } else { Vec::new() }
}

/// Writes a whole file in memory.
pub async fn csv_of<const N: usize>(
    names: [&str; N],
    rows: impl IntoIterator<Item = [Cell<'_>; N]>,
    bom: bool,
) -> Result<Vec<u8>, ApiError> {
    let write = async {
        let mut writer = CsvWriter::new(begin(bom), &names).await?;
        for row in rows {
            writer.row(row).await?;
        }
        writer.finish().await
    };
    write.await.map_err(|error: csv_async::Error| {
        tracing::error!(%error, "CSV not written");
        Problem::internal().into()
    })
}

/// Responds with a file for download. `name` has only letters, digits, `-` and `.`. Browsers do not render the file.
pub fn respond(mut response: HttpResponseBuilder, name: &str, csv: Vec<u8>) -> HttpResponse {
    name_file(&mut response, name, CONTENT_TYPE_CSV);
    response.body(csv)
}

/// The headers of [`respond`], for a file of any type.
pub fn name_file(response: &mut HttpResponseBuilder, name: &str, content_type: &'static str) {
    response.insert_header((CONTENT_TYPE, HeaderValue::from_static(content_type)));
    response.insert_header((X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")));
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        response.insert_header((CONTENT_DISPOSITION, value));
    }
}

/// Appends a cell of text to a row, in the format of [`CsvWriter`], synchronously.
pub fn push_text(row: &mut Vec<u8>, text: &str) {
    let text = escape_formula(text);
    if text.bytes().any(|byte| matches!(byte, b',' | b'"' | b'\r' | b'\n')) {
        row.push(b'"');
        for byte in text.bytes() {
            if byte == b'"' {
                row.push(b'"');
            }
            row.push(byte);
        }
        row.push(b'"');
    } else {
        row.extend_from_slice(text.as_bytes());
    }
}
