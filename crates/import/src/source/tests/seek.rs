//! Random files in every format: the reader returns the rows that were written, and can resume after
//! every row.

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::*;

/// A file with the rows that it contains.
struct Made {
    text: Vec<u8>,
    /// Each row with the position after it.
    rows: Vec<(Seen, Position)>,
}

/// Counts the lines that it writes, independently of the reader.
#[derive(Default)]
struct Pen(Vec<u8>);

impl Pen {
    fn write(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    /// The line of the next byte, which must not be an LF.
    fn line(&self) -> u64 {
        let text = String::from_utf8_lossy(&self.0).replace("\r\n", "\n").replace('\r', "\n");
        1 + text.matches('\n').count() as u64
    }

    fn position(&self) -> Position {
        Position { offset: self.0.len() as u64, line: self.line() }
    }
}

const PIECES: [&str; 14] =
    ["a", "b", "12", "é", "☃", "\u{feff}", "\"", ",", "\n", "\r\n", "\r", " ", "]}", "\\"];

fn text(random: &mut StdRng) -> String {
    let count = random.random_range(0..6);
    (0..count).map(|_| *PIECES.choose(random).unwrap()).collect()
}

fn blanks(random: &mut StdRng, of: &[&str]) -> String {
    let count = random.random_range(0..=2) * random.random_range(0..=1);
    (0..count).map(|_| *of.choose(random).unwrap()).collect()
}

fn csv(random: &mut StdRng) -> Made {
    let ends = *[&["\n"][..], &["\r\n"], &["\r"], &["\n", "\r\n", "\r"]].choose(random).unwrap();
    let mut pen = Pen::default();
    if random.random() {
        pen.write("\u{feff}");
    }
    pen.write(&blanks(random, ends));
    pen.write(["id,name", "\"id\",\"name\"", "name,\"ID\""].choose(random).unwrap());
    pen.write(ends.choose(random).unwrap());
    let mut rows = Vec::new();
    for n in 0..random.random_range(0..12) {
        let blank = blanks(random, ends);
        if let Some((_, before)) = rows.last_mut()
            && pen.0.ends_with(b"\r")
            && blank.starts_with('\n')
        {
            // The CR at the end of the row and this LF are one line end, so the row ends after the LF.
            let before: &mut Position = before;
            before.offset += 1;
        }
        pen.write(&blank);
        let line = pen.line();
        let mut cells = vec![n.to_string(), text(random)];
        if random.random_range(0..5) == 0 {
            cells.push(text(random));
        }
        for (at, cell) in cells.iter().enumerate() {
            pen.write(if at > 0 { "," } else { "" });
            if cell.contains(['"', ',', '\n', '\r']) || random.random() {
                pen.write(&format!("\"{}\"", cell.replace('"', "\"\"")));
            } else {
                pen.write(cell);
            }
        }
        let defect = if cells.len() == 2 { "" } else { "field_count" };
        pen.write(ends.choose(random).unwrap());
        rows.push(((line, defect, cells), pen.position()));
    }
    Made { text: pen.0, rows }
}

fn object(random: &mut StdRng, n: u64, space: &[&str]) -> (String, Seen) {
    if random.random_range(0..6) == 0 {
        let (bad, defect) =
            *[("7", "not_an_object"), ("[{}]", "not_an_object"), ("{x}", "malformed_json")]
                .choose(random)
                .unwrap();
        return (bad.to_owned(), (0, defect, vec![bad.to_owned()]));
    }
    let name = text(random);
    let json = serde_json::to_string(&name).unwrap();
    let mut space = || blanks(random, space);
    let members = [
        format!("\"id\"{}:{}{n}", space(), space()),
        format!("\"x\":[{}{{}},\"]\"]", space()),
        format!("\"name\":{}{json}", space()),
        format!("\"details\":{{\"a\":{n}}}"),
    ];
    let text = format!("{{{}{}{}}}", space(), members.join(","), space());
    (text, (0, "", vec![n.to_string(), name, String::new(), format!("{{\"a\":{n}}}")]))
}

fn array(random: &mut StdRng) -> Made {
    let space = [" ", "\n", "\r\n", "\r", "\t"];
    let mut pen = Pen::default();
    pen.write(&format!("{}[{}", blanks(random, &space), blanks(random, &space)));
    let mut rows = Vec::new();
    for n in 0..random.random_range(0..12) {
        if n > 0 {
            pen.write(&format!("{},{}", blanks(random, &space), blanks(random, &space)));
        }
        let line = pen.line();
        let (text, (_, defect, cells)) = object(random, n, &space);
        pen.write(&text);
        rows.push(((line, defect, cells), pen.position()));
    }
    pen.write(&format!("{}]{}", blanks(random, &space), blanks(random, &space)));
    Made { text: pen.0, rows }
}

fn lines(random: &mut StdRng) -> Made {
    let ends = ["\n", "\r\n"];
    let mut pen = Pen::default();
    let mut rows = Vec::new();
    for n in 0..random.random_range(1..12) {
        pen.write(&blanks(random, &[" ", "\n", "\r\n"]));
        let line = pen.line();
        let (text, (_, defect, cells)) = object(random, n, &[" ", "\t"]);
        pen.write(&text);
        pen.write(ends.choose(random).unwrap());
        rows.push(((line, defect, cells), pen.position()));
    }
    Made { text: pen.0, rows }
}

fn check(format: Format, seed: u64, made: &Made, size: usize) {
    let at = format!("{format:?}, seed {seed}, {size} bytes at a time");
    let file = || Pieces { file: Cursor::new(&made.text), size };
    let mut rows = Rows::open(file(), format, &COLUMNS).unwrap();
    let start = rows.position();
    let mut found = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let row = seen(&row);
        found.push((row, rows.position()));
    }
    assert_eq!(found, made.rows, "{at}");
    let expected: Vec<&Seen> = made.rows.iter().map(|(row, _)| row).collect();
    for (index, (_, position)) in made.rows.iter().enumerate().rev() {
        rows.seek(*position).unwrap();
        assert_eq!(rows.position(), *position, "{at}");
        let rest = read_on(&mut rows);
        assert_eq!(rest.iter().collect::<Vec<_>>(), expected[index + 1..], "{at}, row {index}");
        let mut fresh = Rows::open(file(), format, &COLUMNS).unwrap();
        fresh.seek(*position).unwrap();
        assert_eq!(read_on(&mut fresh), rest, "{at}, row {index}, anew");
    }
    for position in [Position::default(), start] {
        rows.seek(position).unwrap();
        assert_eq!(read_on(&mut rows).iter().collect::<Vec<_>>(), expected, "{at}");
    }
}

