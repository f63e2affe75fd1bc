//! The routes of the admin listener, the same in every process: `/metrics`, `/livez` and `/readyz`.
//!
//! `/livez` checks no dependency, because a restart would not repair it. `/readyz` checks the dependencies and decides
//! whether the process receives traffic. The listener must not be reachable from outside.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use actix_web::{HttpRequest, HttpResponse, web};
use futures::future::BoxFuture;
use prometheus::{Registry, TextEncoder};
use serde::{Serialize, Serializer, ser::SerializeMap as _};

use crate::service::ServiceInfo;

/// Timeout after which the process counts as not ready.
const READINESS_TIMEOUT: Duration = Duration::from_secs(2);

/// The name of the only check of a report that took too long.
const TIMED_OUT: &str = "readiness";

const METRICS_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Checks whether this process can serve traffic.
pub trait Readiness: Send + Sync {
    /// Checks every dependency, within 2 s.
    fn check(&self) -> BoxFuture<'_, ReadinessReport>;
}

/// The result of [`Readiness::check`].
#[derive(Debug, Clone, Serialize)]
pub struct ReadinessReport {
    /// Whether the process can serve traffic, even with degraded dependencies.
    pub ready: bool,
    /// The deployed release, which distinguishes old and new processes in a rollout.
    pub release: String,
    /// One entry per dependency.
    #[serde(serialize_with = "checks_by_name")]
    pub checks: Vec<(&'static str, CheckState)>,
}

/// The state of a dependency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "status", content = "detail", rename_all = "lowercase")]
pub enum CheckState {
    /// It responds.
    Up,
    /// It is unavailable, and the process serves without it. The text names the effect.
    Degraded(String),
    /// It is unavailable, and the process needs it. The text names the reason.
    Down(String),
}

impl CheckState {
    /// The names of all states.
    const NAMES: [&str; 3] = ["up", "degraded", "down"];

    const fn name(&self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Degraded(_) => "degraded",
            Self::Down(_) => "down",
        }
    }
}

fn checks_by_name<S: Serializer>(
    checks: &[(&'static str, CheckState)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(checks.len()))?;
    for (name, state) in checks {
        map.serialize_entry(name, state)?;
    }
    map.end()
}

/// The state of the routes.
#[derive(Clone)]
pub struct AdminState {
    /// Rendered at `/metrics`.
    pub registry: Registry,
    /// Checked at `/readyz`.
    pub readiness: Arc<dyn Readiness>,
    /// Reported at `/livez`.
    pub service: ServiceInfo,
}

/// Adds `GET /metrics`, `GET /livez` and `GET /readyz`.
pub fn admin_routes(cfg: &mut web::ServiceConfig, state: AdminState) {
    cfg.app_data(web::Data::new(state))
        .route("/metrics", web::get().to(metrics))
        .route("/livez", web::get().to(livez))
        .route("/readyz", web::get().to(readyz));
}

async fn metrics(state: web::Data<AdminState>) -> HttpResponse {
    match TextEncoder::new().encode_to_string(&state.registry.gather()) {
        Ok(mut text) => {
            write_readiness(&mut text, &report(&state, READINESS_TIMEOUT).await);
            HttpResponse::Ok().content_type(METRICS_CONTENT_TYPE).body(text)
        }
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "metrics not rendered");
            HttpResponse::InternalServerError().finish()
        }
    }
}

/// Appends the result of `/readyz` in the text format, because Prometheus does not scrape that path.
fn write_readiness(text: &mut String, report: &ReadinessReport) {
    text.push_str(concat!(
        "# HELP linnet_ready 1 if the process can serve traffic, otherwise 0.\n",
        "# TYPE linnet_ready gauge\n",
    ));
    // Writing to a string cannot fail.
    let _ = writeln!(text, "linnet_ready {}", u8::from(report.ready));
    text.push_str(concat!(
        "# HELP linnet_readiness_check State of each check of /readyz: 1 for the current state, otherwise 0.\n",
        "# TYPE linnet_readiness_check gauge\n",
    ));
    for (check, current) in &report.checks {
        for state in CheckState::NAMES {
            let value = u8::from(current.name() == state);
            let labels = format!("check=\"{check}\",state=\"{state}\"");
            let _ = writeln!(text, "linnet_readiness_check{{{labels}}} {value}");
        }
    }
}

async fn livez(state: web::Data<AdminState>) -> HttpResponse {
    HttpResponse::Ok().json(serde_json::json!({
        "status": "alive",
        "service": state.service.name,
        "version": state.service.version,
        "release": state.service.release,
    }))
}

/// `?exclude=NAME,…` leaves checks out of the decision, but not of the report: an orchestrator that removes every process from
/// its service while PostgreSQL is down would also remove the links that are cached. A name that no check has is an error.
async fn readyz(state: web::Data<AdminState>, request: HttpRequest) -> HttpResponse {
    let mut report = report(&state, READINESS_TIMEOUT).await;
    if let Some(excluded) = request.query_string().strip_prefix("exclude=") {
        let excluded: Vec<&str> = excluded.split(',').collect();
        // A check that timed out has no parts.
        let is_whole = report.checks.iter().all(|(name, _)| *name != TIMED_OUT);
        let is_known = |name: &&str| report.checks.iter().any(|(check, _)| check == name);
        if is_whole && !excluded.iter().all(is_known) {
            return HttpResponse::BadRequest()
                .content_type("text/plain; charset=utf-8")
                .body("exclude must list names of checks, separated by commas\n");
        }
        report.ready = !report
            .checks
            .iter()
            .any(|(name, state)| matches!(state, CheckState::Down(_)) && !excluded.contains(name));
    }
    if report.ready {
        HttpResponse::Ok().json(report)
    } else {
        HttpResponse::ServiceUnavailable().json(report)
    }
}

