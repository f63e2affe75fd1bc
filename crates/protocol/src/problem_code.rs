//! The stable codes of problems, each with its status, its title, and when it occurs; those that only nginx returns
//! included, because they have pages too.

use actix_web::http::StatusCode;

macro_rules! problem_codes {
    ($($name:ident: $status:ident, $code:literal, $title:literal, $when:literal;)+) => {
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

            /// When the problem occurs, as in `docs/API.md`.
            pub const fn when(self) -> &'static str {
                match self { $(Self::$name => $when,)+ }
            }

            /// The title, the same in every problem with this code.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)+ }
            }
        }
    };
}

problem_codes! {
    BadRequest: BAD_REQUEST, "bad_request", "Bad request",
        "the request is malformed";
    BodyBroken: BAD_REQUEST, "body_broken", "Unreadable body",
        "the body ended early, or its encoding is wrong";
    ConflictingKeys: BAD_REQUEST, "conflicting_keys", "Conflicting API keys",
        "two different keys in one request";
    KeyInUrl: BAD_REQUEST, "key_in_url", "API key in the URL",
        "the query has a parameter for a key";
    MalformedForm: BAD_REQUEST, "malformed_form", "Malformed form",
        "an upload's form is not valid";
    MalformedJson: BAD_REQUEST, "malformed_json", "Malformed JSON",
        "the body is not JSON";
    Unauthorized: UNAUTHORIZED, "unauthorized", "Unauthorized",
        "no key, or one that is malformed, unknown, revoked or expired; with `WWW-Authenticate`";
    Forbidden: FORBIDDEN, "forbidden", "Forbidden",
        "the key lacks the scope, or only an administrator may do this";
    NotFound: NOT_FOUND, "not_found", "Not found",
        "no such path, or a method that nginx does not know; the resource does not exist or belongs to another user; something that the body refers to does not exist (`errors` names it)";
    MethodNotAllowed: METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed",
        "with `Allow`";
    BodyTimeout: REQUEST_TIMEOUT, "body_timeout", "Request timeout",
        "the body arrived too slowly";
    RequestTimeout: REQUEST_TIMEOUT, "request_timeout", "Request timeout",
        "the request arrived too slowly";
    Taken: CONFLICT, "taken", "Conflict",
        "the code or e-mail address is in use";
    TooManyKeys: CONFLICT, "too_many_keys", "Too many API keys",
        "the user has 50 keys that are neither revoked nor expired (`shortener.keys_per_user`)";
    TooManyLinks: CONFLICT, "too_many_links", "Too many links",
        "the owner has 1,000,000 links (`links.per_user`), or targets and titles of 512 MiB (`links.bytes_per_user`), as counted every 5 min";
    TooManyEvents: CONFLICT, "too_many_events", "Too many events",
        "the user has caused 10,000,000 events (`links.events_per_user`), or details of 2 GiB (`links.event_bytes_per_user`): it can delete links, but not create or change them";
    TooManyIdempotencyKeys: CONFLICT, "too_many_idempotency_keys", "Too many idempotency keys",
        "the user has sent 100,000 keys within 24 h (`shortener.idempotency_keys_per_user`), or got responses of 256 MiB (`shortener.idempotency_key_bytes_per_user`); a request without the header is accepted";
    WrongState: CONFLICT, "wrong_state", "Conflict",
        "the job has finished and cannot be cancelled, or is not dead and cannot be replayed";
    Locked: CONFLICT, "locked", "Conflict",
        "other requests or jobs are changing the same resource; with `Retry-After`";
    TooLarge: PAYLOAD_TOO_LARGE, "too_large", "Payload too large",
        "the body is larger than 64 KiB, or with a list of ids than 1 MiB; an upload is larger than 1 GiB as sent or uncompressed (`jobs.upload_bytes`), or expands to more than 100 times its size (`jobs.expansion`)";
    UriTooLong: URI_TOO_LONG, "uri_too_long", "URI too long",
        "the request line is longer than 8 KiB";
    UnsupportedMediaType: UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "Unsupported media type",
        "the `Content-Type` is not `application/json`, or for an upload none of [these](#bulk-imports); or a JSON body has a `Content-Encoding`";
    Invalid: UNPROCESSABLE_ENTITY, "invalid", "Validation failed",
        "the body, query, path or a header is not valid; `errors` lists it all";
    RateLimited: TOO_MANY_REQUESTS, "rate_limited", "Rate limit exceeded",
        "with `Retry-After`; the gateway's has `violated-policies`";
    TooManyConcurrent: TOO_MANY_REQUESTS, "too_many_concurrent", "Too many concurrent requests",
        "the user has its share of uploads, exports or streams open, or of requests at the database in progress; with `Retry-After`";
    TooManyJobs: TOO_MANY_REQUESTS, "too_many_jobs", "Too many jobs",
        "other jobs must finish first, or the space of earlier uploads must become free; with `Retry-After`";
    TooManyHeaders: REQUEST_HEADER_FIELDS_TOO_LARGE, "too_many_headers", "Too many headers",
        "more than 72 headers";
    HeadersTooLarge: REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", "Request header fields too large",
        "a header longer than 8 KiB, 16 KiB of headers, or more than 100 headers";
    Internal: INTERNAL_SERVER_ERROR, "internal", "Internal error",
        "a defect; the log has its cause";
    NotImplemented: NOT_IMPLEMENTED, "not_implemented", "Not implemented",
        "the `Transfer-Encoding` is not `chunked` alone";
    BadGateway: BAD_GATEWAY, "bad_gateway", "Bad gateway",
        "the connection to the shortener broke; its result is unknown";
    Unavailable: SERVICE_UNAVAILABLE, "unavailable", "Service unavailable",
        "PostgreSQL or every shortener is unavailable, so that, among others, the key cannot be verified; or too many uploads, exports, streams or request bodies at a time; with `Retry-After`";
    UpstreamTimeout: GATEWAY_TIMEOUT, "upstream_timeout", "Upstream timeout",
        "the shortener did not respond in time; its result is unknown";
    Timeout: GATEWAY_TIMEOUT, "timeout", "Upstream timeout",
        "the gateway did not respond in time";
    InsufficientStorage: INSUFFICIENT_STORAGE, "insufficient_storage", "Insufficient storage",
        "no space for an upload: on the disk (`jobs.free_bytes`), or in the database (`jobs.upload_total_bytes`)";
}
