//! The most memory that a process can use, computed from its settings.
//!
//! * A [`MemoryBudget`] is a list of terms: how many of something there can be, and how many bytes one takes.
//! * Each process builds its list beside its settings, from the same values that bound the things at run time.
//! * A process whose sum exceeds its limit does not start. The limit is the setting if it is above 0, otherwise that of
//!   the control group.
//! * `docs/ARCHITECTURE.md` names the sizes that were measured; the others are estimates.

use std::fmt;

use crate::settings::Problems;

/// Bytes of a KiB, for sizes in terms.
pub const KIB: u64 = 1024;
/// Bytes of a MiB.
pub const MIB: u64 = 1024 * KIB;

/// Bytes of an idle connection to a listener: one resident page of each of its two buffers, the task, and the kernel's
/// socket. Measured with 500 idle connections.
pub const IDLE_CONNECTION_BYTES: u64 = 12 * KIB;
/// Bytes of a connection to a Redis or PostgreSQL server with its buffers and statements.
pub const STORE_CONNECTION_BYTES: u64 = 96 * KIB;
/// Lines that wait for a slow log file or pipe, with their average size.
pub const LOG_BYTES: (u64, u64) = (linnet_telemetry::QUEUED_LOG_LINES as u64, 640);
/// Spans that wait for their export (the SDK's `OTEL_BSP_MAX_QUEUE_SIZE`), with their average size.
pub const SPAN_BYTES: (u64, u64) = (2_048, KIB);
/// Memory that the allocator holds in addition, in percent of the process's data: free blocks that it has not returned.
const ALLOCATOR_PERCENT: u64 = 10;

/// One line of a budget.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    name: &'static str,
    count: u64,
    bytes_each: u64,
}

impl Term {
    fn bytes(&self) -> u64 {
        self.count.saturating_mul(self.bytes_each)
    }
}

/// The terms of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryBudget {
    process: &'static str,
    terms: Vec<Term>,
}

impl MemoryBudget {
    /// A budget that has only the program itself: its idle memory with code, stacks and tables.
    pub fn new(process: &'static str, base_bytes: u64) -> Self {
        Self {
            process,
            terms: vec![Term { name: "idle process", count: 1, bytes_each: base_bytes }],
        }
    }

    /// Adds a term: `count` items of `bytes_each` bytes.
    #[must_use]
    pub fn with(mut self, name: &'static str, count: usize, bytes_each: u64) -> Self {
        self.terms.push(Term { name, count: count as u64, bytes_each });
        self
    }

    /// Adds the queues that every process has: log lines, and spans if they are exported.
    #[must_use]
    pub fn with_telemetry(self, exports_spans: bool) -> Self {
        let (lines, line_bytes) = LOG_BYTES;
        let (spans, span_bytes) = if exports_spans { SPAN_BYTES } else { (0, SPAN_BYTES.1) };
        let mut budget = self;
        for (name, count, bytes_each) in
            [("queued log lines", lines, line_bytes), ("queued spans", spans, span_bytes)]
        {
            budget.terms.push(Term { name, count, bytes_each });
        }
        budget
    }

    fn data_bytes(&self) -> u64 {
        self.terms.iter().skip(1).fold(0, |sum, term| sum.saturating_add(term.bytes()))
    }

    fn allocator_bytes(&self) -> u64 {
        self.data_bytes() / 100 * ALLOCATOR_PERCENT
    }

    /// The sum of all terms, in bytes.
    pub fn total(&self) -> u64 {
        let base = self.terms.first().map_or(0, Term::bytes);
        base.saturating_add(self.data_bytes()).saturating_add(self.allocator_bytes())
    }

    /// Adds a problem with `key` if the sum exceeds `limit` bytes. The message names the largest terms, which are what
    /// an operator can lower.
    pub fn check(&self, key: &str, limit: u64, problems: &mut Problems) {
        let total = self.total();
        if total <= limit {
            return;
        }
        let mut largest: Vec<&Term> = self.terms.iter().skip(1).collect();
        largest.sort_by_key(|term| std::cmp::Reverse(term.bytes()));
        let largest: Vec<String> = largest
            .iter()
            .take(3)
            .map(|term| format!("{} {}", term.name, in_mib(term.bytes())))
            .collect();
        problems.add(
            key,
            format!(
                "must be at least {total}: the other settings allow the {} to use {}, of which {}; \
                 lower them or raise the limit of {}",
                self.process,
                in_mib(total),
                largest.join(", "),
                in_mib(limit)
            ),
        );
    }
}

/// Rounds up, so that a sum never looks smaller than it is.
fn in_mib(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10).div_ceil(MIB);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

/// The table that the command `budget` prints. The last line is `total BYTES`, for scripts.
impl fmt::Display for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:32} {:>9} {:>12} {:>11}", self.process, "count", "bytes each", "sum")?;
        for Term { name, count, bytes_each } in &self.terms {
            let sum = in_mib(count.saturating_mul(*bytes_each));
            writeln!(f, "{name:32} {count:>9} {bytes_each:>12} {sum:>11}")?;
        }
        let slack = self.allocator_bytes();
        writeln!(f, "{:32} {:>9} {slack:>12} {:>11}", "allocator, 10 %", 1, in_mib(slack))?;
        write!(f, "total {}", self.total())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget() -> MemoryBudget {
        MemoryBudget::new("example", 10 * MIB).with("links", 1, 20 * MIB).with(
            "streams",
            1_000,
            10 * KIB,
        )
    }

    #[test]
    fn sum_has_every_term_and_the_allocator() {
        let data = 20 * MIB + 1_000 * 10 * KIB;
        assert_eq!(budget().total(), 10 * MIB + data + data / 100 * 10);
        let table = budget().to_string();
        assert!(table.ends_with(&format!("total {}", budget().total())), "{table}");
        assert!(table.contains("streams") && table.contains("1000"), "{table}");
    }

    #[test]
    fn sum_above_the_limit_is_a_problem_that_names_the_largest_terms() {
        let mut problems = Problems::default();
        budget().check("x.memory_bytes", budget().total(), &mut problems);
        assert!(problems.is_empty());
        budget().check("x.memory_bytes", budget().total() - 1, &mut problems);
        let text = format!("{problems:?}");
        assert!(text.contains("links 20.0 MiB, streams 9.8 MiB"), "{text}");
    }

    #[test]
    fn sizes_beyond_the_range_of_numbers_saturate() {
        let budget = MemoryBudget::new("example", MIB).with("all", usize::MAX, u64::MAX);
        assert_eq!(budget.total(), u64::MAX);
    }
}
