//! The options of an upload: query parameters, fields of the form, and `Prefer`.

use std::{
    future::{Ready, ready},
    time::Duration,
};

use actix_web::{FromRequest, HttpRequest, dev::Payload};
use linnet_protocol::problem::Problem;
use utoipa::IntoParams;

use linnet_domain::{
    LinkField, OnConflict,
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
    /// The columns in which the word `null` clears the field, such as `title,max_clicks`. An empty cell leaves the field
    /// as it is. In JSON, null itself clears it.
    #[param(pattern = "^(title|expires_at|max_clicks)(,(title|expires_at|max_clicks))*$")]
    null_columns: Option<String>,
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
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Options {
    dry_run: Option<bool>,
    on_conflict: Option<OnConflict>,
    null_columns: Option<Vec<String>>,
}

/// The options of query and form together, with defaults.
#[derive(Debug)]
pub(in super::super) struct ImportOptions {
    pub(super) dry_run: bool,
    pub(super) on_conflict: OnConflict,
    pub(super) null_columns: Vec<String>,
}

impl Options {
    /// Reads a query string.
    pub(in super::super) fn read(query: QueryFields) -> Result<Self, ApiError> {
        let mut fields = query.fields;
        let options = Self::of(&mut fields);
        fields.finish()?;
        Ok(options)
    }

    pub(super) fn of(fields: &mut Fields) -> Self {
        Self {
            dry_run: fields.optional("dry_run", query_boolean),
            on_conflict: fields.optional("on_conflict", on_conflict),
            null_columns: fields.optional("null_columns", null_columns),
        }
    }

    /// Merges the options of the form. An option may be in only one of the two places.
    pub(in super::super) fn and(self, form: Self) -> Result<ImportOptions, ApiError> {
        let mut errors = Vec::new();
        let message = "must be given only once, in the query or in the form";
        for (name, is_repeated) in [
            ("dry_run", self.dry_run.is_some() && form.dry_run.is_some()),
            ("on_conflict", self.on_conflict.is_some() && form.on_conflict.is_some()),
            ("null_columns", self.null_columns.is_some() && form.null_columns.is_some()),
        ] {
            if is_repeated {
                errors.push(field_error(name, "repeated", message));
            }
        }
        if !errors.is_empty() {
            return Err(Problem::invalid(errors).into());
        }
        Ok(ImportOptions {
            dry_run: self.dry_run.or(form.dry_run).unwrap_or(false),
            on_conflict: self.on_conflict.or(form.on_conflict).unwrap_or_default(),
            null_columns: self.null_columns.or(form.null_columns).unwrap_or_default(),
        })
    }
}

fn on_conflict(value: serde_json::Value) -> Result<OnConflict, Violation> {
    OnConflict::parse(&string(value)?)
        .ok_or_else(|| Violation::invalid("must be skip, update or fail"))
}

fn null_columns(value: serde_json::Value) -> Result<Vec<String>, Violation> {
    let clearable: Vec<&str> = LinkField::ALL
        .iter()
        .filter(|field| field.importable && field.clearable)
        .map(|field| field.name)
        .collect();
    let names: Vec<String> = string(value)?.split(',').map(ToOwned::to_owned).collect();
    if names.iter().all(|name| clearable.contains(&name.as_str())) {
        Ok(names)
    } else {
        Err(Violation::invalid(format_args!("must be a list of {}", clearable.join(", "))))
    }
}

/// `Prefer: wait=N` (RFC 7240). As the RFC requires, unknown preferences are ignored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prefer(Option<Duration>);

impl Prefer {
    /// The preferred wait, up to [`MAX_WAIT`].
    pub(in super::super) fn wait(self) -> Option<Duration> {
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
    use serde_json::json;

    use super::*;

    #[test]
    fn null_columns_are_columns_that_can_be_cleared() {
        let columns = null_columns(json!("title,max_clicks"));
        assert_eq!(columns, Ok(vec!["title".to_owned(), "max_clicks".to_owned()]));
        for bad in
            ["title, max_clicks", "Title", "is_active", "original_url", "title,", "no_such", ","]
        {
            assert!(null_columns(json!(bad)).is_err(), "{bad}");
        }
    }

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
