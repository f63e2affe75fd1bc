//! Fixtures of the tests: a running gateway, and waiting for conditions.

mod client;
mod redis;
mod shortener;

use std::{future::Future, sync::LazyLock, time::Duration};

use actix_web::http::Method;
use linnet_domain::Scope;
use linnet_platform::{lifecycle::Lifecycle, listener::Address};
use linnet_protocol::routes::{ROUTES, RequestBody, Route};
use linnet_telemetry::testing::{MetricsReader, telemetry};
use secrecy::ExposeSecret as _;

pub(super) use self::{
    client::{Body, Client, full, raw, raw_until},
    redis::Redis,
    shortener::{KEY, REVOKED, Shortener, UploadEnd},
};
use crate::{Application, config::Settings};

pub(super) const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const DEADLINE: Duration = Duration::from_secs(20);

/// The product's routes, and one that echoes a stream.
static TEST_ROUTES: LazyLock<Vec<Route>> = LazyLock::new(|| {
    let stream = Route::new("/api/v1/test-stream", &[(Method::POST, Scope::UrlsWrite)]);
    let mut routes = vec![stream.streamed().bodies(&[(Method::POST, RequestBody::Upload)])];
    routes.extend(ROUTES.iter().cloned());
    routes
});

/// A running gateway; it ends with the test's process.
pub(super) struct Gateway {
    pub(super) client: Client,
    pub(super) admin: Client,
    pub(super) address: String,
    pub(super) metrics: MetricsReader,
    pub(super) lifecycle: Lifecycle,
}

/// Settings for tests: free ports, two server threads, limits that tests do not reach by accident.
pub(super) fn settings(redis_url: &str, shorteners: &[&Shortener]) -> Settings {
    let mut settings = Settings::default();
    let any_port = Address::Tcp("127.0.0.1:0".into());
    settings.gateway.listen = any_port.clone();
    settings.gateway.admin_listen = any_port;
    settings.gateway.server_threads = 2;
    settings.upstream.shorteners =
        shorteners.iter().map(|shortener| Address::Tcp(shortener.address.clone())).collect();
    settings.redis.url = redis_url.to_owned().into();
    settings.service.token = TOKEN.to_owned().into();
    settings.limits.key_per_minute = 60_000;
    settings.limits.key_burst = 10_000;
    settings.limits.user_per_minute = 60_000;
    settings.limits.user_burst = 10_000;
    settings.limits.address_per_minute = 60_000;
    settings.limits.address_burst = 10_000;
    settings.shutdown.drain_ms = 50;
    settings.shutdown.grace_s = 1;
    settings
}

/// The URL of a Redis that does not exist.
pub(super) fn no_redis() -> String {
    format!("redis://{}/0", closed_address())
}

/// An address without a listener.
pub(super) fn closed_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

impl Gateway {
    /// Starts a gateway and waits until it is ready.
    pub(super) async fn start(settings: Settings) -> Self {
        let gateway = Self::start_unready(settings);
        eventually("the gateway is ready", || async {
            gateway.client.get("/health").await.status == 200
        })
        .await;
        gateway
    }

    /// Starts a gateway. If `redis` is its Redis, it has begun to count there.
    pub(super) async fn start_with(redis: &Redis, settings: Settings) -> Self {
        let has_redis = settings.redis.url.expose_secret() == redis.url;
        let gateway = Self::start(settings).await;
        if has_redis {
            gateway.uses_redis().await;
        }
        gateway
    }

    pub(super) fn start_unready(settings: Settings) -> Self {
        let (telemetry, metrics) = telemetry();
        let lifecycle = Lifecycle::new();
        let routes: &'static [Route] = &TEST_ROUTES;
        let application =
            Application::build_with(settings, &telemetry, lifecycle.clone(), routes).unwrap();
        let address = application.address().to_string();
        let gateway = Self {
            client: Client::new(&application.address()),
            admin: Client::new(&application.admin_address()),
            address,
            metrics,
            lifecycle,
        };
        actix_web::rt::spawn(async move {
            application.run().await.unwrap();
            drop(telemetry);
        });
        gateway
    }

    /// The value of a counter or gauge without labels.
    pub(super) fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.value(name, &[])
    }

    /// Waits until the invalidation bus is live and the server thread of one connection counts rates
    /// in Redis.
    pub(super) async fn uses_redis(&self) {
        eventually("the invalidation bus is live", || async {
            self.metric("linnet_gateway_invalidation_bus_live") == Some(1.0)
        })
        .await;
        eventually("rates are counted in Redis", || async {
            let before = self.metric("linnet_gateway_local_limits_total");
            // A malformed key is charged to its address, which no test uses otherwise.
            let headers = [("x-api-key", "malformed"), ("x-real-ip", "198.51.100.1")];
            self.client.call(http::Method::GET, "/api/v1/urls", &headers, b"").await;
            self.metric("linnet_gateway_local_limits_total") == before
        })
        .await;
    }
}

/// Waits for a condition. Panics if it is false for [`DEADLINE`].
pub(super) async fn eventually<F, Fut>(what: &str, mut condition: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let end = tokio::time::Instant::now() + DEADLINE;
    while !condition().await {
        assert!(tokio::time::Instant::now() < end, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Awaits the future. Panics if it takes longer than [`DEADLINE`].
pub(super) async fn in_time<F: Future>(what: &str, future: F) -> F::Output {
    let Ok(output) = tokio::time::timeout(DEADLINE, future).await else {
        panic!("timed out: {what}");
    };
    output
}
