//! Protection against formula injection in CSV files.
//!
//! * Spreadsheets run a cell that begins with `=`, `+`, `-`, `@`, a tab or a line break. An export puts an
//!   apostrophe before such text, which spreadsheets then show as text. An import removes the apostrophe.
//! * If text has apostrophes before such a character, an export adds one more, so that every text round-trips.

use std::borrow::Cow;

const STARTERS: [char; 7] = ['=', '+', '-', '@', '\t', '\r', '\n'];

fn is_formula_like(text: &str) -> bool {
    text.trim_start_matches('\'').starts_with(STARTERS)
}

/// The cell for a text.
pub fn escape_formula(text: &str) -> Cow<'_, str> {
    if is_formula_like(text) { format!("'{text}").into() } else { text.into() }
}

/// The text of a cell: the inverse of [`escape_formula`]. A cell that another program wrote without the apostrophe
/// is returned unchanged.
pub fn unescape_formula(cell: &str) -> &str {
    cell.strip_prefix('\'').filter(|text| is_formula_like(text)).unwrap_or(cell)
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
            ("\t=1", "'\t=1"),
            ("\r=1", "'\r=1"),
            ("\n=1", "'\n=1"),
            ("'=1", "''=1"),
            ("", ""),
            ("'", "'"),
            ("'a", "'a"),
            ("a=1", "a=1"),
            (" =1", " =1"),
            ("é", "é"),
        ] {
            assert_eq!(escape_formula(text), cell, "{text:?}");
            assert_eq!(unescape_formula(cell), text, "{cell:?}");
        }
    }

    #[test]
    fn unescaping_removes_only_an_apostrophe_that_protects_a_formula() {
        for cell in ["=1", "-5", "'", "''", "'a", "''a", "'é=", "' =1"] {
            assert_eq!(unescape_formula(cell), cell);
        }
        assert_eq!(unescape_formula("''@"), "'@", "one apostrophe is removed");
    }

    #[test]
    fn every_text_round_trips() {
        let characters = ['\'', '=', '+', '-', '@', '\t', '\r', '\n', 'a', ' ', 'é', ',', '"'];
        let mut texts = vec![String::new()];
        for length in 0..4 {
            let longer = |text: &String| characters.map(|next| format!("{text}{next}"));
            let from = texts.iter().position(|text| text.chars().count() == length).unwrap();
            texts.extend(texts[from..].iter().flat_map(longer).collect::<Vec<_>>());
        }
        assert_eq!(texts.len(), 1 + 13 + 13 * 13 + 13 * 13 * 13 + 13 * 13 * 13 * 13);
        for text in texts {
            let cell = escape_formula(&text);
            assert!(!cell.starts_with(STARTERS), "{cell:?} is a formula");
            assert_eq!(unescape_formula(&cell), text);
        }
    }
}
