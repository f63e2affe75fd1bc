//! Log lines: how they look and how they leave the process.

mod json;
mod writer;

pub(crate) use json::JsonLayer;
pub(crate) use writer::{LogWriter, LogWriterHandle};
