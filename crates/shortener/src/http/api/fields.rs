//! Reads a JSON object or a query string field by field, and reports all that is wrong at once.
//!
//! `serde` would stop at the first error and name it in its own words. Here every field is taken
//! by name; what is left at the end is unknown, and unknown is an error: a misspelt field that is
//! silently ignored is worse than a refusal.

use std::{collections::HashSet, fmt::Display, hash::Hash, rc::Rc};

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    http::{StatusCode, header::CONTENT_TYPE},
    web::Bytes,
};
use chrono::{DateTime, Datelike, Utc};
use futures::future::LocalBoxFuture;
use linnet_protocol::{
    problem::{FieldError, Problem},
    problem_code::ProblemCode,
};
use serde_json::{Map, Value};

use super::super::error::{ApiError, field_error};

/// Longest body of an ordinary request, in bytes. The gateway has the same limit.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Unknown fields that are told one by one, or the answer would be far larger than the body.
const MAX_UNKNOWN: usize = 20;

/// What is wrong with one value.
pub(super) type Bad = (&'static str, String);

/// The value does not obey a rule of the domain.
pub(super) fn invalid(error: impl Display) -> Bad {
    ("invalid", error.to_string())
}

/// The fields of one object.
#[derive(Debug)]
pub(crate) struct Fields {
    map: Map<String, Value>,
    errors: Vec<FieldError>,
}

impl Fields {
    pub(super) fn new(map: Map<String, Value>) -> Self {
        Self { map, errors: Vec::new() }
    }

    /// A field that may be absent or null.
    pub(super) fn optional<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(Value) -> Result<T, Bad>,
    ) -> Option<T> {
        match self.map.remove(name) {
            None | Some(Value::Null) => None,
            Some(value) => self.read(name, value, read),
        }
    }

    /// A field that must be there.
    pub(super) fn required<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(Value) -> Result<T, Bad>,
    ) -> Option<T> {
        match self.map.remove(name) {
            None => {
                self.errors.push(field_error(name, "required", "is required"));
                None
            }
            Some(value) => self.read(name, value, read),
        }
    }

    /// A field of a change: absent leaves the value as it is, null is an error.
    pub(super) fn change<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(Value) -> Result<T, Bad>,
    ) -> Option<T> {
        let value = self.map.remove(name)?;
        self.read(name, value, read)
    }

    /// A field of a change: absent leaves the value as it is, null clears it.
    pub(super) fn change_or_clear<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(Value) -> Result<T, Bad>,
    ) -> Option<Option<T>> {
        match self.map.remove(name)? {
            Value::Null => Some(None),
            value => self.read(name, value, read).map(Some),
        }
    }

    /// Takes over what was wrong in an object that is this one's field `name`.
    pub(super) fn absorb(&mut self, name: &str, mut inner: Self) {
        inner.note_unknown();
        self.errors.extend(inner.errors.into_iter().map(|mut error| {
            error.field = format!("{name}.{}", error.field);
            error
        }));
    }

    /// Reports everything that was wrong, unknown fields included.
    pub(super) fn finish(mut self) -> Result<(), ApiError> {
        self.note_unknown();
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::invalid(self.errors).into()) }
    }

    /// [`Fields::finish`], then the values that a handler cannot do without. They are there when
    /// nothing was wrong.
    pub(super) fn finish_with<T>(self, values: Option<T>) -> Result<T, ApiError> {
        self.finish()?;
        values.ok_or_else(|| Problem::internal().into())
    }

    fn note_unknown(&mut self) {
        for name in self.map.keys().take(MAX_UNKNOWN) {
            self.errors.push(field_error(name, "unknown", "is not a known field"));
        }
    }

    fn read<T>(
        &mut self,
        name: &str,
        value: Value,
        read: impl FnOnce(Value) -> Result<T, Bad>,
    ) -> Option<T> {
        match read(value) {
            Ok(value) => Some(value),
            Err((code, message)) => {
                self.errors.push(field_error(name, code, &message));
                None
            }
        }
    }
}

fn wrong_type(wanted: &str, value: &Value) -> Bad {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    ("wrong_type", format!("must be {wanted}, not {found}"))
}

