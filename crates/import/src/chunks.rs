//! Reads a file in chunks, one chunk ahead, on a blocking thread.

use std::{fs::File, mem, path::PathBuf};

use tokio::sync::mpsc;

use linnet_domain::{RowFormat, RowProblem};

use super::{
    row_rules::RowRules,
    rows::ImportRow,
    source::{Position, Rows, SourceError},
};

/// Bytes of the file after which a chunk ends, even if it has few rows.
const CHUNK_BYTES: u64 = 2 * 1024 * 1024;

/// The file, and the size of a chunk.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// The file.
    pub path: PathBuf,
    /// The format of its rows.
    pub format: RowFormat,
    /// The position at which reading begins; by default before the first row.
    pub from: Position,
    /// The maximum number of rows in a chunk.
    pub rows: usize,
}

/// A row that is not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// The line on which it begins.
    pub line: u64,
    /// Its problems.
    pub problems: Vec<RowProblem>,
    /// Its cells as uploaded.
    pub cells: Vec<String>,
}

/// Rows that are written together.
#[derive(Debug)]
pub struct Chunk<T> {
    /// The position before its first row.
    pub start: Position,
    /// The position after its last row.
    pub end: Position,
    /// The valid rows, each with its line.
    pub rows: Vec<(u64, T)>,
    /// The bad rows.
    pub bad: Vec<BadRow>,
    /// Unknown columns seen so far, which are ignored.
    pub unknown_columns: Vec<String>,
    /// Whether this is the last chunk of the file.
    pub is_last: bool,
}

/// Reads a file. One chunk is read while another is written. Reading ends after the last chunk, after an error, or when
/// the receiver is dropped.
pub fn read_chunks<T: ImportRow>(
    bounds: Bounds,
    rules: RowRules,
) -> mpsc::Receiver<Result<Chunk<T>, SourceError>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = read_all(&bounds, &rules, &sender) {
            // Sending fails only if the receiver was dropped.
            let _ = sender.blocking_send(Err(error));
        }
    });
    receiver
}

fn read_all<T: ImportRow>(
    bounds: &Bounds,
    rules: &RowRules,
    chunks: &mpsc::Sender<Result<Chunk<T>, SourceError>>,
) -> Result<(), SourceError> {
    let mut source = Rows::open(File::open(&bounds.path)?, bounds.format, &T::columns())?;
    if bounds.from != Position::default() {
        source.seek(bounds.from)?;
    }
    loop {
        let chunk = read_chunk(&mut source, bounds.rows, rules)?;
        let is_last = chunk.is_last;
        if chunks.blocking_send(Ok(chunk)).is_err() || is_last {
            return Ok(());
        }
    }
}

fn read_chunk<T: ImportRow>(
    source: &mut Rows<File>,
    size: usize,
    rules: &RowRules,
) -> Result<Chunk<T>, SourceError> {
    let start = source.position();
    let mut rows = Vec::with_capacity(size);
    let mut bad = Vec::new();
    let mut is_last = false;
    while rows.len() + bad.len() < size && source.position().offset - start.offset < CHUNK_BYTES {
        let Some(row) = source.next()? else {
            is_last = true;
            break;
        };
        let line = row.line();
        let read = match row.defect() {
            Some(defect) => Err(vec![defect.clone().into()]),
            None => T::read(&row, rules),
        };
        match read {
            Ok(good) => rows.push((line, good)),
            Err(problems) => bad.push(BadRow { line, problems, cells: row.cells() }),
        }
    }
    let unknown_columns = source.unknown_columns().to_vec();
    Ok(Chunk { start, end: source.position(), rows, bad, unknown_columns, is_last })
}

/// Adds the cells of rows that the database refused, by reading their chunk again.
pub(super) fn fill_cells<T: ImportRow>(
    bounds: &Bounds,
    start: Position,
    bad: &mut [BadRow],
) -> Result<(), SourceError> {
    let mut source = Rows::open(File::open(&bounds.path)?, bounds.format, &T::columns())?;
    source.seek(start)?;
    let mut wanted = bad.iter_mut().filter(|row| row.cells.is_empty()).peekable();
    while wanted.peek().is_some() {
        let Some(row) = source.next()? else { break };
        if let Some(found) = wanted.next_if(|wanted| wanted.line == row.line()) {
            found.cells = mem::take(&mut row.cells());
        }
    }
    Ok(())
}
