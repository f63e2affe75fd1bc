//! Rows from CSV files: reading, and the same validation that the API does.
//!
//! * [`CsvReader`] gives rows with their line, whatever the order and case of the header's columns.
//! * [`ImportRow`] is what a kind of row is made of; a row is good, or it is a list of
//!   [`RowError`]s, and a bad row never stops the good ones.
//! * [`source`] reads files of any format from a place where reading stopped before.

mod reader;
mod rows;
pub mod source;
mod values;

pub use reader::{CsvReader, HeaderError, ReadError, Row, RowError};
pub use rows::{ImportRow, RowRules};
