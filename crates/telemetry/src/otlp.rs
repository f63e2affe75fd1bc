//! Span export over OTLP/HTTP, only where a collector is configured.
//!
//! The SDK's batch processor exports from a thread of its own without an async runtime, while the
//! HTTP client needs one. The client therefore brings a small runtime along and runs each export on
//! it to its end, on that thread: no request's runtime is used, and stopping can't deadlock.

use std::{pin::Pin, time::Duration};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{SdkTracer, SdkTracerProvider},
};
use tokio::{
    runtime::{Builder, Runtime},
    time::timeout,
};

use crate::telemetry::{ServiceInfo, TelemetryError};

/// One export, its retries aside.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest answer of a collector, in bytes; it says little.
const MAX_ANSWER: usize = 1024 * 1024;

/// Builds the provider. The batch's queue, size and delay follow the `OTEL_BSP_*` variables, the
/// sampler `OTEL_TRACES_SAMPLER`.
pub(crate) fn tracer_provider(
    endpoint: &str,
    service: ServiceInfo,
) -> Result<(SdkTracerProvider, SdkTracer), TelemetryError> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(BlockingClient::new()?)
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .with_timeout(EXPORT_TIMEOUT)
        .build()?;
    let resource = Resource::builder()
        .with_service_name(service.name)
        .with_attribute(opentelemetry::KeyValue::new("service.version", service.version))
        .build();
    let provider =
        SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
    let tracer = provider.tracer("linnet");
    Ok((provider, tracer))
}

/// HTTP/1.1 alone: the client that comes with the exporter speaks HTTP/2 as well, a megabyte of program.
#[derive(Debug)]
struct BlockingClient {
    client: Client<HttpConnector, Full<Bytes>>,
    // Optional only so that `drop` can take it: a runtime must not be dropped where blocking is
    // forbidden, but may be sent to the background.
    runtime: Option<Runtime>,
}

impl BlockingClient {
    fn new() -> Result<Self, TelemetryError> {
        let runtime =
            Builder::new_current_thread().enable_all().build().map_err(TelemetryError::Runtime)?;
        let client = Client::builder(TokioExecutor::new()).build_http();
        Ok(Self { client, runtime: Some(runtime) })
    }
}

impl BlockingClient {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = self.client.request(request.map(Full::new)).await?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
        Ok(Response::from_parts(head, body))
    }
}

impl Drop for BlockingClient {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl HttpClient for BlockingClient {
    fn send_bytes<'this, 'future>(
        &'this self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'future>>
    where
        'this: 'future,
        Self: 'future,
    {
        Box::pin(async move {
            match &self.runtime {
                Some(runtime) => {
                    runtime.block_on(async { timeout(EXPORT_TIMEOUT, self.send(request)).await? })
                }
                None => Err("the exporter has been stopped".into()),
            }
        })
    }
}
