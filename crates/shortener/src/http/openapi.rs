//! Generates the OpenAPI document. `docs/openapi.json` is its snapshot, which the gateway serves.

use linnet_protocol::problem::CONTENT_TYPE_PROBLEM;
use utoipa::{
    Modify, OpenApi,
    openapi::{
        Content, Ref, RefOr, ResponseBuilder,
        path::Operation,
        security::{
            ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme,
        },
    },
};

use super::{
    api::{
        CursorText, TimeCursorText, api_keys, bulk, events, export, import, jobs, live, stats,
        stream_tokens, takedowns, urls, users,
    },
    link_schemas::LinkSchemas,
    problem_schema::{FieldError, Problem},
};

#[derive(OpenApi)]
#[openapi(
    info(title = "Linnet", description = "Short links: create, resolve, measure.", license(name = "Apache-2.0", identifier = "Apache-2.0")),
    paths(
        urls::list, urls::create, urls::get, urls::update, urls::delete,
        export::get, bulk::update, bulk::delete, stats::url::get, stats::all::get, live::live, stream_tokens::create,
        users::list, users::create, users::get, users::update, users::delete,
        import::import_urls, import::import_users,
        jobs::list, jobs::dead, jobs::get, jobs::cancel, jobs::replay, jobs::delete,
        jobs::events::watch, jobs::errors::list,
        events::list, events::create, events::get,
        api_keys::list, api_keys::create, api_keys::get, api_keys::update,
        api_keys::revoke,
        takedowns::take_down, takedowns::restore, takedowns::list_hosts, takedowns::ban_host,
        takedowns::unban_host, takedowns::list_codes, takedowns::ban_code, takedowns::unban_code,
    ),
    components(schemas(Problem, FieldError, CursorText, TimeCursorText)),
    modifiers(&LinkSchemas, &PutIsPatch, &Security, &Problems),
)]
struct ApiDoc;

struct Security;

impl Modify for Security {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        components
            .add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
        components.add_security_scheme(
            "api_key",
            SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-Api-Key"))),
        );
        let none: [&str; 0] = [];
        openapi.security = Some(vec![
            SecurityRequirement::new("bearer", none),
            SecurityRequirement::new("api_key", none),
        ]);
    }
}

/// Documents each `PUT` like the `PATCH` of the same path, which has the same handler.
struct PutIsPatch;

impl Modify for PutIsPatch {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        for item in openapi.paths.paths.values_mut() {
            let Some(patch) = &item.patch else { continue };
            let id = patch.operation_id.as_deref().unwrap_or_default();
            let Some(resource) = id.strip_prefix("update_") else { continue };
            // Bulk changes have no `PUT`.
            if item.get.is_some() {
                let mut put = patch.clone();
                put.operation_id = Some(format!("replace_{resource}"));
                item.put = Some(put);
            }
        }
    }
}

/// Adds the errors that an operation can return.
struct Problems;

const ANY_OPERATION: &[(&str, &str)] = &[
    ("400", "The request is malformed"),
    ("401", "No API key, or an invalid one"),
    ("403", "Forbidden: the API key lacks the scope"),
    ("422", "Validation failed"),
    ("429", "Rate limit exceeded; retry after `Retry-After` seconds"),
    ("503", "Service unavailable; retry after `Retry-After` seconds"),
    ("504", "Upstream timeout"),
];
const WITH_BODY: &[(&str, &str)] = &[
    ("404", "Something that the body refers to does not exist or belongs to another user"),
    ("408", "The body arrived too slowly"),
    ("409", "Conflict: a value is taken"),
    ("413", "The body is too large"),
    ("415", "The body is not JSON"),
];
const WITH_ID: &[(&str, &str)] =
    &[("404", "The resource does not exist or belongs to another user")];

impl Modify for Problems {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        for (path, item) in &mut openapi.paths.paths {
            let by_id = path.contains("{id}");
            let operations =
                [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
            for operation in operations.into_iter().flatten() {
                add_problems(operation, ANY_OPERATION);
                if by_id {
                    add_problems(operation, WITH_ID);
                }
                if operation.request_body.is_some() {
                    add_problems(operation, WITH_BODY);
                }
            }
        }
    }
}

fn add_problems(operation: &mut Operation, problems: &[(&str, &str)]) {
    for (status, description) in problems {
        let schema = RefOr::Ref(Ref::from_schema_name("Problem"));
        let response = ResponseBuilder::new()
            .description(*description)
            .content(CONTENT_TYPE_PROBLEM, Content::new(Some(schema)))
            .build();
        let responses = &mut operation.responses.responses;
        responses.entry((*status).to_owned()).or_insert(RefOr::T(response));
    }
}

/// The document as JSON, which ends with a line feed.
pub fn document() -> Result<String, serde_json::Error> {
    Ok(ApiDoc::openapi().to_pretty_json()? + "\n")
}
