//! What the tests stand on.

mod client;
mod redis;
mod shortener;

use std::{future::Future, sync::LazyLock, time::Duration};

use actix_web::http::Method;
use linnet_domain::Scope;
use linnet_platform::{lifecycle::Lifecycle, listener::Address};
use linnet_protocol::routes::{ROUTES, Route};
use linnet_telemetry::testing::{MetricsReader, telemetry};

pub(super) use self::{
    client::{Body, Client, full, raw, raw_until},
    redis::Redis,
    shortener::{KEY, REVOKED, Shortener},
};
use crate::{Application, config::Settings};

pub(super) const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const DEADLINE: Duration = Duration::from_secs(20);

/// The product's routes and one that streams, until the product has such a one.
static TEST_ROUTES: LazyLock<Vec<Route>> = LazyLock::new(|| {
    let mut routes =
        vec![Route::new("/api/v1/test-stream", &[(Method::POST, Scope::UrlsWrite)]).streams()];
    routes.extend(ROUTES.iter().cloned());
    routes
});

/// A running gateway; ends with the test's process.
pub(super) struct Gateway {
    pub(super) client: Client,
    pub(super) admin: Client,
    pub(super) address: String,
    pub(super) metrics: MetricsReader,
    pub(super) lifecycle: Lifecycle,
}

/// Settings that suit tests: free ports, one worker, no limits to run into by chance.
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
    settings.limits.address_per_minute = 60_000;
    settings.limits.address_burst = 10_000;
    settings.shutdown.drain_ms = 50;
    settings.shutdown.grace_s = 1;
    settings
}

/// A Redis URL behind which there is nobody.
pub(super) fn no_redis() -> String {
    format!("redis://{}/0", closed_address())
}

/// An address that nothing listens on.
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

    /// A counter's or gauge's value.
    pub(super) fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.value(name, &[])
    }

    /// Waits until revocations are heard and Redis counts rates, as far as one connection's worker
    /// can tell.
    pub(super) async fn uses_redis(&self) {
        eventually("the change feed is live", || async {
            self.metric("linnet_gateway_invalidation_bus_live") == Some(1.0)
        })
        .await;
        eventually("Redis counts", || async {
            let before = self.metric("linnet_gateway_local_limits_total");
            // A malformed key is charged to its address, here one that no test looks at.
            let headers = [("x-api-key", "malformed"), ("x-real-ip", "198.51.100.1")];
            self.client.call(http::Method::GET, "/api/v1/urls", &headers, b"").await;
            self.metric("linnet_gateway_local_limits_total") == before
        })
        .await;
    }
}

/// Waits for a condition, and fails the test when it does not come.
pub(super) async fn eventually<F, Fut>(what: &str, mut condition: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let end = tokio::time::Instant::now() + DEADLINE;
    while !condition().await {
        assert!(tokio::time::Instant::now() < end, "it never came: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Fails the test when the future does not end.
pub(super) async fn in_time<F: Future>(what: &str, future: F) -> F::Output {
    let Ok(output) = tokio::time::timeout(DEADLINE, future).await else {
        panic!("it took too long: {what}");
    };
    output
}
