//! Formats log lines and writes them to standard output.

mod json;
mod writer;

pub(crate) use json::JsonLayer;
pub(crate) use writer::{LogWriter, LogWriterHandle};
