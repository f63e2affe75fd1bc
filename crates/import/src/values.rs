//! Reads the values of a row and collects the rules that they break.

use linnet_domain::{
    FieldInput, FieldSource, LinkField, RowProblem,
    rules::{Rule, Violation},
};

use super::source::{Row, RowDefect};

/// The values of one row.
pub(super) struct Values<'a> {
    row: &'a Row<'a>,
    problems: Vec<RowProblem>,
}

impl<'a> Values<'a> {
    pub(super) fn new(row: &'a Row<'a>) -> Self {
        Self { row, problems: Vec::new() }
    }

    /// A value that must be present.
    pub(super) fn required<T>(
        &mut self,
        column: &'static str,
        read: impl FnOnce(&str) -> Result<T, Violation>,
    ) -> Option<T> {
        if matches!(self.row.value(column), Ok(None)) {
            self.problem(column, Violation::required());
            return None;
        }
        self.optional(column, read)
    }

    /// A value that may be empty.
    pub(super) fn optional<T>(
        &mut self,
        column: &'static str,
        read: impl FnOnce(&str) -> Result<T, Violation>,
    ) -> Option<T> {
        match self.row.value(column) {
            Ok(None) => None,
            Ok(Some(text)) => read(&text).map_err(|violation| self.problem(column, violation)).ok(),
            Err(defect) => {
                self.problems.push(defect.into());
                None
            }
        }
    }

    /// Adds a problem of a column.
    pub(super) fn problem(&mut self, column: &str, violation: Violation) {
        self.problems.push(RowProblem {
            column: column.to_owned(),
            code: violation.code.to_owned(),
            message: violation.message.into_owned(),
        });
    }

    /// The row, if it has no problems.
    pub(super) fn finish<T>(self, row: Option<T>) -> Result<T, Vec<RowProblem>> {
        match row {
            Some(row) if self.problems.is_empty() => Ok(row),
            _ => Err(self.problems),
        }
    }
}

impl FieldSource for Values<'_> {
    /// An empty cell of a present column clears the field if it can be cleared.
    fn read<R: Rule>(&mut self, field: &LinkField) -> FieldInput<R::Value> {
        if !field.importable {
            return FieldInput::Absent;
        }
        match self.optional(field.name, R::from_text) {
            Some(value) => FieldInput::Value(value),
            None if field.clearable && self.row.is_given(field.name) => FieldInput::Cleared,
            None => FieldInput::Absent,
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

/// The greatest id that a row may have. Sequences continue after it and must not reach their end.
const MAX_ID: i64 = (1 << 53) - 1;

/// A row's id.
pub(super) fn id<I: TryFrom<i64>>(text: &str) -> Result<I, Violation> {
    let number = text.parse().ok().filter(|number| *number <= MAX_ID);
    let id = number.and_then(|number| I::try_from(number).ok());
    id.ok_or_else(|| Violation::invalid(format!("must be a whole number from 1 to {MAX_ID}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use linnet_domain::LinkId;

    #[test]
    fn an_id_leaves_room_for_the_sequence() {
        assert_eq!(id::<LinkId>("9007199254740991").map(LinkId::get), Ok(MAX_ID));
        for bad in ["0", "-1", "1.0", "x", "9007199254740992", "9223372036854775808"] {
            assert!(id::<LinkId>(bad).is_err(), "{bad}");
        }
    }
}
