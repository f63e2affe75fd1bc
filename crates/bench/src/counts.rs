//! Counts of responses by kind.

use serde::Serialize;

use crate::http::Response;

/// Responses by kind.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Redirects; if targets are checked, only those to the right target.
    pub redirected: u64,
    /// Redirects to another target.
    pub wrong_target: u64,
    /// Responses with any other status.
    pub other_status: u64,
    /// Requests without a response.
    pub failed: u64,
}

impl Counts {
    /// Counts a response and returns whether it counts as `redirected`.
    pub(crate) fn record(&mut self, response: &Response, check_target: bool) -> bool {
        let is_redirect = (300..400).contains(&response.status);
        let is_good = is_redirect && (response.location_has_code || !check_target);
        if is_good {
            self.redirected += 1;
        } else if is_redirect {
            self.wrong_target += 1;
        } else {
            self.other_status += 1;
        }
        is_good
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.redirected += other.redirected;
        self.wrong_target += other.wrong_target;
        self.other_status += other.other_status;
        self.failed += other.failed;
    }
}
