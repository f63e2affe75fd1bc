//! The memory limits and the settings of the containers, for tests of overload. A test compares them with
//! `deploy/compose.yaml`.

const MIB: u64 = 1024 * 1024;

/// Limits in bytes of the memory of each process of a kind; `None` sets none. They need
/// [`MemoryGroup::is_available`](crate::MemoryGroup::is_available).
#[derive(Debug, Clone, Copy, Default)]
pub struct MemoryLimits {
    /// nginx with its worker processes.
    pub nginx: Option<u64>,
    /// Each gateway.
    pub gateway: Option<u64>,
    /// Each shortener.
    pub shortener: Option<u64>,
    /// Each worker.
    pub worker: Option<u64>,
}

/// `mem_limit` of nginx, a gateway, a shortener and a worker.
pub const CONTAINER_LIMITS: MemoryLimits = MemoryLimits {
    nginx: Some(128 * MIB),
    gateway: Some(48 * MIB),
    shortener: Some(96 * MIB),
    worker: Some(80 * MIB),
};

/// The settings that make the processes fit their limits.
pub const CONTAINER_SETTINGS: &[(&str, &str)] = &[
    ("LINNET__GATEWAY__MEMORY_BYTES", "50331648"),
    ("LINNET__GATEWAY__SERVER_THREADS", "2"),
    ("LINNET__GATEWAY__MAX_CONNECTIONS", "104"),
    ("LINNET__UPSTREAM__MAX_IDLE_PER_HOST", "64"),
    ("LINNET__AUTH__CACHE_ENTRIES", "4000"),
    ("LINNET__SHORTENER__MEMORY_BYTES", "100663296"),
    ("LINNET__SHORTENER__SERVER_THREADS", "2"),
    ("LINNET__SHORTENER__MAX_CONNECTIONS", "104"),
    ("LINNET__SHORTENER__BODY_BYTES", "4194304"),
    ("LINNET__SHORTENER__RESPONSE_BYTES", "8388608"),
    ("LINNET__SHORTENER__LIVE_STREAMS", "48"),
    ("LINNET__SHORTENER__LIVE_STREAMS_PER_USER", "12"),
    ("LINNET__SHORTENER__JOB_STREAMS", "64"),
    ("LINNET__SHORTENER__JOB_STREAMS_PER_USER", "16"),
    ("LINNET__CACHE__L1_BYTES", "10485760"),
    ("LINNET__CACHE__L1_NEGATIVE_ENTRIES", "10000"),
    ("LINNET__RESOLVE__MAX_IN_FLIGHT_LOOKUPS", "512"),
    ("LINNET__CLICKS__BUFFER_CLICKS", "4000"),
    ("LINNET__JOBS__UPLOADS", "4"),
    ("LINNET__POSTGRES__MAX_CONNECTIONS", "12"),
    ("LINNET__WORKER__MEMORY_BYTES", "83886080"),
];

/// The variables that make nginx fit. With the number of worker processes, they bound its connections.
pub const CONTAINER_NGINX: &[(&str, &str)] = &[
    ("LINNET_NGINX_WORKERS", "2"),
    ("LINNET_NGINX_WORKER_CONNECTIONS", "1088"),
    ("LINNET_NGINX_GATEWAY_REQUESTS", "416"),
    ("LINNET_NGINX_CONNECTIONS_PER_ADDRESS", "104"),
    ("LINNET_NGINX_CONNECTIONS_PER_SITE", "208"),
    ("LINNET_NGINX_BODIES_PER_ADDRESS", "24"),
    ("LINNET_NGINX_COSTLY_REDIRECTS", "192"),
    ("LINNET_NGINX_GATEWAY_CONNECTIONS", "200"),
];

/// The variables that differ with TLS (`deploy/compose.tls.yaml`).
pub const CONTAINER_NGINX_TLS: &[(&str, &str)] = &[
    ("LINNET_NGINX_WORKER_CONNECTIONS", "248"),
    ("LINNET_NGINX_GATEWAY_REQUESTS", "256"),
    ("LINNET_NGINX_CONNECTIONS_PER_ADDRESS", "32"),
    ("LINNET_NGINX_CONNECTIONS_PER_SITE", "128"),
    ("LINNET_NGINX_BODIES_PER_ADDRESS", "12"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_nginx_with_tls_are_those_of_the_compose_file() {
        let file = crate::services::workspace().join("deploy/compose.tls.yaml");
        let compose = std::fs::read_to_string(file).unwrap();
        for (key, value) in CONTAINER_NGINX_TLS {
            assert!(compose.contains(&format!("{key}: \"{value}\"\n")), "{key}");
        }
    }
}