/// A string without NUL, which PostgreSQL cannot store.
pub(super) fn string(value: Value) -> Result<String, Bad> {
    match value {
        Value::String(text) if text.contains('\0') => {
            Err(("invalid", "may not hold the NUL character".to_owned()))
        }
        Value::String(text) => Ok(text),
        other => Err(wrong_type("a string", &other)),
    }
}

/// A boolean.
pub(super) fn boolean(value: Value) -> Result<bool, Bad> {
    match value {
        Value::Bool(value) => Ok(value),
        other => Err(wrong_type("a boolean", &other)),
    }
}

/// A whole number, which by JSON Schema 1.0 is as well.
pub(super) fn integer(value: Value) -> Result<i64, Bad> {
    match value {
        Value::Number(number) if number.is_f64() => {
            whole(number.as_f64()).ok_or_else(|| wrong_type("an integer", &Value::Number(number)))
        }
        Value::Number(number) => {
            number.as_i64().ok_or_else(|| ("out_of_range", "is too large".to_owned()))
        }
        other => Err(wrong_type("an integer", &other)),
    }
}

/// Only what a double holds exactly: beyond it, nobody knows which number was meant.
fn whole(number: Option<f64>) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let number = number.filter(|number| number.fract() == 0.0 && number.abs() <= EXACT)?;
    format!("{number:.0}").parse().ok()
}

/// A whole number above 0: an id, a limit.
pub(super) fn positive(value: Value) -> Result<i64, Bad> {
    let number = integer(value)?;
    if number > 0 { Ok(number) } else { Err(("out_of_range", "must be at least 1".to_owned())) }
}

/// An id.
pub(super) fn id<I: TryFrom<i64>>(value: Value) -> Result<I, Bad> {
    I::try_from(positive(value)?).map_err(|_| ("out_of_range", "must be at least 1".to_owned()))
}

/// RFC 3339 with a time zone.
pub(super) fn timestamp(value: Value) -> Result<DateTime<Utc>, Bad> {
    let text = string(value)?;
    let time = DateTime::parse_from_rfc3339(&text)
        .map_err(|_| {
            ("invalid", "must be an RFC 3339 time, such as 2027-01-31T12:00:00Z".to_owned())
        })?
        .with_timezone(&Utc);
    // RFC 3339 cannot write a year of five digits, which a time zone can make of 9999.
    if (0..=9999).contains(&time.year()) {
        Ok(time)
    } else {
        Err(("out_of_range", "must be between the years 0 and 9999".to_owned()))
    }
}

/// An object without NUL in its strings.
pub(super) fn object(value: Value) -> Result<Map<String, Value>, Bad> {
    match value {
        Value::Object(map)
            if !map.iter().any(|(key, value)| key.contains('\0') || has_nul(value)) =>
        {
            Ok(map)
        }
        Value::Object(_) => Err(("invalid", "may not hold the NUL character".to_owned())),
        other => Err(wrong_type("an object", &other)),
    }
}

/// An object whose fields are read one by one.
pub(super) fn members(value: Value) -> Result<Fields, Bad> {
    match value {
        Value::Object(map) => Ok(Fields::new(map)),
        other => Err(wrong_type("an object", &other)),
    }
}

