//! Probes the health of each shortener, and applies changes of their addresses.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use linnet_platform::backoff::jittered;
use linnet_protocol::settings::ServiceSettings;
use secrecy::ExposeSecret as _;
use tokio::{
    task::{AbortHandle, JoinSet},
    time::timeout,
};

use super::{
    balancer::{Upstream, Upstreams},
    connector::Connector,
    discovery::Discovery,
};
use crate::config::UpstreamSettings;

/// Interval between two probes of one shortener, before jitter shortens it.
const PROBE_EVERY: Duration = Duration::from_millis(250);
/// Timeout of one probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Consecutive timeouts that make a shortener unhealthy. A single one may only mean that the machine
/// is busy. A refused connection or an error response makes the shortener unhealthy immediately.
const TIMEOUTS_TO_FAIL: u32 = 2;

const PROBE_PATH: &str = "/internal/v1/health";

enum ProbeResult {
    Healthy,
    Unhealthy,
    NoResponse,
}

#[derive(Clone)]
struct Prober {
    client: Client<Connector, Empty<Bytes>>,
    token: HeaderValue,
}

/// Probes all shorteners, and adds and removes them as host names change. Returns only if a probe
/// task has panicked or the service token is not a valid header value.
pub(crate) async fn probe(
    settings: UpstreamSettings,
    service: ServiceSettings,
    upstreams: Arc<Upstreams>,
) {
    let client = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(PROBE_TIMEOUT)
        .build(Connector::new(settings.connect_timeout()));
    let Ok(mut token) = HeaderValue::from_str(service.token.expose_secret()) else {
        tracing::error!(setting = "service.token", "setting is not a valid header value");
        return;
    };
    token.set_sensitive(true);
    let prober = Prober { client, token };
    let mut discovery = Discovery::new(settings.shorteners);
    let mut running: HashMap<usize, (Arc<Upstream>, AbortHandle)> = HashMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let current = upstreams.all();
        running.retain(|_, (upstream, handle)| {
            let is_current = current.iter().any(|one| Arc::ptr_eq(one, upstream));
            if !is_current {
                handle.abort();
            }
            is_current
        });
        for upstream in current.iter() {
            running.entry(upstream.index).or_insert_with(|| {
                let handle = tasks.spawn(prober.clone().run(Arc::clone(upstream)));
                (Arc::clone(upstream), handle)
            });
        }
        tokio::select! {
            addresses = discovery.next_change() => {
                if let Err(error) = upstreams.replace(&addresses) {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, "shortener address is not valid");
                }
            }
            Some(Err(error)) = tasks.join_next() => {
                if !error.is_cancelled() {
                    return;
                }
            }
        }
    }
}

impl Prober {
    async fn run(self, upstream: Arc<Upstream>) {
        let mut timeouts = 0;
        loop {
            match self.send(&upstream).await {
                ProbeResult::Healthy => {
                    timeouts = 0;
                    upstream.set_healthy(true);
                }
                ProbeResult::Unhealthy => upstream.set_healthy(false),
                ProbeResult::NoResponse => {
                    timeouts += 1;
                    if timeouts >= TIMEOUTS_TO_FAIL {
                        upstream.set_healthy(false);
                    }
                }
            }
            tokio::time::sleep(jittered(PROBE_EVERY)).await;
        }
    }

    async fn send(&self, upstream: &Upstream) -> ProbeResult {
        let uri = Uri::builder()
            .scheme("http")
            .authority(upstream.authority.clone())
            .path_and_query(PROBE_PATH)
            .build();
        let Ok(uri) = uri else { return ProbeResult::Unhealthy };
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = uri;
        request.headers_mut().insert(ServiceSettings::TOKEN_HEADER, self.token.clone());
        match timeout(PROBE_TIMEOUT, self.client.request(request)).await {
            Ok(Ok(response)) if response.status() == StatusCode::OK => ProbeResult::Healthy,
            Ok(Ok(response)) => {
                let status = response.status();
                tracing::debug!(upstream = upstream.index, %status, "health probe rejected");
                ProbeResult::Unhealthy
            }
            Ok(Err(error)) if error.is_connect() => ProbeResult::Unhealthy,
            Ok(Err(_)) | Err(_) => ProbeResult::NoResponse,
        }
    }
}
