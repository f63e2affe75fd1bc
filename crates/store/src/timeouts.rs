//! Counts the statements that ended because PostgreSQL took too long, for a metric of the whole process.
//!
//! The counts are static, because an error becomes a [`StoreError`](crate::StoreError) in `From`, which has no state.

use std::sync::atomic::{AtomicU64, Ordering};

use linnet_telemetry::metrics::{KeyValue, Meter};

/// A kind of timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Timeout {
    /// A statement that ran longer than `statement_timeout`.
    Statement,
    /// A statement that waited for a lock longer than `lock_timeout`.
    Lock,
    /// The wait for a connection of the pool.
    Connection,
}

static COUNTS: [AtomicU64; Timeout::ALL.len()] = [const { AtomicU64::new(0) }; Timeout::ALL.len()];

impl Timeout {
    const ALL: [Self; 3] = [Self::Statement, Self::Lock, Self::Connection];

    /// The label in metrics.
    const fn name(self) -> &'static str {
        match self {
            Self::Statement => "statement",
            Self::Lock => "lock",
            Self::Connection => "connection",
        }
    }

    /// The number of timeouts of this kind in this process.
    fn count(self) -> u64 {
        COUNTS.get(self as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// The timeout that caused this error, if any. The messages decide, because the codes are ambiguous:
    /// `pg_cancel_backend` has the code of a statement timeout, and `NOWAIT` that of a lock timeout.
    fn of(error: &sqlx::Error) -> Option<Self> {
        match error {
            sqlx::Error::PoolTimedOut => Some(Self::Connection),
            sqlx::Error::Database(database) => match database.code().as_deref() {
                Some("57014") if database.message().contains("statement timeout") => {
                    Some(Self::Statement)
                }
                Some("55P03") if database.message().contains("lock timeout") => Some(Self::Lock),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Registers the counts of this process. Call it once.
pub fn register_timeouts(meter: &Meter) {
    meter
        .u64_observable_counter("linnet_db_timeouts")
        .with_description(
            "Statements that ended at their time limit, at their lock timeout, or without a connection, by kind.",
        )
        .with_callback(|observer| {
            for timeout in Timeout::ALL {
                observer.observe(timeout.count(), &[KeyValue::new("kind", timeout.name())]);
            }
        })
        .build();
}

/// Counts the error if a timeout caused it.
pub(crate) fn count(error: &sqlx::Error) {
    if let Some(count) = Timeout::of(error).and_then(|timeout| COUNTS.get(timeout as usize)) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}
