//! Takedowns of links, `/api/v1/banned-hosts` and `/api/v1/banned-codes`. The route table requires the scope `admin`.

use actix_web::{HttpResponse, http::StatusCode, rt, web};
use serde::Serialize;
use utoipa::ToSchema;

use linnet_domain::{BanId, BannedCode, BannedHost, LinkId, MAX_REASON, rules::Text};

use super::{
    super::error::ApiError,
    ApiState, Caller, IdGuard,
    fields::{
        CustomCode, HostName, JsonBody, QueryFields,
        declare::{Optional, Required, body},
    },
    list::{CursorParam, ListParams, ListQuery},
    urls::UrlBody,
};

const HOSTS: &str = "/api/v1/banned-hosts";
const CODES: &str = "/api/v1/banned-codes";

type Reason = Text<{ MAX_REASON }>;

body! {
    /// A takedown.
    pub(crate) struct Takedown as "Takedown" {
        /// Why the link is taken down. Its owner can read it.
        reason: Required<Reason>,
    }
}

body! {
    /// A host to ban.
    pub(crate) struct HostBan as "HostBan" {
        /// A host name or an address, without scheme, port and path. Subdomains are banned with it.
        host: Required<HostName>,
        /// Why the host is banned. Owners of links to the host can read it.
        reason: Optional<Reason>,
    }
}

body! {
    /// A short code to ban.
    pub(crate) struct CodeBan as "CodeBan" {
        /// The short code.
        short_code: Required<CustomCode>,
        /// Why the code is banned.
        reason: Optional<Reason>,
    }
}

/// A ban of a host with its result.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HostBanResult {
    #[serde(flatten)]
    ban: BannedHost,
    /// How many links this request took down.
    links_taken_down: u64,
}

pub(super) fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::resource("/urls/{id}/takedown")
            .route(web::put().to(take_down))
            .route(web::delete().to(restore)),
    )
    .service(
        web::resource("/banned-hosts")
            .route(web::get().to(list_hosts))
            .route(web::head().to(list_hosts))
            .route(web::post().to(ban_host)),
    )
    .service(web::resource("/banned-hosts/{id}").route(web::delete().to(unban_host)))
    .service(
        web::resource("/banned-codes")
            .route(web::get().to(list_codes))
            .route(web::head().to(list_codes))
            .route(web::post().to(ban_code)),
    )
    .service(web::resource("/banned-codes/{id}").route(web::delete().to(unban_code)));
}

/// Takes a link down. It stays inactive, whatever its owner does, until the takedown is deleted.
#[utoipa::path(put, path = "/api/v1/urls/{id}/takedown", operation_id = "take_down_url", tag = "takedowns",
    request_body = Takedown, params(("id" = i64, Path, minimum = 1)),
    responses((status = 200, description = "The link, which is inactive", body = UrlBody)))]
pub(crate) async fn take_down(
    state: web::Data<ApiState>,
    caller: Caller,
    id: IdGuard<LinkId>,
    body: JsonBody<Takedown>,
) -> Result<HttpResponse, ApiError> {
    let changed = state.store.take_down(id.0, caller.user_id(), Some(&body.fields.reason)).await?;
    let changed = changed.ok_or_else(|| ApiError::not_found("link"))?;
    state.announcer.updated(&changed).await;
    Ok(HttpResponse::Ok().json(UrlBody::new(changed.link, &state.base_url)))
}

/// Ends the takedown of a link. The link is active again unless its owner has deactivated it.
#[utoipa::path(delete, path = "/api/v1/urls/{id}/takedown", operation_id = "restore_url", tag = "takedowns",
    params(("id" = i64, Path, minimum = 1)),
    responses((status = 200, description = "The link", body = UrlBody)))]
pub(crate) async fn restore(
    state: web::Data<ApiState>,
    caller: Caller,
    id: IdGuard<LinkId>,
) -> Result<HttpResponse, ApiError> {
    let changed = state.store.restore_link(id.0, caller.user_id()).await?;
    let changed = changed.ok_or_else(|| ApiError::not_found("takedown"))?;
    state.announcer.updated(&changed).await;
    Ok(HttpResponse::Ok().json(UrlBody::new(changed.link, &state.base_url)))
}

/// Bans a host with its subdomains, and takes down the links to it. Repeating the request is safe: the ban stays, and
/// the remaining links are taken down.
#[utoipa::path(post, path = "/api/v1/banned-hosts", operation_id = "ban_host", tag = "takedowns", request_body = HostBan,
    responses((status = 201, description = "Banned", body = HostBanResult)))]
