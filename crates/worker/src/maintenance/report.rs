//! What a run did, in words.

use std::fmt;

/// Counts, each with what was counted; written `3 link(s) deleted`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report(Vec<(u64, &'static str)>);

impl Report {
    /// One count.
    pub fn of(count: u64, what: &'static str) -> Self {
        Self::default().and(count, what)
    }

    /// A further count.
    #[must_use]
    pub fn and(mut self, count: u64, what: &'static str) -> Self {
        self.0.push((count, what));
        self
    }

    /// Whether anything was done.
    pub fn has_work(&self) -> bool {
        self.0.iter().any(|(count, _)| *count > 0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return formatter.write_str("nothing to do");
        }
        for (place, (count, what)) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(formatter, "{comma}{count} {what}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_its_counts() {
        assert_eq!(Report::default().to_string(), "nothing to do");
        let report = Report::of(0, "job(s) deleted");
        assert!(!report.has_work());
        let report = report.and(2, "upload(s) deleted");
        assert!(report.has_work());
        assert_eq!(report.to_string(), "0 job(s) deleted, 2 upload(s) deleted");
    }
}
