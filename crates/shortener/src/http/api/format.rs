//! Selects JSON or CSV: by the parameter `format`, otherwise by `Accept`, otherwise JSON.

use std::future::{Ready, ready};

use actix_web::{
    Error, FromRequest, HttpRequest,
    body::MessageBody,
    dev::{Payload, ServiceRequest, ServiceResponse},
    http::header::{Accept, Header, HeaderValue, VARY},
    middleware::Next,
};
use linnet_domain::rules::{Violation, string};
use utoipa::IntoParams;

use super::{
    super::error::ApiError,
    fields::{Fields, query_boolean},
};

/// The format of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Csv {
        /// Whether the file begins with a byte order mark.
        bom: bool,
    },
}

/// The choice of `format` and `Accept`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Json,
    Csv,
}

/// The format that `Accept` prefers. A header that cannot be parsed is ignored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Accepted(Kind);

/// The parameter, documented.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the input; `Accepted` reads it")]
pub(crate) struct FormatParams {
    /// `json` or `csv`. Default: by `Accept`.
    #[param(pattern = "^(json|csv)$")]
    format: Option<String>,
    /// Whether CSV begins with a byte order mark, by which Excel recognizes UTF-8.
    bom: Option<bool>,
}

impl Accepted {
    /// Reads `format`, which overrides `Accept`, and `bom`.
    pub(super) fn read(self, fields: &mut Fields) -> Format {
        let bom = fields.optional("bom", query_boolean).unwrap_or(false);
        match fields.optional("format", format).unwrap_or(self.0) {
            Kind::Json => Format::Json,
            Kind::Csv => Format::Csv { bom },
        }
    }
}

fn format(value: serde_json::Value) -> Result<Kind, Violation> {
    match string(value)?.as_str() {
        "json" => Ok(Kind::Json),
        "csv" => Ok(Kind::Csv),
        _ => Err(Violation::invalid("must be json or csv")),
    }
}

/// Middleware for resources whose response depends on `Accept`: adds `Vary` to each response, errors included.
pub(super) async fn vary_by_accept<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let mut response = next.call(request).await?;
    response.headers_mut().append(VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// Like [`vary_by_accept`], for resources whose response depends on `Prefer`.
pub(super) async fn vary_by_prefer<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let mut response = next.call(request).await?;
    response.headers_mut().append(VARY, HeaderValue::from_static("prefer"));
    Ok(response)
}

impl FromRequest for Accepted {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let ranked = Accept::parse(request).map(|accept| accept.ranked()).unwrap_or_default();
        let first = ranked.iter().find_map(|media| match media.essence_str() {
            "text/csv" => Some(Kind::Csv),
            "application/json" | "application/*" | "*/*" => Some(Kind::Json),
            _ => None,
        });
        ready(Ok(Self(first.unwrap_or(Kind::Json))))
    }
}

#[cfg(test)]
mod tests {
    use actix_web::{http::header::ACCEPT, test::TestRequest};
    use serde_json::{Map, json};

    use super::*;

    const CSV: Format = Format::Csv { bom: false };

    async fn accepted(accept: Option<&str>, format: Option<&str>) -> Format {
        let mut request = TestRequest::get();
        if let Some(accept) = accept {
            request = request.insert_header((ACCEPT, accept));
        }
        let accepted = Accepted::extract(&request.to_http_request()).await.unwrap();
        let mut fields = Map::new();
        if let Some(format) = format {
            fields.insert("format".to_owned(), json!(format));
        }
        accepted.read(&mut Fields::new(fields))
    }

    #[actix_web::test]
    async fn format_overrides_accept() {
        for (accept, wanted) in [
            (None, Format::Json),
            (Some("*/*"), Format::Json),
            (Some("text/html, */*;q=0.8"), Format::Json),
            (Some("text/csv"), CSV),
            (Some("text/csv, application/json;q=0.5"), CSV),
            (Some("text/csv;q=0.5, application/json"), Format::Json),
            (Some(";;;"), Format::Json),
        ] {
            assert_eq!(accepted(accept, None).await, wanted, "{accept:?}");
        }
        assert_eq!(accepted(Some("text/csv"), Some("json")).await, Format::Json);
        assert_eq!(accepted(Some("application/json"), Some("csv")).await, CSV);
    }

    #[test]
    fn unknown_formats_are_rejected() {
        for bad in ["CSV", "xml", ""] {
            assert!(format(json!(bad)).is_err(), "{bad}");
        }
    }
}
