//! The retry budget: limits retries to a share of the calls.
//!
//! Without it, retries would multiply the load on overloaded shorteners.

use std::sync::atomic::{AtomicI64, Ordering};

/// Tokens of one retry; each call deposits `percent` tokens.
const RETRY_TOKENS: i64 = 100;
/// Retries that can accumulate.
const MAX_RETRIES: i64 = 20;

/// A token bucket that calls fill and retries empty. It is full at the start.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    percent: i64,
    tokens: AtomicI64,
}

impl RetryBudget {
    /// Allows `percent` retries for each hundred calls; 0 allows none.
    pub(crate) fn new(percent: u32) -> Self {
        let tokens = if percent == 0 { 0 } else { MAX_RETRIES * RETRY_TOKENS };
        Self { percent: percent.into(), tokens: AtomicI64::new(tokens) }
    }

    /// Records the first attempt of a call.
    pub(crate) fn deposit(&self) {
        // Loaded first: the bucket is usually full, and server threads share this cache line. Racing
        // deposits may overfill it by one deposit for each server thread.
        if self.tokens.load(Ordering::Relaxed) < MAX_RETRIES * RETRY_TOKENS {
            self.tokens.fetch_add(self.percent, Ordering::Relaxed);
        }
    }

    /// Takes one retry, if the budget has one.
    pub(crate) fn withdraw(&self) -> bool {
        self.tokens
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tokens| {
                (tokens >= RETRY_TOKENS).then_some(tokens - RETRY_TOKENS)
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
    fn calls_pay_for_a_share_of_retries() {
        let budget = RetryBudget::new(10);
        assert_eq!(drain(&budget), 20, "a full bucket");
        for _ in 0..50 {
            budget.deposit();
        }
        assert_eq!(drain(&budget), 5);
    }

    #[test]
    fn accumulated_retries_are_bounded() {
        let budget = RetryBudget::new(10);
        for _ in 0..10_000 {
            budget.deposit();
        }
        assert_eq!(drain(&budget), 20);
    }

    #[test]
    fn budget_of_zero_percent_allows_no_retry() {
        let budget = RetryBudget::new(0);
        budget.deposit();
        assert!(!budget.withdraw());
    }
}
