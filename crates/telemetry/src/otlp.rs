//! Exports spans over OTLP/HTTP to the collector.
//!
//! The SDK's batch processor exports from its own thread, which has no async runtime, but the HTTP client needs one. The
//! client therefore owns a small runtime and runs each export on it, on that thread. No server thread's runtime is used,
//! and a shutdown cannot deadlock.

use std::{
    error::Error,
    path::Path,
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use linnet_tls::{CaFile, CaFileError, TlsFault};
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

use crate::{error::TelemetryError, error_chain, service::ServiceInfo};

/// Timeout of one attempt to export.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);
/// Largest response of a collector that is read, in bytes.
const MAX_RESPONSE_BYTES: usize = 1024 * 1024;

/// Builds the provider. The SDK reads the batch's queue, size and delay from the `OTEL_BSP_*` variables, and the sampler
/// from `OTEL_TRACES_SAMPLER`.
pub(crate) fn tracer_provider(
    endpoint: &str,
    ca_file: Option<&Path>,
    service: ServiceInfo,
) -> Result<(SdkTracerProvider, SdkTracer), TelemetryError> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(BlockingClient::new(ca_file)?)
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

/// An HTTP/1.1 client. The exporter's own client also has HTTP/2, which adds a megabyte to the program.
#[derive(Debug)]
struct BlockingClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// Whether the last export failed. A failure is logged once, until an export succeeds.
    is_failing: AtomicBool,
    // An option, so that `drop` can take the runtime and shut it down in the background. Dropping a runtime blocks,
    // which async code must not do.
    runtime: Option<Runtime>,
}

impl BlockingClient {
    fn new(ca_file: Option<&Path>) -> Result<Self, TelemetryError> {
        let runtime =
            Builder::new_current_thread().enable_all().build().map_err(TelemetryError::Runtime)?;
        let client = Client::builder(TokioExecutor::new()).build(connector(ca_file)?);
        Ok(Self { client, is_failing: AtomicBool::new(false), runtime: Some(runtime) })
    }

    fn log_change(&self, result: &Result<Response<Bytes>, HttpError>) {
        let failure = match result {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!("status {}", response.status())),
            Err(error) => Some(describe(&**error)),
        };
        let was_failing = self.is_failing.swap(failure.is_some(), Ordering::Relaxed);
        match failure {
            Some(error) if !was_failing => tracing::warn!(error, "span export failed; retrying"),
            None if was_failing => tracing::info!("span export recovered"),
            _ => {}
        }
    }
}

/// Connects with or without TLS, by the scheme of the endpoint. With TLS it verifies the certificate and the host name.
fn connector(ca_file: Option<&Path>) -> Result<HttpsConnector<HttpConnector>, CaFileError> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    let builder = HttpsConnectorBuilder::new();
    let builder = match ca_file {
        None => builder.with_webpki_roots(),
        Some(path) => builder.with_tls_config(CaFile::read(path)?.client_config()),
    };
    Ok(builder.https_or_http().enable_http1().wrap_connector(http))
}

/// The reason in words if TLS failed, and otherwise the error with its causes.
fn describe(error: &(dyn Error + 'static)) -> String {
    TlsFault::find(error).map_or_else(|| error_chain(error), |fault| fault.to_string())
}

impl BlockingClient {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let response = self.client.request(request.map(Full::new)).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_RESPONSE_BYTES).collect().await?.to_bytes();
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
                    let result = runtime
                        .block_on(async { timeout(EXPORT_TIMEOUT, self.send(request)).await? });
                    self.log_change(&result);
                    result
                }
                None => Err("the exporter has stopped".into()),
            }
        })
    }
}
