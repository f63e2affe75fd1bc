use super::*;

fn csv(text: impl AsRef<[u8]>) -> Vec<Seen> {
    read(text, Format::Csv)
}

#[test]
fn lines_are_counted_for_every_line_end() {
    for end in ["\n", "\r\n", "\r"] {
        let text = "id,name|1,a||2,\"b|c||\"|\"3\",d|||4,e|".replace('|', end);
        let inside = format!("b{end}c{end}{end}");
        let expected = vec![
            row(2, "", &["1", "a"]),
            row(4, "", &["2", &inside]),
            row(8, "", &["3", "d"]),
            row(11, "", &["4", "e"]),
        ];
        for prefix in ["", "\u{feff}"] {
            assert_eq!(csv(format!("{prefix}{text}")), expected, "{end:?}");
            let cut = text.strip_suffix(end).unwrap();
            assert_eq!(csv(format!("{prefix}{cut}")), expected, "{end:?}, none at the end");
        }
    }
    assert_eq!(csv("id,name\n1,"), [row(2, "", &["1", ""])]);
    let mixed = "\n\r\nid,name\r\n1,a\n\r\n\n\r2,b\r3,\"\r\n\r\"\n4,d\r\n";
    let lines: Vec<u64> = csv(mixed).into_iter().map(|(line, ..)| line).collect();
    assert_eq!(lines, [4, 8, 9, 12]);
}

#[test]
fn rows_of_empty_cells_before_the_header_are_blank_lines() {
    for blank in [",,", ";;;", "\"\",\"\"", "\"\"", "\t\t", "\"\"\t\"\"", " , ", "  "] {
        for end in ["\n", "\r\n", "\r"] {
            let blanks = format!("{blank}{end}{end}{blank}{end}");
            for (header, first) in [("id,name", "1,a"), ("id;name", "1;a"), ("id\tname", "1\ta")] {
                let text = format!("{blanks}{header}{end}{first}{end}");
                let expected = [row(5, "", &["1", "a"])];
                assert_eq!(csv(&text), expected, "{text:?}");
                assert_eq!(csv(format!("\u{feff}{text}")), expected, "{text:?}");
                let file = Pieces { file: Cursor::new(text.as_bytes()), size: 1 };
                let mut rows = Rows::open(file, Format::Csv, &COLUMNS).unwrap();
                assert_eq!(read_on(&mut rows), expected, "{text:?} in pieces");
                rows.seek(Position::default()).unwrap();
                assert_eq!(read_on(&mut rows), expected, "{text:?} again");
            }
            for text in [blanks.clone(), blank.to_owned()] {
                let error = refusal(&text, Format::Csv);
                assert_eq!((error.code(), error.field()), ("empty_file", "file"), "{text:?}");
            }
        }
    }
    assert_eq!(csv("sep=;\r\n;;\r\nid;name\r\n1;a\r\n"), [row(4, "", &["1", "a"])]);
    assert_eq!(csv(";;\nsep=;\nid;name\n1;a\n"), [row(4, "", &["1", "a"])]);
    assert_eq!(refusal("sep=;\n;;\n", Format::Csv).code(), "empty_file");
    for text in [",x,\nid,name\n", "\"\"\"\"\nid,name\n", "\"\n\"\nid,name\n"] {
        assert_eq!(refusal(text, Format::Csv).code(), "missing_columns", "{text:?}");
    }
    let wide = ",".repeat(MAX_COLUMNS - 1);
    assert_eq!(csv(format!("{wide}\nid,name\n1,a\n")), [row(3, "", &["1", "a"])]);
    let many = ",,\n".repeat(100_000);
    assert_eq!(csv(format!("{many}id;name\n1;a\n")), [row(100_002, "", &["1", "a"])]);
}

#[test]
fn the_file_is_read_ahead_only_for_the_line_that_is_recognized() {
    let unread = |text: &str| {
        let file = Pieces { file: Cursor::new(text.as_bytes()), size: 1 };
        let mut input = Input::new(file).unwrap();
        sniff::skip_blank_lines(&mut input).unwrap();
        (input.place().line, input.fill().unwrap().len())
    };
    assert_eq!(unread(",,\n\nid,name\n1,a\n"), (3, "id,name\n".len()));
    // Longer lines are not blank, whether they are read as a whole or in pieces.
    for (blanks, line) in [(sniff::FORMAT_BYTES - 1, 2), (sniff::FORMAT_BYTES, 1)] {
        let text = format!("{}\nid,name\n1,a\n", " ".repeat(blanks));
        assert_eq!(unread(&text).0, line, "{blanks}");
        let mut input = Input::new(Cursor::new(&text)).unwrap();
        sniff::skip_blank_lines(&mut input).unwrap();
        assert_eq!(input.place().line, line, "{blanks}");
    }
    assert_eq!(unread(&" ".repeat(2 * sniff::FORMAT_BYTES)), (1, sniff::FORMAT_BYTES));
}

