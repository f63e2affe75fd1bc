//! What was built.

use linnet_telemetry::ServiceInfo;

/// The build's name for itself: a commit or a tag.
pub(crate) const RELEASE: &str = match option_env!("LINNET_RELEASE") {
    Some(release) => release,
    None => "development",
};

/// For telemetry.
pub(crate) const SERVICE: ServiceInfo =
    ServiceInfo { name: "gateway", version: env!("CARGO_PKG_VERSION"), release: RELEASE };
