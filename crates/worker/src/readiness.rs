//! The worker's readiness.

use std::time::Duration;

use futures::{FutureExt, future::BoxFuture};
use linnet_platform::{lifecycle::Lifecycle, redis_client::RedisClient};
use linnet_store::Store;
use linnet_telemetry::{CheckState, Readiness, ReadinessReport};

const PING_TIMEOUT: Duration = Duration::from_millis(1_500);

/// A worker is ready while it reaches PostgreSQL and Redis and does not drain.
pub(crate) struct WorkerReadiness {
    pub(crate) store: Store,
    pub(crate) redis: RedisClient,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) release: &'static str,
}

impl Readiness for WorkerReadiness {
    fn check(&self) -> BoxFuture<'_, ReadinessReport> {
        async {
            let down = |reason: &str| CheckState::Down(reason.to_owned());
            let postgresql = match tokio::time::timeout(PING_TIMEOUT, self.store.ping()).await {
                Ok(Ok(())) => CheckState::Up,
                Ok(Err(error)) => CheckState::Down(error.to_string()),
                Err(_) => down("timed out"),
            };
            let redis = match self.redis.fault() {
                None => CheckState::Up,
                Some(fault) => CheckState::Down(fault.to_string()),
            };
            let working =
                if self.lifecycle.is_draining() { down("draining") } else { CheckState::Up };
            let checks = vec![("postgresql", postgresql), ("redis", redis), ("working", working)];
            let ready = !checks.iter().any(|(_, state)| matches!(state, CheckState::Down(_)));
            ReadinessReport { ready, release: self.release.to_owned(), checks }
        }
        .boxed()
    }
}
