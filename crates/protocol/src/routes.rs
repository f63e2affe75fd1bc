//! The table of API routes: path, methods with their scopes, and how bodies are transferred.
//!
//! Order matters: the first path that matches is used, so literal segments come before parameters.

use actix_web::http::Method;
use linnet_domain::Scope;

/// How a route's bodies are transferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyMode {
    /// The request's body is read first, within a size limit, and the whole exchange has a deadline.
    Buffered,
    /// Bodies are forwarded as they arrive, without a limit of size or total time.
    Streamed,
}

/// The body that a method reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestBody {
    /// None. RFC 9110 gives the content of `GET`, `HEAD` and `DELETE` no meaning, so a body that is present is neither
    /// read nor forwarded.
    Ignored,
    /// A JSON object.
    Json {
        /// The largest body, in bytes.
        max_bytes: usize,
    },
    /// A file of rows, which has its own limits.
    Upload,
}

/// The largest JSON body, in bytes. The longest valid one has a target and a title of the greatest length, with each
/// character written as an escape.
pub const MAX_BODY_BYTES: usize = 64 * 1024;
/// The largest JSON body with a list of ids, in bytes.
pub const MAX_BULK_BODY_BYTES: usize = 1024 * 1024;

/// A path with its methods.
#[derive(Debug, Clone)]
pub struct Route {
    /// The pattern for actix, which is also the route's name in logs and metrics.
    pub path: &'static str,
    /// Methods and the scope that each requires. `GET` includes `HEAD`, except for a stream of events.
    pub methods: &'static [(Method, Scope)],
    /// How bodies are transferred.
    pub body_mode: BodyMode,
    /// The bodies of methods that differ from the default; see [`Route::body`].
    bodies: &'static [(Method, RequestBody)],
    /// Whether `GET` streams events. It does not support `HEAD`, because the stream has no end.
    pub streams_events: bool,
    /// Whether `gateway.anonymous = create` permits anonymous `POST` requests.
    pub creates_links: bool,
}

impl Route {
    /// The scope that the method requires; `None` if the route does not support it.
    pub fn scope(&self, method: &Method) -> Option<Scope> {
        let is_head = method == Method::HEAD && !self.streams_events;
        let method = if is_head { &Method::GET } else { method };
        self.methods.iter().find(|(known, _)| known == method).map(|(_, scope)| *scope)
    }

    /// The body that the method reads. Default: JSON of [`MAX_BODY_BYTES`] for `POST`, `PUT` and `PATCH`, none for
    /// other methods.
    pub fn body(&self, method: &Method) -> RequestBody {
        let own = self.bodies.iter().find(|(known, _)| known == method).map(|(_, body)| *body);
        own.unwrap_or_else(|| {
            if [Method::POST, Method::PUT, Method::PATCH].contains(method) {
                RequestBody::Json { max_bytes: MAX_BODY_BYTES }
            } else {
                RequestBody::Ignored
            }
        })
    }

    /// The route with this path, as actix names it.
    pub fn of_path(path: &str) -> Option<&'static Self> {
        ROUTES.iter().find(|route| route.path == path)
    }

    /// The value of the `Allow` header.
    pub fn allow(&self) -> String {
        let mut names = Vec::new();
        for (method, _) in self.methods {
            names.push(method.as_str());
            if method == Method::GET && !self.streams_events {
                names.push("HEAD");
            }
        }
        names.push("OPTIONS");
        names.join(", ")
    }

    /// A route with buffered bodies.
    pub const fn new(path: &'static str, methods: &'static [(Method, Scope)]) -> Self {
        Self {
            path,
            methods,
            body_mode: BodyMode::Buffered,
            bodies: &[],
            streams_events: false,
            creates_links: false,
        }
    }

    /// Streams the route's bodies.
    #[must_use]
    pub const fn streamed(mut self) -> Self {
        self.body_mode = BodyMode::Streamed;
        self
    }

    /// Streams events in response to `GET`.
    #[must_use]
    pub const fn streams_events(mut self) -> Self {
        self.streams_events = true;
        self.streamed()
    }

    /// Sets the bodies of methods that differ from the default.
    #[must_use]
    pub const fn bodies(mut self, bodies: &'static [(Method, RequestBody)]) -> Self {
        self.bodies = bodies;
        self
    }

    const fn creates_links(mut self) -> Self {
        self.creates_links = true;
        self
    }
}

