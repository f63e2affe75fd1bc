//! One row of a file, from CSV or JSON.

use std::borrow::Cow;

use linnet_domain::{RowCells, rules::NO_NUL_RULE};

use super::{
    RowDefect,
    cells::Cells,
    csv::{CsvReader, Record},
    header::Names,
    object::{Object, ObjectReader},
};

/// One row, not validated.
pub struct Row<'a> {
    line: u64,
    defect: Option<&'a RowDefect>,
    names: &'a Names,
    content: Content<'a>,
}

/// The values of a row.
enum Content<'a> {
    Record(Record<'a>),
    Object(Object<'a>),
}

impl<'a> Row<'a> {
    /// The record that was read last.
    pub(super) fn of_record(reader: &'a CsvReader, names: &'a Names) -> Self {
        let content = Content::Record(reader.record());
        Self { line: reader.line(), defect: reader.defect(), names, content }
    }

    /// The object that was read last.
    pub(super) fn of_object(reader: &'a ObjectReader, names: &'a Names) -> Self {
        let content = Content::Object(reader.object());
        Self { line: reader.line, defect: reader.defect(), names, content }
    }
}

impl Row<'_> {
    /// The line on which it begins, counted from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The defect of the row as a whole. Such a row has no values.
    pub fn defect(&self) -> Option<&RowDefect> {
        self.defect
    }

    /// Whether the row has this known column: the header of a CSV file has it, or the JSON object, even with null.
    pub fn is_given(&self, column: &str) -> bool {
        self.defect.is_none()
            && self.names.index(column).is_some_and(|index| match &self.content {
                Content::Record(record) => record.has(index),
                Content::Object(object) => object.has(index),
            })
    }

    /// Whether the row is a JSON object with null for this known column. A CSV file has no null.
    pub fn is_null(&self, column: &str) -> bool {
        self.defect.is_none()
            && self.names.index(column).is_some_and(|index| match &self.content {
                Content::Record(_) => false,
                Content::Object(object) => object.is_null(index),
            })
    }

    /// A known column's text; `None` for a missing column, an empty CSV field, and JSON's null. JSON numbers are
    /// returned as they are written, and booleans as `true` or `false`. Text contains no NUL. A defect of the row is
    /// the error.
    pub fn value(&self, column: &str) -> Result<Option<Cow<'_, str>>, RowDefect> {
        if let Some(defect) = self.defect {
            return Err(defect.clone());
        }
        let Some((index, name)) =
            self.names.known.iter().enumerate().find(|(_, known)| **known == column)
        else {
            return Ok(None);
        };
        let value = match &self.content {
            Content::Record(record) => record.value(index, name)?,
            Content::Object(object) => object.value(index, name)?,
        };
        match value {
            Some(text) if memchr::memchr(0, text.as_bytes()).is_some() => {
                Err(RowDefect::of_value(name, "invalid", NO_NUL_RULE))
            }
            value => Ok(value),
        }
    }

    /// The row's cells in the order of the header, for the list of bad rows.
    ///
    /// NUL and invalid UTF-8 become U+FFFD. A record of another width than the header has its own cells. An object that
    /// cannot be parsed is one cell, its text. The text of the cells is cut to
    /// [`MAX_CELL_BYTES`](super::MAX_CELL_BYTES); the last cell then ends with an ellipsis.
    pub fn cells(&self) -> RowCells {
        let mut cells = Cells::default();
        match &self.content {
            Content::Record(record) => record.write_cells(&mut cells),
            Content::Object(object) => object.write_cells(&mut cells),
        }
        cells.finish()
    }
}
