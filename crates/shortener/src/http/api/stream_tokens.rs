//! `/api/v1/stream-tokens`: credentials for a browser's `EventSource`, which cannot send headers.

use actix_web::{
    HttpResponse,
    http::header::{CACHE_CONTROL, HeaderValue},
    web,
};
use chrono::{DateTime, Utc};
use linnet_protocol::{
    problem::Problem,
    settings::ServiceSettings,
    stream_token::{self, Stream},
};
use serde::Serialize;
use utoipa::{
    ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

use linnet_domain::rules::{Violation, string};

use super::{
    super::error::ApiError,
    Caller,
    fields::{
        JsonBody, Node,
        declare::{BodyRule, ReadContext, Required, body},
    },
};

/// The path of an event stream.
pub(crate) struct StreamPath;

impl BodyRule for StreamPath {
    type Value = Stream;

    fn read(node: Node, _: &ReadContext<'_>) -> Result<Stream, Violation> {
        Stream::of_path(&string(node.into_value())?).ok_or_else(|| {
            Violation::invalid(
                "must be /api/v1/urls/{id}/live or /api/v1/jobs/{id}/events with an id",
            )
        })
    }

    fn schema(_: bool, description: &str) -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(description))
            .pattern(Some("^/api/v1/(urls/[1-9][0-9]{0,17}/live|jobs/[1-9][0-9]{0,17}/events)$"))
            .into()
    }
}

body! {
    /// A stream token to create.
    pub(crate) struct StreamTokenCreate as "StreamTokenCreate" {
        /// The path that the token opens: that of a link's clicks or of a job's events.
        path: Required<StreamPath>,
    }
}

/// A stream token.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StreamToken {
    /// The token, for the query parameter `stream_token`.
    token: String,
    /// The path that it opens.
    path: String,
    /// The path with the token, for `new EventSource(url)`.
    url: String,
    /// Until when the token opens the path. A stream that is open by then continues.
    expires_at: DateTime<Utc>,
}

pub(super) fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(web::resource("/stream-tokens").route(web::post().to(create)));
}

/// Creates a token that opens one event stream for 60 s, in place of an API key.
///
/// The stream has the rights of the key that created the token, and ends with it.
#[utoipa::path(post, path = "/api/v1/stream-tokens", operation_id = "create_stream_token", tag = "urls",
    request_body = StreamTokenCreate,
    responses((status = 201, description = "Created. Only this response has the token", body = StreamToken)))]
pub(crate) async fn create(
    service: web::Data<ServiceSettings>,
    caller: Caller,
    body: JsonBody<StreamTokenCreate>,
) -> Result<HttpResponse, ApiError> {
    let stream = body.fields.path;
    let Some(key_id) = &caller.identity().key_id else {
        return Err(Problem::unauthorized("A stream token needs an API key.").into());
    };
    let (token, expires_at) = stream_token::mint(&service, key_id, stream, Utc::now());
    let path = stream.path();
    let url = format!("{path}?{}={token}", stream_token::PARAMETER);
    Ok(HttpResponse::Created()
        .insert_header((CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .json(StreamToken { token, path, url, expires_at }))
}
