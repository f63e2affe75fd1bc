//! In-flight lookups: concurrent misses of one code share one lookup of L2 and the database.

use std::sync::Arc;

use linnet_platform::single_flight::{SingleFlight, SingleFlightError};

use super::l1::L1Entry;

/// Why a lookup has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// PostgreSQL cannot be reached, and no cache has the code.
    #[error("PostgreSQL cannot be reached")]
    Unavailable,
    /// `resolve.max_in_flight_lookups` lookups are in flight.
    #[error("too many lookups are in flight")]
    Overloaded,
}

pub(super) type LookupResult = Result<Arc<L1Entry>, LookupError>;

/// The lookups in flight, by code. Clones share them: one set for all server threads of a process.
#[derive(Clone)]
pub struct InFlightLookups(Arc<SingleFlight<Box<str>, LookupResult>>);

impl InFlightLookups {
    /// At most `limit` lookups are in flight at a time.
    pub fn new(limit: usize) -> Self {
        Self(SingleFlight::new(limit))
    }

    /// Waits for the lookup of `code` that is in flight, or starts one with `look_up`.
    pub(super) async fn run<F, Fut>(&self, code: &str, look_up: F) -> LookupResult
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = LookupResult> + Send + 'static,
    {
        self.0.run(code.into(), look_up).await?
    }
}

impl From<SingleFlightError> for LookupError {
    fn from(error: SingleFlightError) -> Self {
        match error {
            SingleFlightError::LimitReached => Self::Overloaded,
            SingleFlightError::Aborted => Self::Unavailable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CacheEntry, CacheSettings, L1Cache};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Barrier;

    fn negative_entry() -> Arc<L1Entry> {
        let cache = L1Cache::new(&CacheSettings::default());
        cache.fill("x", CacheEntry::NEGATIVE, cache.ticket("x"))
    }

    #[tokio::test]
    async fn must_19_a_thousand_concurrent_misses_make_one_look_up() {
        let lookups = InFlightLookups::new(10);
        let count = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(Barrier::new(2));
        let mut tasks = Vec::new();
        for _ in 0..1_000 {
            let (lookups, count, gate) = (lookups.clone(), count.clone(), gate.clone());
            tasks.push(tokio::spawn(async move {
                let look_up = || async move {
                    count.fetch_add(1, Ordering::Relaxed);
                    gate.wait().await;
                    Ok(negative_entry())
                };
                lookups.run("abc", look_up).await
            }));
        }
        gate.wait().await;
        for task in tasks {
            assert!(task.await.unwrap().is_ok());
        }
        assert_eq!(count.load(Ordering::Relaxed), 1);
        assert!(lookups.0.is_empty());
    }

    #[test]
    fn a_full_table_and_an_aborted_lookup_are_different_errors() {
        assert_eq!(LookupError::from(SingleFlightError::LimitReached), LookupError::Overloaded);
        assert_eq!(LookupError::from(SingleFlightError::Aborted), LookupError::Unavailable);
    }
}