/// Every API route.
pub static ROUTES: &[Route] = &[
    Route::new("/api/v1/urls", &[(Method::GET, Scope::UrlsRead), (Method::POST, Scope::UrlsWrite)])
        .creates_links(),
    Route::new(
        "/api/v1/urls/bulk",
        &[
            (Method::POST, Scope::JobsWrite),
            (Method::PATCH, Scope::UrlsWrite),
            (Method::DELETE, Scope::UrlsWrite),
        ],
    )
    .streamed()
    .bodies(&[
        (Method::POST, RequestBody::Upload),
        (Method::PATCH, RequestBody::Json { max_bytes: MAX_BULK_BODY_BYTES }),
        (Method::DELETE, RequestBody::Json { max_bytes: MAX_BULK_BODY_BYTES }),
    ]),
    Route::new("/api/v1/urls/export", &[(Method::GET, Scope::UrlsRead)]).streamed(),
    Route::new(
        "/api/v1/urls/{id}",
        &[
            (Method::GET, Scope::UrlsRead),
            (Method::PUT, Scope::UrlsWrite),
            (Method::PATCH, Scope::UrlsWrite),
            (Method::DELETE, Scope::UrlsWrite),
        ],
    ),
    Route::new(
        "/api/v1/urls/{id}/takedown",
        &[(Method::PUT, Scope::Admin), (Method::DELETE, Scope::Admin)],
    ),
    Route::new("/api/v1/urls/{id}/stats", &[(Method::GET, Scope::UrlsRead)]),
    Route::new("/api/v1/urls/{id}/live", &[(Method::GET, Scope::UrlsRead)]).streams_events(),
    Route::new("/api/v1/stats", &[(Method::GET, Scope::UrlsRead)]),
    Route::new(
        "/api/v1/events",
        &[(Method::GET, Scope::UrlsRead), (Method::POST, Scope::UrlsWrite)],
    ),
    Route::new("/api/v1/events/{id}", &[(Method::GET, Scope::UrlsRead)]),
    Route::new(
        "/api/v1/users",
        &[(Method::GET, Scope::UsersRead), (Method::POST, Scope::UsersWrite)],
    ),
    Route::new("/api/v1/users/bulk", &[(Method::POST, Scope::JobsWrite)])
        .streamed()
        .bodies(&[(Method::POST, RequestBody::Upload)]),
    Route::new(
        "/api/v1/users/{id}",
        &[
            (Method::GET, Scope::UsersRead),
            (Method::PUT, Scope::UsersWrite),
            (Method::PATCH, Scope::UsersWrite),
            (Method::DELETE, Scope::UsersWrite),
        ],
    ),
    Route::new("/api/v1/jobs", &[(Method::GET, Scope::UrlsRead)]),
    Route::new("/api/v1/jobs/dead", &[(Method::GET, Scope::UrlsRead)]),
    Route::new(
        "/api/v1/jobs/{id}",
        &[(Method::GET, Scope::UrlsRead), (Method::DELETE, Scope::JobsWrite)],
    ),
    Route::new("/api/v1/jobs/{id}/cancel", &[(Method::POST, Scope::JobsWrite)])
        .bodies(&[(Method::POST, RequestBody::Ignored)]),
    Route::new("/api/v1/jobs/{id}/replay", &[(Method::POST, Scope::JobsWrite)])
        .bodies(&[(Method::POST, RequestBody::Ignored)]),
    Route::new("/api/v1/jobs/{id}/errors", &[(Method::GET, Scope::UrlsRead)]).streamed(),
    Route::new("/api/v1/jobs/{id}/events", &[(Method::GET, Scope::UrlsRead)]).streams_events(),
    // The scope for reading is enough: a token expires after a minute, and opens only what its key may read.
    Route::new("/api/v1/stream-tokens", &[(Method::POST, Scope::UrlsRead)]),
    Route::new(
        "/api/v1/api-keys",
        &[(Method::GET, Scope::UsersRead), (Method::POST, Scope::UsersWrite)],
    ),
    Route::new(
        "/api/v1/api-keys/{id}",
        &[
            (Method::GET, Scope::UsersRead),
            (Method::PUT, Scope::UsersWrite),
            (Method::PATCH, Scope::UsersWrite),
            (Method::DELETE, Scope::UsersWrite),
        ],
    ),
    Route::new(
        "/api/v1/banned-hosts",
        &[(Method::GET, Scope::Admin), (Method::POST, Scope::Admin)],
    ),
    Route::new("/api/v1/banned-hosts/{id}", &[(Method::DELETE, Scope::Admin)]),
    Route::new(
        "/api/v1/banned-codes",
        &[(Method::GET, Scope::Admin), (Method::POST, Scope::Admin)],
    ),
    Route::new("/api/v1/banned-codes/{id}", &[(Method::DELETE, Scope::Admin)]),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn route(path: &str) -> &'static Route {
        ROUTES.iter().find(|route| route.path == path).unwrap()
    }

    #[test]
    fn reads_and_writes_require_different_scopes() {
        let urls = route("/api/v1/urls");
        assert_eq!(urls.scope(&Method::GET), Some(Scope::UrlsRead));
        assert_eq!(urls.scope(&Method::HEAD), Some(Scope::UrlsRead));
        assert_eq!(urls.scope(&Method::POST), Some(Scope::UrlsWrite));
        assert_eq!(urls.scope(&Method::DELETE), None);
        let reading = [Scope::UrlsRead, Scope::UsersRead];
        for route in ROUTES {
            for (method, scope) in route.methods.iter().filter(|(_, s)| *s != Scope::Admin) {
                assert_eq!(
                    reading.contains(scope),
                    *method == Method::GET || route.path == "/api/v1/stream-tokens",
                    "{} {method}",
                    route.path
                );
            }
        }
    }

    #[test]
    fn only_bulk_transfers_and_event_streams_are_streamed() {
        let streamed: Vec<_> =
            ROUTES.iter().filter(|r| r.body_mode == BodyMode::Streamed).map(|r| r.path).collect();
        assert_eq!(
            streamed,
            [
                "/api/v1/urls/bulk",
                "/api/v1/urls/export",
                "/api/v1/urls/{id}/live",
                "/api/v1/users/bulk",
                "/api/v1/jobs/{id}/errors",
                "/api/v1/jobs/{id}/events",
            ]
        );
    }

    #[test]
    fn allow_lists_the_methods_of_the_route() {
        assert_eq!(route("/api/v1/urls").allow(), "GET, HEAD, POST, OPTIONS");
    }

    #[test]
    fn event_streams_do_not_support_head() {
        for route in ROUTES {
            let get = route.scope(&Method::GET);
            let is_stream = route.path.ends_with("/live") || route.path.ends_with("{id}/events");
            let head = if is_stream { None } else { get };
            assert_eq!(route.scope(&Method::HEAD), head, "{}", route.path);
            assert_eq!(route.allow().contains("HEAD"), head.is_some(), "{}", route.path);
        }
        assert_eq!(route("/api/v1/jobs/{id}/events").allow(), "GET, OPTIONS");
    }

    #[test]
    fn must_25_every_method_has_a_bound_for_its_body() {
        let mut with_large_bodies = Vec::new();
        for route in ROUTES {
            for method in [Method::GET, Method::HEAD] {
                assert_eq!(route.body(&method), RequestBody::Ignored, "{}", route.path);
            }
            for (method, _) in route.methods {
                let what = format!("{method} {}", route.path);
                match route.body(method) {
                    RequestBody::Ignored => {
                        let is_action = ["/cancel", "/replay"].iter().any(|e| what.ends_with(e));
                        assert!(
                            is_action || [Method::GET, Method::DELETE].contains(method),
                            "{what}"
                        );
                    }
                    RequestBody::Json { max_bytes: MAX_BODY_BYTES } => {}
                    RequestBody::Json { .. } | RequestBody::Upload => with_large_bodies.push(what),
                }
            }
        }
        assert_eq!(
            with_large_bodies,
            [
                "POST /api/v1/urls/bulk",
                "PATCH /api/v1/urls/bulk",
                "DELETE /api/v1/urls/bulk",
                "POST /api/v1/users/bulk",
            ]
        );
    }

    #[test]
    fn every_path_is_unique() {
        let mut paths: Vec<_> = ROUTES.iter().map(|route| route.path).collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), ROUTES.len());
        for path in paths {
            assert_eq!(Route::of_path(path).map(|route| route.path), Some(path));
        }
        assert!(Route::of_path("/api/v1").is_none());
    }

    #[test]
    fn only_link_creation_may_be_anonymous() {
        let open: Vec<_> = ROUTES.iter().filter(|r| r.creates_links).map(|r| r.path).collect();
        assert_eq!(open, ["/api/v1/urls"]);
    }

    #[test]
    fn defaults_of_a_route_are_buffered_json_and_no_anonymous_creation() {
        const METHODS: &[(Method, Scope)] = &[(Method::POST, Scope::UrlsWrite)];
        const BODIES: &[(Method, RequestBody)] = &[(Method::POST, RequestBody::Upload)];
        let plain = Route::new("/x", METHODS);
        assert_eq!((plain.body_mode, plain.creates_links), (BodyMode::Buffered, false));
        for (method, body) in [
            (Method::POST, RequestBody::Json { max_bytes: 65_536 }),
            (Method::PUT, RequestBody::Json { max_bytes: 65_536 }),
            (Method::PATCH, RequestBody::Json { max_bytes: 65_536 }),
            (Method::GET, RequestBody::Ignored),
            (Method::DELETE, RequestBody::Ignored),
        ] {
            assert_eq!(plain.body(&method), body, "{method}");
        }
        assert_eq!(MAX_BULK_BODY_BYTES, 1_048_576);
        let upload = plain.streamed().bodies(BODIES);
        assert_eq!(upload.body_mode, BodyMode::Streamed);
        assert_eq!(upload.body(&Method::POST), RequestBody::Upload);
        assert_eq!(upload.allow(), "POST, OPTIONS");
    }
}
