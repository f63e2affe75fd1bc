//! Markdown tables and numbers for people.

use std::fmt::Write as _;

use super::fleet::Fleet;

/// A table with a head. Columns after the first one are aligned to the right.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut out = String::new();
    let mut line = |cells: &[String]| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    };
    line(&head.iter().map(|&cell| cell.to_owned()).collect::<Vec<_>>());
    line(
        &(0..head.len())
            .map(|column| if column == 0 { "---" } else { "---:" }.to_owned())
            .collect::<Vec<_>>(),
    );
    for row in rows {
        line(row);
    }
    out
}

/// A table whose last column is text.
pub fn text_table(head: &[&str], rows: &[Vec<String>]) -> String {
    table(head, rows).replacen("---: |\n", "--- |\n", 1)
}

/// Prose in lines of at most 120 characters.
pub fn prose(text: &str) -> String {
    let (mut out, mut length) = (String::new(), 0);
    for word in text.split(' ') {
        let width = word.chars().count();
        if length > 0 {
            let fits = length + 1 + width <= 120;
            out.push(if fits { ' ' } else { '\n' });
            length = if fits { length + 1 } else { 0 };
        }
        out.push_str(word);
        length += width;
    }
    out.push('\n');
    out
}

/// A number with three significant digits, and thousands separated: 0.0123, 4.56, 789, 12,300.
pub fn number(value: f64) -> String {
    if value.abs() < 1e-12 {
        return "0".to_owned();
    }
    // A small number has at most five digits after the point.
    let magnitude = value.abs().log10().floor();
    let unit = 10_f64.powf(magnitude - 2.0).max(1e-5);
    let rounded = (value / unit).round() * unit;
    let digits =
        [100.0, 10.0, 1.0, 0.1, 0.01].iter().position(|&limit| rounded.abs() >= limit).unwrap_or(5);
    let text = format!("{rounded:.digits$}");
    let text = if digits > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    separated(text)
}

fn separated(text: &str) -> String {
    let (whole, fraction) =
        text.split_once('.').map_or((text, ""), |(whole, fraction)| (whole, fraction));
    let count = whole.chars().count();
    let mut out = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (count - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if !fraction.is_empty() {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

/// A large number in words of size: 10 k, 1 M, 1 B.
pub fn short(value: f64) -> String {
    for (size, word) in [(1e9, " B"), (1e6, " M"), (1e3, " k")] {
        if value >= size {
            return format!("{}{word}", number(value / size));
        }
    }
    number(value)
}

/// GiB, or TiB and PiB if they are shorter.
pub fn gibibytes(value: f64) -> String {
    for (size, word) in [(1_048_576.0, " PiB"), (1_024.0, " TiB")] {
        if value >= size {
            return format!("{}{word}", number(value / size));
        }
    }
    format!("{} GiB", number(value))
}

/// A share of 1 in percent.
pub fn percent(share: f64) -> String {
    format!("{} %", number(100.0 * share))
}

/// The name of a scenario.
pub(super) fn scenario(fleet: &Fleet) -> String {
    format!("{}/s, {} links", short(fleet.rate), short(fleet.links))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        for (value, text) in [
            (0.0, "0"),
            (0.012_34, "0.0123"),
            (4.561, "4.56"),
            (99.96, "100"),
            (789.4, "789"),
            (12_345.0, "12,300"),
            (1_000_000.0, "1,000,000"),
            (0.5, "0.5"),
            (30.0, "30"),
            (0.000_04, "0.00004"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!(short(1e6), "1 M");
        assert_eq!(gibibytes(20_480.0), "20 TiB");
        assert_eq!(percent(0.1234), "12.3 %");
    }

    #[test]
    fn prose_has_lines_of_at_most_120_characters() {
        let text = prose(&"wörd ".repeat(100));
        assert!(text.lines().count() > 4 && text.ends_with('\n'));
        assert!(text.lines().all(|line| line.chars().count() <= 120 && !line.starts_with(' ')));
    }

    #[test]
    fn tables_are_markdown() {
        let text = table(&["a", "b"], &[vec!["1".to_owned(), "2".to_owned()]]);
        assert_eq!(text, "| a | b |\n| --- | ---: |\n| 1 | 2 |\n");
        let text = text_table(&["a", "b", "c"], &[]);
        assert_eq!(text, "| a | b | c |\n| --- | ---: | --- |\n");
    }
}
