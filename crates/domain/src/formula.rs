//! Protection against formula injection in CSV files.
//!
//! * Spreadsheets run a cell that begins with `=`, `+`, `-`, `@`, a tab or a line break. An export puts an
//!   apostrophe before such text, which spreadsheets then show as text. An import removes the apostrophe.
//! * A spreadsheet with other regional settings splits at semicolons or tabs, ignores the quotes around our cells, and
//!   begins a row at each line break. A formula after such a character within a cell therefore gets an apostrophe too.
//!   A formula after a comma does not: programs that split at commas respect the quotes, and URLs of maps contain `,-`.
//! * Spreadsheets remove blanks and quotes before a formula, and a Japanese or Chinese one also runs a formula that begins
//!   with a full-width character such as `＝`.
//! * If text has apostrophes before such a character, an export adds one more, so that every text round-trips.

use std::borrow::Cow;

/// The characters with which a formula begins.
const STARTERS: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];
/// The characters after which some program begins another cell. At the beginning of a cell, all but `;` count as
/// starters too.
const SEPARATORS: [char; 4] = [';', '\t', '\r', '\n'];

/// Whether programs remove the character from the beginning of a cell: apostrophes, quotes, blanks, control characters
/// and characters without width.
fn is_removed(c: char) -> bool {
    let is_mark = matches!(c, '\'' | '"' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}');
    (is_mark || c.is_whitespace() || c.is_control()) && !SEPARATORS.contains(&c)
}

/// Whether a program could take the text for a formula, if a cell begins with it.
fn is_formula_like(text: &str, is_first: bool) -> bool {
    let rest = text.trim_start_matches(is_removed);
    rest.starts_with(STARTERS) || (is_first && rest.starts_with(['\t', '\r', '\n']))
}

/// The places at which a program could begin a cell, each with whether it is the first one.
fn places(text: &str) -> impl Iterator<Item = (usize, bool)> {
    let after = text.match_indices(SEPARATORS).map(|(at, separator)| (at + separator.len(), false));
    std::iter::once((0, true)).chain(after)
}

/// The text as a cell, with an apostrophe at each place where a program could find a formula.
pub fn escape_formula(text: &str) -> Cow<'_, str> {
    let is_dangerous = |(at, is_first): &(usize, bool)| {
        text.get(*at..).is_some_and(|rest| is_formula_like(rest, *is_first))
    };
    let mut places = places(text).filter(is_dangerous).peekable();
    if places.peek().is_none() {
        return text.into();
    }
    let mut cell = String::with_capacity(text.len() + 1);
    let mut done = 0;
    for (at, _) in places {
        cell.push_str(text.get(done..at).unwrap_or_default());
        cell.push('\'');
        done = at;
    }
    cell.push_str(text.get(done..).unwrap_or_default());
    cell.into()
}

/// The text of a cell: the inverse of [`escape_formula`]. A cell that another program wrote without apostrophes is
/// returned unchanged.
pub fn unescape_formula(cell: &str) -> Cow<'_, str> {
    let is_protected = |(at, is_first): &(usize, bool)| {
        let rest = cell.get(*at..).and_then(|rest| rest.strip_prefix('\''));
        rest.is_some_and(|rest| is_formula_like(rest, *is_first))
    };
    let mut places = places(cell).filter(is_protected).peekable();
    if places.peek().is_none() {
        return cell.into();
    }
    let mut text = String::with_capacity(cell.len());
    let mut done = 0;
    for (at, _) in places {
        text.push_str(cell.get(done..at).unwrap_or_default());
        done = at + 1;
    }
    text.push_str(cell.get(done..).unwrap_or_default());
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn must_10_no_cell_begins_a_formula() {
        for (text, cell) in [
            ("=1+1", "'=1+1"),
            ("+49", "'+49"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\t'=1"),
            ("\r=1", "'\r'=1"),
            ("\n=1", "'\n'=1"),
            ("'=1", "''=1"),
            ("", ""),
            ("'", "'"),
            ("'a", "'a"),
            ("a=1", "a=1"),
            (" =1", "' =1"),
            ("\u{a0}=1", "'\u{a0}=1"),
            ("\u{3000}\u{feff}\0@x", "'\u{3000}\u{feff}\0@x"),
            (" a=1", " a=1"),
            ("a; =1;\u{a0}\" -1", "a;' =1;'\u{a0}\" -1"),
            ("\t =1", "'\t' =1"),
            (" \t=1", "' \t'=1"),
            ("＝1", "'＝1"),
            ("＋1", "'＋1"),
            ("－1", "'－1"),
            ("＠SUM(A1)", "'＠SUM(A1)"),
            ("a; ＝1\n＋1", "a;' ＝1\n'＋1"),
            ("a＝1", "a＝1"),
            ("é", "é"),
            ("\"=1", "'\"=1"),
            ("a;=1+1", "a;'=1+1"),
            ("a;\"=1\";b", "a;'\"=1\";b"),
            ("a\t@x\n-1\r+1", "a\t'@x\n'-1\r'+1"),
            ("=1;=2", "'=1;'=2"),
            ("a;'=1", "a;''=1"),
            ("a;b=1\n\nc", "a;b=1\n\nc"),
            ("https://maps.example/@47.3,-122.4,15z", "https://maps.example/@47.3,-122.4,15z"),
        ] {
            assert_eq!(escape_formula(text), cell, "{text:?}");
            assert_eq!(unescape_formula(cell), text, "{cell:?}");
        }
    }

    #[test]
    fn unescaping_removes_only_an_apostrophe_that_protects_a_formula() {
        for cell in ["=1", "-5", " =1", "＝1", "'", "''", "'a", "''a", "'é=", "' a=1"] {
            assert_eq!(unescape_formula(cell), cell);
        }
        assert_eq!(unescape_formula("''@"), "'@", "one apostrophe is removed");
    }

    #[test]
    fn every_text_round_trips() {
        let characters =
            ['\'', '=', '+', '-', '@', '\t', '\r', '\n', 'a', ' ', 'é', ';', '"', '＝', '\u{a0}'];
        let mut texts = vec![String::new()];
        for length in 0..4 {
            let longer = |text: &String| characters.map(|next| format!("{text}{next}"));
            let from = texts.iter().position(|text| text.chars().count() == length).unwrap();
            texts.extend(texts[from..].iter().flat_map(longer).collect::<Vec<_>>());
        }
        assert_eq!(texts.len(), 1 + 15 + 15 * 15 + 15 * 15 * 15 + 15 * 15 * 15 * 15);
        for text in texts {
            let cell = escape_formula(&text);
            for piece in cell.split(SEPARATORS) {
                let piece = piece.trim_start_matches(['"', ' ', '\u{a0}']);
                assert!(!piece.starts_with(STARTERS), "{cell:?} has a formula");
            }
            assert!(!cell.starts_with(['\t', '\r', '\n']), "{cell:?} is a formula");
            assert_eq!(unescape_formula(&cell), text);
        }
    }
}
