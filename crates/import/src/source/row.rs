//! One row of a file.

use std::borrow::Cow;

use super::{RowDefect, cells::Cells, csv::Record, header::Names, object::Object};

/// One row, not validated.
pub struct Row<'a> {
    pub(super) line: u64,
    pub(super) defect: Option<&'a RowDefect>,
    pub(super) names: &'a Names,
    pub(super) content: Content<'a>,
}

pub(super) enum Content<'a> {
    Record(Record<'a>),
    Object(Object<'a>),
}

impl Row<'_> {
    /// The line on which it begins, counted from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// What is wrong with the row as a whole. Such a row has no values.
    pub fn defect(&self) -> Option<&RowDefect> {
        self.defect
    }

    /// Whether the row names this known column at all: in CSV the header has it, in JSON the object,
    /// be it with null.
    pub fn is_given(&self, column: &str) -> bool {
        self.defect.is_none()
            && self.names.index(column).is_some_and(|index| match &self.content {
                Content::Record(record) => record.has(index),
                Content::Object(object) => object.has(index),
            })
    }

    /// A known column's text; `None` where the column is not given, for an empty CSV field (CSV knows
    /// no null) and for JSON's null. JSON numbers are given as they are written, and booleans as
    /// `true` or `false`. Text never holds NUL. A row with a defect gives that.
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
            Content::Record(record) => record.value(index, name)?.map(Cow::Borrowed),
            Content::Object(object) => object.value(index, name)?,
        };
        match value {
            Some(text) if memchr::memchr(0, text.as_bytes()).is_some() => {
                Err(RowDefect::of_value(name, "invalid", "may not hold the NUL character"))
            }
            value => Ok(value),
        }
    }

    /// The row's cells in the order of the header, to be given back with what is wrong with them:
    /// what they stand for, with U+FFFD for NUL and for what is not UTF-8. A record of another width
    /// than the header has its own cells; an object that cannot be read is one cell, its text. All
    /// together they are cut to [`MAX_CELL_BYTES`](super::MAX_CELL_BYTES); the last one then ends
    /// with an ellipsis.
    pub fn cells(&self) -> Vec<String> {
        let mut cells = Cells::default();
        match &self.content {
            Content::Record(record) => record.write_cells(&mut cells),
            Content::Object(object) => object.write_cells(&mut cells),
        }
        cells.finish()
    }
}
