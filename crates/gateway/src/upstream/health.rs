//! The probe: asks every shortener, a few times a second, whether it takes traffic; and what the names
//! of shorteners stand for.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use linnet_platform::redis_client::jittered;
use linnet_protocol::settings::ServiceSettings;
use secrecy::ExposeSecret as _;
use tokio::{
    task::{AbortHandle, JoinSet},
    time::timeout,
};

use super::{Connector, Upstream, Upstreams, discovery::Discovery};
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

#[derive(Clone)]
struct Probe {
    client: Client<Connector, Empty<Bytes>>,
    token: HeaderValue,
}

/// Probes all shorteners, and keeps up with who they are. Ends only when something in it has died.
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
        tracing::error!("service.token can't stand in a header");
        return;
    };
    token.set_sensitive(true);
    let probe = Probe { client, token };
    let mut discovery = Discovery::new(settings.shorteners);
    let mut running: HashMap<usize, (Arc<Upstream>, AbortHandle)> = HashMap::new();
    let mut probes = JoinSet::new();
    loop {
        let current = upstreams.all();
        running.retain(|_, (upstream, handle)| {
            let stays = current.iter().any(|one| Arc::ptr_eq(one, upstream));
            if !stays {
                handle.abort();
            }
            stays
        });
        for upstream in current.iter() {
            running.entry(upstream.index).or_insert_with(|| {
                let handle = probes.spawn(probe_one(probe.clone(), Arc::clone(upstream)));
                (Arc::clone(upstream), handle)
            });
        }
        tokio::select! {
            found = discovery.next() => {
                if let Err(error) = upstreams.set(&found) {
                    tracing::error!(error = &error as &dyn std::error::Error, "an address of a shortener is none");
                }
            }
            Some(Err(death)) = probes.join_next() => {
                if !death.is_cancelled() {
                    return;
                }
            }
        }
    }
}

async fn probe_one(probe: Probe, upstream: Arc<Upstream>) {
    let mut silences = 0;
    loop {
        match ask(&probe.client, &probe.token, &upstream).await {
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
