//! Text in CSV files that spreadsheets would run.
//!
//! A cell that begins with `=`, `+`, `-`, `@`, a tab or a line break is a formula to spreadsheets, or
//! becomes one, so what we write gets an apostrophe in front, which they take as "this is text". What
//! we read loses it again. Text that has apostrophes there of its own gets one more, so that every
//! text comes back as it was.

use std::borrow::Cow;

const STARTERS: [char; 7] = ['=', '+', '-', '@', '\t', '\r', '\n'];

fn is_formula_like(text: &str) -> bool {
    text.trim_start_matches('\'').starts_with(STARTERS)
}

/// The cell that stands for this text.
pub fn escape_formula(text: &str) -> Cow<'_, str> {
    if is_formula_like(text) { format!("'{text}").into() } else { text.into() }
}

/// The text that this cell stands for: the inverse of [`escape_formula`]. Cells that were written by
/// others, without the apostrophe, stay as they are.
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
    fn cells_of_others_lose_only_what_protects_a_formula() {
        for cell in ["=1", "-5", "'", "''", "'a", "''a", "'é=", "' =1"] {
            assert_eq!(unescape_formula(cell), cell);
        }
        assert_eq!(unescape_formula("''@"), "'@", "one of them");
    }

    #[test]
    fn every_text_comes_back() {
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
