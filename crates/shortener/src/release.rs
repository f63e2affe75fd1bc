//! Build information.

use linnet_telemetry::ServiceInfo;

/// The release: a commit or a tag.
pub const RELEASE: &str = match option_env!("LINNET_RELEASE") {
    Some(release) => release,
    None => "development",
};

/// The worker, for telemetry.
pub const WORKER: ServiceInfo =
    ServiceInfo { name: "worker", version: env!("CARGO_PKG_VERSION"), release: RELEASE };

/// The shortener, for telemetry.
pub const SERVICE: ServiceInfo =
    ServiceInfo { name: "shortener", version: env!("CARGO_PKG_VERSION"), release: RELEASE };
