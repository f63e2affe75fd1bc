//! The settings of `linnet-shortener`, which is the shortener and the worker, and the memory that they allow.
//!
//! * [`Settings`] has a section for each crate that reads settings. It checks values that depend on each other.
//! * [`preflight`] checks an installation against its settings.
//! * [`Settings::memory_budget`] and [`Settings::worker_memory_budget`] compute the maximum memory of each process.

mod memory;
pub mod preflight;

use std::{path::Path, time::Duration};

use linnet_platform::server::StartError;
use linnet_platform::{
    byte_budget::ByteBudget,
    listener::Address,
    settings::{
        Problems, RedisSettings, Settings as LoadSettings, SettingsError, ShutdownSettings, load,
    },
};
use linnet_protocol::{
    routes::MAX_BULK_BODY_BYTES,
    settings::{PublicSettings, ServiceSettings},
};
use linnet_telemetry::{ServiceInfo, TelemetrySettings};
use linnet_worker::{
    WorkerConfig, WorkerSettings,
    maintenance::{LinkSettings, MaintenanceSettings},
};
use serde::{Deserialize, Serialize};

use linnet_clicks::ClickSettings;
use linnet_domain::TargetPolicy;
use linnet_jobs::JobSettings;
use linnet_resolve::{CacheSettings, listener::ResolveSettings};
use linnet_store::{PoolRole, PostgresSettings, RowQuotas};

/// Minimum `postgres.slow_statement_ms` of a worker, whose statements write tens of thousands of rows.
const SLOW_WORK_MS: u64 = 2_000;
/// Minimum `postgres.lock_timeout_ms` of a worker. Groups of clicks wait in turn for the locks of the
/// roll-ups, and a worker repeats a whole group after a timeout.
const WORK_LOCK_TIMEOUT_MS: u64 = 10_000;

/// Every setting that `linnet-shortener` reads.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Listeners and server threads.
    pub shortener: ShortenerSettings,
    /// How short codes are resolved.
    pub resolve: ResolveSettings,
    /// L1 and L2.
    pub cache: CacheSettings,
    /// How clicks are recorded.
    pub clicks: ClickSettings,
    /// How long links are kept.
    pub links: LinkSettings,
    /// The worker process.
    pub worker: WorkerSettings,
    /// Bulk jobs.
    pub jobs: JobSettings,
    /// PostgreSQL.
    pub postgres: PostgresSettings,
    /// Redis.
    pub redis: RedisSettings,
    /// The public names of this service.
    pub public: PublicSettings,
    /// How the processes authenticate each other.
    pub service: ServiceSettings,
    /// Logs, metrics, traces.
    pub telemetry: TelemetrySettings,
    /// How the process stops.
    pub shutdown: ShutdownSettings,
}

/// Section `shortener`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShortenerSettings {
    /// Where short links are resolved, `host:port` or `unix:/path`.
    pub resolve_listen: Address,
    /// Where the gateway calls the API.
    pub api_listen: Address,
    /// `/metrics`, `/livez` and `/readyz`.
    pub admin_listen: Address,
    /// Server threads of the resolve listener, and as many of the API listener. 0 means one for each core,
    /// at most as many as `postgres.max_connections` allows.
    pub server_threads: usize,
    /// How long an idle connection stays open, in seconds.
    pub keep_alive_s: u64,
    /// Longest wait for the head of a request, in milliseconds.
    pub head_timeout_ms: u64,
    /// Longest time for an API request, in milliseconds.
    pub request_timeout_ms: u64,
    /// Connections of one server thread.
    pub max_connections: usize,
    /// Bytes of all JSON bodies in progress. One user can take a quarter.
    pub body_bytes: usize,
    /// Bytes of large responses that clients have not read yet. One user can take half.
    pub response_bytes: usize,
    /// Memory of the shortener, in bytes. The other settings must fit into it. 0 means the limit of its
    /// control group.
    pub memory_bytes: u64,
    /// Maximum number of concurrent streams of clicks.
    pub live_streams: usize,
    /// Maximum number of concurrent streams of clicks of one user.
    pub live_streams_per_user: usize,
    /// Maximum number of concurrent streams of job events.
    pub job_streams: usize,
    /// Maximum number of concurrent streams of job events of one user.
    pub job_streams_per_user: usize,
    /// Maximum number of concurrent exports.
    pub exports: usize,
    /// Maximum number of concurrent exports of one user.
    pub exports_per_user: usize,
    /// Maximum number of API keys of one user that are neither revoked nor expired.
    pub keys_per_user: u32,
    /// Most idempotency keys of one user; 0 is no quota.
    pub idempotency_keys_per_user: u32,
    /// Most bytes of the responses that are stored for one user's idempotency keys; 0 is no quota.
    pub idempotency_key_bytes_per_user: u64,
}

