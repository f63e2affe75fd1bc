//! The pages that the gateway serves itself: landing page, API reference, OpenAPI document, types of problems, health.

mod problem;

use std::{borrow::Cow, convert::Infallible, iter, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    body::{MessageBody, SizedStream},
    http::header::{self, HeaderName, HeaderValue},
    web,
};
use futures::stream;
use linnet_platform::{lifecycle::Lifecycle, server::PIECE_BYTES};
use linnet_protocol::problem::Problem;
use sha2::{Digest as _, Sha256};
use utoipa_swagger_ui::Config;

use crate::{problems, release::RELEASE, upstream::Upstreams};

const LANDING: &str = include_str!("landing.html");
pub(crate) const OPENAPI: &str = include_str!("../../../../docs/openapi.json");

/// The landing page contains its style sheet and loads nothing.
const LANDING_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'";
/// The viewer of the API reference loads its own scripts, sets inline styles, and calls the API.
const DOCS_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'";

/// `Cache-Control` of pages that change only with a release.
const CACHE_5_MIN: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// `Vary` of pages, which nginx compresses for clients that accept it.
const BY_ENCODING: HeaderValue = HeaderValue::from_static("accept-encoding");

/// State of the pages' handlers; clones share it.
#[derive(Clone)]
pub(crate) struct Pages {
    upstreams: Arc<Upstreams>,
    lifecycle: Lifecycle,
    openapi_etag: HeaderValue,
    viewer: Arc<Config<'static>>,
}

impl Pages {
    pub(crate) fn new(upstreams: Arc<Upstreams>, lifecycle: Lifecycle) -> Self {
        let digest = Sha256::digest(OPENAPI.as_bytes());
        let etag = digest
            .iter()
            .take(12)
            .fold(String::from("\""), |etag, byte| format!("{etag}{byte:02x}"));
        Self {
            upstreams,
            lifecycle,
            openapi_etag: HeaderValue::from_str(&format!("{etag}\""))
                .unwrap_or(HeaderValue::from_static("\"0\"")),
            viewer: Arc::new(Config::from("/openapi.json").use_base_layout()),
        }
    }

    fn is_ready(&self) -> bool {
        !self.lifecycle.is_draining() && self.upstreams.healthy_count() > 0
    }
}

/// Registers the pages.
pub(crate) fn configure(cfg: &mut web::ServiceConfig) {
    cfg.service(web::resource("/").get(landing).route(web::head().to(landing)))
        .service(web::resource("/health").get(health).route(web::head().to(health)))
        .service(web::resource("/openapi.json").get(openapi).route(web::head().to(openapi)))
        .service(
            web::resource("/problems/").get(problem::index).route(web::head().to(problem::index)),
        )
        .service(
            web::resource("/problems/{code}")
                .get(problem::page)
                .route(web::head().to(problem::page)),
        )
        .service(web::resource("/docs").get(docs_folder).route(web::head().to(docs_folder)))
        .service(web::resource("/docs/{file:[^/]*}").get(docs).route(web::head().to(docs)));
}

async fn landing() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, LANDING_POLICY))
        .insert_header((header::CACHE_CONTROL, CACHE_5_MIN))
        .insert_header((header::VARY, BY_ENCODING))
        .body(LANDING)
}

async fn health(pages: web::Data<Pages>) -> HttpResponse {
    let ready = pages.is_ready();
    let mut response = if ready { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    if !ready {
        response.insert_header((header::RETRY_AFTER, HeaderValue::from_static("1")));
    }
    let status = if ready { "ok" } else { "unavailable" };
    response.json(serde_json::json!({ "status": status, "release": RELEASE }))
}

async fn openapi(request: HttpRequest, pages: web::Data<Pages>) -> HttpResponse {
    let etag = pages.openapi_etag.clone();
    let is_current = request.headers().get(header::IF_NONE_MATCH).is_some_and(|etags| {
        etags.to_str().is_ok_and(|etags| {
            let matches = |one: &str| one == "*" || one.trim_start_matches("W/") == etag;
            etags.split(',').map(str::trim).any(matches)
        })
    });
    let mut response = if is_current { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response
        .insert_header((header::ETAG, etag))
        .insert_header((header::VARY, BY_ENCODING))
        .insert_header((header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=60")));
    if is_current {
        response.finish()
    } else {
        response
            .content_type("application/json")
            .body(in_pieces(web::Bytes::from_static(OPENAPI.as_bytes())))
    }
}

/// A body that a client can read slowly: clients share its bytes, and a connection holds only a piece of them.
fn in_pieces(mut left: web::Bytes) -> impl MessageBody {
    let length = left.len() as u64;
    let pieces = iter::from_fn(move || {
        (!left.is_empty()).then(|| Ok::<_, Infallible>(left.split_to(left.len().min(PIECE_BYTES))))
    });
    SizedStream::new(length, stream::iter(pieces))
}

async fn docs_folder() -> HttpResponse {
    HttpResponse::PermanentRedirect()
        .insert_header((header::LOCATION, HeaderValue::from_static("/docs/")))
        .finish()
}

async fn docs(file: web::Path<String>, pages: web::Data<Pages>) -> HttpResponse {
    match utoipa_swagger_ui::serve(&file, Arc::clone(&pages.viewer)) {
        Ok(Some(page)) => HttpResponse::Ok()
            .content_type(page.content_type)
            .insert_header((header::CONTENT_SECURITY_POLICY, DOCS_POLICY))
            .insert_header((header::CACHE_CONTROL, CACHE_5_MIN))
            .insert_header((header::VARY, BY_ENCODING))
            .insert_header((
                HeaderName::from_static("cross-origin-opener-policy"),
                HeaderValue::from_static("same-origin"),
            ))
            .body(in_pieces(match page.bytes {
                Cow::Borrowed(bytes) => web::Bytes::from_static(bytes),
                // Only the viewer's settings.
                Cow::Owned(bytes) => web::Bytes::from(bytes),
            })),
        Ok(None) => problems::not_found(),
        Err(error) => {
            tracing::error!(%error, "API reference page could not be rendered");
            problems::response(&Problem::internal())
        }
    }
}
