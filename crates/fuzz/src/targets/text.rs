//! Cells of CSV files, and the rules of single fields.

use chrono::{DateTime, Datelike, SecondsFormat, Timelike, Utc};
use csv_core::{ReadFieldResult, Reader, ReaderBuilder};
use linnet_domain::{
    Email, User, bounded_text,
    formula::{escape_formula, unescape_formula},
    host_name,
    rules::{Boolean, Positive, Rule, Time},
};
use linnet_shortener::http::api::fuzzing::csv_cell;

use super::assert_is_rule;

/// A text in a CSV file: it is read back unchanged, and no program takes it for a formula, whichever separator the
/// program uses.
pub(super) fn formula(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let escaped = escape_formula(text);
    assert_eq!(unescape_formula(&escaped), text);
    assert!(escaped.len() <= 2 * text.len() + 1);
    // A program that ignores quotes begins a cell after each separator, and removes quotes and blanks before a cell.
    for cell in escaped.split([';', '\t', '\r', '\n']) {
        assert!(!begins_formula(cell), "{escaped:?}");
    }
    assert!(!escaped.starts_with(['\t', '\r', '\n']));
    // A cell of another program is unchanged, unless it has an apostrophe before a formula.
    let cell = unescape_formula(text);
    assert!(cell == text || text.contains('\''));
    let file = [csv_cell(text), b",7\r\n".to_vec()].concat();
    assert_eq!(first_field(&file, &mut Reader::new()), escaped.as_bytes());
    // A program that expects semicolons splits the file at other places, and still finds no formula.
    let cell = first_field(&file, &mut ReaderBuilder::new().delimiter(b';').build());
    assert!(!begins_formula(&String::from_utf8_lossy(&cell)), "{escaped:?}");
}

/// Whether a program that removes quotes and blanks before a cell, and reads full-width characters, finds a formula.
fn begins_formula(cell: &str) -> bool {
    let cell = cell.trim_start_matches(|c: char| c == '"' || c == '\u{feff}' || c.is_whitespace());
    cell.starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠'])
}

fn first_field(file: &[u8], reader: &mut Reader) -> Vec<u8> {
    let mut field = vec![0; file.len() + 1];
    let (result, _, written) = reader.read_field(file, &mut field);
    assert!(matches!(result, ReadFieldResult::Field { .. }), "{result:?}");
    field.truncate(written);
    field
}

/// Times, numbers, booleans, e-mail addresses, names and hosts: what is accepted is accepted again when it is printed.
pub(super) fn field_rules(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let rfc3339 = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
    match Time::from_text(text) {
        Ok(time) => {
            // PostgreSQL stores it unchanged, in a year of four digits.
            assert!(time.nanosecond() < 1_000_000_000 && time.nanosecond() % 1_000 == 0, "{text}");
            assert!((0..=9999).contains(&time.year()), "{text}");
            assert_eq!(Time::from_text(&rfc3339(time)), Ok(time), "{text}");
            assert_eq!(Time::from_json(rfc3339(time).into()), Ok(time), "{text}");
        }
        Err(violation) => {
            assert_is_rule(&violation.message);
            // A cell accepts every spelling that a JSON field accepts, and more.
            assert!(Time::from_json(text.into()).is_err(), "{text}");
        }
    }
    if let Ok(number) = Positive::from_text(text) {
        assert!(number > 0);
        assert_eq!(Positive::from_json(number.into()), Ok(number));
    }
    if let Err(violation) = Boolean::from_text(text) {
        assert_eq!(violation.message, Boolean::RULE);
    }
    match Email::parse(text) {
        Ok(email) => {
            assert_eq!(email.as_str(), text);
            assert!(text.chars().count() <= 254 && !text.chars().any(char::is_whitespace));
            // The address cannot add a header to an e-mail.
            assert!(!text.contains(['\r', '\n', ',', '<', '>']), "{text}");
        }
        Err(error) => assert_is_rule(&error.to_string()),
    }
    match bounded_text(text, User::MAX_USERNAME) {
        Ok(name) => {
            assert!(!name.trim().is_empty() && name.chars().count() <= User::MAX_USERNAME);
            assert!(!name.chars().any(char::is_control));
        }
        Err(error) => assert_is_rule(&error.to_string()),
    }
    if let Ok(host) = host_name(text) {
        assert!(!host.is_empty() && host.is_ascii() && !host.ends_with('.'));
        let is_address = host.starts_with('[') && host.ends_with(']');
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        assert!(is_address || host.split('.').all(is_label), "{text}");
        assert_eq!(host_name(&host), Ok(host.clone()), "{text}");
    }
}
