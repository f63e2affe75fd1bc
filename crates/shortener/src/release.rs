//! What was built.

use linnet_telemetry::ServiceInfo;

/// The build's name for itself: a commit or a tag.
pub const RELEASE: &str = match option_env!("LINNET_RELEASE") {
    Some(release) => release,
    None => "development",
};

/// The worker, for telemetry.
pub const WORKER: ServiceInfo =
    ServiceInfo { name: "worker", version: env!("CARGO_PKG_VERSION"), release: RELEASE };

/// The server, for telemetry.
pub const SERVICE: ServiceInfo =
    ServiceInfo { name: "shortener", version: env!("CARGO_PKG_VERSION"), release: RELEASE };
