//! What handlers share, and who calls them.

use std::{
    future::{Ready, ready},
    str::FromStr,
};

use actix_web::{FromRequest, HttpRequest, dev::Payload};
use linnet_protocol::{identity::Identity, problem::Problem};

use linnet_clicks::LiveClicks;
use linnet_domain::{TargetPolicy, UserId, Visibility};
use linnet_jobs::JobService;
use linnet_resolve::InvalidationPublisher;
use linnet_store::{GroupedCreates, Store};

use super::{super::error::ApiError, export::ExportSlots};

/// One API worker's tools.
#[derive(Clone)]
pub struct ApiState {
    /// The database.
    pub store: Store,
    /// Makes links, those of the same moment together.
    pub creates: GroupedCreates,
    /// Tells the caches of changes.
    pub announcer: InvalidationPublisher,
    /// Shows clicks as they come; `None` when they are not recorded.
    pub live: Option<LiveClicks>,
    /// Bulk jobs.
    pub jobs: JobService,
    /// Bounds what is exported at a time.
    pub exports: ExportSlots,
    /// Which targets are accepted.
    pub targets: TargetPolicy,
    /// Origin of short URLs, without a trailing slash.
    pub base_url: String,
}

/// The caller, as the gateway says.
#[derive(Debug, Clone)]
pub struct Caller {
    identity: Identity,
    address: Option<String>,
}

impl Caller {
    /// The caller's own user.
    pub fn user_id(&self) -> Option<UserId> {
        self.identity.user_id
    }

    /// What the caller may do.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether the caller may do everything.
    pub fn is_admin(&self) -> bool {
        self.identity.is_admin()
    }

    /// What the caller may see and change.
    pub fn visibility(&self) -> Visibility {
        Visibility::of(self.is_admin(), self.identity.user_id)
    }

    /// The owner to give to something new: the caller, or whom an administrator names.
    pub fn owner(&self, named: Option<UserId>) -> Result<Option<UserId>, ApiError> {
        match named {
            None => Ok(self.identity.user_id),
            Some(id) if self.is_admin() || self.identity.user_id == Some(id) => Ok(Some(id)),
            Some(_) => Err(ApiError::forbidden("user_id: only an administrator names other users")),
        }
    }

    /// Names whose idempotency keys these are.
    pub fn idempotency_owner(&self) -> String {
        match (self.identity.user_id, &self.address) {
            (Some(id), _) => format!("user:{id}"),
            (None, Some(address)) => format!("address:{address}"),
            (None, None) => "anonymous".to_owned(),
        }
    }
}

impl FromRequest for Caller {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let headers = request.headers();
        let address = headers.get("x-real-ip").and_then(|value| value.to_str().ok());
        ready(Ok(Self {
            identity: Identity::from_headers(headers),
            address: address.map(ToOwned::to_owned),
        }))
    }
}

/// The id in the path: `IdGuard<LinkId>` for a link's.
#[derive(Debug, Clone, Copy)]
pub struct IdGuard<I>(pub I);

impl<I: FromStr> FromRequest for IdGuard<I> {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let text = request.match_info().get("id").unwrap_or_default();
        ready(text.parse().map(Self).map_err(|_| {
            let error =
                super::super::error::field_error("id", "invalid", "must be a positive integer");
            ApiError(Problem::invalid(vec![error]))
        }))
    }
}
