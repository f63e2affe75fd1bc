//! Reads a file in chunks, one chunk ahead, on a blocking thread.

use std::sync::Arc;

use tokio::{runtime::Handle, sync::mpsc};

use linnet_domain::{RowCells, RowFormat, RowProblem};

use super::{
    row_file::{OpenFile, RowFile},
    row_rules::RowRules,
    rows::ImportRow,
    source::{Position, Rows, SourceError},
};

/// Bytes of the file after which a chunk ends, even if it has few rows.
const CHUNK_BYTES: u64 = 2 * 1024 * 1024;
/// Bytes of the reports of bad rows after which a chunk ends.
const REPORT_BYTES: usize = 1024 * 1024;
/// Bytes of the cells that are added to rows which the database refused. Further rows are reported without cells.
const FILLED_BYTES: usize = 2 * 1024 * 1024;

/// The file, and the size of a chunk.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// The file.
    pub file: Arc<dyn RowFile>,
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
    pub cells: RowCells,
}

impl BadRow {
    /// Bytes of memory.
    fn bytes(&self) -> usize {
        let problems = self.problems.iter().map(|problem| {
            size_of::<RowProblem>()
                + problem.column.len()
                + problem.code.len()
                + problem.message.len()
        });
        size_of::<Self>() + self.cells.as_json().len() + problems.sum::<usize>()
    }
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

/// Reads a file. One chunk is read while another is written, so at most two exist. Reading ends after the last chunk, after
/// an error, or when the receiver is dropped.
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
    let mut source = Rows::open(bounds.file.open()?, bounds.format, &T::columns())?;
    if bounds.from != Position::default() {
        source.seek(bounds.from)?;
    }
    // Waits for room before it reads: a chunk that waits to be sent would be a third one.
    while let Ok(room) = Handle::current().block_on(chunks.reserve()) {
        let chunk = read_chunk(&mut source, bounds.rows, rules)?;
        let is_last = chunk.is_last;
        room.send(Ok(chunk));
        if is_last {
            break;
        }
    }
    Ok(())
}

