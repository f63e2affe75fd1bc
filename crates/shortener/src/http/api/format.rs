//! Selects JSON or CSV: by the parameter `format`, otherwise by `Accept`, otherwise JSON.

use std::future::{Ready, ready};

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    http::header::{Accept, Header},
};
use linnet_domain::rules::{Violation, string};
use utoipa::IntoParams;

use super::{super::error::ApiError, fields::Fields};

/// The format of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Csv,
}

/// The format that `Accept` prefers. A header that cannot be parsed is ignored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Accepted(Format);

/// The parameter, documented.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the input; `Accepted` reads it")]
pub(crate) struct FormatParams {
    /// `json` or `csv`. Default: by `Accept`.
    #[param(pattern = "^(json|csv)$")]
    format: Option<String>,
}

impl Accepted {
    /// Reads `format`, which overrides `Accept`.
    pub(super) fn read(self, fields: &mut Fields) -> Format {
        fields.optional("format", format).unwrap_or(self.0)
    }
}

fn format(value: serde_json::Value) -> Result<Format, Violation> {
    match string(value)?.as_str() {
        "json" => Ok(Format::Json),
        "csv" => Ok(Format::Csv),
        _ => Err(Violation::invalid("must be json or csv")),
    }
}

impl FromRequest for Accepted {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let ranked = Accept::parse(request).map(|accept| accept.ranked()).unwrap_or_default();
        let first = ranked.iter().find_map(|media| match media.essence_str() {
            "text/csv" => Some(Format::Csv),
            "application/json" | "application/*" | "*/*" => Some(Format::Json),
            _ => None,
        });
        ready(Ok(Self(first.unwrap_or(Format::Json))))
    }
}

#[cfg(test)]
mod tests {
    use actix_web::{http::header::ACCEPT, test::TestRequest};
    use serde_json::{Map, json};

    use super::*;

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
            (Some("text/csv"), Format::Csv),
            (Some("text/csv, application/json;q=0.5"), Format::Csv),
            (Some("text/csv;q=0.5, application/json"), Format::Json),
            (Some(";;;"), Format::Json),
        ] {
            assert_eq!(accepted(accept, None).await, wanted, "{accept:?}");
        }
        assert_eq!(accepted(Some("text/csv"), Some("json")).await, Format::Json);
        assert_eq!(accepted(Some("application/json"), Some("csv")).await, Format::Csv);
    }

    #[test]
    fn unknown_formats_are_rejected() {
        for bad in ["CSV", "xml", ""] {
            assert!(format(json!(bad)).is_err(), "{bad}");
        }
    }
}
