//! Readiness of the gateway, for the admin listener.

use std::sync::Arc;

use futures::{FutureExt as _, future::BoxFuture};
use linnet_platform::{
    invalidation_bus::BusState, lifecycle::Lifecycle, redis_client::RedisClient,
};
use linnet_telemetry::{CheckState, Readiness, ReadinessReport};

use crate::{release::RELEASE, upstream::Upstreams};

/// Reports ready while at least one shortener is healthy and the process is not draining.
///
/// Without Redis the gateway is degraded but ready: it counts rates locally and caches keys for at
/// most 1 s.
pub(crate) struct GatewayReadiness {
    pub(crate) upstreams: Arc<Upstreams>,
    pub(crate) redis: RedisClient,
    pub(crate) bus: BusState,
    pub(crate) lifecycle: Lifecycle,
}

impl Readiness for GatewayReadiness {
    fn check(&self) -> BoxFuture<'_, ReadinessReport> {
        std::future::ready(self.report()).boxed()
    }
}

impl GatewayReadiness {
    fn report(&self) -> ReadinessReport {
        let is_draining = self.lifecycle.is_draining();
        let healthy_count = self.upstreams.healthy_count();
        let shortener = if healthy_count > 0 {
            CheckState::Up
        } else {
            CheckState::Down("no shortener is healthy".into())
        };
        let redis = match self.redis.fault() {
            None => CheckState::Up,
            Some(fault) => CheckState::Degraded(format!("{fault}; rates are counted locally")),
        };
        let bus = if self.bus.is_live() {
            CheckState::Up
        } else {
            CheckState::Degraded("stale: keys are cached for at most 1 s".into())
        };
        let mut checks =
            vec![("shortener", shortener), ("redis", redis), ("invalidation_bus", bus)];
        if is_draining {
            checks.push(("draining", CheckState::Down("the process is draining".into())));
        }
        ReadinessReport {
            ready: healthy_count > 0 && !is_draining,
            release: RELEASE.into(),
            checks,
        }
    }
}
