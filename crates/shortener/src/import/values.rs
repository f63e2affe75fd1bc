//! Values as CSV files write them.

use chrono::{DateTime, NaiveDateTime, Utc};

use super::{Row, RowError};

/// Takes the values of a row, and keeps what is wrong.
pub(super) struct Values<'a> {
    row: &'a Row<'a>,
    errors: Vec<RowError>,
}

impl<'a> Values<'a> {
    pub(super) fn new(row: &'a Row<'a>) -> Self {
        Self { row, errors: Vec::new() }
    }

    /// A value that must be there.
    pub(super) fn required<T>(
        &mut self,
        column: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        if self.row.value(column).is_none() {
            self.error(column, "required", "is required".to_owned());
            return None;
        }
        self.optional(column, read)
    }

    /// A value that may be empty.
    pub(super) fn optional<T>(
        &mut self,
        column: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let bytes = self.row.value(column)?;
        let Ok(text) = std::str::from_utf8(bytes) else {
            self.error(column, "encoding", "is not valid UTF-8".to_owned());
            return None;
        };
        if text.contains('\0') {
            self.error(column, "invalid", "may not hold the NUL character".to_owned());
            return None;
        }
        match read(text) {
            Ok(value) => Some(value),
            Err(message) => {
                self.error(column, "invalid", message);
                None
            }
        }
    }

    /// The row, if nothing was wrong.
    pub(super) fn finish<T>(self, row: Option<T>) -> Result<T, Vec<RowError>> {
        match row {
            Some(row) if self.errors.is_empty() => Ok(row),
            _ => Err(self.errors),
        }
    }

    fn error(&mut self, column: &'static str, code: &'static str, message: String) {
        self.errors.push(RowError { line: self.row.line, column, code, message });
    }
}

/// Highest number of a row: the sequences go on behind it, and must not come to their end.
const MAX_ID: i64 = (1 << 53) - 1;

/// A row's number.
pub(super) fn id(text: &str) -> Result<i64, String> {
    let id = text.parse::<i64>().ok().filter(|id| (1..=MAX_ID).contains(id));
    id.ok_or_else(|| format!("must be an integer from 1 to {MAX_ID}"))
}

/// `true` or `false`, as databases, spreadsheets and Python write them.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "1" | "yes" => Ok(true),
        "false" | "f" | "0" | "no" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

/// RFC 3339, or `YYYY-MM-DD HH:MM:SS` in UTC.
pub(super) fn time(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.with_timezone(&Utc));
    }
    NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f")
        .map(|time| time.and_utc())
        .map_err(|_| "must be YYYY-MM-DD HH:MM:SS or an RFC 3339 time".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        assert_eq!(boolean("True"), Ok(true));
        assert_eq!(boolean("FALSE"), Ok(false));
        assert!(boolean("maybe").is_err());
        assert_eq!(time("2025-09-28 22:57:23").unwrap(), time("2025-09-28T22:57:23Z").unwrap());
        for bad in ["", "2025-13-01 00:00:00", "28.09.2025", "2025-09-28"] {
            assert!(time(bad).is_err(), "{bad}");
        }
        for bad in ["0", "-1", "1.0", "x", "9007199254740992", "9223372036854775808"] {
            assert!(id(bad).is_err(), "{bad}");
        }
    }
}
