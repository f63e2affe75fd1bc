//! What can be wrong with a file, and with one of its rows.

/// What is wrong with a row. The rows after it can be read all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowDefect {
    /// The column's name; empty for the row as a whole.
    pub column: &'static str,
    /// Stable, snake_case.
    pub code: &'static str,
    /// For a person; goes on after the column's name or "the row".
    pub message: String,
}

impl RowDefect {
    pub(super) const TOO_LONG: &'static str = "too_long";

    pub(super) fn too_long() -> Self {
        let message = format!("is longer than {} bytes", super::MAX_ROW_BYTES);
        Self::of_row(Self::TOO_LONG, message)
    }

    pub(super) fn of_row(code: &'static str, message: impl Into<String>) -> Self {
        Self { column: "", code, message: message.into() }
    }

    pub(super) fn of_value(column: &'static str, code: &'static str, message: &str) -> Self {
        Self { column, code, message: message.to_owned() }
    }
}

/// Why a file cannot be read, or not be read on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is nothing in it but blank lines.
    #[error("the file is empty")]
    Empty,
    /// It is written in UTF-16 or UTF-32.
    #[error("the file is not UTF-8 but looks like UTF-16; save it as UTF-8")]
    WideEncoding,
    /// The header is not UTF-8. What is wrong with the encoding of a row is the row's defect.
    #[error("the header is not valid UTF-8; save the file as UTF-8")]
    HeaderEncoding,
    /// The header is longer than a row may be.
    #[error("the header is longer than {} bytes", super::MAX_ROW_BYTES)]
    HeaderTooLong,
    /// The header has more columns than a row may have.
    #[error("the header has more than {} columns", super::MAX_COLUMNS)]
    TooManyColumns,
    /// A quote in the header is never closed.
    #[error("a quote in the header is never closed")]
    HeaderQuote,
    /// Columns that must be there are not.
    #[error("the header lacks {}", quoted(.0))]
    MissingColumns(Vec<&'static str>),
    /// A known column is there more than once.
    #[error("the column `{0}` is in the header twice")]
    RepeatedColumn(&'static str),
    /// JSON that is no array.
    #[error("the file must be one JSON array of objects: it begins with something else than `[`")]
    NotAnArray,
    /// The JSON between two rows is broken, so nothing after it can be trusted.
    #[error("line {line}: {message}")]
    Syntax {
        /// Where, counted from 1.
        line: u64,
        /// What was found and what was expected.
        message: String,
    },
    /// A position that this file cannot have given: the file is shorter, or it is no position at all.
    #[error("there is no byte {offset} in the file to go on at")]
    Position {
        /// Where reading was to go on.
        offset: u64,
    },
    /// The file could not be read.
    #[error("the file cannot be read")]
    Io(#[from] std::io::Error),
}

impl SourceError {
    /// Which kind it is: stable, snake_case.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "empty_file",
            Self::WideEncoding | Self::HeaderEncoding => "encoding",
            Self::HeaderTooLong => "header_too_long",
            Self::TooManyColumns => "too_many_columns",
            Self::HeaderQuote => "unclosed_quote",
            Self::MissingColumns(_) => "missing_columns",
            Self::RepeatedColumn(_) => "repeated_column",
            Self::NotAnArray => "not_an_array",
            Self::Syntax { .. } => "malformed_json",
            Self::Position { .. } => "position",
            Self::Io(_) => "io",
        }
    }

    /// What of the upload it is about: `header` or `file`.
    pub fn field(&self) -> &'static str {
        match self {
            Self::HeaderEncoding
            | Self::HeaderTooLong
            | Self::TooManyColumns
            | Self::HeaderQuote
            | Self::MissingColumns(_)
            | Self::RepeatedColumn(_) => "header",
            Self::Empty
            | Self::WideEncoding
            | Self::NotAnArray
            | Self::Syntax { .. }
            | Self::Position { .. }
            | Self::Io(_) => "file",
        }
    }

    /// Whether the file's writer can do something about it; otherwise it is ours.
    pub fn is_of_file(&self) -> bool {
        !matches!(self, Self::Position { .. } | Self::Io(_))
    }
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
