//! How many retries the gateway may make: a share of the calls, so that retries never multiply the
//! load on shorteners that are struggling already.

use std::sync::atomic::{AtomicI64, Ordering};

/// One retry, in the bucket's units; a call deposits `percent` of them.
const RETRY: i64 = 100;
/// Retries that may be saved up for a bad moment.
const SAVED_RETRIES: i64 = 20;

/// A token bucket that calls fill and retries empty. It starts full.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    percent: i64,
    tokens: AtomicI64,
}

impl RetryBudget {
    /// A budget of `percent` retries for each hundred calls; 0 allows none.
    pub(crate) fn new(percent: u32) -> Self {
        let tokens = if percent == 0 { 0 } else { SAVED_RETRIES * RETRY };
        Self { percent: percent.into(), tokens: AtomicI64::new(tokens) }
    }

    /// A first attempt is being made.
    pub(crate) fn deposit(&self) {
        // Loaded first: a full bucket, the common case, is not written to. Racing deposits may
        // overfill it by as many calls as there are workers, which does no harm.
        if self.tokens.load(Ordering::Relaxed) < SAVED_RETRIES * RETRY {
            self.tokens.fetch_add(self.percent, Ordering::Relaxed);
        }
    }

    /// Takes one retry out, if there is one.
    pub(crate) fn withdraw(&self) -> bool {
        self.tokens
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tokens| {
                (tokens >= RETRY).then_some(tokens - RETRY)
            })
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(budget: &RetryBudget) -> u32 {
        let mut retries = 0;
        while budget.withdraw() {
            retries += 1;
        }
        retries
    }

    #[test]
    fn retries_are_a_share_of_the_calls() {
        let budget = RetryBudget::new(10);
        assert_eq!(drain(&budget), 20, "what was saved up");
        for _ in 0..50 {
            budget.deposit();
        }
        assert_eq!(drain(&budget), 5);
    }

    #[test]
    fn savings_are_bounded() {
        let budget = RetryBudget::new(10);
        for _ in 0..10_000 {
            budget.deposit();
        }
        assert_eq!(drain(&budget), 20);
    }

    #[test]
    fn a_budget_of_nothing_allows_nothing() {
        let budget = RetryBudget::new(0);
        budget.deposit();
        assert!(!budget.withdraw());
    }
}