fn read_chunk<T: ImportRow>(
    source: &mut Rows<OpenFile>,
    size: usize,
    rules: &RowRules,
) -> Result<Chunk<T>, SourceError> {
    let start = source.position();
    let mut rows = Vec::with_capacity(size);
    let mut bad = Vec::new();
    let mut is_last = false;
    let mut report_bytes = 0;
    while rows.len() + bad.len() < size
        && source.position().offset - start.offset < CHUNK_BYTES
        && report_bytes < REPORT_BYTES
    {
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
            Err(problems) => {
                let row = BadRow { line, problems, cells: row.cells() };
                report_bytes += row.bytes();
                bad.push(row);
            }
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
    let mut source = Rows::open(bounds.file.open()?, bounds.format, &T::columns())?;
    source.seek(start)?;
    let mut wanted = bad.iter_mut().filter(|row| row.cells.is_empty()).peekable();
    let mut bytes = 0;
    while wanted.peek().is_some() && bytes < FILLED_BYTES {
        let Some(row) = source.next()? else { break };
        if let Some(found) = wanted.next_if(|wanted| wanted.line == row.line()) {
            found.cells = row.cells();
            bytes += found.cells.as_json().len();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use chrono::Utc;
    use linnet_domain::TargetPolicy;
    use linnet_store::ImportLink;

    use super::*;
    use crate::source::MAX_CELL_BYTES;

    fn rules() -> RowRules {
        RowRules {
            targets: TargetPolicy::new(&["https".to_owned()], "http://localhost:8080", &[])
                .unwrap(),
            by_admin: false,
            owner: None,
            null_columns: Vec::new(),
            now: Utc::now(),
        }
    }

    fn bounds_of(path: &Path, text: &str, rows: usize) -> Bounds {
        std::fs::write(path, text).unwrap();
        Bounds {
            file: Arc::new(path.to_owned()),
            format: RowFormat::Csv,
            from: Position::default(),
            rows,
        }
    }

    async fn chunks_of(bounds: &Bounds) -> Vec<Chunk<ImportLink>> {
        let mut reader = read_chunks::<ImportLink>(bounds.clone(), rules());
        let mut chunks = Vec::new();
        while let Some(chunk) = reader.recv().await {
            chunks.push(chunk.unwrap());
        }
        chunks
    }

    /// A file in the folder for temporary files, which is removed when this is dropped.
    struct TestFile(PathBuf);

    impl TestFile {
        fn new(name: &str) -> Self {
            let name = format!("linnet-chunks-{}-{name}.csv", std::process::id());
            Self(std::env::temp_dir().join(name))
        }
    }

    impl Drop for TestFile {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    /// The valid and the bad rows of each chunk.
    fn sizes(chunks: &[Chunk<ImportLink>]) -> Vec<(usize, usize)> {
        chunks.iter().map(|chunk| (chunk.rows.len(), chunk.bad.len())).collect()
    }

    #[tokio::test]
    async fn chunks_have_the_rows_of_the_setting_and_reading_continues_after_any_of_them() {
        let file = TestFile::new("sizes");
        let rows = ["https://example.com\n", "bad\n"].concat().repeat(3);
        let mut bounds = bounds_of(&file.0, &format!("original_url\n{rows}bad\n"), 3);
        let chunks = chunks_of(&bounds).await;
        assert_eq!(sizes(&chunks), [(2, 1), (1, 2), (0, 1)]);
        assert_eq!(
            chunks.iter().map(|chunk| chunk.is_last).collect::<Vec<_>>(),
            [false, false, true]
        );
        let lines = chunks.iter().flat_map(|chunk| &chunk.rows).map(|(line, _)| *line);
        assert_eq!(lines.collect::<Vec<_>>(), [2, 4, 6]);
        for pair in chunks.windows(2) {
            assert_eq!(pair[0].end, pair[1].start);
        }
        bounds.from = chunks[0].end;
        let rest = chunks_of(&bounds).await;
        assert_eq!((sizes(&rest), rest[0].start), (vec![(1, 2), (0, 1)], chunks[1].start));
        // The last row may end a chunk of full size. The end of the file is then a chunk without rows.
        bounds.from = chunks[1].start;
        bounds.rows = 2;
        assert_eq!(sizes(&chunks_of(&bounds).await), [(1, 1), (0, 2), (0, 0)]);
    }

    #[tokio::test]
    async fn chunk_ends_after_2_mib_of_the_file() {
        let file = TestFile::new("bytes");
        let row = |bytes: usize| {
            let url = "https://example.com,";
            format!("{url}{}\n", "x".repeat(bytes - url.len() - 1))
        };
        // Two rows have exactly 2 MiB, or a byte less.
        let rows = [row(1 << 20), row(1 << 20), row(1 << 20), row((1 << 20) - 1), row(1 << 20)];
        let text = format!("original_url,x\n{}", rows.concat());
        let chunks = chunks_of(&bounds_of(&file.0, &text, 100)).await;
        assert_eq!(sizes(&chunks), [(2, 0), (3, 0), (0, 0)]);
    }

    #[tokio::test]
    async fn must_25_chunk_ends_after_1_mib_of_reports() {
        let file = TestFile::new("reports");
        let text = |rows, cell| format!("original_url,x\n{}", format!("bad,{cell}\n").repeat(rows));
        let one = chunks_of(&bounds_of(&file.0, &text(1, "x".to_owned()), 10)).await;
        let others = one[0].bad[0].bytes() - 1;
        let cell = |bytes| "x".repeat(bytes - others);
        let chunks = chunks_of(&bounds_of(&file.0, &text(256, cell(4_096)), 1_000)).await;
        assert_eq!(sizes(&chunks), [(0, 256), (0, 0)], "exactly 1 MiB");
        let chunks = chunks_of(&bounds_of(&file.0, &text(257, cell(4_095)), 1_000)).await;
        assert_eq!(sizes(&chunks), [(0, 257), (0, 0)]);
    }

    #[test]
    fn report_of_a_row_has_the_bytes_of_its_parts() {
        let problem = |column: &str, code: &str, message: &str| RowProblem {
            column: column.to_owned(),
            code: code.to_owned(),
            message: message.to_owned(),
        };
        let row = BadRow {
            line: 1,
            problems: vec![problem("a", "bc", "def"), problem("", "g", "hijk")],
            cells: RowCells::from_json("[\"xyz\"]".to_owned()),
        };
        let fixed = size_of::<BadRow>() + 2 * size_of::<RowProblem>();
        assert_eq!(row.bytes(), fixed + 1 + 2 + 3 + 1 + 4 + 7);
    }

    #[test]
    fn cells_of_refused_rows_are_those_of_their_lines_up_to_2_mib() {
        let file = TestFile::new("cells");
        let bad = |line, cells: &str| BadRow {
            line,
            problems: Vec::new(),
            cells: RowCells::from_json(cells.to_owned()),
        };
        let cells = |bad: &[BadRow]| bad.iter().map(|row| row.cells.to_vec()).collect::<Vec<_>>();
        let bounds = bounds_of(&file.0, "original_url\na\nb\nc\nd\ne\n", 10);
        // The row of line 4 was reported with its cells, and line 9 does not exist.
        let mut rows = [bad(3, ""), bad(4, "[\"known\"]"), bad(6, ""), bad(9, "")];
        let start = Position { offset: "original_url\na\n".len() as u64, line: 3 };
        fill_cells::<ImportLink>(&bounds, start, &mut rows).unwrap();
        assert_eq!(cells(&rows), [vec!["b"], vec!["known"], vec!["e"], vec![]]);
        // Each row has cells of 8 KiB.
        let text = format!("original_url\n{}", format!("{}\n", "x".repeat(9_000)).repeat(300));
        let bounds = bounds_of(&file.0, &text, 10);
        let mut rows: Vec<_> = (2..302).map(|line| bad(line, "")).collect();
        fill_cells::<ImportLink>(&bounds, Position::default(), &mut rows).unwrap();
        assert!(rows[..256].iter().all(|row| row.cells.as_json().len() == 8_192));
        assert!(rows[256..].iter().all(|row| row.cells.is_empty()));
    }

    #[tokio::test]
    async fn must_25_bad_rows_of_a_chunk_are_bounded_whatever_their_cells_are() {
        let names: Vec<String> = (1..1_000).map(|n| format!("c{n}")).collect();
        let header = format!("original_url,{}\n", names.join(","));
        for (name, cell, rows) in
            [("one", "x", 2_000), ("control", "\u{1}", 900), ("none", "", 3_000)]
        {
            let row = format!("no{}\n", format!(",{cell}").repeat(999));
            let file = TestFile::new(name);
            let bounds = bounds_of(&file.0, &(header.clone() + &row.repeat(rows)), 20_000);
            let chunks = chunks_of(&bounds).await;
            let bad: usize = chunks.iter().map(|chunk| chunk.bad.len()).sum();
            assert_eq!(bad, rows, "no row is lost between two chunks");
            assert!(chunks.len() > 2, "{name}");
            for chunk in &chunks {
                let bytes: usize = chunk.bad.iter().map(BadRow::bytes).sum();
                assert!(bytes <= REPORT_BYTES + MAX_CELL_BYTES + 1_024, "{name}: {bytes}");
                // A clone, which is made to write the chunk, shares the cells.
                let clone = chunk.bad.clone();
                let text = |row: &BadRow| row.cells.as_json().as_ptr();
                assert!(chunk.bad.iter().map(text).eq(clone.iter().map(text)));
            }
        }
    }
}