#[test]
fn a_header_may_have_several_lines() {
    assert_eq!(csv("id,name,\"a\r\nb\r\n\"\r\n1,x,y\r\n"), [row(4, "", &["1", "x", "y"])]);
}

#[test]
fn columns_may_be_in_any_order_and_case() {
    let text = "\u{feff}\"Note\", NAME ,Extra,iD,clicks,extra,\n\"a,\"\"b\",x,,1,9,,\n";
    let mut rows = open(text, Format::Csv).unwrap();
    assert_eq!(rows.header(), ["note", "name", "extra", "id", "clicks", "extra", ""]);
    assert_eq!(rows.unknown_columns(), ["extra", ""]);
    assert!(rows.has_column("note"));
    for absent in ["details", "clicks", "extra"] {
        assert!(!rows.has_column(absent), "{absent}");
    }
    let row = rows.next().unwrap().unwrap();
    assert_eq!(row.value("id").unwrap().as_deref(), Some("1"));
    assert_eq!(row.value("note").unwrap().as_deref(), Some("a,\"b"));
    assert_eq!(row.value("details").unwrap(), None);
    assert!(row.is_given("note") && !row.is_given("details") && !row.is_given("extra"));
    assert!(!row.is_null("note") && !row.is_null("details"), "a CSV file has no null");
    assert_eq!(row.cells().to_vec(), ["a,\"b", "x", "", "1", "9", "", ""]);
}

#[test]
fn a_byte_order_mark_in_a_row_is_text() {
    let text = "id,name\n\u{feff}1,a\n\u{feff}2,b\n";
    let expected = [row(2, "", &["\u{feff}1", "a"]), row(3, "", &["\u{feff}2", "b"])];
    assert_eq!(csv(text), expected);
    let mut rows = open(text, Format::Csv).unwrap();
    rows.next().unwrap();
    rows.seek(rows.position()).unwrap();
    assert_eq!(read_on(&mut rows), expected[1..]);
}

#[test]
fn fields_with_nul_are_invalid() {
    let of = |name: &[u8]| {
        let text = [b"id,name\n1,", name, b"\n"].concat();
        value(text, Format::Csv, "name").map_err(|defect| (defect.column, defect.code))
    };
    assert_eq!(of(b""), Ok(None));
    assert_eq!(of(b"\"\""), Ok(None));
    assert_eq!(of(b" "), Ok(Some(" ".into())));
    assert_eq!(of("Zürich ☃".as_bytes()), Ok(Some("Zürich ☃".into())));
    assert_eq!(of(b"caf\xe9"), Err(("name", "encoding")));
    assert_eq!(of(b"a\0b"), Err(("name", "invalid")));
    assert_eq!(of(b"'=1+1"), Ok(Some("=1+1".into())));
    assert_eq!(of(b"''@"), Ok(Some("'@".into())));
    assert_eq!(of(b"=1+1"), Ok(Some("=1+1".into())));
    assert_eq!(of(b"'tis"), Ok(Some("'tis".into())));
    assert_eq!(of(b"\"'\n\""), Ok(Some("\n".into())));
}

#[test]
fn cells_are_reported_as_text() {
    let rows = csv(b"id,name\n1\0,caf\xe9\n'=1,'a\n");
    assert_eq!(rows[0].2, ["1\u{fffd}", "caf\u{fffd}"]);
    assert_eq!(rows[1].2, ["=1", "'a"]);
}

#[test]
fn rows_of_another_width_are_reported_and_skipped() {
    let mut rows = open("id,name\n1\n2,b\n3,c,d\n4,e\n", Format::Csv).unwrap();
    let short = rows.next().unwrap().unwrap();
    assert_eq!(short.defect().unwrap().message, "must have 2 fields, not 1");
    assert_eq!(short.value("id").unwrap_err().code, "field_count");
    assert!(!short.is_given("id"));
    let expected =
        [row(3, "", &["2", "b"]), row(4, "field_count", &["3", "c", "d"]), row(5, "", &["4", "e"])];
    assert_eq!(read_on(&mut rows), expected);
}

#[test]
fn an_unclosed_quote_is_reported() {
    for (text, defect) in [
        ("\"b", "unclosed_quote"),
        ("\"b\"\"", "unclosed_quote"),
        ("\"b\n3,c\n", "unclosed_quote"),
        ("\"", "unclosed_quote"),
        ("\"b\"", ""),
        ("\"b\"\"\"", ""),
        ("\"b\"c", ""),
        ("b\"", ""),
    ] {
        let rows = csv(format!("id,name\n1,a\n2,{text}"));
        assert_eq!(rows.len(), 2, "{text:?}");
        assert_eq!((rows[1].0, rows[1].1), (3, defect), "{text:?}");
    }
    let error = refusal("id,\"name\n1,a\n", Format::Csv);
    assert_eq!((error.code(), error.field()), ("unclosed_quote", "header"));
}

