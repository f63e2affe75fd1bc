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
use linnet_protocol::problem::Problem;
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::IntoParams;

use linnet_domain::{Event, Job, NewEvent, NewJob, NewLink, NewUser, User, Visibility};
use linnet_store::{
    IdempotencyClaim, IdempotentTransaction, JobLimits, LinkCreation, Store, StoreError,
    StoredResponse,
};

use super::{super::error::ApiError, ApiState, Caller, fields::ONCE_RULE};

/// The request header.
pub(super) const HEADER: &str = "idempotency-key";
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const MAX_KEY_BYTES: usize = 255;

/// The header, documented.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "documents the input; `IdempotencyKey` reads it")]
pub(crate) struct IdempotencyParams {
    /// A repeated request within 24 h returns the first response; another request with the same key is rejected.
    #[param(
        rename = "Idempotency-Key",
        nullable = false,
        min_length = 1,
        max_length = 255,
        pattern = "^[!-~]([ -~]*[!-~])?$"
    )]
    idempotency_key: Option<String>,
}

/// The key of the request, if it has one.
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
                .filter(|key| (1..=MAX_KEY_BYTES).contains(&key.len()) && !key.contains('\t'))
                .map(|key| Self(Some(key.to_owned())))
                .ok_or("must be 1 to 255 printable ASCII characters"),
            (Some(_), Some(_)) => Err(ONCE_RULE),
        };
        ready(key.map_err(|rule| ApiError::invalid("Idempotency-Key", "invalid", rule)))
    }
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

/// Responds to a `POST` to `route` with the response of `create`, or with the stored response of the same key. The
/// created resource is committed when this returns.
pub(super) async fn once(
    state: &ApiState,
    caller: &Caller,
    route: &str,
    key: IdempotencyKey,
    body: &[u8],
    create: impl AsyncFnOnce(&mut Creator<'_>) -> Result<CreatedResponse, ApiError>,
) -> Result<HttpResponse, ApiError> {
    let mut creator = match &key.0 {
        None => Creator::Plain(state),
        Some(key) => match begin(&state.store, caller, route, key, body).await? {
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
    route: &str,
    key: &str,
    body: &[u8],
) -> Result<Result<IdempotentTransaction, HttpResponse>, ApiError> {
    let mut hash = Sha256::new();
    hash.update(route.as_bytes());
    hash.update([0]);
    hash.update(body);
    let claim = store.begin_idempotent(&caller.idempotency_owner(), key, &hash.finalize()).await?;
    match claim {
        IdempotencyClaim::New(first) => Ok(Ok(first)),
        IdempotencyClaim::Replay(stored) => Ok(Err(replay(stored))),
        IdempotencyClaim::Mismatch => {
            let rule = "must be new: another request used this key within the last 24 h";
            Err(ApiError::invalid("Idempotency-Key", "reused", rule))
        }
    }
}

fn replay(stored: StoredResponse) -> HttpResponse {
    let status = u16::try_from(stored.status).ok().and_then(|code| StatusCode::from_u16(code).ok());
    let mut response = HttpResponse::build(status.unwrap_or(StatusCode::OK));
    if let Some(location) = stored.location {
        response.insert_header((LOCATION, location));
    }
    response
        .insert_header((REPLAYED, HeaderValue::from_static("true")))
        .insert_header((CONTENT_TYPE, HeaderValue::from_static("application/json")))
        .body(stored.body)
}
