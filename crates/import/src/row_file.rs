//! Where the bytes of a file of rows are.

use std::{
    fmt, fs,
    io::{self, Read, Seek},
    path::PathBuf,
};

/// A file of rows, which can be opened any number of times.
pub trait RowFile: fmt::Debug + Send + Sync {
    /// Opens the file at its first byte. Opening and reading may block the thread.
    fn open(&self) -> io::Result<OpenFile>;
}

/// An opened file.
pub type OpenFile = Box<dyn ReadSeek>;

/// [`Read`] and [`Seek`].
pub trait ReadSeek: Read + Seek + Send {}

impl<T: Read + Seek + Send> ReadSeek for T {}

impl RowFile for PathBuf {
    fn open(&self) -> io::Result<OpenFile> {
        Ok(Box::new(fs::File::open(self)?))
    }
}