async fn report(state: &AdminState, timeout: Duration) -> ReadinessReport {
    let check = tokio::time::timeout(timeout, state.readiness.check());
    check.await.unwrap_or_else(|_| ReadinessReport {
        ready: false,
        release: state.service.release.to_owned(),
        checks: vec![(TIMED_OUT, CheckState::Down("the checks timed out".to_owned()))],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use actix_web::{App, http::StatusCode, test};
    use serde_json::{Value, json};

    struct Fixed(Option<ReadinessReport>);

    impl Readiness for Fixed {
        fn check(&self) -> BoxFuture<'_, ReadinessReport> {
            Box::pin(async {
                match &self.0 {
                    Some(report) => report.clone(),
                    None => futures::future::pending().await,
                }
            })
        }
    }

    fn state(report: Option<ReadinessReport>) -> AdminState {
        AdminState {
            registry: testing::telemetry().0.registry().clone(),
            readiness: Arc::new(Fixed(report)),
            service: ServiceInfo { name: "s", version: "1", release: "r1" },
        }
    }

    async fn get(path: &str, report: Option<ReadinessReport>) -> (StatusCode, String, String) {
        let state = state(report);
        let app = test::init_service(App::new().configure(|cfg| admin_routes(cfg, state))).await;
        let request = test::TestRequest::get().uri(path).to_request();
        let response = test::call_service(&app, request).await;
        let content_type = response.headers().get("content-type").unwrap().to_str().unwrap();
        let (status, content_type) = (response.status(), content_type.to_owned());
        let body = test::read_body(response).await;
        (status, content_type, String::from_utf8(body.to_vec()).unwrap())
    }

    fn report(ready: bool) -> ReadinessReport {
        ReadinessReport {
            ready,
            release: "r1".to_owned(),
            checks: vec![
                ("postgresql", CheckState::Up),
                ("redis", CheckState::Degraded("refused".to_owned())),
            ],
        }
    }

    #[actix_web::test]
    async fn readiness_reports_each_check_and_the_release() {
        let (status, _, body) = get("/readyz", Some(report(true))).await;
        let expected = json!({
            "ready": true,
            "release": "r1",
            "checks": {
                "postgresql": {"status": "up"},
                "redis": {"status": "degraded", "detail": "refused"},
            },
        });
        assert_eq!(status, StatusCode::OK);
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);
        assert_eq!(get("/readyz", Some(report(false))).await.0, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[actix_web::test]
    async fn excluded_checks_are_reported_and_do_not_decide() {
        let with = |serving| ReadinessReport {
            ready: false,
            release: "r1".to_owned(),
            checks: vec![
                ("postgresql", CheckState::Down("timed out".to_owned())),
                ("serving", serving),
            ],
        };
        let down = || CheckState::Down("draining".to_owned());
        let (status, _, body) = get("/readyz?exclude=postgresql", Some(with(CheckState::Up))).await;
        assert_eq!(status, StatusCode::OK);
        assert!(body.contains("timed out"), "{body}");
        for (path, report, wanted) in [
            ("/readyz", with(CheckState::Up), StatusCode::SERVICE_UNAVAILABLE),
            ("/readyz?exclude=postgresql", with(down()), StatusCode::SERVICE_UNAVAILABLE),
            ("/readyz?exclude=postgresql,serving", with(down()), StatusCode::OK),
            ("/readyz?exclude=postgres", with(CheckState::Up), StatusCode::BAD_REQUEST),
            ("/readyz?exclude=", with(CheckState::Up), StatusCode::BAD_REQUEST),
        ] {
            let request = get(path, Some(report)).await;
            assert_eq!(request.0, wanted, "{path}: {}", request.2);
        }
    }

    #[actix_web::test]
    async fn a_check_that_hangs_is_not_ready_and_does_not_affect_liveness() {
        let report = super::report(&state(None), Duration::from_millis(1)).await;
        let state = CheckState::Down("the checks timed out".to_owned());
        assert_eq!((report.ready, report.release.as_str()), (false, "r1"));
        assert_eq!(report.checks, [("readiness", state)]);
        assert_eq!(get("/livez", None).await.0, StatusCode::OK);
    }

    #[actix_web::test]
    async fn metrics_contain_the_readiness_and_each_check() {
        let body = get("/metrics", Some(report(false))).await.2;
        for line in [
            "linnet_ready 0",
            r#"linnet_readiness_check{check="postgresql",state="up"} 1"#,
            r#"linnet_readiness_check{check="postgresql",state="down"} 0"#,
            r#"linnet_readiness_check{check="redis",state="degraded"} 1"#,
        ] {
            assert!(body.lines().any(|found| found == line), "{line}: {body}");
        }
    }

    #[actix_web::test]
    async fn metrics_are_in_the_text_format() {
        let (status, content_type, body) = get("/metrics", Some(report(true))).await;
        assert_eq!((status, content_type.as_str()), (StatusCode::OK, METRICS_CONTENT_TYPE));
        assert!(body.contains("# TYPE build_info gauge\nbuild_info{"), "{body}");
    }
}
