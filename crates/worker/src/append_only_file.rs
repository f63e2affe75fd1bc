//! Makes Redis rewrite its append-only file regularly.
//!
//! The file repeats every command until Redis rewrites it, and Redis does so by size only. Without this task, user agents
//! of processed clicks would stay on disk for as long as the traffic is low.

use std::time::Duration;

use linnet_platform::{redis_connection::connect, settings::RedisSettings};
use redis::RedisResult;

/// Time between two rewrites. docs/PRIVACY.md states it.
const EVERY: Duration = Duration::from_hours(1);
/// Delay of the first rewrite, so that a worker that restarts repeatedly does not start one each time.
const FIRST: Duration = Duration::from_mins(1);
/// Redis forks before it responds.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Requests a rewrite once an hour; never ends. A failure is logged, and the next rewrite is the retry.
pub(crate) async fn rewrite(settings: RedisSettings) {
    tokio::time::sleep(FIRST).await;
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        ticks.tick().await;
        match request(&settings).await {
            Ok(true) => tracing::debug!("rewrite of the append-only file requested"),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "rewrite of the append-only file not requested"),
        }
    }
}

/// Requests a rewrite if Redis has an append-only file and does not rewrite it already. Returns whether it did.
async fn request(settings: &RedisSettings) -> RedisResult<bool> {
    let mut redis = connect(settings, RESPONSE_TIMEOUT).await?;
    let state: String = redis::cmd("INFO").arg("persistence").query_async(&mut redis).await?;
    if !needs_rewrite(&state) {
        return Ok(false);
    }
    let _: redis::Value = redis::cmd("BGREWRITEAOF").query_async(&mut redis).await?;
    Ok(true)
}

fn needs_rewrite(state: &str) -> bool {
    let has = |line: &str| state.lines().any(|found| found.trim_end() == line);
    has("aof_enabled:1") && has("aof_rewrite_in_progress:0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_append_only_file_that_is_not_being_rewritten_needs_a_rewrite() {
        assert!(needs_rewrite("loading:0\r\naof_enabled:1\r\naof_rewrite_in_progress:0\r\n"));
        assert!(!needs_rewrite("aof_enabled:1\r\naof_rewrite_in_progress:1\r\n"));
        assert!(!needs_rewrite("aof_enabled:0\r\naof_rewrite_in_progress:0\r\n"));
    }
}
