use super::*;

/// The number of rows before the error, and the error's line and message.
fn end(text: &str) -> (usize, u64, String) {
    let mut rows = open(text, Format::Json).unwrap();
    let mut count = 0;
    loop {
        match rows.next() {
            Ok(Some(_)) => count += 1,
            Ok(None) => panic!("{text:?} was read to its end"),
            Err(SourceError::Syntax { line, message }) => {
                assert!(rows.next().is_err(), "the error is repeated");
                return (count, line, message);
            }
            Err(other) => panic!("{text:?}: {other}"),
        }
    }
}

#[test]
fn elements_are_rows() {
    let text = "\u{feff}\r\n [\r\n {\"id\": 1, \"name\": \"a\"} ,{\"name\":\"]},\\\"\",\"id\":2\n}\
                \r,\n\n{\"details\":{\"x\":[{}]},\"name\":\"\\\\\"}\n]\n ";
    let expected = [
        row(3, "", &["1", "a", "", ""]),
        row(3, "", &["2", "]},\"", "", ""]),
        row(7, "", &["", "\\", "", "{\"x\":[{}]}"]),
    ];
    assert_eq!(read(text, Format::Json), expected);
    for text in ["[]", " [ ] "] {
        assert!(read(text, Format::Json).is_empty());
    }
}

#[test]
fn lines_are_rows() {
    let text = "\u{feff}\n{\"id\":1,\"name\":\"a\"}\r\n\r\n \t\n  {\"id\":2}  \n[]\n{\"id\":3}";
    let expected = [
        row(2, "", &["1", "a", "", ""]),
        row(5, "", &["2", "", "", ""]),
        row(6, "not_an_object", &["[]"]),
        row(7, "", &["3", "", "", ""]),
    ];
    assert_eq!(read(text, Format::NdJson), expected);
}

