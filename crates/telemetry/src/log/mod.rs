//! Formats log lines and writes them to standard output.

mod json;
mod writer;

pub(crate) use json::JsonLayer;
pub use writer::QUEUE_LINES;
pub(crate) use writer::{LogWriter, LogWriterHandle};