/// One user can take [`ShortenerSettings::body_bytes`] divided by this.
const BODY_SHARE: usize = 4;

/// Less than nginx's `client_body_timeout`, which ends the connection of a client that sends nothing.
const MAX_BODY_TIMEOUT: Duration = Duration::from_secs(20);

/// One user can take [`ShortenerSettings::response_bytes`] divided by this.
const RESPONSE_SHARE: usize = 2;
/// Bytes of the largest page: 200 links with targets of 8 KiB, or 500 bad rows of 8 KiB.
const LARGEST_RESPONSE_BYTES: usize = 4 * 1024 * 1024;
/// The settings that limit the memory of the shortener and of the worker.
pub const MEMORY_KEYS: [&str; 2] = ["shortener.memory_bytes", "worker.memory_bytes"];

impl Default for ShortenerSettings {
    fn default() -> Self {
        let address = |port: u16| Address::Tcp(format!("127.0.0.1:{port}"));
        Self {
            resolve_listen: address(8082),
            api_listen: address(8083),
            admin_listen: address(9082),
            server_threads: 0,
            keep_alive_s: 75,
            head_timeout_ms: 10_000,
            request_timeout_ms: 30_000,
            max_connections: 8_192,
            body_bytes: 8 * 1024 * 1024,
            response_bytes: 16 * 1024 * 1024,
            memory_bytes: 0,
            live_streams: 1_000,
            live_streams_per_user: 100,
            job_streams: 2_000,
            job_streams_per_user: 100,
            exports: 2,
            exports_per_user: 1,
            keys_per_user: 50,
            idempotency_keys_per_user: 100_000,
            idempotency_key_bytes_per_user: 256 * 1024 * 1024,
        }
    }
}

impl ShortenerSettings {
    fn validate(&self, problems: &mut Problems) {
        problems.require(
            self.server_threads <= 256,
            "shortener.server_threads",
            "must be at most 256",
        );
        for (key, value, max) in [
            ("shortener.keep_alive_s", self.keep_alive_s, 3_600),
            ("shortener.head_timeout_ms", self.head_timeout_ms, 60_000),
            ("shortener.request_timeout_ms", self.request_timeout_ms, 300_000),
        ] {
            problems.require_within(key, value, 1..=max);
        }
        for (key, value, max) in [
            ("shortener.live_streams", self.live_streams, 1_000),
            ("shortener.live_streams_per_user", self.live_streams_per_user, 1_000),
            ("shortener.job_streams", self.job_streams, 2_000),
            ("shortener.job_streams_per_user", self.job_streams_per_user, 2_000),
            ("shortener.exports", self.exports, 64),
            ("shortener.exports_per_user", self.exports_per_user, 64),
        ] {
            problems.require_within(key, value, 1..=max);
        }
        problems.require_within("shortener.keys_per_user", self.keys_per_user, 1..=100_000);
        problems.require_within(
            "shortener.idempotency_keys_per_user",
            self.idempotency_keys_per_user,
            0..=1_000_000_000,
        );
        problems.require_within(
            "shortener.idempotency_key_bytes_per_user",
            self.idempotency_key_bytes_per_user,
            0..=1 << 50,
        );
        problems.require(
            self.max_connections > 0,
            "shortener.max_connections",
            "must be at least 1",
        );
        problems.require_within(
            "shortener.response_bytes",
            self.response_bytes,
            RESPONSE_SHARE * LARGEST_RESPONSE_BYTES..=1024 * 1024 * 1024,
        );
        let least = BODY_SHARE * MAX_BULK_BODY_BYTES;
        problems.require_within(
            "shortener.body_bytes",
            self.body_bytes,
            least..=1024 * 1024 * 1024,
        );
    }

    /// A budget of [`Self::response_bytes`].
    pub fn response_budget(&self) -> ByteBudget<String> {
        ByteBudget::new(self.response_bytes, self.response_bytes / RESPONSE_SHARE)
    }

    /// A budget of [`Self::body_bytes`].
    pub fn body_budget(&self) -> ByteBudget<String> {
        ByteBudget::new(self.body_bytes, self.body_bytes / BODY_SHARE)
    }

    /// [`Self::request_timeout_ms`] as a duration.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    /// Longest time for the JSON body of a request: two thirds of [`Self::request_timeout_ms`], so that the client learns
    /// that its body was late, and at most [`MAX_BODY_TIMEOUT`].
    pub fn body_timeout(&self) -> Duration {
        (self.request_timeout() * 2 / 3).min(MAX_BODY_TIMEOUT)
    }
}

