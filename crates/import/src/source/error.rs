//! The errors of a file, and of one of its rows.

/// The defect of a row. The rows after it can still be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowDefect {
    /// The column's name; empty for the row as a whole.
    pub column: &'static str,
    /// The code for programs: stable, in snake_case.
    pub code: &'static str,
    /// The message for people. It begins with the rule, such as "must be valid UTF-8".
    pub message: String,
}

impl RowDefect {
    pub(super) const TOO_LONG: &'static str = "too_long";

    pub(super) fn too_long() -> Self {
        let message = format!("must be at most {} bytes", super::MAX_ROW_BYTES);
        Self::of_row(Self::TOO_LONG, message)
    }

    pub(super) fn of_row(code: &'static str, message: impl Into<String>) -> Self {
        Self { column: "", code, message: message.into() }
    }

    pub(super) fn of_value(column: &'static str, code: &'static str, message: &str) -> Self {
        Self { column, code, message: message.to_owned() }
    }
}

/// Why a file cannot be read, or reading cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file contains only blank lines.
    #[error("must not be empty")]
    Empty,
    /// The file is UTF-16 or UTF-32.
    #[error("must be UTF-8, but looks like UTF-16")]
    WideEncoding,
    /// The file has another format, such as "a ZIP archive".
    #[error("must be CSV, a JSON array or NDJSON, but is {0}")]
    OtherFormat(&'static str),
    /// The header is not UTF-8. Invalid UTF-8 in a row is a defect of that row.
    #[error("must be valid UTF-8")]
    HeaderEncoding,
    /// The header is longer than a row may be.
    #[error("must be at most {} bytes", super::MAX_ROW_BYTES)]
    HeaderTooLong,
    /// The names of the header are longer together than a job stores.
    #[error("must have column names of at most {} bytes in total", super::MAX_HEADER_BYTES)]
    NamesTooLong,
    /// The header has more columns than a row may have.
    #[error("must have at most {} columns", super::MAX_COLUMNS)]
    TooManyColumns,
    /// A quote in the header is never closed.
    #[error("must close every quote")]
    HeaderQuote,
    /// Required columns are missing.
    #[error("must have the columns {}", quoted(.0))]
    MissingColumns(Vec<&'static str>),
    /// A required column's name is part of a cell, which `|` separates.
    #[error("must have the columns {}, separated by commas, semicolons or tabs, not by `|`", quoted(.0))]
    PipeDelimiter(Vec<&'static str>),
    /// A known column appears more than once.
    #[error("must have the column `{0}` only once")]
    RepeatedColumn(&'static str),
    /// The JSON is not an array.
    #[error("must be a JSON array of objects, which begins with `[`")]
    NotAnArray,
    /// The JSON between two rows is malformed, so the bounds of later rows are uncertain.
    #[error("must be valid JSON: line {line}: {message}")]
    Syntax {
        /// The line, counted from 1.
        line: u64,
        /// The content that was found, and the one that was expected.
        message: String,
    },
    /// The position is beyond the end of the file, so it is not from this file.
    #[error("cannot continue at byte {offset}, which is not in the file")]
    Position {
        /// The byte at which reading should continue.
        offset: u64,
    },
    /// The file could not be read.
    #[error("the file cannot be read")]
    Io(#[from] std::io::Error),
}

impl SourceError {
    /// The code: stable, in snake_case.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "empty_file",
            Self::WideEncoding | Self::HeaderEncoding => "encoding",
            Self::OtherFormat(_) => "unsupported_format",
            Self::HeaderTooLong | Self::NamesTooLong => "header_too_long",
            Self::TooManyColumns => "too_many_columns",
            Self::HeaderQuote => "unclosed_quote",
            Self::MissingColumns(_) | Self::PipeDelimiter(_) => "missing_columns",
            Self::RepeatedColumn(_) => "repeated_column",
            Self::NotAnArray => "not_an_array",
            Self::Syntax { .. } => "malformed_json",
            Self::Position { .. } => "position",
            Self::Io(_) => "io",
        }
    }

    /// The part of the upload: `header` or `file`.
    pub fn field(&self) -> &'static str {
        match self {
            Self::HeaderEncoding
            | Self::HeaderTooLong
            | Self::NamesTooLong
            | Self::TooManyColumns
            | Self::HeaderQuote
            | Self::MissingColumns(_)
            | Self::PipeDelimiter(_)
            | Self::RepeatedColumn(_) => "header",
            Self::Empty
            | Self::WideEncoding
            | Self::OtherFormat(_)
            | Self::NotAnArray
            | Self::Syntax { .. }
            | Self::Position { .. }
            | Self::Io(_) => "file",
        }
    }

    /// Whether the file caused the error; otherwise the server did.
    pub fn is_of_file(&self) -> bool {
        !matches!(self, Self::Position { .. } | Self::Io(_))
    }
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
