//! Build information.

use linnet_telemetry::ServiceInfo;

/// The commit or tag of this build; `development` for a local build.
pub(crate) const RELEASE: &str = match option_env!("LINNET_RELEASE") {
    Some(release) => release,
    None => "development",
};

/// Identifies this service in logs, metrics and traces.
pub(crate) const SERVICE: ServiceInfo =
    ServiceInfo { name: "acme", version: env!("CARGO_PKG_VERSION"), release: RELEASE };
