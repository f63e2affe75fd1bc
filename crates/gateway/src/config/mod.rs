//! The gateway's settings: its own sections and the sections that all processes share.

mod sections;
mod values;

use linnet_platform::settings::{Problems, RedisSettings, ShutdownSettings};
use linnet_protocol::settings::{PublicSettings, ServiceSettings};
use linnet_telemetry::TelemetrySettings;
use serde::{Deserialize, Serialize};

pub use sections::{
    Anonymous, AuthSettings, CorsSettings, GatewaySettings, LimitSettings, UpstreamSettings,
};
pub use values::{Network, ParseNetworkError};

/// The setting that limits the process's memory.
pub const MEMORY_KEY: &str = "gateway.memory_bytes";

/// All settings of the gateway.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Listeners and requests.
    pub gateway: GatewaySettings,
    /// The shorteners and how to call them.
    pub upstream: UpstreamSettings,
    /// The key cache.
    pub auth: AuthSettings,
    /// Rate limits and body size.
    pub limits: LimitSettings,
    /// Web origins that may call the API.
    pub cors: CorsSettings,
    /// The public names of this installation.
    pub public: PublicSettings,
    /// The token that authenticates the gateway to shorteners.
    pub service: ServiceSettings,
    /// Redis, for rates and invalidations.
    pub redis: RedisSettings,
    /// Drain and grace period.
    pub shutdown: ShutdownSettings,
    /// Logs, metrics, traces.
    pub telemetry: TelemetrySettings,
}

impl linnet_platform::settings::Settings for Settings {
    fn validate(&self, problems: &mut Problems) {
        self.gateway.validate(problems);
        self.upstream.validate(problems);
        self.auth.validate(problems);
        self.limits.validate(problems);
        self.cors.validate(problems);
        self.public.validate(problems);
        self.service.validate(problems);
        self.redis.validate(problems);
        self.shutdown.validate(problems);
        for (key, message) in self.telemetry.validate() {
            let key = if key.contains('.') { key.to_owned() } else { format!("telemetry.{key}") };
            problems.add(key, message);
        }
        if self.gateway.memory_bytes > 0 {
            let limit = self.gateway.memory_bytes;
            self.memory_budget().check(MEMORY_KEY, limit, problems);
        }
    }
}

impl Settings {
    /// The number of server threads: `gateway.server_threads`, or the number of cores if it is 0.
    pub fn server_threads(&self) -> usize {
        match self.gateway.server_threads {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            threads => threads,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use linnet_platform::settings::load_from;
    use linnet_protocol::routes::MAX_BODY_BYTES;

    use super::*;

    const TOKEN: (&str, &str) = ("LINNET__SERVICE__TOKEN", "0123456789abcdef0123456789abcdef");

    fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn only_the_service_token_is_required() {
        let settings: Settings = load_from(None, &environment(&[TOKEN])).unwrap();
        assert_eq!(settings.gateway.anonymous, Anonymous::Off);
        assert_eq!(settings.limits.key_per_minute, 600);
    }

    #[test]
    fn lists_and_modes_are_read_from_the_environment() {
        let env = environment(&[
            TOKEN,
            ("LINNET__UPSTREAM__SHORTENERS", "127.0.0.1:1, unix:/run/s.sock"),
            ("LINNET__GATEWAY__TRUSTED_PEERS", "10.0.0.0/8,::1"),
            ("LINNET__GATEWAY__ANONYMOUS", "create"),
            ("LINNET__CORS__ALLOWED_ORIGINS", "https://a.example,https://b.example:8443"),
        ]);
        let settings: Settings = load_from(None, &env).unwrap();
        assert_eq!(settings.upstream.shorteners.len(), 2);
        assert_eq!(settings.gateway.trusted_peers.len(), 2);
        assert_eq!(settings.gateway.anonymous, Anonymous::Create);
        assert_eq!(settings.cors.allowed_origins.len(), 2);
    }

    #[test]
    fn every_accepted_limit_of_bodies_has_an_effect() {
        let load = |bytes: usize| {
            let bytes = bytes.to_string();
            let env = environment(&[TOKEN, ("LINNET__LIMITS__BODY_BYTES", &bytes)]);
            load_from::<Settings>(None, &env)
        };
        assert_eq!(load(4_096).unwrap().limits.body_bytes, 4_096);
        assert_eq!(LimitSettings::default().body_bytes, MAX_BODY_BYTES);
        assert!(load(MAX_BODY_BYTES).is_ok());
        // The routes have a lower limit, so the setting would be ignored.
        let error = load(MAX_BODY_BYTES + 1).unwrap_err();
        assert_eq!(error.keys().collect::<Vec<_>>(), ["limits.body_bytes"]);
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let env = environment(&[
            ("LINNET__SERVICE__TOKEN", "short"),
            ("LINNET__GATEWAY__LISTEN", "nowhere"),
            ("LINNET__GATEWAY__ANONYMOUS", "sometimes"),
            ("LINNET__GATEWAY__TRUSTED_PEERS", "10.0.0.0/99"),
            ("LINNET__GATEWAY__REQUEST_TIMEOUT_MS", "0"),
            ("LINNET__UPSTREAM__SHORTENERS", ""),
            ("LINNET__LIMITS__BODY_BYTES_IN_PROGRESS", "1000"),
            ("LINNET__AUTH__CACHE_ENTRIES", "0"),
            ("LINNET__AUTH__NO_SUCH_KEY", "0"),
            ("LINNET__LIMITS__KEY_BURST", "0"),
            ("LINNET__CORS__ALLOWED_ORIGINS", "https://a.example/path"),
            ("LINNET__PUBLIC__BASE_URL", "ftp://x"),
            ("LINNET__TELEMETRY__LOG_LEVEL", "=="),
        ]);
        let error = load_from::<Settings>(None, &env).unwrap_err();
        let mut keys: Vec<_> = error.keys().collect();
        keys.sort_unstable();
        assert_eq!(
            keys,
            [
                "auth.cache_entries",
                "auth.no_such_key",
                "cors.allowed_origins",
                "gateway.anonymous",
                "gateway.listen",
                "gateway.request_timeout_ms",
                "gateway.trusted_peers",
                "limits.body_bytes_in_progress",
                "limits.key_burst",
                "public.base_url",
                "service.token",
                "telemetry.log_level",
                "upstream.shorteners",
            ]
        );
    }
}
