//! Values as files write them.

use chrono::{DateTime, Datelike, NaiveDateTime, Utc};

use linnet_domain::{RedirectStatus, RowProblem};

use super::source::{Row, RowDefect};

/// Takes the values of a row, and keeps what is wrong.
pub(super) struct Values<'a> {
    row: &'a Row<'a>,
    problems: Vec<RowProblem>,
}

impl<'a> Values<'a> {
    pub(super) fn new(row: &'a Row<'a>) -> Self {
        Self { row, problems: Vec::new() }
    }

    /// A value that must be there.
    pub(super) fn required<T>(
        &mut self,
        column: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        if matches!(self.row.value(column), Ok(None)) {
            self.problem(column, "required", "is required".to_owned());
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
        match self.row.value(column) {
            Ok(None) => None,
            Ok(Some(text)) => match read(&text) {
                Ok(value) => Some(value),
                Err(message) => {
                    self.problem(column, "invalid", message);
                    None
                }
            },
            Err(defect) => {
                self.problems.push(defect.into());
                None
            }
        }
    }

    /// Tells of something else that is wrong.
    pub(super) fn problem(&mut self, column: &str, code: &str, message: String) {
        self.problems.push(RowProblem {
            column: column.to_owned(),
            code: code.to_owned(),
            message,
        });
    }

    /// The row, if nothing was wrong.
    pub(super) fn finish<T>(self, row: Option<T>) -> Result<T, Vec<RowProblem>> {
        match row {
            Some(row) if self.problems.is_empty() => Ok(row),
            _ => Err(self.problems),
        }
    }
}

impl From<RowDefect> for RowProblem {
    fn from(defect: RowDefect) -> Self {
        Self {
            column: defect.column.to_owned(),
            code: defect.code.to_owned(),
            message: defect.message,
        }
    }
}

/// Highest number of a row: the sequences go on behind it, and must not come to their end.
const MAX_ID: i64 = (1 << 53) - 1;

/// A row's id.
pub(super) fn id<I: TryFrom<i64>>(text: &str) -> Result<I, String> {
    let number = text.parse().ok().filter(|number| *number <= MAX_ID);
    let id = number.and_then(|number| I::try_from(number).ok());
    id.ok_or_else(|| format!("must be an integer from 1 to {MAX_ID}"))
}

/// A whole number above 0.
pub(super) fn positive(text: &str) -> Result<i64, String> {
    let number = text.parse::<i64>().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "must be a whole number above 0".to_owned())
}

/// A redirect's status.
pub(super) fn redirect_status(text: &str) -> Result<RedirectStatus, String> {
    let status = text.parse().ok().and_then(RedirectStatus::from_code);
    status.ok_or_else(|| "must be 301, 302, 307 or 308".to_owned())
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
    let time = match DateTime::parse_from_rfc3339(text) {
        Ok(time) => time.with_timezone(&Utc),
        Err(_) => NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f")
            .map(|time| time.and_utc())
            .map_err(|_| "must be YYYY-MM-DD HH:MM:SS or an RFC 3339 time".to_owned())?,
    };
    // What is written out again must be RFC 3339.
    if (0..=9999).contains(&time.year()) {
        Ok(time)
    } else {
        Err("must be between the years 0 and 9999".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use linnet_domain::LinkId;

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
            assert!(id::<LinkId>(bad).is_err(), "{bad}");
        }
    }
}
