//! The dependencies of handlers, and the caller of a request.

use std::{
    future::{Ready, ready},
    str::FromStr,
    time::Duration,
};

use actix_web::{FromRequest, HttpRequest, dev::Payload, web};
use linnet_platform::byte_budget::ByteBudget;
use linnet_protocol::{address_hash::AddressHasher, identity::Identity};

use linnet_clicks::LiveClicks;
use linnet_domain::{TargetPolicy, UserId, Visibility, rules::Positive};
use linnet_jobs::JobService;
use linnet_resolve::InvalidationPublisher;
use linnet_store::{GroupedCreates, Store};

use super::{
    super::{error::ApiError, turns::Turns},
    slots::{ExportSlots, Slots},
};

/// The dependencies of one server thread.
#[derive(Clone)]
pub struct ApiState {
    /// The database.
    pub store: Store,
    /// Groups concurrent creates of links.
    pub creates: GroupedCreates,
    /// Publishes invalidations.
    pub announcer: InvalidationPublisher,
    /// Streams clicks; `None` when clicks are not recorded.
    pub live: Option<LiveClicks>,
    /// Bulk jobs.
    pub jobs: JobService,
    /// Limits concurrent exports.
    pub exports: ExportSlots,
    /// Bounds the bytes of the bodies in progress, by the owner of [`Caller::idempotency_owner`].
    pub bodies: ByteBudget<String>,
    /// The longest time for the body of a request.
    pub body_timeout: Duration,
    /// The turns of requests at the database.
    pub turns: Turns,
    /// Slots of streams and uploads.
    pub slots: Slots,
    /// The maximum number of keys of one user that are neither revoked nor expired.
    pub keys_per_user: u32,
    /// The accepted target URLs.
    pub targets: TargetPolicy,
    /// The origin of short URLs, without a trailing slash.
    pub base_url: String,
}

/// The caller, from the headers of the gateway.
#[derive(Debug, Clone)]
pub struct Caller {
    identity: Identity,
    address_hash: Option<String>,
}

impl Caller {
    /// Reads the headers of the gateway.
    pub fn of(request: &HttpRequest) -> Self {
        let headers = request.headers();
        let identity = Identity::from_headers(headers);
        // Only a caller without a user needs it.
        let address_hash = identity.user_id.is_none().then(|| {
            let address = headers.get("x-real-ip")?.to_str().ok()?.parse().ok()?;
            Some(request.app_data::<web::Data<AddressHasher>>()?.hash(address))
        });
        Self { identity, address_hash: address_hash.flatten() }
    }

    /// The caller's own user.
    pub fn user_id(&self) -> Option<UserId> {
        self.identity.user_id
    }

    /// The caller's user, scopes and key.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether the caller is an administrator.
    pub fn is_admin(&self) -> bool {
        self.identity.is_admin()
    }

    /// The owners whose resources the caller may read and change.
    pub fn visibility(&self) -> Visibility {
        Visibility::of(self.is_admin(), self.identity.user_id)
    }

    /// The owner of a new resource: the caller, or the user that an administrator names.
    pub fn owner(&self, named: Option<UserId>) -> Result<Option<UserId>, ApiError> {
        match named {
            None => Ok(self.identity.user_id),
            Some(id) if self.is_admin() || self.identity.user_id == Some(id) => Ok(Some(id)),
            Some(_) => {
                Err(ApiError::forbidden("user_id: only an administrator may name another user."))
            }
        }
    }

    /// The owner of the caller's idempotency keys: its user, otherwise the keyed hash of its address.
    pub fn idempotency_owner(&self) -> String {
        match (self.identity.user_id, &self.address_hash) {
            (Some(id), _) => format!("user:{id}"),
            (None, Some(hash)) => format!("address:{hash}"),
            (None, None) => "anonymous".to_owned(),
        }
    }
}

impl FromRequest for Caller {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Ok(Self::of(request)))
    }
}

/// The id in the path, such as `IdGuard<LinkId>`.
#[derive(Debug, Clone, Copy)]
pub struct IdGuard<I>(pub I);

impl<I: FromStr> FromRequest for IdGuard<I> {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let text = request.match_info().get("id").unwrap_or_default();
        let id = text.parse().map(Self);
        ready(id.map_err(|_| ApiError::invalid("id", "invalid", Positive::RULE)))
    }
}
