//! Selects JSON or CSV: by the parameter `format`, otherwise by `Accept`, otherwise JSON.

use std::future::{Ready, ready};

use actix_web::{
    Error, FromRequest, HttpRequest,
    body::MessageBody,
    dev::{Payload, ServiceRequest, ServiceResponse},
    http::header::{Accept, Header, HeaderValue, Quality, VARY},
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

/// The format that `Accept` prefers; JSON if it prefers none or accepts neither. A header that cannot be parsed is
/// ignored.
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
        let kind = Accept::parse(request).map_or(Kind::Json, |accept| {
            let csv = quality(&accept, ["text/csv", "text/*", "*/*"]);
            let json = quality(&accept, ["application/json", "application/*", "*/*"]);
            if csv > json { Kind::Csv } else { Kind::Json }
        });
        ready(Ok(Self(kind)))
    }
}

/// The quality of a type by its most specific range (RFC 9110, 12.5.1). `ranges` are those that match it, the most
/// specific first.
fn quality(accept: &Accept, ranges: [&str; 3]) -> Quality {
    let of_range = |range: &&str| {
        let items = accept.iter().filter(|item| item.item.essence_str() == *range);
        items.map(|item| item.quality).max()
    };
    ranges.iter().find_map(of_range).unwrap_or(Quality::ZERO)
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
            (Some("text/csv;q=0"), Format::Json),
            (Some("text/csv;q=0, */*;q=0.1"), Format::Json),
            (Some("*/*, text/csv;q=0.1"), Format::Json),
            (Some("text/*"), CSV),
            (Some("text/*;q=0.9, text/csv;q=0, application/json;q=0.1"), Format::Json),
            (Some("TEXT/CSV; charset=utf-8"), CSV),
            (Some("application/json;q=0, */*"), CSV),
            (Some("application/*;q=0.1, */*;q=0.2"), CSV),
            (Some("text/csv, application/json"), Format::Json),
            (Some("text/html"), Format::Json),
            (Some("*/*;q=0"), Format::Json),
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