impl LoadSettings for Settings {
    fn derive(&mut self) {
        self.postgres.hold_codes_days = self.links.hold_codes_days;
        self.postgres.limit_settle_ms = self.links.limit_settle_ms;
        self.postgres.quotas = RowQuotas {
            links: self.links.per_user,
            events: self.links.events_per_user,
            idempotency_keys: self.shortener.idempotency_keys_per_user,
            link_bytes: self.links.bytes_per_user,
            event_bytes: self.links.event_bytes_per_user,
            idempotency_key_bytes: self.shortener.idempotency_key_bytes_per_user,
        };
    }

    fn validate(&self, problems: &mut Problems) {
        self.shortener.validate(problems);
        self.resolve.validate(problems);
        self.cache.validate(problems);
        self.clicks.validate(problems);
        self.links.validate(problems);
        self.worker.validate(problems);
        self.jobs.validate(problems);
        self.postgres.validate(problems);
        problems.require(
            self.shortener.server_threads <= PoolRole::max_server_threads(&self.postgres),
            "shortener.server_threads",
            "must be at most (postgres.max_connections - 3) / 3, so that each thread has its connections",
        );
        self.redis.validate(problems);
        self.public.validate(problems);
        self.service.validate(problems);
        self.shutdown.validate(problems);
        for (key, message) in self.telemetry.validate() {
            problems.add(format!("telemetry.{key}"), message);
        }
        let budgets = [
            (MEMORY_KEYS[0], self.shortener.memory_bytes, self.memory_budget()),
            (MEMORY_KEYS[1], self.worker.memory_bytes, self.worker_memory_budget()),
        ];
        for (key, limit, budget) in budgets {
            if limit > 0 {
                budget.check(key, limit, problems);
            }
        }
    }
}

impl Settings {
    /// The number of server threads of each listener: [`ShortenerSettings::server_threads`], or if it is 0 one for each
    /// core, at most as many as `postgres.max_connections` allows.
    pub fn server_threads(&self) -> usize {
        match self.shortener.server_threads {
            0 => std::thread::available_parallelism()
                .map_or(1, std::num::NonZero::get)
                .min(PoolRole::max_server_threads(&self.postgres)),
            threads => threads,
        }
    }

    /// [`Settings::postgres`] with the timeouts of a worker, whose statements are large and not urgent.
    pub fn worker_postgres(&self) -> PostgresSettings {
        let mut postgres = self.postgres.clone();
        postgres.statement_timeout_ms = self.worker.statement_timeout_ms;
        postgres.slow_statement_ms = postgres.slow_statement_ms.max(SLOW_WORK_MS);
        postgres.lock_timeout_ms = postgres.lock_timeout_ms.max(WORK_LOCK_TIMEOUT_MS);
        postgres
    }

    /// The statements by which a pooler in transaction mode sets the parameters of its server connections, for shorteners
    /// or workers.
    pub fn pooler_query(&self, is_worker: bool) -> String {
        if is_worker {
            let role = PoolRole::Worker { consumers: self.worker.consumers, jobs: 0 };
            linnet_store::pooler_query(&self.worker_postgres(), role)
        } else {
            linnet_store::pooler_query(&self.postgres, PoolRole::Background)
        }
    }

    /// The policy that accepts target URLs.
    pub fn target_policy(&self) -> Result<TargetPolicy, String> {
        let PublicSettings { base_url, own_hosts, .. } = &self.public;
        TargetPolicy::new(&self.resolve.target_schemes, base_url, own_hosts)
    }

    /// The settings of maintenance tasks.
    pub fn maintenance(&self) -> MaintenanceSettings {
        MaintenanceSettings {
            links: self.links.clone(),
            jobs: self.jobs.clone(),
            click_retention_days: self.clicks.retention_days,
        }
    }

    /// The settings of the worker process, whose telemetry has the name of `service`.
    pub fn worker_config(&self, service: ServiceInfo) -> Result<WorkerConfig, StartError> {
        Ok(WorkerConfig {
            worker: self.worker.clone(),
            redis: self.redis.clone(),
            postgres: self.worker_postgres(),
            maintenance: self.maintenance(),
            targets: self.target_policy().map_err(StartError::setting("public.own_hosts"))?,
            service,
        })
    }

    /// Loads and checks all settings.
    pub fn load(file: Option<&Path>) -> Result<Self, SettingsError> {
        load(file)
    }
}
