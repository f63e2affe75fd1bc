//! The metrics of a request have the attributes of OpenTelemetry's semantic conventions.

use super::*;

/// Attributes of `http.server.request.duration` and `http.server.active_requests`, and when they are present: OpenTelemetry
/// semantic conventions 1.37.0 for HTTP metrics, as of 2025-08. `network.protocol.*` and `server.*` are optional there.
const CONVENTIONS: [(&str, &str, When); 7] = [
    (COUNT, "http_request_method", When::Always),
    (COUNT, "url_scheme", When::Always),
    (COUNT, "http_response_status_code", When::Always),
    (COUNT, "http_route", When::RouteMatches),
    (COUNT, "error_type", When::ServerFails),
    (ACTIVE, "http_request_method", When::Always),
    (ACTIVE, "url_scheme", When::Always),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    RouteMatches,
    ServerFails,
}

#[actix_web::test]
async fn metrics_have_exactly_the_attributes_of_the_semantic_conventions() {
    for (path, matches, fails) in
        [("/queries/1", true, false), ("/fail", true, true), ("/nothing", false, false)]
    {
        let (telemetry, reader) = middleware();
        let app = app!(telemetry);
        read_body(call_service(&app, TestRequest::with_uri(path).to_request()).await).await;
        for metric in [COUNT, ACTIVE] {
            let text = reader.text();
            let series = text.lines().find(|line| line.starts_with(metric)).unwrap();
            let (_, labels) = series.split_once('{').unwrap();
            let (labels, _) = labels.rsplit_once('}').unwrap();
            let mut found: Vec<&str> = labels
                .split(',')
                .filter_map(|label| label.split_once('='))
                .map(|(name, _)| name)
                .filter(|name| !name.starts_with("otel_"))
                .collect();
            let mut expected: Vec<&str> = CONVENTIONS
                .iter()
                .filter(|(name, _, when)| {
                    *name == metric
                        && match when {
                            When::Always => true,
                            When::RouteMatches => matches,
                            When::ServerFails => fails,
                        }
                })
                .map(|(_, attribute, _)| *attribute)
                .collect();
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected, "{path}: {series}");
        }
        if fails {
            assert_eq!(reader.value(COUNT, &[("error_type", "500")]), Some(1.0));
        }
    }
}
