//! JSON or CSV: by the parameter `format`, else by what `Accept` prefers, else JSON.

use std::future::{Ready, ready};

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    http::header::{Accept, Header},
};
use utoipa::IntoParams;

use super::{
    super::error::ApiError,
    fields::{Bad, Fields, string},
};

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Csv,
}

/// What `Accept` prefers. Never fails: a header that cannot be read says nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Accepted(Format);

/// The parameter, documented.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the input; `Accepted` reads it")]
pub(crate) struct FormatParams {
    /// `json` or `csv`; without it, `Accept` decides.
    #[param(pattern = "^(json|csv)$")]
    format: Option<String>,
}

impl Accepted {
    /// Reads `format`, which wins.
    pub(super) fn read(self, fields: &mut Fields) -> Format {
        fields.optional("format", format).unwrap_or(self.0)
    }
}

fn format(value: serde_json::Value) -> Result<Format, Bad> {
    match string(value)?.as_str() {
        "json" => Ok(Format::Json),
        "csv" => Ok(Format::Csv),
        _ => Err(("invalid", "must be json or csv".to_owned())),
    }
}

impl FromRequest for Accepted {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        // Of `*/*` and what else there is, JSON is given.
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
    async fn the_parameter_wins_over_the_header() {
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
    fn other_formats_are_refused() {
        for bad in ["CSV", "xml", ""] {
            assert!(format(json!(bad)).is_err(), "{bad}");
        }
    }
}