#[test]
fn values_become_text() {
    let of = |json: &str| {
        let text = format!("{{\"note\":{json}}}");
        let of_line = value(&text, Format::NdJson, "note");
        assert_eq!(of_line, value(format!("[{text}]"), Format::Json, "note"));
        of_line.map_err(|defect| (defect.column, defect.code))
    };
    for json in ["1", "1.0", "-0", "1e400", "123456789012345678901234567890", "true", "false"] {
        assert_eq!(of(json), Ok(Some(json.into())));
    }
    assert_eq!(of("null"), Ok(None));
    assert_eq!(of("\"null\""), Ok(Some("null".into())));
    assert_eq!(of("\"\""), Ok(Some(String::new())), "an empty string is a value");
    assert_eq!(of("\"'=1\""), Ok(Some("'=1".into())), "JSON has no protecting apostrophes");
    assert_eq!(of(r#""a\"\\\né\ud834\udd1e""#), Ok(Some("a\"\\\né𝄞".into())));
    assert_eq!(of(r#""\u0000""#), Err(("note", "invalid")));
    assert_eq!(of(r#""\ud834""#), Err(("note", "encoding")));
    assert_eq!(of("{}"), Err(("note", "wrong_type")));
    assert_eq!(of("[1]"), Err(("note", "wrong_type")));
}

#[test]
fn nested_objects_are_returned_as_json() {
    let of = |json: &str| {
        value(format!("{{\"details\": {json} }}"), Format::NdJson, "details")
            .map_err(|defect| (defect.code, defect.message))
    };
    let json = "{ \"a\" : [1.0, null] }";
    assert_eq!(of(json), Ok(Some(json.into())));
    assert_eq!(of("\"{}\""), Ok(Some("{}".into())));
    assert_eq!(of("null"), Ok(None));
    assert_eq!(of("[]"), Err(("wrong_type", "must be an object".into())));
}

#[test]
fn each_object_has_its_own_columns() {
    let text = "{\" Id\":7,\"x\":[{}],\"Clicks\":1,\"n\\u0061me\":null,\"X\":1,\"Other\":1}\n{}";
    let mut rows = open(text, Format::NdJson).unwrap();
    assert_eq!(rows.header(), ["id", "name", "note", "details"]);
    assert!(rows.unknown_columns().is_empty());
    for known in rows.header() {
        assert!(rows.has_column(known));
    }
    assert!(!rows.has_column("clicks") && !rows.has_column("x"));
    let row = rows.next().unwrap().unwrap();
    assert_eq!(row.value("id").unwrap().as_deref(), Some("7"));
    assert!(row.is_given("id") && row.is_given("name") && !row.is_given("note"));
    assert_eq!(row.value("name").unwrap(), None);
    assert!(row.is_null("name") && !row.is_null("id") && !row.is_null("note"));
    let row = rows.next().unwrap().unwrap();
    assert!(!row.is_given("id"), "the previous row had the column");
    assert!(!row.is_null("name"), "the previous row had null");
    assert_eq!(row.value("id").unwrap(), None);
    assert_eq!(rows.unknown_columns(), ["x", "other"]);
}

#[test]
fn a_member_that_is_given_twice_is_a_defect() {
    for (object, column) in [
        ("{\"id\":1,\"id\":2}", "id"),
        ("{\"id\":null,\"id\":2}", "id"),
        ("{\"id\":1,\"name\":\"a\",\"ID \":1,\"name\":\"a\"}", "id"),
        ("{\"n\\u0061me\":\"a\",\"name\":\"a\"}", "name"),
    ] {
        let array = format!("[{object},{{\"id\":3}}]");
        for (text, format) in
            [(array, Format::Json), (format!("{object}\n{{\"id\":3}}"), Format::NdJson)]
        {
            let mut rows = open(&text, format).unwrap();
            let row = rows.next().unwrap().unwrap();
            let defect = row.defect().expect(object);
            assert_eq!((defect.column, defect.code), (column, "repeated"), "{object}");
            assert_eq!(defect.message, "must be given only once");
            assert_eq!(row.cells().to_vec(), [object], "both values are reported");
            assert!(!row.is_given("id") && !row.is_null("id"), "such a row has no values");
            assert_eq!(rows.next().unwrap().unwrap().defect(), None);
        }
    }
    let unknown = "{\"id\":1,\"x\":1,\"x\":2,\"clicks\":1,\"clicks\":2}";
    assert_eq!(read(unknown, Format::NdJson)[0].1, "", "ignored columns may be repeated");
    assert_eq!(read("{\"id\":1,\"id\":}", Format::NdJson)[0].1, "malformed_json");
}

#[test]
fn unknown_names_are_bounded() {
    // Some are longer than a name that is reported.
    let length = |n: usize| if n % 50 == 49 { 2 * MAX_NAME_CHARS } else { n % 10 };
    let names: Vec<String> =
        (0..300).map(|n| format!("\"{}\\u0000{n}\":0", "é".repeat(length(n)))).collect();
    let mut rows = open(format!("[{{{}}}]", names.join(",")), Format::Json).unwrap();
    assert_eq!(rows.next().unwrap().unwrap().defect(), None);
    let unknown = rows.unknown_columns();
    assert_eq!(unknown.len(), MAX_UNKNOWN_COLUMNS);
    assert_eq!(unknown[1], "é\u{fffd}1");
    assert!(unknown.iter().all(|name| name.chars().count() <= MAX_NAME_CHARS));
    let header: Vec<String> = (0..300).map(|n| format!("{}{n}", "X".repeat(length(n)))).collect();
    let rows = open(format!("id,name,{}\n", header.join(",")), Format::Csv).unwrap();
    assert_eq!(rows.header()[4], "xx2");
    assert!(rows.header().iter().all(|name| name.chars().count() <= MAX_NAME_CHARS));
    assert_eq!(rows.unknown_columns().len(), MAX_UNKNOWN_COLUMNS);
}

#[test]
fn bad_elements_are_rows() {
    let code = |element: &str| {
        let rows = read(format!("[{{}}\n,{element}\n,{{\"id\":3}}]"), Format::Json);
        assert_eq!(rows.len(), 3, "{element}");
        assert_eq!((rows[2].0, rows[2].1), (3, ""), "{element}");
        assert_eq!((rows[1].0, &*rows[1].2), (2, &[element.to_owned()][..]));
        rows[1].1
    };
    for element in ["1", "-1.5e3", "true", "null", "\"{\\\"\"", "[]", "[{\"id\":[1]}]"] {
        assert_eq!(code(element), "not_an_object", "{element}");
    }
    for element in [
        "{\"id\"}",
        "{id:1}",
        "{\"id\":1,}",
        "{\"id\":01}",
        "{\"id\":\"\\x\"}",
        "{]",
        "[}",
        "nul",
        "1.",
        "{\"id\":1 \"name\":2}",
        "{'id':1}",
        "\"\\u12\"",
        "{\"id\":\"a\tb\"}",
        "{\"x\":nul}",
    ] {
        assert_eq!(code(element), "malformed_json", "{element}");
    }
    let rows = read(b"[{\"id\":1,\"x\":\"caf\xe9\"},{\"id\":2}]", Format::Json);
    assert_eq!((rows[0].1, rows[1].1), ("encoding", ""));
    let mut rows = open("{}\n{\"id\":\n", Format::NdJson).unwrap();
    rows.next().unwrap();
    let row = rows.next().unwrap().unwrap();
    let message = &row.defect().unwrap().message;
    assert_eq!(message, "must be valid JSON: EOF while parsing a value");
    assert_eq!(read("{} {}\n{\"id\":1}x\n{}", Format::NdJson)[1].1, "malformed_json");
}

#[test]
fn broken_arrays_end_reading() {
    let ends = "the file must not end inside the array";
    let cut = "the file must not end inside the element that begins here";
    let comma = "a comma or `]` must be before this";
    let element = "an element of the array must be before this";
    let behind = "the array must be the end of the file";
    for (text, count, line, message) in [
        ("[", 0, 1, ends),
        ("[\n{}\n", 1, 3, ends),
        ("[{},\n", 1, 2, ends),
        ("[{},\n{\"a\":[\n", 1, 2, cut),
        ("[{},\n\"a\n", 1, 2, cut),
        ("[{},\n{\"a\":\"}]\n\\", 1, 2, cut),
        ("[12", 0, 1, cut),
        ("[{}\n{}]", 1, 2, comma),
        ("[{}\n}]", 1, 2, comma),
        ("[1\n\"a\"]", 1, 2, comma),
        ("[{}\n:1]", 1, 2, comma),
        ("[\n,{}]", 0, 2, element),
        ("[{},\n,{}]", 1, 2, element),
        ("[{},\n]", 1, 2, element),
        ("[\n}", 0, 2, element),
        ("[]\n]", 0, 2, behind),
        ("[{}]\n[{}]", 1, 2, behind),
        ("[{}]\n\u{feff}", 1, 2, behind),
    ] {
        assert_eq!(end(text), (count, line, message.to_owned()), "{text:?}");
    }
    assert_eq!(SourceError::Syntax { line: 7, message: ends.into() }.code(), "malformed_json");
    for text in ["{}", "{\"id\":1}\n", "x", "\"[\"", "id,name\n"] {
        assert_eq!(refusal(text, Format::Json).code(), "not_an_array", "{text}");
    }
}

#[test]
fn limits_are_exact() {
    let object = |bytes: usize| format!("{{\"name\":\"{}\"}}", "x".repeat(bytes - 11));
    for (bytes, defect) in [(MAX_ROW_BYTES, ""), (MAX_ROW_BYTES + 1, "too_long")] {
        let rows = read(format!("[{},\n{{}}]", object(bytes)), Format::Json);
        assert_eq!((rows[0].1, rows[1].0, rows[1].1), (defect, 2, ""));
        for end in ["\n", "\r\n"] {
            let rows = read(format!(" {}{end}{{}}", object(bytes)), Format::NdJson);
            assert_eq!((rows[0].1, rows[1].0, rows[1].1), (defect, 2, ""), "{end:?}");
        }
    }
}

#[test]
fn deeply_nested_elements_do_not_overflow_the_stack() {
    for open in ["[", "{\"a\":"] {
        let depth = 400_000 / open.len();
        let close = if open == "[" { "]" } else { "}" };
        let deep = format!("{}1{}", open.repeat(depth), close.repeat(depth));
        let rows = read(format!("[{deep},{{\"x\":{deep}}},{{\"note\":{deep}}}]"), Format::Json);
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[2].1, "");
        let cut = open.repeat(depth);
        assert_eq!(read(format!("{cut}\n{{}}"), Format::NdJson)[0].1, "malformed_json");
    }
}