/// Ids of 1 to `max` things, each once.
pub(super) fn ids<I>(value: Value, max: usize) -> Result<Vec<I>, Bad>
where
    I: TryFrom<i64> + Copy + Eq + Hash + Display,
{
    let items = match value {
        Value::Array(items) => items,
        other => return Err(wrong_type("an array", &other)),
    };
    if items.is_empty() || items.len() > max {
        return Err(("out_of_range", format!("must be 1 to {max} ids, not {}", items.len())));
    }
    let mut ids = Vec::with_capacity(items.len());
    let mut seen = HashSet::with_capacity(items.len());
    for (at, item) in items.into_iter().enumerate() {
        let id: I =
            id(item).map_err(|(code, message)| (code, format!("item {}: {message}", at + 1)))?;
        if !seen.insert(id) {
            return Err(("repeated", format!("item {}: {id} is given more than once", at + 1)));
        }
        ids.push(id);
    }
    Ok(ids)
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(map) => map.iter().any(|(key, value)| key.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// A JSON object as the body, and its bytes.
#[derive(Debug)]
pub(crate) struct JsonObject {
    /// The fields.
    pub(super) fields: Fields,
    /// The body as it came, for `Idempotency-Key`.
    pub(super) raw: Bytes,
}

impl FromRequest for JsonObject {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let content_type = check_content_type(request);
        let body = Bytes::from_request(request, payload);
        Box::pin(async move {
            content_type?;
            // The app's payload limit is MAX_BODY_BYTES.
            let raw = body.await.map_err(|error| {
                if error.as_response_error().status_code() == StatusCode::PAYLOAD_TOO_LARGE {
                    Problem::too_large(MAX_BODY_BYTES)
                } else {
                    bad_body("the body did not arrive whole")
                }
            })?;
            let value = serde_json::from_slice(&raw)
                .map_err(|error| bad_body(&format!("is not valid JSON: {error}")))?;
            match value {
                Value::Object(map) => Ok(Self { fields: Fields::new(map), raw }),
                other => {
                    let (code, message) = wrong_type("a JSON object", &other);
                    Err(Problem::invalid(vec![field_error("body", code, &message)]).into())
                }
            }
        })
    }
}

fn bad_body(message: &str) -> Problem {
    Problem::of(ProblemCode::MalformedJson)
        .detail(format!("body: {message}"))
        .errors(vec![field_error("body", "malformed_json", message)])
}

fn check_content_type(request: &HttpRequest) -> Result<(), ApiError> {
    let value = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = value.and_then(|value| value.split(';').next()).map(str::trim);
    let is_json = media_type.is_some_and(|media_type| {
        media_type.eq_ignore_ascii_case("application/json")
            || (media_type.starts_with("application/") && media_type.ends_with("+json"))
    });
    if is_json {
        return Ok(());
    }
    let message = "the Content-Type must be application/json";
    let problem = Problem::of(ProblemCode::UnsupportedMediaType)
        .detail(message)
        .errors(vec![field_error("body", "unsupported_media_type", message)]);
    Err(problem.into())
}

/// The query string's parameters, as [`Fields`] of strings.
#[derive(Debug)]
pub(crate) struct QueryFields {
    pub(super) fields: Fields,
    /// The parameters as they came, for `Link` headers.
    pub(super) pairs: Rc<[(String, String)]>,
}

impl FromRequest for QueryFields {
    type Error = ApiError;
    type Future = std::future::Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        std::future::ready(Self::parse(request.query_string()))
    }
}

impl QueryFields {
    fn parse(query: &str) -> Result<Self, ApiError> {
        // The parser below would put replacement characters where the bytes are no text.
        if std::str::from_utf8(&percent_decoded(query)).is_err() {
            let error = field_error("query", "invalid", "is not UTF-8");
            return Err(Problem::invalid(vec![error]).into());
        }
        let pairs: Vec<(String, String)> =
            url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let mut map = Map::new();
        for (name, value) in &pairs {
            if map.insert(name.clone(), Value::String(value.clone())).is_some() {
                let error = field_error(name, "repeated", "is given more than once");
                return Err(Problem::invalid(vec![error]).into());
            }
        }
        Ok(Self { fields: Fields::new(map), pairs: pairs.into() })
    }
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = match rest {
            [b'%', high, low, ..] => {
                char::from(*high).to_digit(16).zip(char::from(*low).to_digit(16))
            }
            _ => None,
        };
        match escaped.and_then(|(high, low)| u8::try_from(high * 16 + low).ok()) {
            Some(byte) => {
                decoded.push(byte);
                rest = rest.get(3..).unwrap_or_default();
            }
            None => {
                decoded.push(first);
                rest = after;
            }
        }
    }
    decoded
}

/// An id in a query string.
pub(super) fn query_id<I: TryFrom<i64>>(value: Value) -> Result<I, Bad> {
    let number = query_positive(value)?;
    I::try_from(number).map_err(|_| ("invalid", "must be a positive integer".to_owned()))
}

/// A whole number above 0 in a query string.
pub(super) fn query_positive(value: Value) -> Result<i64, Bad> {
    let text = string(value)?;
    let number = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
    number
        .filter(|number| *number > 0)
        .ok_or_else(|| ("invalid", "must be a positive integer".to_owned()))
}

