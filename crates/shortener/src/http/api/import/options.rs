//! The options of an upload: query parameters, fields of the form, and `Prefer`.

use std::{
    future::{Ready, ready},
    time::Duration,
};

use actix_web::{FromRequest, HttpRequest, dev::Payload};
use linnet_protocol::problem::Problem;
use utoipa::IntoParams;

use linnet_domain::{
    OnConflict,
    rules::{Violation, string},
};

use super::super::{
    super::error::{ApiError, field_error},
    fields::{Fields, QueryFields, query_boolean},
};

/// The longest wait. Proxies time out after a minute without data.
const MAX_WAIT: Duration = Duration::from_secs(45);

/// The parameters, documented. A form may have them as fields instead.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the input; `Options` reads it")]
pub(crate) struct BulkParams {
    /// Checks everything and writes nothing.
    dry_run: Option<bool>,
    /// The handling of rows whose code, id or e-mail address is taken. `fail` (default): they are bad rows.
    #[param(value_type = Option<OnConflict>)]
    on_conflict: Option<String>,
}

/// The header, documented.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "documents the input; `Prefer` reads it")]
pub(crate) struct PreferParams {
    /// `wait=N` waits up to N seconds (at most 45) for the job to finish.
    #[param(rename = "Prefer", nullable = false, pattern = "^wait=[0-9]{1,2}$")]
    prefer: Option<String>,
}

/// The options of the query or of the form.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Options {
    dry_run: Option<bool>,
    on_conflict: Option<OnConflict>,
}

/// The options of query and form together, with defaults.
pub(super) struct ImportOptions {
    pub(super) dry_run: bool,
    pub(super) on_conflict: OnConflict,
}

impl Options {
    /// Reads a query string.
    pub(super) fn read(query: QueryFields) -> Result<Self, ApiError> {
        let mut fields = query.fields;
        let options = Self::of(&mut fields);
        fields.finish()?;
        Ok(options)
    }

    pub(super) fn of(fields: &mut Fields) -> Self {
        Self {
            dry_run: fields.optional("dry_run", query_boolean),
            on_conflict: fields.optional("on_conflict", on_conflict),
        }
    }

    /// Merges the options of the form. An option may be in only one of the two places.
    pub(super) fn and(self, form: Self) -> Result<ImportOptions, ApiError> {
        let mut errors = Vec::new();
        let message = "must be given only once, in the query or in the form";
        if self.dry_run.is_some() && form.dry_run.is_some() {
            errors.push(field_error("dry_run", "repeated", message));
        }
        if self.on_conflict.is_some() && form.on_conflict.is_some() {
            errors.push(field_error("on_conflict", "repeated", message));
        }
        if !errors.is_empty() {
            return Err(Problem::invalid(errors).into());
        }
        Ok(ImportOptions {
            dry_run: self.dry_run.or(form.dry_run).unwrap_or(false),
            on_conflict: self.on_conflict.or(form.on_conflict).unwrap_or_default(),
        })
    }
}

fn on_conflict(value: serde_json::Value) -> Result<OnConflict, Violation> {
    OnConflict::parse(&string(value)?)
        .ok_or_else(|| Violation::invalid("must be skip, update or fail"))
}

/// `Prefer: wait=N` (RFC 7240). As the RFC requires, unknown preferences are ignored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prefer(Option<Duration>);

impl Prefer {
    /// The preferred wait, up to [`MAX_WAIT`].
    pub(super) fn wait(self) -> Option<Duration> {
        self.0
    }
}

impl FromRequest for Prefer {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let values = request.headers().get_all("prefer").filter_map(|value| value.to_str().ok());
        let preferences = values.flat_map(|value| value.split([',', ';']));
        let wait = preferences.filter_map(|preference| {
            let (name, value) = preference.split_once('=')?;
            let is_wait = name.trim().eq_ignore_ascii_case("wait");
            is_wait.then(|| value.trim().trim_matches('"').parse::<u64>().ok()).flatten()
        });
        let wait = wait.map(|seconds| Duration::from_secs(seconds).min(MAX_WAIT)).next();
        ready(Ok(Self(wait.filter(|wait| !wait.is_zero()))))
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[actix_web::test]
    async fn wait_is_read_among_preferences_and_limited() {
        for (text, seconds) in [
            ("wait=30", Some(30)),
            ("respond-async, wait=10", Some(10)),
            ("Wait = \"5\"; foo=bar", Some(5)),
            ("wait=100000", Some(45)),
            ("wait=0", None),
            ("wait=-1", None),
            ("wait", None),
            ("return=minimal", None),
        ] {
            let request = TestRequest::get().insert_header(("prefer", text)).to_http_request();
            let Prefer(wait) = Prefer::extract(&request).await.unwrap();
            assert_eq!(wait.map(|wait| wait.as_secs()), seconds, "{text}");
        }
    }
}