fn check_many(format: Format, make: fn(&mut StdRng) -> Made) {
    let mut count = 0;
    for seed in 0..400 {
        let mut random = StdRng::seed_from_u64(seed);
        let file = make(&mut random);
        count += file.rows.len();
        for size in [1, random.random_range(2..9), usize::MAX] {
            check(format, seed, &file, size);
        }
    }
    assert!(count > 1_000, "only {count} rows");
}

#[test]
fn csv_resumes_after_every_row() {
    check_many(Format::Csv, csv);
}

#[test]
fn arrays_resume_after_every_element() {
    check_many(Format::Json, array);
}

#[test]
fn ndjson_resumes_after_every_line() {
    check_many(Format::NdJson, lines);
}

#[test]
fn invalid_positions_are_rejected() {
    for format in [Format::Csv, Format::NdJson] {
        let text = "id,name\n1,a\n";
        let mut rows = open(text, format).unwrap();
        for (offset, line) in [(text.len() as u64 + 1, 3), (u64::MAX, 3), (10, 0)] {
            let error = rows.seek(Position { offset, line }).unwrap_err();
            assert_eq!((error.code(), error.is_of_file()), ("position", false));
        }
        assert_eq!(
            read_on(&mut rows)[0].1,
            if format == Format::Csv { "" } else { "malformed_json" }
        );
    }
}
