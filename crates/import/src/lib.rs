//! Reads rows from files and validates them by the rules of the API.
//!
//! * [`source`] reads files of any content in constant memory.
//! * [`ImportRow`] is a kind of row. A row is valid or has a list of problems; a bad row never prevents the others.
//! * [`read_chunks`] reads a file in chunks, ahead of the caller that writes them; [`write_chunk`] writes one.

mod chunks;
mod row_file;
mod row_rules;
mod rows;
pub mod source;
mod values;
mod write;

pub use chunks::{BadRow, Bounds, Chunk, read_chunks};
pub use row_file::{OpenFile, RowFile};
pub use row_rules::RowRules;
pub use rows::{ImportRow, REPORT_COLUMNS, columns_of};
pub use write::{Written, write_chunk};
