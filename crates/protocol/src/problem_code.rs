//! The stable codes of problems, each with its status and its title.

use actix_web::http::StatusCode;

macro_rules! problem_codes {
    ($($name:ident: $status:ident, $code:literal, $title:literal;)+) => {
        /// The code of a problem. Clients branch on it, so it is stable; `docs/API.md` lists when each occurs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ProblemCode {
            $(#[doc = concat!("`", $code, "`: ", $title, ".")] $name,)+
        }

        impl ProblemCode {
            /// Every code, ordered by status.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The code in the body.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }

            /// The status of the response.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)+ }
            }

            /// The title, the same in every problem with this code.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)+ }
            }
        }
    };
}

problem_codes! {
    BadRequest: BAD_REQUEST, "bad_request", "Bad request";
    BodyBroken: BAD_REQUEST, "body_broken", "Unreadable body";
    ConflictingKeys: BAD_REQUEST, "conflicting_keys", "Conflicting API keys";
    KeyInUrl: BAD_REQUEST, "key_in_url", "API key in the URL";
    MalformedForm: BAD_REQUEST, "malformed_form", "Malformed form";
    MalformedJson: BAD_REQUEST, "malformed_json", "Malformed JSON";
    Unauthorized: UNAUTHORIZED, "unauthorized", "Unauthorized";
    Forbidden: FORBIDDEN, "forbidden", "Forbidden";
    NotFound: NOT_FOUND, "not_found", "Not found";
    MethodNotAllowed: METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed";
    BodyTimeout: REQUEST_TIMEOUT, "body_timeout", "Request timeout";
    Taken: CONFLICT, "taken", "Conflict";
    TooManyKeys: CONFLICT, "too_many_keys", "Too many API keys";
    WrongState: CONFLICT, "wrong_state", "Conflict";
    Locked: CONFLICT, "locked", "Conflict";
    TooLarge: PAYLOAD_TOO_LARGE, "too_large", "Payload too large";
    UnsupportedMediaType: UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "Unsupported media type";
    Invalid: UNPROCESSABLE_ENTITY, "invalid", "Validation failed";
    RateLimited: TOO_MANY_REQUESTS, "rate_limited", "Rate limit exceeded";
    TooManyConcurrent: TOO_MANY_REQUESTS, "too_many_concurrent", "Too many concurrent requests";
    TooManyJobs: TOO_MANY_REQUESTS, "too_many_jobs", "Too many jobs";
    TooManyHeaders: REQUEST_HEADER_FIELDS_TOO_LARGE, "too_many_headers", "Too many headers";
    Internal: INTERNAL_SERVER_ERROR, "internal", "Internal error";
    BadGateway: BAD_GATEWAY, "bad_gateway", "Bad gateway";
    Unavailable: SERVICE_UNAVAILABLE, "unavailable", "Service unavailable";
    UpstreamTimeout: GATEWAY_TIMEOUT, "upstream_timeout", "Upstream timeout";
    InsufficientStorage: INSUFFICIENT_STORAGE, "insufficient_storage", "Insufficient storage";
}
