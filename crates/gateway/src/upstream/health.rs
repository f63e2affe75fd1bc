//! The probe: asks every shortener, a few times a second, whether it takes traffic.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use linnet_platform::{redis_link::jittered, settings::ServiceSettings};
use secrecy::ExposeSecret as _;
use tokio::time::timeout;

use super::{Connector, Upstream, Upstreams};
use crate::config::UpstreamSettings;

/// Time between two probes of one shortener, before jitter shortens it.
const PROBE_EVERY: Duration = Duration::from_millis(250);
/// Longest wait for a probe's answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// One probe without an answer may be a busy machine; a refusal counts at once.
const SILENCES_TO_FAIL: u32 = 2;

const PROBE_PATH: &str = "/internal/v1/health";

enum Finding {
    TakesTraffic,
    Refuses,
    Silent,
}

/// Probes all shorteners; never ends.
pub(crate) async fn probe(
    settings: UpstreamSettings,
    service: ServiceSettings,
    upstreams: Arc<Upstreams>,
) {
    let connector =
        Connector::new(settings.shorteners.as_slice().into(), settings.connect_timeout());
    let client = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(PROBE_TIMEOUT)
        .build(connector);
    let Ok(mut token) = HeaderValue::from_str(service.token.expose_secret()) else {
        tracing::error!("service.token can't stand in a header");
        return;
    };
    token.set_sensitive(true);
    let probes = upstreams.iter().map(|upstream| probe_one(&client, &token, upstream));
    futures::future::join_all(probes).await;
}

async fn probe_one(
    client: &Client<Connector, Empty<Bytes>>,
    token: &HeaderValue,
    upstream: &Upstream,
) {
    let mut silences = 0;
    loop {
        match ask(client, token, upstream).await {
            Finding::TakesTraffic => {
                silences = 0;
                upstream.set_healthy(true);
            }
            Finding::Refuses => upstream.set_healthy(false),
            Finding::Silent => {
                silences += 1;
                if silences >= SILENCES_TO_FAIL {
                    upstream.set_healthy(false);
                }
            }
        }
        tokio::time::sleep(jittered(PROBE_EVERY)).await;
    }
}

async fn ask(
    client: &Client<Connector, Empty<Bytes>>,
    token: &HeaderValue,
    upstream: &Upstream,
) -> Finding {
    let uri = Uri::builder()
        .scheme("http")
        .authority(upstream.authority.clone())
        .path_and_query(PROBE_PATH)
        .build();
    let Ok(uri) = uri else { return Finding::Refuses };
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = uri;
    request.headers_mut().insert(ServiceSettings::TOKEN_HEADER, token.clone());
    match timeout(PROBE_TIMEOUT, client.request(request)).await {
        Ok(Ok(response)) if response.status() == StatusCode::OK => Finding::TakesTraffic,
        Ok(Ok(response)) => {
            tracing::debug!(upstream = upstream.index, status = %response.status(), "unhealthy");
            Finding::Refuses
        }
        Ok(Err(error)) if error.is_connect() => Finding::Refuses,
        Ok(Err(_)) | Err(_) => Finding::Silent,
    }
}
