//! The OpenAPI document, from the code. `docs/openapi.json` is its snapshot, which the gateway serves.

use linnet_protocol::problem::CONTENT_TYPE_PROBLEM;
use utoipa::{
    Modify, OpenApi, ToSchema,
    openapi::{
        Content, Ref, RefOr, ResponseBuilder,
        path::Operation,
        security::{
            ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme,
        },
    },
};

use super::api::{
    CursorText, TimeCursorText, api_keys, bulk, events, export, import, jobs, live, stats, urls,
    users,
};

/// An error, after RFC 9457. `docs/API.md` lists the codes.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents `linnet_protocol::problem::Problem`")]
pub(super) struct Problem {
    /// `urn:linnet:problem:` and the code.
    r#type: String,
    /// The same for every occurrence of the code.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What happened this time.
    detail: String,
    /// Stable, for programs.
    code: String,
    /// Finds the request in the logs.
    #[schema(required)]
    request_id: Option<String>,
    /// What is wrong with which field.
    #[schema(nullable = false)]
    errors: Option<Vec<FieldError>>,
}

/// What is wrong with one field.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents `linnet_protocol::problem::FieldError`")]
struct FieldError {
    /// The field's name; `body` for the body as a whole.
    field: String,
    /// Stable, for programs.
    code: String,
    /// For a person.
    message: String,
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Linnet", description = "Shortens links.", license(name = "Apache-2.0", identifier = "Apache-2.0")),
    paths(
        urls::list, urls::create, urls::get, urls::update, urls::replace, urls::delete,
        export::get, bulk::update, bulk::delete, stats::url::get, stats::all::get, live::live,
        users::list, users::create, users::get, users::update, users::replace, users::delete,
        import::import_urls, import::import_users,
        jobs::list, jobs::dead, jobs::get, jobs::cancel, jobs::replay, jobs::delete,
        jobs::events::watch, jobs::errors::list,
        events::list, events::create, events::get,
        api_keys::list, api_keys::create, api_keys::get, api_keys::update, api_keys::replace,
        api_keys::revoke,
    ),
    components(schemas(Problem, FieldError, CursorText, TimeCursorText)),
    modifiers(&Security, &Problems),
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

/// The errors that an operation can answer with.
struct Problems;

const ANY_OPERATION: &[(&str, &str)] = &[
    ("400", "The request is malformed"),
    ("401", "No key, or no valid one"),
    ("403", "Not yours to do"),
    ("422", "A field is not valid"),
    ("429", "Too many requests; `Retry-After` says when to come again"),
    ("503", "Something needed is away; `Retry-After` says when to come again"),
    ("504", "The answer took too long"),
];
const WITH_BODY: &[(&str, &str)] = &[
    ("404", "What the body refers to is not there, or not yours to see"),
    ("408", "The body did not arrive in time"),
    ("409", "A value is taken"),
    ("413", "The body is too large"),
    ("415", "The body is not JSON"),
];
const WITH_ID: &[(&str, &str)] = &[("404", "Not there, or not yours to see")];

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

/// The document as JSON, with a line break at its end.
pub fn document() -> Result<String, serde_json::Error> {
    Ok(ApiDoc::openapi().to_pretty_json()? + "\n")
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    /// Run with `LINNET_WRITE_SNAPSHOTS=1` after a change of the API, and look at the difference.
    #[test]
    fn the_snapshot_is_what_the_code_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
        let document = super::document().unwrap();
        if std::env::var_os("LINNET_WRITE_SNAPSHOTS").is_some() {
            fs::write(&path, &document).unwrap();
        }
        let snapshot = fs::read_to_string(&path).unwrap();
        assert!(snapshot == document, "docs/openapi.json is stale: LINNET_WRITE_SNAPSHOTS=1");
    }
}
