//! Reads the values of a row and collects the rules that they break.

use linnet_domain::{
    FieldInput, FieldSource, LinkField, RowProblem,
    rules::{Rule, Violation},
};

use super::{
    row_rules::RowRules,
    source::{Row, RowDefect},
};

/// The values of one row.
pub(super) struct Values<'a> {
    row: &'a Row<'a>,
    rules: &'a RowRules,
    problems: Vec<RowProblem>,
}

impl<'a> Values<'a> {
    pub(super) fn new(row: &'a Row<'a>, rules: &'a RowRules) -> Self {
        Self { row, rules, problems: Vec::new() }
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

    fn is_null(&self, column: &str) -> bool {
        let may_be_word = self.rules.null_columns.iter().any(|name| name == column);
        self.row.is_null(column)
            || (may_be_word && matches!(self.row.value(column), Ok(Some(text)) if text == "null"))
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
    /// An empty cell leaves the field as it is. JSON's null clears it, and the word `null` in one of
    /// [`RowRules::null_columns`].
    fn read<R: Rule>(&mut self, field: &LinkField) -> FieldInput<R::Value> {
        if !field.importable {
            return FieldInput::Absent;
        }
        if field.clearable && self.is_null(field.name) {
            return FieldInput::Cleared;
        }
        let now = self.rules.now;
        let value = self.optional(field.name, |text| {
            let value = R::from_text(text)?;
            R::check(&value, now).map_err(Violation::invalid)?;
            Ok(value)
        });
        value.map_or(FieldInput::Absent, FieldInput::Value)
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

/// The greatest id that clients which store numbers as floating point represent exactly: 2^53 − 1.
const MAX_ID: i64 = (1 << 53) - 1;
/// The greatest id that a row may bring. The sequence continues after it, and 7 × 10^12 further ids stay below
/// [`MAX_ID`]. Their exports can be imported again, because the bound is far above the ids that a sequence reaches.
const MAX_OWN_ID: i64 = 9_000_000_000_000_000;

/// The row's own id.
pub(super) fn own_id<I: TryFrom<i64>>(text: &str) -> Result<I, Violation> {
    id(text, MAX_OWN_ID)
}

/// The id of another resource, which must exist.
pub(super) fn reference<I: TryFrom<i64>>(text: &str) -> Result<I, Violation> {
    id(text, MAX_ID)
}

fn id<I: TryFrom<i64>>(text: &str, most: i64) -> Result<I, Violation> {
    let number = text.parse().ok().filter(|number| *number <= most);
    let id = number.and_then(|number| I::try_from(number).ok());
    id.ok_or_else(|| Violation::invalid(format!("must be a whole number from 1 to {most}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use linnet_domain::LinkId;

    #[test]
    fn an_id_leaves_room_for_the_sequence() {
        for good in ["1", "1000000000000", "1000000000001", "9000000000000000"] {
            assert_eq!(own_id::<LinkId>(good).map(LinkId::get), Ok(good.parse().unwrap()));
        }
        for good in ["1", "9000000000000001", "9007199254740991"] {
            assert_eq!(reference::<LinkId>(good).map(LinkId::get), Ok(good.parse().unwrap()));
        }
        for bad in ["0", "-1", "1.0", "x", "9007199254740992", "9223372036854775808"] {
            assert!(own_id::<LinkId>(bad).is_err(), "{bad}");
            assert!(reference::<LinkId>(bad).is_err(), "{bad}");
        }
        let refused = own_id::<LinkId>("9000000000000001").unwrap_err();
        assert_eq!(refused.message, "must be a whole number from 1 to 9000000000000000");
    }
}