/// `true` or `false` in a query string, in the spellings that clients use.
pub(super) fn query_boolean(value: Value) -> Result<bool, Bad> {
    match string(value)?.as_str() {
        "true" | "True" | "1" => Ok(true),
        "false" | "False" | "0" => Ok(false),
        _ => Err(("invalid", "must be true or false".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use linnet_domain::LinkId;
    use serde_json::json;

    fn fields(value: Value) -> Fields {
        match value {
            Value::Object(map) => Fields::new(map),
            _ => unreachable!("tests pass objects"),
        }
    }

    #[test]
    fn all_errors_are_reported_at_once_with_their_fields() {
        let mut fields = fields(json!({"name": 7, "is_active": "yes", "no_such": 1}));
        assert_eq!(fields.required("name", string), None);
        assert_eq!(fields.optional("is_active", boolean), None);
        assert_eq!(fields.required("email", string), None);
        assert_eq!(fields.errors.len(), 3);
        let error = fields.finish().unwrap_err();
        assert_eq!(error.0.status(), 422);
        assert!(error.0.to_string().contains("4 fields"), "{error}");
    }

    #[test]
    fn the_answer_to_many_unknown_fields_is_bounded() {
        let map = (0..10_000).map(|n| (n.to_string(), json!(0))).collect();
        let error = Fields::new(map).finish().unwrap_err();
        assert!(error.0.to_string().contains("20 fields"), "{error}");
    }

    #[test]
    fn absent_null_and_value_differ_in_a_change() {
        let mut fields = fields(json!({"cleared": null, "set": "x", "not_nullable": null}));
        assert_eq!(fields.change_or_clear("absent", string), None);
        assert_eq!(fields.change_or_clear("cleared", string), Some(None));
        assert_eq!(fields.change_or_clear("set", string), Some(Some("x".to_owned())));
        assert_eq!(fields.change("not_nullable", string), None);
        assert!(fields.finish().is_err());
    }

    #[test]
    fn what_is_wrong_within_a_field_is_named_with_it() {
        let mut outer = fields(json!({"change": {"title": 7, "no_such": 1}}));
        let mut inner = outer.required("change", members).unwrap();
        assert_eq!(inner.optional("title", string), None);
        outer.absorb("change", inner);
        let named: Vec<_> = outer.errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(named, ["change.title", "change.no_such"]);
        assert!(outer.finish().is_err());
    }

    #[test]
    fn ids_are_few_positive_and_different() {
        assert_eq!(ids(json!([3, 1, 2]), 3), Ok(vec![3, 1, 2]));
        for (bad, code) in [
            (json!([]), "out_of_range"),
            (json!([1, 2, 3, 4]), "out_of_range"),
            (json!([1, 2, 1]), "repeated"),
            (json!([1, 1.0]), "repeated"),
            (json!([0]), "out_of_range"),
            (json!(["1"]), "wrong_type"),
            (json!([null]), "wrong_type"),
            (json!(1), "wrong_type"),
            (json!({"0": 1}), "wrong_type"),
        ] {
            assert_eq!(ids::<LinkId>(bad.clone(), 3).unwrap_err().0, code, "{bad}");
        }
    }

    #[test]
    fn a_query_that_is_no_text_is_refused() {
        for bad in ["search=%ff", "%c3=1", "search=%c3%28", "a=1&b=%ed%a0%80"] {
            assert!(QueryFields::parse(bad).is_err(), "{bad}");
        }
        for good in ["", "search=%C3%a4", "search=100%", "search=%zz", "a=%00"] {
            assert!(QueryFields::parse(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn types_are_strict() {
        for bad in [json!(1.5), json!(1e300), json!("1"), json!(true), json!(null), json!([1])] {
            assert!(integer(bad).is_err());
        }
        assert_eq!(integer(json!(-1.0)), Ok(-1));
        assert_eq!(integer(json!(u64::MAX)).unwrap_err().0, "out_of_range");
        assert!(positive(json!(0)).is_err());
        assert!(positive(json!(-1)).is_err());
        assert!(boolean(json!(1)).is_err());
        assert!(string(json!("a\0b")).is_err());
        assert!(object(json!({"a": [{"b": "\0"}]})).is_err());
        for bad in ["", "2027-01-31", "2027-01-31T12:00:00", "9999-12-31T23:59:59-12:00"] {
            assert!(timestamp(json!(bad)).is_err(), "{bad}");
        }
        assert!(timestamp(json!("2027-01-31T12:00:00+02:00")).is_ok());
    }
}
