//! Rows from files: reading, and the same validation that the API does.
//!
//! * [`source`] reads files, whatever is in them.
//! * [`ImportRow`] is what a kind of row is made of; a row is good, or it is a list of problems, and a
//!   bad row never stops the good ones.
//! * [`read_chunks`] reads a file a chunk at a time, ahead of whoever writes the chunks;
//!   [`write_chunk`] writes one.

mod chunks;
mod rows;
pub mod source;
mod values;
mod write;

pub use chunks::{Bounds, Chunk, read_chunks};
pub use rows::{ImportRow, REPORT_COLUMNS, RowRules, columns_of};
pub use write::{BadRow, Written, write_chunk};
