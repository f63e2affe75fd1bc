//! `/api/v1/api-keys`: API keys. Only the response that creates a key has its secret.

use actix_web::{HttpResponse, http::header::LOCATION, web};
use chrono::{DateTime, SecondsFormat, Utc};
use linnet_domain::{Scope, Scopes};
use linnet_protocol::{
    issued_keys::IssuedKeys, problem::Problem, problem_code::ProblemCode, settings::ServiceSettings,
};
use serde::Serialize;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ArrayBuilder, ObjectBuilder, Ref, RefOr, Schema, Type},
};

use linnet_domain::{
    ApiKey, KeyId, Page, UserId,
    rules::{FutureTime, Text, Violation, string},
};
use linnet_store::{Constraint, KeyRefusal, NewKey};

use super::{
    super::error::ApiError,
    ApiState, Caller,
    fields::{
        Id, JsonBody, Node, QueryFields, Shape,
        declare::{BodyRule, Change, Optional, ReadContext, Required, body},
        query_id,
    },
    list::{CursorParam, ListParams, ListQuery},
};

const PATH: &str = "/api/v1/api-keys";

/// An API key without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub(crate) struct ApiKeyBody {
    /// The public part of the key.
    id: String,
    /// The owner.
    #[schema(value_type = i64)]
    user_id: UserId,
    /// A label.
    name: String,
    /// The scopes.
    scopes: Vec<String>,
    /// When it was created.
    created_at: DateTime<Utc>,
    /// When it expires.
    #[schema(required)]
    expires_at: Option<DateTime<Utc>>,
}

/// A new API key with its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ApiKeyCreated {
    /// The complete key. No later response has it.
    key: String,
    #[serde(flatten)]
    body: ApiKeyBody,
}

/// A scope's name.
pub(crate) struct ScopeName;

impl PartialSchema for ScopeName {
    fn schema() -> RefOr<Schema> {
        let names = Scope::ALL.iter().map(|scope| scope.as_str());
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("A scope's name."))
            .enum_values(Some(names))
            .into()
    }
}

impl ToSchema for ScopeName {}

/// A list of scopes.
pub(crate) struct ScopeList;

impl BodyRule for ScopeList {
    type Value = Scopes;
    const SHAPE: Shape = Shape::List { max_items: Scope::ALL.len() };

    fn read(node: Node, _: &ReadContext<'_>) -> Result<Scopes, Violation> {
        scopes(node.into_value())
    }

    fn schema(_: bool, description: &str) -> RefOr<Schema> {
        let array = ArrayBuilder::new()
            .description(Some(description))
            .items(Ref::from_schema_name(ScopeName::name()))
            .min_items(Some(1))
            .max_items(Some(Scope::ALL.len()));
        RefOr::T(Schema::Array(array.build()))
    }

    fn referenced() -> Vec<(String, RefOr<Schema>)> {
        vec![(ScopeName::name().into_owned(), ScopeName::schema())]
    }
}

type KeyName = Text<{ ApiKey::MAX_NAME }>;

body! {
    /// An API key to create.
    pub(crate) struct ApiKeyCreate as "ApiKeyCreate" {
        /// A label.
        name: Required<KeyName>,
        /// The scopes; each must be allowed by the caller's own key.
        scopes: Required<ScopeList>,
        /// When it expires: in the future, and not after the key of the request. Absent, it expires with that key.
        expires_at: Optional<FutureTime>,
        /// The owner; only administrators may name another user.
        user_id: Optional<Id<UserId>>,
    }
}

body! {
    /// A change of an API key: any subset of the fields.
    pub(crate) struct ApiKeyPatch as "ApiKeyPatch" {
        /// The new label.
        name: Change<KeyName>,
    }
}

impl From<ApiKey> for ApiKeyBody {
    fn from(key: ApiKey) -> Self {
        Self {
            scopes: key.scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
            id: key.id,
            user_id: key.user_id,
            name: key.name,
            created_at: key.created_at,
            expires_at: key.expires_at,
        }
    }
}

pub(super) fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::resource("/api-keys")
            .route(web::get().to(list))
            .route(web::head().to(list))
            .route(web::post().to(create)),
    )
    .service(
        web::resource("/api-keys/{id}")
            .route(web::get().to(get))
            .route(web::head().to(get))
            .route(web::put().to(update))
            .route(web::patch().to(update))
            .route(web::delete().to(revoke)),
    );
}

/// Creates an API key.
#[utoipa::path(post, path = "/api/v1/api-keys", operation_id = "create_api_key", tag = "api-keys", request_body = ApiKeyCreate,
    responses((status = 201, description = "Created. Only this response has the secret",
        body = ApiKeyCreated,
        headers(("Location" = String, description = "The path of the new key")))))]
pub(crate) async fn create(
    state: web::Data<ApiState>,
    service: web::Data<ServiceSettings>,
    caller: Caller,
    body: JsonBody<ApiKeyCreate>,
) -> Result<HttpResponse, ApiError> {
    let ApiKeyCreate { name, scopes, expires_at, user_id } = body.fields;
    if !caller.identity().scopes.covers(scopes) {
        return Err(ApiError::forbidden(
            "scopes: a key may only have scopes that the key of the caller has.",
        ));
    }
    let owner = caller.owner(user_id)?;
    let owner = owner.ok_or(Constraint::UserMissing)?;
    let secret = IssuedKeys::new(&service).generate().map_err(|error| {
        tracing::error!(%error, "random number generator failed");
        Problem::internal()
    })?;
    let new = NewKey {
        user_id: owner,
        name: &name,
        scopes,
        expires_at,
        maker: caller.identity().key_id.as_deref(),
        most_living: Some(state.keys_per_user),
    };
    let key = state.store.create_key(&secret, &new).await?.map_err(refused)?;
    Ok(HttpResponse::Created()
        .insert_header((LOCATION, format!("{PATH}/{}", key.id)))
        .json(ApiKeyCreated { key: secret.reveal(), body: key.into() }))
}

