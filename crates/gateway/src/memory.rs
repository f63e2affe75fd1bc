//! The gateway's memory budget: every term that its settings allow.

use linnet_platform::{
    memory_budget::{IDLE_CONNECTION_BYTES, KIB, MIB, MemoryBudget, STORE_CONNECTION_BYTES},
    server::{ADMIN_CONNECTIONS, HEAD_BYTES, PIECE_BYTES, SEND_BUFFER_BYTES},
};

use crate::{config::Settings, limit::LOCAL_KEYS, upstream::MAX_READ_BYTES};

/// An idle gateway. Measured: 5.9 MiB.
const BASE_BYTES: u64 = 7 * MIB;
/// A cached key: its hash, identity, scopes, and the slot of the cache.
const CACHED_KEY_BYTES: u64 = 400;
/// A key of a local rate limiter with its share of the table's growth.
const LOCAL_KEY_BYTES: u64 = 192;
/// A call to a shortener: the kernel's socket, the task, and the head that is sent.
const CALL_BYTES: u64 = 4 * KIB + HEAD_BYTES as u64;

impl Settings {
    /// The most memory that a gateway with these settings uses.
    pub fn memory_budget(&self) -> MemoryBudget {
        let threads = self.server_threads();
        let connections = threads * self.gateway.max_connections;
        let idle_calls = threads * self.upstream.max_idle_per_host;
        // For a client that reads slowly: one piece from the shortener, up to two in the buffer for the client,
        // and the kernel's buffer.
        let response = (2 * MAX_READ_BYTES + PIECE_BYTES + SEND_BUFFER_BYTES) as u64;
        MemoryBudget::new("gateway", BASE_BYTES)
            .with("cached keys", self.auth.cache_entries, CACHED_KEY_BYTES)
            .with("local rates", 3 * LOCAL_KEYS, LOCAL_KEY_BYTES)
            .with(
                "connections x largest head",
                connections,
                IDLE_CONNECTION_BYTES + HEAD_BYTES as u64,
            )
            .with("calls to shorteners", connections.max(idle_calls), CALL_BYTES)
            .with("unread responses", connections, response)
            .with("admin connections", ADMIN_CONNECTIONS, IDLE_CONNECTION_BYTES + HEAD_BYTES as u64)
            .with("bodies in progress", 1, self.limits.body_bytes_in_progress as u64)
            .with("Redis connections", threads + 3, STORE_CONNECTION_BYTES)
            .with_telemetry(self.telemetry.exports_spans())
    }
}

#[cfg(test)]
mod tests {
    use linnet_platform::{settings::load_from, testing::container_numbers};

    use super::*;

    #[test]
    fn must_25_settings_of_the_container_fit_its_memory() {
        let mut environment = container_numbers();
        environment.insert("LINNET__SERVICE__TOKEN".into(), "0".repeat(32));
        // Loading compares the sum with `gateway.memory_bytes`.
        let settings: Settings = load_from(None, &environment).unwrap();
        assert_eq!(settings.gateway.memory_bytes, 48 * MIB);
        assert!(settings.memory_budget().total() <= 48 * MIB);
        environment.insert("LINNET__GATEWAY__MAX_CONNECTIONS".into(), "1000".into());
        let error = load_from::<Settings>(None, &environment).unwrap_err();
        assert_eq!(error.keys().collect::<Vec<_>>(), ["gateway.memory_bytes"]);
    }

    #[test]
    fn every_bound_of_the_settings_raises_the_sum() {
        let base = Settings::default();
        let raises = |change: fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            settings.memory_budget().total() > base.memory_budget().total()
        };
        assert!(raises(|settings| settings.gateway.server_threads = 200));
        assert!(raises(|settings| settings.gateway.max_connections *= 2));
        assert!(raises(|settings| settings.auth.cache_entries *= 2));
        assert!(raises(|settings| settings.limits.body_bytes_in_progress *= 2));
        assert!(raises(|settings| settings.upstream.max_idle_per_host = 1_000_000));
        assert!(raises(|settings| {
            settings.telemetry.otlp_endpoint = Some("http://127.0.0.1:4318".into());
        }));
    }
}
