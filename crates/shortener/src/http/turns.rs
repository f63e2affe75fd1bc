//! The turns of API requests at the database: each owner has a share of the connections of a server thread.
//!
//! * The share is half of the connections, so that one user's requests affect no other user's.
//! * A create with a generated code takes no turn, because [creates in groups](linnet_store::GroupedCreates) share a
//!   connection. Neither does an upload, which has a slot instead and lasts for minutes.

use std::time::Duration;

use linnet_platform::waiting_share::{Turn, WaitingShare};
use linnet_protocol::{problem::Problem, problem_code::ProblemCode};
use linnet_store::Store;

use super::error::{ApiError, RETRY_AFTER_UNAVAILABLE};

/// The most requests of one owner that wait in a server thread.
const MOST_WAITING: usize = 64;
/// As long as a statement may last by default: of two requests that a user sends at once, the second is not refused because
/// the first one is slow. With a connection and a statement of its own it ends within the gateway's
/// `upstream.response_timeout_ms` (5 s).
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// The turns of one server thread, by the owner of idempotency keys.
#[derive(Debug, Clone)]
pub struct Turns(WaitingShare<String>);

impl Turns {
    /// Half of the connections of `store` for each owner.
    pub fn new(store: &Store) -> Self {
        let share = store.max_connections() as usize / 2;
        Self(WaitingShare::new(share, MOST_WAITING, LONGEST_WAIT))
    }

    /// Waits for a turn of the owner.
    pub async fn take(&self, owner: String) -> Result<Turn<String>, ApiError> {
        self.0.take(owner).await.map_err(|in_use| {
            let detail = format!(
                "Too many of your requests wait for the database, which serves {} of them at a time. Send fewer at a \
                 time.",
                in_use.share
            );
            let problem = Problem::of(ProblemCode::TooManyConcurrent).detail(detail);
            problem.retry_after(RETRY_AFTER_UNAVAILABLE).into()
        })
    }
}
