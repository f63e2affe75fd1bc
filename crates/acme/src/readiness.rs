//! Readiness of the process: whether nginx has a certificate to serve.

use futures::{FutureExt as _, future::BoxFuture};
use linnet_platform::lifecycle::Lifecycle;
use linnet_telemetry::{CheckState, Readiness, ReadinessReport};

use crate::{release::RELEASE, snapshot::Shared};

/// Ready once nginx can start, if only with a placeholder. Failing orders are degraded, because nginx serves meanwhile.
pub(crate) struct AcmeReadiness {
    pub(crate) shared: Shared,
    pub(crate) lifecycle: Lifecycle,
}

impl Readiness for AcmeReadiness {
    fn check(&self) -> BoxFuture<'_, ReadinessReport> {
        std::future::ready(self.report()).boxed()
    }
}

impl AcmeReadiness {
    fn report(&self) -> ReadinessReport {
        let (certificate, orders) = self.shared.with(|snapshot| {
            let certificate = match (&snapshot.storage_error, snapshot.is_installed) {
                (Some(error), _) => CheckState::Down(error.clone()),
                (None, false) => CheckState::Down("no certificate is installed".into()),
                (None, true) if !snapshot.is_trusted => {
                    CheckState::Degraded("a placeholder is served".into())
                }
                (None, true) => CheckState::Up,
            };
            let orders = match &snapshot.state.last_failure {
                None => CheckState::Up,
                Some(failure) => CheckState::Degraded(failure.detail.clone()),
            };
            (certificate, orders)
        });
        let is_draining = self.lifecycle.is_draining();
        let mut checks = vec![("certificate", certificate), ("orders", orders)];
        if is_draining {
            checks.push(("draining", CheckState::Down("the process is draining".into())));
        }
        let ready = !checks.iter().any(|(_, state)| matches!(state, CheckState::Down(_)));
        ReadinessReport { ready, release: RELEASE.into(), checks }
    }
}
