//! `Idempotency-Key` on `POST`: reads the header, and stores and replays responses.

use std::future::{Ready, ready};

use actix_web::{
    FromRequest, HttpRequest, HttpResponse,
    dev::Payload,
    http::{
        StatusCode,
        header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION},
    },
};
use linnet_protocol::{problem::Problem, problem_code::ProblemCode};
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::IntoParams;

use linnet_domain::{Event, NewEvent, NewJob, NewLink, NewUser, User, Visibility};
use linnet_store::{
    CreatedJob, IdempotencyClaim, IdempotentTransaction, JobLimits, JobRefusal, LinkCreation,
    Store, StoreError, StoredResponse,
};

use super::{super::error::ApiError, ApiState, Caller, fields::ONCE_RULE};

/// The request header.
pub(super) const HEADER: &str = "idempotency-key";
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const MAX_KEY_BYTES: usize = 255;
const KEY_RULE: &str =
    "must be 1 to 255 printable ASCII characters, with or without quotes around them";

/// The header, documented.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "documents the input; `IdempotencyKey` reads it")]
pub(crate) struct IdempotencyParams {
    /// A repeated request within 24 h returns the first response; another request with the same key is rejected.
    /// `"abc"` and `abc` are the same key.
    #[param(
        rename = "Idempotency-Key",
        nullable = false,
        min_length = 1,
        max_length = 255,
        pattern = r#"^([!#-~]([ -~]*[!-~])?|"([ !#-\[\]-~]|\\["\\])+")$"#
    )]
    idempotency_key: Option<String>,
}

/// The key of the request, if it has one, with the parts of the request that its body does not contain.
#[derive(Debug)]
pub(crate) struct IdempotencyKey {
    key: Option<String>,
    /// Method, path and query.
    target: String,
}

impl IdempotencyKey {
    /// The key without the quotes around it.
    pub(super) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }
}

impl FromRequest for IdempotencyKey {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let mut values = request.headers().get_all(HEADER);
        let key = match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => {
                value.to_str().ok().and_then(parse_key).map(Some).ok_or(KEY_RULE)
            }
            (Some(_), Some(_)) => Err(ONCE_RULE),
        };
        let target = format!("{} {}", request.method(), request.uri());
        ready(
            key.map(|key| Self { key, target })
                .map_err(|rule| ApiError::invalid("Idempotency-Key", "invalid", rule)),
        )
    }
}

/// The key in its two spellings: a string of RFC 8941, such as `"abc"`, and the same without quotes.
fn parse_key(value: &str) -> Option<String> {
    let value = value.trim();
    let key = if value.starts_with('"') { unquoted(value)? } else { value.to_owned() };
    let is_printable = key.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    (is_printable && (1..=MAX_KEY_BYTES).contains(&key.len())).then_some(key)
}

/// The text of a string of RFC 8941. Parameters after it are ignored, as the RFC requires.
fn unquoted(value: &str) -> Option<String> {
    let mut key = String::with_capacity(value.len());
    let mut characters = value.strip_prefix('"')?.chars();
    loop {
        match characters.next()? {
            '"' => break,
            '\\' => key.push(characters.next().filter(|next| matches!(next, '"' | '\\'))?),
            other => key.push(other),
        }
    }
    let rest = characters.as_str().trim_start();
    (rest.is_empty() || rest.starts_with(';')).then_some(key)
}

/// The response to a `POST` that created or found a resource.
pub(crate) struct CreatedResponse {
    status: StatusCode,
    location: String,
    body: String,
}

impl CreatedResponse {
    /// Creates a response with `body` as JSON.
    pub(super) fn new<T: Serialize>(
        status: StatusCode,
        location: String,
        body: &T,
    ) -> Result<Self, ApiError> {
        let body = serde_json::to_string(body).map_err(|error| {
            tracing::error!(%error, "response not serialized");
            Problem::internal()
        })?;
        Ok(Self { status, location, body })
    }

    /// The stored form.
    fn stored(&self) -> StoredResponse {
        StoredResponse {
            status: i16::try_from(self.status.as_u16()).unwrap_or(500),
            location: Some(self.location.clone()),
            body: self.body.clone(),
        }
    }

    /// The response.
    fn respond(self) -> HttpResponse {
        HttpResponse::build(self.status)
            .insert_header((LOCATION, self.location))
            .insert_header((CONTENT_TYPE, HeaderValue::from_static("application/json")))
            .body(self.body)
    }
}

/// Creates resources: directly, or in the transaction that holds the request's key.
pub(super) enum Creator<'a> {
    Plain(&'a ApiState),
    Keyed(IdempotentTransaction),
}

