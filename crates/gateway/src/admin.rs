//! Whether traffic should come here, for the admin listener.

use std::sync::Arc;

use futures::{FutureExt as _, future::BoxFuture};
use linnet_platform::{invalidation_bus::BusState, lifecycle::Lifecycle};
use linnet_telemetry::{CheckState, Readiness, ReadinessReport};

use crate::{release::RELEASE, upstream::Upstreams};

/// Ready with at least one shortener that takes traffic, and not draining. Redis is shown: without
/// it rates are counted here and keys are asked about every second.
pub(crate) struct GatewayReadiness {
    pub(crate) upstreams: Arc<Upstreams>,
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
        let draining = self.lifecycle.is_draining();
        let healthy = self.upstreams.healthy();
        let shortener = if healthy > 0 {
            CheckState::Up
        } else {
            CheckState::Down("no shortener takes traffic".into())
        };
        let redis = if self.bus.is_live() {
            CheckState::Up
        } else {
            CheckState::Degraded("rates are counted locally, keys are cached for 1 s".into())
        };
        let mut checks = vec![("shortener", shortener), ("redis", redis)];
        if draining {
            checks.push(("draining", CheckState::Down("the process is stopping".into())));
        }
        ReadinessReport { ready: healthy > 0 && !draining, release: RELEASE.into(), checks }
    }
}
