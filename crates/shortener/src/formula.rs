//! Text in CSV that a spreadsheet must not run, and its way back.
//!
//! A cell that begins with `=`, `+`, `-`, `@`, a tab or a line break is a formula to spreadsheets, or
//! becomes one, so such text gets an apostrophe in front, which they take as "this is text". Text that
//! begins with apostrophes and then a formula gets one more, so that whoever reads the file can take
//! one away and has what was written.

use std::borrow::Cow;

const FORMULA: [char; 7] = ['=', '+', '-', '@', '\t', '\r', '\n'];

/// Text as it stands in a cell.
pub(crate) fn escape_formula(text: &str) -> Cow<'_, str> {
    if is_formula(text) { Cow::Owned(format!("'{text}")) } else { Cow::Borrowed(text) }
}

/// The inverse of [`escape_formula`]; text that it would not write stays as it is.
#[cfg_attr(not(test), expect(dead_code, reason = "for what reads files"))]
pub(crate) fn unescape_formula(text: &str) -> Cow<'_, str> {
    match text.strip_prefix('\'') {
        Some(rest) if is_formula(rest) => Cow::Borrowed(rest),
        _ => Cow::Borrowed(text),
    }
}

fn is_formula(text: &str) -> bool {
    text.trim_start_matches('\'').starts_with(FORMULA)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn must_10_what_is_written_is_no_formula_and_reads_back() {
        for text in ["=1", "+1", "-1", "@A", "\t=1", "\r", "\n", "'=1", "''-1", "'''@", "'\t"] {
            let cell = escape_formula(text);
            assert_eq!(cell, format!("'{text}"));
            assert_eq!(unescape_formula(&cell), text);
        }
        for text in ["", "a=1", "'", "''", "'a", "1", " =1", "Zürich", "'a=1"] {
            assert_eq!(escape_formula(text), text);
            assert_eq!(unescape_formula(text), text);
        }
    }

    #[test]
    fn different_texts_have_different_cells() {
        let texts = ["=1", "'=1", "''=1", "'''=1", "1", "'1", "'", "''"];
        let cells: std::collections::HashSet<_> = texts.iter().map(|t| escape_formula(t)).collect();
        assert_eq!(cells.len(), texts.len());
    }
}