#[test]
fn invalid_headers_are_rejected() {
    let of = |text: &[u8]| {
        let error = refusal(text, Format::Csv);
        assert_eq!(error.field(), "header");
        assert!(error.is_of_file());
        (error.code(), error.to_string())
    };
    assert_eq!(of(b"note\n1\n"), ("missing_columns", "must have the columns `id`, `name`".into()));
    assert_eq!(of(b"Id"), ("missing_columns", "must have the columns `name`".into()));
    let twice = "must have the column `id` only once";
    assert_eq!(of(b"id,name, ID\n"), ("repeated_column", twice.into()));
    let twice = "must have the column `note` only once";
    assert_eq!(of(b"id,note,name,note\n"), ("repeated_column", twice.into()));
    assert_eq!(of(b"id,name,caf\xe9\n").0, "encoding");
}

#[test]
fn headers_of_other_formats_are_named() {
    for (text, code, field, cause) in [
        ("id|name|note\n1|a|b\n", "missing_columns", "header", "not by `|`"),
        ("\"id\" | \"name\"\n", "missing_columns", "header", "not by `|`"),
        (
            "[{\"id\":1,\"name\":\"a\"}]",
            "unsupported_format",
            "file",
            "is JSON that was sent as CSV",
        ),
        ("\n {\"id\":1}\n", "unsupported_format", "file", "is JSON or NDJSON"),
        ("<!DOCTYPE html>\n<html>", "unsupported_format", "file", "is HTML or XML"),
        ("\u{feff}<?xml version=\"1.0\"?>", "unsupported_format", "file", "is HTML or XML"),
        ("GIF\0\0\n", "unsupported_format", "file", "is binary data"),
        ("aa\0,bb\0\n", "unsupported_format", "file", "is binary data"),
        ("a|b\n", "missing_columns", "header", "`id`, `name`"),
    ] {
        let error = refusal(text, Format::Csv);
        assert_eq!((error.code(), error.field()), (code, field), "{text:?}");
        assert!(error.to_string().contains(cause), "{text:?}: {error}");
    }
    for text in ["a|b\n", "id|x,note\n", "note,x\n"] {
        let error = refusal(text, Format::Csv);
        let is_pipe = matches!(error, SourceError::PipeDelimiter(_));
        assert_eq!(is_pipe, text.starts_with("id|"), "{text:?}: {error}");
    }
    // A file with the columns may have other text in its header.
    assert_eq!(csv("<b>,id,name,a|b\nx,1,a,y\n").len(), 1);
}

#[test]
fn limits_are_exact() {
    let wide = |fields: usize| format!("id,name{}\n", ",x".repeat(fields - 2));
    let rows = csv(format!("{}{}", wide(MAX_COLUMNS), wide(MAX_COLUMNS)));
    assert_eq!((rows[0].1, rows[0].2.len()), ("", MAX_COLUMNS));
    assert_eq!(refusal(wide(MAX_COLUMNS + 1), Format::Csv).code(), "too_many_columns");
    for end in ["\n", "\r\n", ""] {
        let long = |bytes: usize| format!("1,\"{}\"{end}", "x".repeat(bytes - 4));
        let rows = csv(format!("id,name\n{}", long(MAX_ROW_BYTES)));
        assert_eq!(rows[0].1, "", "{end:?}");
        let rows = csv(format!("id,name\n{}", long(MAX_ROW_BYTES + 1)));
        assert_eq!(rows[0].1, "too_long", "{end:?}");
    }
    // A record that is one field, and so needs as many bytes as it has in the file.
    for (bytes, defect) in [(MAX_ROW_BYTES, "field_count"), (MAX_ROW_BYTES + 1, "too_long")] {
        let rows = csv(format!("id,name\n{}\n2,b\n", "x".repeat(bytes)));
        assert_eq!((rows[0].1, rows[1].1), (defect, ""), "{bytes}");
    }
    let names = |bytes: usize| {
        let names = vec!["n".repeat(MAX_NAME_CHARS); bytes / MAX_NAME_CHARS];
        format!("id,name,{},{}\n", names.join(","), "n".repeat(bytes % MAX_NAME_CHARS))
    };
    let most = MAX_HEADER_BYTES - "idname".len();
    assert!(csv(names(most)).is_empty());
    assert_eq!(refusal(names(most + 1), Format::Csv).code(), "header_too_long");
    let long = format!("id,name,{}\n", "x".repeat(MAX_ROW_BYTES));
    assert_eq!(refusal(long, Format::Csv).code(), "header_too_long");
}
