//! Every API route: where it is, what it needs, how it moves.
//!
//! Order matters: the first path that matches wins, so literal segments stand before parameters.

use actix_web::http::Method;
use linnet_domain::Scope;

/// How a route's bodies move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyMode {
    /// The request's body is read first, within the size limit; the whole has a deadline.
    Buffered,
    /// Bodies pass through as they come, without a limit on size or total time.
    Streamed,
}

/// A path and what may be done there.
#[derive(Debug, Clone)]
pub struct Route {
    /// Actix's pattern; also the route's name in logs and metrics.
    pub path: &'static str,
    /// Methods and the scope that each needs. `GET` brings `HEAD`.
    pub methods: &'static [(Method, Scope)],
    /// How bodies move.
    pub body_mode: BodyMode,
    /// The one route that `anonymous = create` opens, for `POST`.
    pub creates_links: bool,
}

impl Route {
    /// The scope that the method needs; `None` if it is not allowed here.
    pub fn scope(&self, method: &Method) -> Option<Scope> {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        self.methods.iter().find(|(known, _)| known == method).map(|(_, scope)| *scope)
    }

    /// The value of `Allow`.
    pub fn allow(&self) -> String {
        let mut names = Vec::with_capacity(self.methods.len() + 2);
        for (method, _) in self.methods {
            names.push(method.as_str());
            if method == Method::GET {
                names.push("HEAD");
            }
        }
        names.push("OPTIONS");
        names.join(", ")
    }

    /// A route whose bodies are read first.
    pub const fn new(path: &'static str, methods: &'static [(Method, Scope)]) -> Self {
        Self { path, methods, body_mode: BodyMode::Buffered, creates_links: false }
    }

    /// Lets bodies pass as they come.
    #[must_use]
    pub const fn streams(mut self) -> Self {
        self.body_mode = BodyMode::Streamed;
        self
    }

    const fn creates_links(mut self) -> Self {
        self.creates_links = true;
        self
    }
}

/// The table.
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
    .streams(),
    Route::new("/api/v1/urls/export", &[(Method::GET, Scope::UrlsRead)]).streams(),
    Route::new(
        "/api/v1/urls/{id}",
        &[
            (Method::GET, Scope::UrlsRead),
            (Method::PUT, Scope::UrlsWrite),
            (Method::PATCH, Scope::UrlsWrite),
            (Method::DELETE, Scope::UrlsWrite),
        ],
    ),
    Route::new("/api/v1/urls/{id}/stats", &[(Method::GET, Scope::UrlsRead)]),
    Route::new("/api/v1/urls/{id}/live", &[(Method::GET, Scope::UrlsRead)]).streams(),
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
    Route::new("/api/v1/users/bulk", &[(Method::POST, Scope::JobsWrite)]).streams(),
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
    Route::new("/api/v1/jobs/{id}/cancel", &[(Method::POST, Scope::JobsWrite)]),
    Route::new("/api/v1/jobs/{id}/replay", &[(Method::POST, Scope::JobsWrite)]),
    Route::new("/api/v1/jobs/{id}/errors", &[(Method::GET, Scope::UrlsRead)]).streams(),
    Route::new("/api/v1/jobs/{id}/events", &[(Method::GET, Scope::UrlsRead)]).streams(),
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
];

#[cfg(test)]
mod tests {
    use super::*;

    fn route(path: &str) -> &'static Route {
        ROUTES.iter().find(|route| route.path == path).unwrap()
    }

    #[test]
    fn reading_and_writing_need_different_scopes() {
        let urls = route("/api/v1/urls");
        assert_eq!(urls.scope(&Method::GET), Some(Scope::UrlsRead));
        assert_eq!(urls.scope(&Method::HEAD), Some(Scope::UrlsRead));
        assert_eq!(urls.scope(&Method::POST), Some(Scope::UrlsWrite));
        assert_eq!(urls.scope(&Method::DELETE), None);
        let reading = [Scope::UrlsRead, Scope::UsersRead];
        for route in ROUTES {
            for (method, scope) in route.methods {
                assert_eq!(
                    reading.contains(scope),
                    *method == Method::GET,
                    "{} {method}",
                    route.path
                );
            }
        }
    }

    #[test]
    fn only_what_is_long_or_stays_open_streams() {
        let streams: Vec<_> =
            ROUTES.iter().filter(|r| r.body_mode == BodyMode::Streamed).map(|r| r.path).collect();
        assert_eq!(
            streams,
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
    fn allow_names_what_is_allowed() {
        assert_eq!(route("/api/v1/urls").allow(), "GET, HEAD, POST, OPTIONS");
    }

    #[test]
    fn no_path_is_there_twice() {
        let mut paths: Vec<_> = ROUTES.iter().map(|route| route.path).collect();
        paths.dedup();
        assert_eq!(paths.len(), ROUTES.len());
    }

    #[test]
    fn only_one_route_is_open_to_everybody_who_may_create() {
        let open: Vec<_> = ROUTES.iter().filter(|r| r.creates_links).map(|r| r.path).collect();
        assert_eq!(open, ["/api/v1/urls"]);
    }
}
