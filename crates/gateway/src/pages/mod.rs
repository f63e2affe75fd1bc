//! What the gateway answers itself: the landing page, the API's documentation, and its health.

use std::sync::Arc;

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, HeaderName, HeaderValue},
    web,
};
use sha2::{Digest as _, Sha256};
use utoipa_swagger_ui::Config;

use crate::{release::RELEASE, upstream::Upstreams};

const LANDING: &str = include_str!("landing.html");
const OPENAPI: &str = include_str!("../../../../docs/openapi.json");

/// The landing page's one style sheet is in the page.
const LANDING_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'";
/// The viewer comes from here, writes its own styles, and calls the API.
const DOCS_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Pages that only a new release changes.
const SHORT_CACHE: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// Made once for the process.
#[derive(Clone)]
pub(crate) struct Pages {
    upstreams: Arc<Upstreams>,
    lifecycle: linnet_platform::lifecycle::Lifecycle,
    openapi_tag: HeaderValue,
    viewer: Arc<Config<'static>>,
}

impl Pages {
    pub(crate) fn new(
        upstreams: Arc<Upstreams>,
        lifecycle: linnet_platform::lifecycle::Lifecycle,
    ) -> Self {
        let digest = Sha256::digest(OPENAPI.as_bytes());
        let tag =
            digest.iter().take(12).fold(String::from("\""), |tag, byte| format!("{tag}{byte:02x}"));
        Self {
            upstreams,
            lifecycle,
            openapi_tag: HeaderValue::from_str(&format!("{tag}\""))
                .unwrap_or(HeaderValue::from_static("\"0\"")),
            viewer: Arc::new(Config::from("/openapi.json").use_base_layout()),
        }
    }

    fn is_ready(&self) -> bool {
        !self.lifecycle.is_draining() && self.upstreams.healthy() > 0
    }
}

/// Registers the pages.
pub(crate) fn configure(cfg: &mut web::ServiceConfig) {
    cfg.service(web::resource("/").get(landing).route(web::head().to(landing)))
        .service(web::resource("/health").get(health).route(web::head().to(health)))
        .service(web::resource("/openapi.json").get(openapi).route(web::head().to(openapi)))
        .service(web::resource("/docs").get(docs_folder).route(web::head().to(docs_folder)))
        .service(web::resource("/docs/{file:[^/]*}").get(docs).route(web::head().to(docs)));
}

async fn landing() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, LANDING_POLICY))
        .insert_header((header::CACHE_CONTROL, SHORT_CACHE))
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
    let tag = pages.openapi_tag.clone();
    let known = request.headers().get(header::IF_NONE_MATCH).is_some_and(|known| {
        known.to_str().is_ok_and(|known| {
            let matches = |one: &str| one == "*" || one.trim_start_matches("W/") == tag;
            known.split(',').map(str::trim).any(matches)
        })
    });
    let mut response = if known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response
        .insert_header((header::ETAG, tag))
        .insert_header((header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=60")));
    if known { response.finish() } else { response.content_type("application/json").body(OPENAPI) }
}

async fn docs_folder() -> HttpResponse {
    HttpResponse::PermanentRedirect()
        .insert_header((header::LOCATION, HeaderValue::from_static("/docs/")))
        .finish()
}

async fn docs(file: web::Path<String>, pages: web::Data<Pages>) -> HttpResponse {
    match utoipa_swagger_ui::serve(&file, Arc::clone(&pages.viewer)) {
        Ok(Some(found)) => HttpResponse::Ok()
            .content_type(found.content_type)
            .insert_header((header::CONTENT_SECURITY_POLICY, DOCS_POLICY))
            .insert_header((header::CACHE_CONTROL, SHORT_CACHE))
            .insert_header((
                HeaderName::from_static("cross-origin-opener-policy"),
                HeaderValue::from_static("same-origin"),
            ))
            .body(found.bytes.into_owned()),
        Ok(None) => crate::routing::unknown_path().await,
        Err(error) => {
            tracing::error!(%error, "the documentation could not be rendered");
            crate::routing::answer_of(&linnet_protocol::problem::Problem::internal())
        }
    }
}