pub(crate) async fn ban_host(
    state: web::Data<ApiState>,
    caller: Caller,
    body: JsonBody<HostBan>,
) -> Result<HttpResponse, ApiError> {
    let (HostBan { host, reason }, actor) = (body.fields, caller.user_id());
    let ban = state.store.ban_host(&host, actor, reason.as_deref()).await?;
    // Runs in its own task, which continues if the client disconnects.
    let taking_down = rt::spawn(async move {
        let result = state.store.take_down_links_to(&ban, actor).await;
        state.announcer.relay_outbox().await;
        result.map(|links_taken_down| HostBanResult { ban, links_taken_down })
    });
    // The task ends without a result only if it panics or its thread ends.
    let result = taking_down.await.map_err(|_| linnet_protocol::problem::Problem::internal())??;
    Ok(HttpResponse::build(StatusCode::CREATED).json(result))
}

/// Lists the banned hosts, in the order of ids.
#[utoipa::path(get, path = "/api/v1/banned-hosts", operation_id = "list_banned_hosts", tag = "takedowns",
    params(ListParams, CursorParam),
    responses((status = 200, description = "One page", body = [BannedHost],
        headers(("Link" = String, description = "The next page, as RFC 8288")))))]
pub(crate) async fn list_hosts(
    state: web::Data<ApiState>,
    query: QueryFields,
) -> Result<HttpResponse, ApiError> {
    let (list, ()) = ListQuery::read(query, |_| ())?;
    let bans = state.store.list_banned_hosts(list.page).await?;
    Ok(list.respond(HOSTS, &bans, |last| last.id.get()))
}

/// Ends the ban of a host. The links that it took down stay taken down.
#[utoipa::path(delete, path = "/api/v1/banned-hosts/{id}", operation_id = "unban_host", tag = "takedowns",
    params(("id" = i64, Path, minimum = 1)),
    responses((status = 204, description = "Ended")))]
pub(crate) async fn unban_host(
    state: web::Data<ApiState>,
    id: IdGuard<BanId>,
) -> Result<HttpResponse, ApiError> {
    ended(state.store.unban_host(id.0).await?)
}

/// Bans a short code: no new link gets it. A link that has it stays. Repeating the request returns the same ban.
#[utoipa::path(post, path = "/api/v1/banned-codes", operation_id = "ban_code", tag = "takedowns", request_body = CodeBan,
    responses((status = 201, description = "Banned", body = BannedCode)))]
pub(crate) async fn ban_code(
    state: web::Data<ApiState>,
    caller: Caller,
    body: JsonBody<CodeBan>,
) -> Result<HttpResponse, ApiError> {
    let CodeBan { short_code, reason } = body.fields;
    let ban = state.store.ban_code(&short_code, caller.user_id(), reason.as_deref()).await?;
    Ok(HttpResponse::build(StatusCode::CREATED).json(ban))
}

/// Lists the banned codes, in the order of ids. Codes of deleted links that were taken down are among them.
#[utoipa::path(get, path = "/api/v1/banned-codes", operation_id = "list_banned_codes", tag = "takedowns",
    params(ListParams, CursorParam),
    responses((status = 200, description = "One page", body = [BannedCode],
        headers(("Link" = String, description = "The next page, as RFC 8288")))))]
pub(crate) async fn list_codes(
    state: web::Data<ApiState>,
    query: QueryFields,
) -> Result<HttpResponse, ApiError> {
    let (list, ()) = ListQuery::read(query, |_| ())?;
    let bans = state.store.list_banned_codes(list.page).await?;
    Ok(list.respond(CODES, &bans, |last| last.id.get()))
}

/// Ends the ban of a short code. Every user can then create a link with it.
#[utoipa::path(delete, path = "/api/v1/banned-codes/{id}", operation_id = "unban_code", tag = "takedowns",
    params(("id" = i64, Path, minimum = 1)),
    responses((status = 204, description = "Ended")))]
pub(crate) async fn unban_code(
    state: web::Data<ApiState>,
    id: IdGuard<BanId>,
) -> Result<HttpResponse, ApiError> {
    ended(state.store.unban_code(id.0).await?)
}

fn ended(has_ended: bool) -> Result<HttpResponse, ApiError> {
    if has_ended { Ok(HttpResponse::NoContent().finish()) } else { Err(ApiError::not_found("ban")) }
}
