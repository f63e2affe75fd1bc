//! `Idempotency-Key` on `POST`: the header, and the answers that are kept.

use std::future::{Ready, ready};

use actix_web::{
    FromRequest, HttpRequest, HttpResponse,
    dev::Payload,
    http::{
        StatusCode,
        header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION},
    },
};
use linnet_protocol::problem::Problem;
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::IntoParams;

use linnet_domain::{Event, Job, NewEvent, NewJob, NewLink, NewUser, User, Visibility};
use linnet_store::{
    IdempotencyClaim, IdempotentTransaction, JobLimits, LinkCreation, Store, StoreError,
    StoredResponse,
};

use super::{
    super::error::{ApiError, field_error},
    ApiState, Caller,
};

/// The request header.
pub(super) const HEADER: &str = "idempotency-key";
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const MAX_KEY_BYTES: usize = 255;

/// The header, documented.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "documents the input; `IdempotencyKey` reads it")]
pub(crate) struct IdempotencyParams {
    /// Repeats within 24 h get the first answer; another request with the same key is refused.
    #[param(
        rename = "Idempotency-Key",
        nullable = false,
        min_length = 1,
        max_length = 255,
        pattern = "^[!-~]([ -~]*[!-~])?$"
    )]
    idempotency_key: Option<String>,
}

/// The key, if the request has one.
#[derive(Debug)]
pub(crate) struct IdempotencyKey(Option<String>);

impl FromRequest for IdempotencyKey {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let mut values = request.headers().get_all(HEADER);
        let key = match (values.next(), values.next()) {
            (None, _) => Ok(Self(None)),
            (Some(value), None) => value
                .to_str()
                .ok()
                .filter(|key| (1..=MAX_KEY_BYTES).contains(&key.len()))
                .map(|key| Self(Some(key.to_owned())))
                .ok_or("must be 1 to 255 visible ASCII characters"),
            (Some(_), Some(_)) => Err("is given more than once"),
        };
        ready(key.map_err(|message| {
            Problem::invalid(vec![field_error("Idempotency-Key", "invalid", message)]).into()
        }))
    }
}

/// The answer to a `POST` that made, or found, something.
pub(crate) struct Made {
    status: StatusCode,
    location: String,
    body: String,
}

impl Made {
    /// Writes the body as JSON.
    pub(super) fn new<T: Serialize>(
        status: StatusCode,
        location: String,
        body: &T,
    ) -> Result<Self, ApiError> {
        let body = serde_json::to_string(body).map_err(|error| {
            tracing::error!(%error, "an answer could not be written");
            Problem::internal()
        })?;
        Ok(Self { status, location, body })
    }

    /// The form that is stored.
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

/// What makes things: the worker's tools, or the transaction that holds the request's key.
pub(super) enum Maker<'a> {
    Plain(&'a ApiState),
    Keyed(IdempotentTransaction),
}

impl Maker<'_> {
    /// Makes a link, or with `reuse` gives the one that the same user already has.
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
    ) -> Result<Option<Job>, StoreError> {
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

/// Answers a `POST` to `route` with what `work` made, or, if the request's key was used before, with
/// the answer of then. What was made is committed when this returns.
pub(super) async fn once(
    state: &ApiState,
    caller: &Caller,
    route: &str,
    key: IdempotencyKey,
    body: &[u8],
    work: impl AsyncFnOnce(&mut Maker<'_>) -> Result<Made, ApiError>,
) -> Result<HttpResponse, ApiError> {
    let mut maker = match &key.0 {
        None => Maker::Plain(state),
        Some(key) => match begin(&state.store, caller, route, key, body).await? {
            Ok(first) => Maker::Keyed(first),
            Err(replayed) => return Ok(replayed),
        },
    };
    let made = work(&mut maker).await?;
    if let Maker::Keyed(first) = maker {
        first.finish(&made.stored()).await?;
    }
    Ok(made.respond())
}

/// Claims the key, or gives the answer that the key already has.
async fn begin(
    store: &Store,
    caller: &Caller,
    route: &str,
    key: &str,
    body: &[u8],
) -> Result<Result<IdempotentTransaction, HttpResponse>, ApiError> {
    let mut hash = Sha256::new();
    hash.update(route.as_bytes());
    hash.update([0]);
    hash.update(body);
    let recorded =
        store.begin_idempotent(&caller.idempotency_owner(), key, &hash.finalize()).await?;
    match recorded {
        IdempotencyClaim::New(first) => Ok(Ok(first)),
        IdempotencyClaim::Replay(answer) => Ok(Err(replay(answer))),
        IdempotencyClaim::Mismatch => {
            let message = "was used for another request within the last 24 h";
            let error = field_error("Idempotency-Key", "reused", message);
            Err(Problem::invalid(vec![error]).into())
        }
    }
}

fn replay(answer: StoredResponse) -> HttpResponse {
    let status = u16::try_from(answer.status).ok().and_then(|code| StatusCode::from_u16(code).ok());
    let mut response = HttpResponse::build(status.unwrap_or(StatusCode::OK));
    if let Some(location) = answer.location {
        response.insert_header((LOCATION, location));
    }
    response
        .insert_header((REPLAYED, HeaderValue::from_static("true")))
        .insert_header((CONTENT_TYPE, HeaderValue::from_static("application/json")))
        .body(answer.body)
}