impl Creator<'_> {
    /// Creates a link, or with `reuse` returns the one that the same user already has.
    pub(super) async fn create_link(
        &mut self,
        new: NewLink,
        reuse: bool,
    ) -> Result<LinkCreation, StoreError> {
        match self {
            Self::Plain(state) if reuse => state.store.create_or_reuse_link(&new).await,
            Self::Plain(state) => state.creates.create(new).await,
            Self::Keyed(first) => first.create_link(&new, reuse).await,
        }
    }

    /// [`Store::create_user`].
    pub(super) async fn create_user(&mut self, new: &NewUser) -> Result<User, StoreError> {
        match self {
            Self::Plain(state) => state.store.create_user(new).await,
            Self::Keyed(first) => first.create_user(new).await,
        }
    }

    /// [`Store::create_job`].
    pub(super) async fn create_job(
        &mut self,
        new: &NewJob,
        limits: JobLimits,
    ) -> Result<Result<CreatedJob, JobRefusal>, StoreError> {
        match self {
            Self::Plain(state) => state.store.create_job(new, limits).await,
            Self::Keyed(first) => first.create_job(new, limits).await,
        }
    }

    /// [`Store::create_event`].
    pub(super) async fn create_event(
        &mut self,
        new: &NewEvent,
        visible_to: Visibility,
    ) -> Result<Option<Event>, StoreError> {
        match self {
            Self::Plain(state) => state.store.create_event(new, visible_to).await,
            Self::Keyed(first) => first.create_event(new, visible_to).await,
        }
    }
}

/// Responds to a `POST` with the response of `create`, or with the stored response of the same key. `body` contains
/// every part of the request's body that changes the result. If it differs from that of the first request with the key,
/// this is an error. The created resource is committed when this returns.
pub(super) async fn once(
    state: &ApiState,
    caller: &Caller,
    key: IdempotencyKey,
    body: &[u8],
    create: impl AsyncFnOnce(&mut Creator<'_>) -> Result<CreatedResponse, ApiError>,
) -> Result<HttpResponse, ApiError> {
    let mut creator = match key.key() {
        None => Creator::Plain(state),
        Some(name) => match begin(&state.store, caller, &key.target, name, body).await? {
            Ok(first) => Creator::Keyed(first),
            Err(replayed) => return Ok(replayed),
        },
    };
    let created = create(&mut creator).await?;
    if let Creator::Keyed(first) = creator {
        first.finish(&created.stored()).await?;
    }
    Ok(created.respond())
}

/// Claims the key, or returns the stored response of the key.
async fn begin(
    store: &Store,
    caller: &Caller,
    target: &str,
    key: &str,
    body: &[u8],
) -> Result<Result<IdempotentTransaction, HttpResponse>, ApiError> {
    let fingerprint = fingerprint(target, caller.is_admin(), body);
    let claim = store.begin_idempotent(&caller.idempotency_owner(), key, &fingerprint).await?;
    match claim {
        IdempotencyClaim::New(first) => Ok(Ok(first)),
        IdempotencyClaim::Replay(stored) => Ok(Err(replay(stored))),
        IdempotencyClaim::Mismatch => {
            let rule = "must be new: another request used this key within the last 24 h";
            Err(ApiError::invalid("Idempotency-Key", "reused", rule))
        }
        IdempotencyClaim::TooMany => {
            let detail = "Too many requests with an Idempotency-Key within 24 h. Send the request without one.";
            Err(Problem::of(ProblemCode::TooManyIdempotencyKeys).detail(detail).into())
        }
    }
}

/// The hash of everything that changes the result: with the rights of an administrator, the same request may name other
/// users and ids.
fn fingerprint(target: &str, is_admin: bool, body: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(target.as_bytes());
    hash.update([0]);
    if is_admin {
        hash.update(b"admin\0");
    }
    hash.update(body);
    hash.finalize().into()
}

fn replay(stored: StoredResponse) -> HttpResponse {
    let status = u16::try_from(stored.status).ok().and_then(|code| StatusCode::from_u16(code).ok());
    let mut response = HttpResponse::build(status.unwrap_or(StatusCode::OK));
    if let Some(location) = stored.location {
        response.insert_header((LOCATION, location));
    }
    response.insert_header((CONTENT_TYPE, HeaderValue::from_static("application/json")));
    replayed(response.body(stored.body))
}

/// Marks the response to a repeated request.
pub(super) fn replayed(mut response: HttpResponse) -> HttpResponse {
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_differ_in_everything_that_changes_the_result() {
        let all = [
            fingerprint("POST /a", false, b"{}"),
            fingerprint("POST /a", true, b"{}"),
            fingerprint("POST /a?b", false, b"{}"),
            fingerprint("POST /a", false, b"{ }"),
        ];
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert_eq!(all[0], fingerprint("POST /a", false, b"{}"));
    }

    #[test]
    fn a_quoted_key_is_the_same_as_the_bare_one() {
        for (value, key) in [
            ("abc", Some("abc")),
            ("\"abc\"", Some("abc")),
            ("  \"abc\" ", Some("abc")),
            ("\"abc\";a=1", Some("abc")),
            ("\"abc\" ; a", Some("abc")),
            (r#""a\"b\\c""#, Some(r#"a"b\c"#)),
            ("a\"b", Some("a\"b")),
            ("a b", Some("a b")),
            ("\"", None),
            ("\"\"", None),
            ("\"abc", None),
            ("\"abc\"d", None),
            (r#""a\x""#, None),
            ("", None),
            ("   ", None),
            ("a\tb", None),
            ("\"a\tb\"", None),
        ] {
            assert_eq!(parse_key(value).as_deref(), key, "{value}");
        }
        let longest = "x".repeat(MAX_KEY_BYTES);
        assert_eq!(parse_key(&format!("\"{longest}\"")), Some(longest.clone()));
        assert_eq!(parse_key(&format!("{longest}x")), None);
    }
}
