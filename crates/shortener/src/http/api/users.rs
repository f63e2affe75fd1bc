//! `/api/v1/users`: users.

use actix_web::{HttpResponse, http::StatusCode, web};
use linnet_domain::{NewUser, User, UserId, UserPatch, rules::Text};

use super::{
    super::error::ApiError,
    ApiState, Caller, IdGuard,
    fields::{
        EmailAddress, JsonBody, QueryFields,
        declare::{Change, Required, body},
    },
    idempotency::{self, CreatedResponse, IdempotencyKey, IdempotencyParams},
    list::{CursorParam, ListParams, ListQuery},
};

const PATH: &str = "/api/v1/users";

body! {
    /// A user to create.
    pub(crate) struct UserCreate as "UserCreate" {
        /// A label, not necessarily unique.
        username: Required<Username>,
        /// The e-mail address, unique in any case.
        email: Required<EmailAddress>,
    }
}

body! {
    /// A change of a user: any subset of the fields.
    pub(crate) struct UserPatchBody as "UserPatch" {
        /// The new label.
        username: Change<Username>,
        /// The new e-mail address.
        email: Change<EmailAddress>,
    }
}

type Username = Text<{ User::MAX_USERNAME }>;

pub(super) fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::resource("/users")
            .route(web::get().to(list))
            .route(web::head().to(list))
            .route(web::post().to(create)),
    )
    .service(
        web::resource("/users/{id}")
            .route(web::get().to(get))
            .route(web::head().to(get))
            .route(web::put().to(update))
            .route(web::patch().to(update))
            .route(web::delete().to(delete)),
    );
}

/// Creates a user. Only for administrators.
#[utoipa::path(post, path = "/api/v1/users", operation_id = "create_user", tag = "users", request_body = UserCreate,
    params(IdempotencyParams),
    responses((status = 201, description = "Created", body = User,
        headers(("Location" = String, description = "The path of the new user")))))]
pub(crate) async fn create(
    state: web::Data<ApiState>,
    caller: Caller,
    key: IdempotencyKey,
    body: JsonBody<UserCreate>,
) -> Result<HttpResponse, ApiError> {
    let UserCreate { username, email } = body.fields;
    let new = NewUser { username, email };
    if !caller.is_admin() {
        return Err(ApiError::forbidden("Only an administrator may create users."));
    }
    idempotency::once(&state, &caller, key, &body.hash, async |creator| {
        created(&creator.create_user(&new).await?)
    })
    .await
}

fn created(user: &User) -> Result<CreatedResponse, ApiError> {
    CreatedResponse::new(StatusCode::CREATED, format!("{PATH}/{}", user.id), user)
}

/// Lists the users that the caller may see, in the order of ids.
#[utoipa::path(get, path = "/api/v1/users", operation_id = "list_users", tag = "users",
    params(ListParams, CursorParam),
    responses((status = 200, description = "One page", body = [User],
        headers(("Link" = String, description = "The next page, as RFC 8288")))))]
pub(crate) async fn list(
    state: web::Data<ApiState>,
    caller: Caller,
    query: QueryFields,
) -> Result<HttpResponse, ApiError> {
    let (list, ()) = ListQuery::read(query, |_| ())?;
    let users = state.store.list_users(caller.visibility(), list.page).await?;
    Ok(list.respond(PATH, &users, |last| last.id.get()))
}

/// Returns a user.
#[utoipa::path(get, path = "/api/v1/users/{id}", operation_id = "get_user", tag = "users",
    params(("id" = i64, Path, minimum = 1)),
    responses((status = 200, description = "The user", body = User)))]
pub(crate) async fn get(
    state: web::Data<ApiState>,
    caller: Caller,
    id: IdGuard<UserId>,
) -> Result<HttpResponse, ApiError> {
    let user = state.store.find_user(id.0, caller.visibility()).await?;
    Ok(HttpResponse::Ok().json(user.ok_or_else(|| ApiError::not_found("user"))?))
}

/// Changes a user. `PUT` and `PATCH` are the same: both accept any subset of the fields.
#[utoipa::path(patch, path = "/api/v1/users/{id}", operation_id = "update_user", tag = "users", request_body = UserPatchBody,
    params(("id" = i64, Path, minimum = 1)),
    responses((status = 200, description = "The user after the change", body = User)))]
pub(crate) async fn update(
    state: web::Data<ApiState>,
    caller: Caller,
    id: IdGuard<UserId>,
    body: JsonBody<UserPatchBody>,
) -> Result<HttpResponse, ApiError> {
    let UserPatchBody { username, email } = body.fields;
    let patch = UserPatch { username, email };
    let user = state.store.update_user(id.0, caller.visibility(), &patch).await?;
    Ok(HttpResponse::Ok().json(user.ok_or_else(|| ApiError::not_found("user"))?))
}

/// Deletes a user with its links and keys.
#[utoipa::path(delete, path = "/api/v1/users/{id}", operation_id = "delete_user", tag = "users",
    params(("id" = i64, Path, minimum = 1)),
    responses((status = 204, description = "Deleted")))]
pub(crate) async fn delete(
    state: web::Data<ApiState>,
    caller: Caller,
    id: IdGuard<UserId>,
) -> Result<HttpResponse, ApiError> {
    if !state.store.delete_user(id.0, caller.visibility(), caller.user_id()).await? {
        return Err(ApiError::not_found("user"));
    }
    state.announcer.relay_outbox().await;
    Ok(HttpResponse::NoContent().finish())
}
