//! The result of a maintenance run: what was processed, and how much of it.

use std::fmt;

/// Counts with their descriptions, displayed as `3 link(s) deleted`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report(Vec<(u64, &'static str)>);

impl Report {
    /// A report with one count.
    pub fn of(count: u64, what: &'static str) -> Self {
        Self::default().and(count, what)
    }

    /// Adds a count.
    #[must_use]
    pub fn and(mut self, count: u64, what: &'static str) -> Self {
        self.0.push((count, what));
        self
    }

    /// Whether a count is above 0.
    pub fn has_work(&self) -> bool {
        self.0.iter().any(|(count, _)| *count > 0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return formatter.write_str("nothing to do");
        }
        for (position, (count, what)) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { ", " };
            write!(formatter, "{separator}{count} {what}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_lists_its_counts() {
        assert_eq!(Report::default().to_string(), "nothing to do");
        let report = Report::of(0, "job(s) deleted");
        assert!(!report.has_work());
        let report = report.and(2, "upload(s) deleted");
        assert!(report.has_work());
        assert_eq!(report.to_string(), "0 job(s) deleted, 2 upload(s) deleted");
    }
}