/// Lists API keys, oldest first.
#[utoipa::path(get, path = "/api/v1/api-keys", operation_id = "list_api_keys", tag = "api-keys",
    params(("user_id" = Option<i64>, Query, minimum = 1), ListParams, CursorParam),
    responses((status = 200, description = "One page", body = [ApiKeyBody],
        headers(("Link" = String, description = "The next page, as RFC 8288")))))]
pub(crate) async fn list(
    state: web::Data<ApiState>,
    caller: Caller,
    query: QueryFields,
) -> Result<HttpResponse, ApiError> {
    let (list, user_id) =
        ListQuery::<i64>::read(query, |fields| fields.optional("user_id", query_id))?;
    let Page { size, .. } = list.page;
    let next = list.page.after().saturating_add(size);
    let keys = state.store.list_keys(caller.visibility(), user_id, list.page).await?;
    let bodies: Vec<ApiKeyBody> = keys.into_iter().map(ApiKeyBody::from).collect();
    Ok(list.respond(PATH, &bodies, |_| next))
}

/// Returns an API key without its secret.
#[utoipa::path(get, path = "/api/v1/api-keys/{id}", operation_id = "get_api_key", tag = "api-keys",
    params(("id" = String, Path, pattern = "^[0-9A-Za-z]{8}$")),
    responses((status = 200, description = "The key", body = ApiKeyBody)))]
pub(crate) async fn get(
    state: web::Data<ApiState>,
    caller: Caller,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let id = key_id(&id)?;
    let key = state.store.find_key(id.as_str(), caller.visibility()).await?;
    let key = key.ok_or_else(|| ApiError::not_found("key"))?;
    Ok(HttpResponse::Ok().json(ApiKeyBody::from(key)))
}

/// Renames an API key.
#[utoipa::path(patch, path = "/api/v1/api-keys/{id}", operation_id = "update_api_key", tag = "api-keys", request_body = ApiKeyPatch,
    params(("id" = String, Path, pattern = "^[0-9A-Za-z]{8}$")),
    responses((status = 200, description = "The key after the change", body = ApiKeyBody)))]
pub(crate) async fn update(
    state: web::Data<ApiState>,
    caller: Caller,
    id: web::Path<String>,
    body: JsonBody<ApiKeyPatch>,
) -> Result<HttpResponse, ApiError> {
    let id = key_id(&id)?;
    let key = match body.fields.name {
        Some(name) => state.store.rename_key(id.as_str(), caller.visibility(), &name).await?,
        None => state.store.find_key(id.as_str(), caller.visibility()).await?,
    };
    let key = key.ok_or_else(|| ApiError::not_found("key"))?;
    Ok(HttpResponse::Ok().json(ApiKeyBody::from(key)))
}

/// Revokes an API key permanently, with every key that it created. They are rejected everywhere within a second, and their
/// streams, exports and uploads end.
#[utoipa::path(delete, path = "/api/v1/api-keys/{id}", operation_id = "delete_api_key", tag = "api-keys",
    params(("id" = String, Path, pattern = "^[0-9A-Za-z]{8}$")),
    responses((status = 204, description = "Revoked")))]
pub(crate) async fn revoke(
    state: web::Data<ApiState>,
    caller: Caller,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let id = key_id(&id)?;
    let revoked = state.store.revoke_key(id.as_str(), caller.visibility()).await?;
    if revoked.is_empty() {
        return Err(ApiError::not_found("key"));
    }
    for key in revoked {
        state.announcer.key_revoked(&key.id, key.outbox_id).await;
    }
    Ok(HttpResponse::NoContent().finish())
}

fn refused(refusal: KeyRefusal) -> ApiError {
    match refusal {
        KeyRefusal::TooMany { limit } => Problem::of(ProblemCode::TooManyKeys)
            .detail(format!(
                "A user may have {limit} API keys that are neither revoked nor expired. Revoke one first."
            ))
            .into(),
        KeyRefusal::TooManyKept => Problem::of(ProblemCode::TooManyKeys)
            .detail("Too many API keys of the user ended within the last 90 days.")
            .into(),
        KeyRefusal::MakerEnded => {
            Problem::unauthorized("The API key is unknown, revoked or expired.").into()
        }
        KeyRefusal::OutlivesMaker { limit } => {
            let limit = limit.to_rfc3339_opts(SecondsFormat::AutoSi, true);
            let rule = format!("must be at most {limit}, when the key of this request expires");
            ApiError::invalid("expires_at", "too_late", &rule)
        }
    }
}

fn key_id(text: &str) -> Result<KeyId, ApiError> {
    KeyId::parse(text).map_err(|_| ApiError::invalid("id", "invalid", "must be 8 of `0-9A-Za-z`"))
}

fn scopes(value: serde_json::Value) -> Result<Scopes, Violation> {
    let items = match value {
        serde_json::Value::Array(items) => items,
        other => return Err(Violation::wrong_type("an array of strings", &other)),
    };
    let most = Scope::ALL.len();
    if items.is_empty() || items.len() > most {
        return Err(Violation::invalid(format!("must have from 1 to {most} scopes")));
    }
    items
        .into_iter()
        .map(|item| {
            let word = string(item)?;
            Scope::parse(&word)
                .ok_or_else(|| Violation::invalid(format!("must have known scopes, not `{word}`")))
        })
        .collect()
}
